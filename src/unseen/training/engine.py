"""One training loop for every gradient method, on Lightning Fabric: resumable, interruptible, deterministic on CPU."""

from __future__ import annotations

import errno
import json
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unseen.data.dataset import digest
from unseen.data.samplers import create_sampler
from unseen.errors import RunError, UnseenError
from unseen.ground.distributed import add_up, any_of, give_to_all, is_first, processes
from unseen.ground.files import write_text
from unseen.ground.progress import Progress, silent
from unseen.ground.stopping import at_once, stop_on_signal
from unseen.methods.base import GradientMethod, Method
from unseen.methods.class_space import ClassSpace
from unseen.methods.settings import Recipe
from unseen.training.batches import ahead, batches
from unseen.training.checkpoints import check_checkpoint, load_checkpoint, read_info, save_checkpoint
from unseen.training.divergence import WEIGHTS, DivergedError, broken_start, diverged, not_finite
from unseen.training.steps import Features, Steps, check_graph, non_finite, wrong

CHECKPOINT_SECONDS = 60.0
PATIENCE = 25
"""Steps in a row that float16 may leave out for numbers too large, as its scale is found."""

Records = list[dict[str, Any]]
OnEpoch = Callable[[int, Method, Records], dict[str, Any]]


class Interrupted(KeyboardInterrupt):
    """Training stopped on request; its checkpoint is written."""


