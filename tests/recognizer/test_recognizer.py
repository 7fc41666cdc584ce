"""A model in use: classes come and go without touching the others, and heat maps lie where they should."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

import unseen
from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.naming import label
from unseen.classes.prior import Prior
from unseen.classes.table import ClassTable
from unseen.errors import DataError, RunError, UnseenError
from unseen.explain.figures import account, explanation_figure, overlay
from unseen.methods import create_method
from unseen.model.predictions import UNSEEN_BONUS, Extent, columns
from unseen.recognizer import Recognizer

ATTRIBUTES = Attributes(("has_bill_shape::hooked", "crown::red", "size::small"))


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    rng = np.random.default_rng(0)
    table = ClassTable(("a", "b", "c", "d"), ATTRIBUTES, rng.random((4, 3)) + 0.1, np.array([1, 1, 0, 0], bool))
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return Recognizer(backbone, method, table, gamma=0.3, temperature=0.7, device="cpu")


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def same_classes(recognizer):
    before = recognizer.table
    yield
    recognizer.table = before


def scores(recognizer, image):
    return {c.name: c.score for c in recognizer.predict([image], top=99)[0].candidates}


def test_confidence_is_the_softmax_of_shifted_scores(recognizer, image):
    found = recognizer.predict([image], top=4)[0].candidates
    shifted = np.array([(c.score - 0.3 * c.seen) / 0.7 for c in found])
    expected = np.exp(shifted) / np.exp(shifted).sum()
    np.testing.assert_allclose([c.confidence for c in found], expected, rtol=1e-12)
    assert list(expected) == sorted(expected, reverse=True)


def test_among_leaves_the_scores_alone(recognizer, image):
    every = scores(recognizer, image)
    among = recognizer.predict([image], among="unseen")[0].candidates
    assert {c.name for c in among} == {"c", "d"}
    assert all(c.score == every[c.name] for c in among)
    assert sum(c.confidence for c in among) == pytest.approx(1)


def test_adding_a_class_changes_no_other_score(recognizer, image):
    before = scores(recognizer, image)
    recognizer.add_class("e", {"crown::red": 1.0, "size::small": 0.5})
    after = scores(recognizer, image)
    assert set(after) == {*before, "e"}
    assert {name: after[name] for name in before} == before  # to the bit
    recognizer.remove_class("e")
    assert scores(recognizer, image) == before
    recognizer.rename_class("a", "z")
    assert scores(recognizer, image)["z"] == before["a"]
    found = recognizer.predict([image], only=["a", "b"], prior=Prior.of({"a": 3, "b": 0}))[0]  # by its former name
    assert [(c.name, c.confidence) for c in found.candidates] == [("z", 1), ("b", 0)]
    assert recognizer.look(image).explanation(target="a").target.name == "z"


def test_copy_of_a_class_scores_the_same(recognizer, image):
    recognizer.add_class("twin", recognizer.table.values[2])
    found = scores(recognizer, image)
    assert found["twin"] == found["c"]


def test_batches_do_not_matter(recognizer, image):
    images = [image, image.rotate(90), image.rotate(180)]
    one = [p.best.name for p in recognizer.predict(images, batch_size=1)]
    assert one == [p.best.name for p in recognizer.predict(images, batch_size=3)]


def test_iter_predict_is_lazy(recognizer, image, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"")
    stream = recognizer.iter_predict([image, tmp_path / "broken.jpg"], batch_size=1)
    assert next(stream).best
    with pytest.raises(UnseenError, match=r"broken\.jpg"):
        next(stream)


def test_reading_ahead_changes_nothing(recognizer, image, tmp_path):
    files = []
    for i in range(7):
        files.append(tmp_path / f"{i}.png")
        image.rotate(50 * i).save(files[-1])
    (tmp_path / "3.png").write_bytes(b"no image")
    told = []
    plain = list(recognizer.predict(files, batch_size=2, workers=0, broken=told.append))
    assert [p.image for p in plain] == [str(f) for f in files if f.stem != "3"]
    for workers in (1, 3):
        assert list(recognizer.iter_predict(files, batch_size=2, workers=workers, broken=told.append)) == plain
    assert [str(e) for e in told] == [str(told[0])] * 3
    every = list(recognizer.outcomes(files, batch_size=2))
    assert [isinstance(o, DataError) for o in every] == [i == 3 for i in range(7)]
    read = []
    stream = recognizer.iter_predict((read.append(f) or f for f in files[:3] * 10), batch_size=2)
    assert next(stream) == plain[0]
    assert len(read) <= 6
    stream.close()  # the threads end with it


def test_predictions_are_a_list_and_a_table(recognizer, image, tmp_path):
    files = []
    for i in range(8):
        files.append(tmp_path / f"{i}.png")
        image.rotate(40 * i).save(files[-1])
    found = recognizer.predict(files, top=3)
    assert isinstance(found, Sequence)
    streamed = list(recognizer.iter_predict(files, top=3))
    assert (len(found), list(found)) == (8, streamed)
    assert (found[0], found[-1], found[np.int64(2)]) == (streamed[0], streamed[-1], streamed[2])
    assert found[1:3] == unseen.Predictions(streamed[1:3])
    assert found[:3] + found[3:] == found
    assert found.classes == [p.name for p in streamed]
    assert found.confidences == [p.best.confidence for p in streamed]
    frame = found.to_frame()
    assert list(frame.columns) == [c for c in columns(Extent(3)) if c != "error"]
    assert frame["image"].tolist() == [str(f) for f in files]
    assert frame["class"].tolist() == found.classes
    assert frame["confidence_3"].tolist() == [p.candidates[2].confidence for p in streamed]
    assert frame["seen"].dtype == bool
    lines = repr(found).splitlines()
    assert lines[0] == "<8 predictions>"
    assert lines[1].startswith(f"  {files[0]}: {streamed[0].name}")
    assert lines[-1] == "  ... 2 more"
    assert "<table" in found._repr_html_()
    empty = recognizer.predict([])
    assert (len(empty), empty.classes, len(empty.to_frame()), repr(empty)) == (0, [], 0, "<0 predictions>")
    with pytest.raises(IndexError):
        found[8]
    with pytest.raises(DataError, match=r"gone\.png"):
        recognizer.predict([*files, tmp_path / "gone.png"])
    told = []
    assert recognizer.predict([*files, tmp_path / "gone.png"], top=3, broken=told.append) == found
    assert len(told) == 1


def test_only_and_exclude(recognizer, image):
    every = scores(recognizer, image)

    def names(**options):
        (found,) = recognizer.predict([image], **options)
        assert sum(c.confidence for c in found.candidates) == pytest.approx(1)
        assert all(c.score == every[c.name] for c in found.candidates)
        return {c.name for c in found.candidates}

    assert names(only=["a", "d"]) == {"a", "d"}
    assert names(only="a") == {"a"}
    assert names(exclude=("a", "b")) == {"c", "d"}
    assert names(only=["a", "b", "c"], exclude=["b"], among="seen") == {"a"}
    with pytest.raises(UnseenError, match='no class "e"'):
        recognizer.iter_predict([image], only=["a", "e"])  # at once, not with the first image
    with pytest.raises(UnseenError, match="no candidate class remains"):
        recognizer.predict([image], only=["a"], among="unseen")


def test_unknown_below_the_threshold(recognizer, image):
    (found,) = recognizer.predict([image])
    sure = found.best.confidence
    assert found.known  # there is no threshold
    for unknown, known in ((sure - 1e-9, True), (sure, True), (sure + 1e-9, False), ("off", True), ("auto", False)):
        recognizer.threshold = sure + 1e-6
        (again,) = recognizer.predict([image], unknown=unknown)
        assert (again.known, again.candidates) == (known, found.candidates)
    # over fewer classes the same image is surer
    (again,) = recognizer.predict([image], only=[found.candidates[0].name, found.candidates[-1].name])
    assert again.known
    assert again.as_dict()["known"]
    recognizer.threshold = None
    for wrong in ("much", 1.5, -0.1, float("nan")):
        with pytest.raises(UnseenError, match="is not a threshold"):
            recognizer.predict([image], unknown=wrong)


def test_one_image_and_unknown_attributes(recognizer, image, tmp_path):
    image.save(tmp_path / "one.png")
    assert recognizer.predict(tmp_path / "one.png")[0].best == recognizer.predict([image])[0].best
    why = recognizer.explain(image)
    with pytest.raises(UnseenError, match='no attribute "crown"'):
        why.heat("crown")
    with pytest.raises(UnseenError, match="cannot be compared with itself"):
        recognizer.explain(image, target="a", rival="a")


def test_explanation_of_a_chosen_pair(recognizer, image):
    why = recognizer.explain(image, target="d", rival="a")
    assert (why.target.name, why.rival.name) == ("d", "a")
    unit = recognizer.table.values / np.linalg.norm(recognizer.table.values, axis=1, keepdims=True)
    for reason in why.reasons:
        k = ATTRIBUTES.index(reason.attribute)
        assert reason.evidence == pytest.approx(reason.score * unit[3, k], rel=1e-5)
        assert reason.against == pytest.approx(reason.score * (unit[3, k] - unit[0, k]), rel=1e-5, abs=1e-6)
        assert (reason.value, reason.rival_value) == pytest.approx((unit[3, k], unit[0, k]), rel=1e-5)
    margin, bonus = why.terms
    assert (margin.name, bonus.name) == ("seen/unseen offset", UNSEEN_BONUS)
    assert (margin.evidence, margin.against) == pytest.approx((1.0, 2.0), abs=1e-5)  # +1 against -1
    assert (bonus.evidence, bonus.against) == pytest.approx((0.0, 0.3))  # gamma off the seen one
    assert set(why.attention) == {"a2v", "v2a"}
    np.testing.assert_allclose(why.attention["a2v"].sum(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(why.attention["v2a"].sum(axis=0), 1, rtol=1e-5)


def test_heat_leaves_out_a_sub_net_without_weight(recognizer, image):
    from dataclasses import replace

    method = recognizer.method
    before = method.settings
    method.settings = replace(before, fusion=(1.0, 0.0))
    try:
        why = recognizer.explain(image)
    finally:
        method.settings = before
    assert set(why.attention) == {"a2v", "v2a"}
    assert why.counted == ("a2v",)
    np.testing.assert_allclose(why.heat("crown::red") * why.attention["a2v"][1].max(), why.attention["a2v"][1])


@pytest.mark.parametrize("pair", [("d", "a"), ("c", "d"), ("a", "b")])
@pytest.mark.parametrize("count", [1, 3])
def test_the_account_adds_up(recognizer, image, pair, count):
    why = recognizer.explain(image, target=pair[0], rival=pair[1])
    shown, rest = account(why, count)
    assert len(shown) == count
    assert ("other" in rest[0][0]) == (count < 3)  # nothing remains of three attributes
    lead = (why.target.score - 0.3 * why.target.seen) - (why.rival.score - 0.3 * why.rival.seen)
    assert sum(r.evidence for r in shown) + sum(e for _, e, _ in rest) == pytest.approx(why.target.score, abs=1e-5)
    assert sum(r.against for r in shown) + sum(a for _, _, a in rest) == pytest.approx(lead, abs=1e-5)


def test_unknown_class_and_choice(recognizer, image):
    with pytest.raises(UnseenError, match='no class "x"'):
        recognizer.explain(image, target="x")
    with pytest.raises(UnseenError, match="is not a candidate class"):
        recognizer.explain(image, target="a", among="unseen")
    with pytest.raises(UnseenError, match="one of all, seen, unseen"):
        list(recognizer.predict([image], among="new"))


def test_save_and_load_without_pickle(recognizer, image, tmp_path):
    folder = recognizer.save(tmp_path / "model")
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".csv", ".safetensors", ".md"}
    loaded = Recognizer.load(folder, device="cpu")
    assert loaded.threshold is None
    assert scores(loaded, image) == scores(recognizer, image)
    assert (loaded.gamma, loaded.temperature) == (0.3, 0.7)
    (folder / "weights.safetensors").write_bytes(b"\x80\x04bad")
    with pytest.raises(RunError, match=r"weights\.safetensors: damaged"):
        Recognizer.load(folder, device="cpu")


def test_loading_something_else_is_one_line(tmp_path):
    with pytest.raises(RunError, match="unseen train"):
        unseen.Recognizer.load(tmp_path)


def test_overlay_lies_inside_the_crop(image):
    heat = np.zeros((4, 4))
    heat[0, 3] = 1.0
    drawn = np.asarray(overlay(Image.new("RGB", (100, 80), (128, 128, 128)), heat, (10, 0, 90, 80))).astype(int)
    assert (drawn[:, :10] == drawn[0, 0]).all()  # outside the crop: evenly dimmed
    assert (drawn[:, 90:] == drawn[0, 0]).all()
    inside = drawn[:, 10:90].sum(axis=2)
    row, column = np.unravel_index(np.abs(inside - inside[70, 5]).argmax(), inside.shape)
    assert row < 20
    assert column >= 60


def test_figure_and_label(recognizer, image, tmp_path):
    explanation_figure(recognizer.explain(image), tmp_path / "why.png", top=3)
    assert Image.open(tmp_path / "why.png").width > 500
    assert label("has_bill_shape::curved_(up_or_down)") == "bill shape: curved (up or down)"
