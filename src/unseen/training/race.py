"""The race of ``auto``: the best closed form against trained methods, on the same draws of validation classes.

Closed forms race first, in seconds (:mod:`unseen.methods.auto`). A trained method is tried next if time allows, and
leads if its H is higher by more than one standard error of the mean paired difference, over the draws on which both
were measured, each at its own common offset. It is given up early if it falls far behind. A run that is given a time
then also tries, against whichever leads, the closed forms on more looks at each image (:mod:`unseen.backbones.zoom`):
its mirror image, then zoom. It tries the method that trains the last layers of the backbone last, on the looks that
lead; it does not take part if training does not help, because it is a closed form then. No test image is used. Ours.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unseen.backbones.spec import SINGLE
from unseen.errors import UnseenError
from unseen.ground.files import read_json, write_json
from unseen.ground.progress import Progress
from unseen.ground.words import looks_text
from unseen.methods import find_method
from unseen.methods.base import RefitMethod
from unseen.methods.settings import EndToEndRecipe
from unseen.training.config import RunConfig
from unseen.training.holdouts import needs_holdouts
from unseen.training.inputs import RunInputs
from unseen.training.outcomes import Choice
from unseen.training.plan import resolve_settings
from unseen.training.protocols import identity_of, validate_seeds
from unseen.training.seed import SeedValidation

AUTO, TRAINED, TUNED = "auto", "msdnpp", "tuned"
"""The method whose runs race, the trained method of every race, and that of races with a time."""
LOOKS: dict[str, tuple[str, Any]] = {"mirrored": ("mirror", True), "zoomed": ("zoom", 2)}
"""Entrants of races with a time that look at images more often: an entry of the backbone, and its value."""
_log = logging.getLogger(__name__)
FILE = "race.json"
LEAST_SHARE, LEAST_SECONDS = 0.02, 5.0
"""Share of a training, and seconds, after which its end is estimated."""
BEHIND = 0.05
"""H by which the trained method may be behind on the draws so far.

After the first of three draws, it could only win from there by leading by about twice as much on both others.
"""


class OutOfTimeError(Exception):
    """The trained method would not finish in time."""


class BehindError(Exception):
    """The trained method is too far behind."""


@dataclass
class Watch:
    """Stops a validation that is too far behind the closed form, after any draw but the last.

    Args:
        inputs: inputs of the trained method.
        closed: H of the closed form on each draw.
    """

    inputs: RunInputs
    closed: Sequence[float]
    draws: int = 0
    value: float = 0.0

    def __call__(self, validation: SeedValidation) -> None:
        """Compare the best epoch so far with the closed form; raises :class:`BehindError`."""
        self.draws += 1
        validation.best(self.inputs)
        self.value = validation.value
        if self.draws < self.inputs.config.draw_count and self.behind > BEHIND:
            raise BehindError

    @property
    def behind(self) -> float:
        """H that is missing on the draws so far."""
        known = self.closed[: self.draws]
        return sum(known) / len(known) - self.value


@dataclass
class Clock:
    """Progress callback that stops a training which would finish too late.

    Args:
        progress: callback to forward to.
        ends: value of ``time.monotonic()`` by which everything must be finished.
        trainings: number of trainings to do, including the final one and those of class hold-outs.
    """

    progress: Progress
    ends: float
    trainings: int

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._finished: set[str] = set()

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Forward the progress; raises :class:`OutOfTimeError`."""
        self.progress(task, done, total, note)
        now = time.monotonic()
        share = len(self._finished - {task}) + (done / total if total else 0)
        if done >= total:
            self._finished.add(task)
        late = now > self.ends
        if share > LEAST_SHARE and now - self._began > LEAST_SECONDS:
            late |= self._began + (now - self._began) / share * self.trainings > self.ends
        if late:
            raise OutOfTimeError


