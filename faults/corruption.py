"""Accidental damage to our own files: it is detected and named, or has no effect.

Every kind of file that a later command reads is truncated, flipped, zeroed, emptied, removed or replaced by that of
another run. The command that reads it must either name the file and a hint in one line, or give exactly the answer of
the undamaged file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faults.attempts import attempt, command, warm
from faults.campaign import Outcome, Report
from faults.kill import prepare, train

KINDS = ("bit", "byte", "cut", "zeros", "empty", "gone", "other")


@dataclass(frozen=True)
class File:
    """A file and its readers.

    Args:
        name: name in the table.
        find: path of the file from the folder of everything.
        read: does what a user does with it, and returns the result.
        other: the same file of another run.
        kinds: meaningful kinds of damage.
    """

    name: str
    find: Callable[[Path], Path]
    read: Callable[[Path], Any]
    other: Callable[[Path], Path] | None = None
    kinds: tuple[str, ...] = KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the campaign."""
    parser.add_argument("--times", type=int, default=100, help="damages of each kind of file")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--only", action="append", help="a kind of file (repeatable); default all")
    parser.add_argument("--case", type=int, help="this damage alone, as a failure names it")


def run(options: argparse.Namespace, report: Report) -> Outcome:
    """The campaign."""
    warm()
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        base = prepare(Path(folder))
        more(base)
        for file in files():
            if options.only and file.name not in options.only:
                continue
            row, wrong = damaged(file, base, options.times, options.seed, options.case)
            rows.append(row)
            failures += wrong
            report(f"{file.name}: {row}")
    return Outcome({"Damaged files": rows}, failures, {"seed": options.seed})


def more(base: Path) -> None:
    """Two trained runs, a saved folder of each, and interrupted predictions."""
    epochs = ["--epochs", "2", "--protocol", "both", "--no-report"]
    for name, extra in (("run", []), ("second", ["--set", "lambda_cal=0.3"])):
        done = attempt(train(base, "tiny", "msdn", [*epochs, *extra], base / name))
        assert not done.status, done.said
        done = attempt(command("save", base / name, base / f"{name}-saved", "--include-references"))
        assert not done.status, done.said


def damage(data: bytes, kind: str, rng: np.random.Generator, other: bytes | None) -> bytes | None:
    """Damaged content; ``None`` to remove the file."""
    if kind == "gone":
        return None
    if kind == "empty":
        return b""
    if kind == "other":
        return other
    place = int(rng.integers(len(data)))
    if kind == "cut":
        return data[:place]
    found = bytearray(data)
    if kind == "bit":
        found[place] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        found[place] = int(rng.integers(256))
    else:
        found[place : place + 512] = bytes(len(found[place : place + 512]))
    return bytes(found)


def damaged(file: File, base: Path, times: int, seed: int, only: int | None = None) -> tuple[dict[str, Any], list[str]]:
    """Damage a kind of file the given number of times."""
    from unseen.errors import UnseenError

    path = file.find(base)
    data, expected = path.read_bytes(), file.read(base)
    other = file.other(base).read_bytes() if file.other else None
    assert file.read(base) == expected, f"{file.name} does not read alike twice"
    came: Counter[str] = Counter()
    failures = []
    for index in range(times) if only is None else [only]:
        rng = np.random.default_rng([seed, index, *file.name.encode()])
        kinds = [kind for kind in file.kinds if kind != "other" or other is not None]
        kind = kinds[index] if index < len(kinds) else str(rng.choice(kinds[:4]))
        content = damage(data, kind, rng, other)
        if content == data:
            continue
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        where = f"{file.name}, --seed {seed} --case {index} ({kind})"
        try:
            found = file.read(base)
            if found == expected:
                came["without effect"] += 1
            else:
                failures.append(f"{where}: another answer, silently")
        except UnseenError as error:
            came["noticed"] += 1
            named = error.where is not None and (path.name in error.where or path.parent.name in error.where)
            if not named or error.hint is None:
                failures.append(f"{where}: said without place or hint: {error}")
        except Exception as error:
            failures.append(f"{where}: {type(error).__name__}: {error}")
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    return {
        "file": file.name,
        "bytes": len(data),
        "damaged": sum(came.values()) + len(failures),
        "noticed, named": came["noticed"],
        "without effect": came["without effect"],
        "silent or unclear": len(failures),
    }, failures


