"""The examples run, and what they write is true."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

import matplotlib.image
import mpmath
import numpy as np
import pytest
import scipy.io
import scipy.linalg
import scipy.ndimage
import torch

from algebraformer import assessment, problems
from algebraformer.solver import LearnedSolver
from study_results import assert_coloured

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    """Return an example as a module."""
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load("boundary_value_problem")


@pytest.fixture(scope="module")
def folder(example, tmp_path_factory):
    """The folder that the example writes; it makes it itself."""
    path = tmp_path_factory.mktemp("demo") / "new"
    example.main(path)
    return path


@pytest.fixture(scope="module")
def system(folder):
    return scipy.io.mmread(folder / "A.mtx"), scipy.io.mmread(folder / "b.mtx")[:, 0]


@pytest.fixture(scope="module")
def reference(example, system):
    return example.exact_solution(*system)


@pytest.fixture(scope="module")
def written(folder):
    return json.loads((folder / "solution.json").read_text(), parse_constant=pytest.fail)


def test_four_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["A.mtx", "b.mtx", "solution.json", "solution.png"]


def test_figure(folder):
    assert_coloured(folder / "solution.png")
    pixels = matplotlib.image.imread(folder / "solution.png")
    assert pixels.shape[0] > 300 < pixels.shape[1]
    assert np.ptp(pixels[..., :3]) == 1


def test_system_is_the_equation(system):
    """On u = sin(pi x), of which f is known in closed form; and the right-hand side is the source of the text."""
    A, b = system
    x = np.cos(np.pi * np.arange(66) / 65)[1:-1]
    x = x if b[0] == pytest.approx(2 * np.exp(-6 * (x[0] - 0.3) ** 2) - np.sin(2 * x[0])) else -x
    np.testing.assert_allclose(b, 2 * np.exp(-6 * (x - 0.3) ** 2) - np.sin(2 * x), rtol=1e-12, atol=1e-14)
    K, K_prime = 1 + 0.7 * np.cos(2.6 * np.pi * x), -0.7 * 2.6 * np.pi * np.sin(2.6 * np.pi * x)
    f = np.pi**2 * K * np.sin(np.pi * x) - np.pi * K_prime * np.cos(np.pi * x)
    np.testing.assert_allclose(A @ np.sin(np.pi * x), f, atol=1e-7)


def test_table_agrees_with_the_answers(written, system):
    A, b = system
    columns, rows = written["table"]["columns"], written["table"]["rows"]
    assert [row[0].split()[0] for row in rows] == ["bare", "refined,", "solve", "LAPACK"]
    solve = dict(zip(columns, rows[2], strict=True))
    x = np.array(written["x"])
    r = (b - A.astype(np.longdouble) @ x).astype(float)
    rounding = 64 * np.finfo(float).eps * np.linalg.norm(np.abs(A) @ np.abs(x)) / np.linalg.norm(b)
    assert solve["relative residual"] == pytest.approx(np.linalg.norm(r) / np.linalg.norm(b), abs=rounding)
    omega = np.max(np.abs(r) / (np.abs(A) @ np.abs(x) + np.abs(b)))
    assert solve["backward error"] == pytest.approx(omega, abs=64 * np.finfo(float).eps)
    assert written["solve"]["relative_residual"] == pytest.approx(solve["relative residual"], abs=rounding)
    assert written["solve"]["certified"]
    assert solve["status"] == written["solve"]["status"].lower()
    assert all(row[columns.index("time (ms)")] > 0 for row in rows)


def test_errors_are_against_the_true_solution(written, system, reference):
    A, b = system
    columns, rows = written["table"]["columns"], written["table"]["rows"]
    error = {row[0].split()[0]: row[columns.index("relative error")] for row in rows}
    x = np.array(written["x"])
    assert error["solve"] == pytest.approx(np.linalg.norm(x - reference) / np.linalg.norm(reference), rel=1e-9)
    lapack = scipy.linalg.solve(A, b, assume_a="gen")
    assert error["LAPACK"] == pytest.approx(np.linalg.norm(lapack - reference) / np.linalg.norm(reference), rel=1e-9)


def test_fifty_digits(example, system, reference):
    """Against LAPACK within its error bound, elimination in 40 digits on a leading block, and a known inverse."""
    A, b = system
    x = scipy.linalg.solve(A, b)
    bound = np.linalg.cond(A) * np.finfo(float).eps
    assert np.linalg.norm(x - reference) / np.linalg.norm(reference) < bound
    block, part = A[:20, :20], b[:20]
    with mpmath.workdps(40):
        exact = [float(v) for v in mpmath.lu_solve(mpmath.matrix(block.tolist()), mpmath.matrix(part.tolist()))]
    np.testing.assert_allclose(example.exact_solution(block, part), exact, rtol=1e-15)

    pascal = scipy.linalg.pascal(12).astype(float)  # whose inverse holds whole numbers
    first = scipy.linalg.invpascal(12)[:, 0]
    np.testing.assert_array_equal(example.exact_solution(pascal, np.eye(12)[0]), first)


# ---------------------------------------------------------------- a family of your own


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The example on your own family, and the folder of its short run."""
    path = tmp_path_factory.mktemp("own") / "beam"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
        patch.setattr(assessment, "Plan", functools.partial(assessment.Plan, systems=50, seconds=0.0))
        example = load("own_family")
        example.main(path, quick=True)
        yield example, path


