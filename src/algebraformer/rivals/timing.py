"""How accurate and how fast ways to solve a batch are: measured in turn, on systems that none of them has seen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.linalg import EPS, STABILITY_FACTOR, FloatArray, measure, relative_error
from algebraformer.rivals.direct import lu, one_by_one
from algebraformer.rivals.families import POOL, Rival, is_lapack
from algebraformer.rivals.pool import Array, Solve, pooled

MIN_ACCURATE = 0.99
"""Share of answers that have to be accurate for a way to count."""
FAR_BEHIND = 8.0
"""Ways that take more than this many times the best one's time where they are judged are not timed at all."""
PATIENCE = 20.0
"""Seconds after which fewer than three rounds are enough."""
HOPELESS, HOPELESS_ALONE = 2.0, 16.0
"""Ways that take more than this many times the best one's time are not measured at larger batches: from 16 systems on,
where what NumPy costs by the call no longer counts, and before."""
LEAST_ROUNDS, MOST_ROUNDS = 3, 101
"""Least number of rounds whose median is taken, and most."""
SMALL_BATCH = 16
"""Where the one gives way to the other."""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """How good the answers of a way are.

    Attributes
    ----------
    share : float
        Of systems with a backward error of at most n eps, or at most that of LAPACK's LU, or certified by `rtol`.
    backward_error_max : float
    relative_error_max : float
        Largest ||x - x*|| / ||x*||, with the x* of the systems.
    """

    share: float
    backward_error_max: float
    relative_error_max: float

    @property
    def counts(self) -> bool:
        """Whether the way solves the systems of the family as well as LAPACK does."""
        return self.share >= MIN_ACCURATE


@dataclasses.dataclass(frozen=True)
class Judged:
    """A method, in both ways, after it has solved a few systems in a pool of threads.

    Attributes
    ----------
    name : str
        Without the pool.
    condition : str
        See `Rival`.
    accuracy : Accuracy
    seconds : float
        Per system.
    ways : tuple of Rival
    """

    name: str
    condition: str
    accuracy: Accuracy
    seconds: float
    ways: tuple[Rival, ...]


def judge(ways: Sequence[Rival], A: Array, b: Array, x: Array, rtol: float | None = None) -> list[Judged]:
    """Measure the accuracy of every method, and roughly its time, by the way that splits the batch over a pool.

    Parameters are those of `accuracy`; the other way of a method computes the same.
    """
    reference = lapack_backward_error(A, b)
    found = []
    for way in ways:
        if way.name.endswith(POOL):
            name, start = way.name.removesuffix(POOL), time.perf_counter()
            measured = accuracy(way.solve, A, b, x, rtol, reference)
            both = tuple(other for other in ways if other.name.removesuffix(POOL) == name)
            found.append(Judged(name, way.condition, measured, (time.perf_counter() - start) / len(A), both))
    return found


def contenders(judged: Sequence[Judged]) -> list[Rival]:
    """Return the ways of the methods that are accurate and not far behind; LAPACK's LU always stays."""
    best = min((method.seconds for method in judged if method.accuracy.counts), default=np.inf)
    return [
        way
        for method in judged
        if method.accuracy.counts and (method.seconds <= FAR_BEHIND * best or is_lapack(method.name))
        for way in method.ways
    ]


def lapack_backward_error(A: Array, b: Array) -> FloatArray:
    """Return the componentwise backward errors (B,) of LAPACK's LU."""
    x = pooled(one_by_one(lu))(A, b)
    return measure(A, b[:, :, None], x[:, :, None]).backward_error[:, 0]


