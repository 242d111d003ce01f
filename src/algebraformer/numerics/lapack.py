"""LAPACK's LU and Cholesky, by a pool of threads over the systems, with condition estimate and refinement.

Never torch.linalg: its batched LU on the CPU is wrong on several threads for n from about 150 on (torch 2.13 with
MKL; pytorch issues 142815 and 141358).

References
----------
.. [1] E. Anderson et al., "LAPACK Users' Guide", 3rd ed., SIAM (1999): GETRF, GETRS, GECON, POTRF, POTRS, POCON.
.. [2] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 12: fixed-precision
   refinement makes LU with partial pivoting componentwise backward stable.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

from algebraformer.linalg import EPS
from algebraformer.numerics.forward_error import MAX_DEFECT, error_by_condition, forward_error, probe
from algebraformer.numerics.gcr import RefinedSolution, richardson
from algebraformer.passes import has_zero_line
from algebraformer.threads import run, split

MAX_REFINEMENTS = 3
"""Steps of fixed-precision refinement, of which the first is enough as a rule [2]_."""
PROBES = 3
"""Random vectors for the forward error: more than for a network, since here A may have any structure."""
RHS_BLOCK_ENTRIES = 2**20
"""Right-hand sides are solved in blocks of this many entries, by a network too: 8 MB, whatever their number."""
THREADED_MIN_N = 256
"""From this n on a single matrix is left to BLAS and its threads; below, they cost more than they give."""


@dataclasses.dataclass(frozen=True)
class DirectSolution:
    """LAPACK's answers to B systems, and how good they are; of several right-hand sides the worst.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
        NaN for singular systems.
    relative_residual, backward_error : ndarray, shape (B,)
    certified : ndarray of bool, shape (B,)
        See `linalg.is_certified`.
    rcond : ndarray, shape (B,)
        Estimated reciprocal condition number in the 1-norm; 0 for singular systems.
    singular : ndarray of bool, shape (B,)
        A row or column is zero, or elimination met an exact zero pivot.
    forward_error : ndarray, shape (B,)
        Estimate of ||x - x*|| / ||x||, on the high side: by the factors where they invert A, else by the backward error
        over rcond. NaN for singular systems.
    """

    x: NDArray[Any]
    relative_residual: NDArray[np.float64]
    backward_error: NDArray[np.float64]
    certified: NDArray[np.bool_]
    rcond: NDArray[np.float64]
    singular: NDArray[np.bool_]
    forward_error: NDArray[np.float64]


def solve(
    A: NDArray[Any],
    b: NDArray[Any],
    rtol: float | None = None,
    singular: NDArray[np.bool_] | None = None,
    factors: list[Factors | None] | None = None,
    assume_a: str = "gen",
    transpose: bool = False,
) -> DirectSolution:
    """Solve B systems with k right-hand sides each by LU with partial pivoting, or by Cholesky.

    An answer that misses the certificate (see `linalg.is_certified`) is refined in float64 with the same factors, up
    to three times and only while its backward error falls.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128, finite
    b : ndarray, shape (B, n, k), the same dtype
    rtol : float, optional
        Tolerance of the certificate.
    singular : ndarray of bool, shape (B,), optional
        What `passes.has_zero_line` returns for A; computed here if None.
    factors : list of length B, optional
        Factors of A from an earlier call, None for systems that have not been factorised; those are filled in.
    assume_a : str
        "gen" or "pos", see `Factors.of`.
    transpose : bool
        Solve A^T x = b, by the factors of A.

    Returns
    -------
    DirectSolution

    Examples
    --------
    >>> import numpy as np
    >>> solve(np.array([[[2.0, 0.0], [0.0, 4.0]]]), np.ones((1, 2, 1))).x.ravel()
    array([0.5 , 0.25])
    """
    B, n, k = b.shape
    x = np.full_like(b, np.nan)
    relative, omega, error = (np.zeros(B) for _ in range(3))
    if b.size == 0:
        return DirectSolution(x, relative, omega, np.ones(B, bool), np.ones(B), np.zeros(B, bool), error)
    rcond, certified = np.zeros(B), np.zeros(B, dtype=bool)
    singular = has_zero_line(A) if singular is None else singular.copy()

    def solve_one(i: int) -> None:
        # 1. Factorise, unless that is known to fail or has been done.
        lu = None if factors is None else factors[i]
        if lu is None and not singular[i]:
            lu = Factors.of(A[i], assume_a)
            if factors is not None:
                factors[i] = lu
        if lu is None or lu.singular:
            singular[i], relative[i], omega[i], error[i] = True, np.inf, np.inf, np.nan
            return
        rcond[i], certified[i] = lu.rcond, True
        matrix = A[i]
        if transpose:
            lu, matrix = dataclasses.replace(lu, transposed=True), matrix.T

        # 2. Solve and refine, block by block of right-hand sides.
        step = max(1, RHS_BLOCK_ENTRIES // n)
        for columns in (slice(j, j + step) for j in range(0, k, step)):
            solution = lu.solve(matrix, b[i, :, columns], rtol)
            x[i, :, columns] = solution.x[0]
            certified[i] &= solution.certified[0]
            relative[i] = max(relative[i], solution.relative_residual[0])
            omega[i] = max(omega[i], solution.backward_error[0])
            error[i] = max(error[i], lu.forward_error(solution))

    def solve_some(systems: slice) -> None:
        for i in range(systems.start, systems.stop):
            solve_one(i)

    if B == 1 and n >= THREADED_MIN_N:
        solve_one(0)
    else:
        run(solve_some, split(B, n * n, B))
    return DirectSolution(x, relative, omega, certified, rcond, singular, error)


class LogDeterminant(NamedTuple):
    """det A = sign * exp(logabsdet), in the words of numpy.linalg.slogdet."""

    sign: Any
    """1 or -1, of complex matrices a complex number of modulus one; 0 for a singular matrix."""
    logabsdet: Any
    """log |det A|; -infinity for a singular matrix."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """LU of one matrix with partial pivoting, or the Cholesky factor of a positive definite one.

    Attributes
    ----------
    factor : ndarray, shape (n, n)
        L and U, or the lower triangular L with A^T = L L^H: A^T, since LAPACK stores matrices by columns.
    pivots : ndarray of int, shape (n,), or None
        None for a Cholesky factor.
    rcond : float
        Estimated reciprocal condition number in the 1-norm.
    singular : bool
        Elimination met an exact zero pivot.
    defect : float
        ||g - inv(A) A g|| of one random vector g of length one: small where the factors invert A.
    unit : float
        Power of two that A was multiplied by: less than one where sums of its entries would overflow.
    transposed : bool
        They are used as factors of A^T.
    """

    factor: NDArray[Any]
    pivots: NDArray[np.int32] | None
    rcond: float
    singular: bool
    defect: float = 1.0
    unit: float = 1.0
    transposed: bool = False

    @classmethod
    def of(cls, A: NDArray[Any], assume_a: str = "gen") -> Factors:
        """Factorise A (n, n) and estimate its condition.

        With `assume_a="pos"` by Cholesky, in half the operations; by LU where A is not Hermitian to rounding, or the
        factorisation shows that it is not positive definite.
        """
        lapack = _routines(A.dtype.char)
        with np.errstate(over="ignore"):
            columns, unit = np.sum(np.abs(A), axis=0), 1.0
        if not np.isfinite(columns).all():
            unit = 2.0 ** -np.ceil(np.log2(2 * len(A)))
            A = A * unit
            columns = np.sum(np.abs(A), axis=0)
        norm, g, factors = np.max(columns), probe(len(A)), None
        with np.errstate(over="ignore", invalid="ignore"):  # sums along the rows may overflow as well
            Ag, hermitian = A @ g, assume_a == "pos"
            if hermitian:
                skew = np.abs(Ag - (A.T @ g).conj())[:, 0]
                hermitian = bool((skew <= len(A) * EPS * columns * np.abs(g).max()).all())
        if hermitian:
            L, info = lapack.potrf(A.T, lower=1, clean=0)
            if info == 0:
                factors = cls(L, None, float(lapack.pocon(L, norm, uplo="L")[0]), False, unit=unit)
        if factors is None:
            lu, pivots, info = lapack.getrf(A)
            if info > 0:
                return cls(lu, pivots, 0.0, True, unit=unit)
            factors = cls(lu, pivots, float(lapack.gecon(lu, norm)[0]), False, unit=unit)

        with np.errstate(all="ignore"):
            defect = float(np.linalg.norm(g - factors.inverse(Ag / unit)))
        return dataclasses.replace(factors, defect=defect if np.isfinite(defect) else 1.0)

    def inverse(self, v: NDArray[Any]) -> NDArray[Any]:
        """Return inv(A) v (n, k) by the factors, or inv(A^T) v; NaN throughout where v is not finite."""
        v = v.astype(self.factor.dtype, copy=False)
        if not np.isfinite(v).all():
            return np.full_like(v, np.nan)
        lapack = _routines(self.factor.dtype.char)
        if self.pivots is None:
            solution = lapack.potrs(self.factor, v if self.transposed else v.conj(), lower=1)[0]
            solution = solution if self.transposed else solution.conj()  # A is conj(A^T)
        else:
            solution = lapack.getrs(self.factor, self.pivots, v, trans=int(self.transposed))[0]
        return solution if self.unit == 1.0 else solution * self.unit

    def logdet(self) -> LogDeterminant:
        """Return sign and logarithm of the determinant of A."""
        if self.singular:
            return LogDeterminant(0.0, -np.inf)
        diagonal = np.diagonal(self.factor)
        size = float(np.sum(np.log(np.abs(diagonal)))) - len(diagonal) * np.log(self.unit)
        if self.pivots is None:
            return LogDeterminant(1.0, size + float(np.sum(np.log(np.abs(diagonal)))))
        swaps = np.count_nonzero(self.pivots != np.arange(len(diagonal)))
        return LogDeterminant((-1) ** swaps * np.prod(diagonal / np.abs(diagonal)), size)

    def batched_inverse(self, v: NDArray[Any]) -> NDArray[Any]:
        """Return inv(A) v (1, n, k) for v (1, n, k)."""
        return self.inverse(v[0])[None]

    def solve(self, A: NDArray[Any], b: NDArray[Any], rtol: float | None) -> RefinedSolution:
        """Return x (1, n, k), refined where it misses the certificate, with its measures."""
        return richardson(A[None], b[None], lambda _, r: self.batched_inverse(r), rtol, MAX_REFINEMENTS)

    def forward_error(self, solution: RefinedSolution) -> float:
        """Return the estimated error of x (1, n, k), the largest over the right-hand sides."""
        x = solution.x
        if self.defect <= MAX_DEFECT:
            defects = np.array([self.defect])
            return float(forward_error(self.batched_inverse, x, solution.measures, defects, PROBES)[0])
        # The factors miss directions in which A is singular to working precision; the condition number does not.
        omega = solution.backward_error
        trivial = not x.any() and omega[0] == 0
        return float(error_by_condition(trivial, omega, self.rcond, x.shape[1])[0])


class _Routines(NamedTuple):
    """LAPACK's routines for one kind of numbers."""

    getrf: Any
    gecon: Any
    getrs: Any
    potrf: Any
    pocon: Any
    potrs: Any


@functools.cache
def _routines(kind: str) -> _Routines:
    """Return LAPACK's routines for this kind of numbers: to look them up takes longer than a small LU."""
    return _Routines(*get_lapack_funcs(_Routines._fields, dtype=kind))
