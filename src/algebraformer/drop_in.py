"""A drop-in replacement for `scipy.linalg.solve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from algebraformer.arrays import NUMPY, kind_of
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.validation import refuse_sparse

Array = NDArray[Any]

GENERAL = ("gen", "general")
SYMMETRIC = ("sym", "symmetric", "her", "hermitian")
POSITIVE = ("pos", "positive definite")
"""Values of `assume_a` that a learned solver covers."""


def solve(
    a: ArrayLike,
    b: ArrayLike,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
    *,
    model: str | Path | LearnedSolver = "diffusion-64",
    rtol: float | None = None,
) -> Array:
    """Solve a x = b like `scipy.linalg.solve`, with a learned solver where it applies.

    Systems of the model's size go through `LearnedSolver.solve`, those with complex matrices if the model's family is
    complex, those with real ones if not: the network's answer where it can be certified, LAPACK's where not. That holds
    for `assume_a` None, "general", "symmetric" and "hermitian", and for "positive definite" where the model's family
    is. Everything else goes to `scipy.linalg.solve` unchanged.

    Parameters
    ----------
    a : array_like, shape (..., n, n)
    b : array_like, shape (n,) or (..., n, k)
    lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed
        As in `scipy.linalg.solve`. The learned path never overwrites its input and always checks that it is finite.
    model : str, Path or LearnedSolver
        Name of a shipped model, folder of a checkpoint, or a solver. Loaded once per process.
    rtol : float, optional
        As in `LearnedSolver.solve`.

    Returns
    -------
    array
        x, in the shape and dtype that `scipy.linalg.solve` returns, of the kind of a and b.

    Raises
    ------
    ValueError
        Shapes do not match, or NaN or infinity in the input.
    LinAlgError
        A system is singular; or it should be positive definite, LAPACK had to solve it, and it is not. In a batch the
        message names which.

    Examples
    --------
    >>> import algebraformer as af
    >>> import numpy as np
    >>> af.solve(np.array([[2.0, 0.0], [0.0, 4.0]]), np.ones(2))
    array([0.5 , 0.25])
    """
    arrays = kind_of(a=a, b=b)
    if arrays != NUMPY:
        options = (lower, False, False, check_finite, assume_a, transposed)
        x = solve(arrays.numpy(a), arrays.numpy(b), *options, model=model, rtol=rtol)
        return arrays.array(x)
    for array in (a, b):
        refuse_sparse(array)
    A, B = np.asarray(a), np.asarray(b)
    masked = np.ma.isMaskedArray(a) or np.ma.isMaskedArray(b)  # SciPy refuses these
    solver = as_solver(model)
    solver.check_can_solve()
    numbers = A.dtype.kind in "biufc" and B.dtype.kind in "biufc" and not masked
    is_complex = "c" in (A.dtype.kind, B.dtype.kind)
    kind = "c" if A.dtype.kind == "c" else "f"
    numbers = numbers and kind == solver.kind and not (is_complex and transposed)  # which SciPy refuses
    square = A.ndim >= 2 and A.shape[-2:] == (solver.n, solver.n) and A.size > 0
    rows = B.ndim >= 1 and B.size > 0 and B.shape[-min(B.ndim, 2)] == solver.n
    covered = assume_a in (None, *GENERAL, *SYMMETRIC) or (assume_a in POSITIVE and solver.info.structure == "pos")
    if not (numbers and square and rows and covered):
        return scipy.linalg.solve(a, b, lower, overwrite_a, overwrite_b, check_finite, assume_a, transposed)
    if assume_a in (*SYMMETRIC, *POSITIVE) and np.isfinite(A).all():  # else `solver.solve` raises for the caller's A
        A, transposed = from_triangle(A, lower, assume_a not in SYMMETRIC[:2]), False
    structure = None if assume_a is None else "pos" if assume_a in POSITIVE else "gen"
    x = _solve_stacked(solver, A, B[:, None] if B.ndim == 1 else B, rtol, structure, transposed)
    dtype = np.result_type(A, B)
    single = dtype in (np.float16, np.float32, np.complex64)
    dtype = np.dtype(("c8" if single else "c16") if is_complex else ("f4" if single else "f8"))
    return (x[..., 0] if B.ndim == 1 else x).astype(dtype, copy=False)


def from_triangle(A: Array, lower: bool, hermitian: bool) -> Array:
    """Return the symmetric, or Hermitian, matrices whose upper, or lower, triangles are those of A (..., n, n).

    Examples
    --------
    >>> import numpy as np
    >>> from_triangle(np.array([[1 + 1j, 2j], [0, 3]]), lower=False, hermitian=True)
    array([[1.+0.j, 0.+2.j],
           [0.-2.j, 3.+0.j]])
    """
    taken, i = np.tri(A.shape[-1], dtype=bool), np.arange(A.shape[-1])
    other = A.swapaxes(-2, -1)
    whole = np.where(taken if lower else taken.T, A, other.conj() if hermitian else other)
    if hermitian:
        whole[..., i, i] = whole[..., i, i].real
    return whole


def _check_positive_definite(A: Array, chosen: Array) -> None:
    """Raise `LinAlgError`, as scipy.linalg.solve does, unless the chosen matrices of A (B, n, n) are so."""
    for i in np.flatnonzero(chosen):
        try:
            np.linalg.cholesky(A[i])
        except np.linalg.LinAlgError:
            raise np.linalg.LinAlgError(f"matrix {i} of the batch is not positive definite") from None


def _solve_stacked(
    solver: LearnedSolver, A: Array, b: Array, rtol: float | None, structure: str | None, transposed: bool
) -> Array:
    """Return x (..., n, k) for stacks of matrices and right-hand sides that broadcast; no matrix is copied for them.

    Axes along which A has one matrix for many right-hand sides become columns of b.
    """
    n, k = b.shape[-2:]
    stack = np.broadcast_shapes(A.shape[:-2], b.shape[:-2])
    matrices = (1,) * (len(stack) - A.ndim + 2) + A.shape[:-2]
    shared = [axis for axis, length in enumerate(matrices) if length == 1]
    own = [axis for axis, length in enumerate(matrices) if length > 1]
    if 0 in matrices:
        return np.empty((*stack, n, k))
    order = (*own, len(stack), *shared, len(stack) + 1)  # systems, rows, columns
    columns = np.broadcast_to(b, (*stack, n, k)).transpose(order)
    right = columns.reshape(*(stack[axis] for axis in own), n, -1)
    A, right = (A.reshape(-1, n, n), right.reshape(-1, n, right.shape[-1])) if own else (A.reshape(n, n), right)
    result = solver.solve(A, right, rtol, assume_a=structure, transpose=transposed)
    if structure == "pos":
        _check_positive_definite(A.reshape(-1, n, n), np.atleast_1d(result.method == "lapack"))
    return np.ascontiguousarray(result.x.reshape(columns.shape).transpose(np.argsort(order)))
