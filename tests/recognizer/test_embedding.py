"""Images as numbers: values, files, similar images, near duplicates and outliers, from the command line too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import unseen
from unseen.cli import app
from unseen.errors import UnseenError
from unseen.model.support import space_beside
from unseen.recognizer import Recognizer
from unseen.recognizer.embedding import Embeddings


def made(vectors, standardised=True):
    vectors = np.asarray(vectors, np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(f"{i}.png" for i in range(len(unit)))
    return Embeddings(names, unit, unit if standardised else None, np.zeros((len(unit), 1), np.float32), ("a",))


def test_duplicates_outliers_and_similar_by_hand():
    found = made([[1, 0, 0], [1, 0.1, 0], [0.9, 0.3, 0], [0, 0, 1]])
    assert [pair[:2] for pair in found.duplicates(0.97)] == [(0, 1), (1, 2)]
    assert found.duplicates(0.97)[0][2] == pytest.approx(1 / np.sqrt(1.01))
    assert found.outliers(2)[0][0] == 3
    assert found.outliers(1)[0][1] == pytest.approx(0)
    assert [i for i, _ in found.similar(found.compared[0], 3)] == [0, 1, 2]
    assert made([[1, 0]]).outliers() == []


def test_without_a_space_the_mean_is_taken_off():
    found = made([[1, 0.1], [1, -0.1], [1, 0.2]], standardised=False)
    assert found.compared[0] @ found.compared[1] < 0 < found.compared[0] @ found.compared[2] + 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_guide, tiny_backbone):
    folder = tmp_path_factory.mktemp("embed")
    options = {"backbone": tiny_backbone, "cache": folder / "c", "device": "cpu", "draws": 1}
    return unseen.fit("eszsl", tiny_guide, folder / "run", **options)


def test_embeddings_are_what_the_model_reads(run, tiny_guide, tmp_path, capsys):
    pd = pytest.importorskip("pandas")
    recognizer = Recognizer.load(run.folder, device="cpu")
    files = sorted((tiny_guide / "images").rglob("*.png"))[:5] or sorted((tiny_guide / "images").rglob("*.jpg"))[:5]
    found = recognizer.embed(files, batch_size=2)
    look = recognizer.look(files[3])
    np.testing.assert_allclose(found.pooled[3], look.pooled, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.attribute_scores[3], look.attribute_scores, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.standardised, recognizer.space.vectors(torch.from_numpy(found.pooled)).numpy())
    np.testing.assert_allclose(np.linalg.norm(found.standardised, axis=1), 1, rtol=1e-5)

    Image.open(files[0]).save(tmp_path / "again.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    given = [str(run.folder), *map(str, files), str(tmp_path), "--device", "cpu", "--json"]
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(app(["embed", *given, "-o", str(tmp_path / "e.parquet")], standalone_mode=False))
    assert stopped.value.code == 1
    assert json.loads(capsys.readouterr().out)["images"] == 6
    frame = pd.read_parquet(tmp_path / "e.parquet")
    np.testing.assert_allclose(np.stack(frame["pooled"])[:5], found.pooled, rtol=1e-4, atol=1e-6)
    app(["similar", *given], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert {"image": str(files[0]), "and": str(tmp_path / "again.png")}.items() <= told["duplicates"][0].items()
    app(["similar", *given, "--to", str(tmp_path / "again.png"), "--top", "2"], standalone_mode=False)
    assert {row["image"] for row in json.loads(capsys.readouterr().out)["similar"]} == {
        str(files[0]),
        str(tmp_path / "again.png"),
    }
    found.save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["standardised"], found.standardised)
    with pytest.raises(UnseenError, match="unsupported file format for embeddings"):
        found.save(tmp_path / "e.txt")
    recognizer._space = None
    assert recognizer.embed(files[:1]).standardised is None
    assert space_beside(run.folder / "seed-0" / "honest.safetensors").is_file()
