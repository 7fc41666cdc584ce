"""Symmetric systems in float64: Gram matrices and shifted solutions, by the faster LAPACK of the device.

On a CPU, NumPy's BLAS computes half of a Gram matrix, and SciPy's LAPACK factorizes in place; torch's computes all of
it, and copies. SciPy's routines are called by their addresses: its own wrappers keep Python's other threads waiting.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import ModuleType

import torch
from scipy.linalg import cython_blas, cython_lapack
from torch import Tensor

MANY = 256
"""Rows from which on a triangular product is computed as one."""


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
    damped = lower.clone(memory_format=torch.contiguous_format)
    damped.diagonal().add_(shift)
    if damped.is_cuda:
        return torch.cholesky_solve(targets, torch.linalg.cholesky(damped))
    found = targets.T.clone(memory_format=torch.contiguous_format)
    size, count = targets.shape
    _potrs("U", size, count, _factor(damped), size, found, size, ctypes.c_int())
    return found.T.contiguous()


def inverse_factor(lower: Tensor) -> Tensor:
    """``(C, C)`` inverse of the Cholesky factor of a positive definite matrix, lower triangular; see :func:`solved`."""
    if lower.is_cuda:
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        result: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(lower), eye, upper=False)
        return result
    inverse = _factor(lower.clone(memory_format=torch.contiguous_format))
    _trtri("U", "N", len(lower), inverse, len(lower), ctypes.c_int())
    return inverse.tril_()


def times_upper(rows: Tensor, upper: Tensor) -> Tensor:
    """Product of rows ``(n, C)`` and an upper triangular matrix ``(C, C)``; of many float64 rows in half the time."""
    if len(rows) < MANY or rows.dtype != torch.float64 or rows.device.type != "cpu" or rows.requires_grad:
        return rows @ upper
    product, (count, size) = rows.clone(memory_format=torch.contiguous_format), rows.shape
    _trmm("L", "L", "N", "N", size, count, 1.0, upper.contiguous(), size, product, size)
    return product


def _factor(lower: Tensor) -> Tensor:
    """Cholesky factor of a contiguous matrix, in its lower triangle; overwrites the matrix."""
    failed = ctypes.c_int()
    _potrf("U", len(lower), lower, len(lower), failed)
    if failed.value:
        raise torch.linalg.LinAlgError("the matrix is not positive definite")  # type: ignore[attr-defined]
    return lower


def _routine(module: ModuleType, name: str) -> Callable[..., None]:
    """A Fortran routine of SciPy, which sees a row-major matrix transposed, and its lower triangle as the upper one."""
    api, capsule = ctypes.pythonapi, module.__pyx_capi__[name]
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    address_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    routine = ctypes.CFUNCTYPE(None)(address_of(capsule, name_of(capsule)))

    def given(value: str | int | float | Tensor | ctypes.c_int) -> object:
        if isinstance(value, Tensor):
            return ctypes.c_void_p(value.data_ptr())
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, float):
            return ctypes.byref(ctypes.c_double(value))
        return ctypes.byref(ctypes.c_int(value) if isinstance(value, int) else value)

    return lambda *values: routine(*map(given, values))


_potrf, _potrs, _trtri = (_routine(cython_lapack, name) for name in ("dpotrf", "dpotrs", "dtrtri"))
_trmm = _routine(cython_blas, "dtrmm")
