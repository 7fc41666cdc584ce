"""What a finished run's model says of its test images: the numbers that figures are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unseen.data.dataset import Dataset
from unseen.errors import DataError, RunError
from unseen.ground.progress import Progress, silent
from unseen.methods.pooled import pool
from unseen.model.assembled import EndToEnd
from unseen.recognizer import Recognizer
from unseen.training.batches import batches
from unseen.training.folder import Run
from unseen.training.run import reopen
from unseen.training.stage import Stage


@dataclass(frozen=True, eq=False)
class Answers:
    """One seed's model on all test images.

    Args:
        run: the run.
        seed: whose model.
        recognizer: that model, with the classes of its training.
        dataset: the data.
        regions: ``(B, R, C)`` of the images at B positions in the dataset, by the backbone as the model has it.
        images: ``(M,)`` positions in the dataset: test images of seen classes, then those of unseen ones.
        attribute_scores: float64 ``(M, K)``, the method's fused scores, which the class table multiplies.
        predicted: ``(M,)`` the class named among all, gamma taken off the seen ones.
    """

    run: Run
    seed: int
    recognizer: Recognizer
    dataset: Dataset
    regions: Callable[[np.ndarray], Tensor]
    images: np.ndarray
    attribute_scores: np.ndarray
    predicted: np.ndarray

    @cached_property
    def labels(self) -> np.ndarray:
        """``(M,)`` the true classes."""
        result: np.ndarray = self.dataset.labels[self.images]
        return result

    @cached_property
    def unseen(self) -> np.ndarray:
        """Bool ``(M,)``, images of unseen classes."""
        result: np.ndarray = ~self.dataset.table.seen[self.labels]
        return result

    def pooled(self, positions: np.ndarray) -> np.ndarray:
        """The backbone's features ``(n, C)`` of some of ``images``: the mean over regions, to unit length.

        Of a backbone trained along it is the last map, as trained. Memory is O(batch) besides the result.
        """
        parts = [
            pool(self.regions(self.images[positions[rows]]))[:, 0].cpu().numpy() for rows in batches(len(positions))
        ]
        return np.concatenate(parts)

    def find(self, path: Path) -> int | None:
        """An image file's position in the dataset; ``None`` for any other image."""
        try:
            inside = path.resolve().relative_to(self.dataset.images.resolve()).as_posix()
        except ValueError:
            return None
        return self.dataset.files.index(inside) if inside in self.dataset.files else None

    def in_turn(self, candidates: np.ndarray, seed: int = 0) -> np.ndarray:
        """Some positions of ``images`` in a seeded order in which every class comes once before any comes again."""
        order = np.random.default_rng(seed).permutation(candidates)
        turn = np.zeros(len(order), dtype=int)
        met: dict[int, int] = {}
        for i, position in enumerate(order):
            turn[i] = met.get(self.labels[position], 0)
            met[self.labels[position]] = turn[i] + 1
        ordered: np.ndarray = order[np.argsort(turn, kind="stable")]
        return ordered

    def examples(self, count: int, seed: int = 0) -> list[int]:
        """Test images to show, as positions in the dataset: ``count`` named right and as many named wrong.

        Of unseen classes where there are any; drawn with a seed, not by looks, and a class in turn.
        """
        candidates = np.flatnonzero(self.unseen) if self.unseen.any() else np.arange(len(self.images))
        order = self.in_turn(candidates, seed)
        right = self.predicted[order] == self.labels[order]
        return [int(i) for i in self.images[np.concatenate([order[right][:count], order[~right][:count]])]]

    @property
    def origin(self) -> str:
        """Method, data, backbone, protocol and seed, for captions."""
        manifest = self.run.manifest
        data, backbone = manifest["data"], manifest["backbone"]
        how = "frozen" if backbone["frozen"] else "fine-tuned"
        seed = "" if self.run.results["protocols"][self.run.protocol]["deterministic"] else f", seed {self.seed}"
        return (
            f"{manifest['method']['name']} on {data['name']} ({data['fingerprint'][:8]}); backbone {backbone['name']} "
            f"{backbone['image_size']}px {backbone['weights']}, {how}; {self.run.protocol} protocol{seed}"
        )


@torch.inference_mode()
def answers_of(
    run: Run,
    *,
    seed: int | None = None,
    device: str = "auto",
    cache: Path | str | None = None,
    workers: int = 0,
    progress: Progress = silent,
) -> Answers:
    """Ask a run's model about all test images, a batch of regions in memory at a time.

    Args:
        run: a finished run.
        seed: whose model; default the first. Of a run of both protocols it is the honest one's.
        device, cache, workers, progress: see :func:`unseen.training.run.fit`.

    Raises:
        RunError: unfinished, no such seed, or the dataset has changed.
        UnseenError: images or weights are gone.
        DataError: no test images.
    """
    found = run.results["protocols"][run.protocol]["seeds"]
    chosen = next(iter(found)) if seed is None else str(seed)
    if chosen not in found:
        raise RunError(f"no seed {chosen}", where=run.folder, hint=f"use one of {', '.join(found)}")
    inputs = reopen(run, device=device, cache=cache, workers=workers, progress=progress)
    inputs = replace(inputs, config=replace(inputs.config, precision="32-true"))  # as a model is used
    stage = Stage(inputs, "final")
    if not len(stage.held_out):
        raise DataError("no test images for figures", where=inputs.dataset.name, hint="add test images to images.csv")
    recognizer = Recognizer.load(run.folder, seed=int(chosen), device=device, as_trained=True)
    method = recognizer.method
    features = stage.features(stage.held_out, budget_bytes=0)

    def regions(images: np.ndarray) -> Tensor:
        found: Tensor = (
            method.regions(stage.features(images).batch(np.arange(len(images))))
            if isinstance(method, EndToEnd)
            else inputs.store.read(images).float()
        )
        return found

    scores, predicted = [], []
    every = recognizer.allowed()
    for positions in batches(len(stage.held_out)):
        answer = recognizer.answer_of(method(features.batch(positions)))
        scores.append(answer.attribute_scores)
        predicted.append(recognizer.rank(answer, 1, every).index[:, 0])
        progress("predicting test images", int(positions[-1]) + 1, len(stage.held_out))
    return Answers(
        run,
        int(chosen),
        recognizer,
        inputs.dataset,
        regions,
        stage.held_out,
        np.concatenate(scores),
        np.concatenate(predicted),
    )
