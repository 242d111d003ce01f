"""Tikhonov and truncation against stacked least squares; choices of the parameter against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
import scipy.optimize

from algebraformer import problems
from algebraformer.numerics import regularization as reg

SYSTEMS = {
    "square": problems.get("gravity", n=24, noise=(1e-2, 1e-2)).sample(4, seed=1),
    "tall": problems.get("deblur", n=20, m=31, noise=(3e-2, 3e-2)).sample(4, seed=2),
    "wide": problems.get("heat", n=24, m=15, noise=(1e-2, 1e-2)).sample(4, seed=3),
    "one matrix": problems.get("phillips", n=20, noise=(1e-2, 1e-2)).sample(4, seed=4),
}
every_shape = pytest.mark.parametrize("shape", SYSTEMS)
every_order = pytest.mark.parametrize("order", [0, 1, 2])


def differences(n: int, order: int) -> np.ndarray:
    """L by its rows."""
    row = {0: [1.0], 1: [-1.0, 1.0], 2: [1.0, -2.0, 1.0]}[order]
    return np.array([[0.0] * i + row + [0.0] * (n - order - 1 - i) for i in range(n - order)])


def stacked(A: np.ndarray, b: np.ndarray, parameter: float, order: int) -> np.ndarray:
    """argmin ||A x - b||^2 + parameter^2 ||L x||^2 as one least-squares problem."""
    L = differences(A.shape[1], order)
    return scipy.linalg.lstsq(np.vstack([A, parameter * L]), np.concatenate([b, np.zeros(len(L))]))[0]


def influence(A: np.ndarray, parameter: float, order: int) -> np.ndarray:
    """The matrix that turns b into A x: solutions for the unit vectors."""
    return A @ np.stack([stacked(A, unit, parameter, order) for unit in np.eye(len(A))], axis=1)


def noise_norms(systems: problems.Systems) -> np.ndarray:
    return systems.params["noise"] * np.linalg.norm(systems.params["clean"], axis=1)


@every_shape
@every_order
def test_tikhonov_solves_the_stacked_problem(shape: str, order: int) -> None:
    systems = SYSTEMS[shape]
    path = reg.tikhonov(reg.decompose(systems.A, order), systems.b)
    L = differences(systems.A.shape[2], order)
    for k in (10, 60, 80, 100):
        x = path.chosen(np.full(4, k))
        np.testing.assert_allclose(x, path.solutions()[:, k], rtol=1e-9, atol=1e-12)
        for i in range(4):
            A, b, parameter = systems.A[i], systems.b[i], path.parameters[i, k]
            np.testing.assert_allclose(x[i], stacked(A, b, parameter, order), rtol=1e-6, atol=1e-8)
            assert path.residual_norm[i, k] == pytest.approx(np.linalg.norm(A @ x[i] - b), rel=1e-8)
            assert path.seminorm[i, k] == pytest.approx(np.linalg.norm(L @ x[i]), rel=1e-6)
            trace = np.trace(influence(A, parameter, order))
            assert path.slack[i, k] == pytest.approx(len(b) - trace, rel=1e-4, abs=1e-9)


@every_shape
def test_a_very_large_parameter_leaves_a_polynomial(shape: str) -> None:
    systems = SYSTEMS[shape]
    n = systems.A.shape[2]
    for order in (1, 2):
        path = reg.tikhonov(reg.decompose(systems.A, order), systems.b)
        P = np.vander(np.arange(n), order)
        for i in range(4):
            fit = P @ scipy.linalg.lstsq(systems.A[i] @ P, systems.b[i])[0]
            np.testing.assert_allclose(path.offset[i], fit, rtol=1e-8, atol=1e-9)


@every_shape
def test_truncation_is_the_pseudoinverse_of_rank_k(shape: str) -> None:
    systems = SYSTEMS[shape]
    path = reg.truncated(reg.decompose(systems.A), systems.b)
    for i in range(4):
        A, b = systems.A[i], systems.b[i]
        s = scipy.linalg.svdvals(A)
        for k in (1, 4, 9):
            x = path.solutions()[i, k - 1]
            cut = np.sqrt(s[k - 1] * s[k]) / s[0]
            np.testing.assert_allclose(x, scipy.linalg.pinv(A, atol=0, rtol=cut) @ b, rtol=1e-6, atol=1e-8)
            assert (path.parameters[i, k - 1], path.slack[i, k - 1]) == (k, len(b) - k)
            assert path.residual_norm[i, k - 1] == pytest.approx(np.linalg.norm(A @ x - b), rel=1e-8)


def test_singular_values_at_rounding_are_left_out() -> None:
    systems = problems.get("baart", n=32).sample(2, seed=0)
    path = reg.truncated(reg.decompose(systems.A), systems.b)
    assert np.isfinite(path.solutions()).all()
    rank = np.linalg.matrix_rank(systems.A[0])
    assert path.slack.min() >= 32 - rank - 1
    assert np.array_equal(path.solutions()[:, rank + 1], path.solutions()[:, -1])


@every_order
def test_one_matrix_is_decomposed_once(order: int) -> None:
    systems = SYSTEMS["one matrix"]
    shared = reg.decompose(systems.A, order)
    assert shared.s.shape[0] == 1
    for i in range(4):
        alone = reg.tikhonov(reg.decompose(systems.A[i : i + 1], order), systems.b[i : i + 1])
        together = reg.tikhonov(shared, systems.b)
        np.testing.assert_allclose(together.solutions()[i], alone.solutions()[0], rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- choices


def neighbours(path: reg.Path, index: np.ndarray, i: int) -> tuple[float, float]:
    """The parameters on both sides of the chosen one, ascending."""
    low = path.parameters[i, min(index[i] + 1, path.parameters.shape[1] - 1)]
    return float(low), float(path.parameters[i, max(index[i] - 1, 0)])


@pytest.mark.parametrize(("name", "m"), [("shaw", 40), ("deblur", 60), ("phillips", 40), ("shaw", 30)])
@every_order
def test_cross_validation_is_the_minimum(name: str, m: int, order: int) -> None:
    """Golub, Heath and Wahba's function with dense matrices has its minimum between the neighbours of the choice."""
    systems = problems.get(name, n=40, m=m, noise=(0.2, 0.2), priors=("smooth",)).sample(4, seed=1)
    path = reg.tikhonov(reg.decompose(systems.A, order), systems.b)
    index, L = reg.cross_validation(path), differences(40, order)
    np.testing.assert_array_equal(reg.cross_validated(systems.A, systems.b, order), path.chosen(index))
    for i in range(4):
        A, b = systems.A[i], systems.b[i]

        def G(log: float, A: np.ndarray = A, b: np.ndarray = b) -> float:
            rest = np.eye(len(b)) - A @ np.linalg.solve(A.T @ A + np.exp(2 * log) * L.T @ L, A.T)
            return float(np.sum((rest @ b) ** 2) / np.trace(rest) ** 2)

        low, high = np.log(neighbours(path, index, i))
        found = scipy.optimize.minimize_scalar(G, bounds=(low - 0.5, high + 0.5), method="bounded").x
        assert low - 1e-3 <= found <= high + 1e-3
        coarse = [G(log) for log in np.linspace(np.log(path.parameters[i, 0]), low - 3, 40)]
        assert G(found) <= min(coarse) * (1 + 1e-6)


