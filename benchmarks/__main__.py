"""Run every benchmark in turn: `python -m benchmarks [NAME ...]`; `--docs` writes the tables into docs/.

Benchmarks that need a trained model or images get them from a run on the drawn dataset, which is made once; to use your
own, call `python -m benchmarks.NAME`. `gpu` stands for the benchmarks that need a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path

from benchmarks.measured import ROOT, fill_docs

SUITE: dict[str, tuple[str, ...]] = {
    "steps": (),
    "epoch": (),
    "mgmrn_step": (),
    "mgmrn_memory": (),
    "mgmrn_schedules": ("fieldguide",),
    "finite_check": (),
    "extraction_rate": (),
    "extraction_memory": ("{images}", "--count", "200"),
    "engines": (),
    "decoding": ("{images}",),
    "precisions": (),
    "end_to_end": (),
    "msdn_loop": (),
    "start_up": (),
    "predict_speed": (),
    "onnx_speed": ("{run}", "{images}"),
    "serve_load": ("{run}", "{image}"),
    "growth": (),
    "many_classes": (),
    "large_store": ("{scratch}", "--sizes", "2"),
    "import_memory": (),
    "word_vectors": ("{scratch}",),
    "spreadsheet_columns": (),
    "reduction": ("--no-synthetic",),
    "holdouts": ("fieldguide", "--problems", "2"),
    "corrections": ("{run}",),
    "ranks": ("{run}",),
    "class_images": ("{run}",),
    "closed_forms": ("fieldguide",),
    "closed_form_time": ("fieldguide",),
    "race_time": ("fieldguide",),
    "standings": ("fieldguide",),
    "class_intervals": ("fieldguide", "--draws", "10"),
    "attention_oracle": ("{prototypes}",),
    "fieldguide_levels": (),
    "comparisons": ("{comparison}",),
    "aims": (),
}
"""Module of this package to its arguments; each takes ``--output``."""
GPU = "gpu"
SHARED = ("measured",)
"""Modules that measure nothing by themselves."""


class Made:
    """Inputs of benchmarks: a run, its images and one of them, and a folder for large files."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @cached_property
    def run(self) -> Path:
        """A run on the drawn dataset."""
        return self._trained("eszsl")

    @cached_property
    def prototypes(self) -> Path:
        """A run of `prototypes`."""
        return self._trained("prototypes")

    @cached_property
    def comparison(self) -> Path:
        """A comparison of closed forms."""
        return self._made("fieldguide", "compare", "eszsl", "prototypes", "fieldguide", "--protocol", "honest")

    def _trained(self, method: str) -> Path:
        return self._made(method, "train", "fieldguide", "--method", method)

    def _made(self, name: str, *words: str) -> Path:
        folder = self.scratch / name
        command = [sys.executable, "-m", "unseen", *words, "--output", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return folder

    @cached_property
    def images(self) -> Path:
        """Its images."""
        from unseen.data.catalogue import load_dataset

        return load_dataset("fieldguide").images

    @property
    def image(self) -> Path:
        """One of them."""
        return next(path for path in sorted(self.images.rglob("*")) if path.is_file())

    def filled(self, argument: str) -> str:
        """An argument with names replaced by these inputs."""
        return str(getattr(self, argument[1:-1])) if argument.startswith("{") else argument


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = (*SUITE, GPU)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run (default: {', '.join(SUITE)}), or {GPU}"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument(
        "--docs", action="store_true", help="run nothing, only write the tables of the results into docs/"
    )
    options = parser.parse_args()
    if options.docs:
        print("\n".join(f"{page}: written" for page in fill_docs(write=True)) or "docs/: nothing to do")
        return
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}; one of {', '.join(known)}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="unseen-benchmarks") as scratch:
        made = Made(Path(scratch))
        for name in options.names or SUITE:
            print(f"\n# {name}", flush=True)
            arguments = [made.filled(argument) for argument in SUITE.get(name, ())]
            output = options.output / (GPU if name == GPU else f"{name}.json")
            command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--output", output]
            if subprocess.run(command, cwd=ROOT, check=False).returncode:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
