"""Figures, drawn without a display and saved as PNG."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from algebraformer.attention_figure import attention_figure
from algebraformer.certificate_figure import certificate_figure
from algebraformer.condition_figure import condition_figure, noise_figure
from algebraformer.encoding_figure import encoding_figure
from algebraformer.kantorovich_figure import kantorovich_figure
from algebraformer.latency_figure import latency_figure
from algebraformer.newton_figure import newton_figure
from algebraformer.noisy_figure import heldout_figure, noisy_figure
from algebraformer.operator_figure import operator_figure
from algebraformer.reliability_figure import reliability_figure, soak_figure
from algebraformer.report import study_page
from algebraformer.spectral_figure import spectral_figure
from algebraformer.studies.base import StudyResult, write_results
from algebraformer.study_figures import efficiency_figure, outside_figure
from algebraformer.transfer_figure import transfer_figure
from algebraformer.writing import write_bytes

FloatArray = NDArray[np.float64]


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, whole or not at all; no global state of pyplot is touched."""
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_png(image)
    write_bytes(path, image.getvalue())


def boundary_value_figure(
    x: FloatArray,
    coefficients: Mapping[str, FloatArray],
    reference: FloatArray,
    solutions: Mapping[str, FloatArray],
    residuals: Mapping[str, FloatArray],
    title: str,
) -> Figure:
    """Draw a boundary value problem and its solution in three panels.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Interior collocation points.
    coefficients : dict of ndarray, shape (n,)
        What the equation is made of, for instance K and f.
    reference : ndarray, shape (n,)
        The true u.
    solutions, residuals : dict of ndarray, shape (n,)
        Computed u, and |b - A x| of computed solutions, by label.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for label, values in coefficients.items():
        left.plot(x, values, label=label)
    left.set(title="coefficients", xlabel="x")
    middle.plot(x, reference, "k", linewidth=3, alpha=0.35, label="true u")
    for (label, values), style in zip(solutions.items(), ("C1--", "C0:", "C2-."), strict=False):
        middle.plot(x, values, style, label=label)
    middle.set(title="solution", xlabel="x")
    for label, values in residuals.items():
        right.semilogy(x, np.maximum(np.abs(values), 1e-18), ".-", label=label)
    right.set(title="|b − A x|", xlabel="x")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(title)
    return figure


def scaling_figure(data: Mapping[str, Any]) -> Figure:
    """Draw time per system against n, one panel for single systems and one for the largest batches."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for axes, choose, title in zip(
        figure.subplots(1, 2, sharey=True), (min, max), ("one system at a time", "largest batches"), strict=True
    ):
        sizes = sorted({record["n"] for record in data["records"]})
        chosen = [choose((r for r in data["records"] if r["n"] == n), key=lambda r: r["batch"]) for n in sizes]
        for name in chosen[0]["seconds"]:
            exponent = data["exponents"][name]
            label = name if choose is min or exponent is None else f"{name}: n^{exponent:.1f}"
            style = {"color": "k", "linewidth": 2.5} if name == "operator head" else {"linewidth": 1}
            axes.loglog(sizes, [1e6 * r["seconds"][name] for r in chosen], "o-", markersize=4, label=label, **style)
        axes.set(title=title, xlabel="n", ylabel="µs per system", xticks=sizes, xticklabels=sizes)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


STUDIES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "operator": operator_figure,
    "scaling": scaling_figure,
    "efficiency": efficiency_figure,
    "outside": outside_figure,
    "latency": latency_figure,
    "spectral": spectral_figure,
    "encoding": encoding_figure,
    "attention": attention_figure,
    "transfer": transfer_figure,
    "certificate": certificate_figure,
    "condition": condition_figure,
    "noise": noise_figure,
    "reliability": reliability_figure,
    "soak": soak_figure,
    "noisy": noisy_figure,
    "heldout": heldout_figure,
    "newton": newton_figure,
    "kantorovich": kantorovich_figure,
}
"""The figure of every study, drawn from its data."""


def family_figure(data: Mapping[str, Any]) -> Figure:
    """Draw what a network is worth for its family, from the data of `studies.family.measure`, in four panels."""
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    spectrum, contraction, refinements, times = figure.subplots(1, 4)
    values = np.array(data["spectrum"])
    spectrum.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-10), ".-", markersize=3)
    spectrum.axvline(data["rank"], color="k", linestyle="--", linewidth=1, label=f"basis: {data['rank']} operators")
    spectrum.set(title="singular values of the inverses", xlabel="number")
    spectrum.legend(fontsize="small")
    radii = np.sort(data["contraction"])
    contraction.semilogy(np.arange(1, len(radii) + 1) / len(radii), radii)
    contraction.axhline(1, color="k", linestyle="--", linewidth=1)
    contraction.set(title="contraction per refinement", xlabel="share of unseen systems", ylabel="ρ(I − M A)")
    counts = np.bincount(np.array(data["refinements"], dtype=int), minlength=2)
    refinements.bar(range(len(counts)), counts / data["systems"])
    without = 100 * data["certified"]
    refinements.set(title=f"{without:.4g} % certified without LAPACK", xlabel="refinements", ylabel="share of systems")
    batches = [entry["batch"] for entry in data["times"]]
    for key, label, style in (("ours", "certified solve", "C0o-"), ("numpy", "numpy.linalg.solve", "C1s-")):
        times.loglog(batches, [1e3 * entry[key] for entry in data["times"]], style, label=label)
    times.set(title="time", xlabel="systems per call", ylabel="ms per system")
    times.legend(fontsize="small")
    for axes in (spectrum, contraction, refinements, times):
        axes.grid(alpha=0.3)
    figure.suptitle(f"{data['model']}, n = {data['n']}")
    return figure


def save_report(result: StudyResult, folder: Path | str, command: str | None = None) -> Path:
    """Write report.json, .md and .png of `studies.family.measure` into a folder; return the path of report.json.

    Parameters
    ----------
    result : StudyResult
    folder : path
    command : str, optional
        Command that made the report; that of this process if None.
    """
    path = Path(folder) / "report.json"
    save_study(result, family_figure(result.data), path, command or shlex.join(sys.argv))
    return path


def save_study(result: StudyResult, figure: Figure, path: Path, command: str, **about: Any) -> None:
    """Write NAME.json, with `about` beside what was found, and NAME.md and NAME.png; path is that of NAME.json."""
    main, *others = result.tables
    more = {"verdict": list(result.verdict), "tables": [table.settings() for table in others]}
    write_results(path, command=command, table=main, **about, **more, data=result.data)
    write_bytes(path.with_suffix(".md"), study_page(path.stem, command, result.verdict, result.tables).encode())
    save(figure, path.with_suffix(".png"))
