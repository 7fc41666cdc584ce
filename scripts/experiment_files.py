"""Bring settings and recipes of a method's experiment files in line with its presets.

    python scripts/experiment_files.py METHOD [DATASET ...]

An entry keeps its source; a new one gets the preset's. A file that is missing is made, without published numbers: write
those by hand, with their source. Everything but settings and recipe stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unseen.experiments.files import DATASETS, HOME, load_experiment, load_facts
from unseen.ground.files import write_text
from unseen.methods import find_method, find_preset


def scalar(value: Any) -> str:
    """A value as YAML 1.1 reads it back."""
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("e-", ".0e-") if isinstance(value, float) and "e" in text and "." not in text else text


def new_file(method: str, dataset: str) -> str:
    """An experiment without settings."""
    facts = load_facts(dataset)
    preset, _ = find_preset(find_method(method), facts.name)
    note = facts.note.split(": ")[-1].strip().rstrip(".") if not facts.comparable else ""
    notes = f"notes:\n  - >-\n    {note[:1].upper()}{note[1:]}.\n" if note else "notes: []\n"
    return (
        f"# {find_method(method).card.title.split(':')[0]} on {facts.name}\nmethod: {method}\ndataset: {dataset}\n"
        f"preset: {preset}\nsources: {{}}\nsettings: {{}}\nrecipe: {{}}\nprotocols: [honest, paper]\n"
        f"seeds: [0, 1, 2, 3, 4]\nreported: []\n{notes}measured: []\n"
    )


def refresh(method: str, path: Path) -> str:
    """The file's text with the settings and recipe of its preset."""
    found = load_experiment(str(path))
    preset = find_method(method).presets[found.preset or "cub"]
    sources: dict[str, str] = {}

    def key(source: str) -> str:
        known = {text: name for name, text in sources.items()}
        if source in known:
            return known[source]
        old = re.search(rf"^  (\w+): {re.escape(json.dumps(source, ensure_ascii=False))}$", path.read_text(), re.M)
        name = old[1] if old and old[1] not in sources else "preset" if "preset" not in sources else f"s{len(sources)}"
        sources[name] = source
        return name

    def block(title: str, values: dict[str, Any], old: Any) -> str:
        lines = [
            f"  {name}: {{value: {scalar(list(v) if isinstance(v, tuple) else v)}, "
            f"source: {key(old[name].source if name in old else preset.source)}}}"
            for name, v in values.items()
        ]
        return "\n".join([f"{title}:", *lines]) if lines else f"{title}: {{}}"

    settings = block("settings", asdict(preset.settings), found.settings)
    recipe = block("recipe", {} if preset.recipe is None else asdict(preset.recipe), found.recipe)
    named = "\n".join(f"  {name}: {json.dumps(text, ensure_ascii=False)}" for name, text in sources.items())
    head = f"sources:\n{named}\n" if named else "sources: {}\n"
    text = path.read_text(encoding="utf-8")
    middle = re.compile(r"^sources:.*?(?=^(?:backbone|protocols):)", re.S | re.M)
    return middle.sub(lambda _: f"{head}{settings}\n{recipe}\n", text, count=1)


def main() -> None:
    """Refresh the files asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method")
    parser.add_argument("datasets", nargs="*", default=DATASETS)
    asked = parser.parse_args()
    for dataset in asked.datasets:
        path = HOME / "files" / asked.method / f"{dataset}.yaml"
        if not path.is_file():
            write_text(path, new_file(asked.method, dataset))
        before = path.read_text(encoding="utf-8")
        after = refresh(asked.method, path)
        if after != before:
            write_text(path, after)
            print(f"written: {path}")


if __name__ == "__main__":
    main()
