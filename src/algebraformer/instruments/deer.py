"""Distances from DEER: recorded traces in, distributions of distances out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.arrays import kind_of
from algebraformer.instruments.classical import Classical, fit_deer
from algebraformer.instruments.given import as_numbers, check_shapes
from algebraformer.instruments.inversion import Inversion, Model
from algebraformer.instruments.traces import phase_corrected, zero_time
from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments.base import Recorded

Array = NDArray[Any]
EARLIEST = -0.35
"""Times before this, in us from the zero, are left out: the network has seen no longer beginnings."""
SHORTEST, LONGEST = 0.1, 50.0
"""A trace shorter or longer than this, in us, is none: times are in another unit."""


@dataclasses.dataclass(frozen=True)
class DeerInversion(Inversion):
    """Distances from a trace, or from B traces with the same times.

    x is the density P(r) in 1/nm on `r` (nm), with integral 1. Nuisance parameters are modulation_depth,
    background_rate (1/us), dimension (of the space that other spins fill), amplitude V(0) and zero_time (us, in the
    times as they were given). `abscissa` holds times from the zero; `data` is the real part with the phase corrected.
    The other fields are those of `Inversion`.
    """

    grid_name: ClassVar[str] = "r"
    units: ClassVar[Mapping[str, str]] = {"background_rate": "1/us", "zero_time": "us"}

    @property
    def r(self) -> FloatArray:
        """Distances in nm, shape (n,)."""
        return self.grid


class DeerModel(Model):
    """A network that inverts DEER traces."""

    result = DeerInversion

    def __call__(self, time_us: ArrayLike, trace: ArrayLike, zero: float | None = None) -> Inversion:
        """Invert traces; see `instruments.deer`."""
        kind = kind_of(trace=trace)
        t, V = as_traces(time_us, trace)
        batched, V = V.ndim == 2, np.atleast_2d(V)

        # 1. Phase and zero time: those of the mean trace serve all of a batch.
        if np.iscomplexobj(V):
            V = np.stack([phase_corrected(echo)[0].real for echo in V])
        t0 = found_zero(t, V.mean(axis=0)) if zero is None else given_zero(t, zero)

        # 2. What the network has learned to read.
        kept = t - t0 >= EARLIEST
        t, V = t[kept] - t0, V[:, kept]
        if t[-1] < SHORTEST:
            raise ValueError(
                f"the trace ends {t[-1]:.3g} us after its zero at {t0:.6g} us, expected at least {SHORTEST}"
            )
        check_shapes(t, V, "time_us from the zero", "trace")
        found = self.invert(Recorded(t, V, np.ones(len(t), dtype=bool)), V if batched else V[0], batched)
        nuisance = found.nuisance | {"zero_time": found.nuisance["zero_time"] + t0}
        return dataclasses.replace(found, nuisance=nuisance).as_kind(kind)

    def classical(self, recorded: Recorded, data: Array, grid: FloatArray) -> Classical:
        return fit_deer(recorded.abscissa, data, grid)


def as_traces(time_us: ArrayLike, trace: ArrayLike) -> tuple[FloatArray, Array]:
    """Return times and traces as arrays; `ValueError` says what is wrong with them."""
    t, V = as_numbers(time_us, "time_us"), as_numbers(trace, "trace")
    if t.dtype.kind == "c":
        raise ValueError(f"time_us has dtype {t.dtype}, expected real numbers")
    check_shapes(t, V, "time_us", "trace")
    if t[-1] - t[0] > LONGEST:
        raise ValueError(
            f"time_us spans {t[-1] - t[0]:g} us, expected at most {LONGEST:g}: are these nanoseconds? divide by 1000"
        )
    if t[-1] - t[0] < SHORTEST:
        raise ValueError(
            f"time_us spans {t[-1] - t[0]:g} us, expected at least {SHORTEST}: are these milliseconds or seconds?"
        )
    if not np.iscomplexobj(V) and (V.mean(axis=-1) < 0).any():
        raise ValueError("the mean of the trace is negative, expected a positive echo: give the trace times -1")
    return t, V


def found_zero(t: FloatArray, V: FloatArray) -> float:
    """Return the time of the zero of a trace; `ValueError` if it may lie before the trace."""
    t0 = zero_time(t, V)
    if t0 == t[0] > 0:
        raise ValueError(
            f"the trace has no maximum after its first point at {t[0]:.6g} us, so that its zero cannot be found: "
            "give zero_time"
        )
    return t0


def given_zero(t: FloatArray, zero: Any) -> float:
    """Return the time of the zero as a caller gives it; `ValueError` if it is none."""
    found = as_numbers(zero, "zero_time")
    if found.ndim or found.dtype.kind == "c":
        raise ValueError(f"zero_time must be one real number, received {zero!r}")
    t0 = float(found)
    if not t[0] - (t[-1] - t[0]) <= t0 < t[-1]:
        raise ValueError(
            f"zero_time must lie in the trace, from {t[0]:.6g} to {t[-1]:.6g} us, or shortly before it, received {t0:g}"
        )
    return t0
