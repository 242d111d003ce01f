"""Linear fits with a Gaussian prior, against the dense formulas in the space of the data."""

from __future__ import annotations

import numpy as np
import pytest

from algebraformer.numerics import whiteness
from algebraformer.numerics.gaussian_fit import MULTIPLES, RATIOS, Measurements, Way, fit, posterior_factor

M, N_UNKNOWN, Q = 30, 12, 2


def problem(noise: float, seed: int = 0, count: int = 3) -> tuple[Measurements, np.ndarray, np.ndarray]:
    """Return measurements, L and the true x of B sets of data."""
    rng = np.random.default_rng(seed)
    u = (np.arange(N_UNKNOWN) + 0.5) / N_UNKNOWN
    K = np.exp(-np.linspace(0, 5, M)[:, None] * u) + 0.3 * rng.standard_normal((M, N_UNKNOWN))  # every direction shows
    L = np.linalg.cholesky(np.exp(-(((u[:, None] - u) / 0.2) ** 2) / 2) + 1e-6 * np.eye(N_UNKNOWN))
    N = rng.standard_normal((M, Q))
    x = rng.standard_normal((count, N_UNKNOWN)) @ L.T
    b = x @ K.T + rng.standard_normal((count, Q)) @ N.T
    b += noise * rng.standard_normal(b.shape)
    return Measurements(K, b, (Way(np.ones(M), N, np.ones(M)),), np.empty(0)), L, x


def dense(data: Measurements, L: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return means (3, n), deviations (n,), scale and rho of the first set of data, with m x m matrices."""
    W = np.diag(weights)
    K, N, b = W @ data.K, W @ data.ways[0].N, W @ data.b[0]
    S = L @ L.T
    prior = K @ S @ K.T + N @ N.T
    log_likelihood = []
    for rho in RATIOS:
        C = prior + rho**2 * np.eye(M)
        scale2 = b @ np.linalg.solve(C, b) / M
        log_likelihood.append(-0.5 * (M * np.log(scale2) + np.linalg.slogdet(C)[1]))
    posterior = np.exp(np.array(log_likelihood) - max(log_likelihood))
    rho = float(np.exp(posterior @ np.log(RATIOS) / posterior.sum()))
    means = [S @ K.T @ np.linalg.solve(prior + (c * rho) ** 2 * np.eye(M), b) for c in MULTIPLES]
    C = prior + rho**2 * np.eye(M)
    scale = np.sqrt(b @ np.linalg.solve(C, b) / M)
    std = scale * np.sqrt(np.diag(S - S @ K.T @ np.linalg.solve(C, K @ S)))
    return np.array(means), std, float(scale), rho


@pytest.mark.parametrize("noise", [1e-3, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_dense_formula(noise: float, weighted: bool) -> None:
    data, L, _ = problem(noise)
    weights = np.linspace(0.5, 2, M) if weighted else np.ones(M)
    data = Measurements(data.K, data.b, (Way(np.ones(M), data.ways[0].N, weights),), data.features)
    found = fit(data, L)
    means, std, scale, rho = dense(data, L, weights)
    np.testing.assert_allclose(found.x[:, 0], means, atol=1e-6 * np.abs(means).max())
    np.testing.assert_allclose(found.x_std[0], std, rtol=1e-6)
    np.testing.assert_allclose(found.scale[0], scale, rtol=1e-4)
    np.testing.assert_allclose(found.noise[0], scale * rho * np.sqrt(np.mean(1 / weights**2)), rtol=1e-4)


def test_directions_that_do_not_show_stay_at_their_prior() -> None:
    data, L, _ = problem(0.01)
    blind = Measurements(np.tile(data.K[:, :1], N_UNKNOWN), data.b, data.ways, data.features)
    found, S = fit(blind, L), L @ L.T
    seen = S.sum(axis=0) / np.sqrt(S.sum())
    expected = found.scale[0] * np.sqrt(np.diag(S) - seen**2)
    np.testing.assert_allclose(found.x_std[0], expected, rtol=0.05)


def test_noise_is_found_and_deviations_are_honest() -> None:
    data, L, x = problem(0.05, seed=1, count=400)
    found = fit(data, L)
    assert np.exp(np.mean(np.log(found.noise / 0.05))) == pytest.approx(1, abs=0.1)
    z = (x - found.x[1]) / found.x_std
    assert np.mean(np.abs(z) < 1.645) == pytest.approx(0.9, abs=0.03)


def test_twice_the_data_give_twice_the_answer() -> None:
    data, L, _ = problem(0.01)
    twice = fit(Measurements(data.K, 1024.0 * data.b, data.ways, data.features), L)
    once = fit(data, L)
    for name in ("x", "y", "x_std", "y_std", "scale", "noise"):
        np.testing.assert_allclose(getattr(twice, name), 1024 * getattr(once, name), rtol=1e-9)


def test_missing_data_count_for_nothing() -> None:
    data, L, _ = problem(0.01)
    present = np.arange(M) % 3 > 0
    way = Way(np.ones(M), data.ways[0].N, present.astype(float))
    garbage = np.where(present, data.b, 1e6)
    found = fit(Measurements(data.K, np.where(present, garbage, 0.0), (way,), data.features), L)
    fewer = Way(np.ones(present.sum()), data.ways[0].N[present], np.ones(present.sum()))
    alone = fit(Measurements(data.K[present], data.b[:, present], (fewer,), data.features), L)
    np.testing.assert_allclose(found.x, alone.x, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.n_data, present.sum())


def test_ways_are_weighed_by_their_likelihood() -> None:
    """Of a right and a wrong kernel the right one is found, and the answer is that of the right one alone."""
    data, L, _ = problem(1e-3)
    right, wrong = data.ways[0], Way(np.linspace(1, -1, M), data.ways[0].N, np.ones(M))
    found = fit(Measurements(data.K, data.b, (wrong, right), data.features), L)
    assert (found.shares[:, 1] > 0.999).all()
    np.testing.assert_allclose(found.x, fit(data, L).x, rtol=1e-2, atol=1e-3)


def test_the_posterior_factor_has_the_deviations_of_the_fit() -> None:
    data, L, _ = problem(0.03)
    found = fit(data, L)
    S = posterior_factor(data, L, 0, 0, found.scale[0], found.noise[0])
    np.testing.assert_allclose(np.sqrt(np.sum(S**2, axis=1)), found.x_std[0], rtol=1e-4)


def test_white_noise_passes_and_patterns_do_not() -> None:
    rng = np.random.default_rng(0)
    noise = whiteness.checks(rng.standard_normal((4000, 200)))
    assert noise[:, 0].mean() == pytest.approx(1, abs=0.01)
    assert (noise[:, 1].mean(), noise[:, 1].std()) == pytest.approx((0, 1), abs=0.1)

    t = np.arange(200)
    drift = whiteness.checks(rng.standard_normal((100, 200)) + np.sin(t / 30))
    artefact = whiteness.checks(rng.standard_normal((100, 200)) + 3.0 * (t > 180))
    outlier = whiteness.checks(rng.standard_normal((100, 200)) + 8.0 * (t == 50))
    for values, name in ((drift, "neighbours"), (artefact, "blocks"), (outlier, "outlier")):
        column = whiteness.NAMES.index(name)
        assert np.mean(values[:, column] > np.quantile(noise[:, column], 0.99)) > 0.9
