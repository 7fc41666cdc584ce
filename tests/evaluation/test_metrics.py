"""The metrics against hand counts, literal loops and brute force over gamma."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from unseen.evaluation.bootstrap import Interval, bootstrap, wilson
from unseen.evaluation.metrics import (
    CORE,
    Decisions,
    Scores,
    SeenUnseenCurve,
    common_gamma,
    evaluate,
    h_bounds,
    harmonic,
    per_class_accuracy,
)

EXACT = {"rtol": 0, "atol": 1e-12, "equal_nan": True}


def loop_accuracy(predicted, labels, classes):
    """Mean over the classes that have images of the share that is right."""
    shares = []
    for c in classes:
        mine = [p == c for p, label in zip(predicted, labels, strict=True) if label == c]
        if mine:
            shares.append(sum(mine) / len(mine))
    return sum(shares) / len(shares) if shares else float("nan")


def loop_predict(scores, seen, gamma):
    """Calibrated stacking, literally; on a tie the unseen class, else the first."""
    predicted = []
    for row in scores:
        stacked = [s - gamma if k else s for s, k in zip(row.tolist(), seen, strict=True)]
        best = max(stacked)
        tied = [c for c, s in enumerate(stacked) if s == best]
        predicted.append(next((c for c in tied if not seen[c]), tied[0]))
    return np.array(predicted)


def loop_gzsl(scores, labels, seen, gamma=0.0):
    classes = range(len(seen))
    predicted = loop_predict(scores, seen, gamma)
    u = loop_accuracy(predicted, labels, [c for c in classes if not seen[c]])
    s = loop_accuracy(predicted, labels, [c for c in classes if seen[c]])
    return u, s, 2 * u * s / (u + s) if u + s else 0.0


def loop_t1(scores, labels, seen):
    unseen = np.flatnonzero(~seen)
    mine = ~seen[labels]
    predicted = [unseen[int(np.argmax(row[unseen]))] for row in scores[mine]]
    return loop_accuracy(predicted, labels[mine], unseen)


def brute_curve(scores, labels, seen):
    """(U, S) between any two gammas at which something can change, from all seen to all unseen."""
    where = np.flatnonzero(seen), np.flatnonzero(~seen)
    gaps = sorted({row[a] - row[b] for row in scores.tolist() for a in where[0] for b in where[1]})
    gammas = sorted([*gaps, *((a + b) / 2 for a, b in pairwise([gaps[0] - 1, *gaps, gaps[-1] + 1]))])
    return gammas, [loop_gzsl(scores, labels, seen, gamma) for gamma in gammas]


@st.composite
def problems(draw, grid=True):
    """Scores on a coarse grid of quarters, so that ties abound and differences are exact, labels, seen flags."""
    seen = np.array(draw(st.permutations([True, False, *draw(st.lists(st.booleans(), max_size=4))])))
    m = draw(st.integers(2, 14))
    labels = np.array(draw(st.lists(st.integers(0, len(seen) - 1), min_size=m, max_size=m)))
    labels[0], labels[1] = np.flatnonzero(seen)[0], np.flatnonzero(~seen)[0]
    quarters = draw(st.lists(st.integers(-6, 6), min_size=m * len(seen), max_size=m * len(seen)))
    return np.array(quarters).reshape(m, len(seen)) / 4, labels, seen


def random_problem(seed, m=60, n=9, unseen=4):
    rng = np.random.default_rng(seed)
    seen = rng.permutation(np.arange(n) >= unseen)
    labels = rng.permutation(np.concatenate([np.arange(n), rng.integers(0, n, m - n)]))
    scores = rng.standard_normal((m, n)) + 1.2 * np.eye(n)[labels] + 0.4 * seen
    return scores, labels, seen


def test_per_class_accuracy_by_hand():
    correct = np.array([1, 0, 1, 1, 0], bool)
    labels = np.array([4, 4, 1, 1, 2])
    found = per_class_accuracy(correct, labels, np.array([1, 2, 3, 4, 9]))
    np.testing.assert_array_equal(found, [1, 0, np.nan, 0.5, np.nan])
    empty = per_class_accuracy(np.zeros(0, bool), np.zeros(0, int), np.array([0, 1]))
    np.testing.assert_array_equal(empty, [np.nan, np.nan])


def test_harmonic_mean():
    np.testing.assert_allclose(harmonic(np.array([0.5, 0, 0, 1]), np.array([0.25, 0, 1, 1])), [1 / 3, 0, 0, 1])
    assert np.isnan(harmonic(np.nan, 0.5))


def test_a_case_by_hand():
    """Classes 0, 1 seen and 2, 3 unseen."""
    seen = np.array([True, True, False, False])
    scores = np.array(
        [
            [9, 1, 2, 3],  # 0: right; offset 6
            [1, 5, 4, 0],  # 0: says 1; offset 1
            [1, 5, 4, 0],  # 1: right; offset 1
            [5, 0, 4, 1],  # 2: says 0, right among the unseen; offset 1
            [0, 1, 4, 3],  # 2: right; offset -3
            [0, 1, 4, 3],  # 3: says 2
        ],
        dtype=float,
    )
    labels = np.array([0, 0, 1, 2, 2, 3])
    decisions = Decisions.from_scores(scores, labels, seen)
    np.testing.assert_array_equal(decisions.predict(), [0, 1, 1, 0, 2, 2])
    np.testing.assert_array_equal(decisions.predict(1.0), [0, 2, 2, 2, 2, 2])
    found = evaluate(decisions, seen)
    # S: class 0 half, class 1 all; U: class 2 half, class 3 none; T1: class 2 all, class 3 none
    assert (found.s, found.u, found.t1, found.h) == (0.75, 0.25, 0.5, 0.375)
    # curve: (0, .75) until -3, (.25, .75) until 1, (.5, .25) until 6, (.5, 0)
    curve = SeenUnseenCurve.of(decisions)
    np.testing.assert_allclose(curve.gamma, [-np.inf, -3, 1, 6])
    np.testing.assert_allclose(curve.u, [0, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(curve.s, [0.75, 0.75, 0.25, 0])
    assert found.ausuc == pytest.approx(0.25 * 0.75 + 0.25 * 0.5)
    assert curve.best_gamma() == (-1.0, 0.375)  # the middle of [-3, 1)
    assert found.as_dict() == {"T1": 0.5, "U": 0.25, "S": 0.75, "H": 0.375, "AUSUC": found.ausuc, "gamma": 0.0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [0.0, 0.7, -0.3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_table_equals_a_literal_loop(seed, gamma, dtype):
    scores, labels, seen = random_problem(seed)
    scores = scores.astype(dtype)
    found = evaluate(Decisions.from_scores(scores, labels, seen), seen, gamma)
    expected = (loop_t1(scores, labels, seen), *loop_gzsl(scores, labels, seen, gamma))
    np.testing.assert_allclose((found.t1, found.u, found.s, found.h), expected, **EXACT)
    assert found.gamma == gamma
    assert 0 < found.h < 1


@settings(max_examples=80, deadline=None)
@given(problem=problems())
def test_the_curve_equals_brute_force_with_ties(problem):
    scores, labels, seen = problem
    decisions = Decisions.from_scores(scores, labels, seen)
    curve = SeenUnseenCurve.of(decisions)
    gammas, brute = brute_curve(scores, labels, seen)
    for gamma, (u, s, h) in zip(gammas, brute, strict=True):
        i = int(np.searchsorted(curve.gamma, gamma, side="right")) - 1
        np.testing.assert_allclose((curve.u[i], curve.s[i]), (u, s), **EXACT)
        found = evaluate(decisions, seen, gamma)
        np.testing.assert_allclose((found.u, found.s, found.h), (u, s, h), **EXACT)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(brute))
    assert curve.area == pytest.approx(area, abs=1e-12)
    gamma, best = curve.best_gamma()
    assert best == pytest.approx(max(h for *_, h in brute), abs=1e-12)
    assert evaluate(decisions, seen, gamma).h == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_equals_brute_force_without_ties(seed):
    scores, labels, seen = random_problem(seed, m=25)
    decisions = Decisions.from_scores(scores, labels, seen)
    _, brute = brute_curve(scores, labels, seen)
    curve = SeenUnseenCurve.of(decisions)
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(brute))
    assert curve.area == pytest.approx(area, abs=1e-12)
    gamma, best = curve.best_gamma()
    assert best == pytest.approx(max(h for *_, h in brute), abs=1e-12)
    assert evaluate(decisions, seen, gamma).h == pytest.approx(best, abs=1e-12)
    assert best >= evaluate(decisions, seen).h
    assert len(curve.gamma) == 26


@pytest.mark.parametrize("seen", [[True, False, True, False], [True] * 4], ids=["both kinds", "one kind"])
def test_candidates_are_decided_as_each_alone(seen):
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 3, (5, 30, 4)).astype(np.float32), rng.integers(0, 4, 30)  # with ties
    found = Decisions.of_candidates(torch.from_numpy(scores), labels, np.array(seen))
    for candidate, own in zip(found, scores, strict=True):
        alone = Decisions.from_scores(own, labels, np.array(seen))
        for name, array in alone.arrays().items():
            np.testing.assert_array_equal(getattr(candidate, name), array)


def test_the_curve_runs_from_all_seen_to_all_unseen():
    scores, labels, seen = random_problem(0)
    decisions = Decisions.from_scores(scores, labels, seen)
    curve = SeenUnseenCurve.of(decisions)
    assert (curve.u[0], curve.s[-1]) == (0, pytest.approx(0, abs=1e-12))
    assert curve.u[-1] == pytest.approx(loop_t1(scores, labels, seen))
    assert (np.diff(curve.u) >= 0).all()
    assert (np.diff(curve.s) <= 0).all()


def test_constant_scores():
    """Everything ties: the first unseen class for gamma >= 0, the first seen one below."""
    seen = np.array([False, True, False, True])
    labels = np.array([0, 1, 2, 3])
    decisions = Decisions.from_scores(np.full((4, 4), 0.3), labels, seen)
    np.testing.assert_array_equal(decisions.predict(), 0)
    np.testing.assert_array_equal(decisions.predict(-1e-9), 1)
    found = evaluate(decisions, seen)
    assert (found.t1, found.u, found.s, found.h, found.ausuc) == (0.5, 0.5, 0, 0, 0.125)
    assert SeenUnseenCurve.of(decisions).best_gamma() == (0.0, 0.0)


def test_best_gamma_between_neighbouring_floats():
    """The middle of two neighbours rounds to one of them; it must stay below the upper one."""
    low = 1 + 2**-52  # its odd mantissa makes the middle round up
    high = np.nextafter(low, 2)
    seen = np.array([True, False])
    labels = np.array([1, 0])
    decisions = Decisions.from_scores(np.array([[low, 0], [high, 0]]), labels, seen)
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    assert best == 1
    assert evaluate(decisions, seen, gamma).h == 1


@pytest.mark.parametrize("missing", ["unseen images", "seen images", "all images", "unseen classes", "seen classes"])
def test_what_cannot_be_measured_is_nan(missing):
    scores, labels, seen = random_problem(0)
    if missing == "unseen classes":
        scores, labels, seen = scores[seen[labels]], labels[seen[labels]], np.ones_like(seen)
    elif missing == "seen classes":
        scores, labels, seen = scores[~seen[labels]], labels[~seen[labels]], np.zeros_like(seen)
    else:
        keep = {"unseen images": seen[labels], "seen images": ~seen[labels]}.get(missing, np.zeros(60, bool))
        scores, labels = scores[keep], labels[keep]
    decisions = Decisions.from_scores(scores, labels, seen)
    found = evaluate(decisions, seen)
    has_unseen, has_seen = missing in ("seen images", "seen classes"), missing.startswith("unseen")
    assert np.isnan(found.t1) == np.isnan(found.u) == (not has_unseen)
    assert np.isnan(found.s) == (not has_seen)
    assert np.isnan(found.h)
    assert np.isnan(found.ausuc)
    assert found.as_dict()["H"] is None
    gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    assert gamma == 0
    assert np.isnan(best)
    if has_seen:
        # without unseen classes nothing competes, whatever gamma
        said = scores.argmax(axis=1) if seen.all() else loop_predict(scores, seen, 0.0)
        expected = loop_accuracy(said, labels, np.flatnonzero(seen))
        assert found.s == pytest.approx(expected)
    if has_unseen:
        assert found.t1 == pytest.approx(loop_t1(scores, labels, seen))
    intervals = bootstrap([decisions], [0.0], names=CORE[:4], samples=10)
    assert np.isnan(intervals["H"].mean)
    assert intervals["H"].as_dict()["low"] is None
    assert np.isnan(intervals["T1"].mean) == (not has_unseen)


def test_an_interval_over_classes_holds_that_over_images():
    labels, seen = np.repeat([0, 1, 2], 50), np.array([True, True, False])
    scores = np.eye(3)[labels]
    scores[labels == 1] = [1.0, 0.0, 0.0]  # one class with images is always right, the other never
    found = bootstrap([Decisions.from_scores(scores, labels, seen)], [0.0], names=CORE[:4])
    assert (found["S"].mean, found["S"].over_classes) == (0.5, (0.0, 1.0))
    assert 0.4 < found["S"].low < 0.5 < found["S"].high < 0.6
    low, high = found["U"].over_classes  # a single class
    assert (low, high) == (found["U"].low, found["U"].high)
    assert found["H"].as_dict()["low_classes"] == 0.0
    assert found["H"].as_dict()["high_classes"] == 1.0
    assert "low_classes" not in Interval(0.5, 0.0, 0.4, 0.6).as_dict()


def test_classes_without_images_do_not_count():
    scores, labels, seen = random_problem(1)
    gone = [int(np.flatnonzero(seen)[0]), int(np.flatnonzero(~seen)[0])]
    keep = ~np.isin(labels, gone)
    decisions = Decisions.from_scores(scores[keep], labels[keep], seen)
    found = evaluate(decisions, seen, 0.2)
    expected = (loop_t1(scores[keep], labels[keep], seen), *loop_gzsl(scores[keep], labels[keep], seen, 0.2))
    np.testing.assert_allclose((found.t1, found.u, found.s, found.h), expected, **EXACT)
    curve = SeenUnseenCurve.of(decisions)
    i = np.searchsorted(curve.gamma, 0.2, side="right") - 1
    np.testing.assert_allclose((curve.u[i], curve.s[i]), expected[1:3], **EXACT)


def numbers(scores, labels, seen, gamma=0.25):
    decisions = Decisions.from_scores(scores, labels, seen)
    found = evaluate(decisions, seen, gamma)
    best_gamma, best = SeenUnseenCurve.of(decisions).best_gamma()
    return (found.t1, found.u, found.s, found.h, found.ausuc, best, best_gamma)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), data=st.data())
def test_the_order_of_images_does_not_matter(problem, data):
    scores, labels, seen = problem
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    # best_gamma may differ: equal H at two gammas, told apart by rounding of the sums
    np.testing.assert_allclose(
        numbers(scores[order], labels[order], seen)[:-1], numbers(scores, labels, seen)[:-1], **EXACT
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_classes_does_not_matter(seed):
    scores, labels, seen = random_problem(seed)
    order = np.random.default_rng(seed).permutation(len(seen))
    position = np.argsort(order)
    np.testing.assert_allclose(
        numbers(scores[:, order], position[labels], seen[order]), numbers(scores, labels, seen), **EXACT
    )


@settings(max_examples=60, deadline=None)
@given(problem=problems(), quarters=st.integers(-40, 40))
def test_a_constant_on_all_scores_does_not_matter(problem, quarters):
    scores, labels, seen = problem
    np.testing.assert_allclose(numbers(scores + quarters / 4, labels, seen), numbers(scores, labels, seen), **EXACT)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), quarters=st.integers(-40, 40))
def test_a_constant_on_the_seen_scores_shifts_gamma(problem, quarters):
    scores, labels, seen = problem
    by = quarters / 4
    *before, gamma = numbers(scores, labels, seen, 0.25)
    *after, shifted = numbers(scores + by * seen, labels, seen, 0.25 + by)
    np.testing.assert_allclose(after, before, **EXACT)
    if before[5] > 0:
        assert shifted == pytest.approx(gamma + by)
    curves = [SeenUnseenCurve.of(Decisions.from_scores(s, labels, seen)) for s in (scores, scores + by * seen)]
    np.testing.assert_allclose(curves[1].gamma, curves[0].gamma + by, atol=1e-12)


def test_gamma_takes_s_down_and_u_up():
    scores, labels, seen = random_problem(2)
    decisions = Decisions.from_scores(scores, labels, seen)
    found = [evaluate(decisions, seen, gamma) for gamma in np.linspace(-4, 4, 30)]
    assert (np.diff([f.u for f in found]) >= 0).all()
    assert (np.diff([f.s for f in found]) <= 0).all()
    assert len({f.t1 for f in found}) == len({f.ausuc for f in found}) == 1


# bootstrap


def outcome(right, labels, seen):
    """Decisions of images that are right, or else wrong in a class of the same kind; two classes of each kind."""
    kind = seen[labels]
    other = np.array([1, 0, 3, 2])[labels]
    said = np.where(right, labels, other)
    leading = np.stack([np.where(kind, said, 0), np.where(kind, 2, said)], axis=1)[:, :, None]
    return Decisions(labels, leading, np.stack([np.where(kind, 1.0, -1.0), 0 * said], axis=1)[:, :, None], ~kind)


SEEN = np.array([True, True, False, False])


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_has_the_interval_of_wilson(right):
    """Equal draws say nothing about spread. Two classes of 5 and 3 images weigh like 4 / (1/5 + 1/3) = 7.5 images."""
    labels = np.repeat([0, 1, 2, 3], [5, 3, 4, 4])
    found = bootstrap([outcome(np.full(16, right), labels, SEEN)], [0.0], names=CORE[:4], samples=50)
    z2 = 1.959963984540054**2
    ends = {"S": 7.5 / (7.5 + z2), "U": 8 / (8 + z2), "T1": 8 / (8 + z2)}
    ends["H"] = 2 * ends["S"] * ends["U"] / (ends["S"] + ends["U"])
    for name, end in ends.items():
        interval = found[name]
        assert (interval.mean, interval.std, interval.per_seed) == (right, 0, [right])
        if right or name != "H":
            assert (interval.low, interval.high) == pytest.approx((end, 1) if right else (0, 1 - end))


def test_wilson_is_that_of_scipy():
    for right, images in ((0, 4), (3, 7), (26, 26)):
        expected = binomtest(right, images).proportion_ci(0.9, method="wilson")
        assert wilson(right / images, images, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_one_image_a_class_has_the_interval_of_wilson():
    """Resampling one image gives that image; 1 of 2 right has a wide interval."""
    labels = np.arange(4)
    found = bootstrap([outcome(np.array([1, 0, 1, 1], bool), labels, SEEN)], [0.0], names=CORE[:4], samples=50)
    expected = binomtest(1, 2).proportion_ci(method="wilson")
    assert (found["S"].low, found["S"].mean, found["S"].high) == pytest.approx((expected.low, 0.5, expected.high))
    assert found["H"].low < 2 / 3 < found["H"].high < 1


def test_images_are_resampled_within_their_class():
    """2 of 4 right in each of two classes: S resampled is the mean of two Binomial(4, 1/2) / 4."""
    labels = np.repeat([0, 1, 2, 3], 4)
    right = np.tile([1, 0, 1, 0], 4).astype(bool)
    found = bootstrap([outcome(right, labels, SEEN)], [0.0], names=CORE[:4], samples=20000, level=0.9)
    # quantiles of Binomial(8, 1/2): P(X <= 1) = 0.035 < 0.05 < P(X <= 2) = 0.145
    assert (found["S"].low, found["S"].mean, found["S"].high) == (0.25, 0.5, 0.75)
    wide = bootstrap([outcome(right, labels, SEEN)], [0.0], names=CORE[:4], samples=20000, level=0.995)
    # P(X <= 0) = 0.0039 > 0.0025
    assert (wide["S"].low, wide["S"].high) == (0, 1)


def test_the_mean_is_as_measured_for_every_seed():
    problems = [random_problem(0) for _ in range(3)]
    rng = np.random.default_rng(0)
    labels, seen = problems[0][1:]
    decisions = [Decisions.from_scores(s + rng.standard_normal(s.shape), labels, seen) for s, *_ in problems]
    gammas = [0.0, 0.3, -0.2]
    found = bootstrap(decisions, gammas, names=CORE[:4], samples=400)
    measured = [evaluate(d, seen, g) for d, g in zip(decisions, gammas, strict=True)]
    for name in ("t1", "u", "s", "h"):
        interval = found[name.upper()]
        values = [getattr(m, name) for m in measured]
        np.testing.assert_allclose(interval.per_seed, values, **EXACT)
        assert interval.mean == pytest.approx(np.mean(values))
        assert interval.std == pytest.approx(np.std(values, ddof=1))
        assert interval.low < interval.mean < interval.high
    assert bootstrap(decisions[:1], [0.0], names=CORE[:4], samples=10)["T1"].std == 0


def test_the_same_seed_gives_the_same_interval():
    scores, labels, seen = random_problem(3)
    decisions = [Decisions.from_scores(scores, labels, seen)]
    one, same, other = (bootstrap(decisions, [0.0], names=CORE[:4], samples=300, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert (one["S"].low, one["S"].high) != (other["S"].low, other["S"].high)
    # seeds of training share the resampling, so a model twice has the interval of that model
    twice = bootstrap(decisions * 2, [0.0, 0.0], names=CORE[:4], samples=300, seed=1)
    assert (twice["H"].low, twice["H"].high) == pytest.approx((one["H"].low, one["H"].high))


def test_coverage():
    """Of 150 data sets of accuracy 0.7, about 95% of the intervals hold it."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], 60)
    inside = 0
    for i in range(150):
        found = bootstrap([outcome(rng.random(240) < 0.7, labels, SEEN)], [0.0], names=CORE[:4], samples=200, seed=i)[
            "S"
        ]
        inside += found.low <= 0.7 <= found.high
    assert 0.88 < inside / 150 < 0.99


