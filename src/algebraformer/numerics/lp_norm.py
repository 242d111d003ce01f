"""Linear regression in the l_p norm, 2 <= p <= 16: the problem, its measures, and Newton's step; batched.

    minimise f(x) = ||A x - b||_p^p,   A (m, n) of full column rank.

With r = A x - b and W = diag(|r|^(p-2)) the gradient is p A' W r and the Hessian p (p - 1) A' W A, so Newton's step
is a weighted least squares problem:

    d = -argmin_y ||W^(1/2) (A y - r)||_2 / (p - 1).

It is solved by QR of W^(1/2) A: the normal equations square a condition number that is large already, since the weights
of small residuals are tiny.

References
----------
.. [1] S. W. Kahng, "Best L_p approximation", Mathematics of Computation 26 (1972), 505-508.
.. [2] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge (2004), section 5.1.5: the dual of norm approximation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import SingularSystemError
from algebraformer.linalg import EPS, FloatArray

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
Step = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""From A (B, m, n), r (B, m), p (B,) and a number per problem that the method remembers (B,): a step (B, n) and the
numbers for the next call."""
P_LIMITS = (2.0, 16.0)
MIN_ROOT_WEIGHT = 1e-12
"""Least square root of a weight, relative to the largest: W^(1/2) A keeps its rank where residuals vanish."""
MAX_LINE_SEARCH_STEPS = 60
"""Largest number of evaluations of a line search: bisection alone gains float64's 53 bits in as many."""
SLOPE_RTOL = 1e-12
"""A line search ends where the slope is this share of what it would be without cancellation."""


@dataclasses.dataclass(frozen=True)
class LpSolution:
    """Answers to B regressions.

    Attributes
    ----------
    x : ndarray, shape (B, n)
    iterations : ndarray of int, shape (B,)
        Weighted least squares problems solved; the start by least squares is not counted.
    gradient_norm : ndarray, shape (B,)
        See `gradient_norm`.
    converged : ndarray of bool, shape (B,)
        gradient_norm <= tol.
    """

    x: FloatArray
    iterations: NDArray[np.int64]
    gradient_norm: FloatArray
    converged: NDArray[np.bool_]


# ---------------------------------------------------------------- measures


def product(A: FloatArray, x: FloatArray) -> FloatArray:
    """Return A x, shape (B, m), for A (B, m, n) and x (B, n)."""
    return np.matmul(A, x[..., None])[..., 0]


def transposed_product(A: FloatArray, y: FloatArray) -> FloatArray:
    """Return A' y, shape (B, n), for A (B, m, n) and y (B, m)."""
    return np.matmul(y[..., None, :], A)[..., 0, :]


def max_abs(r: FloatArray) -> FloatArray:
    """Return max |r_i| of each row (B,), and 1 where that is 0."""
    size = np.max(np.abs(r), axis=-1)
    return np.where(size > 0, size, 1.0)


def abs_power(u: FloatArray, k: FloatArray) -> FloatArray:
    """Return |u|^k (B, m), bit for bit the same alone and in a batch: NumPy squares where it sees one exponent of 2."""
    return np.abs(u) ** np.repeat(k, u.shape[-1]).reshape(u.shape)


def p_norm(r: FloatArray, p: FloatArray) -> FloatArray:
    """Return ||r||_p (B,) of r (B, m), without overflow."""
    size = max_abs(r)
    return size * np.sum(abs_power(r / size[:, None], p), axis=-1) ** (1 / p)


def dual_vector(r: FloatArray, p: FloatArray) -> FloatArray:
    """Return |u|^(p-2) u for u = r / max |r|, shape (B, m): the gradient of ||r||_p up to its length."""
    u = r / max_abs(r)[:, None]
    return abs_power(u, p - 1) * np.sign(u)


def gradient_norm(A: FloatArray, r: FloatArray, p: FloatArray) -> FloatArray:
    """Return ||A' (|r|^(p-2) r)||_inf / || |A|' |r|^(p-1) ||_inf, shape (B,): 0 at the optimum, at most 1."""
    y = dual_vector(r, p)
    gradient = np.max(np.abs(transposed_product(A, y)), axis=-1)
    size = np.max(transposed_product(np.abs(A), np.abs(y)), axis=-1)
    return gradient / np.where(size > 0, size, 1.0)


