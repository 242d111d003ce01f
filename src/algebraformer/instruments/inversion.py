"""Inversions of measurements: a density with bands, nuisance parameters, and whether they fit the data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from algebraformer.arrays import Kind, beside, host, kind_of
from algebraformer.checkpoint import CheckpointInfo, load_network, resolve
from algebraformer.errors import ConfigurationError
from algebraformer.instruments.classical import Classical, fit_linear
from algebraformer.instruments.given import checked
from algebraformer.instruments.words import quantity, reasons
from algebraformer.linalg import FloatArray
from algebraformer.models import NumpyNetwork
from algebraformer.models.inference.inversion_reader import SCORES, InversionReader, Inversions, Reading
from algebraformer.models.inversion import InversionConfig
from algebraformer.numerics.gaussian_fit import Fits, posterior_factor
from algebraformer.numerics.nonnegative import nearest
from algebraformer.numerics.whiteness import NAMES, checks
from algebraformer.problems.instruments import Instrument
from algebraformer.problems.instruments.base import Recorded
from algebraformer.result import plain

Array = NDArray[Any]
CURVES = ("grid", "x", "quantiles", "abscissa", "data", "fitted")
"""Fields of an inversion that are arrays of the caller's kind, for one measurement and for many."""
JITTER = 1e-3
"""Share of independent noise in the joint samples: neighbours are never exactly tied."""
LEAST_STD = 0.01
"""Standard deviations of a density, over its highest mean, are at least this where another one nearby is sought."""


