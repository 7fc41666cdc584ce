"""Upper bounds for attention: a closed form that looks at the annotated parts.

    python -m benchmarks.attention_oracle runs/prototypes-cub50 --output results.json

The runs are of `prototypes` on a dataset with parts.csv. Their solution is fitted again on every draw of validation
classes, and its class scores are mixed with those of

- ``parts``: the contributions of regions to an attribute that names a part are weighted by their distance to the part
  (a Gaussian, ``--width`` regions wide) instead of equally. Attributes without a part stay unchanged;
- ``object``: the same, with a box around all visible parts;
- ``features of parts``: regions are pooled at each part, with the same weights, and every part has a closed form of its
  own, with its own preparation, fitted to the training images; class scores are their mean. Nothing can look better
  without other features or trained rows.

Hidden parts are everywhere. No test image is used.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measured import finish
from unseen.backbones.backbone import Backbone
from unseen.evaluation.localisation import parts_of, region_centres
from unseen.evaluation.metrics import Decisions, SeenUnseenCurve, common_gamma, evaluate
from unseen.ground.images import upright_size
from unseen.methods.pooled import pool
from unseen.training.batches import batches
from unseen.training.folder import Run
from unseen.training.inputs import RunInputs
from unseen.training.run import reopen
from unseen.training.stage import Stage

SHARES = (0.25, 0.5, 1.0)


def marked(inputs: RunInputs, grid: tuple[int, int], width: float) -> tuple[np.ndarray, np.ndarray]:
    """``(n, P, R)`` attention to each named part of each image, uniform where it is hidden, and ``(n, R)`` to all."""
    dataset, transform = inputs.dataset, Backbone(inputs.config.backbone).transform
    frame = dataset.part_positions
    assert frame is not None
    names = {name: p for p, name in enumerate(sorted(set(frame["part"])))}
    regions = grid[0] * grid[1]
    parts = np.full((len(dataset.files), len(names), regions), 1 / regions, np.float32)
    whole = np.full((len(dataset.files), regions), 1 / regions, np.float32)
    place = {file: i for i, file in enumerate(dataset.files)}
    for file, mine in frame[frame["visible"].astype(bool)].groupby("file"):
        if (i := place.get(str(file))) is None:
            continue
        size = upright_size(dataset.images / str(file))
        centres = region_centres(transform, grid, *size)
        step = abs(centres[1, 0] - centres[0, 0])  # regions are in row-major order
        points = mine[["x", "y"]].to_numpy(float)
        near = np.exp(-((centres[None] - points[:, None]) ** 2).sum(axis=2) / (2 * (width * step) ** 2)) + 1e-6
        for row, name in zip(near / near.sum(axis=1, keepdims=True), mine["part"], strict=True):
            parts[i, names[name]] = row
        inside = ((centres >= points.min(0) - step / 2) & (centres <= points.max(0) + step / 2)).all(axis=1) + 1e-6
        whole[i] = inside / inside.sum()
    return parts, whole


def scores_of(stage: Stage, pick: dict, attention: tuple[np.ndarray, np.ndarray], named: list) -> dict[str, np.ndarray]:
    """Class scores of a draw's validation images: the closed form, and with attention to parts and to the object."""
    inputs, store = stage.inputs, stage.inputs.store
    method = inputs.new_method(0)
    everything = stage.train.batch(np.arange(len(stage.train_labels)))
    method.fit(everything, torch.as_tensor(stage.train_labels), stage.classes)
    method.use(pick)
    method.eval()
    found: dict[str, list] = {"start": [], "parts": [], "object": []}
    with torch.inference_mode():
        for rows in batches(len(stage.held_out)):
            images = stage.held_out[rows]
            regions = store.read(images).float()
            branches = method.maps(regions)
            c = branches["linear"].contributions
            uniform = torch.full_like(c, 1 / c.shape[2])
            looks = uniform.clone()
            for k, places in enumerate(named):
                if places:
                    looks[:, k] = torch.from_numpy(attention[0][images][:, places].mean(axis=1))
            whole = torch.from_numpy(attention[1][images])[:, None].expand_as(c)
            for name, look in (("start", uniform), ("parts", looks), ("object", whole)):
                branches["linear"].attribute_scores = c.shape[2] * (look * c).sum(dim=2)
                found[name].append(method.class_scores(branches, stage.classes).numpy())
    assert torch.allclose(method(pool(regions))["linear"].attribute_scores, c.sum(dim=2), atol=1e-4)
    return {name: np.concatenate(every) for name, every in found.items()}


