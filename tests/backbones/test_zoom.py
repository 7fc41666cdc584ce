"""Zoom: every image is seen whole, and a second time in tiles of its enlargement."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import TOLERANCE
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.zoom import assembled, looks, reduced, tiles, together
from unseen.errors import UnseenError
from unseen.ground.words import size_text

RESNET = BackboneSpec("test_resnet", image_size=64, weights="random")
VIT = BackboneSpec("test_vit", image_size=96, weights="random")


def images(count, side, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("zoom", [2, 3])
def test_tiles_come_back_where_they_were(zoom):
    pixels = images(2, 12 * zoom)
    cut = tiles(pixels, zoom)
    assert torch.equal(cut[zoom], pixels[0, :, 12:24, :12].contiguous())  # second row, first column
    averaged = F.avg_pool2d(cut, 4)  # a network whose regions are means of 4 x 4 pixels
    assert torch.allclose(assembled(averaged, zoom), F.avg_pool2d(pixels, 4 * zoom), atol=1e-6)
    assert reduced(pixels, zoom).shape == (2, 3, 12, 12)


def test_both_looks_have_the_same_weight_in_the_mean_region():
    whole = torch.tensor([[[[3.0, 5.0]], [[0.0, 0.0]]]])  # mean region (4, 0)
    near = torch.tensor([[[[0.0, 0.0]], [[1.0, 3.0]]]])  # mean region (0, 2)
    assert torch.equal(together(whole, near), torch.tensor([[[[1.125, 1.875]], [[0.75, 2.25]]]]))
    assert torch.equal(together(whole, 100 * near).mean(3)[0, 0], together(whole, 100 * near).mean(3)[0, 1])
    assert torch.equal(together(whole, whole), whole)
    assert together(whole, 0 * near).isfinite().all()


@pytest.mark.parametrize("spec", [RESNET, VIT, replace(RESNET, stages=(2, "-2+final"))], ids=str)
def test_maps_are_those_of_the_network_on_the_whole_image_and_on_tiles(spec):
    plain, zoomed = Backbone(spec), Backbone(replace(spec, zoom=2))
    assert zoomed.transform.size == 2 * plain.transform.size
    assert (zoomed.grids, zoomed.channels, zoomed.parts) == (plain.grids, plain.channels, plain.parts)
    pixels = images(3, zoomed.transform.size)
    with torch.no_grad():
        found, whole = zoomed.maps(pixels), plain.maps(reduced(pixels, 2))
        near = [assembled(maps, 2) for maps in plain.maps(tiles(pixels, 2))]
        one = zoomed.maps(pixels[1:2])
    if len(spec.stages) == 1:  # joined maps are brought together one by one
        assert torch.allclose(found[0], together(whole[0], near[0]), rtol=1e-4, atol=1e-5)
    assert torch.allclose(found[-1][1:2], one[-1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], whole[0], rtol=0.1)


@pytest.mark.parametrize("spec", [RESNET, VIT, replace(RESNET, stages=(2, "-2+final"))], ids=str)
@pytest.mark.parametrize("zoom", [1, 2])
def test_mirrored_maps_are_means_of_those_of_the_image_and_its_mirror_image_at_their_places(spec, zoom):
    plain, both = Backbone(replace(spec, zoom=zoom)), Backbone(replace(spec, zoom=zoom, mirror=True))
    assert both.transform.size == plain.transform.size
    assert (both.grids, both.channels, both.parts) == (plain.grids, plain.channels, plain.parts)
    pixels = images(2, both.transform.size)
    with torch.no_grad():
        found, straight, mirrored = both.maps(pixels), plain.maps(pixels), plain.maps(pixels.flip(3))
        turned = both.maps(pixels.flip(3))
    for mean, one, other, back in zip(found, straight, mirrored, turned, strict=True):
        torch.testing.assert_close(mean, (one + other.flip(3)) / 2, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back, mean.flip(3), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(mean, one, rtol=0.05)


def test_number_of_looks():
    assert [looks(zoom, mirror) for mirror in (False, True) for zoom in (1, 2, 3)] == [1, 5, 10, 2, 10, 20]
    assert replace(RESNET, zoom=2, mirror=True).looks == 10


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="needs onnxruntime")
def test_an_engine_computes_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path))
    backbone = Backbone(replace(RESNET, zoom=2, mirror=True))
    cropped = (255 * images(2, 128)).byte()
    expected, found = backbone.use("torch").regions(cropped)[0], backbone.use("onnxruntime").regions(cropped)[0]
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_a_detail_that_the_network_is_too_coarse_for_is_seen():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255  # as gray as its mean at half the size
    gray = np.full_like(stripes, 128)

    def difference(zoom):
        backbone = Backbone(replace(RESNET, zoom=zoom))
        seen = [backbone.transform.cropped(Image.fromarray(a)) for a in (stripes, gray)]
        first, second = backbone.regions(torch.stack(seen))[0]
        return float((first - second).norm() / second.norm())

    assert difference(2) > 3 * difference(1)


def test_where_a_point_lies_does_not_depend_on_the_zoom():
    plain, zoomed = (Backbone(replace(RESNET, zoom=z)).transform for z in (1, 2))
    for where in ((30, 40), (199, 99)):
        share = [np.array(t.to_input(*where, 200, 100)) / t.size for t in (plain, zoomed)]
        assert share[0] == pytest.approx(share[1])


def test_what_it_is_part_of():
    made = [replace(RESNET, **entries) for entries in ({}, {"zoom": 2}, {"mirror": True}, {"zoom": 2, "mirror": True})]
    assert [BackboneSpec.from_json(spec.to_json()) for spec in made] == made
    assert not {"zoom", "mirror"} & set(RESNET.to_json())
    assert len({spec.fingerprint() for spec in made}) == 4
    assert [size_text(224, spec.zoom, spec.mirror) for spec in made] == [
        *["224 px", "224 px, zoom 2", "224 px, mirrored", "224 px, zoom 2, mirrored"]
    ]
    assert size_text(None, 1, False) == ""


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"zoom": 0}, "zoom 0 — use one of 1, 2, 3, 4"),
        ({"zoom": 5}, "zoom 5 —"),
        ({"zoom": 4, "image_size": 2049}, "image size 2049 is not between 1 and 2048"),
    ],
)
def test_what_it_refuses(entries, message):
    with pytest.raises(UnseenError, match=message):
        replace(RESNET, **entries)
    for more in ({"zoom": 2}, {"mirror": True}):
        with pytest.raises(UnseenError, match="no stages, zoom, mirror or options"):
            BackboneSpec("features:mine", weights="x", **more)
