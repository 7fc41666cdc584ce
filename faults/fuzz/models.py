"""Results of training: saved folders, run folders, checkpoints and region stores."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from faults.fuzz import tables
from faults.fuzz.mutate import spoil
from faults.fuzz.structure import as_json, spoil_value
from faults.fuzz.target import Case, Target, WrongResultError

Header = dict[str, Any]


def spoil_safetensors(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Weights with another header, other numbers, or other bytes."""
    size = struct.unpack("<Q", content[:8])[0]
    header: Header = json.loads(content[8 : 8 + size])
    data = content[8 + size :]
    name = rng.choice([n for n in header if n != "__metadata__"])
    entry, how = (
        header[name],
        rng.choice(
            (
                "length",
                "offsets",
                "dtype",
                "nan",
                "shape",
                "drop",
                "rename",
                "metadata",
                "header",
                "bytes",
                "bytes",
                "cut",
                "twice",
                "huge",
            )
        ),
    )
    if how == "length":
        return struct.pack("<Q", rng.choice((0, 1, 2**63, 2**64 - 1, 10**8, size + 1, size - 1))) + content[8:], how
    if how == "bytes":
        return spoil(content, rng)
    if how == "cut":
        return content[: rng.randrange(len(content))], how
    if how == "nan":
        start, end = entry["data_offsets"]
        return content[: 8 + size + start] + b"\xff" * (end - start) + content[8 + size + end :], f"{name} nan"
    if how == "offsets":
        entry["data_offsets"] = rng.choice(
            (
                [0, 4],
                [4, 0],
                [0, 2**62],
                [-4, 4],
                [0],
                None,
                ["0", "4"],
                [entry["data_offsets"][0], entry["data_offsets"][1] + 4],
            )
        )
    elif how == "dtype":
        entry["dtype"] = rng.choice(("F16", "F64", "I64", "BOOL", "X", 3, None, "I32", "BF16"))
    elif how == "shape":
        entry["shape"] = rng.choice(
            ([1], [], [2**40, 2**40], [-1], entry["shape"][::-1], [*entry["shape"], 1], None, ["x"], [0])
        )
    elif how == "huge":
        entry["shape"], entry["data_offsets"] = [2**36], [0, 2**38]
    elif how == "drop":
        del header[name]
        data = data if rng.random() < 0.5 else b""
    elif how == "rename":
        header[rng.choice(("x", "", name + "x", "vectors", "../x"))] = header.pop(name)
    elif how == "metadata":
        header["__metadata__"], _ = spoil_value(header.get("__metadata__", {"a": "b"}), rng)
    elif how == "twice":
        header[name + "2"] = dict(entry)
    else:
        header, _ = spoil_value(header, rng)
    try:
        text = json.dumps(header).encode()
    except (TypeError, ValueError):
        text = b"{}"
    return struct.pack("<Q", len(text)) + text + data, f"{name} {how}"


def small_run(folder: Path) -> Path:
    """A finished run of a small gradient method on a few drawn birds, and a saved recognizer beside it."""
    import torch

    from unseen.backbones.spec import BackboneSpec
    from unseen.fieldguide import build
    from unseen.recognizer import Recognizer
    from unseen.training.config import RunConfig
    from unseen.training.run import fit

    torch.set_num_threads(1)
    build(folder / "birds", species=12, images=6, size=64, workers=1)
    spec = BackboneSpec(name="test_resnet", weights="random", image_size=64, options={"output_stride": 16})
    config = RunConfig(
        method="msdn", dataset=str(folder / "birds"), backbone=spec, recipe={"epochs": "1"}, vectors="random"
    )
    fit(config, folder / "run", device="cpu", cache=folder / "cache")
    Recognizer.load(folder / "run", device="cpu").save(folder / "saved", include_references=True)
    return folder / "run"


