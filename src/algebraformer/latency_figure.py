"""The figure of the study `latency`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

BARS = (("cold", "first", "first, not warmed up"), ("warm", "first", "first"), ("warm", "later", "later"))
SHOWN = 0.02
"""Phases below this share of the whole command have no name in the figure."""


def latency_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the phases of the command solve as stacked bars, and the first and later calls of predict."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    solves = data["solves"]
    places, base = np.arange(len(solves)), np.zeros(len(solves))
    colours = colormaps["tab20"](range(20))
    for number, phase in enumerate(solves[0]["phases"]):
        seconds = np.array([solve["phases"][phase] for solve in solves])
        large = (seconds > SHOWN * np.array([solve["sum"] for solve in solves])).any()
        left.bar(places, seconds, 0.6, bottom=base, color=colours[number], label=phase if large else None)
        base += seconds
    left.plot(places, [solve["the command itself"] for solve in solves], "kD", label="the command itself")
    left.axhline(data["target"], color="k", linestyle="--", linewidth=1, label="target")
    left.set_xticks(places, [solve["model"] for solve in solves])
    left.set(title="the command solve, from the start of its process", ylabel="seconds", xlim=(-0.6, len(solves) - 0.4))
    left.grid(alpha=0.3, axis="y")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize="small")
    calls = data["calls"]
    places = np.arange(len(calls))
    for number, (way, key, label) in enumerate(BARS):
        right.barh(
            places + 0.27 * (number - 1), [1e3 * c[way][key] for c in calls], 0.25, label=label, color=f"C{number}"
        )
    right.set_yticks(places, [f"{c['model']}\nbatch {c['batch']}" for c in calls], fontsize="small")
    right.invert_yaxis()
    right.set(title="calls of predict in a fresh process", xlabel="ms", xscale="log")
    right.grid(alpha=0.3, axis="x")
    right.legend(fontsize="small")
    figure.suptitle(f"From nothing to the first answer, threads of torch: {data['threads']}")
    return figure