def test_the_json_form_has_no_nan():
    nan = float("nan")
    assert Scores(nan, nan, 0.5, nan, 0.0, nan).as_dict() == {
        "T1": None,
        "U": None,
        "S": 0.5,
        "H": None,
        "AUSUC": None,
        "gamma": 0.0,
    }
    interval = Interval(nan, nan, nan, nan, [nan, 0.5]).as_dict()
    assert interval == {"mean": None, "std": None, "low": None, "high": None, "per_seed": [None, 0.5]}


@pytest.mark.parametrize("kinds", ["both", "seen", "unseen"])
@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_scores_in_blocks_give_the_same_decisions(kinds, size):
    rng = np.random.default_rng(size)
    scores = rng.integers(0, 4, (30, 17)).astype(np.float32) - 2  # with ties
    seen = {"both": rng.random(17) < 0.5, "seen": np.ones(17, bool), "unseen": np.zeros(17, bool)}[kinds]
    labels = rng.integers(0, 17, 30)
    found = Decisions.from_blocks((scores[:, i : i + size] for i in range(0, 17, size)), labels, seen)
    for kind, best in ((True, found.best_seen), (False, found.best_unseen)):
        columns = np.flatnonzero(seen == kind)
        expected = columns[scores[:, columns].argmax(axis=1)] if len(columns) else np.full(30, -1)
        np.testing.assert_array_equal(best, expected)
    if kinds == "both":
        rows = np.arange(30)
        np.testing.assert_array_equal(found.offset, scores[rows, found.best_seen] - scores[rows, found.best_unseen])
    else:
        assert (found.offset == (np.inf if kinds == "seen" else -np.inf)).all()
    np.testing.assert_array_equal(found.is_unseen, ~seen[labels])


