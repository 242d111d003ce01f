"""The study of Newton's method: sentences on made-up numbers, real data, the quick preset as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import plotting, problems
from algebraformer.plotting import convergence_figure
from algebraformer.reporting import Report
from algebraformer.training.data import TEST_SEED
from studies.baselines import lp
from studies.harness.study import load_study, run_study
from studies.newton import measure as study
from studies.newton import report
from studies.newton.measure import PRESETS
from studies.newton.report import DIRECTION, LEARNED, NEIGHBOUR, PREVIOUS
from study_results import assert_coloured, assert_drawn, assert_tables_and_figure

# ---------------------------------------------------------------- sentences


def made_up(damped: int, searched: int, learned: int, kind: str = "filter") -> list[dict[str, Any]]:
    about = {"kind": kind, "n": 32, "m": 128, "p": 8.0, "converged": 1.0}
    found = []
    for method, start, count in (
        ("damped", "least-squares", damped),
        ("newton", "least-squares", searched),
        ("homotopy", "least-squares", 8),
        (LEARNED, "least-squares", learned),
        (NEIGHBOUR, "warm", 6),
        (PREVIOUS, "warm", 20),
    ):
        iterations = np.full(3, count)
        one = about | {"method": method, "start": start, "iterations": iterations.tolist()}
        found.append(one | report.distribution(iterations))
    found[3] |= {"accepted": 1.0, "n_learned": 1.0}
    return found


CHECK = {"kind": "filter", "n": 32, "problems": 10, "converged": 10, "difference": 1e-12, "dual_gap": 1e-12}
TIMES = [
    {"kind": "filter", "n": 32, "p": 8.0, "batch": 1, "method": method, "seconds": seconds}
    for method, seconds in (("damped", 3e-3), ("newton", 1e-3), (LEARNED, 2e-3))
]
REAL = {"name": "longley", "p": 8.0, "success": True}


@pytest.mark.parametrize(
    ("damped", "searched", "learned", "words"),
    [
        (40, 12, 5, ("8 times fewer", "2.4 times fewer", "targets met")),
        (40, 12, 7, ("(met: 4 wanted)", "(missed: 2 wanted)", "targets missed")),
        (15, 12, 5, ("(missed: 4 wanted)", "(met: 2 wanted)", "targets missed")),
    ],
)
def test_targets_follow_from_the_medians(damped: int, searched: int, learned: int, words: tuple[str, ...]) -> None:
    lines = report.verdict(made_up(damped, searched, learned), TIMES, [CHECK], [REAL])
    assert lines[0] == "Family (b), polynomial and spline: no network, targets not met."
    assert all(word in lines[1] for word in words)
    assert ("about 4 times faster convergence: reproduced" in lines[2]) == (damped >= 4 * learned)
    assert ("not reproduced" in lines[2]) == (damped < 4 * learned)


def test_more_iterations_are_said_to_be_more() -> None:
    lines = report.verdict(made_up(40, 5, 7), TIMES, [CHECK], [REAL])
    assert "Newton with exact line search, learned start: missed (at most 2 more, over 3 solves" in lines[3]
    assert lines[4].endswith("more than nearest neighbour (6).")
    assert lines[5].endswith("fewer than previous solution (20).")
    assert lines[6].endswith("fewer than homotopy in p (8).")
    lines = report.verdict(made_up(40, 12, 6), TIMES, [CHECK], [REAL])
    assert "Newton with exact line search, learned start: met (at most -6 more" in lines[3]
    assert lines[4].endswith("as many as nearest neighbour (6).")


@pytest.mark.parametrize(
    ("changes", "word"), [({}, "met"), ({"difference": 1e-8}, "missed"), ({"converged": 9}, "missed")]
)
def test_one_optimum_or_not(changes: dict[str, Any], word: str) -> None:
    lines = report.verdict(made_up(40, 12, 6), TIMES, [CHECK | changes], [REAL])
    assert f"on 10 random problems (10,000 wanted): {word} on these" in lines[7]


def test_the_papers_own_way_has_a_sentence_of_its_own() -> None:
    records = made_up(40, 12, 5)
    for accepted, median, words in ((0.0, 5, "not reproduced"), (0.5, 9, "reproduced"), (0.5, 12, "not reproduced")):
        direction = records[3] | {"method": DIRECTION, "accepted": accepted, "median": median}
        lines = report.verdict([*records, direction], TIMES, [CHECK], [REAL])
        own = next(line for line in lines if line.startswith("The paper's own way"))
        assert f"Newton system: {words} by" in own
        assert f"in {100 * accepted:g} % of the problems" in own


def test_the_faster_one_is_named() -> None:
    lines = report.verdict(made_up(40, 12, 6), TIMES, [CHECK], [REAL | {"success": False}])
    assert "Newton, exact line search 1 ms: the classical method is 2 times faster" in lines[8]
    assert lines[9] == "Real data: not converged: longley p = 8."


def test_a_figure_of_the_convergence(tmp_path: Path) -> None:
    traces = {"a": [("start", 1.0, 2.0), ("learned", 0.1, 1.5), ("exact", 1e-9, 1.4)], "b": [("start", 0.0, 0.0)]}
    figure = convergence_figure(traces, 8.0, "title")
    assert_drawn(figure)
    plotting.save(figure, tmp_path / "figure.png")
    assert_coloured(tmp_path / "figure.png")
    left, right = figure.axes
    assert {line.get_label() for line in right.lines} >= {"a: learned", "a: exact", "a: start"}
    (learned,) = [line for line in left.lines if line.get_label() == "a: learned"]
    assert (learned.get_xdata().tolist(), learned.get_ydata().tolist()) == ([1], [0.1])


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize(
    ("name", "shape"),
    [("longley", (16, 7)), ("stackloss", (21, 4)), ("engel", (235, 2)), ("scotland", (32, 8)), ("copper", (25, 6))],
)
def test_real_data_converges(name: str, shape: tuple[int, int]) -> None:
    A, _ = study.real_problem(name)
    assert A.shape == shape
    assert (A[:, 0] == 1).all()
    assert np.linalg.matrix_rank(A / np.linalg.norm(A, axis=0)) == shape[1]
    for one in study.real_data(name, PRESETS["quick"]):
        assert one["success"]
        assert one["dual_gap"] < 1e-6


def test_neighbours_that_are_the_problems_themselves_are_right() -> None:
    """With the problems in the bank one step leads to the optimum; with one problem the one before is itself."""
    family = problems.get("lp-regression", n=32, kind="filter", p=(8.0,))
    problem = family.regression(family.parameters(range(4), seed=1))
    before, nearest = study.warm(problem, problem, 100)
    assert (before["method"], nearest["method"]) == (PREVIOUS, NEIGHBOUR)
    assert nearest["max"] <= 2
    alone = study.warm(problem[:1], problem[1:], 100)
    assert alone[0]["max"] == 0


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("newton"), "quick", tmp_path_factory.mktemp("newton"), Progress(disable=True))


def test_iterations_are_those_of_the_methods(quick: Report) -> None:
    plan = PRESETS["quick"]
    for kind, n in plan.groups:
        family = problems.get("lp-regression", n=n, kind=kind, p=(8.0,))
        problem = family.regression(family.parameters(range(plan.problems), TEST_SEED))
        group = {"kind": kind, "n": n, "m": family.m, "p": 8.0}
        for method in lp.METHODS:
            solution = lp.minimize(problem.A, problem.b, 8.0, method, maxiter=plan.maxiter)
            one = report.find(quick.data["records"], group, method, "least-squares")
            assert one is not None
            assert one["iterations"] == solution.iterations.tolist()
            assert one["median"] == np.median(solution.iterations)
            assert one["converged"] == np.mean(solution.converged)


def test_networks_meet_the_problems_of_their_kind_alone(quick: Report) -> None:
    found = {(r["kind"], r["n"]) for r in quick.data["records"] if r["method"] == LEARNED}
    assert found == {("filter", 32)}


def test_optima_are_the_same(quick: Report) -> None:
    for check in quick.data["checks"]:
        assert check["converged"] == check["problems"] >= 10
        assert check["difference"] < 1e-9


def test_tables_and_figure(quick: Report, tmp_path: Path) -> None:
    assert all(table.rows for table in quick.tables)
    assert_tables_and_figure("newton", quick, tmp_path)
