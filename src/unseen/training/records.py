"""What a run tells while it goes: one record an epoch and one a result, to one callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unseen.ground.distributed import is_first


@dataclass(frozen=True)
class Record:
    """One thing that a run tells.

    Args:
        kind: ``run`` comes first and has only ``about``; ``epoch`` after each epoch of a training; ``result`` at the
            end, of every seed and protocol.
        seed: of an epoch or a result.
        stage: of an epoch: ``validation``, another draw of it, or ``final``; of a result its protocol.
        epoch, step: of an epoch: from 1, and steps taken.
        values: finite numbers by name: ``loss/total``, ``metrics/H``, ``seconds``.
        about: of ``run``: its configuration, as in ``config.json``.
    """

    kind: Literal["run", "epoch", "result"]
    seed: int = 0
    stage: str = ""
    epoch: int = 0
    step: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it belongs: ``seed-0/final``."""
        return f"seed-{self.seed}/{self.stage}"


OnRecord = Callable[[Record], object]


def untold(record: Record) -> None:
    """Tells nobody."""


def epoch_record(seed: int, stage: str, record: Mapping[str, Any]) -> Record:
    """A line of ``metrics.jsonl`` as a record."""
    groups = {f"{group}/{name}": v for group in ("loss", "metrics") for name, v in record[group].items()}
    values = numbers(groups | {"seconds": record["seconds"]})
    return Record("epoch", seed, stage, record["epoch"], record["step"], values)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers."""
    return {name: float(v) for name, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def first_alone(tell: OnRecord) -> OnRecord:
    """Of several processes the first tells."""
    return tell if is_first() else untold
