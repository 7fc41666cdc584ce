"""Predict a stream of images to a file: CSV, XLSX, Parquet, JSON or JSON lines; resumable, in bounded memory.

Until all images are done, their predictions are in a journal, ``FILE.partial/journal.jsonl``: one line with what they
depend on, then one line per image, written in batches, each line with its checksum. At the end the file is made from
the journal.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout

from unseen.classes.prior import Prior
from unseen.classes.spreadsheets.tables import read_table
from unseen.classes.spreadsheets.workbook import write_workbook
from unseen.data.dataset import digest
from unseen.errors import DataError, RunError, UnseenError
from unseen.ground.extras import require
from unseen.ground.files import write_with
from unseen.ground.images import EncodedImage, HeldImage, PackedImage
from unseen.ground.journal import Journal
from unseen.ground.progress import Progress, silent
from unseen.model.predictions import Extent, Prediction, columns
from unseen.recognizer.occasions import Occasions
from unseen.recognizer.recognizer import Recognizer
from unseen.version import __version__

ENDINGS = (".csv", ".xlsx", ".parquet", ".json", ".jsonl")
ROW_GROUP = 8192
MOST_ROWS = 1_048_575
"""Rows of a sheet below the header; spreadsheet programs read no more."""
PREDICTIONS = "predictions"
"""Name of the sheet."""
ABOUT = b"unseen"
"""Key of the metadata in a Parquet file's schema, see :mod:`unseen.recognizer.merging`."""
SYNC_SECONDS = 10.0
"""Interval in seconds for syncing the journal to disk, as protection against power loss."""


@dataclass(frozen=True)
class Options:
    """Options of :meth:`Recognizer.outcomes`; see there."""

    top: int = 3
    among: str = "all"
    only: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    unknown: float | str = "auto"
    batch_size: int = 32
    together: bool = False
    rank: str | None = None
    prior: Prior | Occasions | None = None

    def extent(self, recognizer: Recognizer) -> Extent:
        """Fields of the predictions."""
        chosen = self.among, self.only, self.exclude
        return recognizer.extent(self.top, *chosen, together=self.together, rank=self.rank, prior=self.prior)


@dataclass
class Counts:
    """Number of images, how many of them are broken or unknown, and how many unknown ones have a coarser answer."""

    images: int = 0
    broken: int = 0
    unknown: int = 0
    coarser: int = 0

    def add(self, record: dict[str, Any]) -> None:
        """Count an image's record."""
        self.images += 1
        self.broken += "error" in record
        self.unknown += "error" not in record and not record["known"]
        self.coarser += not record["known"] and bool(record.get("answer_rank"))


def record_of(image: object, outcome: Prediction | DataError) -> dict[str, Any]:
    """A prediction as JSON types, or the error in its place."""
    if isinstance(outcome, Prediction):
        return outcome.as_dict()
    about = outcome.problem if outcome.hint is None else f"{outcome.problem} — {outcome.hint}"
    return {"image": str(image), "known": False, "classes": [], "attributes": [], "error": about}


def row_of(record: dict[str, Any], extent: Extent) -> dict[str, Any]:
    """One row per image, see :meth:`Prediction.row`; for a broken image only path and error.

    Args:
        record: from :func:`record_of`.
        extent: columns of the table.
    """
    if "error" in record:
        return dict.fromkeys(columns(extent)) | {"image": record["image"], "error": record["error"]}
    return Prediction.from_dict(record).row(extent)


def check_output(path: Path, restart: bool = False) -> None:
    """Raise an error if a file cannot be started: wrong extension, or it already exists."""
    if path.suffix.lower() not in ENDINGS:
        raise UnseenError(
            "unsupported file format for predictions", where=path, hint=f"use one of {', '.join(ENDINGS)}"
        )
    if path.is_dir():
        raise UnseenError("a folder", where=path, hint="pass a file name")
    if path.exists() and not restart and not _journal(path).is_file():
        shutil.rmtree(_journal(path).parent, ignore_errors=True)  # left by a call that was killed after its end
        raise UnseenError("already exists", where=path, hint="pass another --output, or --restart to overwrite it")


