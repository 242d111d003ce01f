"""A batch of systems split over the threads of `algebraformer.threads`, with one BLAS thread each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer import threads

Array = NDArray[Any]
Solve = Callable[[Array, Array], Array]
"""Takes A (B, n, n) and b (B, n) to x (B, n)."""


def pooled(way: Solve) -> Solve:
    """Return the way with the batch split over as many threads as BLAS would use, each with one BLAS thread.

    A factorisation of a few hundred unknowns does not keep the threads of BLAS busy, and these wait for one another
    where another process takes a core.

    Examples
    --------
    >>> import numpy as np
    >>> double = pooled(lambda A, b: 2 * b)
    >>> double(np.ones((3, 1, 1)), np.arange(3.0)[:, None]).ravel()
    array([0., 2., 4.])
    """

    def solve(A: Array, b: Array) -> Array:
        with threads.one_blas_thread() as allowed:
            count = max(1, min(allowed, len(A)))
            parts = list(zip(np.array_split(A, count), np.array_split(b, count), strict=True))
            return np.concatenate(threads.run(lambda part: way(*part), parts))

    return solve
