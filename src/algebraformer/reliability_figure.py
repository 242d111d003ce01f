"""The figures of the studies `reliability` and `soak`, from their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from algebraformer.figure_parts import WHO


def reliability_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the cases of every line, failed ones in red, and who answered the systems in SciPy's tests."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    records = data["records"]
    places = np.arange(len(records))
    left.barh(places, [record["cases"] for record in records], color="C2", label="cases")
    left.barh(places, [record["failed"] for record in records], color="C3", label="failed")
    left.set_yticks(places, [record["name"] for record in records])
    left.set(xscale="log", xlim=(1, None), xlabel="number", title="what was tried")
    networks = next(record["networks"] for record in records if record["name"] == "SciPy's tests")
    places, base = np.arange(len(networks)), np.zeros(len(networks))
    for key, (colour, label) in WHO.items():
        values = np.array([row[key] for row in networks])
        right.barh(places, values, left=base, color=colour, label=label)
        base += values
    right.set_yticks(places, [row["network"] for row in networks])
    right.set(xlabel="systems", title="who answered in SciPy's tests")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
        axes.legend(fontsize="small")
    return figure


def soak_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the memory in use and the resident memory over time, and the bands they have to stay in."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    seconds = np.array(data["seconds"])
    for number, (key, label) in enumerate((("memory_mb", "resident"), ("in_use_mb", "in use"))):
        values = np.array(data[key])
        axes.plot(seconds, values, ".-", color=f"C{number}", markersize=3, label=label)
        middle = (values[seconds >= data["warm_up"]].tolist() or values[-1:].tolist())[0]
        axes.axhspan(middle - data["tolerance"], middle + data["tolerance"], color=f"C{number}", alpha=0.15)
    axes.axvline(data["warm_up"], color="k", linestyle=":", linewidth=1, label="end of the warm-up")
    axes.set(xlabel="seconds", ylabel="MB", title=f"{data['calls']} calls, {data['failed']} failures")
    axes.set(ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
