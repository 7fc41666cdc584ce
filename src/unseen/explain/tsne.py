"""t-SNE of what the backbone sees and of what the method has learned (van der Maaten and Hinton, JMLR 2008)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from unseen.errors import DataError, UnseenError
from unseen.explain.answers import Answers
from unseen.explain.sheet import Sheet, class_label, new_figure, shorten, style
from unseen.ground.extras import require
from unseen.ground.words import counted

NEIGHBOURS = 5
SPACES = ("features", "attributes")
TITLES = {"features": "backbone: mean-pooled features", "attributes": "method: fused attribute scores"}


@dataclass(frozen=True)
class Separation:
    """How well the shown classes separate, measured in the space itself, not in its map.

    Args:
        seen, unseen: accuracy of the nearest neighbors (leave one out, :data:`NEIGHBOURS` votes among all shown
            images), averaged over classes; ``None`` without such classes.
        silhouette: mean silhouette of the images in [-1, 1]; ``None`` if there is only one class.
        silhouette_map: the same in the map.
        chance: one over the number of classes.
    """

    seen: float | None
    unseen: float | None
    silhouette: float | None
    silhouette_map: float | None
    chance: float


@dataclass(frozen=True, eq=False)
class Maps:
    """Both t-SNE maps of the same images.

    Args:
        positions: ``(n,)`` positions in the answers' images.
        classes: shown classes, unseen ones first.
        inputs: space to the ``(n, D)`` input of t-SNE.
        coordinates: space to ``(n, 2)``.
        separation: space to its separation.
        perplexity: perplexity used.
        candidates: numbers of images and classes to draw from.
    """

    positions: np.ndarray
    classes: np.ndarray
    inputs: dict[str, np.ndarray]
    coordinates: dict[str, np.ndarray]
    separation: dict[str, Separation]
    perplexity: float
    candidates: tuple[int, int]


def draw(answers: Answers, classes: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A seeded draw of a limited number of classes, half of them unseen if both kinds suffice, and of their images.

    Returns:
        Classes ``(n,)``, unseen first, each kind in table order; and increasing positions in ``answers.images``.
    """
    rng = np.random.default_rng(seed)
    there = np.unique(answers.labels)
    seen = answers.dataset.table.seen[there]
    unseen_ones, seen_ones = rng.permutation(there[~seen]), rng.permutation(there[seen])
    first = min(len(unseen_ones), max(classes // 2, classes - len(seen_ones)))
    chosen = np.concatenate([np.sort(unseen_ones[:first]), np.sort(seen_ones[: classes - first])])
    candidates = np.flatnonzero(np.isin(answers.labels, chosen))
    return chosen, np.sort(rng.permutation(candidates)[:images])


def embed(values: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """``(n, D)`` to ``(n, 2)`` by scikit-learn's t-SNE, on one thread so that it is reproducible.

    Starts from a PCA, or at random if there is none (one dimension, or all values equal).
    """
    require("sklearn")
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        start = "pca" if values.shape[1] > 1 and np.ptp(values, axis=0).any() else "random"
        tsne = TSNE(perplexity=perplexity, init=start, learning_rate="auto", random_state=seed, n_jobs=1)
        return np.asarray(tsne.fit_transform(values.astype(np.float64)), dtype=np.float64)


def separation(values: np.ndarray, mapped: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> Separation:
    """Leave-one-out nearest neighbors in ``(n, D)`` and silhouettes of classes ``(n,)``, some of which are unseen."""
    require("sklearn")
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier

    names = np.unique(labels)
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(labels) - 1)).fit(values, labels)
    right = neighbours.predict(None) == labels

    def accuracy(which: np.ndarray) -> float | None:
        rates = [float(right[labels == c].mean()) for c in np.unique(labels[which])]
        return float(np.mean(rates)) if rates else None

    several = 1 < len(names) < len(labels)
    return Separation(
        accuracy(~unseen),
        accuracy(unseen),
        float(silhouette_score(values, labels)) if several else None,
        float(silhouette_score(mapped, labels)) if several else None,
        1 / len(names),
    )


def tsne_maps(
    answers: Answers,
    *,
    classes: int = 20,
    images: int = 1500,
    perplexity: float | None = None,
    seed: int = 0,
) -> Maps:
    """Map test images by the backbone's features and by the method's attribute scores.

    Args:
        answers: answers of a run.
        classes: largest number of classes; more are sampled with the seed.
        images: largest number of images, likewise.
        perplexity: perplexity of t-SNE; by default 30, or a third of the images if that is less.
        seed: seed of the draws and of t-SNE.

    Raises:
        UnseenError: fewer than 2 classes or 2 images requested, or a perplexity that does not suit the images.
        DataError: fewer than 5 images.
    """
    if classes < 2 or images < 5:
        raise UnseenError(
            f"{counted(classes, 'class')} and {counted(images, 'image')}", hint="use at least 2 classes and 5 images"
        )
    shown, positions = draw(answers, classes, images, seed)
    count = len(positions)
    if count < 5:
        raise DataError(f"{counted(count, 'test image')} for t-SNE", where=answers.dataset.name, hint="use 5 or more")
    if perplexity is None:
        perplexity = min(30.0, max(1.0, (count - 1) // 3))
    if not 1 <= perplexity < count:
        raise UnseenError(
            f"perplexity {perplexity:g} for {counted(count, 'image')}", hint=f"use 1 or more, and less than {count}"
        )
    inputs = {"features": answers.pooled(positions), "attributes": answers.attribute_scores[positions]}
    labels, unseen = answers.labels[positions], answers.unseen[positions]
    coordinates = {space: embed(values, perplexity, seed) for space, values in inputs.items()}
    measured = {s: separation(inputs[s], coordinates[s], labels, unseen) for s in SPACES}
    candidates = (len(answers.images), len(np.unique(answers.labels)))
    return Maps(positions, shown, inputs, coordinates, measured, perplexity, candidates)


def colors(count: int) -> list[tuple[float, float, float]]:
    """The given number of colors: matplotlib's ten strong ones, their pale shades, then hues around the circle."""
    require("matplotlib")
    import matplotlib

    pairs = [tuple(color) for color in matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]
    if count <= 20:
        return (pairs[::2] + pairs[1::2])[:count]
    return [matplotlib.colormaps["hsv"](i / count)[:3] for i in range(count)]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def tsne_sheet(answers: Answers, maps: Maps, seed: int = 0) -> Sheet:
    """Both maps side by side: unseen classes as triangles, seen ones as circles, one color per class."""
    require("matplotlib")
    from matplotlib.lines import Line2D

    table = answers.dataset.table
    labels = answers.labels[maps.positions]
    palette = dict(zip(maps.classes, colors(len(maps.classes)), strict=True))
    size = 26 if len(labels) <= 400 else 14
    with style():
        figure = new_figure(13.5, 6.6)
        axes = figure.subplots(1, 2)
        for axis, space in zip(axes, SPACES, strict=True):
            for c in maps.classes[::-1]:  # unseen ones last, on top
                points = maps.coordinates[space][labels == c]
                marker, edge = ("o", "#777777") if table.seen[c] else ("^", "black")
                axis.scatter(*points.T, s=size, color=palette[c], marker=marker, edgecolors=edge, linewidths=0.3)
            axis.set_title(TITLES[space])
            axis.set(xticks=[], yticks=[])
            axis.spines[["top", "right"]].set_visible(True)
            found = maps.separation[space]
            silhouette = "–" if found.silhouette is None else f"{found.silhouette:+.2f}"
            axis.set_xlabel(
                f"{NEIGHBOURS} nearest neighbors correct: unseen {_percent(found.unseen)}, seen "
                f"{_percent(found.seen)} (chance {_percent(found.chance)});  silhouette {silhouette}"
            )
        handles: list[Line2D] = []
        for is_seen, title, marker in ((False, "unseen classes", "^"), (True, "seen classes", "o")):
            members = [c for c in maps.classes if table.seen[c] == is_seen]
            if members:
                handles.append(Line2D([], [], linestyle="", label=title.upper()))
            handles += [
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=marker,
                    color=palette[c],
                    markeredgecolor="black",
                    markeredgewidth=0.3,
                    markersize=6,
                    label=shorten(class_label(table.names[c])),
                )
                for c in members
            ]
        figure.legend(
            handles=handles,
            loc="outside right upper",
            fontsize=8 if len(handles) <= 26 else 6,
            frameon=False,
            ncols=1 + (len(handles) - 1) // 45,
            handletextpad=0.2,
        )
    every, kinds = maps.candidates
    drawn = len(maps.classes) < kinds or len(labels) < int(np.isin(answers.labels, maps.classes).sum())
    caption = (
        f"t-SNE of {counted(len(labels), 'test image')} of {counted(len(maps.classes), 'class')}"
        + (f", drawn with seed {seed} from {every} of {kinds}" if drawn else "")
        + f"; perplexity {maps.perplexity:g}, t-SNE seed {seed}. Triangles: unseen classes, "
        "circles: seen ones. Below each map, computed in the full space: accuracy of "
        f"{NEIGHBOURS} nearest neighbors (leave one out, mean over classes) and silhouette. "
        f"{answers.origin}."
    )
    return Sheet("tsne", caption, figure, _numbers(answers, maps), _summary(answers, maps, seed))


def _numbers(answers: Answers, maps: Maps) -> pd.DataFrame:
    """One row per image: file, class, seen, predicted class, and its position in both maps."""
    names = np.array(answers.dataset.table.names)
    columns: dict[str, Any] = {
        "file": [answers.dataset.files[i] for i in answers.images[maps.positions]],
        "class": names[answers.labels[maps.positions]],
        "seen": (~answers.unseen[maps.positions]).astype(int),
        "predicted": names[answers.predicted[maps.positions]],
    }
    for space in SPACES:
        columns[f"{space}_x"], columns[f"{space}_y"] = maps.coordinates[space].T
    return pd.DataFrame(columns)


def _summary(answers: Answers, maps: Maps, seed: int) -> dict[str, Any]:
    return {
        "perplexity": maps.perplexity,
        "seed": seed,
        "images": len(maps.positions),
        "images_in_all": maps.candidates[0],
        "classes": [answers.dataset.table.names[c] for c in maps.classes],
        "classes_in_all": maps.candidates[1],
        "neighbours": NEIGHBOURS,
        "separation": {space: vars(found) for space, found in maps.separation.items()},
    }
