"""An MSDN training step against a literal einsum transcription of the formulas, and against this machine's matrix rate.

    python -m benchmarks.msdn_step [--shape cub] [--repeats 7] [--output benchmarks/results/msdn_step.json]

The literal side is written from the formulas term by term: every bilinear map is its own einsum, regions are
normalised in every step, and nothing is shared. Both sides are timed alternately in one process; ratios are of the
medians. The floor is the time that the two unavoidable products of the stacked maps take at the rate that one plain
matrix product of the same shape reaches, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from unseen.methods import ClassSpace
from unseen.methods.msdn import MSDN, MSDNSettings

SHAPES = {  # batch, regions, channels, attributes, classes, unseen, word-vector length
    "cub": (50, 196, 2048, 312, 200, 50, 300),
    "sun": (50, 196, 2048, 102, 717, 72, 300),
    "awa2": (40, 196, 2048, 85, 50, 10, 300),
    "small": (8, 49, 256, 40, 20, 5, 64),
}


def literal_step(p, features, labels, z, seen, settings):
    """One training loss of MSDN, formula by formula; features are raw (B, C, R)."""
    f = F.normalize(features, dim=1)
    a = p["vectors"]
    s = torch.einsum("kd,dc,bcr->bkr", a, p["a2v_score"], f)
    attention = torch.softmax(torch.einsum("kd,dc,bcr->bkr", a, p["a2v_attention"], f), dim=-1)
    psi = torch.einsum("bkr,bkr->bk", attention, s)
    s2 = torch.einsum("bcr,cd,kd->brk", f, p["v2a_score"], a)
    attention2 = torch.softmax(torch.einsum("kd,dc,bcr->brk", a, p["v2a_attention"], f), dim=-1)
    psi2 = torch.einsum("brk,brk->bk", attention2, s2)
    margin = torch.where(seen, -1.0, 1.0)
    total = 0.0
    scores = []
    for psi_m in (psi, psi2):
        plain = torch.einsum("bk,nk->bn", psi_m, z)
        scores.append(plain + margin)
        total = total + F.cross_entropy(plain, labels)
        mass = torch.softmax(scores[-1], dim=1)[:, ~seen].sum(dim=1).mean()
        total = total - settings.lambda_cal * torch.log(mass)
    d = scores[0] - scores[1]
    q, r = torch.softmax(scores[0], dim=1), torch.softmax(scores[1], dim=1)
    m = (q + r) / 2
    jsd = 0.5 * ((q * (q / m).log()).sum(1).mean() + (r * (r / m).log()).sum(1).mean())
    distill = (d.abs().pow(3).sum(1) / d.norm(dim=1)).mean() + jsd
    return total + settings.lambda_dis * distill


def median_times(sides, repeats):
    """Median seconds of each side, run alternately after one warm-up."""
    times = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="cub")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    b, r, c, k, n, unseen, d = SHAPES[arguments.shape]
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(b, c, r, generator=generator)
    labels = torch.randint(0, n - unseen, (b,), generator=generator)
    seen = torch.arange(n) < n - unseen
    classes = ClassSpace(torch.rand(n, k, generator=generator), seen)
    settings = MSDNSettings()
    method = MSDN(c, torch.randn(k, d, generator=generator), settings, generator).train()
    with torch.no_grad():  # away from the zeros of the start, so that no side profits from them
        for parameter in method.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    parameters = dict(method.named_parameters())
    prepared = method.prepare(raw.transpose(1, 2).contiguous())
    prepared16 = prepared.bfloat16()

    def clear():
        for parameter in method.parameters():
            parameter.grad = None

    def literal():
        clear()
        loss = literal_step(parameters, raw, labels, classes.unit, seen, settings)
        loss.backward()
        return loss.item()

    def ours():
        clear()
        loss = method.loss(method(prepared), labels, classes)["total"]
        loss.backward()
        return loss.item()

    def literal16():
        clear()
        with torch.autocast("cpu", torch.bfloat16):
            loss = literal_step(parameters, raw, labels, classes.unit, seen, settings)
        loss.backward()
        return loss.item()

    def ours16():
        clear()
        with torch.autocast("cpu", torch.bfloat16):
            branches = method(prepared16)
        for branch in branches.values():
            branch.attribute_scores = branch.attribute_scores.float()
        loss = method.loss(branches, labels, classes)["total"]
        loss.backward()
        return loss.item()

    losses = {"literal": literal(), "ours": ours(), "ours bf16": ours16()}
    gradients = {}
    for name, side in (("literal", literal), ("ours", ours), ("ours bf16", ours16)):
        side()
        gradients[name] = {key: p.grad.clone() for key, p in parameters.items()}
    worst = {
        name: max(((gradients[name][key] - g).norm() / g.norm()).item() for key, g in gradients["literal"].items())
        for name in ("ours", "ours bf16")
    }

    # the floor: the two products that a step cannot do without, one forward and one for the weights' gradient
    flat, weight = prepared.reshape(b * r, c), torch.randn(4 * k, c, generator=generator)
    out = torch.randn(b * r, 4 * k, generator=generator)
    flat16, weight16, out16 = flat.bfloat16(), weight.bfloat16(), out.bfloat16()

    def floor():
        flat @ weight.T
        out.T @ flat

    def floor16():
        flat16 @ weight16.T
        out16.T @ flat16

    times = median_times(
        {
            "literal float32": literal,
            "ours float32": ours,
            "floor float32": floor,
            "literal bfloat16 autocast": literal16,
            "ours bfloat16": ours16,
            "floor bfloat16": floor16,
        },
        arguments.repeats,
    )
    operations = 2 * 2 * b * r * c * 4 * k
    result = {
        "shape": arguments.shape,
        "B, R, C, K, N, D": [b, r, c, k, n, d],
        "gflop of the two products": round(operations / 1e9, 1),
        "gflop/s float32": round(operations / times["floor float32"] / 1e9, 1),
        "gflop/s bfloat16": round(operations / times["floor bfloat16"] / 1e9, 1),
        "seconds": {name: round(t, 4) for name, t in times.items()},
        "ratios": {
            "literal / ours, float32": round(times["literal float32"] / times["ours float32"], 2),
            "literal float32 / ours bfloat16": round(times["literal float32"] / times["ours bfloat16"], 2),
            "ours / floor, float32": round(times["ours float32"] / times["floor float32"], 2),
            "ours / floor, bfloat16": round(times["ours bfloat16"] / times["floor bfloat16"], 2),
        },
        "agreement": {
            "loss": losses,
            "largest relative gradient difference to the literal side": worst,
        },
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
