"""The inverses of a family as a mean and a few principal components.

For a family with mean matrix Abar, the preconditioned inverse T(A) = A^-1 Abar varies smoothly with the parameters of
the family, and over the family its principal components T_1, T_2, ... fall off fast. So with coefficients c(A)

    A^-1 is about M(A) = (Tbar + sum_r c_r T_r) Abar^-1,

which costs O(R n^2) to form and O(n^2) to apply. A few rows and columns of A that tell the systems of the family apart
are chosen here too: the entries where they meet are what a network, or any other regression, reads c from.

Matrices are divided by their size s(A) first, so that (d A) has the coefficients of A. Systems count by 1 / ||T||_F in
mean and components, so that a few systems with large inverses do not dominate them.

An error E of T is an error E Abar^-1 of the inverse itself, and the two are not large together: in ||E||_F the few
smooth directions that make up most of a solution count no more than the others. A weighted basis measures both,
||E||^2 = ||E||_F^2 + n ||E Abar^-1||_F^2 / ||Abar^-1||_F^2.

References
----------
.. [1] L. Sirovich, "Turbulence and the dynamics of coherent structures", Quart. Appl. Math. 45 (1987): the method of
   snapshots, principal components from the Gram matrix of the samples.
.. [2] O. Zahm and A. Nouy, "Interpolation of inverse operators for preconditioning parameter-dependent equations",
   SIAM J. Sci. Comput. 38 (2016).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.arrays import namespace
from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, FloatArray
from algebraformer.numerics.entry_sampler import N_MODES, Entries, EntrySampler, select_entries
from algebraformer.numerics.preconditioner import ApproximateInverse, linear_combination, single_precision
from algebraformer.progress import ProgressCallback, batches, silent

SNAPSHOT_ENTRIES = 2**29
"""Entries of T that are kept in memory at once while components are computed: 2 GiB in float32."""
SNAPSHOTS_PER_COMPONENT, MAX_SNAPSHOTS = 16, 4096
"""Samples per component, where memory allows, and their largest number."""
LEADING = 32
"""Components kept in float32; the rest, which matter less, are rounded to float16."""


@dataclasses.dataclass(frozen=True)
class OperatorBasis:
    """What `fit` learns of a family. Mean and components belong to matrices of size one.

    Of complex families means, inverse, operators, metric and coefficients are complex, of the same precision.

    Attributes
    ----------
    sampler : EntrySampler
    A_mean, inverse : ndarray, shape (n, n), float64
        Abar and Abar^-1.
    operators : ndarray, shape (1 + R, n, n), float32
        Tbar and T_1 ... T_R, these orthonormal in the norm of the basis; from T_33 on every value is one of float16.
    coefficient_rms : ndarray, shape (R,), float64
        Root mean square over the family of c_r / ||T||_F, the weighted coefficients.
    scale : float
        Typical ||T||_F: the reciprocal root mean square of the weights 1 / ||T||_F.
    spectrum : ndarray, shape (S,), float64
        All singular values of the S weighted samples, divided by sqrt(S): how fast the components fall off.
    metric : ndarray, shape (n, n), float64, optional
        W with ||E||^2 = trace(E W E^T) for errors E of T; the identity if None.
    """

    sampler: EntrySampler
    A_mean: FloatArray
    inverse: FloatArray
    operators: NDArray[np.float32]
    coefficient_rms: FloatArray
    scale: float
    spectrum: FloatArray
    metric: FloatArray | None = None

    @property
    def T_mean(self) -> NDArray[np.float32]:
        """Tbar (n, n), the mean of T."""
        return self.operators[0]

    @property
    def components(self) -> NDArray[np.float32]:
        """T_1 ... T_R (R, n, n), the principal components of T."""
        return self.operators[1:]

    @property
    def rank(self) -> int:
        """Number R of components."""
        return len(self.components)

    def coefficients(self, A: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what a regression learns from the matrices A (B, n, n), by their exact inverses.

        Returns
        -------
        z : ndarray, shape (B, q, m)
            The entries that are read, z-scored.
        c : ndarray, shape (B, R)
            Coefficients of T(A / s).
        weight : ndarray, shape (B,)
            1 / ||T(A / s)||.

        Raises
        ------
        LinAlgError
            A matrix is singular.
        """
        z, s = self.read(A)
        return z, *self.projected(self.preconditioned(A, s))

    def read(self, A: Entries) -> tuple[FloatArray, FloatArray]:
        """Return what a regression reads of matrices A (B, n, n), z (B, q, m), and their sizes s (B,)."""
        return self.sampler(A)

    def preconditioned(self, A: FloatArray, s: FloatArray) -> FloatArray:
        """Return T (B, n, n) of matrices A (B, n, n) of sizes s (B,)."""
        return preconditioned_inverse(A / np.where(s != 0, s, 1.0)[:, None, None], self.A_mean)

    def projected(self, T: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients (B, R) of T (B, n, n) and the weights (B,), 1 / ||T||."""
        E = T - self.T_mean
        EW = E if self.metric is None else E @ self.metric
        c = EW.reshape(len(T), -1) @ self.components.reshape(self.rank, -1).conj().T
        return c, 1 / np.sqrt(self.squared_norm(T))

    def squared_norm(self, E: FloatArray) -> FloatArray:
        """Return ||E||^2 (B,) of errors E of T (B, n, n)."""
        EW = E if self.metric is None else E @ self.metric
        return np.asarray(np.sum(EW * E.conj(), axis=(1, 2)).real)

    def inverse_of(self, c: NDArray[np.floating], s: FloatArray) -> ApproximateInverse:
        """Return the approximate inverses of B matrices.

        Parameters
        ----------
        c : ndarray, shape (B, R)
            Their coefficients.
        s : ndarray, shape (B,)
            Their sizes, from `sampler`.
        """
        flat = linear_combination(c, self.operators.reshape(1 + self.rank, -1))
        size = namespace(s).where(s != 0, s, 1.0)
        return ApproximateInverse(flat.reshape(-1, *self.T_mean.shape), self.inverse, size)


def preconditioned_inverse(A: FloatArray, A_mean: FloatArray) -> FloatArray:
    """Return T = A^-1 Abar (B, n, n) by LU, through NumPy."""
    return np.linalg.solve(A, np.broadcast_to(A_mean, A.shape)).astype(A_mean.dtype, copy=False)


def inverse_weighted_metric(A_mean: FloatArray) -> FloatArray:
    """Return W = I + n (Abar^H Abar)^-1 / ||Abar^-1||_F^2, which measures errors of T and of the inverse alike."""
    inverse = np.linalg.inv(A_mean)
    W = np.eye(len(A_mean)) + len(A_mean) * inverse @ inverse.conj().T / np.sum(np.abs(inverse) ** 2)
    return np.asarray(W, dtype=A_mean.dtype)


def snapshot_count(n: int, rank: int, most: int = MAX_SNAPSHOTS) -> int:
    """Return how many samples a basis of R components is computed from, `most` at most."""
    return min(most, max(2 * rank, min(SNAPSHOTS_PER_COMPONENT * rank, SNAPSHOT_ENTRIES // n**2)))


def read_count(n: int) -> int:
    """Return how many samples columns and rows are chosen on: 1024, fewer where n is large."""
    return max(2 * N_MODES, min(1024, 2**26 // n**2))


class Samples:
    """Matrices of a family that are asked for several times, chunk by chunk, with the progress of all walks together.

    Parameters
    ----------
    sample : callable
        As in `fit`.
    chunk : int
        Matrices that are in memory at once.
    total : int
        Matrices of all walks.
    report : callable
        As in `fit`.
    """

    def __init__(self, sample: Callable[[range], FloatArray], chunk: int, total: int, report: ProgressCallback) -> None:
        self.sample, self.chunk, self.total, self.report = sample, chunk, total, report
        self.done = 0

    def __call__(self, count: int) -> Iterator[FloatArray]:
        """Yield the first `count` matrices, or as many of them as are taken."""
        for part in batches(count, self.chunk):
            self.report(self.done, self.total)
            A = self.sample(part)
            yield A
            self.done = min(self.done + len(A), self.total)

    def finish(self) -> None:
        """Report that everything was drawn."""
        self.report(self.total, self.total)


def check_count(rank: int, count: int) -> None:
    """Raise `ConfigurationError` unless there are more samples than components."""
    if not 1 <= rank < count:
        raise ConfigurationError(f"a basis of {rank} components needs more than {rank} samples, received {count}")


def check_mean(A_mean: FloatArray) -> None:
    """Raise `ConfigurationError` unless three digits of the inverse of the mean matrix are left."""
    if not np.isfinite(A_mean).all() or np.linalg.cond(A_mean) > 1e-3 / EPS:
        raise ConfigurationError("the mean of the family's matrices is singular: an operator head does not fit it")


def fit(
    sample: Callable[[range], FloatArray],
    n: int,
    rank: int,
    n_column: int,
    n_row: int,
    count: int | None = None,
    whiten: bool = False,
    n_combination: int | None = None,
    weighted: bool = False,
    report: ProgressCallback = silent,
) -> OperatorBasis:
    """Compute the basis of a family from samples.

    Parameters
    ----------
    sample : callable
        Takes a range of indices to the matrices (B, n, n) of these samples, the same every time: it is asked for every
        sample up to three times, so that only a few matrices are in memory at once.
    n : int
        Number of unknowns.
    rank : int
        Number R of components.
    n_column, n_row : int
        Number q of columns and m of rows of A that are read, at most n.
    count : int, optional
        Number of samples, at least R + 1; 16 R, or as many as fit into 2 GiB, if None.
    whiten : bool
        Read uncorrelated combinations of the entries.
    n_combination : int, optional
        Number of combinations by column that is read; m if None, which are all there are.
    weighted : bool
        Measure errors of the inverse as well as those of T, see `inverse_weighted_metric`.
    report : callable
        Called with the number of samples drawn so far and the number in all, every sample up to three times.

    Returns
    -------
    OperatorBasis

    Raises
    ------
    ConfigurationError
        Fewer samples than components, more rows or columns than unknowns, or a family whose mean is singular: then its
        inverses do not cluster around one of them, and this method does not apply.
    LinAlgError
        A sample is singular.

    Examples
    --------
    >>> import numpy as np
    >>> def sample(indices):
    ...     return np.eye(8) + 0.1 * np.array([np.random.default_rng(i).standard_normal((8, 8)) for i in indices])
    >>> basis = fit(sample, 8, rank=4, n_column=2, n_row=3, count=50)
    >>> basis.components.shape, basis.sampler.columns.shape
    ((4, 8, 8), (2,))
    """
    count = count or snapshot_count(n, rank)
    check_count(rank, count)
    if not (1 <= n_column <= n and 1 <= n_row <= n):
        raise ConfigurationError(f"n_column and n_row must be from 1 to n = {n}, received {n_column} and {n_row}")
    chunk = max(1, min(256, 2**25 // n**2))  # 256 MB of float64
    samples = Samples(sample, chunk, min(count, read_count(n)) + 2 * count, report)

    # 1. The entries that are read; with them the sizes s of the matrices.
    sampler = select_entries(samples(count), min(count, read_count(n)), n_column, n_row, whiten, n_combination)

    # 2. Abar, and the metric W that errors of T are measured in.
    A_mean = np.zeros((n, n), dtype=sampler.reference.dtype)
    for A in samples(count):
        A_mean += np.sum(A / sampler(A)[1][:, None, None], axis=0) / count
    check_mean(A_mean)
    metric = inverse_weighted_metric(A_mean) if weighted else None
    root = None if metric is None else np.asarray(scipy.linalg.sqrtm(metric), dtype=metric.dtype)

    # 3. Snapshots T W^(1/2) and their weights 1 / ||T||.
    T = np.empty((count, n * n), dtype=single_precision(A_mean.dtype))
    weight = np.empty(count)
    start = 0
    for A in samples(count):
        exact = preconditioned_inverse(A / sampler(A)[1][:, None, None], A_mean)
        exact = (exact if root is None else exact @ root).reshape(len(A), -1)
        weight[start : start + len(A)] = 1 / np.linalg.norm(exact, axis=1)
        T[start : start + len(A)] = exact
        start += len(A)
    samples.finish()

    # 4. Their weighted mean and principal components [1]_, and back from T W^(1/2) to T.
    T_mean = (weight @ T / weight.sum()).astype(T.dtype)
    T -= T_mean
    T *= weight[:, None].astype(np.float32)
    components, spectrum = _principal(T, rank)
    operators = np.concatenate((T_mean[None], components)).reshape(1 + rank, n, n)
    if root is not None:
        operators = (operators @ np.linalg.inv(root)).astype(T.dtype)
    operators[1 + LEADING :] = rounded(operators[1 + LEADING :])
    return OperatorBasis(
        sampler=sampler,
        A_mean=A_mean,
        inverse=np.linalg.inv(A_mean).astype(A_mean.dtype, copy=False),
        operators=operators,
        coefficient_rms=_rms(T @ components.conj().T),
        scale=float(np.mean(weight**2) ** -0.5),
        spectrum=spectrum,
        metric=metric,
    )


def extended(basis: OperatorBasis, A: FloatArray, rank: int) -> OperatorBasis:
    """Return the basis for matrices of another family: what is read, Abar, Tbar and T_1 ... T_R stay.

    After these come principal components of what they leave of the preconditioned inverses of A. `coefficient_rms` and
    `scale` are those of A.

    Parameters
    ----------
    basis : OperatorBasis
        With R components.
    A : ndarray, shape (N, n, n)
        Matrices of the other family.
    rank : int
        Number of components in the end, from R to R + N; R adds none.

    Raises
    ------
    ConfigurationError
        A rank outside these limits, matrices of another size, or a weighted basis.
    LinAlgError
        A matrix is singular.
    """
    R, n, N = basis.rank, len(basis.A_mean), len(A)
    if A.shape[1:] != (n, n):
        raise ConfigurationError(f"the basis belongs to n = {n}, the matrices have n = {A.shape[-1]}")
    if not R <= rank <= min(R + N, n**2):
        raise ConfigurationError(
            f"a basis of {R} components can be extended by {N} matrices to {R} ... {min(R + N, n**2)}, received {rank}"
        )
    if basis.metric is not None:
        raise ConfigurationError("a weighted basis cannot be extended: keep or refit it")

    # 1. The weighted snapshots of the other family, around the mean of the old one.
    T = preconditioned_inverse(A / basis.sampler(A)[1][:, None, None], basis.A_mean).reshape(N, -1)
    weight = 1 / np.linalg.norm(T, axis=1)
    T = ((T - basis.T_mean.ravel()) * weight[:, None]).astype(basis.operators.dtype)

    # 2. Principal components of what T_1 ... T_R leave of them.
    components = basis.components.reshape(R, -1)
    new, spectrum = _principal(T - (T @ components.conj().T) @ components, rank - R)

    components = np.concatenate((components, new))
    components[LEADING:] = rounded(components[LEADING:])
    return dataclasses.replace(
        basis,
        operators=np.concatenate((basis.T_mean.reshape(1, -1), components)).reshape(1 + rank, n, n),
        coefficient_rms=_rms(T @ components.conj().T),
        scale=float(np.mean(weight**2) ** -0.5),
        spectrum=spectrum,
    )


def rounded(operators: NDArray[Any]) -> NDArray[Any]:
    """Return operators with entries, or real and imaginary parts, of float16."""
    if np.iscomplexobj(operators):
        return operators.real.astype(np.float16) + 1j * operators.imag.astype(np.float16)
    return operators.astype(np.float16)


def _rms(c: NDArray[Any]) -> FloatArray:
    """Return the root mean square over the first axis, in float64."""
    return np.sqrt(np.mean(np.abs(c).astype(np.float64) ** 2, axis=0))


def _principal(T: NDArray[Any], rank: int) -> tuple[NDArray[Any], FloatArray]:
    """Return the first principal components (R, n^2) of the rows of T, and all values (S,), from a Gram matrix.

    That of the S rows, which is the method of snapshots, or that of the columns where these are fewer.
    """
    count, width = T.shape
    step = 2**16
    blocks = [slice(start, start + step) for start in range(0, width, step)]  # in float64, block by block
    components, double = np.empty((rank, width), dtype=T.dtype), np.result_type(T, np.float64)
    if width < count:
        gram = T.conj().T.astype(double) @ T.astype(double)
        values, vectors = np.linalg.eigh(gram)
        components[:] = vectors[:, np.argsort(-values)[:rank]].conj().T
        values = np.concatenate((np.zeros(count - width), values))
    else:
        gram = np.zeros((count, count), dtype=double)
        for block in blocks:
            part = T[:, block].astype(double)
            gram += part @ part.conj().T
        values, vectors = np.linalg.eigh(gram)
        order = np.argsort(-values)[:rank]
        for block in blocks:
            components[:, block] = vectors[:, order].conj().T @ T[:, block].astype(double)
    norms = np.linalg.norm(components, axis=1, keepdims=True)
    components /= np.where(norms > 0, norms, 1.0)
    return components, np.sqrt(np.maximum(values[::-1], 0.0) / count)
