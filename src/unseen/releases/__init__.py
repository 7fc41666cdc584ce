"""Prepare the official downloads of the field's benchmarks as dataset folders, with every piece checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unseen.data.dataset import Dataset
from unseen.errors import DataError, StoreError
from unseen.ground.progress import Progress, silent
from unseen.releases.apy import APY
from unseen.releases.awa import AWA1, AWA2
from unseen.releases.benchmark import Benchmark, Found, examine
from unseen.releases.cub import CUB
from unseen.releases.flo import FLO
from unseen.releases.needs import State, look
from unseen.releases.sun import SUN
from unseen.releases.writing import write_folder

BENCHMARKS = {benchmark.name: benchmark for benchmark in (CUB, SUN, AWA2, AWA1, APY, FLO)}


@dataclass
class Outcome:
    """Result of a preparation.

    Args:
        benchmark: the benchmark.
        states: every needed file and its state.
        problems: one line per problem, with a hint.
        notes: further notes for the user.
        held: checks that passed.
        output: the dataset folder; ``None`` if not written.
        dataset: the written dataset.
    """

    benchmark: Benchmark
    states: list[State]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    output: Path | None = None
    dataset: Dataset | None = None

    @property
    def ready(self) -> bool:
        """Whether the dataset folder was written, with its features if they replace images."""
        return self.dataset is not None

    @property
    def lacking(self) -> list[State]:
        """Required files that are missing, still packed or damaged."""
        return [s for s in self.states if s.state != "found" and s.need.required]

    def to_json(self) -> dict[str, Any]:
        """The outcome for ``--json``."""
        return {
            "dataset": self.benchmark.name,
            "title": self.benchmark.title,
            "cite": self.benchmark.cite,
            "ready": self.ready,
            "files": [state.to_json() for state in self.states],
            "problems": self.problems,
            "notes": self.notes,
            "held": self.held,
            "output": None if self.output is None else str(self.output),
            "counts": None if self.dataset is None else self.dataset.describe(),
        }


IMAGES = ("images", "pascal", "yahoo")
"""Needed files that are images."""
POOLED = "res101"
"""Name of the Proposed Split's own features."""
MADE_WITH = "ResNet-101, ImageNet-1k, pooled (Xian et al., TPAMI 2019)"


def _import(found: Found, dataset: Dataset, output: Path, dtype: str, progress: Progress) -> None:
    from unseen.data.importing import import_features

    def tick(done: int, total: int) -> None:
        progress("importing features", done, total)

    import_features(found["list"], dataset, output, POOLED, made_with=MADE_WITH, dtype=dtype, tick=tick)


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by name; :class:`DataError` lists the known ones."""
    try:
        return BENCHMARKS[name.lower()]
    except KeyError:
        hint = f"use one of {', '.join(BENCHMARKS)}; `unseen import` reads exports of other tools"
        raise DataError(f'unknown benchmark "{name}"', hint=hint) from None


def benchmark_in(root: Path) -> Benchmark | None:
    """The benchmark with the most files of its own in a folder of downloads; ``None`` without any."""
    count = Counter(need.paths[0] for benchmark in BENCHMARKS.values() for need in benchmark.needs)

    def own(benchmark: Benchmark) -> int:
        mine = [need for need in benchmark.needs if count[need.paths[0]] <= 2]  # AWA and AWA2 share theirs
        return sum(look(need, root).state != "missing" for need in mine)

    best = max(BENCHMARKS.values(), key=own)
    return best if own(best) else None


def prepare(
    benchmark: Benchmark,
    root: Path,
    output: Path | None = None,
    *,
    semantics: str | None = None,
    verify: bool = False,
    features_only: bool = False,
    store_dtype: str = "float16",
    progress: Progress = silent,
) -> Outcome:
    """Find and check the files of a benchmark below a folder and, if all are correct, write the dataset folder.

    Args:
        benchmark: the benchmark.
        root: folder with the unpacked downloads.
        output: dataset folder to write; ``None`` only checks.
        semantics: kind of class attributes, one of ``benchmark.semantics``.
        verify: also compute checksums.
        features_only: use no images; the release's pooled features are imported instead, and only the Proposed Split's
            own files are required.
        store_dtype: dtype of imported features.
        progress: progress callback.

    Raises:
        DataError: no such folder or semantics, or an output folder that cannot be written. Missing or wrong data is
            reported in the outcome.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=root, hint="pass the folder with the unpacked downloads")
    chosen = semantics or benchmark.semantics[0]
    if chosen not in benchmark.semantics:
        hint = f"use one of {', '.join(benchmark.semantics)}"
        raise DataError(f'{benchmark.key} has no semantics "{chosen}"', where="--semantics", hint=hint)
    if features_only:
        kept = [need for need in benchmark.needs if need.name not in IMAGES]
        needs = tuple(replace(need, required=need.name in ("split", "list")) for need in kept)
        benchmark = replace(benchmark, needs=needs, images=False)
    states = [look(need, root, verify) for need in benchmark.needs]
    found = Found(benchmark.key, {s.need.name: s.path for s in states if s.path is not None})
    examined = examine(benchmark, found, chosen)
    findings, material = examined.findings, examined.material
    outcome = Outcome(benchmark, states, [str(p) for p in findings.problems], findings.notes, findings.held)
    if outcome.lacking or outcome.problems or output is None:
        return outcome
    if not benchmark.images:
        material.name_images()
    if "attributes" not in found and any(need.name == "attributes" for need in benchmark.needs):
        outcome.notes.append("attributes are numbered, because the file of their names is missing")
    record = {
        "benchmark": benchmark.key,
        "root": str(root.resolve()),
        "semantics": chosen,
        "validation": material.validation_source,
        "files": {s.need.name: str(s.path) for s in states if s.path is not None},
        "held": findings.held,
        "notes": findings.notes,
    }
    try:
        dataset = write_folder(output, benchmark.name, material, record, progress)
        if not benchmark.images and material.images is not None and material.images.channels:
            _import(found, dataset, output, store_dtype, progress)
        outcome.dataset, outcome.output = dataset, output
    except (DataError, StoreError) as problem:
        outcome.problems.append(str(problem))
    return outcome
