"""Instruments: families of measurements whose abscissae, nuisance parameters and noise vary.

An instrument maps an unknown density x, on a grid that follows from where it was measured, to data. What else is in the
data are its nuisance parameters. A network learns to invert it from simulated measurements, see `instruments.load`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.numerics.gaussian_fit import Fits, Measurements, Way
from algebraformer.problems.base import Parameters, ProblemFamily, Systems, check_limits, check_whole
from algebraformer.problems.instruments.priors import peaks, smooth_density
from algebraformer.problems.sampling import FloatArray, Limits, generator, log_uniform

GROUP = 16
"""Measurements that share their abscissae in training: a decomposition serves all of them."""
MIN_POINTS = 10
"""Fewer points than this are no measurement of a density."""
GROUPS = 3
"""Stream of the random numbers that a group shares."""
Nuisance = Mapping[str, FloatArray]
"""Nuisance parameters by name, (B,) each."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """B measurements with the same abscissae.

    Attributes
    ----------
    abscissa : ndarray, shape (points,)
    data : ndarray, shape (B, rows)
        0 where there are none.
    present : ndarray of bool, shape (rows,)
        Which data there are.
    """

    abscissa: FloatArray
    data: FloatArray
    present: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Simulated(Recorded):
    """B simulated measurements with the same abscissae, and the truth.

    Attributes
    ----------
    grid : ndarray, shape (n,)
    x : ndarray, shape (B, n)
        The truth, in the units of `Instrument.kernel`.
    clean : ndarray, shape (B, rows)
        Data without noise.
    nuisance : dict of ndarray, shape (B,)
    std : ndarray, shape (B, rows)
        Standard deviations of the noise, 0 where there are no data.
    """

    grid: FloatArray
    x: FloatArray
    clean: FloatArray
    nuisance: dict[str, FloatArray]
    std: FloatArray

    @property
    def deviation(self) -> FloatArray:
        """Root mean squares (B,) of the standard deviations of the noise."""
        square: FloatArray = np.sum(self.std**2, axis=1) / self.present.sum()
        return np.sqrt(square)


@dataclasses.dataclass(frozen=True)
class MeasuredSystems(Systems):
    """Systems that know what was measured where."""

    instrument: Any

    def __getitem__(self, item: slice | NDArray[Any]) -> MeasuredSystems:
        part = super().__getitem__(item)
        return MeasuredSystems(part.A, part.b, part.x, part.params, self.instrument)

    def groups(self) -> Iterator[tuple[Measurements, FloatArray]]:
        """Yield every measurement (B = 1) and its truth (1, n)."""
        for abscissa, b, x in zip(self.params["abscissa"], self.b, self.x, strict=True):
            recorded = Recorded(abscissa, b[None], np.ones(len(b), dtype=bool))
            yield self.instrument.measurements(recorded), x[None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instrument(ProblemFamily):
    """Measurements b = K x + N y + e, with x >= 0, coefficients y and noise e of unknown level.

    An own instrument is a class with the methods `draw_abscissa` and `kernel`. What else it may say has a default:
    `draw_signal`, peaks and humps of any width; `grid`, positions from 0 to 1; `columns`, `nuisance_names` and
    `nuisance_sizes`, nothing but K x in the data. Settings of its own make it a frozen dataclass. As a family of
    systems it has A = K, b, and x, for `m` abscissae; a network is trained on measurements with any number of them.

    Examples
    --------
    >>> import numpy as np
    >>> class Decay(Instrument):
    ...     def draw_abscissa(self, rng, points):
    ...         return np.linspace(0, rng.uniform(1, 5), points or rng.integers(50, 200))
    ...     def kernel(self, t, rate):
    ...         return np.exp(-10 * t[:, None] * rate) / self.n
    >>> simulated = Decay(n=50).simulate(range(3), seed=0)
    >>> simulated.x.shape, simulated.data.shape[0]
    ((3, 50), 3)
    """

    n: int = 100
    """Number of unknowns, a multiple of 5."""
    m: int = 128
    """Number of abscissae of its systems; in training it varies."""
    noise: Limits = (1e-3, 1e-1)
    """Limits of the level of the noise over the root mean square of the data, log-uniform."""

    nuisance_names: ClassVar[tuple[str, ...]] = ()
    """Names of the nuisance parameters; by default the coefficients of `columns`."""
    nuisance_sizes: ClassVar[tuple[float, ...]] = ()
    """What nuisance parameters are in natural units where their coefficients are one; ones by default."""
    is_density: ClassVar[bool] = False
    """Whether x has integral 1, so that its size is a nuisance parameter."""
    abscissa_label: ClassVar[str] = "abscissa"
    grid_label: ClassVar[str] = "position"
    x_label: ClassVar[str] = "density"
    data_label: ClassVar[str] = "data"
    """What abscissae, grid, x and data are called in figures."""
    values_per_point: ClassVar[int] = 1
    """Data for each abscissa: 2 for complex ones, of which all real parts come first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "m")
        check_limits(self, ("noise",))

    @property
    def n_equations(self) -> int:
        return self.values_per_point * self.m

    @property
    def is_linear_system(self) -> bool:
        """Whether x solves A x = b: no, there is noise and more."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether data are K x + N y for known columns N."""
        return type(self).fitted is Instrument.fitted

    # ---------------------------------------------------------------- what an instrument says

    @abc.abstractmethod
    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> FloatArray:
        """Draw ascending abscissae: as many as `points`, or if that is None as many as there may be."""

    @abc.abstractmethod
    def kernel(self, abscissa: FloatArray, grid: FloatArray) -> FloatArray:
        """Return K (rows, n)."""

    def draw_signal(self, rng: np.random.Generator, grid: FloatArray) -> FloatArray:
        """Draw x (n,), nowhere negative, with mean about one: by default peaks, one time in five a smooth density."""
        return smooth_density(rng, self.n) if rng.random() < 0.2 else peaks(rng, self.n)

    def grid(self, abscissa: FloatArray) -> FloatArray:
        """Return where x (n,) is: equally spaced in (0, 1) by default."""
        return (np.arange(self.n) + 0.5) / self.n

    def columns(self, abscissa: FloatArray) -> FloatArray:
        """Return N (rows, q), each column times the standard deviation of its coefficient where x is about one."""
        return np.empty((self.values_per_point * len(abscissa), 0))

    def x_scale(self, grid: FloatArray) -> float:
        """Return what x is multiplied by to be in natural units; 1 by default."""
        return 1.0

    def natural(
        self, nuisance: Mapping[str, FloatArray], std: Mapping[str, FloatArray], abscissa: FloatArray
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return nuisance parameters and their standard deviations in natural units and under their usual names."""
        sizes = dict(zip(self.nuisance_names, self.nuisance_sizes or (1.0,) * len(self.nuisance_names), strict=True))
        return {n: size * nuisance[n] for n, size in sizes.items()}, {n: size * std[n] for n, size in sizes.items()}

    def features(self, abscissa: FloatArray) -> FloatArray:
        """Return numbers (f,) of moderate size that tell where was measured."""
        return np.array([np.log(len(abscissa)) - 5])

    def draw_nuisance(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw nuisance parameters: coefficients y ~ N(0, 1) by default."""
        return {name: float(rng.standard_normal()) for name in self.nuisance_names}

    def draw_shared(self, rng: np.random.Generator, abscissa: FloatArray) -> dict[str, float]:
        """Draw the nuisance parameters that the measurements of a group share, for they change the kernel."""
        return {}

    def response(self, abscissa: FloatArray, grid: FloatArray, x: FloatArray, nuisance: Nuisance) -> FloatArray:
        """Return the data (B, rows) without noise for x (B, n)."""
        rows = self.values_per_point * len(abscissa)
        data: FloatArray = x @ self._checked("kernel", self.kernel(abscissa, grid), (rows, self.n)).T
        if not self.nuisance_names:
            return data
        y = np.stack([nuisance[name] for name in self.nuisance_names], axis=1)
        return data + y @ self._checked("columns", self.columns(abscissa), (rows, y.shape[1])).T

    def draw_noise(self, rng: np.random.Generator, rows: int) -> dict[str, Any]:
        """Draw what `noise_deviation` needs; "level" and "z" (rows,), noise of variance one, at least."""
        return {"level": log_uniform(rng, self.noise), "z": rng.standard_normal(rows)}

    def noise_deviation(self, clean: FloatArray, drawn: Parameters) -> FloatArray:
        """Return the standard deviations of the noise (B, rows) of data (B, rows)."""
        size = np.sqrt(np.mean(clean**2, axis=1, keepdims=True))
        return drawn["level"][:, None] * np.broadcast_to(size, clean.shape)

    def draw_present(self, rng: np.random.Generator, rows: int) -> NDArray[np.bool_]:
        """Draw which data there are: all by default."""
        return np.ones(rows, dtype=bool)

    def ways(self, abscissa: FloatArray, data: FloatArray, present: NDArray[np.bool_]) -> tuple[Way, ...]:
        """Return the ways to read data; by default one with equal weights."""
        return (Way(np.ones(len(present)), self.columns(abscissa), present.astype(float)),)

    def coordinates(self, nuisance: Nuisance, fits: Fits, unit: FloatArray) -> FloatArray:
        """Return numbers of moderate size (B, k) that stand for the nuisance parameters of data that were fitted.

        By default the errors of the fitted coefficients over their standard deviations. `unit` (B,) is the size of the
        fitted x.
        """
        y = np.stack([nuisance[name] for name in self.nuisance_names], axis=1) if self.nuisance_names else fits.y[1]
        return np.clip((y - fits.y[1]) / fits.y_std, -10, 10)

    def from_coordinates(self, coordinates: FloatArray, fits: Fits, unit: FloatArray) -> dict[str, FloatArray]:
        """Return the nuisance parameters (B,) that `coordinates` (B, k) stand for."""
        y = fits.y[1] + fits.y_std * coordinates
        return {name: y[:, i] for i, name in enumerate(self.nuisance_names)}

    def fitted(self, recorded: Recorded, x: FloatArray, fits: Fits) -> FloatArray:
        """Return the data (B, rows) that x (B, n) explains best, with what else is in them fitted anew.

        By default by least squares with the columns and weights of the likeliest way, and the prior of `columns`.
        """
        grid = self.grid(recorded.abscissa)
        ways = self.ways(recorded.abscissa, recorded.data, recorded.present)
        best = np.argmax(fits.shares, axis=1)
        found = x @ self.kernel(recorded.abscissa, grid).T
        for i, way in enumerate(ways[number] for number in best):
            weights = way.weights if way.weights.ndim == 1 else way.weights[i]
            N = weights[:, None] * way.N
            noise = fits.noise[i] / np.sqrt(np.mean(1 / weights[weights > 0] ** 2))
            normal = N.T @ N + (noise / fits.scale[i]) ** 2 * np.eye(N.shape[1])
            found[i] += way.N @ np.linalg.solve(normal, N.T @ (weights * (recorded.data[i] - found[i])))
        return found

    def deviations(self, recorded: Recorded, fits: Fits, noise: FloatArray) -> FloatArray:
        """Return standard deviations of the noise (B, rows) with root mean square `noise` (B,)."""
        ways = self.ways(recorded.abscissa, recorded.data, recorded.present)
        best = np.argmax(fits.shares, axis=1)
        weights = np.stack([
            np.broadcast_to(ways[number].weights, recorded.data.shape)[i] for i, number in enumerate(best)
        ])  # fmt: skip
        std = 1 / np.where(weights > 0, weights, np.inf)
        return noise[:, None] * std / np.sqrt(np.sum(std**2, axis=1) / recorded.present.sum())[:, None]

    def residual(self, recorded: Recorded, fitted: FloatArray, fits: Fits, noise: FloatArray) -> FloatArray:
        """Return the residuals (B, present data) over the standard deviations of the noise."""
        std = self.deviations(recorded, fits, noise)[:, recorded.present]
        return (recorded.data - fitted)[:, recorded.present] / std

    def outside(
        self, recorded: Recorded, x: FloatArray, nuisance: Nuisance, fits: Fits
    ) -> dict[str, NDArray[np.bool_]]:
        """Say by name for each measurement (B,) what was found outside of the limits of what is drawn; none by default.

        Parameters
        ----------
        recorded : Recorded
        x : ndarray, shape (B, n)
            The network's means.
        nuisance : dict of ndarray, shape (B,)
            As `from_coordinates` returns them.
        fits : Fits
        """
        return {}

    # ---------------------------------------------------------------- measurements

    def measurements(self, recorded: Recorded) -> Measurements:
        """Return what a network reads of recorded data."""
        abscissa, data = recorded.abscissa, recorded.data
        ways = self.ways(abscissa, data, recorded.present)
        return Measurements(self.kernel(abscissa, self.grid(abscissa)), data, ways, self.features(abscissa))

    def group(self, index: int) -> int:
        """Return the number of the group that an index belongs to."""
        return int(index) // GROUP

    def simulate(self, indices: Sequence[int], seed: int, points: int | None = None) -> Simulated:
        """Return the measurements at these indices, which share abscissae drawn for the first of them."""
        shared = generator(seed, indices[0] // GROUP, stream=GROUPS)
        abscissa, grid = self._where(shared, points)
        common = self.draw_shared(shared, abscissa)
        rows = self.values_per_point * len(abscissa)
        present = self.draw_present(shared, rows)
        draws = [self._draw(generator(seed, i), grid, rows) for i in indices]
        x, nuisance, noise = (
            {key: np.array([draw[part][key] for draw in draws]) for key in draws[0][part]} for part in range(3)
        )
        nuisance |= {name: np.full(len(draws), value) for name, value in common.items()}
        clean = self.response(abscissa, grid, x["x"], nuisance)
        std = self.noise_deviation(clean, noise) * present
        data = np.where(present, clean + std * noise["z"], 0.0)
        return Simulated(abscissa, data, present, grid, x["x"], clean, nuisance, std)

    def _draw(self, rng: np.random.Generator, grid: FloatArray, rows: int) -> tuple[dict[str, Any], ...]:
        """Draw signal, nuisance parameters and noise of one measurement."""
        nuisance, noise = self.draw_nuisance(rng), self.draw_noise(rng, rows)
        return {"x": self._checked("draw_signal", self.draw_signal(rng, grid), (self.n,))}, nuisance, noise

    def _where(self, rng: np.random.Generator, points: int | None) -> tuple[FloatArray, FloatArray]:
        """Draw abscissae and return them with their grid; `ConfigurationError` if they are not as asked for."""
        abscissa = np.asarray(self.draw_abscissa(rng, points), dtype=np.float64)
        if abscissa.ndim != 1 or len(abscissa) < MIN_POINTS or not (np.diff(abscissa) > 0).all():
            raise ConfigurationError(
                f"{type(self).__name__}.draw_abscissa must return at least {MIN_POINTS} ascending numbers, received "
                f"shape {abscissa.shape}: {np.array2string(abscissa, threshold=6)}"
            )
        if points is not None and len(abscissa) != points:
            raise ConfigurationError(
                f"{type(self).__name__}.draw_abscissa must return as many numbers as `points`, {points}, received "
                f"{len(abscissa)}: `points or rng.integers(50, 500)` is any number where it is None"
            )
        return abscissa, self._checked("grid", self.grid(abscissa), (self.n,))

    def _checked(self, method: str, array: Any, shape: tuple[int, ...]) -> FloatArray:
        """Return what a method has returned; `ConfigurationError` if it has another shape or is not finite."""
        values: FloatArray = np.asarray(array, dtype=np.float64)
        if values.shape != shape or not np.isfinite(values).all():
            received = f"shape {values.shape}" if values.shape != shape else "NaN or infinity"
            raise ConfigurationError(
                f"{type(self).__name__}.{method} must return finite numbers of shape {shape}, received {received}"
            )
        return values

    # ---------------------------------------------------------------- as a family

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        abscissa, grid = self._where(rng, self.m)
        common = self.draw_shared(rng, abscissa)
        signal, nuisance, noise = self._draw(rng, grid, self.n_equations)
        return {"abscissa": abscissa, "grid": grid, "signal": signal["x"]} | nuisance | common | noise

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A, b = [], []
        for i, (abscissa, grid) in enumerate(zip(params["abscissa"], params["grid"], strict=True)):
            one = {name: value[i : i + 1] for name, value in params.items()}
            clean = self.response(abscissa, grid, one["signal"], one)
            A.append(self.kernel(abscissa, grid))
            b.append((clean + self.noise_deviation(clean, one) * one["z"])[0])
        return np.array(A), np.array(b)

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        """Return the truth."""
        return np.asarray(params["signal"], dtype=np.float64)

    def at(self, indices: Sequence[int] | NDArray[np.int64], seed: int = 0) -> MeasuredSystems:
        """Return the systems at these indices of the sequence of `seed`."""
        found = super().at(indices, seed)
        return MeasuredSystems(found.A, found.b, found.x, found.params, self)
