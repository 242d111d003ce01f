"""Figures of the studies `efficiency` and `outside`, from their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.harness.study import distinct, where


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw normalized_mse against the operations and against the seconds of training; every point is a whole run."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for number, method in enumerate(distinct(data["runs"], "method")):
        runs = [run for run in where(data["runs"], method=method) if run["normalized_mse"] is not None]
        for axes, key in ((left, "flops"), (right, "seconds")):
            curve = []
            for steps in sorted({run["steps"] for run in runs}):
                chosen = where(runs, steps=steps)
                curve.append([float(np.median([run[k] for run in chosen])) for k in (key, "normalized_mse")])
            axes.loglog(
                [run[key] for run in runs],
                [run["normalized_mse"] for run in runs],
                f"C{number}.",
                alpha=0.4,
                markersize=5,
            )
            axes.loglog(*np.array(curve).reshape(-1, 2).T, f"C{number}o-", markersize=6, label=method)
    shipped = data["shipped"]
    if shipped and shipped["normalized_mse"] is not None:
        left.loglog(
            shipped["flops"], shipped["normalized_mse"], "C2*", markersize=13, label=f"shipped {shipped['model']}"
        )
    for axes, what in (
        (left, "floating-point operations, offline work included"),
        (right, "seconds of training, likewise"),
    ):
        for target in data["targets"]:
            axes.axhline(target, color="k", linestyle=":", linewidth=0.8)
        axes.set(xlabel=what)
        axes.grid(alpha=0.3)
    left.set(ylabel="normalized_mse on the frozen test set")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small")
    figure.suptitle(f"Diffusion, n = {data['n']}: every point is the end of a run (line: median of the seeds)")
    return figure
