"""Is it worth making two attributes of a spreadsheet column of sizes? Fieldguide as words, both ways.

``python -m benchmarks.spreadsheet_columns [--output FILE]`` trains ESZSL and `global` on both and reports the results
of the honest protocol with seed 0. Takes two minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.measured import finish
from unseen.classes.attributes import Attributes, write_attributes
from unseen.classes.table import ClassTable
from unseen.data.catalogue import FIELDGUIDE, load_dataset
from unseen.data.folder import load_folder
from unseen.data.template import write_example
from unseen.evaluation.metrics import CORE
from unseen.ground.cache import cache_folder
from unseen.training.config import RunConfig
from unseen.training.plan import default_backbone
from unseen.training.run import fit


def main() -> None:
    """Write both folders, train, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options, began, rows = parser.parse_args(), time.monotonic(), []
    cache = cache_folder(options.cache)
    birds = load_dataset(FIELDGUIDE, cache=cache)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        write_example(work / "example", birds, "csv")
        words = load_folder(work / "example")
        assert words.encoding is not None
        lower = {column.attributes[0] for column in words.encoding.columns if column.ends}
        names = words.table.attributes.names
        keep = {
            "two attributes": list(range(len(names))),
            "one attribute": [k for k, n in enumerate(names) if n not in lower],
        }
        table = replace(words.table, validation=birds.table.validation)
        for label, columns in keep.items():
            folder = work / label
            folder.mkdir()
            (folder / "images").symlink_to(birds.images.resolve())
            shutil.copy(birds.images.parent / "images.csv", folder)
            attributes = Attributes(tuple(names[k] for k in columns))
            ClassTable(table.names, attributes, table.values[:, columns], table.seen, table.validation).to_csv(
                folder / "classes.csv"
            )
            write_attributes(folder / "attributes.csv", attributes)
            for method, recipe in (("eszsl", {}), ("global", {"epochs": "8"})):
                config = RunConfig(
                    method=method, dataset=str(folder), backbone=default_backbone(FIELDGUIDE), recipe=recipe
                )
                run = fit(config, work / f"{method} {label}", cache=cache)
                measured = run.results["protocols"]["honest"]["seeds"]["0"]
                numbers = {name: round(100 * measured[name], 1) for name in CORE}
                rows.append({"method": method, "a column is": label, "attributes": len(columns), **numbers})
    finish(options.output, {"One attribute or two": rows}, began=began)


if __name__ == "__main__":
    main()