def dual_gap(Q: FloatArray, r: FloatArray, p: FloatArray) -> FloatArray:
    """Return an upper bound on (f(x) - f(x*)) / f(x), shape (B,), from weak duality.

    Every y with A' y = 0 gives |y' r| / ||y||_q <= ||A x* - b||_p, 1/p + 1/q = 1. Here y is |r|^(p-2) r without its
    part in the range of A.

    Parameters
    ----------
    Q : ndarray, shape (B, m, n)
        Orthonormal basis of the range of A.
    r : ndarray, shape (B, m)
    p : ndarray, shape (B,)
    """
    u = r / max_abs(r)[:, None]
    y = dual_vector(r, p)
    y = y - product(Q, transposed_product(Q, y))
    y = y - product(Q, transposed_product(Q, y))  # twice is enough for orthogonality to rounding
    length = p_norm(y, p / (p - 1)) * p_norm(u, p)
    bound = np.abs(np.sum(y * u, axis=-1)) / np.where(length > 0, length, 1.0)
    return np.where(np.any(r != 0, axis=-1), np.maximum(-np.expm1(p * np.log(np.clip(bound, 1e-300, 1.0))), 0.0), 0.0)


# ---------------------------------------------------------------- steps


def newton_step(A: FloatArray, r: FloatArray, p: FloatArray) -> FloatArray:
    """Return Newton's step (B, n) at residuals r (B, m), none of them zero throughout."""
    root = np.maximum(abs_power(r / max_abs(r)[:, None], 0.5 * (p - 2)), MIN_ROOT_WEIGHT)
    return weighted_least_squares(A, root, r) / (1 - p)[:, None]


def weighted_least_squares(A: FloatArray, root: FloatArray, r: FloatArray) -> FloatArray:
    """Return argmin_y ||root (A y - r)||, shape (B, n), by QR."""
    n = A.shape[-1]
    R = np.asarray(np.linalg.qr(root[..., None] * np.concatenate((A, r[..., None]), axis=-1), mode="r"))
    return solved(R[:, :n, :n], R[:, :n, n])  # the last column of R is Q' (root r)


def solved(R: FloatArray, y: FloatArray) -> FloatArray:
    """Return R^-1 y (B, n) for R (B, n, n), usually upper triangular, which elimination leaves as it is."""
    return np.asarray(np.linalg.solve(R, y[..., None])[..., 0], dtype=np.float64)


def line_search(r: FloatArray, q: FloatArray, p: FloatArray) -> FloatArray:
    """Return the t >= 0 (B,) that minimises ||r + t q||_p, by Newton's method on the slope within a bracket.

    Since ||r + t q|| >= t ||q|| - ||r||, the minimum lies between 0 and 2 ||r|| / ||q||. 0 where q does not descend.
    """
    # 1. r and q in units of their sizes, and the bracket.
    r_size, q_size = max_abs(r), max_abs(q)
    r, q, unit = r / r_size[:, None], q / q_size[:, None], r_size / q_size
    low = np.zeros(len(r))
    length = p_norm(q, p) * np.any(q != 0, axis=-1)
    high = np.where(length > 0, 2 * p_norm(r, p) / np.where(length > 0, length, 1.0), 0.0)
    t = np.minimum(1 / unit, 0.5 * high)
    before = np.full(len(r), np.inf)

    for _ in range(MAX_LINE_SEARCH_STEPS):
        # 2. The slope at t, up to a factor.
        z = r + t[:, None] * q
        size = max_abs(z)
        u = z / size[:, None]
        w = abs_power(u, p - 2)
        terms = w * u * q
        slope, whole = np.sum(terms, axis=-1), np.sum(np.abs(terms), axis=-1)
        open_ = (np.abs(slope) > SLOPE_RTOL * whole) & (high - low > EPS * high)
        if not open_.any():
            break

        # 3. A smaller bracket, and Newton's step where it stays inside and halves the slope; bisection otherwise.
        low, high = np.where(slope < 0, t, low), np.where(slope < 0, high, t)
        curvature = (p - 1) * np.sum(w * q * q, axis=-1)
        guess = t - size * slope / np.where(curvature > 0, curvature, 1.0)
        share = np.abs(slope) / np.where(whole > 0, whole, 1.0)
        good = (guess > low) & (guess < high) & (share < 0.5 * before)
        before = share
        t = np.where(open_, np.where(good, guess, 0.5 * (low + high)), t)
    return t * unit


