"""The study of one network at many sizes: interpolation against SciPy's, its outcomes, its quick preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress
from scipy.interpolate import BarycentricInterpolator

from algebraformer.problems.chebyshev import interpolation_matrix, points
from algebraformer.reporting import Report, Verdict
from studies import sizes as study
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("sizes"), "quick", tmp_path_factory.mktemp("sizes"), Progress(disable=True))


@pytest.mark.parametrize(("n", "m"), [(12, 20), (20, 12), (9, 9), (15, 31)])
def test_interpolation_is_scipys(n: int, m: int) -> None:
    """Of values at all points, and at the interior ones alone."""
    t, u = points(m + 2)[1:-1], np.random.default_rng(0).standard_normal(n)
    inner, values = points(n + 2)[1:-1], np.pad(u, 1)
    matrix = interpolation_matrix(n + 2, t)[:, 1:-1]
    np.testing.assert_allclose(matrix @ u, BarycentricInterpolator(points(n + 2), values)(t), atol=1e-10)
    np.testing.assert_allclose(study.interior_interpolation(n, t) @ u, BarycentricInterpolator(inner, u)(t), atol=1e-9)


def test_the_quick_preset_measures_every_way(quick: Report) -> None:
    for record in quick.data["records"]:
        assert record["exact"]["median"] <= record["resized"]["median"] <= record["resized"]["95"]
        assert record["resized"]["median"] < 1e-2 < record["interpolated"]["median"]
        assert record["certified"] == 1
        assert record["by_network"] > 0.95
    assert quick.outcomes["sizes.certified"].verdict == Verdict.HOLDS
    assert "sizes.within-trained/median" not in quick.outcomes
    assert all(quick.conclusions)


def record(n: int, resized: float, exact: float, trained: float | None = None) -> dict[str, Any]:
    def both(x: float) -> dict[str, float]:
        return {"median": x, "95": 2 * x}

    return {
        "n": n, "resized": both(resized), "exact": both(exact), "trained": trained and both(trained),
        "interpolated": both(0.5), "mean": both(0.9), "certified": 1.0, "by_network": 0.99, "refinements": 3.0,
        "refinements_max": 5, "fit_seconds": 1.0,
    }  # fmt: skip


def test_outcomes() -> None:
    found = study.outcomes({"records": [record(16, 3e-3, 1e-3), record(32, 4e-3, 1e-3, 2e-3)]})
    exact, trained = found["sizes.within-exact/median"], found["sizes.within-trained/95"]
    assert (exact.verdict, exact.numbers["worst"], exact.numbers["n"]) == (Verdict.MISSED, 4.0, 32)
    assert (exact.numbers["within"], exact.numbers["sizes"]) == (1, 2)
    assert (trained.verdict, trained.numbers["worst"], trained.numbers["sizes"]) == (Verdict.MET, 2.0, 1)
    assert (found["sizes.interpolated"].numbers["least"], found["sizes.interpolated"].numbers["n"]) == (500.0, 16)
    lost = [record(16, 1e-3, 1e-3) | {"certified": 0.5}]
    assert study.outcomes({"records": lost})["sizes.certified"].verdict == Verdict.FAILS


def test_figure_and_tables(quick: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("sizes", quick, tmp_path)
