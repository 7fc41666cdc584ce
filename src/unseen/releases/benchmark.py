"""Shared by all benchmarks: the Proposed Split, its images by name, and the checks of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import DataError
from unseen.formats.pickles import read_array
from unseen.formats.res101 import ImageList
from unseen.formats.xlsa17 import SPLITS, Split, numbered, read_split
from unseen.ground.words import counted
from unseen.releases.facts import Facts, looks_like
from unseen.releases.findings import Findings
from unseen.releases.images import Images, check_classes
from unseen.releases.needs import Download, Need
from unseen.releases.tables import check_names, read_lines

SPLIT_PAGE = (
    "https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/zero-shot-learning/"
    "zero-shot-learning-the-good-the-bad-and-the-ugly"
)
XLSA17 = Download(
    "xlsa17.zip", "http://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip", SPLIT_PAGE, unpack="unzip xlsa17.zip"
)
WORD_VECTORS = "https://github.com/shiming-chen/TransZero"


@dataclass(frozen=True)
class Found:
    """Paths of the needed files of a benchmark that exist."""

    name: str
    paths: Mapping[str, Path]

    def __contains__(self, need: str) -> bool:
        return need in self.paths

    def __getitem__(self, need: str) -> Path:
        return self.paths[need]


@dataclass
class Material:
    """Pieces of a release, filled step by step; ``None`` for a piece that is missing or wrong.

    Args:
        split: the Proposed Split.
        images: image names and labels of its rows.
        parts: ``(M,)`` part of every row.
        folder: folder of the images.
        files: M images, relative to the folder.
        attributes: attribute names.
        values: ``(N, K)`` class attributes.
        vectors: ``(K, D)`` word vectors.
        positions: part positions, as in parts.csv.
        boxes: ``file``, ``x``, ``y``, ``width``, ``height``.
        objects: ``(M, 4)`` boxes (left, top, right, bottom) to cut out, if an image holds several objects.
        validation: bool ``(N,)``.
        validation_source: origin of the validation classes.
    """

    split: Split | None = None
    images: ImageList | None = None
    parts: np.ndarray | None = None
    folder: Path | None = None
    files: tuple[str, ...] | None = None
    attributes: Attributes | None = None
    values: np.ndarray | None = None
    vectors: np.ndarray | None = None
    positions: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None
    objects: np.ndarray | None = None
    validation: np.ndarray | None = None
    validation_source: str = "none; drawn with a seed"

    def classes(self) -> tuple[str, ...]:
        """Class name of every row."""
        assert self.split is not None
        assert self.images is not None
        return tuple(self.split.names[c] for c in self.images.labels)

    def name_images(self) -> None:
        """Name images as the release does, if they are not present; by row if several share a name."""
        assert self.images is not None
        names = ["/".join(path.split("/")[-2:]) for path in self.images.files]
        if len(set(names)) < len(names):
            stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names]
            names = [f"{c}/{s}-{i + 1:05d}.jpg" for i, (c, s) in enumerate(zip(self.classes(), stems, strict=True))]
        self.files, self.folder, self.objects, self.positions, self.boxes = tuple(names), None, None, None, None

    def table(self) -> ClassTable:
        """The class table; raises :class:`DataError` if it is inconsistent."""
        assert self.split is not None
        assert self.attributes is not None
        assert self.values is not None
        assert self.parts is not None
        assert self.images is not None
        unseen = np.unique(self.images.labels[self.parts == "test_unseen"])
        seen = ~np.isin(np.arange(len(self.split.names)), unseen)
        return ClassTable(self.split.names, self.attributes, self.values, seen, self.validation)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark dataset of the field.

    Args:
        name: name on the command line.
        key: folder of its Proposed Split.
        title: full name.
        cite: authors.
        facts: counts.
        needs: needed files.
        semantics: available kinds of class attributes, the default first.
        gather: reads what is specific to the benchmark (images, names, parts) into the material, and reports findings.
        images: whether its images are available.
    """

    name: str
    key: str
    title: str
    cite: str
    facts: Facts
    needs: tuple[Need, ...]
    gather: Callable[[Found, Material, Findings, str], None]
    semantics: tuple[str, ...] = ("attributes",)
    images: bool = True