def test_the_family_is_about_twenty_lines():
    source = (EXAMPLES / "own_family.py").read_text()
    body = source[source.index("@af.problems.register") : source.index("def main")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20


def test_matrix_of_the_beam(own):
    """Of constant stiffness and without ground: -D2 has the eigenvalues of the discrete string, so A is known."""
    beams = own[0].Beam(n=12)
    beam = np.array([[0.0, 3.0, 0.0, 0.5], [1.5, 2.0, 4e3, 0.3]])
    A, q = beams.assemble({"beam": beam, "q": np.ones((2, 12))})
    assert (A.shape, q.shape) == ((2, 12, 12), (2, 12))
    string = 4 * 13**2 * np.sin(np.pi * np.arange(1, 13) / 26) ** 2
    np.testing.assert_allclose(np.linalg.eigvalsh(A[0]), np.sort(string**2 - 3.0 * string), rtol=1e-9)
    x = np.arange(1, 13) / 13
    w = np.sin(np.pi * x)  # w and EI w'' vanish at both ends
    ground = A[1] @ w - beams.assemble({"beam": beam[1:] * [1, 1, 0, 1], "q": q[1:]})[0][0] @ w
    np.testing.assert_allclose(ground, 4e3 * np.exp(-(((x - 0.3) / 0.15) ** 2)) * w, atol=1e-8)


def test_report_of_the_beam(own):
    example, folder = own
    assert {"model", "report.json", "report.md", "report.png"} <= {path.name for path in folder.iterdir()}
    written = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert written["outcomes"]["assessment.worth-it"]["verdict"] in ("worth it", "not worth it")
    assert written["data"]["n"] == 16
    assert written["data"]["certified"] > 0.9
    systems = example.Beam(n=16).sample(20, seed=2)
    answer = LearnedSolver.from_pretrained(folder).solve(systems.A, systems.b)
    assert answer.certified.all()
    assert np.mean(answer.method == "learned+refined") > 0.8
    np.testing.assert_allclose(answer.x, systems.x, rtol=1e-5, atol=1e-8 * np.abs(systems.x).max())


# ---------------------------------------------------------------- a coefficient from measured solutions


def test_coefficient_by_gradient_descent():
    """The learned solver and torch's take the same way, to the parameters that the measurements were made with."""
    example = load("fit_coefficient")
    learned, direct = example.main()
    assert len(learned.losses) == example.STEPS
    np.testing.assert_allclose(learned.losses, direct.losses, rtol=1e-8)
    np.testing.assert_allclose(learned[:2], direct[:2], rtol=1e-8)
    np.testing.assert_allclose(learned[:2], example.TRUE, atol=0.02)
    assert learned.losses[-1] == pytest.approx(example.NOISE**2, rel=0.3)
    assert learned.losses[0] > 100 * learned.losses[-1]


def test_matrix_of_the_coefficient():
    """Assembled by torch as by the family."""
    example = load("fit_coefficient")
    alpha, omega = (torch.tensor(v, dtype=torch.float64) for v in example.TRUE)
    family = problems.get("diffusion", n=example.N)
    params = {"alpha": np.array([alpha]), "omega": np.array([omega]), "c": np.ones((1, 8)), "phi": np.ones((1, 8))}
    expected = family.assemble(params)[0][0]
    found = example.matrix(example.coefficient(alpha, omega)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


# ---------------------------------------------------------------- a photograph


def test_photograph_with_a_model(estimate_run, tmp_path, capsys):
    """Six lines and a network of twelve pixels: every method is there, and the errors are those of the picture."""
    load("photograph").main(tmp_path / "new", str(estimate_run), lines=6)
    written = json.loads((tmp_path / "new" / "photograph.json").read_text(), parse_constant=pytest.fail)
    names, medians = zip(*(row[:2] for row in written["table"]["rows"]), strict=True)
    assert names == ("Tikhonov, cross-validation", "total variation, discrepancy", "learned")
    assert all(0 < value < 2 for value in medians)
    assert {"consistent", "in_distribution", "coverage"} <= set(written)
    pixels = matplotlib.image.imread(tmp_path / "new" / "photograph.png")
    assert np.mean(np.abs(pixels[..., 0] - 0.5) < 0.4) > 0.1  # grey, neither ink nor paper
    assert "consistent" in capsys.readouterr().out


def test_photograph_without_a_model(tmp_path, capsys):
    load("photograph").main(tmp_path, "no-such-model", lines=4)
    assert "no model no-such-model" in capsys.readouterr().out
    rows = json.loads((tmp_path / "photograph.json").read_text())["table"]["rows"]
    assert [row[0] for row in rows] == ["Tikhonov, cross-validation", "total variation, discrepancy"]
    assert min(row[1] for row in rows) < 0.4


def test_camera_of_the_photograph():
    """A line is blurred as SciPy's filter does it, away from the edges, and the noise has the norm that is said."""
    example = load("photograph")
    x = example.patch(40, 64)
    assert x.shape == (40, 64)
    assert 0 <= x.min() < 0.3 < 0.7 < x.max() <= 1
    A, b, norm = example.measure(x, 64)
    blurred = scipy.ndimage.gaussian_filter1d(x, example.WIDTH * 64, axis=1, truncate=8)
    np.testing.assert_allclose((x @ A.T)[:, 12:-12], blurred[:, 12:-12], atol=2e-3)
    assert np.sqrt(np.mean(np.sum((b - x @ A.T) ** 2, axis=1))) == pytest.approx(norm, rel=0.05)


# ---------------------------------------------------------------- a body and an encoding of your own


def test_own_network(tmp_path, capsys):
    """Both are trained, loaded by the names in their checkpoints, and certified; the body answers without LAPACK."""
    example = load("own_network")
    example.main(tmp_path, quick=True)
    assert capsys.readouterr().out.count("relative error") == 2
    for name, recipe in (("body", example.BODY), ("encoding", example.ENCODING)):
        solver, systems = LearnedSolver.from_pretrained(tmp_path / name), recipe.problem_family().sample(30, seed=2)
        assert solver.network.config == recipe.model
        answer = solver.solve(systems.A, systems.b)
        assert answer.certified.all()
        assert name == "encoding" or set(answer.method) == {"learned+refined"}
        np.testing.assert_allclose(answer.x, systems.x, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- measured data


def table_of(path):
    """Return the rows of a written table by their first cell."""
    table = json.loads(path.read_text(), parse_constant=pytest.fail)["table"]
    return {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}


def test_distances(tmp_path, capsys):
    """All measured traces have peaks where other programs find them; those with artefacts are flagged."""
    load("distances").main(tmp_path / "new")
    rows = table_of(tmp_path / "new" / "distances.json")
    peaks = {"example_4pdeer_1": 4.0, "example_4pdeer_2": 3.95, "example_4pdeer_3": 3.95, "sparse_4pdeer": 5.5}
    for name, peak in peaks.items():
        assert rows[name]["peak / nm"] == pytest.approx(peak, abs=0.4)
        assert_coloured(tmp_path / "new" / f"{name}.png")
    assert not rows["example_4pdeer_5"]["consistent"]
    assert not rows["example_4pdeer_2"]["consistent"]
    assert rows["example_4pdeer_1"]["consistent"]
    assert capsys.readouterr().out.count("NOT NOISE") >= 2


def test_relaxation_times(tmp_path):
    """Of the spectra by formula, resistances and times are known."""
    load("relaxation_times").main(tmp_path / "new")
    rows = table_of(tmp_path / "new" / "relaxation_times.json")
    for name, peak, polarisation in (("zarc", 1e-2, 50), ("havriliak_negami", 1e-2, 50), ("two_zarc_0", 1e-4, 60)):
        row = rows[name]
        assert np.log10(row["peak / s"]) == pytest.approx(np.log10(peak), abs=0.2)
        assert row["polarisation / ohm"] == pytest.approx(polarisation, rel=0.05)
        assert row["R_inf / ohm"] == pytest.approx(10, rel=0.1)
        assert row["consistent"]
        assert row["in distribution"]
        assert_coloured(tmp_path / "new" / f"{name}.png")
    assert rows["lithium_ion_1"]["L / H"] == pytest.approx(8e-7, rel=0.2)
