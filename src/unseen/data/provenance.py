"""``provenance.csv`` beside a class table: which cells a program drafted, and which a person has checked.

A drafted cell counts as checked if its row has ``yes`` in column ``checked``, or if the table holds another value.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.classes.spreadsheets.tables import find_table, read_table

if TYPE_CHECKING:
    import pandas as pd

PROVENANCE = "provenance"
DRAFTED = "drafted"
COLUMNS = ("class", "attribute", "value", "provenance", "model", "endpoint", "date", "checked")


def unchecked(folder: Path, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Class and attribute of every drafted cell that nobody has checked.

    Args:
        folder: folder of the dataset.
        table: its class table as text, by column.

    Raises:
        DataError: ``provenance.csv`` cannot be read.
    """
    path = find_table(folder, PROVENANCE)
    if path is None:
        return []
    frame = read_table(path, ["class", "attribute", "value", "provenance"], ["checked"])
    known = {column: list(table[column]) for column in table}
    rows = {name: i for i, name in enumerate(table["class"])}
    found = []
    for entry in frame.to_dict("records"):
        row: dict[str, Any] = {str(k): v for k, v in entry.items()}
        if row["provenance"] != DRAFTED or row.get("checked", "").casefold() in ("yes", "y", "1", "true", "x"):
            continue
        name, attribute = row["class"], row["attribute"]
        if name in rows and attribute in known and known[attribute][rows[name]] == row["value"]:
            found.append((name, attribute))
    return found
