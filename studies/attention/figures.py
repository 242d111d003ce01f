"""The figure of the study `attention`, from its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from studies.harness.study import where

LOW, HIGH = 0.1, 10.0
"""Multiples of uniform attention at the ends of the colour scale."""


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the averaged map of every head, a row of panels for each layer, and the accuracy of the variants."""
    layers = data["figure"]["maps"]
    count = max(map(len, layers))
    figure = Figure(figsize=(4.5 + 2.6 * count, 1.2 + 2.6 * len(layers)), layout="constrained")
    grid = figure.add_gridspec(len(layers), count + 1, width_ratios=(*(1.0 for _ in range(count)), 1.6))
    panels = []
    for row, heads in enumerate(layers):
        for column, head in enumerate(heads):
            axes = figure.add_subplot(grid[row, column])
            times = np.array([[float(value) for value in line.split()] for line in head])
            n = len(times)
            axes.imshow(
                np.clip(times, LOW, HIGH),
                norm=LogNorm(LOW, HIGH),
                cmap="RdBu_r",
                extent=(0.5, n + 0.5, n + 0.5, 0.5),
                interpolation="nearest",
            )
            axes.set_title(f"layer {row + 1}, head {column + 1}", fontsize="small")
            axes.tick_params(labelsize="x-small")
            panels.append(axes)
    panels[0].set(xlabel="column j looked at", ylabel="token i")
    figure.colorbar(
        panels[0].images[0], ax=panels, label="attention, times that of uniform attention", shrink=0.7, extend="both"
    )
    accuracy = figure.add_subplot(grid[:, count])
    for place, variant in enumerate(data["variants"]):
        mine = [float(one["normalized_mse"]) for one in where(data["runs"], variant=variant)]
        if np.isfinite(mine).all():
            accuracy.semilogx(mine, [place] * len(mine), f"C{place}.", alpha=0.6)
            accuracy.semilogx(np.mean(mine), place, f"C{place}o")
    accuracy.set_yticks(range(len(data["variants"])), [name.replace(", ", ",\n") for name in data["variants"]])
    accuracy.set_ylim(len(data["variants"]) - 0.5, -0.5)
    accuracy.set(xlabel="normalized_mse (small dots: seeds)")
    accuracy.grid(alpha=0.3, which="both")
    figure.suptitle(
        f"Diffusion, n = {data['n']}: averaged attention maps (seed {data['figure']['seed']}), and accuracy"
    )
    return figure