def _journal(path: Path) -> Path:
    return path.with_name(path.name + ".partial") / "journal.jsonl"


def predict_to_file(
    recognizer: Recognizer,
    images: Iterable[Path | EncodedImage],
    path: Path,
    options: Options | None = None,
    *,
    total: int = 0,
    workers: int = 2,
    restart: bool = False,
    over: str = "pass --restart to start over",
    progress: Progress = silent,
    broken: Callable[[DataError], None] = lambda error: None,
) -> Counts:
    """Predict images to a file, or resume an earlier call that was stopped.

    On the CPU the file is byte for byte that of an uninterrupted call: an interrupted batch is repeated as a
    whole. Only a workbook also holds the time when it was written.

    Args:
        recognizer: model.
        images: images, in the same order at every iteration.
        path: file that ends in one of :data:`ENDINGS`.
        options: what to predict.
        total: number of images, for progress.
        workers: threads that read images.
        restart: start over, and replace ``path`` if it exists.
        over: hint that says how to start over.
        progress: progress callback.
        broken: called with the error of every unreadable image; its row holds the error.

    Raises:
        UnseenError: ``path`` already exists or cannot be written, or another process writes it.
        RunError: the earlier call had another model, other options or other images.
    """
    options = options or Options()
    check_output(path, restart)
    check_rows(path, total, f"use --output {path.with_suffix('.csv')}")
    recognizer.outcomes([], **vars(options))  # raises if they do not fit together
    with _locked(path) as journal:
        if restart or options.together:  # a batch is repeated as a whole
            journal.unlink(missing_ok=True)
        extent = options.extent(recognizer)
        facts = facts_of(recognizer, options)
        counts = Counts()
        with _written(journal):
            kept = Journal(journal, SYNC_SECONDS)
        with kept:
            stream = iter(images)
            _replay(kept, facts, stream, options.batch_size, counts, over)
            _predict(recognizer, stream, kept, options, counts, total, workers, progress, broken)
        _finish(journal, path, extent, counts.images, {"facts": facts, "batch": options.batch_size})
        journal.unlink()
        shutil.rmtree(journal.parent, ignore_errors=True)
    return counts


def check_rows(path: Path, images: int, hint: str) -> None:
    """Raise an error if a workbook cannot hold a row for every image."""
    if path.suffix.lower() == ".xlsx" and images > MOST_ROWS:
        raise UnseenError(f"{images:,} images, more than the {MOST_ROWS:,} rows of a sheet", where=path, hint=hint)


