"""What the checks of a benchmark found: problems, notes and what held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from unseen.errors import DataError


@dataclass
class Findings:
    """Collects what checks say, so that one look shows all that is wrong.

    Args:
        problems: one line each, with the hint.
        notes: what a user should know.
        held: what was checked and is so.
    """

    problems: list[DataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    @contextmanager
    def check(self, held: str = "") -> Iterator[None]:
        """A step that raises :class:`DataError` becomes a problem; else ``held`` is so."""
        try:
            yield
        except DataError as problem:
            self.problems.append(problem)
        else:
            if held:
                self.held.append(held)
