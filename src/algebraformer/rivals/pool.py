"""A batch of systems split over a pool of threads that use one BLAS thread each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

Array = NDArray[Any]
Solve = Callable[[Array, Array], Array]
"""Takes A (B, n, n) and b (B, n) to x (B, n)."""


def pooled(way: Solve) -> Solve:
    """Return the way with the batch split over as many threads as BLAS has, each with one BLAS thread.

    A factorisation of a few hundred unknowns does not keep the threads of BLAS busy, and these wait for one another
    where another process takes a core. A single system takes no pool, and one BLAS thread.

    Examples
    --------
    >>> import numpy as np
    >>> double = pooled(lambda A, b: 2 * b)
    >>> double(np.ones((3, 1, 1)), np.arange(3.0)[:, None]).ravel()
    array([0., 2., 4.])
    """

    def solve(A: Array, b: Array) -> Array:
        threads = blas_threads()
        count = min(threads, len(A))
        with _controller().limit(limits=1, user_api="blas"):
            if count < 2:
                return way(A, b)
            parts = np.array_split(A, count), np.array_split(b, count)
            return np.concatenate(list(_executor(os.getpid(), threads).map(way, *parts)))

    return solve


def blas_threads() -> int:
    """Return how many threads BLAS may use now: what OMP_NUM_THREADS and threadpoolctl leave it."""
    libraries = [library.num_threads for library in _controller().lib_controllers if library.user_api == "blas"]
    return max(libraries, default=os.cpu_count() or 1)


@functools.cache
def _controller() -> ThreadpoolController:
    """Return the loaded BLAS libraries: to look for them takes as long as a hundred small factorisations."""
    return ThreadpoolController()


@functools.cache
def _executor(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the pool of this process: a child that was forked has none of its parent's threads."""
    return ThreadPoolExecutor(threads)
