"""Training steps and inference of MSDN and MSDN++ against their literal formulas, and against matrix products alone.

    python -m benchmarks.steps [--shapes cub,sun,awa2] [--grids 7,14] [--methods msdn,msdnpp] [--output FILE]

Sizes are those of the datasets (2048 channels, word vectors of 300 numbers, the released batch), numbers are random. A
step is forward, loss and backward; inference goes from features to class scores. Three sides take turns:

- literal: every formula as one einsum on raw features, normalised in every step; bfloat16 is autocast;
- ours: features normalised in the store, which bfloat16 training keeps in bfloat16;
- floor: the products of large matrices that ours cannot do without, of the same sizes and nothing else.

Loss, scores and gradients of ours are compared with those of the literal side in the same precision, outside of the
timed part. Takes about three minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measured import alternately, finish
from unseen.methods import METHODS, ClassSpace
from unseen.methods.msdn import folds
from unseen.methods.share import uniform

CHANNELS, DIM = 2048, 300
SHAPES = {  # batch, attributes, classes, unseen classes
    "cub": (50, 312, 200, 50),
    "sun": (50, 102, 717, 72),
    "awa2": (40, 85, 50, 10),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {"float32": 1.15, "bfloat16": 1.5}


def literal_scores(p, features, z, settings):
    """Class scores of both sub-nets, without the margin, and their score maps; features ``(B, C, R)``."""
    f = F.normalize(features, dim=1)
    a = F.normalize(p["vectors"], dim=1) if settings.renormalize_vectors else p["vectors"]
    s = torch.einsum("kd,dc,bcr->bkr", a, p["a2v_score"], f)
    attention = torch.softmax(torch.einsum("kd,dc,bcr->bkr", a, p["a2v_attention"], f), dim=-1)
    psi = torch.einsum("bkr,bkr->bk", attention, s)
    s2 = torch.einsum("bcr,cd,kd->brk", f, p["v2a_score"], a)
    attention2 = torch.softmax(torch.einsum("kd,dc,bcr->brk", a, p["v2a_attention"], f), dim=-1)
    psi2 = torch.einsum("brk,brk->bk", attention2, s2)
    plain = [torch.einsum("bk,nk->bn", x, z) for x in (psi, psi2)]
    return plain, (s, s2)


def literal_inference(p, features, z, seen, settings):
    """Fused class scores."""
    plain, _ = literal_scores(p, features, z, settings)
    margin = torch.where(seen, -1.0, 1.0)
    return sum(weight * (scores + margin) for weight, scores in zip(settings.fusion, plain, strict=True))


def literal_loss(p, features, labels, z, seen, settings):
    """One training loss; that of MSDN++ if the settings have a causal term, with a random attention drawn here."""
    plain, maps = literal_scores(p, features, z, settings)
    margin = torch.where(seen, -1.0, 1.0)
    scores = [x + margin for x in plain]
    total = torch.zeros(())
    for m in range(2):
        total = total + F.cross_entropy(plain[m], labels)
        mass = torch.softmax(scores[m], dim=1)[:, ~seen].sum(dim=1).mean()
        total = total - settings.lambda_cal * torch.log(mass)
    d = scores[0] - scores[1]
    q, r = torch.softmax(scores[0], dim=1), torch.softmax(scores[1], dim=1)
    half = (q + r) / 2
    jsd = 0.5 * ((q * (q / half).log()).sum(1).mean() + (r * (r / half).log()).sum(1).mean())
    total = total + settings.lambda_dis * ((d.abs().pow(3).sum(1) / d.norm(dim=1)).mean() + jsd)
    if getattr(settings, "lambda_causal", 0):
        s, s2 = maps
        b, k, r = s.shape
        other = uniform(b, r, k, like=s).transpose(1, 2) * 2 / r  # the same numbers as ours
        other2 = uniform(b, r, k, like=s) * 2 / k
        effect = plain[0] - torch.einsum("bk,nk->bn", torch.einsum("bkr,bkr->bk", other, s), z)
        effect2 = plain[1] - torch.einsum("bk,nk->bn", torch.einsum("brk,brk->bk", other2, s2), z)
        causal = F.cross_entropy(effect, labels) + F.cross_entropy(effect2, labels)
        total = total + settings.lambda_causal * causal
    return total


def operations(regions, k, count, trains, folded):
    """Floating-point operations of the large products of ``count`` maps, and a function that does nothing else.

    Args:
        regions: B R.
        k: number of attributes.
        count: number of maps.
        trains: include the backward products; regions need no gradient.
        folded: whether vectors are first multiplied into the weights; otherwise uses hidden maps.

    Returns:
        The number, and a function that creates a runner of the products in a dtype.
    """
    c, d = CHANNELS, DIM
    if folded:
        number = 2 * count * ((2 if trains else 1) * regions * c * k + (3 if trains else 1) * k * d * c)
    else:
        number = 2 * count * ((2 if trains else 1) * regions * c * d + (3 if trains else 1) * regions * d * k)

    def products(flat):
        def make(*shape):
            return torch.randn(shape).to(flat.dtype)

        vectors, weights, rows = make(k, d), [make(d, c) for _ in range(count)], make(count * (k if folded else d), c)
        of_rows, of_maps = make(regions, len(rows)), make(regions * count, k)

        def run():
            if folded:
                for w in weights:
                    vectors @ w
            hidden = flat @ rows.T
            if not folded:
                hidden = hidden.view(-1, d)
                hidden @ vectors.T
            if not trains:
                return
            if not folded:
                of_maps.T @ hidden
                of_maps @ vectors
            gradient = of_rows.T @ flat
            if folded:
                for part, w in zip(gradient.split(k), weights, strict=True):
                    vectors.T @ part
                    part @ w.T

        return run

    return number, products


class Case:
    """One method at one shape: the timed sides, and whether they agree."""

    def __init__(self, method, shape, grid):
        self.b, self.k, n, unseen = SHAPES[shape]
        self.r = grid * grid
        generator = torch.Generator().manual_seed(0)
        self.raw = torch.rand(self.b, CHANNELS, self.r, generator=generator)
        self.labels = torch.randint(0, n - unseen, (self.b,), generator=generator)
        self.seen = torch.arange(n) < n - unseen
        self.classes = ClassSpace(torch.rand(n, self.k, generator=generator), self.seen)
        cls = METHODS[method]
        self.settings = cls.presets[shape].settings
        self.method: Any = cls(CHANNELS, torch.randn(self.k, DIM, generator=generator), self.settings, generator)
        with torch.no_grad():  # away from the initial zeros, so that no side profits from them
            for parameter in self.method.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        self.parameters = dict(self.method.named_parameters())
        self.z = self.method.class_vectors(self.classes)
        self.prepared = self.method.prepare(self.raw.transpose(1, 2).contiguous())

    def literal_step(self, dtype):
        self.clear()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = literal_loss(self.parameters, self.raw, self.labels, self.z, self.seen, self.settings)
        loss.backward()
        return loss.item()

    def our_step(self, dtype):
        self.clear()
        self.method.train()
        loss = self.method.loss(self.branches(dtype), self.labels, self.classes)["total"]
        loss.backward()
        return loss.item()

    @torch.inference_mode()
    def literal_inference(self, dtype):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return literal_inference(self.parameters, self.raw, self.z, self.seen, self.settings)

    @torch.inference_mode()
    def our_inference(self, dtype):
        self.method.eval()
        return self.method.class_scores(self.branches(dtype), self.classes)

    def branches(self, dtype):
        """As in the engine: the forward under autocast, the rest in the weights' precision."""
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            branches = self.method(self.prepared)
        for name, branch in branches.items():
            other = branch.counterfactual
            branches[name] = replace(
                branch,
                attribute_scores=branch.attribute_scores.float(),
                counterfactual=None if other is None else other.float(),
            )
        return branches

    def clear(self):
        for parameter in self.parameters.values():
            parameter.grad = None

    def sides(self, trains, dtype):
        """The timed sides, literal, ours and floor, with the floor's operations and the order of its products."""
        count = 4 if trains else 2 * len(self.method.eval()._fused())
        folded = folds(self.b * self.r, CHANNELS, self.k, DIM, trains)
        number, products = operations(self.b * self.r, self.k, count, trains, folded)
        literal, ours = (self.literal_step, self.our_step) if trains else (self.literal_inference, self.our_inference)
        runs = {
            "literal": lambda: literal(dtype),
            "ours": lambda: ours(dtype),
            "floor": products(self.prepared.reshape(-1, CHANNELS)),
        }
        other = operations(self.b * self.r, self.k, count, trains, not folded)[0]
        return runs, {
            "gflop": round(number / 1e9, 2),
            "order": "folded" if folded else "hidden",
            "gflop of the other order": round(other / 1e9, 2),
        }

    def operators(self, trains, dtype):
        """Number of operators that ours runs, apart from views: each costs a launch, however small its tensors."""
        self.our_step(dtype) if trains else self.our_inference(dtype)
        with _Operators() as counted:
            self.our_step(dtype) if trains else self.our_inference(dtype)
        return counted.count

    def agreement(self, trains, dtype):
        """Largest relative difference of loss and of a gradient, or of scores, between ours and the literal side."""
        if not trains:
            expected, found = self.literal_inference(dtype).float(), self.our_inference(dtype)
            return {"scores differ by": _relative(found, expected)}
        torch.manual_seed(0)
        loss = self.literal_step(dtype)
        gradients = {
            name: parameter.grad.clone() for name, parameter in self.parameters.items() if parameter.grad is not None
        }
        torch.manual_seed(0)
        difference = abs(self.our_step(dtype) - loss) / abs(loss)
        worst = max(_relative(parameter.grad, gradients[name]) for name, parameter in self.parameters.items())
        return {"loss differs by": difference, "gradients differ by": worst}


