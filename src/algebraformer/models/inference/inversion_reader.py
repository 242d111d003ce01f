"""How an inversion head answers: linear fits go in; densities, bands and nuisance parameters come out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.special import ndtri

from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.reader import BATCH_SIZE, Arrays, Forward, Reader, Singles, unable
from algebraformer.models.inversion import QUANTILES, InversionConfig
from algebraformer.numerics import whiteness
from algebraformer.numerics.gaussian_fit import Fits, Measurements, fit

SMALLEST_UNIT = 0.02
"""Least size of the fitted x over the scale of the fit: where data hold nothing of x, fits are noise around zero."""
STD_FLOOR = 1e-3
"""Standard deviations below this, for x of mean one, are as good as none."""
SHARPNESS = 6.0
"""Of the softplus that keeps answers positive: it bends within a sixth of the mean of x."""
SPREAD_FLOOR = 0.02
"""Spread of a fresh network's quantiles where the fit claims none, for x of mean one."""
NOISE_EDGES = np.log(np.array([1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0]))
"""Edges of the noise levels, over the size of x, that bands are calibrated for."""
PLACES = 5
"""Equal parts of the grid that bands are calibrated for."""
FILLED = 0.02
"""Bands count where the mean is at least this share of its highest: elsewhere there is nothing, as they all say."""
WIDTH_FLOOR = 0.01
"""Widths of bands below this share of the highest mean count as this wide in the calibration."""

FURTHEST = np.array([1.5, 6.0, 6.0, 7.0])
"""Largest values of `whiteness.NAMES` that count as noise. White noise has a correlation of neighbours above 3, a block
above 4 or an outlier above 5 one time in a thousand; noise is known to a tenth or so, to a third from 30 data."""
ONE_SIDED = np.array([2, 3])
"""Blocks and outliers: there is nothing wrong where they are small."""


class Reading(NamedTuple):
    """What is read of B measurements.

    Attributes
    ----------
    tokens : ndarray, shape (B, T, token_width), float32
    fits : Fits
    unit : ndarray, shape (B,)
        Mean of the fitted x: answers are given in it.
    """

    tokens: Singles
    fits: Fits
    unit: FloatArray


class Inversions(NamedTuple):
    """Answers to B measurements.

    Attributes
    ----------
    x : ndarray, shape (B, n)
        Means: in the units of the data, or with mean 1 for a density.
    quantiles : ndarray, shape (B, n, 7)
        Calibrated quantiles of `QUANTILES`, likewise.
    coordinates, coordinates_std : ndarray, shape (B, k)
        Of the nuisance parameters.
    noise, noise_std : ndarray, shape (B,)
        Root mean square of the noise, in the units of the data, and the standard deviation of its logarithm.
    typical : ndarray of bool, shape (B,)
        Whether what is read lies in the range of the family's sample.
    """

    x: FloatArray
    quantiles: FloatArray
    coordinates: FloatArray
    coordinates_std: FloatArray
    noise: FloatArray
    noise_std: FloatArray
    typical: NDArray[np.bool_]


class MeasuredGroups(Protocol):
    """Systems that know their measurements, see `problems.instruments.MeasuredSystems`."""

    def groups(self) -> Any:
        """Yield measurements with the truth in the units of the answers' x."""


def unit_of(fits: Fits) -> FloatArray:
    """Return the size (B,) of fitted x."""
    size: FloatArray = np.maximum(fits.x[1].mean(axis=1), SMALLEST_UNIT * fits.scale)
    return size


def read(data: Measurements, L: FloatArray) -> tuple[FloatArray, FloatArray, Fits, FloatArray]:
    """Return channels (B, n, 4), numbers for all unknowns (B, g), fits and units (B,), before they are standardised."""
    fits = fit(data, L)
    unit = unit_of(fits)
    x, std = fits.x / unit[:, None], fits.x_std / unit[:, None]
    channels = np.concatenate((np.arcsinh(x), np.log(std + STD_FLOOR)[None]), axis=0).transpose(1, 2, 0)
    y, y_std = fits.y[1] / unit[:, None], fits.y_std / unit[:, None]
    noise = np.log(fits.noise / unit)
    features = np.broadcast_to(data.features, (len(unit), len(data.features)))
    numbers = np.concatenate(
        (
            np.stack((noise, noise - 0.5 * np.log(fits.n_data), np.log(fits.scale / unit)), axis=1),
            np.arcsinh(y),
            np.log(y_std + STD_FLOOR),
            fits.shares,
            features,
        ),
        axis=1,
    )
    return channels, numbers, fits, unit


def softplus(z: Any, xp: Any) -> Any:
    """Return log(1 + exp(s z)) / s, s = `SHARPNESS`."""
    return xp.logaddexp(SHARPNESS * z, xp.zeros_like(z)) / SHARPNESS


