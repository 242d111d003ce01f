"""Parts that several figures share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WHO = {
    "learned": ("C2", "network"),
    "learned+refined": ("C0", "network, refined"),
    "lapack": ("C1", "LAPACK"),
}
"""Colour and label of who answered, by method."""


def panel_grid(count: int, more: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels, four in a row at most, and the panels; `more` inches are left below."""
    across = min(4, count)
    down = -(-count // across)
    figure = Figure(figsize=(4 * across, 3.4 * down + more), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, list(panels[:count])


def legend_below(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
    """Put a legend below the panels, of all that any of them shows."""
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize="small")
