"""The figure of the study `relatives`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from studies.harness.study import distinct, number, where
from studies.relatives.report import METHODS, SHIPPED

MARKS = "os^vDPX<>p"


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the median contraction against the number of training systems for every family, 95 % as the end of a bar."""
    records = data["records"]
    families = distinct(records, "family")
    figure = Figure(figsize=(4.2 * len(families), 4.6), layout="constrained")
    panels = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
    for axes, family in zip(panels, families, strict=True):
        own = where(records, family=family)
        for count, name in enumerate((*METHODS, SHIPPED)):
            points = where(own, method=name)
            if not points:
                continue
            sizes = [r["samples"] if name == SHIPPED else r["N"] for r in points]
            medians = [number(r["contraction_median"]) for r in points]
            style = {"color": f"C{count}" if name != SHIPPED else "C0", "label": name, "markersize": 5}
            axes.loglog(sizes, medians, "*" if name == SHIPPED else f"{MARKS[count]}-", **style)
            axes.vlines(sizes, medians, [number(r["contraction_95"]) for r in points], color=style["color"], alpha=0.3)
        axes.axhline(1, color="0.5", linewidth=1)
        axes.set(title=f"{family}, n = {own[0]['n']}", xlabel="training systems")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="contraction ρ(I − M A): median, bar to 95 %")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=max(2, len(families)),
        fontsize="small",
    )
    return figure
