"""The study of faults: what is added to measurements, by closed forms; outcomes; and its quick preset as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.plotting import save
from algebraformer.problems.instruments.dipolar import dipolar_kernel
from algebraformer.reporting import Report, Verdict
from studies import faults
from studies.harness.measurements import PRIOR, case
from studies.harness.study import load_study, run_study, where

LEVEL = 0.01


def added(name, fault, index=0):
    """Return a measurement and what a fault adds to its data."""
    one = case(name, PRIOR, LEVEL, index)
    recorded = faults.FAULTS[name][fault](one, np.random.default_rng(1))
    np.testing.assert_array_equal(recorded.abscissa, one.abscissa)
    return one, (recorded.data - one.data)[0]


@pytest.mark.parametrize("name", faults.FAULTS)
def test_two_in_a_hundred_data_are_six_deviations_off(name):
    one, difference = added(name, "outliers")
    off = np.flatnonzero(difference)
    assert len(off) == max(1, round(0.02 * one.data.shape[1]))
    np.testing.assert_allclose(np.abs(difference[off]), 6 * one.std[0, off])


@pytest.mark.parametrize("name", faults.FAULTS)
def test_correlated_noise_has_the_size_of_the_noise(name):
    """Variance one, correlations 1/2 and 1/4 of first and second neighbours; within parts of a spectrum."""
    squares, first, second = [], [], []
    for index in range(60):
        one = case(name, PRIOR, LEVEL, index)
        z = (faults.coloured(one, np.random.default_rng(index)).data - one.clean) / one.std
        for part in z.reshape(-1, len(one.abscissa)):
            squares.extend(part**2)
            first.extend(part[1:] * part[:-1])
            second.extend(part[2:] * part[:-2])
    allowed = 5 * np.sqrt(3 / len(squares))  # of means of products whose neighbours are correlated
    assert np.mean(squares) == pytest.approx(1, abs=allowed)
    assert np.mean(first) == pytest.approx(0.5, abs=allowed)
    assert np.mean(second) == pytest.approx(0.25, abs=allowed)


def test_traces_drift_by_two_per_cent_and_bursts_are_of_five():
    one, line = added("deer", "drift")
    np.testing.assert_allclose(line[[0, -1]], [0, 0.02 * one.nuisance["amplitude"][0]], atol=1e-15)
    slopes = np.diff(line) / np.diff(one.abscissa)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-6)
    one, hump = added("deer", "burst")
    assert 0.04 < hump.max() / one.nuisance["amplitude"][0] <= 0.05
    area = np.trapezoid(hump, one.abscissa)
    assert area == pytest.approx(0.05 * 0.05 * np.sqrt(2 * np.pi), rel=0.01)  # height, width


def test_two_backgrounds_are_a_mean_of_two_traces():
    one, difference = added("deer", "two backgrounds")
    depth, shift = (one.nuisance[key][0] for key in ("modulation_depth", "zero_time"))
    t, P = one.abscissa - shift, one.x[0] / one.x[0].sum()
    pairs = dipolar_kernel(t, one.grid) @ P
    decay = (np.exp(-0.05 * np.abs(t)) + np.exp(-0.5 * np.abs(t))) / 2
    expected = one.nuisance["amplitude"][0] * (1 - depth + depth * pairs) * decay
    np.testing.assert_allclose(one.clean[0] + difference, expected, atol=1e-4)


def test_a_spectrum_drifts_in_its_real_part():
    one, difference = added("drt", "drift")
    real, imaginary = np.split(difference, 2)
    largest = np.abs(np.split(one.clean[0], 2)[0] + 1j * np.split(one.clean[0], 2)[1]).max()
    np.testing.assert_allclose(real[[0, -1]], [0.02 * largest, 0], atol=1e-15)
    assert not imaginary.any()


@pytest.mark.parametrize(("fault", "share"), [("negative arc, 0.1", 0.1), ("negative arc, 0.3", 0.3)])
def test_negative_arcs_lie_on_an_arc_of_a_circle(fault, share):
    """Of -R / (1 + (i w tau)^a): the chord is R, and the centre above it by R cot(a pi / 2) / 2."""
    _, difference = added("drt", fault)
    real, imaginary = np.split(difference, 2)
    radius, above = share / (2 * np.sin(0.4 * np.pi)), share / (2 * np.tan(0.4 * np.pi))
    np.testing.assert_allclose(np.hypot(real + share / 2, imaginary + above), radius, rtol=1e-9)
    assert real.max() <= 0 <= imaginary.min()


def test_loops_are_inductive():
    """On a half circle above the real axis, from 0 at low to R at high frequencies."""
    one, difference = added("drt", "inductive loop")
    real, imaginary = np.split(difference, 2)
    np.testing.assert_allclose(np.hypot(real - 0.1, imaginary), 0.1, rtol=1e-9)
    assert imaginary.min() >= 0
    assert (np.diff(real) > 0).all()
    assert 3 < one.abscissa[np.argmin(np.abs(real - 0.1))] / one.abscissa[0] < 33


@pytest.mark.parametrize(("name", "fault"), [("deer", faults.HALF_TRACE), ("drt", faults.HALF_SPECTRUM)])
def test_half_a_measurement(name, fault):
    one = case(name, PRIOR, LEVEL, 0)
    half = faults.FAULTS[name][fault](one, np.random.default_rng(0))
    chosen = np.isin(one.abscissa, half.abscissa)
    assert 0.4 < chosen.mean() < 0.6
    assert half.data.shape[1] == half.present.shape[0] == one.data.shape[1] // len(one.abscissa) * chosen.sum()
    assert (half.abscissa[-1] == one.abscissa[-1]) == (name == "drt")


def data_of(alarms, drift, outliers):
    rows = [(faults.NONE, alarms), (faults.HALF_TRACE, 0.0), ("drift", drift), ("outliers", outliers)]
    groups = [
        {"instrument": "deer", "fault": fault, "level": level, "flagged": share + 0.01 * (level > 0.01), "error": 0.1}
        for level in (0.01, 0.03)
        for fault, share in rows
    ]
    return {"systems": 10, "models": {"deer": "abc"}, "groups": groups}


@pytest.mark.parametrize(
    ("shares", "alarms", "seen", "missed"),
    [
        ((0.02, 0.6, 0.7), Verdict.MET, Verdict.HOLDS, ""),
        ((0.04, 0.495, 0.7), Verdict.MET, Verdict.PARTLY, "drift"),
        ((0.05, 0.1, 0.2), Verdict.MISSED, Verdict.FAILS, "drift, outliers"),
    ],
)
def test_outcomes_follow_the_numbers(shares, alarms, seen, missed):
    found = faults.outcomes(data_of(*shares))
    assert found["faults.false-alarms/deer"].verdict == alarms
    assert found["faults.false-alarms/deer"].numbers["share"] == pytest.approx(shares[0] + 0.01)
    assert found["faults.seen/deer"].verdict == seen
    assert found["faults.seen/deer"].numbers["missed"] == missed
    assert found["faults.seen/deer"].numbers["faults"] == 2


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("faults"), "quick", tmp_path_factory.mktemp("faults"), Progress(disable=True))


def test_the_quick_preset_measures_every_fault(quick: Report, tmp_path: Path) -> None:
    for name, known in faults.FAULTS.items():
        mine = where(quick.data["groups"], instrument=name)
        assert [(row["level"], row["fault"]) for row in mine] == [
            (level, key) for level in (0.01, 0.03) for key in known
        ]
    for row in quick.data["groups"]:
        low, high = sorted((row["consistent"], row["in_distribution"]))
        assert 1 - low <= row["flagged"] <= 2 - low - high
        assert np.isfinite(row["error"])
    assert len(quick.tables) == 2
    save(faults.figure(quick.data), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
