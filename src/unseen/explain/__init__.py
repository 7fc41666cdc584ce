"""Explanations: evidence and heat maps as figures."""
