"""Families of noisy measurements: b = A x + e, with a signal x drawn from a prior and noise e of unknown level.

Signals are functions of u in [0, 1], drawn with random numbers that do not depend on the grid (except spikes, which
occupy one entry each) and scaled to root mean square 1. The parameters of the priors are our choices; a family of one's
own overrides `NoisyFamily.draw_signal`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, Systems, check_limits, check_whole, real
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform

NoiseKind = Literal["gaussian", "poisson", "outliers"]
OUTLIERS = 0.05
"""Share of the measurements that are outliers."""
OUTLIER_FACTOR = 10.0
"""Standard deviation of an outlier's noise over that of the others."""
MAX_JUMPS = 8
"""Most jumps of a piecewise constant signal."""
N_MODES = 48
"""Modes of a smooth signal."""
LENGTHS = (0.04, 0.2)
"""Limits of the correlation length of a smooth signal."""
MAX_SPIKES = 6
"""Most spikes of a signal."""


def piecewise(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a piecewise constant signal: 1 to 8 jumps anywhere, levels N(0, 1)."""
    jumps = int(rng.integers(1, MAX_JUMPS + 1))
    levels, places = rng.standard_normal(jumps + 1), np.sort(rng.random(jumps))
    return normalized(levels[np.searchsorted(places, u)])


def smooth(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a stationary Gaussian field with covariance exp(-(u - u')^2 / (2 l^2)), made periodic over length 2.

    x(u) = sum_{k=0..48} s_k (a_k cos(k pi u) + b_k sin(k pi u)), a_k, b_k ~ N(0, 1), s_k = exp(-(k pi l)^2 / 4) with l
    log-uniform in (0.04, 0.2).
    """
    k = np.arange(N_MODES + 1)
    scale = np.exp(-((k * np.pi * log_uniform(rng, LENGTHS)) ** 2) / 4)
    a, b = scale * rng.standard_normal((2, N_MODES + 1))
    angle = np.pi * k * u[:, None]
    return normalized(np.sum(a * np.cos(angle) + b * np.sin(angle), axis=1))


def spikes(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return 1 to 6 spikes of one entry each, anywhere, with heights U(0.5, 1.5) of either sign."""
    count = int(rng.integers(1, MAX_SPIKES + 1))
    heights = rng.uniform(0.5, 1.5, count) * rng.choice((-1.0, 1.0), count)
    x = np.zeros(len(u))
    np.add.at(x, (rng.random(count) * len(u)).astype(int), heights)
    return normalized(x)


def mixture(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a sum of the three with weights from the flat Dirichlet distribution."""
    weights = rng.dirichlet(np.ones(3))
    parts = [piecewise(rng, u), smooth(rng, u), spikes(rng, u)]
    return normalized(sum((w * part for w, part in zip(weights, parts, strict=True)), np.zeros(len(u))))


def normalized(x: FloatArray) -> FloatArray:
    """Return x / (||x||_2 / sqrt(n))."""
    return x / np.sqrt(np.mean(x**2))


DRAWS: dict[str, Callable[[np.random.Generator, FloatArray], FloatArray]] = {
    "piecewise": piecewise,
    "smooth": smooth,
    "spikes": spikes,
    "mixture": mixture,
}
CLASSICAL = "classical"
"""The test signal of the literature; each family has its own."""
PRIORS = (*DRAWS, CLASSICAL)
"""Names of the priors; `Systems.params["prior"]` holds positions in this tuple."""
OWN = -1
"""What it holds for signals of a `draw_signal` of one's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyFamily(ProblemFamily):
    """Noisy measurements b = A x + e; a subclass defines A by `matrix`, and x by `draw_signal`.

    x has root mean square 1. e has standard deviation noise * ||A x||_2 / sqrt(m) in the mean over the measurements,
    whatever its kind, with "noise" log-uniform. `Systems.x` is the true signal, so x solves A x = clean and not
    A x = b. Besides the parameters of A, `Systems.params` holds "noise" (B,), "prior" (B,), the position
    of the prior in `PRIORS` or `OWN`, "clean" (B, m), which is A x, "signal" (B, n), which is x, and "z" (B, m), noise
    of variance 1.

    Examples
    --------
    >>> import dataclasses, numpy as np
    >>> from algebraformer.problems import NoisyFamily
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Blurred(NoisyFamily):
    ...     nonnegative = True
    ...     def matrix(self, params):
    ...         s, t = (np.arange(k) / k for k in (self.n_equations, self.n))
    ...         A = np.exp(-(((s[:, None] - t) / 0.1) ** 2)) / self.n
    ...         return np.tile(A, (len(params["noise"]), 1, 1))
    ...     def draw_signal(self, rng, u):
    ...         return np.exp(-(((u - rng.random()) / 0.05) ** 2))
    >>> systems = Blurred(n=16, m=24).sample(3, seed=0)
    >>> systems.A.shape, bool((systems.x >= 0).all())
    ((3, 24, 16), True)
    """

    m: int | None = None
    """Number of measurements; n if None."""
    noise: Limits = (1e-3, 1e-1)
    """Limits of the relative level of the noise, log-uniform."""
    priors: tuple[str, ...] = tuple(DRAWS)
    """Priors that x is drawn from, each equally often: piecewise, smooth, spikes, mixture, classical. Without effect
    where `draw_signal` is overridden."""
    noise_kind: NoiseKind = "gaussian"
    """gaussian: N(0, s^2). poisson: N(0, s^2 |A x|_i / mean |A x|), as counting has it. outliers: N(0, s^2) with a
    twentieth of the measurements ten times as noisy."""

    nonnegative: ClassVar[bool] = False
    """Whether all signals are >= 0, as densities, spectra and images are. Estimates and their intervals then are, too,
    and the classical answer beside them is the one with x >= 0."""
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
    def n_equations(self) -> int:
        """Number of measurements m."""
        return self.n if self.m is None else self.m

    def draw_operator(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of A; none by default."""
        return {}

    @abc.abstractmethod
    def matrix(self, params: Parameters) -> FloatArray:
        """Assemble A (B, m, n) from stacked parameters."""

    def classical_signal(self) -> FloatArray:
        """Return the test signal of the literature, shape (n,), at any scale; only the prior "classical" needs it."""
        raise ConfigurationError(f"{type(self).__name__} has no classical_signal, which the prior 'classical' needs")

    def draw_signal(self, rng: np.random.Generator, u: FloatArray) -> FloatArray:
        """Draw the signal x of one system; override it for signals of your own.

        Parameters
        ----------
        rng : numpy.random.Generator
            Take all random numbers from it.
        u : ndarray, shape (n,)
            Places of the entries of x, the midpoints of n equal parts of [0, 1].

        Returns
        -------
        ndarray, shape (n,)
            At any scale, not zero throughout: the family divides it by its root mean square. By default a draw from
            one of `priors`.
        """
        return self._draw_from_priors(rng, u)[1]

    def _draw_from_priors(self, rng: np.random.Generator, u: FloatArray) -> tuple[int, FloatArray]:
        """Draw a prior, then a signal from it; return its position in `PRIORS`, and the signal."""
        prior = self.priors[rng.integers(len(self.priors))]
        x = normalized(self.classical_signal()) if prior == CLASSICAL else DRAWS[prior](rng, u)
        return PRIORS.index(prior), x

    def _draw_own(self, rng: np.random.Generator, u: FloatArray) -> FloatArray:
        """Return a checked signal of an overridden `draw_signal`, of root mean square 1."""
        what = f"{type(self).__name__}.draw_signal"
        x = real(self.draw_signal(rng, u), f"what {what} returns")
        if x.shape != u.shape:
            raise ConfigurationError(f"{what} must return shape {u.shape}, received {x.shape}")
        if not np.isfinite(x).all():
            raise ConfigurationError(f"{what} must return finite numbers, received NaN or infinity")
        if not x.any():
            raise ConfigurationError(f"{what} must return a signal that is not zero throughout")
        return normalized(x / np.abs(x).max())  # squares of entries stay within float64

    @property
    def has_own_signals(self) -> bool:
        """Whether `draw_signal` is overridden."""
        return type(self).draw_signal is not NoisyFamily.draw_signal

    def drawn_signal(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw "prior" and "signal" of one system.

        Raises
        ------
        ConfigurationError
            The signal has the wrong shape, is not finite, is zero throughout, or is negative somewhere although the
            family says `nonnegative`.
        """
        u = (np.arange(self.n) + 0.5) / self.n
        prior, x = (OWN, self._draw_own(rng, u)) if self.has_own_signals else self._draw_from_priors(rng, u)
        if self.nonnegative and x.min() < 0:
            raise ConfigurationError(
                f"{type(self).__name__} says nonnegative = True, received a signal with entries below zero: override "
                "draw_signal"
            )
        return {"prior": prior, "signal": x}

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw operator, noise and signal, in this order: other priors and levels keep operator and noise."""
        own = self.draw_operator(rng)
        level, z = log_uniform(rng, self.noise), rng.standard_normal(self.n_equations)
        if self.noise_kind == "outliers":
            z *= np.where(rng.random(self.n_equations) < OUTLIERS, OUTLIER_FACTOR, 1.0)
            z /= np.sqrt(1 + OUTLIERS * (OUTLIER_FACTOR**2 - 1))
        return own | {"noise": level, **self.drawn_signal(rng), "z": z}

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A = self.matrix(params)
        clean = measured(A, params["signal"])
        deviation = params["noise"] * np.sqrt(total(clean**2) / self.n_equations)  # (B,)
        e = deviation[:, None] * params["z"]
        if self.noise_kind == "poisson":
            size = np.abs(clean)
            e *= np.sqrt(size * self.n_equations / total(size)[:, None])
        return A, clean + e

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        """Return the true signals."""
        return np.asarray(params["signal"], dtype=np.float64)

    def at(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> Systems:
        """Return the systems at these indices of the sequence of `seed`, with "clean" in params."""
        systems = super().at(indices, seed)
        return dataclasses.replace(systems, params=systems.params | {"clean": measured(systems.A, systems.x)})


def measured(A: FloatArray, x: FloatArray) -> FloatArray:
    """Return A x for a batch: (B, m) from (B, m, n) and (B, n)."""
    return total(A * x[:, None, :])


def total(v: FloatArray) -> FloatArray:
    """Return the sums over the last axis, added in order: unlike np.sum, with the same bits for any batch."""
    return np.cumsum(v, axis=-1)[..., -1]