@dataclasses.dataclass(frozen=True)
class Inversion:
    """What a network says about one measurement, or about B of them with the same abscissae.

    Fields that hold one value per measurement are scalars for one, and arrays of shape (B,) for a batch. What is an
    `array` below, and what `band`, `samples` and `classical` return, is of the kind of the data that were given: of
    NumPy, torch, JAX or CuPy, on the same device, float64. All other fields are Python's or NumPy's.

    Attributes
    ----------
    grid : array, shape (n,)
        Where x is.
    x : array, shape (n,) or (B, n)
        The density: the posterior mean, nowhere negative.
    quantiles : array, shape (n, 7) or (B, n, 7)
        Its quantiles at the levels 2.5, 5, 25, 50, 75, 95 and 97.5 %.
    nuisance, nuisance_std : dict of float or array
        Nuisance parameters, and their standard deviations.
    noise : float or ndarray
        Root mean square of the noise, in the units of the data.
    misfit : float or ndarray
        Root mean square of the residuals over the noise: about one where x fits the data.
    consistent : bool or ndarray
        Whether the residuals of x, or of a density in its bands, look like those of 99 % of the simulated
        measurements: as large as the noise, without pattern, without outliers. If not, do not use x before you know
        why; `classical` is another answer.
    in_distribution : bool or ndarray
        Whether what was measured, and where, is like what the network was trained on: nothing is `outside`.
    outside : dict of bool or ndarray
        What `in_distribution` goes by, see `unlike_training`: "fits", what linear fits find; what the instrument's
        `outside` looks at, such as "noise" or a nuisance parameter; and "zero_time" or "integral".
    checks : dict of float or ndarray
        What `consistent` goes by: misfit, neighbours, blocks and outlier, see `numerics.whiteness.checks`.
    limits : dict of ndarray, shape (2,) or (B, 2)
        Lowest and highest value of every check with which residuals count as noise.
    abscissa : array, shape (points,)
        As the network reads it: times from the zero in us, ascending frequencies in Hz.
    data, fitted : array, shape (points,) or (B, points)
        Data, and what they would be without noise: by x and the nuisance parameters, or by a density in the bands of x
        that fits better, where x leaves more than noise and data are linear in it.
    """

    grid: FloatArray
    x: FloatArray
    quantiles: FloatArray
    nuisance: dict[str, Any]
    nuisance_std: dict[str, Any]
    noise: Any
    misfit: Any
    consistent: Any
    in_distribution: Any
    outside: dict[str, Any]
    checks: dict[str, Any]
    limits: dict[str, Any]
    abscissa: FloatArray
    data: Array
    fitted: Array
    model: Model = dataclasses.field(repr=False)
    recorded: Recorded = dataclasses.field(repr=False)

    grid_name: ClassVar[str] = "grid"
    units: ClassVar[Mapping[str, str]] = {}
    """Of the nuisance parameters that have one the same for all data."""

    @property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the 90 % band, each in the shape of x."""
        return self.band(0.9)

    def band(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the central band of a level, each in the shape of x.

        Those of 50, 90 and 95 % are calibrated. Others are interpolated between them, or extended beyond them, as if x
        were normal in between.

        Parameters
        ----------
        level : float
            Between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, received {level!r}")
        quantiles = host(self.quantiles)
        low, high = (interpolated(quantiles, float(ndtri(0.5 + side * level / 2))) for side in (-1, 1))
        return beside(self.x, low), beside(self.x, high)

    @functools.cached_property
    def classical(self) -> Any:
        """The classical answer, `Classical`: x >= 0 by Tikhonov's regularisation with cross-validation; or a list."""
        grid = host(self.grid)
        answers = [self.model.classical(self.recorded, one, grid) for one in np.atleast_2d(host(self.data))]
        found = [
            dataclasses.replace(one, x=beside(self.x, one.x), fitted=beside(self.x, one.fitted)) for one in answers
        ]
        return found if self.data.ndim == 2 else found[0]

    def samples(self, count: int, seed: int = 0) -> FloatArray:
        """Return joint samples of the density: (count, n), or (B, count, n).

        Each entry is distributed as the quantiles say. How entries go together follows from the covariance that the
        linear fit leaves: where data do not tell two places apart, more here is less there. Use them for errors of what
        depends on many entries, such as a mean distance or the area of a peak.

        Parameters
        ----------
        count : int
        seed : int
        """
        quantiles = host(self.quantiles)
        quantiles = quantiles if quantiles.ndim == 3 else quantiles[None]
        found = np.stack([
            self.model.samples(self.recorded, index, q, count, seed) for index, q in enumerate(quantiles)
        ])  # fmt: skip
        if self.model.instrument.is_density:
            found *= self.model.instrument.x_scale(host(self.grid)) / found.mean(axis=2, keepdims=True)
        return beside(self.x, found if self.quantiles.ndim == 3 else found[0])

    def explain(self) -> str:
        """Return in words what was found and whether to trust it, a line for each measurement."""
        lines = []
        for i in range(len(np.atleast_1d(self.noise))):
            values = {name: float(np.atleast_1d(host(value))[i]) for name, value in self.nuisance.items()}
            stds = {name: float(np.atleast_1d(host(value))[i]) for name, value in self.nuisance_std.items()}
            said = ", ".join(quantity(name, values[name], stds[name], self.units.get(name, "")) for name in values)
            why = self.reasons(i)
            verdict = "; ".join(why) + ": compare with classical" if why else "consistent and in distribution"
            lines.append(f"{said}; noise {np.atleast_1d(self.noise)[i]:.3g}; {verdict}")
        return "\n".join(lines)

    def reasons(self, index: int = 0) -> list[str]:
        """Return in words why not to trust one measurement: at most one line for each flag."""
        larger = np.atleast_1d(self.misfit)[index] > np.atleast_2d(self.limits["misfit"])[index, 1]
        return reasons(self.unlike_noise(index), bool(larger), self.unlike_training(index))

    def unlike_training(self, index: int = 0) -> tuple[str, ...]:
        """Return the names of what is unlike the training in one measurement; none if `in_distribution`."""
        return tuple(name for name, found in self.outside.items() if np.atleast_1d(found)[index])

    def unlike_noise(self, index: int = 0) -> tuple[str, ...]:
        """Return the names of the checks that the residuals of one measurement do not pass; none if `consistent`."""
        failed = []
        for name in NAMES:
            low, high = np.atleast_2d(self.limits[name])[index]
            if not low <= np.atleast_1d(self.checks[name])[index] <= high:
                failed.append(name)
        return tuple(failed)

    def record(self) -> dict[str, Any]:
        """Return what was found as plain JSON values; numbers that are not finite as None."""
        low, high = self.interval
        values = {
            self.grid_name: self.grid, "x": self.x, "interval": [low, high], "nuisance": self.nuisance,
            "nuisance_std": self.nuisance_std, "noise": self.noise, "misfit": self.misfit, "checks": self.checks,
            "consistent": self.consistent, "in_distribution": self.in_distribution,
        }  # fmt: skip
        return {name: as_plain(value) for name, value in values.items()}

    def as_kind(self, kind: Kind) -> Inversion:
        """Return the inversion with arrays of another kind."""

        def array(value: Any) -> Any:
            found = host(value)
            return kind.array(found) if isinstance(found, np.ndarray) else value

        curves = {name: array(getattr(self, name)) for name in CURVES}
        nuisance, std = ({k: array(v) for k, v in values.items()} for values in (self.nuisance, self.nuisance_std))
        return dataclasses.replace(self, nuisance=nuisance, nuisance_std=std, **curves)

    def plot(self, others: Mapping[str, FloatArray] | None = None) -> Any:
        """Return a figure of one measurement: data and fit, residuals, density with bands and other answers.

        Parameters
        ----------
        others : mapping of str to ndarray (n,), optional
            Densities on the same grid by the names of their methods; by default the classical answer.
        """
        from algebraformer.instruments.figure import inversion_figure

        return inversion_figure(self, others)


