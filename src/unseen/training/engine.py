"""One training loop for every gradient method, on Lightning Fabric: resumable, interruptible, deterministic on CPU."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unseen.data.dataset import digest
from unseen.data.samplers import Sampler, create_sampler
from unseen.devices import split_device
from unseen.distributed import (
    add_gradients,
    add_up,
    any_of,
    give_to_all,
    is_first,
    launched,
    local_processes,
    part,
    processes,
    rows_of_all,
)
from unseen.errors import RunError, UnseenError
from unseen.evaluation.metrics import Decisions
from unseen.files import write_text
from unseen.methods.base import Branch, ClassSpace, GradientMethod, Method, Recipe
from unseen.methods.share import Share, sharing
from unseen.progress import Report, silent
from unseen.training.checkpoints import load_checkpoint, read_info, save_checkpoint

CHECKPOINT_SECONDS = 60.0
CLASS_BLOCK = 4096
"""Classes scored at a time in testing."""
PRECISIONS = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
_BACKENDS = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
"""Fabric's precision to the type that features are kept in; weights are float64 for ``64-true``, else float32."""


class Features(Protocol):
    """Prepared regions of some pictures, by position."""

    def __len__(self) -> int:
        """Number of pictures."""

    def batch(self, positions: np.ndarray) -> Tensor:
        """``(B, R', C)`` on the training device."""


@runtime_checkable
class AugmentedFeatures(Features, Protocol):
    """What is trained on in a form drawn anew for every step."""

    def augmented(self, positions: np.ndarray, key: tuple[int, ...]) -> Tensor:
        """As ``batch``, drawn; a pure function of picture and key, which is the training's seed and step."""


OnEpoch = Callable[[int, Method, list[dict[str, Any]]], dict[str, Any]]


K = TypeVar("K")
V = TypeVar("V")


class Interrupted(KeyboardInterrupt):
    """Training stopped on request; its checkpoint is written."""


class DivergedError(UnseenError):
    """A loss is no longer a finite number."""


class _Replicas(DDPStrategy):
    """A process a device, each with the whole model, whose gradients :func:`_step` adds up."""

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        """As it is."""
        return module


def make_fabric(device: str = "auto", precision: str = "32-true") -> Fabric:
    """Fabric on one device; a process that torchrun started joins the others, and takes a GPU of its own.

    Args:
        device: Fabric's accelerator (``auto``, ``cpu``, ``cuda``, ``mps``), or one CUDA device as ``cuda:1``.
        precision: a key of :data:`PRECISIONS`.

    Raises:
        UnseenError: no such device or precision here.
    """
    if precision not in PRECISIONS:
        raise UnseenError(f'unknown precision "{precision}"', mend=f"one of {', '.join(PRECISIONS)}")
    accelerator, index = split_device(device)
    options: dict[str, Any] = {"devices": 1 if index is None else [index]}
    if launched():
        if index is not None:
            raise UnseenError(f'one device "{device}" for all processes', mend="--device cuda: each takes its own")
        options = {"devices": local_processes(), "num_nodes": int(os.environ["GROUP_WORLD_SIZE"])}
        options["strategy"] = _Replicas(process_group_backend=_BACKENDS, timeout=timedelta(hours=6))
    try:
        fabric = Fabric(accelerator=accelerator, precision=precision, **options)  # type: ignore[arg-type]
        if launched():
            fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UnseenError(f'cannot use device "{device}" ({error})', mend="auto or cpu") from None
    except Exception as error:  # Fabric's own MisconfigurationException is private
        raise UnseenError(f'cannot use device "{device}" ({error})', mend="auto or cpu") from None
    if fabric.device.type == "cpu" and precision == "16-mixed":
        raise UnseenError("float16 training needs a GPU", where="precision", mend="bf16-mixed or 32-true on the CPU")
    return fabric


def weight_dtype(precision: str) -> torch.dtype:
    """The type that parameters have under a precision."""
    return torch.float64 if precision == "64-true" else torch.float32