def epoch_ends(images: int, recipe: Recipe) -> list[int]:
    """The step after which each epoch ends; the last is the number of steps, at least one an epoch."""
    if recipe.batches:
        return [recipe.batches * (e + 1) for e in range(recipe.epochs)]
    steps = max(recipe.epochs, images * recipe.epochs // (recipe.step_images or recipe.batch_size))
    return [round(steps * (e + 1) / recipe.epochs) for e in range(recipe.epochs)]


@dataclass
class Training:
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
class State:
    """Where a training is: what its checkpoint says beside weights and states.

    Args:
        step: steps taken.
        records: of the finished epochs.
        sums: of the loss terms in this epoch.
        skipped: steps of this epoch that float16 left out.
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
    """Train, or resume where an earlier call was stopped.

    ``folder`` gets ``metrics.jsonl`` (a line an epoch) and ``checkpoint.safetensors``. On SIGINT or
    SIGTERM the checkpoint is written and :class:`Interrupted` raised; the same call then resumes, and on the CPU ends
    with the same bytes as if it had not stopped.

    Args:
        training: what to train.
        fabric: device and precision.
        folder: where its files go.
        on_epoch: called after every epoch with its number (from 1), the method in evaluation mode and the records of
            earlier epochs; returns metrics.
        on_record: told of every epoch's line of ``metrics.jsonl``.
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
    if graph:
        check_graph(training.method, training.features, fabric)
    loop = Loop(training, fabric, folder, on_epoch, on_record, graph=graph, checkpoint_seconds=checkpoint_seconds)

    def tell() -> None:
        progress(task, loop.state.step, loop.ends[-1], _note(loop.state.records))

    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        loop.begin(accumulate)
        loop.run(tell)
    if loop.averaged is not None:
        training.method.load_state_dict(loop.averaged.module.state_dict())
    training.method.eval()
    tell()
    return loop.state.records


class Loop:
    """A training under way: takes steps, ends epochs, keeps checkpoints.

    Args:
        training, fabric, folder, on_epoch, on_record, graph, checkpoint_seconds: see :func:`train`.

    Attributes:
        state: where it is.
        ends: the step after which each epoch ends.
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
        self.ends = epoch_ends(len(training.labels), recipe)[: training.epochs]
        self._fabric, self._folder, self._graph = fabric, folder, graph
        self._on_epoch, self._on_record = on_epoch, on_record
        self._sampler = create_sampler(recipe.sampler, training.labels, recipe.batch_size, training.seed, recipe.shots)
        self._optimizer = recipe.make_optimizer(method.parameters(), capturable=graph)
        self._path, self._identity = folder / "checkpoint.safetensors", training.fingerprint()
        self._every = checkpoint_seconds
        self._kept: int | None = None  # step of the last checkpoint
        self._images, self._numbers = np.zeros(0, int), dict[str, float]()  # of the last step
        self._left_out = 0  # steps in a row
        self._began = self._saved = time.monotonic()  # the epoch, and the last checkpoint

    def begin(self, accumulate: int) -> None:
        """Take up the checkpoint, or start."""
        if not self._resumed():
            self._start()
        if any_of(add_up(torch.tensor([float(self.state.step)])).item() != self.state.step * processes()):
            hint = "put it where all nodes have access"
            raise RunError("not all processes can read its checkpoint", where=self._folder, hint=hint)
        size = len(self._sampler(0))
        if processes() > 1 and size // accumulate < processes():
            problem = f"{processes()} processes share batches of {size // accumulate} images"
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
        # less than an epoch, so that each has a mean loss
        self._patience = min(PATIENCE, *(np.diff([0, *self.ends]) - 1).tolist()) if scaled else 0
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in self.state.records))

    def _resumed(self) -> bool:
        """Whether the folder holds a checkpoint of this training, which is then loaded."""
        info = read_info(self._path)
        if info is None:
            return False
        if info.pop("identity", None) != self._identity:
            check_checkpoint(self._path)  # another training's, or damaged just there
            return False
        load_checkpoint(self._path, self.method, self._optimizer, self.averaged)
        self.state = State(**info)
        self._kept = self.state.step
        # a checkpoint of a longer training holds this one's end too, but not its weights
        if self.state.step > self.ends[-1]:
            raise UnseenError("already trained for more epochs", where=self._path, hint="delete it, or set more epochs")
        return True

    def _start(self) -> None:
        """The method's start, the same in every process."""
        training = self.training
        if is_first():
            self.method.start(_everything(training, self._fabric), training.classes)
        give_to_all(self.method)
        self.averaged = _averaged(self.method, training.recipe)  # of buffers that have their shapes now
        if (bad := non_finite(self.method.state_dict())) is not None:
            raise broken_start(bad, _broken(training, np.arange(len(training.labels))), self._folder)

    def run(self, tell: Callable[[], None]) -> None:
        """Take the steps that are left; ``tell`` is called after each."""
        state, last, features = self.state, self.ends[-1], self.training.features
        self._began = self._saved = time.monotonic()
        with _named_errors(self._folder):
            draws = ahead(self._drawn, range(state.step, last), features)
            self.method.train()
            with closing(draws), stop_on_signal() as asked:
                if len(state.records) < bisect_right(self.ends, state.step):  # stopped in the test of an epoch
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
        """A step's images, and their regions where they are read ahead."""
        images = self._sampler(step)
        return images, self._steps.read(images, (self.training.seed, step))

    def _step(self, images: np.ndarray, regions: list[Tensor] | None) -> None:
        """One step, and what its numbers say."""
        state, steps = self.state, self._steps
        for group in steps.optimizer.param_groups:
            group["lr"] = self.training.recipe.lr_of(bisect_right(self.ends, state.step) + 1)
        found = steps(images, regions).tolist()  # the one wait for the device
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

    def _end_epoch(self) -> None:
        """The test after an epoch's last step, and the epoch's record."""
        state = self.state
        tested: Any = self.method if self.averaged is None else self.averaged.module
        tested.eval()
        epoch = self.ends.index(state.step) + 1
        try:
            with at_once() if processes() == 1 else nullcontext():
                metrics = self._on_epoch(epoch, tested, state.records)
        except KeyboardInterrupt:
            self._save()
            raise Interrupted(f"stopped in the test after step {state.step} of {self.ends[-1]}") from None
        self._record(epoch, metrics, round(time.monotonic() - self._began, 3))
        self.method.train()
        self._began = time.monotonic()

    def _record(self, epoch: int, metrics: dict[str, Any], seconds: float) -> None:
        """Add the record of the epoch that ends here, to the files too."""
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
        """Write the checkpoint, if every number of it is finite."""
        bad = non_finite(self._everything_kept())
        if bad is not None:
            raise self._diverged(self.state.step, bad)
        if is_first():
            info = {"identity": self._identity, **asdict(self.state)}
            save_checkpoint(self._path, self.method, self._optimizer, info, self.averaged)
        self._kept = self.state.step

    def _everything_kept(self) -> dict[str, Any]:
        """Every tensor of a checkpoint, by a name that a person knows it by."""
        names = [name for name, p in self.method.named_parameters() if p.requires_grad]
        kept: dict[str, Any] = dict(self.method.state_dict())
        if self.averaged is not None:
            kept |= {f"average of {name}": value for name, value in self.averaged.state_dict().items()}
        for index, entries in self._optimizer.state_dict()["state"].items():
            kept |= {f"optimizer state {key} of {names[index]}": value for key, value in entries.items()}
        return kept

    def _diverged(self, step: int, weights: str | None) -> DivergedError:
        """What is wrong after a step that is not finite."""
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
            lr=training.recipe.lr_of(epoch),
            precision=str(getattr(self._fabric.strategy.precision, "precision", "")),
        )


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """An error of the file system as one line with what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some disk space, then repeat the command" if full else "fix this, then repeat the command"
        raise RunError(error.strerror or str(error), where=error.filename or folder, hint=hint) from None


def _averaged(method: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """What keeps the moving average of the weights, if the recipe asks for one."""
    return AveragedModel(method, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None


def _everything(training: Training, fabric: Fabric) -> Iterator[tuple[Tensor, Tensor]]:
    """Every training image's prepared regions and label, in batches."""
    for positions in batches(len(training.labels)):
        regions = training.features.batch(positions).to(next(training.method.parameters()).dtype)
        yield regions, torch.as_tensor(training.labels[positions], device=fabric.device)


def _broken(training: Training, images: np.ndarray) -> list[str]:
    """Names of those of some images whose features are not finite."""
    runs = [images[rows] for rows in batches(len(images))]
    return [training.name_of(run[i]) for run in runs for i in not_finite(training.features.batch(run))]


def _note(records: Records) -> str:
    if not records:
        return ""
    last = records[-1]
    names = {"T1": "T1", "best_H": "H"}  # H at its best gamma, as the choice of the epoch has it
    shown = {names[k]: v for k, v in last["metrics"].items() if k in names and v is not None}
    return " ".join([f"loss {last['loss']['total']:.3f}", *(f"{k} {100 * v:.1f}" for k, v in shown.items())])
