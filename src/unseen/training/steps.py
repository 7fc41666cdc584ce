"""Optimizer steps of a stage, with the same operations on the same memory each time so that a GPU can replay them.

A step returns one small tensor on the device, with its loss terms and the norm of the new weights; the host waits for
nothing else. With ``graph`` the operations are captured once as a CUDA graph and launched as a whole from then on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from unseen.errors import UnseenError
from unseen.ground.distributed import add_gradients, add_up, part, processes, rows_of_all
from unseen.methods.base import Branch, GradientMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.share import Share, sharing
from unseen.training.divergence import WEIGHTS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

WARM_UP = 3
"""Number of ordinary steps before a capture: libraries initialize, and optimizers create their state."""


class Features(Protocol):
    """Prepared regions of some images, by position."""

    def __len__(self) -> int:
        """Number of images."""

    def batch(self, positions: Any) -> Tensor:
        """``(B, R', C)`` on the training device; positions are an array, or on that device if features are there."""


@runtime_checkable
class AugmentedFeatures(Features, Protocol):
    """Training features that are drawn anew for every step."""

    def augmented(self, positions: Any, key: tuple[int, ...]) -> Tensor:
        """Like ``batch``, but drawn: a pure function of image and key, which is the training's seed and step."""


def read_ahead(features: Features) -> bool:
    """Whether regions are read before a step instead of gathered in it."""
    return bool(getattr(features, "streams", False)) or isinstance(features, AugmentedFeatures)


class Objective(nn.Module):
    """Forward and loss as one module, which Fabric's precision (and data parallelism) wraps as a whole.

    The loss is computed outside autocast, in the weights' precision.
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
        """Regions ``(B, R, C)`` and labels ``(B,)`` to loss terms, each weighted by the batch's share of the step.

        Each of several processes has the regions of its ``own`` rows (start and end) and the labels of all. Branches
        are gathered before the loss, so that every process computes the loss of the whole batch.
        """
        count, rows = len(labels), None if own is None else range(*own)  # Fabric accepts no range
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
    """Gather the rows of all processes; backward, sum the gradients of the own rows over processes."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rows: range, count: int) -> Tensor:
        ctx.rows = rows
        return rows_of_all(own, rows, count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        summed = add_up(gradients[0].clone())
        return summed[ctx.rows.start : ctx.rows.stop], None, None


def to_weight_precision(branches: dict[str, Branch], classes: ClassSpace) -> None:
    """Convert branches to the dtype of the class vectors, after a forward in lower precision."""
    dtype = classes.vectors.dtype
    for branch in branches.values():
        branch.change(lambda value: value.to(dtype) if value.is_floating_point() else value)


class Steps:
    """Takes the steps of one training.

    Args:
        method: method in training mode.
        optimizer: optimizer of its parameters; ``capturable`` if ``graph`` is set.
        features: features of the training images, on the device unless they are :func:`read_ahead`.
        labels: ``(n,)`` positions in ``classes``.
        classes: classes, on the device.
        size: images per step.
        accumulate: micro-batches per step.
        fabric: device and precision.
        graph: replay a CUDA graph; see :func:`check_graph`.

    Attributes:
        optimizer: the optimizer as wrapped by Fabric.
        terms: names of a step's numbers, with ``weights`` last; known after the first step.
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
        """Regions of a step's micro-batches if they are :func:`read_ahead`, else ``None``."""
        features = self._features
        if not read_ahead(features):
            return None
        own = [images[self.own(piece)] for piece in self._pieces]
        if isinstance(features, AugmentedFeatures):
            return [features.augmented(mine, key) for mine in own]
        return [features.batch(mine) for mine in own]

    def __call__(self, images: np.ndarray, regions: list[Tensor] | None = None) -> Tensor:
        """Take a step on the images ``(size,)``, with regions that :meth:`read` returned, if any.

        Returns:
            ``(T + 1,)`` on the device, named by :attr:`terms`: loss terms summed over passes, and the norm of the
            weights.
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
        """One batch: an optimizer step for each of the method's passes."""
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
            # momentum must not move what a later pass does not reach
            self.optimizer.zero_grad(set_to_none=True)
        self.terms = (*totals, WEIGHTS)
        norm = torch.nn.utils.get_total_norm([p.detach() for p in self._trained])
        return torch.stack([*totals.values(), norm.to(totals["total"].dtype)])


class Graph:
    """A function without arguments, called :data:`WARM_UP` times and then replayed as a CUDA graph.

    The first calls are real calls: they do exactly what happens without a graph. Inputs and results of the function
    stay at the same addresses.

    Args:
        work: the function; reads only what is on the device.
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
        """Call the function, or replay it.

        Args:
            key: numbers that the function takes from the host; a new key captures a new graph.
        """
        if self._called < WARM_UP:
            self._called += 1
            return self._warm_up()
        if self._graph is None or key != self._key:
            self._graph = None  # free its memory first
            self._capture()
            self._key = key
        self._graph.replay()
        return self._found

    def _warm_up(self) -> Tensor:
        """Run on the stream of the capture, so that per-stream state is ready for it."""
        self._stream = self._stream or torch.cuda.Stream(self._device)
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True")  # the next call captures
            found = self._work()
        here.wait_stream(self._stream)
        return found

    def _capture(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._found = self._work()


def check_graph(method: GradientMethod, features: Features, fabric: Fabric) -> None:
    """Check that the steps of a training can be replayed.

    Raises:
        UnseenError: they cannot, with the reason.
    """
    check_graph_device(fabric)
    hint = "omit --graph"
    if not method.static_step:
        raise UnseenError(f"a step of {method.name} synchronizes with the host", where="--graph", hint=hint)
    if read_ahead(features):
        raise UnseenError("the features do not fit into GPU memory", where="--graph", hint=f"{hint}, or raise --memory")


def check_graph_device(fabric: Fabric) -> None:
    """The part of the check that needs no method and no features; raises as :func:`check_graph`."""
    hint = "omit --graph"
    if fabric.device.type != "cuda":
        raise UnseenError(f"needs a CUDA device; this is {fabric.device.type}", where="--graph", hint=hint)
    if processes() > 1:
        raise UnseenError("works with one process", where="--graph", hint=hint)
    if getattr(fabric.strategy.precision, "scaler", None) is not None:
        raise UnseenError("float16 training skips steps", where="--graph", hint="--precision bf16-mixed")


def non_finite(state: dict[str, Any]) -> str | None:
    """Name of the first tensor with a value that is not finite; synchronizes with the device once."""
    floating = {n: v for n, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}
    device = max((v.device for v in floating.values()), key=lambda d: d.type != "cpu", default=torch.device("cpu"))
    good = [v.detach().isfinite().all().to(device) for v in floating.values()]
    flags = torch.stack(good).tolist() if good else []
    return next((name for name, fine in zip(floating, flags, strict=True) if not fine), None)


def wrong(numbers: dict[str, float]) -> str | None:
    """Name of the first number that is not finite."""
    return next((name for name, value in numbers.items() if not math.isfinite(value)), None)
