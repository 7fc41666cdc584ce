"""How support images count beside attributes, chosen on validation classes by few-shot episodes.

Held-out images of a validation draw become support images of all or half of the validation classes, or of half of all
classes, with 1, 2, 5, 10 and 20 per class. The numbers of :class:`~unseen.model.support.SupportRule` minimize the
cross-entropy of the softmax of (S' / temperature) on the other held-out images. Each class, and both kinds of classes,
have equal weight. Gamma and temperature are those chosen for attributes alone, so they remain valid for any mixture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from unseen.methods.pooled import pool
from unseen.methods.preparation import FeaturePreparation
from unseen.model.support import SupportRule, SupportSpace, fitted
from unseen.model.together import together
from unseen.training.stage import Stage
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
    """Whether features are independent of the training; those of a backbone that is trained along are not."""
    return stage.inputs.with_images and isinstance(stage.inputs.store, RegionStore)


def pooled_features(stage: Stage, images: np.ndarray) -> Tensor:
    """Float32 ``(n, C)`` :func:`~unseen.model.support.pooled` features of images of the dataset, on the CPU."""
    store = stage.inputs.store
    assert isinstance(store, RegionStore)
    if not len(images):
        return torch.zeros(0, store.channels())
    found: Tensor = RegionSource(store, images, prepare=pool).batch(np.arange(len(images)))[:, 0]
    return found


def _training_images(stage: Stage) -> tuple[Tensor, Tensor]:
    """Pooled features and labels of the training images."""
    images, labels = stage.partition.train, stage.train_labels
    if len(images) > MOST:
        kept = np.sort(np.random.default_rng(0).choice(len(images), MOST, replace=False))
        images, labels = images[kept], labels[kept]
    return pooled_features(stage, images), torch.from_numpy(labels)


def held_out_vectors(stage: Stage) -> np.ndarray:
    """Float32 ``(M, C)``: the held-out images of a stage, in the space of its training images."""
    space = _space(stage)
    with torch.inference_mode():
        return np.asarray(space(pooled_features(stage, stage.held_out)).numpy())


def fitted_space(stage: Stage, rule: SupportRule) -> SupportSpace:
    """The space of the training images of a stage, with the rule."""
    return SupportSpace(_space(stage), rule)


def _space(stage: Stage) -> FeaturePreparation:
    """Whitening of the training images; not fitted again if a closed form has fitted it to the same features."""
    same = stage.fabric.device.type == "cpu" and stage.inputs.config.precision == "32-true"
    if stage.whitened is not None and same and len(stage.train_labels) <= MOST:
        return deepcopy(stage.whitened).float()
    return fitted(*_training_images(stage))


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

    prior: Tensor
    others: Tensor
    cosines: Tensor
    count: Tensor
    target: Tensor
    truth: Tensor
    weight: Tensor
    bare: Tensor

    def loss(self, keep: Tensor, cosine: Tensor, constant: Tensor) -> Tensor:
        """Weighted cross-entropy with the scores keep * prior + cosine * cosines + constant, each ``(P,)``."""
        scores = keep * self.prior + cosine * self.cosines + constant
        total = torch.logaddexp(self.others, scores.logsumexp(dim=1))
        mine = scores.gather(1, self.target.clamp(min=0)[:, None])[:, 0]
        result: Tensor = (self.weight * (total - torch.where(self.target < 0, self.truth, mine))).sum()
        return result


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
    return _Task(
        asked[:, torch.from_numpy(chosen)],
        asked[:, others].logsumexp(dim=1) if len(others) else asked.new_full((len(asked),), -math.inf),
        torch.from_numpy(cosines),
        torch.from_numpy(count).double(),
        torch.from_numpy(place[labels]),
        asked.gather(1, torch.from_numpy(labels)[:, None])[:, 0],
        torch.from_numpy(_weights(labels, held.seen)),
        torch.from_numpy(np.isin(chosen, bare)),
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

    def mixed(task: _Task, prior: Tensor, scale: Tensor, offset: Tensor, few: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep = prior / (task.count + prior)
        return keep, (1 - keep) * scale, (1 - keep) * offset + few / (task.count + prior)

    def attributes(values: Tensor) -> Tensor:
        prior, scale = values[0].exp(), values[1].exp() * unit
        losses = [task.loss(*mixed(task, prior, scale, values[2] * unit, values[3] * unit)) for task in tasks]
        start = values.new_tensor(list(START.values()))
        return torch.stack(losses).mean() + ((values - start) ** 2).sum() / (2 * counted)

    best = _least(attributes, list(START.values()), list(BOUNDS.values()))
    prior, scale, offset, few = math.exp(best[0]), math.exp(best[1]) * unit, best[2] * unit, best[3] * unit

    def bare(values: Tensor) -> Tensor:
        own, constant = values[0].exp(), values[1] * unit
        losses = []
        for task in (t for t in tasks if t.bare.any()):
            usual = mixed(task, *map(values.new_tensor, (prior, scale, offset, few)))
            keep = own / (task.count + own)
            mine = torch.zeros_like(keep), (1 - keep) * scale, (1 - keep) * offset + keep * constant
            losses.append(task.loss(*(torch.where(task.bare, a, b) for a, b in zip(mine, usual, strict=True))))
        return torch.stack(losses).mean() + (values**2).sum() / (2 * counted)

    without = [0.0, 0.0]
    if any(task.bare.any() for task in tasks):
        without = _least(bare, without, [BOUNDS["prior"], BOUNDS["offset"]])
    return SupportRule(
        prior,
        scale * temperature,
        offset * temperature,
        few * temperature,
        math.exp(without[0]),
        without[1] * unit * temperature,
    )


def _least(loss: Any, start: list[float], bounds: list[tuple[float, float]]) -> list[float]:
    """Minimize a smooth function of a few numbers."""

    def with_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = loss(values)
        (gradient,) = torch.autograd.grad(value, values)
        return float(value.detach()), gradient.numpy()

    with torch.inference_mode(False), torch.enable_grad():
        found = minimize(with_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
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
