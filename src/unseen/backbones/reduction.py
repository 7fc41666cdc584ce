"""Fewer channels per region, or fewer regions: one linear map between a frozen backbone and a method.

With F ``(R, C)`` the regions of an image, the method gets M F V': M ``(R', R)`` averages neighboring regions into a
coarser grid, V ``(P, C)`` projects into the space of the first P principal axes. These are the axes of the second
moment of *unit* regions, without centering: methods compare regions by inner products, mostly of unit regions, and
among all projections onto P dimensions this one preserves them best. It is fitted without labels.

The rows of V are not the axes but a random orthonormal basis of their space. Inner products are the same in every
basis, but a method that standardizes channels, like the head of the `recommended` recipe, would otherwise weight the
last axis as much as the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from unseen.errors import RunError, UnseenError
from unseen.ground.tensors import load_tensors, save_tensors

FILE = "reduction.safetensors"
_LARGEST = 4096
_HINT = "use pca:256, merge:2, or merge:2,pca:256"


@dataclass(frozen=True)
class ReductionSpec:
    """A requested reduction.

    Args:
        components: P principal axes; 0 keeps all channels.
        merge: number of regions per side that become one; 1 keeps all.
    """

    components: int = 0
    merge: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``pca:P``, ``merge:M`` or both with a comma, in either order; ``""`` for no reduction.

        Raises:
            UnseenError: anything else.
        """
        found: dict[str, int] = {}
        for word in filter(None, text.replace(" ", "").split(",")):
            match = re.fullmatch(r"(pca|merge):([1-9][0-9]{0,4})", word)
            if match is None or match[1] in found or match[0] == "merge:1":
                raise UnseenError(f'"{text}" is not a reduction', where="reduce", hint=_HINT)
            found[match[1]] = int(match[2])
        return cls(found.get("pca", 0), found.get("merge", 1))

    def __str__(self) -> str:
        """The form that :meth:`parse` reads."""
        words = [f"merge:{self.merge}"] if self.merge > 1 else []
        return ",".join([*words, *([f"pca:{self.components}"] if self.components else [])])

    def grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of a reduced grid."""
        height, width = (-(-side // self.merge) for side in grid)
        return height, width


class Reduction(nn.Module):
    """Reduces the regions of a backbone; see the module's docstring.

    Attributes:
        spec: requested reduction.
        full_grid, grid: (height, width) of the grid before and after.
        dtype: dtype that regions are first rounded to, so that regions from a store and from an image give the same
            result.
    """

    components: Tensor | None
    rows: Tensor
    columns: Tensor

    def __init__(
        self, spec: ReductionSpec, full_grid: tuple[int, int], components: Tensor | None = None, dtype: str = "float16"
    ) -> None:
        super().__init__()
        self.spec, self.full_grid, self.dtype = spec, full_grid, dtype
        self.grid = spec.grid(full_grid)
        self.register_buffer("components", components)
        for name, full, left in zip(("rows", "columns"), full_grid, self.grid, strict=True):
            self.register_buffer(name, _shares(full, left))

    def channels(self, full: int) -> int:
        """Number of channels after the reduction."""
        return full if self.components is None else len(self.components)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the result."""
        facts = f"{self.spec} {self.full_grid} {self.dtype} ".encode()
        axes = b"" if self.components is None else self.components.cpu().numpy().tobytes()
        return hashlib.sha256(facts + axes).hexdigest()

    def forward(self, regions: Tensor) -> Tensor:
        """Raw regions ``(B, R, C)`` to float32 ``(B, R', P)``."""
        regions = regions.to(getattr(torch, self.dtype)).float()
        if self.grid != self.full_grid:
            width = (self.full_grid[1], regions.shape[2])
            rows = self.rows @ regions.unflatten(1, self.full_grid).flatten(2)
            regions = (self.columns @ rows.unflatten(2, width)).flatten(1, 2)
        return regions if self.components is None else F.linear(regions, self.components)

    def fit(self, batches: Iterable[Tensor]) -> float:
        """Fit the components to regions ``(b, R, C)``; does nothing if none are requested.

        Decomposes their C x C second moment; batches in float32 are summed in float64.

        Returns:
            The share of the unit regions' squared length that is preserved.

        Raises:
            UnseenError: fewer channels than components.
        """
        if not self.spec.components:
            return 1.0
        moment = torch.zeros(())
        for regions in batches:
            if regions.shape[-1] < self.spec.components:
                problem = f"pca:{self.spec.components} of {regions.shape[-1]} channels"
                raise UnseenError(problem, where="reduce", hint=f"use at most pca:{regions.shape[-1]}")
            rounded = self(regions)
            if not rounded.isfinite().all():
                problem = f"features as large as {regions.abs().max().item():g} overflow {self.dtype}"
                raise UnseenError(problem, where="reduce", hint="pass --store-dtype bfloat16 or float32")
            unit = F.normalize(rounded.flatten(0, 1), dim=1)
            moment = moment.to(unit.device) + (unit.T @ unit).double()
        values, vectors = torch.linalg.eigh(moment.cpu())
        axes = vectors.T.flip(0)[: self.spec.components]
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))  # eigenvectors have no fixed sign
        self.components = (_basis(self.spec.components) @ (axes * largest.sign())).float().contiguous()
        return float(values[-self.spec.components :].sum() / values.sum())

    def save(self, path: Path) -> None:
        """Write the reduction as safetensors, atomically."""
        tensors = {} if self.components is None else {"components": self.components.cpu().contiguous()}
        height, width = self.full_grid
        about = {"reduce": str(self.spec), "grid": f"{height}x{width}", "dtype": self.dtype}
        save_tensors(path, tensors, about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: no such file, or a file of another kind.
        """
        hint = "restore it, or delete it and repeat the command"
        try:
            tensors, about = load_tensors(path)
            spec = ReductionSpec.parse(about["reduce"])
            height, width = map(int, about["grid"].split("x"))
            if not (0 < min(height, width) <= max(height, width) <= _LARGEST) or about["dtype"] not in _DTYPES:
                raise ValueError
            axes = tensors.get("components")
            if list(tensors) != ["components"] * bool(spec.components):
                raise ValueError
            if axes is not None and (axes.ndim != 2 or len(axes) != spec.components or not axes.isfinite().all()):
                raise ValueError
        except FileNotFoundError:
            raise RunError("no such file", where=path, hint=hint) from None
        except (SafetensorError, OSError, KeyError, ValueError, UnseenError) as error:
            raise RunError(f"not a valid reduction file ({error})", where=path, hint=hint) from None
        return cls(spec, (height, width), None if axes is None else axes.float(), about["dtype"])


_DTYPES = ("float16", "bfloat16", "float32")


def _basis(size: int) -> Tensor:
    """Orthonormal float64 ``(size, size)``, drawn uniformly with a fixed seed."""
    drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    result: Tensor = q * r.diagonal().sign()
    return result


def _shares(old: int, new: int) -> Tensor:
    """``(new, old)`` share of each of ``old`` equal parts of a line in each of ``new`` equal parts."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    left, right = edges[:-1, None], edges[1:, None]
    cell = torch.arange(old, dtype=torch.float64)
    overlap = (torch.minimum(right, cell + 1) - torch.maximum(left, cell)).clamp(min=0)
    return (overlap * new / old).float()
