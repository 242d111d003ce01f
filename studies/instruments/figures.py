"""The figure of the study `instruments`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from studies.harness.measurements import PRIOR
from studies.harness.panels import legend_below, panel_grid
from studies.harness.study import where
from studies.instruments.report import LEARNED
from studies.instruments.rivals import GCV, GCV_NNLS, KNOWN, L_CURVE, LMMSE, ORACLE, PACKAGES, SAMPLER

STYLES = {
    LEARNED: "ko-",
    GCV_NNLS: "C1s-",
    KNOWN: "C1s:",
    ORACLE: "C2^:",
    LMMSE: "C3d:",
    L_CURVE: "C4v:",
    GCV: "C5x:",
    SAMPLER: "C6*:",
    PACKAGES["deer"]: "C0P--",
    PACKAGES["drt"]: "C0P--",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the median errors of every instrument against the noise; dotted: what knows the nuisance parameters."""
    names = data["instruments"]
    figure, panels = panel_grid(len(names), more=0.8)
    for axes, name in zip(panels, names, strict=True):
        for method, style in STYLES.items():
            if mine := where(data["cells"], instrument=name, kind=PRIOR, method=method):
                levels, errors = ([row[key] for row in mine] for key in ("level", "relative_error"))
                axes.loglog(levels, errors, style, markersize=4, linewidth=1.2, label=method)
        axes.set(title=name, xlabel="noise", ylabel="median relative error")
        axes.grid(alpha=0.3)
    legend_below(figure, panels, columns=3)
    return figure
