"""The command newton, from files to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from algebraformer import cli, problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    family = problems.get("lp-regression", n=32, kind="filter", target="start", p=(8.0,))
    problem = family.regression(family.parameters(range(2), seed=0))
    np.save(tmp_path / "A.npy", problem.A[0])
    np.save(tmp_path / "b.npy", problem.b[0])
    np.savez(tmp_path / "both.npz", A=problem.A, b=problem.b)
    return tmp_path


def test_one_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    A, b = str(folder / "A.npy"), str(folder / "b.npy")
    assert cli.main(["newton", A, b, "-p", "4", "--output", str(folder / "x.npy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["success"] is True
    assert (found["p"], found["m"], found["n"], found["model"], found["figure"]) == (4, 128, 32, None, None)
    assert found["n_exact"] == found["nit"]
    x = np.load(folder / "x.npy")
    assert np.sum(np.abs(np.load(A) @ x - np.load(b)) ** 4) == pytest.approx(found["fun"])


def test_a_learned_start_and_its_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = folder / "convergence.png"
    files = [str(folder / "A.npy"), str(folder / "b.npy")]
    assert cli.main(["newton", *files, "--model", "lp-filter-32", "--figure", str(png), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nit"] == found["n_learned"] + found["n_exact"]
    assert png.stat().st_size > 10_000


def test_a_figure_of_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """b in the range of A."""
    A = np.load(folder / "A.npy")
    np.savez(folder / "fits.npz", A=A, b=A[:, 0])
    assert cli.main(["newton", str(folder / "fits.npz"), "--figure", str(folder / "figure.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == 3
    assert (folder / "figure.png").exists()


def test_a_batch_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["newton", str(folder / "both.npz"), "--maxiter", "1"]) == 1
    shown = capsys.readouterr().out
    assert "The largest number of iterations was reached" in shown
    assert "n_exact" in shown


def test_a_model_for_newton_alone_does_not_solve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "square.npz", A=np.eye(32), b=np.ones(32))
    assert cli.main(["solve", str(folder / "square.npz"), "--model", "lp-filter-32"]) == 2
    assert "the model lp-filter-32 learned lp-regression, where x does not solve A x = b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "1"], "p must be a number from 2 to 16, received 1"),
        (["-p", "nan"], "p must be a number from 2 to 16, received nan"),
        (["--figure", "x.png"], "--figure is for one problem, received A of shape (2, 128, 32)"),
        (["--model", "diffusion-64"], "the network must be trained on lp-regression, received one for diffusion"),
        (["--model", "missing"], "unknown model"),
        (["--figure", "x.pdf"], "--figure writes PNG: expected a name that ends in .png, received 'x.pdf'"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["newton", str(folder / "both.npz"), *arguments]) == 2
    assert message in capsys.readouterr().err
