"""A stream of images through a trained model, one batch at a time: predictions, class scores and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.errors import DataError
from unseen.features.reading import ImageInput, read_batches
from unseen.model.predictions import Prediction
from unseen.model.trained import TrainedModel
from unseen.recognizer.embedding import Embeddings
from unseen.recognizer.given import path_of


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidates of a prediction.

    Args:
        top: number of candidates per image.
        allowed: positions of the candidate classes.
        threshold: confidence below which the answer is "unknown".
    """

    top: int
    allowed: np.ndarray
    threshold: float


def predict_each(
    model: TrainedModel, stream: Iterator[ImageInput], choice: Choice, batch_size: int, workers: int
) -> Generator[Prediction | DataError]:
    """Yield the prediction or the error of every image, in order."""
    with closing(_read(model, stream, batch_size, workers)) as read:
        for images, pixels in read:
            readable = [i for i, found in enumerate(pixels) if isinstance(found, Tensor)]
            named: dict[int, Prediction] = {}
            if readable:
                inputs = model.inputs(torch.stack([found for found in pixels if isinstance(found, Tensor)]))
                found_of = model.predict_inputs([path_of(images[i]) for i in readable], inputs, **vars(choice))
                named = dict(zip(readable, found_of, strict=True))
            for i, found in enumerate(pixels):
                yield found if isinstance(found, DataError) else named[i]


def predict_together(
    model: TrainedModel, stream: Iterator[ImageInput], choice: Choice, batch_size: int, workers: int
) -> Generator[Prediction | DataError]:
    """Read all images, then yield predictions that depend on all of them; otherwise like :func:`predict_each`."""
    outcomes: list[str | DataError] = []
    scores, psi, pooled = [np.zeros((0, len(model.table)))], [np.zeros((0, len(model.table.attributes)))], []
    for images, pixels in _read(model, stream, batch_size, workers):
        outcomes += [
            found if isinstance(found, DataError) else path_of(image)
            for image, found in zip(images, pixels, strict=True)
        ]
        if readable := [found for found in pixels if isinstance(found, Tensor)]:
            inputs = model.inputs(torch.stack(readable))
            pooled.append(model.pooled(inputs))
            answer = replace(model.answer(inputs), pooled=pooled[-1])
            scores.append(model.class_scores(answer.query, answer.pooled))
            psi.append(answer.attribute_scores)
    named: Iterator[Prediction] = iter(())
    if pooled:
        moved = model.together(np.concatenate(scores), torch.cat(pooled), choice.allowed)
        files = [found for found in outcomes if isinstance(found, str)]
        best = model.rank(moved, choice.top, choice.allowed)
        named = iter(model.predictions(files, best, np.concatenate(psi), choice.threshold, together=True))
    for found in outcomes:
        yield found if isinstance(found, DataError) else next(named)


def without_errors(
    outcomes: Generator[Prediction | DataError], broken: Callable[[DataError], None] | None
) -> Generator[Prediction]:
    """Yield the predictions only; errors go to ``broken``, or are raised without one."""
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                yield outcome
            elif broken is None:
                raise outcome
            else:
                broken(outcome)


def class_scores(model: TrainedModel, stream: Iterator[ImageInput], batch_size: int) -> np.ndarray:
    """Raw class scores, float64 ``(n, N)``; raises ``DataError`` for an unreadable image."""
    found = [np.zeros((0, len(model.table)))]
    while batch := list(islice(stream, batch_size)):
        answer = model.answer(inputs_of(model, *batch))
        found.append(model.class_scores(answer.query, answer.pooled))
    return np.concatenate(found)


def embeddings(
    model: TrainedModel,
    stream: Iterator[ImageInput],
    broken: Callable[[DataError], None] | None,
    batch_size: int,
    workers: int,
) -> Embeddings:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.embed`."""
    names: list[str] = []
    pooled = [np.zeros((0, model.backbone.channels[0]), np.float32)]
    psi = [np.zeros((0, len(model.table.attributes)))]
    for batch, pixels in _read(model, stream, batch_size, workers):
        readable = []
        for image, found in zip(batch, pixels, strict=True):
            if isinstance(found, Tensor):
                readable.append(found)
                names.append(path_of(image))
            elif broken is None:
                raise found
            else:
                broken(found)
        if readable:
            inputs = model.inputs(torch.stack(readable))
            pooled.append(model.pooled(inputs).cpu().numpy())
            psi.append(model.answer(inputs).attribute_scores)
    every = np.concatenate(pooled[1:] or pooled)
    standardised = None
    if model.takes_images:
        standardised = model.space.vectors(torch.from_numpy(every).to(model.device)).cpu().numpy()
    scores = np.concatenate(psi).astype(np.float32)
    return Embeddings(tuple(names), every, standardised, scores, model.table.attributes.names)


def inputs_of(model: TrainedModel, *images: ImageInput | Image.Image) -> Tensor:
    """Images as the method's input; one image is stacked too, since another memory layout would round differently."""
    return model.inputs(torch.stack([model.backbone.transform.cropped(image) for image in images]))


def _read(
    model: TrainedModel, stream: Iterator[ImageInput], batch_size: int, workers: int
) -> Generator[tuple[Sequence[ImageInput], Sequence[Tensor | DataError]]]:
    """Batches of images and their pixels, read ahead of the network."""
    batches = iter(lambda: list(islice(stream, batch_size)), [])
    with closing(read_batches(batches, model.backbone.transform, workers)) as read:
        yield from read
