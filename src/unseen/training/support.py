"""How support images count beside attributes, chosen on validation classes by few-shot episodes.

Held-out images of a validation draw become support images of all or half of the validation classes, or of half of all
classes, with 1, 2, 5, 10 and 20 per class. The numbers of :class:`~unseen.model.support.SupportRule` minimize the
cross-entropy of the softmax of (S' / temperature) on the other held-out images. Each class, and both kinds of classes,
have equal weight. Gamma and temperature are those chosen for attributes alone, so they remain valid for any mixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from unseen.evaluation.metrics import Decisions, evaluate
from unseen.evaluation.mixtures import KINDS, SCOPES, accuracy, draw_mixture
from unseen.evaluation.scores import calibrated
from unseen.evaluation.shots import SHOTS, Episode
from unseen.features.source import RegionSource
from unseen.features.store import RegionStore
from unseen.methods.base import Method
from unseen.methods.pooled import pool
from unseen.methods.preparation import FeaturePreparation
from unseen.model.assembled import EndToEnd
from unseen.model.support import SupportRule, SupportSpace, fitted
from unseen.model.together import together
from unseen.training.stage import KeptStage, Stage, solvable_features
from unseen.training.temperature import Held

MOST = 50_000
"""Largest number of training images to fit the whitening on."""
QUERIES = 2_000
"""Largest number of images of a draw to choose the rule on."""
WEIGHTS = (0.25, 0.5, 1.0)
"""Candidates for the weight of an image of a batch."""
HARM = 0.01
"""Accuracy that predicting a batch together may cost on validation batches of any kind."""
MOST_INNER = 4_000
"""Largest number of images of a draw whose inner products are kept."""
BATCH, BATCH_DRAWS, REPEATS = 400, 3, 2
"""Largest validation batch; number of validation draws to take batches from; batches of each kind per draw."""
START = {"prior": math.log(3.0), "scale": math.log(10.0), "offset": 0.0, "few": 0.0}
BOUNDS = {"prior": (math.log(0.1), math.log(100.0)), "scale": (-3.0, 7.0), "offset": (-100, 100), "few": (-100, 100)}


def takes_images(stage: Stage) -> bool:
    """Whether features are those of a frozen backbone."""
    return stage.inputs.with_images and isinstance(stage.inputs.store, RegionStore)


def pooled_features(stage: Stage, images: np.ndarray, method: Method | None = None) -> Tensor:
    """Float32 ``(n, C)`` :func:`~unseen.model.support.pooled` features of images of the dataset, on the CPU.

    ``method`` provides the backbone if it has trained it.
    """
    if isinstance(method, EndToEnd):
        return solvable_features(method, stage.features(images))[:, 0].float().cpu()
    store = stage.inputs.store
    assert isinstance(store, RegionStore)
    if not len(images):
        return torch.zeros(0, store.channels())
    found: Tensor = RegionSource(store, images, prepare=pool).batch(np.arange(len(images)))[:, 0]
    return found


def _training_images(stage: Stage, method: Method | None) -> tuple[Tensor, Tensor]:
    """Pooled features and labels of the training images."""
    if isinstance(stage, KeptStage):
        return stage.train.batch(np.arange(len(stage.train)))[:, 0].cpu(), torch.from_numpy(stage.train_labels)
    images, labels = stage.partition.train, stage.train_labels
    if len(images) > MOST:
        kept = np.sort(np.random.default_rng(0).choice(len(images), MOST, replace=False))
        images, labels = images[kept], labels[kept]
    return pooled_features(stage, images, method), torch.from_numpy(labels)


def held_out_vectors(stage: Stage) -> np.ndarray:
    """Float32 ``(M, C)``: the held-out images of a stage, in the space of its training images."""
    space = _space(stage)
    if isinstance(stage, KeptStage):
        found = stage.test.batch(np.arange(len(stage.test)))[:, 0].cpu()
    else:
        found = pooled_features(stage, stage.held_out)
    with torch.inference_mode():
        return np.asarray(space(found).numpy())


def fitted_space(stage: Stage, rule: SupportRule, method: Method) -> SupportSpace:
    """The space of the training images of a stage, by the backbone of a method if it has trained it, with the rule."""
    return SupportSpace(_space(stage, method), rule)


def _space(stage: Stage, method: Method | None = None) -> FeaturePreparation:
    """Whitening of the training images; not fitted again if a closed form has fitted it to the same features."""
    same = stage.fabric.device.type == "cpu" and stage.inputs.config.precision == "32-true"
    if stage.whitened is not None and same and len(stage.train_labels) <= MOST:
        return deepcopy(stage.whitened).float()
    return fitted(*_training_images(stage, method))


@dataclass(frozen=True, eq=False)
class _Task:
    """An episode with gamma and temperature applied; Q queries, P classes with support images.

    Args:
        prior: ``(Q, P)`` scores of these classes by attributes alone.
        others: ``(Q,)`` log-sum-exp over the other classes.
        cosines: ``(Q, P)`` cosines with the prototypes.
        count: ``(P,)`` number of support images.
        target: ``(Q,)`` position of the true class among the P, or -1.
        truth: ``(Q,)`` score of the true class if it is not among the P.
        weight: ``(Q,)`` weights with sum 1.
        bare: bool ``(P,)``, whether the class is treated as one without attributes.
    """

    prior: np.ndarray
    others: np.ndarray
    cosines: np.ndarray
    count: np.ndarray
    target: np.ndarray
    truth: np.ndarray
    weight: np.ndarray
    bare: np.ndarray

    def loss(self, keep: np.ndarray, cosine: np.ndarray, constant: np.ndarray) -> tuple[float, np.ndarray]:
        """Weighted cross-entropy with the scores keep * prior + cosine * cosines + constant, each ``(P,)``.

        With its gradient ``(3, P)``.
        """
        scores = self.prior * keep
        scores += self.cosines * cosine
        scores += constant
        inside = np.flatnonzero(self.target >= 0)
        own = inside, self.target[inside]
        truth = self.truth.copy()
        truth[inside] = scores[own]
        top = np.maximum(scores.max(axis=1), self.others)
        scores -= top[:, None]
        share = np.exp(scores, out=scores)
        total = share.sum(axis=1) + np.exp(self.others - top)
        loss = float(self.weight @ (np.log(total) + top - truth))
        share *= (self.weight / total)[:, None]
        share[own] -= self.weight[inside]
        gradient = np.stack([(share * self.prior).sum(axis=0), (share * self.cosines).sum(axis=0), share.sum(axis=0)])
        return loss, gradient


def choose_support(
    draws: Sequence[Held], vectors: Sequence[np.ndarray], gamma: float, temperature: float
) -> dict[str, Any] | None:
    """Choose the rule, and measure it on the validation images.

    Args:
        draws: class scores of the held-out images of every draw.
        vectors: :func:`held_out_vectors` of every draw.
        gamma, temperature: values chosen for attributes alone.

    Returns:
        ``rule`` (:class:`SupportRule`), ``shots``: T1, U, S and H by images per class, averaged over draws, and
        ``together``: from :func:`choose_together`; all as JSON types. ``None`` if no class has two held-out images.
    """
    tasks, counted = [], 0
    for i, (held, own) in enumerate(zip(draws, vectors, strict=True)):
        made, queries = _tasks(held, own, gamma, temperature, np.random.default_rng([i, 1]))
        tasks += made
        counted += queries
    if not tasks:
        return None
    unit = max(float(np.mean([held.scores.std(axis=1).mean() for held in draws])) / temperature, 1e-12)
    rule = _chosen(tasks, counted, unit, temperature)
    weight, gains = choose_together(draws, vectors, gamma, temperature, rule)
    return {
        "rule": asdict(replace(rule, together=weight)),
        "shots": shots_on(draws, vectors, gamma, rule),
        "together": gains,
    }


def choose_together(
    draws: Sequence[Held], vectors: Sequence[np.ndarray], gamma: float, temperature: float, rule: SupportRule
) -> tuple[float, dict[str, dict[str, float]]]:
    """Choose how many support images an image of a batch counts as (:mod:`unseen.model.together`).

    Returns:
        The candidate with the highest mean accuracy over all kinds of batches
        (:data:`~unseen.evaluation.mixtures.KINDS`), among those that lose no more than :data:`HARM` and a standard
        error on any kind; and its gains by kind and scope. 0 if no candidate gains.
    """
    drawn = [(held, own, _inner(own)) for held, own in list(zip(draws, vectors, strict=True))[:BATCH_DRAWS]]
    found: dict[float, dict[str, dict[str, np.ndarray]]] = {w: {kind: {} for kind in KINDS} for w in WEIGHTS}
    for kind, scope in product(KINDS, SCOPES):
        pairs = [
            together_on(kind, scope, held, own, gamma, temperature, rule, WEIGHTS, rng, BATCH, inner)
            for repeat in range(REPEATS)
            for i, (held, own, inner) in enumerate(drawn)
            for rng in [np.random.default_rng([i, repeat, 3])]
        ]
        gains = np.array([after - before for before, after in pairs])
        for weight, mine in zip(WEIGHTS, gains.T, strict=True):
            found[weight][kind][scope] = mine[np.isfinite(mine)]
    harmless = [w for w, by_kind in found.items() if not any(_harms(g) for by in by_kind.values() for g in by.values())]
    means = {
        w: {kind: {scope: float(g.mean()) for scope, g in by.items() if len(g)} for kind, by in by_kind.items()}
        for w, by_kind in found.items()
    }
    worth = {w: float(np.mean([g for by in means[w].values() for g in by.values()] or [0.0])) for w in harmless}
    best = max(worth, key=lambda w: worth[w], default=0.0)
    return (best, means[best]) if best and worth[best] > 0 else (0.0, {})


def _inner(vectors: np.ndarray) -> np.ndarray | None:
    """Inner products of the vectors of a draw, if they are few."""
    if len(vectors) > MOST_INNER:
        return None
    result: np.ndarray = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    return result


def _harms(gains: np.ndarray) -> bool:
    """Whether the loss exceeds :data:`HARM` by more than a standard error."""
    if len(gains) < 2:
        return bool((gains < -HARM).any())
    return bool(gains.mean() + gains.std(ddof=1) / math.sqrt(len(gains)) < -HARM)


def together_on(
    kind: str,
    scope: str,
    held: Held,
    vectors: np.ndarray,
    gamma: float,
    temperature: float,
    rule: SupportRule,
    weights: Sequence[float],
    rng: np.random.Generator,
    most: int = 0,
    inner: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """Accuracy on a batch of held-out images, predicted one by one, and together with each weight.

    Args:
        kind, scope: as in :mod:`unseen.evaluation.mixtures`.
        held: class scores of the held-out images.
        vectors: ``(M, C)`` vectors of these images.
        gamma, temperature, rule: parameters of the model.
        weights: support images that an image of the batch counts as.
        rng: generator that draws the batch.
        most: largest number of images of the batch; 0 for no limit.
        inner: ``(M, M)`` inner products of the vectors, if known.
    """
    mixture = draw_mixture(kind, scope, held.labels, held.seen, rng, most)
    rows, classes = mixture.images, mixture.classes
    plain = held.scores[np.ix_(rows, classes)].astype(np.float64) - gamma * held.seen[classes]
    own = None if inner is None else inner[np.ix_(rows, rows)]
    moved = (
        together(plain, vectors[rows], held.seen[classes], rule, weight, temperature, inner=own) for weight in weights
    )
    before, *after = (accuracy(s, held.labels, mixture, held.seen, scope) for s in (plain, *moved))
    return before, np.array(after)


def _tasks(
    held: Held, vectors: np.ndarray, gamma: float, temperature: float, rng: np.random.Generator
) -> tuple[list[_Task], int]:
    unseen, every = np.flatnonzero(~held.seen), np.arange(len(held.seen))
    scores = calibrated(torch.from_numpy(held.scores).double(), held.seen, gamma, temperature)
    made, queries = [], 0
    for among in (unseen, every):
        episode = Episode.draw(held.labels, among, max(SHOTS), rng)
        supported = np.array(sorted(episode.support))
        if len(supported) < 2:
            continue
        half = rng.permutation(supported)[: -(-len(supported) // 2)]
        if len(episode.queries) > QUERIES:
            kept = np.sort(rng.choice(episode.queries, QUERIES, replace=False))
            episode = Episode(kept, episode.support)
        queries += len(episode.queries)
        bare = rng.permutation(supported)[: len(supported) // 2]
        for classes in (supported, half) if among is unseen else (half,):
            made += [
                _task(scores, held, vectors, episode, shots, classes, bare if among is unseen else bare[:0])
                for shots in SHOTS
                if shots
            ]
    return made, queries


def _task(
    scores: Tensor,
    held: Held,
    vectors: np.ndarray,
    episode: Episode,
    shots: int,
    classes: np.ndarray,
    bare: np.ndarray,
) -> _Task:
    chosen, count, cosines = episode.similarities(vectors, shots, classes)
    asked, labels = scores[episode.queries], held.labels[episode.queries]
    place = np.full(len(held.seen), -1)
    place[chosen] = np.arange(len(chosen))
    others = torch.from_numpy(np.setdiff1d(np.arange(len(held.seen)), chosen))
    rest = asked[:, others].logsumexp(dim=1) if len(others) else asked.new_full((len(asked),), -math.inf)
    return _Task(
        asked[:, torch.from_numpy(chosen)].numpy(),
        rest.numpy(),
        cosines,
        count.astype(float),
        place[labels],
        asked.gather(1, torch.from_numpy(labels)[:, None])[:, 0].numpy(),
        _weights(labels, held.seen),
        np.isin(chosen, bare),
    )


def _weights(labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Weights with sum 1: images of a class, classes of a kind, and the two kinds count equally."""
    images = np.bincount(labels, minlength=len(seen))
    weights = np.zeros(len(seen))
    kinds = [kind for kind in (seen, ~seen) if (images[kind] > 0).any()]
    for kind in kinds:
        there = kind & (images > 0)
        weights[there] = 1 / (len(kinds) * there.sum() * images[there])
    return np.asarray(weights[labels])


