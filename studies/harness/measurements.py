"""Measurements that no network was trained on: of the training's kind but other numbers, and of the literature's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments import Deer, Drt, Instrument, Simulated, distributions
from algebraformer.problems.instruments.base import GROUP
from algebraformer.training.data import TEST_SEED

PRIOR = "training"
"""Kind of signals that networks are trained on."""
Rng = np.random.Generator


def place(rng: Rng, r: FloatArray) -> float:
    """Return a distance that the trace is long enough for: within 3/5 of the grid."""
    return float(rng.uniform(r[0] + 0.5, r[0] + 0.6 * (r[-1] - r[0])))


def narrow(rng: Rng, r: FloatArray) -> FloatArray:
    """One peak with a standard deviation of 0.1 to 0.2 nm."""
    return distributions.gaussian(r, place(rng, r), rng.uniform(0.1, 0.2))


def broad(rng: Rng, r: FloatArray) -> FloatArray:
    """One peak with a standard deviation of 0.5 to 1 nm."""
    return distributions.gaussian(r, place(rng, r), rng.uniform(0.5, 1.0))


def rice(rng: Rng, r: FloatArray) -> FloatArray:
    """Two points with normal noise in space."""
    return distributions.rice(r, place(rng, r), rng.uniform(0.2, 0.8))


def random_coil(rng: Rng, r: FloatArray) -> FloatArray:
    """Ends of a Gaussian chain."""
    return distributions.random_coil(r, place(rng, r))


def wormlike_chain(rng: Rng, r: FloatArray) -> FloatArray:
    """Ends of a stiff chain, two thirds to one and a half persistence lengths long."""
    contour = place(rng, r) + 0.5
    return distributions.wormlike_chain(r, contour, contour * rng.uniform(0.7, 1.5))


def time(rng: Rng, tau: FloatArray) -> float:
    """Return a relaxation time within the measured range: half a decade and more from its ends."""
    u = np.log(tau)
    return float(np.exp(rng.uniform(u[0] + 2.5, u[-1] - 2.5)))


def zarc(rng: Rng, tau: FloatArray) -> FloatArray:
    """One ZARC element."""
    return distributions.havriliak_negami(tau, 1.0, time(rng, tau), rng.uniform(0.6, 0.95))


def two_zarcs(rng: Rng, tau: FloatArray) -> FloatArray:
    """Two ZARC elements."""
    return rng.uniform(0.3, 1.5) * zarc(rng, tau) + zarc(rng, tau)


def havriliak_negami(rng: Rng, tau: FloatArray) -> FloatArray:
    """One skewed element."""
    return distributions.havriliak_negami(tau, 1.0, time(rng, tau), rng.uniform(0.7, 0.95), rng.uniform(0.5, 0.9))


def gerischer(rng: Rng, tau: FloatArray) -> FloatArray:
    """One Gerischer element: a pole."""
    return distributions.gerischer(tau, 1.0, time(rng, tau))


def lognormal(rng: Rng, tau: FloatArray) -> FloatArray:
    """One normal arc."""
    return distributions.lognormal(tau, 1.0, time(rng, tau), rng.uniform(0.4, 1.5))


Draw = Callable[[Rng, FloatArray], FloatArray]
KINDS: dict[str, dict[str, Draw]] = {
    "deer": {
        "narrow peak": narrow,
        "broad peak": broad,
        "Rice": rice,
        "random coil": random_coil,
        "worm-like chain": wormlike_chain,
    },
    "drt": {
        "ZARC": zarc,
        "two ZARCs": two_zarcs,
        "Havriliak-Negami": havriliak_negami,
        "Gerischer": gerischer,
        "log-normal": lognormal,
    },
}
"""Distributions of the literature, by instrument."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherDeer(Deer):
    """Traces with signals of another kind."""

    kind: str = "narrow peak"

    def draw_signal(self, rng: Rng, grid: FloatArray) -> FloatArray:
        return of_mean_one(KINDS["deer"][self.kind](rng, grid))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeDrt(Drt):
    """Spectra with real and imaginary parts."""

    def draw_present(self, rng: Rng, rows: int) -> NDArray[np.bool_]:
        return np.ones(rows, dtype=bool)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherDrt(WholeDrt):
    """Spectra with signals of another kind."""

    kind: str = "ZARC"

    def draw_signal(self, rng: Rng, grid: FloatArray) -> FloatArray:
        return of_mean_one(KINDS["drt"][self.kind](rng, grid))


def of_mean_one(x: FloatArray) -> FloatArray:
    """Return x / mean(x)."""
    scaled: FloatArray = x / x.mean()
    return scaled


def instrument(name: str, kind: str, level: float) -> Instrument:
    """Return an instrument whose signals are of a kind and whose noise has one level."""
    settings: dict[str, Any] = {"noise": (level, level)}
    if kind == PRIOR:
        return Deer(**settings) if name == "deer" else WholeDrt(**settings)
    return OtherDeer(kind=kind, **settings) if name == "deer" else OtherDrt(kind=kind, **settings)


def case(name: str, kind: str, level: float, index: int) -> Simulated:
    """Return one measurement, with abscissae of its own; levels change nothing but the size of the noise."""
    return instrument(name, kind, level).simulate([index * GROUP], TEST_SEED)


def axis(name: str, grid: FloatArray) -> FloatArray:
    """Return distances in nm, or decadic logarithms of times."""
    return grid if name == "deer" else np.log10(grid)
