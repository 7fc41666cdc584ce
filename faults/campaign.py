"""A campaign is a module of this package with `add_arguments(parser)` and `run(options, report) -> Outcome`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Report = Callable[[str], None]
"""Called with a line now and then."""


@dataclass
class Outcome:
    """Findings of a campaign.

    Args:
        tables: rows by title, for the docs.
        failures: one line each: what was done (enough to repeat it), the result, and the expected result.
        facts: further facts worth keeping.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    failures: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
