"""Every road to an answer is the same road: predict, look, explain, serve, report, figures, training and export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unseen
from unseen.explain.answers import answers_of
from unseen.export import Graph
from unseen.methods import ClassSpace
from unseen.model.scoring import ClassScorer
from unseen.recognizer import Recognizer
from unseen.report.examples import make_examples
from unseen.report.material import gather
from unseen.training.decisions import decisions_path, load_decisions

METHODS = {
    "msdn": {"recipe": {"epochs": "2", "lr": "1e-3"}},
    "global": {"recipe": {"epochs": "2", "lr": "1e-3"}},  # prepares its regions
    "eszsl": {},
}


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory, tiny_guide, tiny_backbone):
    folder = tmp_path_factory.mktemp("roads")
    options = {"backbone": tiny_backbone, "cache": folder.parent / "roads-cache", "device": "cpu"}
    return unseen.fit(request.param, tiny_guide, folder / "run", **options, **METHODS[request.param])


@pytest.fixture(scope="module")
def recognizer(run):
    return Recognizer.load(run.folder, device="cpu")


@pytest.fixture(scope="module")
def answers(run):
    return answers_of(run, device="cpu", cache=run.folder.parent.parent / "roads-cache")


@pytest.fixture(scope="module")
def paths(answers):
    return [answers.dataset.images / answers.dataset.files[i] for i in answers.images]


def one(recognizer, image, **options):
    return recognizer.predict([image], batch_size=1, **options)[0]


@pytest.mark.parametrize("options", [{}, {"among": "unseen"}, {"top": 3, "unknown": 0.99}, {"unknown": "off"}])
def test_a_look_and_an_explanation_predict_to_the_bit(recognizer, paths, options):
    for path in paths[:3]:
        expected = one(recognizer, path, **options)
        look = recognizer.look(path)
        assert look.prediction(**options) == expected
        again = recognizer.reading(look.attribute_scores.tolist(), look.query.tolist()).prediction(**options)
        assert (again.candidates, again.attributes, again.known) == (
            expected.candidates,
            expected.attributes,
            expected.known,
        )
        if "top" not in options:
            assert recognizer.explain(path, **options).prediction == expected
        assert look.rank(among=options.get("among", "all"))[: len(expected.candidates)] == list(expected.candidates)


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
def test_every_road_honours_the_threshold(recognizer, paths, threshold, monkeypatch):
    monkeypatch.setattr(recognizer, "threshold", threshold)
    sure = one(recognizer, paths[0]).best.confidence
    look = recognizer.look(paths[0])
    asked = {"auto": sure >= (threshold or 0), "off": True, sure: True, min(1.0, sure * (1 + 1e-12)): sure == 1}
    for unknown, known in asked.items():
        assert one(recognizer, paths[0], unknown=unknown).known == known
        assert look.prediction(unknown=unknown).known == known
        assert look.explanation(unknown=unknown).prediction.known == known
        assert recognizer.explain(paths[0], unknown=unknown).prediction.known == known
        if recognizer.class_vectors.any():
            assert [p.known for p in recognizer.correct(paths[0], {}, unknown=unknown)] == [known, known]


def test_a_server_answers_as_predict_does(recognizer, paths):
    pytest.importorskip("fastapi", reason="needs unseen[app]")
    from unseen.serve import schema
    from unseen.serve.service import Service
    from unseen.serve.settings import Settings
    from unseen.serve.uploads import Upload

    service, choice = Service(recognizer, Settings()), schema.Choice()
    for path in paths[:2]:
        expected = one(recognizer, path)
        upload = Upload(path.name, path.read_bytes())
        for found in (
            service.predict(upload, choice),
            why := service.explain(upload, choice, None, None, False, False),
            service.rank(schema.RankRequest.model_validate_json(schema.RankRequest(look=why.look).model_dump_json())),
        ):
            assert [c.model_dump() for c in found.classes] == [vars(c) for c in expected.candidates]
            assert found.unknown == (not expected.known)


def test_the_report_shows_what_predict_says(run, recognizer, answers):
    material = gather(run, device="cpu", cache=run.folder.parent.parent / "roads-cache")
    examples = make_examples(material, 2)
    shown = [*examples.right, *examples.wrong]
    assert shown
    for example in shown:
        expected = one(recognizer, answers.dataset.images / example.file)
        assert [(a.seen, a.confidence) for a in example.answers] == [
            (c.seen, c.confidence) for c in expected.candidates[:3]
        ]


def test_figures_and_training_decide_as_predict_does(run, recognizer, answers, paths):
    """Batches are of other sizes there, so that scores may differ by rounding; decisions do not."""
    predicted = list(recognizer.predict(paths, top=len(recognizer.table)))
    names = recognizer.table.names
    best = [recognizer.table.index(p.best.name) for p in predicted]
    np.testing.assert_array_equal(answers.predicted, best)
    looks = [recognizer.look(path).attribute_scores for path in paths]
    np.testing.assert_allclose(answers.attribute_scores, looks, rtol=1e-3, atol=1e-4 * np.abs(looks).max())
    made = load_decisions(decisions_path(run.folder, 0, run.protocol, "H"))
    np.testing.assert_array_equal(made.predict(recognizer.gamma), best)
    scores = np.array([[{c.name: c.score for c in p.candidates}[name] for name in names] for p in predicted])
    seen = recognizer.table.seen
    offset = scores[:, seen].max(axis=1) - scores[:, ~seen].max(axis=1)
    np.testing.assert_allclose(made.offset, offset, atol=2e-4 * np.abs(scores).max())


def test_a_training_s_scorer_and_an_export_score_as_the_model_does(recognizer, paths):
    crops = torch.stack([recognizer.backbone.transform.cropped(recognizer.look(p).image) for p in paths[:2]])
    answer, table = recognizer.answer(recognizer.inputs(crops)), recognizer.table
    expected = recognizer.class_scores(answer.query)
    vectors, seen = torch.tensor(table.values).float(), torch.from_numpy(table.seen.copy())
    np.testing.assert_array_equal(
        ClassScorer(recognizer.method, ClassSpace(vectors, seen)).scores(answer.query), expected
    )
    with torch.inference_mode():
        scores, attribute_scores = Graph(recognizer).eval()(crops.permute(0, 2, 3, 1), vectors, seen)
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(
        attribute_scores, answer.attribute_scores, atol=1e-4 * np.abs(answer.attribute_scores).max()
    )
