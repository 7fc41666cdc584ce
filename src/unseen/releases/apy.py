"""aPascal and aYahoo: 15,339 objects of 32 classes, cut out of photographs, 64 attributes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from unseen.errors import DataError
from unseen.ground.words import counted
from unseen.releases.benchmark import Benchmark, Found, Material, named, note_extra, split_needs
from unseen.releases.facts import FACTS
from unseen.releases.findings import Findings
from unseen.releases.images import Images
from unseen.releases.needs import Download, Need
from unseen.releases.tables import check_matrix, check_names, read_lines

PAGE = "https://vision.cs.uiuc.edu/attributes/"
ANNOTATIONS = Download(
    "attribute_data.tar.gz",
    "http://vision.cs.uiuc.edu/attributes/attribute_data.tar.gz",
    PAGE,
    unpack="tar -xzf attribute_data.tar.gz",
)
YAHOO = Download(
    "ayahoo_test_images.tar.gz",
    "http://vision.cs.uiuc.edu/attributes/ayahoo_test_images.tar.gz",
    PAGE,
    unpack="tar -xzf ayahoo_test_images.tar.gz",
)
PASCAL = Download(
    "VOCtrainval_14-Jul-2008.tar",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2008/VOCtrainval_14-Jul-2008.tar",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2008/",
    unpack="tar -xf VOCtrainval_14-Jul-2008.tar",
    checksum="md5:2629fa636546599198acfcfbfcf1904a",
    source="torchvision, datasets/voc.py",
)
LISTS = ("apascal_train", "apascal_test", "ayahoo_test")


def _gather(found: Found, material: Material, findings: Findings, semantics: str) -> None:
    if "attributes" in found:
        with findings.check("attribute names of attribute_names.txt"):
            named(tuple(read_lines(found["attributes"])), material, found["attributes"])
    if not all(name in found for name in LISTS) or material.images is None or material.split is None:
        return
    with findings.check():
        _objects(found, material, findings)


def _objects(found: Found, material: Material, findings: Findings) -> None:
    """Box of every row of the split: the objects of the official lists, by image and class.

    Several objects of one class in one image are matched in the order of the lists.
    """
    split, images = material.split, material.images
    assert split is not None
    assert images is not None
    files, classes, boxes, values = _read_lists(found)
    check_names(sorted(set(classes)), split.names, found[LISTS[0]], split.path)
    means = np.stack([values[np.array(classes) == name].mean(axis=0) for name in split.names])
    findings.held.append(check_matrix(means, split.names, split.values, split.names, found[LISTS[0]], split.path))
    waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, key in enumerate(zip(files, classes, strict=True)):
        waiting[key].append(row)
    wanted = [(path.rsplit("/", 1)[-1], name) for path, name in zip(images.files, material.classes(), strict=True)]
    several = sum(len(rows) for rows in waiting.values() if len(rows) > 1)
    turn: dict[tuple[str, str], int] = defaultdict(int)
    rows = []
    for i, key in enumerate(wanted):
        if turn[key] >= len(waiting.get(key, ())):
            problem = f'row {i + 1} is a "{key[1]}" in "{key[0]}"; the official lists have {turn[key]}'
            raise DataError(
                problem, where=images.path, hint="use res101.mat and att_splits.mat of the same APY release"
            )
        rows.append(waiting[key][turn[key]])
        turn[key] += 1
    findings.held.append(f"{len(rows):,} objects match the official lists by image and class")
    if several:
        findings.notes.append(f"{several:,} objects share image and class with another; they are paired in order")
    material.objects = boxes[rows]
    if "pascal" not in found or "yahoo" not in found:
        return
    folders = [Images.below(found["pascal"]), Images.below(found["yahoo"])]
    every = Images(found["pascal"], tuple(f"{p.folder}/{f}" for p in folders for f in p.files))
    material.files = every.find(
        [files[row] for row in rows], f"unpack {PASCAL.file} and {YAHOO.file} again", shared=True
    )
    material.folder = found["pascal"]
    findings.held.append(f"{counted(len(set(material.files)), 'image')} found by name")
    yahoo = tuple(file for file in material.files if file.startswith(f"{found['yahoo']}/"))
    note_extra(Images(found["yahoo"], tuple(f"{found['yahoo']}/{f}" for f in folders[1].files)), yahoo, findings)
    findings.notes.extend(line for place in folders for line in place.left_out)


def _read_lists(found: Found) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Images, classes, boxes ``(n, 4)`` and attributes ``(n, K)`` of the three official lists, concatenated."""
    files, classes, numbers = [], [], []
    for name in LISTS:
        for i, line in enumerate(read_lines(found[name])):
            cells = line.split()
            try:
                numbers.append([float(cell) for cell in cells[2:]])
                if len(numbers[-1]) != len(numbers[0]) or len(cells) < 7:
                    raise ValueError(f"{counted(len(cells), 'cell')}")
            except ValueError as error:
                hint = "a line is: image, class, 4 corners, attributes; unpack the official archive again"
                raise DataError(f"line {i + 1}: {error}", where=found[name], hint=hint) from None
            files.append(cells[0])
            classes.append(cells[1])
    table = np.array(numbers)
    return files, classes, table[:, :4], table[:, 4:]


APY = Benchmark(
    "apy",
    "APY",
    "aPascal and aYahoo",
    "Farhadi, Endres, Hoiem and Forsyth, CVPR 2009",
    FACTS["APY"],
    (
        Need(
            "pascal", "photographs of PASCAL VOC 2008", ("VOCdevkit/VOC2008/JPEGImages/", "VOC2008/JPEGImages/"), PASCAL
        ),
        Need("yahoo", "photographs of aYahoo", ("ayahoo_test_images/", "ayahoo/"), YAHOO),
        *(
            Need(name, "objects, boxes and attributes", (f"attribute_data/{name}.txt", f"{name}.txt"), ANNOTATIONS)
            for name in LISTS
        ),
        Need(
            "attributes", "attribute names", ("attribute_data/attribute_names.txt", "attribute_names.txt"), ANNOTATIONS
        ),
        *split_needs("APY", editions=((35932, "1fb6c3c031342e1a2bd964e1633ba01b546bac9bc027d7a69d1d01562de27611"),)),
    ),
    _gather,
)