def of_parts(stage: Stage, pick: dict, attention: np.ndarray) -> np.ndarray:
    """Class scores of a draw's validation images: the mean of a closed form for each part, on features pooled there."""
    trained, held_out = (looked(stage, images, attention) for images in (stage.partition.train, stage.held_out))
    labels, scores = torch.as_tensor(stage.train_labels), []
    for p in range(attention.shape[1]):
        method = stage.inputs.new_method(0)
        method.fit(trained[:, p : p + 1], labels, stage.classes)
        method.use(pick)
        method.eval()
        with torch.inference_mode():
            scores.append(method.class_scores(method(held_out[:, p : p + 1]), stage.classes).numpy())
    return np.mean(scores, axis=0)


def looked(stage: Stage, images: np.ndarray, attention: np.ndarray) -> torch.Tensor:
    """``(n, P, C)`` unit features of images, pooled with the attention ``(images, P, R)`` to each part."""
    found = []
    for rows in batches(len(images)):
        mine = images[rows]
        regions = stage.inputs.store.read(mine).float()
        found.append(torch.nn.functional.normalize(torch.from_numpy(attention[mine]) @ regions, dim=-1))
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--width", type=float, default=0.7)
    parser.add_argument("--cache", type=Path, help="cache folder with stored features")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    for folder in options.runs:
        rows += studied(Run(folder), options.width, options.cache)
    finish(options.output, {"Oracle": rows}, began=began, protocol="honest", seeds=[0])


def studied(run: Run, width: float, cache: Path | None) -> list[dict]:
    """One line for every attention and share on one run."""
    inputs = reopen(run, device="cpu", cache=cache)
    pick = json.loads((run.folder / f"seed-{inputs.config.seeds[0]}" / "choice.json").read_text())["pick"]
    grid = Backbone(inputs.config.backbone).grids[-1]
    attention = marked(inputs, grid, width)
    assert inputs.dataset.part_positions is not None
    order = sorted(set(inputs.dataset.part_positions["part"]))
    named = [[order.index(part) for part in parts] for parts in parts_of(inputs.dataset)]
    drawn = []
    for draw in range(inputs.config.draw_count):
        stage = Stage(inputs, "validation", draw)
        scores = scores_of(stage, pick, attention, named)
        scores["features of parts"] = of_parts(stage, pick, attention[0])
        drawn.append((scores, stage.test_labels, stage.seen))
    rows, start = [], np.zeros((2, 0))
    backbone = inputs.config.backbone
    about = {"data": inputs.dataset.name, "network": backbone.name, "regions": f"{grid[0]}x{grid[1]}"}
    for name in ("start", "parts", "object", "features of parts"):
        for share in SHARES if name != "start" else (0.0,):
            made = [
                (Decisions.from_scores(s["start"] + share * (s[name] - s["start"]), labels, seen), seen)
                for s, labels, seen in drawn
            ]
            gamma = common_gamma([SeenUnseenCurve.of(d) for d, _ in made])[0]
            every = [evaluate(d, seen, gamma) for d, seen in made]
            both = 100 * np.array([[e.t1 for e in every], [e.h for e in every]])
            start = both if name == "start" else start
            row: dict[str, float] = {}
            for metric, values, before in zip(("T1", "H"), both, start, strict=True):
                change = values - before
                row |= {metric: values.mean(), f"{metric} difference": change.mean()}
                row[f"{metric} error"] = change.std(ddof=1) / len(change) ** 0.5
            told = {"attention": "everywhere" if name == "start" else name, "share": share}
            rows.append({**about, **told, **{key: round(float(value), 1) for key, value in row.items()}})
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    main()
