"""A package of somebody else's: methods and backbones outside the tree, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

METHODS = '''
"""Methods of somebody else's."""
from dataclasses import dataclass
import torch
from torch import nn
import torch.nn.functional as F
import unseen
from unseen.methods.base import Ablation, Branch
from unseen.methods.pooled import PooledLinear


@dataclass(frozen=True, kw_only=True)
class RidgeSettings(unseen.Settings):
    strength: float = 1.0
    bias: bool = False


@unseen.register_method
class Ridge(PooledLinear, unseen.ClosedFormMethod):
    """Ridge regression from pooled features to class vectors."""

    name = "ridge"
    settings_class = RidgeSettings
    ablations = {"weak": Ablation("hardly any ridge", {"strength": "1e-6"})}

    def __init__(self, channels, vectors, settings, generator=None):
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", vectors.new_zeros(len(vectors), channels))

    def fit(self, regions, labels, classes):
        self._x, self._z = regions[:, 0], classes.unit[labels]

    def grid(self):
        return [{"ridge": self.settings.strength * 10.0**k} for k in (-2, 0, 2)]

    def use(self, candidate):
        x = self._x
        inverse = torch.linalg.inv(x.T @ x + candidate["ridge"] * torch.eye(x.shape[1], dtype=x.dtype))
        self.weight.copy_((inverse @ x.T @ self._z).T)


class Mean(PooledLinear, unseen.GradientMethod):
    """One linear map, trained."""

    def __init__(self, channels, vectors, settings, generator=None):
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.zeros(len(vectors), channels, dtype=vectors.dtype, device=vectors.device))

    def loss(self, branches, labels, classes):
        scores = 10 * self.class_scores(branches, classes)
        return {"total": F.cross_entropy(scores.masked_fill(~classes.seen, float("-inf")), labels)}
'''
NETWORKS = '''
"""Networks of somebody else's, for use with unseen."""
import timm
import torch
from torch import nn


class Stripes(nn.Module):
    """Two maps, shallow and deep."""

    image_size, mean, std = 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, width=6):
        super().__init__()
        self.first = nn.Conv2d(3, width, 8, stride=8)
        self.second = nn.Conv2d(width, 2 * width, 2, stride=2)

    def forward(self, x):
        shallow = self.first(x).relu()
        return [shallow, self.second(shallow).relu()]


class Last(Stripes):
    """The deep map, channels last."""

    channels = 12

    def forward(self, x):
        return super().forward(x)[-1].permute(0, 2, 3, 1)


class Pooled(Stripes):
    def forward(self, x):
        return super().forward(x)[-1].mean(dim=(2, 3))


class Tokens(Stripes):
    def forward(self, x):
        return super().forward(x)[-1].flatten(2).transpose(1, 2)


class Bare(nn.Module):
    """Says nothing of itself."""

    def forward(self, x):
        return x[:, :, ::16, ::16]


def small(pretrained=False, **options):
    """A network of timm's, made by somebody else."""
    made = timm.create_model("test_resnet", num_classes=0, **options)
    made.was_pretrained = pretrained
    return made


def no_network():
    return 3
'''
TIMM_NETWORKS = '''
"""A model registered with timm, for use with unseen."""
import timm
from birdkit.networks import small


@timm.models.register_model
def birdkit_net(pretrained=False, **options):
    options.pop("pretrained_cfg", None), options.pop("pretrained_cfg_overlay", None), options.pop("cache_dir", None)
    return small(pretrained, **{k: v for k, v in options.items() if k != "num_classes"})
'''
METRICS = '''
"""A metric of somebody else's."""
from unseen.metrics import Metric

RECALL = Metric(
    "recall-at-2",
    "the true class among the two best of all classes, averaged over classes",
    lambda decided: (decided.ranked(2) == decided.labels[:, None]).any(axis=1).astype(float),
    title="right at the first or second guess",
    chance=lambda seen, unseen: 2 / (seen + unseen),
)
'''
DIST_INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: birdkit\nVersion: 1.0\n",
    "entry_points.txt": "[unseen.methods]\nridge = birdkit.methods:Ridge\n\n"
    "[unseen.metrics]\nrecall = birdkit.metrics:RECALL\n",
    "RECORD": "",
}


def write_package(folder: Path, *, entry_point: bool = False, name: str = "birdkit") -> Path:
    """A package with methods, as source on a search path or as installed with its entry point; the folder to add."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "methods.py").write_text(METHODS)
    (package / "metrics.py").write_text(METRICS)
    (package / "networks.py").write_text(NETWORKS)
    (package / "registered.py").write_text(TIMM_NETWORKS)
    if entry_point:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        for file, text in DIST_INFO.items():
            (info / file).write_text(text.replace("birdkit", name))
    return folder
