"""The field's files: `att_splits.mat` and `res101.mat` of MATLAB 5 and 7.3, and region features in HDF5."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from faults.fuzz.mutate import spoil
from faults.fuzz.target import Case, Target, WrongResultError

N, K, M, C = 4, 3, 12, 2
LABELS = np.repeat(np.arange(N), M // N)
PARTS = {
    "trainval": np.flatnonzero(LABELS < 3)[::2],
    "test_seen": np.flatnonzero(LABELS < 3)[1::2],
    "test_unseen": np.flatnonzero(LABELS == 3),
}


def split() -> dict[str, Any]:
    """Content of an `att_splits.mat` with 4 classes and 12 images."""
    values = np.arange(1.0, N * K + 1).reshape(K, N)
    return {
        "allclasses_names": np.array([[f"bird {i}"] for i in range(N)], object),
        "att": values / np.linalg.norm(values, axis=0),
        "original_att": values,
        **{f"{name}_loc": rows[:, None] + 1.0 for name, rows in PARTS.items()},
        "train_loc": PARTS["trainval"][:2, None] + 1.0,
        "val_loc": PARTS["trainval"][2:, None] + 1.0,
    }


def images() -> dict[str, Any]:
    """Content of its `res101.mat`."""
    return {
        "labels": LABELS[:, None] + 1.0,
        "image_files": np.array([[f"/home/x/bird {c}/{i}.jpg"] for i, c in enumerate(LABELS)], object),
        "features": np.arange(float(M * C)).reshape(C, M),
    }


def spoil_variables(content: dict[str, Any], rng: Random) -> tuple[dict[str, Any], str]:
    """A copy with one to three wrong variables."""
    found, said = dict(content), []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(content))
        how = rng.choice(("drop", "odd", "odd", "index", "index", "transpose", "shape", "type", "type", "names"))
        said.append(f"{name} {how}")
        value = found.get(name, np.zeros((1, 1)))
        if how == "drop":
            found.pop(name, None)
        elif how == "odd":
            found[name] = rng.choice((np.zeros((0, 0)), np.array([[np.nan]]), "text", np.array(["ab", "cd"]), {"a": 1.0}, 3.5, np.zeros((2, 2, 2)),
                                      np.array([[1 + 2j]]), np.array([[1.5], [2.5]]), np.full((M, 1), 2.0**63), np.full((M, 1), np.inf), np.array([[None]], object) if 0 else np.zeros((1, 0))))  # fmt: skip
        elif how == "index" and isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.size:
            value = value.astype(float)
            value.flat[rng.randrange(value.size)] = rng.choice(
                (0, -1, M, M + 1, 1e18, 1e300, 1.5, np.nan, np.inf, 2.0**53, 1)
            )
            found[name] = value
        elif how == "transpose" and isinstance(value, np.ndarray):
            found[name] = value.T
        elif how == "shape" and isinstance(value, np.ndarray) and value.size:
            found[name] = rng.choice((value[:-1], value.ravel(), np.vstack([value, value]), value[None]))
        elif how == "type" and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                found[name] = np.nan_to_num(value).astype(
                    rng.choice(("uint8", "int8", "int64", "float32", "bool", "uint64", "complex64"))
                )
        elif how == "names" and name in ("allclasses_names", "image_files"):
            odd = rng.choice(
                (
                    ["a", "a", "b", "c"],
                    ["", "b", "c", "d"],
                    ["a", 1.0, "c", "d"],
                    ["\u00e9", "e\u0301", "c", "d"],
                    ["../a", "/b", "c", "d"],
                    [["x"], "b", "c", "d"],
                )
            )
            cells = np.empty((len(odd), 1), object)
            cells[:, 0] = [
                np.array([1.0]) if x == 1.0 else x if isinstance(x, str) else np.array(x, object) for x in odd
            ]
            found[name] = cells
    return found, ", ".join(said)


def write_v5(path: Path, content: dict[str, Any], rng: Random) -> None:
    """A MATLAB 5 file."""
    import scipy.io

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scipy.io.savemat(path, content, do_compression=rng.random() < 0.5, oned_as=rng.choice(("row", "column")))


def write_v73(path: Path, content: dict[str, Any]) -> None:
    """A MATLAB 7.3 file: HDF5 with reversed axes and cells as references."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        references = file.create_group("#refs#")

        def put(value: Any, where: Any, name: str) -> Any:
            if isinstance(value, str):
                made = where.create_dataset(name, data=np.array([[ord(x)] for x in value] or [[0]], "u2"))
                made.attrs["MATLAB_class"] = np.bytes_("char")
            elif isinstance(value, np.ndarray) and value.dtype == object:
                inside = [put(cell, references, f"r{len(references)}").ref for cell in value.ravel()]
                cells = np.array(inside, dtype=h5py.ref_dtype).reshape(value.shape).T
                made = where.create_dataset(name, data=cells, dtype=h5py.ref_dtype)
                made.attrs["MATLAB_class"] = np.bytes_("cell")
            elif isinstance(value, dict):
                made = where.create_group(name)
            elif isinstance(value, np.ndarray) and value.dtype.kind == "U":
                made = put(str(value.ravel()[0]), where, name)
            else:
                made = where.create_dataset(name, data=np.atleast_2d(value).T)
                made.attrs["MATLAB_class"] = np.bytes_("double")
            return made

        for name, value in content.items():
            put(value, file, name)
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(head)


