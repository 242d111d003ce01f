"""Nonlinear boundary value problems: closed forms, SciPy's solve_bvp, differences for Jacobians."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from numpy.polynomial import chebyshev as cheb

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.problems import NonlinearFamily
from algebraformer.problems.nonlinear import COARSE, STEPS, operators

NAMES = [name for name in problems.names() if issubclass(problems.family_class(name), NonlinearFamily)]
every_equation = pytest.mark.parametrize("name", NAMES)


def family(name: str, **settings: object) -> NonlinearFamily:
    found = problems.get(name, **settings)
    assert isinstance(found, NonlinearFamily)
    return found


def one(**values: float) -> dict[str, np.ndarray]:
    """Parameters of one problem."""
    return {key: np.array([value], dtype=float) for key, value in values.items()}


def bratu() -> tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """The lower branch at lambda = 0.7."""
    t = scipy.optimize.brentq(lambda t: 2 * t**2 / np.cosh(t) ** 2 - 0.7, 0.1, 1.19)
    return one(strength=0.7, left=0, right=0), lambda x: 2 * np.log(np.cosh(t) / np.cosh(t * x))


def allen_cahn() -> tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    def u(x: np.ndarray) -> np.ndarray:
        return np.tanh((x - 0.1) / (np.sqrt(2) * 0.4))

    return one(epsilon=0.4, left=u(np.array(-1.0)), right=u(np.array(1.0))), u


def burgers() -> tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    def u(x: np.ndarray) -> np.ndarray:
        return -0.9 * np.tanh(0.9 * (x - 0.05) / (2 * 0.3))

    return one(viscosity=0.3, left=u(np.array(-1.0)), right=u(np.array(1.0))), u


def quasilinear() -> tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """u + u^3 / 3 = c (2 / pi)^2 cos(pi x / 2) for f = c cos(pi x / 2): the real root of a cubic."""
    params = one(left=0, right=0) | {"c": np.array([[3.0]]), "phi": np.zeros((1, 1))}

    def u(x: np.ndarray) -> np.ndarray:
        w = 3.0 * (2 / np.pi) ** 2 * np.cos(np.pi * x / 2)
        return 2 * np.sinh(np.arcsinh(1.5 * w) / 3)

    return params, u


CLOSED = {"bratu": bratu, "allen-cahn": allen_cahn, "burgers": burgers, "quasilinear": quasilinear}
SETTINGS: dict[str, dict[str, object]] = {"quasilinear": {"f_modes": 1}}


def test_every_equation_has_a_closed_form_here() -> None:
    assert set(CLOSED) == set(NAMES)


@every_equation
@pytest.mark.parametrize("n", [40, 80])
def test_closed_forms_solve_the_collocated_equations(name: str, n: int) -> None:
    params, exact = CLOSED[name]()
    problem = family(name, n=n, **SETTINGS.get(name, {}))
    u = exact(problem.grid[1:-1])[None]
    F = problem.residual(params, u)
    assert np.max(np.abs(F) / problem.size(params, u)) <= 1e-13
    other = problem.residual(params, u + 1e-3 * np.cos(np.pi * problem.grid[1:-1] / 2))
    assert np.linalg.norm(other) > 1e4 * np.linalg.norm(F)


@every_equation
def test_residual_against_chebyshev_series(name: str) -> None:
    """p(u), q(u) and r(u) written out again, differentiated by NumPy's chebder."""
    n = 20
    problem = family(name, n=n)
    params = problem.parameters(range(3), seed=4)
    u = problem.place(params)
    found, x = problem.residual(params, u), problem.grid
    for i in range(3):
        p = {key: value[i] for key, value in params.items()}
        v = np.concatenate(([p["right"]], u[i], [p["left"]]))
        second, first, rest = {
            "bratu": lambda p, v, x: (v, 0 * v, p["strength"] * np.exp(v)),
            "allen-cahn": lambda p, v, x: (p["epsilon"] ** 2 * v, 0 * v, v - v**3),
            "burgers": lambda p, v, x: (p["viscosity"] * v, -(v**2) / 2, 0 * v),
            "quasilinear": lambda p, v, x: (-(v + v**3 / 3), 0 * v, -source(p, x)),
        }[name](p, v, x)
        series = [cheb.chebfit(x, values, n + 1) for values in (second, first)]
        F = cheb.chebval(x, cheb.chebder(series[0], 2)) + cheb.chebval(x, cheb.chebder(series[1])) + rest
        np.testing.assert_allclose(found[i], F[1:-1], atol=1e-8)


