"""Implicit steps of the Brusselator, against complex steps, SciPy's integrators and root finders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.optimize
import scipy.stats

from algebraformer.errors import ConfigurationError
from algebraformer.problems import StiffJacobian
from algebraformer.testing import check_family

EPS = np.finfo(np.float64).eps


def single(params: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    """The parameters of one system."""
    return {key: value[i] for key, value in params.items()}


def interleaved(y: np.ndarray) -> np.ndarray:
    """u_1, v_1, u_2, v_2, ... from u and v, (2, N)."""
    return np.array([y[species, point] for point in range(y.shape[1]) for species in range(2)])


def right_hand_side(p: dict[str, np.ndarray], N: int) -> Callable[[np.ndarray], np.ndarray]:
    """g of y' = g(y) for interleaved y, real or complex, by loops over points."""
    dx = 1 / (N + 1)

    def g(y: np.ndarray) -> np.ndarray:
        u = [p["a"], *y[0::2], p["a"]]
        v = [p["b"] / p["a"], *y[1::2], p["b"] / p["a"]]
        out = np.zeros_like(y)
        for i in range(1, N + 1):
            reaction = u[i] ** 2 * v[i]
            out[2 * i - 2] = (
                p["a"] + reaction - (p["b"] + 1) * u[i] + p["alpha"] * (u[i - 1] - 2 * u[i] + u[i + 1]) / dx**2
            )
            out[2 * i - 1] = p["b"] * u[i] - reaction + p["alpha"] * (v[i - 1] - 2 * v[i] + v[i + 1]) / dx**2
        return out

    return g


def start(p: dict[str, np.ndarray], N: int) -> np.ndarray:
    """The initial value, interleaved."""
    x = np.arange(1, N + 1) / (N + 1)
    u, v = (sum(c * np.sin((k + 1) * np.pi * x) for k, c in enumerate(coefficients)) for coefficients in p["c"])
    return interleaved(np.stack((p["a"] * np.exp(u), p["b"] / p["a"] * np.exp(v))))


def arrival(p: dict[str, np.ndarray], N: int) -> np.ndarray:
    """The state at p["time"] by SciPy's LSODA on the grid of N points, interleaved."""
    g = right_hand_side(p, N)
    band = min(2, 2 * N - 1)
    options = {"method": "LSODA", "rtol": 1e-9, "atol": 1e-11, "lband": band, "uband": band}
    return scipy.integrate.solve_ivp(lambda t, y: g(y), (0, p["time"]), start(p, N), **options).y[:, -1]


