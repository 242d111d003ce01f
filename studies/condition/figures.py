"""Figure of the study `condition`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.harness.study import distinct, where

CEILING = 1e3
"""Errors above this are drawn here."""


def figure(data: Mapping[str, Any]) -> Figure:
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
    figure.suptitle("Limits (full symbols: the condition numbers of the training)")
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
