"""The contract of every registered instrument; a new one inherits it."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.numerics import whiteness
from algebraformer.numerics.gaussian_fit import fit
from algebraformer.problems.instruments import distributions
from algebraformer.problems.instruments.base import GROUP, Instrument

NAMES = [name for name in problems.names() if issubclass(problems.family_class(name), Instrument)]
every_instrument = pytest.mark.parametrize("name", NAMES)


def instrument(name: str, **settings: object) -> Instrument:
    """Return an instrument."""
    found = problems.get(name, **settings)
    assert isinstance(found, Instrument)
    return found


def prior_factor(family: Instrument) -> np.ndarray:
    """Return a factor of the second moment of 640 signals."""
    X = np.concatenate([family.simulate(range(i, i + GROUP), 99).x for i in range(0, 640, GROUP)])
    values, vectors = np.linalg.eigh(X.T @ X / len(X))
    return vectors[:, -60:] * np.sqrt(np.maximum(values[-60:], 0))


def test_deer_and_drt_are_registered() -> None:
    assert {"deer", "drt"} <= set(NAMES)


@every_instrument
def test_a_measurement_depends_on_seed_and_index_alone(name: str) -> None:
    family = instrument(name)
    group = family.simulate(range(GROUP), 3)
    some = family.simulate([2, 5], 3)
    np.testing.assert_array_equal(some.abscissa, group.abscissa)
    np.testing.assert_allclose(some.data, group.data[[2, 5]], rtol=1e-12)
    assert not np.array_equal(family.simulate(range(GROUP), 4).x, group.x)
    numbers = {len(family.simulate([i * GROUP], 3).abscissa) for i in range(20)}
    assert len(numbers) > 10


@every_instrument
def test_signals_are_nowhere_negative_and_of_size_one(name: str) -> None:
    for start in range(0, 40 * GROUP, GROUP):
        simulated = instrument(name).simulate(range(start, start + GROUP), 1)
        assert (simulated.x >= 0).all()
        np.testing.assert_allclose(simulated.x.mean(axis=1), 1, rtol=1e-9)
        assert np.isfinite(simulated.data).all()


@every_instrument
def test_noise_has_the_deviation_that_is_told(name: str) -> None:
    ratios = []
    for start in range(0, 60 * GROUP, GROUP):
        s = instrument(name).simulate(range(start, start + GROUP), 2)
        error = (s.data - s.clean)[:, s.present]
        ratios.append(np.sqrt(np.mean(error**2, axis=1)) / s.deviation)
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


@every_instrument
def test_coordinates_and_back(name: str) -> None:
    family = instrument(name)
    s = family.simulate(range(GROUP), 5)
    fits = fit(family.measurements(s), prior_factor(family))
    unit = fits.scale
    coordinates = family.coordinates(s.nuisance, fits, unit)
    found = family.from_coordinates(coordinates, fits, unit)
    near = np.all(np.abs(coordinates) < 10, axis=1)
    assert near.mean() > 0.5
    for key in family.nuisance_names:
        np.testing.assert_allclose(found[key][near], s.nuisance[key][near], rtol=1e-6, atol=1e-9)


@every_instrument
def test_the_truth_fits_to_the_noise_and_something_else_does_not(name: str) -> None:
    """What else is in the data is fitted anew: what is left of the true x is white, of another x it is not."""
    family = instrument(name, noise=(3e-3, 1e-2))
    L = prior_factor(family)
    passed, failed = [], []
    for start in range(0, 30 * GROUP, GROUP):
        s = family.simulate(range(start, start + 2), 6)
        fits = fit(family.measurements(s), L)
        for x, into in ((s.x, passed), (s.x[::-1], failed)):
            size = 1.0 if family.is_density else fits.x[1].mean(axis=1, keepdims=True) / x.mean(axis=1, keepdims=True)
            x = x if into is passed else size * x
            residual = family.residual(s, family.fitted(s, x, fits), fits, s.deviation)
            into.append(whiteness.checks(residual)[:, 0])
    assert np.median(passed) == pytest.approx(1, abs=0.1)
    assert np.median(failed) > 1.5 * np.median(passed)


def test_drt_of_a_zarc_is_its_impedance() -> None:
    family = instrument("drt")
    f = np.logspace(-2, 6, 60)
    tau = family.grid(f)
    gamma = distributions.havriliak_negami(tau, 1.0, 1e-3, 0.7)
    x = gamma * np.log(tau[-1] / tau[0])
    y = {name: np.zeros(1) for name in family.nuisance_names}
    found = family.response(f, tau, x[None], y)[0]
    Z = 1 / (1 + (2j * np.pi * f * 1e-3) ** 0.7)
    np.testing.assert_allclose(found, np.concatenate((Z.real, Z.imag)), atol=2e-3)


def test_deer_of_one_distance_is_its_trace() -> None:
    family = instrument("deer")
    t = np.linspace(0, 4, 200)
    r = family.grid(t)
    x = np.zeros((1, family.n))
    x[0, 40] = family.n
    nuisance = {"modulation_depth": 0.4, "background_rate": 0.1, "dimension": 3.0, "amplitude": 2.0, "zero_time": 0.0}
    found = family.response(t, r, x, {key: np.array([value]) for key, value in nuisance.items()})[0]
    z = np.linspace(0, 1, 20001)
    angle = 2 * np.pi * 52.04 / r[40] ** 3 * t[:, None] * (3 * z**2 - 1)
    pairs = np.trapezoid(np.cos(angle), z, axis=1)
    np.testing.assert_allclose(found, 2 * (0.6 + 0.4 * pairs) * np.exp(-0.1 * t), atol=1e-5)
