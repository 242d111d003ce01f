"""Posterior predictive checks: the five numbers by hand, their ranges, and what they notice."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from algebraformer.models.inference.predictive_checks import FALSE_ALARMS, NAMES, Ranges, statistics


def example(count: int = 5, m: int = 33, n: int = 9):
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((count, m, n)), rng.standard_normal((count, n))
    b = (A @ x[:, :, None])[..., 0] + 0.1 * rng.standard_normal((count, m))
    return A, b, x, rng.uniform(0.01, 0.1, count)


def test_numbers_by_hand():
    A, b, x, noise = example()
    found = statistics(A, b, x, noise)
    for i in range(5):
        r = (b[i] - A[i] @ x[i]) / (noise[i] * np.sqrt(np.mean(b[i] ** 2)))
        white = r / np.sqrt(np.mean(r**2))
        frequency, power = scipy.signal.periodogram(r, detrend=False, scaling="spectrum", return_onesided=False)
        middle = (frequency >= 2 / 33) & (frequency < 8 / 33)
        expected = {
            "misfit": np.log(np.sqrt(np.mean(r**2))),
            "neighbours": np.dot(white[1:], white[:-1]) / np.sqrt(33),
            "outlier": np.log(np.max(np.abs(white))),
            "middle": np.log(33 * np.mean(power[middle])),
            "roughness": np.log(np.mean(np.abs(np.diff(x[i]))) / np.sqrt(np.mean(x[i] ** 2))),
        }
        np.testing.assert_allclose(found[i], [expected[name] for name in NAMES], rtol=1e-10)


@pytest.mark.parametrize(("c", "d"), [(2.0, 3.0), (-1e-5, 1e3)])
def test_units_do_not_matter(c, d):
    A, b, x, noise = example()
    np.testing.assert_allclose(statistics(c * A, d * b, d / c * x, noise), statistics(A, b, x, noise), rtol=1e-9)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_small_systems_and_zeros(m, n):
    A, b, x, noise = example(4, m, n)
    for part in (statistics(A, b, x, noise), statistics(A, 0 * b, 0 * x, noise)):
        assert part.shape == (4, 5)
        assert np.isfinite(part).all()


@pytest.mark.parametrize(("count", "most"), [(4000, 0.03), (64, 0.12)])
def test_false_alarms(count, most):
    """Numbers whose middle depends on the noise level, and that are not normal."""
    rng = np.random.default_rng(3)

    def draw(size):
        noise = 10 ** rng.uniform(-3, -1, size)
        return rng.exponential(size=(size, 5)) - np.log(noise)[:, None] ** 2 * np.arange(5), noise

    ranges = Ranges.fitted(*draw(count))
    alarms = np.mean(~ranges.keep(*draw(20_000)))
    assert alarms < most
    if count == 4000:
        assert alarms > FALSE_ALARMS / 3
    numbers, noise = draw(1000)
    numbers[:, 3] += 15
    assert not ranges.keep(numbers, noise).any()
    assert not ranges.keep(np.full((2, 5), np.nan), noise[:2]).any()
    assert Ranges.unlimited().keep(1e6 * numbers, noise).all()
