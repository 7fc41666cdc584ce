"""Arrays in numpy files: plain ones, archives, and pickles of them."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import io
import itertools
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from faults.fuzz import canary
from faults.fuzz.mutate import spoil
from faults.fuzz.target import Case, Target, WrongResultError

K, D = 5, 4


def good(rng: Random) -> np.ndarray:
    """A K x D table of numbers."""
    return np.random.default_rng(rng.randrange(2**32)).normal(size=(K, D))


def odd_array(rng: Random) -> np.ndarray:
    """An array of another shape or dtype."""
    return rng.choice((
        lambda: np.zeros((0, 0)), lambda: np.zeros(5), lambda: np.zeros((K, D, 2)), lambda: np.zeros((D, K)), lambda: np.array(3.0),
        lambda: np.full((K, D), np.nan), lambda: np.full((K, D), np.inf), lambda: np.zeros((K, D), "complex64"), lambda: np.full((K, D), "x"),
        lambda: np.zeros((K, D), [("a", "f4"), ("b", "i2")]), lambda: np.zeros((K, D), "M8[s]"), lambda: np.zeros((K, D), bool), lambda: np.zeros((K, D), ">f2"),
        lambda: np.zeros((K, D), "longdouble"), lambda: np.array([[None] * D] * K, object), lambda: np.full((K, D), 2**64 - 1, "u8"), lambda: np.zeros((K, 0)),
        lambda: np.asfortranarray(np.ones((K, D))), lambda: np.full((K, D), 1e308), lambda: np.zeros((K, D), "S3"), lambda: np.zeros((K, D), "V8"),
    ))()  # fmt: skip


def npy(rng: Random, array: np.ndarray) -> tuple[bytes, str]:
    """A .npy file, or nearly one."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    content = out.getvalue()
    how = rng.choice(("plain", "spoilt", "spoilt", "header", "header", "length", "version"))
    if how == "spoilt":
        return spoil(content, rng)
    if how == "header":
        text = rng.choice((
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (5, 4), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (5, 4)} + 1",
            f"__import__('os').system('{canary.SHELL}')", "{'descr': [('a', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (5,), }",
            "{'descr': '<f8', 'fortran_order': 1, 'shape': 5}", "(" * 3000, "[" * 200 + "]" * 200, "{'descr': '<f99999', 'fortran_order': False, 'shape': (5, 4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (2**70, 0), }", "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (5, 4), }", "",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999, 1), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 4), }",
        ))  # fmt: skip
        head = text.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content[128:], f"header {text[:60]}"
    if how == "length":
        return content[:8] + struct.pack("<H", rng.choice((0, 1, 65535, 50))) + content[10:], how
    if how == "version":
        return content[:6] + bytes([rng.choice((0, 2, 3, 9)), rng.choice((0, 1))]) + content[8:], how
    return content, how


class Vectors(Target):
    """`attribute_vectors.npy` of a dataset folder."""

    name: ClassVar[str] = "npy"

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.data.folder  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        array = good(rng) if rng.random() < 0.5 else odd_array(rng)
        content, how = npy(rng, array)
        (folder / "attribute_vectors.npy").write_bytes(content)
        return Case(
            f"{array.dtype} {array.shape}, {how}", ("attribute_vectors.npy",), data=array if how == "plain" else None
        )

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.classes.attributes import Attributes
        from unseen.data.folder import read_vectors

        found = read_vectors(folder / "attribute_vectors.npy", Attributes(tuple("abcde")))
        if found is None or found.shape[0] != K or found.dtype != np.float64 or not np.isfinite(found).all():
            raise WrongResultError("not 5 x D finite numbers")
        if case.data is not None and not np.array_equal(found, case.data.astype(np.float64)):
            raise WrongResultError("other numbers than were written")


class References(Target):
    """The attribute scores of the training images, an .npz."""

    name: ClassVar[str] = "npz"
    weight: ClassVar[float] = 0.6

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.model.references  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        numbers = np.random.default_rng(rng.randrange(2**32))
        parts: dict[str, Any] = {
            "attribute_scores": numbers.normal(size=(8, K)).astype(np.float16),
            "labels": np.arange(8) % 3,
            "files": np.array([f"{i}.jpg" for i in range(8)]),
            "class_names": np.array(list("abc")),
            "class_values": numbers.normal(size=(3, K)),
        }
        said = []
        for _ in range(rng.randint(0, 2)):
            name = rng.choice(list(parts))
            how = rng.choice(("odd", "drop", "bytes", "labels", "nan"))
            said.append(f"{name} {how}")
            if how == "odd":
                parts[name] = odd_array(rng)
            elif how == "drop":
                del parts[name]
                break
            elif how == "labels":
                parts["labels"] = np.array([rng.choice((-1, 3, 2**40))] * 8)
            elif how == "nan":
                parts["class_values"] = np.full((3, K), np.nan)
            else:
                parts[name] = npy(rng, odd_array(rng))[0]
        out = io.BytesIO()
        with zipfile.ZipFile(
            out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), compresslevel=1
        ) as archive:
            for name, value in parts.items():
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy_plain(value))
            if rng.random() < 0.1:
                said.append("bomb")
                head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2 * 10**8}, 1), }}".ljust(117) + "\n"
                archive.writestr(
                    "files.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(4 * 10**8)
                )
        content = out.getvalue()
        if rng.random() < 0.4:
            content, how = spoil(content, rng)
            said.append(how)
        (folder / "references.npz").write_bytes(content)
        return Case("; ".join(said) or "good", ("references.npz",), must=None if said else "accepted")

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.model.references import References as Read

        found = Read.load(folder / "references.npz")
        _ = found.fit
        found.nearest(np.zeros(found.attribute_scores.shape[1]), 3)


