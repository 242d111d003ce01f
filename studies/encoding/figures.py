"""The figure of the study `encoding`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.harness.study import distinct, where

STYLES = {
    ("column", "default"): "C0o-",
    ("column", "math"): "C0s--",
    ("entry", "default"): "C1o-",
    ("entry", "math"): "C1s--",
}
ATTENTION = {"default": "scores not stored", "math": "scores stored"}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of every encoding, and memory and time of a pass against n."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    accuracy, memory, time = figure.subplots(1, 3)
    _accuracy(accuracy, data)
    for axes, what, factor, label in (
        (memory, "peak_bytes", 1e-6, f"peak memory, MB for {data['batch_size']} systems"),
        (time, "seconds", 1e3, "ms per system"),
    ):
        for (encoding, kernel), style in STYLES.items():
            mine = where(data["records"], encoding=encoding, kernel=kernel)
            power = next(
                fit["exponent"]
                for fit in data["fits"]
                if (fit["encoding"], fit["kernel"], fit["what"]) == (encoding, kernel, what)
            )
            axes.loglog(
                [one["n"] for one in mine],
                [factor * one[what] for one in mine],
                style,
                markersize=4,
                label=f"{encoding} tokens, {ATTENTION[kernel]}: n^{power:.1f}",
            )
        sizes = sorted({one["n"] for one in data["records"]})
        axes.set(xlabel="n", ylabel=label, xticks=sizes, xticklabels=sizes)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(
        f"Encodings: accuracy at n = {data['n']}; one forward and backward pass (exponents: three largest n)"
    )
    return figure


def _accuracy(axes: Axes, data: Mapping[str, Any]) -> None:
    """Draw every seed of every encoding, at equal compute and at an equal number of systems."""
    for number, series in enumerate(distinct(data["runs"], "series")):
        for place, encoding in enumerate(data["labels"]):
            mine = [
                float(one["normalized_mse"])
                for one in data["runs"]
                if one["chosen"] and (one["series"], one["encoding"]) == (series, encoding)
            ]
            if mine and np.isfinite(mine).all():
                x = place + 0.2 * (number - 0.5)
                axes.semilogy([x] * len(mine), mine, f"C{number + 2}.", alpha=0.6)
                axes.semilogy(x, np.mean(mine), f"C{number + 2}o", label=series if place == 0 else None)
    axes.set_xticks(range(len(data["labels"])), list(data["labels"]))
    axes.set(xlabel="tokens", ylabel="normalized_mse on the frozen test set (dots: seeds)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
