"""``unseen classes``: change the classes of a trained model without retraining, and compare them."""

from unseen.cli.classes import listing, changing, images, comparing  # isort: skip  # the order in --help

__all__ = ["changing", "comparing", "images", "listing"]
