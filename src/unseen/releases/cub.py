"""Caltech-UCSD Birds-200-2011: 11,788 photographs of 200 species, 312 attributes, 15 parts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unseen.errors import DataError
from unseen.formats.matlab import HINT
from unseen.formats.xlsa17 import numbered, read_split
from unseen.ground.words import counted
from unseen.releases.benchmark import (
    Benchmark,
    Found,
    Material,
    check_labels,
    find_images,
    join,
    named,
    split_needs,
    vector_need,
)
from unseen.releases.facts import FACTS
from unseen.releases.findings import Findings
from unseen.releases.needs import Download, Need
from unseen.releases.tables import check_matrix, check_names, read_lines, read_numbered, read_numbers

OFFICIAL = Download(
    "CUB_200_2011.tgz",
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    unpack="tar -xzf CUB_200_2011.tgz",
    size=1150585339,
    checksum="sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
    source="TensorFlow Datasets, url_checksums/caltech_birds2011.txt",
)
SENTENCES = Download(
    "sent_splits.mat",
    "https://github.com/Hanzy1996/CE-GZSL (data/CUB)",
    "https://github.com/Hanzy1996/CE-GZSL",
)


def _official(name: str, what: str, *paths: str, required: bool = True) -> Need:
    places = [f"CUB_200_2011/{p}" for p in paths] + list(paths)
    return Need(name, what, tuple(dict.fromkeys(places)), OFFICIAL, required)


def _gather(found: Found, material: Material, findings: Findings, semantics: str) -> None:
    find_images("images", found, material, findings, f"unpack {OFFICIAL.file} again")
    check_labels(material, findings, _label_hint(material))
    if "classes" in found and material.split is not None:
        with findings.check("class names are those of classes.txt, joined by name"):
            names = read_numbered(found["classes"])
            check_names(names, material.split.names, found["classes"], material.split.path)
            if "matrix" in found:
                matrix = read_numbers(found["matrix"])
                findings.held.append(
                    check_matrix(
                        matrix, names, material.split.values, material.split.names, found["matrix"], material.split.path
                    )
                )
    if "attributes" in found:
        with findings.check("attribute names of attributes.txt"):
            named(read_numbered(found["attributes"]), material, found["attributes"])
    if material.files is not None:
        with findings.check():
            _parts(found, material, findings)
    if semantics == "sentences" and material.split is not None:
        with findings.check("sentence embeddings joined by class name"):
            if "sentences" not in found:
                raise DataError("no sent_splits.mat", where=found.name, hint=f"download it from {SENTENCES.page}")
            other = read_split(found["sentences"])
            material.values = join(other.values, other.names, material.split, other.path)
            material.attributes = numbered(material.values.shape[1])


def _label_hint(material: Material) -> str:
    """Distinguishes labels in the official numbering 1..200 from mixed-up ones."""
    images = material.images
    if images is not None and images.files:
        numbers = [f"/{file}".split("/")[-2].split(".")[0] for file in images.files]
        if all(n.isdigit() and int(n) == c + 1 for n, c in zip(numbers, images.labels, strict=True)):
            return "the labels follow the official numbering, not allclasses_names; use res101.mat of the release"
    return "use res101.mat and att_splits.mat of the same folder of the release"


def _parts(found: Found, material: Material, findings: Findings) -> None:
    """Part positions and boxes, from image numbers to file names."""
    if "image_list" not in found:
        return
    number = dict(_pair(line, found["image_list"]) for line in read_lines(found["image_list"]))
    known = {file: file for file in material.files or ()}
    lost = next((file for file in number.values() if file not in known), None)
    if lost is not None and len(number) == len(known):
        raise DataError(f'"{lost}" is not an image of the split', where=found["image_list"], hint=HINT)
    if "parts" in found and "part names" in found:
        names = dict(_pair(line, found["part names"]) for line in read_lines(found["part names"]))
        rows = [line.split() for line in read_lines(found["parts"])]
        frame = pd.DataFrame(rows, columns=["image", "part", "x", "y", "visible"])
        for column, table in (("image", number), ("part", names)):
            unknown = ~frame[column].isin(table)
            if unknown.any():
                problem = f'line {int(unknown.argmax()) + 1} names {column} "{frame[column][unknown.argmax()]}"'
                raise DataError(problem, where=found["parts"], hint="unpack the official archive again")
            frame[column] = frame[column].map(table)
        seen = frame[(frame["visible"] == "1") & frame["image"].isin(known)]
        material.positions = seen.rename(columns={"image": "file"}).reset_index(drop=True)
        findings.held.append(f"{counted(len(seen), 'visible part position')} of {counted(len(names), 'part')}")
    if "boxes" in found:
        boxes = pd.DataFrame(
            [line.split() for line in read_lines(found["boxes"])], columns=["image", "x", "y", "width", "height"]
        )
        boxes["file"] = boxes["image"].map(number)
        kept = boxes[boxes["file"].isin(known)]
        material.boxes = kept[["file", "x", "y", "width", "height"]].reset_index(drop=True)
        findings.held.append(f"{len(kept):,} bounding boxes")


def _pair(line: str, path: Path) -> tuple[str, str]:
    number, _, rest = line.partition(" ")
    if not rest:
        raise DataError(f'"{line}" is not "number name"', where=path, hint="unpack the official archive again")
    return number, rest.strip()


CUB = Benchmark(
    "cub",
    "CUB",
    "Caltech-UCSD Birds-200-2011",
    "Wah, Branson, Welinder, Perona and Belongie, technical report CNS-TR-2011-001, 2011",
    FACTS["CUB"],
    (
        _official("images", "11,788 images, one folder per class", "images/"),
        _official("classes", "official class names", "classes.txt"),
        _official("image_list", "image numbers", "images.txt"),
        _official("matrix", "class attributes in percent", "attributes/class_attribute_labels_continuous.txt"),
        Need(
            "attributes",
            "attribute names",
            ("attributes.txt", "CUB_200_2011/attributes.txt", "CUB_200_2011/attributes/attributes.txt"),
            OFFICIAL,
        ),
        _official("parts", "part positions", "parts/part_locs.txt", required=False),
        _official("part names", "names of the parts", "parts/parts.txt", required=False),
        _official("boxes", "bounding boxes", "bounding_boxes.txt", required=False),
        *split_needs("CUB", editions=((480695, "4562b1f6306e21dca05071b9b070ce2b15ec659826c8cb87e5ea796b3770df21"),)),
        Need(
            "sentences",
            "sentence embeddings of the classes; validation lists",
            ("xlsa17/data/CUB/sent_splits.mat", "CUB/sent_splits.mat", "sent_splits.mat"),
            SENTENCES,
            False,
            ((1696088, "53f542c27e45f3ace55f4465ba2743a1c3400a329c61be7aa116e7ccb77c4087"),),
        ),
        vector_need("CUB", ((748962, "35261deef657d26c0886d6f49842aefe237708fc7f5b4e4d76c790e47446fa88"),)),
    ),
    _gather,
    ("attributes", "sentences"),
)
