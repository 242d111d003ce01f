"""The command `solve`: a certified solution, or an estimate by a model for noisy systems."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from algebraformer.cli.files import FormatName, read_system
from algebraformer.cli.output import (
    DONE,
    FALLBACK,
    NOT_SOLVED,
    all_true,
    check_figure,
    check_output,
    collected_warnings,
    emit,
    paths,
    show,
    show_paths,
    show_rows,
)
from algebraformer.errors import ConfigurationError, SingularSystemError

if TYPE_CHECKING:
    from algebraformer.estimation import Estimate
    from algebraformer.solver import LearnedSolver


@dataclasses.dataclass(frozen=True)
class Solve:
    """Solve A x = b from files and report how accurate the solution is.

    Files: .npy, .npz, .mtx, .mtx.gz, .mat. Without the second file, the first one (.npz or .mat) holds A and b.
    FILE:NAME names a variable, - is standard input. A batch has A of shape (B, n, n). Exit codes: 0 certified, 3
    solved by LAPACK, 1 not solved, 2 bad input. An estimator for noisy systems returns a mean with a standard deviation
    instead; exit codes: 0 consistent with the noise level and in distribution, 3 not, 2 bad input. With --workers,
    batches larger than memory (.npy, .npz), or a folder of files with A and b (.npz, .mat), are solved on several
    processes; after an interruption the same command resumes.
    """

    A: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")]
    """File with the matrix, or with --workers a folder of files with A and b."""
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")] = None
    """File with the right-hand side."""
    format: FormatName | None = None
    """Format of standard input."""
    model: str = "diffusion-64"
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    rtol: float | None = None
    """Tolerance on the relative residual, if less than a backward stable solution is needed."""
    max_refinements: int = 10
    """Maximum number of refinements of the network's solution."""
    fallback: bool = True
    """Solve by LAPACK what the network cannot solve."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """File that x is written to; its extension determines the format. With --workers a folder for the results."""
    workers: int | None = None
    """Number of processes, of one thread each, that solve very many systems."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a PNG of x with its 90 % band; estimators for noisy systems only."""
    max_bytes: int = 2**31
    """Size limit of an array, and of standard input, in bytes."""
    json: bool = False
    """Print one JSON object instead of a table, and no progress bar."""

    def run(self) -> int:
        if self.workers is not None:
            from algebraformer.cli.bulk import solve_on_workers

            return solve_on_workers(self)
        check_output(self.output)
        from algebraformer import io

        check_figure(self.figure)
        A, b = read_system(self)
        from algebraformer.solver import LearnedSolver  # slow to import: not before the files are read

        solver = LearnedSolver.from_pretrained(self.model)
        if solver.network.config.head.estimates:
            return estimate(self, solver, A, b)
        if self.figure is not None:
            raise ConfigurationError(
                f"--figure needs an estimator for noisy systems; model {self.model} solves A x = b"
            )
        with collected_warnings() as warned:
            try:
                result = solver.solve(A, b, self.rtol, self.max_refinements, self.fallback)
            except SingularSystemError as error:
                result = error.result
                print(f"algebraformer: {error}", file=sys.stderr)
        if self.output is not None:
            io.write_array(self.output, result.x)
        record = result.record() | {
            "n": int(A.shape[-1]),
            "model": self.model,
            "warnings": warned,
            **paths(self, "output"),
        }
        if self.json:
            emit(record)
        else:
            names = ("method", "refinements", "relative_residual", "backward_error", "certified", "status")
            show_rows(f"{self.A}, n = {record['n']}, model {self.model}", "system", names, record)
            print(result.explain())
            show_paths(self)
        if not all_true(record["certified"]):
            return NOT_SOLVED
        return FALLBACK if "lapack" in record["method"] else DONE


def refuse_tolerances(command: Any, what: str = "an estimator for noisy systems") -> None:
    """Raise `ConfigurationError` if a command has options that do not apply to a model, which is `what`."""
    for field in dataclasses.fields(command):
        if field.name in ("rtol", "max_refinements", "fallback") and getattr(command, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise ConfigurationError(f"--{option} does not apply to model {command.model}, {what}")


def estimate(command: Any, solver: LearnedSolver, A: Any, b: Any) -> int:
    """Run `solve` with an estimator; return 0 if all estimates are consistent and in distribution, else 3."""
    refuse_tolerances(command)
    if command.figure is not None and np.ndim(b) != 1:
        raise ConfigurationError(f"--figure shows one system, received b of shape {np.shape(b)}")
    with collected_warnings() as warned:
        estimates = solver.estimate(A, b)
    if command.output is not None:
        from algebraformer import io

        io.write_array(command.output, estimates.x)
    if command.figure is not None:
        _draw(command, estimates)
    about = {"model": command.model, "n": solver.n, "m": solver.network.config.n_equations}
    about |= {"warnings": warned} | paths(command, "output", "figure")
    if command.json:
        emit(estimates.record() | about)
    else:
        _show(command, estimates, f"{command.A}, n = {solver.n}, model {command.model}")
    return DONE if np.all(estimates.consistent) and np.all(estimates.in_distribution) else FALLBACK


def _draw(command: Any, result: Estimate) -> None:
    from algebraformer.plotting import estimate_figure, save

    level = f"noise level {result.noise:.2g}, {'consistent' if result.consistent else 'not consistent'}"
    save(estimate_figure(result, f"{command.model}: {level}"), command.figure)


def _show(command: Any, result: Estimate, title: str) -> None:
    """Print the entries of one system, or a line for each system of several."""
    names = ("noise", "misfit", "consistent", "in_distribution")
    if result.x.ndim == 1:
        low, high = result.interval
        columns = [result.x, result.std, low, high] + ([] if result.tikhonov is None else [result.tikhonov])
        entries = [[i + 1, *row] for i, row in enumerate(np.stack(columns, axis=1).tolist())]
        headings = ("entry", "x", "std", "5 %", "95 %", "Tikhonov")
        show(title, headings[: len(columns) + 1], entries)
        title = ""
    show_rows(title, "system", names, {name: np.ravel(getattr(result, name)).tolist() for name in names})
    show_paths(command)
