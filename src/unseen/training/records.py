"""Records of a run for one callback: one per epoch and one per result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unseen.ground.distributed import is_first


@dataclass(frozen=True)
class Record:
    """A record of a run.

    Args:
        kind: ``run`` comes first and has only ``about``; ``epoch`` follows each epoch of a training; ``result`` comes
            at the end, for every seed and protocol.
        seed: seed of an epoch or result.
        stage: of an epoch ``validation``, another draw of it, or ``final``; of a result its protocol.
        epoch, step: of an epoch: its number from 1, and the number of steps taken.
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
        """Path of the record, such as ``seed-0/final``."""
        return f"seed-{self.seed}/{self.stage}"


OnRecord = Callable[[Record], object]


def untold(record: Record) -> None:
    """Ignores all records."""


def epoch_record(seed: int, stage: str, record: Mapping[str, Any]) -> Record:
    """Make a record of a line of ``metrics.jsonl``."""
    groups = {f"{group}/{name}": v for group in ("loss", "metrics") for name, v in record[group].items()}
    values = numbers(groups | {"seconds": record["seconds"]})
    return Record("epoch", seed, stage, record["epoch"], record["step"], values)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers."""
    return {name: float(v) for name, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def first_alone(tell: OnRecord) -> OnRecord:
    """Of several processes only the first reports."""
    return tell if is_first() else untold
