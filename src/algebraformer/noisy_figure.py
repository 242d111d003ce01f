"""The figures of the studies `noisy` and `heldout`, from their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algebraformer.figure_parts import legend_below, panel_grid
from algebraformer.studies.base import distinct, where

STYLES = {
    "Tikhonov, cross-validation": "C1s-",
    "TSVD, cross-validation": "C5v-",
    "total variation, discrepancy": "C2^-",
    "learned": "ko-",
    "learned, all families": "k^--",
    "Tikhonov, oracle": "C1s:",
    "LMMSE": "C3d:",
    "total variation, oracle": "C2^:",
}
BARS = {
    "learned": ("k", "learned"),
    "guarded": ("0.6", "learned, Tikhonov where flagged"),
    "tikhonov": ("C1", "Tikhonov, cross-validation"),
    "total_variation": ("C2", "total variation, discrepancy"),
}
SHARES = {
    "coverage": ("C0o", "in the 90 % intervals"),
    "consistent": ("C2s", "consistent"),
    "in_distribution": ("C4^", "in distribution"),
    "lost": ("C3X", "lost to Tikhonov by half"),
}


def noisy_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the median errors of every family against the noise level, with intervals; solid: told no truth."""
    families = data["families"]
    figure, panels = panel_grid(len(families), more=0.8)
    for axes, family in zip(panels, families, strict=True):
        for method, style in STYLES.items():
            mine = where(data["pooled"], family=family, method=method)
            if mine:
                levels = [one["level"] for one in mine]
                axes.loglog(levels, [one["median"] for one in mine], style, markersize=4, linewidth=1.2, label=method)
                low, high = ([one[end] for one in mine] for end in ("low", "high"))
                axes.fill_between(levels, low, high, color=style[:-2].rstrip("os^vd"), alpha=0.15, linewidth=0)
        axes.set(title=family, xlabel="relative noise level", ylabel="median relative error")
        axes.grid(alpha=0.3)
    legend_below(figure, panels, columns=4)
    figure.suptitle(f"n = {data['n']}, all priors; dotted: told what nobody knows; bands: 90 % bootstrap intervals")
    return figure


def heldout_figure(data: Mapping[str, Any]) -> Figure:
    """Draw errors and shares of every group, a row for each family with a model."""
    families = distinct(data["groups"], "family")
    rows = max(1, len(families))
    figure = Figure(figsize=(13, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False)
    for (left, right), family in zip(panels, families, strict=False):
        groups = where(data["groups"], family=family)
        _bars(left, groups)
        _shares(right, groups)
        left.set(title=family)
    for axes in panels[len(families) :].ravel():
        axes.set_axis_off()
    absent = ", ".join(name for name, model in data["models"].items() if model is None)
    figure.suptitle("Outside the training" + (f" (no model: {absent})" if absent else ""))
    return figure


def _bars(axes: Axes, groups: Sequence[Mapping[str, Any]]) -> None:
    """Draw the median errors of the groups side by side."""
    places = np.arange(len(groups))
    for number, (key, (colour, label)) in enumerate(BARS.items()):
        axes.bar(places + 0.2 * (number - 1.5), [one[key] for one in groups], 0.2, color=colour, label=label)
    axes.set_yscale("log")
    axes.set_xticks(places, [one["group"] for one in groups], rotation=40, ha="right", fontsize="small")
    axes.set(ylabel="median relative error")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small")


def _shares(axes: Axes, groups: Sequence[Mapping[str, Any]]) -> None:
    """Draw what the estimates say of themselves, and how often they lose."""
    places = np.arange(len(groups))
    for key, (style, label) in SHARES.items():
        axes.plot(places, [one[key] for one in groups], style, markersize=6, label=label)
    axes.axhline(0.9, color="C0", linestyle=":", linewidth=1)
    axes.set_xticks(places, [one["group"] for one in groups], rotation=40, ha="right", fontsize="small")
    axes.set(ylabel="share", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
