"""Methods of somebody else's that break the interface are refused in one line before a training."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unseen
from unseen.errors import UnseenError
from unseen.methods import METHODS, ClassSpace, create_method, registry
from unseen.methods.base import StartedMethod
from unseen.methods.contract import check_class, try_method
from unseen.training.config import RunConfig

N, SEEN, K, C = 12, 9, 6, 10
PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "add-method.md").read_text()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The two methods of the guide; what a test registers is forgotten after it."""
    before, given = dict(METHODS), dict(registry._GIVEN)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("ridge", "attend"):
        (tmp_path / f"{name}.py").write_text(PAGE.split(f'title="{name}.py"\n')[1].split("```")[0])
    yield {name: getattr(import_module(name), name.title()) for name in ("ridge", "attend")}
    for name in ("ridge", "attend"):
        sys.modules.pop(name)
    for known, old in ((METHODS, before), (registry._GIVEN, given)):
        known.clear()
        known.update(old)


@pytest.fixture(scope="module")
def task():
    """Regions ``(B, 4, C)``, labels and classes; features are linear in the attributes."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.random((N, K))).float()
    labels = torch.arange(SEEN).repeat_interleave(3)
    regions = torch.from_numpy(rng.normal(size=(len(labels), 4, C))).float() / 4
    regions += (values[labels] @ torch.from_numpy(rng.normal(size=(K, C))).float())[:, None]
    return regions, labels, ClassSpace(values, torch.arange(N) < SEEN)


def tried(kind, task):
    try_method(kind, lambda seed: create_method(kind, channels=C, vectors=torch.eye(K), seed=seed), *task)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_ours_keeps_to_it(name, task):
    kind = METHODS[name]
    check_class(kind)
    if not (kind.reads_text or kind.end_to_end or issubclass(kind, StartedMethod)):
        tried(kind, task)


def test_those_of_the_guide_keep_to_it(own, task):
    for kind in own.values():
        tried(kind, task)


def branch(of, change):
    return {name: replace(one, attribute_scores=change(one.attribute_scores)) for name, one in of.items()}


def only_in_memory(kind):
    def use(self, candidate):
        kind.use(self, candidate)
        self.kept = self.weight.clone()

    def forward(self, x):
        return {"ridge": unseen.Branch(x[:, 0] @ getattr(self, "kept", 0 * self.weight).T)}

    return {"use": use, "forward": forward}


def grown(kind):
    def __init__(self, *args):
        kind.__init__(self, *args)
        self.register_buffer("support", torch.zeros(0))

    def use(self, candidate):
        kind.use(self, candidate)
        self.support = self.x.clone()

    return {"__init__": __init__, "use": use}


ON_IMAGES = {
    "lost weights": ("ridge", only_in_memory, "answers differently after its weights are saved and loaded"),
    "another shape": ("ridge", grown, "its weights cannot be loaded .size mismatch for support"),
    "centered classes": (
        "ridge",
        lambda kind: {"class_vectors": lambda self, classes: classes.unit - classes.unit.mean(dim=0)},
        "class_vectors of a class depends on the other classes — compute each row from its own class",
    ),
    "candidates of numpy": (
        "ridge",
        lambda kind: {"grid": lambda self: [{"ridge": np.float32(1)}]},
        "its grid is not valid",
    ),
    "raw maps": (
        "attend",
        lambda kind: {"maps": lambda self, regions: self(regions)},
        "contributions of maps do not add up to the attribute scores — maps gets regions before prepare",
    ),
    "no fusion by sums": (
        "attend",
        lambda kind: {"fused_attribute_scores": lambda self, b: b["attend"].attribute_scores.sigmoid()},
        "contributions of maps do not add up",
    ),
    "a branch": ("attend", lambda kind: {"forward": lambda self, x: unseen.Branch(x[:, 0])}, "returns no branches"),
    "fewer scores": (
        "attend",
        lambda kind: {"forward": lambda self, x: branch(kind.forward(self, x), lambda a: a[:, 1:])},
        r"attend has attribute scores \(27, 5\) for \(27, 6\)",
    ),
    "no total": (
        "attend",
        lambda kind: {"loss": lambda self, *given: {"ce": kind.loss(self, *given)["total"]}},
        "loss has no total",
    ),
    "a term per image": (
        "attend",
        lambda kind: {"loss": lambda self, *given: kind.loss(self, *given) | {"more": torch.ones(2)}},
        'its loss "more" is not valid',
    ),
    "nothing to train": (
        "attend",
        lambda kind: {"parameters": lambda self, recurse=True: iter(())},
        "has no parameter to train",
    ),
}


@pytest.mark.parametrize("case", ON_IMAGES)
def test_on_images(case, own, task):
    name, change, message = ON_IMAGES[case]
    made = type("Odd", (own[name],), {"name": "odd", **change(own[name])})
    with pytest.raises(UnseenError, match=rf"test_contract:Odd: .*{message}") as caught:
        tried(made, task)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class NoDefault(unseen.Settings):
    width: int


@dataclass(frozen=True, kw_only=True)
class Unknown(unseen.Settings):
    width: int | None = None


class NoDataclass(unseen.Settings):
    width: int = 3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ridge", {"class_scores": lambda self, b, c: None}, "defines class_scores, which predictions do not call"),
        ("ridge", {"__init__": lambda self, channels, vectors: None}, "cannot be created — define __init__"),
        ("ridge", {"prepare": lambda self, regions: regions}, "has no static prepare"),
        ("ridge", {"maps": unseen.Method.maps}, r"has no maps\(self, regions\)"),
        ("attend", {"loss": lambda self, branches: {}}, r"has no loss\(self, branches, labels, classes\)"),
        ("ridge", {"settings_class": dict}, "its settings_class is not valid"),
        ("ridge", {"settings_class": NoDataclass}, "NoDataclass is not a dataclass — put @dataclass"),
        ("ridge", {"settings_class": NoDefault}, "a setting of NoDefault has no default"),
        ("ridge", {"settings_class": Unknown}, "setting width is None"),
        ("attend", {"presets": {"own": unseen.Preset(unseen.Settings(), None, "ours")}}, 'its preset "own" is not'),
        (
            "attend",
            {"ablations": {"no keys": {"sharpness": 0.0}}},
            r'its ablation "no keys" is not valid — use unseen.Abl',
        ),
        ("attend", {"ablations": [unseen.Ablation("no keys")]}, "its ablations are no dict — from the name of a row"),
    ],
)
def test_of_the_class_alone(name, change, message, own):
    with pytest.raises(UnseenError, match=message):
        unseen.register_method(type("Odd", (own[name],), {"name": "odd", **change}))


@pytest.mark.parametrize("classes", [3, SEEN])
def test_a_classifier_tries_it_too(classes, own, task, monkeypatch):
    monkeypatch.setattr(RunConfig, "draw_count", 1)
    regions, labels, space = task
    odd = type("Odd", (own["ridge"],), {"name": "odd", **only_in_memory(own["ridge"])})
    few = labels < classes
    given = regions[few].mean(dim=1).numpy(), labels[few].numpy()
    with pytest.raises(UnseenError, match="answers differently after its weights are saved"):
        unseen.ZeroShotClassifier(odd, device="cpu").fit(*given, attributes=space.vectors.numpy())
    fine = unseen.ZeroShotClassifier(own["ridge"], device="cpu").fit(*given, attributes=space.vectors.numpy())
    assert fine.score(*given) > 2 / classes


def test_a_candidate_without_a_solution_is_left_out(own, task):
    made = type("Zero", (own["ridge"],), {"grid": lambda self: [{"ridge": 0.0}, {"ridge": 1.0}]})
    method = create_method(made, channels=C, vectors=torch.eye(K))
    regions, labels, classes = task
    method.fit(0 * method.prepare(regions), labels, classes)
    assert [candidate for candidate, _ in method.sweep(method.prepare(regions), classes)] == [{"ridge": 1.0}]


def test_a_method_that_needs_more_images_is_left_to_the_training(own, task):
    def fit(self, regions, labels, classes):
        raise ValueError("24 components of 16 images")

    def start(self, batches, classes):
        torch.linalg.cholesky(-torch.eye(2))

    tried(type("Many", (own["ridge"],), {"fit": fit}), task)
    tried(type("Start", (own["attend"],), {"start": start}), task)


def test_hooks_may_be_static(own):
    check_class(type("Static", (own["ridge"],), {"fused_attribute_scores": staticmethod(lambda branches: None)}))
    with pytest.raises(UnseenError, match="has no fused_attribute_scores"):
        check_class(type("Wrong", (own["ridge"],), {"fused_attribute_scores": staticmethod(lambda: None)}))


def test_layers_of_torch_are_drawn_from_the_seed(own):
    class Layer(own["attend"]):
        name = "layer"

        def __init__(self, channels, vectors, settings, generator=None):
            super().__init__(channels, vectors, settings, generator)
            self.more = nn.Linear(channels, 3)

    def weights(seed):
        made = create_method(Layer, channels=C, vectors=torch.eye(K), seed=seed)
        return torch.cat([p.detach().flatten() for p in made.parameters()])

    torch.manual_seed(1)
    first, state = weights(0), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.isclose(weights(1), first).any()
