"""Distance distributions from traces of four-pulse DEER: what a network is trained on.

x is the density over the position u in the range of the grid, 0 to 1, with mean 1; P(r) = x / (n dr), dr the step of
the grid. All limits are our choices, wide enough for published traces.

References
----------
.. [1] G. Jeschke, "DEER distance measurements on proteins", Annual Review of Physical Chemistry 63 (2012).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.numerics.gaussian_fit import Fits, Way
from algebraformer.problems.base import register
from algebraformer.problems.instruments.base import Instrument, Nuisance, Recorded
from algebraformer.problems.instruments.dipolar import distance_grid, tabulated_kernel, trace
from algebraformer.problems.instruments.priors import smooth_density
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform

DECAYS = np.exp(np.linspace(np.log(0.02), np.log(4.0), 8))
"""Exponents of the backgrounds at the end of the trace that it is read with: a factor of two apart, which a derivative
bridges."""
OFFSET, SPREAD = 2.0, 0.3
"""Standard deviations of what is not modulated, where the modulated part is one, and of log(rate) and dimension around
those of a way."""
GAUSS_NEWTON_STEPS = 4
"""Steps of the fit of a background: the rate starts within a factor of two, and the fourth changes it by little."""
LOG_RATE, DIMENSION = 1.0, 0.3
"""Standard deviations of log(rate) and dimension over the prior."""
MOVES = np.array([[1.0], [0.5], [0.01]])
LOWEST, HIGHEST = np.array([[np.log(1e-3)], [2.0], [-0.05]]), np.array([[np.log(3.0)], [3.5], [0.05]])
"""Largest step, and limits, of log(rate), dimension and zero time."""
STEP = 0.008
"""Difference of times that the slope of a trace is taken from, us."""
DEPTHS: Limits = (0.06, 0.7)
"""Limits of the modulation depth."""
RATES: Limits = (0.01, 0.5)
"""Limits of the background's rate, 1/us, log-uniform."""
LENGTHS: Limits = (1.0, 8.0)
"""Limits of the length of a trace from its zero, us, log-uniform."""
NUMBERS: tuple[Limits, ...] = ((60, 1000), (30, 60), (1000, 2000))
NUMBER_SHARES = (0.87, 0.1, 0.03)
"""Limits of the number of points, log-uniform, and how often these are drawn."""
SHIFT = 0.008
"""Standard deviation of the error of the zero time, us: half a step of a usual trace."""
USUAL = 0.7
"""Part of the grid that peaks are usually in: of traces that are long enough for them [1]_. Few are further out."""
PEAK_WIDTHS: Limits = (0.08, 1.3)
"""Limits of the standard deviation of a peak, nm, log-uniform."""


SLACK, NOISE_SLACK = 1.02, 1.1
"""Factors by which length, and noise, may be beyond their limits: what is found has an error."""
DEPTH_ERROR, RATE_ERROR = 0.03, 0.05
"""Depth, and log(rate), may be beyond the highest by so much. One simulated trace in two hundred is, or less."""
GAPS = (0.19, 25.0)
"""Largest gap between times, over their range and over their mean step: the largest of 3000 grids."""
LATE_START = 0.04
"""Latest start over the length: the latest of 3000 grids."""


class Explained(NamedTuple):
    """What explains B traces beside their densities.

    Attributes
    ----------
    fitted : ndarray, shape (B, m)
    sizes : ndarray, shape (B, 2)
        At time zero, of what is not modulated and of what is: V0 (1 - depth) and V0 depth.
    inner : ndarray, shape (3, B)
        log(rate), dimension and zero time.
    """

    fitted: FloatArray
    sizes: FloatArray
    inner: FloatArray


