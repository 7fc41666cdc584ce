"""The scikit-learn estimator: every method, every form of input, scikit-learn's own tools, saving."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import unseen
from unseen import ZeroShotClassifier
from unseen.errors import UnseenError
from unseen.ground.images import ImageWarning
from unseen.methods import METHODS
from unseen.training.config import RunConfig

N, K, C, SEEN = 14, 10, 24, 11
ON_FEATURES = [name for name, kind in METHODS.items() if not (kind.reads_text or kind.end_to_end)]
NAMES = [f"species {chr(97 + i)}" for i in range(N)]


@pytest.fixture(scope="module", autouse=True)
def one_draw():
    """One draw of validation classes is enough here, and the classifier has no option for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunConfig, "draw_count", 1)
        yield


@pytest.fixture(scope="module")
def data():
    """Features linear in binary attributes: every class, unseen ones too, can be told."""
    rng = np.random.default_rng(3)
    values = (rng.random((N, K)) > 0.5).astype(float)
    values[:, 0] = 1
    y = np.repeat(np.arange(N), 14)
    x = values[y] @ rng.normal(size=(K, C)) + 0.2 * rng.normal(size=(len(y), C))
    return x, y, values


def split(data):
    x, y, values = data
    trained = y < SEEN
    return x[trained], y[trained], x[~trained], y[~trained], values


@pytest.mark.parametrize("name", ON_FEATURES)
def test_every_method_learns_classes_without_a_row(data, name):
    x, y, held, truth, values = split(data)
    short = METHODS[name].closed_form or name == "anchored"  # a few epochs on top of a closed form
    made = ZeroShotClassifier(name, epochs=None if short else 30, device="cpu")
    made.fit(x, y, attributes=values)
    assert made.classes_.tolist() == list(range(N))
    assert made.seen_.tolist() == [True] * SEEN + [False] * (N - SEEN)
    assert made.score(x, y) > 2 / SEEN
    among = made.predict(held, among="unseen")
    assert set(among) <= set(range(SEEN, N))
    assert (among == truth).mean() > 0.5
    proba = made.predict_proba(held)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(proba.argmax(axis=1), made.decision_function(held).argmax(axis=1))
    np.testing.assert_array_equal(made.predict(held), made.classes_[proba.argmax(axis=1)])


@pytest.mark.slow
def test_forms_of_input_are_one(data, tmp_path):
    x, y, held, _, values = split(data)
    names = np.array(NAMES)
    frame = pd.DataFrame(values, index=NAMES, columns=[f"a{k}" for k in range(K)])
    one = ZeroShotClassifier(preset="paper").fit(x, y, attributes=values)
    expected = one.decision_function(held)
    for made in (
        ZeroShotClassifier(preset="paper").fit(
            torch.from_numpy(x), torch.from_numpy(y), attributes=torch.from_numpy(values)
        ),
        ZeroShotClassifier(preset="paper").fit(x[:, None], y, attributes=values),
        ZeroShotClassifier(preset="paper").fit(pd.DataFrame(x).to_numpy(), names[y], attributes=values, classes=NAMES),
        ZeroShotClassifier(preset="paper", attributes=frame).fit(x, names[y]),
        ZeroShotClassifier(preset="paper", attributes=frame.rename_axis("class").reset_index()).fit(
            x, names[y].tolist()
        ),
        ZeroShotClassifier(preset="paper").fit(x, y, attributes=frame),
        ZeroShotClassifier(preset="paper").fit(x, names[y], attributes=unseen.ClassTable.from_frame(frame)),
    ):
        for rows in (held, torch.from_numpy(held), held[:, None]):
            np.testing.assert_allclose(made.decision_function(rows), expected, rtol=1e-6, atol=1e-6)
    made = ZeroShotClassifier(preset="paper", attributes=frame).fit(x, names[y])
    assert made.predict(held).dtype == object
    assert set(made.predict(held)) <= set(NAMES)
    assert made.score(x, names[y]) > 0.5
    assert ZeroShotClassifier(preset="paper").fit(x, y, attributes=frame).predict(held).dtype.kind == "i"


def test_regions_are_regions(data):
    x, y, _, _, values = split(data)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(x), 4, C))
    regions = x[:, None] + noise - noise.mean(axis=1, keepdims=True)
    made = ZeroShotClassifier(epochs=2, method="msdn").fit(regions, y, attributes=values)
    assert (made.n_regions_, made.n_features_in_) == (4, C)
    pooled = ZeroShotClassifier("eszsl").fit(x, y, attributes=values)
    mean = ZeroShotClassifier("eszsl").fit(regions, y, attributes=values)
    np.testing.assert_allclose(mean.decision_function(regions), pooled.decision_function(x), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"X has rows of \(3, 24\), expected \(4, 24\)"):
        made.predict(regions[:, :3])


