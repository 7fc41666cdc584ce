"""Class scores in blocks: each class's its own to the bit, and the ranking that of all scores at once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.methods import METHODS, ClassSpace, create_method
from unseen.methods.clip import CLIPSettings
from unseen.methods.msdn import RECOMMENDED, MSDNSettings
from unseen.model import scoring
from unseen.model.scoring import BLOCK, ClassScorer
from unseen.vectors.sources import name_things

K, CHANNELS = 37, 24
KINDS = [(name, None) for name in METHODS if name != "clip"]
KINDS += [("msdn", MSDNSettings(clip_negative=True)), ("msdn", RECOMMENDED)]
KINDS += [("clip", CLIPSettings(mode=mode)) for mode in ("names", "attributes", "scores")]


def table(count, seed=0):
    rng = np.random.default_rng(seed)
    names = tuple(f"kind {i}" for i in range(count))
    values = rng.random((count, K)) - 0.2
    return ClassTable(names, Attributes(tuple(f"a{k}" for k in range(K))), values, rng.random(count) < 0.5)


def tower(texts, device="cpu"):
    """Texts to unit vectors, each by itself."""

    def one(text):
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        return torch.randn(CHANNELS, generator=torch.Generator().manual_seed(seed))

    return torch.nn.functional.normalize(torch.stack([one(t) for t in texts]), dim=1).to(device)


def trained(name, settings):
    """A method with random weights and statistics."""
    generator = torch.Generator().manual_seed(3)
    channels = CHANNELS if METHODS[name].stages == 1 else (CHANNELS,) * METHODS[name].stages
    method = create_method(name, channels=channels, vectors=torch.randn(K, 8, generator=generator), settings=settings)
    with torch.no_grad():
        for tensor in method.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.8 + 0.1)
        if name == "clip":
            method.count.fill_(5)
    return method.eval()


def scorer(method, classes, earlier=None):
    return ClassScorer.of_table(method, classes, torch.device("cpu"), tower if method.reads_text else None, earlier)


def query(method, images=5):
    size = K if method.by_attributes else CHANNELS
    return torch.randn(images, size, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_no_class_has_a_part_in_the_score_of_another(name, settings):
    method, every = trained(name, settings), table(2 * BLOCK + 3)
    asked = query(method)
    scores = dict(zip(every.names, scorer(method, every).scores(asked).T, strict=True))
    for changed in (
        every.with_class("new", np.linspace(-1, 1, K)),
        every.without("kind 0"),  # every class moves, some to another block
        every.select(range(len(every) - 1, -1, -1)),
        every.select(range(7)),
        every.select([0]),
        every.renamed("kind 1", "other"),
    ):
        found = dict(zip(changed.names, scorer(method, changed).scores(asked).T, strict=True))
        shared = set(found) & set(scores)
        assert len(shared) >= len(changed) - 1
        for one in shared:
            np.testing.assert_array_equal(found[one], scores[one])
    twin = scorer(method, every.with_class("twin", every.values[2], seen=bool(every.seen[2]))).scores(asked)
    if method.by_attributes:
        np.testing.assert_array_equal(twin[:, -1], twin[:, 2])


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_the_scores_are_the_method_s(name, settings):
    method, classes = trained(name, settings), table(BLOCK + 9)
    words = name_things(classes.names, classes.attributes, tower) if method.reads_text else None
    space = ClassSpace(torch.tensor(classes.values).float(), torch.tensor(classes.seen), words)
    asked = query(method)
    with torch.inference_mode():
        plain = asked @ method.class_embeddings(space).T
        offsets = method.class_offsets(space)
        plain = plain if offsets is None else plain + offsets
        vectors = method.class_vectors(space)
    made = scorer(method, classes)
    np.testing.assert_allclose(made.scores(asked), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.vectors([0, BLOCK + 8]), vectors[[0, BLOCK + 8]], rtol=1e-5, atol=1e-6)


def expected_best(scores, seen, allowed, count, gamma, temperature):
    """Independently: all at once, in NumPy."""
    shifted = ((scores - gamma * seen) / temperature)[:, allowed]
    order = np.argsort(-shifted, axis=1, kind="stable")[:, :count]
    share = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return allowed[order], np.take_along_axis(share, order, axis=1)


@pytest.mark.parametrize("count", [1, 5, 40, 5000])
@pytest.mark.parametrize("chunk", [1, 2, 16])
@pytest.mark.parametrize("which", ["all", "every third", "a few", "one"])
def test_the_best_are_those_of_all_scores(monkeypatch, count, chunk, which):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    method, classes = trained("global", None), table(5 * BLOCK + 11)
    some = {"all": np.arange(len(classes)), "every third": np.arange(0, len(classes), 3)}
    some |= {"a few": np.array([3, 255, 256, 900, 901, 1290]), "one": np.array([700])}
    allowed = some[which]
    made, asked = scorer(method, classes), query(method)
    found = made.best(asked, count, allowed, gamma=0.7, temperature=0.3)
    scores = made.scores(asked)
    index, confidence = expected_best(scores, classes.seen, allowed, count, 0.7, 0.3)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.score, np.take_along_axis(scores, index, axis=1))
    np.testing.assert_allclose(found.confidence, confidence, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_of_equal_classes_the_first_comes_first(monkeypatch, count):
    """Copies of few classes, so that the cut runs through ties within a block and across blocks."""
    monkeypatch.setattr(scoring, "CHUNK", 1)
    few, rows = table(3), np.arange(3 * BLOCK) % 3
    names = tuple(f"copy {i}" for i in range(len(rows)))
    classes = ClassTable(names, few.attributes, few.values[rows], few.seen[rows])
    method = trained("eszsl", None)
    made, asked = scorer(method, classes), query(method)
    allowed = np.arange(len(classes))
    found = made.best(asked, count, allowed)
    np.testing.assert_array_equal(found.index, expected_best(made.scores(asked), classes.seen, allowed, count, 0, 1)[0])
    assert (found.index < 3 * count).all()


def test_confidence_survives_scores_of_any_size():
    method, classes = trained("eszsl", None), table(BLOCK + 5)
    found = scorer(method, classes).best(1e6 * query(method), 3, np.arange(len(classes)), temperature=1e-3)
    assert np.isfinite(found.confidence).all()
    np.testing.assert_allclose(found.confidence[:, 0], 1)


def test_blocks_that_did_not_change_are_not_made_again(monkeypatch):
    method, classes = trained("msdn", RECOMMENDED), table(2 * BLOCK + 3)
    first = scorer(method, classes)
    made = []
    block = scoring._space
    monkeypatch.setattr(
        scoring, "_space", lambda table, rows, *rest: made.append(rows.start) or block(table, rows, *rest)
    )
    changed = classes.with_class("new", np.ones(K))
    again = scorer(method, changed, first)
    assert made == [2 * BLOCK]
    fresh = scorer(method, changed)
    np.testing.assert_array_equal(again.scores(query(method)), fresh.scores(query(method)))
    made.clear()
    scorer(method, classes.renamed("kind 0", "other"), first)
    assert made == []  # it reads no names
    scorer(
        trained("clip", KINDS[-3][1]),
        classes.renamed("kind 0", "other"),
        scorer(trained("clip", KINDS[-3][1]), classes),
    )
    assert 0 in made


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_a_training_s_classes_are_scored_as_a_table_s_to_the_bit(monkeypatch, name, settings):
    monkeypatch.setattr(scoring, "CHUNK", 2)
    method, classes = trained(name, settings), table(3 * BLOCK + 9)
    words = name_things(classes.names, classes.attributes, tower) if method.reads_text else None
    made = ClassScorer(method, ClassSpace(torch.tensor(classes.values).float(), torch.tensor(classes.seen), words))
    asked, allowed = query(method), np.arange(0, len(classes), 2)
    scores = scorer(method, classes).scores(asked)
    np.testing.assert_array_equal(made.scores(asked), scores)
    index, top = made.best_of_kinds(asked)
    for kind, row in ((True, 0), (False, 1)):
        columns = np.flatnonzero(classes.seen == kind)
        np.testing.assert_array_equal(index[:, row, 0], columns[scores[:, columns].argmax(axis=1)])
        np.testing.assert_array_equal(top[:, row, 0], scores[:, columns].max(axis=1).astype(np.float32))
    best, again = (
        made.best(asked, 7, allowed, gamma=0.3, temperature=0.2),
        made.best_of(scores, 7, allowed, gamma=0.3, temperature=0.2),
    )
    for field in ("index", "score", "confidence"):
        np.testing.assert_array_equal(getattr(best, field), getattr(again, field))