def gain(trained: Sequence[float], closed: Sequence[float]) -> tuple[float, float]:
    """Mean paired difference over the common draws, and its standard error; infinite for one draw."""
    pairs = [a - b for a, b in zip(trained, closed, strict=False)]
    mean = sum(pairs) / len(pairs)
    if len(pairs) < 2:
        return mean, math.inf
    variance = sum((pair - mean) ** 2 for pair in pairs) / (len(pairs) - 1)
    return mean, math.sqrt(variance / len(pairs))


def run_race(
    inputs: RunInputs,
    seed: int,
    folder: Path,
    progress: Progress,
    prepare: Callable[[RunConfig, Progress], RunInputs],
    ends: float = math.inf,
) -> tuple[RunConfig, dict[str, Any]]:
    """Race, or read the result of an earlier call.

    Args:
        inputs: inputs of the run of ``auto``.
        seed: seed of the training.
        folder: folder of the run.
        progress: progress callback.
        prepare: makes the inputs of another configuration of the run.
        ends: value of ``time.monotonic()`` by which the run must be finished.

    Returns:
        The winner's configuration (that of ``auto`` for a closed form), and a record for the report: ``entries``, best
        validation H first (method, H, draws, seconds; no H if time was too short; ``stopped`` after so many draws and
        ``behind`` by so much if it was given up; ``untrained`` if it stayed its closed form); ``duels`` against the
        leader (method, against, ``difference`` of their H and its standard ``error``); ``winner``; ``entrant``,
        what it differs in from the closed forms on the images as they are: no, one or two names.
    """
    config, began = inputs.config, time.monotonic()
    identity = identity_of(inputs, config.draw_count)
    earlier = race_of(folder)
    if earlier is not None and earlier["identity"] == identity:
        return _of(config, earlier["entrant"]), earlier
    closed = validate_seeds(inputs, [seed], folder, _of_method("closed forms", progress))[seed]
    entries = [_entry(name, found["H"], found["draws"], None) for name, found in closed.metrics["race"].items()]
    best = next(entry for entry in entries if entry["method"] == closed.pick["method"])
    best |= {"draws": _draws(closed), "seconds": round(time.monotonic() - began)}
    leader, duels, entrant = best, list[dict[str, Any]](), list[str]()
    for name in _entrants(config, ends):
        kinds = [*(leading for leading in entrant if leading in LOOKS), name]
        theirs, began = _of(config, kinds), time.monotonic()
        label = ("closed forms" if name in LOOKS else name) + _looks(theirs)
        try:
            told, place = _of_method(label, progress), folder / "race" / name
            found = _tried(inputs, theirs, seed, place, best, told, prepare, ends)
        except UnseenError as reason:
            if name == TRAINED:
                raise
            _log.warning("%s is left out of the race: %s", label, reason)
            continue
        entries.append(_entry(label, None, None, None) | found | {"seconds": round(time.monotonic() - began)})
        if entries[-1]["draws"] and "untrained" not in entries[-1]:
            mean, error = gain(entries[-1]["draws"], leader["draws"])
            duel = {"method": entries[-1]["method"], "against": leader["method"], "difference": mean}
            duels.append(duel | {"error": None if math.isinf(error) else error})
            if mean > error:
                leader, entrant = entries[-1], kinds
    if entrant:
        shutil.copytree(folder / "race" / entrant[-1], folder, dirs_exist_ok=True)
    entries.sort(key=lambda entry: -(entry["H"] or 0))
    record = {"winner": leader["method"], "entrant": entrant, "duels": duels, "entries": entries, "identity": identity}
    write_json(folder / "race" / FILE, record, sealed=True)
    return _of(config, entrant), record


def _of_method(name: str, progress: Progress) -> Progress:
    """The progress of one method: its tasks have the same names as those of the others."""

    def tell(task: str, done: int, total: int, note: str = "") -> None:
        progress(f"{name}, {task}", done, total, note)

    return tell