def as_plain(value: Any) -> Any:
    """Return dictionaries, lists and arrays of any library as plain JSON values."""
    if isinstance(value, dict):
        return {name: as_plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [as_plain(entry) for entry in value]
    return plain(host(value))


def interpolated(quantiles: FloatArray, score: float) -> FloatArray:
    """Return the quantile at a score of the normal distribution (...) from those at `SCORES` (..., 7)."""
    i = int(np.clip(np.searchsorted(SCORES, score) - 1, 0, len(SCORES) - 2))
    share = (score - SCORES[i]) / (SCORES[i + 1] - SCORES[i])
    return np.maximum((1 - share) * quantiles[..., i] + share * quantiles[..., i + 1], 0.0)


class Model:
    """A trained network for one instrument, and the instrument.

    Call it with abscissae and data. `invert` takes what was made ready already.

    Parameters
    ----------
    network : NumpyNetwork
        With an inversion head.
    info : CheckpointInfo
    """

    result: ClassVar[type[Inversion]] = Inversion

    def __init__(self, network: NumpyNetwork, info: CheckpointInfo) -> None:
        instrument = info.problem_family()
        if not isinstance(instrument, Instrument):
            raise ConfigurationError(f"{info.name} was trained on {instrument.name}, which is no instrument")
        self.network, self.info, self.instrument = network, info, instrument
        reader = network.reader
        assert isinstance(reader, InversionReader)
        self.reader = reader

    def __call__(self, abscissa: FloatArray, data: FloatArray) -> Inversion:
        """Invert data (points,) or (B, points), of any library, at ascending abscissae."""
        kind = kind_of(data=data)
        abscissa, data = checked(abscissa, data, self.instrument)
        batch = data if data.ndim == 2 else data[None]
        recorded = Recorded(abscissa, batch, np.ones(batch.shape[1], dtype=bool))
        return self.invert(recorded, data, data.ndim == 2).as_kind(kind)

    def invert(self, recorded: Recorded, data: Array, batched: bool) -> Inversion:
        """Return the inversion of what was recorded; `data` is how it is shown."""
        instrument, abscissa = self.instrument, recorded.abscissa
        reading = self.reader.read(instrument.measurements(recorded))
        found = self.network.inversions(reading)

        # 1. The fit and what it leaves. Where that is not noise, a density nearby may fit: means are smooth.
        fitted = instrument.fitted(recorded, found.x, reading.fits)
        limits = self.reader.check_limits(np.log(reading.fits.noise / reading.unit))

        def checked() -> tuple[FloatArray, NDArray[np.bool_]]:
            numbers = checks(instrument.residual(recorded, fitted, reading.fits, found.noise))
            return numbers, np.all((numbers >= limits[..., 0]) & (numbers <= limits[..., 1]), axis=1)

        numbers, fits = checked()
        if instrument.is_linear and not fits.all():
            fitted = self.fitted_nearby(recorded, reading.fits, found, fitted, ~fits)
            numbers, fits = checked()

        # 2. Nuisance parameters, in natural units.
        value, std = found.coordinates, found.coordinates_std
        middle = instrument.from_coordinates(value, reading.fits, reading.unit)
        low, high = (instrument.from_coordinates(value + side * std, reading.fits, reading.unit) for side in (-1, 1))
        spread = {name: np.abs(high[name] - low[name]) / 2 for name in middle}
        nuisance, nuisance_std = instrument.natural(middle, spread, abscissa)

        outside = self.outside(recorded, reading, found, middle)
        typical = ~np.any(list(outside.values()), axis=0)

        def each(values: Array) -> Any:
            return values if batched else values[0].item()

        grid = instrument.grid(abscissa)
        scale = instrument.x_scale(grid)
        rows = slice(None) if batched else 0
        return self.result(
            grid=grid,
            x=scale * found.x[rows],
            quantiles=scale * found.quantiles[rows],
            nuisance={name: each(values) for name, values in nuisance.items()},
            nuisance_std={name: each(values) for name, values in nuisance_std.items()},
            noise=each(found.noise),
            misfit=each(numbers[:, 0]),
            consistent=each(fits),
            in_distribution=each(typical),
            outside={name: each(values) for name, values in outside.items()},
            checks={name: each(numbers[:, i]) for i, name in enumerate(NAMES)},
            limits={name: limits[rows, i] for i, name in enumerate(NAMES)},
            abscissa=abscissa,
            data=data,
            fitted=self.shown(fitted)[rows],
            model=self,
            recorded=recorded,
        )

    def outside(
        self, recorded: Recorded, reading: Reading, found: Inversions, nuisance: Mapping[str, FloatArray]
    ) -> dict[str, NDArray[np.bool_]]:
        """Say by name for each measurement (B,) what is unlike the training; `nuisance` as the instrument holds it."""
        return {"fits": ~found.typical} | self.instrument.outside(recorded, found.x, nuisance, reading.fits)

    def fitted_nearby(
        self,
        recorded: Recorded,
        fits: Fits,
        found: Inversions,
        fitted: FloatArray,
        chosen: NDArray[np.bool_],
    ) -> FloatArray:
        """Return what was fitted (B, rows), for the chosen measurements by the likeliest densities near their means.

        How near is said by the 50 % bands. The network's mean may miss data that are more precise than it is; a density
        within its bands that explains them is all that the bands promise.
        """
        instrument, fitted = self.instrument, fitted.copy()
        K, N = (
            instrument.kernel(recorded.abscissa, instrument.grid(recorded.abscissa)),
            instrument.columns(recorded.abscissa),
        )
        present = recorded.present
        deviations = instrument.deviations(recorded, fits, found.noise)[:, present]
        middle, half = len(SCORES) // 2, SCORES[len(SCORES) // 2 + 1]
        for i in np.flatnonzero(chosen):
            x, quantiles = found.x[i], found.quantiles[i]
            std = np.maximum((quantiles[:, middle + 1] - quantiles[:, middle - 1]) / (2 * half), LEAST_STD * x.max())
            weights = 1 / deviations[i]
            A, b, free = (
                weights[:, None] * K[present],
                weights * recorded.data[i, present],
                weights[:, None] * N[present],
            )
            try:
                near, y = nearest(A, b, x, std, free, float(fits.scale[i]))
            except RuntimeError:  # the active set method has not ended: the fit of the mean stays
                continue
            fitted[i] = K @ near + N @ y
        return fitted

    def shown(self, data: FloatArray) -> Array:
        """Return data (B, rows) as the user knows them (B, points)."""
        return data

    def classical(self, recorded: Recorded, data: Array, grid: FloatArray) -> Classical:
        """Return the classical answer to one of the measurements, as it is shown."""
        instrument = self.instrument
        K, N = instrument.kernel(recorded.abscissa, grid), instrument.columns(recorded.abscissa)
        found = fit_linear(K, data, N, instrument.nuisance_names)
        size = found.x.mean() if instrument.is_density and found.x.any() else 1.0
        values = {name: np.array([value]) for name, value in found.nuisance.items()}
        natural, _ = instrument.natural(values, {name: np.zeros(1) for name in values}, recorded.abscissa)
        nuisance = {name: float(value[0]) for name, value in natural.items()}
        return Classical(instrument.x_scale(grid) / size * found.x, nuisance, found.fitted)

    def samples(self, recorded: Recorded, index: int, quantiles: FloatArray, count: int, seed: int) -> FloatArray:
        """Return joint samples (count, n) of one measurement from its quantiles (n, 7)."""
        data = self.instrument.measurements(recorded)
        fits = self.reader.read(data).fits
        way = int(np.argmax(fits.shares[index]))
        S = posterior_factor(data, self.reader.L, index, way, float(fits.scale[index]), float(fits.noise[index]))
        size = np.sqrt(np.sum(S**2, axis=1, keepdims=True))
        S = S / np.where(size > 0, size, 1.0)
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((count, S.shape[1])) @ S.T
        z = np.sqrt(1 - JITTER) * z + np.sqrt(JITTER) * rng.standard_normal(z.shape)
        i = np.clip(np.searchsorted(SCORES, z) - 1, 0, len(SCORES) - 2)
        share = (z - SCORES[i]) / (SCORES[i + 1] - SCORES[i])
        columns = np.arange(len(quantiles))
        return np.maximum((1 - share) * quantiles[columns, i] + share * quantiles[columns, i + 1], 0.0)


def load_model(name_or_folder: str | Path, kind: type[Model] = Model) -> Model:
    """Return the network in a folder, or a shipped one, with the instrument it was trained on."""
    network, info = load_network(resolve(name_or_folder))
    if not isinstance(network, NumpyNetwork) or not isinstance(network.config.head, InversionConfig):
        raise ConfigurationError(f"{info.name} has a head {network.config.head.name!r}: it inverts no measurements")
    return kind(network, info)
