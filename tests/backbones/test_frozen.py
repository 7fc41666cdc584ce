"""Frozen layers: their output takes the place of images, with the same maps."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from unseen.backbones.backbone import Backbone
from unseen.backbones.frozen import LAST_FROZEN
from unseen.backbones.spec import FINAL, BackboneSpec
from unseen.errors import UnseenError


def spec(name, *stages, **more):
    return BackboneSpec(name, stages=stages or (FINAL,), image_size=64, weights="random", **more)


@pytest.mark.parametrize("stages", [(FINAL,), (f"{LAST_FROZEN}+{FINAL}",)])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "mobilenetv2_035"])
def test_the_output_of_frozen_layers_gives_the_maps_of_the_images(name, stages):
    plain, pixels = Backbone(spec(name, *stages)), torch.randn(3, 3, 64, 64)
    frozen = Backbone(replace(plain.spec, stages=(LAST_FROZEN,)))
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


@pytest.mark.parametrize("name", ["test_vit", "test_maxvit"])
def test_other_networks_are_one_line_and_stay_whole(name):
    backbone, pixels = Backbone(spec(name)), torch.randn(1, 3, 64, 64)
    before = backbone.maps(pixels)[0]
    try:
        backbone.skip_frozen()
    except UnseenError as error:
        assert "--recipe views=0" in str(error)  # noqa: PT017 - some are chains
        assert torch.equal(backbone.maps(pixels)[0], before)
    else:
        frozen = Backbone(replace(backbone.spec, stages=(LAST_FROZEN,)))
        torch.testing.assert_close(backbone.maps(frozen.maps(pixels)[0])[0], before)


def test_tokens_are_no_chain():
    with pytest.raises(UnseenError, match=r"output of its frozen layers cannot replace images.*views=0"):
        Backbone(spec("test_vit")).skip_frozen()
