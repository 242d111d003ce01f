"""Tikhonov's regularisation with bounds, against SciPy's bounded least squares and a direct cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize_scalar

from algebraformer.numerics.nonnegative import choose_parameter, cross_validated, nearest, nonnegative
from algebraformer.problems.instruments.dipolar import dipolar_kernel


def problem(m=80, n=30, q=0, noise=0.02, seed=0):
    """A smooth kernel and a density with a peak, and q columns beside it."""
    rng = np.random.default_rng(seed)
    r = np.linspace(1.5, 6, n)
    A = dipolar_kernel(np.linspace(0, 2, m), r) * (r[1] - r[0])
    x = np.exp(-((r - 3.2) ** 2) / (2 * 0.3**2))
    free = np.linspace(0, 1, m)[:, None] ** np.arange(q)
    y = np.linspace(1.0, 0.5, q)
    return A, A @ x + free @ y + noise * rng.standard_normal(m), x, free, y


@pytest.mark.parametrize("m", [10, 80])
@pytest.mark.parametrize("q", [0, 2])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("parameter", [1e-3, 0.1, 10.0])
def test_it_is_the_minimum(m, q, order, parameter):
    A, b, _, free, _ = problem(m, q=q)
    x, y = nonnegative(A, b, parameter, order, free if q else None)
    L = np.diff(np.eye(A.shape[1]), order, axis=0)
    stacked = np.block([[A, free], [parameter * L, np.zeros((len(L), q))]])
    right = np.concatenate((b, np.zeros(len(L))))
    expected = lsq_linear(stacked, right, (0, np.inf), method="bvls", tol=1e-14)
    found = np.concatenate((x, y))
    assert found.min() >= 0
    assert np.linalg.norm(stacked @ found - right) ** 2 / 2 <= expected.cost * (1 + 1e-9)
    np.testing.assert_allclose(stacked @ found, stacked @ expected.x, atol=1e-6)


@pytest.mark.parametrize("q", [0, 1, 3])
@pytest.mark.parametrize("order", [0, 2])
def test_the_parameter_has_the_least_score(q, order):
    """Cross-validation written out: m ||r||^2 / trace(I - H)^2 with H the map from b to the fitted data."""
    A, b, _, free, _ = problem(q=q)
    L = np.diff(np.eye(A.shape[1]), order, axis=0)
    whole = np.concatenate((A, free), axis=1)
    penalty = np.concatenate((L, np.zeros((len(L), q))), axis=1)

    def score(logarithm):
        H = whole @ np.linalg.solve(whole.T @ whole + np.exp(2 * logarithm) * penalty.T @ penalty, whole.T)
        return np.sum((b - H @ b) ** 2) / np.trace(np.eye(len(b)) - H) ** 2

    found = choose_parameter(A, b, order, free if q else None)
    best = minimize_scalar(score, bracket=(np.log(found) - 0.3, np.log(found), np.log(found) + 0.3))
    assert score(np.log(found)) <= best.fun * (1 + 1e-3)


def test_it_is_better_than_without_bounds():
    """Over forty densities with noise: median error with and without the bounds."""
    with_bounds, without = [], []
    for seed in range(40):
        A, b, x, _, _ = problem(noise=0.05, seed=seed)
        L = np.diff(np.eye(A.shape[1]), 2, axis=0)
        parameter = choose_parameter(A, b)
        free = np.linalg.solve(A.T @ A + parameter**2 * L.T @ L, A.T @ b)
        without.append(np.linalg.norm(free - x) / np.linalg.norm(x))
        with_bounds.append(np.linalg.norm(cross_validated(A, b)[0] - x) / np.linalg.norm(x))
    assert np.median(with_bounds) < 0.9 * np.median(without)


def test_what_stands_beside_the_density_is_found():
    A, b, x, free, y = problem(q=1, noise=1e-4)
    found, beside = cross_validated(A, b, free=free)
    np.testing.assert_allclose(beside, y, atol=5e-3)
    assert np.linalg.norm(found - x) / np.linalg.norm(x) < 0.05


@pytest.mark.parametrize("m", [10, 80])
@pytest.mark.parametrize("q", [0, 2])
def test_nearest_is_the_minimum(m, q):
    """Of the three sums of squares, with y of either sign."""
    A, b, x, free, _ = problem(m, q=q)
    b, std = 50 * (b - 0.5), 0.1 + 0.2 * x
    u, y = nearest(50 * A, b, x, std, 50 * free, 0.7)
    stacked = np.block([
        [50 * A, 50 * free],
        [np.diag(1 / std), np.zeros((len(x), q))],
        [np.zeros((q, len(x))), np.eye(q) / 0.7],
    ])  # fmt: skip
    right = np.concatenate((b, x / std, np.zeros(q)))
    low = np.concatenate((np.zeros(len(x)), np.full(q, -np.inf)))
    expected = lsq_linear(stacked, right, (low, np.inf), method="bvls", tol=1e-14)
    found = np.concatenate((u, y))
    cost = np.sum((stacked @ found - right) ** 2) / 2
    assert (u >= 0).all()
    assert cost == pytest.approx(expected.cost, rel=1e-8)
    np.testing.assert_allclose(found, expected.x, atol=1e-5 * np.abs(expected.x).max())
