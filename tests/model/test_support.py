"""Images of classes: the rule by hand, no effect on other classes, every road alike, and what is kept."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import unseen
from unseen.cli import app
from unseen.errors import DataError, RunError, UnseenError
from unseen.evaluation.shots import Episode
from unseen.methods.preparation import FeaturePreparation
from unseen.model.predictions import IMAGES
from unseen.model.support import ClassImages, OwnImages, Support, SupportImage, SupportRule, SupportSpace, space_beside
from unseen.recognizer import Recognizer

RULE = SupportRule(prior=2.0, scale=3.0, offset=-1.0, few=0.5, bare_prior=0.5, bare_score=4.0)


def images(*names: str, added: str = "2026-01-01T00:00:00+00:00") -> list[SupportImage]:
    return [SupportImage(f"/data/{name}.png", f"{name}{'0' * (64 - len(name))}", added) for name in names]


def plain_space(channels: int) -> SupportSpace:
    """Features as they are."""
    return SupportSpace(FeaturePreparation(), RULE)


def test_the_rule_by_hand():
    keep, factor, constant = RULE.terms(np.array([0, 2, 6, 1]), np.array([True, True, True, False]))
    np.testing.assert_allclose(keep, [1, 2 / 4, 2 / 8, 0])
    np.testing.assert_allclose(factor, [0, 3 / 2, 3 * 3 / 4, 3 * 2 / 3])
    # -w + 0.5 / (n + 2); without attributes -w + (1 - w) 4
    np.testing.assert_allclose(constant, [0, -1 / 2 + 1 / 8, -3 / 4 + 1 / 16, -2 / 3 + 4 / 3])
    with pytest.raises(ValueError, match="no rule"):
        SupportRule(0.0, 1, 0, 0, 1, 0)


def test_mixed_scores_by_hand_and_others_to_the_bit():
    features = np.array([[1, 0], [0, 1]], np.float32)
    support, _ = Support().added("b", images("x", "y"), features)
    own = OwnImages(("a", "b", "c"), support, plain_space(2), block=8)
    scores = np.array([[0.1, 0.7, 0.3]])
    asked = torch.tensor([[0.6, 0.8]])
    cosine = 1.4 / np.sqrt(2)  # with the mean of the two, to unit length
    mixed = own.mixed(scores, asked)
    assert (mixed[0, [0, 2]] == scores[0, [0, 2]]).all()
    assert mixed[0, 1] == pytest.approx(0.5 * 0.7 + 1.5 * cosine - 0.5 + 0.125)
    assert own.positions.tolist() == [1]
    assert own.keep.tolist() == [1, 0.5, 1]


def test_a_score_does_not_depend_on_who_else_has_images():
    rng = np.random.default_rng(0)
    names = tuple(f"c{i}" for i in range(20))
    features = rng.normal(size=(20, 2, 16)).astype(np.float32)
    one, _ = Support().added("c7", images("a", "b"), features[7])
    every = Support()
    for i, name in enumerate(names):
        every, _ = every.added(name, images(f"{i:02d}x", f"{i:02d}y"), features[i])
    asked = torch.from_numpy(rng.normal(size=(1, 16)).astype(np.float32))
    scores = rng.normal(size=(1, 20))
    alone = OwnImages(names, one, plain_space(16), block=8).mixed(scores, asked)
    among = OwnImages(names, every, plain_space(16), block=8).mixed(scores, asked)
    assert alone[0, 7] == among[0, 7]


def test_images_are_known_by_content_removed_and_undone():
    features = np.eye(3, dtype=np.float32)
    support, again = Support().added("a", images("x", "y"), features[:2])
    assert not again
    support, again = support.added("a", images("y", "z", added="2026-02-02"), features[1:])
    assert [i.file for i in again] == ["/data/y.png"]
    np.testing.assert_array_equal(support["a"].features, features)
    assert [i.file for i in support.undone("a")["a"].images] == ["/data/x.png", "/data/y.png"]
    for file in ("/data/y.png", "elsewhere/y.png", "y00000"):
        assert [i.file for i in support.removed("a", [file])["a"].images] == ["/data/x.png", "/data/z.png"]
    with pytest.raises(DataError, match=r'"w.png" is not an image of "a"'):
        support.removed("a", ["w.png"])
    assert not support.removed("a")
    assert support.renamed("a", "b")["b"] is support["a"]
    with pytest.raises(DataError, match="has no images"):
        support.undone("b")
    bare, _ = Support().added("a", images("x"), features[:1], attributes=False)
    with pytest.raises(DataError, match="no attributes, and would have no image left"):
        bare.removed("a")
    assert not bare.described("a").removed("a")


def test_support_is_read_back_and_damage_is_one_line(tmp_path):
    support, _ = Support().added("a b", images("x", "y"), np.eye(2, dtype=np.float32), attributes=False)
    path = tmp_path / "class-images.safetensors"
    support.save(path)
    back = Support.load(path)["a b"]
    assert (back.images, back.attributes) == (support["a b"].images, False)
    np.testing.assert_array_equal(back.features, support["a b"].features)
    support.save(path, names_only=True)
    assert [i.file for i in Support.load(path)["a b"].images] == ["x.png", "y.png"]
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged"):
        Support.load(path)


def test_an_episode_keeps_half_of_a_class_to_ask():
    labels = np.array([0] * 5 + [1] * 4 + [2])
    episode = Episode.draw(labels, np.arange(3), 20, np.random.default_rng(0))
    assert {c: len(rows) for c, rows in episode.support.items()} == {0: 2, 1: 2}
    assert len(episode.queries) == 6
    assert not set(episode.queries) & {int(i) for rows in episode.support.values() for i in rows}
    vectors = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    classes, count, cosines = episode.similarities(vectors, 1)
    assert (classes.tolist(), count.tolist()) == ([0, 1], [1, 1])
    mean = vectors[episode.support[1][0]]
    np.testing.assert_allclose(cosines[:, 1], vectors[episode.queries] @ mean / np.linalg.norm(mean), rtol=1e-5)


# a trained model


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_guide, tiny_backbone):
    folder = tmp_path_factory.mktemp("support")
    options = {"backbone": tiny_backbone, "cache": folder / "c", "device": "cpu", "draws": 1}
    return unseen.fit("eszsl", tiny_guide, folder / "run", **options)


@pytest.fixture
def recognizer(run):
    return Recognizer.load(run.folder, device="cpu")


@pytest.fixture(scope="module")
def files(run):
    """Images of two unseen classes."""
    from unseen.data.catalogue import load_dataset

    dataset = load_dataset(run.config.dataset)
    unseen_classes = np.flatnonzero(~dataset.table.seen)[:2]
    return {
        dataset.table.names[c]: [dataset.images / dataset.files[i] for i in np.flatnonzero(dataset.labels == c)]
        for c in unseen_classes
    }


def scores(recognizer, image):
    return {c.name: c.score for c in recognizer.predict([image], top=99)[0].candidates}


def test_training_chooses_a_rule_on_validation_classes(run):
    calibration = run.results["protocols"]["honest"]["seeds"]["0"]["calibration"]["images"]
    space = SupportSpace.load(space_beside(run.folder / "seed-0" / "honest.safetensors"))
    assert vars(space.rule) == calibration["rule"]
    assert space.rule.scale > 0
    assert list(calibration["shots"]) == ["0", "1", "2", "5", "10", "20"]
    assert calibration["shots"]["2"]["T1"] >= calibration["shots"]["0"]["T1"]  # on what it was chosen on


def test_images_move_their_class_alone_and_undo_brings_back_to_the_bit(recognizer, files):
    name, other = files
    image = files[name][0]
    before, again = scores(recognizer, image), recognizer.predict(files[other][:2])
    recognizer.add_images(name, files[name][:2])
    after = scores(recognizer, image)
    assert {n: s for n, s in after.items() if n != name} == {n: s for n, s in before.items() if n != name}
    assert after[name] != before[name]
    recognizer.add_images(name, files[name][2:4])
    recognizer.undo_images(name)
    assert scores(recognizer, image) == after
    recognizer.remove_images(name)
    assert scores(recognizer, image) == before
    assert recognizer.predict(files[other][:2]) == again


def test_every_road_is_the_same_with_images(recognizer, files):
    name = next(iter(files))
    recognizer.add_images(name, files[name][:2])
    recognizer.add_images(recognizer.classes[0], files[name][2:3])  # a seen class
    image = files[name][3]
    expected = recognizer.predict([image], batch_size=1, top=3)[0]
    look = recognizer.look(image)
    assert look.prediction(top=3) == expected
    back = recognizer.reading(look.attribute_scores.tolist(), look.query.tolist(), look.pooled.tolist())
    assert back.prediction(top=3).candidates == expected.candidates
    np.testing.assert_array_equal(recognizer.scores([image])[0], look.class_scores())
    why = recognizer.explain(image, target=name, rival=recognizer.classes[0])
    assert why.terms[0].name == IMAGES
    adds = sum(x.evidence for x in (*why.reasons, *why.terms))
    assert adds == pytest.approx(why.target.score, abs=1e-5)
    shares = recognizer.attribute_shares
    lead = why.target.score - why.rival.score + recognizer.gamma * shares[0]
    assert sum(x.against for x in (*why.reasons, *why.terms)) == pytest.approx(lead, abs=1e-5)
    shifted = np.array([c.score for c in look.rank()]) - recognizer.gamma * np.array(
        [shares[recognizer.table.index(c.name)] * c.seen for c in look.rank()]
    )
    np.testing.assert_allclose(
        [c.confidence for c in look.rank()],
        np.exp((shifted - shifted.max()) / recognizer.temperature)
        / np.exp((shifted - shifted.max()) / recognizer.temperature).sum(),
    )
    with pytest.raises(UnseenError, match="no pooled features"):
        recognizer.reading(look.attribute_scores, look.query).prediction()
    with pytest.raises(UnseenError, match="3 pooled features"):
        recognizer.reading(look.attribute_scores, look.query, [1, 2, 3])


def test_a_class_with_images_alone(recognizer, files, tmp_path):
    name = next(iter(files))
    recognizer.add_class("bare", images=files[name][:2])
    image = files[name][0]
    rule, (f,) = recognizer.space.rule, [recognizer.look(image).pooled]
    vectors = recognizer.space.vectors(torch.from_numpy(recognizer.support["bare"].features)).double().mean(dim=0)
    cosine = float(recognizer.space.vectors(torch.from_numpy(f[None])).double()[0] @ vectors / vectors.norm())
    w = 2 / (2 + rule.bare_prior)
    assert scores(recognizer, image)["bare"] == pytest.approx(
        w * (rule.scale * cosine + rule.offset) + (1 - w) * rule.bare_score, rel=1e-6
    )
    assert not any(r.evidence for r in recognizer.explain(image, target="bare").reasons)
    with pytest.raises(UnseenError, match="neither attributes nor images"):
        recognizer.add_class("nothing")
    saved = recognizer.save(tmp_path / "saved")
    assert scores(Recognizer.load(saved, device="cpu"), image) == scores(recognizer, image)
    assert "bare" in (saved / "README.md").read_text()
    recognizer.edit_class("bare", {recognizer.table.attributes.names[0]: 1.0})
    recognizer.remove_images("bare")
    assert "bare" in scores(recognizer, image)


def test_a_run_without_a_rule_says_so(run, files, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    space_beside(tmp_path / "run" / "seed-0" / "honest.safetensors").unlink()
    recognizer = Recognizer.load(tmp_path / "run", device="cpu")
    name = next(iter(files))
    with pytest.raises(UnseenError, match="no rule for support images — train it again"):
        recognizer.add_images(name, files[name][:1])
    assert recognizer.look(files[name][0]).pooled is None
    recognizer.method.end_to_end = True
    with pytest.raises(UnseenError, match=r"its backbone is trained.* — train a model with a frozen backbone"):
        recognizer.space  # noqa: B018


def test_the_command_line_adds_lists_removes_and_undoes(run, files, tmp_path, monkeypatch, capsys):
    shutil.copytree(run.folder, tmp_path / "run")
    place, (name, other) = str(tmp_path / "run"), files

    def call(*arguments):
        app(["classes", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    call("images", place, name, *files[name][:3])
    found = json.loads(call("images", place, name, "--json"))["classes"][name]
    assert [i["file"] for i in found["images"]] == [str(f.absolute()) for f in files[name][:3]]
    assert "3 added" in call("images", place, other, *files[other][:3])
    call("images", place, other, "--remove", files[other][1].name)
    assert "2 removed" in call("images", place, other, "--undo")
    call("add", place, "bare", "--images", files[other][0], files[other][1])
    call("rename", place, name, "renamed")
    rows = {r["class"]: r for r in json.loads(call("list", place, "--json"))["classes"]}
    assert (rows["renamed"]["images"], rows["bare"]["images"], rows[other]["images"]) == (3, 2, 0)
    recognizer = Recognizer.load(tmp_path / "run", device="cpu")
    assert len(recognizer.class_images("renamed")) == 3
    call("remove", place, "renamed")
    assert "renamed" not in Recognizer.load(tmp_path / "run", device="cpu").support.classes
    call("reset", place)
    assert not Recognizer.load(tmp_path / "run", device="cpu").support


def test_class_images_hold_what_they_say():
    one = ClassImages(tuple(images("x", "y")), np.eye(2, dtype=np.float32))
    assert [i.file for i in one.without([0]).images] == ["/data/y.png"]


def test_an_export_scores_as_the_model_does(recognizer, files, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs unseen[export]")
    pytest.importorskip("onnxscript", reason="needs unseen[export]")
    from unseen.export import export_onnx

    name, other = files
    recognizer.add_images(name, files[name][:2])
    recognizer.add_class("bare", images=files[other][:1])
    exported = export_onnx(recognizer, tmp_path / "m.onnx")
    facts = json.loads(exported.facts.read_text())
    with np.load(tmp_path / facts["class_images"], allow_pickle=False) as arrays:
        own = {key: arrays[key] for key in facts["inputs"][3:] if key in arrays}
        assert arrays["classes"].tolist() == list(recognizer.classes)
    crop = recognizer.backbone.transform.cropped(files[name][2])
    if "trained" in facts["inputs"]:
        own["trained"] = pd.read_csv(exported.classes)["trained_as"].to_numpy()
    table = recognizer.table
    given = {
        "images": crop.permute(1, 2, 0)[None].numpy(),
        "class_vectors": table.values.astype(np.float32),
        "seen": table.seen.copy(),
        **own,
    }
    (found,) = onnxruntime.InferenceSession(str(exported.model)).run(["scores"], given)
    expected = recognizer.scores([files[name][2]])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
