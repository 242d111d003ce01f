"""Regressions in the l_p norm that share one design: the Hessians of a batch, their products, and Newton directions.

    minimise ||A x - b_k||_p^p for many b_k,   A (m, n) of full column rank, A = Q R.

In the coordinates y = R x the Hessians are Q' D(w) Q with weights w = (|r| / max |r|)^(p-2), up to a factor. The range
of Q is that of A, but its columns are orthonormal: what remains of the condition number is the spread of the weights
alone. A product with the Hessians of a whole batch is two products of a matrix with Q, which all of them share; the
factorisations are each problem's own.

References
----------
.. [1] R. S. Dembo, S. C. Eisenstat, T. Steihaug, "Inexact Newton methods", SIAM J. Numer. Anal. 19 (1982), 400-408.
.. [2] S. C. Eisenstat, H. C. Elman, M. H. Schultz, "Variational iterative methods for nonsymmetric systems of linear
   equations", SIAM J. Numer. Anal. 20 (1983): generalised conjugate residuals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.lp_norm import (
    MIN_ROOT_WEIGHT,
    Flags,
    Indices,
    Regression,
    abs_power,
    dual_vector,
    line_search,
    max_abs,
    solved,
    without_rounding,
)

GROWTH = 1.5
"""Factor of p from step to step of the homotopy, as in the baseline without a shared design."""
MAX_FORCING = 0.1
"""Largest share of the gradient that an inexact direction may leave, see `forcing`."""
FACTOR_RTOL = 1e-3
"""Relative residual above which a direction of the normal equations is computed again by QR."""


@dataclasses.dataclass(frozen=True)
class Design:
    """One design, factorised once.

    Attributes
    ----------
    A, Q : ndarray, shape (m, n)
        Q has orthonormal columns.
    R : ndarray, shape (n, n)
        Upper triangular; Q R is A.
    """

    A: FloatArray
    Q: FloatArray
    R: FloatArray

    @classmethod
    def of(cls, A: FloatArray) -> Design:
        """Check and factorise A (m, n); errors as of `Regression.of`."""
        one = Regression.of(np.asarray(A)[None], np.zeros((1, len(A))), 2.0)
        return cls(one.A[0], one.Q[0], one.R[0])

    def regression(self, b: FloatArray, p: float) -> Regression:
        """Return the regressions of b (B, m), whose arrays A, Q and R are views of these, repeated B times."""
        x = self.coordinates(b @ self.Q)
        x = x - self.coordinates((x @ self.A.T - b) @ self.Q)
        r = without_rounding(x @ self.A.T - b, np.abs(x) @ np.abs(self.A.T) + np.abs(b), x.shape[1])
        A, Q, R = (np.broadcast_to(part, (len(b), *part.shape)) for part in (self.A, self.Q, self.R))
        return Regression(A, b, np.full(len(b), p), Q, R, x, r)

    def coordinates(self, y: FloatArray) -> FloatArray:
        """Return R^-1 y (B, n) for y (B, n)."""
        return np.asarray(np.linalg.solve(self.R, y.T).T)

    def gradients(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return Q' v (B, n), and ||A' v||_inf / || |A|' |v| ||_inf (B,), for v (B, m)."""
        g = v @ self.Q
        size = np.max(np.abs(v) @ np.abs(self.A), axis=1)
        return g, np.max(np.abs(g @ self.R), axis=1) / np.where(size > 0, size, 1.0)


@dataclasses.dataclass(frozen=True)
class Hessians:
    """Q' D(w) Q of B problems, by their weights.

    Attributes
    ----------
    Q : ndarray, shape (m, n)
    w : ndarray, shape (B, m)
        Positive.
    """

    Q: FloatArray
    w: FloatArray

    @classmethod
    def at(cls, Q: FloatArray, r: FloatArray, p: FloatArray) -> Hessians:
        """Return those at residuals r (B, m) for exponents p (B,)."""
        return cls(Q, np.maximum(abs_power(r / max_abs(r)[:, None], p - 2), MIN_ROOT_WEIGHT**2))

    def __len__(self) -> int:
        return len(self.w)

    def take(self, chosen: Any) -> Hessians:
        """Return those of the chosen problems."""
        return Hessians(self.Q, self.w[chosen])

    def product(self, d: FloatArray) -> FloatArray:
        """Return H d (B, n) for d (B, n)."""
        return np.asarray(((d @ self.Q.T) * self.w) @ self.Q)

    def diagonal(self) -> FloatArray:
        """Return the diagonals (B, n)."""
        return np.asarray(self.w @ self.Q**2)

    def dense(self) -> FloatArray:
        """Return the matrices (B, n, n)."""
        return np.asarray((self.Q.T * self.w[:, None, :]) @ self.Q)

    def __getitem__(self, key: tuple[Any, Any, Any]) -> FloatArray:
        """Return the entries H[problems, rows, columns] for rows (k, 1) and columns (q,): (B, k, q)."""
        problems, rows, columns = key
        pairs = self.Q[:, rows[:, 0], None] * self.Q[:, None, columns]  # (m, k, q)
        return np.asarray(np.tensordot(self.w[problems], pairs, axes=1))


