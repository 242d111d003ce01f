"""Solve a boundary value problem from files with shipped weights; this is what `make demo` runs.

It writes -(K u')' = f with K(x) = 1 + 0.7 cos(2.6 pi x) and a source that is in no training set as two Matrix Market
files, solves the system from these files, and compares the raw prediction, the refined solution and LAPACK's with the
solution of the same system in 50 digits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import scipy.linalg

import algebraformer as af
from algebraformer import io, linalg, plotting
from algebraformer.problems.chebyshev import differentiation_matrix, points
from algebraformer.provenance import provenance
from algebraformer.reporting import TableData, print_table

MODEL, N = "diffusion-64", 64


def collocation() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return the interior points, K and f there, and the matrix."""
    x, D, interior = points(N + 2), differentiation_matrix(N + 2), slice(1, -1)
    K = 1 + 0.7 * np.cos(2.6 * np.pi * x)
    f = 2 * np.exp(-6 * (x - 0.3) ** 2) - np.sin(2 * x)
    return x[interior], {"K(x)": K[interior], "f(x)": f[interior]}, -(D[interior] * K) @ D[:, interior]


def exact_solution(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the solution (n,) of A x = b, computed in 50 digits."""
    with mpmath.workdps(50):
        x = mpmath.lu_solve(mpmath.matrix(A.tolist()), mpmath.matrix(b.tolist()))
    return np.array(x.tolist(), dtype=np.float64)[:, 0]


def timed(call: Callable[[], Any], repeats: int = 7) -> tuple[Any, float]:
    """Return what the call returns, and its median time in milliseconds after one call to warm up."""
    answer, times = call(), []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return answer, float(np.median(times))


def main(folder: Path) -> None:
    """Write the problem, solve it, and write table, figure and JSON into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    x, coefficients, matrix = collocation()
    io.write_array(folder / "A.mtx", matrix)
    io.write_array(folder / "b.mtx", coefficients["f(x)"])

    A, b = io.read_system(folder / "A.mtx", folder / "b.mtx")
    solver = af.LearnedSolver.from_pretrained(MODEL)
    reference = exact_solution(A, b)
    bare, bare_time = timed(lambda: solver.predict(A, b))
    learned, learned_time = timed(lambda: solver.solve(A, b, fallback=False))
    solved, solved_time = timed(lambda: solver.solve(A, b))
    lapack, lapack_time = timed(lambda: scipy.linalg.solve(A, b, assume_a="gen"))

    rows = []
    for label, u, milliseconds, status in (
        ("bare network", bare, bare_time, "not certified"),
        (f"refined, {learned.refinements} steps", learned.x, learned_time, learned.status.name.lower()),
        (f"solve ({solved.method})", solved.x, solved_time, solved.status.name.lower()),
        ("LAPACK (SciPy)", lapack, lapack_time, "–"),
    ):
        relative, omega, _ = linalg.measures(A, b[:, None], u[:, None])
        error = linalg.relative_error(u[:, None], reference[:, None])
        rows.append([label, float(error[0]), float(relative[0]), float(omega[0]), milliseconds, status])
    columns = ("answer", "relative error", "relative residual", "backward error", "time (ms)", "status")
    title = f"−(K u')' = f, n = {N}, condition number {linalg.condition_number(A):.1e}, model {MODEL}"
    table = TableData(columns, rows, title)
    print_table(table)
    print(f"{solved.status.name}: {solved.status.value}")

    figure = plotting.boundary_value_figure(
        x,
        coefficients,
        reference,
        {"bare network": bare, f"solve ({solved.method})": solved.x},
        {
            "bare network": b - A @ bare,
            "after refinement": b - A @ learned.x,
            f"solve ({solved.method})": b - A @ solved.x,
        },
        title,
    )
    plotting.save(figure, folder / "solution.png")
    data = {"table": table.settings(), "solve": solved.record(), "x": solved.x.tolist(), "provenance": provenance()}
    (folder / "solution.json").write_text(json.dumps(data, indent=1) + "\n")
    print(f"Files in {folder}/: A.mtx, b.mtx, solution.png, solution.json")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
