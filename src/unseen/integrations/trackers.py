"""Experiment trackers as the callback of a run: TensorBoard, Weights & Biases, MLflow and trackio.

with unseen.integrations.trackers.create_tracker("tensorboard", "runs/mine") as tracker:
    unseen.fit("msdn", "birds", "runs/mine", on_record=tracker)

Each needs its package (``pip install 'unseen[tracking]'`` installs TensorBoard) and is configured by that package's own
variables, such as ``WANDB_PROJECT`` and ``MLFLOW_TRACKING_URI``. Any function of a
:class:`unseen.training.records.Record` can serve as a tracker.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from unseen.errors import UnseenError
from unseen.ground.extras import needed
from unseen.training.records import Record


class Tracker(ABC):
    """Sends the records of a run to a service.

    Args:
        folder: folder of the run; its name becomes the name of the run in the service.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def __call__(self, record: Record) -> None:
        """Handle a record."""
        if record.kind == "run":
            self.begin({key: value for key, value in record.about.items() if value not in (None, {}, [])})
        else:
            self.tell(record.place, record.step, dict(record.values))

    @abstractmethod
    def begin(self, about: dict[str, Any]) -> None:
        """Start or resume a run."""

    @abstractmethod
    def tell(self, place: str, step: int, values: dict[str, float]) -> None:
        """Log numbers of ``seed-0/final`` at a step."""

    @abstractmethod
    def close(self) -> None:
        """Finish the run."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the tracker."""
        self.close()


class TensorBoard(Tracker):
    """Event files in the run's folder, with a TensorBoard run per seed and stage: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        needed("tensorboard", "--track tensorboard")
        self._boards: dict[str, Any] = {}

    def begin(self, about: dict[str, Any]) -> None:
        """Do nothing: the run's folder describes the run."""

    def tell(self, place: str, step: int, values: dict[str, float]) -> None:
        """Log a scalar per number; drops what an earlier call wrote for later steps."""
        from torch.utils.tensorboard import SummaryWriter

        if place not in self._boards:
            self._boards[place] = SummaryWriter(str(self.folder / "tensorboard" / place), purge_step=step or None)
        for name, value in values.items():
            self._boards[place].add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        for board in self._boards.values():
            board.close()


class WandB(Tracker):
    """A run of Weights & Biases."""

    def __init__(self, folder: Path | str, **options: Any) -> None:
        super().__init__(folder)
        self._library = needed("wandb", "--track wandb")
        self._options = {"project": os.environ.get("WANDB_PROJECT", "unseen"), "name": self.folder.name} | options
        self._run: Any = None

    def begin(self, about: dict[str, Any]) -> None:
        """Start a run in the service."""
        self._run = self._library.init(config=about, **self._options)

    def tell(self, place: str, step: int, values: dict[str, float]) -> None:
        """Log numbers, with the step of that training as a number: the step of the service must rise over the run."""
        self._run.log({f"{place}/{name}": value for name, value in values.items()} | {f"{place}/step": step})

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish()


class MLflow(Tracker):
    """A run of MLflow."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self._library = needed("mlflow", "--track mlflow")
        self._run: Any = None

    def begin(self, about: dict[str, Any]) -> None:
        """Start a run in the service, with the configuration as parameters."""
        self._run = self._library.start_run(run_name=self.folder.name)
        self._library.log_params({key: str(value)[:500] for key, value in about.items()})

    def tell(self, place: str, step: int, values: dict[str, float]) -> None:
        """Log numbers; MLflow accepts no @ and similar characters in names."""
        clean = {f"{place}/{name}".replace("@", "_at_"): value for name, value in values.items()}
        self._library.log_metrics(clean, step=step)

    def close(self) -> None:
        """Finish the run."""
        if self._run is not None:
            self._library.end_run()


class Trackio(WandB):
    """A run of trackio, which has the interface of Weights & Biases."""

    def __init__(self, folder: Path | str, **options: Any) -> None:
        Tracker.__init__(self, folder)
        self._library = needed("trackio", "--track trackio")
        self._options = {"project": os.environ.get("TRACKIO_PROJECT", "unseen"), "name": self.folder.name} | options
        self._run = None


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}


class Several(Tracker):
    """Several trackers as one."""

    def __init__(self, trackers: list[Tracker]) -> None:
        super().__init__("")
        self._trackers = trackers

    def begin(self, about: dict[str, Any]) -> None:
        """Pass on to each."""
        for tracker in self._trackers:
            tracker.begin(about)

    def tell(self, place: str, step: int, values: dict[str, float]) -> None:
        """Pass on to each."""
        for tracker in self._trackers:
            tracker.tell(place, step, values)

    def close(self) -> None:
        """Close each."""
        for tracker in self._trackers:
            tracker.close()


def create_tracker(names: str | list[str], folder: Path | str) -> Tracker:
    """Create one tracker for all of the given names.

    Args:
        names: keys of :data:`TRACKERS`.
        folder: folder of the run.

    Raises:
        UnseenError: an unknown name, or its package is not installed.
    """
    wanted = [names] if isinstance(names, str) else names
    for name in wanted:
        if name not in TRACKERS:
            raise UnseenError(f'unknown tracker "{name}"', where="--track", hint=f"use one of {', '.join(TRACKERS)}")
    return Several([TRACKERS[name](folder) for name in dict.fromkeys(wanted)])
