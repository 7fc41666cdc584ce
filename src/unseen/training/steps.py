"""One optimiser step of a stage: the same operations on the same memory every time, so that a GPU can replay it.

A step ends in one small tensor on the device, its loss terms and the norm of the weights that it left: all that the
host waits for. With ``graph`` the operations are captured once as a CUDA graph and launched as a whole after that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.distributed import add_gradients, add_up, part, processes, rows_of_all
from unseen.methods.base import Branch, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.share import Share, sharing
from unseen.training.divergence import WEIGHTS

WARM_UP = 3
"""Steps taken one operation at a time before a capture: libraries set themselves up, optimisers make their state."""


class Features(Protocol):
    """Prepared regions of some images, by position."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, positions: Any) -> Tensor:
        """``(B, R', C)`` on the training device; positions are an array, or on that device if features are there."""


@runtime_checkable
class AugmentedFeatures(Features, Protocol):
    """What is trained on in a form drawn anew for every step."""

    def augmented(self, positions: Any, key: tuple[int, ...]) -> Tensor:
        """As ``batch``, drawn; a pure function of image and key, which is the training's seed and step."""


def read_ahead(features: Features) -> bool:
    """Whether regions are read before a step instead of gathered in it."""
    return bool(getattr(features, "streams", False)) or isinstance(features, AugmentedFeatures)


