"""The field's benchmarks in small: few classes and images, the layout and formats of the official files.

Class names of the split are in another order than the official lists, as in the real files, and the paths of
``res101.mat`` are those of another machine. What a test wants to spoil it changes before the files are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from unseen.releases import BENCHMARKS, Benchmark
from unseen.releases.facts import Facts

CLASSES, UNSEEN, EACH, TRAINED = 8, 2, 5, 4
ORDER = [3, 0, 6, 1, 7, 4, 2, 5]
"""The official number of each class of the split."""
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]
PARTS = ["back", "beak", "left eye"]


def cells(values) -> np.ndarray:
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


def save_v73(path: Path, content: dict[str, Any]) -> None:
    """A MATLAB 7.3 file as MATLAB writes it: axes in reverse, cells as references, text as numbers."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def write(group, name, value):
            if isinstance(value, str):
                item = group.create_dataset(name, data=np.array([[ord(c)] for c in value], dtype=np.uint16))
                item.attrs["MATLAB_class"] = np.bytes_("char")
            elif value.dtype == object:
                item = group.create_dataset(name, value.shape[::-1], dtype=h5py.ref_dtype)
                for (i, j), cell in np.ndenumerate(value):
                    item[j, i] = write(file.require_group("#refs#"), f"{name}{i}_{j}", cell).ref
                item.attrs["MATLAB_class"] = np.bytes_("cell")
            else:
                item = group.create_dataset(name, data=value.T)
                item.attrs["MATLAB_class"] = np.bytes_(str(value.dtype).replace("float64", "double"))
            return item

        for name, value in content.items():
            write(file, name, value)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: today HDF5 schema 1.00 .".ljust(116))


