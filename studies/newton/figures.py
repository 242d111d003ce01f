"""The figure of the study `newton`, from its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.harness.panels import legend_below, panel_grid
from studies.harness.study import distinct, where

SHOWN = {
    "damped": ("Newton, step 1/(p−1)", "C1"),
    "newton": ("Newton, line search", "C0"),
    "homotopy": ("homotopy in p", "C3"),
    "learned start": ("learned start", "C2"),
    "nearest neighbour": ("nearest neighbour", "C4"),
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the iterations of the main methods against p, a panel for every kind and n."""
    groups = distinct(data["records"], "kind", "n")
    sizes = sorted(distinct(data["records"], "p"))
    figure, panels = panel_grid(len(groups))
    for axes, (kind, n) in zip(panels, groups, strict=True):
        for place, (method, (label, colour)) in enumerate(SHOWN.items()):
            mine = [r for r in where(data["records"], kind=kind, n=n, method=method) if r["start"] != "zero"]
            if mine:
                _bars(axes, mine, 0.12 * (place - 2), label, colour)
        axes.set(title=f"{kind}, n = {n}", xlabel="p", ylabel="iterations", yscale="log")
        axes.set_xticks(range(len(sizes)), [f"{p:g}" for p in sizes])
        axes.grid(alpha=0.3)
    legend_below(figure, panels, columns=5)
    figure.suptitle("Iterations to a relative gradient norm of 1e-8 (dot: median, line: up to the largest)")
    return figure


def _bars(axes: Axes, mine: Sequence[Mapping[str, Any]], shift: float, label: str, colour: str) -> None:
    """Draw median and largest number of iterations of one method."""
    mine = sorted(mine, key=lambda r: r["p"])
    x = np.arange(len(mine)) + shift
    middle = [max(r["median"], 0.5) for r in mine]
    axes.vlines(x, middle, [max(r["max"], 0.5) for r in mine], color=colour, linewidth=1.5)
    axes.plot(x, middle, "o", color=colour, markersize=5, label=label)
