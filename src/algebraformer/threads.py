"""Threads: one pool for the process, in which every thread calls BLAS on a single thread of its own.

A product of a matrix with one vector is bound by memory, and BLAS computes a batch of them one after the other on one
thread. So a batch is split over a pool instead. BLAS is limited to one thread meanwhile: two pools that wait for each
other in busy loops are slower than one, and many times slower where other processes use the processor too.

A call uses as many threads as BLAS would, which follows OMP_NUM_THREADS and `threadpoolctl.threadpool_limits`, and no
more than the process may run on. The thread that calls does its share, and nothing waits for a thread that has not
begun. A process made by fork gets a pool of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

MIN_ENTRIES = 2**19
"""Entries of A, 4 MB, that are worth a second thread: a solve takes about a millisecond on them, and to hand work to a
thread and to wait for it a tenth of that."""


class _State:
    """What has to start anew in a process that was forked: the pool, and the limit that other threads have set."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: ThreadPoolExecutor | None = None
        self.depth = 0
        self.saved: list[int] = []


_state = _State()
_local = threading.local()


def _start_anew() -> None:
    """Forget the threads of the parent process, which fork does not copy, and the limit that they have set."""
    global _state, _local
    before = _state
    _state, _local = _State(), threading.local()
    if before.depth:
        _set_limits(_blas().shared, before.saved)


if hasattr(os, "register_at_fork"):  # POSIX only
    os.register_at_fork(after_in_child=_start_anew)


def processors() -> int:
    """Return how many processors this process may use: its affinity, and the quota of a container."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, _quota()))


@functools.cache
def _quota() -> int:
    """Return the whole processors of a cgroup's quota, rounded up; a large number without one."""
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            return -(-int(quota) // int(period))
    return 2**16


class _Blas(NamedTuple):
    """The BLAS libraries of this process, NumPy's and SciPy's."""

    shared: list[Any]
    """Those with one limit for the whole process."""
    own: list[Any]
    """Those with a limit for each thread, which is OpenMP's rule."""


@functools.cache
def _blas() -> _Blas:
    """Return the libraries, as `threadpoolctl` controls them."""
    import scipy.linalg.blas  # noqa: F401  # SciPy's is another one, loaded with this
    from threadpoolctl import ThreadpoolController

    blas = _Blas([], [])
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        (blas.own if getattr(library, "threading_layer", None) == "openmp" else blas.shared).append(library)
    return blas


def _set_limits(libraries: Sequence[Any], counts: Sequence[int]) -> None:
    """Set how many threads each library uses."""
    for library, count in zip(libraries, counts, strict=True):
        # From threadpoolctl 3.8 on, one thread of a process alone can set OpenBLAS's limit, until it gives that up.
        give_up = getattr(library, "clear_controlling_thread", None)
        if give_up is None:
            library.set_num_threads(count)
            continue
        give_up(force=True)
        library.set_num_threads(count)
        give_up(force=True)


def _limit_to_one(libraries: Sequence[Any]) -> list[int]:
    """Limit libraries to one thread; returns how many each of them used before."""
    counts = [library.get_num_threads() or 1 for library in libraries]
    _set_limits(libraries, [1] * len(counts))
    return counts


@contextlib.contextmanager
def one_blas_thread() -> Iterator[int]:
    """Limit BLAS to one thread meanwhile; yields how many threads the call may use in all.

    Calls from several threads count their nesting, and the last one to leave restores what the first one found. Inside
    a task of `run` it yields one.
    """
    allowed = getattr(_local, "allowed", None)
    if allowed is not None:
        yield allowed
        return
    blas, state = _blas(), _state
    with state.lock:
        if state.depth == 0:
            state.saved = _limit_to_one(blas.shared)
        state.depth += 1
    own = _limit_to_one(blas.own)
    # The most that any uses: other packages bring libraries for one thread.
    _local.allowed = allowed = min(processors(), max([*state.saved, *own], default=1))
    try:
        yield allowed
    finally:
        _local.allowed = None
        _set_limits(blas.own, own)
        with state.lock:
            state.depth -= 1
            if state.depth == 0:
                _set_limits(blas.shared, state.saved)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let the calls of this thread use no other thread meanwhile: who calls shares out the work on its own.

    Examples
    --------
    >>> with single_thread(), one_blas_thread() as allowed:
    ...     allowed
    1
    """
    with one_blas_thread() as before:
        _local.allowed = 1
        try:
            yield
        finally:
            _local.allowed = before


def run(task: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return [task(part) for part in parts], computed by several threads where there are several parts.

    Parameters
    ----------
    task : callable
        It must release the interpreter's lock for most of its time, as NumPy does in what is large.
    parts : sequence
        Who is done takes the next one.

    Raises
    ------
    Exception
        What a task raised; parts that were not begun are left out then, and those that were are waited for.

    Examples
    --------
    >>> run(lambda part: sum(part), [range(3), range(5)])
    [3, 10]
    """
    with one_blas_thread() as allowed:
        helpers = min(allowed, len(parts)) - 1
        if helpers <= 0:
            return [task(part) for part in parts]
        results: dict[int, Result] = {}
        remaining, lock = list(reversed(range(len(parts)))), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    if not remaining:
                        return
                    number = remaining.pop()
                try:
                    results[number] = task(parts[number])
                except BaseException:
                    with lock:
                        remaining.clear()
                    raise

        def helper() -> None:
            _local.allowed = 1
            _limit_to_one(_blas().own)
            work()

        futures: list[Future[None]] = []
        with contextlib.suppress(RuntimeError):  # the main thread has ended: there are no helpers any more
            for _ in range(helpers):
                # NumPy's handling of floating point errors belongs to the context.
                futures.append(_pool().submit(contextvars.copy_context().run, helper))
        _local.allowed = 1
        try:
            work()
        finally:
            _local.allowed = allowed
            with lock:
                remaining.clear()
            begun = [future for future in futures if not future.cancel()]
            wait(begun)
        for future in begun:
            future.result()
        return [results[number] for number in range(len(parts))]


def _pool() -> ThreadPoolExecutor:
    """Return the pool of this process, made at its first use."""
    with _state.lock:
        if _state.pool is None:
            _state.pool = ThreadPoolExecutor(max(1, processors() - 1), thread_name_prefix="algebraformer")
        return _state.pool


def split(count: int, entries: int, largest: int) -> list[slice]:
    """Return slices of `count` systems to work on at a time.

    Parameters
    ----------
    count : int
        Number of systems.
    entries : int
        Entries of each matrix.
    largest : int
        Largest number of systems in a slice.

    Returns
    -------
    list of slice
        One for each thread that may run, fewer where they would hold less than `MIN_ENTRIES`, more where they would be
        larger than the largest: products with a matrix that all systems share are the faster, the more share it.

    Examples
    --------
    >>> split(5, entries=2**20, largest=2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    wanted = 1
    if count * entries >= 2 * MIN_ENTRIES:
        with one_blas_thread() as allowed:
            wanted = min(allowed, count * entries // MIN_ENTRIES)
    step = max(1, min(largest, -(-count // wanted)))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
