"""A stream of images through a trained model, one batch at a time: predictions, class scores and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen.errors import DataError
from unseen.features.reading import ImageInput, read_batches, stacked
from unseen.model.predictions import Prediction
from unseen.model.ranks import Choice
from unseen.model.trained import TrainedModel
from unseen.recognizer.embedding import Embeddings
from unseen.recognizer.given import path_of

Weights = Callable[[ImageInput], np.ndarray]
"""Returns an image's prior weights ``(N,)`` of all classes."""


def _weights(weigh: Weights | None, images: Sequence[ImageInput]) -> np.ndarray | None:
    return None if weigh is None else np.stack([weigh(image) for image in images])


def predict_each(
    model: TrainedModel,
    stream: Iterator[ImageInput],
    choice: Choice,
    batch_size: int,
    workers: int,
    weigh: Weights | None = None,
) -> Generator[Prediction | DataError]:
    """Yield the prediction or the error of every image, in order."""
    with closing(_read(model, stream, batch_size, workers)) as read:
        for images, pixels in read:
            readable = [i for i, found in enumerate(pixels) if isinstance(found, Tensor)]
            named: dict[int, Prediction] = {}
            if readable:
                inputs = model.inputs(stacked([found for found in pixels if isinstance(found, Tensor)]))
                mine = [images[i] for i in readable]
                found_of = model.predict_inputs([*map(path_of, mine)], inputs, choice, _weights(weigh, mine))
                named = dict(zip(readable, found_of, strict=True))
            for i, found in enumerate(pixels):
                yield found if isinstance(found, DataError) else named[i]


def predict_together(
    model: TrainedModel,
    stream: Iterator[ImageInput],
    choice: Choice,
    batch_size: int,
    workers: int,
    weigh: Weights | None = None,
) -> Generator[Prediction | DataError]:
    """Read all images, then yield predictions that depend on all of them; otherwise like :func:`predict_each`."""
    outcomes: list[str | DataError] = []
    scores, psi, pooled = [np.zeros((0, len(model.table)))], [np.zeros((0, len(model.table.attributes)))], []
    weights: list[np.ndarray] = []
    for images, pixels in _read(model, stream, batch_size, workers):
        outcomes += [
            found if isinstance(found, DataError) else path_of(image)
            for image, found in zip(images, pixels, strict=True)
        ]
        if readable := [found for found in pixels if isinstance(found, Tensor)]:
            inputs = model.inputs(stacked(readable))
            pooled.append(model.pooled(inputs))
            answer = replace(model.answer(inputs), pooled=pooled[-1])
            scores.append(model.class_scores(answer.query, answer.pooled))
            psi.append(answer.attribute_scores)
            mine = [image for image, found in zip(images, pixels, strict=True) if isinstance(found, Tensor)]
            weights += [given] if (given := _weights(weigh, mine)) is not None else []
    named: Iterator[Prediction] = iter(())
    if pooled:
        moved = model.together(np.concatenate(scores), torch.cat(pooled), choice.allowed)
        files = [found for found in outcomes if isinstance(found, str)]
        prior = np.concatenate(weights) if weights else None
        named = iter(model.respond(files, moved, np.concatenate(psi), choice, prior, together=True))
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
            inputs = model.inputs(stacked(readable))
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
    return model.inputs(stacked([model.backbone.transform.cropped(image) for image in images]))


def _read(
    model: TrainedModel, stream: Iterator[ImageInput], batch_size: int, workers: int
) -> Generator[tuple[Sequence[ImageInput], Sequence[Tensor | DataError]]]:
    """Batches of images and their pixels, read ahead of the network."""
    batches = iter(lambda: list(islice(stream, batch_size)), [])
    with closing(read_batches(batches, model.backbone.transform, workers)) as read:
        yield from read
