"""One training loop for every gradient method, on Lightning Fabric: resumable, interruptible, deterministic on CPU."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unseen.data.dataset import digest
from unseen.data.samplers import Sampler, create_sampler
from unseen.errors import RunError, UnseenError
from unseen.evaluation.metrics import Decisions
from unseen.ground.devices import split_device
from unseen.ground.distributed import (
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
from unseen.ground.files import write_text
from unseen.ground.progress import Progress, silent
from unseen.ground.stopping import SIGNALS, at_once
from unseen.methods.base import Branch, ClassSpace, GradientMethod, Method, Recipe
from unseen.model.scoring import ClassScorer
from unseen.training.checkpoints import check_checkpoint, load_checkpoint, read_info, save_checkpoint
from unseen.training.divergence import WEIGHTS, DivergedError, broken_start, diverged, not_finite
from unseen.training.steps import Features, Steps, check_graph, non_finite, to_weight_precision, wrong

CHECKPOINT_SECONDS = 60.0
"""Classes scored at a time in testing."""
PRECISIONS = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""Fabric's precision to the type that features are kept in; weights are float64 for ``64-true``, else float32."""
PATIENCE = 25
"""Steps in a row that float16 may leave out for numbers too large, as its scale is found."""
_BACKENDS = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


OnEpoch = Callable[[int, Method, list[dict[str, Any]]], dict[str, Any]]


K = TypeVar("K")
V = TypeVar("V")


class Interrupted(KeyboardInterrupt):
    """Training stopped on request; its checkpoint is written."""


class _Replicas(DDPStrategy):
    """A process a device, each with the whole model, whose gradients a step adds up."""

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
        raise UnseenError(f'unknown precision "{precision}"', hint=f"one of {', '.join(PRECISIONS)}")
    accelerator, index = split_device(device)
    options: dict[str, Any] = {"devices": 1 if index is None else [index]}
    if launched():
        if index is not None:
            raise UnseenError(f'one device "{device}" for all processes', hint="--device cuda: each takes its own")
        options = {"devices": local_processes(), "num_nodes": int(os.environ["GROUP_WORLD_SIZE"])}
        options["strategy"] = _Replicas(process_group_backend=_BACKENDS, timeout=timedelta(hours=6))
    try:
        fabric = Fabric(accelerator=accelerator, precision=precision, **options)  # type: ignore[arg-type]
        if launched():
            fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="auto or cpu") from None
    except Exception as error:  # Fabric's own MisconfigurationException is private
        raise UnseenError(f'cannot use device "{device}" ({error})', hint="auto or cpu") from None
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)  # whose random state a checkpoint keeps
    if fabric.device.type == "cpu" and precision == "16-mixed":
        raise UnseenError("float16 training needs a GPU", where="precision", hint="bf16-mixed or 32-true on the CPU")
    return fabric


def weight_dtype(precision: str) -> torch.dtype:
    """The type that parameters have under a precision."""
    return torch.float64 if precision == "64-true" else torch.float32


