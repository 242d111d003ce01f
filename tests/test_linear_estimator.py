"""The linear estimator against the closed form by covariances."""

from __future__ import annotations

import numpy as np

from algebraformer.classical import linear_estimator


def test_against_covariances():
    rng = np.random.default_rng(0)
    b = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4)) + 2
    x = b @ rng.standard_normal((4, 3)) + 0.1 * rng.standard_normal((500, 3)) - 1
    joint = np.cov(np.hstack((b, x)).T)
    gain = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
    found = linear_estimator.fit(b, x)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-8)
    new = rng.standard_normal((5, 4))
    np.testing.assert_allclose(found(new), x.mean(axis=0) + (new - b.mean(axis=0)) @ gain.T, rtol=1e-8)


def test_no_estimator_that_is_linear_in_b_does_better_on_the_sample():
    rng = np.random.default_rng(1)
    b, x = rng.standard_normal((50, 3)), rng.standard_normal((50, 3))
    found = linear_estimator.fit(b, x)
    least = np.sum((found(b) - x) ** 2)
    for _ in range(20):
        other = linear_estimator.LinearEstimator(
            found.gain + 0.01 * rng.standard_normal((3, 3)), found.b_mean, found.x_mean
        )
        assert np.sum((other(b) - x) ** 2) > least


def test_fewer_systems_than_unknowns():
    b, x = np.eye(6)[:3], 2 * np.eye(6)[:3]
    np.testing.assert_allclose(linear_estimator.fit(b, x)(b), x, atol=1e-12)
