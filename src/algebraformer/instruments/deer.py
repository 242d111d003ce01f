"""Distances from DEER: recorded traces in, distributions of distances out."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.instruments.classical import Classical, fit_deer
from algebraformer.instruments.inversion import Inversion, Model, check_shapes
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
    grid_label: ClassVar[str] = "distance / nm"
    x_label: ClassVar[str] = "P(r) / nm$^{-1}$"

    @property
    def r(self) -> FloatArray:
        """Distances in nm, shape (n,)."""
        return self.grid


class DeerModel(Model):
    """A network that inverts DEER traces."""

    result = DeerInversion

    def __call__(self, time_us: ArrayLike, trace: ArrayLike, zero: float | None = None) -> Inversion:
        """Invert traces; see `instruments.deer`."""
        t, V = as_traces(time_us, trace)
        batched, V = V.ndim == 2, np.atleast_2d(V)

        # 1. Phase and zero time: those of the mean trace serve all of a batch.
        if np.iscomplexobj(V):
            V = np.stack([phase_corrected(echo)[0].real for echo in V])
        t0 = zero_time(t, V.mean(axis=0)) if zero is None else float(zero)
        if not t[0] - (t[-1] - t[0]) <= t0 < t[-1]:
            raise ValueError(f"the zero time must lie in the trace or shortly before it, received {t0:g} us")

        # 2. What the network has learned to read.
        kept = t - t0 >= EARLIEST
        t, V = t[kept] - t0, V[:, kept]
        check_shapes(t, V, "time_us from the zero")
        found = self.invert(Recorded(t, V, np.ones(len(t), dtype=bool)), V if batched else V[0], batched)
        return dataclasses.replace(found, nuisance=found.nuisance | {"zero_time": found.nuisance["zero_time"] + t0})

    def classical(self, abscissa: FloatArray, data: Array, grid: FloatArray) -> Classical:
        return fit_deer(abscissa, data, grid)


def as_traces(time_us: ArrayLike, trace: ArrayLike) -> tuple[FloatArray, Array]:
    """Return times and traces as arrays; `ValueError` says what is wrong with them."""
    t, V = np.asarray(time_us), np.asarray(trace)
    for name, array in (("time_us", t), ("trace", V)):
        if array.dtype.kind not in "biufc" or (name == "time_us" and array.dtype.kind == "c"):
            raise ValueError(f"{name} must hold numbers, received {array.dtype}")
    t, V = t.astype(np.float64), V.astype(np.complex128 if V.dtype.kind == "c" else np.float64)
    check_shapes(t, V, "time_us")
    if t[-1] - t[0] > LONGEST:
        raise ValueError(
            f"time_us spans {t[-1] - t[0]:g} us, expected at most {LONGEST:g}: are these nanoseconds? divide by 1000"
        )
    if t[-1] - t[0] < 0.1:
        raise ValueError(
            f"time_us spans {t[-1] - t[0]:g} us, expected at least 0.1: are these milliseconds or seconds?"
        )
    if not np.abs(V).max():
        raise ValueError("the trace is zero throughout")
    return t, V
