"""Refinement until the certificate holds, with any approximate inverse, plain or accelerated, and how fast that is."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray, Measures, is_certified, measure
from algebraformer.numerics import gcr
from algebraformer.numerics.gcr import SLOW, Preconditioner

RESTARTS = 2
"""How often accelerated refinement starts again from the true residual."""


@dataclasses.dataclass(frozen=True)
class Refined:
    """Answers to B systems.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
    refinements : ndarray of int, shape (B,)
        Corrections of the first answer.
    certified : ndarray of bool, shape (B,)
        See `linalg.is_certified`; from the true residual.
    measured : Measures
        Of x.
    first : ndarray, shape (B,)
        Share of the preconditioned residual that the first step left; infinity for plain refinement.
    """

    x: FloatArray
    refinements: NDArray[np.int64]
    certified: NDArray[np.bool_]
    measured: Measures
    first: FloatArray


def plain(A: FloatArray, b: FloatArray, M: Preconditioner, rtol: float | None, limit: int) -> Refined:
    """Solve A x = b by x = M b and x <- x + M (b - A x), until certified or `limit` times.

    The error shrinks by the spectral radius of I - M A a step in the end, and grows where that is above one.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64
    b : ndarray, shape (B, n, k), float64
    M : Preconditioner
    rtol : float or None
        Tolerance of the certificate, see `linalg.is_certified`.
    limit : int

    Returns
    -------
    Refined
    """
    with np.errstate(all="ignore"):
        x = M.right(M.left(b))
        refinements, active = np.zeros(len(b), dtype=np.int64), np.arange(len(b))
        state = _measured(A, b, x, rtol)
        for count in range(1, limit + 1):
            residual = state.measured.residual[active]
            going = np.flatnonzero(~state.certified[active] & np.isfinite(residual).all(axis=(1, 2)))
            if not going.size:
                break
            active, M = active[going], M.take(going)
            step = M.right(M.left(residual[going]))
            refinements[active] = count
            _assign(state, active, _measured(A[active], b[active], state.x[active] + step, rtol), slice(None))
    return Refined(state.x, refinements, state.certified, state.measured, np.full(len(b), np.inf))


def accelerated(
    A: FloatArray,
    b: FloatArray,
    M: Preconditioner,
    rtol: float | None,
    limit: int,
    x0: FloatArray | None = None,
    slow: float = SLOW,
    max_first: float = np.inf,
) -> Refined:
    """Solve A x = b by generalised conjugate residuals, again from the true residual where the certificate is missed.

    What a new start gives is taken if its backward error is smaller, or else the system is left as it was. Right-hand
    sides are divided by a power of two near their size, which rounds nothing.

    Parameters
    ----------
    A, b, M, rtol, limit
        As in `plain`.
    x0 : ndarray, shape (B, n, k), optional
        First answer; the first step of the iteration, a multiple of M b, if None.
    slow, max_first : float
        As in `conjugate_residuals.solve`.

    Returns
    -------
    Refined
    """
    largest = np.abs(b).max(axis=1, keepdims=True, initial=0.0)
    _, exponent = np.frexp(np.where(largest > 0, largest, 1.0))
    unit = np.ldexp(1.0, exponent - 1)  # (B, 1, k)
    inner_rtol = 0.0 if rtol is None else rtol
    first_step = 1 if x0 is None else 0  # it is the answer, not a refinement
    with np.errstate(over="ignore"):
        start = None if x0 is None else x0 / unit
        found = gcr.solve(A, b / unit, M, inner_rtol, limit + first_step, start, slow, max_first=max_first)
        state = _measured(A, b, found.x * unit, rtol)
        refinements = np.maximum(found.steps - first_step, 0)
        going = ~state.certified & (found.steps > first_step) & (refinements < limit)
        for _ in range(RESTARTS):  # the updated residual drifts from the true one: go on from the latter
            left = np.flatnonzero(going)
            if not left.size:
                break
            right, M_left, before = b[left] / unit[left], M.take(left), state.x[left] / unit[left]
            more = limit - refinements[left]
            again = gcr.solve(A[left], right, M_left, inner_rtol, int(more.max()), before, slow)
            new = _measured(A[left], b[left], again.x * unit[left], rtol)
            better = new.certified | (_worst(new) < _worst(state)[left])
            _assign(state, left[better], new, better)
            refinements[left] += np.where(better, np.minimum(again.steps, more), 0)
            going[left] = better & ~new.certified & (refinements[left] < limit)
    return Refined(state.x, refinements, state.certified, state.measured, found.first)


def contraction(A: FloatArray, M: Preconditioner) -> FloatArray:
    """Return the spectral radii (B,) of I - M A for A (B, n, n); infinity where M is not finite."""
    identity = np.eye(A.shape[-1])
    with np.errstate(all="ignore"):
        E = identity - M.right(M.left(np.broadcast_to(identity, A.shape).copy())) @ A
    fine = np.isfinite(E).all(axis=(1, 2))
    radii = np.full(len(A), np.inf)
    radii[fine] = np.abs(np.linalg.eigvals(E[fine])).max(axis=1)
    return radii


class _State(NamedTuple):
    """Answers x (B, n, k), their measures and which systems (B,) are certified."""

    x: FloatArray
    measured: Measures
    certified: NDArray[np.bool_]


def _measured(A: FloatArray, b: FloatArray, x: FloatArray, rtol: float | None) -> _State:
    """Return answers with their measures; a system is certified if all of its right-hand sides are."""
    found = measure(A, b, x)
    certified = is_certified(found.relative_residual, found.backward_error, A.shape[-1], rtol)
    return _State(x, found, np.all(certified, axis=-1))


def _worst(state: _State) -> FloatArray:
    """Return the largest backward error over the right-hand sides (B,)."""
    return np.asarray(np.max(state.measured.backward_error, axis=-1, initial=0.0))


def _assign(state: _State, where: NDArray[np.int64], new: _State, chosen: NDArray[np.bool_] | slice) -> None:
    """Replace the systems `where` by the chosen ones of another state."""
    state.x[where], state.certified[where] = new.x[chosen], new.certified[chosen]
    for old, value in zip(state.measured, new.measured, strict=True):
        old[where] = value[chosen]
