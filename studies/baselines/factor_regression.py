"""Kernel ridge regression of Cholesky factors of the inverse, the idea of CHONKNORIS.

CHONKNORIS regresses the Cholesky factor R of an inverse, R R^T = (J^T J + lambda I)^-1, and takes Newton's step with
the predicted one [1]_. For the matrices A of a family, divided by their sizes s, that is

    R R^T = (A / s)^-1,         M = R R^T / s,          where all are symmetric and positive definite,
    R R^T = (A^T A / s^2)^-1,   M = R R^T A^T / s^2     otherwise: J = A and lambda = 0.

So M is symmetric and positive definite, or nearly the inverse of the normal equations, whatever is predicted. The
factors are regressed from the entries that the operator head reads, with the kernels of `kernel_ridge`.

Preconditioned by the mean is our addition, since the operator head has it: with Abar = L L^T the factor belongs to
L^-1 A L^-T / s, M = L^-T R R^T L^-1 / s; otherwise to B = Abar^-1 A / s, M = R R^T B^T Abar^-1 / s.

References
----------
.. [1] A. Bacho et al., "Operator learning at machine precision", arXiv:2511.19980 (2025).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import EntrySampler
from algebraformer.numerics.preconditioner import Chosen, shared_matmul
from studies.baselines import kernel_ridge
from studies.baselines.kernel_ridge import VectorRegression


@dataclasses.dataclass(frozen=True)
class FactoredInverse:
    """M = outer R R^T (B^T) inner / s for B matrices.

    Attributes
    ----------
    R : ndarray, shape (B, n, n)
        Lower triangular.
    s : ndarray, shape (B,)
    inner, outer : ndarray, shape (n, n)
        The same for all systems.
    A : ndarray, shape (B, n, n), optional
        The matrices, for factors of the normal equations: B = inner A / s.
    """

    R: FloatArray
    s: FloatArray
    inner: FloatArray
    outer: FloatArray
    A: FloatArray | None = None

    def left(self, r: FloatArray) -> FloatArray:
        """Return inner r (B, n, k); R^T inner r for positive definite A, about the norm of r in A^-1, as in CG."""
        g = shared_matmul(self.inner, r)
        return self.R.transpose(0, 2, 1) @ g if self.A is None else g

    def right(self, g: FloatArray) -> FloatArray:
        """Return M r (B, n, k) from g, what `left` returns of r."""
        s = self.s[:, None, None]
        if self.A is not None:
            g = self.A.transpose(0, 2, 1) @ shared_matmul(self.inner.T, g) / s
            g = self.R.transpose(0, 2, 1) @ g
        return shared_matmul(self.outer, self.R @ g) / s

    def __getitem__(self, chosen: Chosen) -> FactoredInverse:
        """Return the inverses of the chosen systems."""
        A = None if self.A is None else self.A[chosen]
        return FactoredInverse(self.R[chosen], self.s[chosen], self.inner, self.outer, A)


@dataclasses.dataclass(frozen=True)
class FactorForm:
    """Which matrices the factors belong to.

    Attributes
    ----------
    positive : bool
        All matrices are symmetric and positive definite.
    inner, outer : ndarray, shape (n, n)
        See `FactoredInverse`; the identity without preconditioning.
    """

    positive: bool
    inner: FloatArray
    outer: FloatArray

    @classmethod
    def of(cls, A_mean: FloatArray, positive: bool, preconditioned: bool) -> FactorForm:
        """Return the form for a family of mean A_mean (n, n)."""
        identity = np.eye(len(A_mean))
        if not preconditioned:
            return cls(positive, identity, identity)
        if not positive:
            return cls(positive, np.asarray(np.linalg.inv(A_mean), dtype=np.float64), identity)
        inner = scipy.linalg.solve_triangular(np.linalg.cholesky(A_mean), identity, lower=True)
        return cls(positive, inner, inner.T)

    def factors(self, A: FloatArray, s: FloatArray) -> FloatArray:
        """Return R (B, n, n), with a positive diagonal, for matrices A (B, n, n) of sizes s (B,)."""
        B = self.inner @ (A / s[:, None, None]) @ self.outer
        if self.positive:
            return np.linalg.cholesky(np.linalg.inv(B))
        R = np.asarray(np.linalg.qr(np.linalg.inv(B).transpose(0, 2, 1), mode="r")).transpose(0, 2, 1)  # B^-1 = R Q^T
        return np.asarray(R * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :])

    def inverse(self, R: FloatArray, A: FloatArray, s: FloatArray) -> FactoredInverse:
        """Return M for matrices A (B, n, n) of sizes s (B,) from their factors R (B, n, n)."""
        return FactoredInverse(R, s, self.inner, self.outer, None if self.positive else A)


@dataclasses.dataclass(frozen=True)
class FactorRegression:
    """A regression from entries to Cholesky factors.

    Attributes
    ----------
    sampler : EntrySampler
    form : FactorForm
    entries : VectorRegression
        Takes z-scored entries (B, q m) to the lower triangle of R, row by row.
    """

    sampler: EntrySampler
    form: FactorForm
    entries: VectorRegression

    def __call__(self, A: FloatArray) -> FactoredInverse:
        """Return the approximate inverses of the matrices A (B, n, n)."""
        z, s = self.sampler(A)
        s = np.where(s != 0, s, 1.0)
        R = np.zeros_like(A)
        rows, columns = np.tril_indices(A.shape[-1])
        R[:, rows, columns] = self.entries(z.reshape(len(A), -1))
        return self.form.inverse(R, A, s)


def fit(sampler: EntrySampler, form: FactorForm, A: FloatArray, z: NDArray[np.floating]) -> FactorRegression:
    """Fit the factors of matrices A (S, n, n) to their z-scored entries z (S, q m); systems count by 1 / ||R||_F."""
    R = form.factors(A, sampler(A)[1])
    rows, columns = np.tril_indices(A.shape[-1])
    weight = 1 / np.linalg.norm(R, axis=(1, 2))
    return FactorRegression(sampler, form, kernel_ridge.regression(z, R[:, rows, columns], weight))
