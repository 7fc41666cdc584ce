"""CLIP and SigLIP models of transformers and open_clip: an image tower and a text tower with a joint space.

A model is a folder with its files, or its id on the hub (``ID`` or ``ID@REVISION``). If a model has files of both,
those of transformers are preferred to those of open_clip (:mod:`unseen.backbones.open_clip`). Only safetensors are
read, and no code that comes with a model is run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unseen.backbones import open_clip
from unseen.errors import UnseenError
from unseen.ground.hub import look_for_hub
from unseen.ground.tensors import load_tensors, save_tensors

TEXTS = "texts.safetensors"
"""File of a run or saved recognizer with texts and their vectors."""
PREFIX = "hf:"
"""Prefix of backbone names of this kind."""
_log = logging.getLogger(__name__)
_ABOUT = (
    "config.json",
    open_clip.CONFIG,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
_VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json")
_KINDS = {
    "clip": ("CLIPVisionModelWithProjection", "CLIPTextModelWithProjection"),
    "siglip": ("SiglipVisionModel", "SiglipTextModel"),
}
_IN_TIMM = {
    "dinov3_vit": "vit_base_patch16_dinov3.lvd1689m",
    "dinov3_convnext": "convnext_base.dinov3_lvd1689m",
    "dinov2": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_with_registers": "vit_base_patch14_reg4_dinov2.lvd142m",
    "vit": "vit_base_patch16_224.augreg_in21k",
}
"""Image networks of transformers that timm also has, with an example of each."""


@dataclass(frozen=True)
class Facts:
    """Facts from a model's configuration.

    Args:
        kind: ``clip`` or ``siglip`` of transformers, or ``open_clip``.
        channels: C of the joint space.
        image_size: side of its training images.
        patch_size: side of a patch.
        text_length: largest number of tokens of a text.
    """

    kind: str
    channels: int
    image_size: int
    patch_size: int
    text_length: int


def model_folder(name: str) -> Path:
    """Folder of a model's files; files of the hub are downloaded once and stay in its cache.

    Raises:
        UnseenError: the extra is not installed, the model does not exist, there is no network, or no safetensors.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UnseenError("CLIP and SigLIP models need transformers", hint="pip install 'unseen[clip]'")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(name)
    if is_open_clip(folder):
        return folder
    if not (folder / "config.json").is_file():
        hint = "pass a folder written by save_pretrained of transformers, or one of open_clip"
        raise UnseenError("no config.json", where=name, hint=hint)
    if not any(folder.glob("model*.safetensors")):
        raise UnseenError(
            "no model.safetensors; unseen does not load pickles",
            where=name,
            hint="convert it with transformers.AutoModel.from_pretrained(NAME).save_pretrained(FOLDER)",
        )
    return folder


