"""DAP: direct attribute prediction (Lampert, Nickisch and Harmeling, CVPR 2009; TPAMI 2014).

One probabilistic classifier per attribute, p(a_k = 1 | x) = sigmoid(l_k). A class with binary attributes z_c has

    log p(c | x) = sum_k [ log p(a_k = z_ck | x) - log p(a_k = z_ck) ] + const = <l(x), z_c> + b_c + const(x)

with l the log-odds of the attributes and b_c = -sum_k log p(a_k = z_ck). const(x) = sum_k log p(a_k = 0 | x) is
dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unseen.methods.base import Branch, Candidate, Card, ClosedFormMethod
from unseen.methods.class_space import ClassSpace
from unseen.methods.pooled import PooledLinear
from unseen.methods.preparation import PreparedSettings
from unseen.methods.registry import register_method
from unseen.methods.settings import Preset, check_choice

STRENGTHS = tuple(10.0**e for e in range(-1, -7, -1))
TOLERANCE = 1e-11
"""Largest entry of a gradient at a solution."""


class LogisticRegressions:
    """L2-regularized logistic regressions on the same features.

    Minimizes mean_i [ softplus(l_ik) - y_ik l_ik ] + lambda / 2 ||w_k||^2 with l_ik = w_k' x_i + c_k and free intercept
    c_k, for all targets k at once, by Newton's method in float64. Conjugate gradients solve the Newton systems in the
    eigenbasis of the features' covariance, where the diagonals precondition well; they do so in float32, since a step
    needs no more digits. Newton's method starts from the solutions of larger lambdas, continued in log lambda.

    Args:
        x: ``(n, C)`` features.
        y: ``(n, K)`` targets, 0 or 1; each must have both values.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        x = x.double()
        self._mean = x.mean(dim=0)
        centred = x - self._mean
        values, self._basis = torch.linalg.eigh(centred.T @ centred / len(x))
        ones = torch.ones_like(x[:, :1])
        self._x = torch.cat([centred @ self._basis, ones], dim=1)
        self._values = torch.cat([values.clamp(min=0), ones[0]])
        self._y, self._quick = y.double(), self._x.float()
        self._solutions: dict[float, Tensor] = {}

    def __call__(self, strength: float) -> tuple[Tensor, Tensor]:
        """Weights ``(K, C)`` and intercepts ``(K,)`` for one lambda."""
        solution = self._solution(strength)
        weight = solution[:, :-1] @ self._basis.T
        return weight, solution[:, -1] - weight @ self._mean

    def _solution(self, strength: float) -> Tensor:
        if strength not in self._solutions:
            self._solutions[strength] = self._solve(strength)
        return self._solutions[strength]

    def _solve(self, strength: float) -> Tensor:
        """Newton's method with step halving, until no gradient entry of a target exceeds :data:`TOLERANCE`."""
        ridge = torch.full_like(self._values, strength)
        ridge[-1] = 0
        solution = self._start(strength).clone()
        rows = torch.arange(len(solution), device=solution.device)
        for _ in range(100):
            theta, y = solution[rows], self._y[:, rows].T
            logits = theta @ self._x.T
            p = logits.sigmoid()
            gradient = (p - y) @ self._x / len(self._x) + ridge * theta
            going = gradient.abs().amax(dim=1) > TOLERANCE
            if not going.any():
                break
            rows, theta, y, logits, p, gradient = (t[going] for t in (rows, theta, y, logits, p, gradient))
            step = self._newton_step(gradient, p * (1 - p) / len(self._x), ridge)
            length = self._step_length(theta, step, logits, y, gradient, ridge)
            solution[rows] = theta - length * step
        return solution

    def _start(self, strength: float) -> Tensor:
        """The solutions of the two next larger lambdas of :data:`STRENGTHS`, continued in log lambda."""
        above = sorted(larger for larger in STRENGTHS if larger > strength)[:2]
        if not above:
            return self._x.new_zeros(self._y.shape[1], self._x.shape[1])
        near = self._solution(above[0])
        if len(above) < 2:
            return near
        change = (near - self._solution(above[1])) / math.log(above[1] / above[0])
        start: Tensor = near + change * math.log(above[0] / strength)
        return start

    def _step_length(
        self, theta: Tensor, step: Tensor, logits: Tensor, y: Tensor, gradient: Tensor, ridge: Tensor
    ) -> Tensor:
        """``(K, 1)`` step sizes: 1, halved until the objective falls by a share of the slope's prediction."""
        change, slope = step @ self._x.T, (gradient * step).sum(dim=1, keepdim=True)
        length = torch.ones_like(slope)

        def objective(length: Tensor) -> Tensor:
            # unlike softplus, exact for large logits
            losses = F.binary_cross_entropy_with_logits(logits - length * change, y, reduction="none")
            penalty = (ridge * (theta - length * step).square()).sum(dim=1, keepdim=True) / 2
            return losses.mean(dim=1, keepdim=True) + penalty

        before = objective(torch.zeros_like(slope))
        slack = 1e-14 * before.clamp(min=1)  # near the optimum, rounding hides the decrease
        for _ in range(50):
            failed = objective(length) > before - 1e-4 * length * slope + slack
            if not failed.any():
                break
            length = torch.where(failed, length / 2, length)
        return length

    def _newton_step(self, gradient: Tensor, curvature: Tensor, ridge: Tensor) -> Tensor:
        """Preconditioned conjugate gradients for H_k s_k = g_k, H_k = x' diag(curvature_k) x + diag(ridge), all k."""
        size = gradient.norm(dim=1, keepdim=True)
        found: Tensor = torch.empty_like(gradient)
        rows = torch.arange(len(gradient), device=gradient.device)
        goal = size.sqrt().clamp(max=0.1)[:, 0].float()
        curvature, ridge, x = curvature.float(), ridge.float(), self._quick
        diagonal = curvature.sum(dim=1, keepdim=True) * self._values.float() + ridge
        inverse = torch.where(diagonal > 0, 1 / diagonal, 0)
        residual = (gradient / size).float()  # of unit length
        step, direction = torch.zeros_like(residual), inverse * residual
        product = (residual * direction).sum(dim=1)
        for _ in range(200):
            going = residual.norm(dim=1) > goal
            found[rows[~going]] = step[~going].double()
            if not going.any():
                break
            state = (rows, goal, curvature, inverse, residual, step, direction, product)
            rows, goal, curvature, inverse, residual, step, direction, product = (t[going] for t in state)
            image = (curvature * (direction @ x.T)) @ x + ridge * direction
            bend = (direction * image).sum(dim=1)
            rate = torch.where(bend > 0, product / bend, 0)[:, None]
            step = step + rate * direction
            residual = residual - rate * image
            scaled = inverse * residual
            before, product = product, (residual * scaled).sum(dim=1)
            direction = scaled + torch.where(before > 0, product / before, 0)[:, None] * direction
        else:
            found[rows] = step.double()
        return found.mul_(size)


