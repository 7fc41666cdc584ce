"""What determines the features of a backbone: network, weights and image transform."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from unseen.backbones import own, towers
from unseen.backbones.naming import IMPORTED, check_name, defaults, is_own, own_path, usual
from unseen.backbones.vision import timm
from unseen.backbones.weights import OF_PACKAGE, file_digest, weights_file
from unseen.backbones.zoom import looks
from unseen.errors import UnseenError
from unseen.ground.checked import checked
from unseen.ground.files import located, read_json
from unseen.ground.outside import check_installed

FINAL, TRUNK = "final", "trunk"
JOIN = "+"
"""Between the maps of a joined stage."""
EXACT, FAST = "exact", "fast"
"""How pixels are computed."""
LARGEST = 8192
"""Largest side of an image for a network, enlarged by its zoom, in pixels."""
SINGLE: dict[str, Any] = {"zoom": 1, "mirror": False}
"""Entries of a spec whose network sees an image once."""
ZOOMS = (1, 2, 3, 4)
"""Values of ``zoom``."""


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that determines the features: a network, its weights, and the image transform.

    Attributes:
        name: timm model name, with or without a pretrained tag; ``package.module:Name`` of a function or class that
            returns a network (:mod:`unseen.backbones.own`, and :meth:`of` for a module); ``hf:`` and the folder or hub
            id of a CLIP or SigLIP model, whose image tower is used (:mod:`unseen.backbones.towers`); or ``features:``
            and the name of imported features (:mod:`unseen.data.importing`).
        stages: feature maps to use: "final" (timm's `forward_features`) or indices of `forward_intermediates`, negative
            ones from the end. "-2+final" joins maps to one stage: each region of the last map named has its own
            channels after those of the others, averaged to its grid. "trunk" is the output of the layers up to the
            last stage but one, as the layers after them take it (:mod:`unseen.backbones.frozen`).
        image_size: side of the network's square input; None for the model's own.
        zoom: 1, or how many times as large the network sees the image a second time, in tiles
            (:mod:`unseen.backbones.zoom`).
        mirror: whether features are means over the image and its mirror image.
        weights: "pretrained" (timm's), "random", or the path of a `.safetensors` file; for imported features their
            store.
        options: additional arguments of `timm.create_model`, such as `pad_type="same"`.
        mean: per-channel mean of the normalization; None for the model's own.
        std: per-channel standard deviation of the normalization; None for the model's own.
        crop: fraction of the resized short side that the center crop keeps.
        pixels: "exact", Pillow's decoding and resize, or "fast", see :class:`unseen.backbones.transform.Transform`.
        view: view of the images, see :class:`unseen.backbones.transform.Transform`.
        seed: seed of "random" weights.
        channels: for a user's network whose maps are ``(B, h, w, C)``; checked if given.
    """

    name: str
    stages: tuple[str | int, ...] = (FINAL,)
    image_size: int | None = None
    zoom: int = 1
    mirror: bool = False
    weights: str = "pretrained"
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: float = 1.0
    pixels: str = EXACT
    view: int = 0
    seed: int = 0
    channels: int | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        self._simplify()
        object.__setattr__(self, "name", own_path(usual(self.name)))
        check_name(self.name)
        if self.tower is not None and (self.weights != "pretrained" or self.options or self.stages != (FINAL,)):
            problem = "this backbone takes no weights, stages or options"
            raise UnseenError(problem, where=self.name, hint="omit weights, stages and options")
        if self.imported and (self.options or self.stages != (FINAL,) or self.looks > 1):
            raise UnseenError(
                "imported features take no stages, zoom, mirror or options", where=self.name, hint="omit them"
            )
        self._check_stages()
        if self.zoom not in ZOOMS:
            raise UnseenError(f"zoom {self.zoom}", where=self.name, hint=f"use one of {', '.join(map(str, ZOOMS))}")
        size = self.image_size
        if size is not None and not (isinstance(size, int) and 1 <= size <= LARGEST // self.zoom):
            problem = f"image size {size} is not between 1 and {LARGEST // self.zoom}"
            raise UnseenError(problem, where=self.name, hint="use 224, for example")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise UnseenError(f"seed {self.seed}", where=self.name, hint="use a seed from 0 to 2^63 - 1")
        if self.channels is not None and not (isinstance(self.channels, int) and self.channels >= 1 and self.is_own):
            problem = f"{self.channels} is not a number of channels"
            raise UnseenError(problem, where=self.name, hint="pass channels=1 or more for a network of your own")
        if not (isinstance(self.crop, int | float) and 0 < self.crop <= 1):
            raise UnseenError(f"crop {self.crop} is not in (0, 1]", where=self.name, hint="use 1 for the whole image")
        if self.pixels not in (EXACT, FAST):
            raise UnseenError(f'pixels "{self.pixels}"', where=self.name, hint=f"use {EXACT} or {FAST}")
        for what, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (
                not isinstance(values, tuple)
                or len(values) != 3
                or not all(isinstance(v, int | float) and math.isfinite(v) for v in values)
                or (what == "std" and min(values) <= 0)
            ):
                raise UnseenError(f"{what} {values} is not three valid numbers", where=self.name)

    def _simplify(self) -> None:
        """Give every entry its JSON type or a tuple of them: callers may pass paths, lists and NumPy's numbers."""
        for entry in fields(self):
            value = _simple(getattr(self, entry.name))
            if entry.name == "stages" and isinstance(value, str | int):
                value = (value,)
            object.__setattr__(self, entry.name, value)
        try:
            json.dumps(self.options)
        except (TypeError, ValueError):
            hint = "options are numbers, texts and lists of these; make the network in a function of your own"
            raise UnseenError(f"options {self.options} cannot be stored", where=self.name, hint=hint) from None

    def _check_stages(self) -> None:
        for stage in self.stages:
            if stage == TRUNK and len(self.stages) == 1:
                continue
            joined = joined_maps(stage)
            if any(one != FINAL and type(one) is not int for one in joined) or len(set(joined)) < len(joined):
                hint = f'use "{FINAL}", an integer, or several joined, such as "-2{JOIN}{FINAL}"'
                raise UnseenError(f"{stage!r} is not a valid stage", where=self.name, hint=hint)
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise UnseenError("stages must be distinct, and at least one", where=self.name)

    @property
    def tower(self) -> str | None:
        """Folder or hub id of the CLIP or SigLIP model; ``None`` for a timm network."""
        return self.name.removeprefix(towers.PREFIX) if self.name.startswith(towers.PREFIX) else None

    @classmethod
    def of(cls, network: Any, **entries: Any) -> Self:
        """Make the spec of a network object. In a later process, the same call lets a run find its network again.

        Args:
            network: a name as above, an ``nn.Module`` (used as it is, weights included), or a function or class that
                returns one; prefer a function in a module, because other processes can import it.
            entries: other fields of the spec: ``image_size``, ``mean``, ``std``, ``channels``, ``options``, ...

        Raises:
            UnseenError: it is none of these, or a field is invalid.
        """
        if isinstance(network, cls):
            return replace(network, **entries)
        return cls(name=network if isinstance(network, str) else own.remember(network), **entries)

    @property
    def looks(self) -> int:
        """How often the network sees an image."""
        return looks(self.zoom, self.mirror)

    @property
    def is_own(self) -> bool:
        """Whether it is a user's network."""
        return is_own(self.name)

    @property
    def imported(self) -> bool:
        """Whether it stands for imported features, without a network for new images."""
        return self.name.startswith(IMPORTED)

    def resolved(self) -> Self:
        """The same spec with the model's own input size and normalization filled in."""
        if self.imported:
            return self
        if self.tower is not None:
            mean, std = (self.mean, self.std) if self.mean and self.std else towers.normalization(self.tower)
            size = self.image_size or towers.model_facts(self.tower).image_size
            return replace(self, image_size=size, mean=tuple(self.mean or mean), std=tuple(self.std or std))
        if self.is_own:
            known = self._own_facts()
            found = {key: getattr(self, key) or getattr(known, key) for key in ("image_size", "mean", "std")}
            if missing := [key for key, value in found.items() if not value]:
                options = ", ".join(f"--{key.replace('_', '-')}" for key in missing)
                problem = f"has no default for {' and '.join(key.replace('_', ' ') for key in missing)}"
                hint = f"pass {options}, or set {' and '.join(missing)} as attributes of the network"
                raise UnseenError(problem, where=f"backbone {self.name}", hint=hint)
            return replace(self, **found, channels=self.channels or known.channels)
        cfg = defaults(self.name)
        return replace(
            self,
            image_size=self.image_size or cfg.input_size[-1],
            mean=tuple(self.mean or cfg.mean),
            std=tuple(self.std or cfg.std),
        )

    def _own_facts(self) -> own.Facts:
        return own.facts(self.name, self.options, self.weights == "pretrained", self.seed)

    def located(self) -> Self:
        """The same spec with its files under their full paths, so that a run finds them from any folder."""
        weights = self.weights
        if weights not in ("pretrained", "random") and not weights.startswith(OF_PACKAGE):
            weights = str(Path(weights).expanduser().absolute())
        return replace(self, name=located(self.name, towers.PREFIX), weights=weights)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON types."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name, common in (("channels", None), ("pixels", EXACT), ("view", 0), *SINGLE.items()):
            if found[name] == common:
                del found[name]
        return found

    @classmethod
    def from_json(cls, data: Any, where: object = "backbone spec", hint: str = "fix the file") -> Self:
        """Read a spec that `to_json` wrote; ``where`` is its file, if any.

        Raises:
            UnseenError: an entry is missing, unknown or of another type; or it names code that is not installed.
        """
        spec = checked(cls, data, where, hint=hint)
        if spec.is_own and not own.is_known(spec.name):
            check_installed(spec.name, where, "backbone")
        return spec

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that determines the features, including the content of the weights.

        Weights that do not come from a file are identified by the versions that make them.
        """
        if self.imported:
            hint = "import them with `unseen import`"
            where = Path(self.weights) / "store.json"
            facts = read_json(where, UnseenError, hint)
            if not isinstance(facts, dict) or "fingerprint" not in facts:
                raise UnseenError("damaged: no fingerprint", where=where, hint=hint)
            return str(facts["fingerprint"])
        facts = self.resolved().to_json() | {"interpolation": "bicubic"}
        del facts["seed"]
        if self.tower is not None:
            facts |= {"name": towers.PREFIX, "weights": towers.model_digest(self.tower)}
        elif self.is_own:
            facts["made"] = self._own_facts().digest
            if self.weights not in ("pretrained", "random"):
                facts["weights"] = file_digest(weights_file(self.weights))
        elif self.weights == "pretrained":
            facts["name"] = f"{self.name.split('.')[0]}.{defaults(self.name).tag}"
            facts["weights"] = ["pretrained", timm.__version__]
        elif self.weights == "random":
            facts["weights"] = ["random", self.seed, timm.__version__, torch.__version__.split("+")[0]]
        else:
            facts["name"] = self.name.split(".")[0]
            facts["weights"] = file_digest(weights_file(self.weights))
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _simple(value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _simple(one) for name, one in value.items()}
    return tuple(map(_simple, value)) if isinstance(value, list | tuple) else value


def joined_maps(stage: str | int) -> tuple[str | int, ...]:
    """The maps that a stage joins: more than one for a stage such as "-2+final"."""
    if not isinstance(stage, str) or JOIN not in stage:
        return (stage,)
    return tuple(int(name) if name.removeprefix("-").isdecimal() else name for name in stage.split(JOIN))