def epoch_ends(images: int, recipe: Recipe) -> list[int]:
    """The step after which each epoch ends; the last is the number of steps, at least one an epoch."""
    if recipe.batches:
        return [recipe.batches * (e + 1) for e in range(recipe.epochs)]
    steps = max(recipe.epochs, images * recipe.epochs // (recipe.step_images or recipe.batch_size))
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

    before = {s: signal.signal(s, handle) for s in SIGNALS}
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
        features: of the training images.
        labels: ``(n,)`` positions in ``classes``.
        classes: on the training device.
        recipe: how.
        seed: of sampling and of any randomness inside the method.
        epochs: how many of the recipe's epochs to do; schedules are those of the whole recipe.
        identity: anything else that makes this training what it is (features, split), for safe resuming.
        names: of the training images, for errors; their positions where there are none.
    """

    method: GradientMethod
    features: Features
    labels: np.ndarray
    classes: ClassSpace
    recipe: Recipe
    seed: int
    epochs: int
    identity: str = ""
    names: Sequence[str] = ()

    def name_of(self, image: int) -> str:
        """What a training image is called."""
        return self.names[image] if len(self.names) else f"image {image}"

    def fingerprint(self) -> str:
        """Digest of everything that decides the weights."""
        shapes = [f"{n}{tuple(p.shape)}{p.dtype}" for n, p in self.method.named_parameters()]
        parts = (self.method.name, self.method.settings, asdict(self.recipe), self.seed, shapes, self.identity)
        return digest(*parts, self.labels, self.classes.vectors.double().cpu().numpy(), self.classes.seen.cpu().numpy())


@dataclass
class _Place:
    """Where a training is: what its checkpoint says beside weights and states.

    Args:
        step: steps taken.
        records: of the finished epochs.
        sums: of the loss terms in this epoch.
        skipped: steps of this epoch that float16 left out.
        start: total loss of the first step.
    """

    step: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    start: float | None = None


def train(
    stage: Stage,
    fabric: Fabric,
    folder: Path,
    *,
    on_epoch: OnEpoch = lambda epoch, method, earlier: {},
    accumulate: int = 1,
    graph: bool = False,
    task: str = "training",
    progress: Progress = silent,
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
        accumulate: micro-batches a step, each shared by all processes. Losses that are no mean over images
            (self-calibration) are taken within each micro-batch.
        graph: launch each step as one CUDA graph.
        task: named in progress.
        progress: told how far it is.
        checkpoint_seconds: how often to write the checkpoint.

    Returns:
        One record an epoch: epoch, step, mean losses, metrics, seconds; the first also the loss of the first step.

    Raises:
        Interrupted: stopped on request.
        DivergedError: a loss or a weight is not finite; the last checkpoint, all of whose numbers are, stands.
        RunError: the checkpoint is damaged, or of another training.
        UnseenError: ``graph`` where there can be none.
    """
    from torch.utils.tensorboard import SummaryWriter

    ends = epoch_ends(len(stage.labels), stage.recipe)[: stage.epochs]
    recipe, method = stage.recipe, stage.method
    if graph:
        check_graph(method, stage.features, fabric)
    sampler = create_sampler(recipe.sampler, stage.labels, recipe.batch_size, stage.seed, recipe.shots)
    path, identity = folder / "checkpoint.safetensors", stage.fingerprint()
    now, kept = _Place(), None
    optimizer = recipe.make_optimizer(method.parameters(), capturable=graph)
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(stage.seed)
        info = read_info(path)
        averaged = _averaged(stage)
        same = info is not None and info.pop("identity", None) == identity
        if info is not None and not same:
            check_checkpoint(path)  # another training's, or damaged just there
        if info is not None and same:
            load_checkpoint(path, method, optimizer, averaged)
            now = _Place(**info)
            kept = now.step
            # a checkpoint of a longer training holds this one's end too, but not its weights
            if now.step > ends[-1]:
                raise UnseenError("trained further than asked", where=path, hint="delete it, or ask for more epochs")
        else:
            if is_first():
                method.start(_everything(stage, fabric), stage.classes)
            give_to_all(method)
            if (bad := non_finite(method.state_dict())) is not None:
                raise broken_start(bad, _broken(stage, np.arange(len(stage.labels))), folder)
        if any_of(add_up(torch.tensor([float(now.step)])).item() != now.step * processes()):
            raise RunError(
                "its checkpoint is not seen by all", where=folder, hint="keep it where all nodes have access"
            )
        size = len(sampler(0))
        if processes() > 1 and size // accumulate < processes():
            problem = f"{processes()} processes share batches of {size // accumulate} images"
            raise UnseenError(problem, hint="start fewer processes, or give a larger batch_size or smaller accumulate")
        steps = Steps(
            method, optimizer, stage.features, stage.labels, stage.classes, size, accumulate, fabric, graph=graph
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in now.records))
        board = SummaryWriter(str(folder / "tensorboard"), purge_step=now.step or None)
        images, numbers, left_out = np.zeros(0, int), dict[str, float](), now.skipped

        def stopped(step: int, weights: str | None) -> DivergedError:
            """What is wrong after a step that is not finite."""
            epoch = bisect_left(ends, step) + 1
            return diverged(
                numbers,
                step=step,
                epoch=epoch,
                names=[stage.name_of(i) for i in images],
                broken=_broken(stage, images),
                weights=weights,
                folder=folder,
                kept=kept,
                lr=recipe.lr_of(epoch),
                precision=str(getattr(fabric.strategy.precision, "precision", "")),
            )

        def save() -> None:
            nonlocal kept
            bad = non_finite(_everything_kept(method, optimizer, averaged))
            if bad is not None:
                raise stopped(now.step, bad)
            if is_first():
                save_checkpoint(path, method, optimizer, {"identity": identity, **asdict(now)}, averaged)
            kept = now.step

        saved = started = time.monotonic()

        def end_epoch() -> None:
            """The test after an epoch's last step, and the epoch's record."""
            nonlocal started
            tested: Any = method if averaged is None else averaged.module
            tested.eval()
            try:
                with at_once() if processes() == 1 else nullcontext():
                    metrics = on_epoch(ends.index(now.step) + 1, tested, now.records)
            except KeyboardInterrupt:
                save()
                raise Interrupted(f"stopped in the test after step {now.step} of {ends[-1]}") from None
            _finish_epoch(now, ends, metrics, round(time.monotonic() - started, 3))
            _write_record(now.records[-1], folder, board)
            method.train()
            started = time.monotonic()

        scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        # less than an epoch, so that each has a mean loss
        patience = min(PATIENCE, *(np.diff([0, *ends]) - 1).tolist()) if scaled else 0
        try:
            todo = range(now.step, ends[-1])
            draws = ahead(lambda step: _drawn(stage, steps, sampler, step), todo, stage.features)
            method.train()
            with closing(draws), stop_on_signal() as asked:
                if len(now.records) < bisect_right(ends, now.step):  # stopped in the test of an epoch
                    end_epoch()
                    save()
                while now.step < ends[-1]:
                    for group in steps.optimizer.param_groups:
                        group["lr"] = recipe.lr_of(bisect_right(ends, now.step) + 1)
                    images, regions = next(draws)
                    found = steps(images, regions).tolist()  # the one wait for the device
                    numbers = dict(zip(steps.terms, found, strict=True))
                    if wrong(numbers) is None:
                        left_out = 0
                        now.start = numbers["total"] if now.start is None else now.start
                        for name in steps.terms[:-1]:
                            now.sums[name] = now.sums.get(name, 0.0) + numbers[name]
                    elif left_out < patience and np.isfinite(numbers[WEIGHTS]):
                        left_out += 1
                        now.skipped += 1
                    else:
                        raise stopped(now.step + 1, non_finite(dict(method.named_parameters())))
                    now.step += 1
                    if averaged is not None:
                        averaged.update_parameters(method)
                    stop = any_of(asked())
                    if now.step in ends and not stop:
                        end_epoch()
                    progress(task, now.step, ends[-1], _note(now.records))
                    if stop:
                        save()
                        raise Interrupted(f"stopped at step {now.step} of {ends[-1]}")
                    if time.monotonic() - saved > checkpoint_seconds or now.step == ends[-1]:
                        save()
                        saved = time.monotonic()
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "make room, then repeat the command" if full else "fix that, then repeat the command"
            raise RunError(error.strerror or str(error), where=error.filename or folder, hint=hint) from None
        finally:
            with suppress(OSError):
                board.close()
    if averaged is not None:
        method.load_state_dict(averaged.module.state_dict())
    method.eval()
    progress(task, now.step, ends[-1], _note(now.records))
    return now.records


