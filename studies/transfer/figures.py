"""The figure of the study `transfer`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.harness.study import distinct, where

STYLES = {"from scratch": "C1", "fine-tuned": "C0"}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw normalized_mse against epochs for every head and family; every point is the end of a run."""
    runs = [r for r in data["records"] if not r["trial"] and r["normalized_mse"] is not None]
    heads = distinct(data["records"], "head")
    families = distinct(data["records"], "family")
    figure = Figure(figsize=(5.8 * len(families), 3.8 * len(heads)), layout="constrained")
    panels = figure.subplots(len(heads), len(families), squeeze=False)
    for head, line in zip(heads, panels, strict=True):
        for family, axes in zip(families, line, strict=True):
            for kind, colour in STYLES.items():
                own = where(runs, head=head, family=family, kind=kind)
                lengths = sorted(distinct(own, "epochs"))
                middle = [float(np.median([r["normalized_mse"] for r in where(own, epochs=e)])) for e in lengths]
                axes.loglog([r["epochs"] for r in own], [r["normalized_mse"] for r in own], f"{colour}.", alpha=0.4)
                label = f"{kind}: {own[0]['variant']}" if own else kind
                axes.loglog(lengths, middle, f"{colour}o-", markersize=5, label=label)
            for c in data["comparisons"]:
                if (c["head"], c["family"], c["error"] is None) == (head, family, False):
                    axes.axhline(c["error"], color="C1", linestyle=":", linewidth=1)
                    axes.set(title=f"{head}, n = {c['n']}: {c['samples']:,} systems of {family}")
            axes.set(xlabel="epochs", ylabel="normalized_mse on the frozen test set")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    figure.suptitle("Every point is the end of a run; lines: medians of the seeds; dotted: final errors from scratch")
    return figure
