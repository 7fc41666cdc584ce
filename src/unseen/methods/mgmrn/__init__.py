"""Mg-MRN: Multi-Granularity Mutual Refinement Network (arXiv 2511.08163); see :mod:`unseen.methods.mgmrn.network`."""

from unseen.methods.mgmrn.network import MgMRN
from unseen.methods.mgmrn.settings import LEVELS, PRESETS, MgMRNSettings

__all__ = ["LEVELS", "PRESETS", "MgMRN", "MgMRNSettings"]
