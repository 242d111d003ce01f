"""What the command `solve` does with a model that estimates from noisy systems."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from algebraformer.cli.output import DONE, FALLBACK, collected_warnings, emit, paths, show, show_paths, show_rows
from algebraformer.errors import ConfigurationError

if TYPE_CHECKING:
    from algebraformer.estimation import Estimate
    from algebraformer.solver import LearnedSolver


def refuse_tolerances(command: Any) -> None:
    """Raise `ConfigurationError` if a command has options that say nothing to a model that estimates."""
    for field in dataclasses.fields(command):
        if field.name in ("rtol", "max_refinements", "fallback") and getattr(command, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise ConfigurationError(f"{option} is for models that solve; {command.model} estimates from noisy systems")


def estimate(command: Any, solver: LearnedSolver, A: Any, b: Any) -> int:
    """Estimate, show and write as the command `solve` says; 0 if all are consistent and in distribution, else 3."""
    refuse_tolerances(command)
    if command.figure is not None and np.ndim(b) != 1:
        raise ConfigurationError(f"a figure shows one system, received b of shape {np.shape(b)}")
    with collected_warnings() as warned:
        found = solver.estimate(A, b)
    if command.output is not None:
        from algebraformer import io

        io.write_array(command.output, found.x)
    if command.figure is not None:
        _draw(command, found)
    about = {"model": command.model, "n": solver.n, "m": solver.model.config.n_equations}
    about |= {"warnings": warned} | paths(command, "output", "figure")
    if command.json:
        emit(found.record() | about)
    else:
        _show(command, found, f"{command.A}, n = {solver.n}, model {command.model}")
    return DONE if np.all(found.consistent) and np.all(found.in_distribution) else FALLBACK


def _draw(command: Any, found: Estimate) -> None:
    from algebraformer.plotting import estimate_figure, save

    level = f"noise level {found.noise:.2g}, {'consistent' if found.consistent else 'not consistent'}"
    save(estimate_figure(found, f"{command.model}: {level}"), command.figure)


def _show(command: Any, found: Estimate, title: str) -> None:
    """Print the entries of one system, or a line for each system of several."""
    names = ("noise", "misfit", "consistent", "in_distribution")
    if found.x.ndim == 1:
        low, high = found.interval
        columns = [found.x, found.std, low, high] + ([] if found.tikhonov is None else [found.tikhonov])
        entries = [[i + 1, *row] for i, row in enumerate(np.stack(columns, axis=1).tolist())]
        heads = ("entry", "x", "std", "5 %", "95 %", "Tikhonov")
        show(title, heads[: len(columns) + 1], entries)
        title = ""
    show_rows(title, "system", names, {name: np.ravel(getattr(found, name)).tolist() for name in names})
    show_paths(command)
