"""Preparations against NumPy, their exact contributions, and loading of what was fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unseen.errors import UnseenError
from unseen.methods import ClassSpace, create_method, find_method
from unseen.methods.preparation import (
    FEATURES,
    ROWS,
    SHRINKAGE,
    FeaturePreparation,
    PreparedSettings,
    RowPreparation,
)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def images(n=30, r=4, c=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, r, c)) + 0.3, rng.integers(0, 3, n)


def by_hand(kind, train, labels, x):
    train, x = unit(train), unit(x)
    if kind == "unit":
        return x
    if kind in ("root", "whitened"):
        train, x = (unit(np.sign(a) * np.sqrt(abs(a))) for a in (train, x))
    moved = x - train.mean(0)
    if kind in ("standardised", "root"):
        moved = moved / train.std(0)
    if kind == "whitened":
        within = np.concatenate([train[labels == k] - train[labels == k].mean(0) for k in np.unique(labels)])
        cov = within.T @ within / len(within)
        cov = (1 - SHRINKAGE) * cov + SHRINKAGE * np.trace(cov) / len(cov) * np.eye(len(cov))
        values, vectors = np.linalg.eigh(cov)
        moved = moved @ vectors / np.sqrt(values) @ vectors.T  # up to a rotation
    return unit(moved)


@pytest.mark.parametrize("kind", FEATURES)
def test_features_equal_numpy_up_to_a_rotation(kind):
    regions, labels = images()
    train, test = regions.mean(1), images(seed=1)[0].mean(1)
    preparation = FeaturePreparation()
    preparation.fit(kind, torch.from_numpy(unit(train)), torch.from_numpy(labels))
    mine = preparation(torch.from_numpy(unit(test))).numpy()
    theirs = by_hand(kind, train, labels, test)
    np.testing.assert_allclose(mine @ mine.T, theirs @ theirs.T, atol=1e-12)
    if kind != "whitened":
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


@pytest.mark.parametrize("kind", FEATURES)
def test_contributions_of_regions_add_up(kind):
    regions, labels = images()
    preparation, weight = FeaturePreparation(), torch.from_numpy(np.random.default_rng(2).standard_normal((5, 6)))
    preparation.fit(kind, torch.from_numpy(unit(regions.mean(1))), torch.from_numpy(labels))
    raw = torch.from_numpy(images(seed=3)[0])
    shares = preparation.contributions(raw, weight)
    assert shares.shape == (30, 5, 4)
    pooled = torch.nn.functional.normalize(raw.mean(1), dim=-1)
    torch.testing.assert_close(shares.sum(2), preparation(pooled) @ weight.T)


@pytest.mark.parametrize("kind", ROWS)
def test_rows_equal_numpy(kind):
    rng = np.random.default_rng(4)
    train, rows = unit(rng.random((7, 5))), unit(rng.random((3, 5)))
    preparation = RowPreparation()
    preparation.fit(kind, torch.from_numpy(train))
    moved = rows if kind == "unit" else rows - train.mean(0)
    moved = moved / train.std(0) if kind == "zscored" else moved
    np.testing.assert_allclose(preparation(torch.from_numpy(rows)).numpy(), unit(moved), atol=1e-12)
    alone = preparation(torch.from_numpy(rows[1:2]))
    assert torch.equal(alone, preparation(torch.from_numpy(rows))[1:2])  # each from its own class


@pytest.mark.parametrize("kind", FEATURES)
def test_a_fitted_preparation_is_loaded_into_a_new_one(kind):
    regions, labels = images()
    preparation, other = FeaturePreparation(), FeaturePreparation()
    x = torch.from_numpy(unit(regions.mean(1)))
    preparation.fit(kind, x, torch.from_numpy(labels))
    other.load_state_dict(preparation.state_dict())
    assert torch.equal(preparation(x), other(x))


def test_settings_name_what_they_do_not_know():
    assert PreparedSettings().kinds == (FEATURES, ROWS)
    assert PreparedSettings(features="root", rows="unit").kinds == (("root",), ("unit",))
    with pytest.raises(
        UnseenError, match=r'setting features: "white" is not a valid preparation — use one of auto, unit'
    ):
        PreparedSettings(features="white")


@pytest.mark.parametrize("name", ["eszsl", "sae", "dap", "prototypes"])
def test_every_candidate_of_a_closed_form_works_in_single_precision(name):
    regions, labels = images()
    method = create_method(
        name, channels=6, vectors=torch.zeros(5, 2), settings=find_method(name).presets["recommended"].settings
    )
    classes = ClassSpace(
        torch.rand(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 1, 1, 0]).bool()
    )
    method.fit(method.prepare(torch.from_numpy(regions).float()), torch.from_numpy(labels), classes)
    held_out = method.prepare(torch.from_numpy(images(seed=1)[0]).float())
    for (candidate, swept), again in zip(method.sweep(held_out, classes), method.grid(), strict=True):
        method.use(candidate)
        assert candidate == again
        scores = method.class_scores(method(held_out), classes)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, swept, rtol=2e-3, atol=2e-3)