@every_shape
@every_order
def test_discrepancy_meets_the_noise(shape: str, order: int) -> None:
    systems = SYSTEMS[shape]
    path = reg.tikhonov(reg.decompose(systems.A, order), systems.b)
    noise = noise_norms(systems)
    index = reg.discrepancy(path, noise)
    for i in range(4):
        A, b = systems.A[i], systems.b[i]

        def excess(log: float, A: np.ndarray = A, b: np.ndarray = b, size: float = noise[i]) -> float:
            return float(np.linalg.norm(A @ stacked(A, b, np.exp(log), order) - b) - size)

        largest, smallest = np.log(path.parameters[i, [0, -1]])
        assert excess(smallest) < 0 < excess(largest)
        root = scipy.optimize.brentq(excess, smallest, largest)
        low, high = np.log(neighbours(path, index, i))
        assert low <= root + 1e-6
        assert root <= high + 1e-6


@every_shape
def test_the_oracle_is_the_best(shape: str) -> None:
    systems = SYSTEMS[shape]
    for path in (
        reg.tikhonov(reg.decompose(systems.A, 1), systems.b),
        reg.truncated(reg.decompose(systems.A), systems.b),
    ):
        best = np.linalg.norm(path.chosen(reg.oracle(path, systems.x)) - systems.x, axis=1)
        for rule in (reg.cross_validation(path), reg.l_curve(path), reg.discrepancy(path, noise_norms(systems))):
            assert np.all(best <= np.linalg.norm(path.chosen(rule) - systems.x, axis=1) + 1e-12)


@every_order
def test_l_curve_bends_most_at_the_choice(order: int) -> None:
    """Curvature from splines through stacked least-squares solutions, on a grid of its own."""
    systems = problems.get("shaw", n=24, noise=(1e-2, 1e-2)).sample(4, seed=1)
    path = reg.tikhonov(reg.decompose(systems.A, order), systems.b)
    index, L = reg.l_curve(path), differences(24, order)
    for i in range(4):
        chosen = np.log(path.parameters[i, index[i]])
        grid = np.linspace(chosen - 1.5, chosen + 1.5, 61)
        points = []
        for log in grid:
            x = stacked(systems.A[i], systems.b[i], np.exp(log), order)
            points.append([np.linalg.norm(systems.A[i] @ x - systems.b[i]), np.linalg.norm(L @ x)])
        spline = scipy.interpolate.CubicSpline(grid, np.log(points))
        (dx, dy), (ddx, ddy) = spline(grid, 1).T, spline(grid, 2).T
        curvature = (dx * ddy - dy * ddx) / np.hypot(dx, dy) ** 3
        assert abs(grid[np.argmax(curvature)] - chosen) < 0.2


def test_the_corner_of_discrete_points_is_found() -> None:
    """An L of 20 points with its corner at the twelfth; and points without a corner."""
    k = np.arange(20)
    x, y = np.maximum(11 - k, 0.0) + 0.01 * k, np.maximum(k - 11, 0.0) - 0.0
    assert np.argmax(reg._sharpness(-0.0 + x[None], y[None])[0]) == 11
    straight = np.argmax(reg._sharpness(-k[None] * 1.0, k[None] * 1.0)[0])
    assert straight == 19


@every_shape
def test_truncation_by_l_curve_is_near_the_oracle(shape: str) -> None:
    systems = SYSTEMS[shape]
    path = reg.truncated(reg.decompose(systems.A), systems.b)
    error = np.linalg.norm(path.chosen(reg.l_curve(path)) - systems.x, axis=1)
    best = np.linalg.norm(path.chosen(reg.oracle(path, systems.x)) - systems.x, axis=1)
    assert np.median(error / best) < 2
