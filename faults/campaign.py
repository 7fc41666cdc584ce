"""What a campaign is: a module of this package with `add_arguments(parser)` and `run(options, report) -> Outcome`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Report = Callable[[str], None]
"""Told a line now and then."""


@dataclass
class Outcome:
    """What a campaign found.

    Args:
        tables: rows by title, for the docs.
        failures: a line each: what was done (enough to do it again) and what came of it instead of what should.
        facts: anything else worth keeping.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    failures: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
