"""What training images say of attribute scores: lines, quantiles, reliability, neighbours; the file comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from sklearn.metrics import roc_auc_score

from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import RunError, UnseenError
from unseen.methods import create_method
from unseen.model.references import References, make_references, references_beside

VALUES = np.array([[100.0, 0, 5], [0, 50, 5], [50, 100, 5]])


def references(scores, labels, values=VALUES):
    files = np.array([f"{c}/{i}.jpg" for i, c in enumerate(labels)])
    names = np.array([f"class {c}" for c in range(len(values))])
    return References(np.asarray(scores, np.float16), np.array(labels), files, names, np.asarray(values, float))


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    scores = 0.02 * VALUES[labels] + rng.standard_normal((40, 3))
    return references(scores, labels)


def test_the_line_is_the_least_squares_line(drawn):
    values = VALUES[drawn.labels]
    for k in (0, 1):
        line = linregress(values[:, k], drawn.attribute_scores[:, k].astype(float))
        assert drawn.fit.slope[k] == pytest.approx(line.slope)
        assert drawn.fit.intercept[k] == pytest.approx(line.intercept)
        assert drawn.fit.correlation[k] == pytest.approx(line.rvalue)
        residual = drawn.attribute_scores[:, k] - line.intercept - line.slope * values[:, k]
        assert drawn.fit.deviation[k] == pytest.approx(residual.std())
        area = roc_auc_score(values[:, k] > 50, drawn.attribute_scores[:, k])
        assert drawn.fit.auroc[k] == pytest.approx(area)
    assert drawn.fit.learned.tolist() == [True, True, False]  # the third has one value only
    assert (drawn.fit.slope[2], drawn.fit.correlation[2]) == (0, 0)
    assert np.isnan(drawn.fit.auroc[2])


def test_expected_scores_by_hand():
    # two classes, values 0 and 10; scores 1 and 3 on average; the second attribute runs the wrong way
    made = references([[0, 9], [2, 7], [2, 1], [4, 3]], [0, 0, 1, 1], [[0, 0], [10, 10]])
    np.testing.assert_allclose(made.fit.expected(np.array([0, 0]))[0], 1)
    np.testing.assert_allclose(made.fit.expected(np.array([10, 0]))[0], 3)
    np.testing.assert_allclose(made.fit.expected(np.array([5, 0]))[0], 2)
    low, high = np.quantile([9, 7, 1, 3], [0.1, 0.9])
    np.testing.assert_allclose(
        [made.fit.expected(np.array([0, v]))[1] for v in (0, 5, 10)], [low, (low + high) / 2, high]
    )


def test_nearest_are_those_of_largest_cosine(drawn):
    scores = drawn.attribute_scores.astype(float)
    standard = (scores - scores.mean(0)) / scores.std(0)
    image = np.array([1.0, -0.5, 0.3])
    asked = (image - scores.mean(0)) / scores.std(0)
    cosine = standard @ asked / np.linalg.norm(standard, axis=1) / np.linalg.norm(asked)
    order = np.argsort(-cosine)[:4]
    found = drawn.nearest(image, 4)
    assert [n.file for n in found] == [drawn.files[i] for i in order]
    assert [n.name for n in found] == [f"class {drawn.labels[i]}" for i in order]
    np.testing.assert_allclose([n.similarity for n in found], cosine[order], atol=1e-5)
    assert [n.file for n in drawn.nearest(image, 3, [found[0].file])] == [n.file for n in found[1:]]


def test_the_file_comes_back_and_holds_no_pickle(drawn, tmp_path):
    path = references_beside(tmp_path / "honest.safetensors")
    assert path.name == "honest-references.npz"
    drawn.save(path)
    back = References.load(path)
    for name in ("attribute_scores", "labels", "files", "class_names", "class_values"):
        np.testing.assert_array_equal(getattr(back, name), getattr(drawn, name), strict=True)
    with np.load(path, allow_pickle=False) as found:  # reads without pickle
        assert found["attribute_scores"].dtype == np.float16
        assert found["files"].dtype.kind == "U"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive at all"])
def test_damaged_files_are_one_line(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.npz: damaged .* train again"):
        References.load(tmp_path / "x.npz")


def test_pickles_and_unfitting_shapes_are_refused(drawn, tmp_path):
    np.savez(tmp_path / "p.npz", attribute_scores=np.array([{}], dtype=object))
    with pytest.raises(RunError, match="damaged"):
        References.load(tmp_path / "p.npz")
    with pytest.raises(RunError, match="no such file"):
        References.load(tmp_path / "none.npz")
    with pytest.raises(RunError, match="do not match"):
        References(drawn.attribute_scores, drawn.labels[:-1], drawn.files, drawn.class_names, drawn.class_values)
    with pytest.raises(RunError, match="do not match"):
        References(drawn.attribute_scores, drawn.labels + 1, drawn.files, drawn.class_names, drawn.class_values)


def test_made_from_a_method_batch_by_batch():
    method = create_method("eszsl", channels=4, vectors=torch.ones(3, 2), seed=0).eval()
    method.weight.copy_(torch.arange(12.0).view(3, 4) / 10)
    table = ClassTable(("a", "b", "c"), Attributes(("x", "y", "z")), VALUES, np.array([1, 1, 0], bool))
    regions = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(0))
    made = make_references(method, regions.split(2), np.array([0, 1, 0, 1, 1]), list("vwxyz"), table)
    np.testing.assert_allclose(made.attribute_scores, (regions[:, 0] @ method.weight.T).numpy(), rtol=1e-3, atol=1e-3)
    assert made.files.tolist() == list("vwxyz")
    assert made.class_names.tolist() == ["a", "b", "c"]
    method.weight.fill_(1e9)
    with pytest.raises(UnseenError, match="not finite"):
        make_references(method, regions.split(2), np.zeros(5, int), list("vwxyz"), table)
