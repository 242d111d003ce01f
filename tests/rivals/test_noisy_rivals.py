"""Classical estimates that a learned estimator is compared with: what each is told, and that they are tuned."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.comparison import measurements
from algebraformer.numerics import nonnegative, regularization
from algebraformer.rivals import noisy


@pytest.fixture(scope="module")
def draws():
    return measurements(problems.get("gravity", n=20, m=26, priors=("smooth",), noise=(0.1, 0.1)).sample(40, seed=1))


def positive(draws):
    x = np.abs(draws.x)
    b = np.einsum("bmn,bn->bm", draws.A, x)
    b = b + 0.02 * np.linalg.norm(b, axis=1, keepdims=True) / 5 * np.random.default_rng(0).standard_normal(b.shape)
    return noisy.Measurements(draws.A, b, x, 0.02 * np.linalg.norm(b, axis=1))


def test_the_order_is_the_best_on_the_draws(draws):
    ways = {way.name: way for way in noisy.tuned(draws, draws.x)}
    assert list(ways) == ["GCV", "TV", "LMMSE"]
    found = ways["GCV"].estimate(draws.A, draws.b, draws.noise_norm)
    orders = [regularization.cross_validated(draws.A, draws.b, order) for order in (0, 1, 2)]
    errors = [np.median(np.linalg.norm(x - draws.x, axis=1) / np.linalg.norm(draws.x, axis=1)) for x in orders]
    np.testing.assert_array_equal(found, orders[int(np.argmin(errors))])
    assert min(errors) < 0.9 * max(errors)


def test_lmmse_is_the_best_affine_estimate(draws):
    """Of its draws, with their own moments and white noise: no multiple of it has a smaller squared error."""
    way = noisy.tuned(draws, draws.x)[-1]
    x = way.estimate(draws.A, draws.b, draws.noise_norm)
    C, mean = np.cov(draws.x.T), draws.x.mean(axis=0)
    for i in (0, 7):
        A, d = draws.A[i], draws.noise_norm[i] / np.sqrt(26)
        precision = np.linalg.pinv(C, rcond=1e-12)
        expected = mean + np.linalg.lstsq(A.T @ A / d**2 + precision, A.T @ (draws.b[i] - A @ mean) / d**2)[0]
        assert np.linalg.norm(x[i] - expected) < 0.02 * np.linalg.norm(expected)


def test_nonnegative_families_have_nonnegative_rivals(draws):
    systems = positive(draws)
    ways = {way.name: way for way in noisy.tuned(systems, systems.x, is_nonnegative=True)}
    assert list(ways) == ["GCV", "GCV + NNLS", "TV", "LMMSE"]
    for name in list(ways)[1:]:
        assert ways[name].estimate(systems.A, systems.b, systems.noise_norm).min() >= 0
    assert ways["GCV"].estimate(systems.A, systems.b, systems.noise_norm).min() < 0


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_a_batch_of_nonnegative_problems_is_each_of_them(draws, order, shared):
    systems = positive(draws)
    A = np.broadcast_to(systems.A[:1], (6, 26, 20)) if shared else systems.A[:6]
    found = nonnegative.batch_cross_validated(A, systems.b[:6], order)
    each = [nonnegative.cross_validated(*system, order)[0] for system in zip(A, systems.b, strict=False)]
    np.testing.assert_allclose(found, each, rtol=1e-8, atol=1e-10)


def test_two_unknowns_and_one_measurement():
    draws = measurements(problems.get("deblur", n=2, m=1).sample(8, seed=1))
    for way in noisy.tuned(draws, draws.x):
        assert way.estimate(draws.A, draws.b, draws.noise_norm).shape == (8, 2)
