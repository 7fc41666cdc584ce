"""Image and text towers of open_clip against open_clip's whole models: random weights, real files, no network."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys

import huggingface_hub
import numpy as np
import pytest
import torch

import tiny_clip
import unseen
from unseen.backbones import towers
from unseen.backbones.backbone import Backbone, BackboneSpec, list_stages
from unseen.backbones.towers import TextTower
from unseen.errors import UnseenError
from unseen.training.config import RunConfig
from unseen.training.run import fit

open_clip = pytest.importorskip("open_clip", reason="needs unseen[clip]")
TEXTS = ["a photo of a bird.", "a photo of a night heron with red crown and long bill."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("open")
    return {kind: tiny_clip.make_open_clip(place / kind, kind) for kind in tiny_clip.OPEN_CLIP}


@pytest.fixture
def copy(folders, tmp_path):
    """A model folder that may be spoiled."""
    return shutil.copytree(folders["transformer"], tmp_path / "model")


def whole_model(folder, size=None):
    return open_clip.create_model(f"local-dir:{folder}", force_image_size=size).eval()


def noise(size, seed=0):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tokens_of(model, pixels):
    """The tower's own patch tokens, by open_clip's interface."""
    found = model.visual.forward_intermediates(pixels, indices=1, output_fmt="NCHW", intermediates_only=True)
    return found["image_intermediates"][-1]


@pytest.mark.parametrize("kind", tiny_clip.OPEN_CLIP)
@torch.inference_mode()
def test_the_mean_of_the_regions_is_the_images_embedding(folders, kind):
    backbone = Backbone(BackboneSpec(f"hf:{folders[kind]}"))
    size = tiny_clip.OPEN_CLIP[kind]["image_size"]
    assert backbone.spec.image_size == size
    (regions,) = backbone(noise(size))
    model = whole_model(folders[kind])
    grid = tokens_of(model, noise(size)).shape[2:]
    assert backbone.grids == [tuple(grid)]
    torch.testing.assert_close(regions.mean(dim=1), model.encode_image(noise(size)), rtol=1e-4, atol=1e-5)
    assert list_stages(f"hf:{folders[kind]}") == [("final", regions.shape[2], size // grid[0])]
    if regions.shape[1] > 1:
        assert regions.std(dim=1).mean() > 1e-3


@torch.inference_mode()
def test_regions_differ_as_the_towers_tokens_do(folders):
    (regions,) = Backbone(BackboneSpec(f"hf:{folders['transformer']}"))(noise(32))
    visual = whole_model(folders["transformer"]).visual
    tokens = tokens_of(whole_model(folders["transformer"]), noise(32)).flatten(2).transpose(1, 2)
    alone = visual.ln_post(tokens) @ visual.proj
    torch.testing.assert_close(regions - regions[:, :1], alone - alone[:, :1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "size", "side"), [("transformer", 48, 6), ("timm", 96, 6)])
@torch.inference_mode()
def test_another_image_size(folders, kind, size, side):
    backbone = Backbone(BackboneSpec(f"hf:{folders[kind]}", image_size=size))
    assert backbone.grids == [(side, side)]
    expected = whole_model(folders[kind], size).encode_image(noise(size))
    torch.testing.assert_close(backbone(noise(size))[0].mean(dim=1), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_texts_are_the_whole_models(folders):
    folder = folders["transformer"]
    found = TextTower(str(folder))(TEXTS)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    torch.testing.assert_close(found, whole_model(folder).encode_text(tokens, normalize=True))
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_long_texts_are_cut_with_a_warning(folders, caplog):
    TextTower(str(folders["transformer"]))([*TEXTS, ", ".join(["red crown"] * 40)])
    (message,) = [r.getMessage() for r in caplog.records if r.name == "unseen.backbones.towers"]
    assert message.startswith("1 of 3 texts are longer than 77 tokens")


def test_the_root_logger_is_left_alone(folders):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    Backbone(BackboneSpec(f"hf:{folders['transformer']}"))
    assert (root.level, list(root.handlers)) == before


def test_spec_and_fingerprint(folders, copy):
    spec = BackboneSpec(f"hf:{copy}")
    resolved = spec.resolved()
    assert (resolved.image_size, resolved.mean, resolved.std) == (32, (0.5,) * 3, (0.25,) * 3)
    before = spec.fingerprint()
    assert BackboneSpec(f"hf:{folders['transformer']}").fingerprint() == before
    (copy / "README.md").write_text("nothing that the features depend on")
    assert spec.fingerprint() == before
    shutil.rmtree(copy)
    tiny_clip.make_open_clip(copy, "transformer", seed=1)
    assert spec.fingerprint() != before


def test_a_model_trains_is_saved_and_loaded(tiny_guide, copy, tmp_path):
    config = RunConfig(method="clip", dataset=str(tiny_guide), backbone=BackboneSpec(f"hf:{copy}"), draws=1, holdouts=0)
    run = fit(config, tmp_path / "run", device="cpu", cache=tmp_path, with_images=False)
    image = next((tiny_guide / "images").rglob("*.jpg"))
    model = unseen.load(run, device="cpu")
    scores = model.scores(image)
    assert np.isfinite(scores).all()
    saved = model.save(tmp_path / "saved")
    names = {file.name for file in (saved / "backbone").iterdir()}
    assert names == {"open_clip_config.json", "open_clip_model.safetensors"}
    shutil.rmtree(copy)
    np.testing.assert_array_equal(unseen.load(saved, device="cpu").scores(image), scores)


def test_files_of_transformers_are_preferred(tiny_pairs, folders, tmp_path):
    both = shutil.copytree(tiny_pairs["clip"], tmp_path / "both")
    before = BackboneSpec(f"hf:{both}").fingerprint()
    for file in folders["transformer"].iterdir():
        shutil.copy(file, both / file.name)
    assert towers.model_facts(str(both)).kind == "clip"
    assert BackboneSpec(f"hf:{both}").fingerprint() == before
    (both / "model.safetensors").unlink()
    assert towers.model_facts(str(both)).kind == "open_clip"


def test_the_hub_is_asked_for_what_is_needed_only(folders, tiny_pairs, monkeypatch):
    asked = []

    def download(identifier, *, revision, allow_patterns):
        asked.append((identifier, revision, {p for p in allow_patterns if p.endswith(".safetensors")}))
        return str(folders["transformer"] if "bioclip" in identifier else tiny_pairs["clip"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(towers, "look_for_hub", lambda: True)
    towers._from_hub.cache_clear()
    assert towers.model_facts("imageomics/bioclip-2@main").kind == "open_clip"
    assert asked == [("imageomics/bioclip-2", "main", files) for files in (set(), {"open_clip_model.safetensors"})]
    asked.clear()
    assert towers.model_facts("openai/clip").kind == "clip"
    assert asked[-1] == ("openai/clip", None, {"model*.safetensors"})
    towers._from_hub.cache_clear()


class TestNames:
    @pytest.mark.parametrize(
        ("given", "usual"),
        [
            ("hf-hub:imageomics/bioclip-2", "hf:imageomics/bioclip-2"),
            ("hf_hub:timm/ViT-B-16-SigLIP2", "hf:timm/ViT-B-16-SigLIP2"),
            ("hf:timm/vit_base_patch16_dinov3.lvd1689m", "vit_base_patch16_dinov3.lvd1689m"),
            ("timm/vit_base_patch16_siglip_224.v2_webli", "vit_base_patch16_siglip_224.v2_webli"),
            ("resnet18", "resnet18"),
        ],
    )
    def test_names_of_the_hub(self, given, usual):
        assert BackboneSpec(given).name == usual

    def test_open_clips_own_names(self):
        for name in ("open_clip:ViT-B-16", "open_clip:RN50"):
            with pytest.raises(
                UnseenError, match="open_clip's own names are not used — use hf:OWNER/NAME or hf:FOLDER"
            ):
                BackboneSpec(name)

    @pytest.mark.parametrize(
        "name",
        [
            "vit_base_patch16_clip_224.dfn2b",
            "vit_huge_patch14_clip_378.dfn5b",
            "vit_base_patch16_siglip_224.v2_webli",
            "vit_so400m_patch14_siglip_384.webli",
            "vit_base_patch16_dinov3.lvd1689m",
            "vit_base_patch14_reg4_dinov2.lvd142m",
            "vit_base_patch16_clip_224.metaclip_2pt5b",
            "resnet50_clip.openai",
        ],
    )
    def test_towers_that_the_documentation_names_are_timms(self, name):
        assert BackboneSpec(name).name == name


class TestMistakes:
    def refused(self, text, name, act=lambda name: Backbone(BackboneSpec(f"hf:{name}"))):
        with pytest.raises(UnseenError, match=text) as caught:
            act(str(name))
        assert "\n" not in str(caught.value)

    def test_without_the_package(self, copy, monkeypatch):
        monkeypatch.setitem(sys.modules, "open_clip", None)
        self.refused(r"this model needs open_clip, which is not installed — pip install 'unseen\[clip\]'$", copy)

    def test_only_a_pickle(self, copy):
        (copy / "open_clip_model.safetensors").rename(copy / "open_clip_pytorch_model.bin")
        self.refused("no open_clip_model.safetensors; unseen does not load pickles", copy)

    def test_damaged(self, copy, folders):
        (copy / "open_clip_model.safetensors").write_bytes(b"nothing")
        self.refused("cannot be loaded", copy)
        shutil.copy(folders["average"] / "open_clip_model.safetensors", copy)
        config = json.loads((copy / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["layers"] = 3
        (copy / "open_clip_config.json").write_text(json.dumps(config))
        self.refused("cannot be loaded: .*Missing key", copy)
        (copy / "open_clip_config.json").write_text("{}")
        self.refused(r"damaged open_clip_config.json \(KeyError\('model_cfg'\)\)", copy)

    def test_a_resnet(self, copy):
        config = json.loads((copy / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["layers"] = [3, 4, 6, 3]
        (copy / "open_clip_config.json").write_text(json.dumps(config))
        self.refused("a CLIP ResNet, which pools by position — use timm's, such as --backbone resnet50_clip", copy)

    def test_another_network_of_transformers(self, copy):
        (copy / "open_clip_config.json").unlink()
        (copy / "open_clip_model.safetensors").rename(copy / "model.safetensors")
        (copy / "config.json").write_text(json.dumps({"model_type": "dinov3_vit"}))
        self.refused("timm has such networks, such as --backbone vit_base_patch16_dinov3.lvd1689m", copy)

    def test_a_size_that_patches_do_not_fill(self, copy):
        act = lambda name: Backbone(BackboneSpec(f"hf:{name}", image_size=36))  # noqa: E731
        self.refused("36 is not a multiple of the patch size 8 — --image-size 32 or 40", copy, act)


@pytest.mark.skipif(not os.environ.get("UNSEEN_HUB"), reason="downloads weights: set UNSEEN_HUB=1")
@torch.inference_mode()
def test_bioclip_from_the_hub():
    backbone = Backbone(BackboneSpec("hf:imageomics/bioclip"))
    assert (backbone.grids, backbone.channels) == ([(14, 14)], [512])
    model = open_clip.create_model("hf-hub:imageomics/bioclip").eval()
    torch.testing.assert_close(
        backbone(noise(224))[0].mean(dim=1), model.encode_image(noise(224)), rtol=1e-3, atol=1e-4
    )
