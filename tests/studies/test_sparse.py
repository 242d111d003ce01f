"""Paths of total variation and lasso against a convex solver and their optimality conditions; matching pursuit."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from algebraformer import problems
from studies.baselines import sparse

NAMES = ("deblur", "gravity", "heat", "shaw", "phillips", "deriv2", "baart", "foxgood")
every_family = pytest.mark.parametrize("name", NAMES)


def system(name: str, m: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """A, b, x and the norm of the noise."""
    one = problems.get(name, n=32, m=m, noise=(1e-2, 1e-2)).sample(1, seed)
    return one.A[0], one.b[0], one.x[0], float(np.linalg.norm(one.b[0] - one.params["clean"][0]))


def between(path: sparse.SparsePath, alpha: float) -> np.ndarray:
    """x at any alpha: linear between the knots."""
    order = np.argsort(path.alpha)
    return np.array([np.interp(alpha, path.alpha[order], column[order]) for column in path.x.T])


@every_family
@pytest.mark.parametrize("m", [32, 45])
def test_total_variation_is_the_convex_solvers(name: str, m: int) -> None:
    A, b, _, _ = system(name, m)
    path = sparse.total_variation(A, b)
    for fraction in (0.3, 1e-2, 1e-3):
        alpha = fraction * path.alpha[0]
        x = cp.Variable(32)
        objective = cp.sum_squares(A @ x - b) / 2 + alpha * cp.norm1(cp.diff(x))
        least = cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL)
        ours = between(path, alpha)
        value = np.sum((A @ ours - b) ** 2) / 2 + alpha * np.sum(np.abs(np.diff(ours)))
        assert value == pytest.approx(least, rel=1e-5, abs=1e-9)
        np.testing.assert_allclose(A @ ours, A @ x.value, atol=1e-2 * np.linalg.norm(b) / np.sqrt(m))


@every_family
def test_total_variation_is_optimal_at_every_knot(name: str) -> None:
    """The running sums of A'(b - A x) are within alpha, equal to it where x jumps, and end at 0."""
    A, b, _, _ = system(name)
    path = sparse.total_variation(A, b)
    for alpha, x in zip(path.alpha, path.x, strict=True):
        sums = np.cumsum(A.T @ (b - A @ x))
        size = path.alpha[0]
        assert np.max(np.abs(sums[:-1])) <= alpha + 1e-6 * size
        assert abs(sums[-1]) <= 1e-6 * size
        jumps = np.diff(x)
        up = np.abs(jumps) > 1e-6
        np.testing.assert_allclose(sums[:-1][up], -alpha * np.sign(jumps[up]), atol=2e-6 * size)


@every_family
def test_lasso_is_optimal_at_every_knot(name: str) -> None:
    A, b, _, _ = system(name)
    path = sparse.lasso(A, b)
    assert path.alpha[0] == pytest.approx(np.max(np.abs(A.T @ b)))
    for alpha, x in zip(path.alpha, path.x, strict=True):
        gradient = A.T @ (b - A @ x)
        size = path.alpha[0]
        assert np.max(np.abs(gradient)) <= alpha + 1e-6 * size
        some = np.abs(x) > 1e-6
        np.testing.assert_allclose(gradient[some], alpha * np.sign(x[some]), atol=2e-6 * size)


@every_family
@pytest.mark.parametrize("method", [sparse.total_variation, sparse.lasso, sparse.matching_pursuit])
def test_choices_along_a_path(name: str, method: object) -> None:
    """The oracle beats every point of a fine sampling; the discrepancy is met, and not before."""
    A, b, x, noise = system(name, seed=1)
    path = method(A, b)  # type: ignore[operator]
    t = np.linspace(0, 1, 21)[:, None]
    pieces = [p + t * (q - p) if path.linear else p[None] for p, q in zip(path.x[:-1], path.x[1:], strict=True)]
    fine = np.concatenate([*pieces, path.x[-1:]])
    best = np.linalg.norm(path.by_oracle(x) - x)
    assert best <= np.linalg.norm(fine - x, axis=1).min() + 1e-12
    residuals = np.linalg.norm(fine @ A.T - b, axis=1)
    chosen = np.linalg.norm(A @ path.by_discrepancy(A, b, noise) - b)
    if residuals.min() > noise:
        assert chosen == pytest.approx(residuals[-1])
    elif path.linear:
        assert chosen == pytest.approx(noise, rel=1e-8)
    else:
        assert chosen == pytest.approx(residuals[np.argmax(residuals <= noise)])
    assert np.array_equal(path.by_discrepancy(A, b, 1e9), path.x[0])


def test_matching_pursuit_step_by_step() -> None:
    """Largest correlation with a normalised column, then least squares: by loops."""
    A, b, _, _ = system("deblur", m=40)
    path = sparse.matching_pursuit(A, b)
    chosen: list[int] = []
    for k in range(1, 8):
        rest = b - A @ path.x[k - 1]
        scores = [abs(column @ rest) / np.linalg.norm(column) for column in A.T]
        chosen.append(int(np.argmax(scores)))
        x = np.zeros(32)
        x[chosen] = np.linalg.lstsq(A[:, chosen], b, rcond=None)[0]
        np.testing.assert_allclose(path.x[k], x, atol=1e-8)


def test_spikes_are_found_where_the_instrument_is_good() -> None:
    """Wide apart and with little noise, all three sparse ways give the support."""
    family = problems.get("deblur", n=64, width=(0.015, 0.015), varying=0.0)
    A = family.sample(1).A[0]
    x = np.zeros(64)
    x[[10, 30, 50]] = 4.0, -3.0, 5.0
    b = A @ x + 1e-4 * np.random.default_rng(0).standard_normal(64)
    for found in (sparse.lasso(A, b).by_oracle(x), sparse.matching_pursuit(A, b).x[3]):
        np.testing.assert_allclose(found, x, atol=0.02)