class Models(Target):
    """A saved folder or a run with one broken file, loaded to predict an image."""

    name: ClassVar[str] = "models"
    weight: ClassVar[float] = 2.5
    seconds: ClassVar[float] = 20.0
    shared: ClassVar[Path]

    def warm(self, folder: Path) -> None:  # noqa: D102
        import numpy as np
        from PIL import Image

        from unseen.recognizer import Recognizer

        small_run(folder)
        type(self).shared = folder
        self.image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8))
        recognizer = Recognizer.load(folder / "saved", device="cpu")
        recognizer.predict(self.image)

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        kind = rng.choice(("saved", "run"))
        model = folder / "model"
        shutil.copytree(self.shared / kind, model, ignore=shutil.ignore_patterns("tensorboard", "validation", "final"))
        files = sorted(
            p
            for p in model.rglob("*")
            if p.is_file()
            and p.suffix in (".json", ".csv", ".safetensors", ".npz")
            and "seed-0/honest-" not in p.as_posix()
        )
        if rng.random() < 0.15:
            shutil.copyfile(model / "classes.csv", model / "classes-in-use.csv")
            files = [model / "classes-in-use.csv"]
        victim = rng.choice(files)
        if rng.random() < 0.4:
            victim = rng.choice([f for f in files if f.suffix == ".json"] or files)
        content, said = victim.read_bytes(), "plain"
        if rng.random() < 0.03:
            victim.unlink()
            return Case(f"{kind}/{victim.name}: gone", ("model",), data=kind)
        if victim.suffix == ".json":
            value, said = spoil_value(json.loads(content), rng)
            content, how = as_json(value, rng)
            said += f"; {how}"
        elif victim.suffix == ".safetensors":
            content, said = spoil_safetensors(content, rng)
        elif victim.suffix == ".csv" and rng.random() < 0.7:
            rows, said = tables.spoil_rows([line.split(",") for line in content.decode().splitlines()], rng)
            content = tables.as_csv(rows, rng)
        else:
            content, said = spoil(content, rng)
        victim.write_bytes(content)
        return Case(f"{kind}/{victim.name}: {said}", ("model",), data=kind)

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        import math

        from unseen.recognizer import Recognizer

        recognizer = Recognizer.load(folder / "model", device="cpu")
        found = recognizer.predict(self.image)[0]
        if not all(0 <= c.confidence <= 1 and math.isfinite(c.confidence) for c in found.candidates):
            raise WrongResultError(f"confidence {found.candidates[0].confidence}")
        _ = recognizer.references  # read now
        if recognizer.encoding is not None:
            recognizer.encoding.encode({recognizer.encoding.names[0]: 0.5})
        if case.data == "run":
            from unseen.report.material import recorded
            from unseen.training.folder import Run

            recorded(Run(folder / "model"))


class Checkpoints(Target):
    """The state of a training to resume."""

    name: ClassVar[str] = "checkpoints"

    def warm(self, folder: Path) -> None:  # noqa: D102
        import torch

        from unseen.training.checkpoints import save_checkpoint

        torch.set_num_threads(1)
        module, optimizer = self._new()
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        save_checkpoint(
            folder / "checkpoint.safetensors", module, optimizer, {"epoch": 3, "step": 40, "best": 0.5}, module
        )
        self.content = (folder / "checkpoint.safetensors").read_bytes()

    def _new(self) -> Any:
        import torch

        module = torch.nn.Linear(3, 2)
        return module, torch.optim.AdamW(module.parameters())

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        content, said = self.content, "good"
        if rng.random() < 0.95:
            content, said = spoil_safetensors(content, rng)
        (folder / "checkpoint.safetensors").write_bytes(content)
        return Case(said, ("checkpoint.safetensors",), "accepted" if said == "good" else None)

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        import torch

        from unseen.training.checkpoints import load_checkpoint, read_info

        path = folder / "checkpoint.safetensors"
        info = read_info(path)
        module, optimizer = self._new()
        load_checkpoint(path, module, optimizer, torch.nn.Linear(3, 2))
        if info is None or (case.must and info != {"epoch": 3, "step": 40, "best": 0.5}):
            raise WrongResultError(f"info {info}")
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()


class Stores(Target):
    """A region store."""

    name: ClassVar[str] = "stores"

    def warm(self, folder: Path) -> None:  # noqa: D102
        import numpy as np

        from unseen.features.store import RegionStore, write_store

        values = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
        write_store(folder / "store", lambda a, b: values[a:b], names=[f"{i}.jpg" for i in range(6)], grid=(2, 2), channels=3,
                    source={"name": "features:x"}, dtype="float16", chunk=2)  # fmt: skip
        self.shared = folder
        self.values = RegionStore.open(folder / "store").read(range(6))

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        shutil.copytree(self.shared / "store", folder / "store")
        files = sorted(p for p in (folder / "store").iterdir() if p.is_file() and p.stat().st_size)
        victim = rng.choice([*files, *[f for f in files if f.suffix == ".json"] * 3])
        content, said = victim.read_bytes(), ""
        if victim.suffix == ".json":
            value, said = spoil_value(json.loads(content), rng)
            content, how = as_json(value, rng)
            said += f"; {how}"
        else:
            content, said = spoil(content, rng)
        victim.write_bytes(content)
        return Case(f"{victim.name}: {said}", ("store",))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.features.store import RegionStore

        store = RegionStore.open(folder / "store")
        store.verify()
        found = store.read(range(min(len(store), 6)))
        if (
            len(store) == 6
            and found.shape == self.values.shape
            and found.dtype == self.values.dtype
            and not (found == self.values).all()
        ):
            raise WrongResultError("other features than were written, and verified")