@pytest.mark.parametrize("n", [2, 8, 64])
def test_matrix_and_right_hand_side_by_complex_steps(n: int) -> None:
    """J e_k = Im g(y + i t e_k) / t, without cancellation."""
    family = StiffJacobian(n=n, gamma=0.4)
    systems = family.sample(3, seed=2)
    states = family.state(systems.params)
    for i in range(3):
        p, y = single(systems.params, i), interleaved(states[:, i])
        g, t = right_hand_side(p, n // 2), 1e-30
        J = np.stack([g(y + 1j * t * unit).imag / t for unit in np.eye(n)], axis=1)
        A = np.eye(n) - 0.4 * p["h"] * J
        np.testing.assert_allclose(systems.A[i], A, atol=16 * EPS * np.abs(A).max())
        size = 0.4 * p["h"] * np.abs(J).max() * np.abs(y).max()  # of the terms that g adds up
        np.testing.assert_allclose(systems.b[i], 0.4 * p["h"] * g(y), atol=32 * EPS * size)


def test_matrices_are_banded() -> None:
    for A in StiffJacobian(n=32).sample(5, seed=0).A:
        assert scipy.linalg.bandwidth(A) == (2, 2)


def test_systems_are_first_newton_iterates_of_an_implicit_step() -> None:
    """Y = y + gamma h g(Y) by SciPy: y + x differs by O(h^3), a thousandth for a tenth of the step."""
    errors = []
    for h in (1e-2, 1e-3):
        family = StiffJacobian(n=16, h=(h, h))
        systems = family.sample(5, seed=0)
        states, worst = family.state(systems.params), 0.0
        for i in range(5):
            g, y, scale = right_hand_side(single(systems.params, i), 8), interleaved(states[:, i]), family.gamma * h
            found = scipy.optimize.root(
                lambda Y, g=g, y=y, scale=scale: Y - y - scale * g(Y), y, tol=1e-14, options={"xtol": 1e-14}
            )
            worst = max(worst, np.abs(found.x - y - systems.x[i]).max())
        errors.append(worst)
    assert errors[0] <= 1e-3
    assert errors[1] <= errors[0] / 200


@pytest.mark.parametrize("n", [2, 8, 48])
def test_states_are_on_scipys_trajectories(n: int) -> None:
    family = StiffJacobian(n=n)
    params = family.parameters(range(10), seed=1)
    states = family.state(params)
    for i in range(10):
        np.testing.assert_allclose(interleaved(states[:, i]), arrival(single(params, i), n // 2), atol=1e-3)


def test_states_on_fine_grids_are_near_those_of_fine_trajectories() -> None:
    """Second differences on 24 points are less accurate, so spikes come a little earlier or later."""
    family = StiffJacobian(n=128)
    params = family.parameters(range(10), seed=1)
    states = family.state(params)
    off = [np.abs(interleaved(states[:, i]) - arrival(single(params, i), 64)).max() for i in range(10)]
    assert np.median(off) <= 0.02
    assert max(off) <= 0.1


def test_states_at_time_zero_are_the_initial_values() -> None:
    for n in (16, 48):
        family = StiffJacobian(n=n, time=(0.0, 0.0))
        params = family.parameters(range(3))
        for i, state in enumerate(family.state(params).transpose(1, 0, 2)):
            np.testing.assert_allclose(interleaved(state), start(single(params, i), n // 2), rtol=1e-13)


def test_every_trajectory_is_finite_and_positive() -> None:
    family = StiffJacobian(n=8)
    y = family.state(family.parameters(range(5000), seed=3))
    assert y.min() > 0
    assert y.max() < 12


def test_parameters_have_the_distributions_they_are_said_to_have() -> None:
    family = StiffJacobian(n=4)
    params = family.parameters(range(2000), seed=0)
    for name in ("a", "b", "time"):
        low, high = getattr(family, name)
        assert scipy.stats.kstest(params[name], "uniform", (low, high - low)).pvalue > 1e-4
    for name in ("alpha", "h"):
        low, high = np.log(getattr(family, name))
        assert scipy.stats.kstest(np.log(params[name]), "uniform", (low, high - low)).pvalue > 1e-4
    for species in range(2):
        for k in range(4):
            assert scipy.stats.kstest(params["c"][:, species, k], "norm", (0, 0.3 / (k + 1))).pvalue > 1e-4


@pytest.mark.parametrize("settings", [{"n": 2}, {"n": 52}, {"n": 8, "time": (0.0, 0.0), "modes": 1}])
def test_other_settings_keep_the_contract(settings: dict[str, object]) -> None:
    check_family(StiffJacobian(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 7}, "n must be even, two unknowns at each point, received 7"),
        ({"gamma": 0}, "gamma must be positive, received 0"),
        ({"gamma": -0.5}, "gamma must be"),
        ({"amplitude": "large"}, "amplitude must be"),
        ({"modes": 0}, "modes must be"),
        ({"time": (-1.0, 1.0)}, "time must not be negative"),
        ({"h": (0.0, 1.0)}, "h must be positive"),
        ({"a": (0.0, 1.0)}, "a must be positive"),
        ({"alpha": (0.0, 1.0)}, "alpha must be positive"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        StiffJacobian(**settings)  # type: ignore[arg-type]


def test_trajectories_that_overflow_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"trajectories of stiff-jacobian must be finite.*amplitude"):
        StiffJacobian(n=8, b=(60.0, 60.0), amplitude=1.0).sample(5)
