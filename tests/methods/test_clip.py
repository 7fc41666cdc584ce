"""CLIP zero-shot against transformers' whole models, sentences written by hand, and loops from the formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import tiny_clip
import unseen
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.towers import TextTower
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.data.folder import load_folder
from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method
from unseen.methods.class_space import Words
from unseen.methods.clip import CLIP, CLIPSettings
from unseen.recognizer import Recognizer

NAMES = ("Night Heron", "004.Red_crowned_Owl", "grey+thing")
ATTRIBUTES = Attributes(("crown_color::red", "crown_color::grey", "has_bill::long", "small"))
# the average class is (0.3, 0.4, 0.5, 0.2)
VALUES = np.array([[0.0, 0.9, 0.5, 0.5], [0.9, 0.1, 0.0, 0.0], [0.0, 0.2, 1.0, 0.1]])
DESCRIBED = [[1, 3], [0], [2]]
PHRASES = ("red crown color", "grey crown color", "long bill", "small")


def space(tower, dtype=torch.float64):
    words = Words(("Night Heron", "Red crowned Owl", "grey thing"), PHRASES, ATTRIBUTES.groups, tower)
    return ClassSpace(torch.from_numpy(VALUES).to(dtype), torch.tensor([True, True, False]), words)


def fitted(tower, regions, candidate, **settings):
    method = create_method(
        "clip", channels=tiny_clip.CHANNELS, vectors=torch.zeros(4, 2).double(), settings=CLIPSettings(**settings)
    )
    classes = space(tower)
    method.fit(method.prepare(regions), torch.zeros(len(regions), dtype=torch.int64), classes)
    method.use(candidate)
    return method, classes


@pytest.fixture(params=tiny_clip.KINDS)
def pair(request, tiny_pairs):
    return request.param, tiny_pairs[request.param]


@pytest.fixture
def tower(pair):
    return TextTower(str(pair[1]))


@pytest.fixture(scope="module")
def regions():
    return torch.randn(6, 5, tiny_clip.CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


def logits(kind, folder, backbone, images, texts):
    """The whole model's answer, its learned scale and bias taken off again."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    how = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **how)
    pixels = torch.stack([backbone.transform(p) for p in images])
    with torch.inference_mode():
        found = model(input_ids=tokens["input_ids"], pixel_values=pixels).logits_per_image
        bias = model.logit_bias if kind == "siglip" else 0
        return ((found - bias) / model.logit_scale.exp()).double().numpy()


def scores(recognizer, images):
    names = recognizer.table.names
    found = [{c.name: c.score for c in p.candidates} for p in recognizer.predict(images, top=len(names))]
    return np.array([[row[name] for name in names] for row in found])


def recogniser(folder, method):
    backbone = Backbone(BackboneSpec(f"hf:{folder}"))
    table = ClassTable(NAMES, ATTRIBUTES, VALUES, np.array([True, True, False]))
    return Recognizer(backbone, method.float(), table, store_dtype="float32", device="cpu")


def test_names_give_the_models_own_logits(pair, tower, regions, images):
    kind, folder = pair
    method, _ = fitted(tower, regions, {}, mode="names")
    recognizer = recogniser(folder, method)
    texts = ["a photo of a Night Heron.", "a photo of a Red crowned Owl.", "a photo of a grey thing."]
    expected = logits(kind, folder, recognizer.backbone, images, texts)
    np.testing.assert_allclose(scores(recognizer, images), expected, atol=2e-6)
    assert expected.std(axis=1).min() > 1e-3
    recognizer.rename_class("grey+thing", "small owl")  # a name is all there is to a class
    recognizer.add_class("Heron", {"small": 1.0})
    texts[2:] = ["a photo of a small owl.", "a photo of a Heron."]
    expected = logits(kind, folder, recognizer.backbone, images, texts)
    np.testing.assert_allclose(scores(recognizer, images), expected, atol=2e-6)
    why = recognizer.explain(images[0])
    assert {r.evidence for r in why.reasons} == {0.0}
    assert [(t.name, t.evidence) for t in why.terms] == [("the class's name", pytest.approx(why.target.score))]
    assert recognizer.predict(images[0])[0].attributes == ()


