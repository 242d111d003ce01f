"""The studies of noisy systems: intervals, ratios and sentences on made-up numbers, then the quick presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.progress import Progress

from algebraformer import problems
from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.training.data import TEST_SEED
from studies import heldout
from studies.baselines import noisy as noisy_baselines
from studies.baselines.noisy import LEARNED, LEARNED_ALL, LMMSE, METHODS, TIKHONOV
from studies.harness.study import load_study, run_study
from studies.noisy import measure as noisy
from studies.noisy import report
from studies.noisy.report import CV, ORACLE, TV_ORACLE
from study_results import assert_tables_and_figure

# ---------------------------------------------------------------- baselines


def test_no_method_is_told_too_much() -> None:
    """Everything but oracles stays the same if the true x is replaced."""
    systems = problems.get("shaw", n=16, priors=("spikes",), noise=(1e-2, 1e-2)).sample(3, seed=0)
    prior = noisy_baselines.prior_of(problems.get("shaw", n=16, priors=("spikes",)))
    wrong = problems.Systems(systems.A, systems.b, np.ones_like(systems.x), systems.params)
    found, again = (
        noisy_baselines.fast(noisy_baselines.decompositions(s.A), s, prior)
        | noisy_baselines.slow(s, ("total variation", "lasso", "matching pursuit"))
        for s in (systems, wrong)
    )
    assert set(found) == set(METHODS) - {LEARNED, LEARNED_ALL}
    assert {m for m in found if not np.array_equal(found[m], again[m])} <= {m for m in found if "oracle" in m}
    for method, x in found.items():
        assert x.shape == (3, 16), method
    for method in (*TIKHONOV, "TSVD", "total variation", "lasso", "matching pursuit"):
        best = np.linalg.norm(found[f"{method}, oracle"] - systems.x, axis=1)
        assert np.all(best <= np.linalg.norm(found[f"{method}, discrepancy"] - systems.x, axis=1) + 1e-9)


def test_prior_moments() -> None:
    """Signals of mean square 1 without a preferred sign: mean near 0, trace of the covariance near n."""
    prior = noisy_baselines.prior_of(problems.get("deblur", n=20, priors=("piecewise",)))
    assert np.abs(prior.mean).max() < 0.08
    assert np.trace(prior.covariance) == pytest.approx(20, rel=0.01)
    assert np.linalg.eigvalsh(prior.covariance).min() > 0


def test_noise_norm_is_what_the_noise_has() -> None:
    systems = problems.get("gravity", n=64).sample(100, seed=0)
    actual = np.linalg.norm(systems.b - systems.params["clean"], axis=1)
    assert np.mean(actual / noisy_baselines.noise_norm(systems)) == pytest.approx(1, abs=0.03)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_intervals_are_those_of_scipy(share: float) -> None:
    errors = np.random.default_rng(3).lognormal(size=60)
    found = scipy.stats.bootstrap(
        (errors,),
        lambda e, axis: np.quantile(e, share, axis=axis),
        n_resamples=5000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(report.interval(errors, share), found, rtol=0.1)


def made_up(factor: dict[float, float], families: tuple[str, ...] = ("deblur",), **more: float) -> report.Errors:
    """Two priors and the levels of `factor`; Tikhonov by cross-validation is 1, and the learned solver `factor`."""
    base = {m: 1.0 for m in METHODS if m not in (LEARNED, LEARNED_ALL)} | {f"{t}, oracle": 0.8 for t in TIKHONOV}
    base |= {LMMSE: 0.7, TV_ORACLE: 0.5}
    errors: report.Errors = {}
    for family in families:
        for prior in ("piecewise", "spikes"):
            for level, value in factor.items():
                cell = {m: [v * 0.9, v, v * 1.1] for m, v in (base | more).items()}
                cell[LEARNED] = [value * 0.9, value, value * 1.1]
                cell[TV_ORACLE] = cell[TV_ORACLE][:2]
                errors[family, prior, level] = cell
    return errors


ABOUT: dict[str, Any] = {"n": 4, "systems": 3, "slow": 2, "models": {}}
TIMES = {"deblur": {"1": {LEARNED: 5e-3, "total variation": 4e-2}, "64": {LEARNED: 1e-3, "total variation": 4e-2}}}


def outcomes(errors: report.Errors, times: Any = TIMES) -> dict[str, Outcome]:
    return dict(report.summary(errors, times, ABOUT).outcomes)


def aim(family: str, theirs: str) -> str:
    return f"noisy.aim/{family}, {theirs}"


def test_targets_that_are_met() -> None:
    found = outcomes(made_up({1e-3: 0.4, 1e-2: 0.4, 1e-1: 0.3}))
    for theirs, ratios in (
        (CV, {"0.001": 0.4, "0.01": 0.4, "0.1": 0.3}),
        (ORACLE, {"0.001": 0.5, "0.01": 0.5, "0.1": 0.375}),
        (LMMSE, {"0.001": 4 / 7, "0.01": 4 / 7, "0.1": 3 / 7}),
        (TV_ORACLE, {"0.01": 0.8, "0.1": 0.6}),
    ):
        one = found[aim("deblur", theirs)]
        assert (one.verdict, one.numbers["missed"]) == (Verdict.MET, 0)
        assert {key: value for key, value in one.numbers.items() if key.startswith("0.")} == pytest.approx(ratios)
    time = found["noisy.time/deblur"]
    assert (time.verdict, time.numbers["batch"], time.numbers["speed_up"]) == (Verdict.MET, 64, pytest.approx(40))
    assert found["noisy.lowest-error/deblur"].numbers == {"family": "deblur", "cells": 6, LEARNED: 6}
    assert conclusions(found, report.SENTENCES)[::3] == [
        "deblur (learned): median error at most 0.6 times that of Tikhonov, cross-validation: met at 3 of 3 levels "
        "(ratio 0.4 at noise 0.001, 0.4 at noise 0.01, 0.3 at noise 0.1).",
        "deblur (learned): median error at most that of total variation, oracle: met at 2 of 2 levels (ratio 0.8 at "
        "noise 0.01, 0.6 at noise 0.1).",
    ]
    assert conclusions(found, report.SENTENCES)[4:] == [
        "deblur, batch 64: at most 1/20 of the time of one total-variation solve: met, 1/40 (1 ms against 40 ms).",
        "deblur: lowest median error, oracles aside, in 6 cells: learned in 6.",
    ]


def test_targets_that_are_missed() -> None:
    slow = {"deblur": {"64": {LEARNED: 4e-3, "total variation": 4e-2}}}
    found = outcomes(made_up({1e-3: 0.9, 1e-2: 0.4, 1e-1: 0.65}), slow)
    for theirs, missed in ((CV, 2), (ORACLE, 1), (TV_ORACLE, 1)):
        one = found[aim("deblur", theirs)]
        assert (one.verdict, one.numbers["missed"]) == (Verdict.MISSED, missed)
    assert found[aim("deblur", TV_ORACLE)].numbers["0.1"] == pytest.approx(1.3)
    assert found["noisy.time/deblur"].verdict == Verdict.MISSED
    assert found["noisy.time/deblur"].numbers["speed_up"] == pytest.approx(10)
    assert found["noisy.lowest-error/deblur"].numbers[LMMSE] == 2
    alone = outcomes(made_up({1e-2: 2.0}))[aim("deblur", CV)]
    assert (alone.verdict, alone.numbers["0.01"]) == (Verdict.MISSED, 2)


def test_equal_counts_where_it_may() -> None:
    """At most is met by equal medians, below is not."""
    found = outcomes(made_up({1e-2: 0.5}, **{LMMSE: 0.5}))
    assert found[aim("deblur", LMMSE)].verdict == Verdict.MISSED
    assert found[aim("deblur", TV_ORACLE)].verdict == Verdict.MET
    assert found[aim("deblur", LMMSE)].numbers["0.01"] == found[aim("deblur", TV_ORACLE)].numbers["0.01"] == 1


def test_ratios_that_were_not_measured_are_inconclusive() -> None:
    data = report.summary(made_up({1e-2: 0.4}), TIMES, ABOUT).data
    found = report.outcomes({key: value for key, value in data.items() if key != "paired"})
    assert found[aim("deblur", TV_ORACLE)].verdict == Verdict.INCONCLUSIVE
    assert found[aim("deblur", CV)].verdict == Verdict.MET


def test_other_families_and_absent_models() -> None:
    found = outcomes(made_up({1e-3: 1.01, 1e-2: 1.1}, ("shaw",)), {})
    one = found[aim("shaw", CV)]
    assert (one.verdict, one.numbers["missed"], one.numbers["aim"]) == (Verdict.MISSED, 1, 1.02)
    assert (one.numbers["0.001"], one.numbers["0.01"]) == pytest.approx((1.01, 1.1))
    errors = made_up({1e-3: 1.0}, ("shaw",))
    for cell in errors.values():
        del cell[LEARNED]
    absent = outcomes(errors, {})
    assert absent["noisy.learned/shaw"].verdict == Verdict.INCONCLUSIVE
    assert conclusions(absent, report.SENTENCES)[0] == "shaw: no model, so there is no learned solver to measure."


def test_ratios_are_of_common_systems_and_of_the_best_order() -> None:
    errors = made_up({1e-2: 1.0}, **{"Tikhonov 1, cross-validation": 0.5})
    assert report.ratio(errors, "deblur", 1e-2, LEARNED, CV) == pytest.approx(2)
    errors["deblur", "spikes", 1e-2][LEARNED][2] = 1e9  # total variation has not seen the third system
    assert report.ratio(errors, "deblur", 1e-2, LEARNED, TV_ORACLE) == pytest.approx(0.95 / 0.475)
    found = report.pooled(errors, "deblur", 1e-2)
    assert np.median(found[CV]) == pytest.approx(0.5)
    assert np.median(found[ORACLE]) == pytest.approx(0.8)
    assert len(found[LEARNED]) == 6


def group(name: str, **values: Any) -> dict[str, Any]:
    one = {"family": "deblur", "group": name, "learned": 0.1, "tikhonov": 0.2, "total_variation": 0.2, "guarded": 0.1}
    one |= {
        "coverage": 0.9,
        "consistent": 1.0,
        "in_distribution": 1.0,
        "flagged": 0.0,
        "lost": 0.0,
        "lost_flagged": None,
    }
    return one | values


def held_out(*groups: dict[str, Any]) -> dict[str, Outcome]:
    return heldout.outcomes({"models": {"deblur": "model"}, "groups": list(groups)})


def test_outcomes_of_held_out_groups() -> None:
    inside = group(heldout.INSIDE, flagged=0.02)
    good = held_out(inside, group("wider"))
    assert {key: found.verdict for key, found in good.items()} == {
        "heldout.beats-tikhonov/deblur": Verdict.HOLDS,
        "heldout.guarded/deblur": Verdict.HOLDS,
    }
    assert good["heldout.beats-tikhonov/deblur"].numbers == {
        "family": "deblur", "groups": 1, "lost": 0, "false_alarms": 0.02,
    }  # fmt: skip
    noticed = group("wider", learned=0.5, guarded=0.21, flagged=0.97, lost=0.9, lost_flagged=0.99)
    found = held_out(inside, group("steeper"), noticed)
    assert found["heldout.beats-tikhonov/deblur"].verdict == Verdict.PARTLY
    assert found["heldout.beats-tikhonov/deblur"].numbers["lost"] == 1
    assert found["heldout.lost-is-flagged/deblur, wider"] == Outcome(
        Verdict.HOLDS,
        {"family": "deblur", "group": "wider", "learned": 0.5, "tikhonov": 0.2, "flagged": 0.97, "lost": 0.9,
         "lost_flagged": 0.99},
    )  # fmt: skip
    assert found["heldout.guarded/deblur"].verdict == Verdict.HOLDS
    assert found["heldout.guarded/deblur"].numbers["ratio"] == pytest.approx(1.05)
    assert conclusions(found, heldout.SENTENCES) == [
        "deblur: on held-out groups the learned solver has a higher median error than cross-validated Tikhonov in 1 "
        "of 2 groups. Systems flagged as trained: 2 %.",
        "deblur, wider: median error 0.5 (Tikhonov 0.2); 97 % of the systems are flagged, 90 % are lost, of which 99 % "
        "are flagged.",
        "deblur: with Tikhonov's answer for flagged systems, the median error is at most 1.1 times Tikhonov's: holds. "
        "The largest ratio is 1.05 (wider).",
    ]
    silent = group("wider", learned=0.5, guarded=0.5, flagged=0.1, lost=0.9, lost_flagged=0.1)
    found = held_out(inside, silent)
    assert found["heldout.lost-is-flagged/deblur, wider"].verdict == Verdict.FAILS
    assert found["heldout.guarded/deblur"].verdict == Verdict.FAILS
    assert found["heldout.guarded/deblur"].numbers["ratio"] == pytest.approx(2.5)
    (absent,) = held_out().values()
    assert (absent.verdict, absent.numbers["groups"]) == (Verdict.INCONCLUSIVE, 0)


@pytest.mark.parametrize("disturbance", [change["disturbance"] for change in heldout.GROUPS["deblur"].values()
                                         if "disturbance" in change])  # fmt: skip
def test_disturbed_systems_by_hand(disturbance: dict[str, Any]) -> None:
    """A is as it was; b is what the instrument would measure, with the same unit noise and level."""
    family = problems.get("deblur", n=32, m=20)
    systems = family.sample(6, seed=1)
    found = heldout.disturbed(family, systems, **disturbance)
    assert np.array_equal(found.A, systems.A)
    np.testing.assert_allclose(np.linalg.norm(found.x, axis=1), np.sqrt(32))
    assert np.allclose(found.x, systems.x) == ("signals" not in disturbance)
    A = systems.A
    if "setting" in disturbance:
        width = 1.15 * systems.params["width"]
        same = problems.get("deblur", n=32, m=20, width=(1.0, 1.0))
        A = same.matrix({**systems.params, "width": width})
        assert not np.allclose(A, systems.A)
    clean = np.einsum("bmn,bn->bm", A, found.x)
    size = systems.params["noise"] * np.sqrt(np.mean(clean**2, axis=1))
    left = (found.b - clean) / size[:, None] - systems.params["z"]
    expected = disturbance.get("drift", 0.0) * np.linspace(-1, 1, 20)
    np.testing.assert_allclose(left, np.tile(expected, (6, 1)), atol=1e-9)
    np.testing.assert_allclose(found.params["clean"], clean, rtol=1e-10, atol=1e-12)


def test_nothing_disturbed_is_the_same() -> None:
    family = problems.get("deblur", n=8)
    systems = family.sample(2, seed=1)
    assert heldout.disturbed(family, systems) is systems


# ---------------------------------------------------------------- the quick presets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noisy")


@pytest.fixture(scope="module")
def result(folder: Path) -> Report:
    return run_study(load_study("noisy"), "quick", folder, Progress(disable=True))


@pytest.fixture(scope="module")
def outside(folder: Path, result: Report) -> Report:
    return run_study(
        load_study("heldout"), "quick", folder, Progress(disable=True)
    )  # with the network of the other study


def test_every_cell_is_there(result: Report) -> None:
    plan = noisy.PRESETS["quick"]
    cells = [(f, p, level) for f in plan.families for p in plan.priors for level in plan.levels]
    every = result.tables[3]
    assert [tuple(row[:3]) for row in every.rows] == cells
    missing = {every.columns[i] for row in every.rows if row[1] == "piecewise" for i, v in enumerate(row) if v is None}
    sparse = {f"{m}, {choice}" for m in ("lasso", "matching pursuit") for choice in ("discrepancy", "oracle")}
    assert missing == sparse | {LEARNED}
    assert all(row[every.columns.index(LEARNED_ALL)] is not None for row in every.rows)
    assert {row[0] for row in every.rows if row[every.columns.index(LEARNED)] is not None} == {"deblur"}
    assert result.data["models"]["gravity"] is None
    times = result.tables[2]
    assert {row[0] for row in times.rows} == set(plan.timed)
    assert all(value > 0 for row in times.rows for value in row[3:])


def test_errors_are_those_of_the_systems(result: Report, folder: Path) -> None:
    """LMMSE, the affine estimate of one cell, from its formula and a sample of the prior of its own."""
    kept = json.loads((folder / "shaw-piecewise.json").read_text())["found"][0][LMMSE]
    systems = problems.get("shaw", n=12, priors=("piecewise",), noise=(1e-2, 1e-2)).sample(8, TEST_SEED)
    signals = problems.get("deblur", n=12, priors=("piecewise",)).sample(4000, seed=5).x
    C = np.cov(signals.T)
    for i, error in enumerate(kept):
        A, b, x = systems.A[i], systems.b[i], systems.x[i]
        variance = 1e-4 * np.mean((A @ x) ** 2)
        estimate = C @ A.T @ np.linalg.solve(A @ C @ A.T + variance * np.eye(12), b)
        assert np.linalg.norm(estimate - x) / np.linalg.norm(x) == pytest.approx(error, abs=0.05)
    point = next(
        one
        for one in result.data["priors"]
        if (one["family"], one["prior"], one["level"]) == ("shaw", "piecewise", 1e-2)
    )
    assert point["medians"][LMMSE] == pytest.approx(np.median(kept), rel=1e-3)


def test_the_second_run_goes_on_from_the_first(result: Report, folder: Path) -> None:
    path = folder / "gravity-spikes.json"
    changed = json.loads(path.read_text())
    changed["found"][0][LMMSE] = [123.0] * 8
    path.write_text(json.dumps(changed))
    before = (folder / "model-deblur" / "seconds.json").stat().st_mtime_ns
    again = run_study(load_study("noisy"), "quick", folder, Progress(disable=True))
    assert (folder / "model-deblur" / "seconds.json").stat().st_mtime_ns == before
    assert any(one["medians"][LMMSE] == 123.0 for one in again.data["priors"])
    assert again.data["priors"][0] == result.data["priors"][0]


def test_groups_of_the_held_out(outside: Report) -> None:
    groups = {one["group"]: one for one in outside.data["groups"]}
    assert list(groups) == list(heldout.GROUPS["deblur"])
    assert {one["family"] for one in outside.data["groups"]} == {"deblur"}
    assert outside.outcomes["heldout.beats-tikhonov/gravity"].verdict == Verdict.INCONCLUSIVE
    assert groups["another instrument"]["in_distribution"] < groups[heldout.INSIDE]["in_distribution"]
    for one in groups.values():
        reasons = 1 - one["consistent"], 1 - one["in_distribution"]
        assert max(reasons) <= one["flagged"] + 1e-12
        assert one["flagged"] <= sum(reasons) + 1e-12
    assert groups["another instrument"]["flagged"] > groups[heldout.INSIDE]["flagged"]


@pytest.mark.parametrize("name", ["noisy", "heldout"])
def test_tables_and_figures(name: str, result: Report, outside: Report, tmp_path: Path) -> None:
    assert_tables_and_figure(name, {"noisy": result, "heldout": outside}[name], tmp_path)


def test_a_figure_without_any_model() -> None:
    found = heldout.summary(heldout.Plan(models={"deblur": "no-such-model"}), [], {"deblur": None})
    assert [one.verdict for one in found.outcomes.values()] == [Verdict.INCONCLUSIVE]
    assert found.conclusions == ["deblur: no model, so there is no learned solver to measure."]
    assert len(load_study("heldout").figure(found.data).axes) == 2