@functools.lru_cache(maxsize=8)
def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    hint = "pass a folder, or a hub model such as google/siglip-base-patch16-224"
    identifier, _, revision = name.partition("@")
    if name.startswith(("/", ".", "~")) or identifier.count("/") > 1:
        raise UnseenError("no such folder", where=name, hint=hint)
    look_for_hub()

    def fetched(*patterns: str) -> Path:
        return Path(snapshot_download(identifier, revision=revision or None, allow_patterns=[*_ABOUT, *patterns]))

    try:
        folder = fetched()
        if _type_of(folder) in _KINDS or not (folder / open_clip.CONFIG).is_file():
            folder = fetched(*_WEIGHTS)
        return fetched(open_clip.WEIGHTS) if is_open_clip(folder) else folder
    except (OSError, ValueError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise UnseenError(f"cannot get it from the hub: {problem}", where=name, hint=hint) from None


def _type_of(folder: Path) -> str:
    """Type of model according to transformers' ``config.json``; ``""`` without one."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def is_open_clip(folder: Path) -> bool:
    """Whether open_clip reads a model: it has such files, and none that transformers reads."""
    if not (folder / open_clip.CONFIG).is_file():
        return False
    return _type_of(folder) not in _KINDS or not any(folder.glob("model*.safetensors"))


def model_files(name: str) -> list[Path]:
    """Files of a model, by name."""
    folder = model_folder(name)
    one = is_open_clip(folder)
    patterns = {*_ABOUT, *((open_clip.WEIGHTS,) if one else _WEIGHTS)} - {"config.json" if one else open_clip.CONFIG}
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def model_digest(name: str) -> str:
    """SHA-256 (hex) of the content of all files of a model."""
    state = tuple((str(f.resolve()), f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in model_files(name))
    return _digest_of(state)


@functools.lru_cache(maxsize=8)
def _digest_of(state: tuple[tuple[str, str, int, int], ...]) -> str:
    hasher = hashlib.sha256()
    for path, name, *_ in state:
        with Path(path).open("rb") as file:
            hasher.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return hasher.hexdigest()


def model_facts(name: str) -> Facts:
    """Facts from a model's configuration; UnseenError if it is neither CLIP nor SigLIP."""
    folder = model_folder(name)
    if is_open_clip(folder):
        return Facts("open_clip", *open_clip.facts_of(folder))
    config = _config(name)
    if config.model_type not in _KINDS:
        alike = _IN_TIMM.get(config.model_type)
        hint = "use a CLIP or SigLIP model" + (f"; timm has such networks, such as --backbone {alike}" if alike else "")
        raise UnseenError(f'unsupported model type "{config.model_type}"', where=name, hint=hint)
    vision, text = config.vision_config, config.text_config
    return Facts(
        config.model_type,
        config.projection_dim if config.model_type == "clip" else vision.hidden_size,
        vision.image_size,
        vision.patch_size,
        text.max_position_embeddings,
    )


def normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and deviation that normalize a model's images."""
    folder = model_folder(name)
    if is_open_clip(folder):
        return open_clip.normalization_of(folder)
    model_facts(name)
    for file in ("preprocessor_config.json", "processor_config.json"):
        try:
            about = json.loads((folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        about = about.get("image_processor", about)
        if "image_mean" in about and "image_std" in about:
            return tuple(about["image_mean"]), tuple(about["image_std"])
    raise UnseenError("no preprocessor_config.json with mean and std", where=name, hint="pass --mean and --std")


def image_tower(name: str, size: int) -> nn.Module:
    """Make the image tower of a model for images of a size."""
    folder = model_folder(name)
    return open_clip.ImageTower(folder, size) if is_open_clip(folder) else ImageTower(name, size)


class ImageTower(nn.Module):
    """The image tower of transformers, with its patch tokens mapped into the joint space.

    Each token alone goes through the end of the tower: CLIP's last normalization and projection, or SigLIP's pooling
    head. All results are then shifted by one vector, so that **their mean is the image's embedding**: methods that pool
    regions see exactly what CLIP compares with texts, and a region's share of it is its token's result plus the common
    shift.

    Args:
        name: name of the model.
        size: side of the images, a multiple of the patch size.
    """

    num_prefix_tokens = 0

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        facts = model_facts(name)
        self.kind, self.patch_size = facts.kind, facts.patch_size
        self._interpolate = size != facts.image_size
        self.tower: Any = _load(name, 0)
        if self.kind == "siglip" and not self.tower.use_head:
            raise UnseenError("its image tower has no pooling head", where=name, hint="use another SigLIP model")

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to a map ``(B, C, h, w)`` of regions in the joint space."""
        if self.kind == "clip":
            found = self.tower.vision_model(pixels, interpolate_pos_encoding=self._interpolate)
            tokens = self.tower.vision_model.post_layernorm(found.last_hidden_state[:, 1:])
            tokens = self.tower.visual_projection(tokens)
            whole = self.tower.visual_projection(found.pooler_output)
        else:
            found = self.tower(pixels, interpolate_pos_encoding=self._interpolate)
            tokens, whole = found.last_hidden_state, found.pooler_output
            tokens = self.tower.head(tokens.flatten(0, 1)[:, None]).view(tokens.shape)
        regions = tokens + (whole - tokens.mean(dim=1))[:, None]
        height = pixels.shape[2] // self.patch_size
        result: Tensor = regions.transpose(1, 2).unflatten(2, (height, -1))
        return result


class TextTower:
    """The text tower: sentences to unit vectors of the joint space. Loaded with the first sentence.

    Args:
        name: name of the model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._facts = model_facts(name)
        self._known: dict[str, Tensor] = {}

    @functools.cached_property
    def _texts(self) -> open_clip.Texts | _Texts:
        if self._facts.kind == "open_clip":
            return open_clip.Texts(model_folder(self.name))
        return _Texts(self.name, self._facts)

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """``(M, C)`` unit rows, one per text, on the device; texts beyond the tower's limit are cut, with a warning."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        # stored for later, so never as inference tensors
        with torch.inference_mode(False), torch.no_grad():
            if new:
                self._warn_of_long(new)
            for text in new:  # one by one, so that the numbers of a text do not depend on others
                self._known[text] = self._embed(text, device).cpu()
            return torch.stack([self._known[text] for text in texts]).to(device)

    def save(self, path: Path) -> None:
        """Write all texts so far with their vectors, atomically; replaces an earlier file."""
        if self._known:
            about = {"model": model_digest(self.name), "texts": json.dumps(list(self._known))}
            vectors = torch.stack(list(self._known.values()))
            save_tensors(path, {"vectors": vectors}, about)

    def load(self, path: Path) -> None:
        """Load what :meth:`save` wrote; ignores a file that is missing, damaged or of another model."""
        with suppress(OSError, SafetensorError, KeyError, TypeError, ValueError):
            tensors, about = load_tensors(path)
            if about["model"] == model_digest(self.name):
                self._known.update(zip(json.loads(about["texts"]), tensors["vectors"], strict=True))

    def _warn_of_long(self, texts: list[str]) -> None:
        limit = self._facts.text_length
        long = [text for text, length in zip(texts, self._texts.lengths(texts), strict=True) if length > limit]
        if long:
            message = '%d of %d texts are longer than %d tokens and were truncated, the first: "%s..."'
            _log.warning(message, len(long), len(texts), limit, long[0][:70])

    def _embed(self, text: str, device: torch.device | str) -> Tensor:
        return nn.functional.normalize(self._texts.embed(text, device).float(), dim=-1)


class _Texts:
    """A text tower of transformers with its tokenizer."""

    def __init__(self, name: str, facts: Facts) -> None:
        from transformers import AutoTokenizer

        folder, self.facts = model_folder(name), facts
        if not any((folder / f).is_file() for f in _VOCABULARIES):  # transformers would silently create an empty one
            raise UnseenError("no tokenizer", where=name, hint=f"add its {' or '.join(_VOCABULARIES)}")
        try:
            with quietly():
                self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except ImportError:
            raise UnseenError("its tokenizer needs sentencepiece", hint="pip install 'unseen[clip]'") from None
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise UnseenError(
                f"cannot load the tokenizer: {first_line(error)}", where=name, hint="restore the original files"
            ) from None
        self.model = _load(name, 1).eval().requires_grad_(False)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without truncation."""
        return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]

    def embed(self, text: str, device: torch.device | str) -> Tensor:
        """Position of a text in the joint space, ``(C,)``."""
        siglip, model = self.facts.kind == "siglip", self.model
        tokens = self.tokenizer(
            [text],
            padding="max_length" if siglip else False,  # SigLIP was trained this way, and reads the last position
            truncation=True,
            max_length=self.facts.text_length,
            return_tensors="pt",
        ).to(device)
        model.to(device)
        if siglip:
            found: Tensor = model(input_ids=tokens["input_ids"]).pooler_output
        else:
            found = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).text_embeds
        return found[0]


def _config(name: str) -> Any:
    from transformers import AutoConfig

    try:
        with quietly():
            return AutoConfig.from_pretrained(model_folder(name), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnseenError(f"transformers cannot load this model: {first_line(error)}", where=name) from None


def _load(name: str, tower: int) -> Any:
    """The image (0) or text (1) tower in float32; all of its weights must exist."""
    import transformers

    kind = getattr(transformers, _KINDS[model_facts(name).kind][tower])
    try:
        with quietly():
            model, info = kind.from_pretrained(
                model_folder(name),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnseenError(
            f"cannot be loaded: {first_line(error)}", where=name, hint="restore the original files"
        ) from None
    lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if lacking:
        raise UnseenError(
            f"weights are missing or have the wrong shape: {lacking[0]}", where=name, hint="restore the original files"
        )
    return model


@contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and notes on the unused tower."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """An error as one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