@pytest.mark.parametrize("per_sentence", [1, 2])
def test_attributes_give_the_logits_of_sentences_written_by_hand(pair, tower, regions, images, per_sentence):
    kind, folder = pair
    settings = {"mode": "attributes", "kind": "bird", "per_sentence": per_sentence}
    method, _ = fitted(tower, regions, {"attributes": 2.0}, **settings)
    recognizer = recogniser(folder, method)
    texts = ["a photo of a bird with grey crown color.", "a photo of a bird with small."]
    if per_sentence == 2:
        texts = ["a photo of a bird with grey crown color and small."]
    first = len(texts)
    texts += ["a photo of a bird with red crown color.", "a photo of a bird with long bill."]
    by_sentence = logits(kind, folder, recognizer.backbone, images, texts)
    # the mean of unit vectors has the mean of their cosines, but for its length
    length = tower(texts[:first]).double().mean(dim=0).norm().item()
    expected = np.column_stack([by_sentence[:, :first].mean(axis=1) / length, by_sentence[:, first:]])
    found = scores(recognizer, images)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    why = recognizer.explain(images[0], target="Night Heron")
    if per_sentence == 1:  # two attributes, an equal share of their sentences' cosines each, and nothing else
        evidence = {r.attribute: r.evidence + r.typical * r.value for r in why.reasons}
        assert evidence["crown_color::grey"] == pytest.approx(by_sentence[0, 0] / 2 / length, abs=1e-6)
        assert evidence["small"] == pytest.approx(by_sentence[0, 1] / 2 / length, abs=1e-6)
        assert sum(t.evidence for t in why.terms) == pytest.approx(
            sum(r.typical * r.value for r in why.reasons), abs=1e-6
        )
    else:
        assert [(t.name, t.evidence) for t in why.terms] == [("the class's text", pytest.approx(found[0, 0], abs=1e-6))]


@pytest.mark.parametrize("standardize", [0.0, 1.0])
def test_scores_are_contrasts_within_the_group(tower, regions, standardize):
    method, classes = fitted(tower, regions, {"standardize": standardize}, mode="scores", kind="bird")
    text = {p: tower([f"a photo of a bird with {p}."])[0].double() for p in PHRASES}
    plain = tower(["a photo of a bird."])[0].double()
    crowns = (text[PHRASES[0]] + text[PHRASES[1]]) / 2
    told_from = [crowns, crowns, plain, plain]
    pooled = [F.normalize(r.mean(dim=0), dim=0) for r in regions]
    psi = np.array([[float(v @ (text[p] - r)) for p, r in zip(PHRASES, told_from, strict=True)] for v in pooled])
    if standardize:
        psi = (psi - psi.mean(axis=0)) / psi.std(axis=0)
    branches = method(method.prepare(regions))
    np.testing.assert_allclose(method.fused_attribute_scores(branches), psi, atol=1e-6)
    centred = VALUES - VALUES.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(method.class_scores(branches, classes), psi @ unit.T, atol=1e-6)


def test_scores_of_a_group_add_up_to_nothing(tower, regions):
    method, _ = fitted(tower, regions, {"standardize": 0.0}, mode="scores")
    psi = method.fused_attribute_scores(method(method.prepare(regions)))
    torch.testing.assert_close(psi[:, 0], -psi[:, 1])


