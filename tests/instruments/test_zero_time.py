"""The zero of a trace: of made-up ones with a known zero, and of measured ones whose timing is on record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algebraformer.instruments import traces
from algebraformer.instruments.deer import LARGEST_ERROR
from algebraformer.instruments.files import read_trace
from algebraformer.problems.instruments import dipolar

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.mark.parametrize(("r", "error"), [(2.0, 0.004), (3.5, 0.008), (5.0, 0.05)])
@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("zero", [0.1, 0.3041])
def test_made_up_traces(r, error, rate, zero):
    """Within a quarter of a step of 8 ns without noise, and with noise of one per cent, within one step in 95 % of 40.

    At 5 nm the trace bends too little for that within the 0.1 us that were recorded before its zero.
    """
    t = np.arange(0, 3, 0.008)
    distances = np.linspace(1.5, 7, 300)
    P = np.exp(-(((distances - r) / 0.15) ** 2) / 2)
    pairs = dipolar.dipolar_kernel(t - zero, distances) @ P / P.sum()
    V = dipolar.trace(t - zero, pairs, np.array(0.3), np.array(rate), np.array(3.0), np.array(1e5))
    assert traces.zero_time(t, V)[0] == pytest.approx(zero, abs=0.002)
    rng = np.random.default_rng(0)
    errors = [abs(traces.zero_time(t, V + 1e3 * rng.standard_normal(len(t)))[0] - zero) for _ in range(40)]
    assert np.quantile(errors, 0.95) < error


@pytest.mark.parametrize(
    ("name", "zero"), [("example_4pdeer_1", 0.2), ("example_4pdeer_2", 0.4), ("example_4pdeer_5", 0.5)]
)
def test_measured_traces(name, zero):
    """The first delay less the time at which recording starts, to two steps; in the last file times are absolute."""
    time, echo = read_trace(DATA / "deer" / f"{name}.csv")
    found, std = traces.zero_time(time, traces.phase_corrected(echo)[0].real)
    assert found == pytest.approx(zero, abs=0.016)
    assert std < LARGEST_ERROR


def test_a_trace_that_starts_at_its_zero():
    t = np.linspace(0, 2, 100)
    assert traces.zero_time(t, np.exp(-3 * t))[0] == 0.0
    assert traces.zero_time(t[:3], np.array([3.0, 2.0, 1.0]))[0] == 0.0


def noisy_zeros(depth, noise, count=40):
    """Return the zeros found, and their standard deviations, in traces with a zero at 0.2 us."""
    t, rng, distances = np.arange(0, 3.2, 0.016), np.random.default_rng(9), np.linspace(1.5, 7, 300)
    found = []
    for r in rng.uniform(2.5, 4, count):
        P = np.exp(-(((distances - r) / 0.15) ** 2) / 2)
        pairs = dipolar.dipolar_kernel(t - 0.2, distances) @ P / P.sum()
        V = (1 - depth + depth * pairs) * np.exp(-0.05 * np.abs(t - 0.2))
        found.append(traces.zero_time(t, V + noise * rng.standard_normal(len(t))))
    return np.array(found).T


@pytest.mark.parametrize(
    ("depth", "noise", "sure"), [(0.3, 0.01, 1.0), (0.3, 0.05, 0.9), (0.3, 0.1, 0.25), (0.1, 0.05, 0)]
)
def test_noise_is_in_the_standard_deviation(depth, noise, sure):
    """Errors are as large as it says; where it counts as known, one zero in 20 may be off by two steps of 16 ns."""
    zeros, std = noisy_zeros(depth, noise)
    assert 0.5 < np.sqrt(np.mean(((zeros - 0.2) / std) ** 2)) < 1.5
    known = std <= LARGEST_ERROR
    assert known.mean() >= sure
    assert np.mean(known & (np.abs(zeros - 0.2) > 0.032)) <= 0.05


def test_a_trace_without_modulation_has_no_zero():
    assert np.mean(noisy_zeros(0.0, 0.1)[1] > LARGEST_ERROR) > 0.9


def test_times_far_apart():
    """Of 40 points over 40 us, and of a trace whose points all lie at its ends."""
    for t in (np.linspace(-1, 40, 40), np.append(np.linspace(-0.1, 0.1, 50), 3.0)):
        assert np.isfinite(traces.zero_time(t, np.exp(-np.abs(t) / 3))).all()