@dataclass
class Examination:
    """What was read, and the results of the checks."""

    material: Material = field(default_factory=Material)
    findings: Findings = field(default_factory=Findings)


def split_needs(
    key: str,
    download: Download = XLSA17,
    editions: tuple[tuple[int, str], ...] = (),
    folder: str = "xlsa17",
    images_required: bool = True,
) -> tuple[Need, ...]:
    """``att_splits.mat``, ``res101.mat`` and the class lists of a benchmark's Proposed Split."""

    def places(file: str) -> tuple[str, ...]:
        return f"{folder}/data/{key}/{file}", f"data/{key}/{file}", f"{key}/{file}", file

    return (
        Need("split", "Proposed Split and class attributes", places("att_splits.mat"), download, editions=editions),
        Need("list", "names and labels of the split's rows", places("res101.mat"), download, images_required),
        Need("val classes", "validation classes of the first split", places("valclasses1.txt"), download, False),
    )


def vector_need(key: str, editions: tuple[tuple[int, str], ...]) -> Need:
    """Word vectors of the attribute names, as used in the field."""
    file = f"{key}_attribute.pkl"
    download = Download(file, f"{WORD_VECTORS} (folder w2v)", WORD_VECTORS)
    return Need(
        "vectors", "word vectors of the attributes", (file, f"w2v/{file}", f"{key}/{file}"), download, False, editions
    )


def examine(benchmark: Benchmark, found: Found, semantics: str) -> Examination:
    """Read and check everything that exists; skips checks of missing files."""
    result = Examination()
    material, findings, facts = result.material, result.findings, benchmark.facts
    if "split" in found:
        with findings.check():
            material.split = read_split(found["split"])
            _check_counts(benchmark, material.split)
            material.parts = material.split.parts()
            _check_sizes(facts, material.split)
            findings.held.append(
                f"{counted(len(material.parts), 'row')} of the split, each in one part: {facts.trainval:,} trainval, "
                f"{facts.test_seen:,} test seen, {facts.test_unseen:,} test unseen"
            )
            material.values = material.split.values
            material.attributes = numbered(material.values.shape[1])
    if "list" in found:
        with findings.check():
            images = ImageList.read(found["list"])
            if not benchmark.images:
                _check_named(images)
            material.images = images
    if material.split is not None and material.parts is not None and material.images is not None:
        with findings.check():
            _check_rows(benchmark, material)
            findings.held.append(
                f"{facts.seen} seen and {counted(facts.unseen, 'unseen class')}; no unseen class has a training image"
            )
    benchmark.gather(found, material, findings, semantics)
    if (
        material.images is not None
        and material.split is not None
        and material.parts is not None
        and not findings.problems
    ):
        with findings.check():
            _validation(found, material, findings)
    if "vectors" in found and semantics == "sentences":
        findings.notes.append("word vectors exist for attributes only; they are omitted for sentence embeddings")
    elif "vectors" in found and material.attributes is not None:
        with findings.check():
            material.vectors = _word_vectors(found["vectors"], material.attributes, findings)
    return result


def _check_named(images: ImageList) -> None:
    """Without images, only their names show that labels and features are in the order of the split."""
    hint = "use res101.mat of the release"
    if not images.files:
        raise DataError("no `image_files`, so nothing shows what its labels mean", where=images.path, hint=hint)
    if not images.channels:
        raise DataError("no `features`, which replace the images", where=images.path, hint=hint)


def _mixed_up(benchmark: Benchmark, like: str | None) -> str:
    place = f"use xlsa17/data/{benchmark.key}/ of the release"
    return place if like in (None, benchmark.key) else f"it looks like {like}; {place}"