@pytest.mark.parametrize("mode", ["names", "attributes", "scores"])
def test_contributions_of_regions_add_up(tower, regions, mode):
    method, classes = fitted(tower, regions, {"standardize": 1.0, "attributes": 2.0}, mode=mode)
    with_maps, without = method.maps(regions), method(method.prepare(regions))
    contributions = method.fused_contributions(with_maps)
    assert contributions.shape == (6, 4, 5)
    torch.testing.assert_close(contributions.sum(dim=2), method.fused_attribute_scores(without))
    torch.testing.assert_close(method.class_scores(with_maps, classes), method.class_scores(without, classes))


def test_templates_are_averaged(tower, regions):
    method, classes = fitted(tower, regions, {}, templates="a photo of a {}.|small {}|a {} with long bill")
    assert method.sentences(classes)[0] == [
        "a photo of a Night Heron.",
        "small Night Heron",
        "a Night Heron with long bill",
    ]
    vectors = tower(method.sentences(classes)[0]).double()
    expected = F.normalize(vectors.mean(dim=0), dim=0)
    torch.testing.assert_close(method.class_texts(classes)[0], expected)


@pytest.mark.parametrize("templates", ["a photo of a {}.", "a photo of a {}.|small {}"])
def test_sums_over_attributes_are_the_cosine_with_the_text(tower, regions, templates):
    """One attribute a sentence: the decomposed score is the cosine with the averaged text."""
    settings = {"mode": "attributes", "templates": templates, "kind": "bird"}
    method, classes = fitted(tower, regions, {"attributes": 4.0}, **settings)
    branches = method(method.prepare(regions))
    expected = method.prepare(regions)[:, 0] @ method.class_texts(classes).T
    torch.testing.assert_close(method.class_scores(branches, classes), expected, rtol=0, atol=1e-6)


def test_what_describes_a_class(tower, regions):
    method, classes = fitted(tower, regions, {"attributes": 3.0}, mode="attributes", kind="bird", per_sentence=2)
    assert method.described_by(classes) == DESCRIBED
    assert method.sentences(classes)[0] == ["a photo of a bird with grey crown color and small."]
    average = ClassSpace(method.mean[None].clone(), torch.tensor([False]), classes.words)
    assert method.described_by(average) == [[0]]  # something must be said
    full = ClassSpace(torch.full((1, 4), 2.0).double(), torch.tensor([False]), classes.words)
    method.use({"attributes": 4.0})
    assert method.sentences(full) == [
        ["a photo of a bird with small and red crown color.", "a photo of a bird with grey crown color and long bill."]
    ]
    method.use({"attributes": 1.0})
    assert method.described_by(classes) == [[1], [0], [2]]


def test_grids():
    def grid(k, **settings):
        return CLIP(3, torch.zeros(k, 1), CLIPSettings(**settings)).grid()

    assert grid(40) == [{}]
    assert grid(40, mode="attributes") == [{"attributes": n} for n in (4.0, 8.0, 16.0, 32.0)]
    assert grid(10, mode="attributes") == [{"attributes": n} for n in (4.0, 8.0, 10.0)]
    assert grid(40, mode="attributes", attributes=5) == [{"attributes": 5.0}]
    assert grid(40, mode="scores") == [{"standardize": 0.0}, {"standardize": 1.0}]


def test_kind_of_the_known_datasets():
    assert {name: preset.settings.kind for name, preset in CLIP.presets.items()} == {
        "any": "thing",
        "cub": "bird",
        "awa2": "animal",
        "sun": "scene",
        "fieldguide": "bird",
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mode": "title"}, "one of names, attributes, scores"),
        ({"templates": "a photo"}, 'setting templates: "a photo" needs exactly one {}'),
        ({"templates": "a {}|a {} and {}"}, '"a {} and {}" needs exactly one {}'),
        ({"attributes": "-1"}, "setting attributes: -1 is too small — use 0 or more"),
        ({"per_sentence": "0"}, "setting per_sentence: 0 is too small — use 1 or more"),
    ],
)
def test_wrong_settings(changes, text):
    with pytest.raises(UnseenError, match=text):
        CLIPSettings.changed(CLIPSettings(), changes)


