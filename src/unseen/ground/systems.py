"""Symmetric systems in float64: Gram matrices, shifted solutions, inverse Cholesky factors.

On a CPU, NumPy computes half of a Gram matrix, and factorizes faster than torch. Unlike SciPy's, none of these routines
keeps Python's other threads waiting.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def gram(rows: Tensor) -> Tensor:
    """``(C, C)`` products of the columns of float64 rows ``(n, C)``."""
    if rows.is_cuda:
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def solved(lower: Tensor, shift: float, targets: Tensor) -> Tensor:
    """Solve (G + shift I) X = targets.

    Args:
        lower: ``(C, C)`` positive semidefinite G, float64; only its lower triangle is read.
        shift: added to the diagonal.
        targets: ``(C, m)``.

    Raises:
        LinAlgError: the shifted matrix is not positive definite.
    """
    damped = lower.clone()
    damped.diagonal().add_(shift)
    return torch.cholesky_solve(targets, _factor(damped)).contiguous()


def inverse_factor(lower: Tensor) -> Tensor:
    """``(C, C)`` inverse of the Cholesky factor of a positive definite matrix, lower triangular; see :func:`solved`."""
    eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    result: Tensor = torch.linalg.solve_triangular(_factor(lower), eye, upper=False)
    return result


def _factor(lower: Tensor) -> Tensor:
    """Cholesky factor, lower triangular."""
    if lower.is_cuda:
        found: Tensor = torch.linalg.cholesky(lower)
        return found
    try:
        return torch.from_numpy(np.linalg.cholesky(lower.numpy()))
    except np.linalg.LinAlgError:
        raise torch.linalg.LinAlgError("the matrix is not positive definite") from None  # type: ignore[attr-defined]
