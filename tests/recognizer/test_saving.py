"""A saved folder is whole, private, checked before it is used, and goes to the hub and back."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from types import SimpleNamespace

import httpx
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import errors
from PIL import Image
from typer.testing import CliRunner

import tiny_clip
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.classes.attributes import Attributes
from unseen.classes.spreadsheets.columns import Column, Encoding
from unseen.classes.table import ClassTable
from unseen.cli import app
from unseen.errors import DataError, RunError, UnseenError
from unseen.ground.files import SEAL
from unseen.methods import create_method
from unseen.model.ranks import RankThreshold
from unseen.model.references import References
from unseen.recognizer import Recognizer
from unseen.recognizer.card import CardFields, escaped
from unseen.recognizer.names import FILES, PATTERNS
from unseen.recognizer.saving import without_paths

ATTRIBUTES = Attributes(("crown::red", "size::small", "tail::long"))
ABOUT = {
    "unseen": "0.1.0",
    "protocol": "honest",
    "seed": 3,
    "seeds": [3, 4],
    "data": {"name": "garden", "trainval": 40, "test_seen": 9, "test_unseen": 8, "images": "/home/ada/secret/garden"},
    "machine": {"processor": "EPYC", "threads": 2, "device": "cpu"},
    "versions": {"torch": "2.8"},
    "metrics": {
        "T1": {"mean": 0.5, "std": 0.1, "low": 0.25, "high": 0.75},
        "H": {"mean": 0.625, "std": 0.0, "low": None, "high": None},
    },
    "calibration": {"validation": {"ece": 0.0625, "auroc": 0.75}, "test": {"ece": 0.125}},
}


def make(spec, method="msdn", names=("a", "b", "c", "d"), **options):
    backbone = Backbone(spec)
    rng = np.random.default_rng(0)
    table = ClassTable(names, ATTRIBUTES, rng.random((len(names), 3)) + 0.1, np.arange(len(names)) % 2 == 0)
    made = create_method(method, channels=backbone.channels[0], vectors=torch.randn(3, 8), seed=1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return Recognizer(backbone, made, table, gamma=0.3, temperature=0.7, device="cpu", about=ABOUT, **options)


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    return make(tiny_backbone, threshold=0.4, encoding=Encoding((Column("crown", "as is", fill=(0.5,)),)))


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (80, 100, 3), dtype=np.uint8))


@pytest.fixture
def folder(recognizer, tmp_path):
    return recognizer.save(tmp_path / "model")


def answers(recognizer, image):
    return recognizer.predict(image, top=9)[0].as_dict()


def change(folder, **values):
    where = folder / "recognizer.json"
    facts = json.loads(where.read_text())
    for key, value in values.items():
        inner = facts
        *path, last = key.split("__")
        for part in path:
            inner = inner[part]
        inner[last] = value
    del facts[SEAL]
    where.write_text(json.dumps(facts))


def test_round_trip_keeps_everything(recognizer, folder, image):
    loaded = Recognizer.from_pretrained(folder, device="cpu")
    assert answers(loaded, image) == answers(recognizer, image)
    assert (loaded.gamma, loaded.temperature, loaded.threshold) == (0.3, 0.7, 0.4)
    assert loaded.encoding == recognizer.encoding
    assert loaded.about["data"]["images"] == "garden"
    again = loaded.save(folder.parent / "again")
    names = {p.name for p in folder.iterdir()}
    assert names == {p.name for p in again.iterdir()} <= set(FILES)
    for name in names - {"README.md"}:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_random_weights_travel(folder, tiny_backbone):
    """They depend on versions, so a seed alone would not do on another machine."""
    change(folder, backbone__seed=99)
    loaded = Recognizer.load(folder, device="cpu")
    for own, other in zip(
        Backbone(tiny_backbone).state_dict().values(), loaded.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(own, other)


def test_a_file_of_this_machine_leaves_no_trace(tiny_backbone, tmp_path, image):
    from safetensors.torch import save_file

    private = tmp_path / "very-private" / "own.safetensors"
    private.parent.mkdir()
    save_file(Backbone(tiny_backbone).model.state_dict(), private)
    spec = BackboneSpec(**{**vars(tiny_backbone), "weights": str(private)})
    made = make(spec)
    expected = answers(made, image)
    saved = made.save(tmp_path / "model")
    shutil.rmtree(private.parent)
    text = "".join(p.read_text() for p in saved.iterdir() if p.suffix != ".safetensors")
    assert "very-private" not in text
    assert "/home/ada" not in text
    assert answers(Recognizer.load(saved, device="cpu"), image) == expected


def test_pretrained_weights_are_named_or_stored(monkeypatch, tmp_path, tiny_backbone):
    fetched = []
    real = __import__("timm").create_model

    def create(name, pretrained=False, **options):
        fetched.append(pretrained)
        torch.manual_seed(5 if pretrained else 6)
        return real(name, pretrained=False, **options)

    monkeypatch.setattr("unseen.backbones.backbone.timm.create_model", create)
    spec = BackboneSpec(name="resnet10t.c3_in1k", image_size=64)
    made = make(spec)
    assert fetched == [True]
    named = made.save(tmp_path / "named")
    assert not (named / "backbone.safetensors").exists()
    card = (named / "README.md").read_text()
    assert "base_model: timm/resnet10t.c3_in1k" in card
    assert "downloaded by name" in card
    Recognizer.load(named, device="cpu")
    assert fetched == [True, True]
    stored = made.save(tmp_path / "stored", include_backbone=True)
    assert "nothing else is downloaded" in (stored / "README.md").read_text()
    loaded = Recognizer.load(stored, device="cpu")
    assert fetched == [True, True, False]
    for own, other in zip(made.backbone.state_dict().values(), loaded.backbone.state_dict().values(), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("kind", tiny_clip.KINDS)
def test_a_text_tower_travels(tiny_pairs, kind, tmp_path, image):
    original = shutil.copytree(tiny_pairs[kind], tmp_path / "pair")
    made = make(BackboneSpec(f"hf:{original}"), "clip")
    expected = answers(made, image)
    saved = made.save(tmp_path / "model")
    shutil.rmtree(original)
    assert json.loads((saved / "recognizer.json").read_text())["backbone"]["name"] == "hf:backbone"
    loaded = Recognizer.load(saved, device="cpu")
    assert answers(loaded, image) == expected
    loaded.save(saved)  # onto itself
    assert answers(Recognizer.load(saved, device="cpu"), image) == expected


def test_references_are_private_unless_asked_for(recognizer, tmp_path):
    source = tmp_path / "honest-references.npz"
    table = recognizer.table
    scores, files = np.ones((2, len(table.attributes)), np.float16), np.array(["a.jpg", "b"])
    References(scores, np.array([0, 2]), files, np.array(table.names), table.values).save(source)
    recognizer.references = References.load(source)
    try:
        assert not (recognizer.save(tmp_path / "without") / "weights-references.npz").exists()
        kept = recognizer.save(tmp_path / "with", include_references=True)
        loaded = Recognizer.load(kept, device="cpu")
        for name, value in vars(recognizer.references).items():
            np.testing.assert_array_equal(getattr(loaded.references, name), value)
        loaded.save(kept)  # a later save without them takes them away
        assert not (kept / "weights-references.npz").exists()
        damaged = recognizer.save(tmp_path / "with", include_references=True) / "weights-references.npz"
        np.savez(damaged, attribute_scores=np.array([{}], object), labels=np.array([0]), files=np.array(["a"]))
        with pytest.raises(RunError, match=r"weights-references\.npz: damaged"):
            Recognizer.load(damaged.parent, device="cpu").save(tmp_path / "bad", include_references=True)
    finally:
        recognizer.references = None


def test_a_folder_of_something_else_is_left_alone(recognizer, tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="not empty and contains no saved model"):
        recognizer.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 2}, "of a newer unseen"),
        ({"format": "1"}, "format: is not a valid integer"),
        ({"method": "../msdn"}, 'no method "../msdn"'),
        ({"method": ["msdn"]}, "method: is not a valid string"),
        ({"settings": {"lambda_call": 1}}, "settings, lambda_call: unknown entry"),
        ({"settings": {"lambda_cal": "1"}}, "settings, lambda_cal: is not a valid number"),
        ({"settings": {"fusion": [1.0, 2.0, 3.0]}}, "settings, fusion: "),
        ({"settings": {"lambda_cal": 1e300}}, "settings, lambda_cal: is not less than or equal to 1000000"),
        ({"settings": []}, "settings: is not "),
        ({"vector_length": 10**12}, "vector_length: is not less than or equal to 1000000"),
        ({"vector_length": 900_000}, "its vectors are not 3 of 900000"),
        ({"gamma": None}, "gamma: is not a valid number"),
        ({"gamma": float("nan")}, "damaged (NaN is not a number)"),
        ({"temperature": 0}, "temperature: is not greater than or equal to"),
        ({"threshold": 1.5}, "threshold: is not less than or equal to 1"),
        ({"store_dtype": "load"}, "store_dtype: is not 'float32', 'float16' or 'bfloat16'"),
        ({"about": "x"}, "about: is not "),
        ({"backbone": "test_resnet"}, "backbone: is not "),
        ({"backbone__name": 5}, "backbone.name: is not a valid string"),
        ({"backbone__name": "hf:../../etc"}, "outside the folder"),
        ({"backbone__name": "hf:/etc/model"}, "outside the folder"),
        ({"backbone__name": "hf-hub:evil/model"}, "this backbone takes no weights, stages or options"),
        ({"backbone__weights": "../../etc/passwd"}, "backbone.weights: is not 'pretrained', 'random' or"),
        ({"backbone__weights": "/etc/passwd"}, "backbone.weights: is not 'pretrained', 'random' or"),
        ({"backbone__options": {"checkpoint_path": "/etc/evil.pth"}}, "checkpoint_path is not allowed"),
        ({"backbone__options": {"pretrained_cfg": {"file": "x"}}}, "pretrained_cfg is not allowed"),
        ({"backbone__options": {"width": 10**9}}, "backbone.options: width is not allowed"),
        ({"backbone__image_size": 10**6}, "backbone.image_size: is not less than or equal to 4096"),
        ({"backbone__stages": "final"}, "backbone.stages: is not a valid"),
        ({"backbone__mean": ["a", 0, 0]}, "backbone.mean.0: is not a valid number"),
        ({"backbone__crop": 7}, "backbone.crop: is not less than or equal to 1"),
        ({"backbone__code": "import os"}, "code: unknown entry"),
        ({"command": "rm"}, "command: unknown entry"),
        ({"gamma": 10**400}, "gamma: is not a"),
        ({"typical": [1.0, True]}, "typical.1: is not a valid number"),
        ({"tables": {"classes.csv": 5}}, "tables.classes.csv: is not a valid string"),
    ],
)
def test_a_hostile_description_is_one_line(folder, values, message):
    change(folder, **values)
    with pytest.raises(UnseenError) as caught:
        Recognizer.load(folder, device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", '"x"', "\x80\x04"])
def test_a_description_that_is_none(folder, text):
    (folder / "recognizer.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"recognizer\.json"):
        Recognizer.load(folder, device="cpu")


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("name", ["weights.safetensors", "backbone.safetensors"])
def test_pickles_are_refused(folder, name):
    (folder / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UnseenError, match=name):
        Recognizer.load(folder, device="cpu")


def test_paths_are_shortened_anywhere():
    value = {"a": ["/x/y/z.csv", "C:\\data\\own\\", "and/or", "plain"], "b": {"c": "~/images", "n": 3}}
    assert without_paths(value) == {"a": ["z.csv", "own", "and/or", "plain"], "b": {"c": "images", "n": 3}}


def test_the_card_says_what_is_known(recognizer, tmp_path):
    fields = CardFields("cc-by-4.0", "CC0", "our garden", "Ada", "ada@example.org", ("garden/birds",))
    text = (recognizer.save(tmp_path / "model", card=fields) / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    assert data["license"] == "cc-by-4.0"
    assert data["library_name"] == "unseen"
    assert data["datasets"] == ["garden/birds"]
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert [m["value"] for m in metrics] == [0.5, 0.625]
    assert metrics[0]["name"].startswith("T1")
    for part in (
        "**2 seen classes** (with training images): a, c.",
        "**2 unseen classes** (without training images): b, d.",
        "| T1 | 50.0 | 10.0 | 25.0 to 75.0 |",
        "| H | 62.5 | 0.0 |  |",
        "test images of garden; mean over seeds 3, 4. This file is\nseed 3's. Protocol: honest.",
        "| validation | seen against unseen, area under the ROC curve | 0.750 |",
        'Below a confidence of 0.4, the answer is "unknown"',
        "License of the training data: CC0. Source: our garden",
        "Chen et al., CVPR 2022",
        "EPYC, 2 thread(s), cpu",
    ):
        assert part in body, part
    assert "/home/ada" not in text


def test_the_card_gives_three_digits_of_the_threshold(tiny_backbone, tmp_path):
    made = make(tiny_backbone, threshold=0.30000000000000004 / 7)
    text = (made.save(tmp_path / "model") / "README.md").read_text()
    assert 'Below a confidence of 0.0429, the answer is "unknown".' in text


def test_thresholds_of_ranks_are_saved(tiny_backbone, tmp_path):
    thresholds = {"family": RankThreshold(0.4, None), "genus": RankThreshold(None, -0.25)}
    made = make(tiny_backbone, threshold=0.4, rank_thresholds=thresholds)
    family = {"listed": {"images": 9, "unsure": 4, "ranks": {"family": {"answers": 1, "right": 1}}}}
    family["missing"] = {"images": 9, "unsure": 7, "ranks": {"family": {"answers": 2, "right": 0}}}
    made.about |= {"ranks": {"family": {"T1": 0.875, "H": None}}, "coarser": {"test": family}}
    saved = made.save(tmp_path / "model")
    card = (saved / "README.md").read_text()
    assert "| family | T1 87.5 |" in card
    assert "Of 4 test images with no class above the threshold, 1 gets a family (1 right)." in card
    assert "left out, of 7 test images with no class above the threshold, 2 get a family (0 right)." in card
    again = Recognizer.load(saved, device="cpu")
    assert again.rank_thresholds == thresholds
    assert Recognizer.load(again.save(tmp_path / "again"), device="cpu").rank_thresholds == thresholds


def test_an_unknown_card_is_honest(tiny_backbone, tmp_path):
    made = make(tiny_backbone)
    made.about, made.temperature = {"data": 5, "metrics": [1], "versions": "x", "seeds": 3}, None
    _, front, body = (made.save(tmp_path / "model") / "README.md").read_text().split("---\n", 2)
    assert "license" not in yaml.safe_load(front)
    assert "There are no measurements" in body
    assert "**not calibrated**" in body
    assert body.count("not stated") == 5


def test_hostile_names_stay_names(tiny_backbone, tmp_path):
    names = ("<script>alert(1)</script>", "[x](http://e.vil)", "two\nlines\n# head", "| cell | `code` |{{ 7*7 }}")
    made = make(tiny_backbone, names=names)
    text = (made.save(tmp_path / "model", card=CardFields(license="own: *terms*\n- x")) / "README.md").read_text()
    front, body = text.split("---\n", 2)[1:]
    assert yaml.safe_load(front)["license_name"] == "own: *terms* - x"
    assert "<script" not in body
    assert "[x](" not in body
    assert "\n# head" not in body
    assert r"\| cell \| \`code\` \|{{ 7*7 }}".replace("*", r"\*") in body
    assert Recognizer.load(tmp_path / "model", device="cpu").table.names == names


def test_escaping_by_hand():
    assert escaped("a_b *c* <i>&amp;") == r"a\_b \*c\* &lt;i&gt;&amp;amp;"


class Hub:
    """The hub's two ends, with a folder behind them."""

    def __init__(self, store, monkeypatch):
        self.store, self.asked = store, {}
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.download)
        monkeypatch.setattr(huggingface_hub, "HfApi", self.api)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")

    def api(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo_id, private, exist_ok):
        assert exist_ok
        self.private = private

    def upload_folder(self, repo_id, folder_path, commit_message, allow_patterns, delete_patterns):
        assert delete_patterns == allow_patterns == list(PATTERNS)
        shutil.copytree(folder_path, self.store / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(self, name, **options):
        self.asked = options
        return str(self.store / name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return Hub(tmp_path / "hub", monkeypatch)


def test_to_the_hub_and_back(hub, recognizer, image):
    where = recognizer.push_to_hub("ada/garden", private=True)
    assert where == "https://hub/ada/garden/commit/1"
    assert (hub.token, hub.private) == ("hf_secret", True)
    loaded = Recognizer.from_pretrained("ada/garden", revision="v1", token="t", local_files_only=True, device="cpu")
    assert answers(loaded, image) == answers(recognizer, image)
    assert (hub.asked["revision"], hub.asked["token"], hub.asked["local_files_only"]) == ("v1", "t", True)
    assert hub.asked["allow_patterns"] == list(PATTERNS)
    assert not any(p.endswith((".bin", ".pt", ".pkl", ".py")) for p in PATTERNS)
    assert answers(Recognizer.load("hf:ada/garden@main", device="cpu"), image) == answers(recognizer, image)
    assert hub.asked["revision"] == "main"


def _response(status):
    return httpx.Response(status, request=httpx.Request("GET", "https://hub/x"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.RepositoryNotFoundError("404\nmore", response=_response(404)), "no such repository, or it is private"),
        (errors.GatedRepoError("403", response=_response(403)), "needs the owner's approval"),
        (errors.RevisionNotFoundError("404", response=_response(404)), "no such revision"),
        (errors.HfHubHTTPError("500 server\nbody", response=_response(500)), "the hub refused: 500 server"),
        (errors.LocalEntryNotFoundError("x"), "not in the local cache, and the hub is not reachable"),
        (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set"),
        (httpx.ConnectError("no route"), "the hub is not reachable: no route"),
        (OSError("disk full"), "the request failed: disk full"),
    ],
)
def test_what_the_hub_says_is_one_line(hub, recognizer, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(hub, "create_repo", fail)
    for call in (
        lambda: Recognizer.from_pretrained("ada/garden"),
        lambda: recognizer.push_to_hub("ada/garden"),
    ):
        with pytest.raises(RunError, match=r"^ada/garden: ") as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_not_ours_not_named_not_logged_in(hub, recognizer, monkeypatch):
    (hub.store / "ada/other").mkdir(parents=True)
    with pytest.raises(RunError, match="not an unseen model"):
        Recognizer.from_pretrained("ada/other")
    for name in ("garden", "a/b/c", "../x", "ada/ga rden", "/etc/x"):
        with pytest.raises(RunError, match="no such folder"):
            Recognizer.from_pretrained(name)
        with pytest.raises(RunError, match="OWNER/NAME"):
            recognizer.push_to_hub(name)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(RunError, match="not logged in to the hub — run `hf auth login`"):
        recognizer.push_to_hub("ada/garden")


def test_the_commands(hub, folder, tmp_path):
    options = ["--license", "cc0-1.0", "--author", "Ada", "--include-backbone"]
    done = CliRunner().invoke(app, ["save", str(folder), str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    assert "weights.safetensors" in done.output
    assert "license: cc0-1.0" in (tmp_path / "out" / "README.md").read_text()
    done = CliRunner().invoke(app, ["push", str(folder), "ada/garden", "--private"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:2] == [
        "https://hub/ada/garden/commit/1",
        "unseen predict hf:ada/garden IMAGES...",
    ]
    assert "states no license" in done.output
    done = CliRunner().invoke(app, ["save", "hf:ada/garden", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "back" / "classes.csv").read_bytes() == (folder / "classes.csv").read_bytes()


def test_a_saved_model_is_used_without_training_code(recognizer, tmp_path):
    folder = recognizer.save(tmp_path / "model")
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    code = f"""
import sys
from unseen.recognizer import Recognizer
model = Recognizer.load({str(folder)!r}, device="cpu")
assert model.predict({str(tmp_path / "image.png")!r})[0].known is not None
model.explain({str(tmp_path / "image.png")!r})
print([m for m in sys.modules if m.startswith(("unseen.training", "unseen.report", "unseen.explain"))])
print([m for m in ("pandas", "lightning_fabric") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_a_class_is_described_in_the_words_of_the_spreadsheet(tiny_backbone):
    columns = (
        Column("crown", "categories", steps=("red",), fill=(0.5,)),
        Column("size", "categories", steps=("small",), fill=(0.5,)),
    )
    tail = Column("tail", "categories", steps=("long",), fill=(0.25,))
    recognizer = make(tiny_backbone, encoding=Encoding((*columns, tail)))
    recognizer.add_class("e", {"Crown": "red", "size::small": 0.5})
    assert recognizer.table.values[-1].tolist() == [1, 0.5, 0.25]
    recognizer.edit_class("e", {"tail": "long"})
    assert recognizer.table.values[-1].tolist() == [1, 0.5, 1]
    with pytest.raises(DataError, match='column "crown": "rde" is not a value of this column — did you mean "red"'):
        recognizer.add_class("f", {"crown": "rde"})
    recognizer.add_class("f", {"crown::red": 0.75})  # numbers by attribute as ever: the others get the mean
    assert recognizer.table.values[-1].tolist() == [0.75, *recognizer.table.unknown[1:]]
