"""Test matrices from the literature, most of them in Higham's Test Matrix Toolbox, and kernel matrices.

`GALLERY` has a function of (n, rng) for every name; those with a parameter draw it from the generator. Indices i and j
in the formulas start at 1.

References
----------
.. [1] N. J. Higham, "The Test Matrix Toolbox for MATLAB (version 3.0)", Numerical Analysis Report 276, Manchester
   Centre for Computational Mathematics (1995).
.. [2] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 28.
.. [3] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press (2006), chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.special import factorial

from algebraformer.problems.chebyshev import differentiation_matrix, points
from algebraformer.problems.sampling import log_uniform

Array = NDArray[np.float64]
Generator = np.random.Generator


def _formula(entries: Callable[[Any, Any, int], Any]) -> Callable[[int, Generator], Array]:
    """Return a matrix without parameters whose entries are a formula of i (n, 1), j (1, n) and n."""
    return lambda n, rng: entries(np.arange(1.0, n + 1)[:, None], np.arange(1.0, n + 1), n) * np.ones((n, n))


def tridiagonal(lower: Any, diagonal: Any, upper: Any, *, n: int) -> Array:
    """Return the tridiagonal matrix with these numbers, or arrays (n - 1,), (n,) and (n - 1,), on its diagonals."""
    return sum(
        np.diag(np.broadcast_to(values, n - abs(k)).astype(float), k)
        for k, values in ((-1, lower), (0, diagonal), (1, upper))
    )  # type: ignore[return-value]


def upper_triangular(alpha: float, n: int) -> Array:
    """Return ones on the diagonal and alpha above it (triw)."""
    return np.eye(n) + alpha * np.triu(np.ones((n, n)), 1)


def kahan(theta: float, n: int) -> Array:
    """Return diag(1, s, ..., s^(n-1)) triw(-c), c = cos(theta), s = sin(theta)."""
    return np.sin(theta) ** np.arange(n)[:, None] * upper_triangular(-np.cos(theta), n)


def magic(n: int) -> Array:
    """Return the magic square of order n, a multiple of 4: rank 3."""
    numbers = np.arange(1.0, n * n + 1).reshape(n, n)
    corner = np.isin(np.arange(n) % 4, (0, 3))
    return np.where(corner[:, None] == corner, n * n + 1 - numbers, numbers)


def dorr(theta: float, n: int) -> Array:
    """Return Dorr's matrix: upwind differences of a singularly perturbed problem; row sums 0 except at the ends."""
    i, h = np.arange(1.0, n + 1), 1 / (n + 1)
    diffusion, drift = theta / h**2, (0.5 - np.arange(1.0, n + 1) * h) / h
    left = i <= (n + 1) // 2
    lower = -diffusion + np.where(left, 0.0, drift)
    upper = -diffusion - np.where(left, drift, 0.0)
    return tridiagonal(lower[1:], -(lower + upper), upper[:-1], n=n)


def involutory(n: int) -> Array:
    """Return a matrix whose square is the identity, made from Hilbert's (invol)."""
    A, d = scipy.linalg.hilbert(n), -float(n)
    A[:, 0] *= d
    for i in range(1, n):
        d = -(n + i) * (n - i) * d / i**2
        A[i] *= d
    return A


def largest_growth(n: int) -> Array:
    """Return Wilkinson's matrix for which the pivots of elimination with partial pivoting grow to 2^(n-1) (gfpp)."""
    A = np.eye(n) - np.tril(np.ones((n, n)), -1)
    A[:, -1] = 1.0
    return A


def random_orthogonal(n: int, rng: Generator) -> Array:
    """Return an orthogonal matrix from the QR factorisation of a Gaussian one."""
    return np.linalg.qr(rng.standard_normal((n, n)))[0].astype(np.float64, copy=False)


def randsvd(n: int, rng: Generator, mode: int, kappa: float) -> Array:
    """Return a random matrix with condition number kappa; modes of its singular values in Higham's numbering.

    1: one large, 2: one small, 3: geometric, 4: arithmetic, 5: random with uniform logarithm.
    """
    k = np.arange(n) / (n - 1)
    sigma = {
        1: np.where(k == 0, 1.0, 1 / kappa),
        2: np.where(k == 1, 1 / kappa, 1.0),
        3: kappa**-k,
        4: 1 - (1 - 1 / kappa) * k,
        5: kappa ** -rng.random(n),
    }[mode]
    return np.asarray(random_orthogonal(n, rng) * sigma @ random_orthogonal(n, rng))


