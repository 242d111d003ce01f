"""Cases, metrics and rivals of the study `instruments` against closed forms; packages where they are installed."""

from __future__ import annotations

import dataclasses
import re
import sys

import numpy as np
import pytest

from algebraformer.errors import MissingExtraError
from algebraformer.training.data import TEST_SEED
from studies.harness.measurements import KINDS, PRIOR, case, instrument
from studies.instruments import packages, rivals
from studies.instruments.metrics import coverage, scores

ALL_KINDS = [(name, kind) for name, kinds in KINDS.items() for kind in (PRIOR, *kinds)]


def gaussian(u, mean, std, height=1.0):
    return height * np.exp(-(((u - mean) / std) ** 2) / 2)


def error(x, one):
    return np.linalg.norm(x - one.x[0]) / np.linalg.norm(one.x[0])


def small(name, kind, level, index=3):
    """A case that packages need little time for."""
    family = dataclasses.replace(instrument(name, kind, level), n=40)
    return family, family.simulate([16 * index], TEST_SEED, points=50)


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize(("name", "kind"), ALL_KINDS)
def test_levels_change_nothing_but_the_size_of_the_noise(name, kind):
    low, high, again = case(name, kind, 0.003, 2), case(name, kind, 0.03, 2), case(name, kind, 0.003, 2)
    np.testing.assert_array_equal(low.data, again.data)
    np.testing.assert_array_equal(low.x, high.x)
    np.testing.assert_array_equal(low.clean, high.clean)
    np.testing.assert_allclose(high.data - high.clean, 10 * (low.data - low.clean), atol=1e-12 * np.abs(low.data).max())
    assert low.x.min() >= 0
    assert low.x.mean() == pytest.approx(1)
    assert not np.array_equal(low.x, case(name, kind, 0.003, 3).x)


@pytest.mark.parametrize(("name", "kind"), [("deer", "broad peak"), ("drt", "log-normal"), ("deer", PRIOR)])
def test_known_nuisance_leaves_white_noise_of_variance_one(name, kind):
    squares = []
    for index in range(12):
        one = case(name, kind, 0.01, index)
        A, y = rivals.linear_problem(instrument(name, kind, 0.01), one)
        squares.extend((A @ one.x[0] - y) ** 2)
    assert np.mean(squares) == pytest.approx(1, abs=6 * np.sqrt(2 / len(squares)))


# ---------------------------------------------------------------- metrics


def test_scores_of_a_shifted_peak():
    u = np.linspace(0, 10, 1001)
    found = scores(gaussian(u, 5.3, 0.4), gaussian(u, 5, 0.4), u)
    assert found["wasserstein"] == pytest.approx(0.3, abs=1e-6)
    # ||g(. - d) - g||^2 / ||g||^2 = 2 - 2 exp(-d^2 / (4 std^2)).
    assert found["relative_error"] == pytest.approx(np.sqrt(2 - 2 * np.exp(-(0.3**2) / (4 * 0.4**2))), abs=1e-6)
    assert 0.1 < found["mean_error"] < 0.3  # within the true peak, whose edge cuts the answer
    assert found["false_peaks"] == 0


def test_scores_of_the_truth_and_of_twice_the_truth():
    u = np.linspace(0, 10, 301)
    truth = gaussian(u, 3, 0.3) + gaussian(u, 7, 0.5, 0.5)
    assert set(scores(truth, truth, u).values()) == {0.0}
    double = scores(2 * truth, truth, u)
    assert double.pop("relative_error") == pytest.approx(1)
    assert max(double.values()) == pytest.approx(0, abs=1e-12)


def test_the_width_is_that_of_the_main_peak():
    """Uniform densities over 2 and over 1: standard deviations of both by their length over sqrt(12)."""
    u = np.linspace(0, 10, 10001)
    truth = np.where(np.abs(u - 3) < 1, 1.0, 0.0) + np.where(np.abs(u - 8) < 0.5, 0.8, 0.0)
    found = scores(np.where(np.abs(u - 3) < 0.5, 2.0, 0.0), truth, u)
    assert found["width_error"] == pytest.approx(1 / np.sqrt(12), abs=1e-3)
    assert found["mean_error"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("place", "height", "count"), [(7.0, 0.2, 1), (7.0, 0.05, 0), (3.0, 0.2, 0), (0.0, 0.2, 1), (10.0, 0.2, 1)]
)
def test_false_peaks(place, height, count):
    """They count where they are prominent and the truth is small; at either end of the grid, too."""
    u = np.linspace(0, 10, 501)
    truth = gaussian(u, 3, 0.5)
    assert scores(truth + gaussian(u, place, 0.3, height), truth, u)["false_peaks"] == count