# ---------------------------------------------------------------- directions


@dataclasses.dataclass(frozen=True)
class Directions:
    """Solutions of H d = g for B problems, and what they cost.

    Attributes
    ----------
    d : ndarray, shape (B, n)
    good : ndarray of bool, shape (B,)
        Whether the relative residual is at most the forcing term; where not, H is factorised instead.
    factorisations, products : ndarray of int, shape (B,)
        Factorisations of a Hessian, and products with it.
    """

    d: FloatArray
    good: Flags
    factorisations: Indices
    products: Indices


class Direction(Protocol):
    """A way to solve the Newton systems of a batch."""

    def __call__(self, H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
        """Solve H d = g, g (C, n), to relative residuals `forcing` (C,), for the problems (C,) of the batch."""


def factorised(H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
    """Solve by the normal equations in Q, and by QR where these lose the digits; a `Direction`."""
    with np.errstate(all="ignore"):
        try:
            d = solved(H.dense(), g)
        except np.linalg.LinAlgError:
            d = np.full_like(g, np.nan)
        poor = ~(np.linalg.norm(H.product(d) - g, axis=1) <= FACTOR_RTOL * np.linalg.norm(g, axis=1))
    if poor.any():
        d[poor] = _by_qr(H.take(poor), g[poor])
    ones = np.ones(len(g), dtype=np.int64)
    return Directions(d, np.asarray(np.isfinite(d).all(axis=1)), ones + poor, ones)


def _by_qr(H: Hessians, g: FloatArray) -> FloatArray:
    """Return H^-1 g (B, n) from QR of D(w)^(1/2) Q, corrected once: the seminormal equations."""
    R = np.asarray(np.linalg.qr(np.sqrt(H.w)[..., None] * H.Q, mode="r"))

    def substituted(g: FloatArray) -> FloatArray:
        return solved(R, solved(R.mT, g))

    d = substituted(g)
    return d + substituted(g - H.product(d))


Inverse = Callable[[FloatArray, Indices], FloatArray]
"""From vectors (C, n) and the problems they belong to (C,), to approximations of H^-1 of these."""


def conjugate_residuals(H: Hessians, g: FloatArray, inverse: Inverse, forcing: FloatArray, maxiter: int) -> Directions:
    """Solve H d = g by generalised conjugate residuals [2]_ with any inverse on the right; see `Directions`.

    Parameters
    ----------
    H : Hessians
    g : ndarray, shape (B, n)
    inverse : callable
    forcing : ndarray, shape (B,)
        Relative residuals ||g - H d|| / ||g|| to be reached.
    maxiter : int
        Largest number of products.
    """
    (B, n), going = g.shape, np.arange(len(g))
    d, residual, products = np.zeros_like(g), g.copy(), np.zeros(B, dtype=np.int64)
    target = forcing * np.linalg.norm(g, axis=1)
    Z, V = np.empty((B, maxiter, n)), np.empty((B, maxiter, n))
    with np.errstate(all="ignore"):
        for k in range(maxiter):
            # 1. A new direction and its image.
            z = inverse(residual[going], going)
            v = H.take(going).product(z)
            products[going] += 1

            # 2. Orthogonal to the images before, twice is not needed for so few.
            if k:
                c = np.einsum("bkn,bn->bk", V[going, :k], v)
                v = v - np.einsum("bk,bkn->bn", c, V[going, :k])
                z = z - np.einsum("bk,bkn->bn", c, Z[going, :k])
            size = np.linalg.norm(v, axis=1, keepdims=True)
            v, z = v / size, z / size
            V[going, k], Z[going, k] = v, z

            # 3. The step along it with the least residual.
            alpha = np.sum(v * residual[going], axis=1, keepdims=True)
            d[going] += alpha * z
            residual[going] -= alpha * v
            left = np.linalg.norm(residual[going], axis=1)
            going = going[left > target[going]]
            if not going.size:
                break
        good = (np.linalg.norm(residual, axis=1) <= target) & np.isfinite(d).all(axis=1)
    return Directions(d, good, np.zeros(B, dtype=np.int64), products)


# ---------------------------------------------------------------- the loop


@dataclasses.dataclass(frozen=True)
class Descent:
    """What `descend` returns for B problems.

    Attributes
    ----------
    y : ndarray, shape (B, n)
        R (x - x of least squares).
    error : ndarray, shape (B,)
        `lp_norm.gradient_norm` at the end.
    stalled : ndarray of bool, shape (B,)
        The last step did not change y: float64 ends here.
    iterations, inexact, factorisations, products : ndarray of int, shape (B,)
        Steps; those of them that the direction solved without the fallback; factorisations of Hessians and products
        with them.
    """

    y: FloatArray
    error: FloatArray
    stalled: Flags
    iterations: Indices
    inexact: Indices
    factorisations: Indices
    products: Indices


def forcing(error: FloatArray) -> FloatArray:
    """Return the forcing terms of steps at relative gradient norms `error`: their root, at most `MAX_FORCING`.

    Convergence is then superlinear, of order 3/2 [1]_.
    """
    return np.minimum(MAX_FORCING, np.sqrt(error))


def homotopy_exponents(p: float, iteration: Indices | int) -> FloatArray:
    """Return the exponent of the step after so many, min(p, 2 GROWTH^(iteration + 1)).

    Examples
    --------
    >>> homotopy_exponents(8.0, np.arange(5)).tolist()
    [3.0, 4.5, 6.75, 8.0, 8.0]
    """
    return np.minimum(p, 2 * GROWTH ** (np.asarray(iteration) + 1.0))


def descend(
    design: Design,
    r_0: FloatArray,
    p: float,
    direction: Direction,
    tol: float,
    maxiter: int,
    y: FloatArray | None = None,
) -> Descent:
    """Minimise ||r_0 + Q y||_p for B problems by Newton directions with exact line search, by homotopy in p.

    Steps belong to `homotopy_exponents`, 3, 4.5, ... up to p, from least squares; from elsewhere all to p. A direction
    that is not good is replaced by that of `factorised`.

    Parameters
    ----------
    design : Design
    r_0 : ndarray, shape (B, m)
        Residuals of least squares.
    p : float
    direction : Direction
    tol : float
        On the relative gradient norm.
    maxiter : int
    y : ndarray, shape (B, n), optional
        Start; least squares if not given.
    """
    Q, B, scale, warm = design.Q, len(r_0), max_abs(r_0)[:, None], y is not None
    r_0 = r_0 / scale
    y = np.zeros((B, Q.shape[1])) if y is None else y / scale
    counts = {name: np.zeros(B, dtype=np.int64) for name in ("iterations", "inexact", "factorisations", "products")}
    error, stalled, active, iteration = np.full(B, np.inf), np.zeros(B, dtype=bool), np.arange(B), 0
    while True:
        # 1. Where the problems are, and which go on.
        r = y[active] @ Q.T + r_0[active]
        _, error[active] = design.gradients(dual_vector(r, np.full(len(r), p)))
        go_on = (error[active] > tol) & ~stalled[active]
        active, r = active[go_on], r[go_on]
        if not active.size or iteration == maxiter:
            break

        # 2. Their directions, factorised where they are not good.
        exponent = np.full(len(active), p if warm else homotopy_exponents(p, iteration))
        H, g = Hessians.at(Q, r, exponent), -(dual_vector(r, exponent) @ Q)
        found = direction(H, g, forcing(error[active]), active)
        d = found.d
        good = found.good & (np.sum(np.where(found.good[:, None], d, 0.0) * g, axis=1) > 0)
        counts["factorisations"][active] += found.factorisations
        counts["products"][active] += found.products
        counts["inexact"][active] += good
        if not good.all():
            exact = factorised(H.take(~good), g[~good], np.zeros(int(np.sum(~good))), active[~good])
            d[~good] = exact.d
            counts["factorisations"][active[~good]] += exact.factorisations
            counts["products"][active[~good]] += exact.products

        # 3. The step.
        step = line_search(r, d @ Q.T, exponent)[:, None] * d
        stalled[active] = ~np.any(y[active] + step != y[active], axis=1)
        y[active] += step
        iteration += 1
        counts["iterations"][active] += 1
    return Descent(y * scale, error, stalled, **counts)


def scaled_by_diagonal(H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
    """Solve by conjugate residuals with the diagonals of H, in at most n + 10 products; a `Direction`."""
    diagonal = H.diagonal()
    return conjugate_residuals(H, g, lambda z, chosen: z / diagonal[chosen], forcing, g.shape[1] + 10)
