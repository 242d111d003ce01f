"""The figure of the study `scaling`, from its data: time against n, and against one pass over the matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.scaling.report import (
    OURS,
    Record,
    best_rival,
    cases,
    family_of,
    lapack,
    largest,
    median,
    over_best,
    passes,
    size_of,
)

MEDIANS: dict[str, tuple[str, Callable[[Record], float]]] = {
    "certified solve": ("ko-", lambda record: record["seconds"][OURS]),
    "LAPACK": ("C1s-", lapack),
    "best rival": ("C3^-", lambda record: record["seconds"][best_rival(record)]),
}
"""What the upper panels show, in the median of the families: style, and seconds of a record."""


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw times per system and in passes over A, of single systems and of the largest batches."""
    records = data["records"]
    sizes = sorted({size_of(record["n"]) for record in records})
    single, large = [record for record in records if record["batch"] == 1], largest(records)
    figure = Figure(figsize=(12, 9), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    for axes, chosen, title in ((first, single, "one system at a time"), (second, large, "largest batches")):
        draw_times(axes, chosen)
        axes.set(title=title, ylabel="µs per system, median of the families")
    draw_passes(third, large)
    third.set(title="largest batches", ylabel="time in passes over A")
    draw_speedups(fourth, records)
    fourth.set(title="medians of the families", ylabel="best rival / certified solve")
    for axes in (first, second, third, fourth):
        axes.set(xlabel="n", xticks=sizes, xticklabels=sizes)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small" if axes is third else "small")
    return figure


def draw_times(axes: Axes, records: Sequence[Record]) -> None:
    """Draw the medians of the families, and one pass over A."""
    sizes = sorted({size_of(record["n"]) for record in records})
    lines = dict(MEDIANS)
    if all("pass" in record for record in records):
        lines["one pass over A"] = ("C2:", lambda record: record["pass"])
    for label, (style, seconds) in lines.items():
        values = [1e6 * median([seconds(r) for r in records if size_of(r["n"]) == size]) for size in sizes]
        axes.loglog(sizes, values, style, markersize=4, label=label)


def draw_passes(axes: Axes, records: Sequence[Record]) -> None:
    """Draw, for every family, how many passes over A a certified solve takes, and the best rival."""
    for number, family in enumerate(dict.fromkeys(map(family_of, records))):
        mine = [record for record in records if family_of(record) == family and "pass" in record]
        for style, name in (("o-", "certified solve"), ("^:", "best rival")):
            values = [passes(record, MEDIANS[name][1](record)) for record in mine]
            axes.loglog([r["n"] for r in mine], values, f"C{number}{style}", markersize=4, label=f"{family}, {name}")


def draw_speedups(axes: Axes, records: Sequence[Record]) -> None:
    """Draw the median speed-up over the best rival, by batch."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for size, batch, chosen in cases(records):
        value = median(map(over_best, chosen))
        lines.setdefault(f"batch {batch}" if batch != "large" else "largest batches", []).append((size, value))
    for label, points in lines.items():
        axes.loglog(*zip(*points, strict=True), "o-", markersize=4, label=label)
    axes.axhline(1, color="k", linewidth=1, linestyle="--")
