"""Dataset folders as found on disks, and lists of images."""

# ruff: noqa: E501 - lists of odd values
from __future__ import annotations

import io
import os
import shutil
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import ClassVar

from faults.fuzz.mutate import spoil
from faults.fuzz.tables import as_csv, good_folder, image
from faults.fuzz.target import Case, Target, WrongResultError


class Folders(Target):
    """A dataset folder with files missing, added, renamed, or linked in circles or to the outside."""

    name: ClassVar[str] = "folders"
    weight: ClassVar[float] = 2.0

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.data.checks
        import unseen.data.folder  # noqa: F401

        for number in range(18):
            image(number)

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        root, said = folder / "birds", []
        root.mkdir()
        tables = good_folder(rng, root)
        if rng.random() < 0.5:
            tables.pop("images", None)
        for name, rows in tables.items():
            (root / f"{name}.csv").write_bytes(as_csv(rows, rng, plain=True))
        for _ in range(rng.randint(1, 3)):
            how = rng.choice(_WAYS)
            said.append(how.__name__.strip("_"))
            with suppress(OSError, IndexError):  # nothing left to change
                how(root, rng)
        if rng.random() < 0.2 and "images" in tables:
            rows = tables["images"]
            rows[rng.randrange(1, len(rows))][0] = rng.choice((
                "../../etc/passwd", "/etc/passwd", "..", ".", "", "x" * 300, "bird 0/../bird 0/0.jpg", "bird 0\\0.jpg", "BIRD 0/0.JPG", "bird 0", "\x00", "a\x00b.jpg", "images/bird 0/0.jpg",
                "bird 0/0.jpg/", "~/x.jpg", "file:///etc/passwd", "x" * 5000, "//etc/passwd", "\ud7ff", "a\nb.jpg", "bird 0/" * 2000 + "x.jpg",
            ))  # fmt: skip
            (root / "images.csv").write_bytes(as_csv(rows, rng, plain=True))
            said.append("odd path")
        return Case(", ".join(said), ("birds",))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.data.checks import check_folder
        from unseen.data.folder import load_folder
        from unseen.errors import UnseenError

        root = folder / "birds"
        wrong = check_folder(root, workers=1).of("error")
        try:
            dataset = load_folder(root)
        except UnseenError as error:
            if not wrong:
                raise WrongResultError(f"`check` finds nothing, and loading says {error}") from None
            raise
        inside = os.path.realpath(root)
        outside = [p for p in dataset.paths() if not os.path.realpath(p).startswith(inside + os.sep)]
        if outside:
            raise WrongResultError(f"an image outside the folder: {outside[0]}")
        if len(set(dataset.files)) != len(dataset.files) or (
            (root / "images").is_dir() and any(not p.is_file() for p in dataset.paths())
        ):
            raise WrongResultError("an image twice, or one that is not there")


def _any(root: Path, rng: Random) -> Path:
    return rng.choice(sorted(root.rglob("*")) or [root / "x"])


def _gone(root: Path, rng: Random) -> None:
    path = _any(root, rng)
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _empty_file(root: Path, rng: Random) -> None:
    _any(root, rng).write_bytes(b"")


def _folder_for_file(root: Path, rng: Random) -> None:
    path = _any(root, rng)
    if path.is_file():
        path.unlink()
        path.mkdir()


def _file_for_folder(root: Path, rng: Random) -> None:
    path = rng.choice([p for p in root.rglob("*") if p.is_dir()])
    shutil.rmtree(path)
    path.write_bytes(b"x")


def _loop(root: Path, rng: Random) -> None:
    path = rng.choice([p for p in root.rglob("*") if p.is_dir()])
    (path / "loop").symlink_to(rng.choice((path, root, Path(), Path("loop"), path / "loop")))


def _outside(root: Path, rng: Random) -> None:
    other = root.parent / "elsewhere"
    other.mkdir(exist_ok=True)
    (other / "9.jpg").write_bytes(image(17))
    path = rng.choice([p for p in (root / "images").rglob("*") if p.is_dir()])
    (path / "link").symlink_to(other)
    (path / "9.jpg").symlink_to(other / "9.jpg")


def _dangling(root: Path, rng: Random) -> None:
    (
        root / rng.choice(("classes.csv", "images.csv", "attributes.csv", "attribute_vectors.npy", "images/x.jpg"))
    ).unlink(missing_ok=True)
    (
        root / rng.choice(("images.csv", "attributes.csv", "attribute_vectors.npy", "images/x.jpg", "features"))
    ).symlink_to("nowhere")


def _another_table(root: Path, rng: Random) -> None:
    source = rng.choice(sorted(root.glob("*.csv")))
    shutil.copy(source, source.with_suffix(rng.choice((".tsv", ".xlsx", ".parquet", ".CSV", ".txt", ".xls"))))


def _case(root: Path, rng: Random) -> None:
    path = _any(root, rng)
    path.rename(
        path.with_name(rng.choice((path.name.upper(), path.name.title(), path.name + " ", path.name.replace(" ", "_"))))
    )


