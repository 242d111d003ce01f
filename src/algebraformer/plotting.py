"""Figures, drawn without a display and saved as PNG; they need matplotlib, which the extra [plot] installs."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from algebraformer.errors import MissingExtraError
from algebraformer.linalg import FloatArray
from algebraformer.reporting import Report, write_report
from algebraformer.writing import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from algebraformer.estimation import Estimate


def require_matplotlib() -> None:
    """Raise `MissingExtraError` if matplotlib cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a figure needs matplotlib: pip install 'algebraformer[plot]'") from error


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches; `MissingExtraError` without matplotlib."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, whole or not at all; no global state of pyplot is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

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
    figure = new_figure(12, 3.8)
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


def assessment_figure(data: Mapping[str, Any]) -> Figure:
    """Draw what a network is worth for its family, from the data of `assess`.

    A panel each for the spectrum (of a head with a basis), contraction, refinements and times; for estimates of noisy
    systems see `comparison_figure`.
    """
    if "comparison" in data:
        return comparison_figure(data)
    rank = data["rank"]
    panels = 3 if rank is None else 4
    figure = new_figure(3.75 * panels, 3.8)
    *with_basis, contraction, refinements, times = figure.subplots(1, panels)
    for spectrum in with_basis:
        values = np.array(data["spectrum"])
        spectrum.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-10), ".-", markersize=3)
        spectrum.axvline(rank, color="k", linestyle="--", linewidth=1, label=f"basis: {rank} operators")
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
    lines = ("ours", "certified solve", "C0o-"), ("lapack", "LAPACK's LU", "C1s-"), ("rival", "best rival", "k^:")
    for key, label, style in lines:
        times.loglog(batches, [1e3 * entry[key] for entry in data["times"]], style, label=label)
    times.set(title="time", xlabel="systems per call", ylabel="ms per system")
    times.legend(fontsize="small")
    for axes in (*with_basis, contraction, refinements, times):
        axes.grid(alpha=0.3)
    figure.suptitle(f"{data['model']}, n = {data['n']}")
    return figure


def comparison_figure(data: Mapping[str, Any]) -> Figure:
    """Draw the errors of an estimator and of its rivals by noise level, and time against error."""
    compared = data["comparison"]
    figure = new_figure(9, 3.8)
    errors, times = figure.subplots(1, 2)
    levels = [np.sqrt(low * high) for low, high, _ in compared["levels"]]
    for number, method in enumerate(compared["methods"]):
        style = "ko-" if number == 0 else f"C{number}s--"
        errors.loglog(levels, method["by_level"], style, markersize=4, label=method["name"])
        times.loglog([1e3 * method["seconds"]], [method["relative_error_median"]], style[:-1], label=method["name"])
    errors.set(title="by noise level", xlabel="relative noise level", ylabel="median relative error")
    times.set(title="all levels", xlabel="ms per system", ylabel="median relative error")
    for axes in (errors, times):
        axes.grid(alpha=0.3)
    times.legend(fontsize="small")
    figure.suptitle(f"{data['model']}, n = {data['n']}, m = {data['m']}")
    return figure


def save_report(
    report: Report,
    folder: Path | str,
    command: str | None = None,
    draw: Callable[[Mapping[str, Any]], Figure] = assessment_figure,
) -> Path:
    """Write report.json, .md and .png into a folder; return the path of report.json.

    Without matplotlib there is no report.png, and report.md says so.

    Parameters
    ----------
    report : Report
    folder : path
    command : str, optional
        Command that made the report; that of this process if None.
    draw : callable
        Draws the figure from the data of the report: `assessment_figure` for `assess`,
        `instruments.figure.comparison_figure` for `instruments.compare`.
    """
    path = Path(folder) / "report.json"
    image, note = path.with_suffix(".png"), ""
    image.parent.mkdir(parents=True, exist_ok=True)
    image.unlink(missing_ok=True)  # that of an earlier report
    try:
        save(draw(report.data), image)
    except MissingExtraError as error:
        note = f"No figure: {error}"
    write_report(report, path, command or shlex.join(sys.argv), note)
    return path


def estimate_figure(estimate: Estimate, title: str, others: Mapping[str, FloatArray] | None = None) -> Figure:
    """Draw the mean of one system with its 90 % band.

    Parameters
    ----------
    estimate : Estimate
        Of one system.
    title : str
    others : dict of ndarray, shape (n,)
        Further curves by label, for instance the true x; Tikhonov's answer is drawn where the estimate carries it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(8, 4)
    axes = figure.subplots()
    place = np.arange(1, len(estimate.x) + 1)
    axes.fill_between(place, *estimate.interval, color="C0", alpha=0.25, linewidth=0, label="90 % intervals")
    axes.plot(place, estimate.x, "C0", label="mean")
    beside = {} if estimate.tikhonov is None else {"Tikhonov": estimate.tikhonov}
    for (label, values), style in zip((beside | dict(others or {})).items(), ("C1--", "k:", "C2-."), strict=False):
        axes.plot(place, values, style, label=label)
    axes.set(title=title, xlabel="entry of x")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def convergence_figure(traces: Mapping[str, Sequence[tuple[str, float, float]]], p: float, title: str) -> Figure:
    """Draw gradient norm and objective gap against the iteration; learned steps are marked.

    Parameters
    ----------
    traces : dict of lists
        By label: `trace` of `minimize_lp`, (kind of step, gradient norm, ||r||_p) from the start on.
    p : float
    title : str
    """
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    least = min(size for trace in traces.values() for _, _, size in trace)
    for number, (label, trace) in enumerate(traces.items()):
        steps = np.arange(len(trace))
        gaps = [-np.expm1(p * np.log(least / size)) if size > 0 and least > 0 else 0.0 for _, _, size in trace]
        for axes, raw in ((left, [error for _, error, _ in trace]), (right, gaps)):
            values = np.maximum(np.array(raw), 1e-17)
            axes.semilogy(steps, values, f"C{number}-", linewidth=1)
            for kind, marker in (("start", "s"), ("exact", "o"), ("learned", "*")):
                chosen = [i for i, one in enumerate(trace) if one[0] == kind]
                size = 12 if kind == "learned" else 5
                axes.semilogy(
                    steps[chosen], values[chosen], f"C{number}{marker}", markersize=size, label=f"{label}: {kind}"
                )
    left.set(title="relative gradient norm", xlabel="iteration")
    right.set(title="(f − best f) / f", xlabel="iteration")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize="small")
    figure.suptitle(title)
    return figure
