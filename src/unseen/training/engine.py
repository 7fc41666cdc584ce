"""One training loop for every gradient method, on Lightning Fabric: resumable, interruptible, deterministic on CPU."""

from __future__ import annotations

import copy
import errno
import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unseen.data.dataset import digest
from unseen.data.samplers import create_sampler
from unseen.errors import RunError, UnseenError
from unseen.ground.distributed import add_up, any_of, give_to_all, is_first, processes
from unseen.ground.files import write_text
from unseen.ground.progress import Progress, silent
from unseen.ground.stopping import at_once, stop_on_signal
from unseen.ground.words import counted
from unseen.methods.base import GradientMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Recipe
from unseen.training.batches import ahead, batches
from unseen.training.checkpoints import check_checkpoint, load_checkpoint, read_info, save_checkpoint
from unseen.training.divergence import WEIGHTS, DivergedError, broken_start, diverged, not_finite
from unseen.training.steps import Features, Steps, check_graph, non_finite, wrong

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_SECONDS = 60.0
PATIENCE = 25
"""Consecutive steps that float16 may skip because numbers are too large, while it searches its scale."""

Records = list[dict[str, Any]]
OnEpoch = Callable[[int, Method, Records], dict[str, Any]]


class Interrupted(KeyboardInterrupt):
    """Training stopped on request, with its checkpoint written."""