class Objective(nn.Module):
    """Forward and loss as one module, so that Fabric's precision (and data parallel) wraps all of it.

    The loss is taken outside autocast, in the weights' precision.
    """

    def __init__(self, method: GradientMethod, classes: ClassSpace) -> None:
        super().__init__()
        self.method = method
        self.classes = classes

    def forward(
        self,
        regions: Tensor,
        labels: Tensor,
        share: float,
        trained: tuple[int, ...] = (),
        own: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        """Regions ``(B, R, C)`` and labels ``(B,)`` to the loss terms, each times the batch's share of the step.

        Of several processes each has the regions of its ``own`` rows, from one to before another, and the labels of
        all. What branches hold is put together before the loss, which is then that of the whole batch in each.
        """
        count, rows = len(labels), None if own is None else range(*own)  # Fabric takes no range
        found = None if rows is None else Share(rows, count, lambda mine: rows_of_all(mine, rows, count))
        with sharing(found):
            branches = self.method.forward_pass(regions, trained)
        with torch.autocast(regions.device.type, enabled=False):
            to_weight_precision(branches, self.classes)
            if rows is not None:
                for branch in branches.values():
                    branch.change(lambda mine: _WholeBatch.apply(mine, rows, count))
            terms = self.method.loss(branches, labels, self.classes)
            return {name: share * term for name, term in terms.items()}


class _WholeBatch(torch.autograd.Function):
    """Rows of each process to those of all; backward, the sum over processes of the gradients of the own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: range, count: int) -> Tensor:
        ctx.rows = rows
        return rows_of_all(own, rows, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        summed = add_up(gradients[0].clone())
        return summed[ctx.rows.start : ctx.rows.stop], None, None


def to_weight_precision(branches: dict[str, Branch], classes: ClassSpace) -> None:
    """Whatever branches hold in the type of the class vectors, after a forward in lower precision."""
    dtype = classes.vectors.dtype
    for branch in branches.values():
        branch.change(lambda value: value.to(dtype) if value.is_floating_point() else value)


class Steps:
    """Takes the steps of one training.

    Args:
        method: in training mode.
        optimizer: over its parameters; ``capturable`` where ``graph`` is asked for.
        features: of the training images, on the device unless they are :func:`read_ahead`.
        labels: ``(n,)`` their positions in ``classes``.
        classes: on the device.
        size: images a step.
        accumulate: micro-batches a step.
        fabric: device and precision.
        graph: replay a CUDA graph; see :func:`check_graph`.

    Attributes:
        optimizer: as Fabric wraps it.
        terms: names of a step's numbers, the last of them ``weights``; known after the first step.
    """

    def __init__(
        self,
        method: GradientMethod,
        optimizer: torch.optim.Optimizer,
        features: Features,
        labels: np.ndarray,
        classes: ClassSpace,
        size: int,
        accumulate: int,
        fabric: Fabric,
        graph: bool = False,
    ) -> None:
        self._model, self.optimizer = fabric.setup(Objective(method, classes), optimizer)
        self._method, self._features, self._fabric = method, features, fabric
        self._trained = [p for p in method.parameters() if p.requires_grad]
        self._labels = torch.as_tensor(labels, device=fabric.device)
        self._images = torch.zeros(size, dtype=torch.int64, device=fabric.device)
        edges = np.cumsum([0, *map(len, np.array_split(np.arange(size), min(accumulate, size)))]).tolist()
        self._pieces = [slice(start, stop) for start, stop in pairwise(edges)]
        self._graph = Graph(self._gathered, fabric.device) if graph else None
        self.terms: tuple[str, ...] = ()

    def own(self, piece: slice) -> slice:
        """The images of a micro-batch that this process computes."""
        rows = part(piece.stop - piece.start)
        return slice(piece.start + rows.start, piece.start + rows.stop)

    def read(self, images: np.ndarray, key: tuple[int, ...]) -> list[Tensor] | None:
        """Regions of a step's micro-batches where they are :func:`read_ahead`, else ``None``."""
        features = self._features
        if not read_ahead(features):
            return None
        own = [images[self.own(piece)] for piece in self._pieces]
        if isinstance(features, AugmentedFeatures):
            return [features.augmented(mine, key) for mine in own]
        return [features.batch(mine) for mine in own]

    def __call__(self, images: np.ndarray, regions: list[Tensor] | None = None) -> Tensor:
        """A step on the images ``(size,)``, of which :meth:`read` may have read the regions.

        Returns:
            ``(T + 1,)`` on the device, named by :attr:`terms`: loss terms summed over passes, norm of the weights.
        """
        self._images.copy_(torch.from_numpy(images))
        if regions is not None:
            return self._take(regions)
        if self._graph is None:
            return self._gathered()
        return self._graph(tuple(group["lr"] for group in self.optimizer.param_groups))

    def _gathered(self) -> Tensor:
        return self._take([self._features.batch(self._images[self.own(piece)]) for piece in self._pieces])

    def _take(self, regions: Sequence[Tensor]) -> Tensor:
        """One batch: an optimiser step for each of the method's passes."""
        count, totals = len(self._images), dict[str, Tensor]()
        for trained in self._method.passes():
            for piece, mine in zip(self._pieces, regions, strict=True):
                labels, size = self._labels[self._images[piece]], piece.stop - piece.start
                rows = part(size)
                own = (rows.start, rows.stop) if processes() > 1 else None
                terms = self._model(mine, labels, size / count, trained, own)
                # all have the whole loss, and their gradients are added up
                self._fabric.backward(terms["total"] / processes())
                for name, term in terms.items():
                    totals[name] = totals[name] + term.detach() if name in totals else term.detach()
            add_gradients(self._method)
            self.optimizer.step()
            # what a later pass does not reach must not be moved by momentum
            self.optimizer.zero_grad(set_to_none=True)
        self.terms = (*totals, WEIGHTS)
        norm = torch.nn.utils.get_total_norm([p.detach() for p in self._trained])
        return torch.stack([*totals.values(), norm.to(totals["total"].dtype)])


class Graph:
    """A function without arguments, called as it is :data:`WARM_UP` times and replayed as a CUDA graph after that.

    The first calls are real ones: nothing is done that would not be done without a graph. What the function reads and
    returns stays at the same addresses.

    Args:
        work: what to do; reads nothing that is not on the device.
        device: a CUDA device.
    """

    def __init__(self, work: Callable[[], Tensor], device: torch.device) -> None:
        self._work, self._device = work, device
        self._called = 0
        self._key: object = None
        self._graph: Any = None
        self._found: Tensor
        self._stream: Any = None

    def __call__(self, key: object = None) -> Tensor:
        """The function's result.

        Args:
            key: numbers that the function takes from the host; where they differ it is captured anew.
        """
        if self._called < WARM_UP:
            self._called += 1
            return self._warm_up()
        if self._graph is None or key != self._key:
            self._graph = None  # its memory is given back first
            self._capture()
            self._key = key
        self._graph.replay()
        return self._found

    def _warm_up(self) -> Tensor:
        """On the stream of the capture, so that what is set up by stream is there for it."""
        self._stream = self._stream or torch.cuda.Stream(self._device)
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True")  # it will be captured
            found = self._work()
        here.wait_stream(self._stream)
        return found

    def _capture(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._found = self._work()


def check_graph(method: GradientMethod, features: Features, fabric: Fabric) -> None:
    """Whether the steps of a training can be replayed.

    Raises:
        UnseenError: they cannot; the reason.
    """
    check_graph_device(fabric)
    hint = "omit --graph"
    if not method.static_step:
        raise UnseenError(f"a step of {method.name} synchronizes with the host", where="--graph", hint=hint)
    if read_ahead(features):
        raise UnseenError("the features do not fit into GPU memory", where="--graph", hint=f"{hint}, or raise --memory")


def check_graph_device(fabric: Fabric) -> None:
    """What of it is known before any method or feature is; raises as :func:`check_graph`."""
    hint = "omit --graph"
    if fabric.device.type != "cuda":
        raise UnseenError(f"needs a CUDA device; this is {fabric.device.type}", where="--graph", hint=hint)
    if processes() > 1:
        raise UnseenError("works with one process", where="--graph", hint=hint)
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise UnseenError("float16 training skips steps", where="--graph", hint="--precision bf16-mixed")


def non_finite(state: dict[str, Any]) -> str | None:
    """The first of some named tensors that holds a number that is none; they are asked in one go."""
    floating = {n: v for n, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}
    device = max((v.device for v in floating.values()), key=lambda d: d.type != "cpu", default=torch.device("cpu"))
    good = [v.detach().isfinite().all().to(device) for v in floating.values()]
    flags = torch.stack(good).tolist() if good else []
    return next((name for name, fine in zip(floating, flags, strict=True) if not fine), None)


def wrong(numbers: dict[str, float]) -> str | None:
    """The name of the first number that is not finite."""
    return next((name for name, value in numbers.items() if not math.isfinite(value)), None)
