"""Review answers: a person's verdict on each image, stored on disk, measured and exported."""

from unseen.review.book import Item, Measured, Review, Verdict, read_items
from unseen.review.export import export_review
from unseen.review.sheet import write_sheet

__all__ = ["Item", "Measured", "Review", "Verdict", "export_review", "read_items", "write_sheet"]