def source(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """f of the quasilinear equation as its docstring defines it."""
    modes = zip(range(1, len(p["c"]) + 1), p["c"], p["phi"], strict=True)
    return np.sum([c * np.cos(k * np.pi * x / 2 + phi) for k, c, phi in modes], axis=0)


@every_equation
def test_jacobian_against_central_differences(name: str) -> None:
    problem = family(name, n=16)
    params = problem.parameters(range(3), seed=1)
    u, h = problem.place(params), 1e-5
    J = problem.jacobian(params, u)
    columns = [
        (problem.residual(params, u + h * e) - problem.residual(params, u - h * e)) / (2 * h) for e in np.eye(16)
    ]
    A = np.stack(columns, axis=2)
    np.testing.assert_allclose(J.dense(), A, rtol=0, atol=1e-6 * np.abs(A).max())


@every_equation
def test_entries_and_products_are_those_of_the_dense_jacobian(name: str) -> None:
    problem = family(name, n=16)
    params = problem.parameters(range(4), seed=1)
    J = problem.jacobian(params, problem.place(params))
    A = J.dense()
    rows, columns = np.array([0, 3, 4, 15]), np.array([3, 2, 15])
    np.testing.assert_array_equal(J[:, rows[:, None], columns], A[:, rows[:, None], columns])
    z, chosen = np.random.default_rng(0).standard_normal((2, 16, 1)), np.array([3, 1])
    np.testing.assert_allclose(J.multiply(chosen, z), A[chosen] @ z, rtol=0, atol=1e-12 * np.abs(A).max())
    assert len(J.take(chosen)) == 2
    assert len(J) == 4


def equations(name: str, p: dict[str, np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """u' and v' of the first-order systems, for SciPy."""

    def right_hand_side(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = y
        match name:
            case "bratu":
                return np.array([v, -p["strength"] * np.exp(u)])
            case "allen-cahn":
                return np.array([v, (u**3 - u) / p["epsilon"] ** 2])
            case "burgers":
                return np.array([v, u * v / p["viscosity"]])
        return np.array([v, -(source(p, x) + 2 * u * v**2) / (1 + u**2)])

    return right_hand_side


@every_equation
def test_newton_from_the_guess_finds_what_scipy_finds(name: str) -> None:
    """SciPy's collocation of fourth order, from the same guess, for parameters as they are drawn."""
    problem = family(name, n=40)
    params = problem.parameters(range(2), seed=3)
    guess = u = problem.initial(params)
    for _ in range(8):
        d = np.linalg.solve(problem.jacobian(params, u).dense(), -problem.residual(params, u)[:, :, None])
        u = u + d[:, :, 0]
    x = problem.grid
    for i in range(2):
        p = {key: value[i] for key, value in params.items()}
        whole = np.concatenate(([p["left"]], guess[i, ::-1], [p["right"]]))
        found = scipy.integrate.solve_bvp(
            equations(name, p),
            lambda a, b, p=p: np.array([a[0] - p["left"], b[0] - p["right"]]),
            x[::-1],
            np.stack((whole, np.gradient(whole, x[::-1]))),
            tol=1e-7,
            max_nodes=10_000,
        )
        assert found.status == 0
        np.testing.assert_allclose(u[i], found.sol(x[1:-1])[0], rtol=0, atol=1e-6)


@every_equation
def test_places_lie_on_newtons_path(name: str) -> None:
    """Without perturbation, place 0 is the guess, and late places are near the solution."""
    problem = family(name, n=24, perturbation=0.0)
    params = problem.parameters(range(20), seed=2)
    first, last = (problem.place(params | {"place": np.full(20, place)}) for place in (0.0, float(STEPS)))
    np.testing.assert_array_equal(first, problem.initial(params))
    drop = np.linalg.norm(problem.residual(params, last), axis=1) / np.linalg.norm(
        problem.residual(params, first), axis=1
    )
    assert np.median(drop) <= 1e-6


@every_equation
def test_the_coarse_path_is_the_path(name: str) -> None:
    """Systems of fine grids take their places from a coarse one: they agree where both can be computed."""
    fine = family(name, n=2 * COARSE + 1, perturbation=0.0)  # its points contain none of the coarse ones but the middle
    params = fine.parameters(range(5), seed=6)
    u = fine.place(params | {"place": np.full(5, 1.0)})
    start = fine.initial(params)
    d = np.linalg.solve(fine.jacobian(params, start).dense(), -fine.residual(params, start)[:, :, None])[:, :, 0]
    d *= np.minimum(1.0, 1 / np.max(np.abs(d), axis=1, keepdims=True))
    np.testing.assert_allclose(u, start + d, rtol=0, atol=1e-6)


def test_second_derivative_is_exact_on_polynomials() -> None:
    n = 30
    D2, D = operators(n)
    x = problems.get("bratu", n=n).grid  # type: ignore[attr-defined]
    for k in (0, 1, 2, 7, n + 1):
        unit = np.eye(n + 2)[k]
        for matrix, order in ((D, 1), (D2, 2)):
            exact = cheb.chebval(x[1:-1], cheb.chebder(unit, order))
            np.testing.assert_allclose(matrix @ cheb.chebval(x, unit), exact, atol=1e-14 * n**4)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "0", None, True])
@pytest.mark.parametrize(
    ("name", "setting"), [("bratu", "perturbation"), ("quasilinear", "amplitude"), ("random-diffusion", "sigma")]
)
def test_sizes_must_be_finite_and_not_negative(name: str, setting: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} must be a finite number"):
        problems.get(name, **{setting: value})


@pytest.mark.parametrize("value", [0, 1.5, True, None])
def test_modes_are_a_whole_number(value: object) -> None:
    with pytest.raises(ConfigurationError, match="f_modes must be a whole number"):
        problems.get("quasilinear", f_modes=value)
