"""Passes over A: products, and the checks that share them.

Reading A from memory once is the unit of a solve's time: from a few hundred unknowns on everything else is small. A
batch is split over threads before it comes here (`threads.run`), so that systems are walked over one after the other,
in blocks of rows that stay in the cache where they are needed twice. A single large matrix is split by rows.

Products are np.dot: for blocks of rows from two threads np.matmul takes up to twice as long (LOG.md, 2026-11-27).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import host, namespace
from algebraformer.threads import MIN_ENTRIES, run, split

FloatArray = NDArray[np.float64]

GATHER_MIN_N = 128
"""From this n on, chosen systems of a batch are better multiplied one by one than copied."""
BLOCK_ENTRIES = 2**17
"""Entries of A that are worked on at a time: 1 MB, which stay in the cache for the second product."""
DEVICE_ENTRIES = 2**26
"""The same on a GPU: 512 MB for |A|."""


def multiply(A: FloatArray, chosen: NDArray[np.int64], z: FloatArray) -> FloatArray:
    """Return A[chosen] @ z without a copy of A.

    Parameters
    ----------
    A : ndarray, shape (B, n, n)
    chosen : ndarray of int, shape (C,)
        Ascending, each at most once: B of them are all.
    z : ndarray, shape (C, n, k)

    Returns
    -------
    ndarray, shape (C, n, k)

    Examples
    --------
    >>> import numpy as np
    >>> A = np.arange(3.0)[:, None, None] * np.eye(2)
    >>> multiply(A, np.array([2]), np.ones((1, 2, 1))).ravel()
    array([2., 2.])
    """
    n = A.shape[-1]
    if not isinstance(A, np.ndarray):
        return (A if len(chosen) == A.shape[0] else A[chosen]) @ z
    if len(chosen) == len(A) and n < GATHER_MIN_N:
        return A @ z
    v = np.empty(z.shape, dtype=np.result_type(A, z))

    def product(rows: slice) -> None:
        for i, system in enumerate(chosen):
            np.dot(A[system, rows], z[i], out=v[i, rows])

    run(product, row_blocks(n, len(chosen)))
    return v


def row_blocks(n: int, count: int) -> list[slice]:
    """Return the blocks of rows in which each of `count` matrices is walked over by several threads.

    A batch is split by system instead, so only a single large matrix has several.
    """
    return split(n, n, n) if count == 1 and n * n >= 2 * MIN_ENTRIES else [slice(0, n)]


def products(
    A: NDArray[Any], x: NDArray[Any], chosen: NDArray[np.int64] | None = None
) -> tuple[NDArray[Any], FloatArray]:
    """Return A x and |A| |x| from one pass over A: what is large is read from memory once.

    Parameters
    ----------
    A : ndarray, shape (B, n, n)
    x : ndarray, shape (C, n, k)
    chosen : ndarray of int, shape (C,), optional
        Matrices to multiply; all of them if None.

    Returns
    -------
    ndarray, ndarray, shape (C, n, k)

    Examples
    --------
    >>> import numpy as np
    >>> v, size = products(-np.eye(2)[None], np.full((1, 2, 1), -3.0))
    >>> v.ravel(), size.ravel()
    (array([3., 3.]), array([3., 3.]))
    """
    if not isinstance(A, np.ndarray):
        return _products_elsewhere(A if chosen is None else A[chosen], x)
    C, n, _ = x.shape
    magnitude = np.abs(x)
    v, size = np.empty(x.shape, dtype=np.result_type(A, x)), np.empty(x.shape, dtype=magnitude.dtype)
    rows = max(1, BLOCK_ENTRIES // max(1, n))
    if rows >= n:
        systems = max(1, BLOCK_ENTRIES // max(1, n * n))
        for block in (slice(i, i + systems) for i in range(0, C, systems)):
            part = A[block] if chosen is None else A[chosen[block]]
            np.matmul(part, x[block], out=v[block])
            np.matmul(np.abs(part), magnitude[block], out=size[block])
        return v, size

    def walk(walked: slice) -> None:
        absolute = np.empty((rows, n))
        for i in range(C):
            matrix = A[i if chosen is None else chosen[i]]
            for j in range(walked.start, walked.stop, rows):
                block = slice(j, min(j + rows, walked.stop))
                part = matrix[block]
                np.dot(part, x[i], out=v[i, block])
                np.dot(np.abs(part, out=absolute[: len(part)]), magnitude[i], out=size[i, block])

    run(walk, row_blocks(n, C))
    return v, size


def _products_elsewhere(A: Any, x: Any) -> tuple[Any, Any]:
    """Return A x and |A| |x| for arrays of another library, A (C, n, n)."""
    xp = namespace(A)
    count, step = x.shape[0], max(1, DEVICE_ENTRIES // max(1, A.shape[-1]) ** 2)
    magnitude = xp.abs(x)
    blocks = [slice(i, min(i + step, count)) for i in range(0, max(1, count), step)]
    parts = [xp.abs(A[block, ...]) @ magnitude[block, ...] for block in blocks]
    return A @ x, parts[0] if len(parts) == 1 else xp.concat(parts)


def all_finite(A: NDArray[Any]) -> bool:
    """Say whether all entries are finite, from their sum: NaN and infinity do not vanish from it.

    Parameters
    ----------
    A : ndarray, any shape, float64 or complex128, contiguous

    Examples
    --------
    >>> import numpy as np
    >>> all_finite(np.full((3, 2), 1e308)), all_finite(np.array([1.0, np.nan]))
    (True, False)
    """
    if not isinstance(A, np.ndarray):
        xp = namespace(A)
        return bool(xp.all(xp.isfinite(A)))
    entries = A.reshape(-1)

    def check(block: slice) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            total = entries[block].sum()
        return bool(np.isfinite(total)) or bool(np.isfinite(entries[block]).all())  # a sum may overflow

    blocks = split(len(entries), 1, len(entries))
    return check(blocks[0]) if len(blocks) == 1 else all(run(check, blocks))


def has_zero_line(A: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which matrices have a row or a column of zeros and are singular for that.

    A row or a column can be zero only where its entry on the diagonal is: matrices without zeros there cost O(n).

    Parameters
    ----------
    A : ndarray, shape (B, n, n)

    Returns
    -------
    ndarray of bool, shape (B,)

    Examples
    --------
    >>> import numpy as np
    >>> has_zero_line(np.array([np.eye(2), np.diag([1.0, 0.0]), np.ones((2, 2))]))
    array([False,  True, False])
    """
    zero = np.zeros(len(A), dtype=bool)
    if A.shape[-1]:
        diagonal = host(namespace(A).linalg.diagonal(A))
        for i in np.flatnonzero((diagonal == 0).any(axis=1)):
            entries = host(A[int(i)]) != 0
            zero[i] = not (entries.any(axis=0).all() and entries.any(axis=1).all())
    return zero
