"""Tikhonov's regularisation and the truncated singular value decomposition, and four ways to choose their parameter.

Tikhonov: x minimises ||A x - b||_2^2 + lambda^2 ||L x||_2^2, with L the identity (order 0), first or second differences
(orders 1 and 2). Truncated: x is the least-squares solution within the span of the first k singular vectors. Every
choice looks at a path: all solutions over a grid of parameters, from the most regular to the least.

- cross_validation: generalised cross-validation [1]_, from A and b alone.
- l_curve: the corner of (log ||A x - b||, log ||L x||), from A and b alone: where Tikhonov's curve bends most [2]_, and
  by triangles for the points of a truncated decomposition [3]_.
- discrepancy: the most regular x with ||A x - b|| at most the norm of the noise, which has to be known.
- oracle: the x nearest to the true one: a bound on what any choice could give.

Orders 1 and 2 are brought to standard form by Elden's weighted pseudoinverse [4]_, so that one singular value
decomposition serves a whole path. Everything is batched; where all matrices of a batch are equal, one is decomposed.

References
----------
.. [1] G. H. Golub, M. Heath and G. Wahba, "Generalized cross-validation as a method for choosing a good ridge
   parameter", Technometrics 21 (1979).
.. [2] P. C. Hansen and D. P. O'Leary, "The use of the L-curve in the regularization of discrete ill-posed problems",
   SIAM Journal on Scientific Computing 14 (1993).
.. [3] J. L. Castellanos, S. Gomez and V. Guerra, "The triangle method for finding the corner of the L-curve", Applied
   Numerical Mathematics 43 (2002).
.. [4] L. Elden, "A weighted pseudoinverse, generalized singular values, and constrained least squares problems", BIT 22
   (1982).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import EPS, FloatArray

MAX_LAMBDA, MIN_LAMBDA = 1e1, 1e-8
"""Limits of lambda relative to the largest singular value."""
LAMBDAS_PER_DECADE = 20
IndexArray = NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """Singular value decompositions of matrices in standard form; G is B, or 1 where one matrix serves all.

    Attributes
    ----------
    U : ndarray, shape (G, m, r)
    s : ndarray, shape (G, r)
        Descending.
    V : ndarray, shape (G, n, r)
        Right singular vectors, brought back from standard form: x = V y + N Q' b.
    Q : ndarray, shape (G, m, p)
        Orthonormal basis of A times the null space of L, of dimension p.
    N : ndarray, shape (G, n, p)
    """

    U: FloatArray
    s: FloatArray
    V: FloatArray
    Q: FloatArray
    N: FloatArray


def differences(n: int, order: int) -> FloatArray:
    """Return L, shape (n - order, n): differences of that order, the identity for order 0."""
    return np.diff(np.eye(n), order, axis=0)


def decompose(A: FloatArray, order: int = 0) -> Decomposition:
    """Decompose matrices for Tikhonov's regularisation with differences of an order, or for truncation (order 0).

    Parameters
    ----------
    A : ndarray, shape (B, m, n)
    order : int, less than n and m

    Returns
    -------
    Decomposition
    """
    m, n = A.shape[1:]
    A = A[:1] if (A[:1] == A).all() else A
    W = np.linalg.qr(np.vander(np.linspace(-1, 1, n), order, increasing=True))[0]  # (n, p): the null space of L
    Q, R = np.linalg.qr(A @ W)  # (G, m, p), (G, p, p)
    N = W @ np.linalg.inv(R)
    back = np.eye(n) if order == 0 else np.linalg.pinv(differences(n, order))  # (n, n - p)
    AL = A @ back
    fitted = Q.mT @ AL
    U, s, Vt = np.linalg.svd(AL - Q @ fitted, full_matrices=False)
    keep = min(m, n) - order
    return Decomposition(U[..., :keep], s[..., :keep], ((back - N @ fitted) @ Vt.mT)[..., :keep], Q, N)


@dataclasses.dataclass(frozen=True)
class Path:
    """Regularised solutions of B systems over K parameters, from the most regular to the least.

    Attributes
    ----------
    parameters : ndarray, shape (B, K)
        lambda, or the number k of singular values.
    residual_norm, seminorm : ndarray, shape (B, K)
        ||A x - b||_2 and ||L x||_2.
    slack : ndarray, shape (B, K)
        m minus the trace of the matrix that turns b into A x: degrees of freedom that are left.
    coefficients : ndarray, shape (B, K, r)
    decomposition : Decomposition
    offset : ndarray, shape (B, n)
        The part of x that is not regularised.
    continuous : bool
        Whether the parameters are samples of a continuous one.
    """

    parameters: FloatArray
    residual_norm: FloatArray
    seminorm: FloatArray
    slack: FloatArray
    coefficients: FloatArray
    decomposition: Decomposition
    offset: FloatArray
    continuous: bool

    def solutions(self) -> FloatArray:
        """Return every x, shape (B, K, n)."""
        return self.coefficients @ self.decomposition.V.mT + self.offset[:, None]

    def chosen(self, index: IndexArray) -> FloatArray:
        """Return one x for each system, shape (B, n), from indices (B,)."""
        own = np.take_along_axis(self.coefficients, index[:, None, None], axis=1)  # (B, 1, r)
        return (own @ self.decomposition.V.mT)[:, 0] + self.offset


def tikhonov(decomposition: Decomposition, b: FloatArray) -> Path:
    """Return Tikhonov's solutions for b (B, m) over 20 values of lambda a decade, 10 to 1e-8 times the largest s."""
    s = decomposition.s
    count = round(LAMBDAS_PER_DECADE * np.log10(MAX_LAMBDA / MIN_LAMBDA)) + 1
    parameters = s[:, :1] * np.geomspace(MAX_LAMBDA, MIN_LAMBDA, count)  # (G, K)
    squares = parameters[..., None] ** 2  # (G, K, 1)
    remaining = squares / (s[:, None] ** 2 + squares)  # (G, K, r): 1 minus the filter factors
    gains = s[:, None] / (s[:, None] ** 2 + squares)
    return _path(decomposition, b, parameters, remaining, gains, continuous=True)


