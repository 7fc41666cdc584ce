"""Read the needed words from common files of word vectors: word2vec (binary and text) and GloVe.

A file is scanned once, and only requested words are kept. Binary files are read through a memory map whose pages are
released during the scan, so memory does not grow with the file.
"""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from unseen.errors import DataError
from unseen.ground.progress import Progress, silent
from unseen.ground.words import counted

BINARY, TEXT, GLOVE = "word2vec binary", "word2vec text", "GloVe text"
_HINT = "pass a word2vec file (binary or text) or a GloVe text file"
_LONGEST = 4096  # in bytes; no word of a word2vec file is nearly as long
_WINDOW = 32 << 20  # bytes of a map to read before releasing its pages
_SIGNATURES = {
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"\x80": "a pickle; unseen does not load pickles",
}


@dataclass(frozen=True)
class WordFile:
    """Format of a file of word vectors.

    Args:
        path: the file.
        kind: ``word2vec binary``, ``word2vec text`` or ``GloVe text``.
        dim: D, numbers per word.
        words: number of words according to its header; ``None`` without a header (GloVe).
        start: byte at which the first word starts.
    """

    path: Path
    kind: str
    dim: int
    words: int | None
    start: int


def open_word_file(path: Path | str) -> WordFile:
    """Recognize the format of a file by its content; text may be compressed with gzip.

    Raises:
        DataError: it is not a file of word vectors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", where=path, hint=_HINT)
    try:
        with _opened(path) as file:
            head = file.read(1 << 16)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read ({error})", where=path, hint="download the file again") from None
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(what, where=path, hint=_HINT)
    line, newline, rest = head.partition(b"\n")
    header = re.fullmatch(rb"\s*(\d+)[ \t]+(\d+)\s*", line)
    if not newline or not rest:
        raise DataError("no word vectors", where=path, hint=_HINT)
    if header is None:
        return WordFile(path, GLOVE, _glove_dim(path, head), None, 0)
    words, dim = int(header[1]), int(header[2])
    if not words or not dim:
        raise DataError(
            f"the header says {counted(words, 'word')} with {counted(dim, 'dimension')}",
            where=path,
            hint="download the file again",
        )
    start = len(line) + 1
    if _numbers(rest.partition(b"\n")[0].split()[1:]) == dim:
        return WordFile(path, TEXT, dim, words, start)
    if _compressed(path):
        raise DataError("a compressed binary file", where=path, hint="decompress it first")
    least, size = start + words * (4 * dim + 2), path.stat().st_size
    if size < least:
        raise DataError(
            f"{size} bytes, but {counted(words, 'word')} of {dim} numbers need at least {least}",
            where=path,
            hint="download the file again",
        )
    return WordFile(path, BINARY, dim, words, start)


def read_word_vectors(file: WordFile, words: Collection[str], progress: Progress = silent) -> dict[str, np.ndarray]:
    """Vectors of those words that the file has; the first one of a repeated word.

    Args:
        file: from :func:`open_word_file`.
        words: exactly as spelled in the file.
        progress: progress callback, in MiB.

    Returns:
        float32 ``(D,)`` by word.

    Raises:
        DataError: the file is damaged; names the line, or the byte of a binary file.
    """
    scan = _scan_binary if file.kind == BINARY else _scan_text
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray] = {}
    size = max(1, file.path.stat().st_size >> 20)

    def tell(position: int) -> None:
        progress(f"reading {file.path.name} (MiB)", min(position >> 20, size - 1), size)

    for key, vector, place in scan(file, frozenset(wanted), tell):
        if not np.isfinite(vector).all():
            raise DataError(f'the vector of "{wanted[key]}" is not finite', where=place, hint="download the file again")
        if found.setdefault(wanted[key], vector) is vector and len(found) == len(wanted):
            break
    progress(f"reading {file.path.name} (MiB)", size, size)
    return found


Scan = Iterator[tuple[bytes, np.ndarray, str]]


def _scan_binary(file: WordFile, wanted: frozenset[bytes], tell: Callable[[int], None]) -> Scan:
    """Words, vectors and positions of a binary file: a word, a space, D little-endian float32, optionally a newline."""
    assert file.words is not None
    width = 4 * file.dim
    with file.path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        position, size, kept = file.start, len(mapped), 0
        for index in range(file.words):
            space = mapped.find(b" ", position, position + _LONGEST)
            if space < 0 or space + 1 + width > size:
                what = "no word starts here" if space < 0 else f"the file ends within the vector of word {index + 1}"
                where = f"{file.path}, byte {position}"
                raise DataError(f"{what} ({index} of {file.words} read)", where=where, hint="download the file again")
            word = mapped[position:space].lstrip(b"\n")
            if word in wanted:
                vector = np.frombuffer(mapped[space + 1 : space + 1 + width], dtype="<f4")
                yield word, vector, f"{file.path}, byte {position}"
            position = space + 1 + width
            if position - kept > _WINDOW:
                tell(position)
                end = position // mmap.PAGESIZE * mmap.PAGESIZE
                if hasattr(mapped, "madvise"):  # not on Windows
                    mapped.madvise(mmap.MADV_DONTNEED, kept, end - kept)
                kept = end


def _scan_text(file: WordFile, wanted: frozenset[bytes], tell: Callable[[int], None]) -> Scan:
    """Words, vectors and positions of a text file: a word per line, D numbers last; GloVe's words may have spaces."""
    first = frozenset(word.split(b" ", 1)[0] for word in wanted)
    start, step = (1, 2) if file.kind == TEXT else (0, 1)
    try:
        with _opened(file.path) as opened:
            opened.seek(file.start)
            read, told, number = file.start, 0, start
            for number, ended in enumerate(opened, step):
                read += len(ended)
                if read - told > _WINDOW:
                    tell(read)
                    told = read
                line = ended.rstrip()
                if line.count(b" ") < file.dim:
                    where = f"{file.path}, line {number}"
                    raise DataError(
                        f"not a word and {counted(file.dim, 'value')}", where=where, hint="download the file again"
                    )
                if line.split(b" ", 1)[0] not in first:
                    continue
                word, *numbers = line.rsplit(b" ", file.dim)
                if word in wanted:
                    place = f"{file.path}, line {number}"
                    try:
                        yield word, np.array(numbers, dtype=np.float64).astype(np.float32), place
                    except ValueError:
                        raise DataError(
                            "a value is not a number", where=place, hint="download the file again"
                        ) from None
            if file.words is not None and number - start < file.words:
                problem = f"{counted(number - start, 'word')}, but the first line says {file.words}"
                raise DataError(problem, where=file.path, hint="download the file again")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read further ({error})", where=file.path, hint="download the file again") from None


def _numbers(cells: list[bytes]) -> int:
    """Number of cells at the end that are numbers."""
    for count, cell in enumerate(reversed(cells)):
        try:
            float(cell)
        except ValueError:
            return count
    return len(cells)


def _glove_dim(path: Path, head: bytes) -> int:
    """D of a file without a header: the number of values in most of its first lines."""
    lines = [line.rstrip().split(b" ") for line in head.splitlines()[:20]]
    if len(head) == 1 << 16 and len(lines) > 1:
        lines = lines[:-1]  # cut off
    dim = Counter(len(cells) - 1 for cells in lines).most_common(1)[0][0]
    if dim < 2 or 2 * sum(_numbers(cells) >= dim for cells in lines) < len(lines):
        raise DataError("not a word2vec or GloVe file", where=path, hint=_HINT)
    return dim


def _compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path) if _compressed(path) else path.open("rb") as file:
        yield file  # type: ignore[misc]
