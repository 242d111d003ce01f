"""Figures of inversions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from algebraformer.arrays import NUMPY, host
from algebraformer.linalg import FloatArray
from algebraformer.plotting import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def inversion_figure(found: Any, others: Mapping[str, FloatArray] | None = None) -> Figure:
    """Draw one measurement: data with their fit, residuals, and the density with its bands.

    Parameters
    ----------
    found : Inversion
        Of one measurement, see `instruments.inversion`.
    others : mapping of str to ndarray (n,), optional
        Other answers by name; by default the classical one.
    """
    if found.x.ndim != 1:
        raise ValueError(f"a figure shows one measurement, received a batch of {len(found.x)}")
    others = {name: host(x) for name, x in (others or {"classical": found.classical.x}).items()}
    found = found.as_kind(NUMPY)
    figure = new_figure(10, 4.5)
    cells = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    data_axes, axes = figure.add_subplot(cells[0, 0]), figure.add_subplot(cells[:, 1])
    residual_axes = figure.add_subplot(cells[1, 0], sharex=data_axes)

    # 1. Data and residuals; of complex data both parts, or the one that is known.
    instrument = found.model.instrument
    rest = found.data - found.fitted
    parts = {"data": (found.data, found.fitted, rest)}
    if np.iscomplexobj(found.data):
        data, fitted = found.data, found.fitted
        parts = {"Re": (data.real, fitted.real, rest.real), "-Im": (-data.imag, -fitted.imag, -rest.imag)}
        known = found.recorded.present.reshape(2, -1).any(axis=1)
        parts = {name: part for (name, part), there in zip(parts.items(), known, strict=True) if there}
    elif instrument.values_per_point > 1:
        count = instrument.values_per_point
        split = zip(*(np.split(values, count) for values in (found.data, found.fitted, rest)), strict=True)
        parts = {f"data {number}": part for number, part in enumerate(split, start=1)}
    for number, (name, (data, fitted, residual)) in enumerate(parts.items()):
        color = f"C{number}"
        data_axes.plot(found.abscissa, data, ".", color=color, markersize=3, label=name)
        data_axes.plot(found.abscissa, fitted, color="black", linewidth=1)
        residual_axes.plot(found.abscissa, residual, ".", color=color, markersize=3)
    residual_axes.axhline(0, color="black", linewidth=0.5)
    residual_axes.set_xlabel(instrument.abscissa_label)
    residual_axes.set_ylabel("residual")
    data_axes.legend(frameon=False)

    # 2. The density: bands of 50, 90 and 95 %, mean, and other answers.
    for level, shade in ((0.95, 0.15), (0.9, 0.2), (0.5, 0.35)):
        axes.fill_between(found.grid, *found.band(level), color="C0", alpha=shade, linewidth=0, label=f"{level:.0%}")
    axes.plot(found.grid, found.x, color="C0", label="mean")
    for number, (name, x) in enumerate(others.items(), start=1):
        axes.plot(found.grid, x, "--", color=f"C{number}", linewidth=1, label=name)
    axes.set_xlabel(instrument.grid_label)
    axes.set_ylabel(instrument.x_label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    for panel, values in ((residual_axes, found.abscissa), (axes, found.grid)):
        if is_geometric(values):
            panel.set_xscale("log")
    return figure


def comparison_figure(data: Mapping[str, Any]) -> Figure:
    """Draw errors and coverage by the level of the noise, from the data of `comparison.compare`."""
    figure = new_figure(8, 3.8)
    errors, shares = figure.subplots(1, 2)
    noise = [entry["noise"] for entry in data["by_noise"]]
    for number, name in enumerate(data["methods"]):
        for axes, key in ((errors, "error"), (shares, "coverage")):
            values = [entry.get(f"{name}: {key}") for entry in data["by_noise"]]
            if values[0] is not None:
                axes.semilogx(noise, values, "o-", color=f"C{number}", label=name)
    shares.axhline(0.9, color="k", linestyle="--", linewidth=1)
    errors.set(title="median relative error", xlabel="noise / data", yscale="log")
    shares.set(title="coverage of the 90 % bands", xlabel="noise / data", ylim=(0, 1))
    for axes in (errors, shares):
        axes.grid(alpha=0.3)
    errors.legend(fontsize="small")
    return figure


def is_geometric(values: FloatArray) -> bool:
    """Say whether ascending values (m,) are positive and more equally spaced in their logarithm than as they are.

    Examples
    --------
    >>> is_geometric(np.geomspace(1, 100, 9)), is_geometric(np.linspace(1, 100, 9)), is_geometric(np.arange(9.0))
    (True, False, False)
    """
    if values[0] <= 0:
        return False
    steps = np.diff(values), np.diff(np.log(values))
    return bool(np.ptp(steps[1]) / steps[1].mean() < np.ptp(steps[0]) / steps[0].mean())
