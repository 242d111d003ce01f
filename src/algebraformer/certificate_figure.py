"""The figure of the study `certificate`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from algebraformer.figure_parts import legend_below
from algebraformer.studies.base import distinct, where


def certificate_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the backward error of LAPACK's answers against n, for every family, beside the certificate."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, how, title in zip(panels, ("plain", "refined"), ("LU, as LAPACK leaves it", "refined once"), strict=True):
        for number, name in enumerate(distinct(data["records"], "family")):
            records = where(data["records"], family=name)
            sizes = [record["n"] for record in records]
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            axes.loglog(sizes, [r[f"{how}_max"] for r in records], marker="o", markersize=4, label=name, **style)
            axes.loglog(sizes, [r[f"{how}_median"] for r in records], alpha=0.3, **style)
        axes.axhline(data["constant"], color="k", linewidth=2, label=f"certificate: {data['constant']:g} n eps")
        axes.set(title=title, xlabel="n", xticks=sizes, xticklabels=sizes)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="ω / (n eps): largest (lines with dots), median (pale)")
    legend_below(figure, panels, columns=5)
    return figure
