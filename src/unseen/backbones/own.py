"""Users' own networks: a module, or the path of a function or class that makes one.

A network maps images ``(B, 3, H, W)`` to a map ``(B, C, h, w)`` (or ``(B, h, w, C)`` if it states its ``channels``),
tokens ``(B, T, C)`` of a square grid, pooled features ``(B, C)``, or a list or dictionary of maps, from shallow to
deep. A network with timm's ``forward_features`` is used like timm's. Image size, mean and deviation come from the spec,
or from attributes ``image_size``, ``mean`` and ``std`` (or timm's ``pretrained_cfg``) of the function, class or
network.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.outside import check_shareable, import_path, path_of

GIVEN = "given:"
"""Prefix of a module passed in Python, which no other process can make."""
_MAKERS: dict[str, Any] = {}
"""Functions and classes of this process by path, and passed modules by name."""


@dataclass(frozen=True)
class Facts:
    """Facts that a user's network states; ``None`` if it does not.

    Attributes:
        image_size, mean, std, channels: as in :class:`unseen.backbones.spec.BackboneSpec`.
        digest: SHA-256 (hex) of its initial weights, and of the code of its class without comments.
    """

    image_size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    channels: int | None
    digest: str


def remember(network: nn.Module | Callable[..., nn.Module]) -> str:
    """Remember a module, or what makes one, for this process.

    Returns:
        The name for a spec: the path, or ``given:PATH OF ITS CLASS`` for a module.
    """
    if isinstance(network, nn.Module):
        name = GIVEN + path_of(type(network))
    elif callable(network) and hasattr(network, "__qualname__"):
        name = path_of(network)
    else:
        hint = "pass an nn.Module, or a function or class that returns one"
        raise UnseenError(f"{type(network).__name__} is not a network", where="backbone", hint=hint)
    _MAKERS[name] = network
    return name


def find_maker(name: str) -> Any:
    """The function or class that makes a network, or a remembered module.

    Raises:
        UnseenError: it cannot be imported, or is a module of another process.
    """
    if name in _MAKERS:
        return _MAKERS[name]
    if name.startswith(GIVEN):
        problem = "is a module passed in Python"
        hint = "call unseen.BackboneSpec.of(module) first, or pass the path of a function that returns it"
        raise UnseenError(problem, where=f"backbone {name}", hint=hint)
    maker = import_path(name, "backbone")
    if not callable(maker):
        raise UnseenError("does not return a network", where=f"backbone {name}", hint="pass a function or class")
    _MAKERS[name] = maker
    return maker


def is_known(name: str) -> bool:
    """Whether nothing needs to be imported: it was passed in this process, or can never be imported."""
    return name in _MAKERS or name.startswith(GIVEN)


def check_shareable_backbone(name: str) -> None:
    """Raise an error if another process cannot make the network."""
    if name.startswith(GIVEN):
        problem = "is a module passed in Python; child processes cannot create it"
        raise UnseenError(problem, where=f"backbone {name}", hint="pass the path of a function that returns it")
    check_shareable(name, "backbone")


def make(name: str, options: Mapping[str, Any], pretrained: bool, seed: int) -> nn.Module:
    """Make a network; of a remembered module, a copy.

    Args:
        name: path, or name of a remembered module.
        options: arguments of the function or class.
        pretrained: passed on if there is an argument of that name.
        seed: seed of random weights.

    Raises:
        UnseenError: it cannot be made, or is not a module.
    """
    maker = find_maker(name)
    if isinstance(maker, nn.Module):
        return copy.deepcopy(maker)
    arguments = dict(options)
    with_pretrained = "pretrained" in _parameters(maker)
    if with_pretrained:
        arguments.setdefault("pretrained", pretrained)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = maker(**arguments)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UnseenError(f"fails with {arguments}: {said}", where=f"backbone {name}") from error
    if not isinstance(made, nn.Module):
        raise UnseenError(f"returns a {type(made).__name__}, not an nn.Module", where=f"backbone {name}")
    return made


def facts(name: str, options: Mapping[str, Any], pretrained: bool, seed: int) -> Facts:
    """Facts about a network; it is made once per process."""
    if name.startswith(GIVEN):
        return _facts(find_maker(name), find_maker(name))
    return _made_facts(name, json.dumps(dict(options), sort_keys=True), pretrained, seed)


@functools.lru_cache(maxsize=16)
def _made_facts(name: str, options: str, pretrained: bool, seed: int) -> Facts:
    return _facts(find_maker(name), make(name, json.loads(options), pretrained, seed))


def _facts(maker: Any, made: nn.Module) -> Facts:
    found = _Said(maker, made)
    size = found.of("image_size", "input_size")
    size = size[-1] if isinstance(size, tuple | list) else size
    channels = found.of("channels")
    return Facts(
        None if size is None else int(size),
        found.numbers("mean"),
        found.numbers("std"),
        channels if isinstance(channels, int) else None,
        _digest(made),
    )


class _Said:
    """Attributes of the function or class, of the network, and of its timm configuration."""

    def __init__(self, *things: Any) -> None:
        self._things = things
        configs = [c for t in things for key in ("pretrained_cfg", "default_cfg") if (c := getattr(t, key, None))]
        self._configs = [c if isinstance(c, Mapping) else vars(c) for c in configs]

    def of(self, name: str, in_config: str | None = None) -> Any:
        for thing in self._things:
            if (value := getattr(thing, name, None)) is not None and not callable(value):
                return value
        return next((c[key] for c in self._configs if c.get(key := in_config or name) is not None), None)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        value = self.of(name)
        if value is None:
            return None
        if isinstance(value, Tensor):
            value = value.flatten().tolist()
        return tuple(float(v) for v in value)


def _digest(made: nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in sorted(made.state_dict().items()):
        raw = value.detach().cpu().contiguous()
        total.update(f"{name} {tuple(raw.shape)} {raw.dtype}".encode())
        total.update(raw.flatten().view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    for kind in sorted({type(m) for m in made.modules()}, key=path_of):
        if not kind.__module__.startswith(("torch.", "timm.", "torchvision.")):
            total.update(_code(kind).encode())
    return total.hexdigest()


def _code(kind: type) -> str:
    """Code of a class without comments and layout; its name if the code is unavailable."""
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):
        return path_of(kind)


def _parameters(maker: Any) -> set[str]:
    try:
        return set(inspect.signature(maker).parameters)
    except (TypeError, ValueError):
        return set()


class Plain(nn.Module):
    """Wraps a network without timm's interface.

    Args:
        network: network; see the module's docstring.
        channels: channels of its last map, if needed to identify the axes.
        image_size: size of the probe image that finds its stages.
        where: place, for errors.
    """

    def __init__(self, network: nn.Module, channels: int | None, image_size: int, where: str) -> None:
        super().__init__()
        self.network = network
        self.num_prefix_tokens = 0
        self._stated, self._where = channels, where
        with torch.inference_mode():
            maps = self._maps(torch.zeros(1, 3, image_size, image_size))
        if wrong := [m.shape[0] for m in maps if m.shape[0] != 1]:
            problem = f"returns a map of {wrong[0]} images for one image"
            raise UnseenError(problem, where=where, hint="return (B, C, h, w), with the images first")
        self.feature_info = [
            {"num_chs": m.shape[1], "reduction": round(image_size / m.shape[2]), "module": str(i)}
            for i, m in enumerate(maps)
        ]
        if channels is not None and maps[-1].shape[1] != channels:
            problem = f"returns {maps[-1].shape[1]} channels, not the {channels} of the specification"
            raise UnseenError(problem, where=where, hint="pass the number of channels that it returns")

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        found = self.network(pixels)
        if isinstance(found, Mapping):
            found = list(found.values())
        every = list(found) if isinstance(found, tuple | list) else [found]
        if not every or not all(isinstance(m, Tensor) and m.is_floating_point() for m in every):
            raise UnseenError(
                f"returns {type(found).__name__}, not feature maps",
                where=self._where,
                hint="return (B, C, h, w), or a list of such maps",
            )
        return [self._map(m) for m in every]

    def _map(self, found: Tensor) -> Tensor:
        if found.ndim == 2:
            return found[:, :, None, None]
        if found.ndim == 4:
            last = self._stated is not None and found.shape[1] != self._stated and found.shape[3] == self._stated
            return found.permute(0, 3, 1, 2) if last else found
        side = math.isqrt(found.shape[1]) if found.ndim == 3 else 0
        if not side or side * side != found.shape[1]:
            problem = f"returns {tuple(found.shape)}, which is not a grid of regions"
            raise UnseenError(problem, where=self._where, hint="return (B, C, h, w), or (B, T, C) for a square grid")
        result: Tensor = found.transpose(1, 2).unflatten(2, (side, side))
        return result

    def forward(self, pixels: Tensor) -> Tensor:
        """The last map ``(B, C, h, w)``."""
        return self._maps(pixels)[-1]

    forward_features = forward

    def forward_intermediates(
        self, pixels: Tensor, indices: list[int], intermediates_only: bool = False, stop_early: bool = False
    ) -> Any:
        """Maps of some stages, and the last one unless ``intermediates_only``."""
        maps = self._maps(pixels)
        found = [maps[i] for i in indices]
        return found if intermediates_only else (maps[-1], found)
