"""The study of Hessians of one design: outcomes of made-up numbers, the quick preset as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.problems import LpHessian
from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.training.data import TEST_SEED
from studies import hessians as study
from studies.baselines import lp
from studies.harness.study import load_study, run_study, where
from studies.hessians import HOMOTOPY, IRLS, KEPT, LEARNED, NEAREST, NEWTON, RESIDUALS
from study_results import assert_tables_and_figure


def made_up(learned: tuple[float, float, float], **others: Any) -> list[dict[str, Any]]:
    """Records of one group: (factorisations, products, seconds) of the learned inverse, and of RESIDUALS if given."""
    numbers = {HOMOTOPY: (8.0, 8.0, 2e-3), RESIDUALS: (0.0, 40.0, 1e-3), LEARNED: learned, **others}
    about = {"design": "filter", "m": 128, "n": 32, "p": 8.0, "problems": 4, "converged": 1.0, "difference": 1e-13}
    return [
        about | {
            "method": method, "factorisations": f, "factorisations_mean": f, "products": p, "seconds": s,
            "iterations": 8.0, "inexact": 1 - f / 8,
        }
        for method, (f, p, s) in numbers.items()
    ]  # fmt: skip


def outcomes(records: list[dict[str, Any]]) -> dict[str, Outcome]:
    return study.outcomes({"records": records})


@pytest.mark.parametrize(
    ("learned", "verdict"),
    [
        ((2.0, 20.0, 5e-4), Verdict.MET),
        ((2.5, 20.0, 5e-4), Verdict.MISSED),
        ((0.0, 20.0, 1.5e-3), Verdict.MISSED),
    ],
)
def test_the_target_needs_fewer_factorisations_and_less_time(
    learned: tuple[float, float, float], verdict: Verdict
) -> None:
    found = outcomes(made_up(learned))[f"hessians.target/{LEARNED}"]
    assert found.verdict == verdict
    assert found.numbers["time"] == pytest.approx(1e-3 / learned[2])
    assert (found.numbers["cases"], found.numbers["met"]) == (1, int(verdict == Verdict.MET))


def test_what_needs_no_learning_and_what_learning_saves() -> None:
    found = outcomes(made_up((4.0, 30.0, 1e-3)))
    assert found["hessians.without-learning"].verdict == Verdict.HOLDS
    steps = found["hessians.steps/filter, n = 32, p = 8"]
    assert (steps.verdict, steps.numbers["share"], steps.numbers["diagonal"]) == (Verdict.HOLDS, 0.5, 40)
    found = outcomes(made_up((4.0, 50.0, 1e-3), **{RESIDUALS: (4.0, 40.0, 1e-3)}))
    assert found["hessians.without-learning"].verdict == Verdict.FAILS
    assert found["hessians.steps/filter, n = 32, p = 8"].verdict == Verdict.FAILS


def test_one_optimum_or_not() -> None:
    records = made_up((0.0, 20.0, 1e-3))
    assert outcomes(records)["hessians.same-optimum"].verdict == Verdict.MET
    records[1]["difference"] = 1e-7
    assert outcomes(records)["hessians.same-optimum"].verdict == Verdict.MISSED
    records[1] |= {"difference": 0.0, "converged": 0.5}
    found = outcomes(records)["hessians.same-optimum"]
    assert (found.verdict, found.numbers["lost"]) == (Verdict.MISSED, RESIDUALS)


def test_sentences() -> None:
    found = outcomes(made_up((2.0, 20.0, 5e-4)))
    assert len(conclusions(found, study.SENTENCES)) == len(found)


# ---------------------------------------------------------------- the quick preset


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    pytest.importorskip("statsmodels")
    with Progress(disable=True) as bar:
        return run_study(load_study("hessians"), "quick", tmp_path_factory.mktemp("hessians"), bar)


def test_counts_are_those_of_the_methods(quick: Report) -> None:
    family = LpHessian(kind="filter", n=32, p=4.0)
    b = family.parameters(range(8), TEST_SEED)["b"]
    A = np.broadcast_to(family.design().A, (8, family.m, 32))
    for ours, theirs in ((NEWTON, "newton"), (HOMOTOPY, "homotopy"), (IRLS, "primal-dual irls")):
        solution = lp.minimize(A, b, 4.0, theirs)
        (one,) = where(quick.data["records"], method=ours, design="filter")
        assert one["iterations"] == one["factorisations"] == np.median(solution.iterations)
    for method in (RESIDUALS, NEAREST):
        (one,) = where(quick.data["records"], method=method, design="filter")
        assert one["factorisations_max"] == 0
        assert one["inexact"] == 1
    (kept,) = where(quick.data["records"], method=KEPT, design="filter")
    assert 1 <= kept["factorisations"] < one["iterations"]


def test_every_method_finds_the_same_optimum(quick: Report) -> None:
    assert quick.outcomes["hessians.same-optimum"].verdict == Verdict.MET


def test_tables_and_figure(quick: Report, tmp_path: Path) -> None:
    assert all(table.rows for table in quick.tables)
    assert_tables_and_figure("hessians", quick, tmp_path)
