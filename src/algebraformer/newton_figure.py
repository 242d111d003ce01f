"""Figures of l_p regression: the study `newton`, and the convergence of one problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algebraformer.figure_parts import legend_below, panel_grid
from algebraformer.studies.base import distinct, where

SHOWN = {
    "damped": ("Newton, step 1/(p−1)", "C1"),
    "newton": ("Newton, line search", "C0"),
    "homotopy": ("homotopy in p", "C3"),
    "learned start": ("learned start", "C2"),
    "nearest neighbour": ("nearest neighbour", "C4"),
}


def newton_figure(data: Mapping[str, Any]) -> Figure:
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


def convergence_figure(traces: Mapping[str, Sequence[tuple[str, float, float]]], p: float, title: str) -> Figure:
    """Draw gradient norm and objective gap against the iteration; learned steps are marked.

    Parameters
    ----------
    traces : dict of lists
        By label: `trace` of `minimize_lp`, (kind of step, gradient norm, ||r||_p) from the start on.
    p : float
    title : str
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    least = min(size for trace in traces.values() for _, _, size in trace)
    for number, (label, trace) in enumerate(traces.items()):
        steps = np.arange(len(trace))
        gaps = [-np.expm1(p * np.log(least / size)) if size > 0 and least > 0 else 0.0 for _, _, size in trace]
        for axes, raw in ((left, [error for _, error, _ in trace]), (right, gaps)):
            values = np.maximum(np.array(raw), 1e-17)
            axes.semilogy(steps, values, f"C{number}-", linewidth=1)
            for kind, marker in (("start", "s"), ("exact", "o"), ("learned", "*")):
                chosen = [i for i, one in enumerate(trace) if one[0] == kind]
                size = 12 if kind == "learned" else 5
                axes.semilogy(
                    steps[chosen], values[chosen], f"C{number}{marker}", markersize=size, label=f"{label}: {kind}"
                )
    left.set(title="relative gradient norm", xlabel="iteration")
    right.set(title="(f − best f) / f", xlabel="iteration")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize="small")
    figure.suptitle(title)
    return figure
