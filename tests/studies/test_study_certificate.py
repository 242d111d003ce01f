"""The study of the certificate's constant: its measures against longdouble, its outcomes, its quick preset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import problems
from algebraformer.linalg import EPS
from algebraformer.reporting import Report, Verdict
from algebraformer.training.data import TEST_SEED
from studies import certificate as study
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure
from tests.stress.certificates import exact_measures


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("certificate"), "quick", tmp_path_factory.mktemp("certificate"), Progress(disable=True))


def test_lapack_meets_the_constant_on_every_linear_family(quick: Report) -> None:
    records = quick.data["records"]
    assert {"diffusion", "randsvd", "bratu"} <= {r["family"] for r in records}
    assert not {"deblur", "gravity", "fredholm"} & {r["family"] for r in records}
    real = [r for r in records if not problems.family_class(r["family"]).is_complex]
    assert max(r["plain_max"] for r in real if r["n"] >= study.MIN_N) <= quick.data["constant"]
    assert max(r["refined_max"] for r in records) <= quick.data["constant"]


def test_backward_errors_are_those_of_longdouble() -> None:
    """The largest one of LAPACK's answers, up to the rounding of b - A x in float64."""
    n, count = 16, 20
    systems = problems.get("diffusion", n=n).sample(count, TEST_SEED)
    exact = []
    for A, b in zip(systems.A, systems.b, strict=True):
        exact.append(exact_measures(A, b, np.linalg.solve(A, b))[1])
    found = study.lapack(problems.get("diffusion", n=n), count)
    assert found["plain_max"] * n * EPS == pytest.approx(float(max(exact)), abs=(n + 2) * EPS)
    assert found["plain_median"] <= found["plain_99"] <= found["plain_max"]


def test_the_shipped_models_pay_less_than_one_refinement(quick: Report) -> None:
    models = {record["model"]: record for record in quick.data["models"]}
    assert {"diffusion-64", "random-diffusion-64"} <= set(models)
    for record in models.values():
        assert record["refinements_before"] <= record["refinements"] < record["refinements_before"] + 1
        assert record["by_network"] > 0.9
        assert record["held"] == 1
        assert record["backward_error_max"] <= quick.data["constant"]


def test_outcomes_follow_from_the_data(quick: Report) -> None:
    records, models = quick.data["records"], quick.data["models"]
    found = quick.outcomes["certificate.met-by-lapack"]
    assert found.verdict == Verdict.PARTLY  # complex systems need the one step that refines them
    assert found.numbers["unrefined"] == pytest.approx(
        max(r["plain_max"] for r in records if r["n"] >= study.MIN_N), rel=1e-9
    )
    assert found.numbers["refined"] == pytest.approx(max(r["refined_max"] for r in records), rel=1e-9)
    assert quick.outcomes["certificate.forward-error"].verdict == Verdict.HOLDS
    assert quick.outcomes["certificate.cost"].numbers["refinements"] < 1
    for changes, expected in (({"plain_max": 1e3}, Verdict.PARTLY), ({"refined_max": 1e3}, Verdict.MISSED)):
        changed = study.outcomes(quick.data | {"records": [*records[:-1], records[-1] | changes]})
        assert changed["certificate.met-by-lapack"].verdict == expected
    partly = study.outcomes(quick.data | {"models": [models[0] | {"held": 0.5}]})["certificate.forward-error"]
    assert (partly.verdict, partly.numbers["held"]) == (Verdict.PARTLY, 0.5)
    assert all(quick.conclusions)


def test_figure_and_tables(quick: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("certificate", quick, tmp_path)