def test_a_backbone_without_text_is_refused_at_once(tiny_guide, tiny_backbone, tmp_path):
    with pytest.raises(UnseenError, match=r"test_resnet: clip needs a text tower — use --backbone hf:MODEL") as caught:
        unseen.fit("clip", tiny_guide, tmp_path / "run", backbone=tiny_backbone, device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_by_names_keeps_its_texts(tiny_pairs, tiny_guide, tmp_path, monkeypatch):
    """Only a new name is embedded again, by a trained run and by what it is saved as."""
    backbone = BackboneSpec(f"hf:{tiny_pairs['clip']}")
    cache = tmp_path / "cache"
    run = unseen.fit("clip", tiny_guide, tmp_path / "run", backbone=backbone, cache=cache, device="cpu")
    asked = []
    embed = TextTower._embed
    monkeypatch.setattr(TextTower, "_embed", lambda self, text, device: asked.append(text) or embed(self, text, device))
    images = load_folder(tiny_guide).paths()[:2]
    recognizer = Recognizer.load(run.folder, device="cpu")
    before = scores(recognizer, images)
    unseen.evaluate(run, cache=cache, device="cpu")
    assert asked == []
    recognizer.add_class("Red Heron", recognizer.table.values[0])
    after = scores(recognizer, images)
    assert asked == ["a photo of a Red Heron."]
    loaded = Recognizer.load(recognizer.save(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(scores(loaded, images), after)
    assert len(asked) == 1
    np.testing.assert_allclose(after[:, :-1], before, atol=1e-6)


@pytest.mark.parametrize("mode", ["attributes", "scores"])
@pytest.mark.parametrize("protocols", [("honest", "paper")])
def test_runs_without_names(pair, tiny_guide, tmp_path, mode, protocols, monkeypatch):
    """A trained run needs no text tower again; renaming a class changes nothing, a new one is known by attributes."""
    run = unseen.fit(
        "clip",
        tiny_guide,
        tmp_path / "run",
        backbone=BackboneSpec(f"hf:{pair[1]}"),
        settings={"mode": mode, "kind": "bird"},
        protocols=protocols,
        cache=tmp_path / "cache",
        device="cpu",
    )
    chosen = run.results["protocols"]["honest"]["seeds"]["0"]["chosen"]
    assert {"attributes": "attributes", "scores": "standardize"}[mode] in chosen
    assert set(run.results["protocols"]) == set(protocols)
    assert run.manifest["method"]["settings"]["kind"] == "bird"

    def silent(self, texts, device="cpu"):
        raise AssertionError("the text tower was used")

    monkeypatch.setattr(TextTower, "__call__", silent)
    recognizer = Recognizer.load(run.folder, device="cpu")
    dataset = load_folder(tiny_guide)
    images = dataset.paths()[:2]
    before = scores(recognizer, images)
    recognizer.rename_class(recognizer.table.names[0], "Something Else")
    recognizer.add_class("Twin", recognizer.table.values[3])
    after = scores(recognizer, images)
    np.testing.assert_allclose(after[:, :-1], before, atol=1e-6)
    np.testing.assert_allclose(after[:, -1], before[:, 3], atol=1e-6)
    why = recognizer.explain(images[0])
    assert sum(r.evidence for r in why.reasons) + sum(t.evidence for t in why.terms) == pytest.approx(
        why.target.score, abs=1e-5
    )
    assert sum(t.evidence for t in why.terms) == pytest.approx(sum(r.typical * r.value for r in why.reasons), abs=1e-5)
    assert why.contributions.shape[1:] == (4, 4)
    # an attribute that speaks for a class by its absence has nowhere to be looked for
    for_it = [r for r in why.reasons if r.evidence > 0]
    assert {r.attribute for r in why.looked_for(50)} == {r.attribute for r in for_it if r.score > r.typical}
    if mode == "scores":
        assert any(r.score < r.typical for r in for_it)