class _Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def measure(method, shape, grid, precisions, repeats, clock):
    """Rows of the two tables and agreement, of one method and shape."""
    case, times, agreements, orders = Case(method, shape, grid), [], [], []
    for trains in (True, False):
        literal32 = None
        for precision in precisions:
            dtype = PRECISIONS[precision]
            kept = case.prepared
            case.prepared = kept.to(dtype)
            mode = {"method": method, "shape": f"{shape} {grid}x{grid}", "mode": "step" if trains else "inference"}
            agreements.append({**mode, "precision": precision, **case.agreement(trains, dtype)})
            runs, facts = case.sides(trains, dtype)
            seconds = alternately(runs, repeats, clock)
            if precision == "float32":
                literal32 = seconds["literal"]
                orders.append({**mode, **facts, "operators": case.operators(trains, dtype)})
            times.append(
                {
                    **mode,
                    "precision": precision,
                    "ours, ms": round(1e3 * seconds["ours"], 1),
                    "Gflop/s of the floor": round(facts["gflop"] / seconds["floor"], 1),
                    "literal / ours": seconds["literal"] / seconds["ours"],
                    "literal float32 / ours": None if literal32 is None else literal32 / seconds["ours"],
                    "ours / floor": seconds["ours"] / seconds["floor"],
                    "target": TARGETS[precision],
                }
            )
            case.prepared = kept
            print(*(f"{v:.3g}" if isinstance(v, float) else v for v in times[-1].values()), flush=True)
    return times, agreements, orders


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed: dict[str, Any] = {"type": lambda text: text.split(",")}
    parser.add_argument("--methods", **listed, default=["msdn", "msdnpp"], help="methods, comma-separated: msdn,msdnpp")
    parser.add_argument("--shapes", **listed, default=list(SHAPES), help="shapes, comma-separated: cub,sun,awa2")
    parser.add_argument("--grids", **listed, default=["7", "14"], help="regions per side, comma-separated: 7,14")
    parser.add_argument(
        "--precisions", **listed, default=list(PRECISIONS), help="precisions, comma-separated: float32,bfloat16"
    )
    parser.add_argument("--repeats", type=int, default=7, help="repeats at 7x7; half as many at 14x14")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument(
        "--processor-time", action="store_true", help="measure processor time, for a busy machine; use with --threads 1"
    )
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    began = time.monotonic()
    torch.set_num_threads(arguments.threads)
    times: list[dict] = []
    agreements: list[dict] = []
    orders: list[dict] = []
    for shape in arguments.shapes:
        for grid in map(int, arguments.grids):
            for method in arguments.methods:
                repeats = arguments.repeats if grid < 14 else (arguments.repeats + 1) // 2
                found = measure(method, shape, grid, arguments.precisions, repeats, clock)
                for table, rows in zip((times, agreements, orders), found, strict=True):
                    table.extend(rows)
    tables = {
        "Training steps": [_without(row, "mode") for row in times if row["mode"] == "step"],
        "Inference": [_without(row, "mode") for row in times if row["mode"] == "inference"],
        "Operations": orders,
        "Agreement": agreements,
    }
    finish(arguments.output, tables, began=began, repeats=arguments.repeats)


def _without(row, key):
    return {name: value for name, value in row.items() if name != key}


if __name__ == "__main__":
    main()
