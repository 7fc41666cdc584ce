"""An Mg-MRN training step, from a plain progressive loop in float32 to ours, one change at a time.

    python -m benchmarks.mgmrn_step [--device cuda] [--output benchmarks/results/mgmrn_step.json]

The plain loop follows the formulas literally: every level's scores in each of three passes, part assignments that
cancel out, attention by projecting every token, contiguous tensors, one parameter at a time in the optimizer. All sides
share weights, images and momentum, and take turns in one process: on a CPU in processor time of all threads, on a GPU
in wall time (float32 convolutions use TF32 there, PyTorch's default). Memory is the largest sum of living tensors on a
CPU, and the allocator's peak on a GPU, including weights, gradients and momentum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measured import finish
from benchmarks.mgmrn_memory import Living
from unseen.backbones.backbone import Backbone
from unseen.backbones.spec import BackboneSpec
from unseen.methods import ClassSpace
from unseen.methods.mgmrn import LEVELS, PRESETS, MgMRN, MgMRNSettings
from unseen.methods.mgmrn.refinement import Level
from unseen.model.assembled import EndToEnd

ATTRIBUTES, CLASSES, SEEN, WORDS = 312, 200, 150, 300
EACH, ALL = tuple((level,) for level in LEVELS), (LEVELS,)
SIZES = {"cpu": ("resnet50.tv_in1k", 128, 16, 1024), "cuda": ("resnet101.tv_in1k", 448, 16, 2048)}
"""Backbone, pixels, batch and width by device; a GPU uses the release's."""


@dataclass(frozen=True)
class Side:
    """One way to compute a step.

    Args:
        name: name of the row.
        plain: literal formulas, all levels in every pass.
        passes: levels of each pass.
        layout: memory format of weights and images.
        bf16: forward under bfloat16 autocast.
        optimiser: arguments of SGD.
        checkpointing: whether the backbone's activations are recomputed.
        compiled: backbone with torch.compile.
    """

    name: str
    plain: bool = False
    passes: tuple[tuple[int, ...], ...] = ALL
    layout: torch.memory_format = torch.channels_last
    bf16: bool = True
    optimiser: str = "fused"
    checkpointing: bool = False
    compiled: bool = False


NCHW = torch.contiguous_format
SIDES = (
    Side("plain progressive, float32", True, EACH, NCHW, False, "single"),
    Side("a pass computes what it needs", False, EACH, NCHW, False, "single"),
    Side("joint", False, ALL, NCHW, False, "single"),
    Side("+ channels last", False, ALL, torch.channels_last, False, "single"),
    Side("+ bfloat16", False, ALL, torch.channels_last, True, "single"),
    Side("+ fused optimiser"),
    Side("+ compiled backbone", compiled=True),
    Side("fused, checkpointing instead", checkpointing=True),
)
OPTIMISERS = {"single": {"foreach": False}, "fused": {"fused": True}}


def convolved(level: Level, x: torch.Tensor, side: int) -> torch.Tensor:
    """A level's convolutions, halving maps until they have the last stage's side."""
    for convolution, norm in zip(level.convolutions, level.norms, strict=True):
        x = F.relu(norm(convolution(x)))
        x = x if x.shape[2] <= side else F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)
    return x