def test_the_answer_is_that_of_the_closed_form(data):
    """ESZSL's product by hand, at the hyper-parameters that were chosen."""
    x, y, held, _, values = split(data)
    made = ZeroShotClassifier(preset="paper").fit(x, y, attributes=values)
    unit = held / np.linalg.norm(held, axis=1, keepdims=True)
    classes = values / np.linalg.norm(values, axis=1, keepdims=True)
    raw = unit @ made.method_.weight.numpy().astype(float).T @ classes.T
    np.testing.assert_allclose(made.decision_function(held), raw - made.gamma_ * made.seen_, atol=3e-6)
    shifted = (raw - made.gamma_ * made.seen_) / made.temperature_
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    np.testing.assert_allclose(made.predict_proba(held), powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


def test_a_class_comes_without_training(data):
    x, y, held, truth, values = split(data)
    names = np.array(NAMES)
    frame = pd.DataFrame(values, index=NAMES)
    part = ZeroShotClassifier().fit(x, names[y], attributes=frame[:-1])
    before = part.decision_function(held)
    part.add_class(NAMES[-1], values[-1])
    assert part.classes_.tolist() == NAMES
    np.testing.assert_array_equal(part.decision_function(held)[:, :-1], before)
    assert (part.predict(held, among="unseen") == names[truth]).mean() > 0.5
    numbered = (
        ZeroShotClassifier().fit(x, y, attributes=values[:-1]).add_class("new", dict.fromkeys(["attribute 0"], 1))
    )
    assert numbered.classes_.tolist() == list(range(N))
    with pytest.raises(UnseenError, match='class "new" already exists'):
        numbered.add_class("new", values[-1])


@pytest.mark.slow
def test_scikit_learn_s_tools(data):
    x, y, held, _, values = split(data)
    scores = cross_val_score(ZeroShotClassifier(attributes=values, preset="paper"), x, y, cv=3)
    assert scores.min() > 0.5
    by_class = cross_val_score(
        ZeroShotClassifier(preset="paper"), x, y, groups=y, cv=GroupKFold(3), params={"attributes": values}
    )  # classes of a fold have no row in training
    assert by_class.shape == (3,)
    assert by_class.mean() > 2 / SEEN
    pipe = make_pipeline(StandardScaler(), ZeroShotClassifier("sje", recipe={"epochs": 1}))
    pipe.fit(x, y, zeroshotclassifier__attributes=values)
    assert pipe.predict(held).shape == (len(held),)
    search = GridSearchCV(
        ZeroShotClassifier(attributes=values, preset="paper"), {"method": ["eszsl"], "select": ["H", "T1"]}, cv=2
    )
    assert search.fit(x, y).best_params_["method"] == "eszsl"
    made = ZeroShotClassifier("msdn", attributes=values, settings={"lambda_cal": 0.2}, epochs=3)
    copy = clone(made)
    assert copy.get_params()["settings"] == {"lambda_cal": 0.2}
    assert copy.set_params(epochs=2).epochs == 2
    fitted = ZeroShotClassifier(preset="paper").fit(x, y, attributes=values)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(held), fitted.predict(held))
    again = ZeroShotClassifier(preset="paper").fit(x, y, attributes=values)
    np.testing.assert_array_equal(again.decision_function(held), fitted.decision_function(held))


def test_rows_of_zeros_are_named(data):
    x, y, held, _, values = split(data)
    holed = np.vstack([x[:5], x[5:6] * 0, x[6:]])
    with pytest.warns(ImageWarning, match=rf"X: the features of 1 of {len(x)} images are all zero \(row 6\), so"):
        made = ZeroShotClassifier("eszsl", preset="paper", device="cpu").fit(holed, y, attributes=values)
    with pytest.warns(
        ImageWarning,
        match=rf"of {len(held)} of {len(held)} images are all zero \(row 1, row 2, row 3 and {len(held) - 3} more",
    ):
        made.predict(held * 0)
    for rows, problem in ((x * 0, "all zero"), (x * 0 + 1, "equal")):
        with pytest.raises(UnseenError, match=f"X: the features of all {len(x)} images are {problem}"):
            made.fit(rows, y, attributes=values)


