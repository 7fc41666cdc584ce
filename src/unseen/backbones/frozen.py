"""The frozen layers of a network whose last layers train: their output is computed once, and replaces the images.

They end with the last stage but one, as timm's `feature_info` names it. The network is still called as usual, so that
nothing about its kind has to be known: with images of zeros, while modules up to there return zeros, and the last one
of them its output, computed before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Maps = TypeVar("Maps")


def last_frozen(network: nn.Module) -> str | None:
    """Name of the module that ends the frozen layers; `None` if the network does not name it."""
    info = list(getattr(network, "feature_info", []))
    name = info[-2].get("module") if len(info) > 1 else None
    return name if name in dict(network.named_modules()) else None


def output_of_frozen(network: nn.Module, call: Callable[[], object]) -> Tensor:
    """Output of the frozen layers as a map `(B, C, h, w)` when `call` runs the network; tokens are a single row."""
    found: list[Tensor] = []
    hook = network.get_submodule(last_frozen(network) or "").register_forward_hook(lambda *call: found.append(call[2]))
    try:
        call()
    finally:
        hook.remove()
    return found[0].transpose(1, 2).unsqueeze(2) if found[0].ndim == 3 else found[0]


class Skipped:
    """The skipped layers of a network, with the output that replaces theirs.

    Args:
        side: side of the network's images.
        height: height of the output.
    """

    def __init__(self, side: int, height: int) -> None:
        self._side, self.height, self._output = side, height, torch.empty(0)

    def __deepcopy__(self, memo: dict[int, Any]) -> Skipped:
        return Skipped(self._side, self.height)

    def call(self, maps: Callable[[Tensor], Maps], output: Tensor) -> Maps:
        """Maps of the images with this output `(B, C, h, w)` of frozen layers."""
        self._output = output
        return maps(output.new_zeros(()).expand(len(output), 3, self._side, self._side))

    def skip(self, module: Any, output: Tensor, last: bool) -> None:
        """Replace a module, given its output for an image."""
        module.forward = _Replaced(self, tuple(output.shape[1:]), last)

    def replaced(self, shape: tuple[int, ...], last: bool) -> Tensor:
        """Output of a replaced module."""
        if not last:
            return self._output.new_zeros(()).expand(len(self._output), *shape)
        return self._output.squeeze(2).transpose(1, 2) if len(shape) == 2 else self._output


class _Replaced:
    """The forward of a replaced module."""

    def __init__(self, skipped: Skipped, shape: tuple[int, ...], last: bool) -> None:
        self._skipped, self._shape, self._last = skipped, shape, last

    def __call__(self, *_: Any, **__: Any) -> Tensor:
        return self._skipped.replaced(self._shape, self._last)


@torch.no_grad()
def skip_frozen(
    network: nn.Module, maps: Callable[[Tensor], list[Tensor]], image: Tensor, output: Tensor
) -> Skipped | None:
    """Skip the frozen layers of a network from now on, if its maps stay the same. Their weights remain in its state.

    Args:
        network: the network.
        maps: computes maps with it, from images `(B, 3, H, W)`.
        image: an image to try it on.
        output: the frozen layers' output for it, from :func:`output_of_frozen`.

    Returns:
        The skipped layers; `None` if the maps would change, as they do if later layers use an earlier output too. The
        network is then unchanged.
    """
    before, frozen = maps(image), _frozen(network, lambda: maps(image))
    skipped = Skipped(image.shape[-1], output.shape[2])
    if not frozen or not all(isinstance(found, Tensor) and len(found) == 1 for _, found in frozen):
        return None
    end = network.get_submodule(last_frozen(network) or "")
    for module, found in frozen:
        skipped.skip(module, found, module is end)
    try:
        after = skipped.call(maps, output)
        if all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(before, after, strict=True)):
            return skipped
    except (RuntimeError, ValueError):
        pass  # they take something of another shape
    for module, _ in frozen:
        del module.forward
    return None


def _frozen(network: nn.Module, call: Callable[[], object]) -> Sequence[tuple[Any, Any]]:
    """The outermost modules that finish no later than the frozen layers when `call` runs the network, with outputs."""
    finished: dict[nn.Module, Any] = {}
    hooks = [
        m.register_forward_hook(lambda module, _, out: finished.setdefault(module, out)) for m in network.modules()
    ]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    end = network.get_submodule(last_frozen(network) or "")
    early = list(finished)[: list(finished).index(end) + 1]
    inside = {id(child) for module in early for child in module.modules() if child is not module}
    return [(module, finished[module]) for module in early if id(module) not in inside]
