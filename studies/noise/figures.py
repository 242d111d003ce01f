"""Figure of the study `noise`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from studies.harness.study import distinct
from studies.noise.report import (
    BARE,
    BILSTM,
    CLASSICAL,
    CLEAN,
    GRU,
    LSTM,
    ORACLE,
    SHIPPED,
    TOKEN,
    errors,
    levels,
)

TITLES = {"A": "noise on A", "b": "noise on b", "both": "noise on A and b"}
RECURRENT = (LSTM, GRU, BILSTM)
HIGHEST = 10.0
"""Errors above this are drawn here."""


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the error of every method against the level of the noise, one panel for every place of it."""
    places, x = distinct(data["rows"], "place"), levels(data)
    figure = Figure(figsize=(16, 6), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    styles = {name: f"C{number}--" for number, name in enumerate(CLASSICAL)} | {ORACLE: "k:"}
    styles |= {SHIPPED: "C6-", CLEAN: "C7-", TOKEN: "C8o-", BARE: "C9-"}
    styles |= {name: f"C{number}x-" for number, name in enumerate(RECURRENT)}
    for axes, place in zip(panels, places, strict=True):
        found = errors(data, place)
        for name, style in styles.items():
            if name in found:
                axes.loglog(x, [min(value, HIGHEST) for value in found[name]], style, label=name, markersize=4)
        axes.set(title=TITLES[place], xlabel="level of the noise")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="relative error of x, median")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure
