"""The study of noise: the noisy family, the classical methods against independent formulas, outcomes either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.problems import Systems, get
from algebraformer.reporting import Report, Verdict, conclusions
from studies.harness.study import load_study, run_study
from studies.noise import SENTENCES, outcomes, report, rivals
from studies.noise.systems import FAMILY, PLACES
from study_results import assert_tables_and_figure

# ---------------------------------------------------------------- the family


def noisy(n: int, level: float, place: str, count: int, seed: int = 0) -> Systems:
    return get(FAMILY, n=n, level=(level, level), places=(place,)).sample(count, seed)


@pytest.mark.parametrize("place", PLACES)
def test_noise_is_where_and_as_large_as_it_is_said_to_be(place: str) -> None:
    """The true x and the clean A and b are those of the family `diffusion`."""
    clean, one = get("diffusion", n=24).sample(40, 0), noisy(24, 1e-2, place, 40)
    np.testing.assert_array_equal(one.x, clean.x)
    for key, dirty, true in (("A", one.A, clean.A), ("b", one.b, clean.b)):
        sizes = np.sqrt([np.mean((p - q) ** 2) / np.mean(q**2) for p, q in zip(dirty, true, strict=True)])
        expected = 1e-2 if place in (key, "both") else 0
        assert np.sqrt(np.mean(sizes**2)) == pytest.approx(expected, rel=0.1)
        assert (sizes > 0).all() == (place in (key, "both"))


def test_the_noise_is_the_same_at_every_level_and_place() -> None:
    small, large = noisy(8, 1e-6, "A", 3), noisy(8, 1e-1, "both", 3)
    for name in ("E", "e"):
        np.testing.assert_array_equal(small.params[name], large.params[name])


def test_levels_are_log_uniform_and_places_equally_often() -> None:
    systems = get(FAMILY, n=4).sample(3000, 0)
    A, b = systems.params["A_level"], systems.params["b_level"]
    shares = [np.mean(mask) for mask in ((A > 0) & (b == 0), (A == 0) & (b > 0), (A > 0) & (b == A))]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)
    logs = np.log10(np.maximum(A, b))
    np.testing.assert_allclose(np.quantile(logs, [0, 0.25, 0.5, 0.75, 1]), np.linspace(-6, -1, 5), atol=0.15)


@pytest.mark.parametrize("settings", [{"level": (0.0, 1e-1)}, {"places": ("x",)}, {"places": ()}])
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        get(FAMILY, n=4, **settings)


# ---------------------------------------------------------------- the classical methods


def test_affine_estimate_against_the_precision_form() -> None:
    """(A' R^-1 A + C^-1)^-1 (A' R^-1 b + C^-1 mean) is the mean of a Gaussian x given b."""
    rng = np.random.default_rng(0)
    A, b, mean = rng.standard_normal((3, 5, 5)), rng.standard_normal((3, 5)), rng.standard_normal(5)
    C, R = (x @ x.T + 0.1 * np.eye(5) for x in rng.standard_normal((2, 5, 5)))
    for i, found in enumerate(rivals.affine(A, b, mean, C, R)):
        weights = A[i].T @ np.linalg.inv(R)
        precision = weights @ A[i] + np.linalg.inv(C)
        np.testing.assert_allclose(
            found, np.linalg.solve(precision, weights @ b[i] + np.linalg.solve(C, mean)), rtol=1e-9
        )


def test_estimate_of_A_is_the_conditional_mean_of_its_gaussian() -> None:
    """With as many matrices as there are entries and more, against mean + S (S + s^2 I)^-1 (a - mean)."""
    sample = noisy(4, 1e-3, "A", 60)
    prior, deviation = rivals.fit(sample, 60), np.array([3.0, 0.1])
    entries = sample.A.reshape(60, -1)
    S, mean = np.cov(entries, rowvar=False), entries.mean(axis=0)
    for found, a, s in zip(prior.estimated(sample.A[:2], deviation), entries[:2], deviation, strict=True):
        expected = mean + S @ np.linalg.solve(S + s**2 * np.eye(16), a - mean)
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6, atol=1e-9 * np.abs(a).max())


def test_an_estimated_A_helps_where_the_noise_is_on_A() -> None:
    family = get("diffusion", n=24)
    prior, test = rivals.fit(family.sample(400, 1), 200), noisy(24, 1e-2, "A", 60, seed=2)
    answers = rivals.answers(test, noisy(24, 1e-2, "A", 400, seed=3), prior)
    size = np.linalg.norm(test.x, axis=1)
    error = {name: np.median(np.linalg.norm(x - test.x, axis=1) / size) for name, x in answers.items()}
    assert error[rivals.LMMSE_A] < 0.1 * error[rivals.LU]
    for order in rivals.ORDERS:
        by = [error[rivals.named(choice, order)] for choice in (rivals.ORACLE, rivals.TIKHONOV, rivals.DISCREPANCY)]
        assert by[0] == min(by)


# ---------------------------------------------------------------- outcomes

LEVELS = (1e-4, 1e-2)


def made_up(**errors: tuple[float, float]) -> dict[str, Any]:
    """Data in which every method has the error 1 at both levels, unless another is given."""
    names = [
        rivals.named(choice, k) for choice in (rivals.TIKHONOV, rivals.DISCREPANCY, rivals.ORACLE) for k in (0, 1, 2)
    ]
    names += [
        rivals.LU,
        rivals.LMMSE,
        rivals.LMMSE_A,
        rivals.LINEAR,
        report.CLEAN,
        report.TOKEN,
        report.LSTM,
        report.GRU,
    ]
    rows = [
        {"place": place, "level": level, "method": name, "median": errors.get(name, (1.0, 1.0))[i]}
        for place in PLACES for i, level in enumerate(LEVELS) for name in names
    ]  # fmt: skip
    refined = [{"place": "A", "level": 1e-4, "certified": 1.0, "lapack": 0.5, "from_lu": 1e-9}]
    return {"systems": 1, "runs": [], "rows": rows, "refined": refined}


def test_outcomes_of_a_network_that_wins_late() -> None:
    data = made_up(**{report.TOKEN: (2.0, 0.5), report.CLEAN: (1.0, 4.0), rivals.named(rivals.TIKHONOV, 1): (0.8, 2.0)})
    found = outcomes(data)
    assert found["noise.lu/token head"].verdict == Verdict.HOLDS
    assert found["noise.lu/token head"].numbers["from_b"] == 1e-2
    assert found["noise.lu/LSTM"].numbers["to_A"] is None
    assert found["noise.lu/LSTM"].verdict == Verdict.FAILS
    classical = found["noise.classical/A"]
    assert (classical.verdict, classical.numbers["better"]) == (Verdict.PARTLY, 1)
    assert (classical.numbers["ratio_max"], classical.numbers["rival_max"]) == (2.5, rivals.TIKHONOV)
    assert classical.numbers["ratio_min"] == 0.5
    training = found["noise.training/both"]
    assert training.verdict == Verdict.PARTLY  # it harms at the low level
    assert (training.numbers["ratio_max"], training.numbers["ratio_min"]) == (8, 0.5)
    recurrent = found["noise.recurrent/b"]
    assert (recurrent.verdict, recurrent.numbers) == (Verdict.FAILS, {"place": "b", "one_direction": 1.0})
    assert found["noise.best/A"].numbers["methods"] == f"{rivals.TIKHONOV} (0.0001); token head (0.01)"
    assert found["noise.refined"].verdict == Verdict.HOLDS
    assert len(conclusions(found, SENTENCES)) == len(found)


def test_outcomes_of_a_network_that_wins_everywhere_or_nowhere() -> None:
    good, bad = (outcomes(made_up(**{report.TOKEN: (e, e)})) for e in (0.5, 2.0))
    for key, verdict in (
        ("lu/token head", Verdict.HOLDS),
        ("classical/A", Verdict.HOLDS),
        ("training/A", Verdict.HOLDS),
    ):
        assert (good[f"noise.{key}"].verdict, bad[f"noise.{key}"].verdict) == (verdict, Verdict.FAILS)
    assert good["noise.recurrent/A"].verdict == Verdict.HOLDS


# ---------------------------------------------------------------- the whole study


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("noise"), "quick", tmp_path_factory.mktemp("noise"), Progress(disable=True))


def test_every_method_is_measured_everywhere(quick: Report) -> None:
    for place in PLACES:
        found = report.errors(quick.data, place)
        assert set(found) == set(report.METHODS) - {report.GRU, report.BILSTM}
        assert {len(values) for values in found.values()} == {3}
    with_noise_on_b = report.errors(quick.data, "b")
    assert with_noise_on_b[rivals.LU] == sorted(with_noise_on_b[rivals.LU])
    assert quick.outcomes["noise.refined"].verdict == Verdict.HOLDS


def test_figure_and_tables(quick: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("noise", quick, tmp_path)
