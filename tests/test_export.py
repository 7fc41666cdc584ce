"""The ONNX graph equals torch, for every method, for any number of images and classes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.classes.attributes import Attributes
from unseen.classes.table import ClassTable
from unseen.cli import app
from unseen.errors import UnseenError
from unseen.methods import METHODS, RECOMMENDED, ClassSpace
from unseen.methods.class_normalized import ClassNormalizedSettings
from unseen.methods.clip import CLIPSettings
from unseen.methods.mgmrn.settings import MgMRNSettings
from unseen.model.assembled import build_method
from unseen.model.ranks import RankThreshold
from unseen.recognizer import Recognizer

pytest.importorskip("onnx", reason="needs unseen[export]")
pytest.importorskip("onnxscript", reason="needs unseen[export]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs unseen[export]")

from unseen.export import INPUTS, Graph, difference_from_torch, export_onnx  # noqa: E402

K, SIZE = 7, 64
ATTRIBUTES = Attributes(tuple(f"group{k % 3}::{k}" for k in range(K)))


class Patches(torch.nn.Module):
    """A network of one layer: graphs are made quickly."""

    def __init__(self, channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, channels, 16, 16)

    def forward_features(self, pixels):
        return self.layer(pixels).relu()

    def forward_intermediates(self, pixels, indices):
        found = self.forward_features(pixels)
        return found, [found[:, :32].square() for _ in indices]


def make(name, spec, settings=None, store_dtype="float16", quick=True):
    """A method of every kind with random weights on a small random network."""
    kind = METHODS[name]
    if name == "mgmrn":
        spec = BackboneSpec(name="test_resnet", weights="random", image_size=SIZE, stages=(1, 2, 3))
        settings = MgMRNSettings(width=32, attention_width=16, tau=5.0)
    if name == "cn":  # wide layers with random weights make all prototypes alike
        settings = ClassNormalizedSettings(hidden=8)
    generator = torch.Generator().manual_seed(3)
    backbone = Backbone(spec)
    if quick and name != "mgmrn":  # which reads several stages
        torch.manual_seed(4)
        backbone.model = Patches(backbone.parts[0][-1]).requires_grad_(False)
    if settings is None:
        settings = kind.presets.get(RECOMMENDED, next(iter(kind.presets.values()))).settings
    method = build_method(name, backbone, torch.randn(K, 8, generator=generator), settings)
    with torch.no_grad():
        for key, value in method.state_dict().items():
            if value.is_floating_point() and "running_var" not in key:
                value.add_(0.1 * torch.rand(value.shape, generator=generator))
    rng = np.random.default_rng(0)
    table = ClassTable(tuple("abcdef"), ATTRIBUTES, rng.normal(size=(6, K)), np.array([1, 1, 0, 0, 1, 0], bool))
    return Recognizer(
        backbone, method, table, gamma=0.25, temperature=0.5, threshold=0.125, store_dtype=store_dtype, device="cpu",
        rank_thresholds={"family": RankThreshold(0.5, None)},
    )  # fmt: skip


def run(path, *inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(zip([*INPUTS, "trained"], inputs, strict=False))), strict=True))


def torch_scores(recognizer, images, vectors, seen, *trained):
    """Class scores from images, by the recognizer's own steps."""
    pixels = recognizer.backbone.transform.normalized(torch.from_numpy(images).permute(0, 3, 1, 2))
    method = recognizer.method
    with torch.inference_mode():
        if not method.end_to_end:
            pixels = recognizer.backbone(pixels)[0].to(getattr(torch, recognizer.store_dtype)).float()
        branches = method(method.prepare(pixels))
        classes = ClassSpace(torch.from_numpy(vectors), torch.from_numpy(seen), None, *map(torch.from_numpy, trained))
        return method.class_scores(branches, classes).numpy(), method.fused_attribute_scores(branches).numpy()


def example(images, classes, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)
    return pixels, rng.normal(size=(classes, K)).astype(np.float32), rng.random(classes) < 0.5


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip"])
def test_every_method_equals_torch(name, tiny_backbone, tmp_path):
    recognizer = make(name, tiny_backbone)
    exported = export_onnx(recognizer, tmp_path / "m.onnx")
    assert max(exported.differences.values()) <= 1e-4
    for images, classes in ((1, 1), (5, 9), (1, 4), (3, 1)):  # the graph was made with 2 and 3
        inputs = example(images, classes, seed=classes)
        found = run(exported.model, *inputs)
        scores, attribute_scores = torch_scores(recognizer, *inputs)
        assert found["scores"].shape == (images, classes)
        assert np.abs(found["scores"] - scores).max() <= 1e-4 * np.abs(scores).max()
        assert np.abs(found["attribute_scores"] - attribute_scores).max() <= 1e-4 * np.abs(attribute_scores).max()
        if classes > 1:
            top = np.sort(scores, axis=1)
            clear = top[:, -1] - top[:, -2] > 2e-4 * np.abs(scores).max()
            assert clear.any()
            assert (found["scores"].argmax(axis=1) == scores.argmax(axis=1))[clear].all()


