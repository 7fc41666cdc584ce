"""Vision transformers as backbones: their patch tokens, and nothing else, are the regions of every method."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import unseen
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.data.folder import load_folder
from unseen.errors import UnseenError
from unseen.methods import METHODS

# name, image side, grid, class and register tokens: real architectures with fewer blocks
NETWORKS = [
    ("test_vit", 160, 10, 1),
    ("vit_tiny_patch16_224", 64, 4, 1),
    ("vit_small_patch14_dinov2", 70, 5, 1),
    ("vit_small_patch14_reg4_dinov2", 70, 5, 5),
    ("vit_small_patch16_dinov3", 64, 4, 5),
    ("vit_small_plus_patch16_dinov3", 48, 3, 5),
    ("vit_base_patch16_siglip_224", 64, 4, 0),
    ("vit_base_patch16_siglip_gap_224", 64, 4, 0),
    ("vit_base_patch32_clip_224", 96, 3, 1),
    ("eva02_tiny_patch14_224", 56, 4, 1),
]


def spec(name: str, size: int, **options) -> BackboneSpec:
    depth = {} if name.startswith("test") else {"depth": 1}
    return BackboneSpec(name, weights="random", image_size=size, options=depth | options)


@pytest.mark.parametrize(("name", "size", "side", "prefix"), NETWORKS)
@torch.inference_mode()
def test_regions_are_the_patch_tokens_in_row_major_order(name, size, side, prefix):
    backbone = Backbone(spec(name, size))
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = backbone.model.forward_features(pixels.contiguous(memory_format=torch.channels_last))
    (regions,) = backbone(pixels)
    assert tokens.shape[1] == side * side + prefix
    assert torch.equal(regions, tokens[:, prefix:])
    assert (backbone.grids, backbone.channels) == ([(side, side)], [tokens.shape[2]])
    # a change within one patch changes that patch's own region most
    row, column, patch = side - 1, 1, size // side
    changed = pixels.clone()
    changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] *= -1
    moved = (backbone(changed)[0] - regions).norm(dim=-1)
    assert (moved.argmax(dim=1) == row * side + column).all()


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("vit_small_patch14_dinov2", 64, "56 or 70"),
        ("vit_small_patch16_dinov3", 70, "64 or 80"),
        ("vit_base_patch16_siglip_224", 230, "224 or 240"),
        ("eva02_tiny_patch14_224", 10, "14"),
        ("test_vit", 150, "144 or 160"),
    ],
)
def test_a_size_that_patches_do_not_fill_is_refused(name, size, near):
    with pytest.raises(UnseenError, match=rf"{size} is not a multiple of the patch size 1\d — --image-size {near}$"):
        Backbone(spec(name, size))


def test_a_network_that_pads_takes_any_size():
    options = {"dynamic_img_size": True, "dynamic_img_pad": True}
    assert Backbone(spec("vit_tiny_patch16_224", 60, **options)).grids == [(4, 4)]


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
@torch.inference_mode()
def test_weights_of_one_image_size_serve_another(name, tmp_path):
    """Position embeddings of 5 x 5 patches are interpolated to 7 x 7, as timm does it."""
    torch.manual_seed(0)
    trained = timm.create_model(name, img_size=70, depth=1, num_classes=0)
    trained.pos_embed.normal_()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    backbone = Backbone(
        BackboneSpec(name, weights=str(tmp_path / "w.safetensors"), image_size=98, options={"depth": 1})
    )
    prefix = trained.pos_embed.shape[1] - 25
    grid = trained.pos_embed[:, prefix:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    wider = torch.nn.functional.interpolate(grid, (7, 7), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(backbone.model.pos_embed[:, prefix:], wider)
    assert torch.equal(backbone.model.pos_embed[:, :prefix], trained.pos_embed[:, :prefix])
    assert backbone.grids == [(7, 7)]


@torch.inference_mode()
def test_dinov3_needs_no_position_embedding():
    """Its rotary embedding is made for the image's size: the same weights take any."""
    small, large = (Backbone(spec("vit_small_patch16_dinov3", size)) for size in (48, 64))
    assert small.model.state_dict().keys() == large.model.state_dict().keys()
    large.model.load_state_dict(small.model.state_dict())
    assert (small.grids, large.grids) == ([(3, 3)], [(4, 4)])


@torch.inference_mode()
def test_siglips_pooling_head_is_left_aside():
    backbone = Backbone(spec("vit_base_patch16_siglip_224", 64))
    pixels = torch.randn(1, 3, 64, 64)
    before = backbone(pixels)[0]
    for parameter in backbone.model.attn_pool.parameters():
        parameter.zero_()
    assert torch.equal(backbone(pixels)[0], before)


@pytest.fixture(scope="module")
def tiny_vit():
    return BackboneSpec("test_vit", weights="random", image_size=64)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.reads_text])
def test_every_method_on_patch_tokens(method, tiny_guide, tiny_vit, cache, tmp_path):
    recipe = {} if METHODS[method].closed_form else {"epochs": "1", "batch_size": "8"}
    options = {"backbone": tiny_vit, "cache": cache, "device": "cpu", "draws": 1}
    if METHODS[method].stages > 1:
        options["settings"] = {"width": "32", "attention_width": "8"}
    if METHODS[method].end_to_end:
        recipe["batches"] = "3"
    run = unseen.fit(method, tiny_guide, tmp_path, recipe=recipe, **options)
    assert run.manifest["backbone"]["regions"] == "4x4"
    assert run.manifest["backbone"]["channels"] == ([64] * METHODS[method].stages if METHODS[method].end_to_end else 64)
    dataset = load_folder(tiny_guide)
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    image = dataset.paths()[0]
    (found,) = recognizer.predict(image)
    why = recognizer.explain(image)
    assert why.target.name == found.best.name
    assert why.contributions.shape == (len(dataset.table.attributes), 4, 4)
    psi = {r.attribute: r.score for r in why.reasons}
    expected = [psi[name] for name in dataset.table.attributes.names]
    np.testing.assert_allclose(why.contributions.sum(axis=(1, 2)), expected, rtol=1e-3, atol=1e-5)
