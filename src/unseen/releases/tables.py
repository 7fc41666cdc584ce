"""Plain text tables of the official folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseen.errors import DataError
from unseen.ground.words import counted

HINT = "unpack the official archive again"


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, stripped and without blank ones."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})", where=path, hint=HINT) from None


def read_numbered(path: Path) -> tuple[str, ...]:
    """Names in a file with lines ``number name``, numbered from 1 without gaps."""
    names = []
    for i, line in enumerate(read_lines(path)):
        number, _, name = line.replace("\t", " ").partition(" ")
        if number != str(i + 1) or not name.strip():
            raise DataError(f'line {i + 1} is "{line}"', where=path, hint=f'it should be "{i + 1} NAME"; {HINT}')
        names.append(name.strip())
    return tuple(names)


def read_numbers(path: Path, columns: int | None = None) -> np.ndarray:
    """A table of numbers separated by spaces, float64."""
    rows = [line.split() for line in read_lines(path)]
    width = columns or (len(rows[0]) if rows else 0)
    uneven = next((i for i, row in enumerate(rows) if len(row) != width), None)
    if not rows or uneven is not None:
        where = "empty" if not rows else f"line {(uneven or 0) + 1} has {len(rows[uneven or 0])} numbers, not {width}"
        raise DataError(where, where=path, hint=HINT)
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise DataError(str(error), where=path, hint=HINT) from None


def check_names(names: Sequence[str], expected: Sequence[str], where: Path, other: Path) -> None:
    """Check that two files name the same classes, in any order.

    Raises:
        DataError: only one of them has a name.
    """
    for mine, theirs, place in ((names, expected, other), (expected, names, where)):
        lacking = [name for name in mine if name not in set(theirs)]
        if lacking:
            more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
            problem = f'no class "{lacking[0]}"{more}, which {where if place == other else other} has'
            raise DataError(problem, where=place, hint="use both files of the same dataset and edition")


def check_matrix(
    official: np.ndarray, names: Sequence[str], values: np.ndarray, classes: Sequence[str], where: Path, other: Path
) -> str:
    """Check that the official class attributes equal those of the split, matching classes by name.

    Args:
        official: ``(N, K)`` rows in the order of ``names``.
        names: official class names.
        values: ``(N, K)`` rows in the order of ``classes``.
        classes: class names of the split.
        where, other: the two files.

    Returns:
        The passed check, with the largest difference.

    Raises:
        DataError: the shapes differ, or most rows match another class better: rows or classes are mixed up.
    """
    if official.shape != values.shape:
        problem = f"{counted(official.shape[0], 'class')} x {counted(official.shape[1], 'attribute')}"
        hint = f"{other} has {values.shape[0]} x {values.shape[1]}; use both of the same dataset"
        raise DataError(problem, where=where, hint=hint)
    position = {name: i for i, name in enumerate(names)}
    joined = official[[position[name] for name in classes]]

    def centred(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=0)
        result: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return result

    nearest = (centred(values) @ centred(joined).T).argmax(axis=1)
    wrong = np.flatnonzero(nearest != np.arange(len(classes)))
    if len(wrong) > len(classes) / 10:
        c = int(wrong[0])
        by_number = np.abs(official - values).max() < np.abs(joined - values).max()
        hint = "; the rows are in the order of the split's classes, not of the official list" if by_number else ""
        problem = f'the attributes of {len(wrong)} classes match another class better: "{classes[c]}" is nearest to '
        problem += f'"{classes[nearest[c]]}"{hint}'
        raise DataError(problem, where=where, hint=f"download it and {other.name} again")
    largest = float(np.abs(joined - values).max())
    return f"class attributes of {where.name} agree with {other.name} by class name (largest difference {largest:.3g})"
