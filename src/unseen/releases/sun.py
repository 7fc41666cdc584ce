"""SUN Attribute Database: 14,340 photographs of 717 scenes, 102 attributes."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from unseen.errors import DataError
from unseen.formats.matlab import HINT, read_mat, texts
from unseen.ground.words import counted
from unseen.releases.benchmark import (
    Benchmark,
    Found,
    Material,
    check_labels,
    find_images,
    named,
    split_needs,
    vector_need,
)
from unseen.releases.facts import FACTS
from unseen.releases.findings import Findings
from unseen.releases.needs import Download, Need
from unseen.releases.tables import check_matrix, check_names

PAGE = "https://cs.brown.edu/~gmpatter/sunattributes.html"
ANNOTATIONS = Download(
    "SUNAttributeDB.tar.gz",
    "https://cs.brown.edu/~gmpatter/Attributes/SUNAttributeDB.tar.gz",
    PAGE,
    unpack="tar -xzf SUNAttributeDB.tar.gz",
)
IMAGES = Download(
    "SUNAttributeDB_Images.tar.gz",
    "https://cs.brown.edu/~gmpatter/Attributes/SUNAttributeDB_Images.tar.gz",
    PAGE,
    unpack="tar -xzf SUNAttributeDB_Images.tar.gz",
)


def class_of(path: PurePosixPath) -> str:
    """The scene of an image: ``a/airport/airport/sun_x.jpg`` shows ``airport_airport``."""
    return "_".join(path.parts[1:-1])


def _gather(found: Found, material: Material, findings: Findings, semantics: str) -> None:
    find_images("images", found, material, findings, f"unpack {IMAGES.file} again")
    hint = "use res101.mat and att_splits.mat of the same folder of the release"
    check_labels(material, findings, hint, class_of)
    if "attributes" in found:
        with findings.check("attribute names of attributes.mat"):
            content = read_mat(found["attributes"], ("attributes",))
            if "attributes" not in content:
                raise DataError("no `attributes`", where=found["attributes"], hint=HINT)
            named(texts(content["attributes"], "attributes", found["attributes"]), material, found["attributes"])
    if "scores" in found and "names" in found and material.split is not None:
        with findings.check():
            _check_scores(found, material, findings)


def _check_scores(found: Found, material: Material, findings: Findings) -> None:
    """Compare the split's class attributes with the mean over the images' own attributes, by class name."""
    split, where = material.split, found["scores"]
    assert split is not None
    scores, images = read_mat(where, ("labels_cv",)), read_mat(found["names"], ("images",))
    if "labels_cv" not in scores or "images" not in images:
        lacking = where if "labels_cv" not in scores else found["names"]
        raise DataError("no `labels_cv` or `images`", where=lacking, hint=HINT)
    files = texts(images["images"], "images", found["names"])
    if len(files) != len(scores["labels_cv"]):
        problem = (
            f"{counted(len(scores['labels_cv']), 'row')} for {counted(len(files), 'image')} of {found['names'].name}"
        )
        raise DataError(problem, where=where, hint=HINT)
    names, rows = np.unique([class_of(PurePosixPath(f)) for f in files], return_inverse=True)
    check_names(list(names), split.names, found["names"], split.path)
    means = np.stack([scores["labels_cv"][rows == c].mean(axis=0) for c in range(len(names))])
    findings.held.append(check_matrix(means, list(names), split.values, split.names, where, split.path))


SUN = Benchmark(
    "sun",
    "SUN",
    "SUN Attribute Database",
    "Patterson, Xu, Su and Hays, IJCV 2014",
    FACTS["SUN"],
    (
        Need("images", "14,340 images", ("images/", "SUNAttributeDB_Images/images/", "SUN/images/"), IMAGES),
        Need("attributes", "attribute names", ("SUNAttributeDB/attributes.mat", "attributes.mat"), ANNOTATIONS),
        Need("names", "names of the scored images", ("SUNAttributeDB/images.mat", "images.mat"), ANNOTATIONS, False),
        Need(
            "scores",
            "attributes of each image",
            ("SUNAttributeDB/attributeLabels_continuous.mat", "attributeLabels_continuous.mat"),
            ANNOTATIONS,
            False,
        ),
        *split_needs("SUN", editions=((291128, "90dcb2a60704ce1117ba1897523ba78dc6b625e606008918c4eade9cd8a5bf43"),)),
        vector_need("SUN", ((244961, "cb90a74a9d3a43e2a7282861130760cb655e6d753b6cc4235a4c7136154b1fb3"),)),
    ),
    _gather,
)
