"""The command line with a model that estimates from noisy systems."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest

from algebraformer import io, problems
from algebraformer.solver import LearnedSolver

M, N = 15, 12


@pytest.fixture(scope="module")
def files(tmp_path_factory, estimate_run):
    """Two systems that are consistent and look like the family, and one that does not."""
    folder = tmp_path_factory.mktemp("noisy")
    solver = LearnedSolver.from_pretrained(estimate_run)
    systems = problems.get("deblur", n=N, m=M, width=(0.08, 0.16), priors=("piecewise", "smooth")).sample(20, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = solver.estimate(systems.A, systems.b)
    good = np.flatnonzero(found.consistent & found.in_distribution)[:2]
    A, b = systems.A[good], systems.b[good]
    io.write_system(folder / "one.npz", A[0], b[0])
    io.write_system(folder / "two.npz", A, b)
    io.write_system(folder / "permuted.npz", A[0, ::-1], b[0])
    io.write_system(folder / "square.npz", np.eye(N), np.ones(N))
    return folder


def test_one_system_as_json(answer, files, estimate_run, tmp_path):
    options = ("--model", estimate_run, "--output", tmp_path / "x.npy", "--figure", tmp_path / "x.png")
    code, found = answer("solve", files / "one.npz", *options)
    assert code == 0
    A, b = io.read_system(files / "one.npz")
    direct = LearnedSolver.from_pretrained(estimate_run).estimate(A, b).record()
    assert {name: found[name] for name in direct} == direct
    assert set(found) - set(direct) == {"model", "n", "m", "output", "figure", "warnings"}
    assert (found["n"], found["m"], found["consistent"], found["tikhonov"]) == (N, M, True, None)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), found["x"])
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_tables_for_people(run, files, estimate_run):
    code, out, _ = run("solve", files / "one.npz", "--model", estimate_run)
    assert code == 0
    for words in ("n = 12", "entry", "std", "5 %", "95 %", "noise", "misfit", "consistent", "in_distribution"):
        assert words in out
    code, out, _ = run("solve", files / "two.npz", "--model", estimate_run)
    assert code == 0
    assert "entry" not in out
    assert "in_distribution" in out


def test_what_is_strange_has_code_3(run, files, estimate_run):
    code, out, _ = run("solve", files / "permuted.npz", "--model", estimate_run, "--json")
    found = json.loads(out, parse_constant=pytest.fail)  # beside a warning
    assert (code, found["consistent"] and found["in_distribution"]) == (3, False)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("one.npz", ("--rtol", "1e-3"), "--rtol does not apply"),
        ("one.npz", ("--max-refinements", "3"), "--max-refinements does not apply"),
        ("one.npz", ("--no-fallback",), "--fallback does not apply"),
        ("two.npz", ("--figure", "x.png"), "--figure shows one system"),
        ("one.npz", ("--figure", "x.jpg"), "--figure writes PNG: expected a name that ends in .png, received 'x.jpg'"),
        ("one.npz", ("--output", "no/x.npy"), "no/x.npy: no folder"),
        ("square.npz", (), "the model estimates from matrices of shape (15, 12), received (12, 12)"),
    ],
)
def test_bad_input(refused, files, estimate_run, tmp_path, monkeypatch, file, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("solve", files / file, "--model", estimate_run, *options)


def test_a_figure_is_for_estimates_alone(refused, files, tiny_run):
    line = refused("solve", files / "square.npz", "--model", tiny_run, "--figure", "x.png")
    assert "--figure needs an estimator" in line


def test_evaluate(answer, refused, estimate_run, tmp_path):
    code, found = answer("evaluate", estimate_run, "--count", 200, "--output", tmp_path / "found.json")
    assert code == 0
    scores = found["estimate"]
    assert 0.8 < scores["coverage"] < 0.97
    assert 0 < scores["relative_error_median"] < scores["relative_error_90"]
    table = json.loads((tmp_path / "found.json").read_text())["table"]
    assert ["estimate: coverage", scores["coverage"]] in table["rows"]
    names = [method["name"] for method in found["comparison"]["methods"]]
    assert names == ["network", "GCV", "TV", "LMMSE"]
    assert "--rtol does not apply" in refused("evaluate", estimate_run, "--rtol", "1e-3")


OWN = """
import dataclasses
import numpy as np
from algebraformer.problems import NoisyFamily

@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingMean(NoisyFamily):
    n: int = 8

    def draw_operator(self, rng):
        return {"width": rng.uniform(0.1, 0.3)}

    def matrix(self, params):
        s, t = (np.arange(self.n_equations) + 0.5) / self.n_equations, (np.arange(self.n) + 0.5) / self.n
        A = np.exp(-(((s[:, None] - t) / params["width"][:, None, None]) ** 2))
        return A / self.n

    def classical_signal(self):
        return np.ones(self.n)
"""


def test_train_a_noisy_family_in_a_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(OWN)
    source, folder = f"{tmp_path / 'mine.py'}:MovingMean", tmp_path / "run"
    short = ("steps=2", "batch_size=4", "model.n_layer=1", "model.n_embd=8", "model.n_head=2")
    short += ("scaler_samples=64", "calibration_samples=64", "test_systems=64")
    size = ("model.n=6", "model.head.n_equations=9", "family_settings.m=9")
    code, out, err = run("train", source, "--output", folder, "--workers", 0, "--set", *short, *size)
    assert (code, err) == (0, "")
    assert "ot worth it for this family" in out
    report = json.loads((folder / "report.json").read_text())
    assert report["outcomes"]["assessment.worth-it"]["verdict"] == "not worth it"
    assert [row[0] for row in report["table"]["rows"]] == ["network", "GCV", "TV", "LMMSE"]
    code, out, err = run("evaluate", folder, "--family", source, "--count", 20, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (found["family"]["name"], found["family"]["n"], found["family"]["m"]) == ("moving-mean", 6, 9)
    assert "coverage" in found["estimate"]


def test_evaluate_refuses_families_of_the_other_kind(refused, estimate_run, tiny_run):
    line = refused("evaluate", estimate_run, "--family", "diffusion", "--count", 2)
    assert f"model {estimate_run} is an estimator for noisy systems; family diffusion is not noisy" in line
    line = refused("evaluate", tiny_run, "--family", "deblur", "--count", 2)
    assert f"model {tiny_run} solves A x = b; family deblur is noisy" in line