def test_coverage_of_normal_bands():
    rng = np.random.default_rng(0)
    truth, x = rng.normal(10, 1, 20000), np.full(20000, 10.0)
    assert coverage(x - 1.6449, x + 1.6449, truth, x) == pytest.approx(0.9, abs=0.01)


# ---------------------------------------------------------------- rivals


@pytest.mark.parametrize(("name", "kind"), [("deer", "Rice"), ("drt", "ZARC")])
def test_only_the_oracle_sees_the_truth(name, kind):
    family, one = instrument(name, kind, 0.01), case(name, kind, 0.01, 1)
    wrong = dataclasses.replace(one, x=np.ones_like(one.x))
    for method, solve in rivals.METHODS.items():
        assert np.array_equal(solve(family, one), solve(family, wrong)) == (method != rivals.ORACLE), method


@pytest.mark.parametrize(("name", "kind"), [("deer", "broad peak"), ("drt", "log-normal")])
def test_errors_fall_with_the_noise_and_none_is_below_the_oracle_s(name, kind):
    """The oracle chooses among twenty parameters per decade, cross-validation and L-curve among others."""
    indices, means = [i for i in range(8) if case(name, kind, 0.01, i).present.all()][:4], {}
    for level in (1e-4, 1e-2, 0.1):
        family = instrument(name, kind, level)
        errors = {
            method: [error(rivals.METHODS[method](family, case(name, kind, level, i)), case(name, kind, level, i))
                     for i in indices]
            for method in (rivals.KNOWN, rivals.L_CURVE, rivals.ORACLE)
        }  # fmt: skip
        for method in (rivals.KNOWN, rivals.L_CURVE):
            assert np.all(np.array(errors[rivals.ORACLE]) <= 1.02 * np.array(errors[method]) + 1e-4)
        means[level] = {method: np.mean(values) for method, values in errors.items()}
    for method in (rivals.KNOWN, rivals.ORACLE):
        assert means[1e-4][method] < means[1e-2][method] < means[0.1][method]
    assert means[1e-4][rivals.ORACLE] < 0.05


@pytest.mark.parametrize(("name", "kind"), [("deer", "broad peak"), ("drt", "log-normal")])
def test_lmmse_is_the_posterior_mean_of_a_normal_prior(name, kind):
    """In the other form: the inverse of the posterior's covariance is A'A + C^-1."""
    family, one = instrument(name, kind, 0.03), case(name, kind, 0.03, 1)
    mean, C = rivals.moments(name, kind)
    C = C + 1e-3 * np.eye(len(mean))
    A, y = rivals.linear_problem(family, one)
    expected = mean + np.linalg.solve(A.T @ A + np.linalg.inv(C), A.T @ (y - A @ mean))
    found = rivals.linear_estimator.known_matrix(A[None], y[None], mean, C, np.ones(1))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    assert error(rivals.lmmse(family, one, kind), one) < error(mean, one)


# ---------------------------------------------------------------- packages


def check_answer(answer, one, limit):
    assert answer.x.shape == one.grid.shape
    assert error(answer.x, one) < limit
    if answer.lower is not None:
        assert np.all(answer.lower <= answer.upper)
        assert coverage(answer.lower, answer.upper, one.x[0], answer.x) > 0.3


@pytest.mark.skipif(not packages.installed("deerlab"), reason="needs deerlab")
def test_deerlab_finds_a_broad_peak():
    family, one = small("deer", "broad peak", 0.003)
    check_answer(packages.deerlab(family, one), one, 0.3)


@pytest.mark.skipif(not packages.installed("pyDRTtools"), reason="needs pyDRTtools")
def test_pydrttools_finds_a_lognormal_arc():
    family, one = small("drt", "log-normal", 0.003)
    check_answer(packages.pydrttools(family, one), one, 0.4)


@pytest.mark.skipif(not packages.installed("cuqi"), reason="needs cuqipy")
@pytest.mark.parametrize(("name", "kind"), [("deer", "broad peak"), ("drt", "log-normal")])
def test_cuqipy_samples_what_is_there_and_leaves_the_global_generator_alone(monkeypatch, name, kind):
    monkeypatch.setattr(packages, "WARMUP", 10)
    monkeypatch.setattr(packages, "SAMPLES", 30)
    family, one = small(name, kind, 0.01)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    answer = packages.cuqipy(family, one)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert answer.lower.min() >= 0
    check_answer(answer, one, 0.5)


@pytest.mark.parametrize("name", packages.DISTRIBUTIONS)
def test_a_missing_package_is_named_with_the_command(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=re.escape(f"pip install {packages.DISTRIBUTIONS[name]}")):
        packages.imported(name)