@parametrize_with_checks([ZeroShotClassifier(preset="paper", device="cpu")])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("labels", ["names", "positions"])
def test_a_saved_classifier_is_the_same(data, labels, tmp_path):
    x, y, held, _, values = split(data)
    names = np.array(NAMES)
    frame = pd.DataFrame(values, index=NAMES)
    made = ZeroShotClassifier("msdn", epochs=1).fit(x, names[y] if labels == "names" else y, attributes=frame)
    made.add_class("one more", [1.0] * K)
    folder = made.save(tmp_path / "model")
    assert {p.suffix for p in folder.iterdir()} == {".json", ".csv", ".safetensors"}
    again = ZeroShotClassifier.load(folder, device="cpu")
    assert again.classes_.tolist() == made.classes_.tolist()
    assert again.predict(held).dtype == made.predict(held).dtype
    np.testing.assert_array_equal(again.decision_function(held), made.decision_function(held))
    np.testing.assert_array_equal(again.predict_proba(held), made.predict_proba(held))
    made.save(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    with pytest.raises(UnseenError, match="the folder is not empty and contains no classifier"):
        made.save(tmp_path / "other")
    facts = json.loads((folder / "classifier.json").read_text())
    del facts["sha256" if "sha256" in facts else next(k for k in facts if k.startswith(("sha", "seal", "check")))]
    for change, message in (
        ({"gamma": "1"}, r"classifier.json, gamma: is not a valid number \('1'\)"),
        ({"method": "nowhere.at:All"}, "its method is code that is not installed"),
        ({"labels": ["a"]}, "1 label for 15 classes"),
        ({"more": 1}, "more: unknown entry"),
    ):
        (folder / "classifier.json").write_text(json.dumps(facts | change))
        with pytest.raises(UnseenError, match=message):
            ZeroShotClassifier.load(folder)


def test_a_classifier_is_saved_where_nothing_else_is(data, tmp_path, monkeypatch):
    x, y, held, _, values = split(data)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    made = ZeroShotClassifier("eszsl", preset="paper", attributes=values).fit(x, y)
    (tmp_path / "file").write_text("kept")
    for folder, message in ((tmp_path / "file", "file: is a file"), (tmp_path, "not empty and contains no classifier")):
        with pytest.raises(UnseenError, match=message):
            made.save(folder)
    assert (tmp_path / "file").read_text() == "kept"
    assert made.save("~/a/b") == made.save(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert (ZeroShotClassifier.load("~/a/b").scores(held) == made.scores(held)).all()


def test_it_says_what_it_chose(data):
    x, y, _, _, values = split(data)
    made = ZeroShotClassifier("eszsl", preset="paper", attributes=values).fit(x, y)
    unit, rows = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x.astype(np.float32).astype(float), values))
    signs, s = 2.0 * (y[:, None] == np.arange(SEEN)) - 1, rows[:SEEN]
    left = np.linalg.solve(unit.T @ unit + made.chosen_["gamma"] * np.eye(C), unit.T @ signs @ s)
    weight = left @ np.linalg.inv(s.T @ s + made.chosen_["lambda"] * np.eye(K))
    assert np.allclose(made.scores(x), unit @ weight @ rows.T - made.gamma_ * made.seen_, atol=3e-6)
    assert made.chosen_["validation"]["best_H"] > 0.5
    trained = ZeroShotClassifier("ale", attributes=values, epochs=2).fit(x, y)
    assert trained.chosen_["epoch"] in (1, 2)
    few = ZeroShotClassifier("eszsl", preset="paper", attributes=values).fit(x[y < 3], y[y < 3])
    assert {"gamma", "lambda"} <= set(few.chosen_)


