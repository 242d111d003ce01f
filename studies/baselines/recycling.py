"""A sequence of systems that change slowly: one stale factorisation, and a subspace that is recycled.

The LU factors of an earlier matrix precondition the later ones, and GCROT(m, k) carries the directions that it found
most useful from one system to the next [1]_. Answers are certified; a matrix whose factors need too many products gets
new ones. One system at a time: the next one is not known yet.

References
----------
.. [1] J. E. Hicken and D. W. Zingg, "A simplified and flexible variant of GCROT for solving nonsymmetric linear
   systems", SIAM J. Sci. Comput. 32 (2010): scipy.sparse.linalg.gcrotmk.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, gcrotmk

from algebraformer.linalg import EPS, FloatArray, backward_error

INNER, KEPT = 20, 5
"""Inner iterations of GCROT and directions that it keeps: a factorisation is faster than much more."""


@dataclasses.dataclass(frozen=True)
class Sequence:
    """Answers to a sequence of systems.

    Attributes
    ----------
    x : ndarray, shape (L, n)
    products : ndarray of int, shape (L,)
        Products with the stale factors, 0 where the matrix was factorised.
    """

    x: FloatArray
    products: FloatArray

    @property
    def factorisations(self) -> int:
        """Number of matrices that were factorised."""
        return int(np.sum(self.products == 0))


def solve_sequence(A: FloatArray, b: FloatArray) -> Sequence:
    """Solve L systems, one after the other, to a backward error of at most n eps.

    Parameters
    ----------
    A : ndarray, shape (L, n, n)
    b : ndarray, shape (L, n)

    Examples
    --------
    >>> import numpy as np
    >>> A = np.eye(4) + 0.01 * np.arange(6.0)[:, None, None] * np.diag([1.0, 2.0, 3.0], 1)
    >>> found = solve_sequence(A, np.ones((6, 4)))
    >>> found.factorisations, bool(np.allclose((A @ found.x[..., None])[..., 0], 1))
    (1, True)
    """
    n = A.shape[-1]
    x, products = np.empty_like(b), np.zeros(len(A))
    factors = None
    kept: list[tuple[FloatArray | None, FloatArray]] = []
    for i in range(len(A)):
        answer = None
        if factors is not None:
            answer, products[i] = _preconditioned(A[i], b[i], factors, kept)
        if answer is None or backward_error(A[i], b[i][:, None], answer[:, None])[0] > n * EPS:
            factors, products[i], kept = scipy.linalg.lu_factor(A[i].T), 0, []
            answer = scipy.linalg.lu_solve(factors, b[i], trans=1)
        x[i] = answer
    return Sequence(x, products)


def _preconditioned(
    A: FloatArray,
    b: FloatArray,
    factors: tuple[FloatArray, FloatArray],
    kept: list[tuple[FloatArray | None, FloatArray]],
) -> tuple[FloatArray, int]:
    """Return x (n,) by at most two cycles with factors of another matrix, and the number of products with these.

    The second cycle starts from the true residual of the first. `kept` holds the recycled directions, and is changed.
    """
    count = 0

    def stale(v: FloatArray) -> FloatArray:
        nonlocal count
        count += 1
        return np.asarray(scipy.linalg.lu_solve(factors, v, trans=1, check_finite=False))

    n = len(b)
    M = LinearOperator((n, n), matvec=stale, dtype=np.float64)
    tolerance = 0.5 * n * EPS
    x, _ = gcrotmk(A, b, rtol=tolerance, maxiter=1, M=M, m=INNER, k=KEPT, CU=kept, discard_C=True)
    if backward_error(A, b[:, None], x[:, None])[0] > n * EPS:
        r = b - A @ x
        step, _ = gcrotmk(A, r, rtol=np.sqrt(tolerance), maxiter=1, M=M, m=INNER, k=KEPT, CU=kept, discard_C=True)
        x = x + step
    return x, count