@register("deer")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Deer(Instrument):
    """Traces V(t) = V0 (1 - depth + depth (K P)(t)) B(t) of four-pulse DEER; abscissae: times from the zero in us."""

    noise: Limits = (2e-3, 0.2)
    """Limits of the noise's standard deviation over V0, log-uniform."""

    nuisance_names: ClassVar[tuple[str, ...]] = (
        "modulation_depth", "background_rate", "dimension", "amplitude", "zero_time",
    )  # fmt: skip
    is_density: ClassVar[bool] = True
    abscissa_label: ClassVar[str] = "time / us"
    grid_label: ClassVar[str] = "distance / nm"
    x_label: ClassVar[str] = "P(r) / nm$^{-1}$"
    data_label: ClassVar[str] = "V(t), unit as given"

    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> FloatArray:
        """Draw times from up to a third of a microsecond before the zero on, one in seven grids with gaps."""
        length = log_uniform(rng, LENGTHS)
        m = points or int(log_uniform(rng, NUMBERS[rng.choice(len(NUMBERS), p=NUMBER_SHARES)]))
        start = -min(0.35, 0.2 * length) * rng.random()
        if rng.random() > 0.15:
            return np.linspace(start, length, m)
        fine = np.linspace(start, length, 4 * m)
        likely = np.exp(-np.linspace(0, 3 * rng.random(), 4 * m))
        return fine[np.sort(rng.choice(4 * m, m, replace=False, p=likely / likely.sum()))]

    def grid(self, abscissa: FloatArray) -> FloatArray:
        return distance_grid(abscissa[-1], self.n)

    def kernel(self, abscissa: FloatArray, grid: FloatArray) -> FloatArray:
        return tabulated_kernel(abscissa, grid) / self.n

    def ways(self, abscissa: FloatArray, data: FloatArray, present: NDArray[np.bool_]) -> tuple[Way, ...]:
        """Return a way for each of some backgrounds B, with columns B, dB / d log(rate) and dB / d dimension.

        The columns stand for V0 (1 - depth) B with a rate and a dimension between those of the ways.
        """
        found = []
        for decay in DECAYS:
            exponent = decay * np.abs(abscissa) / abscissa[-1]
            B = np.exp(-exponent)
            by_rate = exponent * B
            by_dimension = by_rate * np.log(np.maximum(exponent, 1e-9)) / 3
            N = np.stack((B, SPREAD * by_rate, SPREAD * by_dimension), axis=1)
            found.append(Way(B, OFFSET * N, present.astype(float)))
        return tuple(found)

    def features(self, abscissa: FloatArray) -> FloatArray:
        """Return length, number and start of the times."""
        length = abscissa[-1]
        return np.array([np.log(length) - 1, np.log(len(abscissa)) - 5, 5 * min(0.0, abscissa[0]) / length])

    def draw_signal(self, rng: np.random.Generator, grid: FloatArray) -> FloatArray:
        """Draw one to four peaks, some of them skewed, or one time in four a smooth density, with mean 1."""
        from scipy.special import ndtr  # slow to import, and the command line lists families

        if rng.random() < 0.25:
            return smooth_density(rng, self.n)
        span, step = grid[-1] - grid[0], grid[1] - grid[0]
        narrowest = min(max(PEAK_WIDTHS[0], 1.2 * step), PEAK_WIDTHS[1])
        count = int(rng.integers(1, 5))
        place = grid[0] + span * rng.uniform(0.02, 0.97 if rng.random() < 0.15 else USUAL, count)
        width = np.exp(rng.uniform(np.log(narrowest), np.log(PEAK_WIDTHS[1]), count))
        skew = np.where(rng.random(count) < 0.4, rng.uniform(-4, 4, count), 0.0)
        z = (grid[:, None] - place) / width
        density = np.sum(rng.dirichlet(np.ones(count)) / width * np.exp(-(z**2) / 2) * ndtr(skew * z), axis=1)
        return density / density.mean()

    def draw_nuisance(self, rng: np.random.Generator) -> dict[str, float]:
        return {
            "modulation_depth": rng.uniform(*DEPTHS),
            "background_rate": log_uniform(rng, RATES),
            "dimension": 3.0 if rng.random() < 0.6 else rng.uniform(2, 3.5),
            "amplitude": 1.0,
        }

    def draw_shared(self, rng: np.random.Generator, abscissa: FloatArray) -> dict[str, float]:
        return {"zero_time": SHIFT * rng.standard_normal()}

    def response(self, abscissa: FloatArray, grid: FloatArray, x: FloatArray, nuisance: Nuisance) -> FloatArray:
        t = abscissa - nuisance["zero_time"][0]  # one for all, see `draw_shared`
        names = ("modulation_depth", "background_rate", "dimension", "amplitude")
        return trace(t, x @ self.kernel(t, grid).T, *(nuisance[name] for name in names))

    def noise_deviation(self, clean: FloatArray, drawn: dict[str, Any]) -> FloatArray:
        return np.broadcast_to(drawn["level"][:, None], clean.shape)

    def fitted(self, recorded: Recorded, x: FloatArray, fits: Fits) -> FloatArray:
        """Return the trace that a density explains best, see `explained`."""
        return self.explained(recorded, x, fits).fitted

    def explained(self, recorded: Recorded, x: FloatArray, fits: Fits) -> Explained:
        """Fit to traces what is not in a density x (B, n): its size, a background of any rate and dimension, a zero.

        By the method of Gauss and Newton with the rate of the likeliest way as the start. Where a trace says nothing of
        rate, dimension and zero they stay near their start: what holds them there has the width of the prior.
        """
        t, b = recorded.abscissa, recorded.data
        before, at, after = (x @ self.kernel(t + step, self.grid(t)).T for step in (-STEP, 0.0, STEP))
        slope, curvature = (after - before) / (2 * STEP), (after - 2 * at + before) / STEP**2

        # log(rate), dimension and zero time.
        start = np.stack(
            (np.log(DECAYS[np.argmax(fits.shares, axis=1)] / t[-1]), *np.outer([3.0, 0.0], fits.noise > 0))
        )
        inner, least = start.copy(), np.full(len(b), np.inf)
        best = Explained(np.zeros_like(b), np.zeros((len(b), 2)), start)
        prior = (fits.noise[:, None] / np.array([LOG_RATE, DIMENSION, SHIFT])) ** 2
        for last in (*[False] * GAUSS_NEWTON_STEPS, True):
            rate, d, shift = inner[:, :, None]
            # 1. The background, and the pairs of spins at shifted times.
            log_power = d / 3 * (rate + np.log(np.maximum(np.abs(t - shift), 1e-6)))
            power = np.exp(np.minimum(log_power, 50.0))
            B, pairs = np.exp(-power), at - shift * slope + shift**2 / 2 * curvature

            # 2. The sizes of what is not modulated and of what is.
            columns = np.stack((B, B * pairs), axis=-1)  # (B, m, 2)
            sizes = least_squares(columns, b)
            fit = (columns @ sizes[..., None])[..., 0]
            cost = np.sum((b - fit) ** 2, axis=1) + np.sum(prior * (inner - start).T ** 2, axis=1)
            better = cost < least
            least = np.where(better, cost, least)
            best = Explained(
                np.where(better[:, None], fit, best.fitted),
                np.where(better[:, None], sizes, best.sizes),
                np.where(better, inner, best.inner),
            )
            if last:
                return best

            # 3. A step of all five. It may lead astray where a trace is not of this model: so the best fit counts.
            decay = -fit * power
            by_shift = sizes[:, 1:] * B * (shift * curvature - slope)
            J = np.stack((B, B * pairs, decay * d / 3, decay * log_power / d, by_shift), axis=-1)
            normal, index = J.mT @ J, np.arange(5)
            normal[:, index[2:], index[2:]] += prior
            normal[:, index, index] *= 1 + 1e-9
            right = (J.mT @ (b - fit)[..., None])[..., 0]
            right[:, 2:] -= prior * (inner - start).T
            step = np.linalg.solve(normal, right[..., None])[:, 2:, 0].T
            inner = np.clip(inner + np.clip(step, -MOVES, MOVES), LOWEST, HIGHEST)
        raise AssertionError("the last round returns")

    def outside(
        self, recorded: Recorded, x: FloatArray, nuisance: Nuisance, fits: Fits
    ) -> dict[str, NDArray[np.bool_]]:
        """Say what lies outside of the limits above.

        Depth, rate and V0 are those of `explained`, which no prior holds within the limits; a depth beyond them that
        the network finds counts too.
        """
        t, explained = recorded.abscissa, self.explained(recorded, x, fits)
        V0 = explained.sizes.sum(axis=1)
        positive = V0 > 0
        size = np.where(positive, V0, 1.0)
        depth, gaps = explained.sizes[:, 1] / size, np.diff(t)
        once = {
            "length": not LENGTHS[0] / SLACK <= t[-1] <= LENGTHS[1] * SLACK,
            "points": not NUMBERS[1][0] <= len(t) <= NUMBERS[2][1],
            "gap": gaps.max() > min(GAPS[0] * (t[-1] - t[0]), GAPS[1] * gaps.mean()),
            "start": t[0] > LATE_START * t[-1],
        }
        return {
            "noise": ~positive | (fits.noise > NOISE_SLACK * self.noise[1] * size),
            "modulation_depth": ~positive
            | (depth < DEPTHS[0])
            | (depth > DEPTHS[1] + DEPTH_ERROR)
            | (nuisance["modulation_depth"] > DEPTHS[1]),
            "background_rate": explained.inner[0] > np.log(RATES[1]) + RATE_ERROR,
        } | {name: np.full(len(x), found) for name, found in once.items()}

    def x_scale(self, grid: FloatArray) -> float:
        """Return 1 / (n dr): densities are per nm, each for a cell of the grid, and their sum times dr is 1."""
        return float(1 / (len(grid) * (grid[1] - grid[0])))

    def coordinates(self, nuisance: Nuisance, fits: Fits, unit: FloatArray) -> FloatArray:
        depth = nuisance["modulation_depth"]
        return np.stack(
            (
                np.log(depth / (1 - depth)),
                np.log(nuisance["background_rate"]),
                nuisance["dimension"],
                np.log(nuisance["amplitude"] / unit),
                nuisance["zero_time"] / SHIFT,
            ),
            axis=1,
        )

    def from_coordinates(self, coordinates: FloatArray, fits: Fits, unit: FloatArray) -> dict[str, FloatArray]:
        depth, rate, dimension, size, shift = coordinates.T
        return {
            "modulation_depth": 1 / (1 + np.exp(-depth)),
            "background_rate": np.exp(rate),
            "dimension": dimension,
            "amplitude": unit * np.exp(size),
            "zero_time": SHIFT * shift,
        }


def least_squares(columns: FloatArray, b: FloatArray) -> FloatArray:
    """Return the coefficients (B, 2) with which columns (B, m, 2) fit b (B, m)."""
    normal = columns.mT @ columns
    trace = np.trace(normal, axis1=-2, axis2=-1)[:, None, None]
    normal = normal + 1e-12 * trace * np.eye(2)
    found: FloatArray = np.linalg.solve(normal, columns.mT @ b[..., None])[..., 0]
    return found
