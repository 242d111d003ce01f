"""Whether a learned estimator is worth it: errors by method and noise level, the verdict, and where it is shown."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import algebraformer as af
from algebraformer import comparison, noisy_assessment, plotting
from algebraformer.assessment import Plan
from algebraformer.errors import ConfigurationError
from algebraformer.metrics import noise_levels
from algebraformer.problems.base import TEST_SEED
from algebraformer.reporting import Verdict, conclusions


@pytest.fixture(scope="module")
def solver(estimate_run):
    return af.LearnedSolver.from_pretrained(estimate_run)


@pytest.fixture(scope="module")
def report(solver):
    return af.assess(solver, plan=Plan(systems=60))


def test_errors_and_levels_by_hand(solver, report):
    family = solver.info.problem_family()
    systems = family.sample(60, TEST_SEED)
    compared = report.data["comparison"]
    assert [method["name"] for method in compared["methods"]] == ["network", "GCV", "TV", "LMMSE"]
    errors = np.linalg.norm(solver.predict(systems.A, systems.b) - systems.x, axis=1) / np.sqrt(family.n)
    network = compared["methods"][0]
    assert network["relative_error_median"] == pytest.approx(np.median(errors))
    assert network["relative_error_90"] == pytest.approx(np.quantile(errors, 0.9))
    noise = systems.params["noise"]
    assert [low for low, _, _ in compared["levels"]] == [0.001, 0.003, 0.01, 0.03]
    for (low, high, count), median in zip(compared["levels"], network["by_level"], strict=True):
        chosen = (noise >= low) & (noise < high)
        assert (count, median) == (chosen.sum(), pytest.approx(np.median(errors[chosen])))
    assert all(method["seconds"] > 0 for method in compared["methods"])


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1e-1), (2e-7, 4e-6), (0.5, 20.0), (0.01, 0.01)])
def test_every_system_is_in_one_level(low, high):
    noise = np.geomspace(low, high, 50)
    levels = noise_levels(noise)
    assert np.array_equal(sum(chosen.astype(int) for _, _, chosen in levels), np.ones(50))
    assert all(below <= noise[chosen].min() and noise[chosen].max() < above for below, above, chosen in levels)


@pytest.mark.parametrize(
    ("error", "verdict"), [(0.05, Verdict.WORTH_IT), (0.097, "not worth it"), (0.3, "not worth it")]
)
def test_the_verdict_is_against_the_best_rival(report, error, verdict):
    compared = json.loads(json.dumps(report.data["comparison"]))
    for method, value in zip(compared["methods"], (error, 0.2, 0.1, 0.4), strict=True):
        method["relative_error_median"] = value
    found = noisy_assessment.outcomes(report.data | {"comparison": compared})
    worth = found["assessment.worth-it"]
    assert worth.verdict == verdict
    assert (worth.numbers["best"], worth.numbers["told"], worth.numbers["rival"]) == ("TV", "noise", 0.1)
    assert worth.numbers["ratio"] == pytest.approx(0.1 / error)
    assert len(conclusions(found, noisy_assessment.SENTENCES)) == len(found) == 6


def test_every_level_has_its_own_best_rival(report):
    compared = json.loads(json.dumps(report.data["comparison"]))
    for number, method in enumerate(compared["methods"]):
        method["by_level"] = [1 + number, 6 - number, 1, 2]
    found = noisy_assessment.outcomes(report.data | {"comparison": compared})
    best = [one.numbers["best"] for key, one in found.items() if key.startswith("assessment.noise")]
    assert best == ["GCV", "LMMSE", "GCV", "GCV"]


def test_the_report_is_written(report, tmp_path):
    path = plotting.save_report(report, tmp_path, "a command")
    written = json.loads(path.read_text())
    assert written["data"]["comparison"] == report.data["comparison"]
    assert len(written["tables"][0]["rows"]) == len(written["data"]["estimate"])
    assert [row[0] for row in written["table"]["rows"]] == ["network", "GCV", "TV", "LMMSE"]
    errors, times = plotting.assessment_figure(report.data).axes
    assert len(errors.lines) == len(times.lines) == 4


def test_the_rivals_do_not_see_the_systems(solver):
    """Other systems of the comparison change no tuning: the estimates of each system stay what they are."""
    family = solver.info.problem_family()
    few = comparison.measurements(family.sample(3, TEST_SEED))
    first, second = (comparison.rivals_of(family) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        x = one.estimate(few.A, few.b, few.noise_norm)
        np.testing.assert_array_equal(x, two.estimate(few.A, few.b, few.noise_norm))


def test_what_does_not_fit_is_refused(solver):
    family = solver.info.problem_family()
    with pytest.raises(ConfigurationError, match="the model is for m = 15 equations, the family has 12"):
        af.assess(solver, dataclasses.replace(family, m=None))
    with pytest.raises(ConfigurationError, match="the model is for n = 12, the family has n = 13"):
        af.assess(solver, dataclasses.replace(family, n=13))
    with pytest.raises(ConfigurationError, match="rtol is for certified solves"):
        af.assess(solver, rtol=1e-8)
