"""Export a review: as a table (CSV, XLSX), or as images in one folder per class."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.errors import UnseenError
from unseen.ground.files import write_with
from unseen.model.predictions import UNKNOWN
from unseen.review.book import Review

COLUMNS = ("image", "class", "reviewed", "right", "answer", "best_class", "confidence", "seen", "attributes", "error")
"""Columns; ``class`` is the verdict, or else the answer."""
TABLES = (".csv", ".xlsx")
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def review_rows(review: Review) -> Iterator[dict[str, Any]]:
    """One row per image, with :data:`COLUMNS`; missing values are ``None``."""
    for row, item in enumerate(review.items):
        found: dict[str, Any] = dict.fromkeys(COLUMNS)
        found |= {"image": item.image, "class": review.final(row) or None, "reviewed": row in review.verdicts}
        found["error"] = item.error
        if row in review.verdicts:
            found["right"] = review.is_right(row)
        if item.error is None:
            name, seen, confidence = item.classes[0]
            found |= {"answer": name if item.known else UNKNOWN, "best_class": name, "seen": seen}
            found |= {"confidence": round(confidence, 6), "attributes": "; ".join(item.attributes)}
        yield found


def export_review(review: Review, path: Path) -> Path:
    """Write a table, or copy the images into ``path/CLASS/``.

    Args:
        review: review with all its images, reviewed or not.
        path: file that ends in one of :data:`TABLES`, or a folder that is new or empty.

    Returns:
        The path.

    Raises:
        UnseenError: it cannot be written, the folder is not empty, or an image is missing.
    """
    check_export(path)
    if path.suffix.lower() in TABLES:
        write = _write_csv if path.suffix.lower() == ".csv" else _write_xlsx
        write_with(path, lambda temporary: write(review, temporary))
    else:
        _copy(review, path)
    return path


def check_export(path: Path) -> None:
    """Raise an error if the export cannot be written there."""
    if path.is_dir() and path.suffix.lower() in TABLES:
        raise UnseenError("a folder", where=path, hint="pass a file name")
    if path.is_file() or (path.suffix and path.suffix.lower() not in TABLES and not path.is_dir()):
        if path.suffix.lower() in TABLES:
            return
        hint = f"use a file name that ends in {' or '.join(TABLES)}, or the name of a new folder"
        raise UnseenError("unsupported file format for a review", where=path, hint=hint)
    if path.is_dir() and any(path.iterdir()):
        raise UnseenError("not empty", where=path, hint="pass a new folder")


def _write_csv(review: Review, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in review_rows(review):
            writer.writerow({k: int(v) if isinstance(v, bool) else v for k, v in row.items()})


def _write_xlsx(review: Review, path: Path) -> None:
    write_workbook(path, "review", COLUMNS, (list(row.values()) for row in review_rows(review)))


def _copy(review: Review, folder: Path) -> None:
    places: dict[str, Path] = {}
    taken: set[str] = set()
    for row, item in enumerate(review.items):
        name = review.final(row)
        if not name:
            continue
        if name not in places:
            places[name] = folder / _free(_UNSAFE.sub("_", name).strip(". ") or "_", taken)
            places[name].mkdir(parents=True)
        source = Path(item.image)
        try:
            shutil.copy2(source, _beside(places[name], source.name))
        except OSError as error:
            hint = "restore it, or export a table"
            raise UnseenError(error.strerror or str(error), where=source, hint=hint) from None


def _free(name: str, taken: set[str]) -> str:
    """A folder name that no class has yet, ignoring case, as some systems do."""
    found, count = name, 1
    while found.casefold() in taken:
        count += 1
        found = f"{name}-{count}"
    taken.add(found.casefold())
    return found


def _beside(folder: Path, name: str) -> Path:
    path, count = folder / name, 1
    while path.exists():
        count += 1
        path = folder / f"{Path(name).stem}-{count}{Path(name).suffix}"
    return path
