"""CLIP models of open_clip, such as BioCLIP 2: folders with an ``open_clip_config.json`` and safetensors weights."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unseen.backbones.vision import timm
from unseen.errors import UnseenError
from unseen.ground.extras import needed
from unseen.ground.hub import look_for_hub

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
_PATCH, _SIZE, _TOKENS = 16, 224, 77
"""Values that open_clip assumes if a configuration omits them."""


def config_of(folder: Path) -> dict[str, Any]:
    """Content of ``open_clip_config.json``.

    Raises:
        UnseenError: it is damaged, or the image tower is not a transformer.
    """
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        vision = found["model_cfg"]["vision_cfg"]
        _ = found["model_cfg"]["embed_dim"], found["model_cfg"]["text_cfg"]
        resnet = isinstance(vision.get("layers"), list)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"damaged {CONFIG} ({error!r})"
        raise UnseenError(problem, where=folder, hint="restore the original files") from None
    if resnet or vision.get("timm_pool") in ("abs_attn", "rot_attn"):
        hint = "use timm's, such as --backbone resnet50_clip.openai"
        raise UnseenError("its image tower is a CLIP ResNet, which pools by position", where=folder, hint=hint)
    return found


def facts_of(folder: Path) -> tuple[int, int, int, int]:
    """Channels of the joint space, image size, patch size, and largest number of tokens of a text."""
    model = config_of(folder)["model_cfg"]
    vision = model["vision_cfg"]
    name = vision.get("timm_model_name")
    patch = vision.get("patch_size", _PATCH) if name is None else _patch_of(name)
    size = vision.get("image_size", _SIZE)
    return (
        model["embed_dim"],
        size if isinstance(size, int) else size[0],
        patch if isinstance(patch, int) else patch[0],
        model["text_cfg"].get("context_length", _TOKENS),
    )


@functools.lru_cache(maxsize=8)
def _patch_of(name: str) -> Any:
    """Side in pixels of the square that one position of a timm network covers."""
    with torch.device("meta"):
        made: Any = timm.create_model(name, num_classes=0)
    return made.feature_info[-1]["reduction"]


def normalization_of(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and deviation that normalize images; open_clip's own if the model states none."""
    open_clip = _package()
    about = config_of(folder).get("preprocess_cfg", {})
    mean = about.get("mean", open_clip.OPENAI_DATASET_MEAN)
    return tuple(mean), tuple(about.get("std", open_clip.OPENAI_DATASET_STD))


class ImageTower(nn.Module):
    """The image tower, with the interface of :class:`unseen.backbones.towers.ImageTower`: regions in the joint space.

    The result for a single token is what pooling and projection of the tower give for a sequence of copies of it.

    Args:
        folder: folder of the model.
        size: side of the images.
    """

    num_prefix_tokens = 0

    def __init__(self, folder: Path, size: int) -> None:
        super().__init__()
        self.patch_size = facts_of(folder)[2]
        self.tower: Any = load(folder, size).visual

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to a map ``(B, C, h, w)`` of joint-space regions."""
        tokens, pool = self._timm(pixels) if hasattr(self.tower, "trunk") else self._own(pixels)
        every, prefix = tokens, tokens.shape[1] - self._count(pixels)
        tokens = every[:, prefix:]
        whole = pool(every)
        alone = pool(tokens.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)).unflatten(0, tokens.shape[:2])
        regions = alone + (whole - alone.mean(dim=1))[:, None]
        result: Tensor = regions.transpose(1, 2).unflatten(2, (pixels.shape[2] // self.patch_size, -1))
        return result

    def _count(self, pixels: Tensor) -> int:
        return (pixels.shape[2] // self.patch_size) * (pixels.shape[3] // self.patch_size)

    def _own(self, pixels: Tensor) -> tuple[Tensor, Any]:
        tower = self.tower

        def pool(tokens: Tensor) -> Tensor:
            pooled: Tensor = tower._pool(tokens)[0]
            return pooled if tower.proj is None else pooled @ tower.proj

        return tower.transformer(tower._embeds(pixels)), pool

    def _timm(self, pixels: Tensor) -> tuple[Tensor, Any]:
        trunk, head = self.tower.trunk, self.tower.head
        features = trunk.forward_features(pixels)
        if features.ndim == 3:
            return features, lambda tokens: head(trunk.forward_head(tokens))
        last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        channels_first = features.permute(0, 3, 1, 2) if last else features
        height = channels_first.shape[2]

        def pool(tokens: Tensor) -> Tensor:
            side = (height, -1) if tokens.shape[1] > 1 else (1, 1)
            grid = tokens.transpose(1, 2).unflatten(2, side)
            pooled: Tensor = head(trunk.forward_head(grid.permute(0, 2, 3, 1) if last else grid))
            return pooled

        return channels_first.flatten(2).transpose(1, 2), pool


class Texts:
    """The text tower with its tokenizer.

    Args:
        folder: folder of the model.
    """

    def __init__(self, folder: Path) -> None:
        try:
            with _quietly():
                self.tokenizer = _package().get_tokenizer(f"local-dir:{folder}")
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
            problem = f"cannot load the tokenizer: {_first_line(error)}"
            raise UnseenError(problem, where=folder, hint="restore the original files") from None
        self.model = load(folder).eval().requires_grad_(False)
        self.model.visual = None

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without truncation."""
        if hasattr(self.tokenizer, "tokenizer"):  # of transformers
            return [len(ids) for ids in self.tokenizer.tokenizer(list(texts), verbose=False)["input_ids"]]
        return [len(self.tokenizer.encode(text)) + 2 for text in texts]

    def embed(self, text: str, device: torch.device | str) -> Tensor:
        """Position of a text in the joint space, ``(C,)``."""
        self.model.to(device)
        found: Tensor = self.model.encode_text(self.tokenizer([text]).to(device))[0]
        return found


def load(folder: Path, size: int | None = None) -> Any:
    """Load the model in float32; all of its weights must exist.

    Args:
        folder: folder of the model.
        size: side of the images; by default the model's own. Position embeddings are interpolated.

    Raises:
        UnseenError: open_clip is not installed, or cannot load it.
    """
    model = config_of(folder)["model_cfg"]
    if not (folder / WEIGHTS).is_file():
        hint = "convert its weights once with safetensors.torch.save_file"
        raise UnseenError(f"no {WEIGHTS}; unseen does not load pickles", where=folder, hint=hint)
    if "hf_model_name" in model["text_cfg"]:  # built from the configuration of another model on the hub
        look_for_hub()
    size = None if size == model["vision_cfg"].get("image_size", _SIZE) else size
    try:
        with _quietly(), torch.random.fork_rng(devices=[]):
            return _package().create_model(f"local-dir:{folder}", force_image_size=size, pretrained_text=False)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, AssertionError, SafetensorError) as error:
        problem = f"cannot be loaded: {_first_line(error)}"
        raise UnseenError(problem, where=folder, hint="restore the original files") from None


def _package() -> Any:
    return needed("open_clip", "this model")


def _first_line(error: BaseException) -> str:
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[:2])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence messages of open_clip, which go to the root logger and would add a handler to it."""
    root, aside = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(aside)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(aside)
