"""Closed forms on frozen features: which wins, what preparation is worth, and how many draws the choice needs.

    python -m benchmarks.closed_forms cub50:mobilenetv2 fieldguide --split-seeds 0 --output results.json

``DATA:NETWORK`` is ``cub50`` or ``flo64`` with ``mobilenetv2`` (224 px) or ``lite2`` (260 px), found below UNSEEN_DATA,
a folder with either network, or ``fieldguide``, which has its own; ``cub50:lite2@448`` takes images of 448 px,
``cub50:lite2x2`` a zoom of 2, ``cub50:lite2+mirror`` and ``cub50:lite2x2+mirror`` the mirror images, too. Features are
extracted once and cached. Candidates are chosen under the honest protocol, as in a run. Test images are scored once by
every model in the tables and choose nothing. The highest H at any offset (``swept``) is the upper bound for the offset.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from scipy.io import loadmat

from benchmarks.measured import finish
from unseen.backbones.spec import FINAL, BackboneSpec
from unseen.classes.attributes import Attributes, write_attributes
from unseen.classes.table import ClassTable
from unseen.evaluation.metrics import SeenUnseenCurve, common_gamma, evaluate
from unseen.ground.cache import cache_folder
from unseen.methods.preparation import FEATURES, ROWS
from unseen.training import closed_form
from unseen.training.config import RunConfig
from unseen.training.fabric import make_fabric
from unseen.training.inputs import RunInputs
from unseen.training.offset import matched
from unseen.training.outcomes import choice_of
from unseen.training.plan import Plan, default_backbone, resolve_settings
from unseen.training.stage import Stage
from unseen.training.temperature import Held

NETWORKS = {
    "mobilenetv2": ("mobilenetv2_100", "mobilenetv2_100_imagenet.safetensors", 224, {"pad_type": "same"}),
    "lite2": ("tf_efficientnet_lite2", "tf_efficientnet_lite2_imagenet.safetensors", 260, {}),
}
METHODS = {"eszsl paper": ("eszsl", "paper"), "eszsl": ("eszsl", None), "prototypes": ("prototypes", None)}
DRAWS = 5


@dataclass
class Swept:
    """Every candidate of a method on every draw.

    Args:
        method: name in a run.
        inputs: inputs of the runs.
        candidates: candidates by their JSON.
        curves: curves of each candidate, one per draw.
        seconds: time taken.
    """

    method: str
    inputs: RunInputs
    candidates: dict[str, dict]
    curves: dict[str, list[SeenUnseenCurve]]
    seconds: float

    def best(self, draws: Iterable[int], wanted: Callable[[dict], bool] = lambda _: True) -> tuple[dict, float, float]:
        """The candidate with the highest mean H over some draws, among those wanted, with its offset and that H."""
        chosen, draws = None, list(draws)
        for key, curves in self.curves.items():
            if wanted(self.candidates[key]):
                gamma, value = common_gamma([curves[d] for d in draws])
                if chosen is None or value > chosen[2]:
                    chosen = self.candidates[key], gamma, value
        assert chosen is not None
        return chosen


def inputs_of(job: str, split_seed: int, cache: Path, stage: str = FINAL) -> RunInputs:
    """Inputs of all runs on a dataset; features are extracted, or taken from the cache."""
    data, _, network = job.partition(":")
    network, _, mirror = network.partition("+")
    network, _, zoom = network.partition("x")
    network, _, pixels = network.partition("@")
    if data == "fieldguide":
        dataset, backbone = data, default_backbone(data)
    else:
        root = Path(os.environ["UNSEEN_DATA"])
        name, weights, size, options = NETWORKS[network]
        dataset = str(Path(data) if "/" in data else flowers(root / data, cache) if data == "flo64" else root / data)
        backbone = BackboneSpec(
            name,
            image_size=int(pixels or size),
            zoom=int(zoom or 1),
            mirror=bool(mirror),
            weights=str(root / "weights" / weights),
            options=options,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        )
    backbone = replace(backbone, stages=(stage,))
    config = RunConfig(method="eszsl", dataset=dataset, backbone=backbone, split_seed=split_seed, draws=DRAWS)
    plan = Plan.of(config, cache)
    return RunInputs.of_plan(plan, plan.extract(cache, "cpu", 0), make_fabric("cpu", config.precision))


def flowers(root: Path, cache: Path) -> Path:
    """The dataset folder of flo64: its images, with the text embeddings of ``att_splits.mat`` as attributes."""
    folder = cache / "datasets" / "flo64"
    if not (folder / "images.csv").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        images = pd.read_csv(root / "images.csv", dtype={"class": str})
        values = loadmat(root / "att_splits.mat")["att"].T
        names = tuple(str(c + 1) for c in range(len(values)))
        seen = np.isin(names, images["class"][images["split"] == "trainval"])
        attributes = Attributes(tuple(f"text {k}" for k in range(values.shape[1])))
        ClassTable(names, attributes, values, seen).to_csv(folder / "classes.csv")
        write_attributes(folder / "attributes.csv", attributes)
        (folder / "images").symlink_to((root / "images").resolve())
        images[["file", "class", "split"]].to_csv(folder / "images.csv", index=False)
    return folder


def of_method(inputs: RunInputs, label: str) -> RunInputs:
    """The same with another method."""
    method, preset = METHODS[label]
    config = replace(inputs.config, method=method, preset=preset)
    name, settings, recipe = resolve_settings(config, inputs.dataset.name)
    return replace(inputs, config=config, preset=name, settings=settings, recipe=recipe)


def sweep(inputs: RunInputs, stages: list[Stage]) -> Swept:
    """Solve and score on every draw."""
    began, candidates = time.monotonic(), {}
    curves: dict[str, list[SeenUnseenCurve]] = {}
    for stage in stages:
        stage.inputs = inputs
        method = closed_form._fitted(0, stage)
        for key, tried in closed_form._tried(method, stage, "", lambda *_: None).items():
            candidates[key] = tried.candidate
            curves.setdefault(key, []).append(SeenUnseenCurve.of(tried.decisions))
    curves = {key: found for key, found in curves.items() if len(found) == len(stages)}
    return Swept(inputs.config.method, inputs, candidates, curves, time.monotonic() - began)


class Test:
    """The model of all seen classes with a candidate; all numbers of the tables come from here."""

    def __init__(self, swept: Swept, final: Stage, pick: dict) -> None:
        self._swept, self._final, self._pick = swept, final, pick
        final.inputs = swept.inputs
        method = closed_form._fitted(0, final)
        method.use(pick)
        self.decisions = final.decide(method)
        self.swept = 100 * SeenUnseenCurve.of(self.decisions).best_gamma()[1]

    def at(self, gamma: float) -> dict[str, float]:
        """T1, U, S, H in percent."""
        found = evaluate(self.decisions, self._final.seen, gamma)
        return {"T1": 100 * found.t1, "U": 100 * found.u, "S": 100 * found.s, "H": 100 * found.h}

    def matched_gamma(self, stages: list[Stage]) -> float:
        """The offset of a run."""
        held = []
        for stage in stages:
            stage.inputs = self._swept.inputs
            method = closed_form._fitted(0, stage)
            method.use(self._pick)
            held.append(Held(stage.scores(method).numpy(), stage.test_labels, stage.seen))
        self._final.inputs = self._swept.inputs
        scored = partial(closed_form.scored, 0, self._final, self._pick)
        return matched(choice_of(self._pick, held), self._final, scored).gamma


def row(job: str, seed: int, name: str, pick: dict, value: float, found: dict, swept: float, **more: object) -> dict:
    """One line of a table."""
    prepared = f"{pick['features']}, {pick['rows']}"
    return {
        "data": job, "split seed": seed, "row": name, "chosen": prepared, "own": pick.get("own", 0.0),
        "validation H": round(100 * value, 1), **{k: round(v, 1) for k, v in found.items()}, "swept H": round(swept, 1),
        **more,
    }  # fmt: skip


def studied(job: str, seed: int, cache: Path, tables: dict[str, list[dict]], studies: set[str]) -> None:
    """Every study of one dataset, network and split seed."""
    inputs = inputs_of(job, seed, cache)
    stages, final = [Stage(inputs, "validation", draw) for draw in range(DRAWS)], Stage(inputs, "final")
    swept = {label: sweep(of_method(inputs, label), stages) for label in METHODS}
    race: dict[str, float] = {}

    def compared(label: str, name: str, wanted: Callable[[dict], bool] = lambda _: True) -> tuple[dict, float]:
        began, found = time.monotonic(), swept[label]
        pick, gamma, value = found.best(range(DRAWS), wanted)
        test = Test(found, final, pick)
        at = test.at(test.matched_gamma(stages))
        seconds = round(found.seconds + time.monotonic() - began)
        mean_h = {"H, mean-H offset": round(test.at(gamma)["H"], 1)}
        tables["Comparison"].append(row(job, seed, name, pick, value, at, test.swept, **mean_h, seconds=seconds))
        print(tables["Comparison"][-1], flush=True)
        return pick, value

    for label in METHODS:
        if label == "eszsl paper":
            compared(label, label)
            continue
        compared(label, f"{label}, own 0", lambda c: not c["own"])
        pick, race[label] = compared(label, label)
        found = swept[label]
        if "preparations" in studies:
            _preparations(job, seed, label, found, final, tables)
        if "draws" in studies:
            _draws(job, seed, label, found, (final, inputs), pick, tables)
    winner = max(race, key=race.__getitem__)
    same = next(r for r in tables["Comparison"][::-1] if r["row"] == winner)
    both = {"seconds": sum(r["seconds"] for r in tables["Comparison"][-4:] if r["row"] in race)}
    tables["Comparison"].append({**same, "row": f"auto ({winner})", **both})


def over_seeds(rows: list[dict]) -> list[dict]:
    """Mean, lowest and highest of every row of the comparison over the split seeds."""
    names, found = ("T1", "U", "S", "H", "swept H"), []
    for data, label in dict.fromkeys((r["data"], r["row"].split(" (")[0]) for r in rows):
        mine = [r for r in rows if r["data"] == data and r["row"].split(" (")[0] == label]
        line = {"data": data, "row": label, "split seeds": len(mine)}
        line |= {name: round(float(np.mean([r[name] for r in mine])), 1) for name in names}
        spread = [r["H"] for r in mine]
        found.append(line | {"lowest H": min(spread), "highest H": max(spread)})
    return found


def _preparations(job: str, seed: int, label: str, found: Swept, final: Stage, tables: dict) -> None:
    def only(**fixed: str) -> Callable[[dict], bool]:
        return lambda c: not c["own"] and all(c[k] == v for k, v in fixed.items())

    for kind, names in (("features", FEATURES), ("rows", ROWS)):
        for name in names:
            pick, gamma, value = found.best(range(DRAWS), only(**{kind: name}))
            test = Test(found, final, pick)
            line = row(job, seed, f"{label}, {kind} {name}", pick, value, test.at(gamma), test.swept)
            tables["Preparations"].append({k: v for k, v in line.items() if k != "own"})
    print(f"{job} {label}: preparations", flush=True)


def _draws(
    job: str, seed: int, label: str, found: Swept, final: tuple[Stage, RunInputs], pick: dict, tables: dict
) -> None:
    stage, inputs = final
    tests: dict[str, Test] = {}

    def tested(pick: dict, gamma: float) -> tuple[float, float]:
        key = json.dumps(pick)
        if key not in tests:
            tests[key] = Test(found, stage, pick)
        return tests[key].at(gamma)["H"], tests[key].swept

    singles = [found.best([d]) for d in range(DRAWS)]
    one = [tested(p, g) for p, g, _ in singles]
    key = json.dumps(pick)
    gammas = [common_gamma([found.curves[key][d]])[0] for d in range(DRAWS)]
    offset = [tested(pick, g) for g in gammas]
    pooled = [tested(pick, found.best(range(DRAWS))[1])]
    unseen = int((~inputs.dataset.table.seen).sum())
    with patch("unseen.data.dataset.validation_count", lambda _: min(unseen, len(inputs.dataset.table) // 3)):
        other = [Stage(inputs, "validation", draw) for draw in range(DRAWS)]
        left = sweep(found.inputs, other)
    p, g, _ = left.best(range(DRAWS))
    along = replace(found.inputs, config=replace(found.inputs.config, folds="axes"))
    ends = sweep(along, [Stage(along, "validation", draw) for draw in range(DRAWS)]).best(range(DRAWS))
    for name, results in {
        "one draw for everything": one,
        "one draw for the offset": offset,
        "five draws, k = n_s n_u / (n_s + n_u)": pooled,
        "five draws, k = n_u": [tested(p, g)],
        "five draws along axes": [tested(*ends[:2])],
    }.items():
        h, swept = np.array(results).T
        line = {"data": job, "split seed": seed, "row": label, "draws": name, "H": round(float(h.mean()), 1)}
        line |= {"lowest": round(float(h.min()), 1), "highest": round(float(h.max()), 1)}
        tables["Draws"].append(
            line | {"swept H": round(float(swept.mean()), 1), "gap": round(float((swept - h).mean()), 1)}
        )
    print(f"{job} {label}: draws", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="+", metavar="DATA[:NETWORK[@PIXELS][xZOOM]]")
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--studies", nargs="*", choices=("preparations", "draws"), default=["preparations", "draws"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    tables: dict[str, list[dict]] = {"Comparison": [], "Preparations": [], "Draws": []}
    began = time.monotonic()
    for job in options.jobs:
        for seed in options.split_seeds:
            studies = set(options.studies) if seed == options.split_seeds[0] else set()
            studied(job, seed, cache_folder(options.cache), tables, studies)
    if len(options.split_seeds) > 1:
        tables["Split seeds"] = over_seeds(tables["Comparison"])
    finish(options.output, tables, began=began, protocol="honest", seeds=options.split_seeds)


if __name__ == "__main__":
    main()
