"""The figure of the study `noisy`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from studies.harness.panels import legend_below, panel_grid
from studies.harness.study import where

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


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the median errors of every family against the noise level, with intervals; dotted: oracles."""
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
    figure.suptitle(f"n = {data['n']}, all priors; dotted: oracles; bands: 90 % bootstrap intervals")
    return figure