@pytest.mark.parametrize("size", [3, 40])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_leading_classes_are_those_of_a_full_sort(size, gamma):
    rng = np.random.default_rng(size)
    scores = rng.integers(0, 9, (30, 17)).astype(np.float32) - 4  # with ties
    seen, labels = rng.random(17) < 0.5, rng.integers(0, 17, 30)
    blocks = (scores[:, i : i + size] for i in range(0, 17, size))
    found = Decisions.from_blocks(blocks, labels, seen, 6)
    order = np.argsort(seen, kind="stable")  # of equal ones an unseen class first, then the first of its kind
    expected = order[np.argsort(-(scores - gamma * seen)[:, order], axis=1, kind="stable")[:, :6]]
    np.testing.assert_array_equal(found.ranked(6, gamma), expected)
    np.testing.assert_array_equal(found.ranked(1, gamma)[:, 0], found.predict(gamma))
    few = Decisions.from_scores(scores[:, :3], np.zeros(30, int), np.array([True, False, True]), 4)
    np.testing.assert_array_equal(np.sort(few.ranked(4), axis=1), np.tile([-1, 0, 1, 2], (30, 1)))
    with pytest.raises(ValueError, match="the best 4 classes of each kind are kept, not 5"):
        few.ranked(5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), draws=st.integers(1, 4))
