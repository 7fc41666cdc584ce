"""A small model behind the application, without a network and over one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from serve_tools import client_of, drawn, encoded

pytest.importorskip("fastapi", reason="needs unseen[app]")
pytest.importorskip("python_multipart", reason="needs unseen[app]")

NAMES = ("bill::hooked", "bill::flat", "crown::red", "crown::blue", "size::small")


@pytest.fixture(scope="module")
def recognizer(tiny_backbone):
    from unseen.backbones.backbone import Backbone
    from unseen.classes.attributes import Attributes
    from unseen.classes.table import ClassTable
    from unseen.methods import create_method
    from unseen.model.support import SupportRule, SupportSpace, fitted
    from unseen.recognizer import Recognizer

    backbone = Backbone(tiny_backbone)
    values = np.random.default_rng(0).random((6, 5)).round(3) + 0.1
    classes = ("Ada's finch", "b/c", "<b>d</b>", "emu", "Fähre", "gull")
    table = ClassTable(classes, Attributes(NAMES), values, np.array([1, 1, 1, 0, 0, 0], bool))
    method = create_method(
        "msdn",
        channels=backbone.channels[0],
        vectors=torch.randn(5, 8, generator=torch.Generator().manual_seed(0)),
        seed=1,
    )
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    rule = SupportRule(prior=1.0, scale=4.0, offset=0.0, few=0.0, bare_prior=1.0, bare_score=0.0)
    training = torch.rand(200, backbone.channels[0], generator=torch.Generator().manual_seed(4))
    space = SupportSpace(fitted(training, torch.arange(200) % 3), rule)
    made = Recognizer(backbone, method, table, gamma=0.3, temperature=0.7, device="cpu", space=space)
    made.references = references_of(table)
    return made


def references_of(table):
    """30 training images of the seen classes whose scores follow the values, those of the last attribute not."""
    from unseen.model.references import References

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 30)
    scores = 3 * table.values[labels] + 0.1 * rng.standard_normal((30, len(NAMES)))
    scores[:, -1] = -table.values[labels, -1]
    files = np.array([f"a class/{i}.png" for i in range(30)])
    return References(scores.astype(np.float16), labels, files, np.array(table.names), table.values)


@pytest.fixture(autouse=True)
def same_classes(recognizer):
    from unseen.model.support import Support

    before, recognizer.references = recognizer.table, references_of(recognizer.table)
    yield
    recognizer.table, recognizer.encoding, recognizer.support = before, None, Support()
    recognizer.about.pop("data", None)


@pytest.fixture(scope="session")
def image():
    return drawn()


@pytest.fixture(scope="session")
def png(image):
    return encoded(image)


@pytest.fixture
def client(recognizer):
    with client_of(recognizer) as found:
        yield found