def line_search_step(A: FloatArray, r: FloatArray, p: FloatArray, d: FloatArray) -> FloatArray:
    """Return d (B, n) times the best factor."""
    return line_search(r, product(A, d), p)[:, None] * d


# ---------------------------------------------------------------- the problem and the loop


def without_rounding(r: FloatArray, terms: FloatArray, n: int) -> FloatArray:
    """Return residuals r (B, m), 0 where all of them are rounding: terms (B, m) is |A| |x| + |b|."""
    return np.where((np.max(np.abs(r), axis=-1) <= n * EPS * np.max(terms, axis=-1))[:, None], 0.0, r)


@dataclasses.dataclass(frozen=True)
class Regression:
    """Checked problems with their least squares solutions.

    Attributes
    ----------
    A : ndarray, shape (B, m, n)
    b : ndarray, shape (B, m)
    p : ndarray, shape (B,)
    Q : ndarray, shape (B, m, n)
        Orthonormal basis of the range of A.
    R : ndarray, shape (B, n, n)
        Upper triangular; Q R is A.
    x : ndarray, shape (B, n)
        Least squares solutions.
    r : ndarray, shape (B, m)
        A x - b; 0 where that is nothing but rounding: then x interpolates and is the optimum for every p.
    """

    A: FloatArray
    b: FloatArray
    p: FloatArray
    Q: FloatArray
    R: FloatArray
    x: FloatArray
    r: FloatArray

    @classmethod
    def of(cls, A: FloatArray, b: FloatArray, p: FloatArray | float) -> Regression:
        """Check A (B, m, n), b (B, m) and p, and solve the least squares problems.

        Raises
        ------
        ValueError
            Shapes do not match, m < n, entries that are not finite, p outside [2, 16].
        SingularSystemError
            A `LinAlgError`: the columns of A are linearly dependent to working precision, after scaling to length 1.
        """
        from scipy.linalg.lapack import dtrcon  # the command line imports this module, but no SciPy before it is needed

        A, b = np.ascontiguousarray(A, dtype=np.float64), np.ascontiguousarray(b, dtype=np.float64)
        if A.ndim != 3 or 0 in A.shape:
            raise ValueError(f"A must have shape (m, n) or (B, m, n) with m, n >= 1, received {A.shape}")
        if b.shape != A.shape[:2]:
            raise ValueError(f"b must have shape {A.shape[:2]} for A of shape {A.shape}, received {b.shape}")
        if A.shape[1] < A.shape[2]:
            raise ValueError(f"A must have at least as many rows as columns, received {A.shape[1]} x {A.shape[2]}")
        for name, array in (("A", A), ("b", b)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} contains NaN or infinity")
        p = np.array(np.broadcast_to(np.asarray(p, dtype=np.float64), len(A)))
        if not ((p >= P_LIMITS[0]) & (p <= P_LIMITS[1])).all():
            wrong = p[~((p >= P_LIMITS[0]) & (p <= P_LIMITS[1]))][0]
            raise ValueError(f"p must be a number from 2 to 16, received {wrong:g}")

        # 1. QR of A with columns of length one, and its condition.
        lengths = np.max(np.abs(A), axis=1, keepdims=True)
        lengths = np.where(lengths > 0, lengths, 1.0)
        lengths = lengths * np.linalg.norm(A / lengths, axis=1, keepdims=True)
        Q, R = np.linalg.qr(A / np.where(lengths > 0, lengths, 1.0))
        singular = [i for i, factor in enumerate(R) if not dtrcon(factor)[0] > A.shape[2] * EPS]
        if singular:
            raise SingularSystemError(
                singular,
                batched=len(A) > 1,
                what="the columns of A are linearly dependent",
                noun="problem",
                advice="the optimum is not unique; leave out columns",
            )
        R = R * lengths

        # 2. The least squares solution, corrected once for the last digits, and its residual.
        size = max_abs(b)[:, None]
        x = solved(R, transposed_product(Q, b / size)) * size
        x = x - solved(R, transposed_product(Q, product(A, x) - b))
        r = product(A, x) - b
        r = without_rounding(r, product(np.abs(A), np.abs(x)) + np.abs(b), A.shape[2])
        return cls(A, b, p, Q, R, x, r)

    @property
    def interpolated(self) -> NDArray[np.bool_]:
        """Where the least squares solution leaves no residual, (B,)."""
        return ~np.any(self.r != 0, axis=-1)

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Regression:
        """Return the chosen problems of the batch (a slice, an index array or a mask)."""
        return Regression(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def newton(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Newton's step with exact line search, a `Step`."""
    return line_search_step(A, r, p, newton_step(A, r, p)), memory


def iterate(
    problem: Regression,
    step: Step,
    x0: FloatArray,
    tol: float,
    maxiter: int | NDArray[np.int64],
    first_memory: Callable[[FloatArray, FloatArray, FloatArray], FloatArray] | None = None,
) -> LpSolution:
    """Take steps until `gradient_norm` is at most tol; problems that have converged are left out of what follows.

    All of it happens on the problem scaled so that the largest residual of the start is one: powers of residuals
    neither overflow nor vanish together. Unknown is the way from least squares, so that residuals that are small
    against b keep their digits.

    Parameters
    ----------
    problem : Regression
    step : Step
    x0 : ndarray, shape (B, n)
    tol : float
    maxiter : int or ndarray of int, shape (B,)
    first_memory : callable, optional
        From the scaled residuals of least squares and of the start (B, m) and p (B,): what the method remembers (B,).
        Zero if not given.

    Returns
    -------
    LpSolution
    """
    A, p = problem.A, problem.p
    delta = np.where(problem.interpolated[:, None], 0.0, x0 - problem.x)
    start = np.where(np.any(delta != 0, axis=-1)[:, None], product(A, delta) + problem.r, problem.r)
    scale = max_abs(start)[:, None]
    r_0 = problem.r / scale
    memory = np.zeros(len(A)) if first_memory is None else first_memory(r_0, start / scale, p)

    def scaled_step(active: Indices, delta: FloatArray, r: FloatArray, error: FloatArray) -> tuple[FloatArray, Flags]:
        d, memory[active] = step(A[active], r, p[active], memory[active])
        return d, np.ones(len(active), dtype=bool)

    delta, iterations, error, _ = descend(A, p, r_0, delta / scale, scaled_step, tol, maxiter)
    error = np.where(np.isfinite(error), error, np.inf)
    return LpSolution(problem.x + delta * scale, iterations, error, error <= tol)


class Descent(NamedTuple):
    """What `descend` returns for B problems."""

    delta: FloatArray
    """The way gone (B, n)."""
    iterations: Indices
    """Steps taken (B,)."""
    error: FloatArray
    """`gradient_norm` at the end (B,)."""
    refused: Flags
    """Whether the last step was not accepted (B,)."""


def descend(
    A: FloatArray,
    p: FloatArray,
    r_0: FloatArray,
    delta: FloatArray,
    step: Callable[[Indices, FloatArray, FloatArray, FloatArray], tuple[FloatArray, Flags]],
    tol: float,
    maxiter: int | NDArray[np.int64],
    observe: Callable[[Indices, FloatArray, FloatArray], object] = lambda active, r, error: None,
) -> Descent:
    """Take steps until `gradient_norm` is at most tol, for every problem on its own.

    Parameters
    ----------
    A : ndarray, shape (B, m, n)
    p : ndarray, shape (B,)
    r_0 : ndarray, shape (B, m)
        Residuals where delta is zero.
    delta : ndarray, shape (B, n)
        Where to start.
    step : callable
        Takes indices (C,) of problems, their delta (C, n), residuals (C, m) and errors (C,) to steps (C, n), and says
        which of them are accepted (C,): the others are the last of their problems.
    tol : float
    maxiter : int or ndarray of int, shape (B,)
    observe : callable, optional
        Called with indices, residuals and errors at the start and after every step.

    Returns
    -------
    Descent
    """
    B, limit = len(A), np.broadcast_to(maxiter, len(A))
    delta, iterations, error = delta.copy(), np.zeros(B, dtype=np.int64), np.full(B, np.inf)
    refused, active, iteration = np.zeros(B, dtype=bool), np.arange(B), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while active.size:
            # 1. Where the problems are.
            r = product(A[active], delta[active]) + r_0[active]
            error[active] = gradient_norm(A[active], r, p[active])
            iterations[active] = iteration
            observe(active, r, error[active])

            # 2. Which go on.
            go_on = (error[active] > tol) & np.isfinite(error[active]) & (limit[active] > iteration)
            active, r = active[go_on], r[go_on]
            if not active.size:
                break

            # 3. Their steps.
            d, accepted = step(active, delta[active], r, error[active])
            delta[active] += d
            refused[active] = ~accepted
            active, iteration = active[accepted], iteration + 1
    return Descent(delta, iterations, error, refused)