def epoch_ends(pictures: int, recipe: Recipe) -> list[int]:
    """The step after which each epoch ends; the last is the number of steps, at least one an epoch."""
    if recipe.batches:
        return [recipe.batches * (e + 1) for e in range(recipe.epochs)]
    steps = max(recipe.epochs, pictures * recipe.epochs // (recipe.step_pictures or recipe.batch_size))
    return [round(steps * (e + 1) / recipe.epochs) for e in range(recipe.epochs)]


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag to ask for; outside the main thread it is never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@dataclass
class Stage:
    """One training: what, on what, how long.

    Args:
        method: with its initial weights.
        features: of the training pictures.
        labels: ``(n,)`` positions in ``classes``.
        classes: on the training device.
        recipe: how.
        seed: of sampling and of any randomness inside the method.
        epochs: how many of the recipe's epochs to do; schedules are those of the whole recipe.
        identity: anything else that makes this training what it is (features, split), for safe resuming.
    """

    method: GradientMethod
    features: Features
    labels: np.ndarray
    classes: ClassSpace
    recipe: Recipe
    seed: int
    epochs: int
    identity: str = ""

    def fingerprint(self) -> str:
        """Digest of everything that decides the weights."""
        shapes = [f"{n}{tuple(p.shape)}{p.dtype}" for n, p in self.method.named_parameters()]
        parts = (self.method.name, self.method.settings, asdict(self.recipe), self.seed, shapes, self.identity)
        return digest(*parts, self.labels, self.classes.vectors.double().cpu().numpy(), self.classes.seen.cpu().numpy())


class _Objective(nn.Module):
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
        all. Attribute scores are put together before the loss, which is then that of the whole batch in each.
        """
        count, rows = len(labels), None if own is None else range(*own)  # Fabric takes no range
        found = None if rows is None else Share(rows, count, lambda mine: rows_of_all(mine, rows, count))
        with sharing(found):
            branches = self.method.forward_pass(regions, trained)
        with torch.autocast(regions.device.type, enabled=False):
            to_weight_precision(branches, self.classes)
            if rows is not None:
                for branch in branches.values():
                    branch.attribute_scores = _WholeBatch.apply(branch.attribute_scores, rows, count)
                    if branch.counterfactual is not None:
                        branch.counterfactual = _WholeBatch.apply(branch.counterfactual, rows, count)
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
    """Attribute scores in the type of the class vectors, after a forward in lower precision."""
    for branch in branches.values():
        branch.attribute_scores = branch.attribute_scores.to(classes.vectors.dtype)
        if branch.counterfactual is not None:
            branch.counterfactual = branch.counterfactual.to(classes.vectors.dtype)


def train(
    stage: Stage,
    fabric: Fabric,
    folder: Path,
    *,
    on_epoch: OnEpoch = lambda epoch, method, earlier: {},
    accumulate: int = 1,
    task: str = "training",
    report: Report = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[dict[str, Any]]:
    """Train a stage, or go on where an earlier call was stopped.

    ``folder`` gets ``metrics.jsonl`` (a line an epoch), ``tensorboard/`` and ``checkpoint.safetensors``. On SIGINT or
    SIGTERM the checkpoint is written and :class:`Interrupted` raised; the same call then resumes, and on the CPU ends
    with the same bytes as if it had not stopped.

    Args:
        stage: what to train.
        fabric: device and precision.
        folder: where its files go.
        on_epoch: called after every epoch with its number (from 1), the method in evaluation mode and the records of
            earlier epochs; returns metrics.
        accumulate: micro-batches a step, each shared by all processes. Losses that are no mean over pictures
            (self-calibration) are taken within each micro-batch.
        task: name for the progress report.
        report: progress.
        checkpoint_seconds: how often to write the checkpoint.

    Returns:
        One record an epoch: epoch, step, mean losses, metrics, seconds.

    Raises:
        Interrupted: stopped on request.
        DivergedError: a loss is not finite; the last checkpoint stands.
        RunError: the checkpoint is damaged, or of another training.
    """
    from torch.utils.tensorboard import SummaryWriter

    ends = epoch_ends(len(stage.labels), stage.recipe)[: stage.epochs]
    recipe = stage.recipe
    sampler = create_sampler(recipe.sampler, stage.labels, recipe.batch_size, stage.seed, recipe.shots)
    path, identity = folder / "checkpoint.safetensors", stage.fingerprint()
    records: list[dict[str, Any]] = []
    step = 0
    sums: dict[str, float] = {}
    optimizer = stage.recipe.make_optimizer(stage.method.parameters())
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(stage.seed)
        info = read_info(path)
        averaged = _averaged(stage)
        if info is not None and info["identity"] == identity:
            load_checkpoint(path, stage.method, optimizer, averaged)
            step, records, sums = info["step"], info["records"], info["sums"]
            # a checkpoint of a longer training holds this one's end too, but not its weights
            if step > ends[-1]:
                raise UnseenError("trained further than asked", where=path, mend="delete it, or ask for more epochs")
        else:
            if is_first():
                stage.method.start(_everything(stage, fabric), stage.classes)
            give_to_all(stage.method)
        if any_of(add_up(torch.tensor([float(step)])).item() != step * processes()):
            raise RunError(
                "its checkpoint is not seen by all", where=folder, mend="keep it where all nodes have access"
            )
        least = len(sampler(0)) // accumulate
        if processes() > 1 and least < processes():
            problem = f"{processes()} processes share batches of {least} pictures"
            raise UnseenError(problem, mend="start fewer processes, or give a larger batch_size or smaller accumulate")
        model, wrapped = fabric.setup(_Objective(stage.method, stage.classes), optimizer)
        labels = torch.as_tensor(stage.labels, device=fabric.device)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        board = SummaryWriter(str(folder / "tensorboard"), purge_step=step if step else None)

        def save() -> None:
            if not is_first():
                return
            state = {"identity": identity, "step": step, "records": records, "sums": sums}
            save_checkpoint(path, stage.method, wrapped.optimizer, state, averaged)

        saved = time.monotonic()
        started = time.monotonic()
        try:
            draws = _drawn(stage, sampler, range(step, ends[-1]), accumulate)
            with closing(draws), stop_on_signal() as asked:
                while step < ends[-1]:
                    stage.method.train()
                    for group in wrapped.param_groups:
                        group["lr"] = recipe.lr_of(bisect_right(ends, step) + 1)
                    for name, value in _step(model, wrapped, fabric, stage, labels, next(draws)).items():
                        number = value.item()
                        if not np.isfinite(number):
                            raise DivergedError(
                                f"{name} is {number} at step {step + 1}",
                                where=folder,
                                mend="lower the learning rate; the last checkpoint stands",
                            )
                        sums[name] = sums.get(name, 0.0) + number
                    step += 1
                    if averaged is not None:
                        averaged.update_parameters(stage.method)
                    if step in ends:
                        epoch = ends.index(step) + 1
                        first = ends[epoch - 2] if epoch > 1 else 0
                        losses = {name: total / (step - first) for name, total in sums.items()}
                        tested: Any = stage.method if averaged is None else averaged.module
                        tested.eval()
                        metrics = on_epoch(epoch, tested, records)
                        seconds = round(time.monotonic() - started, 3)
                        record: dict[str, Any] = {
                            "epoch": epoch,
                            "step": step,
                            "loss": losses,
                            "metrics": metrics,
                            "seconds": seconds,
                        }
                        records.append(record)
                        sums = {}
                        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                            lines.write(json.dumps(record) + "\n")
                        for group, values in (("loss", losses), ("metrics", metrics)):
                            for name, entry in values.items():
                                if isinstance(entry, float):
                                    board.add_scalar(f"{group}/{name}", entry, step)
                        started = time.monotonic()
                    note = _note(records)
                    report(task, step, ends[-1], note)
                    if any_of(asked()):
                        save()
                        raise Interrupted(f"stopped at step {step} of {ends[-1]}")
                    if time.monotonic() - saved > checkpoint_seconds or step == ends[-1]:
                        save()
                        saved = time.monotonic()
        finally:
            board.close()
    if averaged is not None:
        stage.method.load_state_dict(averaged.module.state_dict())
    stage.method.eval()
    report(task, step, ends[-1], _note(records))
    return records


def _averaged(stage: Stage) -> AveragedModel | None:
    """What keeps the moving average of the weights, if the recipe asks for one."""
    decay = stage.recipe.average
    return AveragedModel(stage.method, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def _everything(stage: Stage, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training picture's prepared regions and label, in batches."""
    for positions in batches(len(stage.labels)):
        regions = stage.features.batch(positions).to(next(stage.method.parameters()).dtype)
        yield regions, torch.as_tensor(stage.labels[positions], device=fabric.device)


def _note(records: list[dict[str, Any]]) -> str:
    if not records:
        return ""
    last = records[-1]
    names = {"T1": "T1", "best_H": "H"}  # H at its best gamma, as the choice of the epoch has it
    shown = {names[k]: v for k, v in last["metrics"].items() if k in names and v is not None}
    return " ".join([f"loss {last['loss']['total']:.3f}", *(f"{k} {100 * v:.1f}" for k, v in shown.items())])


@dataclass(frozen=True)
class _Piece:
    """A micro-batch: its pictures, those of them that this process computes (None: all), and their regions."""

    pictures: np.ndarray
    rows: range | None
    regions: Tensor


def _drawn(stage: Stage, sampler: Sampler, steps: range, accumulate: int) -> Generator[list[_Piece]]:
    """Every step's micro-batches; those that have to be read come while the step before is computed."""
    features = stage.features

    def draw(step: int) -> list[_Piece]:
        positions, pieces = sampler(step), []
        for pictures in np.array_split(positions, min(accumulate, len(positions))):
            rows = part(len(pictures)) if processes() > 1 else None
            own = pictures if rows is None else pictures[rows.start : rows.stop]
            if isinstance(features, AugmentedFeatures):
                regions = features.augmented(own, (stage.seed, step))
            else:
                regions = features.batch(own)
            pieces.append(_Piece(pictures, rows, regions))
        return pieces

    yield from ahead(draw, steps, features)


def ahead(work: Callable[[K], V], keys: Iterable[K], features: Features) -> Iterator[V]:
    """``work`` of every key in order; where features are read from disk, of the next one in the background."""
    if not getattr(features, "streams", False):
        yield from map(work, keys)
        return
    pending: deque[Future[V]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for key in keys:
            pending.append(pool.submit(work, key))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _step(
    model: Any, optimizer: Any, fabric: Fabric, stage: Stage, labels: Tensor, pieces: list[_Piece]
) -> dict[str, Tensor]:
    """One batch: an optimiser step for each of the method's passes; loss terms are summed over passes."""
    count = sum(len(piece.pictures) for piece in pieces)
    totals: dict[str, Tensor] = {}
    for trained in stage.method.passes():
        for piece in pieces:
            every = labels[torch.as_tensor(piece.pictures, device=labels.device)]
            own = None if piece.rows is None else (piece.rows.start, piece.rows.stop)
            terms = model(piece.regions, every, len(piece.pictures) / count, trained, own)
            fabric.backward(terms["total"] / processes())  # all have the whole loss, and their gradients are added up
            for name, term in terms.items():
                totals[name] = totals[name] + term.detach() if name in totals else term.detach()
        add_gradients(stage.method)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # what a later pass does not reach must not be moved by momentum
    return totals


def batches(count: int, size: int = 64) -> Iterator[np.ndarray]:
    """Positions 0 ... count - 1 in runs of ``size``."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def own_batches(count: int, size: int = 64) -> tuple[list[np.ndarray], range]:
    """The batches that this process evaluates, and the positions in them; every position is one process's alone."""
    every = list(batches(count, size))
    mine = [every[i] for i in part(len(every))]
    return mine, range(mine[0][0], mine[-1][-1] + 1) if mine else range(0)


def score(method: Method, regions: Tensor, classes: ClassSpace, fabric: Fabric) -> Tensor:
    """Class scores ``(B, N)`` of prepared regions, the forward in Fabric's precision."""
    return method.class_scores(_answer(method, regions, classes, fabric), classes)


def _answer(method: Method, regions: Tensor, classes: ClassSpace, fabric: Fabric) -> dict[str, Branch]:
    with fabric.autocast():
        branches: dict[str, Branch] = method(regions)
    to_weight_precision(branches, classes)
    return branches


@torch.inference_mode()
def decide(
    method: Method, features: Features, labels: np.ndarray, classes: ClassSpace, fabric: Fabric, batch_size: int = 64
) -> Decisions:
    """Score pictures in batches, and classes in blocks, and keep what the metrics need.

    Args:
        method: put into evaluation mode.
        features: of the pictures.
        labels: ``(n,)`` positions in ``classes``.
        classes: on the method's device.
        fabric: for its precision.
        batch_size: pictures at once.
    """
    seen = classes.seen.cpu().numpy()
    method.eval()
    blocks = [(method.class_embeddings(b), method.class_offsets(b)) for b in classes.blocks(CLASS_BLOCK)]
    parts = [Decisions.from_blocks([], labels[:0], seen)]
    mine, rows = own_batches(len(labels), batch_size)
    for positions, regions in zip(mine, ahead(features.batch, mine, features), strict=True):
        query = method.query(_answer(method, regions, classes, fabric))
        products = ((query @ embeddings.T, offsets) for embeddings, offsets in blocks)
        scores = ((found if offsets is None else found + offsets).cpu().numpy() for found, offsets in products)
        parts.append(Decisions.from_blocks(scores, labels[positions], seen))
    columns = ("best_seen", "best_unseen", "offset")
    found = [np.concatenate([getattr(p, column) for p in parts]) for column in columns]
    whole = (rows_of_all(torch.from_numpy(values), rows, len(labels)).numpy() for values in found)
    best_seen, best_unseen, offset = whole
    return Decisions(labels, best_seen, best_unseen, offset, ~seen[labels])
