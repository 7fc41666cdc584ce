"""Page data: the numbers of a run and, if the images still exist, the model's answers on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unseen.classes.table import ClassTable
from unseen.data.catalogue import load_dataset
from unseen.data.dataset import Dataset
from unseen.errors import RunError, UnseenError
from unseen.evaluation.metrics import Decisions
from unseen.explain.answers import Answers, answers_of
from unseen.features.hashes import content_hashes
from unseen.ground.cache import cache_folder
from unseen.ground.progress import Progress, silent
from unseen.training.decisions import decisions_path, load_decisions
from unseen.training.folder import Run

COUNTED = "example images, attribute quality or counts of training images"


@dataclass(frozen=True, eq=False)
class Material:
    """The data of all sections.

    Args:
        run: the run.
        table: class table.
        decisions: seed to its decisions on the test images, by the model of U, S and H.
        dataset: dataset; ``None`` if it is gone or has changed.
        answers: answers of the first seed's model, which is part of them; ``None`` without data or test images.
        copies: images with equal content, each group as positions in the dataset.
        notes: one line for each thing that is missing.
    """

    run: Run
    table: ClassTable
    decisions: Mapping[str, Decisions]
    dataset: Dataset | None = None
    answers: Answers | None = None
    copies: list[list[int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def found(self) -> dict[str, Any]:
        """Numbers of the protocol of the run's model."""
        numbers: dict[str, Any] = self.run.results["protocols"][self.run.protocol]
        return numbers

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Seeds of the run."""
        return self.run.manifest

    @property
    def seed(self) -> str:
        """Seed whose model gives examples, attribute scores and charts."""
        result: str = next(iter(self.found["seeds"]))
        return result

    def gamma(self, seed: str) -> float:
        """Calibration offset of a seed."""
        return float(self.found["seeds"][seed]["gamma"])

    @cached_property
    def holdout(self) -> dict[str, Any] | None:
        """Metrics on held-out classes, if the run has them."""
        found = self.found.get("holdout")
        return None if found is None else found["metrics"]

    @property
    def set_aside(self) -> int:
        """Number of held-out classes; 0 without a hold-out."""
        return int((self.found.get("holdout") or {}).get("classes_set_aside", 0))

    @property
    def in_holdouts(self) -> tuple[int, int]:
        """Seen and unseen classes of each class hold-out; real unseen classes may be among the latter."""
        seen, unseen = self.manifest["data"]["classes_seen"], self.found["holdout"]["classes_unseen"]
        return seen - self.set_aside, int(unseen)

    @cached_property
    def tested(self) -> tuple[int, int]:
        """Test images of seen and of unseen classes."""
        data = self.manifest["data"]
        return int(data["test_seen"]), int(data["test_unseen"])


def gather(
    run: Run,
    *,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
    dataset: Dataset | None = None,
) -> Material:
    """Read a finished run, and run its model if the images exist; everything missing becomes a note.

    Args:
        run: a finished run.
        device, cache, workers, progress: see :func:`unseen.training.run.fit`.
        dataset: that of the run, if it has been read already.

    Raises:
        RunError: the run is unfinished.
    """
    written = recorded(run)
    table, decisions, notes = written.table, written.decisions, written.notes
    try:
        answers, dataset = _ask(run, device, cache, workers, progress, dataset)
    except (UnseenError, OSError) as error:
        held_out = (run.results["protocols"][run.protocol].get("holdout") or {}).get("attributes")
        lost = "example images or counts of training images" if held_out else COUNTED
        notes.append(f"The report could not open the images ({error}). It therefore has no {lost}.")
        return Material(run, table, decisions, notes=notes)
    return Material(run, table, decisions, dataset, answers, _copies(dataset, cache_folder(cache)), notes)


def recorded(run: Run) -> Material:
    """What a finished run's folder holds, without its images and model; raises as :func:`gather`."""
    table = ClassTable.from_csv(run.folder / "classes.csv", run.folder / "attributes.csv")
    seeds = run.results["protocols"][run.protocol]["seeds"]
    decisions: dict[str, Decisions] = {}
    for seed in seeds:
        path = decisions_path(run.folder, seed, run.protocol, "H")
        if path.is_file():
            decisions[seed] = load_decisions(path)
    missing = "The run folder has no decisions on the test images, so there are no confusions and no seen–unseen curve."
    return Material(run, table, decisions, notes=[missing] if len(decisions) < len(seeds) else [])


def _ask(
    run: Run, device: str, cache: Path | str | None, workers: int, progress: Progress, dataset: Dataset | None
) -> tuple[Answers | None, Dataset]:
    """The model's answers on the test images, if any, and the dataset as it was in the training."""
    data = run.manifest["data"]
    if data["test_seen"] or data["test_unseen"]:
        answers = answers_of(run, device=device, cache=cache, workers=workers, progress=progress, dataset=dataset)
        return answers, answers.dataset
    dataset = dataset or load_dataset(run.config.dataset, cache=cache, progress=progress)
    if dataset.fingerprint != data["fingerprint"]:
        raise RunError("the dataset has changed since the training", where=run.folder, hint="train again")
    return None, dataset


def _copies(dataset: Dataset, cache: Path) -> list[list[int]]:
    """Groups of images with the same bytes; hashes are cached beside the region stores."""
    try:
        hashes = np.array(content_hashes(dataset.paths(), cache / "regions" / "hashes.json"))
    except (UnseenError, OSError):
        return []
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return [np.flatnonzero(group == g).tolist() for g in np.flatnonzero(counts > 1)]
