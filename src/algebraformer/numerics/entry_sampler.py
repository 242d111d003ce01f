"""The entries of A that tell the systems of a family apart: which rows and columns, and their statistics.

What a network, or any other regression, reads the coefficients of an inverse from: see `operator_basis`. Of complex
matrices real and imaginary parts are read, as rows of their own.

References
----------
.. [1] Z. Drmac and S. Gugercin, "A new selection operator for the discrete empirical interpolation method", SIAM J.
   Sci. Comput. 38 (2016): selection by QR with column pivoting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.arrays import conj, is_complex, namespace, split_parts
from algebraformer.linalg import EPS, FloatArray

N_MODES = 32
"""Leading modes of A over the family that columns and rows are chosen on."""
WHITENING_RTOL = 1e-6
"""Combinations of entries whose spread over the family is below this share of the largest are not read."""
CONSTANT_RTOL = 1e-9
"""An entry whose spread over the family is below this share of its size counts as constant and is not read."""
ROUNDING_RTOL = 16 * EPS
"""An entry below this share of the largest in its row and in its column is a rounding error and is not read."""

ALIGNMENTS = 100
"""Most steps in which the phases of complex matrices settle; about ten are enough."""

BLOCK_ENTRIES = 2**23
"""Entries that are worked on at a time, 64 MB in float64."""


class Entries(Protocol):
    """B matrices by their entries: an array (B, n, n), or an object that computes entries on demand."""

    def __len__(self) -> int:
        """Return B."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return A[:, rows, columns] (B, m, q) for rows (m, 1) and columns (q,)."""