def _of(config: RunConfig, entrant: Sequence[str]) -> RunConfig:
    """Configuration of an entrant: no name is the closed forms as they are; several belong together."""
    for name in entrant:
        if name in LOOKS:
            entry, value = LOOKS[name]
            spec = replace(config.backbone, **{entry: value})
            config = replace(config, backbone=spec, looked=(*config.looked, entry))
        else:
            config = replace(config, method=name, preset=None, raced=True)
    return config


def _looks(config: RunConfig) -> str:
    """Looks that a configuration races with, in parentheses."""
    values = {entry: getattr(config.backbone, entry) for entry in config.looked}
    return f" ({', '.join(looks_text(**(SINGLE | values)))})" if values else ""


def _entrants(config: RunConfig, ends: float) -> list[str]:
    """Who races against the closed forms; with a time also what takes more of it and a network."""
    backbone, names = config.backbone, [TRAINED]
    if math.isinf(ends) or backbone.imported:
        return names
    names += [name for name, (entry, _) in LOOKS.items() if getattr(backbone, entry) == SINGLE[entry]]
    return names if config.reduce or backbone.tower is not None else [*names, TUNED]


def _tried(
    inputs: RunInputs,
    theirs: RunConfig,
    seed: int,
    place: Path,
    closed: dict[str, Any],
    progress: Progress,
    prepare: Callable[[RunConfig, Progress], RunInputs],
    ends: float,
) -> dict[str, Any]:
    """Validate an entrant: the part of its entry that is known then; ``closed`` is the entry of the closed forms."""
    kind, draws = find_method(theirs.method), theirs.draw_count
    preset, settings, recipe = resolve_settings(theirs, inputs.dataset.name)
    held = theirs.holdout_count if needs_holdouts(inputs.dataset) else 0

    def timed(tasks: int) -> Progress:
        return progress if math.isinf(ends) else Clock(progress, ends, tasks)

    try:
        if theirs.method == AUTO:
            left = closed["seconds"] * (1 + held)  # for what follows the extraction
            own = prepare(theirs, Clock(progress, ends - left, 1))
            again = validate_seeds(own, [seed], place, progress)[seed]
            name = again.pick["method"] + _looks(theirs)
            return {"method": name, "H": again.metrics["best_H"], "draws": _draws(again)}
        if kind.end_to_end:
            assert isinstance(recipe, EndToEndRecipe)
            own = prepare(theirs, timed(1 + recipe.views))
        else:
            own = replace(inputs, config=theirs, preset=preset, settings=settings, recipe=recipe)
        watch = Watch(own, closed["draws"])
        # a method that may stay its closed form cannot fall behind
        after = None if issubclass(kind, RefitMethod) or theirs.select != "H" else watch
        trained = validate_seeds(own, [seed], place, timed((draws + 1) * (1 + held)), after)[seed]
    except OutOfTimeError:
        return {}
    except BehindError:
        return {"H": watch.value, "stopped": watch.draws, "of": draws, "behind": watch.behind}
    found = {"H": trained.metrics["best_H"], "draws": _draws(trained)}
    if theirs.looked:
        found["method"] = theirs.method + _looks(theirs)
    return found | ({"untrained": True} if trained.pick.get("epoch") == 0 else {})


def race_of(folder: Path) -> dict[str, Any] | None:
    """Record of the race of a run; ``None`` if there was no race."""
    path = folder / "race" / FILE
    return read_json(path) if path.is_file() else None


def asked_for(config: RunConfig) -> RunConfig:
    """Configuration that a race started with, from that of its winner."""
    single = {entry: SINGLE[entry] for entry in config.looked}
    config = replace(config, backbone=replace(config.backbone, **single), looked=())
    return replace(config, method=AUTO, preset=None, raced=False) if config.raced else config


def _entry(method: str, value: float | None, draws: list[float] | None, seconds: int | None) -> dict[str, Any]:
    return {"method": method, "H": value, "draws": draws, "seconds": seconds}


def _draws(choice: Choice) -> list[float]:
    return [float(draw["H"] or 0) for draw in choice.metrics["draws"]]