def save(path: Path, content: dict[str, Any], v73: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_v73(path, content) if v73 else scipy.io.savemat(path, content)


def image(path: Path, seed: int = 0, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def text(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@dataclass
class Tiny:
    """A small benchmark that was not written yet.

    ``split`` and ``images`` are the variables of the two files of the Proposed Split; ``values`` (N, K) is in the
    order of the official list, ``official`` its names.
    """

    name: str
    root: Path
    v73: bool = False
    attributes: int = 6
    official: list[str] = field(default_factory=list)
    split: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    more: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(5)
        self.values = rng.integers(1, 90, (CLASSES, self.attributes)).astype(float)
        self.official = {
            "cub": [f"{i + 1:03d}.{n.title()}" for i, n in enumerate(NAMES)],
            "sun": ["abbey", "alley", "attic", "bank_indoor", "bank_outdoor", "bar", "yard", "zoo"],
            "flo": [str(i + 1) for i in range(CLASSES)],
        }.get(self.name, ["grizzly+bear", *NAMES[1:]])
        values = self.values[ORDER]
        labels = np.repeat(np.arange(CLASSES), EACH)
        if self.name == "flo":
            values, labels = self.values, self._flowers()
        unseen = labels >= CLASSES - UNSEEN
        turn = np.array([np.sum(labels[:i] == c) for i, c in enumerate(labels)])
        rows = {
            "trainval_loc": ~unseen & (turn < TRAINED),
            "test_seen_loc": ~unseen & (turn >= TRAINED),
            "test_unseen_loc": unseen,
            # as in the real releases, with test-seen images
            "train_loc": labels < CLASSES - UNSEEN - 2,
            "val_loc": ~unseen & (labels >= CLASSES - UNSEEN - 2),
        }
        self.split = {name: (np.flatnonzero(chosen) + 1).astype(np.uint16)[:, None] for name, chosen in rows.items()}
        self.split["att"] = (values / np.linalg.norm(values, axis=1, keepdims=True)).T
        if self.name != "flo":
            self.split["original_att"] = values.T
            self.split["allclasses_names"] = cells([self.official[c] for c in ORDER])
        if self.name == "apy":
            del self.split["train_loc"], self.split["val_loc"]
        self.places = [self._place(c, i) for i, c in enumerate(labels)]
        self.images = {
            "features": rng.normal(size=(12, len(labels))),
            "labels": (labels + 1).astype(float)[:, None],
            "image_files": cells([f"/BS/work/data/{self.name}//{place}" for place in self.places]),
        }

    def _flowers(self) -> np.ndarray:
        """Labels from 0 in the order of trnid, valid, tstid."""
        self.set_ids = {"trnid": range(1, 17), "valid": range(33, 41), "tstid": range(17, 33)}
        self.numbers = np.concatenate([np.array(ids) for ids in self.set_ids.values()])
        own = np.random.default_rng(1).permutation(np.repeat(np.arange(CLASSES), EACH))
        self.own_labels = own
        return own[self.numbers - 1]

    def _place(self, label: int, row: int) -> str:
        name = self.official[label if self.name == "flo" else ORDER[label]]
        if self.name == "cub":
            return f"images/{name}/{name[4:]}_{row:04d}.jpg"
        if self.name == "sun":
            scene = name.replace("_", "/")
            return f"images/{name[0]}/{scene}/sun_{row:04d}.jpg"
        if self.name == "flo":
            return f"jpg/image_{self.numbers[row]:05d}.jpg"
        if self.name == "apy":
            yahoo = ORDER[label] > 5
            # two images of a class share a photograph
            return f"ayahoo_test_images/{name}_{row // 2}.jpg" if yahoo else f"JPEGImages/2008_{row // 2:06d}.jpg"
        return f"JPEGImages/{name}/{name}_{10001 + row}.jpg"

    @property
    def benchmark(self) -> Benchmark:
        count, seen = CLASSES * EACH, CLASSES - UNSEEN
        trained = seen * TRAINED
        rest = (trained, seen * EACH - trained, UNSEEN * EACH)
        return replace(BENCHMARKS[self.name], facts=Facts(count, CLASSES, seen, self.attributes, *rest))

    @property
    def key(self) -> str:
        return self.name.upper()

    def write(self) -> Benchmark:
        """All files; the benchmark with the counts of this small edition."""
        folder = self.root / ("cvpr18xian" if self.name == "flo" else "xlsa17") / "data" / self.key
        save(folder / "att_splits.mat", self.split, self.v73)
        save(folder / "res101.mat", self.images, self.v73)
        getattr(self, f"_{self.name}")()
        if self.name in ("cub", "sun", "awa2"):
            import pickle

            vectors = np.random.default_rng(2).normal(size=(self.attributes, 5))
            (self.root / f"{self.key}_attribute.pkl").write_bytes(pickle.dumps(vectors, protocol=3))
        return self.benchmark

    def _images(self, folder: str) -> None:
        for i, place in enumerate(self.places):
            image(self.root / folder / place, i)

    def _cub(self) -> None:
        base = self.root / "CUB_200_2011"
        self._images("CUB_200_2011")
        files = sorted(p.removeprefix("images/") for p in self.places)
        text(base / "classes.txt", [f"{i + 1} {n}" for i, n in enumerate(self.official)])
        text(base / "images.txt", [f"{i + 1} {f}" for i, f in enumerate(files)])
        text(self.root / "attributes.txt", [f"{k + 1} has_bill_shape::kind_({k})" for k in range(self.attributes)])
        table = base / "attributes" / "class_attribute_labels_continuous.txt"
        text(table, [" ".join(map(str, row)) for row in self.values])
        text(base / "parts" / "parts.txt", [f"{i + 1} {p}" for i, p in enumerate(PARTS)])
        spots = [f"{i + 1} {p + 1} {p + 2}.0 {p + 3}.5 {p % 2}" for i in range(len(files)) for p in range(len(PARTS))]
        text(base / "parts" / "part_locs.txt", spots)
        text(base / "bounding_boxes.txt", [f"{i + 1} 1.0 2.0 10.0 12.0" for i in range(len(files))])

    def _animals(self, folder: str) -> None:
        base = self.root / folder
        text(base / "classes.txt", [f"{i + 1:>6}\t{n}" for i, n in enumerate(self.official)])
        text(base / "predicates.txt", [f"{k + 1:>6}\tsign{k}" for k in range(self.attributes)])
        text(base / "predicate-matrix-continuous.txt", ["  ".join(f"{v:.2f}" for v in row) for row in self.values])
        text(base / "predicate-matrix-binary.txt", [" ".join(str(int(v > 40)) for v in row) for row in self.values])

    def _awa2(self) -> None:
        self._images("Animals_with_Attributes2")
        self._animals("Animals_with_Attributes2")

    def _awa1(self) -> None:
        self._animals("Animals_with_Attributes")

    def _sun(self) -> None:
        self._images("")
        base = self.root / "SUNAttributeDB"
        save(base / "attributes.mat", {"attributes": cells([f"sailing/ boating {k}" for k in range(self.attributes)])})
        shuffled = np.random.default_rng(3).permutation(len(self.places))
        files = [self.places[i].removeprefix("images/") for i in shuffled]
        rows = [self.values[ORDER[i // EACH]] / 100 for i in shuffled]
        save(base / "images.mat", {"images": cells(files)})
        save(base / "attributeLabels_continuous.mat", {"labels_cv": np.array(rows)})

    def _apy(self) -> None:
        lists: dict[str, list[str]] = {"apascal_train": [], "apascal_test": [], "ayahoo_test": []}
        for row, place in enumerate(self.places):
            name = self.official[ORDER[row // EACH]]
            yahoo = place.startswith("ayahoo")
            image(self.root / ("" if yahoo else "VOCdevkit/VOC2008") / place, row // 2)
            box = f"{1 + row % 3} 2 {9 + row % 3} 15"
            attributes = " ".join(str(int(v)) for v in self.values[ORDER[row // EACH]])
            target = "ayahoo_test" if yahoo else ("apascal_train" if row % 2 else "apascal_test")
            lists[target].append(f"{Path(place).name} {name} {box} {attributes}")
        for target, lines in lists.items():
            text(self.root / "attribute_data" / f"{target}.txt", lines)
        text(self.root / "attribute_data" / "attribute_names.txt", [f"Sign {k}" for k in range(self.attributes)])

    def _flo(self) -> None:
        self._images("")
        save(self.root / "imagelabels.mat", {"labels": (self.own_labels + 1).astype(np.uint8)[None]})
        ids = {name: np.array(list(i), dtype=np.uint16)[None] for name, i in self.set_ids.items()}
        save(self.root / "setid.mat", ids)
