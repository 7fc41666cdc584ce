"""A method that is a model before the first step is trained only if this helps by more than one standard error."""

from __future__ import annotations

import numpy as np
import pytest

from unseen.training.outcomes import gain
from unseen.training.refitted import Validation


def test_the_gain_by_hand():
    study, helps = gain(np.array([0.5, 0.6, 0.7]), np.array([0.6, 0.6, 0.85]), {"epoch": 2})
    assert study["gain"] == pytest.approx(0.25 / 3)
    assert study["standard_error"] == pytest.approx(np.std([0.1, 0, 0.15], ddof=1) / 3**0.5)
    assert (study["start"], study["epoch"]) == (pytest.approx(0.6), 2)
    assert helps
    assert not gain(np.array([0.5, 0.6]), np.array([0.6, 0.55]), {})[1]
    single, helps = gain(np.array([0.5]), np.array([0.9]), {})
    assert (single["standard_error"], helps) == (None, False)


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ([[0.5, 0.5, 0.5], [0.55, 0.54, 0.56], [0.6, 0.7, 0.65]], 2),
        ([[0.5, 0.5, 0.5], [0.49, 0.5, 0.5], [0.4, 0.5, 0.45]], 0),
        ([[0.5, 0.5, 0.5], [0.9, 0.4, 0.45], [0.3, 0.4, 0.5]], 0),  # better on average, by less than its error
        ([[0.5]], 0),  # a single draw gives no error
    ],
)
def test_epoch_0_stays_unless_training_is_clearly_better(values, epoch, tmp_path, monkeypatch):
    validation = Validation(0, tmp_path)
    validation._stages = [None] * len(values[0])
    chosen = [({"ridge": float(e)}, np.array(found)) for e, found in enumerate(values)]
    monkeypatch.setattr(validation, "_chosen", lambda inputs, e: chosen[e])
    inputs = type("Inputs", (), {"recipe": type("Recipe", (), {"epochs": 2})})
    assert validation.best(inputs) == {"ridge": float(epoch), "epoch": epoch}
    assert validation.value == pytest.approx(np.mean(values[epoch]))
    if len(values) > 1:
        assert (validation.study["gain"] > validation.study["standard_error"]) == (epoch > 0)
        assert validation.study["start"] == pytest.approx(0.5)