def epoch_ends(images: int, recipe: Recipe) -> list[int]:
    """Last step of each epoch; the final entry is the number of steps, at least one per epoch."""
    if recipe.batches:
        return [recipe.batches * (e + 1) for e in range(recipe.epochs)]
    steps = max(recipe.epochs, images * recipe.epochs // (recipe.step_images or recipe.batch_size))
    return [round(steps * (e + 1) / recipe.epochs) for e in range(recipe.epochs)]


@dataclass
class Training:
    """One training: method, data, recipe and length.

    Args:
        method: method with its initial weights.
        features: features of the training images.
        labels: ``(n,)`` positions in ``classes``.
        classes: classes, on the training device.
        recipe: training recipe.
        seed: seed of sampling and of any randomness inside the method.
        epochs: number of the recipe's epochs to do; schedules are those of the whole recipe.
        identity: everything else that defines this training (features, split), so that only the same training resumes.
        names: names of the training images for errors; positions if empty.
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
        """Name of a training image."""
        return self.names[image] if len(self.names) else f"image {image}"

    def fingerprint(self) -> str:
        """Digest of everything that determines the weights."""
        shapes = [f"{n}{tuple(p.shape)}{p.dtype}" for n, p in self.method.named_parameters()]
        parts = (self.method.name, self.method.settings, asdict(self.recipe), self.seed, shapes, self.identity)
        return digest(*parts, self.labels, self.classes.vectors.double().cpu().numpy(), self.classes.seen.cpu().numpy())


@dataclass
class State:
    """Position of a training, stored in its checkpoint beside weights and states.

    Args:
        step: number of steps taken.
        records: records of the finished epochs.
        sums: sums of the loss terms in this epoch.
        skipped: number of steps of this epoch that float16 skipped.
        start: total loss of the first step.
    """

    step: int = 0
    records: Records = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    start: float | None = None


def train(
    training: Training,
    fabric: Fabric,
    folder: Path,
    *,
    on_epoch: OnEpoch = lambda epoch, method, earlier: {},
    on_record: Callable[[dict[str, Any]], object] = lambda record: None,
    accumulate: int = 1,
    graph: bool = False,
    task: str = "training",
    progress: Progress = silent,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Records:
    """Train, or resume an earlier call that was stopped.

    ``folder`` gets ``metrics.jsonl`` (one line per epoch) and ``checkpoint.safetensors``. On SIGINT or SIGTERM the
    checkpoint is written and :class:`Interrupted` raised. The same call then resumes, and on the CPU ends with the same
    bytes as without the interruption.

    Args:
        training: what to train.
        fabric: device and precision.
        folder: folder for its files.
        on_epoch: called after every epoch with its number (from 1), the method in evaluation mode and the records of
            earlier epochs; returns metrics. A method that ``tests_start`` is tested before the first step, too, as
            epoch 0 without a record.
        on_record: called with every line of ``metrics.jsonl``.
        accumulate: micro-batches per step, each shared by all processes. Losses that are not means over images
            (self-calibration) are computed within each micro-batch.
        graph: launch each step as one CUDA graph.
        task: name in progress displays.
        progress: progress callback.
        checkpoint_seconds: interval between checkpoints.

    Returns:
        One record per epoch: epoch, step, mean losses, metrics, seconds; the first also has the loss of the first step.

    Raises:
        Interrupted: stopped on request.
        DivergedError: a loss or a weight is not finite; the last checkpoint remains and has finite numbers only.
        RunError: the checkpoint is damaged, or belongs to another training.
        UnseenError: ``graph`` is not possible.
    """
    if graph:
        check_graph(training.method, training.features, fabric)
    loop = Loop(training, fabric, folder, on_epoch, on_record, graph=graph, checkpoint_seconds=checkpoint_seconds)

    def tell() -> None:
        progress(task, loop.state.step, loop.last, _note(loop.state.records))

    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        loop.begin(accumulate)
        loop.run(tell)
    if loop.averaged is not None:
        training.method.load_state_dict(loop.averaged.module.state_dict())
    training.method.eval()
    if training.method.refits:
        loop.refit(training.method)
    tell()
    return loop.state.records


class Loop:
    """A training in progress: takes steps, ends epochs, writes checkpoints.

    Args:
        training, fabric, folder, on_epoch, on_record, graph, checkpoint_seconds: see :func:`train`.

    Attributes:
        state: position of the training.
        ends: last step of each epoch.
        last: last step; 0 without epochs.
        averaged: moving average of the weights, if the recipe asks for one.
    """

    def __init__(
        self,
        training: Training,
        fabric: Fabric,
        folder: Path,
        on_epoch: OnEpoch,
        on_record: Callable[[dict[str, Any]], object],
        *,
        graph: bool,
        checkpoint_seconds: float,
    ) -> None:
        recipe, method = training.recipe, training.method
        self.training, self.method = training, method
        self.state, self.averaged = State(), _averaged(method, recipe)
        every = epoch_ends(len(training.labels), recipe)
        self.ends, self._steps_of_recipe = every[: training.epochs], every[-1]
        self.last = max(self.ends, default=0)
        self._fabric, self._folder, self._graph = fabric, folder, graph
        self._on_epoch, self._on_record = on_epoch, on_record
        self._sampler = create_sampler(recipe.sampler, training.labels, recipe.batch_size, training.seed, recipe.shots)
        self._optimizer = recipe.make_optimizer(method.parameters(), capturable=graph)
        self._path, self._identity = folder / "checkpoint.safetensors", training.fingerprint()
        self._every = checkpoint_seconds
        self._kept: int | None = None  # step of the last checkpoint
        self._images, self._numbers = np.zeros(0, int), dict[str, float]()  # numbers of the last step
        self._left_out = 0  # consecutive steps
        self._began = self._saved = time.monotonic()  # start of the epoch, and of the last checkpoint

    def begin(self, accumulate: int) -> None:
        """Load the checkpoint, or start."""
        if not self._resumed():
            self._start()
        if any_of(add_up(torch.tensor([float(self.state.step)])).item() != self.state.step * processes()):
            hint = "put it where all nodes have access"
            raise RunError("not all processes can read its checkpoint", where=self._folder, hint=hint)
        size = len(self._sampler(0))
        if processes() > 1 and size // accumulate < processes():
            problem = f"{processes()} processes share batches of {counted(size // accumulate, 'image')}"
            raise UnseenError(problem, hint="start fewer processes, or use a larger batch_size or a smaller accumulate")
        training, graph = self.training, self._graph
        self._steps = Steps(
            self.method,
            self._optimizer,
            training.features,
            training.labels,
            training.classes,
            size,
            accumulate,
            self._fabric,
            graph=graph,
        )
        self._left_out = self.state.skipped
        scaled = getattr(self._fabric.strategy.precision, "scaler", None) is not None
        # less than one epoch, so that each has a mean loss
        self._patience = min(PATIENCE, *(np.diff([0, *self.ends]) - 1).tolist()) if scaled else 0
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.state.records))

    def _resumed(self) -> bool:
        """Load the checkpoint in the folder if it belongs to this training; returns whether it did."""
        info = read_info(self._path)
        if info is None:
            return False
        if info.pop("identity", None) != self._identity:
            check_checkpoint(self._path)  # of another training, or damaged there
            return False
        load_checkpoint(self._path, self.method, self._optimizer, self.averaged)
        self.state = State(**info)
        self._kept = self.state.step
        # a checkpoint of a longer training passed this one's end, but has other weights
        if self.state.step > self.last:
            raise UnseenError("already trained for more epochs", where=self._path, hint="delete it, or set more epochs")
        return True

    def _start(self) -> None:
        """Call the start of the method, the same in every process."""
        training = self.training
        if is_first():
            self.method.start(_everything(training, self._fabric), training.classes)
        give_to_all(self.method)
        self.averaged = _averaged(self.method, training.recipe)  # buffers that now have their shapes
        if (bad := non_finite(self.method.state_dict())) is not None:
            raise broken_start(bad, _broken(training, np.arange(len(training.labels))), self._folder)
        if self.method.tests_start:
            self._on_epoch(0, self._tested(self.method), [])

    def run(self, tell: Callable[[], None]) -> None:
        """Take the remaining steps; calls ``tell`` after each."""
        state, last, features = self.state, self.last, self.training.features
        self._began = self._saved = time.monotonic()
        with _named_errors(self._folder):
            draws = ahead(self._drawn, range(state.step, last), features)
            self.method.train()
            with closing(draws), stop_on_signal() as asked:
                if len(state.records) < bisect_right(self.ends, state.step):  # stopped during the test of an epoch
                    self._end_epoch()
                    self._save()
                while state.step < last:
                    self._step(*next(draws))
                    stop = any_of(asked())
                    if state.step in self.ends and not stop:
                        self._end_epoch()
                    tell()
                    if stop:
                        self._save()
                        raise Interrupted(f"stopped at step {state.step} of {last}")
                    if time.monotonic() - self._saved > self._every or state.step == last:
                        self._save()
                        self._saved = time.monotonic()

    def _drawn(self, step: int) -> tuple[np.ndarray, list[Tensor] | None]:
        """The images of a step, and their regions if they are read ahead."""
        images = self._sampler(step)
        return images, self._steps.read(images, (self.training.seed, step))

    def _step(self, images: np.ndarray, regions: list[Tensor] | None) -> None:
        """Take one step, and check its numbers."""
        state, steps = self.state, self._steps
        for group in steps.optimizer.param_groups:
            group["lr"] = self._lr(state.step)
        found = steps(images, regions).tolist()  # the only wait for the device
        self._images, self._numbers = images, dict(zip(steps.terms, found, strict=True))
        if wrong(self._numbers) is None:
            self._left_out = 0
            state.start = self._numbers["total"] if state.start is None else state.start
            for name in steps.terms[:-1]:
                state.sums[name] = state.sums.get(name, 0.0) + self._numbers[name]
        elif self._left_out < self._patience and np.isfinite(self._numbers[WEIGHTS]):
            self._left_out += 1
            state.skipped += 1
        else:
            raise self._diverged(state.step + 1, non_finite(dict(self.method.named_parameters())))
        state.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.method)

    def _lr(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.training.recipe.lr_at(bisect_right(self.ends, step) + 1, step, self._steps_of_recipe)

    def _end_epoch(self) -> None:
        """Test after the last step of an epoch, and return the epoch's record."""
        state = self.state
        epoch = self.ends.index(state.step) + 1
        try:
            with at_once() if processes() == 1 else nullcontext():
                tested = self._tested(self.method if self.averaged is None else self.averaged.module)
                metrics = self._on_epoch(epoch, tested, state.records)
        except KeyboardInterrupt:
            self._save()
            raise Interrupted(f"stopped in the test after step {state.step} of {self.last}") from None
        self._record(epoch, metrics, round(time.monotonic() - self._began, 3))
        self.method.train()
        self._began = time.monotonic()

    def _tested(self, method: Any) -> Any:
        """The method in evaluation mode; a copy if it refits, because training goes on with what it started with."""
        method = copy.deepcopy(method) if method.refits else method
        method.eval()
        if method.refits:
            self.refit(method)
        return method

    def refit(self, method: GradientMethod) -> None:
        """Refit the method, the same in every process."""
        if is_first():
            method.refit(_everything(self.training, self._fabric), self.training.classes)
        give_to_all(method)

    def _record(self, epoch: int, metrics: dict[str, Any], seconds: float) -> None:
        """Add the record of the epoch that ends here, also to the files."""
        state = self.state
        taken = state.step - (self.ends[epoch - 2] if epoch > 1 else 0) - state.skipped
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": state.step,
            "loss": {name: total / taken for name, total in state.sums.items()},
            "metrics": metrics,
            "seconds": seconds,
        }
        if epoch == 1:
            record["start"] = state.start
        state.records.append(record)
        state.sums, state.skipped = {}, 0
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        self._on_record(record)

    def _save(self) -> None:
        """Write the checkpoint, if all its numbers are finite."""
        bad = non_finite(self._everything_kept())
        if bad is not None:
            raise self._diverged(self.state.step, bad)
        if is_first():
            info = {"identity": self._identity, **asdict(self.state)}
            save_checkpoint(self._path, self.method, self._optimizer, info, self.averaged)
        self._kept = self.state.step

    def _everything_kept(self) -> dict[str, Any]:
        """Every tensor of a checkpoint, by a readable name."""
        names = [name for name, p in self.method.named_parameters() if p.requires_grad]
        kept: dict[str, Any] = dict(self.method.state_dict())
        if self.averaged is not None:
            kept |= {f"average of {name}": value for name, value in self.averaged.state_dict().items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            kept |= {f"optimizer state {key} of {names[index]}": value for key, value in entries.items()}
        return kept

    def _diverged(self, step: int, weights: str | None) -> DivergedError:
        """The error for a step that is not finite."""
        epoch, training = bisect_left(self.ends, step) + 1, self.training
        return diverged(
            self._numbers,
            step=step,
            epoch=epoch,
            names=[training.name_of(i) for i in self._images],
            broken=_broken(training, self._images),
            weights=weights,
            folder=self._folder,
            kept=self._kept,
            lr=self._lr(step - 1),
            precision=str(getattr(self._fabric.strategy.precision, "precision", "")),
        )


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Turn a file system error into one line with a hint."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some disk space, then repeat the command" if full else "fix this, then repeat the command"
        raise RunError(error.strerror or str(error), where=error.filename or folder, hint=hint) from None


def _averaged(method: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The moving average of the weights, if the recipe asks for one."""
    return AveragedModel(method, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None


def _everything(training: Training, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the prepared regions and labels of all training images, in batches."""
    for positions in batches(len(training.labels)):
        regions = training.features.batch(positions).to(next(training.method.parameters()).dtype)
        yield regions, torch.as_tensor(training.labels[positions], device=fabric.device)


def _broken(training: Training, images: np.ndarray) -> list[str]:
    """Names of the given images with features that are not finite."""
    runs = [images[rows] for rows in batches(len(images))]
    return [training.name_of(run[i]) for run in runs for i in not_finite(training.features.batch(run))]


def _note(records: Records) -> str:
    if not records:
        return ""
    last = records[-1]
    names = {"T1": "T1", "best_H": "H"}  # H at its best gamma, as in the choice of the epoch
    shown = {names[k]: v for k, v in last["metrics"].items() if k in names and v is not None}
    return " ".join([f"loss {last['loss']['total']:.3f}", *(f"{k} {100 * v:.1f}" for k, v in shown.items())])
