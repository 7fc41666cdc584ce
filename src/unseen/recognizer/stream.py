"""Predictions of a stream of images as a file: CSV, Parquet, JSON or JSON lines; resumable, in bounded memory.

Until all images are done, their predictions stand in a journal, ``FILE.partial/journal.jsonl``: a line that says what
they depend on, then a line an image, a batch at a time, each with its checksum. The file itself is made from the
journal at the end.
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
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout

from unseen.classes.spreadsheets.tables import read_table
from unseen.data.dataset import digest
from unseen.errors import DataError, RunError, UnseenError
from unseen.ground.extras import require
from unseen.ground.files import write_with
from unseen.ground.images import EncodedImage, HeldImage, PackedImage
from unseen.ground.journal import Journal
from unseen.ground.progress import Progress, silent
from unseen.model.predictions import Prediction, columns
from unseen.recognizer.recognizer import Recognizer
from unseen.version import __version__

ENDINGS = (".csv", ".parquet", ".json", ".jsonl")
ROW_GROUP = 8192
ABOUT = b"unseen"
"""Key of what a Parquet file says of itself, in the metadata of its schema: see :mod:`unseen.recognizer.merging`."""
SYNC_SECONDS = 10.0
"""How often the journal is brought to the disk for certain, against loss of power."""


@dataclass(frozen=True)
class Options:
    """What is asked of :meth:`Recognizer.outcomes`; see there."""

    top: int = 3
    among: str = "all"
    only: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    unknown: float | str = "auto"
    batch_size: int = 32
    together: bool = False


@dataclass
class Counts:
    """How many images there are, and how many of them broken or unknown."""

    images: int = 0
    broken: int = 0
    unknown: int = 0

    def add(self, record: dict[str, Any]) -> None:
        """Count an image's record."""
        self.images += 1
        self.broken += "error" in record
        self.unknown += "error" not in record and not record["known"]


def record_of(image: object, outcome: Prediction | DataError) -> dict[str, Any]:
    """JSON form of a prediction, or of the error in its place."""
    if isinstance(outcome, Prediction):
        return outcome.as_dict()
    about = outcome.problem if outcome.hint is None else f"{outcome.problem} — {outcome.hint}"
    return {"image": str(image), "known": False, "classes": [], "attributes": [], "error": about}


def row_of(record: dict[str, Any], count: int) -> dict[str, Any]:
    """One row an image, see :meth:`Prediction.row`; of a broken one only its path and the error.

    Args:
        record: of :func:`record_of`.
        count: how many classes have columns.
    """
    if "error" in record:
        return dict.fromkeys(columns(count)) | {"image": record["image"], "error": record["error"]}
    return Prediction.from_dict(record).row(count)


def check_output(path: Path, restart: bool = False) -> None:
    """Raise where a file cannot be begun: its ending, or it is there already."""
    if path.suffix.lower() not in ENDINGS:
        raise UnseenError(
            "unsupported file format for predictions", where=path, hint=f"use one of {', '.join(ENDINGS)}"
        )
    if path.is_dir():
        raise UnseenError("a folder", where=path, hint="pass a file name")
    if path.exists() and not restart and not _journal(path).is_file():
        shutil.rmtree(_journal(path).parent, ignore_errors=True)  # of a call that was killed after its end
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
    progress: Progress = silent,
    broken: Callable[[DataError], None] = lambda error: None,
) -> Counts:
    """Predict images into a file, or go on where an earlier call was stopped.

    On the CPU the file's bytes are those of a call that was not stopped: a stopped batch is done again as a whole.

    Args:
        recognizer: the model.
        images: in the same order at every iteration.
        path: ending in one of :data:`ENDINGS`.
        options: what to predict.
        total: how many images there are, for ``report``.
        workers: threads that read images.
        restart: begin anew, and replace ``path`` where it is there.
        progress: told how far it is.
        broken: told of every image that could not be read; it has a row with the error all the same.

    Raises:
        UnseenError: ``path`` is there already, cannot be written, or another process is writing it.
        RunError: what was begun earlier was of another model, other options or other images.
    """
    options = options or Options()
    check_output(path, restart)
    recognizer.outcomes([], **vars(options))  # which raises where they do not hold together
    with _locked(path) as journal:
        if restart or options.together:  # a batch as a whole is done as a whole
            journal.unlink(missing_ok=True)
        count = min(options.top, len(recognizer.choices(options.among, options.only, options.exclude)))
        facts = facts_of(recognizer, options)
        counts = Counts()
        with _written(journal):
            kept = Journal(journal, SYNC_SECONDS)
        with kept:
            stream = iter(images)
            _replay(kept, facts, stream, options.batch_size, counts)
            _predict(recognizer, stream, kept, options, counts, total, workers, progress, broken)
        _finish(journal, path, count, counts.images, {"facts": facts, "batch": options.batch_size}, options.together)
        journal.unlink()
        shutil.rmtree(journal.parent, ignore_errors=True)
    return counts


