"""The command newton, from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algebraformer import problems
from study_results import assert_coloured


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    family = problems.get("lp-regression", n=32, kind="filter", target="start", p=(8.0,))
    problem = family.regression(family.parameters(range(2), seed=0))
    np.save(tmp_path / "A.npy", problem.A[0])
    np.save(tmp_path / "b.npy", problem.b[0])
    np.savez(tmp_path / "both.npz", A=problem.A, b=problem.b)
    return tmp_path


def test_one_problem(answer: Any, folder: Path) -> None:
    A, b = folder / "A.npy", folder / "b.npy"
    code, found = answer("newton", A, b, "-p", "4", "--output", folder / "x.npy")
    assert (code, found["success"]) == (0, True)
    assert (found["p"], found["m"], found["n"], found["model"], found["figure"]) == (4, 128, 32, None, None)
    assert found["n_exact"] == found["nit"]
    x = np.load(folder / "x.npy")
    assert np.sum(np.abs(np.load(A) @ x - np.load(b)) ** 4) == pytest.approx(found["fun"])


def test_a_learned_start_and_its_figure(answer: Any, folder: Path) -> None:
    png = folder / "convergence.png"
    code, found = answer("newton", folder / "A.npy", folder / "b.npy", "--model", "lp-filter-32", "--figure", png)
    assert (code, found["figure"]) == (0, str(png))
    assert found["nit"] == found["n_learned"] + found["n_exact"]
    assert_coloured(png)


def test_a_figure_of_nothing_to_do(answer: Any, folder: Path) -> None:
    """b in the range of A."""
    A = np.load(folder / "A.npy")
    np.savez(folder / "fits.npz", A=A, b=A[:, 0])
    code, found = answer("newton", folder / "fits.npz", "--figure", folder / "figure.png")
    assert (code, found["status"]) == (0, 3)
    assert (folder / "figure.png").exists()


def test_a_batch_as_a_table(run: Any, folder: Path) -> None:
    code, shown, err = run("newton", folder / "both.npz", "--maxiter", 1, "--output", folder / "x.npy")
    assert (code, err) == (1, "")
    for words in ("The largest number of iterations was reached", "n_exact", "x written to"):
        assert words in shown


def test_a_model_for_newton_alone_does_not_solve(refused: Any, folder: Path) -> None:
    np.savez(folder / "square.npz", A=np.eye(32), b=np.ones(32))
    line = refused("solve", folder / "square.npz", "--model", "lp-filter-32")
    assert "the model lp-filter-32 learned lp-regression, where x does not solve A x = b" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "1"], "p must be a number from 2 to 16, received 1"),
        (["-p", "nan"], "p contains NaN or infinity"),
        (["--figure", "x.png"], "--figure is for one problem, received A of shape (2, 128, 32)"),
        (["--model", "diffusion-64"], "the network must be trained on lp-regression, received one for diffusion"),
        (["--model", "missing"], "unknown model"),
        (["--figure", "x.pdf"], "--figure writes PNG: expected a name that ends in .png, received 'x.pdf'"),
    ],
)
def test_bad_input(refused: Any, folder: Path, arguments: list[str], message: str) -> None:
    assert message in refused("newton", folder / "both.npz", *arguments)
