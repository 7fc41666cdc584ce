"""The frozen layers of a network whose last layers train: their output is computed once, then they are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LAST_FROZEN = -2
"""The stage that ends the frozen layers: the last but one."""


def last_frozen(network: nn.Module) -> str | None:
    """Name of the module that ends the stage :data:`LAST_FROZEN`, or `None`, by timm's `feature_info`."""
    info = list(getattr(network, "feature_info", []))
    name = info[LAST_FROZEN].get("module") if len(info) > 1 else None
    return name if name in dict(network.named_modules()) else None


@torch.no_grad()
def skip_frozen(network: nn.Module, maps: Callable[[Tensor], Sequence[Tensor]], pixels: Tensor, output: Tensor) -> bool:
    """Make every module up to the stage :data:`LAST_FROZEN` return its input, if this gives the same maps.

    It does if these modules form a chain, as in most convolutional networks. Their weights stay in the state dict.

    Args:
        network: the network.
        maps: computes maps from images, or from the frozen layers' output.
        pixels: images to try it on.
        output: the frozen layers' output for them.

    Returns:
        Whether the maps are the same; if not, the network is unchanged.
    """
    before, skipped = maps(pixels), _frozen(network, lambda: maps(pixels))
    for module in skipped:
        module.forward = _unchanged
    try:
        after = maps(output)
        if skipped and all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(before, after, strict=True)):
            return True
    except (RuntimeError, ValueError):
        pass  # they take something of another shape
    for module in skipped:
        del module.forward
    return False


def _frozen(network: nn.Module, call: Callable[[], object]) -> list[Any]:
    """The outermost modules that finish no later than the frozen layers when `call` runs the network."""
    finished: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda module, *_: finished.append(module)) for m in network.modules()]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    last = last_frozen(network)
    end = None if last is None else network.get_submodule(last)
    early = list(dict.fromkeys(finished[: finished.index(end) + 1])) if end in finished else []
    inside = {id(child) for module in early for child in module.modules() if child is not module}
    return [module for module in early if id(module) not in inside]


def _unchanged(inputs: Any, *_: Any, **__: Any) -> Any:
    return inputs
