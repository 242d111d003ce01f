"""The figure of the study `outside`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.harness.panels import WHO


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw who answered, against the distance from the family and for every group, and what that took."""
    figure = Figure(figsize=(14, 6.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1, 0.6))
    bins, groups = data["distances"], data["groups"]
    places = np.arange(len(bins))
    base = np.zeros(len(bins))
    for method, (colour, label) in WHO.items():
        shares = np.array([entry[method] for entry in bins])
        left.bar(places, shares, bottom=base, color=colour, width=0.9, label=label)
        base += shares
    for place, entry in zip(places, bins, strict=True):
        if entry["refinements_median"] is not None:
            left.text(
                place, 0.01, f"{entry['refinements_median']:g}", ha="center", va="bottom", color="w", weight="bold"
            )
    left.set_xticks(places, [f"{e['name']}\n({e['systems']})" for e in bins], rotation=60, fontsize="small")
    inside = sum(entry["high"] is not None and entry["high"] <= 1 for entry in bins)
    left.axvline(inside - 0.5, color="k", linewidth=2, label="in_distribution: left of this line")
    left.set(title="by distance (white: median refinements)", ylabel="share of the systems", ylim=(0, 1.02))
    left.set(xlabel="distance (number of systems)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    _group_bars(middle, groups)
    _refinements(right, groups)
    figure.suptitle(f"{data['model']}, n = {data['n']}: who answers outside the family")
    return figure


def _group_bars(axes: Axes, groups: list[dict[str, Any]]) -> None:
    """Draw the shares of every group as bars from left to right."""
    places, base = np.arange(len(groups)), np.zeros(len(groups))
    for method, (colour, _) in WHO.items():
        shares = np.array([group[method] for group in groups])
        axes.barh(places, shares, left=base, color=colour, height=0.8)
        base += shares
    axes.plot([group["in_distribution"] for group in groups], places, "ko", markersize=4)
    axes.set_yticks(places, [group["group"] for group in groups], fontsize="small")
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set(title="by group (dots: share in_distribution)", xlabel="share of the systems", xlim=(-0.02, 1.02))


def _refinements(axes: Axes, groups: list[dict[str, Any]]) -> None:
    """Draw median and largest number of refinements of every group's answers by the network."""
    for place, group in enumerate(groups):
        if group["refinements_median"] is not None:
            axes.plot([group["refinements_median"], group["refinements_max"]], [place, place], "C0-", linewidth=1.5)
            axes.plot(group["refinements_median"], place, "C0o", markersize=6)
            axes.plot(group["refinements_max"], place, "C0|", markersize=9)
    axes.set_yticks(range(len(groups)), [""] * len(groups))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(left=-0.3)
    axes.set(title="refinements", xlabel="median (dot) to most")
    axes.grid(alpha=0.3)
