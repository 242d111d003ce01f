"""The zero of a trace: of made-up ones with a known zero, and of measured ones whose timing is on record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algebraformer.instruments import traces
from algebraformer.instruments.files import read_trace
from algebraformer.problems.instruments import dipolar

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.mark.parametrize(("r", "error"), [(2.0, 0.016), (3.5, 0.016), (5.0, 0.07)])
@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("zero", [0.1, 0.3041])
def test_made_up_traces(r, error, rate, zero):
    """Within a quarter of a step of 8 ns without noise, and with noise of one per cent, within two steps in 95 % of 40.

    At 5 nm the trace bends too little for that within the 0.1 us that were recorded before its zero.
    """
    t = np.arange(0, 3, 0.008)
    distances = np.linspace(1.5, 7, 300)
    P = np.exp(-(((distances - r) / 0.15) ** 2) / 2)
    pairs = dipolar.dipolar_kernel(t - zero, distances) @ P / P.sum()
    V = dipolar.trace(t - zero, pairs, np.array(0.3), np.array(rate), np.array(3.0), np.array(1e5))
    assert traces.zero_time(t, V) == pytest.approx(zero, abs=0.002)
    rng = np.random.default_rng(0)
    errors = [abs(traces.zero_time(t, V + 1e3 * rng.standard_normal(len(t))) - zero) for _ in range(40)]
    assert np.quantile(errors, 0.95) < error


@pytest.mark.parametrize(
    ("name", "zero"), [("example_4pdeer_1", 0.2), ("example_4pdeer_2", 0.4), ("example_4pdeer_5", 0.5)]
)
def test_measured_traces(name, zero):
    """The first delay less the time at which recording starts, to two steps; in the last file times are absolute."""
    time, echo = read_trace(DATA / "deer" / f"{name}.csv")
    found = traces.zero_time(time, traces.phase_corrected(echo)[0].real)
    assert found == pytest.approx(zero, abs=0.016)


def test_a_trace_that_starts_at_its_zero():
    t = np.linspace(0, 2, 100)
    assert traces.zero_time(t, np.exp(-3 * t)) == 0.0
    assert traces.zero_time(t[:3], np.array([3.0, 2.0, 1.0])) == 0.0
