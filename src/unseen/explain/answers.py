"""Answers of a finished run's model on its test images: the numbers behind the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unseen.data.dataset import Dataset
from unseen.errors import RunError
from unseen.ground.progress import Progress, silent
from unseen.ground.words import size_text
from unseen.methods.pooled import pool
from unseen.model.assembled import EndToEnd
from unseen.recognizer import Recognizer
from unseen.training.batches import batches
from unseen.training.folder import Run
from unseen.training.run import reopen
from unseen.training.stage import Stage


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of one seed's model on all test images.

    Args:
        run: the run.
        seed: seed of the model.
        recognizer: the model, with the classes of its training.
        dataset: dataset of the run.
        regions: returns ``(B, R, C)`` for the images at B positions in the dataset, by the backbone of the model.
        images: ``(M,)`` positions in the dataset: test images of seen classes, then those of unseen ones.
        attribute_scores: float64 ``(M, K)`` fused scores of the method, which the class table multiplies.
        predicted: ``(M,)`` predicted class among all, with gamma subtracted from the seen ones.
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
        """``(M,)`` true classes."""
        result: np.ndarray = self.dataset.labels[self.images]
        return result

    @cached_property
    def unseen(self) -> np.ndarray:
        """Bool ``(M,)``, whether the image is of an unseen class."""
        result: np.ndarray = ~self.dataset.table.seen[self.labels]
        return result

    def pooled(self, positions: np.ndarray) -> np.ndarray:
        """Features ``(n, C)`` of the backbone for some of ``images``: the mean over regions, scaled to unit length.

        For a backbone that was trained along, of its last map after training. Memory is O(batch) beside the result.
        """
        parts = [
            pool(self.regions(self.images[positions[rows]]))[:, 0].cpu().numpy() for rows in batches(len(positions))
        ]
        return np.concatenate(parts)

    def find(self, path: Path) -> int | None:
        """Position of an image file in the dataset; ``None`` for any other image."""
        try:
            inside = path.resolve().relative_to(self.dataset.images.resolve()).as_posix()
        except ValueError:
            return None
        return self.dataset.files.index(inside) if inside in self.dataset.files else None

    def in_turn(self, candidates: np.ndarray, seed: int = 0) -> np.ndarray:
        """Positions of ``images`` in a seeded order in which every class occurs once before any occurs again."""
        order = np.random.default_rng(seed).permutation(candidates)
        turn = np.zeros(len(order), dtype=int)
        met: dict[int, int] = {}
        for i, position in enumerate(order):
            turn[i] = met.get(self.labels[position], 0)
            met[self.labels[position]] = turn[i] + 1
        ordered: np.ndarray = order[np.argsort(turn, kind="stable")]
        return ordered

    def examples(self, count: int, seed: int = 0) -> list[int]:
        """Positions of test images to show: ``count`` predicted correctly and as many predicted wrongly.

        Of unseen classes if there are any; drawn with a seed, taking classes in turn.
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
        size = size_text(backbone["image_size"], backbone["zoom"], backbone["mirror"])
        network = f"{backbone['name']}, {size}, {backbone['weights']}, {how}"
        seed = "" if self.run.results["protocols"][self.run.protocol]["deterministic"] else f", seed {self.seed}"
        return (
            f"{manifest['method']['name']} on {data['name']} ({data['fingerprint'][:8]}); backbone {network}; "
            f"{self.run.protocol} protocol{seed}"
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
    dataset: Dataset | None = None,
) -> Answers:
    """Run a finished run's model on all test images, with one batch of regions in memory at a time.

    Args:
        run: a finished run.
        seed: seed of the model; by default the first. For a run of both protocols, the honest one's.
        device, cache, workers, progress: see :func:`unseen.training.run.fit`.
        dataset: that of the run, if it has been read already.

    Raises:
        RunError: the run is unfinished, has no such seed, or its dataset has changed.
        UnseenError: images or weights are missing.
    """
    found = run.results["protocols"][run.protocol]["seeds"]
    chosen = next(iter(found)) if seed is None else str(seed)
    if chosen not in found:
        raise RunError(f"no seed {chosen}", where=run.folder, hint=f"use one of {', '.join(found)}")
    inputs = reopen(run, device=device, cache=cache, workers=workers, progress=progress, dataset=dataset)
    inputs = replace(inputs, config=replace(inputs.config, precision="32-true"))  # as in use
    stage = Stage(inputs, "final")
    recognizer = Recognizer.load(run.folder, seed=int(chosen), device=device, as_trained=True)
    method = inputs.adapted(recognizer.method)
    features = stage.features(stage.held_out, budget_bytes=0) if len(stage.held_out) else None

    def regions(images: np.ndarray) -> Tensor:
        found: Tensor = (
            method.regions(stage.features(images).batch(np.arange(len(images))))
            if isinstance(method, EndToEnd)
            else inputs.store.read(images).float()
        )
        return found

    scores, predicted = [np.zeros((0, len(inputs.dataset.table.attributes)))], [np.zeros(0, dtype=int)]
    every = recognizer.allowed()
    for positions in batches(len(stage.held_out)) if features is not None else ():
        assert features is not None
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