@pytest.mark.parametrize(
    ("name", "pick"),
    [("eszsl", {"features": "root", "own": 0.0}), ("eszsl", {"features": "centred", "own": 0.5})]
    + [("sae", {"features": "whitened"}), ("prototypes", {"features": "whitened", "own": 0.75})]
    + [("auto", {"method": name, "features": "whitened", "own": 0.5}) for name in ("eszsl", "prototypes")],
)
def test_fitted_preparations_equal_torch(name, pick, tiny_backbone, tmp_path):
    recognizer = make(name, tiny_backbone)
    method, table = recognizer.method, recognizer.table
    generator = torch.Generator().manual_seed(5)
    regions = torch.rand(60, 4, recognizer.backbone.channels[0], generator=generator)
    labels = torch.from_numpy(np.flatnonzero(table.seen))[torch.arange(60) % int(table.seen.sum())]
    classes = ClassSpace(torch.from_numpy(table.values).float(), torch.from_numpy(table.seen.copy()))
    method.fit(method.prepare(regions), labels, classes)
    method.use(next(c for c in method.grid() if pick.items() <= c.items()))
    recognizer.table = table
    exported = export_onnx(recognizer, tmp_path / "m.onnx")
    own = (np.array([2, -1, 0, -1, 1]),) if pick.get("own") else ()
    assert json.loads(exported.facts.read_text())["inputs"] == [*INPUTS, "trained"][: 3 + len(own)]
    assert ("trained_as" in exported.classes.read_text()) == bool(own)
    inputs = (*example(3, 5, seed=1), *own)
    found, (scores, _) = run(exported.model, *inputs), torch_scores(recognizer, *inputs)
    assert np.abs(found["scores"] - scores).max() <= 1e-4 * np.abs(scores).max()


@pytest.mark.parametrize("features", ["whitened", "whitened+0.25"], ids=["last map", "joined maps"])
@pytest.mark.parametrize("shares", [{}, {"attention": 0.5, "residual": 0.5}], ids=["start", "trained"])
def test_anchored_equals_torch_with_and_without_its_parts(shares, features, tiny_backbone, tmp_path):
    recognizer = make("anchored", replace(tiny_backbone, stages=("0+final",)) if "+" in features else tiny_backbone)
    method, table = recognizer.method, recognizer.table
    regions = torch.rand(60, 16, recognizer.backbone.channels[0], generator=torch.Generator().manual_seed(5))
    labels = torch.from_numpy(np.flatnonzero(table.seen))[torch.arange(60) % int(table.seen.sum())]
    classes = ClassSpace(torch.from_numpy(table.values).float(), torch.from_numpy(table.seen.copy()))
    pick = {"features": features, "rows": "centred", "own": 0.0}
    method.candidate = next(c for c in method.closed.grid() if pick.items() <= c.items())
    method.start([(regions, labels)], classes)
    method.set_shares(shares)
    exported = export_onnx(recognizer, tmp_path / "m.onnx", maps=True)
    inputs = example(3, 5, seed=1)
    found, (scores, _) = run(exported.model, *inputs), torch_scores(recognizer, *inputs)
    assert np.abs(found["scores"] - scores).max() <= 1e-4 * np.abs(scores).max()
    assert ("attention_a2v" in found) == bool(shares)


