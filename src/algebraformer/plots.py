"""Figures, drawn without a display and saved as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG; no global state of pyplot is touched."""
    FigureCanvasAgg(figure).print_png(str(path))


def boundary_value_figure(
    x: FloatArray,
    coefficients: Mapping[str, FloatArray],
    reference: FloatArray,
    solutions: Mapping[str, FloatArray],
    residuals: Mapping[str, FloatArray],
    title: str,
) -> Figure:
    """Draw a boundary value problem and its solution in three panels.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Interior collocation points.
    coefficients : dict of ndarray, shape (n,)
        What the equation is made of, for instance K and f.
    reference : ndarray, shape (n,)
        The true u.
    solutions, residuals : dict of ndarray, shape (n,)
        Computed u, and |b - A x| of computed solutions, by label.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for label, values in coefficients.items():
        left.plot(x, values, label=label)
    left.set(title="coefficients", xlabel="x")
    middle.plot(x, reference, "k", linewidth=3, alpha=0.35, label="true u")
    for (label, values), style in zip(solutions.items(), ("C1--", "C0:", "C2-."), strict=False):
        middle.plot(x, values, style, label=label)
    middle.set(title="solution", xlabel="x")
    for label, values in residuals.items():
        right.semilogy(x, np.maximum(np.abs(values), 1e-18), ".-", label=label)
    right.set(title="|b − A x|", xlabel="x")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(title)
    return figure


STUDIES: dict[str, Callable[[dict[str, Any]], Figure]] = {}
"""The figure of every study, drawn from its data."""