def _bomb(file: Any, name: str) -> None:
    made = file.create_dataset(
        name, shape=(M, 10**7 // 2, 1, 1), dtype="f4", chunks=(1, 10**6, 1, 1), compression="gzip"
    )
    made[0, : 10**6] = 0


def _virtual(file: Any, name: str) -> None:
    import h5py

    layout = h5py.VirtualLayout(shape=(10**6, 10**6), dtype="f8")
    layout[0] = h5py.VirtualSource("nowhere.h5", "x", shape=(10**6,))
    file.create_virtual_dataset(name, layout)


def _references(file: Any, name: str, to: str = "nothing") -> None:
    import h5py

    made = file.create_dataset(name, (N, 1), dtype=h5py.ref_dtype)
    if to == "root":
        made[0, 0] = file.ref
    elif to == "itself":
        made[:] = made.ref


def _ways(path: Path, rng: Random) -> dict[str, Callable[[Any, str], object]]:
    """Replacements for a dataset, given the file and its name."""
    import h5py

    def dataset(*arguments: Any, **named: Any) -> Callable[[Any, str], object]:
        return lambda file, name: file.create_dataset(name, *arguments, **named)

    def content(value: Any) -> Callable[[Any, str], object]:
        return lambda file, name: file.__setitem__(name, value)

    outside = rng.choice(("/etc/passwd", "other.h5", "../../x.h5", path.name))
    return {
        "external": lambda file, name: file.__setitem__(name, h5py.ExternalLink(outside, f"/{name}")),
        "soft loop": lambda file, name: file.__setitem__(name, h5py.SoftLink(f"/{name}")),
        "soft nowhere": content(h5py.SoftLink("/nowhere")),
        "hard loop": lambda file, name: file.create_group(name).__setitem__(name, file["/"]),
        "huge": dataset(shape=(10**7, 2048, 7, 7), dtype="f4", chunks=(1, 1, 7, 7)),
        "huge chunked": dataset(shape=(M, 10**9), dtype="f4", chunks=(1, 10**6)),
        "bomb": _bomb,
        "virtual": _virtual,
        "reference": partial(_references, to="root"),
        "null reference": _references,
        "reference loop": partial(_references, to="itself"),
        "compound": content(np.zeros((M, 1), [("a", "f4")])),
        "text": dataset(data=["a"] * M),
        "scalar": content(3.0),
        "empty": content(h5py.Empty("f4")),
        "enum": dataset((M, 1), dtype=h5py.enum_dtype({"a": 1})),
        "external data": dataset((M, 1), dtype="u1", external=[(rng.choice(("/etc/passwd", "../x.raw")), 0, M)]),
        "group": lambda file, name: file.create_group(name).create_group("x"),
        "vlen": dataset((M,), dtype=h5py.vlen_dtype(np.int32)),
        "none": lambda file, name: None,
    }


def spoil_hdf5(path: Path, rng: Random) -> str:
    """Links, shapes and filters that are valid in HDF5 but unexpected."""
    import h5py

    ways = _ways(path, rng)
    how = rng.choice(list(ways))
    with h5py.File(path, "r+") as file:
        name = rng.choice([n for n in file if n != "#refs#"])
        attributes = dict(file[name].attrs) if isinstance(file[name], h5py.Dataset) else {}
        del file[name]
        ways[how](file, name)
        if name in file and rng.random() < 0.7:
            with suppress(KeyError, ValueError, OSError, RuntimeError):
                for key, value in attributes.items():
                    file[name].attrs[key] = value
                if rng.random() < 0.3:
                    file[name].attrs["MATLAB_empty"] = rng.choice((1, "x", 2.5))
    return f"{name} {how}"


class Mat(Target):
    """`att_splits.mat` and `res101.mat`."""

    name: ClassVar[str] = "mat"
    weight: ClassVar[float] = 2.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        import h5py  # noqa: F401
        import scipy.io  # noqa: F401

        import unseen.data.importing
        import unseen.formats.xlsa17  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        which = rng.choice(("att_splits.mat", "res101.mat"))
        content, said = (split() if which == "att_splits.mat" else images()), []
        path, modern = folder / which, rng.random() < 0.5
        if rng.random() < 0.7:
            content, how = spoil_variables(content, rng)
            said.append(how)
        if modern:
            write_v73(path, content)
            if rng.random() < 0.4:
                said.append(spoil_hdf5(path, rng))
        else:
            write_v5(path, content, rng)
        if rng.random() < 0.4:
            spoilt, how = spoil(path.read_bytes(), rng)
            path.write_bytes(spoilt)
            said.append(how)
        return Case(
            f"{which} {'7.3' if modern else '5'}: {'; '.join(said)}", (which,), None if said else "accepted", which
        )

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.data.importing import open_source
        from unseen.formats.xlsa17 import read_class_table, read_split

        path = folder / case.data
        if case.data == "att_splits.mat":
            found = read_split(path)
            parts = found.parts()
            found.validation_classes(np.zeros(len(parts), np.int64))
            table = read_class_table(path, found.names[:1])
            if len(parts) != found.count or len(table) != len(found.names):
                raise WrongResultError("counts that do not fit")
            if case.must and (
                list(found.names) != [f"bird {i}" for i in range(N)]
                or any((np.flatnonzero(parts == p) != r).any() for p, r in PARTS.items())
            ):
                raise WrongResultError("other names or parts than were written")
            return
        source = open_source(path)
        with source.reader() as read:
            block = read(0, min(4, source.count))
        if block.shape != (min(4, source.count), 1, source.channels):
            raise WrongResultError(f"features of shape {block.shape}")
        if case.must and (
            source.labels is None
            or (source.labels != LABELS).any()
            or (block[:, 0] != images()["features"].T[:4]).any()
        ):
            raise WrongResultError("other labels or features than were written")


class RegionFeatures(Target):
    """The field's HDF5 of region features."""

    name: ClassVar[str] = "hdf5"
    weight: ClassVar[float] = 1.5

    def warm(self, folder: Path) -> None:  # noqa: D102
        import h5py  # noqa: F401

        import unseen.data.importing  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        import h5py

        path, said = folder / "features.hdf5", []
        content: dict[str, Any] = {
            "feature_map": np.arange(M * C * 4, dtype=np.float32).reshape(M, C, 2, 2),
            "labels": LABELS,
            "att": split()["att"].T,
            "w2v_att": np.ones((K, 5)),
            **{f"{name}_loc": rows for name, rows in PARTS.items()},
        }
        if rng.random() < 0.5:
            content, how = spoil_variables(content, rng)
            said.append(how)
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                if isinstance(value, dict):
                    file.create_group(name)
                else:
                    file.create_dataset(
                        name, data=str(value) if isinstance(value, np.ndarray) and value.dtype.kind == "U" else value
                    )
        if rng.random() < 0.6:
            said.append(spoil_hdf5(path, rng))
        if rng.random() < 0.4:
            spoilt, how = spoil(path.read_bytes(), rng)
            path.write_bytes(spoilt)
            said.append(how)
        return Case("; ".join(said) or "good", ("features.hdf5",), None if said else "accepted")

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.data.importing import open_source

        source = open_source(folder / "features.hdf5")
        stop = min(4, source.count)
        with source.reader() as read:
            block = read(0, stop)
        if block.shape != (stop, source.grid[0] * source.grid[1], source.channels):
            raise WrongResultError(f"features of shape {block.shape}")
        if case.must and (
            source.labels is None or (source.labels != LABELS).any() or block[1, 2, 1] != M * 0 + 8 + 4 + 2
        ):
            raise WrongResultError("other labels or features than were written")
