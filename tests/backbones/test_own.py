"""Networks of the user's, by path and in hand: maps, facts, fingerprints, runs, saved models, errors."""

from __future__ import annotations

import importlib
import json
import linecache
import shutil
import sys

import pytest
import torch
from torch import nn

import unseen
from outside import write_package
from unseen.backbones import own
from unseen.backbones.backbone import Backbone, list_stages
from unseen.backbones.spec import BackboneSpec
from unseen.errors import UnseenError
from unseen.experiments.compare import Comparison, compare
from unseen.experiments.variants import Variant

NETS = "birdkit.networks"


@pytest.fixture
def birdkit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "site")))
    before = dict(own._MAKERS)
    yield tmp_path / "site"
    own._MAKERS.clear()
    own._MAKERS.update(before)
    own._made_facts.cache_clear()
    for name in [n for n in sys.modules if n.split(".")[0] == "birdkit"]:
        del sys.modules[name]


def images(seed=0):
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "grid"), [("Stripes", (4, 4)), ("Last", (4, 4)), ("Tokens", (4, 4)), ("Pooled", (1, 1))]
)
def test_every_form_of_answer_is_regions(birdkit, name, grid):
    backbone = Backbone(BackboneSpec(f"{NETS}:{name}"))
    assert (backbone.grids, backbone.channels) == ([grid], [12])
    assert (backbone.spec.image_size, backbone.spec.mean, backbone.spec.std) == (64, (0.5,) * 3, (0.25,) * 3)
    network = backbone.network
    with torch.inference_mode():
        pixels = (images() / 255 - 0.5) / 0.25
        deep = network.second(network.first(pixels).relu()).relu()
        expected = deep.flatten(2).transpose(1, 2)
        if name == "Pooled":
            expected = expected.mean(dim=1, keepdim=True)
        torch.testing.assert_close(backbone.regions(images())[0], expected, rtol=1e-4, atol=1e-5)


def test_stages_are_those_of_the_list(birdkit):
    backbone = Backbone(BackboneSpec(f"{NETS}:Stripes", stages=(0, "final"), options={"width": 4}))
    assert (backbone.grids, backbone.channels) == ([(8, 8), (4, 4)], [4, 8])
    assert list_stages(f"{NETS}:Stripes") == [("final", 12, 16), (0, 6, 8), (1, 12, 16)]
    with pytest.raises(UnseenError, match="no stage 2"):
        Backbone(BackboneSpec(f"{NETS}:Stripes", stages=(2,)))


def test_a_fingerprint_is_of_weights_and_code(birdkit):
    spec = BackboneSpec(f"{NETS}:Stripes")
    first = spec.fingerprint()
    assert spec.fingerprint() == first
    assert BackboneSpec(f"{NETS}:Stripes", seed=1).fingerprint() != first
    assert BackboneSpec(f"{NETS}:Stripes", options={"width": 8}).fingerprint() != first
    file = birdkit / "birdkit" / "networks.py"
    text = file.read_text()
    for old, new, same in (("# none", "", True), ("self.second(shallow).relu()", "self.second(shallow)", False)):
        file.write_text(f"# a comment\n{text.replace(old, new)}")
        linecache.checkcache()
        own._MAKERS.clear()
        own._made_facts.cache_clear()
        for name in [n for n in sys.modules if n.split(".")[0] == "birdkit"]:
            del sys.modules[name]
        shutil.rmtree(birdkit / "birdkit" / "__pycache__", ignore_errors=True)
        importlib.invalidate_caches()
        assert (spec.fingerprint() == first) is same


def test_a_model_registered_in_timm_by_the_user(birdkit):
    import birdkit.registered  # noqa: F401

    spec = BackboneSpec("birdkit_net", image_size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert spec.name == "birdkit.registered:birdkit_net"
    backbone = Backbone(spec)
    assert backbone.network.was_pretrained
    assert not Backbone(BackboneSpec("birdkit_net", weights="random", image_size=64)).network.was_pretrained
    assert backbone.channels == [backbone.network.num_features]


def test_a_run_finds_the_network_again(birdkit, tiny_guide, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(birdkit))
    options = {"device": "cpu", "cache": tmp_path / "cache", "draws": 1}
    run = unseen.fit("eszsl", tiny_guide, tmp_path / "run", backbone=f"{NETS}:Stripes", **options)
    assert run.manifest["backbone"]["name"] == f"{NETS}:Stripes"
    image = next((tiny_guide / "images").rglob("*.*"))
    loaded = unseen.Recognizer.load(run.folder, device="cpu")
    answer = loaded.predict([image])[0]
    loaded.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "backbone.safetensors").is_file()
    again = unseen.Recognizer.load(tmp_path / "saved", device="cpu")
    assert again.predict([image])[0].best.confidence == answer.best.confidence
    asked = Comparison(
        [Variant("eszsl", "eszsl")],
        {
            "dataset": str(tiny_guide),
            "backbone": run.config.backbone,
            "protocols": ("honest",),
            "seeds": (0,),
            "draws": 1,
        },
        device="cpu",
        cache=tmp_path / "cache",
    )
    assert compare(asked, tmp_path / "rows")["rows"][0]["error"] is None

    facts = json.loads((tmp_path / "saved" / "recognizer.json").read_text())
    facts["backbone"]["name"] = "somewhere.else:Net"
    (tmp_path / "saved" / "recognizer.json").write_text(json.dumps(facts))
    with pytest.raises(UnseenError, match=r"sum|is code that is not installed"):
        unseen.Recognizer.load(tmp_path / "saved", device="cpu")


