"""Symmetric systems in float64: Gram matrices and shifted solutions, by the faster LAPACK of the device.

On a CPU, SciPy's BLAS computes half of a Gram matrix and factorizes in place; torch's computes all of it, and copies.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg.blas import dsyrk, dtrmm
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtri
from torch import Tensor

MANY = 256
"""Rows from which on a triangular product is computed as one."""


def gram(rows: Tensor) -> Tensor:
    """``(C, C)`` lower triangle of rows' rows, of float64 rows ``(n, C)``; what is above the diagonal is undefined."""
    if rows.is_cuda or not rows.numel():
        return rows.T @ rows
    # Fortran sees a row-major matrix transposed, and its upper triangle is the lower one here
    return torch.from_numpy(dsyrk(1.0, rows.contiguous().numpy().T, lower=False).T)


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
    if damped.is_cuda:
        return torch.cholesky_solve(targets, torch.linalg.cholesky(damped))
    return torch.from_numpy(dpotrs(_factor(damped), targets.numpy(), lower=False)[0]).contiguous()


def inverse_factor(lower: Tensor) -> Tensor:
    """``(C, C)`` inverse of the Cholesky factor of a positive definite matrix, lower triangular; see :func:`solved`."""
    if lower.is_cuda:
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        result: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(lower), eye, upper=False)
        return result
    inverse = dtrtri(_factor(lower.clone()), lower=False)[0]
    return torch.from_numpy(inverse.T).tril()


def times_upper(rows: Tensor, upper: Tensor) -> Tensor:
    """Product of rows ``(n, C)`` and an upper triangular matrix ``(C, C)``; of many float64 rows in half the time."""
    if len(rows) < MANY or rows.dtype != torch.float64 or rows.device.type != "cpu" or rows.requires_grad:
        return rows @ upper
    product = dtrmm(1.0, upper.contiguous().numpy().T, rows.contiguous().numpy().T, lower=True)
    return torch.from_numpy(product.T)


def _factor(lower: Tensor) -> np.ndarray:
    """Upper factor of what Fortran sees of a matrix; overwrites the matrix."""
    factor, failed = dpotrf(lower.numpy().T, lower=False, clean=False, overwrite_a=True)
    if failed:
        raise torch.linalg.LinAlgError("the matrix is not positive definite")  # type: ignore[attr-defined]
    return np.asarray(factor)
