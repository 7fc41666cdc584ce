"""What users type: values of options, and whole commands."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from faults.fuzz.models import Models, small_run
from faults.fuzz.tables import as_csv, good_classes, spoil_rows
from faults.fuzz.target import Case, Target

VALUES: tuple[str, ...] = (
    "", " ", "0", "-0", "-1", "1", "2", "0.5", "1.5", "nan", "NaN", "inf", "-inf", "1e400", "1e-400", "1e308", "9" * 30, "9" * 5000, "-" + "9" * 30, "2147483648",
    "18446744073709551616", "0x10", "1_0", "١٢", "²", "½", "+1", "1,2", "1,2,3", "0.5,0.5", ",", ",,", "a,b", "true", "false", "yes", "None", "null", "[]", "[1, 2]", "{}", "[[" * 500, "x",
    "x" * 3000, "é", "e\u0301", "\u202e", "\x1b[31m", "\x00", "\n", "a\nb", "=", "a=", "=b", "a=b=c", ":", "@", "@nowhere", "@", "..", "../x", "/", "/etc/passwd", "~", "-", "--", "*", "%s", "{0}",
    "auto", "final", "cpu", "cuda", "cuda:99", "meta", "mps", "random", "given", "words", "text:x", "sentence:x", "features:x", "features:../x", "hf:x", "hf:../x", "all", "msdn", "MSDN", "msdn:lr=1",
    "\U0001f426", "\udcff", "lr", "lr=nan", "lr=1e400", "epochs=0", "epochs=1e9", "epochs=-1", "batch_size=0", "shots=0", "lambda_cal=inf", "lambda_cal=0.1,0.2", "lambda_cal=", "lambda_cal=x",
    "[bold]x[/bold]", "[/]", "final,-2", "1,2,3", "-99", "99",
)  # fmt: skip


class Values(Target):
    """Values of the options that say what to train, if they can be judged without training."""

    name: ClassVar[str] = "options"
    weight: ClassVar[float] = 2.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.cli
        import unseen.experiments.ablate
        import unseen.experiments.compare
        import unseen.training.run  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        from unseen.methods import METHODS

        method = rng.choice([m for m in METHODS if m != "clip"])
        entries: dict[str, Any] = {}
        for name in rng.sample(("vectors", "backbone", "backbone_weights", "backbone_option", "mean", "std", "stage", "select", "store_dtype", "precision", "crop", "split_seed",
                                "accumulate", "holdouts", "image_size", "protocol", "seeds", "recipe", "set", "variant", "sweep", "preset", "unknown"), rng.randint(1, 3)):  # fmt: skip
            entries[name] = rng.choice(VALUES)
        for name in ("crop",):
            if name in entries:
                entries[name] = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 2.0, 1e-300, 1e308))
        for name in ("split_seed", "accumulate", "holdouts", "image_size"):
            if name in entries:
                entries[name] = rng.choice((-1, 0, 1, 10**9, 10**30, 2**63, -(10**30)))
        for name in ("recipe", "set"):
            if name in entries:
                key = rng.choice(
                    (
                        "lr",
                        "epochs",
                        "batch_size",
                        "optimizer",
                        "average",
                        "shots",
                        "sampler",
                        "lambda_cal",
                        "fusion",
                        "x",
                        "temperature",
                        "hidden",
                        "dim",
                        "heads",
                    )
                )
                entries[name] = rng.choice((f"{key}={rng.choice(VALUES)}", rng.choice(VALUES)))
        for name in ("variant", "sweep"):
            if name in entries and rng.random() < 0.6:
                entries[name] = f"{rng.choice((method + ':', '', 'x=' + method + '@'))}lambda_cal={rng.choice(VALUES)}"
        return Case(f"{method} {str(entries)[:300]}", data=(method, entries))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        import json

        from unseen.cli.comparing import common_recipe
        from unseen.cli.configuring import pairs
        from unseen.cli.options import RunOptions
        from unseen.cli.predicting import _threshold
        from unseen.experiments.ablate import sweep_variants
        from unseen.experiments.variants import parse_variants
        from unseen.training.config import RunConfig
        from unseen.training.plan import resolve_settings

        method, given = case.data
        given = dict(given)
        recipe, changes = (
            pairs([given.pop("recipe")], "--recipe") if "recipe" in given else {},
            pairs([given.pop("set")], "--set") if "set" in given else {},
        )
        variant, sweep, preset, unknown = (given.pop(name, None) for name in ("variant", "sweep", "preset", "unknown"))
        protocol, seeds = given.pop("protocol", "both"), given.pop("seeds", "2")
        if "backbone_option" in given:
            given["backbone_option"] = [given["backbone_option"]]
            given.setdefault("backbone", "test_resnet")
        base = RunOptions(**given).entries("fieldguide", protocol, seeds, "cpu")
        if unknown is not None:
            _threshold(unknown)
        config = RunConfig(method=method, preset=preset, settings=changes, recipe=recipe, **base)
        resolve_settings(config, "cub")
        json.dumps(config.to_json(), allow_nan=False)
        if variant is not None:
            for one in parse_variants([variant]):
                resolve_settings(one.config(base, common_recipe(None, None)), "cub")
        if sweep is not None:
            for one in sweep_variants(parse_variants([method])[0], sweep)[2]:
                resolve_settings(one.config(base), "cub")


class Commands(Target):
    """Whole commands on a small finished run, with odd values."""

    name: ClassVar[str] = "commands"
    weight: ClassVar[float] = 1.5
    seconds: ClassVar[float] = 20.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.cli  # noqa: F401
        from unseen.recognizer import Recognizer

        self.shared = getattr(Models, "shared", None) or folder
        if self.shared == folder:
            small_run(folder)
        self.image = next((self.shared / "birds" / "images").rglob("*.*"))
        Recognizer.load(self.shared / "run", device="cpu").predict(self.image)

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        model = folder / "model"
        shutil.copytree(self.shared / "saved", model)
        odd, image = (lambda: rng.choice(VALUES)), str(self.image)
        name = rng.choice(
            [*(line.split(",")[0] for line in (model / "classes.csv").read_text().splitlines()[1:3]), odd()]
        )
        attribute = rng.choice([*(model / "classes.csv").read_text().splitlines()[0].split(",")[2:4], odd()])
        rows, _ = spoil_rows(good_classes(rng), rng)
        (folder / "new.csv").write_bytes(as_csv(rows, rng, plain=True))
        (folder / "names.txt").write_text(f"{name}\n{odd()}\n".encode("utf-8", "replace").decode(), encoding="utf-8")
        words = rng.choice((
            ["predict", "model", image, "--top", odd()], ["predict", "model", image, "--only", odd()], ["predict", "model", image, "--only", "@names.txt", "--unknown", odd()],
            ["predict", "model", image, "--exclude", name, "--among", odd()], ["predict", "model", image, "--output", odd()], ["predict", odd(), image], ["predict", "model", odd()],
            ["predict", "model", image, "--output", rng.choice(("a.csv", "a.json", "a.jsonl", "a.parquet", "a.txt", "a", "model", "nowhere/a.csv", "x" * 300 + ".csv"))],
            ["predict", "model", image, "--batch-size", odd(), "--workers", odd()], ["predict", "model", image, "--seed", odd()], ["predict", "model", image, "--device", odd()],
            ["classes", "add", "model", name, "--set", f"{attribute}={odd()}"], ["classes", "add", "model", odd(), "--attributes", "new.csv"], ["classes", "add", "model", "--attributes", "new.csv"],
            ["classes", "edit", "model", name, "--set", f"{attribute}={odd()}"], ["classes", "remove", "model", name], ["classes", "rename", "model", name, odd()], ["classes", "show", "model", name],
            ["classes", "closest", "model", name], ["classes", "separate", "model", name, odd()], ["classes", "list", odd()],
            ["explain", "model", image, "--class", odd(), "-o", "x.png"], ["explain", "model", image, "--correct", f"{attribute}={odd()}", "-o", "x.png"],
            ["explain", "model", image, "-o", rng.choice(("x.txt", "x", "", "model"))], ["save", "model", odd()], ["save", "model", "new", "--license", odd(), "--author", odd()],
            ["init", odd()], ["check", odd()], ["list", odd()], ["list", "experiments", "--method", odd()], ["report", odd()], ["evaluate", odd()], ["evaluate", "model", "--gamma", odd()],
            ["train", odd(), odd()], ["train", "fieldguide", odd()], ["reproduce", odd(), odd()], ["prepare", odd(), odd()], ["import", odd(), odd()], ["export", "model", odd()],
            ["vectors", "names.txt", "--from", odd(), "-o", "x.npy"], ["vectors", odd(), "--from", "names.txt"], ["figures", odd(), "--kind", odd()], ["pointing", odd()], [odd(), odd()], [odd()],
            ["compare", odd(), "model"], ["ablate", odd(), "model", "--sweep", odd()], ["predict", "model", image, "--json", "--top", odd()],
        ))  # fmt: skip
        words = ["x" if w == "/" else w.replace("\x00", "0") for w in words]
        return Case(f"unseen {' '.join(w[:60] for w in words)!r}", data=[w[:4000] for w in words])

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.cli import app, common
        from unseen.errors import UnseenError

        os.environ |= {"UNSEEN_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "HOME": str(folder)}
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            common.out.file = common.err.file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            try:
                status = app(case.data, standalone_mode=False)
            except OSError as error:  # as the command prints it
                raise UnseenError(f"{error.filename}: {error.strerror or error}") from None
            except Exception as error:
                if hasattr(error, "show") and hasattr(error, "exit_code"):  # of the parser
                    raise UnseenError(error.format_message() if hasattr(error, "format_message") else "") from None
                raise
        if "Traceback" in said.getvalue():
            raise RuntimeError(said.getvalue()[-500:])
        if isinstance(status, int) and status:
            raise UnseenError(f"status {status}")