@dataclass(frozen=True, kw_only=True)
class DAPSettings(PreparedSettings):
    """Settings of :class:`DAP`: the preparation of features. The regularization comes from a grid.

    Class vectors are binarized, which no preparation changes: ``rows`` stays ``unit``.
    """

    rows: str = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "rows", ("unit",))


@register_method
class DAP(PooledLinear, ClosedFormMethod):
    """See the module's docstring.

    Buffers: ``weight`` ``(K, C)`` and ``intercept`` ``(K,)`` of the classifiers; ``threshold`` ``(K,)`` above which a
    class has an attribute; ``prior`` ``(K,)`` p(a_k = 1), the share of training classes that have it. An attribute that
    all or none of them have cannot be learned: its classifier returns its prior, so its two terms cancel. It is stored
    as weight and intercept 0 with prior 1/2.
    """

    name = "dap"
    card = Card(
        title="DAP: direct attribute prediction",
        paper="Lampert, Nickisch and Harmeling, CVPR 2009; TPAMI 2014",
        exact="class scores from attribute probabilities and priors, checked against the sum written out; every "
        "classifier is the optimum of its objective, checked against scikit-learn",
        ours="logistic regressions on mean-pooled regions of unit length (2009: support vector machines on other "
        "features); class values made binary at the training classes' mean; seen classes scored as unseen ones",
    )
    settings_class = DAPSettings
    presets: ClassVar = {
        "default": Preset(DAPSettings(features="unit"), None, "ours: lambda from 10^-1 ... 10^-6"),
        "recommended": Preset(
            DAPSettings(), None, "ours: preparation of the features also chosen on validation classes"
        ),
    }
    weight: Tensor
    intercept: Tensor
    threshold: Tensor
    prior: Tensor

    def __init__(
        self, channels: int, vectors: Tensor, settings: DAPSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("weight", vectors.new_zeros(len(vectors), channels))
        for name in ("intercept", "threshold"):
            self.register_buffer(name, vectors.new_zeros(len(vectors)))
        self.register_buffer("prior", vectors.new_full((len(vectors),), 0.5))

    def fit(self, regions: Tensor, labels: Tensor, classes: ClassSpace) -> None:
        """Compute thresholds and priors from the classes with training images, and features for the classifiers."""
        trained = torch.unique(labels)
        self.threshold.copy_(classes.vectors[trained].double().mean(dim=0))
        table = self.class_vectors(classes)
        share = table[trained].double().mean(dim=0)
        self._varies = (share > 0) & (share < 1)
        self.prior.copy_(torch.where(self._varies, share, 0.5))
        self._training = regions[:, 0], labels, table[labels][:, self._varies]
        self._classifiers: tuple[str, LogisticRegressions] | None = None

    def grid(self) -> list[Candidate]:
        """Every preparation with lambda from 10^-1 to 10^-6."""
        return [{"features": f, "lambda": strength} for f in self.settings.kinds[0] for strength in STRENGTHS]

    def use(self, candidate: Candidate) -> None:
        """Use the classifiers of a candidate."""
        x, labels, targets = self._training
        if self._classifiers is None or self._classifiers[0] != candidate["features"]:
            self.features.fit(candidate["features"], x, labels)
            self._classifiers = candidate["features"], LogisticRegressions(self.features(x), targets)
        weight, intercept = self._classifiers[1](candidate["lambda"])
        self.weight.zero_()[self._varies] = weight.to(self.weight.dtype)
        self.intercept.zero_()[self._varies] = intercept.to(self.intercept.dtype)

    def forward(self, regions: Tensor) -> dict[str, Branch]:
        """Pooled features ``(B, 1, C)`` to attribute scores, the log-odds l."""
        return {"linear": Branch(F.linear(self.features(regions[:, 0]), self.weight, self.intercept))}

    def maps(self, regions: Tensor) -> dict[str, Branch]:
        """Contributions of every raw region ``(B, R, C)``, with the intercept split equally; there is no attention."""
        shares = self.intercept[:, None] / regions.shape[1]
        contributions = self.features.contributions(regions, self.weight) + shares
        return {"linear": Branch(contributions.sum(dim=2), None, contributions)}

    def class_vectors(self, classes: ClassSpace) -> Tensor:
        """``(N, K)``: 1 if the class's value is above the threshold, else 0."""
        return (classes.vectors > self.threshold).to(classes.vectors.dtype)

    def class_offsets(self, classes: ClassSpace) -> Tensor:
        """``(N,)`` minus log prior of each class."""
        table = self.class_vectors(classes)
        return -(table @ self.prior.log() + (1 - table) @ (1 - self.prior).log())