def plain_scores(head: MgMRN, stages: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Attribute scores of every level by the literal formulas."""
    parts: Any = head  # its levels are typed as any module
    features = []
    for level, maps in zip(parts.levels, stages, strict=True):
        centres = level.grouping.centres
        distances = maps.square().sum(1, keepdim=True) - 2 * F.conv2d(maps, centres[:, :, None, None])
        distances = distances + centres.square().sum(1)[:, None, None]
        scaled = torch.clamp(-distances, max=0) / level.grouping.smoothing.sigmoid()[:, None, None]
        assignment = scaled.softmax(1)
        weighted = torch.zeros_like(maps)
        for p in range(len(centres)):
            weighted = weighted + assignment[:, p : p + 1] * maps / len(centres)
        features.append(convolved(level, weighted, stages[-1].shape[2]))
    tokens = [[f] for f in features]
    for m, refinement in enumerate(parts.refinements[:2]):
        y = refinement.mix(torch.cat([f.detach() for f in features[m + 1 :]], 1))
        gate = refinement.channel(y.mean((2, 3))).sigmoid()[:, :, None, None]
        tokens[m].append(y * gate * refinement.spatial(y).sigmoid())
    scores = {}
    for number, decoder, mine in zip(LEVELS, parts.decoders, tokens, strict=True):
        t = torch.cat([m.flatten(2) for m in mine], 2).transpose(1, 2)
        queries, keys, values = decoder.query(parts.vectors), decoder.key(t), decoder.value(t)
        attended = (queries @ keys.transpose(1, 2)).softmax(2) @ values
        scores[number] = (decoder.output(attended) * decoder.classifiers).sum(2)
    return scores


class Bench:
    """Weights, images and momentum shared by all sides."""

    def __init__(self, name: str, size: int, batch: int, width: int, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        backbone = Backbone(BackboneSpec(name, (-3, -2, "final"), image_size=size, weights="random"))
        released = PRESETS["cub"].settings
        assert isinstance(released, MgMRNSettings)
        settings = replace(released, width=width, attention_width=width // 2)
        self.head = MgMRN(backbone.channels, torch.randn(ATTRIBUTES, WORDS), settings)
        self.model = EndToEnd(self.head, backbone).to(device).train()
        self.classes = ClassSpace(torch.rand(CLASSES, ATTRIBUTES), torch.arange(CLASSES) < SEEN).to(
            device, torch.float32
        )
        self.pixels = torch.randn(batch, 3, size, size, device=device)
        self.labels = torch.randint(0, SEEN, (batch,), device=device)
        self.compiled = torch.compile(backbone.model.forward_intermediates)  # in its first call
        self.optimisers = {
            # small steps: weights hardly change, so all sides do the same work
            kind: torch.optim.SGD(self.model.parameters(), lr=1e-9, momentum=0.9, weight_decay=1e-5, **options)
            for kind, options in OPTIMISERS.items()
        }
        for optimiser in self.optimisers.values():
            optimiser.state = self.optimisers["fused"].state

    def lay_out(self, side: Side) -> None:
        """Weights and momentum in the side's layout; not part of the time."""
        self.model.zero_grad(set_to_none=True)
        self.model.to(memory_format=side.layout)
        for entries in self.optimisers["fused"].state.values():
            momentum = entries.get("momentum_buffer")
            if momentum is not None and momentum.ndim == 4:
                entries["momentum_buffer"] = momentum.contiguous(memory_format=side.layout)
        self.model.backbone.model.set_grad_checkpointing(side.checkpointing)

    def stages(self, side: Side) -> list[torch.Tensor]:
        """c3, c4, c5."""
        pixels = self.pixels.contiguous(memory_format=side.layout)
        forward = self.compiled if side.compiled else self.model.backbone.model.forward_intermediates
        final, found = forward(pixels, indices=[-3, -2])
        return [*found, final]

    def loss(self, side: Side, levels: tuple[int, ...]) -> torch.Tensor:
        """Scores of the levels of a pass."""
        with torch.autocast(self.device, torch.bfloat16, enabled=side.bf16):
            if side.plain:
                every = plain_scores(self.head, self.stages(side))
            else:
                branches = self.head.forward_pass(self.stages(side), levels)
                every = {level: branches[f"level{level}"].attribute_scores for level in levels}
        settings, total = self.model.settings, torch.zeros((), device=self.device)
        for level in levels:
            unit = F.normalize(every[level].float(), dim=1)
            scores = settings.tau * unit @ self.classes.unit.T
            scores = scores.masked_fill(~self.classes.seen, float("-inf"))
            regression = F.mse_loss(unit, self.classes.unit[self.labels])
            total = total + F.cross_entropy(scores, self.labels) + settings.lambda_reg * regression
        return total

    def step(self, side: Side) -> float:
        """Train on one batch; returns the sum of the passes' losses."""
        total = torch.zeros((), device=self.device)
        for levels in side.passes:
            loss = self.loss(side, levels)
            loss.backward()
            self.optimisers[side.optimiser].step()
            self.model.zero_grad(set_to_none=True)
            total += loss.detach()
        return total.item()  # waits for the GPU

    def memory(self, side: Side) -> float:
        """Peak bytes in a step."""
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.step(side)
            return torch.cuda.max_memory_allocated()
        if side.compiled:
            return float("nan")  # its tensors are not visible
        with Living() as living:
            kept = [entries["momentum_buffer"] for entries in self.optimisers["fused"].state.values()]
            for tensor in (*self.model.parameters(), *self.model.buffers(), *kept, self.pixels):
                living.add(tensor)
            self.step(side)
        return living.peak

    def gradient(self, side: Side) -> torch.Tensor:
        """Gradient of the first level's loss with respect to the first convolution, to compare sides."""
        self.model.zero_grad(set_to_none=True)
        self.loss(side, (1,)).backward()
        first = next(self.model.backbone.parameters()).grad
        assert first is not None
        return first.float().contiguous().flatten()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=SIZES, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone")
    parser.add_argument("--size", type=int, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, help="images per step")
    parser.add_argument("--width", type=int, help="channels of the levels")
    parser.add_argument("--repeats", type=int, help="timed steps (default: 2, or 10 on a GPU)")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="also compile on a CPU, which takes minutes")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    began, device = time.monotonic(), options.device
    if options.threads:
        torch.set_num_threads(options.threads)
    given = (options.backbone, options.size, options.batch, options.width)
    name, size, batch, width = SIZES[device]
    name, size, batch, width = given[0] or name, given[1] or size, given[2] or batch, given[3] or width
    clock = time.perf_counter if device == "cuda" else time.process_time
    bench = Bench(name, size, batch, width, device)
    sides = [side for side in SIDES if not side.compiled or options.compile or device == "cuda"]
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    peaks, losses, first_steps, gradients = {}, {}, {}, {}
    for side in sides:  # warm
        bench.lay_out(side)
        start = time.perf_counter()
        losses[side.name] = bench.step(side)
        first_steps[side.name] = time.perf_counter() - start
    for _ in range(options.repeats or (10 if device == "cuda" else 2)):
        for side in sides:
            bench.lay_out(side)
            start = clock()
            bench.step(side)
            times[side.name].append(clock() - start)
    for side in sides:
        bench.lay_out(side)
        peaks[side.name] = bench.memory(side)
        gradients[side.name] = bench.gradient(side)
    seconds = {key: statistics.median(found) for key, found in times.items()}
    plain = SIDES[0].name
    rows = []
    for side in sides:
        ours = gradients[side.name]
        cosine = F.cosine_similarity(ours, gradients[plain], dim=0).item()
        row = {
            "step": side.name,
            "s": round(seconds[side.name], 4),
            "times faster": round(seconds[plain] / seconds[side.name], 2),
            "memory, GB": None if peaks[side.name] != peaks[side.name] else round(peaks[side.name] / 1e9, 2),
            "loss": round(losses[side.name], 4),
            "gradient's cosine": round(cosine, 5),
        }
        if side.compiled:
            row["first step, s"] = round(first_steps[side.name], 1)
        rows.append(row)
    finish(
        options.output,
        {"Mg-MRN step": rows},
        began=began,
        shape={"device": device, "backbone": name, "pixels": size, "batch": batch, "width": width},
        clock="wall" if device == "cuda" else "processor",
    )


if __name__ == "__main__":
    main()
