"""Refinement, accelerated: generalised conjugate residuals with a fixed preconditioner, for a batch of systems.

Plain refinement x <- x + M (b - A x) with M = R L contracts by the spectral radius of I - M A. The same products, one
with A and one with M a step, span a Krylov space; here the answer is the one of that space whose residual is least in
the preconditioned norm ||L (b - A x)||, as in GMRES for L A R. The slow systems of a family have a few large
eigenvalues of I - M A, and those this removes.

References
----------
.. [1] S. C. Eisenstat, H. C. Elman and M. H. Schultz, "Variational iterative methods for nonsymmetric systems of linear
   equations", SIAM J. Numer. Anal. 20 (1983).
.. [2] Y. Saad, "Iterative Methods for Sparse Linear Systems", 2nd ed., SIAM (2003), chapter 9.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import EPS, LARGE, FloatArray, multiply
from algebraformer.numerics.forward_error import probe

SLOW = 0.9
"""Default of `slow`: a learned inverse that gains this little has not understood the system."""
SAFETY = 0.5
"""The residual that is updated, not computed, has to meet this share of the tolerance."""
STABLE = 0.5
"""Preconditioned residual, relative to that of x = 0 and in n eps, at which the iteration ends: then 99 % of a family's
systems have a backward error of at most n eps, and the others after one step from the true residual. With 2 instead
93 to 97 % have, with 0.1 all at a third of a step more (LOG.md, 2026-11-26)."""


class Preconditioner(Protocol):
    """M = R L, for B matrices."""

    def left(self, r: FloatArray) -> FloatArray:
        """Return L r (B, n, k)."""

    def right(self, g: FloatArray) -> FloatArray:
        """Return R g (B, n, k)."""

    def take(self, chosen: NDArray[np.int64]) -> Self:
        """Return the preconditioner of the chosen systems."""


class Matrices(Protocol):
    """B matrices that are known by their products alone."""

    def multiply(self, chosen: NDArray[np.int64], z: FloatArray) -> FloatArray:
        """Return A[chosen] z (C, n, k) for z (C, n, k)."""


@dataclasses.dataclass(frozen=True)
class KrylovSolution:
    """Answers to B systems.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
    steps : ndarray of int, shape (B,)
        Products with A and M that were used.
    first : ndarray, shape (B,)
        Share of ||L (b - A x0)|| that the first step left, the largest over the right-hand sides.
    last : ndarray, shape (B,)
        ||last step|| / ||x||, the largest over the right-hand sides; NaN if there was one step only.
    left : ndarray, shape (B,)
        Share of ||L (b - A x0)|| that all steps left, likewise; infinity where no step was finite.
    """

    x: FloatArray
    steps: NDArray[np.int64]
    first: FloatArray
    last: FloatArray
    left: FloatArray


def solve(
    A: FloatArray | Matrices,
    b: FloatArray,
    M: Preconditioner,
    rtol: float,
    maxiter: int,
    x0: FloatArray | None = None,
    slow: float = SLOW,
    enough: FloatArray | float = 0.0,
    max_first: float = np.inf,
) -> KrylovSolution:
    """Solve A x = b from x0, or from x = 0.

    A system is left when its updated residual r meets the tolerance, when ||L r|| has fallen to `STABLE` n eps of
    ||L b||, which is about where float64 ends, or to `enough` of it, when a step gains little, when it is not
    finite, or after `maxiter` steps. Nothing is certified here: measure the answer.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64, or Matrices
    b : ndarray, shape (B, n, k), float64
    M : Preconditioner
    rtol : float
        Tolerance on ||b - A x|| / ||b||.
    maxiter : int
    x0 : ndarray, shape (B, n, k), optional
    slow : float
        A step that leaves more than this share of the preconditioned residual ends the iteration of a system.
    enough : float or ndarray, shape (B,)
        A system is also left when ||L r|| has fallen to this share of ||L b||.
    max_first : float
        A system whose first step leaves a larger share of the preconditioned residual is left after it.

    Returns
    -------
    KrylovSolution
    """
    B, n, _ = b.shape
    x, steps = np.zeros_like(b) if x0 is None else x0.copy(), np.zeros(B, dtype=np.int64)
    last, left = np.full(B, np.nan), np.full(B, np.inf)
    first = left
    active = rows = np.arange(B)  # of the batch, and of A
    with np.errstate(all="ignore"):
        r = b.copy() if x0 is None else b - _product(A, rows, x0)
        g = M.left(r)
        target, start = rtol * _norm(b), _norm(g)  # (B, 1, k)
        share = np.maximum(np.reshape(enough, (-1, 1, 1)), STABLE * n * EPS)
        left_over, stable = start, share * (start if x0 is None else _norm(M.left(b)))
        Z: list[FloatArray] = []
        V: list[FloatArray] = []
        W: list[FloatArray] = []
        going = np.ones(B, dtype=bool)
        for count in range(1, maxiter + 1):
            z = M.right(g)
            v = _product(A, rows, z)
            w = M.left(v)
            for Zj, Vj, Wj in zip(Z, V, W, strict=True):
                beta = np.sum(Wj * w, axis=1, keepdims=True)
                w, v, z = w - beta * Wj, v - beta * Vj, z - beta * Zj
            norm = _norm(w)
            scale = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1.0), 0.0)
            w, v, z = w * scale, v * scale, z * scale
            alpha = np.sum(w * g, axis=1, keepdims=True)
            step = alpha * z
            fine = going & (np.isfinite(step) & np.isfinite(v)).all(axis=(1, 2))
            keep = fine[:, None, None]
            x[active] += np.where(keep, step, 0.0)
            r, g = np.where(keep, r - alpha * v, r), np.where(keep, g - alpha * w, g)
            steps[active[fine]] = count
            now = _norm(g)
            left[active[fine]] = _largest(now, start)[fine]
            strange = np.zeros_like(going)
            if count == 1:
                first = left.copy()
                strange = first > max_first
            else:
                last[active[fine]] = _largest(_norm(step), _norm(x[active]))[fine]
            met = (_norm(r) <= SAFETY * target).all(axis=(1, 2))
            met |= (now <= stable).all(axis=(1, 2))
            stalled = ((now > slow * left_over) & (now > stable)).any(axis=(1, 2)) & (count > 1)
            left_over = now
            going = fine & ~met & ~stalled & ~strange
            if not going.any():
                break
            Z, V, W = [*Z, z], [*V, v], [*W, w]
            if 2 * going.sum() <= going.size:  # the rest of the batch is done: go on with what is left
                chosen = np.flatnonzero(going)
                active, rows, M = active[chosen], rows[chosen], M.take(chosen)
                if n < LARGE and isinstance(A, np.ndarray):
                    A, rows = A[rows], np.arange(rows.size)
                r, g, target, left_over, going = r[chosen], g[chosen], target[chosen], left_over[chosen], going[chosen]
                Z, V, W = ([part[chosen] for part in parts] for parts in (Z, V, W))
                start, stable = start[chosen], stable[chosen]
    return KrylovSolution(x, steps, first, last, left)


def _product(A: FloatArray | Matrices, chosen: NDArray[np.int64], z: FloatArray) -> FloatArray:
    """Return A[chosen] z (C, n, k)."""
    return multiply(A, chosen, z) if isinstance(A, np.ndarray) else A.multiply(chosen, z)


def share_left(A: FloatArray, M: Preconditioner) -> FloatArray:
    """Return the share (B,) of one random vector g that the best multiple of L A R g leaves.

    Small where L A R is near a multiple of the identity, whatever b is. Where A is singular so is L A R, and what lies
    outside its range is left: hardly ever less than a tenth, and nearly all of g for a matrix of low rank.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64
    M : Preconditioner
    """
    with np.errstate(all="ignore"):
        g = np.broadcast_to(probe(A.shape[-1]), (len(A), A.shape[-1], 1)).copy()
        w = M.left(A @ M.right(g))
        w = w / _norm(w)
        left = _norm(g - np.sum(w * g, axis=1, keepdims=True) * w)
    return np.where(np.isfinite(left), left, 1.0)[:, 0, 0]


def _norm(v: FloatArray) -> FloatArray:
    """Return the Euclidean norm over axis 1, (B, 1, k)."""
    return np.sqrt(np.sum(v * v, axis=1, keepdims=True))


def _largest(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return the largest part / whole over the right-hand sides (B,), with 0 / 0 = 0."""
    return np.where(part == 0, 0.0, part / whole).max(axis=(1, 2), initial=0.0)
