"""Store a :class:`Dataset` as a folder without any interpretation, and read it back.

``saved-dataset.json`` marks such a folder: its tables are taken literally, and the images are below the root named
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unseen.classes.attributes import write_attributes
from unseen.classes.spreadsheets.tables import read_columns
from unseen.classes.table import ClassTable
from unseen.data.dataset import Dataset
from unseen.data.folder import read_parts, read_vectors
from unseen.errors import DataError
from unseen.ground.files import read_json, write_json, write_text, write_with

if TYPE_CHECKING:
    import pandas as pd

FILE = "saved-dataset.json"
FORMAT = 1


@dataclass(frozen=True)
class _Facts:
    """Content of ``saved-dataset.json``."""

    format: int
    name: str
    images: str
    warnings: tuple[str, ...] = ()
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def is_saved(folder: Path | str) -> bool:
    """Whether a folder was written by :func:`save_dataset`."""
    return (Path(folder) / FILE).is_file()


def save_dataset(dataset: Dataset, folder: Path | str) -> Path:
    """Write a dataset's tables; its images stay where they are.

    Raises:
        DataError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not is_saved(folder):
        raise DataError(
            "the folder is not empty and contains no saved dataset", where=folder, hint="choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    names = dataset.table.names
    dataset.table.to_csv(folder / "classes.csv")
    write_attributes(folder / "attributes.csv", dataset.table.attributes)
    rows = {"file": dataset.files, "class": [names[c] for c in dataset.labels], "split": dataset.split}
    write_text(folder / "images.csv", _frame(rows).to_csv(index=False))
    if dataset.attribute_vectors is not None:
        vectors = dataset.attribute_vectors

        def save(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)

        write_with(folder / "attribute_vectors.npy", save)
    if dataset.part_positions is not None:
        write_text(folder / "parts.csv", dataset.part_positions.to_csv(index=False))
    root = str(dataset.images.expanduser().absolute())
    facts = {"format": FORMAT, "name": dataset.name, "images": root, "warnings": list(dataset.warnings)}
    write_json(folder / FILE, facts)
    return folder


def load_saved(folder: Path | str) -> Dataset:
    """Read the dataset that :func:`save_dataset` wrote.

    Raises:
        DataError: a file is missing or damaged, or tables contradict each other.
    """
    from unseen.ground.checked import checked

    folder, hint = Path(folder), "save it again"
    facts = checked(_Facts, read_json(folder / FILE, DataError, hint), folder / FILE, error=DataError, hint=hint)
    if facts.format != FORMAT:
        raise DataError(f"format {facts.format} instead of {FORMAT}", where=folder / FILE, hint=hint)
    table = ClassTable.from_csv(folder / "classes.csv", folder / "attributes.csv")
    columns = read_columns(folder / "images.csv", ["file", "class", "split"], exact=True)
    positions = {name: i for i, name in enumerate(table.names)}
    labels = np.array([positions.get(name, -1) for name in columns["class"]], dtype=np.int64)
    files = tuple(columns["file"])
    return Dataset(
        facts.name,
        Path(facts.images),
        table,
        files,
        labels,
        np.array(columns["split"], dtype=object),
        attribute_vectors=read_vectors(folder / "attribute_vectors.npy", table.attributes),
        part_positions=read_parts(folder, set(files)),
        warnings=facts.warnings,
    )


def _frame(rows: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows)
