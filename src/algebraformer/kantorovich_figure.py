"""The figure of the study `kantorovich`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from algebraformer.studies.base import distinct, where

STYLES = {
    "learned inverse": "C0o-",
    "Newton, LU, batched": "C1s-",
    "Newton, LU, dgesv": "C1x--",
    "chord": "C2^-",
    "Newton-GMRES, mean inverse": "C3d-",
}


def kantorovich_figure(data: Mapping[str, Any]) -> Figure:
    """Draw milliseconds per problem against n for every equation, and below the products with inverses they need."""
    records = data["records"]
    equations = distinct(records, "equation")
    figure = Figure(figsize=(3.6 * len(equations), 6.6), layout="constrained")
    panels = figure.subplots(2, len(equations), squeeze=False, sharey="row")
    for (upper, lower), equation in zip(panels.T, equations, strict=True):
        own = sorted(where(records, equation=equation), key=lambda r: r["n"])
        sizes = [r["n"] for r in own]
        for name, style in STYLES.items():
            found = [r["methods"][name] for r in own]
            upper.loglog(sizes, [1e3 * m["seconds"] for m in found], style, markersize=4, label=name)
            lower.plot(sizes, [m["iterations_mean"] + m["refinements_mean"] for m in found], style, markersize=4)
        lower.set(xscale="log", xlabel="n")
        for axes in (upper, lower):
            axes.set_xticks(sizes, [str(n) for n in sizes])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        shares = min(100 * r["learned"]["without"] for r in own)
        upper.set(title=f"{equation}\nwithout LU: at least {shares:.4g} %")
    panels[0, 0].set(ylabel="ms per problem, in batches")
    panels[1, 0].set(ylabel="iterations and refinements")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure
