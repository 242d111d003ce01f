"""Figures of the studies `condition` and `noise`, from their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algebraformer.studies.base import distinct, where

CEILING = 1e3
"""Errors above this are drawn here."""


def condition_figure(data: Mapping[str, Any]) -> Figure:
    """Draw error and share solved against kappa, and the share against the distance from the training.

    One row of panels for every kind of network; full symbols stand for groups the networks were trained on.
    """
    rows = data["rows"]
    heads = distinct(rows, "head")
    subjects = distinct(rows, "subject")
    figure = Figure(figsize=(15, 4.4 * len(heads)), layout="constrained")
    panels = figure.subplots(len(heads), 3, squeeze=False)
    for (left, middle, right), head in zip(panels, heads, strict=True):
        for number, name in enumerate(subjects):
            mine = where(rows, subject=name, head=head)
            colour = f"C{number}"
            _line(left, mine, "kappa", [min(float(row["normalized_mse"]), CEILING) for row in mine], colour, name)
            solved = [row["solved"] for row in mine]
            _line(middle, mine, "kappa", solved, colour, name)
            _line(right, mine, "distance", solved, colour, name, line="")
        left.axhline(1, color="k", linewidth=0.8, linestyle=":")
        left.set(title=f"{head}: error of the bare network", yscale="log", ylabel="normalized_mse (1: answering zero)")
        middle.set(title=f"{head}: solved without LAPACK", ylabel="share of the systems", ylim=(-0.04, 1.04))
        right.axvline(1, color="k", linewidth=0.8, linestyle=":")
        right.set(title=f"{head}: by distance", ylabel="share solved without LAPACK", ylim=(-0.04, 1.04))
        for axes, label in ((left, "kappa"), (middle, "kappa"), (right, "distance from the family of the training")):
            axes.set(xscale="log", xlabel=label)
            axes.tick_params(axis="x", which="minor", labelbottom=False)
            axes.grid(alpha=0.3)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle("Where it works and where it does not (full symbols: the condition numbers of the training)")
    return figure


def _line(
    axes: Axes, rows: list[dict[str, Any]], key: str, values: list[float], colour: str, name: str, line: str = "-"
) -> None:
    """Draw values of the groups of one family against a number."""
    x = np.array([row[key] for row in rows])
    y, inside = np.array(values), np.array([row["inside"] for row in rows])
    order = np.argsort(x)
    axes.plot(x[order], y[order], colour, linestyle=line or "none", linewidth=1.2)
    axes.plot(x[~inside], y[~inside], "o", color=colour, fillstyle="none", markersize=5)
    axes.plot(x[inside], y[inside], "o", color=colour, markersize=6, label=name)


def noise_figure(data: Mapping[str, Any]) -> Figure:
    """Draw, for every system, what is perturbed and the direction, how far x moves against eps, beside kappa eps."""
    cases = [case["case"] for case in data["cases"]]
    kinds = distinct(data["records"], "what", "direction")
    figure = Figure(figsize=(4 * len(kinds), 4 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), len(kinds), sharey=True, squeeze=False)
    for line, case in zip(panels, cases, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            mine = where(data["records"], case=case, what=kind[0], direction=kind[1])
            levels = [one["level"] for one in mine]
            axes.loglog(levels, [one["kappa_level"] for one in mine], "k--", linewidth=1, label="kappa eps")
            for number, name in enumerate(mine[0]["change"]):
                values = [max(float(one["change"][name]), 1e-17) for one in mine]
                axes.loglog(levels, values, f"C{number}o-", markersize=4, label=name)
            axes.set(title=f"{case}\n{kind[0]}, {kind[1]} direction", xlabel="eps")
            axes.grid(alpha=0.3)
        line[0].set(ylabel="relative change of x, median")
    panels[-1, 0].legend(fontsize="small")
    figure.suptitle("Perturbations of A and b")
    return figure
