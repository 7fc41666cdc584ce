"""Images in every form that people hold them in are the same image; anything else is one line."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import unseen
from unseen.backbones.backbone import Backbone
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.errors import DataError, UnseenError
from unseen.ground.images import ImageWarning
from unseen.methods import create_method
from unseen.recognizer import Recognizer

PIXELS = np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    backbone = Backbone(tiny_backbone)
    table = ClassTable(("a", "b", "c"), Attributes(("x", "y", "z")), np.eye(3), np.array([1, 1, 0], bool))
    method = create_method("msdn", channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    return Recognizer(backbone, method, table, device="cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "image.png"
    Image.fromarray(PIXELS).save(path)
    return path


FORMS = {
    "path": lambda file: file,
    "text": str,
    "list": lambda file: [file],
    "folder": lambda file: file.parent,
    "pattern": lambda file: str(file.parent / "*.png"),
    "address": lambda file: f"file://{file}",
    "addresses": lambda file: [f"file://{file}"],
    "PIL": Image.open,
    "array": lambda file: PIXELS,
    "channels first": lambda file: PIXELS.transpose(2, 0, 1),
    "arrays": lambda file: PIXELS[None],
    "list of arrays": lambda file: [PIXELS],
    "tensor": lambda file: torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensors": lambda file: torch.from_numpy(PIXELS)[None],
    "bytes": lambda file: file.read_bytes(),
    "open file": lambda file: io.BytesIO(file.read_bytes()),
    "column": lambda file: pd.DataFrame({"image": [str(file)]})["image"],
    "generator": lambda file: (path for path in [file]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_image(recognizer, file, form):
    (expected,) = recognizer.predict([file])
    (found,) = recognizer.predict(FORMS[form](file))
    assert found.candidates == expected.candidates
    np.testing.assert_array_equal(recognizer.scores(FORMS[form](file)), recognizer.scores(file))


def test_a_folders_other_files_are_named(recognizer, file, tmp_path):
    (tmp_path / "a.png").write_bytes(file.read_bytes())
    (tmp_path / "a.nef").write_bytes(b"II*")
    with pytest.warns(ImageWarning, match="1 file ignored, .nef, a camera raw file: .*a.nef"):
        assert len(list(recognizer.predict(tmp_path))) == 1


@pytest.mark.parametrize("form", ["path", "text", "address", "array", "tensor", "bytes", "open file"])
def test_a_look_takes_one_of_any_form(recognizer, file, form):
    assert recognizer.look(FORMS[form](file)).rank() == recognizer.look(file).rank()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "NoneType is not an image — pass a path"),
        (5, "int is not an image"),
        ([5], "int is not an image"),
        ({"pixels": "a.png"}, r"a dict without a column of images — .* pass one of its columns \(pixels\)"),
        (pd.DataFrame({"pixels": []}), r"a DataFrame without a column of images — name it file or image"),
        (PIXELS.astype(float), "float pixels from 0 to 254, not 0 to 1 — pass pixels before normalization"),
        (PIXELS.astype(int), r"an array of int64 \(80, 100, 3\) is not an image — pass uint8"),
        (PIXELS[:, :, :2], r"an array of uint8 \(80, 100, 2\) is not an image"),
        (b"nothing", "bytes: Pillow cannot read this image"),
        ("memory://nowhere.png", "memory://nowhere.png: "),
        ("nowhere.png", "nowhere.png: no such image"),
    ],
)
def test_anything_else_is_one_line(recognizer, given, message):
    with pytest.raises(UnseenError, match=message) as caught:
        list(recognizer.predict(given))
    assert "\n" not in str(caught.value)


def test_scores_are_those_of_the_candidates(recognizer, file):
    scores = recognizer.scores([file, file])
    assert scores.shape == (2, 3)
    (found, _) = recognizer.predict([file, file], top=3)
    by_name = {c.name: c.score for c in found.candidates}
    assert scores[0].tolist() == [by_name[name] for name in recognizer.classes]
    assert recognizer.scores([]).shape == (0, 3)
    with pytest.raises(DataError, match="no such image"):
        recognizer.scores("nowhere.png")


def test_a_model_says_what_it_is_and_moves(recognizer, file):
    assert repr(recognizer) == "<Recognizer: msdn, test_resnet, 2 seen and 1 unseen class, 3 attributes, on cpu>"
    before = recognizer.scores(file)
    assert recognizer.to("cpu") is recognizer
    np.testing.assert_array_equal(recognizer.scores(file), before)


def test_load_takes_a_folder(recognizer, file, tmp_path):
    loaded = unseen.load(recognizer.save(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(loaded.scores(file), recognizer.scores(file))
    with pytest.raises(UnseenError, match="nowhere"):
        unseen.load("a/b/nowhere")
