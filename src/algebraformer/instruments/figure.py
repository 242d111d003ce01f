"""Figures of inversions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

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
    figure = new_figure(10, 4.5)
    cells = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    data_axes, axes = figure.add_subplot(cells[0, 0]), figure.add_subplot(cells[:, 1])
    residual_axes = figure.add_subplot(cells[1, 0], sharex=data_axes)

    # 1. Data and residuals; of complex data both parts, or the one that is known.
    logarithmic = np.iscomplexobj(found.data)
    rest = found.data - found.fitted
    parts = {"data": (found.data, found.fitted, rest)}
    if logarithmic:
        data, fitted = found.data, found.fitted
        parts = {"Re": (data.real, fitted.real, rest.real), "-Im": (-data.imag, -fitted.imag, -rest.imag)}
        known = found.recorded.present.reshape(2, -1).any(axis=1)
        parts = {name: part for (name, part), there in zip(parts.items(), known, strict=True) if there}
    for number, (name, (data, fitted, residual)) in enumerate(parts.items()):
        color = f"C{number}"
        data_axes.plot(found.abscissa, data, ".", color=color, markersize=3, label=name)
        data_axes.plot(found.abscissa, fitted, color="black", linewidth=1)
        residual_axes.plot(found.abscissa, residual, ".", color=color, markersize=3)
    residual_axes.axhline(0, color="black", linewidth=0.5)
    residual_axes.set_xlabel("frequency / Hz" if logarithmic else "time / us")
    residual_axes.set_ylabel("residual")
    data_axes.legend(frameon=False)

    # 2. The density: bands of 50, 90 and 95 %, mean, and other answers.
    for level, shade in ((0.95, 0.15), (0.9, 0.2), (0.5, 0.35)):
        axes.fill_between(found.grid, *found.band(level), color="C0", alpha=shade, linewidth=0, label=f"{level:.0%}")
    axes.plot(found.grid, found.x, color="C0", label="mean")
    for number, (name, x) in enumerate((others or {"classical": found.classical.x}).items(), start=1):
        axes.plot(found.grid, x, "--", color=f"C{number}", linewidth=1, label=name)
    axes.set_xlabel(found.grid_label)
    axes.set_ylabel(found.x_label)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    if logarithmic:
        residual_axes.set_xscale("log")
        axes.set_xscale("log")
    return figure
