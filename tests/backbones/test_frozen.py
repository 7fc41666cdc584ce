"""Frozen layers: their output takes the place of images, with the same maps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import FINAL, TRUNK, BackboneSpec
from unseen.backbones.zoom import reduced
from unseen.errors import UnseenError

NETWORKS = ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv2_035", "test_vit4", "test_maxvit"]
NETWORKS += ["swin_tiny_patch4_window7_224"]


def spec(name, *stages, **more):
    return BackboneSpec(name, stages=stages or (FINAL,), image_size=64, weights="random", **more)


@pytest.mark.parametrize("stages", [(FINAL,), (f"-2+{FINAL}",)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_output_of_frozen_layers_gives_the_maps_of_the_images(name, stages):
    plain, pixels = Backbone(spec(name, *stages)), torch.randn(3, 3, 64, 64)
    frozen = Backbone(replace(plain.spec, stages=(TRUNK,)))
    before = set(plain.state_dict())
    tail = copy.deepcopy(Backbone(plain.spec).fine_tuned(layers="last").skip_frozen())  # as a moving average
    with torch.no_grad():
        output, wanted = frozen.maps(pixels)[0], plain.maps(pixels)
    found = tail.maps(output)
    assert output.shape[1:] != pixels.shape[1:]
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-4, atol=1e-5)
    assert set(tail.state_dict()) == before  # the trained weights load into a whole network
    found[0].sum().backward()
    reached = [p.requires_grad for p in tail.parameters() if p.grad is not None]
    assert reached
    assert all(reached)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit4"])
def test_zoomed_images_have_the_outputs_of_their_tiles_too(name):
    plain, zoomed = (Backbone(spec(name, f"-2+{FINAL}", zoom=z)) for z in (1, 2))
    whole, both = (Backbone(replace(made.spec, stages=(TRUNK,))) for made in (plain, zoomed))
    pixels = torch.randn(2, 3, 128, 128)
    tail = Backbone(zoomed.spec).fine_tuned(layers="last").skip_frozen()
    with torch.no_grad():
        outputs, single = both.maps(pixels)[0], whole.maps(reduced(pixels, 2))[0]
        wanted, alone = zoomed.maps(pixels)[0], plain.maps(reduced(pixels, 2))[0]
        found, of_single = tail.maps(outputs)[0], tail.maps(single)[0]
    height = single.shape[2]
    assert both.grids == [(5 * height, single.shape[3])]
    torch.testing.assert_close(outputs[:, :, :height], single, rtol=1e-4, atol=1e-5)
    third = whole.maps(pixels[:1, :, 64:, :64])[0]
    torch.testing.assert_close(outputs[:1, :, 3 * height : 4 * height], third, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_single, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit4"])
@pytest.mark.parametrize("zoom", [1, 2])
def test_mirrored_images_have_the_outputs_of_both(name, zoom):
    plain, mirrored = (Backbone(spec(name, f"-2+{FINAL}", zoom=zoom, mirror=m)) for m in (False, True))
    one, both = (Backbone(replace(made.spec, stages=(TRUNK,))) for made in (plain, mirrored))
    pixels = torch.randn(2, 3, 64 * zoom, 64 * zoom)
    tail = Backbone(mirrored.spec).fine_tuned(layers="last").skip_frozen()
    with torch.no_grad():
        outputs, straight, other = both.maps(pixels)[0], one.maps(pixels)[0], one.maps(pixels.flip(3))[0]
        torch.testing.assert_close(outputs, torch.cat([straight, other], dim=2), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tail.maps(outputs)[0], mirrored.maps(pixels)[0], rtol=1e-4, atol=1e-5)
        if zoom == 1:  # a single look stays one
            torch.testing.assert_close(tail.maps(straight)[0], plain.maps(pixels)[0], rtol=1e-4, atol=1e-5)


def test_more_than_that_output_is_one_line_and_the_network_stays(monkeypatch):
    backbone, pixels = Backbone(spec("test_resnet")), torch.randn(1, 3, 64, 64)
    network, before = backbone.network, backbone.maps(pixels)[0]
    plain = type(network).forward_features
    earlier = []
    network.layer1.register_forward_hook(lambda *call: earlier.append(call[2]))
    monkeypatch.setattr(type(network), "forward_features", lambda self, x: plain(self, x) + earlier[-1].mean())
    with pytest.raises(UnseenError, match=r"output of its frozen layers cannot replace images.*--recipe views=0"):
        backbone.skip_frozen()
    monkeypatch.undo()
    assert torch.equal(backbone.maps(pixels)[0], before)


def test_a_network_that_names_no_stages_is_one_line(monkeypatch):
    backbone = Backbone(spec("test_resnet"))
    monkeypatch.setattr(backbone.network, "feature_info", [])
    with pytest.raises(UnseenError, match=r"cannot replace images.*--recipe views=0"):
        backbone.skip_frozen()