def _check_counts(benchmark: Benchmark, split: Split) -> None:
    """Check that classes, attributes and images of the split are those of the benchmark."""
    facts = benchmark.facts
    classes, attributes = split.values.shape
    if (classes, attributes) != (facts.classes, facts.attributes):
        problem = f"{counted(attributes, 'attribute')} of {counted(classes, 'class')}"
        problem += f"; {benchmark.key} has {facts.attributes} of {facts.classes}"
        hint = _mixed_up(benchmark, looks_like(images=split.count) or looks_like(classes=classes))
        raise DataError(problem, where=split.path, hint=hint)
    if split.count != facts.images:
        problem = f"a split of {counted(split.count, 'image')}; {benchmark.key} has {facts.images:,}"
        raise DataError(problem, where=split.path, hint=_mixed_up(benchmark, looks_like(images=split.count)))


def _check_sizes(facts: Facts, split: Split) -> None:
    for part in SPLITS:
        wanted, there = getattr(facts, part), len(split.rows[part])
        if there != wanted:
            hint = "this is not the Proposed Split; use att_splits.mat of the release"
            raise DataError(f"{counted(there, 'image')} in {part}_loc, not {wanted:,}", where=split.path, hint=hint)


def _check_rows(benchmark: Benchmark, material: Material) -> None:
    """Check that split and image list describe the same images, and that no unseen class is trained on."""
    split, images, parts = material.split, material.images, material.parts
    assert split is not None
    assert images is not None
    assert parts is not None
    facts = benchmark.facts
    if len(images) != len(parts):
        like = looks_like(images=len(images))
        problem = f"{counted(len(images), 'image')}, but {split.path.name} splits {len(parts):,}"
        raise DataError(problem, where=images.path, hint=_mixed_up(benchmark, like))
    if images.labels.max() >= len(split.names):
        problem = f"label {images.labels.max() + 1} for {counted(len(split.names), 'class')}"
        raise DataError(problem, where=images.path, hint=_mixed_up(benchmark, None))
    trained, unseen = (np.unique(images.labels[np.isin(parts, p)]) for p in (("trainval", "test_seen"), "test_unseen"))
    both = np.intersect1d(trained, unseen)
    if len(both):
        row = int(np.flatnonzero((images.labels == both[0]) & (parts == "trainval"))[0]) if "trainval" in parts else 0
        problem = f'class "{split.names[both[0]]}" has images both in training (row {row + 1}) and in test_unseen'
        hint = f"labels and split do not match; {_mixed_up(benchmark, None)}"
        raise DataError(problem, where=split.path, hint=hint)
    if (len(trained), len(unseen)) != (facts.seen, facts.unseen):
        problem = f"{len(trained)} seen and {counted(len(unseen), 'unseen class')}, not {facts.seen} and {facts.unseen}"
        raise DataError(problem, where=split.path, hint=_mixed_up(benchmark, None))


def find_images(
    need: str, found: Found, material: Material, findings: Findings, hint: str, shared: bool = False
) -> None:
    """Fill in folder and files: the split's rows, by name, in the folder of a needed file."""
    if need not in found:
        return
    images = Images.below(found[need])
    material.folder = found[need]
    if material.images is None:
        findings.notes.append(
            f"{counted(len(images.files), 'image')} in {found[need]}; not compared, because res101.mat is missing"
        )
        findings.notes.extend(images.left_out)
        return
    with findings.check():
        if not material.images.files:
            where = material.images.path
            raise DataError("it has no image_files", where=where, hint="use res101.mat of the release")
        material.files = images.find(material.images.files, hint, shared)
        held = f"{counted(len(set(material.files)), 'image')} found by name"
        findings.held.append(held)
        note_extra(images, material.files, findings)


def check_labels(
    material: Material,
    findings: Findings,
    hint: str,
    class_of: Callable[[PurePosixPath], str] = lambda p: p.parent.name,
) -> None:
    """Check that labels match the class in the images' paths: of the images found, else of the release's list.

    Args:
        material: what has been read so far.
        findings: collects the result.
        hint: fix if they differ.
        class_of: class that a path below the folder of images names.
    """
    images = material.images
    if material.split is None or images is None or not images.files:
        return
    if images.labels.max() >= len(material.split.names):  # already reported
        return
    if material.files is not None:
        files, held = material.files, "every image lies in the folder of its class"
    else:
        files = tuple(re.sub(r"^.*/(JPEG)?images/", "", path, flags=re.IGNORECASE) for path in images.files)
        held = f"every path in {images.path.name} names the class of its label"
    with findings.check(held):
        check_classes(files, material.classes(), class_of, images.path, hint)


