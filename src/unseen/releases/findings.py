"""Results of the checks of a benchmark: problems, notes and passed checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from unseen.errors import DataError


@dataclass
class Findings:
    """Collects results of checks, so that one report shows all problems.

    Args:
        problems: one line each, with a hint.
        notes: further notes for the user.
        held: checks that passed.
    """

    problems: list[DataError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)

    @contextmanager
    def check(self, held: str = "") -> Iterator[None]:
        """A step that raises :class:`DataError` becomes a problem; otherwise ``held`` is recorded."""
        try:
            yield
        except DataError as problem:
            self.problems.append(problem)
        else:
            if held:
                self.held.append(held)
