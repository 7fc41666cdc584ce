"""A model in which seen classes' own training images share: classes that change, explanations, saving, the page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.changes import changing, keep_table
from unseen.classes.table import ClassTable
from unseen.explain.figures import account
from unseen.methods import ClassSpace, create_method
from unseen.model.predictions import OWN
from unseen.recognizer import Recognizer

ATTRIBUTES = Attributes(("crown::red", "crown::blue", "size"))
TABLE = ClassTable(
    ("a", "b", "c", "d", "e"),
    ATTRIBUTES,
    np.array([[100.0, 0, 40], [0, 100, 20], [100, 0, 90], [50, 50, 0], [70, 10, 30]]),
    np.array([1, 0, 1, 0, 1], bool),
)
PICKS = {
    "prototypes": {"ridge": 0.1, "share": 0.25, "gamma": 10.0, "lambda": 0.3, "kernel": "linear", "own": 0.5},
    "eszsl": {"gamma": 1.0, "lambda": 0.3, "own": 0.5},
}


def images(count, seed):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (70, 80, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module", params=PICKS)
def trained(request, tiny_backbone):
    backbone = Backbone(tiny_backbone)
    method = create_method(request.param, channels=backbone.channels[0], vectors=torch.zeros(3, 2))
    if request.param == "eszsl":
        method = create_method(
            "eszsl", channels=backbone.channels[0], vectors=torch.zeros(3, 2),
            features="auto", rows="auto", relative=True, own=True,
        )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    regions = torch.rand(60, 16, backbone.channels[0], generator=generator)
    labels = torch.tensor([0, 2, 4])[torch.arange(60) % 3]
    classes = ClassSpace(torch.tensor(TABLE.values).float(), torch.from_numpy(TABLE.seen.copy()))
    method.fit(method.prepare(regions), labels, classes)
    method.use({"features": "centred", "rows": "unit", **PICKS[request.param]})
    return Recognizer(backbone, method, TABLE, gamma=0.1, temperature=0.5, device="cpu")


@pytest.fixture
def recognizer(trained):
    trained.table = TABLE
    return trained


def scores(recognizer, image):
    return {c.name: c.score for c in recognizer.predict([image], top=99)[0].candidates}


def test_classes_come_and_go_and_scores_stay_to_the_bit(recognizer, tmp_path):
    image = images(1, 3)[0]
    before = scores(recognizer, image)
    recognizer.remove_class("a")  # every later class has another place
    assert scores(recognizer, image) == {n: s for n, s in before.items() if n != "a"}
    recognizer.rename_class("e", "g")
    recognizer.add_class("twin of c", TABLE.values[2])
    found = scores(recognizer, image)
    assert found["g"] == before["e"]
    assert found["twin of c"] != before["c"]  # it has no images
    recognizer.add_class("a", TABLE.values[0], trained=recognizer.table.back_from(TABLE, "a"))
    assert recognizer.table.back_from(TABLE, "e") == -1  # its images are those of "g" now
    assert scores(recognizer, image)["a"] == before["a"]
    folder = recognizer.save(tmp_path / "model")
    again = Recognizer.load(folder, device="cpu")
    assert scores(again, image) == scores(recognizer, image)
    with changing(folder) as table:
        keep_table(folder, table.without("c"))
    left = scores(Recognizer.load(folder, device="cpu"), image)
    assert left == {n: s for n, s in scores(recognizer, image).items() if n != "c"}


def test_the_account_has_a_bar_of_its_own(recognizer):
    image = images(1, 5)[0]
    found = recognizer.explain(image, target="c", rival="d")
    own = next(term for term in found.terms if term.name == OWN)
    assert own.evidence == own.against != 0  # the rival has no images
    assert sum(x.evidence for x in (*found.reasons, *found.terms)) == pytest.approx(found.target.score, abs=1e-5)
    lead = found.target.score - found.rival.score - recognizer.gamma
    assert sum(x.against for x in (*found.reasons, *found.terms)) == pytest.approx(lead, abs=1e-5)
    assert (OWN, own.evidence, own.against) in account(found, 2)[1]
    among = recognizer.explain(image, target="b", rival="d")
    assert not any(name == OWN for name, *_ in account(among, 2)[1])
    look = recognizer.look(image)
    again = recognizer.reading(look.attribute_scores.tolist(), look.query.tolist()).compare(target="c", rival="d")
    assert own in again.terms
