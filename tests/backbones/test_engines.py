"""Engines: as torch computes, image by image, converted once; stores and runs do not mix them."""

from __future__ import annotations

import json
import logging
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from unseen.backbones import engines
from unseen.backbones.backbone import Backbone
from unseen.backbones.engines import TOLERANCE, VARIABLE, Engine, available_labels, chosen_engine
from unseen.backbones.reduction import ReductionSpec
from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.features.extract import extract
from unseen.features.layout import Layout
from unseen.features.reduced import extract_reduced
from unseen.features.store import RegionStore, inspect

INSTALLED = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"needs {name}"))
    for name in ("openvino", "onnxruntime")
]
NETWORKS = {
    "convolutions, two stages": BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random"),
    "mobilenet": BackboneSpec("mobilenetv2_100", image_size=64, weights="random"),
    "vit with registers": BackboneSpec("test_vit4", image_size=160, weights="random"),
    "vit at another size": BackboneSpec("test_vit", image_size=96, weights="random"),
    "frozen layers of a vit": BackboneSpec("test_vit4", stages=("trunk",), image_size=160, weights="random"),
    "frozen layers": BackboneSpec("test_resnet", stages=("trunk",), image_size=64, weights="random"),
    "hierarchical, NHWC": BackboneSpec(
        "swin_tiny_patch4_window7_224", image_size=224, weights="random", options={"embed_dim": 24, "depths": (1, 1)}
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(14):
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        noise.resize((100, 80), Image.Resampling.BICUBIC).save(folder / f"{i:02}.png")
    return sorted(folder.iterdir())


def small() -> Backbone:
    return Backbone(NETWORKS["convolutions, two stages"])


def pixels(count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return float((found.float() - wanted.float()).abs().max()) <= TOLERANCE * float(wanted.abs().max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("network", NETWORKS)
def test_as_torch_computes_and_the_same_to_the_bit_in_any_batch(network, engine):
    spec = NETWORKS[network]
    images = pixels(5, spec.image_size or 0)
    wanted = Backbone(spec).use("torch").regions(images)
    backbone = Backbone(spec).use(engine)
    found = backbone.regions(images)
    assert [f.shape for f in found] == [w.shape for w in wanted]
    assert all(f.dtype == torch.float32 and close(f, w) for f, w in zip(found, wanted, strict=True))
    alone = [torch.cat(stage) for stage in zip(*(backbone.regions(one[None]) for one in images), strict=True)]
    assert all(torch.equal(a, f) for a, f in zip(alone, found, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_many_threads_give_the_same(engine, monkeypatch):
    images = pixels(9, 64)
    found = small().use(engine).regions(images)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(torch.equal(a, b) for a, b in zip(small().use(engine).regions(images), found, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_converted_once_and_again_when_damaged(engine, monkeypatch, tmp_path):
    kind, images = engines._KINDS[engine], pixels(2, 64)
    converted = []
    convert = kind.convert
    monkeypatch.setattr(kind, "convert", lambda *a: converted.append(1) or convert(*a))
    found = small().use(engine).regions(images)
    assert all(torch.equal(a, b) for a, b in zip(small().use(engine).regions(images), found, strict=True))
    assert len(converted) == 1
    other = Backbone(BackboneSpec("test_resnet", stages=("final", 2), image_size=64, weights="random", seed=1))
    assert not close(other.use(engine).regions(images)[0], found[0])
    assert len(converted) == 2
    for place in (tmp_path / "cache" / "engines").iterdir():
        largest = max(place.iterdir(), key=lambda file: file.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
    assert all(torch.equal(a, b) for a, b in zip(small().use(engine).regions(images), found, strict=True))
    assert len(converted) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_changed_are_converted_anew(engine):
    images, backbone = pixels(1, 64), small()
    before = backbone.use(engine).regions(images)[0]
    with torch.no_grad():
        next(backbone.model.parameters()).mul_(2)
    after = backbone.use(engine).regions(images)[0]
    assert not close(after, before)
    assert close(after, backbone.use("torch").regions(images)[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cache_that_cannot_be_written_is_done_without(engine, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNSEEN_CACHE", str(tmp_path / "file"))
    assert close(small().use(engine).regions(pixels(1, 64))[0], small().use("torch").regions(pixels(1, 64))[0])


def test_what_is_chosen(monkeypatch):
    monkeypatch.setattr(engines, "_installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(engines, "version", lambda name: "1.2.3")
    assert chosen_engine() == chosen_engine("auto") == Engine("onnxruntime", "f32", "1.2.3")
    assert chosen_engine("auto", "cuda").name == chosen_engine("torch").name == "torch"
    assert available_labels(torch.device("cpu")) == {None, "onnxruntime 1.2.3"}
    assert available_labels(torch.device("cuda")) == {None}
    monkeypatch.setenv(VARIABLE, "torch")
    assert chosen_engine().name == "torch"
    assert chosen_engine("onnxruntime").name == "onnxruntime"
    monkeypatch.setattr(engines, "_installed", lambda name: True)
    assert chosen_engine("auto").name == "onnxruntime"
    monkeypatch.setattr(engines, "_installed", lambda name: name == "openvino")
    assert chosen_engine("auto").name == "openvino"
    monkeypatch.setattr(engines, "_openvino_abilities", lambda: ["FP32", "BF16"])
    assert str(chosen_engine("openvino:bf16")) == "openvino 1.2.3 bf16"
    assert chosen_engine("torch").label is None


@pytest.mark.parametrize(
    ("wanted", "device", "said"),
    [
        ("tensorrt", "cpu", 'unknown engine "tensorrt" — use one of auto, torch, onnxruntime'),
        ("torch:bf16", "cpu", "unknown engine"),
        ("openvino:int8", "cpu", "unknown engine"),
        ("openvino", "cuda", "openvino runs on a CPU only"),
        ("openvino", "cpu", r"openvino is not installed — pip install 'unseen\[openvino\]'"),
        ("onnxruntime", "cpu", r"onnxruntime is not installed — pip install 'unseen\[cpu\]'"),
    ],
)
def test_what_cannot_be_chosen(wanted, device, said, monkeypatch):
    monkeypatch.setattr(engines, "_installed", lambda name: False)
    with pytest.raises(UnseenError, match=said):
        chosen_engine(wanted, device)


@pytest.mark.skipif("openvino" not in INSTALLED, reason="needs openvino")
def test_bfloat16_needs_a_processor_that_has_it(monkeypatch):
    monkeypatch.setattr(engines, "_openvino_abilities", lambda: ["FP32", "INT8"])
    with pytest.raises(UnseenError, match="this processor does not support bfloat16"):
        chosen_engine("openvino:bf16")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_an_engine_cannot_take(engine, monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("no such operation\nand more")

    monkeypatch.setattr(engines._KINDS[engine], "convert", refuse)
    with pytest.raises(
        UnseenError, match=rf"test_resnet: {engine} .* cannot run this network: no such operation — --engine"
    ):
        small().use(engine).regions(pixels(1, 64))
    monkeypatch.setattr(engines, "_installed", lambda name: name == engine)
    backbone = small()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(backbone.regions(pixels(1, 64))[0], small().use("torch").regions(pixels(1, 64))[0])
    assert "torch computes instead" in caplog.text
    assert backbone.engine.name == "torch"


def test_weights_that_train_are_torchs():
    backbone = Backbone(NETWORKS["convolutions, two stages"]).fine_tuned()
    assert backbone.engine.name == "torch"


def store(files, cache, engine, **options) -> RegionStore:
    names = [f.name for f in files]
    options = {"batch_size": 4, **options}
    return extract(files, small(), cache / "regions", names=names, engine=engine, **options)


def contents(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def break_off(files, cache, engine, monkeypatch, after=2) -> None:
    """An extraction that stops after some chunks."""

    def stop(done, total):
        if done >= 4 * after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(files, cache, engine, tick=stop)


@pytest.mark.parametrize("engine", ENGINES)
def test_auto_falls_back_to_torch(engine, photographs, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no")

    monkeypatch.setattr(engines, "_installed", lambda name: name == engine)
    monkeypatch.setattr(engines._KINDS[engine], "convert", refuse)
    found = store(photographs, tmp_path, "auto")
    assert found.engine is None
    assert contents(found.folder) == contents(store(photographs, tmp_path / "other", "torch").folder)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return tmp_path_factory.mktemp("converted")


@pytest.mark.parametrize("engine", ENGINES)
class TestStores:
    @pytest.fixture(autouse=True)
    def converted_once(self, converted, monkeypatch):
        """Conversion takes seconds; these tests are about what is computed afterwards."""
        monkeypatch.setattr(
            "unseen.backbones.backbone.compiled",
            lambda network, engine, _: engines.compiled(network, engine, converted),
        )

    def test_own_folder_and_fingerprint(self, engine, photographs, tmp_path):
        mine, torchs = store(photographs, tmp_path, engine), store(photographs, tmp_path, "torch")
        label = str(chosen_engine(engine))
        assert (mine.engine, torchs.engine) == (label, None)
        assert mine.fingerprint != torchs.fingerprint
        assert mine.folder.name == f"{torchs.folder.name}-{label.replace(' ', '-')}"
        everything = range(len(mine))
        for stage in range(2):
            assert close(mine.read(everything, stage), torchs.read(everything, stage))
        assert inspect(mine.folder).whole

    @pytest.mark.parametrize("options", [{"batch_size": 3}, {"workers": 2}, {"batch_size": 14}])
    def test_the_same_bytes_however_it_is_done(self, engine, options, photographs, tmp_path):
        whole = store(photographs, tmp_path, engine)
        again = store(photographs, tmp_path / "again", engine, **options)
        assert (again.folder / "stage0.bin").read_bytes() == (whole.folder / "stage0.bin").read_bytes()
        assert (again.folder / "stage1.bin").read_bytes() == (whole.folder / "stage1.bin").read_bytes()

    def test_resumed_to_the_same_bytes(self, engine, photographs, tmp_path, monkeypatch):
        whole = store(photographs, tmp_path / "whole", engine)
        break_off(photographs, tmp_path, engine, monkeypatch)
        assert contents(store(photographs, tmp_path, engine).folder) == contents(whole.folder)

    def test_auto_finishes_what_another_engine_began(self, engine, photographs, tmp_path, monkeypatch):
        break_off(photographs, tmp_path, "torch", monkeypatch)
        assert store(photographs, tmp_path, "auto").engine is None
        cache = tmp_path / "other"
        break_off(photographs, cache, engine, monkeypatch)
        assert store(photographs, cache, "auto").engine == str(chosen_engine(engine))
        assert len(list((cache / "regions").glob("*/store.json"))) == 1

    def test_one_asked_for_begins_its_own(self, engine, photographs, tmp_path, monkeypatch):
        whole = store(photographs, tmp_path / "whole", engine)
        break_off(photographs, tmp_path, "torch", monkeypatch)
        mine = store(photographs, tmp_path, engine)
        assert contents(mine.folder) == contents(whole.folder)

    def test_auto_uses_what_is_finished(self, engine, photographs, tmp_path, monkeypatch):
        torchs = store(photographs, tmp_path, "torch")
        monkeypatch.setattr(engines, "_installed", lambda name: name == engine)
        assert store(photographs, tmp_path, "auto").folder == torchs.folder
        mine = store(photographs, tmp_path, engine)
        assert store(photographs, tmp_path, "auto").folder == mine.folder
        assert store(photographs, tmp_path, "auto", earlier="torch 2.9").folder == torchs.folder
        monkeypatch.setattr(engines, "_installed", lambda name: False)
        assert store(photographs, tmp_path, "auto", earlier=mine.engine).folder == mine.folder
        assert store(photographs, tmp_path, "auto").folder == torchs.folder

    def test_an_unfinished_store_of_another_version_is_left_alone(self, engine, photographs, tmp_path, monkeypatch):
        break_off(photographs, tmp_path, engine, monkeypatch)
        (begun,) = (tmp_path / "regions").glob("*/store.json")
        monkeypatch.setattr(engines, "_installed", lambda name: name == engine)
        real = engines.version
        monkeypatch.setattr(engines, "version", lambda name: real(name) + ".post1")
        found = store(photographs, tmp_path, "auto")
        assert found.engine == str(chosen_engine(engine))
        assert found.folder != begun.parent
        assert len(Layout.read(begun.parent).journal()) == 2

    def test_reduced(self, engine, photographs, tmp_path):
        spec = NETWORKS["mobilenet"]

        def reduced(cache, wanted, full=False):
            names, backbone = [f.name for f in photographs], Backbone(spec)
            if full:
                extract(photographs, Backbone(spec), cache / "regions", names=names, engine=wanted)
            return extract_reduced(
                photographs,
                backbone,
                cache / "regions",
                names=names,
                spec=ReductionSpec.parse("pca:8"),
                fit_on=np.arange(10),
                engine=wanted,
            )

        mine, derived = reduced(tmp_path / "a", engine), reduced(tmp_path / "b", engine, full=True)
        assert mine.engine == derived.engine == str(chosen_engine(engine))
        assert mine.fingerprint != reduced(tmp_path / "c", "torch").fingerprint
        # axes are fitted on features as computed without a store, on rounded ones with it
        assert close(derived.read(range(14)), mine.read(range(14))) or mine.fingerprint != derived.fingerprint

    def test_a_description_with_another_engine_is_another_store(self, engine, photographs, tmp_path):
        mine = store(photographs, tmp_path, engine)
        meta = json.loads((mine.folder / "store.json").read_text())
        assert meta["engine"] == str(chosen_engine(engine))
        shutil.rmtree(mine.folder)
        assert store(photographs, tmp_path, engine).fingerprint == mine.fingerprint


@pytest.mark.real_data
@pytest.mark.parametrize("engine", ENGINES)
def test_real_photographs_rank_classes_as_with_torch(engine, real_data):
    """Six classes of cub50 by the mean feature of two photographs each; every other photograph ranks all six."""
    spec = BackboneSpec(
        "mobilenetv2_100", weights=str(real_data / "weights" / "mobilenetv2_100_imagenet.safetensors"), image_size=224
    )
    folders = sorted(f for f in (real_data / "cub50" / "images").rglob("*") if any(f.glob("*.jpg")))[:6]
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:5]]
    assert len(files) == 30
    backbone = Backbone(spec)
    images = torch.stack([backbone.transform.cropped(file) for file in files])
    wanted, found = backbone.use("torch").regions(images)[0], backbone.use(engine).regions(images)[0]
    assert close(found, wanted)

    def ranking(regions: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.normalize(regions.half().float().mean(dim=1)).view(6, 5, -1)
        return (pooled[:, 2:].flatten(0, 1) @ pooled[:, :2].mean(dim=1).T).argsort(dim=1, descending=True)

    assert torch.equal(ranking(found), ranking(wanted))