@dataclasses.dataclass(frozen=True)
class EntrySampler:
    """Which entries of A are read, and their statistics over the family.

    Attributes
    ----------
    rows, columns : ndarray of int, shape (m,) and (q,)
    weight : ndarray, shape (m, q)
        Reciprocal root mean square of the entries.
    mean, inverse_std : ndarray, shape (m, q)
        Mean and reciprocal spread of the weighted entries of matrices of size one; 0 for constant entries. Of complex
        matrices they have shape (2 m, q), for the real parts and then for the imaginary ones; m is 2 m in what follows.
    whitening : ndarray, shape (q k, q m), optional
        Takes the z-scored entries to k = m or fewer uncorrelated combinations per column, of variance one, the rarest
        last, and zeros. What is small in every entry, such as a reaction term added to a diffusion operator, shows in
        these alone.
    resampling : ndarray, shape (m q, m q), optional
        Takes the entries of A to those that a matrix of the same system has at the size n of the statistics. Rows and
        columns are then those of A, all else belongs to the other size, see `resampled`.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    weight: FloatArray
    mean: FloatArray
    inverse_std: FloatArray
    whitening: FloatArray | None = None
    resampling: FloatArray | None = None

    @property
    def reference(self) -> NDArray[Any]:
        """The mean (m, q) of the weighted entries, complex for complex matrices."""
        m = len(self.rows)
        return self.mean if len(self.mean) == m else self.mean[:m] + 1j * self.mean[m:]

    def __call__(self, A: Entries) -> tuple[FloatArray, FloatArray]:
        """Return z-scored entries (B, q, m), one row per column of A that is read, and the sizes s (B,).

        With a whitening, their combinations (B, q, k).

        s is the signed root mean square of the weighted entries, or has their phase, so that d A gives the same entries
        and d s; it is 0 where all entries that are read are 0.
        """
        E = A[:, self.rows[:, None], self.columns]  # (B, m, q)
        xp = namespace(E)
        if self.resampling is not None:
            E = xp.reshape(xp.reshape(E, (len(E), -1)) @ self.resampling.T, E.shape)
        E = E * self.weight
        s = signed_rms(E, self.reference)
        z = (real_parts(E / xp.where(s != 0, s, 1.0)[:, None, None]) - self.mean) * self.inverse_std
        z = z.mT
        if self.whitening is not None:
            z = xp.reshape(xp.reshape(z, (len(z), -1)) @ self.whitening.T, (*z.shape[:2], -1))
        return z, s


def select_entries(
    samples: Iterator[FloatArray],
    kept: int,
    n_column: int,
    n_row: int,
    whiten: bool,
    n_combination: int | None = None,
) -> EntrySampler:
    """Choose columns and rows of A on samples of a family, by pivoted QR [1]_, and take their statistics.

    Parameters
    ----------
    samples : iterator of ndarray, shape (C, n, n)
        Batches of matrices, at least `kept` in all.
    kept : int
        Number of samples that are used.
    n_column, n_row : int
        Numbers q and m of columns and rows.
    whiten : bool
        Read uncorrelated combinations of the entries.
    n_combination : int, optional
        Number k of combinations per column, those of the largest spread in all; m if None.

    Returns
    -------
    EntrySampler
    """
    parts: list[FloatArray] = []
    while sum(map(len, parts)) < kept:
        parts.append(next(samples))
    A = np.concatenate(parts)[:kept]
    parts.clear()  # half a gigabyte at n = 1024
    n = A.shape[-1]

    # 1. Weight the entries by their size over the family, and divide each matrix by its own.
    rms = np.sqrt(np.mean(np.abs(A) ** 2, axis=0))
    weight = entry_weights(rms)
    A *= weight
    A /= _sizes(A)[:, None, None]

    # 2. The leading modes of the z-scored entries, from the smaller of the two Gram matrices.
    parts_of_A = real_parts(A[:, None])  # (kept, 1, n, n), or with 2 for complex matrices
    inverse_std = _inverse_std(parts_of_A)
    flat = parts_of_A - parts_of_A.mean(axis=0)
    flat *= inverse_std
    flat = flat.reshape(kept, -1)
    by_entries = flat.shape[1] < kept
    values, vectors = np.linalg.eigh(flat.T @ flat if by_entries else flat @ flat.T)
    order = np.argsort(-values)[: min(N_MODES, kept)]
    leading = vectors[:, order].T  # (N_MODES, n^2) or (N_MODES, kept)
    modes = np.sqrt(np.maximum(values[order], 0))[:, None] * leading if by_entries else leading @ flat
    modes = modes.reshape(-1, n, n)
    del flat, leading

    # 3. The columns and rows that span them best: the first pivots [1]_.
    columns = np.sort(_pivots(modes)[:n_column])
    rows = np.sort(_pivots(modes.transpose(0, 2, 1))[:n_row])

    # 4. Statistics of the entries where they meet, of matrices divided by the size of these entries alone.
    E = A[:, rows[:, None], columns]
    E = real_parts(E / _sizes(E)[:, None, None])
    sampler = EntrySampler(rows, columns, weight[np.ix_(rows, columns)], E.mean(axis=0), _inverse_std(E))
    if not whiten:
        return sampler

    # 5. Whitening by a singular value decomposition: a Gram matrix would square the spread and lose what is rare.
    z = ((E - sampler.mean) * sampler.inverse_std).transpose(0, 2, 1).reshape(kept, -1)
    _, spread, directions = np.linalg.svd(z / np.sqrt(kept), full_matrices=False)
    whitening = np.zeros((len(columns) * (n_combination or E.shape[1]), z.shape[1]))
    combinations = _inverse_or_zero(spread, WHITENING_RTOL * spread[0])[:, None] * directions
    whitening[: len(spread)] = combinations[: len(whitening)]
    return dataclasses.replace(sampler, whitening=whitening)


def entry_weights(rms: FloatArray) -> FloatArray:
    """Return 1 / rms for the root mean squares of entries (m, q), and 0 where these are rounding errors."""
    rounding = ROUNDING_RTOL * np.minimum(rms.max(axis=1, keepdims=True), rms.max(axis=0, keepdims=True))
    return np.where(rms > rounding, 1 / np.where(rms > 0, rms, 1.0), 0.0)


def real_parts(E: NDArray[Any]) -> FloatArray:
    """Return complex entries (B, m, ...) as (B, 2 m, ...), imaginary parts behind real ones; real entries as they are.

    Examples
    --------
    >>> import numpy as np
    >>> real_parts(np.array([[1 + 2j, 3 + 4j]]))
    array([[1., 3., 2., 4.]])
    """
    return split_parts(E, axis=1) if is_complex(E) else E


def signed_rms(E: NDArray[Any], reference: NDArray[Any]) -> NDArray[Any]:
    """Return the root mean square of each E[i], with the sign of its product with the reference; 0 only for E = 0.

    Of complex entries it has the phase of that product.
    """
    xp, step = namespace(E), max(1, BLOCK_ENTRIES // max(1, math.prod(E.shape[1:])))
    if len(E) > step:
        return xp.concat([signed_rms(E[i : i + step], reference) for i in range(0, len(E), step)])
    most = xp.max(xp.abs(E), axis=(1, 2), keepdims=True)
    unit = E / xp.where(most > 0, most, 1.0)  # the squares of 1e300 overflow
    product = xp.sum(unit * conj(reference), axis=(1, 2))
    if is_complex(product):
        side = xp.where(product == 0, 1.0, product / xp.where(product == 0, 1.0, xp.abs(product)))
    else:
        side = xp.where(product < 0, -1.0, 1.0)
    return side * most[:, 0, 0] * xp.sqrt(xp.mean(xp.abs(unit) ** 2, axis=(1, 2)))


def _sizes(E: NDArray[Any]) -> NDArray[Any]:
    """Return the signed sizes of E (B, m, q), with 1 in place of 0.

    Their phases refer to the mean of E / s, as in `EntrySampler`, found in steps from those that refer to E[0]: the
    mean of E itself may vanish.
    """
    s = signed_rms(E, E[0] if np.iscomplexobj(E) else E.mean(axis=0))
    for _ in range(ALIGNMENTS if np.iscomplexobj(E) else 0):
        before = s
        s = signed_rms(E, np.tensordot(1 / np.where(s != 0, s, 1.0), E, 1))
        if (np.abs(s - before) <= 4 * EPS * np.abs(s)).all():
            break
    return np.where(s != 0, s, 1.0)


def _inverse_std(E: FloatArray) -> FloatArray:
    """Return the reciprocal spread over the first axis, 0 for what is constant."""
    return _inverse_or_zero(E.std(axis=0), CONSTANT_RTOL)


def _inverse_or_zero(v: FloatArray, floor: float) -> FloatArray:
    """Return 1 / v, and 0 where v <= floor."""
    return np.where(v > floor, 1 / np.where(v > 0, v, 1.0), 0.0)


def _pivots(modes: FloatArray) -> NDArray[np.int64]:
    """Return the last index of modes (k, n, n) in the order of pivoted QR on the stacked (k n, n) matrix."""
    _, order = scipy.linalg.qr(modes.reshape(-1, modes.shape[-1]), mode="r", pivoting=True)
    return order.astype(np.int64)
