"""Animals with Attributes 2, and 1, whose photographs are not public: the same 50 animals and 85 attributes."""

from __future__ import annotations

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
from unseen.releases.tables import check_matrix, check_names, read_numbered, read_numbers

PAGE = "https://cvml.ista.ac.at/AwA2/"
DATA = Download(
    "AwA2-data.zip",
    "https://cvml.ista.ac.at/AwA2/AwA2-data.zip",
    PAGE,
    unpack="unzip AwA2-data.zip",
    about="about 13 GB",
    source="size: public scripts that fetch it",
)
BASE = Download(
    "AwA2-base.zip",
    "https://cvml.ista.ac.at/AwA2/AwA2-base.zip",
    PAGE,
    unpack="unzip AwA2-base.zip",
    about="about 32 KB",
    source="size: public scripts that fetch it",
)


def _gather(found: Found, material: Material, findings: Findings, semantics: str) -> None:
    find_images("images", found, material, findings, f"unpack {DATA.file} again")
    check_labels(material, findings, "use res101.mat and att_splits.mat of the same folder of the release")
    split = material.split
    if "classes" in found and split is not None:
        with findings.check("class names are those of classes.txt, joined by name"):
            names = read_numbered(found["classes"])
            check_names(names, split.names, found["classes"], split.path)
            if "matrix" in found:
                matrix = read_numbers(found["matrix"])
                findings.held.append(
                    check_matrix(matrix, names, split.values, split.names, found["matrix"], split.path)
                )
            if semantics == "binary" and "binary" in found:
                material.values = join(read_numbers(found["binary"]), names, split, found["binary"])
    if "attributes" in found:
        with findings.check("attribute names of predicates.txt"):
            named(read_numbered(found["attributes"]), material, found["attributes"])


def _base(*folders: str) -> tuple[Need, ...]:
    def need(name: str, what: str, file: str) -> Need:
        return Need(name, what, (*(f"{folder}/{file}" for folder in folders), file), BASE)

    return (
        need("classes", "class names", "classes.txt"),
        need("attributes", "attribute names", "predicates.txt"),
        need("matrix", "class attributes, continuous", "predicate-matrix-continuous.txt"),
        need("binary", "class attributes, yes or no", "predicate-matrix-binary.txt"),
    )


_VECTORS = vector_need("AWA2", ((204161, "675cd9fdc7a8dce6881c2681efe2ab4e27d2ee545ad0fad210e485f5414cb754"),))

AWA2 = Benchmark(
    "awa2",
    "AWA2",
    "Animals with Attributes 2",
    "Xian, Lampert, Schiele and Akata, TPAMI 2019",
    FACTS["AWA2"],
    (
        Need(
            "images",
            "37,322 images, one folder per class",
            ("Animals_with_Attributes2/JPEGImages/", "JPEGImages/"),
            DATA,
        ),
        *_base("Animals_with_Attributes2"),
        *split_needs("AWA2", editions=((156278, "dfe0e4f26ef5debaa77eff823a9316ac110e9b809b70d19c72dd11404f7be357"),)),
        _VECTORS,
    ),
    _gather,
    ("attributes", "binary"),
)

AWA1 = Benchmark(
    "awa1",
    "AWA1",
    "Animals with Attributes",
    "Lampert, Nickisch and Harmeling, TPAMI 2014; its images are not public; features only",
    FACTS["AWA1"],
    (*_base("Animals_with_Attributes2", "Animals_with_Attributes"), *split_needs("AWA1"), _VECTORS),
    _gather,
    ("attributes", "binary"),
    images=False,
)