@contextmanager
def _written(journal: Path) -> Iterator[None]:
    """What the system says of a journal that cannot be written, as one line."""
    try:
        yield
    except OSError as error:
        hint = "free some disk space, then repeat the command"
        raise UnseenError(error.strerror or str(error), where=journal, hint=hint) from None


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """The journal, this process's alone."""
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
    """Digests of what the predictions depend on beside the images, by what a person calls it."""
    method, table = recognizer.method, recognizer.table
    weights = [t.detach().cpu().contiguous().view(torch.uint8).numpy() for t in method.state_dict().values() if t.dim()]
    weights += [t.detach().cpu().double().numpy() for t in method.state_dict().values() if not t.dim()]
    numbers = (recognizer.gamma, recognizer.temperature, recognizer.threshold, recognizer.store_dtype)
    chosen = [sorted(names) if names is not None else None for names in (options.only, options.exclude)]
    plain = {k: v for k, v in asdict(options).items() if k not in ("among", "only", "exclude")}
    support = {name: [image.sha256 for image in recognizer.support[name].images] for name in recognizer.support.classes}
    return {
        "model": digest(method.name, method.settings, recognizer.backbone.fingerprint, *numbers, *weights),
        "class table": digest(json.dumps(table.names), table.attributes, table.values, table.seen, table.taxonomy),
        "support images": digest(json.dumps(support, sort_keys=True)),
        "class selection": digest(options.among, json.dumps(chosen)),
        "options": digest(json.dumps(plain)),
        "device": recognizer.device.type,
        "version": f"{__version__}, torch {torch.__version__}",
    }


def _stamp(image: Path | EncodedImage) -> list[int] | None:
    """Size and time of change, by which an image that was exchanged is noticed."""
    if isinstance(image, HeldImage):
        return [len(image.data), zlib.crc32(image.data)]
    try:
        found = Path(image.archive if isinstance(image, PackedImage) else str(image)).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _replay(
    journal: Journal, facts: dict[str, str], stream: Iterator[Path | EncodedImage], batch: int, counts: Counts
) -> None:
    """Count the whole batches that are there, take their images off the stream, and cut off what comes after."""
    folder, hint = journal.path.parent, "pass --restart to start over"
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


def _finish(journal: Path, path: Path, count: int, images: int, about: dict[str, Any], together: bool) -> None:
    """Make the file from the whole journal."""
    parquet = partial(_write_parquet, about=about)
    write: dict[str, Callable[[Path, Iterable[dict[str, Any]], int, bool], None]]
    write = {".csv": _write_csv, ".parquet": parquet, ".json": _write_json, ".jsonl": _write_lines}
    with Journal(journal) as kept:
        records = _all_records(kept, images)
        write_with(path, lambda temporary: write[path.suffix.lower()](temporary, records, count, together))


def _all_records(journal: Journal, images: int) -> Iterator[dict[str, Any]]:
    """The records of so many images; RunError where some have been lost since they were written."""
    found = 0
    for record, _ in islice(journal.records(), 1, None):
        found += 1
        yield {name: value for name, value in record.items() if name != "stamp"}
    if found != images:
        raise RunError("damaged", where=journal.path, hint="repeat the command to resume before the damaged part")


def _open(path: Path) -> IO[str]:
    # names that are no UTF-8 are written as the bytes they are
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as CSV has it: six decimals, 1 and 0."""
    return {k: f"{v:.6f}" if isinstance(v, float) else int(v) if v is True or v is False else v for k, v in row.items()}


def _write_csv(path: Path, records: Iterable[dict[str, Any]], count: int, together: bool) -> None:
    with _open(path) as file:
        writer = csv.DictWriter(file, list(columns(count, together)), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow(shown(row_of(record, count)))


def _write_json(path: Path, records: Iterable[dict[str, Any]], count: int, together: bool) -> None:
    with _open(path) as file:
        file.write("[")
        for i, record in enumerate(records):
            file.write((",\n" if i else "\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n")


def _write_lines(path: Path, records: Iterable[dict[str, Any]], count: int, together: bool) -> None:
    with _open(path) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _write_parquet(
    path: Path, records: Iterable[dict[str, Any]], count: int, together: bool, about: dict[str, Any]
) -> None:
    require("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns(count, together).items()])
    schema = schema.with_metadata({ABOUT: json.dumps(about)})
    rows = (row_of(record, count) for record in records)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            for row in group:  # Parquet's text is UTF-8, which names of files need not be
                row["image"] = os.fsencode(row["image"]).decode(errors="backslashreplace")
            writer.write_table(pa.Table.from_pylist(group, schema))


def names_from(entries: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Class names as the command line gives them.

    Args:
        entries: each a class's name, names with commas between them, ``@FILE``, or a file: a name a line, or the first
            column (or one called ``class``) of a CSV table.
        names: of all classes.

    Raises:
        DataError: a file that cannot be read. Unknown names are left to the recogniser.
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
