"""What the tests of all studies ask of a result: plain data, whole tables, a figure that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from algebraformer import plotting
from algebraformer.reporting import Report
from studies.harness.study import load_study


def drawn(axes: Axes) -> int:
    """Return how many things axes show: lines with points, bars, areas, images, words; not lines across them."""
    lines = [line for line in axes.lines if line.get_transform() == axes.transData]
    points = [np.column_stack(line.get_data()).astype(float) for line in lines]
    areas = [area for area in axes.collections if len(area.get_paths()) and area.get_visible()]
    bars = [patch for patch in axes.patches if patch.get_path().vertices.size]
    words = [text for text in axes.texts if text.get_text()]
    finite = [p for p in points if np.isfinite(p).all(axis=1).any()]
    return sum(map(len, (finite, areas, bars, axes.images, words)))


def assert_drawn(figure: Figure) -> None:
    """Check that a figure has axes, and that none of them is empty, but for frames around a legend alone."""
    shown = [axes for axes in figure.axes if axes.axison or not axes.get_legend()]
    assert shown
    assert [axes.get_title() for axes in shown if not drawn(axes)] == []


def assert_coloured(path: Path) -> None:
    """Check that a picture is more than axes, which are black on white: that it has coloured points."""
    pixels = matplotlib.image.imread(path)[..., :3]
    assert np.count_nonzero(np.ptp(pixels, axis=2) > 0.2) > 200


def assert_tables_and_figure(name: str, result: Report, folder: Path) -> None:
    """Check that the data are JSON, every row of a table is as wide as its head, and nothing of the figure is empty."""
    json.dumps(result.data, allow_nan=False)
    assert result.tables
    for table in result.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    figure = load_study(name).figure(result.data)
    assert_drawn(figure)
    plotting.save(figure, folder / f"{name}.png")
    assert_coloured(folder / f"{name}.png")