@pytest.mark.parametrize("name", ["msdn", "eszsl"])
def test_maps_equal_torch_and_add_up(name, tiny_backbone, tmp_path):
    recognizer = make(name, tiny_backbone)
    exported = export_onnx(recognizer, tmp_path / "m.onnx", maps=True)
    images, vectors, seen = example(3, 4)
    found = run(exported.model, images, vectors, seen)
    h, w = recognizer.backbone.grids[-1]
    assert found["contributions"].shape == (3, K, h, w)
    summed = found["contributions"].sum(axis=(2, 3))
    np.testing.assert_allclose(summed, found["attribute_scores"], atol=1e-5 * np.abs(summed).max() * h * w)
    pixels = recognizer.backbone.transform.normalized(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.inference_mode():
        method = recognizer.method
        raw = pixels if method.end_to_end else recognizer.backbone(pixels)[0].half().float()
        branches = method.maps(raw)
    attention = {f"attention_{n}": b.attention for n, b in branches.items() if b.attention is not None}
    assert set(found) == {"scores", "attribute_scores", "contributions", *attention}
    for key, value in attention.items():
        np.testing.assert_allclose(found[key].reshape(3, K, -1), value.numpy(), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_regions_are_rounded_as_in_training(dtype, tiny_backbone, tmp_path):
    recognizer = make("sje", tiny_backbone, store_dtype=dtype)
    inputs = example(4, 5)
    found = run(export_onnx(recognizer, tmp_path / "m.onnx").model, *inputs)["scores"]
    scores = torch_scores(recognizer, *inputs)[0]
    own = np.abs(found - scores).max()
    assert own <= 1e-4 * np.abs(scores).max()
    if dtype == "bfloat16":  # coarse enough to tell that it is in the graph
        recognizer.store_dtype = "float32"
        assert own < 0.1 * np.abs(found - torch_scores(recognizer, *inputs)[0]).max()


def test_the_files_beside_the_graph_and_the_check(tiny_backbone, tmp_path):
    recognizer = make("sje", tiny_backbone)
    exported = export_onnx(recognizer, tmp_path / "new" / "birds.onnx")
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"birds.onnx", "birds.json", "birds-classes.csv"}
    facts = json.loads(exported.facts.read_text())
    assert facts["image"] == {"size": SIZE, "short_side": SIZE, "interpolation": "bicubic", "background": "white"}
    assert (facts["gamma"], facts["temperature"], facts["threshold"]) == (0.25, 0.5, 0.125)
    assert facts["rank_thresholds"] == {"family": {"asked": 0.5, "coarser": None}}
    assert facts["attributes"] == list(ATTRIBUTES.names)
    with exported.classes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list("abcdef")
    values = [[float(row[a]) for a in ATTRIBUTES.names] for row in rows]
    np.testing.assert_array_equal(values, recognizer.table.values)
    with torch.no_grad():
        recognizer.method.weight.mul_(1.5)
    found = difference_from_torch(recognizer, exported.model, Graph(recognizer).eval())
    assert found["scores"] == pytest.approx(1 / 3, rel=1e-3)


def test_large_weights_in_a_file_of_their_own(tiny_backbone, tmp_path):
    recognizer = make("eszsl", tiny_backbone)
    exported = export_onnx(recognizer, tmp_path / "m.onnx", external_data=True)
    assert exported.model.stat().st_size < (tmp_path / "m.onnx.data").stat().st_size
    inputs = example(2, 3)
    scores = torch_scores(recognizer, *inputs)[0]
    np.testing.assert_allclose(run(exported.model, *inputs)["scores"], scores, atol=1e-4 * np.abs(scores).max())


def test_a_whole_transformer(tmp_path):
    spec = BackboneSpec(name="vit_tiny_patch16_224", weights="random", image_size=SIZE, options={"depth": 1})
    assert export_onnx(make("ale", spec, quick=False), tmp_path / "m.onnx").differences["scores"] <= 1e-4


def test_several_looks(tiny_backbone, tmp_path):
    recognizer = make("eszsl", replace(tiny_backbone, zoom=2, mirror=True), quick=False)
    exported = export_onnx(recognizer, tmp_path / "m.onnx")
    assert exported.differences["scores"] <= 1e-4
    pixels = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    _, vectors, seen = example(1, 4)
    scores, _ = torch_scores(recognizer, pixels, vectors, seen)
    assert np.abs(run(exported.model, pixels, vectors, seen)["scores"] - scores).max() <= 1e-4 * np.abs(scores).max()


def test_text_towers_by_attribute_scores_only(tiny_pairs, tmp_path):
    spec = BackboneSpec(f"hf:{tiny_pairs['siglip']}")
    exported = export_onnx(make("clip", spec, CLIPSettings(mode="scores"), quick=False), tmp_path / "m.onnx")
    assert exported.differences["scores"] <= 1e-4
    for mode in ("names", "attributes"):
        with pytest.raises(UnseenError, match=f"clip in mode {mode} uses class texts"):
            export_onnx(make("clip", spec, CLIPSettings(mode=mode)), tmp_path / "m.onnx")


def test_a_graph_that_differs_is_not_written(tiny_backbone, tmp_path, monkeypatch):
    recognizer = make("eszsl", tiny_backbone)
    monkeypatch.setattr("unseen.export.difference_from_torch", lambda *_: {"scores": 2e-4, "attribute_scores": 0.0})
    with pytest.raises(UnseenError, match=r"m\.onnx: scores differ from torch by 2\.0e-04"):
        export_onnx(recognizer, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_one_line(tiny_backbone, tmp_path, monkeypatch):
    recognizer = make("eszsl", tiny_backbone)
    with pytest.raises(UnseenError, match=r"ends in \.onnx"):
        export_onnx(recognizer, tmp_path / "model.pb")
    monkeypatch.setattr("unseen.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnseenError, match=r"needs onnx and onnxscript — pip install 'unseen\[export\]'"):
        export_onnx(recognizer, tmp_path / "m.onnx")


def test_the_command(tiny_backbone, tmp_path):
    saved = make("sje", tiny_backbone, quick=False).save(tmp_path / "saved")
    done = CliRunner().invoke(app, ["export", str(saved), "-o", str(tmp_path / "m.onnx"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["model"] == str(tmp_path / "m.onnx")
    assert told["differences_from_torch"]["scores"] <= 1e-4
    done = CliRunner().invoke(app, ["export", str(saved), "-o", str(tmp_path / "m.onnx"), "--opset", "99"])
    assert "opset 99 does not support this graph" in str(done.exception)


def test_a_wrong_ending_is_said_before_anything_is_loaded(unseen, tmp_path):
    status, _, error = unseen("export", tmp_path / "nowhere", "-o", "model.txt")
    assert status == 2
    assert "model.txt: not an .onnx file — use a file name that ends in .onnx" in error