def poisson(n: int) -> Array:
    """Return the five-point Laplacian on a square grid of n points, n a square number."""
    side = round(n**0.5)
    T = tridiagonal(-1, 2, -1, n=side)
    return np.kron(T, np.eye(side)) + np.kron(np.eye(side), T)


def chebyshev_vandermonde(p: Array) -> Array:
    """Return T_(i-1)(p_j) (chebvand)."""
    return np.cos(np.arange(len(p))[:, None] * np.arccos(p))


GALLERY: dict[str, Callable[[int, Generator], Array]] = {
    "cauchy": _formula(lambda i, j, n: 1 / (i + j)),
    "chebspec": lambda n, rng: differentiation_matrix(n + 1)[1:, 1:].copy(),
    "chebvand, equispaced": lambda n, rng: chebyshev_vandermonde(np.linspace(-1, 1, n)),
    "chebvand, random": lambda n, rng: chebyshev_vandermonde(rng.uniform(-1, 1, n)),
    "circulant": lambda n, rng: scipy.linalg.circulant(rng.standard_normal(n)),
    "clement": lambda n, rng: tridiagonal(np.arange(1, n), 0, np.arange(n - 1, 0, -1), n=n),
    "companion": lambda n, rng: scipy.linalg.companion(np.append(1.0, rng.standard_normal(n))),
    "dorr": lambda n, rng: dorr(log_uniform(rng, (1e-3, 1.0)), n),
    "fiedler": _formula(lambda i, j, n: abs(i - j)),
    "forsythe": lambda n, rng: np.diag(np.ones(n - 1), 1) + np.diag([log_uniform(rng, (1e-16, 1.0))], 1 - n),
    "frank": _formula(lambda i, j, n: np.where(j >= i - 1, n + 1 - np.maximum(i, j), 0)),
    "grcar": _formula(lambda i, j, n: np.where((j - i >= 0) & (j - i <= 3), 1.0, 0.0) - (i - j == 1)),
    "growth": lambda n, rng: largest_growth(n),
    "hadamard": lambda n, rng: scipy.linalg.hadamard(n, dtype=float),
    "hankel": lambda n, rng: scipy.linalg.hankel(rng.standard_normal(n), rng.standard_normal(n)),
    "helmert": lambda n, rng: scipy.linalg.helmert(n, full=True),
    "hilbert": _formula(lambda i, j, n: 1 / (i + j - 1)),
    "invhilbert": lambda n, rng: scipy.linalg.invhilbert(n),
    "invol": lambda n, rng: involutory(n),
    "ipjfact": _formula(lambda i, j, n: factorial(i + j)),
    "jordbloc": lambda n, rng: tridiagonal(0, log_uniform(rng, (1e-1, 2.0)), 1, n=n),
    "kahan": lambda n, rng: kahan(rng.uniform(0.3, 1.5), n),
    "kms": lambda n, rng: scipy.linalg.toeplitz((1 - log_uniform(rng, (1e-8, 1.0))) ** np.arange(n)),
    "lehmer": _formula(lambda i, j, n: np.minimum(i, j) / np.maximum(i, j)),
    "leslie": lambda n, rng: scipy.linalg.leslie(rng.random(n), rng.random(n - 1)),
    "lesp": lambda n, rng: tridiagonal(1 / np.arange(2, n + 1), -np.arange(5, 2 * n + 4, 2), np.arange(2, n + 1), n=n),
    "lotkin": _formula(lambda i, j, n: np.where(i == 1, 1.0, 1 / (i + j - 1))),
    "magic": lambda n, rng: magic(n),
    "minij": _formula(lambda i, j, n: np.minimum(i, j)),
    "moler": _formula(lambda i, j, n: np.where(i == j, i, np.minimum(i, j) - 2)),
    "parter": _formula(lambda i, j, n: 1 / (i - j + 0.5)),
    "pascal": lambda n, rng: scipy.linalg.pascal(n, exact=False),
    "pascal, lower": lambda n, rng: scipy.linalg.pascal(n, kind="lower", exact=False),
    "pei": lambda n, rng: np.ones((n, n)) + log_uniform(rng, (1e-14, 1.0)) * np.eye(n),
    "poisson": lambda n, rng: poisson(n),
    "prolate": lambda n, rng: scipy.linalg.toeplitz(2 * (w := rng.uniform(0.05, 0.45)) * np.sinc(2 * w * np.arange(n))),
    "rando": lambda n, rng: rng.integers(-1, 2, (n, n)).astype(float),
    "redheff": _formula(lambda i, j, n: ((j == 1) | (j % i == 0)).astype(float)),
    "riemann": _formula(lambda i, j, n: np.where((j + 1) % (i + 1) == 0, i, -1.0)),
    "ris": _formula(lambda i, j, n: 0.5 / (n - i - j + 1.5)),
    "toeplitz": lambda n, rng: scipy.linalg.toeplitz(rng.standard_normal(n), rng.standard_normal(n)),
    "triw": lambda n, rng: upper_triangular(-rng.uniform(0.1, 2), n),
    "tridiagonal": lambda n, rng: tridiagonal(*rng.uniform(-2, 2, 3), n=n),
    "second difference": lambda n, rng: tridiagonal(-1, 2, -1, n=n),
    "vandermonde, equispaced": lambda n, rng: np.vander(np.linspace(0, 1, n), increasing=True),
    "vandermonde, Chebyshev": lambda n, rng: np.vander(points(n), increasing=True),
    "vandermonde, random": lambda n, rng: np.vander(rng.uniform(-1, 1, n), increasing=True),
    "wilkinson": lambda n, rng: tridiagonal(1, abs(np.arange(n) - (n - 1) / 2), 1, n=n),
} | {
    f"randsvd, mode {mode}": partial(
        lambda n, rng, mode: randsvd(n, rng, mode, log_uniform(rng, (1.0, 1e17))), mode=mode
    )
    for mode in range(1, 6)
}

