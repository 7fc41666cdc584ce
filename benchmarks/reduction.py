"""Reduced regions: their cost in accuracy, and what they save in time, memory and disk.

    python -m benchmarks.reduction [--output benchmarks/results/reduction.json]
    python -m benchmarks.reduction --dataset data/cub50 --backbone mobilenetv2_100 ... --reductions pca:256 pca:64 ...
    python -m benchmarks.reduction --methods

Every row is a run of the honest protocol on the same images, so differences are paired by image; the interval is the
bootstrap's over test images. A step is forward, loss and backward of 50 training images, in processor time, in turn
with the other rows. Disk is the region store; memory is what training keeps of the regions of all training images in
the precision of the run; the run's time is processor time of training and testing alone. Reading is the time of the
network with the projection, relative to without. The last table uses random regions in the published size of CUB (50
images, 14x14 regions, 2048 channels, 312 attributes).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measured import alternately, finish
from unseen.backbones.backbone import Backbone
from unseen.backbones.reduction import FILE, Reduction, ReductionSpec
from unseen.cli.configuring import make_backbone
from unseen.evaluation.bootstrap import Interval, Resampled, difference, resample
from unseen.features.store import RegionStore, write_store
from unseen.ground.cache import cache_folder
from unseen.methods import ClassSpace, create_method, find_method, find_preset
from unseen.methods.base import GradientMethod
from unseen.training.config import RunConfig
from unseen.training.decisions import decisions_path, load_decisions
from unseen.training.fabric import PRECISIONS, make_fabric
from unseen.training.folder import Run
from unseen.training.inputs import RunInputs
from unseen.training.plan import Plan
from unseen.training.protocols import validate_seeds
from unseen.training.run import fit
from unseen.training.stage import Stage
from unseen.training.steps import to_weight_precision

REDUCTIONS = ("pca:64", "pca:32", "merge:2", "merge:2,pca:64")
GRID = (14, 14)
CUB = {"images": 50, "channels": 2048, "attributes": 312, "vector": 300, "classes": 200}
Step = Callable[[], object]


def label(reduce: str) -> str:
    """Names in tables."""
    return reduce or "full"


def one_step(method: GradientMethod, regions: torch.Tensor, labels: torch.Tensor, classes: ClassSpace) -> Step:
    """Forward, loss and backward as in training, in the precision of the regions."""
    method.train()

    def run() -> None:
        method.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=regions.dtype == torch.bfloat16):
            branches = method(regions)
        to_weight_precision(branches, classes)
        method.loss(branches, labels, classes)["total"].backward()

    return run


def accuracy(run: Run) -> dict[str, Resampled]:
    """T1 and H of a run, as measured and on resampled images."""
    seeds = run.results["protocols"]["honest"]["seeds"]
    gammas = [found["gamma"] for found in seeds.values()]
    drawn = [load_decisions(decisions_path(run.folder, seed, "honest", "H")) for seed in seeds]
    return resample(drawn, gammas)


def points(value: Interval, signed: bool = False) -> str:
    """Percent with the interval."""
    mean, low, high = (100 * v for v in (value.mean, value.low, value.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" if signed else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def measure(base: RunConfig, method: str, reductions: tuple[str, ...], cache: Path, repeats: int) -> list[dict]:
    """One row per reduction."""
    fabric, steps = make_fabric("cpu", base.precision), {}
    rows: list[dict[str, Any]] = []
    full: dict[str, Resampled] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for reduce in ("", *reductions):
            config = replace(base, method=method, reduce=reduce)
            plan = Plan.of(config, cache)
            store = plan.extract(cache, "cpu", 0)
            assert isinstance(store, RegionStore)
            began = time.process_time()
            run = fit(config, Path(temporary) / label(reduce), cache=cache, device="cpu")
            seconds = time.process_time() - began
            found = accuracy(run)
            full = full or found
            hand = Stage(RunInputs.of_plan(plan, store, fabric, run.folder), "final")
            batch = np.linspace(0, len(hand.train_labels) - 1, 50).astype(int)
            regions, labels = hand.train.batch(batch), torch.as_tensor(hand.train_labels[batch])
            rows.append(
                {
                    "method": method,
                    "regions": label(reduce),
                    "R x C": f"{'x'.join(map(str, store.grid()))} x {store.channels()}",
                    "T1": points(found["T1"].interval()),
                    "H": points(found["H"].interval()),
                    "T1 less full": points(difference(found["T1"], full["T1"]), True) if reduce else "",
                    "H less full": points(difference(found["H"], full["H"]), True) if reduce else "",
                    "store MB": round(store.nbytes / 1e6, 1),
                    "memory MB": round(regions[:1].nbytes * len(hand.train) / 1e6, 1),
                    "run s": round(seconds, 1),
                }
            )
            if not find_method(method).closed_form:
                made: Any = create_method(
                    method,
                    channels=store.channels(),
                    vectors=torch.from_numpy(plan.vectors).float(),
                    settings=plan.settings,
                    seed=0,
                )
                made.start([(regions, labels)], hand.classes)
                steps[label(reduce)] = one_step(made, regions, labels, hand.classes)
            print(rows[-1], flush=True)
    times = alternately(steps, repeats, time.process_time) if steps else {}
    for row in rows:
        row["step ms"] = round(1000 * times[row["regions"]], 1) if times else None
        row["step"] = f"{times[row['regions']] / times['full']:.2f}x" if times else ""
    return rows


def reading(base: RunConfig, reductions: tuple[str, ...], cache: Path, repeats: int) -> list[dict]:
    """Cost of a reduction: once, and for every image."""
    plain = Backbone(base.backbone)
    pixels = torch.randn(8, 3, plain.transform.size, plain.transform.size)
    sides: dict[str, Step] = {"full": lambda: plain(pixels)}
    rows: list[dict[str, Any]] = [{"regions": "full"}]
    plan = Plan.of(base, cache)
    store = plan.extract(cache, "cpu", 0)
    assert isinstance(store, RegionStore)
    for reduce in reductions:
        reduced = Plan.of(replace(base, reduce=reduce), cache).extract(cache, "cpu", 0)
        assert isinstance(reduced, RegionStore)
        backbone = Backbone(base.backbone).reduced(Reduction.load(reduced.folder / FILE))
        sides[reduce] = partial(backbone, pixels)
        began = time.process_time()
        again = Reduction(ReductionSpec.parse(reduce), store.grid())
        kept = again.fit(store.read(range(i, min(i + 32, len(store)))) for i in range(0, min(1000, len(store)), 32))
        rows.append({"regions": reduce, "kept of squared length": f"{kept:.3f}"})
        rows[-1]["fitting s, without the network"] = round(time.process_time() - began, 2)
        began = time.process_time()
        again(store.read(range(256)))
        rows[-1]["reducing a full store, ms an image"] = round(1000 * (time.process_time() - began) / 256, 3)
    with torch.inference_mode():
        times = alternately(sides, repeats, time.process_time)
    return [{**row, "reading": f"{times[row['regions']] / times['full']:.2f}x"} for row in rows]


def bases(base: RunConfig, method: str, components: int, cache: Path) -> list[dict]:
    """The same space in two bases, on the validation classes only: how the basis was chosen."""
    plan, fabric = Plan.of(replace(base, method=method), cache), make_fabric("cpu", base.precision)
    full = plan.extract(cache, "cpu", 0)
    assert isinstance(full, RegionStore)
    inputs = RunInputs.of_plan(plan, full, fabric)
    images = inputs.partition("validation").train
    reduction = Reduction(ReductionSpec(components), full.grid())
    reduction.fit(full.read(part) for part in np.array_split(images, 32))
    drawn = reduction.components
    assert drawn is not None
    unit = F.normalize(full.read(images[:: max(1, len(images) // 200)]).float().flatten(0, 1), dim=1) @ drawn.T
    axes = torch.linalg.eigh(unit.T.double() @ unit.double())[1].T.flip(0).float() @ drawn
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, basis in (("random", drawn), ("principal axes", axes)):
            reduction.components = basis
            store = write_store(
                Path(temporary) / name / "store",
                lambda start, stop: reduction(full.read(range(start, stop))).numpy(),
                names=full.names,
                grid=reduction.grid,
                channels=components,
                source={"basis": name},
            )
            chosen = validate_seeds(replace(inputs, store=store), base.seeds, Path(temporary) / name)
            cells = {
                f"{title}, validation classes, by seed": ", ".join(
                    f"{100 * c.metrics[key]:.1f}" for c in chosen.values()
                )
                for title, key in (("T1", "T1"), ("best H", "best_H"))
            }
            rows.append({"method": method, "regions": f"pca:{components}", "basis": name, **cells})
    return rows


def synthetic(repeats: int) -> list[dict]:
    """Steps on random regions of CUB's published size."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(CUB["images"], 196, CUB["channels"], generator=generator)
    labels = torch.randint(0, 150, (CUB["images"],), generator=generator)
    classes = ClassSpace(torch.rand(200, CUB["attributes"], generator=generator), torch.arange(200) < 150)
    vectors = torch.randn(CUB["attributes"], CUB["vector"], generator=generator)
    for method in ("msdn", "msdnpp"):
        settings, steps, sizes = find_preset(find_method(method), "own", "recommended")[1].settings, {}, {}
        for reduce in ("", "pca:256", "merge:2", "merge:2,pca:256"):
            reduction = Reduction(ReductionSpec.parse(reduce), GRID, dtype="float32")
            reduction.fit([raw[:2]])
            made: Any = create_method(
                method, channels=reduction.channels(CUB["channels"]), vectors=vectors, settings=settings, seed=0
            )
            with torch.no_grad():
                regions = made.prepare(reduction(raw))
            made.start([(regions, labels)], classes)
            steps[label(reduce)] = one_step(made, regions, labels, classes)
            sizes[label(reduce)] = regions.nbytes // len(regions)
        times = alternately(steps, repeats, time.process_time)
        rows += [
            {
                "method": method,
                "regions": name,
                "KB an image": round(sizes[name] / 1e3),
                "step ms": round(1000 * seconds),
                "step": f"{seconds / times['full']:.2f}x",
            }
            for name, seconds in times.items()
        ]
    return rows


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="fieldguide", help="fieldguide or a dataset folder")
    for name in ("backbone", "backbone-weights", "mean", "std"):
        parser.add_argument(f"--{name}", default=None, help="as in `unseen train`")
    parser.add_argument("--backbone-option", action="append", default=[], help="as in `unseen train`")
    parser.add_argument("--image-size", type=int, default=None, help="as in `unseen train`")
    parser.add_argument(
        "--methods", nargs="*", default=["eszsl", "msdnpp"], help="methods to run (none: only random regions)"
    )
    parser.add_argument("--reductions", nargs="+", default=list(REDUCTIONS))
    parser.add_argument("--basis", type=int, default=64, help="components for the table on the basis (0: no table)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps per row")
    parser.add_argument("--no-synthetic", action="store_true", help="omit the table of random regions")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    asked = parser.parse_args()
    began, cache = time.monotonic(), cache_folder(asked.cache)
    torch.set_num_threads(1)
    dataset = asked.dataset if asked.dataset == "fieldguide" else str(Path(asked.dataset).absolute())
    backbone = make_backbone(
        dataset,
        asked.backbone,
        asked.backbone_weights,
        asked.image_size,
        1,
        False,
        asked.backbone_option,
        asked.mean,
        asked.std,
        crop=1.0,
        pixels="exact",
        stages="final",
        device="cpu",
    )
    base = RunConfig(
        method=(asked.methods or ["eszsl"])[0],
        dataset=dataset,
        backbone=backbone,
        seeds=tuple(range(asked.seeds)),
        precision=asked.precision,
    )
    reductions = tuple(asked.reductions)
    rows = [row for method in asked.methods for row in measure(base, method, reductions, cache, asked.repeats)]
    wanted = ("method", "regions", "R x C", "T1", "H", "T1 less full", "H less full")
    spent = ("method", "regions", "store MB", "memory MB", "step ms", "step", "run s")
    name = Path(asked.dataset).name
    tables: dict[str, list[dict]] = {}
    if rows:
        tables[f"Accuracy on {name}"] = [{k: row[k] for k in wanted} for row in rows]
        tables[f"Cost on {name}"] = [{k: row[k] for k in spent} for row in rows]
        if asked.basis:
            tables[f"Basis on {name}"] = bases(base, asked.methods[-1], asked.basis, cache)
        tables[f"Once on {name}"] = reading(base, reductions, cache, asked.repeats)
    if not asked.no_synthetic:
        tables["A step at CUB's published size"] = synthetic(max(3, asked.repeats // 2))
    finish(asked.output, tables, began=began, seeds=asked.seeds, precision=asked.precision)


if __name__ == "__main__":
    main()
