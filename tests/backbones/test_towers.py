"""Image and text towers against transformers' whole models: random weights, real files, no network."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny_clip
import unseen
from unseen.backbones import towers
from unseen.backbones.backbone import Backbone, list_stages
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.towers import TextTower
from unseen.classes.naming import attribute_phrase, class_phrase
from unseen.data.folder import load_folder
from unseen.errors import UnseenError
from unseen.vectors.sources import attribute_vectors

TEXTS = ["a photo of a bird.", "a photo of a night heron with red crown and long bill."]


@pytest.fixture(params=tiny_clip.KINDS)
def pair(request, tiny_pairs):
    return request.param, tiny_pairs[request.param]


@pytest.fixture
def copy(pair, tmp_path):
    """A model folder that may be spoiled."""
    return shutil.copytree(pair[1], tmp_path / "model")


def whole_model(folder):
    import transformers

    return transformers.AutoModel.from_pretrained(folder).eval()


def tokens(kind, folder, texts):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    length = {"clip": 77, "siglip": 64}[kind]
    how = "max_length" if kind == "siglip" else True
    return tokenizer(texts, padding=how, truncation=True, max_length=length, return_tensors="pt")["input_ids"]


def noise(size, seed=0):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [32, 48])
@torch.inference_mode()
def test_the_mean_of_the_regions_is_the_images_embedding(pair, size):
    kind, folder = pair
    backbone = Backbone(BackboneSpec(f"hf:{folder}", image_size=size))
    side = size // tiny_clip.PATCH
    assert (backbone.grids, backbone.channels) == ([(side, side)], [tiny_clip.CHANNELS])
    (regions,) = backbone(noise(size))
    model = whole_model(folder)
    found = model.vision_model(noise(size), interpolate_pos_encoding=size != tiny_clip.SIZE)
    expected = found.pooler_output if kind == "siglip" else model.visual_projection(found.pooler_output)
    torch.testing.assert_close(regions.mean(dim=1), expected, rtol=1e-4, atol=1e-5)
    # between themselves regions differ as what the tower makes of each token alone
    last = found.last_hidden_state
    if kind == "clip":
        alone = model.visual_projection(model.vision_model.post_layernorm(last[:, 1:]))
    else:
        alone = torch.stack([model.vision_model.head(last[:, r : r + 1]) for r in range(side * side)], dim=1)
    torch.testing.assert_close(regions - regions[:, :1], alone - alone[:, :1], rtol=1e-4, atol=1e-5)
    assert regions.std(dim=1).mean() > 0.1


def test_spec_knows_size_normalisation_and_stage(pair):
    kind, folder = pair
    spec = BackboneSpec(f"hf:{folder}")
    resolved = spec.resolved()
    assert resolved.image_size == tiny_clip.SIZE
    assert resolved.mean == {"clip": (0.48, 0.46, 0.41), "siglip": (0.5, 0.5, 0.5)}[kind]
    assert BackboneSpec(f"hf:{folder}", mean=(0.1, 0.2, 0.3)).resolved().mean == (0.1, 0.2, 0.3)
    assert BackboneSpec.from_json(spec.to_json()) == spec
    assert list_stages(spec.name) == [("final", tiny_clip.CHANNELS, tiny_clip.PATCH)]


def test_fingerprint_is_of_the_files_not_of_their_place(pair, copy, tmp_path):
    before = BackboneSpec(f"hf:{pair[1]}").fingerprint()
    assert BackboneSpec(f"hf:{copy}").fingerprint() == before
    assert BackboneSpec(f"hf:{copy}", image_size=40).fingerprint() != before
    tiny_clip.make(tmp_path / "other", pair[0], seed=1)
    shutil.copyfile(tmp_path / "other" / "model.safetensors", copy / "model.safetensors")
    assert BackboneSpec(f"hf:{copy}").fingerprint() != before


@torch.inference_mode()
def test_texts_are_the_whole_models(pair):
    kind, folder = pair
    found = TextTower(str(folder))(TEXTS)
    expected = whole_model(folder)(input_ids=tokens(kind, folder, TEXTS), pixel_values=noise(32)).text_embeds
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_a_texts_vector_does_not_depend_on_the_others(pair):
    one, other = TextTower(str(pair[1])), TextTower(str(pair[1]))
    together = one(TEXTS)
    assert torch.equal(torch.cat([other(TEXTS[1:]), other(TEXTS[:1])]), together[[1, 0]])
    with torch.inference_mode():
        again = one([TEXTS[1], TEXTS[0], TEXTS[1]])
    assert torch.equal(again, together[[1, 0, 1]])


def test_texts_are_kept(pair, copy, tmp_path, monkeypatch):
    path = tmp_path / "texts.safetensors"
    tower = TextTower(str(pair[1]))
    vectors = tower(TEXTS)
    tower.save(path)
    empty = tmp_path / "empty.safetensors"
    TextTower(str(pair[1])).save(empty)
    assert not empty.exists()
    again = TextTower(str(copy))  # the same files elsewhere
    again.load(path)
    again.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    again.load(tmp_path / "bad.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(TextTower, "_embed", None)
        assert torch.equal(again(TEXTS), vectors)
    tiny_clip.make(tmp_path / "other", pair[0], seed=1)
    other = TextTower(str(tmp_path / "other"))
    other.load(path)
    assert not torch.allclose(other(TEXTS), vectors, atol=1e-3)


@torch.inference_mode()
def test_long_texts_are_cut_with_one_warning(pair, caplog):
    kind, folder = pair
    long = "a photo of a bird with " + ", ".join(["red crown"] * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = TextTower(str(folder))([*TEXTS, long])
    (message,) = [r.getMessage() for r in caplog.records if r.name == "unseen.backbones.towers"]
    limit = {"clip": 77, "siglip": 64}[kind]
    assert message.startswith(
        f'1 of 3 texts are longer than {limit} tokens and were truncated, the first: "a photo of a bird'
    )
    assert "\n" not in message
    expected = whole_model(folder)(input_ids=tokens(kind, folder, [long]), pixel_values=noise(32)).text_embeds
    torch.testing.assert_close(found[2:], expected)
    caplog.clear()
    TextTower(str(folder))(TEXTS)
    assert not caplog.records


class TestMistakes:
    def refused(self, text, name, act=lambda name: Backbone(BackboneSpec(f"hf:{name}"))):
        with pytest.raises(UnseenError, match=text) as caught:
            act(str(name))
        assert "\n" not in str(caught.value)

    @pytest.fixture(autouse=True)
    def fresh(self):
        towers._from_hub.cache_clear()
        yield
        towers._from_hub.cache_clear()

    def test_without_the_extra(self, pair, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "transformers" else find(n))
        self.refused(r"need transformers — pip install 'unseen\[clip\]'$", pair[1])

    def test_without_a_network(self, tiny_pairs, monkeypatch, tmp_path):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        self.refused("some/model: cannot get it from the hub: .* — pass a folder", "some/model")
        self.refused("some/model@main: cannot get it from the hub", "some/model@main")

    @pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "a/b/c"])
    def test_no_such_folder(self, tiny_pairs, name):
        self.refused("no such folder", name)

    def test_only_a_pickle(self, copy):
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        self.refused(r"no model\.safetensors; unseen does not load pickles — convert it with", copy)

    def test_another_kind_of_model(self, copy):
        (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
        self.refused('unsupported model type "bert" — use a CLIP or SigLIP model', copy)
        (copy / "config.json").write_text("{")
        self.refused("transformers cannot load this model", copy)
        (copy / "config.json").unlink()
        self.refused(r"no config\.json", copy)

    @pytest.mark.parametrize("key", ["vision_model.post_layernorm.weight", "text_model.final_layer_norm.weight"])
    def test_missing_weights_are_not_made_up(self, copy, key):
        from safetensors.torch import load_file, save_file

        state = load_file(copy / "model.safetensors")
        assert state.pop(key) is not None
        save_file(state, copy / "model.safetensors", {"format": "pt"})
        act = (lambda n: Backbone(BackboneSpec(f"hf:{n}"))) if "vision" in key else (lambda n: TextTower(n)(TEXTS))
        self.refused("weights are missing or have the wrong shape: .*layer_?norm.weight", copy, act)

    def test_damaged_weights(self, copy):
        (copy / "model.safetensors").write_bytes(b"nothing")
        self.refused("cannot be loaded", copy)

    def test_no_normalisation(self, copy):
        (copy / "preprocessor_config.json").unlink()
        self.refused("no preprocessor_config.json with mean and std — pass --mean and --std", copy)
        assert Backbone(BackboneSpec(f"hf:{copy}", mean=(0.5,) * 3, std=(0.5,) * 3)).grids == [(4, 4)]

    def test_no_tokenizer(self, copy):
        for file in [*copy.glob("tokenizer*"), *copy.glob("spiece*")]:
            file.unlink()
        self.refused("no tokenizer — add its tokenizer.json", copy, lambda n: TextTower(n)(TEXTS))
        (copy / "tokenizer.json").write_text("{}")
        self.refused("cannot load the tokenizer", copy, lambda n: TextTower(n)(TEXTS))

    def test_size_and_options(self, pair):
        self.refused("36 is not a multiple of the patch size 8 — --image-size 32 or 40", pair[1], self.sized)
        for changes in ({"weights": "random"}, {"stages": (2,)}, {"options": {"depth": 1}}):
            with pytest.raises(UnseenError, match="takes no weights, stages or options"):
                BackboneSpec(f"hf:{pair[1]}", **changes)
        with pytest.raises(UnseenError, match="no model name"):
            BackboneSpec("hf:")

    @staticmethod
    def sized(name):
        return Backbone(BackboneSpec(f"hf:{name}", image_size=36))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("has_bill_shape::curved_(up_or_down)", "curved (up or down) bill shape"),
        ("crown_color::red", "red crown color"),
        ("furry", "furry"),
    ],
)
def test_attributes_as_words(name, words):
    assert attribute_phrase(name) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("grizzly+bear", "grizzly bear"),
        ("Night Heronette", "Night Heronette"),
        ("7.", "7."),
    ],
)
def test_classes_as_words(name, words):
    assert class_phrase(name) == words


def test_attribute_vectors_from_a_text_tower(pair, tiny_guide):
    dataset = load_folder(tiny_guide)
    vectors, label = attribute_vectors(dataset.table.attributes, dataset.attribute_vectors, f"text:{pair[1]}")
    assert vectors.dtype == np.float64
    assert label.startswith(f"text tower {pair[1]}, {towers.model_digest(str(pair[1]))[:8]}")
    k = 3
    (expected,) = TextTower(str(pair[1]))([attribute_phrase(dataset.table.attributes.names[k])])
    np.testing.assert_array_equal(vectors[k], expected.double().numpy())


def test_msdn_on_towers(tiny_pairs, tiny_guide, tmp_path):
    """Any method takes the regions, and attribute vectors from the same model."""
    folder = tiny_pairs["siglip"]
    run = unseen.fit(
        "msdn",
        tiny_guide,
        tmp_path / "run",
        backbone=BackboneSpec(f"hf:{folder}"),
        vectors=f"text:{folder}",
        recipe={"epochs": "1", "batch_size": "8"},
        cache=tmp_path / "cache",
        device="cpu",
    )
    assert run.manifest["semantics"]["vector_length"] == tiny_clip.CHANNELS
    image = load_folder(tiny_guide).paths()[0]
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    loaded = unseen.Recognizer.load(recognizer.save(tmp_path / "saved"), device="cpu")
    assert loaded.backbone.spec.tower == str(tmp_path / "saved" / "backbone")
    (one,), (other,) = (r.predict(image) for r in (recognizer, loaded))
    assert F.l1_loss(*(torch.tensor([c.score for c in p.candidates]) for p in (one, other))) == 0