def test_a_module_in_hand(birdkit, tiny_guide, tmp_path):
    from birdkit.networks import Stripes

    torch.manual_seed(3)
    network = Stripes(5)
    options = {"device": "cpu", "cache": tmp_path / "cache", "draws": 1}
    run = unseen.fit("eszsl", tiny_guide, tmp_path / "run", backbone=network, **options)
    image = next((tiny_guide / "images").rglob("*.*"))
    loaded = unseen.Recognizer.load(run.folder, device="cpu")
    assert torch.equal(loaded.backbone.network.first.weight, network.first.weight)
    assert network.first.weight.requires_grad, "the user's module is left as it was"
    answer = loaded.predict([image])[0].best
    loaded.save(tmp_path / "saved")
    own._MAKERS.clear()  # another process
    with pytest.raises(UnseenError, match=r"a module passed in Python — call unseen.BackboneSpec.of\(module\) first"):
        unseen.Recognizer.load(run.folder, device="cpu")
    BackboneSpec.of(Stripes(5))  # other weights: a run is refused, a saved model brings its own
    with pytest.raises(UnseenError, match="differ from those of the training"):
        unseen.Recognizer.load(run.folder, device="cpu")
    again = unseen.Recognizer.load(tmp_path / "saved", device="cpu")
    assert again.predict([image])[0].best.confidence == answer.confidence
    asked = Comparison(
        [Variant("eszsl", "eszsl")],
        {
            "dataset": str(tiny_guide),
            "backbone": run.config.backbone,
            "protocols": ("honest",),
            "seeds": (0,),
            "draws": 1,
        },
    )
    with pytest.raises(UnseenError, match="child processes cannot create it — pass the path"):
        compare(asked, tmp_path / "rows")


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("Bare", {}, "has no default for image size and mean and std — pass --image-size, --mean, --std"),
        ("no_network", {"image_size": 64}, "returns a int, not an nn.Module"),
        ("Stripes", {"options": {"wide": 3}}, r"fails with .*unexpected keyword argument 'wide'"),
        ("Last", {"channels": 13}, "returns 4 channels, not the 13 of the specification"),
        ("Missing", {}, 'has no "Missing"'),
        ("NETS", {}, 'has no "NETS"'),
    ],
)
def test_what_does_not_fit_is_one_line(birdkit, name, entries, message):
    with pytest.raises(UnseenError, match=message) as caught:
        Backbone(BackboneSpec(f"{NETS}:{name}", **entries))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.ones(1, 5, 7), "which is not a grid of regions"),
        (torch.ones(8, 4, 4), r"returns a map of 8 images for one image — return \(B, C, h, w\)"),
        ("text", "returns str, not feature maps"),
        ([], "returns list, not feature maps"),
    ],
)
def test_an_answer_that_is_no_map_is_one_line(answer, message):
    class Odd(nn.Module):
        image_size, mean, std = 32, (0.5,) * 3, (0.5,) * 3

        def forward(self, x):
            return answer

    with pytest.raises(UnseenError, match=message):
        Backbone(BackboneSpec.of(Odd()))


def test_a_function_without_a_name_makes_a_network():
    class Net(nn.Module):
        image_size, mean, std = 32, (0.5,) * 3, (0.5,) * 3

        def forward(self, x):
            return x[:, :, ::16, ::16]

    spec = BackboneSpec.of(lambda: Net().eval())
    assert Backbone(spec).grids == [(2, 2)]
    with pytest.raises(UnseenError, match="is defined in a script, notebook or function"):
        own.import_path("birdkit.networks:<lambda>", "backbone")


def test_of_takes_what_is_in_hand():
    assert BackboneSpec.of("resnet18", image_size=64) == BackboneSpec("resnet18", image_size=64)
    assert BackboneSpec.of(BackboneSpec("resnet18"), crop=0.5) == BackboneSpec("resnet18", crop=0.5)
    with pytest.raises(UnseenError, match=r"int is not a network — pass an nn.Module"):
        BackboneSpec.of(3)
    with pytest.raises(UnseenError, match=r"mean 0\.5 is not three valid numbers"):
        BackboneSpec("resnet18", mean=0.5)
    with pytest.raises(UnseenError, match="3 is not a number of channels — pass channels=1 or more"):
        BackboneSpec("resnet18", channels=3)
