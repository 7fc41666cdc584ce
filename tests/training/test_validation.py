"""What is chosen on several draws of validation classes, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unseen.evaluation.metrics import Decisions, evaluate, h_bounds
from unseen.training.closed_form import Validation, _Tried
from unseen.training.outcomes import Choice, choice_of, value_of, values_of
from unseen.training.temperature import Held

FIRST, SECOND = np.array([True, True, False]), np.array([False, True, True])


def held(scores, seen):
    return Held(np.array(scores, dtype=float), np.arange(3), seen)


def test_a_candidate_is_worth_its_mean_h_at_one_gamma():
    """Alone each draw has a gamma with H = 1, at 0 < gamma <= 2 and above 3; no gamma serves both."""
    a = held([[5, 0, 2], [0, 5, 2], [4, 0, 3.5]], FIRST)  # unseen image 2 needs gamma >= 0.5, seen ones gamma < 3
    b = held([[1, 5, 0], [0, 9, 1], [0, 1, 6]], SECOND)  # unseen image 0 needs gamma >= 4, seen ones gamma < 9
    decisions = [Decisions.from_scores(h.scores, h.labels, h.seen) for h in (a, b)]
    seens = [h.seen for h in (a, b)]
    alone = [value_of([d], [s], "H") for d, s in zip(decisions, seens, strict=True)]
    assert alone == [1.0, 1.0]
    both = value_of(decisions, seens, "H")
    grid = [
        np.mean([evaluate(d, s, g).h for d, s in zip(decisions, seens, strict=True)]) for g in np.arange(0, 10, 0.25)
    ]
    assert both == pytest.approx(max(grid))
    assert both < 1
    assert value_of(decisions, seens, "T1") == 1.0


def test_a_choice_joins_the_draws_and_is_read_again(tmp_path):
    draws = [held(np.eye(3) * 2, FIRST), held(np.eye(3), SECOND)]
    choice = choice_of({"epoch": 3}, draws)
    assert choice.metrics["best_H"] == 1.0
    assert len(choice.metrics["draws"]) == 2
    assert len(choice.answers.right) == 6
    assert choice.answers.right.all()
    seen = np.concatenate([FIRST, SECOND])
    assert evaluate(choice.decisions, seen, choice.gamma).as_dict()["H"] == 1.0
    assert (choice.decisions.labels == [0, 1, 2, 3, 4, 5]).all()
    choice.save(tmp_path / "choice.json", "these draws")
    again = Choice.load(tmp_path / "choice.json", "these draws")
    assert again.metrics == choice.metrics
    assert again.pick == {"epoch": 3}
    np.testing.assert_array_equal(again.decisions.offset, choice.decisions.offset)
    np.testing.assert_array_equal(again.answers.confidence, choice.answers.confidence)
    assert Choice.load(tmp_path / "choice.json", "other draws") is None
    assert Choice.load(tmp_path / "none.json", "these draws") is None


@pytest.mark.parametrize("select", ["H", "T1"])
def test_the_chosen_candidate_is_the_first_of_the_best_whatever_the_bounds_skip(select, tmp_path):
    """Against the value of every candidate; every other one has an equal twin, and candidates belong to two methods."""
    rng, seen = np.random.default_rng(0), np.array([True, True, True, False, False])
    labels = [np.concatenate([np.arange(5), rng.integers(0, 5, 40)]) for _ in range(3)]
    validation: Any = Validation(0, tmp_path)
    for mine in labels:
        scores = rng.normal(size=(60, 45, 5)).astype(np.float32)
        scores[:, np.arange(45), mine] += np.linspace(0, 2, 60, dtype=np.float32)[:, None]
        scores = np.repeat(scores[rng.permutation(60)] if not validation._draws else scores, 2, axis=0)
        decisions = [Decisions.from_scores(one, mine, seen) for one in scores]
        tried = [
            _Tried({"method": "ab"[i % 2], "number": i}, d, bound)
            for i, (d, bound) in enumerate(zip(decisions, h_bounds(decisions), strict=True))
        ]
        validation._draws.append({str(one.candidate["number"]): one for one in tried})
        validation._seen.append(seen)
    every = [
        value_of([found[str(i)].decisions for found in validation._draws], validation._seen, select) for i in range(120)
    ]
    pick = validation.best(SimpleNamespace(config=SimpleNamespace(select=select)))
    assert pick["number"] == int(np.argmax(every))
    assert validation.value == max(every)
    by_method = {"a": every[::2], "b": every[1::2]}
    if select == "H":
        assert {name: found["H"] for name, found in validation.race.items()} == {
            n: max(v) for n, v in by_method.items()
        }
    for position, (name, values) in enumerate(by_method.items()):
        best = str(2 * int(np.argmax(values)) + position)
        decisions = [found[best].decisions for found in validation._draws]
        assert validation.race[name]["draws"] == pytest.approx(values_of(decisions, validation._seen, "H"))
        assert validation.race[name]["H"] == pytest.approx(np.mean(validation.race[name]["draws"]))