def accuracy(
    way: Solve, A: Array, b: Array, x: Array, rtol: float | None = None, reference: FloatArray | None = None
) -> Accuracy:
    """Measure the answers of a way to B systems; one that fails on a matrix answers nothing.

    Parameters
    ----------
    way : callable
    A : ndarray, shape (B, n, n)
    b, x : ndarray, shape (B, n)
        x are solutions to compare with.
    rtol : float, optional
        Tolerance on the relative residual, which is then enough.
    reference : ndarray, shape (B,), optional
        What `lapack_backward_error` returns.

    Examples
    --------
    >>> import numpy as np
    >>> A, b = 2 * np.eye(3)[None], np.ones((1, 3))
    >>> accuracy(lambda A, b: b / 2, A, b, b / 2).counts, accuracy(lambda A, b: b, A, b, b / 2).counts
    (True, False)
    """
    try:
        answers = way(A, b)
    except np.linalg.LinAlgError:
        return Accuracy(0.0, np.inf, np.inf)
    found = measure(A, b[:, :, None], answers[:, :, None])
    omega = found.backward_error[:, 0]
    reference = lapack_backward_error(A, b) if reference is None else reference
    good = omega <= np.maximum(STABILITY_FACTOR * A.shape[-1] * EPS, reference)
    if rtol is not None:
        good |= found.relative_residual[:, 0] <= rtol
    error = relative_error(answers[:, :, None], x[:, :, None])
    return Accuracy(float(np.mean(good)), float(omega.max()), float(error.max()))


def take_turns(
    ways: Mapping[str, Solve],
    A: Array,
    b: Array,
    batch: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each round of every way; the ways take turns, every round with other systems of the sample.

    There are rounds until `seconds` have passed, but three at least, or fewer where these take long, see `PATIENCE`. A
    round before them warms up, unless it takes longer than `seconds`.

    Parameters
    ----------
    ways : dict of callables
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n)
    batch : int
        Systems per call, at most B.
    seconds : float
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    count, begin, rounds, warm = len(A) // batch, clock(), 0, 0
    while (
        rounds == 0
        or (rounds < LEAST_ROUNDS + warm and clock() - begin < PATIENCE)
        or (clock() - begin < seconds and rounds < MOST_ROUNDS)
    ):
        part = slice(rounds % count * batch, (rounds % count + 1) * batch)
        matrices, right = A[part].copy(), b[part].copy()
        for name, way in ways.items():
            start = clock()
            way(matrices, right)
            found[name].append(clock() - start)
        rounds += 1
        if rounds == 1:
            warm = int(clock() - begin <= seconds or seconds == 0)
    return {name: values[warm:] or values for name, values in found.items()}


def race(
    ours: Solve,
    rivals: Sequence[Rival],
    A: Array,
    b: Array,
    batches: Sequence[int],
    seconds: float,
    report: Callable[[int], object] = lambda done: None,
) -> list[dict[str, Any]]:
    """Time ours against all rivals at every batch size, ascending; hopeless ones are left out at larger batches.

    The best way of LAPACK's LU always stays.

    Parameters
    ----------
    ours : callable
    rivals : sequence of Rival
        With at least one way of LAPACK's LU.
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n)
    batches : sequence of int
        Systems per call, ascending, at most B.
    seconds : float
        See `take_turns`.
    report : callable
        Called with the number of batch sizes that are done.

    Returns
    -------
    list of dict
        batch; seconds per system of ours, lapack and rival, with quartiles of ours; names lapack_way and best; and
        rivals, the seconds of all that were measured by name.
    """
    records, going = [], list(rivals)
    for batch in batches:
        found = take_turns({"": ours} | {way.name: way.solve for way in going}, A, b, batch, seconds)
        median = {name: float(np.median(values)) / batch for name, values in found.items()}
        low, _, high = quartiles(found[""])
        mine = median.pop("")
        best = min(median, key=median.__getitem__)
        lapack = min(filter(is_lapack, median), key=median.__getitem__)
        records.append(
            {
                "batch": batch,
                "ours": mine,
                "quartiles": [low / batch, high / batch],
                "lapack": median[lapack],
                "lapack_way": lapack,
                "rival": median[best],
                "best": best,
                "rivals": median,
            }
        )
        limit = (HOPELESS if batch >= SMALL_BATCH else HOPELESS_ALONE) * median[best]
        going = [way for way in going if median[way.name] <= limit or way.name == lapack]
        report(len(records))
    return records


def quartiles(values: Sequence[float] | FloatArray) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile.

    Examples
    --------
    >>> quartiles([4.0, 1.0, 2.0, 3.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    low, middle, high = np.quantile(np.asarray(values), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)
