"""The linear maps of instruments against quadrature and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad

from algebraformer.instruments import traces
from algebraformer.problems.instruments import dipolar, relaxation


@pytest.mark.parametrize("r", [1.5, 2.0, 3.7, 6.0, 10.0])
@pytest.mark.parametrize("t", [-0.3, 0.0, 1e-9, 1e-4, 0.01, 0.4, 3.0, 8.0])
def test_dipolar_kernel_is_the_average_over_orientations(t, r):
    """The mean of cos(omega t) over the sphere, by quadrature piece by piece: the integrand oscillates."""
    phase = 2 * np.pi * 52.04 * t / r**3
    pieces = np.linspace(0, 1, 2 + int(abs(phase)))
    expected = sum(
        quad(lambda z: np.cos((3 * z * z - 1) * phase), low, high, epsabs=1e-13)[0]
        for low, high in itertools.pairwise(pieces)
    )
    found = dipolar.dipolar_kernel(np.array([t]), np.array([r]))
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(expected, abs=1e-10)


def test_kernels_of_a_batch_are_those_of_its_members():
    rng = np.random.default_rng(0)
    t, r = rng.uniform(0, 4, (3, 20)), rng.uniform(1.5, 8, (3, 10))
    K = dipolar.dipolar_kernel(t, r)
    assert K.shape == (3, 20, 10)
    for i in range(3):
        np.testing.assert_array_equal(K[i], dipolar.dipolar_kernel(t[i], r[i]))


def test_dipolar_frequency_follows_from_the_constants_of_nature():
    from scipy.constants import h, mu_0, physical_constants

    magneton, g = physical_constants["Bohr magneton"][0], abs(physical_constants["electron g factor"][0])
    megahertz = mu_0 * (g * magneton) ** 2 / (4 * np.pi * h) / 1e-27 / 1e6
    assert megahertz == pytest.approx(dipolar.DIPOLAR_FREQUENCY, abs=0.01)


def test_a_trace_has_its_amplitude_depth_and_decay():
    """At t = 0 all pairs are in phase; long after, none are, and what is left decays by the background alone."""
    t, r = np.arange(-10, 400) / 50, np.linspace(1.5, 6, 300)
    P = np.exp(-((r - 2.5) ** 2) / (2 * 0.3**2))
    P /= np.trapezoid(P, r)
    pairs = dipolar.dipolar_kernel(t, r) * P @ np.full(len(r), r[1] - r[0])
    V = dipolar.trace(t, pairs, np.array(0.3), np.array(0.1), np.array(2.0), np.array(5.0))
    assert V.max() == pytest.approx(5.0, rel=1e-3)
    tail = t > 4
    np.testing.assert_allclose(V[tail], 5 * 0.7 * np.exp(-((0.1 * t[tail]) ** (2 / 3))), rtol=0.01)


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.0, 0.4, 1.7, 3.1])
def test_phase_correction_undoes_a_rotation(angle):
    rng = np.random.default_rng(1)
    real = 1 + np.exp(-np.linspace(0, 4, 300))
    echo = (real + 1e-3 * (rng.standard_normal(300) + 1j * rng.standard_normal(300))) * np.exp(1j * angle)
    turned, by = traces.phase_corrected(echo)
    np.testing.assert_allclose(turned.real, real, atol=5e-3)
    np.testing.assert_allclose(turned, echo * np.exp(1j * by), rtol=1e-12)
    assert np.cos(by + angle) == pytest.approx(1.0, abs=1e-6)
    assert -np.pi <= by <= np.pi


@pytest.mark.parametrize(("time", "exponent"), [(1e-4, 0.9), (1e-2, 0.6), (3.0, 0.75)])
def test_relaxation_kernel_gives_the_arc_of_a_known_distribution(time, exponent):
    """The distribution of a ZARC element, R / (1 + (i omega tau_0)^a), in closed form (Boukamp 2020)."""
    tau, f = np.logspace(-16, 12, 8000), np.logspace(-4, 6, 41)
    angle = (1 - exponent) * np.pi
    gamma = 50 / (2 * np.pi) * np.sin(angle) / (np.cosh(exponent * np.log(tau / time)) - np.cos(angle))
    Z = relaxation.relaxation_kernel(f, tau) @ gamma
    np.testing.assert_allclose(Z, 50 / (1 + (2j * np.pi * f * time) ** exponent), atol=50 * 2e-4)


def test_elements_in_series_have_their_impedances():
    f = np.array([0.1, 50.0])
    omega = 2 * np.pi * f
    found = relaxation.series_elements(f) @ np.array([3.0, 1e-3, 1 / 2e-2])
    np.testing.assert_allclose(found, 3 + 1j * (omega * 1e-3 - 1 / (omega * 2e-2)), rtol=1e-14)


def test_grids_cover_what_the_data_can_tell():
    r = dipolar.distance_grid(1.0, 100)
    assert (r[0], r[-1]) == (1.5, 5.0)
    assert len(r) == 100
    tau = relaxation.time_grid(np.array([1e-2, 1e3, 1e5]), 120)
    assert np.allclose(2 * np.pi * tau[[0, -1]], [10**-5.5, 10**2.5])
    assert np.ptp(np.diff(np.log(tau))) < 1e-12


@pytest.mark.parametrize("end", [8.0, 40.0])
def test_the_table_is_the_kernel(end):
    t, r = np.linspace(-0.3, end, 301), np.linspace(1.5, 10, 80)
    np.testing.assert_allclose(dipolar.tabulated_kernel(t, r), dipolar.dipolar_kernel(t, r), atol=2e-6)
