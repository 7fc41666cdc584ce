"""Oxford Flowers 102: 8,189 photographs of 102 flowers, and 1,024 numbers of text embedding per class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from unseen.errors import DataError
from unseen.formats.matlab import HINT, read_mat, whole_numbers
from unseen.formats.res101 import ImageList
from unseen.ground.words import counted
from unseen.releases.benchmark import Benchmark, Found, Material, note_extra, split_needs
from unseen.releases.facts import FACTS
from unseen.releases.findings import Findings
from unseen.releases.images import Images
from unseen.releases.needs import Download, Need

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
SOURCE = "torchvision, datasets/flowers102.py"
IMAGES = Download(
    "102flowers.tgz",
    f"{PAGE}102flowers.tgz",
    PAGE,
    unpack="tar -xzf 102flowers.tgz",
    about="about 329 MiB",
    checksum="md5:52808999861908f626f3c1f4e79d11fa",
    source=f"{SOURCE} (md5); TensorFlow Datasets' catalogue (size)",
)
LABELS = Download(
    "imagelabels.mat", f"{PAGE}imagelabels.mat", PAGE, checksum="md5:e0620be6f572b9609742df49c70aed4d", source=SOURCE
)
SETS = Download("setid.mat", f"{PAGE}setid.mat", PAGE, checksum="md5:a5357ecc9cb78c4bef273ce3793fc85c", source=SOURCE)
TEXTS = Download(
    "cvpr18xian.zip",
    "http://datasets.d2.mpi-inf.mpg.de/xian/cvpr18xian.zip",
    "https://www.mpi-inf.mpg.de/departments/computer-vision-and-multimodal-computing/research/zero-shot-learning/"
    "feature-generating-networks-for-zero-shot-learning/",
    unpack="unzip cvpr18xian.zip",
)
ORDER = ("trnid", "valid", "tstid")


def _gather(found: Found, material: Material, findings: Findings, semantics: str) -> None:
    if "labels" not in found or "sets" not in found or material.split is None or material.parts is None:
        return
    with findings.check():
        numbers = _rows(found["sets"])
        labels = whole_numbers(_variable(found["labels"], "labels"), "labels", found["labels"])
        if sorted(numbers) != list(range(1, len(labels) + 1)):
            problem = f"{len(numbers)} image numbers for {counted(len(labels), 'label')}, or one twice"
            raise DataError(problem, where=found["sets"], hint=HINT)
        if len(numbers) != len(material.parts):
            problem = f"{counted(len(numbers), 'image')}, but the split has {len(material.parts):,}"
            raise DataError(problem, where=found["sets"], hint="use att_splits.mat of FLO")
        own = labels[numbers - 1] - 1
        named = tuple(f"image_{n:05d}.jpg" for n in numbers)
        _check_list(material, named, own)
        if material.images is None:
            material.images = ImageList(found["sets"], named, own, 0)
        _check_unseen(found, material, own)
        findings.held.append("rows follow trnid, valid, tstid of setid.mat; their labels fit the split")
    if "images" not in found or material.images is None or findings.problems:
        return
    with findings.check():
        images = Images.below(found["images"])
        material.folder = found["images"]
        material.files = images.find(material.images.files or named, f"unpack {IMAGES.file} again")
        findings.held.append(f"{counted(len(material.files), 'image')} found by name")
        note_extra(images, material.files, findings)


def _rows(path: Path) -> np.ndarray:
    """Image numbers in the row order of the split."""
    return np.concatenate([whole_numbers(_variable(path, name), name, path) for name in ORDER])


def _variable(path: Path, name: str) -> object:
    content = read_mat(path, (name,))
    if name not in content:
        raise DataError(f"no `{name}`", where=path, hint=HINT)
    return content[name]


def _check_list(material: Material, names: tuple[str, ...], labels: np.ndarray) -> None:
    """Compare a release's image list, if there is one, with the official one."""
    images = material.images
    if images is None:
        return
    listed = [path.rsplit("/", 1)[-1] for path in images.files]
    official = dict(zip(names, labels, strict=True))
    known = [official.get(name, -1) for name in listed] if listed else list(labels)
    wrong = np.flatnonzero(np.array(known) != images.labels)
    if len(wrong):
        i = int(wrong[0])
        number = re.sub(r"\D", "", listed[i]) if listed else str(i + 1)
        problem = f"{len(wrong):,} labels differ from imagelabels.mat, the first of image {number}"
        raise DataError(problem, where=images.path, hint="use res101.mat of the FLO release")


def _check_unseen(found: Found, material: Material, labels: np.ndarray) -> None:
    assert material.split is not None
    assert material.parts is not None
    unseen = np.unique(labels[material.parts == "test_unseen"])
    both = np.intersect1d(unseen, labels[material.parts != "test_unseen"])
    if len(both):
        problem = f"class {both[0] + 1} has images both in training and in test_unseen"
        hint = "rows follow trnid, valid, tstid, not the image number; download both files from their pages"
        raise DataError(problem, where=found["sets"], hint=hint)


FLO = Benchmark(
    "flo",
    "FLO",
    "Oxford Flowers 102",
    "Nilsback and Zisserman, ICVGIP 2008",
    FACTS["FLO"],
    (
        Need("images", "8,189 images", ("jpg/", "102flowers/jpg/"), IMAGES),
        Need("labels", "class of each photograph", ("imagelabels.mat", "102flowers/imagelabels.mat"), LABELS),
        Need("sets", "order of the split's rows", ("setid.mat", "102flowers/setid.mat"), SETS),
        *split_needs(
            "FLO",
            TEXTS,
            ((829406, "f7c2841a236b54c7100f378667ff9a5d1ef7c934a0d3720018c6fffd02ef9a49"),),
            folder="cvpr18xian",
            images_required=False,
        ),
    ),
    _gather,
    ("sentences",),
)