def outputs_of(raw: Any, base: Any, spread: Any, density: bool, xp: Any = np) -> tuple[Any, Any]:
    """Return means (B, n) and quantiles (B, n, 7), nowhere negative and ascending, in the unit of the fitted x.

    Parameters
    ----------
    raw : array, shape (B, n, 8)
        Outputs of the network.
    base : array, shape (B, n)
        The middle fit.
    spread : array, shape (B, n)
        Its standard deviation.
    density : bool
        Whether means are to have mean 1.
    xp : module
        NumPy or torch, whichever the arrays are of.
    """
    mean = softplus(base + raw[:, :, 0], xp)
    if density:
        mean = mean / mean.mean(axis=1, keepdims=True)
    middle = len(QUANTILES) // 2
    steps = softplus(raw[:, :, 2:], xp) * (spread + SPREAD_FLOOR)[:, :, None]
    # From the median outwards, one step after the other.
    below = -xp.cumsum(steps[:, :, :middle], axis=2)
    above = xp.cumsum(steps[:, :, middle:], axis=2)
    offsets = xp.concatenate((xp.flip(below, (2,)), xp.zeros_like(below[:, :, :1]), above), axis=2)
    return mean, softplus((base + raw[:, :, 1])[:, :, None] + offsets, xp)


class InversionReader(Reader):
    """Fits measurements linearly, shows the network the fits, and calibrates its bands."""

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        self.head = InversionConfig.of(config)
        double = {name: buffers[name].astype(np.float64) for name in self.buffers(config)}
        self.L = double["prior"]
        self.channel_mean, self.channel_std = double["channel_mean"], double["channel_std"]
        self.number_mean, self.number_std = double["number_mean"], double["number_std"]
        self.nuisance_mean, self.nuisance_std = double["nuisance_mean"], double["nuisance_std"]
        self.margins, self.limits = double["margins"], double["limits"]
        self.checks = double["checks"]

    @staticmethod
    def buffers(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        head = InversionConfig.of(config)
        n, g, k = config.n, head.n_global, head.n_nuisance + 1
        shapes: dict[str, tuple[int, ...]] = {
            "prior": (n, head.prior_rank),
            "channel_mean": (4,), "channel_std": (4,), "number_mean": (g,), "number_std": (g,),
            "nuisance_mean": (k,), "nuisance_std": (k,),
            "margins": (len(NOISE_EDGES) + 1, PLACES, 3, 2),
            "limits": (g, 2), "checks": (len(NOISE_EDGES) + 1, len(whiteness.NAMES), 2),
        }  # fmt: skip
        return {name: (shape, np.float64) for name, shape in shapes.items()}

    def read(self, data: Measurements) -> Reading:
        """Return what the network is shown of measurements."""
        channels, numbers, fits, unit = read(data, self.L)
        return Reading(self.tokens(channels, numbers), fits, unit)

    def tokens(self, channels: FloatArray, numbers: FloatArray) -> Singles:
        """Return tokens (B, T, token_width) from channels (B, n, 4) and numbers (B, g)."""
        B, T = len(channels), self.config.n_token
        own = ((channels - self.channel_mean) / self.channel_std).reshape(B, T, -1)
        shared = (numbers - self.number_mean) / self.number_std
        shared = np.broadcast_to(np.clip(shared, -8, 8)[:, None], (B, T, shared.shape[1]))
        return np.concatenate((own, shared), axis=2).astype(np.float32)

    def numbers(self, reading: Reading) -> FloatArray:
        """Return the standardised numbers (B, g) of a reading."""
        return reading.tokens[:, 0, -self.head.n_global :].astype(np.float64)

    def answer(self, forward: Forward, reading: Reading) -> Inversions:
        """Return answers from what was read."""
        parts = []
        for start in range(0, max(1, len(reading.tokens)), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            base, spread = reading.fits.x[1, rows], reading.fits.x_std[rows]
            unit = reading.unit[rows, None]
            raw, coordinates = forward(reading.tokens[rows])
            mean, quantiles = outputs_of(raw.astype(np.float64), base / unit, spread / unit, self.head.density)
            parts.append((mean, quantiles, coordinates.astype(np.float64)))
        mean, quantiles, coordinates = (np.concatenate(part) for part in zip(*parts, strict=True))
        quantiles = self.calibrated(mean, quantiles, np.log(reading.fits.noise / reading.unit))
        if not self.head.density:
            mean, quantiles = reading.unit[:, None] * mean, reading.unit[:, None, None] * quantiles
        k = self.head.n_nuisance + 1
        values = self.nuisance_mean + self.nuisance_std * coordinates[:, :k]
        stds = self.nuisance_std * np.exp(coordinates[:, k:])
        numbers = self.numbers(reading)
        typical = np.all((numbers >= self.limits[:, 0]) & (numbers <= self.limits[:, 1]), axis=1)
        return Inversions(
            mean,
            quantiles,
            values[:, :-1],
            stds[:, :-1],
            reading.fits.noise * np.exp(values[:, -1]),
            stds[:, -1],
            typical,
        )

    def calibrated(self, mean: FloatArray, quantiles: FloatArray, log_noise: FloatArray) -> FloatArray:
        """Return quantiles (B, n, 7) moved outwards, or inwards, by shares of the width of their band."""
        margins = self.margins[noise_bins(log_noise)][:, places(mean.shape[1])]  # (B, n, 3, 2)
        found = quantiles.copy()
        for band in range(3):
            low, high = band_ends(band)
            width = band_width(mean, quantiles, band)
            found[:, :, low] = quantiles[:, :, low] - margins[:, :, band, 0] * width
            found[:, :, high] = quantiles[:, :, high] + margins[:, :, band, 1] * width
        found = np.maximum(found, 0.0)
        middle = len(QUANTILES) // 2
        # Wider bands hold narrower ones.
        found[:, :, :middle] = np.minimum.accumulate(
            np.minimum(found[:, :, :middle], found[:, :, middle, None])[:, :, ::-1], axis=2
        )[:, :, ::-1]
        found[:, :, middle:] = np.maximum.accumulate(found[:, :, middle:], axis=2)
        return found

    def check_limits(self, log_noise: FloatArray) -> FloatArray:
        """Return the ranges (B, 4, 2) of `whiteness.checks` in which residuals count as noise.

        They are those of the family's sample, but no wider than noise explains: a network that fits some of its own
        sample badly must not take that for noise in a measurement.

        `log_noise` (B,) is the logarithm of the fitted noise over the size of x.
        """
        limits: FloatArray = self.checks[noise_bins(log_noise)].copy()
        limits[:, ONE_SIDED, 0] = 0.0
        limits[..., 1] = np.minimum(limits[..., 1], FURTHEST)
        return limits

    def predict(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Raise `ConfigurationError`: A and b do not say where was measured."""
        raise unable(self, InversionConfig.unsupported_reason)

    def scores(self, forward: Forward, systems: ScoredSystems) -> dict[str, float]:
        """Return median and 90 % quantile of the relative error of the mean, and the coverage of the bands."""
        errors, inside = [], []
        for data, truth in systems.groups():  # type: ignore[attr-defined]
            found = self.answer(forward, self.read(data))
            errors.append(np.linalg.norm(found.x - truth, axis=1) / np.linalg.norm(truth, axis=1))
            inside.append([coverage(found, truth, band) for band in range(3)])
        median, high = np.quantile(np.concatenate(errors), (0.5, 0.9))
        shares = np.concatenate(inside, axis=1).mean(axis=1)
        return {"relative_error_median": float(median), "relative_error_90": float(high)} | {
            f"coverage_{level}": float(share) for level, share in zip((50, 90, 95), shares, strict=True)
        }


def coverage(found: Inversions, truth: FloatArray, band: int) -> FloatArray:
    """Return the share (B,) of the entries of the truth (B, n), where x is, that lie in a band."""
    low, high = band_ends(band)
    inside = (truth >= found.quantiles[:, :, low]) & (truth <= found.quantiles[:, :, high])
    here = filled(found.x)
    shares: FloatArray = np.sum(inside & here, axis=1) / np.sum(here, axis=1)
    return shares


def filled(mean: FloatArray) -> NDArray[np.bool_]:
    """Say where x is (B, n), by means (B, n): see `FILLED`."""
    here: NDArray[np.bool_] = mean >= FILLED * mean.max(axis=1, keepdims=True)
    return here


def band_ends(band: int) -> tuple[int, int]:
    """Return the positions in `QUANTILES` of the ends of the bands 50, 90 and 95 %."""
    middle = len(QUANTILES) // 2
    return middle - 1 - band, middle + 1 + band


def band_width(mean: FloatArray, quantiles: FloatArray, band: int) -> FloatArray:
    """Return what margins are shares of (B, n): the width of a band, with a floor."""
    low, high = band_ends(band)
    width: FloatArray = quantiles[:, :, high] - quantiles[:, :, low] + WIDTH_FLOOR * mean.max(axis=1, keepdims=True)
    return width


def noise_bins(log_noise: FloatArray) -> NDArray[np.int64]:
    """Return the row of the calibration (B,) for the logarithm of noise over the size of x."""
    return np.searchsorted(NOISE_EDGES, log_noise)


def places(n: int) -> NDArray[np.int64]:
    """Return the part of the grid (n,) that every unknown is in."""
    return np.arange(n) * PLACES // n


SCORES = ndtri(np.array(QUANTILES))
"""Quantiles of the normal distribution at the same levels, between which those of x are interpolated."""
