"""Distributions of relaxation times from impedance spectra: what a network is trained on.

x is gamma(ln tau) in ohm over the polarisation resistance per unit of u, the position in the range of the grid, so that
its mean over the grid is one. All limits are our choices, wide enough for published spectra.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import split_parts
from algebraformer.numerics.gaussian_fit import Fits, Way
from algebraformer.problems.base import register
from algebraformer.problems.instruments.base import Instrument, Nuisance, Recorded
from algebraformer.problems.instruments.priors import smooth_density
from algebraformer.problems.instruments.relaxation import relaxation_kernel, series_elements, time_grid
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform

SIZES = np.array([5.0, 1.0, 3.0])
"""Standard deviations of resistance, of the inductance's impedance at the highest frequency and of the capacitance's at
the lowest, where the polarisation resistance is one."""
SMOOTHED = 5
"""Neighbouring frequencies whose mean modulus stands for |Z|: half a decade of a usual spectrum."""
ARC_WIDTHS: Limits = (0.3, 2.5)
"""Limits of the width of an arc in ln tau, log-uniform; the narrowest are near ideal on the grid."""

ELEMENTS: dict[str, Limits] = {"R_inf": (0.01, 10), "inductance": (1e-3, 2), "elastance": (1e-2, 8)}
"""Limits of the impedances of the elements in series where they are largest, over the polarisation resistance."""
SLACK = 1.15
"""Factor by which what is found may be beyond its limits. One simulated spectrum in two hundred is, or less."""


@register("drt")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Drt(Instrument):
    """Spectra Z(f) = R_inf + i omega L + 1 / (i omega C) + the impedance of gamma; abscissae are frequencies in Hz."""

    m: int = 64
    """Number of frequencies of its systems; in training it varies."""
    noise: Limits = (3e-4, 0.06)
    """Limits of the noise's standard deviation over |Z|, log-uniform."""

    nuisance_names: ClassVar[tuple[str, ...]] = ("R_inf", "inductance", "elastance")
    abscissa_label: ClassVar[str] = "frequency / Hz"
    grid_label: ClassVar[str] = "relaxation time / s"
    x_label: ClassVar[str] = "gamma / ohm"
    data_label: ClassVar[str] = "Z / ohm"
    values_per_point: ClassVar[int] = 2

    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> FloatArray:
        """Draw frequencies over 4 to 10 decades, equally spaced in their logarithm but one time in seven with gaps."""
        decades = rng.uniform(4, 10)
        m = points or int(log_uniform(rng, (20, 400) if rng.random() < 0.2 else (30, 150)))
        low = rng.uniform(-4, 7 - decades)
        if rng.random() > 0.15:
            return 10 ** np.linspace(low, low + decades, m)
        inner = np.sort(rng.choice(np.arange(1, 2 * m - 1), m - 2, replace=False))
        return 10 ** np.linspace(low, low + decades, 2 * m)[np.concatenate(([0], inner, [2 * m - 1]))]

    def grid(self, abscissa: FloatArray) -> FloatArray:
        return time_grid(abscissa, self.n)

    def kernel(self, abscissa: FloatArray, grid: FloatArray) -> FloatArray:
        # Its weights are steps of ln tau; x is per unit of u.
        return split_parts(relaxation_kernel(abscissa, grid), axis=0) / np.log(grid[-1] / grid[0])

    def columns(self, abscissa: FloatArray) -> FloatArray:
        """Return the elements in series, each of one ohm where it is largest."""
        elements = split_parts(series_elements(abscissa), axis=0)
        return elements / np.abs(elements).max(axis=0) * SIZES

    def features(self, abscissa: FloatArray) -> FloatArray:
        """Return the number of decades and that of the frequencies."""
        decades = np.log10(abscissa[-1] / abscissa[0])
        return np.array([decades / 3 - 2, np.log(len(abscissa)) - 4])

    def draw_signal(self, rng: np.random.Generator, grid: FloatArray) -> FloatArray:
        """Draw one to five arcs with tails of any kind, or one time in five a smooth density, with mean one."""
        if rng.random() < 0.2:
            return smooth_density(rng, self.n)
        u = np.log(grid)
        count = int(rng.integers(1, 6))
        place = u[0] + (u[-1] - u[0]) * rng.uniform(0.03, 0.97, count)
        width = np.exp(rng.uniform(np.log(ARC_WIDTHS[0]), np.log(ARC_WIDTHS[1]), (2, count)))
        width[1] = np.where(rng.random(count) < 0.6, width[0], width[1])  # both sides alike
        z = u[:, None] - place
        z = np.abs(z) / np.where(z < 0, width[0], width[1])
        # Between normal and exponential tails: log cosh is a parabola near the top and a line far off.
        steep = np.where(rng.random(count) < 0.5, np.exp(rng.uniform(np.log(0.3), np.log(3), count)), 1e-3)
        log_cosh = steep * z + np.log1p(np.exp(-2 * steep * z)) - np.log(2)
        peak = np.exp(-log_cosh / steep**2)
        density = np.sum(rng.dirichlet(np.ones(count)) * peak / peak.sum(axis=0), axis=1)
        return density / density.mean()

    def draw_nuisance(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw R_inf always, inductance one time in two and a capacitance one time in four; of the impedances above."""
        return {
            "R_inf": log_uniform(rng, ELEMENTS["R_inf"]),
            "inductance": log_uniform(rng, ELEMENTS["inductance"]) if rng.random() < 0.5 else 0.0,
            "elastance": log_uniform(rng, ELEMENTS["elastance"]) if rng.random() < 0.25 else 0.0,
        }

    def response(self, abscissa: FloatArray, grid: FloatArray, x: FloatArray, nuisance: Nuisance) -> FloatArray:
        y = np.stack([nuisance[name] for name in self.nuisance_names], axis=1) / SIZES
        return x @ self.kernel(abscissa, grid).T + y @ self.columns(abscissa).T

    def draw_noise(self, rng: np.random.Generator, rows: int) -> dict[str, Any]:
        """Draw the power of |Z| that the noise goes with: half of the time 1, else 0 or between."""
        kind = rng.random()
        power = 1.0 if kind < 0.5 else 0.0 if kind < 0.85 else rng.random()
        return super().draw_noise(rng, rows) | {"power": power}

    def noise_deviation(self, clean: FloatArray, drawn: dict[str, Any]) -> FloatArray:
        size = np.hypot(*np.split(clean, 2, axis=1))
        size = np.tile(size / size.max(axis=1, keepdims=True), 2)
        top = np.hypot(*np.split(clean, 2, axis=1)).max(axis=1, keepdims=True)
        return drawn["level"][:, None] * top * size ** drawn["power"][:, None]

    def draw_present(self, rng: np.random.Generator, rows: int) -> NDArray[np.bool_]:
        """Leave out all imaginary or all real parts, each one time in fourteen."""
        present, which = np.ones(rows, dtype=bool), rng.integers(14)
        if which < 2:
            present[: rows // 2] = which == 0
            present[rows // 2 :] = which == 1
        return present

    def ways(self, abscissa: FloatArray, data: FloatArray, present: NDArray[np.bool_]) -> tuple[Way, ...]:
        """Return a way with equal weights and one with weights 1 / |Z|, of what is known of Z.

        Moduli are means over neighbours: a datum's own would take from its noise what lies along Z.
        """
        size = smoothed_modulus(data)
        top = size.max(axis=1, keepdims=True)
        relative = np.tile(top / np.maximum(size, 1e-4 * top), 2)
        one, N = np.ones(data.shape[1]), self.columns(abscissa)
        return Way(one, N, one * present), Way(one, N, relative * present)

    def coordinates(self, nuisance: Nuisance, fits: Fits, unit: FloatArray) -> FloatArray:
        y = np.stack([nuisance[name] for name in self.nuisance_names], axis=1) / SIZES
        return np.clip((y - fits.y[1]) / fits.y_std, -10, 10)

    def from_coordinates(self, coordinates: FloatArray, fits: Fits, unit: FloatArray) -> dict[str, FloatArray]:
        """Return the impedances (B,) of the elements; below 0 where noise makes them so, see `natural`."""
        y = SIZES * (fits.y[1] + fits.y_std * coordinates)
        return {name: y[:, i] for i, name in enumerate(self.nuisance_names)}

    def outside(
        self, recorded: Recorded, x: FloatArray, nuisance: Nuisance, fits: Fits
    ) -> dict[str, NDArray[np.bool_]]:
        """Say what lies outside of the limits above: noise over the largest |Z|, and the elements over the resistance.

        The noise of an imaginary part alone is not known relative to |Z|.
        """
        resistance = np.maximum(x.mean(axis=1), np.finfo(float).tiny)
        found = {name: nuisance[name] / resistance > SLACK * high for name, (_, high) in ELEMENTS.items()}
        real = recorded.present[0]
        noise = self.deviations(recorded, fits, fits.noise)[:, recorded.present].max(axis=1)
        top = smoothed_modulus(recorded.data).max(axis=1)
        return {"noise": real & (noise > SLACK * self.noise[1] * top)} | found

    def x_scale(self, grid: FloatArray) -> float:
        """Return 1 / ln(tau_max / tau_min): gamma is per unit of ln tau."""
        return float(1 / np.log(grid[-1] / grid[0]))

    def natural(
        self, nuisance: Nuisance, std: Nuisance, abscissa: FloatArray
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return R_inf (ohm), inductance (H) and series_capacitance (F), infinite where none is seen.

        None is negative. Standard deviations are those before that is seen to, which tell how large they may be.
        """
        high, low = 2 * np.pi * abscissa.max(), 2 * np.pi * abscissa.min()
        elastance, error = nuisance["elastance"], std["elastance"]
        seen = elastance > 2 * error
        safe = np.where(seen, elastance, 1.0)
        capacitance = np.where(seen, 1 / (low * safe), np.inf)
        return (
            {
                "R_inf": np.maximum(nuisance["R_inf"], 0.0),
                "inductance": np.maximum(nuisance["inductance"], 0.0) / high,
                "series_capacitance": capacitance,
            },
            {
                "R_inf": std["R_inf"],
                "inductance": std["inductance"] / high,
                "series_capacitance": np.where(seen, error / (low * safe**2), np.nan),
            },
        )


def smoothed_modulus(data: FloatArray) -> FloatArray:
    """Return means of neighbouring moduli (B, m) of spectra (B, 2 m), see `SMOOTHED`."""
    from scipy.ndimage import uniform_filter1d  # slow to import, and the command line lists families

    size: FloatArray = uniform_filter1d(np.hypot(*np.split(data, 2, axis=1)), SMOOTHED, axis=1)
    return size
