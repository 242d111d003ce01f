"""The inverses of a family in few numbers: scaled by the diagonal, a low rank and a few rows shared by all systems.

With scalings from the diagonal of A, see `LowRankBasis.read`, let Abar be the mean of the scaled matrices l2 A l1. What
is left to learn, E(A) = (l2 A l1)^-1 Abar - I, is small where the family is local and smooth, and the inverse is

    A^-1 is about M(A) = l1 (I + U C(A) V^T + sum_j diag(d_j(A)) H_j) Abar^-1 l2.

U and V (n, p) span the leading left and right singular vectors of E over the family, and row i of H_1 ... H_J (n, n)
holds the principal components of what the low rank leaves of row i of E. All four are the same for all systems: for a
differential equation of second order the low rank is the smooth part of Green's function, and the rows are its kink.

C and d are in turn principal components of the family,

    (C, d)(A) = (C, d)_0 + sum_r c_r(A) (C, d)_r,

orthonormal as matrices U C V^T + sum_j diag(d_j) H_j. So c is to these what it is to the dense operators of
`operator_basis`: a projection of E, predicted from the same entries, with the same loss. Nothing of size n^2 is formed
for any system, and all products with the shared matrices are products of two matrices.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, FloatArray
from algebraformer.numerics.entry_sampler import Entries, EntrySampler, select_entries
from algebraformer.numerics.operator_basis import preconditioned_inverse, read_count
from algebraformer.numerics.preconditioner import Chosen, linear_combination, shared_matmul, to_scaled_float32
from algebraformer.numerics.shared_factors import Factors, PairAlgebra, fit_factors
from algebraformer.progress import ProgressCallback, batches, silent

SNAPSHOTS_PER_COMPONENT, MAX_SNAPSHOTS = 8, 2048
"""Samples per component that C and d are known from, and their largest number."""
KEPT_ENTRIES, MAX_KEPT = 2**27, 512
"""Entries of E that are kept in memory while U, V and H are computed, 512 MB in float32, and most samples of it."""
MAX_DIAGONAL_RANGE = 1e6
"""Diagonals that vary over the family by more than this factor, or change sign, are no scaling."""
DIAGONAL_MARGIN = 2.0
"""Other matrices are scaled by this much more than any of the family."""
DIAGONAL_BLOCK = 16
"""Rows and columns that are asked for at a time where a matrix computes its entries on demand."""


@dataclasses.dataclass(frozen=True)
class LowRankBasis:
    """What `fit` learns of a family.

    Attributes
    ----------
    sampler : EntrySampler
    A_mean, inverse : ndarray, shape (n, n), float64
        Abar, whose entries are values of float32, and Abar^-1.
    scaling_range : ndarray, shape (2,)
        Least and largest Abar_ii s / A_ii that matrices are scaled by; (1, 1) where only s counts.
    factors : Factors
        U, V and H.
    operators : ndarray, shape (1 + R, p p + J n), float32
        C and d of the mean and of the components: C row by row, then d_1 ... d_J. Those of components are values of
        float16.
    coefficient_rms : ndarray, shape (R,), float64
        Root mean square over the family of c_r / ||I + E||_F, the weighted coefficients.
    scale : float
        Typical ||I + E||_F: the reciprocal root mean square of the weights 1 / ||I + E||_F.
    spectrum : ndarray, shape (S,), float64
        All singular values of the S weighted samples of U C V^T + sum_j diag(d_j) H_j, divided by sqrt(S).
    """

    sampler: EntrySampler
    A_mean: FloatArray
    inverse: FloatArray
    scaling_range: FloatArray
    factors: Factors
    operators: NDArray[np.float32]
    coefficient_rms: FloatArray
    scale: float
    spectrum: FloatArray

    @property
    def rank(self) -> int:
        """Number R of components."""
        return len(self.operators) - 1

    @property
    def components(self) -> NDArray[np.float32]:
        """(C, d)_1 ... (C, d)_R (R, p p + J n)."""
        return self.operators[1:]

    @functools.cached_property
    def rows(self) -> NDArray[np.float32]:
        """H_1 ... H_J (J, n, n)."""
        return self.factors.rows

    @functools.cached_property
    def algebra(self) -> PairAlgebra:
        """Linear algebra of (C, d), for training."""
        return PairAlgebra.of(self.factors)

    @functools.cached_property
    def T_mean(self) -> FloatArray:
        """I + E of the mean (n, n)."""
        return np.eye(len(self.A_mean)) + self.algebra.matrix(self.operators[0].astype(np.float64))

    def read(self, A: Entries) -> tuple[FloatArray, FloatArray]:
        """Return what a regression reads of matrices A (B, n, n), and what they are scaled by.

        Returns
        -------
        z : ndarray, shape (B, q, m)
            The entries that are read, z-scored.
        g : ndarray, shape (B, n)
            Abar_ii / A_ii, as far as `scaling_range` goes: l1 = sqrt(|g|) and l2 = sign(g) sqrt(|g|).
        """
        z, s = self.sampler(A)
        return z, scaling_of(diagonal_of(A, len(self.A_mean)), s, np.diagonal(self.A_mean), self.scaling_range)

    def coefficients(self, A: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return z (B, q, m), coefficients c (B, R) and weights 1 / ||I + E|| (B,), by exact inverses of A (B, n, n).

        Raises
        ------
        LinAlgError
            A matrix is singular.
        """
        z, g = self.read(A)
        return z, *self.projected(self.preconditioned(A, g))

    def preconditioned(self, A: FloatArray, g: FloatArray) -> FloatArray:
        """Return T = I + E (B, n, n) of matrices A (B, n, n) with scalings g (B, n)."""
        return preconditioned_inverse(scaled(A, g), self.A_mean)

    def projected(self, T: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients (B, R) of T = I + E (B, n, n) and the weights (B,), 1 / ||T||."""
        c = self.algebra.products(T - self.T_mean) @ self.components.astype(np.float64).T
        return c, 1 / np.sqrt(self.squared_norm(T))

    def squared_norm(self, E: FloatArray) -> FloatArray:
        """Return ||E||^2 (B,) of errors E of T (B, n, n)."""
        return np.asarray(np.einsum("bij,bij->b", E, E))

    def inverse_of(self, c: NDArray[np.floating], g: FloatArray) -> LowRankInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and scalings g (B, n) of `read`."""
        (n, p), B = self.factors.U.shape, len(c)
        both = linear_combination(c, self.operators)
        return LowRankInverse(
            both[:, : p * p].reshape(B, p, p), both[:, p * p :].reshape(B, len(self.rows), n), g, self
        )


@dataclasses.dataclass(frozen=True)
class LowRankInverse:
    """M = l1 (I + U C V^T + sum_j diag(d_j) H_j) Abar^-1 l2 for B matrices: a linear map, like `ApproximateInverse`.

    Abar^-1 and I are applied in float64, and the rest in float32.

    Attributes
    ----------
    C : ndarray, shape (B, p, p), float32
    d : ndarray, shape (B, J, n), float32
    g : ndarray, shape (B, n)
        l1 = sqrt(|g|), l2 = sign(g) sqrt(|g|).
    basis : LowRankBasis
    """

    C: NDArray[np.float32]
    d: NDArray[np.float32]
    g: FloatArray
    basis: LowRankBasis

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M b (B, n, k) for right-hand sides b (B, n, k)."""
        return self.right(self.left(b))

    def left(self, r: FloatArray) -> FloatArray:
        """Return Abar^-1 l2 r (B, n, k): one product for all systems."""
        root = np.sqrt(np.abs(self.g))
        return shared_matmul(self.basis.inverse, np.copysign(root, self.g)[:, :, None] * r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return l1 (I + U C V^T + sum_j diag(d_j) H_j) g (B, n, k)."""
        unit, peak = to_scaled_float32(g)
        y = shared_matmul(self.basis.factors.U, self.C @ shared_matmul(self.basis.factors.V.T, unit))
        for j, H in enumerate(self.basis.rows):
            y += self.d[:, j, :, None] * shared_matmul(H, unit)
        return np.sqrt(np.abs(self.g))[:, :, None] * (g + peak * y)

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return M^T v (B, n, k): l2 Abar^-T (I + V C^T U^T + sum_j H_j^T diag(d_j)) l1 v."""
        root = np.sqrt(np.abs(self.g))
        u = root[:, :, None] * v
        unit, peak = to_scaled_float32(u)
        y = shared_matmul(self.basis.factors.V, self.C.swapaxes(1, 2) @ shared_matmul(self.basis.factors.U.T, unit))
        for j, H in enumerate(self.basis.rows):
            y += shared_matmul(H.T, self.d[:, j, :, None] * unit)
        return np.copysign(root, self.g)[:, :, None] * shared_matmul(self.basis.inverse.T, u + peak * y)

    def __getitem__(self, chosen: Chosen) -> LowRankInverse:
        """Return the inverses of the chosen systems of the batch."""
        return LowRankInverse(self.C[chosen], self.d[chosen], self.g[chosen], self.basis)


def diagonal_of(A: Entries, n: int) -> FloatArray:
    """Return the diagonals (B, n) of matrices that are an array, or compute blocks of entries on demand."""
    if isinstance(A, np.ndarray):
        return np.asarray(np.diagonal(A, axis1=1, axis2=2))
    parts = []
    for chosen in batches(n, DIAGONAL_BLOCK):
        i = np.arange(chosen.start, chosen.stop)
        parts.append(np.diagonal(A[:, i[:, None], i], axis1=1, axis2=2))
    return np.concatenate(parts, axis=1)


def scaling_of(diagonal: FloatArray, s: FloatArray, reference: FloatArray, limits: FloatArray) -> FloatArray:
    """Return reference / diagonal (B, n), what it is of matrices of size one within the limits; 1 / s if these are 1.

    Parameters
    ----------
    diagonal : ndarray, shape (B, n)
    s : ndarray, shape (B,)
        Sizes of the matrices, whose signs count only without limits.
    reference : ndarray, shape (n,)
    limits : ndarray, shape (2,)
    """
    size = np.where(s != 0, s, 1.0)[:, None]
    if limits[0] == limits[1]:
        return np.repeat(1 / size, len(reference), axis=1)
    size = np.copysign(size, np.sum(np.sign(diagonal) * np.sign(reference), axis=1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = reference * size / diagonal
        return np.clip(np.where(np.isnan(quotient), limits[0], quotient), *limits) / size


def scaled(A: FloatArray, g: FloatArray) -> FloatArray:
    """Return l2 A l1 (B, n, n) for l1 = sqrt(|g|) and l2 = sign(g) sqrt(|g|), g (B, n)."""
    root = np.sqrt(np.abs(g))
    return np.copysign(root, g)[:, :, None] * A * root[:, None, :]


def snapshot_count(rank: int, most: int = MAX_SNAPSHOTS) -> int:
    """Return how many samples a basis of R components is computed from, `most` at most."""
    return min(most, max(2 * rank, min(SNAPSHOTS_PER_COMPONENT * rank, MAX_SNAPSHOTS)))


def kept_count(n: int) -> int:
    """Return how many samples U, V and H are computed from: 512, fewer where n is large."""
    return max(1, min(MAX_KEPT, KEPT_ENTRIES // n**2))


def fit(
    sample: Callable[[range], FloatArray],
    n: int,
    rank: int,
    p: int,
    n_rows: int,
    n_column: int,
    n_row: int,
    count: int | None = None,
    whiten: bool = False,
    n_combination: int | None = None,
    report: ProgressCallback = silent,
) -> LowRankBasis:
    """Compute the basis of a family from samples.

    Parameters
    ----------
    sample : callable
        Takes a range of indices to the matrices (B, n, n) of these samples, the same every time: it is asked for every
        sample up to four times, so that only a few hundred are in memory at once.
    n : int
        Number of unknowns.
    rank : int
        Number R of components of C and d.
    p : int
        Number of columns of U and V, at most n.
    n_rows : int
        Number J of matrices H.
    n_column, n_row, count, whiten, n_combination, report
        As in `operator_basis.fit`; 8 R samples, 2048 at most, if count is None.

    Returns
    -------
    LowRankBasis

    Raises
    ------
    ConfigurationError
        Fewer samples than components, more of anything than unknowns, or a family whose mean is singular.
    LinAlgError
        A sample is singular.

    Examples
    --------
    >>> import numpy as np
    >>> def sample(indices):
    ...     d = np.array([np.random.default_rng(i).uniform(1, 2, 8) for i in indices])
    ...     return d[:, :, None] * (3 * np.eye(8) + np.ones((8, 8)))
    >>> basis = fit(sample, 8, rank=4, p=2, n_rows=1, n_column=2, n_row=3, count=50)
    >>> basis.operators.shape
    (5, 12)
    """
    count = count or snapshot_count(rank)
    if not 1 <= rank < count:
        raise ConfigurationError(f"a basis of {rank} components needs more than {rank} samples, received {count}")
    if not (1 <= n_column <= n and 1 <= n_row <= n and 1 <= p <= n and 0 <= n_rows <= n):
        raise ConfigurationError(
            f"n_column, n_row, p and n_rows must be at most n = {n}, received {n_column}, {n_row}, {p}, {n_rows}"
        )
    chunk = max(1, min(256, 2**24 // n**2))  # 128 MB of float64
    read, kept = min(count, read_count(n)), min(count, kept_count(n))
    done, total = 0, 2 * read + 2 * count

    def samples(most: int) -> Iterator[FloatArray]:
        nonlocal done
        for part in batches(most, chunk):
            report(done, total)
            A = sample(part)
            yield A
            done = min(done + len(A), total)

    # 1. The entries that are read; with them the sizes s of the matrices, and their diagonals.
    sampler = select_entries(samples(count), read, n_column, n_row, whiten, n_combination)
    sized = [(diagonal_of(A, n), sampler(A)[1]) for A in samples(read)]
    reference, limits = _reference(*(np.concatenate(part) for part in zip(*sized, strict=True)))

    # 2. Abar: the mean of the scaled matrices, rounded to float32; its diagonal is the reference.
    def scaled_samples(most: int) -> Iterator[FloatArray]:
        for A in samples(most):
            yield scaled(A, scaling_of(diagonal_of(A, n), sampler(A)[1], reference, limits))

    A_mean = np.zeros((n, n))
    for A in scaled_samples(count):
        A_mean += np.sum(A, axis=0) / count
    A_mean = A_mean.astype(np.float32).astype(np.float64)
    np.fill_diagonal(A_mean, reference)
    if not np.isfinite(A_mean).all() or np.linalg.cond(A_mean) > 1e-3 / EPS:  # three digits of the inverse are left
        raise ConfigurationError("the mean of the family's matrices is singular: an operator head does not fit it")

    # 3. U, V and H from as many E as memory holds.
    E = np.empty((kept, n, n), dtype=np.float32)
    identity, start = np.eye(n), 0
    for A in scaled_samples(kept):
        part = preconditioned_inverse(A, A_mean)[: kept - start]
        E[start : start + len(part)] = part - identity
        start += len(part)
    factors = fit_factors(E, p, n_rows)
    del E

    # 4. The best C and d of every sample, and its weight.
    pairs = PairAlgebra.of(factors)
    both, weight, start = np.empty((count, p * p + n_rows * n)), np.empty(count), 0
    for A in scaled_samples(count):
        T = preconditioned_inverse(A, A_mean)
        both[start : start + len(T)] = pairs.solve(pairs.products(T - identity))
        weight[start : start + len(T)] = 1 / np.linalg.norm(T, axis=(1, 2))
        start += len(T)
    report(total, total)

    # 5. Their weighted mean and principal components, orthonormal as matrices: from the Gram matrix of the samples.
    mean = (weight @ both / weight.sum()).astype(np.float32)
    both = (both - mean) * weight[:, None]
    dual = pairs.gram(both)
    values, vectors = np.linalg.eigh(both @ dual.T)
    components = vectors[:, ::-1][:, :rank].T @ both
    norms = np.sqrt(np.maximum(np.sum(components * pairs.gram(components), axis=1, keepdims=True), 0.0))
    components = (components / np.where(norms > 0, norms, 1.0)).astype(np.float16).astype(np.float64)
    return LowRankBasis(
        sampler=sampler,
        A_mean=A_mean,
        inverse=np.linalg.inv(A_mean).astype(np.float64, copy=False),
        scaling_range=limits,
        factors=factors,
        operators=np.concatenate((mean[None], components), dtype=np.float32),
        coefficient_rms=np.sqrt(np.mean((dual @ components.T) ** 2, axis=0)),
        scale=float(np.mean(weight**2) ** -0.5),
        spectrum=np.sqrt(np.maximum(values[::-1], 0.0) / count),
    )


def _reference(diagonals: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean diagonal (n,) of matrices of size one, rounded to float32, and the limits of `scaling_of`.

    Parameters
    ----------
    diagonals : ndarray, shape (S, n)
    s : ndarray, shape (S,)
    """
    unit = diagonals / np.where(s != 0, s, 1.0)[:, None]
    unit *= np.where(np.sum(np.sign(unit) * np.sign(np.median(unit, axis=0)), axis=1) < 0, -1.0, 1.0)[:, None]
    mean = unit.mean(axis=0).astype(np.float32).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = mean / unit
    low, high = float(quotient.min()), float(quotient.max())  # NaN if there is one
    if low > 0 and high <= MAX_DIAGONAL_RANGE * low:
        return mean, np.array([low / DIAGONAL_MARGIN, high * DIAGONAL_MARGIN])
    return mean, np.ones(2)
