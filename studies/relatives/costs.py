"""Floating-point operations for one system, a multiplication and an addition being two; lower orders are left out.

Reading q m entries is a whitening, 2 (q m)^2, where there is one. A kernel compares d components with N samples, 2 N d,
after a projection, 2 q m d, and adds up N weights of R outputs, 2 N R. Forming a combination of R operators takes
2 R n^2. Interpolation multiplies R operators with a sketch of k columns, 2 R n^2 k, and solves least squares with n k
rows, 2 n k R^2. A triangular factor is applied in n^2, a full matrix in 2 n^2, LU takes 2/3 n^3 + 2 n^2.
"""

from __future__ import annotations

import dataclasses

from algebraformer.numerics.operator_basis import OperatorBasis
from studies.baselines.kernel_ridge import VectorRegression


@dataclasses.dataclass(frozen=True)
class Cost:
    """Operations for one system.

    Attributes
    ----------
    setup : float
        To make M, once.
    apply : float
        To multiply a vector by M.
    """

    setup: float
    apply: float

    def solve(self, n: int, refinements: float) -> float:
        """Return the operations of a refined answer: one product with A and one with M per step."""
        return self.setup + (1 + refinements) * (self.apply + 2 * n**2)


def lu(n: int) -> float:
    """Return the operations of a factorisation and its solution."""
    return 2 / 3 * n**3 + 2 * n**2


def reading(basis: OperatorBasis) -> float:
    """Return the operations of reading entries."""
    whitening = basis.sampler.whitening
    return 0.0 if whitening is None else 2.0 * whitening.size


def head(basis: OperatorBasis, parameters: int) -> Cost:
    """Return the cost of an operator head with one token."""
    n = len(basis.A_mean)
    return Cost(reading(basis) + 2.0 * parameters + 2.0 * basis.rank * n**2, 4.0 * n**2)


def kernel(regression: VectorRegression) -> float:
    """Return the operations of a prediction."""
    (N, d), entries = regression.features.shape, len(regression.mean)
    return 2.0 * entries * d + 2.0 * N * d + 2.0 * N * regression.weights.shape[1]


def coefficients(basis: OperatorBasis, regression: VectorRegression) -> Cost:
    """Return the cost of a kernel regression of coefficients."""
    n = len(basis.A_mean)
    return Cost(reading(basis) + kernel(regression) + 2.0 * basis.rank * n**2, 4.0 * n**2)


def factors(n: int, regression: VectorRegression, positive: bool, preconditioned: bool) -> Cost:
    """Return the cost of a kernel regression of Cholesky factors: R R^T, A^T, and what the mean adds."""
    mean = (2.0 if positive else 4.0) * n**2 if preconditioned else 0.0  # two triangles, or a matrix and its transpose
    return Cost(kernel(regression), 2.0 * n**2 + (0.0 if positive else 2.0 * n**2) + mean)


def trunk(n: int, k: int, smoother: float) -> Cost:
    """Return the cost of a two-level method with k coarse functions."""
    return Cost(2.0 * n**2 * k + 2.0 * n * k**2 + 2.0 * k**3, 6.0 * n * k + 2.0 * k**2 + smoother)


def snapshots(n: int, count: int, columns: int) -> Cost:
    """Return the cost of interpolating so many inverses by a sketch."""
    sketch = 2.0 * (2 + count) * n**2 * columns
    return Cost(sketch + 2.0 * n * columns * count**2 + 2.0 * count * n**2, 4.0 * n**2)


def nearest(n: int, entries: int) -> Cost:
    """Return the cost of finding the nearest sample among so many entries of all samples."""
    return Cost(2.0 * entries, 4.0 * n**2)
