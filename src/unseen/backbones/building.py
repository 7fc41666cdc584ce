"""Build the network of a spec: by timm or by the user's code, with its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unseen.backbones import own, towers
from unseen.backbones.naming import defaults
from unseen.backbones.spec import BackboneSpec
from unseen.backbones.vision import timm
from unseen.backbones.weights import first_line, load_weights, weights_file
from unseen.errors import UnseenError
from unseen.ground.hub import look_for_hub


def build(spec: BackboneSpec) -> nn.Module:
    """Build the network of a spec, with its weights."""
    if spec.tower is not None:
        assert spec.image_size
        return towers.image_tower(spec.tower, spec.image_size)
    if spec.is_own:
        return _build_own(spec)
    options = {"num_classes": 0, **spec.options}
    cfg = defaults(spec.name)
    if cfg.fixed_input_size and spec.image_size != cfg.input_size[-1]:
        options.setdefault("img_size", spec.image_size)
    pretrained = spec.weights == "pretrained"
    if pretrained:
        look_for_hub()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            model = timm.create_model(spec.name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, TypeError, AssertionError, ValueError) as error:
        if pretrained and isinstance(error, OSError | RuntimeError):  # no network, or timm has no weights
            problem = "cannot get pretrained weights"
            page = f"model.safetensors of huggingface.co/timm/{spec.name}"
            hint = (
                f"connect to the internet once, or download {page} and train with --backbone {spec.name} "
                "--backbone-weights FILE"
            )
        else:
            problem, hint = f"timm cannot build it at {spec.image_size} pixels with {dict(spec.options)}", None
        raise UnseenError(f"{problem}: {first_line(error)}", where=spec.name, hint=hint) from None
    if spec.weights not in ("pretrained", "random"):
        load_weights(model, weights_file(spec.weights))
    return model


def _build_own(spec: BackboneSpec) -> nn.Module:
    assert spec.image_size
    made: nn.Module = own.make(spec.name, spec.options, spec.weights == "pretrained", spec.seed)
    made.eval()
    if spec.weights not in ("pretrained", "random"):
        load_weights(made, weights_file(spec.weights))
    if hasattr(made, "forward_features") and hasattr(made, "num_features"):
        return made
    try:
        return own.Plain(made, spec.channels, spec.image_size, spec.name)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise UnseenError(f"cannot take {spec.image_size}-pixel images: {first_line(error)}", where=spec.name) from None


def check_patches(model: Any, spec: BackboneSpec) -> None:
    """Check that a transformer's patches fill the image: timm silently crops some sizes."""
    embed = getattr(model, "patch_embed", getattr(model, "embeds", model))
    side = getattr(embed, "patch_size", 1)
    side = side if isinstance(side, int) else side[0]
    size = spec.image_size
    assert size
    if not hasattr(model, "num_prefix_tokens") or size % side == 0 or getattr(embed, "dynamic_img_pad", False):
        return
    near = [s for s in (size - size % side, size - size % side + side) if s]
    raise UnseenError(
        f"cannot take {size}-pixel images: {size} is not a multiple of the patch size {side}",
        where=spec.name,
        hint=f"--image-size {' or '.join(map(str, near))}",
    )
