"""Waves on an interval, against NumPy's Chebyshev series, closed forms, and a shooting method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.integrate
from numpy.polynomial import chebyshev as cheb

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import condition_number
from algebraformer.problems import get
from algebraformer.testing import check_family

N = 48


def series(c: np.ndarray, phi: np.ndarray, x: Any) -> Any:
    """sum_m c_m cos(m pi x / 2 + phi_m) at one point or several."""
    return sum(c[m] * np.cos((m + 1) * np.pi * x / 2 + phi[m]) for m in range(len(c)))


def kappa_squared(p: dict[str, Any], x: Any) -> Any:
    """kappa^2 of one system, as the docstring defines it."""
    return p["wave_number"] ** 2 * np.exp(series(p["medium_c"], p["medium_phi"], x)) * (1 + 1j * p["damping"])


def source(p: dict[str, Any], x: Any) -> Any:
    return series(p["c"][0], p["phi"][0], x) + 1j * series(p["c"][1], p["phi"][1], x)


def single(params: dict[str, np.ndarray], i: int) -> dict[str, Any]:
    return {key: value[i] for key, value in params.items()}


def test_matrix_and_right_hand_side_against_chebyshev_series() -> None:
    """Derivatives of the polynomials through the points, one row after the other."""
    n = 12
    x = cheb.chebpts2(n)[::-1]
    to_coefficients = np.linalg.inv(cheb.chebvander(x, n - 1))
    first = cheb.chebvander(x, n - 2) @ cheb.chebder(to_coefficients)
    second = cheb.chebvander(x, n - 3) @ cheb.chebder(to_coefficients, 2)
    systems = get("helmholtz", n=n, medium_modes=3, sigma=0.3).sample(4, seed=2)
    for i in range(4):
        p = single(systems.params, i)
        square = kappa_squared(p, x)
        A, b = -second - np.diag(square), source(p, x)
        for row, sign, incoming in ((0, 1, p["incoming"][0]), (n - 1, -1, p["incoming"][1])):
            kappa = np.sqrt(square[row])
            A[row] = sign * first[row] - 1j * kappa * np.eye(n)[row]
            b[row] = -2j * kappa * incoming
        np.testing.assert_allclose(systems.A[i], A, atol=1e-11 * np.abs(A).max())
        np.testing.assert_allclose(systems.b[i], b, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_closed_form_in_a_constant_medium(damping: float) -> None:
    """A particular solution by cosines, plus the two waves that the boundary conditions ask for."""
    family = get("helmholtz", n=N, sigma=0.0, damping=(damping, damping))
    systems = family.sample(10, seed=4)
    x = family.grid
    for i in range(10):
        p = single(systems.params, i)
        kappa = p["wave_number"] * np.sqrt(1 + 1j * damping)

        def particular(x: Any, order: int, p: dict[str, Any] = p, kappa: complex = kappa) -> Any:
            """u or u' of -u'' - kappa^2 u = f for a sum of cosines."""
            value = 0.0
            for part, unit in enumerate((1, 1j)):
                for m in range(8):
                    w, c, phi = (m + 1) * np.pi / 2, p["c"][part][m], p["phi"][part][m]
                    wave = np.cos(w * x + phi) if order == 0 else -w * np.sin(w * x + phi)
                    value = value + unit * c * wave / (w**2 - kappa**2)
            return value

        # u = particular + r e^{i kappa x} + l e^{-i kappa x}: the first wave leaves at 1, the second at -1.
        end = np.exp(1j * kappa)
        left = (
            (particular(1.0, 1) - 1j * kappa * particular(1.0, 0) + 2j * kappa * p["incoming"][0]) / (2j * kappa) * end
        )
        right = -particular(-1.0, 1) - 1j * kappa * particular(-1.0, 0) + 2j * kappa * p["incoming"][1]
        right = right / (2j * kappa) * end
        exact = particular(x, 0) + right * np.exp(1j * kappa * x) + left * np.exp(-1j * kappa * x)
        assert np.linalg.norm(systems.x[i] - exact) <= 1e-8 * np.linalg.norm(exact)


def test_waves_that_come_in_pass_without_reflection() -> None:
    family = get("helmholtz", n=N, sigma=0.0, damping=(0.0, 0.0))
    params = family.parameters(range(5), seed=1)
    params["c"] = 0 * params["c"]
    params["incoming"] = np.tile([0.0, 1.0], (5, 1))  # from the left
    A, b = family.assemble(params)
    expected = np.exp(1j * params["wave_number"][:, None] * (family.grid + 1))
    np.testing.assert_allclose(family.solution(A, b, params), expected, atol=1e-9)


def test_a_random_medium_against_an_initial_value_problem() -> None:
    """Integrated from one end with the condition there; a multiple of the other wave meets that of the other end."""
    family = get("helmholtz", n=64, sigma=0.2, medium_modes=3, wave_number=(5.0, 8.0))
    systems = family.sample(2, seed=9)
    for i in range(2):
        p = single(systems.params, i)

        def states(start: complex, slope: complex, forced: float, p: dict[str, Any] = p) -> np.ndarray:
            def right(t: float, y: np.ndarray) -> list[complex]:
                return [y[1], -kappa_squared(p, t) * y[0] - forced * source(p, t)]

            found = scipy.integrate.solve_ivp(
                right, (-1, 1), [start, slope], "DOP853", t_eval=family.grid[::-1], rtol=1e-12, atol=1e-12
            )
            return found.y[:, ::-1]

        # At -1: -u' = i kappa (u - 2 a_-). One solution with u(-1) = 0, and one of the homogeneous condition.
        at_left, at_right = (1j * np.sqrt(kappa_squared(p, end)) for end in (-1.0, 1.0))
        one = states(0.0, 2 * at_left * p["incoming"][1], 1.0)
        other = states(1.0, -at_left, 0.0)
        missing = -2 * at_right * p["incoming"][0] - (one[1, 0] - at_right * one[0, 0])
        u = one[0] + missing / (other[1, 0] - at_right * other[0, 0]) * other[0]
        assert np.linalg.norm(systems.x[i] - u) <= 1e-7 * np.linalg.norm(u)


def test_condition_numbers() -> None:
    """As those of other families of Chebyshev collocation: they grow as n^4."""
    kappa = [np.median(condition_number(get("helmholtz", n=n).sample(10).A)) for n in (32, 64)]
    assert 8 < kappa[1] / kappa[0] < 32
    assert 1e3 < kappa[1] < 1e7


@pytest.mark.parametrize("settings", [{}, {"n": 3}, {"n": 9, "medium_modes": 4, "sigma": 0.0, "f_modes": 1}])
def test_the_contract(settings: dict[str, Any]) -> None:
    check_family(get("helmholtz", **({"n": 16} | settings)))


@pytest.mark.parametrize(
    "settings",
    [
        *({"n": 2}, {"n": 1}, {"wave_number": (0.0, 1.0)}, {"wave_number": (3.0, 1.0)}, {"damping": (-0.1, 0.1)}),
        *({"medium_modes": 0}, {"f_modes": 1.5}, {"sigma": -0.1}, {"sigma": np.inf}),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        get("helmholtz", **settings)
