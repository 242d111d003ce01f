"""The figure of the study `operator`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

WAYS = {"plain": ":", "accelerated": "-"}
FLOOR = 1e-17
"""Errors of exactly 0 are drawn here."""


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw, for every family, accuracy against time of all methods, and refinement of the better network to its end."""
    records = data["records"]
    figure = Figure(figsize=(11, 3.6 * len(records)), layout="constrained")
    panels = figure.subplots(len(records), 2, squeeze=False)
    for record, (left, right) in zip(records, panels, strict=True):
        batch = max(record["methods"]["LAPACK"]["seconds"], key=int)
        for number, (name, method) in enumerate(record["methods"].items()):
            time, rho = 1e6 * method["seconds"][batch], method.get("contraction_median")
            if rho is None:
                left.axvline(time, color=f"C{number}", linestyle="--", linewidth=1, label=name)
            else:
                left.loglog(time, rho, f"C{number}o", label=name)
        left.set(
            title=f"{record['family']}, n = {record['n']}",
            xlabel=f"µs per certified solve, {batch} systems per call",
            ylabel="contraction ρ(I − M A), median",
            xscale="log",
            yscale="log",
        )
        curve = record["curve"]
        for number, (key, label) in enumerate({"relative_error": "relative error", "backward_error": "ω"}.items()):
            for way, style in WAYS.items():
                values = [FLOOR if value == 0 else value for value in curve[way][key] if value is not None]
                right.semilogy(range(len(values)), values, f"C{number}{style}", marker=".", label=f"{label}, {way}")
            if curve["LAPACK"][key] is not None:
                right.axhline(
                    curve["LAPACK"][key], color=f"C{number}", linestyle="--", linewidth=1, label=f"{label}, LAPACK"
                )
        right.set(title=f"{curve['method']}, run to the end", xlabel="refinements", ylabel="median")
        for axes in (left, right):
            axes.grid(alpha=0.3)
            axes.legend(fontsize="x-small")
    return figure