def _finish_epoch(now: _Place, ends: list[int], metrics: dict[str, Any], seconds: float) -> None:
    """Add the record of an epoch that ends here."""
    epoch = ends.index(now.step) + 1
    taken = now.step - (ends[epoch - 2] if epoch > 1 else 0) - now.skipped
    record: dict[str, Any] = {
        "epoch": epoch,
        "step": now.step,
        "loss": {name: total / taken for name, total in now.sums.items()},
        "metrics": metrics,
        "seconds": seconds,
    }
    if epoch == 1:
        record["start"] = now.start
    now.records.append(record)
    now.sums, now.skipped = {}, 0


def _write_record(record: dict[str, Any], folder: Path, board: Any) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    for group in ("loss", "metrics"):
        for name, entry in record[group].items():
            if isinstance(entry, float):
                board.add_scalar(f"{group}/{name}", entry, record["step"])


def _everything_kept(
    method: GradientMethod, optimizer: torch.optim.Optimizer, averaged: nn.Module | None
) -> dict[str, Any]:
    """Every tensor of a checkpoint, by a name that a person knows it by."""
    names = [name for name, p in method.named_parameters() if p.requires_grad]
    kept: dict[str, Any] = dict(method.state_dict())
    if averaged is not None:
        kept |= {f"average of {name}": value for name, value in averaged.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        kept |= {f"the optimiser's {key} of {names[index]}": value for key, value in entries.items()}
    return kept


def _drawn(stage: Stage, steps: Steps, sampler: Sampler, step: int) -> tuple[np.ndarray, list[Tensor] | None]:
    """A step's images, and their regions where they are read ahead."""
    images = sampler(step)
    return images, steps.read(images, (stage.seed, step))


def _averaged(stage: Stage) -> AveragedModel | None:
    """What keeps the moving average of the weights, if the recipe asks for one."""
    decay = stage.recipe.average
    return AveragedModel(stage.method, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None


def _everything(stage: Stage, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training image's prepared regions and label, in batches."""
    for positions in batches(len(stage.labels)):
        regions = stage.features.batch(positions).to(next(stage.method.parameters()).dtype)
        yield regions, torch.as_tensor(stage.labels[positions], device=fabric.device)


def _broken(stage: Stage, images: np.ndarray) -> list[str]:
    """Names of those of some images whose features are not finite."""
    runs = [images[rows] for rows in batches(len(images))]
    return [stage.name_of(run[i]) for run in runs for i in not_finite(stage.features.batch(run))]


def _note(records: list[dict[str, Any]]) -> str:
    if not records:
        return ""
    last = records[-1]
    names = {"T1": "T1", "best_H": "H"}  # H at its best gamma, as the choice of the epoch has it
    shown = {names[k]: v for k, v in last["metrics"].items() if k in names and v is not None}
    return " ".join([f"loss {last['loss']['total']:.3f}", *(f"{k} {100 * v:.1f}" for k, v in shown.items())])


def ahead(work: Callable[[K], V], keys: Iterable[K], features: Features) -> Generator[V]:
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


def batches(count: int, size: int = 64) -> Iterator[np.ndarray]:
    """Positions 0 ... count - 1 in runs of ``size``."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def own_batches(count: int, size: int = 64) -> tuple[list[np.ndarray], range]:
    """The batches that this process evaluates, and the positions in them; every position is one process's alone."""
    every = list(batches(count, size))
    mine = [every[i] for i in part(len(every))]
    return mine, range(mine[0][0], mine[-1][-1] + 1) if mine else range(0)


def query(method: Method, regions: Tensor, classes: ClassSpace, fabric: Fabric) -> Tensor:
    """What a :class:`ClassScorer` scores, of prepared regions; the forward in Fabric's precision."""
    with fabric.autocast():
        branches: dict[str, Branch] = method(regions)
    to_weight_precision(branches, classes)
    return method.query(branches)


@torch.inference_mode()
def decide(
    method: Method, features: Features, labels: np.ndarray, classes: ClassSpace, fabric: Fabric, batch_size: int = 64
) -> Decisions:
    """Score images in batches, and classes in blocks, and keep what the metrics need.

    Args:
        method: put into evaluation mode.
        features: of the images.
        labels: ``(n,)`` positions in ``classes``.
        classes: on the method's device.
        fabric: for its precision.
        batch_size: images at once.
    """
    seen = classes.seen.cpu().numpy()
    method.eval()
    scorer = ClassScorer(method, classes)
    mine, rows = own_batches(len(labels), batch_size)
    best, top = [torch.zeros(2, 0, dtype=torch.int64, device=classes.seen.device)], [classes.vectors.new_zeros(2, 0)]
    for regions in ahead(features.batch, mine, features):
        found = scorer.best_of_kinds(query(method, regions, classes, fabric))
        best.append(found[0])
        top.append(found[1])
    # once for all batches, so that a GPU is never waited for in between
    best_seen, best_unseen = rows_of_all(torch.cat(best, dim=1).cpu().T.contiguous(), rows, len(labels)).numpy().T
    top_seen, top_unseen = rows_of_all(torch.cat(top, dim=1).cpu().double().T.contiguous(), rows, len(labels)).numpy().T
    unclear = np.flatnonzero(np.isnan(top_seen) | np.isnan(top_unseen))
    if len(unclear):
        problem = f"class scores of {len(unclear)} of {len(labels)} images are not numbers"
        raise DivergedError(problem, where=method.name, hint="--precision 32-true, or features made again")
    return Decisions(labels, best_seen, best_unseen, top_seen - top_unseen, ~seen[labels])