def test_a_run_on_features_predicts_from_features(tiny_guide, tiny_backbone, tmp_path):
    options = {"backbone": tiny_backbone, "device": "cpu", "cache": tmp_path / "c", "draws": 1}
    run = unseen.fit("eszsl", tiny_guide, tmp_path / "run", **options)
    made = ZeroShotClassifier.load(run.folder, device="cpu")
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    image = next((tiny_guide / "images").rglob("*.*"))
    pixels = recognizer.backbone.transform.cropped(image)[None]
    regions = recognizer.backbone.regions(pixels)[0].half().float()
    assert made.predict(regions)[0] == recognizer.predict([image])[0].best.name
    run = unseen.fit(
        "mgmrn",
        tiny_guide,
        tmp_path / "end",
        epochs=1,
        recipe={"batches": 1},
        settings={"width": 32, "attention_width": 8},
        backbone=tiny_backbone,
        device="cpu",
    )
    with pytest.raises(UnseenError, match="mgmrn needs images"):
        ZeroShotClassifier.load(run.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "clip"}, "clip encodes texts with its backbone, so it cannot use features"),
        ({"method": "mgmrn"}, "mgmrn trains its backbone"),
        ({"method": "ezsl"}, 'did you mean "eszsl"'),
        ({"settings": {"lambda": 1}}, 'no setting "lambda"'),
        ({"epochs": 3}, "eszsl has a closed-form solution — omit epochs"),
        ({"select": "accuracy"}, 'unknown selection metric "accuracy"'),
    ],
)
def test_what_does_not_fit_is_one_line(data, change, message):
    x, y, _, _, values = split(data)
    with pytest.raises(UnseenError, match=message):
        ZeroShotClassifier(**change).fit(x, y, attributes=values)


@pytest.mark.parametrize(
    ("labels", "attributes", "classes", "message"),
    [
        (lambda y: y + 20, lambda v: v, None, "y, row 0: class 20 of 14"),
        (
            lambda y: np.array(NAMES)[y],
            lambda v: v,
            [*NAMES[1:], "dodo"],
            'y, row 0: class "species a" has no attributes',
        ),
        (lambda y: y, lambda v: v, NAMES[1:], "13 classes for 14 rows of attributes"),
        (lambda y: y, lambda v: v[0], None, r"attributes of shape \(10,\)"),
        (lambda y: y, lambda v: v * np.nan, None, "nan is not a number"),
    ],
)
def test_attributes_that_do_not_fit_are_one_line(data, labels, attributes, classes, message):
    x, y, _, _, values = split(data)
    with pytest.raises(UnseenError, match=message):
        ZeroShotClassifier().fit(x, labels(y), attributes=attributes(values), classes=classes)


def test_few_classes_are_chosen_by_held_out_rows(data):
    x, y, _, _, values = split(data)
    few = y < 3
    made = ZeroShotClassifier().fit(x[few], y[few], attributes=values)
    assert made.gamma_ == 0
    assert made.score(x[few], y[few]) > 0.5
    with pytest.raises(UnseenError, match="3 classes, the smallest with 14 rows — msdn needs 4 classes"):
        ZeroShotClassifier("msdn").fit(x[few], y[few], attributes=values)


def test_random_state_is_scikit_learn_s(data):
    x, y, held, _, values = split(data)

    def fitted(state):
        made = ZeroShotClassifier("sje", recipe={"epochs": 1}, random_state=state, device="cpu")
        return made.fit(x, y, attributes=values).decision_function(held)

    seed = int(np.random.RandomState(5).randint(2**31))
    np.testing.assert_array_equal(fitted(np.random.RandomState(5)), fitted(np.int64(seed)))
    assert not np.array_equal(fitted(None), fitted(None))


def test_a_class_of_one_row_leaves_the_choices_to_held_out_classes(data):
    """Also for a method trained by steps, which has no other choice."""
    x, y, _, _, values = split(data)
    rows = np.flatnonzero((y > 0) | (np.arange(len(y)) == 0))  # one row of class 0
    made = ZeroShotClassifier(preset="paper", device="cpu").fit(x[rows], y[rows], attributes=values)
    assert made.gamma_ != 0
    assert (made.predict(x) == y).mean() > 0.8
    ZeroShotClassifier("sje", recipe={"epochs": 1}, device="cpu").fit(x[rows], y[rows], attributes=values)
    rows = np.concatenate([np.flatnonzero(y < 4), np.searchsorted(y, np.arange(4, SEEN))])  # 4 classes of several
    made = ZeroShotClassifier(preset="paper", device="cpu").fit(x[rows], y[rows], attributes=values)
    assert made.gamma_ != 0
    rows = rows[y[rows] > 0]  # 3 of them: a draw could hold out all
    assert ZeroShotClassifier(preset="paper", device="cpu").fit(x[rows], y[rows], attributes=values).gamma_ == 0


def test_tensors_of_half_precision_are_features(data):
    x, y, held, _, values = split(data)
    made = ZeroShotClassifier(preset="paper", device="cpu").fit(x, y, attributes=values)
    for dtype in (torch.float16, torch.bfloat16):
        given = torch.from_numpy(held).to(dtype)
        np.testing.assert_array_equal(made.scores(given), made.scores(given.float().numpy()))
