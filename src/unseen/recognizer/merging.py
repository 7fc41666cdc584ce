"""Merge the parts of ``unseen predict --shard`` into one table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.errors import RunError, UnseenError
from unseen.ground.extras import require
from unseen.ground.files import write_with
from unseen.recognizer.stream import ABOUT, PREDICTIONS, ROW_GROUP, check_rows, sheet_cell, shown

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".csv", ".xlsx", ".parquet")
_PART = re.compile(r"part-(\d+)-of-(\d+)\.parquet")


def merge(folder: Path, output: Path, restart: bool = False) -> int:
    """Merge all parts of a folder into one table, with the rows in the order of a single process; returns their number.

    Args:
        folder: folder with the parts.
        output: ``.csv``, ``.xlsx`` or ``.parquet`` file.
        restart: replace ``output``.

    Raises:
        UnseenError: the output already exists, has another extension, or is a workbook for too many images.
        RunError: a part is missing or damaged, or has another model or other options than the rest.
    """
    if output.suffix.lower() not in ENDINGS:
        raise UnseenError(
            "unsupported file format for merged parts", where=output, hint=f"use one of {', '.join(ENDINGS)}"
        )
    if output.exists() and not restart:
        raise UnseenError("already exists", where=output, hint="pass another --output, or --restart to replace it")
    paths = _parts(folder)
    about = [_about(path) for path in paths]
    for path, one in zip(paths, about, strict=True):
        changed = [k for k, v in about[0]["facts"].items() if one["facts"].get(k) != v]
        if changed or one["batch"] != about[0]["batch"]:
            problem = f"differs from {paths[0].name} in {' and '.join(changed) or 'batch size'}"
            raise RunError(problem, where=path, hint="predict it again, with --restart")
    total: int = sum(one["images"] for one in about)
    check_rows(output, total, f"use --output {output.with_suffix('.csv')}")
    write = {".csv": _merged_csv, ".xlsx": _merged_xlsx, ".parquet": _merged_parquet}[output.suffix.lower()]
    write_with(output, lambda path: write(path, _schema(paths[0]), _rows(paths, about[0]["batch"])))
    return total


def _parts(folder: Path) -> list[Path]:
    found = {path: m for path in sorted(folder.glob("part-*")) if (m := _PART.fullmatch(path.name))}
    counts = sorted({int(m[2]) for m in found.values()})
    if not counts:
        raise RunError("no parts", where=folder, hint="unseen predict RUN IMAGES --shard 0/4 -o FOLDER, for instance")
    if len(counts) > 1:
        problem = f"parts of runs with {' and '.join(map(str, counts))} shards"
        raise RunError(problem, where=folder, hint="remove the parts of all but one")
    there = {int(m[1]) for m in found.values()}
    missing = [i for i in range(counts[0]) if i not in there]
    if missing:
        named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        begun = [p.name for p in folder.glob("part-*.partial")]
        hint = f"run --shard {missing[0]}/{counts[0]}" + (" again, which resumes" if begun else "")
        raise RunError(f"{len(missing)} of {counts[0]} parts are missing: {named}", where=folder, hint=hint)
    return list(found)


def _about(path: Path) -> dict[str, Any]:
    kept = (_schema(path).metadata or {}).get(ABOUT)
    try:
        found: dict[str, Any] = json.loads(kept or b"")
        if not isinstance(found["facts"], dict) or not isinstance(found["batch"], int):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise RunError("not a part written by `unseen predict --shard`", where=path, hint="predict it again") from None
    return {**found, "images": _opened(path).metadata.num_rows}


def _opened(path: Path) -> Any:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise RunError(f"damaged ({said})", where=path, hint="predict it again, with --restart") from None


def _schema(path: Path) -> pa.Schema:
    return _opened(path).schema_arrow


def _rows(paths: list[Path], batch: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch of each part in turn, until one part ends."""
    readers = [_opened(path).iter_batches(batch_size=batch) for path in paths]
    while True:
        for reader in readers:
            found = next(reader, None)
            if found is None:
                return
            yield found


def _merged_parquet(path: Path, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema.remove_metadata()) as writer:
        kept: list[Any] = []
        for found in rows:
            kept.append(found)
            if sum(map(len, kept)) >= ROW_GROUP:
                whole = pa.Table.from_batches(kept)
                writer.write_table(whole.slice(0, ROW_GROUP).replace_schema_metadata())
                kept = whole.slice(ROW_GROUP).to_batches()
        writer.write_table(pa.Table.from_batches(kept, schema).replace_schema_metadata())


def _merged_csv(path: Path, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, schema.names, lineterminator="\n")
        writer.writeheader()
        for found in rows:
            writer.writerows(shown(row) for row in found.to_pylist())


def _merged_xlsx(path: Path, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
    cells = ([sheet_cell(row[name]) for name in schema.names] for found in rows for row in found.to_pylist())
    write_workbook(path, PREDICTIONS, schema.names, cells)