@contextmanager
def _written(journal: Path) -> Iterator[None]:
    """Turn an operating system error about the journal into one line."""
    try:
        yield
    except OSError as error:
        hint = "free some disk space, then repeat the command"
        raise UnseenError(error.strerror or str(error), where=journal, hint=hint) from None


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The journal, locked for this process."""
    journal = _journal(path)
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(journal.parent / ".lock").acquire(timeout=0)
    except Timeout:
        raise UnseenError("another process is writing this file", where=path, hint="wait until it ends") from None
    except OSError as error:
        raise UnseenError(error.strerror or str(error), where=path, hint="choose a writable folder") from None
    with held:
        yield journal


def facts_of(recognizer: Recognizer, options: Options) -> dict[str, str]:
    """Digests of what the predictions depend on beside the images, by readable name."""
    method, table = recognizer.method, recognizer.table
    weights = [t.detach().cpu().contiguous().view(torch.uint8).numpy() for t in method.state_dict().values() if t.dim()]
    weights += [t.detach().cpu().double().numpy() for t in method.state_dict().values() if not t.dim()]
    numbers = (recognizer.gamma, recognizer.temperature, recognizer.threshold, recognizer.store_dtype)
    ranks = json.dumps({rank: vars(one) for rank, one in recognizer.rank_thresholds.items()}, sort_keys=True)
    chosen = [sorted(names) if names is not None else None for names in (options.only, options.exclude)]
    plain = {k: v for k, v in vars(options).items() if k not in ("among", "only", "exclude", "prior")}
    support = {name: [image.sha256 for image in recognizer.support[name].images] for name in recognizer.support.classes}
    return {
        "model": digest(method.name, method.settings, recognizer.backbone.fingerprint, *numbers, ranks, *weights),
        "class table": digest(json.dumps(table.names), table.attributes, table.values, table.seen, table.taxonomy),
        "support images": digest(json.dumps(support, sort_keys=True)),
        "class selection": digest(options.among, json.dumps(chosen)),
        "options": digest(json.dumps(plain)),
        "prior": "" if options.prior is None else options.prior.fingerprint,
        "device": recognizer.device.type,
        "version": f"{__version__}, torch {torch.__version__}",
    }


def _stamp(image: Path | EncodedImage) -> list[int] | None:
    """Size and modification time, to detect an exchanged image."""
    if isinstance(image, HeldImage):
        return [len(image.data), zlib.crc32(image.data)]
    try:
        found = Path(image.archive if isinstance(image, PackedImage) else str(image)).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _replay(
    journal: Journal,
    facts: dict[str, str],
    stream: Iterator[Path | EncodedImage],
    batch: int,
    counts: Counts,
    over: str,
) -> None:
    """Count the complete batches in the journal, skip their images in the stream, and truncate the rest."""
    folder, hint = journal.path.parent, over
    records = journal.records()
    header = next(records, None)
    if header is None:
        if journal.path.read_bytes().count(b"\n"):
            raise RunError("damaged", where=journal.path, hint=hint)
        with _written(journal.path):
            journal.cut(0)
            journal.append({"facts": facts})
        return
    earlier, end = header[0].get("facts"), header[1]
    if not isinstance(earlier, dict):
        raise RunError("damaged", where=journal.path, hint=hint)
    changed = [name for name, value in facts.items() if earlier.get(name) != value]
    if changed:
        problem = f"the unfinished output has another {' and another '.join(changed)}"
        raise RunError(problem, where=folder, hint=f"repeat the original command, or {hint}")
    while len(whole := list(islice(records, batch))) == batch:
        for record, _ in whole:
            image = next(stream, None)
            if image is None or str(image) != record["image"] or _stamp(image) != record["stamp"]:
                problem = f"the images have changed since the start, first {record['image']}"
                raise RunError(problem, where=folder, hint=hint)
            counts.add(record)
        end = whole[-1][1]
    with _written(journal.path):
        journal.cut(end)


def _predict(
    recognizer: Recognizer,
    stream: Iterator[Path | EncodedImage],
    journal: Journal,
    options: Options,
    counts: Counts,
    total: int,
    workers: int,
    progress: Progress,
    broken: Callable[[DataError], None],
) -> None:
    asked: deque[tuple[Path | EncodedImage, list[int] | None]] = deque()

    def images() -> Iterator[Path | EncodedImage]:
        for image in stream:
            asked.append((image, _stamp(image)))
            yield image

    started, before = time.monotonic(), counts.images
    kept: list[dict[str, Any]] = []

    def keep() -> None:
        with _written(journal.path):
            journal.append(*kept)
        kept.clear()
        speed = (counts.images - before) / max(time.monotonic() - started, 1e-9)
        progress("predicting", counts.images, max(total, counts.images), f"{speed:.0f} images/s")

    progress("predicting", before, max(total, before))
    for outcome in recognizer.outcomes(images(), **vars(options), workers=workers):
        image, stamp = asked.popleft()
        if isinstance(outcome, DataError):
            broken(outcome)
        record = record_of(image, outcome)
        counts.add(record)
        kept.append({**record, "stamp": stamp})
        if len(kept) == options.batch_size:
            keep()
    keep()


def _finish(journal: Path, path: Path, extent: Extent, images: int, about: dict[str, Any]) -> None:
    """Make the file from the whole journal."""
    parquet = partial(_write_parquet, about=about)
    write: dict[str, Callable[[Path, Iterable[dict[str, Any]], Extent], None]]
    write = {
        ".csv": _write_csv,
        ".xlsx": _write_xlsx,
        ".parquet": parquet,
        ".json": _write_json,
        ".jsonl": _write_lines,
    }
    table = path.with_suffix(".csv")
    check_rows(path, images, f"rename {journal.parent} to {_journal(table).parent}, and repeat it with -o {table}")
    with Journal(journal) as kept:
        records = _all_records(kept, images)
        write_with(path, lambda temporary: write[path.suffix.lower()](temporary, records, extent))


def _all_records(journal: Journal, images: int) -> Iterator[dict[str, Any]]:
    """Yield the given number of records; RunError if some were lost after they were written."""
    found = 0
    for record, _ in islice(journal.records(), 1, None):
        found += 1
        yield {name: value for name, value in record.items() if name != "stamp"}
    if found != images:
        raise RunError("damaged", where=journal.path, hint="repeat the command to resume before the damaged part")


def _open(path: Path) -> IO[str]:
    # names that are not UTF-8 are written as their bytes
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row in CSV form: six decimals, 1 and 0."""
    return {k: f"{v:.6f}" if isinstance(v, float) else int(v) if v is True or v is False else v for k, v in row.items()}