# file and readers


def files() -> list[File]:
    """The kinds of files."""
    from unseen.features.hashes import content_hashes
    from unseen.features.store import RegionStore
    from unseen.model.references import References
    from unseen.training.decisions import load_decisions
    from unseen.training.folder import Run

    def stored(base: Path) -> Path:
        return next(p for p in (base / "cache" / "regions").iterdir() if p.is_dir())

    def regions(base: Path) -> Any:
        store = RegionStore.open(stored(base))
        return store.fingerprint, store.names, dict(store.backbone), store.read(range(len(store))).numpy().tobytes()

    def predictions(folder: str) -> Callable[[Path], Any]:
        def read(base: Path) -> Any:
            from unseen.recognizer import Recognizer

            image = next((base / "tiny" / "images").rglob("*.jpg"))
            found = Recognizer.load(base / folder, device="cpu")
            references = found.references
            said = found.predict(image)[0].as_dict()
            return said, None if references is None else references.attribute_scores.tobytes()

        return read

    def decisions(base: Path) -> Any:
        found = load_decisions(base / "run/seed-0/honest-H.npz")
        return [values.tobytes() for values in vars(found).values()]

    def references(base: Path) -> Any:
        found = References.load(base / "run/seed-0/honest-references.npz")
        return [values.tobytes() for values in vars(found).values() if hasattr(values, "tobytes")]

    def hashes(base: Path) -> Any:
        images = sorted((base / "tiny" / "images").rglob("*.jpg"))[:6]
        return content_hashes(images, base / "cache/regions/hashes.json")

    def checkpoint(base: Path) -> Any:
        """Weights after resuming; a foreign checkpoint is ignored, and without one the stage starts again."""
        from unseen.recognizer import Recognizer
        from unseen.training.checkpoints import load_checkpoint, read_info
        from unseen.training.plan import resolve_settings

        path = base / "run/seed-0/final/checkpoint.safetensors"
        info = read_info(path)
        if info is not None and info["identity"] == memory.setdefault("identity", info["identity"]):
            method = Recognizer.load(base / "run", device="cpu").method
            _, _, recipe = resolve_settings(Run(base / "run").config, "tiny")
            assert recipe is not None
            load_checkpoint(path, method, recipe.make_optimizer(method.parameters()))
            found = [value.numpy().tobytes() for value in method.state_dict().values()], info
            return memory.setdefault("weights", found) == found
        return True

    def within(name: str) -> Callable[[Path], Path]:
        return lambda base: base / name

    memory: dict[str, Any] = {}
    there = tuple(kind for kind in KINDS if kind != "gone")  # removing references is done on purpose
    return [
        File("region store, features", lambda b: stored(b) / "stage0.bin", regions),
        File("region store, description", lambda b: stored(b) / "store.json", regions),
        File("region store, journal", lambda b: stored(b) / "journal.jsonl", regions),
        File("hashes of images", within("cache/regions/hashes.json"), hashes),
        File("run, weights", within("run/seed-0/honest.safetensors"), predictions("run")),
        File("run, results", within("run/results.json"), lambda b: (Run(b / "run").results, predictions("run")(b))),
        File("run, manifest", within("run/manifest.json"), predictions("run"), within("second/manifest.json")),
        File("run, configuration", within("run/config.json"), predictions("run"), within("second/config.json")),
        File("run, checkpoint", within("run/seed-0/final/checkpoint.safetensors"), checkpoint),
        File("run, decisions", within("run/seed-0/honest-H.npz"), decisions),
        File("run, references", within("run/seed-0/honest-references.npz"), references),
        File("run, class table", within("run/classes.csv"), predictions("run")),
        File("saved, weights", within("run-saved/weights.safetensors"), predictions("run-saved")),
        File("saved, backbone", within("run-saved/backbone.safetensors"), predictions("run-saved")),
        File("saved, description", within("run-saved/recognizer.json"), predictions("run-saved")),
        File("saved, references", within("run-saved/weights-references.npz"), predictions("run-saved"), kinds=there),
        File("saved, class table", within("run-saved/classes.csv"), predictions("run-saved")),
    ]
