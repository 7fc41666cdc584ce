"""Scores of a method for prepared images, and the decisions from which metrics are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unseen.evaluation.metrics import LEADING, Decisions
from unseen.ground.distributed import rows_of_all
from unseen.methods.base import Branch, Method
from unseen.methods.class_space import ClassSpace
from unseen.model.scoring import ClassScorer
from unseen.training.batches import ahead, own_batches
from unseen.training.divergence import DivergedError
from unseen.training.steps import Features, to_weight_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def query(method: Method, regions: Tensor, classes: ClassSpace, fabric: Fabric) -> Tensor:
    """The input of a :class:`ClassScorer` for prepared regions; the forward runs in Fabric's precision."""
    with fabric.autocast():
        branches: dict[str, Branch] = method(regions)
    to_weight_precision(branches, classes)
    return method.query(branches)


@torch.inference_mode()
def decide(
    method: Method, features: Features, labels: np.ndarray, classes: ClassSpace, fabric: Fabric, batch_size: int = 64
) -> Decisions:
    """Score images in batches and classes in blocks, and keep what the metrics need.

    Args:
        method: switched to evaluation mode.
        features: features of the images.
        labels: ``(n,)`` positions in ``classes``.
        classes: classes, on the method's device.
        fabric: provides the precision.
        batch_size: images per batch.
    """
    seen = classes.seen.cpu().numpy()
    method.eval()
    scorer = ClassScorer(method, classes)
    mine, rows = own_batches(len(labels), batch_size)
    none = classes.vectors.new_zeros(0, 2, LEADING)
    best, top = [none.long()], [none]
    for regions in ahead(features.batch, mine, features):
        found = scorer.best_of_kinds(query(method, regions, classes, fabric), LEADING)
        best.append(found[0])
        top.append(found[1])
    # once for all batches, to avoid waiting for the GPU in between
    leading = rows_of_all(torch.cat(best).cpu(), rows, len(labels)).numpy()
    scores = rows_of_all(torch.cat(top).cpu().double(), rows, len(labels)).numpy()
    unclear = np.flatnonzero(np.isnan(scores[:, :, 0]).any(axis=1))
    if len(unclear):
        problem = f"class scores of {len(unclear)} of {len(labels)} images are not finite"
        raise DivergedError(problem, where=method.name, hint="use --precision 32-true, or extract the features again")
    return Decisions(labels, leading, scores, ~seen[labels])
