"""Families of noisy measurements: b = A x + e, with a signal x from a prior and noise e of a level nobody is told."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import (
    FloatArray,
    Limits,
    Parameters,
    ProblemFamily,
    Systems,
    check_limits,
    check_whole,
    log_uniform,
)
from algebraformer.problems.signals import CLASSICAL, DRAWS, PRIORS, normalized

NoiseKind = Literal["gaussian", "poisson", "outliers"]
OUTLIERS = 0.05
"""Share of the measurements that are outliers."""
OUTLIER_FACTOR = 10.0
"""Standard deviation of an outlier's noise over that of the others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyFamily(ProblemFamily):
    """Noisy measurements b = A x + e; members say what A and the classical signal are.

    x has root mean square 1. e has standard deviation noise * ||A x||_2 / sqrt(m) in the mean over the measurements,
    whatever its kind, with "noise" log-uniform. `Systems.x` is the true signal, so x solves A x = clean and not
    A x = b. Besides the parameters of the instrument, `Systems.params` holds "noise" (B,), "prior" (B,), the position
    of the prior in `PRIORS`, "clean" (B, m), which is A x, "signal" (B, n), which is x, and "z" (B, m), noise of
    variance 1.
    """

    m: int | None = None
    """Number of measurements; n if None."""
    noise: Limits = (1e-3, 1e-1)
    """Limits of the relative level of the noise, log-uniform."""
    priors: tuple[str, ...] = tuple(DRAWS)
    """Priors that x is drawn from, each equally often: piecewise, smooth, spikes, mixture, classical."""
    noise_kind: NoiseKind = "gaussian"
    """gaussian: N(0, s^2). poisson: N(0, s^2 |A x|_i / mean |A x|), as counting has it. outliers: N(0, s^2) with a
    twentieth of the measurements ten times as noisy."""

    positive: ClassVar[tuple[str, ...]] = ("noise",)
    """Settings whose limits must be positive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m is not None:
            check_whole(self, "m")
        check_limits(self, self.positive)
        if not isinstance(self.priors, tuple) or not self.priors or not set(self.priors) <= set(PRIORS):
            raise ConfigurationError(f"priors must be some of {', '.join(PRIORS)}, received {self.priors!r}")
        if self.noise_kind not in get_args(NoiseKind):
            raise ConfigurationError(
                f"noise_kind must be one of {', '.join(get_args(NoiseKind))}, received {self.noise_kind!r}"
            )

    @property
    def rows(self) -> int:
        """Number of measurements m."""
        return self.n if self.m is None else self.m

    def instrument(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of the instrument that makes A; none unless a member says otherwise."""
        return {}

    @abc.abstractmethod
    def matrix(self, params: Parameters) -> FloatArray:
        """Assemble A (B, m, n) from stacked parameters."""

    @abc.abstractmethod
    def classical_signal(self) -> FloatArray:
        """Return the signal with which the literature introduces the problem, shape (n,), of any scale."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw instrument, noise and signal, in this order: other priors and levels keep instrument and noise."""
        own = self.instrument(rng)
        level, z = log_uniform(rng, self.noise), rng.standard_normal(self.rows)
        if self.noise_kind == "outliers":
            z *= np.where(rng.random(self.rows) < OUTLIERS, OUTLIER_FACTOR, 1.0)
            z /= np.sqrt(1 + OUTLIERS * (OUTLIER_FACTOR**2 - 1))
        prior = self.priors[rng.integers(len(self.priors))]
        if prior == CLASSICAL:
            x = normalized(self.classical_signal())
        else:
            x = DRAWS[prior](rng, (np.arange(self.n) + 0.5) / self.n)
        return own | {"noise": level, "prior": PRIORS.index(prior), "signal": x, "z": z}

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A = self.matrix(params)
        clean = measured(A, params["signal"])
        deviation = params["noise"] * np.sqrt(total(clean**2) / self.rows)  # (B,)
        e = deviation[:, None] * params["z"]
        if self.noise_kind == "poisson":
            size = np.abs(clean)
            e *= np.sqrt(size * self.rows / total(size)[:, None])
        return A, clean + e

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        """Return the true signals, which the noise hides."""
        return np.asarray(params["signal"], dtype=np.float64)

    def at(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> Systems:
        """Return the systems at these indices of the endless sequence that `seed` names; "clean" is in params."""
        systems = super().at(indices, seed)
        return dataclasses.replace(systems, params=systems.params | {"clean": measured(systems.A, systems.x)})


def measured(A: FloatArray, x: FloatArray) -> FloatArray:
    """Return A x for a batch: (B, m) from (B, m, n) and (B, n)."""
    return total(A * x[:, None, :])


def total(v: FloatArray) -> FloatArray:
    """Return the sums over the last axis, added up in order: the same bits whatever the batch, which np.sum is not."""
    return np.cumsum(v, axis=-1)[..., -1]
