"""The low-rank form of a family's inverses, computed from samples: see `numerics.low_rank` for what it is.

Everything of size n^2 that belongs to one sample is gone when the next samples come, but for the few hundred samples
that U, V and H are computed of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import EntrySampler, select_entries
from algebraformer.numerics.low_rank import LowRankBasis, diagonal_of, scaled, scaling_of
from algebraformer.numerics.operator_basis import Samples, check_count, check_mean, preconditioned_inverse, read_count
from algebraformer.numerics.shared_factors import Factors, PairAlgebra, fit_factors
from algebraformer.progress import ProgressCallback, silent

SNAPSHOTS_PER_COMPONENT, MAX_SNAPSHOTS = 8, 2048
"""Samples per component that C and d are known from, and their largest number."""
KEPT_ENTRIES, MAX_KEPT = 2**27, 512
"""Entries of E that are kept in memory while U, V and H are computed, 512 MB in float32, and most samples of it."""
MAX_DIAGONAL_RANGE = 1e6
"""Diagonals that vary over the family by more than this factor, or change sign, are no scaling."""
DIAGONAL_MARGIN = 2.0
"""Other matrices are scaled by this much more than any of the family."""


def snapshot_count(rank: int, most: int = MAX_SNAPSHOTS) -> int:
    """Return how many samples a basis of R components is computed from, `most` at most."""
    return min(most, max(2 * rank, min(SNAPSHOTS_PER_COMPONENT * rank, MAX_SNAPSHOTS)))


def kept_count(n: int) -> int:
    """Return how many samples U, V and H are computed from: 512, fewer where n is large."""
    return max(1, min(MAX_KEPT, KEPT_ENTRIES // n**2))


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """What a basis of any number of components, and of any smaller p and J, is computed from.

    Attributes
    ----------
    sampler, A_mean, scaling_range, factors
        As in `LowRankBasis`, with the largest p and J.
    products : ndarray, shape (S, p p + J n)
        `PairAlgebra.products` of E of S samples.
    weight : ndarray, shape (S,)
        1 / ||I + E||.
    """

    sampler: EntrySampler
    A_mean: FloatArray
    scaling_range: FloatArray
    factors: Factors
    products: FloatArray
    weight: FloatArray

    def basis(self, rank: int, p: int, n_rows: int) -> LowRankBasis:
        """Return the basis of R components with the first p columns of U and V, and H_1 ... H_J."""
        (n, width), count = self.factors.U.shape, len(self.weight)
        U, V, levels, row_scales = self.factors
        factors = Factors(U[:, :p], V[:, :p], levels[:n_rows], row_scales[:n_rows])
        core = self.products[:, : width**2].reshape(count, width, width)[:, :p, :p].reshape(count, -1)
        rows = self.products[:, width**2 : width**2 + n_rows * n]

        # 1. The best C and d of every sample, around their weighted mean.
        algebra = PairAlgebra.of(factors)
        pairs = algebra.solve(np.concatenate((core, rows), axis=1))
        mean = (self.weight @ pairs / self.weight.sum()).astype(np.float32)
        pairs = (pairs - mean) * self.weight[:, None]

        # 2. Their principal components, orthonormal as matrices, from the Gram matrix of the samples.
        dual = algebra.gram(pairs)
        values, vectors = np.linalg.eigh(pairs @ dual.T)
        components = vectors[:, ::-1][:, :rank].T @ pairs
        norms = np.sqrt(np.maximum(np.sum(components * algebra.gram(components), axis=1, keepdims=True), 0.0))
        components = (components / np.where(norms > 0, norms, 1.0)).astype(np.float16).astype(np.float64)
        return LowRankBasis(
            sampler=self.sampler,
            A_mean=self.A_mean,
            inverse=np.linalg.inv(self.A_mean).astype(np.float64, copy=False),
            scaling_range=self.scaling_range,
            factors=factors,
            operators=np.concatenate((mean[None], components), dtype=np.float32),
            coefficient_rms=np.sqrt(np.mean((dual @ components.T) ** 2, axis=0)),
            scale=float(np.mean(self.weight**2) ** -0.5),
            spectrum=np.sqrt(np.maximum(values[::-1], 0.0) / count),
        )


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
    sample, n
        As in `snapshots`.
    rank : int
        Number R of components of C and d.
    p, n_rows, n_column, n_row
        As in `snapshots`.
    count : int, optional
        Number of samples, at least R + 1; 8 R, 2048 at most, if None.
    whiten, n_combination, report
        As in `snapshots`.

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
    check_count(rank, count)
    found = snapshots(sample, n, p, n_rows, n_column, n_row, count, whiten, n_combination, report)
    return found.basis(rank, p, n_rows)


def snapshots(
    sample: Callable[[range], FloatArray],
    n: int,
    p: int,
    n_rows: int,
    n_column: int,
    n_row: int,
    count: int,
    whiten: bool = False,
    n_combination: int | None = None,
    report: ProgressCallback = silent,
) -> Snapshots:
    """Compute all that a basis needs of a family's inverses.

    Parameters
    ----------
    sample : callable
        Takes a range of indices to the matrices (B, n, n) of these samples, the same every time: it is asked for every
        sample up to four times, so that only a few hundred are in memory at once.
    n : int
        Number of unknowns.
    p : int
        Number of columns of U and V, at most n.
    n_rows : int
        Number J of matrices H.
    n_column, n_row : int
        Number q of columns and m of rows of A that are read, at most n.
    count : int
        Number of samples.
    whiten, n_combination, report
        As in `operator_basis.fit`.

    Raises
    ------
    ConfigurationError
        More of anything than unknowns, or a family whose mean is singular.
    LinAlgError
        A sample is singular.
    """
    if not (1 <= n_column <= n and 1 <= n_row <= n and 1 <= p <= n and 0 <= n_rows <= n):
        raise ConfigurationError(
            f"n_column, n_row, p and n_rows must be at most n = {n}, received {n_column}, {n_row}, {p}, {n_rows}"
        )
    chunk = max(1, min(256, 2**24 // n**2))  # 128 MB of float64
    read, kept = min(count, read_count(n)), min(count, kept_count(n))
    samples = Samples(sample, chunk, 2 * read + 2 * count, report)

    # 1. The entries that are read; with them the sizes s of the matrices, and their diagonals.
    sampler = select_entries(samples(count), read, n_column, n_row, whiten, n_combination)
    sized = [(diagonal_of(A, n), sampler(A)[1]) for A in samples(read)]
    reference, limits = _reference(*(np.concatenate(part) for part in zip(*sized, strict=True)))

    # 2. Abar: the mean of the scaled matrices, rounded to float32; where they are scaled its diagonal is the reference.
    def scaled_samples(most: int) -> Iterator[FloatArray]:
        for A in samples(most):
            yield scaled(A, scaling_of(diagonal_of(A, n), sampler(A)[1], reference, limits))

    A_mean = np.zeros((n, n))
    for A in scaled_samples(count):
        A_mean += np.sum(A, axis=0) / count
    A_mean = A_mean.astype(np.float32).astype(np.float64)
    if limits[0] < limits[1]:
        np.fill_diagonal(A_mean, reference)
    check_mean(A_mean)

    # 3. U, V and H from as many E as memory holds.
    E = np.empty((kept, n, n), dtype=np.float32)
    identity, start = np.eye(n), 0
    for A in scaled_samples(kept):
        part = preconditioned_inverse(A, A_mean)[: kept - start]
        E[start : start + len(part)] = part - identity
        start += len(part)
    factors = fit_factors(E, p, n_rows)
    del E

    # 4. What C and d of every sample are computed from, and its weight.
    algebra = PairAlgebra.of(factors)
    products, weight, start = np.empty((count, p * p + n_rows * n)), np.empty(count), 0
    for A in scaled_samples(count):
        T = preconditioned_inverse(A, A_mean)
        products[start : start + len(T)] = algebra.products(T - identity)
        weight[start : start + len(T)] = 1 / np.linalg.norm(T, axis=(1, 2))
        start += len(T)
    samples.finish()
    return Snapshots(sampler, A_mean, limits, factors, products, weight)


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