def _name(root: Path, rng: Random) -> None:
    path = _any(root, rng)
    path.rename(path.with_name(rng.choice((
        "caf\u00e9.jpg", unicodedata.normalize("NFD", "caf\u00e9.jpg"), os.fsdecode(b"\xff\xfe.jpg"), "a\nb.jpg", "\x1b[31m.jpg", "-rf", "x" * 250, "\u202e.jpg", "%s%n.jpg", "[b].jpg",
        ".hidden.jpg", "Thumbs.db", "x.heic", "x.txt", "con.jpg", "'; drop.jpg", "\U0001f426.jpg",
    ))))  # fmt: skip


def _same_class_twice(root: Path, rng: Random) -> None:
    folder = rng.choice([p for p in (root / "images").iterdir() if p.is_dir()])
    shutil.copytree(
        folder,
        folder.with_name(
            rng.choice(
                (
                    folder.name.upper(),
                    folder.name.replace(" ", "_"),
                    unicodedata.normalize("NFD", folder.name) + "\u0301",
                )
            )
        ),
        symlinks=True,
    )


def _deep(root: Path, rng: Random) -> None:
    path = root / "images"
    for i in range(rng.choice((20, 150))):
        path = path / f"d{i}"
    path.mkdir(parents=True)
    (path / "x.jpg").write_bytes(image(16))


def _pipe(root: Path, rng: Random) -> None:
    path = root / rng.choice(
        (
            "images/bird 0/pipe.jpg",
            "attributes.csv",
            "images.csv",
            "attribute_vectors.npy",
            "classes.csv",
            "att_splits.mat",
        )
    )
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _flat(root: Path, rng: Random) -> None:
    for path in sorted((root / "images").iterdir()):
        path.rename(root / path.name)


def _vectors(root: Path, rng: Random) -> None:
    (root / "attribute_vectors.npy").write_bytes(rng.choice((b"", b"x", b"\x93NUMPY\x01\x00")))


def _features(root: Path, rng: Random) -> None:
    (root / "features").mkdir()
    if rng.random() < 0.5:
        shutil.rmtree(root / "images")


_WAYS = (
    _gone, _gone, _empty_file, _folder_for_file, _file_for_folder, _loop, _loop, _outside, _dangling, _another_table, _case, _case, _name, _name,
    _same_class_twice, _deep, _pipe, _flat, _vectors, _features,
)  # fmt: skip


class Lists(Target):
    """Images for `predict`: files, folders, patterns, lists and standard input."""

    name: ClassVar[str] = "lists"

    def warm(self, folder: Path) -> None:  # noqa: D102
        import unseen.data.finding  # noqa: F401

    def make(self, rng: Random, folder: Path) -> Case:  # noqa: D102
        for i in range(3):
            (folder / f"{i}.jpg").touch()
        if rng.random() < 0.4:
            source = rng.choice((
                "*.jpg", "**/*", "[", "[!", "***", "?" * 300, "", ".", "..", "0.jpg", "\x00", "a\x00b", "x" * 5000, "/proc/self/nowhere*", "~", "-", "nothing/*", "{a,b}", "[z-a]*", "\ud800",
                "\U0001f426", "0.jpg/", "(" * 50, "[" * 100 + "]" * 100, "*" * 100, "\n", " ", "file://0.jpg", "http://localhost/x.jpg",
            ))  # fmt: skip
            return Case(f"source {source[:30]!r}", data=([source], [], b"0.jpg\n\x00\n\xff\n"))
        name = rng.choice(("list.txt", "list.csv", "list.tsv"))
        lines = ["image,other" if name != "list.txt" else "0.jpg", *(rng.choice((
            "0.jpg", "1.jpg,x", "", "../x", "nowhere.jpg", "x" * 5000, '"', '"a\nb"', "\x00", "a\x00b,1", "é.jpg", ",,,", " 0.jpg ", "\t", "/etc/passwd", "\U0001f426", "y" * 200_000,
        )) for _ in range(rng.randint(0, 6)))]  # fmt: skip
        if rng.random() < 0.2:
            lines[0] = rng.choice(
                ("file,image", "", "nothing", "image,image", "\ufeffimage", "IMAGE", '"image', "\x00")
            )
        content, said = (
            rng.choice(("\n", "\r\n", "\r"))
            .join(lines)
            .encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")), "replace"),
            "lines",
        )
        if rng.random() < 0.5:
            content, said = spoil(content, rng)
        if rng.random() < 0.3:
            return Case(f"standard input: {said}", data=(["-"], [], content))
        (folder / name).write_bytes(content)
        return Case(f"{name}: {said}", (name,), data=([], [name], b""))

    def run(self, case: Case, folder: Path) -> None:  # noqa: D102
        from unseen.data.finding import FoundImages

        sources, lists, given = case.data
        sys.stdin = io.TextIOWrapper(io.BytesIO(given))
        images = FoundImages(sources, [folder / name for name in lists])
        found = list(images)
        if found != list(images):
            raise WrongResultError("read twice, the images are others")
        for path in found:
            str(path).encode("utf-8", "surrogateescape")
