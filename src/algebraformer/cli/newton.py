"""The command `newton`: linear regression in the l_p norm from files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from algebraformer.cli.files import FormatName, read_system
from algebraformer.cli.output import (
    DONE,
    NOT_SOLVED,
    all_true,
    check_figure,
    check_output,
    emit,
    paths,
    show_paths,
    show_rows,
)
from algebraformer.result import plain


@dataclasses.dataclass(frozen=True)
class Newton:
    """Minimise ||A x - b||_p from files by Newton's method, with a learned step if a model is given.

    Files: .npy, .npz, .mtx, .mtx.gz, .mat. Without the second file, the first one (.npz or .mat) holds A and b.
    FILE:NAME names a variable, - is standard input. A has at least as many rows as columns, and full column rank.
    Exit codes: 0 converged, 1 not converged, 2 bad input.
    """

    A: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")]
    """File with the matrix (m, n), or a batch (B, m, n)."""
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")] = None
    """File with the right-hand side (m,) or (B, m)."""
    format: FormatName | None = None
    """Format of standard input."""
    p: Annotated[float, tyro.conf.arg(aliases=["-p"])] = 8.0
    """Exponent of the norm, from 2 to 16."""
    model: str | None = None
    """Name of a shipped model for such regressions, or folder of a checkpoint or of a training run. If not given:
    Newton's method with exact line search."""
    tol: float = 1e-8
    """Tolerance on the relative gradient norm."""
    maxiter: int = 200
    """Maximum number of iterations."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File that x is written to; its extension determines the format."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """File for a PNG: gradient norm and objective against the iteration, learned steps marked, compared with Newton's
    method without the model. One problem, not a batch."""
    max_bytes: int = 2**31
    """Size limit of an array, and of standard input, in bytes."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        check_output(self.output)
        from algebraformer import io

        check_figure(self.figure)
        A, b = read_system(self)
        if self.figure is not None and A.ndim != 2:
            raise ValueError(f"--figure is for one problem, received A of shape {A.shape}")
        from algebraformer.newton import minimize_lp
        from algebraformer.solver import LearnedSolver

        solver = None if self.model is None else LearnedSolver.from_pretrained(self.model)
        result = minimize_lp(A, b, self.p, solver=solver, tol=self.tol, maxiter=self.maxiter)
        if self.output is not None:
            io.write_array(self.output, result.x)
        if self.figure is not None:
            from algebraformer.plotting import convergence_figure, save

            traces = {"Newton" if solver is None else f"Newton with {self.model}": result.trace}
            if solver is not None:
                traces["Newton"] = minimize_lp(A, b, self.p, tol=self.tol, maxiter=self.maxiter).trace
            save(
                convergence_figure(traces, self.p, f"{Path(self.A).name}: {A.shape[0]} x {A.shape[1]}, p = {self.p:g}"),
                self.figure,
            )
        names = ("success", "status", "message", "nit", "n_learned", "n_exact", "fun", "gradient_norm", "dual_gap")
        record: dict[str, Any] = {name: plain(result[name]) for name in names}
        record |= {"p": self.p, "m": int(A.shape[-2]), "n": int(A.shape[-1]), "model": self.model}
        record |= paths(self, "output", "figure")
        if self.json:
            emit(record)
        else:
            self._show(record, [name for name in names if name not in ("success", "message")])
        return DONE if all_true(record["success"]) else NOT_SOLVED

    def _show(self, record: dict[str, Any], names: list[str]) -> None:
        title = f"{self.A}, {record['m']} x {record['n']}, p = {self.p:g}, model {self.model}"
        show_rows(title, "problem", names, record)
        messages = record["message"] if isinstance(record["message"], list) else [record["message"]]
        print("\n".join(sorted(set(messages))))
        show_paths(self)
