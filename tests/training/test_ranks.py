"""Thresholds of ranks: chosen on images with and without their class, against numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unseen.classes.taxonomy import Taxonomy
from unseen.model.ranks import RankThreshold, excess
from unseen.training.ranks import RIGHT, Ranked, _lowest, answered, both_cases, choose_ranks
from unseen.training.temperature import Held

TAXA = Taxonomy(("family", "genus"), (("F", "a"), ("F", "a"), ("F", "b"), ("G", "c"), ("", "")))
SEEN = np.array([True, True, True, False, False])


def held(shares, labels):
    """Class scores of which these are the confidences at gamma 0.5 and temperature 2."""
    return Held(2.0 * np.log(np.array(shares)) + 0.5 * SEEN, np.array(labels), SEEN)


def test_an_image_counts_with_its_class_and_without():
    one = held([[0.3, 0.25, 0.1, 0.2, 0.15]], [0])
    found = both_cases([one], [TAXA], 0.5, 2.0)
    listed, missing = found["listed"], found["missing"]
    assert listed.confidence == pytest.approx([0.3])
    # family F: 0.65 where guessing gives 3 of 5; genus a: 0.55, guessing 2 of 5
    assert listed.excess == pytest.approx(np.array([[0.05 / 0.4, 0.15 / 0.6]]))
    # without a1, of 0.7: F has 0.35 and guessing 2 of 4; of the genera a has 0.25, b 0.1, c 0.2, guessing 1 of 4
    assert missing.confidence == pytest.approx([0.25 / 0.7])
    assert missing.excess == pytest.approx(np.array([[0.0, (0.25 / 0.7 - 0.25) / 0.75]]), abs=1e-12)
    assert listed.right.tolist() == missing.right.tolist() == [[True, True]]
    alone = both_cases([held([[0.1, 0.1, 0.1, 0.5, 0.2]], [3])], [TAXA], 0.5, 2.0)["missing"]
    assert alone.right.tolist() == [[False, False]]  # nobody else is of its taxa
    nameless = both_cases([held([[0.1, 0.1, 0.1, 0.2, 0.5]], [4])], [TAXA], 0.5, 2.0)["listed"]
    assert nameless.judged.tolist() == [[False, False]]


def test_a_certain_taxon_is_no_answer():
    assert excess(np.array([0.7, 1.0]), np.array([0.4, 1.0])).tolist() == pytest.approx([0.5, -math.inf])


@pytest.mark.parametrize("seed", range(5))
def test_the_lowest_value_with_enough_right_answers(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 30, 200) / 30  # with ties
    right = rng.random(200) < 0.3 + 0.6 * values
    allowed = [v for v in values if (m := values >= v).sum() >= 10 and right[m].mean() >= RIGHT]
    assert _lowest(values, right) == min(allowed, default=None)


def test_a_rank_without_enough_right_answers_never_is_one():
    assert _lowest(np.arange(9) / 9, np.ones(9, bool)) is None  # too few to tell
    assert _lowest(np.arange(40) / 40, np.arange(40) % 2 == 0) is None
    assert _lowest(np.zeros(0), np.zeros(0, bool)) is None


def test_ranks_are_chosen_from_the_finest():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    logits = rng.normal(size=(400, 5)) + 1.5 * (TAXA.codes[labels, 1][:, None] == TAXA.codes[:, 1])
    draws = [held(np.exp(part) / np.exp(part).sum(1, keepdims=True), own)
             for part, own in ((logits[:200], labels[:200]), (logits[200:], labels[200:]))]  # fmt: skip
    found = choose_ranks(draws, [TAXA, TAXA], 0.5, 2.0, 0.6)
    chosen = {rank: RankThreshold(**one) for rank, one in found["thresholds"].items()}
    assert list(chosen) == ["family", "genus"]
    assert chosen["genus"].coarser is not None
    cases = found["validation"]
    for rank in ("family", "genus"):
        if chosen[rank].coarser is not None:
            answers, right = (sum(cases[c]["ranks"][rank][k] for c in cases) for k in ("answers", "right"))
            assert answers >= 10
            assert right >= RIGHT * answers
    ranked = both_cases(draws, [TAXA, TAXA], 0.5, 2.0)
    assert cases == answered(ranked, chosen, 0.6)
    genus = chosen["genus"].coarser
    listed = ranked["listed"]
    finer = (listed.confidence < 0.6) & (listed.excess[:, 1] >= genus) & listed.judged[:, 1]
    assert cases["listed"]["ranks"]["genus"] == {"answers": finer.sum(), "right": listed.right[finer, 1].sum()}
    assert cases["listed"]["unsure"] == (listed.confidence < 0.6).sum()


def test_draws_join_in_order():
    one = both_cases([held([[0.3, 0.25, 0.1, 0.2, 0.15]], [0])], [TAXA], 0.5, 2.0)["listed"]
    assert len(Ranked.joined([one, one]).excess) == 2