def _chosen(tasks: Sequence[_Task], counted: int, unit: float, temperature: float) -> SupportRule:
    """The numbers with the smallest loss; those of classes without attributes are fitted last."""
    begin = np.array(list(START.values()))

    def attributes(values: np.ndarray) -> tuple[float, np.ndarray]:
        prior, scale = math.exp(values[0]), math.exp(values[1]) * unit
        offset, few = values[2] * unit, values[3] * unit
        loss, gradient = 0.0, np.zeros(4)
        for task in tasks:
            found, (by_keep, by_cosine, by_constant) = task.loss(*_mixed(task.count, prior, scale, offset, few))
            loss += found
            own = prior / (task.count + prior)
            rest = 1 - own
            turned = own * rest * (by_keep - by_cosine * scale - by_constant * offset)  # by the logarithm of the prior
            turned -= by_constant * few * own / (task.count + prior)
            gradient += [
                turned.sum(),
                by_cosine @ rest * scale,
                by_constant @ rest * unit,
                by_constant @ (1 / (task.count + prior)) * unit,
            ]
        away = values - begin
        return loss / len(tasks) + away @ away / (2 * counted), gradient / len(tasks) + away / counted

    best = _least(attributes, list(START.values()), list(BOUNDS.values()))
    prior, scale, offset, few = math.exp(best[0]), math.exp(best[1]) * unit, best[2] * unit, best[3] * unit
    mine = [task for task in tasks if task.bare.any()]

    def bare(values: np.ndarray) -> tuple[float, np.ndarray]:
        own, constant = math.exp(values[0]), values[1] * unit
        loss, gradient = 0.0, np.zeros(2)
        for task in mine:
            keep = own / (task.count + own)
            without = np.zeros_like(keep), (1 - keep) * scale, (1 - keep) * offset + keep * constant
            usual = _mixed(task.count, prior, scale, offset, few)
            found, by = task.loss(*(np.where(task.bare, a, b) for a, b in zip(without, usual, strict=True)))
            loss += found
            _, by_cosine, by_constant = np.where(task.bare, by, 0.0)
            turned = keep * (1 - keep) * (by_constant * (constant - offset) - by_cosine * scale)
            gradient += [turned.sum(), by_constant @ keep * unit]
        return loss / len(mine) + values @ values / (2 * counted), gradient / len(mine) + values / counted

    found = _least(bare, [0.0, 0.0], [BOUNDS["prior"], BOUNDS["offset"]]) if mine else [0.0, 0.0]
    return SupportRule(
        prior,
        scale * temperature,
        offset * temperature,
        few * temperature,
        math.exp(found[0]),
        found[1] * unit * temperature,
    )


