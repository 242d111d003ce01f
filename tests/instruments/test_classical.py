"""Classical answers on made-up measurements whose distribution is known, and on measured ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algebraformer.instruments import traces
from algebraformer.instruments.classical import fit_deer, fit_drt
from algebraformer.instruments.files import read_spectrum, read_trace
from algebraformer.problems.instruments import dipolar, relaxation

DATA = Path(__file__).parents[2] / "examples" / "data"


def made_trace(noise, depth=0.3, rate=0.15, amplitude=7.0, seed=0):
    """A trace of two peaks; the data come from a grid ten times finer than that of the answers."""
    t, fine = np.linspace(-0.1, 3, 200), np.linspace(1.5, 7, 1000)
    P = 0.7 * np.exp(-(((fine - 3.0) / 0.2) ** 2) / 2) / 0.2 + 0.3 * np.exp(-(((fine - 4.2) / 0.3) ** 2) / 2) / 0.3
    P /= np.trapezoid(P, fine)
    pairs = dipolar.dipolar_kernel(t, fine) @ P * (fine[1] - fine[0])
    V = dipolar.trace(t, pairs, np.array(depth), np.array(rate), np.array(3.0), np.array(amplitude))
    r = dipolar.distance_grid(3.0, 100)
    e = noise * amplitude * np.random.default_rng(seed).standard_normal(len(t))
    return t, V + e, r, np.interp(r, fine, P)


@pytest.mark.parametrize(("noise", "error"), [(1e-4, 0.08), (0.01, 0.25)])
def test_a_trace_is_fitted_with_its_background(noise, error):
    t, V, r, P = made_trace(noise)
    found = fit_deer(t, V, r)
    assert np.trapezoid(found.x, r) == pytest.approx(1.0, abs=0.02)
    assert found.x.min() >= 0
    assert np.linalg.norm(found.x - P) / np.linalg.norm(P) < error
    assert found.nuisance["modulation_depth"] == pytest.approx(0.3, abs=0.02 + noise)
    assert found.nuisance["background_rate"] == pytest.approx(0.15, abs=0.02 + 3 * noise)
    assert found.nuisance["amplitude"] == pytest.approx(7.0, rel=0.01 + noise)
    assert np.sqrt(np.mean((found.fitted - V) ** 2)) == pytest.approx(7 * noise, rel=0.25, abs=3e-3)


def test_a_trace_scales():
    t, V, r, _ = made_trace(0.01)
    once, thousand = fit_deer(t, V, r), fit_deer(t, 1000 * V, r)
    np.testing.assert_allclose(thousand.x, once.x, atol=1e-6)
    np.testing.assert_allclose(thousand.fitted, 1000 * once.fitted, rtol=1e-6)


def zarc(f, R, time, exponent):
    return R / (1 + (2j * np.pi * f * time) ** exponent)


@pytest.mark.parametrize("elements", [(10.0, 0.0, np.inf), (2.0, 1e-6, 0.5)])
def test_a_spectrum_of_two_arcs(elements):
    """Resistances of arcs and elements in series, from impedances in closed form with noise of 0.1 %."""
    f = np.logspace(-2, 6, 81)
    R, L, C = elements
    Z = R + 2j * np.pi * f * L + 1 / (2j * np.pi * f) / C + zarc(f, 40.0, 1e-4, 0.9) + zarc(f, 20.0, 1e-1, 0.85)
    noise = np.random.default_rng(1).standard_normal((2, 81))
    tau = relaxation.time_grid(f, 120)
    found = fit_drt(f, Z + 0.03 * (noise[0] + 1j * noise[1]), tau)
    assert found.x.min() >= 0
    u = np.log(tau)
    first = tau < 3e-3
    assert np.trapezoid(np.where(first, found.x, 0), u) == pytest.approx(40, rel=0.05)
    assert np.trapezoid(np.where(first | (tau > 3), 0, found.x), u) == pytest.approx(20, rel=0.1)
    assert found.nuisance["R_inf"] == pytest.approx(R, abs=0.3)
    assert found.nuisance["inductance"] == pytest.approx(L, abs=1e-7)
    assert 1 / found.nuisance["series_capacitance"] == pytest.approx(1 / C, abs=0.05)
    assert np.abs(found.fitted - Z).max() < 0.15


@pytest.mark.parametrize(("name", "zero_us"), [("example_4pdeer_1", 0.2), ("example_4pdeer_3", 0.216)])
def test_measured_traces_are_fitted_to_their_noise(name, zero_us):
    """The residual is as large as the noise, which third differences show: the signal is smooth over 50 ns."""
    time, echo = read_trace(DATA / "deer" / f"{name}.csv")
    t, V = time - zero_us, traces.phase_corrected(echo)[0].real
    r = dipolar.distance_grid(t[-1], 80)
    found = fit_deer(t, V, r)
    noise = np.std(np.diff(V, 3)) / np.sqrt(20)
    assert 0.8 < np.std(found.fitted - V) / noise < 1.3
    assert 0.05 < found.nuisance["modulation_depth"] < 0.7
    assert found.nuisance["amplitude"] == pytest.approx(V.max(), rel=0.05)


@pytest.mark.parametrize("name", ["zarc", "havriliak_negami", "two_zarc_0", "two_zarc_2"])
def test_spectra_by_formula(name):
    """Their noise is 0.2 to 1 ohm in arcs of 50 ohm; the series resistance is 10 ohm where the file says so."""
    f, Z = read_spectrum(DATA / "eis" / f"{name}.csv")
    found = fit_drt(f, Z, relaxation.time_grid(f, 120))
    assert np.sqrt(np.mean(np.abs(found.fitted - Z) ** 2)) < 1.5
    if not name.startswith("two"):
        assert found.nuisance["R_inf"] == pytest.approx(10, abs=0.5)
        total = np.trapezoid(found.x, np.log(relaxation.time_grid(f, 120)))
        assert total == pytest.approx(50, rel=0.03)
