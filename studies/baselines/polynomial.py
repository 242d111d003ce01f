"""The coefficients of an operator basis by polynomial ridge regression instead of a network.

The entries that are read lie near a surface of few dimensions. Their first principal components, scaled to [-1, 1],
are the variables of all monomials up to a total degree; the coefficients are linear in these, by ridge regression. The
number of variables, the degree and the ridge parameter are those with the least error on held-out samples. Products of
Chebyshev polynomials stand for the monomials: they span the same space and are far better conditioned.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse
from algebraformer.progress import batches

VARIABLES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Numbers of principal components that are tried."""
MAX_MONOMIALS, MAX_DEGREE = 1500, 40
RIDGES = (1e-13, 1e-10, 1e-7)
"""Ridge parameters that are tried, relative to the mean square of a monomial."""
TRIED_ON = 20_000
"""Samples that the choice is made on, one in five of them held out; the final fit uses all."""
CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class CoefficientRegression:
    """A polynomial from entries to coefficients.

    Attributes
    ----------
    basis : OperatorBasis
    mean : ndarray, shape (q m,)
        Of the z-scored entries.
    projection : ndarray, shape (q m, d)
        Principal components, scaled.
    exponents : ndarray of int, shape (F, d)
        Degrees of the monomials in each variable.
    weights : ndarray, shape (F, R)
    ridge : float
        The parameter that was chosen.
    """

    basis: OperatorBasis
    mean: FloatArray
    projection: FloatArray
    exponents: NDArray[np.int64]
    weights: FloatArray
    ridge: float

    def __call__(self, A: FloatArray) -> ApproximateInverse:
        """Return the approximate inverses of the matrices A (B, n, n)."""
        z, s = self.basis.sampler(A)
        return self.basis.inverse_of(self.coefficients(z.reshape(len(A), -1)), s)

    def coefficients(self, z: FloatArray) -> FloatArray:
        """Return the coefficients (B, R) from z-scored entries (B, q m)."""
        parts = [
            monomials((z[i : i + CHUNK] - self.mean) @ self.projection, self.exponents) @ self.weights
            for i in range(0, len(z), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.weights.shape[1]))


def fit(basis: OperatorBasis, z: NDArray[np.floating], c: FloatArray, weight: FloatArray) -> CoefficientRegression:
    """Choose variables, degree and ridge parameter on held-out samples, then fit to all samples.

    Parameters
    ----------
    basis : OperatorBasis
    z : ndarray, shape (S, q m)
        Entries of S samples, S at least 10; see `OperatorBasis.coefficients` for these three.
    c : ndarray, shape (S, R)
    weight : ndarray, shape (S,)

    Returns
    -------
    CoefficientRegression
    """
    # 1. Principal components, scaled to [-1, 1].
    mean = z.mean(axis=0, dtype=np.float64)
    centred = z - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    y = centred @ vectors[:, ::-1][:, : max(VARIABLES)]
    reach = np.abs(y).max(axis=0)
    scale = 1 / np.where(reach > 0, reach, 1.0)
    y *= scale

    # 2. The choice of d, degree and ridge parameter on held-out samples.
    tried = min(TRIED_ON, len(y))
    part, held = slice(0, tried - tried // 5), slice(tried - tried // 5, tried)
    best = (np.inf, 0, 0, 0.0)
    for d in sorted({min(d, y.shape[1]) for d in VARIABLES}):
        top = highest_degree(d, min(MAX_MONOMIALS, tried // 4))
        powers = exponents(d, top)
        gram, moment = _sums(y[part, :d], c[part], weight[part], powers)
        seen = monomials(y[held, :d], powers)
        for degree, ridge in itertools.product(range(1, top + 1), RIDGES):
            count = math.comb(d + degree, degree)
            try:
                weights = _solved(gram[:count, :count], moment[:count], ridge)
            except np.linalg.LinAlgError:  # dependent to float64's last digits: this parameter is too small
                continue
            error = np.sum((seen[:, :count] @ weights - c[held]) ** 2 * weight[held, None] ** 2)
            best = min(best, (float(error), d, degree, ridge))

    # 3. The fit to all samples.
    _, d, degree, ridge = best
    powers = exponents(d, degree)
    weights = _solved(*_sums(y[:, :d], c, weight, powers), ridge)
    return CoefficientRegression(basis, mean, vectors[:, ::-1][:, :d] * scale[:d], powers, weights, ridge)


def highest_degree(d: int, limit: int) -> int:
    """Return the highest total degree with at most `limit` monomials in d variables, but 1 at least."""
    return max([1, *(p for p in range(1, MAX_DEGREE + 1) if math.comb(d + p, p) <= limit)])


def exponents(d: int, degree: int) -> NDArray[np.int64]:
    """Return the degrees in each variable (F, d) of all monomials up to a total degree, which ascends.

    Examples
    --------
    >>> exponents(2, 2).tolist()
    [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]
    """
    rows = [
        np.bincount(np.array(factors, dtype=np.int64), minlength=d)
        for total in range(degree + 1)
        for factors in itertools.combinations_with_replacement(range(d), total)
    ]
    return np.array(rows)


def monomials(y: FloatArray, powers: NDArray[np.int64]) -> FloatArray:
    """Return products of Chebyshev polynomials (B, F) of the variables y (B, d), of the given degrees (F, d)."""
    T = np.polynomial.chebyshev.chebvander(y, int(powers.max(initial=0)))  # (B, d, degree + 1)
    values = np.ones((len(y), len(powers)))
    for variable in range(y.shape[1]):
        used = np.flatnonzero(powers[:, variable])
        values[:, used] *= T[:, variable, powers[used, variable]]
    return values


def _sums(y: FloatArray, c: FloatArray, weight: FloatArray, powers: NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return the weighted Gram matrix (F, F) of the monomials and their products with c (F, R)."""
    gram, moment = np.zeros((len(powers), len(powers))), np.zeros((len(powers), c.shape[1]))
    for chunk in batches(len(y), CHUNK):
        rows = slice(chunk.start, chunk.stop)
        basis_values = monomials(y[rows], powers) * weight[rows, None]
        gram += basis_values.T @ basis_values
        moment += basis_values.T @ (c[rows] * weight[rows, None])
    return gram, moment


def _solved(gram: FloatArray, moment: FloatArray, ridge: float) -> FloatArray:
    """Solve the normal equations, monomials scaled to mean square one, for weights (F, R)."""
    size = np.sqrt(gram.diagonal())
    unit = 1 / np.where(size > 0, size, 1.0)
    scaled = gram * unit[:, None] * unit + ridge * np.eye(len(gram))
    factor = scipy.linalg.cho_factor(scaled, lower=True)
    return np.asarray(scipy.linalg.cho_solve(factor, moment * unit[:, None]) * unit[:, None])