def truncated(decomposition: Decomposition, b: FloatArray) -> Path:
    """Return the truncated solutions for b (B, m) with k = 1, ..., r singular values, those at rounding left out."""
    s = decomposition.s
    count = s.shape[1]
    used = np.tri(count, dtype=bool) & (s > count * EPS * s[:, :1])[:, None]  # (G, K, r)
    gains = used / np.where(used, s[:, None], 1.0)
    parameters = np.broadcast_to(np.arange(1.0, count + 1), s.shape)
    return _path(decomposition, b, parameters, np.where(used, 0.0, 1.0), gains, continuous=False)


def _path(
    decomposition: Decomposition,
    b: FloatArray,
    parameters: FloatArray,
    remaining: FloatArray,
    gains: FloatArray,
    continuous: bool,
) -> Path:
    """Return the path with these filters, (G, K, r) each."""
    U, Q = decomposition.U, decomposition.Q
    B, m, r = len(b), U.shape[1], U.shape[2]
    free = Q.mT @ b[..., None]  # (B, p, 1)
    rest = b[..., None] - Q @ free
    beta = U.mT @ rest  # (B, r, 1)
    outside = np.sum((rest - U @ beta) ** 2, axis=(1, 2))  # (B,)
    coefficients = gains * beta.mT  # (B, K, r)
    residual = np.sqrt(np.sum((remaining * beta.mT) ** 2, axis=2) + outside[:, None])
    slack = remaining.sum(axis=2) + (m - r - Q.shape[2])
    shape = residual.shape
    return Path(
        parameters=np.broadcast_to(parameters, shape),
        residual_norm=residual,
        seminorm=np.linalg.norm(coefficients, axis=2),
        slack=np.broadcast_to(slack, shape),
        coefficients=coefficients,
        decomposition=decomposition,
        offset=np.broadcast_to((decomposition.N @ free)[..., 0], (B, decomposition.V.shape[1])),
        continuous=continuous,
    )


# ---------------------------------------------------------------- choices: (B,) indices into the parameters


def cross_validation(path: Path) -> IndexArray:
    """Return where ||A x - b||^2 / slack^2 is least."""
    free = path.slack > 0
    return np.argmin(np.where(free, path.residual_norm / np.where(free, path.slack, 1.0), np.inf), axis=1)


def cross_validated(A: FloatArray, b: FloatArray, order: int = 0) -> FloatArray:
    """Return Tikhonov's answers (B, n) to A (B, m, n) and b (B, m), lambda by cross-validation."""
    path = tikhonov(decompose(A, order), b)
    return path.chosen(cross_validation(path))


def discrepancy(path: Path, noise_norm: FloatArray) -> IndexArray:
    """Return the first index with a residual of at most noise_norm (B,), the last one where there is none."""
    small = path.residual_norm <= noise_norm[:, None]
    return np.where(small.any(axis=1), np.argmax(small, axis=1), small.shape[1] - 1)


def oracle(path: Path, x: FloatArray) -> IndexArray:
    """Return where the solution is nearest to the true x (B, n)."""
    return np.argmin(np.linalg.norm(path.solutions() - x[:, None], axis=2), axis=1)


def l_curve(path: Path) -> IndexArray:
    """Return the corner of the L-curve: largest curvature, or the sharpest triangle where the points are discrete."""
    tiny = np.finfo(np.float64).tiny
    x, y = (np.log(np.maximum(v, tiny)) for v in (path.residual_norm, path.seminorm))
    return np.argmax(_curvature(x, y) if path.continuous else _sharpness(x, y), axis=1)


def _curvature(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the curvature of sampled curves (B, K), positive where they turn right: at the corner of an L."""
    dx, dy = np.gradient(x, axis=1), np.gradient(y, axis=1)
    turn = dy * np.gradient(dx, axis=1) - dx * np.gradient(dy, axis=1)
    return turn / np.maximum((dx**2 + dy**2) ** 1.5, np.finfo(np.float64).tiny)


def _sharpness(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the largest cosine of the angle at each point k to any earlier one and to the last, among right turns."""
    ux, uy = x[:, :, None] - x[:, None], y[:, :, None] - y[:, None]  # (B, j, k): from k to j
    vx, vy = x[:, -1:, None] - x[:, None], y[:, -1:, None] - y[:, None]  # (B, 1, k): from k to the last
    lengths = np.hypot(ux, uy) * np.hypot(vx, vy)
    cosine = (ux * vx + uy * vy) / np.where(lengths > 0, lengths, 1.0)
    earlier = np.arange(x.shape[1])[:, None] < np.arange(x.shape[1])
    allowed = earlier & (lengths > 0) & (uy * vx - ux * vy < 0)
    best = np.max(np.where(allowed, cosine, -2.0), axis=1)  # (B, k)
    best[:, -1] = -1.5  # the answer where nothing turns right
    return best