def note_extra(images: Images, used: tuple[str, ...], findings: Findings) -> None:
    """Note which files of the folder are not images, and how many images are in no part of the split."""
    findings.notes.extend(images.left_out)
    extra = images.extra(used)
    if extra:
        note = f"{counted(len(extra), 'image')} in {images.folder} not in the split, ignored"
        note += f', the first "{extra[0]}"'
        findings.notes.append(note)


def join(values: np.ndarray, names: tuple[str, ...], split: Split, where: Path) -> np.ndarray:
    """Reorder rows of a table of classes to the order of the split's, by name."""
    check_names(names, split.names, where, split.path)
    position = {name: i for i, name in enumerate(names)}
    return values[[position[name] for name in split.names]]


def named(names: tuple[str, ...], material: Material, where: Path) -> None:
    """Set attribute names; there must be as many as the split has columns."""
    if material.split is None:
        return
    columns = material.split.values.shape[1]
    if len(names) != columns:
        problem = (
            f"{counted(len(names), 'attribute name')} for {counted(columns, 'column')} of {material.split.path.name}"
        )
        raise DataError(problem, where=where, hint="use both of the same dataset")
    try:
        material.attributes = Attributes(names)
    except DataError as error:
        raise DataError(error.problem, where=where, hint=error.hint) from None


def _validation(found: Found, material: Material, findings: Findings) -> None:
    """Validation classes of the release, in this order of preference: row lists, lists of class names."""
    split, images, parts = material.split, material.images, material.parts
    assert split is not None
    assert images is not None
    assert parts is not None
    lists = [("split", split)]
    if "sentences" in found and found["sentences"] != split.path:
        lists.append(("sentences", read_split(found["sentences"])))
    for _, offer in lists:
        if any(name in offer.rows and offer.rows[name].max() >= len(parts) for name in ("train", "val")):
            raise DataError(
                "train_loc or val_loc goes beyond the images", where=offer.path, hint="use the file of the release"
            )
        classes, notes = offer.validation_classes(images.labels)
        if classes is not None:
            material.validation, material.validation_source = classes, f"val_loc of {offer.path.name}"
            findings.notes += notes
            break
    else:
        if "val classes" not in found:
            findings.notes.append("the release has no validation classes; the training draws them with a seed")
            return
        names = read_lines(found["val classes"])
        unknown = [n for n in names if n not in split.names]
        if unknown:
            hint = "use the class lists of the same dataset"
            raise DataError(f'no class "{unknown[0]}" in {split.path.name}', where=found["val classes"], hint=hint)
        material.validation = np.isin(split.names, names)
        material.validation_source = found["val classes"].name
    assert material.validation is not None
    unseen = np.unique(images.labels[parts == "test_unseen"])
    wrong = [split.names[c] for c in unseen if material.validation[c]]
    if wrong:
        problem = f'the validation class "{wrong[0]}" is unseen'
        raise DataError(problem, where=split.path, hint="use the class lists of the same split")
    held = f"{counted(int(material.validation.sum()), 'validation class')}, all seen, from {material.validation_source}"
    findings.held.append(held)


def _word_vectors(path: Path, attributes: Attributes, findings: Findings) -> np.ndarray:
    vectors = read_array(path)
    if len(vectors) != len(attributes):
        problem = f"{len(vectors)} word vectors for {counted(len(attributes), 'attribute')}"
        raise DataError(problem, where=path, hint="use vectors of this dataset's attributes")
    if not np.isfinite(vectors).all():
        row = int(np.argwhere(~np.isfinite(vectors))[0][0])
        raise DataError(f"word vector {row + 1} is not finite", where=path, hint="create the vectors again")
    findings.notes += [
        f'the word vector of "{attributes.names[k]}" (row {k + 1}) is all zero'
        for k in np.flatnonzero(~vectors.any(axis=1))
    ]
    findings.held.append(
        f"word vectors of {counted(vectors.shape[0], 'attribute')}, {counted(vectors.shape[1], 'dimension')}"
    )
    return vectors
