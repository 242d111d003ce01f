"""Distributions by formula against moments, impedances in closed form, and the other form of a series."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer.problems.instruments import distributions
from algebraformer.problems.instruments.relaxation import relaxation_kernel

R = (np.arange(40_000) + 0.5) * 5e-4
"""Distances up to 20 nm."""


@pytest.mark.parametrize(
    ("density", "mean_square"),
    [
        (distributions.gaussian(R, 4.0, 0.3), 4.0**2 + 0.3**2),
        (distributions.rice(R, 4.0, 0.3), 4.0**2 + 3 * 0.3**2),
        (distributions.rice(R, 0.5, 1.0), 0.5**2 + 3.0),
        (distributions.random_coil(R, 3.0), 9.0),
    ],
)
def test_integral_and_mean_square(density, mean_square):
    assert density.sum() * 5e-4 == pytest.approx(1.0, abs=1e-6)
    assert (density * R**2).sum() * 5e-4 == pytest.approx(mean_square, rel=1e-5)


def test_rice_is_the_distance_of_noisy_points():
    rng = np.random.default_rng(0)
    points = np.array([2.0, 0, 0]) + 0.4 * rng.standard_normal((200_000, 3))
    counts, edges = np.histogram(np.linalg.norm(points, axis=1), bins=40, range=(0.5, 3.5))
    middle = (edges[1:] + edges[:-1]) / 2
    expected = distributions.rice(middle, 2.0, 0.4) * np.diff(edges) * 200_000
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected.max())


def test_both_series_of_the_chain_agree():
    """Poisson's summation: one form below the crossover, the other above, on the same points."""
    a = np.linspace(0.05, 0.6, 50)
    first = distributions.chain_series(a, crossover=0.01)
    np.testing.assert_allclose(first, distributions.chain_series(a, crossover=10.0), rtol=1e-9, atol=1e-9)


def test_the_chain_has_the_size_of_a_stiff_one():
    """Kratky and Porod: <r^2> = 2 l L (1 - l / L (1 - exp(-L / l))), exact for any stiffness."""
    r = R[R < 8]
    for contour, persistence in ((5.0, 5.0), (6.0, 4.0)):
        P = distributions.wormlike_chain(r, contour, persistence)
        assert P.min() >= 0
        share = persistence / contour
        expected = 2 * persistence * contour * (1 - share * (1 - np.exp(-1 / share)))
        assert (P * r**2).sum() * 5e-4 == pytest.approx(expected, rel=0.03)


F, TAU = np.logspace(-3, 5, 25), np.logspace(-18, 14, 12_000)


@pytest.mark.parametrize("time", [1e-4, 0.3])
@pytest.mark.parametrize(("exponent", "asymmetry"), [(0.8, 1.0), (0.6, 0.7), (0.95, 0.5), (0.5, 1.5)])
def test_impedance_of_havriliak_negami(time, exponent, asymmetry):
    gamma = distributions.havriliak_negami(TAU, 50.0, time, exponent, asymmetry)
    expected = 50 / (1 + (2j * np.pi * F * time) ** exponent) ** asymmetry
    np.testing.assert_allclose(relaxation_kernel(F, TAU) @ gamma, expected, atol=0.02)


def test_impedance_of_a_gerischer_element():
    gamma = distributions.gerischer(TAU, 50.0, 0.02)
    np.testing.assert_allclose(relaxation_kernel(F, TAU) @ gamma, 50 / np.sqrt(1 + 2j * np.pi * F * 0.02), atol=0.05)


def test_resistance_of_a_lognormal_arc():
    gamma = distributions.lognormal(TAU, 20.0, 1e-2, 0.5)
    assert np.trapezoid(gamma, np.log(TAU)) == pytest.approx(20.0, rel=1e-6)
    assert TAU[gamma.argmax()] == pytest.approx(1e-2, rel=0.01)
