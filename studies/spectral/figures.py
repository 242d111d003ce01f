"""Figure of the study `spectral`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.harness.study import distinct, where


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the mse of every network and family, of fixed training sets, and of the paper's recipe per operation."""
    figure = Figure(figsize=(16, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    families = distinct(data["runs"], "family")
    networks = list(data["times"])
    for number, network in enumerate(networks):
        for place, family in enumerate(families):
            runs = [r for r in where(data["runs"], family=family, network=network) if r["mse"] is not None]
            at = place + 0.8 * (number + 0.5) / len(networks) - 0.4
            left.semilogy(
                [at] * len(runs), [r["mse"] for r in runs], f"C{number}o", label=network if not place else None
            )
    for place, family in enumerate(families):
        linear = next(r for r in where(data["classical"], family=family) if r["method"].startswith("linear"))
        left.hlines(
            linear["mse"], place - 0.4, place + 0.4, "k", "dotted", label=None if place else "linear estimator b → x"
        )
    left.set_xticks(range(len(families)), families)
    left.set(ylabel="mse on the frozen test set", title="equal operations, a point per seed")
    for number, network in enumerate(networks):
        points = sorted((r["count"], r["mse"]) for r in where(data["small"], network=network) if r["mse"] is not None)
        if points:
            middle.loglog(*np.array(points).T, f"C{number}o-", label=network)
            fresh = where(data["runs"], family=families[0], network=network)[0]
            if fresh["mse"] is not None:
                middle.axhline(fresh["mse"], color=f"C{number}", linestyle=":")
    middle.set(xlabel="systems in the training set (dotted: fresh ones)", title=f"fixed training sets, {families[0]}")
    for number, network in enumerate(networks):
        runs = where(data["runs"], family=families[0], network=network)
        runs = [r for r in runs if r["normalized_mse"] is not None]
        right.loglog([r["flops"] for r in runs], [r["normalized_mse"] for r in runs], f"C{number}o")
    paper = [(r["flops"], r["normalized_mse"]) for r in data["paper"] if r["normalized_mse"] is not None]
    if paper:
        right.loglog(*np.array(paper).T, "k^-", label="the paper's recipe, shortened")
    right.set(xlabel="operations of training", ylabel="normalized_mse", title=families[0])
    right.legend(fontsize="small")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return figure
