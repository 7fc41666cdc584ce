"""The example without torch answers as the recognizer does, from the same bytes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unseen
from unseen.backbones.transform import Transform
from unseen.data.folder import load_folder

pytest.importorskip("onnxscript", reason="needs unseen[export]")
pytest.importorskip("onnxruntime", reason="needs unseen[export]")

SCRIPT = Path(__file__).parents[1] / "examples" / "onnx_predict.py"
BLOCKED = ("torch", "torchvision", "timm", "pandas", "unseen")
# a None in sys.modules makes the import fail
ALONE = f"import sys, runpy; sys.modules.update(dict.fromkeys({BLOCKED})); runpy.run_path(sys.argv.pop(1), run_name='__main__')"  # noqa: E501


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("onnx_predict", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(model, images, *options, status=0, says=""):
    command = [sys.executable, "-c", ALONE, str(SCRIPT), str(model), *map(str, images), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    found, current, lines = {}, "", re.findall(r"^(?:  ( *[\d.]+)%  (.*)|(.*))$", done.stdout, re.MULTILINE)
    for percent, name, image in lines:
        if name:
            found[current].append((name, float(percent) / 100))
        elif image:
            current = image
            found[current] = []
    return found


@pytest.fixture(scope="module")
def trained(tiny_guide, tiny_backbone, tmp_path_factory):
    """A recognizer of a quick run, its export, and its data."""
    from unseen.export import export_onnx
    from unseen.training.config import RunConfig
    from unseen.training.run import fit

    folder = tmp_path_factory.mktemp("run")
    run = fit(
        RunConfig(method="eszsl", dataset=str(tiny_guide), backbone=tiny_backbone),
        folder / "run",
        cache=folder / "cache",
        device="cpu",
    )
    recognizer = unseen.Recognizer.load(run.folder, device="cpu")
    recognizer.threshold = None  # every answer is given
    export_onnx(recognizer, folder / "birds.onnx")
    return recognizer, folder / "birds.onnx", load_folder(tiny_guide)


def test_it_is_short():
    assert len(SCRIPT.read_text().splitlines()) <= 95


def said(prediction):
    return [(c.name + ("" if c.seen else " (unseen)"), c.confidence) for c in prediction.candidates]


def test_the_same_answers_without_torch(trained):
    recognizer, model, dataset = trained
    images = dataset.paths()[::9]
    found = answers(model, images)
    assert list(found) == [str(p) for p in images]
    for prediction in recognizer.predict(images, top=5):
        ours, theirs = said(prediction), found[prediction.image]
        assert [name for name, _ in theirs] == [name for name, _ in ours]
        np.testing.assert_allclose([c for _, c in theirs], [c for _, c in ours], atol=1e-3)


def test_another_class_table(trained, tmp_path):
    recognizer, model, dataset = trained
    before = recognizer.table
    try:
        recognizer.add_class("Night Heronette", before.values[0] * 0.5 + before.values[1])
        for name in before.names[2:6]:
            recognizer.remove_class(name)
        recognizer.table.to_csv(tmp_path / "own.csv")
        images = dataset.paths()[:2]
        found = answers(model, images, "--classes", str(tmp_path / "own.csv"), "--top", "99")
        for prediction in recognizer.predict(images, top=99):
            assert [n for n, _ in found[prediction.image]] == [n for n, _ in said(prediction)]
    finally:
        recognizer.table = before


def test_greys_of_sixteen_bits_and_broken_images(trained, tmp_path):
    recognizer, model, dataset = trained
    grey = np.asarray(Image.open(dataset.paths()[0]).convert("L")).astype(np.uint16)
    for bits in (10, 12, 16):
        Image.fromarray(grey << (bits - 8)).save(tmp_path / f"{bits}.png")
    for name, content in (("broken", b"GIF89a"), ("empty", b""), ("text", b"no image")):
        (tmp_path / f"{name}.png").write_bytes(content)
    files = sorted(tmp_path.glob("*.png"))
    found = answers(model, files, status=1, says=str(tmp_path / "broken.png"))
    assert len(found) == 3
    assert len({tuple(answer) for answer in found.values()}) == 1
    (prediction,) = recognizer.predict([tmp_path / "12.png"], top=5)
    assert [name for name, _ in found[str(tmp_path / "12.png")]] == [name for name, _ in said(prediction)]


def test_below_the_threshold_it_says_so(trained, tmp_path):
    recognizer, _, dataset = trained
    from unseen.export import export_onnx

    recognizer.threshold = 1.1
    try:
        model = export_onnx(recognizer, tmp_path / "m.onnx", check=False).model
    finally:
        recognizer.threshold = None
    image = dataset.paths()[0]
    assert list(answers(model, [image], "--top", "1")) == [f"{image}: unknown, the nearest are"]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("size", [(100, 80), (80, 100), (31, 64), (64, 64), (301, 77), (65, 64)])
def test_the_same_bytes(script, tmp_path, mode, size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8), "RGBA").convert(mode)
    path = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)
    for crop in (1.0, 0.875):
        transform = Transform(64, (0.5,) * 3, (0.5,) * 3, crop)
        expected = transform.cropped(path).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(script.read_image(path, 64, transform.short_side), expected)
