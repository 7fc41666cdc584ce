"""Does a method look at the part that an attribute names? The pointing game on annotated part positions.

For every image and every attribute of its class, the region with the highest attention is a hit if its center is within
a radius of the named part (common practice is a hit inside a box around the part). The radius is a share of the extent
of the visible parts. Chance is the hit rate of a random region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unseen.backbones.transform import Transform
from unseen.classes.presence import present
from unseen.data.dataset import Dataset
from unseen.data.frozen import AnyStore
from unseen.errors import DataError
from unseen.ground.images import upright_size
from unseen.methods.base import Method

RADIUS = 0.15
"""Radius of a hit, as a share of the diagonal of the box around an image's visible parts.

At least half the diagonal of a region.
"""
BATCH = 32
"""Images at a time."""
Spots = dict[str, list[tuple[float, float]]]
"""Positions x, y of each visible part of an image."""
CUB_PARTS = {
    "bill": ("beak",),
    "wing": ("left wing", "right wing"),
    "upperparts": ("back",),
    "underparts": ("belly", "breast"),
    "breast": ("breast",),
    "back": ("back",),
    "tail": ("tail",),
    "upper_tail": ("tail",),
    "under_tail": ("tail",),
    "head": ("crown", "nape", "forehead"),
    "throat": ("throat",),
    "eye": ("left eye", "right eye"),
    "forehead": ("forehead",),
    "nape": ("nape",),
    "belly": ("belly",),
    "leg": ("left leg", "right leg"),
    "crown": ("crown",),
}
"""CUB's parts for the start of a group's name (our interpretation): ``has_bill_shape`` looks at the beak."""


@dataclass(frozen=True)
class PointingGame:
    """Hit rates of one map.

    Args:
        hits: share of hits over all images and attributes.
        chance: the same for a random region.
        by_group: attribute group to (hits, chance, number of cases).
    """

    hits: float
    chance: float
    by_group: dict[str, tuple[float, float, int]]


def parts_of(dataset: Dataset) -> list[tuple[str, ...]]:
    """The annotated parts that each attribute refers to; empty if unknown.

    Raises:
        DataError: the dataset has no part positions, or none that an attribute names.
    """
    if dataset.part_positions is None:
        raise DataError("no part positions", where=dataset.name, hint="add parts.csv with columns file, part, x, y")
    known = set(dataset.part_positions["part"])
    attributes = dataset.table.attributes
    found = []
    for group, part in zip(attributes.groups, attributes.parts, strict=True):
        names: tuple[str, ...] = (part,) if part else ()
        if not names:
            stem = group.removeprefix("has_")
            fits = [key for key in CUB_PARTS if stem == key or stem.startswith(key + "_")]
            names = CUB_PARTS[max(fits, key=len)] if fits else ()
        found.append(tuple(n for n in names if n in known))
    if not any(found):
        raise DataError("no attribute refers to an annotated part", where=dataset.name, hint="add a part column")
    return found


def region_centres(transform: Transform, grid: tuple[int, int], width: int, height: int) -> np.ndarray:
    """``(R, 2)`` x, y of every region's center in pixels of an upright image, row by row."""
    h, w = grid
    left, top, right, bottom = transform.crop_box(width, height)
    xs = left + (np.arange(w) + 0.5) / w * (right - left)
    ys = top + (np.arange(h) + 0.5) / h * (bottom - top)
    return np.stack([np.tile(xs, h), np.repeat(ys, w)], axis=1)


@torch.inference_mode()
def pointing_game(
    method: Method,
    dataset: Dataset,
    store: AnyStore,
    transform: Transform,
    images: Sequence[int] | np.ndarray,
) -> dict[str, PointingGame]:
    """Hit rate of every sub-net's attention (for a method without attention: of its region contributions).

    Args:
        method: trained method, on any device.
        dataset: dataset with part positions.
        store: its regions, or what a method trained end to end takes.
        transform: transform of the backbone.
        images: positions of the images to use.

    Returns:
        Name of the sub-net to its hit rates.

    Raises:
        DataError: no part positions.
    """
    named, positions, table, grid = parts_of(dataset), _visible(dataset), dataset.table, store.grid()
    has = present(table.values)
    device = next(iter(method.state_dict().values()), torch.empty(0)).device
    cases: dict[str, list[tuple[str, bool, float]]] = {}
    indices = np.asarray(images)
    for start in range(0, len(indices), BATCH):
        batch = indices[start : start + BATCH]
        branches = method.maps(store.read(batch).float().to(device))
        peaks = {
            name: (branch.contributions if branch.attention is None else branch.attention).argmax(dim=2).cpu().numpy()  # type: ignore[union-attr]
            for name, branch in branches.items()
        }
        for row, index in enumerate(batch):
            where = positions.get(dataset.files[index], {})
            if sum(map(len, where.values())) < 2:
                continue
            width, height = upright_size(dataset.images / dataset.files[index])
            near = _near(where, region_centres(transform, grid, width, height), grid)
            for k in np.flatnonzero(has[dataset.labels[index]]):
                targets = [near[part] for part in named[k] if part in near]
                if not targets:
                    continue
                inside = np.logical_or.reduce(targets)
                if not inside.any():
                    continue  # the part is outside of what the network sees
                for name, peak_of in peaks.items():
                    hit = bool(inside[peak_of[row, k]])
                    cases.setdefault(name, []).append((table.attributes.groups[k], hit, float(inside.mean())))
    return {name: _summary(found) for name, found in cases.items()}


def _visible(dataset: Dataset) -> dict[str, Spots]:
    """Positions of the visible parts of every image, by file."""
    frame = dataset.part_positions
    assert frame is not None
    visible = frame[frame["visible"].astype(bool)]
    found: dict[str, Spots] = {}
    for file, part, x, y in zip(visible["file"], visible["part"], visible["x"], visible["y"], strict=True):
        found.setdefault(file, {}).setdefault(part, []).append((float(x), float(y)))
    return found


def _near(spots: Spots, centres: np.ndarray, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """For each part, bool ``(R,)`` which regions count as hits."""
    cell = np.hypot(*(centres.max(axis=0) - centres.min(axis=0)) / (np.array(grid[::-1]) - 1).clip(min=1)) / 2
    points = np.array([point for part in spots.values() for point in part])
    reach = max(RADIUS * np.hypot(*np.ptp(points, axis=0)), cell)
    return {
        part: np.linalg.norm(centres[:, None] - np.array(mine)[None], axis=2).min(axis=1) <= reach
        for part, mine in spots.items()
    }


def _summary(cases: list[tuple[str, bool, float]]) -> PointingGame:
    groups: dict[str, list[tuple[bool, float]]] = {}
    for group, hit, chance in cases:
        groups.setdefault(group, []).append((hit, chance))

    def rate(pairs: list[tuple[bool, float]]) -> tuple[float, float, int]:
        return float(np.mean([h for h, _ in pairs])), float(np.mean([c for _, c in pairs])), len(pairs)

    hits, chance, _ = rate([(h, c) for _, h, c in cases])
    return PointingGame(hits, chance, {group: rate(pairs) for group, pairs in groups.items()})
