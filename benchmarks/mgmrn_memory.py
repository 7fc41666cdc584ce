"""Memory of an Mg-MRN training step on a GPU: estimated on fake tensors, not measured on a GPU.

    python -m benchmarks.mgmrn_memory [--backbone resnet101.tv_in1k] [--size 448] [--batch 16] [--output FILE]

The step runs on tensors with shapes and types but no memory, and the bytes of all living tensors are summed after every
operator: weights, gradients, momentum, activations for the backward pass, and inputs and outputs of operators. Not
counted are cuDNN's workspaces, the CUDA context and fragmentation (allow 2 to 3 GB). CPU autocast replaces the GPU's;
group normalization runs in float32 as on the GPU.
"""

from __future__ import annotations

import argparse
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.methods import ClassSpace
from unseen.methods.mgmrn import PRESETS, MgMRN, MgMRNSettings
from unseen.methods.settings import Preset
from unseen.model.assembled import EndToEnd

GB = 1024**3


class Living(TorchDispatchMode):
    """Bytes of all living tensors, each storage once, and their peak."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = WeakIdKeyDictionary(), 0, 0

    def add(self, tensor):
        storage = tensor.untyped_storage()
        if storage not in self.known:
            self.known[storage] = True
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size):
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return found


def peak(arguments, precision, checkpointing, **changes):
    """Largest sum of living bytes over three batches."""
    size, batch, k, n = arguments.size, arguments.batch, 312, 200
    preset: Preset = PRESETS["cub"]
    assert isinstance(preset.settings, MgMRNSettings)
    assert preset.recipe is not None
    settings = replace(preset.settings, **changes)
    backbone = Backbone(BackboneSpec(arguments.backbone, (-3, -2, "final"), image_size=size, weights="random"))
    model = EndToEnd(MgMRN(backbone.channels, torch.randn(k, 300), settings), backbone, checkpointing).train()
    with FakeTensorMode() as fake:
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                fakes: dict[str, Any] = {n: None if v is None else fake.from_tensor(v) for n, v in held.items()}
                held.update(fakes)
            if isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(lambda m, x: tuple(v.float() for v in x))
        classes = ClassSpace(torch.rand(n, k), torch.arange(n) < 150)
        with Living() as living:
            for tensor in (*model.parameters(), *model.buffers(), classes.vectors, classes.seen):
                living.add(tensor)
            optimizer = preset.recipe.make_optimizer(model.parameters())
            for _ in range(3):
                pixels, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)
                for levels in model.passes():
                    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                        branches = model.forward_pass(pixels, levels)
                    for branch in branches.values():
                        branch.attribute_scores = branch.attribute_scores.float()
                    model.loss(branches, labels, classes)["total"].backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
        weights = sum(p.numel() for p in model.parameters())
    return living.peak / GB, weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet101.tv_in1k")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    rows, weights = [], 0
    for precision in ("32-true", "bf16-mixed"):
        for checkpointing in (False, True):
            for changes in ({}, {"schedule": "joint"}, {"grouping": "parts"}):
                gigabytes, weights = peak(arguments, precision, checkpointing, **changes)
                row = {"precision": precision, "checkpointing": checkpointing, **changes, "GB": round(gigabytes, 2)}
                print(row, flush=True)
                rows.append(row)
    result = {
        "estimated, not measured on a GPU": rows,
        "backbone, size, batch": [arguments.backbone, arguments.size, arguments.batch],
        "million weights": round(weights / 1e6, 1),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
