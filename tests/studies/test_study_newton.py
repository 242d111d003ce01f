"""The study of Newton's method: outcomes of made-up numbers, real data, the quick preset as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import plotting, problems
from algebraformer.plotting import convergence_figure
from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.training.data import TEST_SEED
from studies.baselines import lp
from studies.harness.regressions import real_problem
from studies.harness.study import load_study, run_study
from studies.newton import measure as study
from studies.newton import report
from studies.newton.measure import PRESETS
from studies.newton.report import DIRECTION, LEARNED_START, NEIGHBOUR, PREVIOUS
from study_results import assert_coloured, assert_drawn, assert_tables_and_figure

# ---------------------------------------------------------------- outcomes


def made_up(damped: int, searched: int, learned: int, kind: str = "filter") -> list[dict[str, Any]]:
    about = {"kind": kind, "n": 32, "m": 128, "p": 8.0, "converged": 1.0}
    found = []
    for method, start, count in (
        ("damped", "least-squares", damped),
        ("newton", "least-squares", searched),
        ("homotopy", "least-squares", 8),
        (LEARNED_START, "least-squares", learned),
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
    for method, seconds in (("damped", 3e-3), ("newton", 1e-3), (LEARNED_START, 2e-3))
]
REAL = {"name": "longley", "p": 8.0, "success": True}


def outcomes(records: list[dict[str, Any]], **changes: Any) -> dict[str, Outcome]:
    return report.outcomes({"records": records, "times": TIMES, "checks": [CHECK], "real": [REAL]} | changes)


TARGET = f"newton.target/d, {LEARNED_START}, filter, n = 32"


@pytest.mark.parametrize(
    ("damped", "searched", "learned", "ratios", "verdict"),
    [
        (40, 12, 5, (8, 2.4), Verdict.MET),
        (40, 12, 7, (40 / 7, 12 / 7), Verdict.MISSED),
        (15, 12, 5, (3, 2.4), Verdict.MISSED),
    ],
)
def test_targets_follow_from_the_medians(
    damped: int, searched: int, learned: int, ratios: tuple[float, float], verdict: Verdict
) -> None:
    found = outcomes(made_up(damped, searched, learned))
    assert found["newton.target/b"].verdict == Verdict.INCONCLUSIVE
    assert found[TARGET].verdict == verdict
    assert (found[TARGET].numbers["damped"], found[TARGET].numbers["newton"]) == pytest.approx(ratios)
    assert found[TARGET].numbers["median"] == learned
    claim = found["newton.four-times"]
    assert claim.verdict == (Verdict.REPRODUCED if damped >= 4 * learned else Verdict.NOT_REPRODUCED)
    assert claim.numbers["times"] == pytest.approx(damped / learned)


def start(method: str) -> str:
    return f"newton.start/{method}, filter, n = 32"


def test_more_iterations_than_others() -> None:
    found = outcomes(made_up(40, 5, 7))
    worse = found[f"newton.never-worse/{LEARNED_START}"]
    assert (worse.verdict, worse.numbers) == (Verdict.MISSED, {"network": LEARNED_START, "extra": 2, "solves": 3})
    assert found[start(NEIGHBOUR)].verdict == Verdict.FAILS
    assert (found[start(NEIGHBOUR)].numbers["ours"], found[start(NEIGHBOUR)].numbers["theirs"]) == (7, 6)
    assert found[start(PREVIOUS)].verdict == Verdict.HOLDS
    assert (found[start("homotopy")].verdict, found[start("homotopy")].numbers["theirs"]) == (Verdict.HOLDS, 8)
    found = outcomes(made_up(40, 12, 6))
    better = found[f"newton.never-worse/{LEARNED_START}"]
    assert (better.verdict, better.numbers["extra"]) == (Verdict.MET, -6)
    assert found[start(NEIGHBOUR)].verdict == Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({}, Verdict.MET), ({"difference": 1e-8}, Verdict.MISSED), ({"converged": 9}, Verdict.MISSED)],
)
def test_one_optimum_or_not(changes: dict[str, Any], verdict: Verdict) -> None:
    found = outcomes(made_up(40, 12, 6), checks=[CHECK | changes])["newton.same-optimum"]
    assert (found.verdict, found.numbers["problems"], found.numbers["wanted"]) == (verdict, 10, 10_000)


def test_the_papers_own_way_has_an_outcome_of_its_own() -> None:
    records = made_up(40, 12, 5)
    for accepted, median, verdict in (
        (0.0, 5, Verdict.NOT_REPRODUCED),
        (0.5, 9, Verdict.REPRODUCED),
        (0.5, 12, Verdict.NOT_REPRODUCED),
    ):
        direction = records[3] | {"method": DIRECTION, "accepted": accepted, "median": median}
        found = outcomes([*records, direction])["newton.learned-direction/filter, n = 32"]
        assert (found.verdict, found.numbers["accepted"]) == (verdict, accepted)
        assert found.numbers["times"] == pytest.approx(40 / median)


def test_times_and_real_data() -> None:
    found = outcomes(made_up(40, 12, 6), real=[REAL | {"success": False}])
    time = found["newton.time/filter, n = 32, batch 1"]
    assert (time.verdict, time.numbers["ratio"]) == (Verdict.FAILS, 0.5)
    assert (time.numbers["fastest"], time.numbers["fastest_ms"], time.numbers["ms"]) == (report.NAMES["newton"], 1, 2)
    assert found["newton.real-data"].verdict == Verdict.FAILS
    assert found["newton.real-data"].numbers == {"problems": 1, "failed": "longley p = 8"}
    assert outcomes(made_up(40, 12, 6))["newton.real-data"].verdict == Verdict.HOLDS


def test_sentences() -> None:
    records = made_up(40, 12, 6)
    records.append(records[3] | {"method": DIRECTION, "accepted": 0.5})
    found = outcomes(records)
    lines = conclusions(found, report.SENTENCES)
    assert len(lines) == len(found)
    assert lines[1] == (
        "Family (d), filter, n = 32, p = 8, from least squares, learned start: 6 iterations in the median, 6.67 times "
        "fewer than Newton, step 1/(p−1) (target 4, met), 2 times fewer than Newton, exact line search (target 2, met)."
    )
    assert lines[-2] == (
        "Time, filter, n = 32, p = 8, 1 at once: the learned start takes 2 ms per problem, Newton, exact line search "
        "1 ms: the classical method is 2 times faster."
    )
    assert lines[-1] == "Real data: all converged."


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
    A, _ = real_problem(name)
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
    found = {(r["kind"], r["n"]) for r in quick.data["records"] if r["method"] == LEARNED_START}
    assert found == {("filter", 32)}


def test_optima_are_the_same(quick: Report) -> None:
    for check in quick.data["checks"]:
        assert check["converged"] == check["problems"] >= 10
        assert check["difference"] < 1e-9


def test_tables_and_figure(quick: Report, tmp_path: Path) -> None:
    assert all(table.rows for table in quick.tables)
    assert_tables_and_figure("newton", quick, tmp_path)