def _mixed(
    count: np.ndarray, prior: float, scale: float, offset: float, few: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of the attributes' score, factor of the cosine, and constant, each ``(P,)``."""
    keep = prior / (count + prior)
    return keep, (1 - keep) * scale, (1 - keep) * offset + few / (count + prior)


def _least(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: list[float], bounds: list[tuple[float, float]]
) -> list[float]:
    """Minimize a smooth function of a few numbers, given with its gradient."""
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return [float(v) for v in found.x]


def mixed_scores(
    scores: np.ndarray,
    seen: np.ndarray,
    gamma: float,
    rule: SupportRule,
    episode: Episode,
    vectors: np.ndarray,
    shots: int,
) -> np.ndarray:
    """Float64 ``(Q, N)`` scores of an episode's queries, minus gamma.

    Args:
        scores: ``(M, N)`` class scores of the method.
        seen: bool ``(N,)``.
        gamma: calibration offset.
        rule: how support images count.
        episode: episode with the queries.
        vectors: ``(M, C)`` vectors of the M images.
        shots: images per class; 0 for attributes alone.
    """
    asked: np.ndarray = scores[episode.queries].astype(np.float64) - gamma * seen
    if shots:
        chosen, count, cosines = episode.similarities(vectors, shots)
        keep, factor, constant = rule.terms(count, np.ones(len(count), bool))
        asked[:, chosen] = keep * asked[:, chosen] + factor * cosines + constant
    return asked


def shots_on(
    draws: Sequence[Held], vectors: Sequence[np.ndarray], gamma: float, rule: SupportRule
) -> dict[str, dict[str, float]]:
    """T1, U, S and H of validation images by number of support images per validation class, averaged over draws."""
    found: dict[str, dict[str, float]] = {}
    for shots in SHOTS:
        rows = []
        for i, (held, own) in enumerate(zip(draws, vectors, strict=True)):
            episode = Episode.draw(held.labels, np.flatnonzero(~held.seen), max(SHOTS), np.random.default_rng([i, 2]))
            mixed = mixed_scores(held.scores, held.seen, gamma, rule, episode, own, shots)
            decisions = Decisions.from_scores(mixed, held.labels[episode.queries], held.seen)
            rows.append(evaluate(decisions, held.seen).as_dict())
        known = {name: [v for row in rows if (v := row[name]) is not None] for name in ("T1", "U", "S", "H")}
        found[str(shots)] = {name: float(np.mean(values)) for name, values in known.items() if values}
    return found