# ---------------------------------------------------------------- kernels

GRIDS: dict[str, Callable[[int, Generator], Array]] = {
    "equispaced": lambda n, rng: np.linspace(0, 1, n)[:, None],
    "Chebyshev": lambda n, rng: points(n)[:, None].copy(),
    "random": lambda n, rng: rng.random((n, 1)),
    "random in the plane": lambda n, rng: rng.random((n, 2)),
}
"""Points (n, d)."""

KERNELS: dict[str, Callable[[Array, Array, Generator], Array]] = {
    "RBF": lambda d, p, rng: np.exp(-(d**2) / 2),
    "Matern 1/2": lambda d, p, rng: np.exp(-d),
    "Matern 3/2": lambda d, p, rng: (1 + 3**0.5 * d) * np.exp(-(3**0.5) * d),
    "Matern 5/2": lambda d, p, rng: (1 + 5**0.5 * d + 5 * d**2 / 3) * np.exp(-(5**0.5) * d),
    "rational quadratic": lambda d, p, rng: 1 / (1 + d**2 / 2),
    "cosine": lambda d, p, rng: 1 + np.cos(d),
    "periodic": lambda d, p, rng: np.exp(-2 * np.sin(np.pi * d) ** 2),
    "polynomial": lambda d, p, rng: (1 + p @ p.T) ** int(rng.integers(2, 6)),
    "linear": lambda d, p, rng: log_uniform(rng, (1e-3, 1e3)) + p @ p.T,
}
"""Kernel matrices (n, n) from distances d (n, n) and points p (n, dimension), both per unit of length."""


def kernel_matrix(kernel: str, grid: str, length: float, jitter: float, n: int, rng: Generator) -> Array:
    """Return k(|p_i - p_j| / length) + jitter I, for dot-product kernels k(p_i . p_j / length^2) + jitter I.

    Examples
    --------
    >>> import numpy as np
    >>> kernel_matrix("RBF", "equispaced", length=1.0, jitter=0.5, n=2, rng=np.random.default_rng(0)).round(3)
    array([[1.5  , 0.607],
           [0.607, 1.5  ]])
    """
    p = GRIDS[grid](n, rng) / length
    distance = np.linalg.norm(p[:, None] - p, axis=-1)
    return KERNELS[kernel](distance, p, rng) + jitter * np.eye(n)