def test_the_common_gamma_has_the_highest_mean_h(seed, draws):
    """Against every gamma at which some curve changes, and both sides of it."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        seen = np.array([True, True, False, False])
        labels = np.concatenate([np.arange(4), rng.integers(0, 4, 8)])
        found.append(Decisions.from_scores(rng.integers(0, 6, (12, 4)).astype(float), labels, seen))
    curves = [SeenUnseenCurve.of(d) for d in found]
    gamma, best = common_gamma(curves)

    def mean_h(at):
        return np.mean([evaluate(d, seen, at).h for d in found])

    np.testing.assert_allclose(mean_h(gamma), best, **EXACT)
    assert best >= max(mean_h(at) for at in np.arange(-7, 7.1, 0.5)) - 1e-12


def test_one_curve_has_its_own_gamma():
    labels, seen = np.array([0, 1, 2]), np.array([True, False, False])
    curve = SeenUnseenCurve.of(Decisions.from_scores(np.array([[3.0, 1, 0], [2, 1, 0], [0, 1, 2]]), labels, seen))
    assert common_gamma([curve]) == curve.best_gamma()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.sampled_from([4, 10**6]))
def test_bounds_of_h_are_above_the_best_h_and_near_it(seed, levels):
    """With few levels offsets are equal, and a bound may be too high; else it is the best H."""
    rng = np.random.default_rng(seed)
    labels, seen = np.concatenate([np.arange(4), rng.integers(0, 4, 20)]), np.array([True, False, True, False])
    candidates = [Decisions.from_scores(rng.integers(0, levels, (24, 4)).astype(float), labels, seen) for _ in range(3)]
    best = np.array([SeenUnseenCurve.of(d).best_gamma()[1] for d in candidates])
    bounds = h_bounds(candidates)
    assert (bounds >= best).all()
    if levels > 4:
        np.testing.assert_allclose(bounds, best, rtol=0, atol=1e-8)


def test_there_is_no_bound_of_h_without_images_of_a_kind():
    labels, seen = np.array([0, 0]), np.array([True, False])
    assert np.isnan(h_bounds([Decisions.from_scores(np.eye(2), labels, seen)])).all()
