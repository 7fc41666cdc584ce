"""Experiment files in YAML."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import ClassVar

import yaml

from faults.fuzz.structure import as_yaml, spoil_value
from faults.fuzz.target import Case, Target


class Experiments(Target):
    """An experiment file written by a user."""

    name: ClassVar[str] = "yaml"
    weight: ClassVar[float] = 1.5
    seconds: ClassVar[float] = 10.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        from unseen.experiments.files import HOME, load_experiment

        self.good = [yaml.safe_load(path.read_text()) for path in sorted((HOME / "files").glob("*/*.yaml"))]
        load_experiment("msdn/cub").check()

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        value, said = rng.choice(self.good), []
        if rng.random() < 0.75:
            value, how = spoil_value(value, rng)
            said.append(how)
        content, how = as_yaml(value, rng)
        said.append(how)
        (folder / "mine.yaml").write_bytes(content)
        return Case("; ".join(said), ("mine.yaml",), "accepted" if said == ["plain"] else None)

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.experiments.files import load_experiment

        found = load_experiment(str(folder / "mine.yaml"))
        found.check()
        if not found.backbone.own_weights:
            spec = found.spec()
            spec.to_json()