def npy_plain(array: np.ndarray) -> bytes:
    """An array as .npy."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


class _Attack:
    def __init__(self, how: tuple[Any, ...]) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def _attacks() -> tuple[Any, ...]:
    import builtins
    import os
    import subprocess

    return (
        (os.system, (canary.SHELL,)), (builtins.exec, (canary.CODE,)), (builtins.eval, (f"__import__('os').system('{canary.SHELL}')",)),
        (subprocess.Popen, (["touch", canary.MARK],)), (builtins.open, (canary.MARK, "w")), (os.putenv, (canary.MARK, "1")),
        (builtins.getattr, ("os", "system")), (builtins.__import__, ("antigravity",)), (np.load, ("x.npy",)), (bytearray, (10**10,)), (list, (range(10**9),)),
    )  # fmt: skip


_RAW: tuple[bytes, ...] = (
    b"cos\nsystem\n(S'touch " + canary.MARK.encode() + b"'\ntR.", b"(S'touch x'\nios\nsystem\n.", b"Pid\n.", b"\x80\x02K\x01Q.", b"\x80\x02\x82\x01.", b"\x80\x02\x84\xff\xff\xff\x7f.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"\x80\x05\x97.", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80\x04B\xff\xff\xff\xffa.",
    b"(" * 200_000 + b".", b"]" * 100_000 + b"." , b"(l" * 50_000 + b"." , b"]q\x00" + b"h\x00a." , b"}q\x00(h\x00h\x00u.", b"](" + b"]a" * 60_000 + b"e.", b"\x80\x02]" + b"]\x85" * 40_000 + b".",
    b"\x80\x02r\xff\xff\xff\x7f.", b"\x80\x02]r\xff\xff\xff\x07.", b"\x80\x04]\x94" + b"(h\x00h\x00e0" * 3 + b".", b"I" + b"9" * 10_000 + b"\n.", b"L" + b"9" * 10_000 + b"L\n.", b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"V\\ud800\n.", b"S'\\x00'\n.", b"F1e400\n.", b"\x80\x04cnumpy\nndarray\n.", b"\x80\x04cnumpy\nndarray\n)R.", b"cnumpy\ndtype\n(S'O'\ntR.", b"c__builtin__\nbytes\n)R.",
    b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", b"ccollections\nOrderedDict\n)R(]]s.", b"cnumpy\ndtype\n(S'f8'\ntRS'x'\nb.", b"ccollections\nOrderedDict\n}b.", b"", b".", b"\x80", b"\x80\xff.",
)  # fmt: skip


class Pickles(Target):
    """Pickles of arrays: word vectors and class attributes as distributed in the field."""

    name: ClassVar[str] = "pickle"
    weight: ClassVar[float] = 1.5

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.formats.pickles  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        path, protocol = folder / "vectors.pkl", rng.randint(0, 5)
        how = rng.choice(
            (
                "good",
                "other",
                "attack",
                "attack",
                "raw",
                "raw",
                "opcodes",
                "opcodes",
                "spoilt",
                "spoilt",
                "nested",
                "memo",
            )
        )
        value: Any = good(rng)
        if how in ("other", "opcodes", "spoilt"):
            value = rng.choice(
                (
                    value,
                    odd_array(rng),
                    {"a": [1, 2.5, "x", None, b"y", (True,)]},
                    [value] * 3,
                    {1, 2},
                    3 + 4j,
                    value.astype(">f4"),
                    np.float32(2),
                    bytearray(b"x"),
                )
            )
        if how == "attack":
            value = rng.choice(
                (
                    _Attack(rng.choice(_attacks())),
                    [_Attack(rng.choice(_attacks()))],
                    {"a": value, "b": _Attack(rng.choice(_attacks()))},
                )
            )
        if how == "nested":
            value = 1
            for _ in range(rng.choice((50, 400))):
                value = [value] if rng.random() < 0.5 else (value,)
        if how == "memo":  # 2^40 lists if expanded
            value = ["x"]
            for _ in range(rng.choice((20, 40))):
                value = [value, value]
        content = rng.choice(_RAW) if how == "raw" else pickle.dumps(value, protocol)
        if how == "spoilt":
            content, _ = spoil(content, rng)
        elif how == "opcodes":
            content = shuffled(content, rng)
        path.write_bytes(content)
        plain = value if how == "good" else None
        must = "accepted" if how == "good" else "refused" if how == "attack" else None
        return Case(f"{how}, protocol {protocol}", ("vectors.pkl",), must, plain)  # type: ignore[arg-type]

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.formats.pickles import read_array, read_pickle

        read_pickle(folder / "vectors.pkl")
        found = read_array(folder / "vectors.pkl")
        if case.data is not None and not np.array_equal(found, case.data):
            raise WrongResultError("another array than was written")


def shuffled(content: bytes, rng: Random) -> bytes:
    """A pickle with opcodes removed, doubled, swapped or inserted, of every kind."""
    places = [position for _, _, position in pickletools.genops(content)] + [len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(rng.randint(1, 5)):
        at, how = rng.randrange(len(pieces)), rng.random()
        if how < 0.3:
            code = rng.choice(pickletools.opcodes)
            pieces.insert(
                at,
                code.code.encode("latin1")
                + bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 4))))
                + rng.choice((b"", b"\n", b"os\nsystem\n")),
            )
        elif how < 0.5:
            pieces.insert(at, rng.choice(pieces))
        elif how < 0.7:
            del pieces[at]
            if not pieces:
                break
        else:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
    return b"".join(pieces)