def _write_csv(path: Path, records: Iterable[dict[str, Any]], extent: Extent) -> None:
    with _open(path) as file:
        writer = csv.DictWriter(file, list(columns(extent)), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow(shown(row_of(record, extent)))


def _write_xlsx(path: Path, records: Iterable[dict[str, Any]], extent: Extent) -> None:
    names = list(columns(extent))
    rows = (row_of(record, extent) for record in records)
    write_workbook(path, PREDICTIONS, names, ([sheet_cell(row[name]) for name in names] for row in rows))


def sheet_cell(value: Any) -> Any:
    """A value as in CSV, but as a number; bytes of file names that are not UTF-8 are escaped."""
    if isinstance(value, str):
        return os.fsencode(value).decode(errors="backslashreplace")
    return round(value, 6) if isinstance(value, float) else value


def _write_json(path: Path, records: Iterable[dict[str, Any]], extent: Extent) -> None:
    with _open(path) as file:
        file.write("[")
        for i, record in enumerate(records):
            file.write((",\n" if i else "\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")


def _write_lines(path: Path, records: Iterable[dict[str, Any]], extent: Extent) -> None:
    with _open(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _write_parquet(path: Path, records: Iterable[dict[str, Any]], extent: Extent, about: dict[str, Any]) -> None:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns(extent).items()])
    schema = schema.with_metadata({ABOUT: json.dumps(about)})
    rows = (row_of(record, extent) for record in records)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            for row in group:  # Parquet's text is UTF-8, but file names need not be
                row["image"] = os.fsencode(row["image"]).decode(errors="backslashreplace")
            writer.write_table(pa.Table.from_pylist(group, schema))


def names_from(entries: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Class names from the command line.

    Args:
        entries: each is a class name, names separated by commas, ``@FILE``, or a file: one name per line, or the first
            column (or the one called ``class``) of a CSV table.
        names: of all classes.

    Raises:
        DataError: a file cannot be read. The recognizer reports unknown names.
    """
    known, found = set(names), []
    for entry in entries:
        file = Path(entry.removeprefix("@"))
        if entry in known:
            found.append(entry)
        elif entry.startswith("@") or file.is_file():
            found += _names_in(file)
        else:
            found += [name.strip() for name in entry.split(",") if name.strip()]
    return tuple(found)


def _names_in(path: Path) -> list[str]:
    if path.suffix.lower() == ".csv":
        frame = read_table(path)
        if "class" not in frame and len(frame.columns) > 1:
            raise DataError("no class column", where=path, hint='name it "class"')
        names = list(frame["class"] if "class" in frame else [*frame.columns, *frame.iloc[:, 0]])
        return [name for name in names if name]
    try:
        return [name for line in path.read_text(encoding="utf-8-sig").splitlines() if (name := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "not a text file"
        raise DataError(problem, where=path, hint="pass a text file with one class per line") from None
