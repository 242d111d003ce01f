"""The linear estimator against the closed form by covariances."""

from __future__ import annotations

import numpy as np

from studies.baselines import lmmse


def test_against_covariances():
    rng = np.random.default_rng(0)
    b = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4)) + 2
    x = b @ rng.standard_normal((4, 3)) + 0.1 * rng.standard_normal((500, 3)) - 1
    joint = np.cov(np.hstack((b, x)).T)
    gain = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
    found = lmmse.fit(b, x)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-8)
    new = rng.standard_normal((5, 4))
    np.testing.assert_allclose(found(new), x.mean(axis=0) + (new - b.mean(axis=0)) @ gain.T, rtol=1e-8)


def test_no_estimator_that_is_linear_in_b_does_better_on_the_sample():
    rng = np.random.default_rng(1)
    b, x = rng.standard_normal((50, 3)), rng.standard_normal((50, 3))
    found = lmmse.fit(b, x)
    least = np.sum((found(b) - x) ** 2)
    for _ in range(20):
        other = lmmse.LinearEstimator(found.gain + 0.01 * rng.standard_normal((3, 3)), found.b_mean, found.x_mean)
        assert np.sum((other(b) - x) ** 2) > least


def test_fewer_systems_than_unknowns():
    b, x = np.eye(6)[:3], 2 * np.eye(6)[:3]
    np.testing.assert_allclose(lmmse.fit(b, x)(b), x, atol=1e-12)


def test_known_matrix_is_the_conditional_mean() -> None:
    """Of a joint normal distribution in precision form, which inverts n x n matrices instead of m x m."""
    rng = np.random.default_rng(0)
    A, mean, root = rng.standard_normal((3, 7, 5)), rng.standard_normal(5), rng.standard_normal((5, 5))
    b, C, deviation = rng.standard_normal((3, 7)), root @ root.T, np.array([0.1, 1.0, 3.0])
    found = lmmse.known_matrix(A, b, mean, C, deviation)
    for i in range(3):
        precision = np.linalg.inv(C)
        left = precision + A[i].T @ A[i] / deviation[i] ** 2
        right = precision @ mean + A[i].T @ b[i] / deviation[i] ** 2
        np.testing.assert_allclose(found[i], np.linalg.solve(left, right), rtol=1e-9)


def test_known_matrix_is_what_a_large_sample_gives() -> None:
    rng = np.random.default_rng(1)
    A, root = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
    x = rng.laplace(size=(200_000, 3)) @ root.T + 1.0
    b = x @ A.T + 0.5 * rng.standard_normal((200_000, 4))
    mean, C = x.mean(axis=0), np.cov(x.T)
    new = rng.standard_normal((6, 4))
    expected = lmmse.known_matrix(np.tile(A, (6, 1, 1)), new, mean, C, np.full(6, 0.5))
    np.testing.assert_allclose(lmmse.fit(b, x)(new), expected, atol=0.03)
