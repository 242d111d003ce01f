"""Regression in the l_p norm by classical methods: against closed forms, mpmath, SciPy and cvxpy."""

from __future__ import annotations

import warnings

import mpmath
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from algebraformer import problems
from algebraformer.errors import ConfigurationError, SingularSystemError
from algebraformer.numerics.lp_norm import (
    Regression,
    dual_gap,
    gradient_norm,
    line_search,
    newton_step,
    p_norm,
    product,
)
from studies.baselines import lp

KINDS = ("gaussian", "polynomial", "spline", "uniform", "filter")
every_method = pytest.mark.parametrize("method", [method for method in lp.METHODS if method != "irls"])
every_start = pytest.mark.parametrize("start", lp.STARTS)


def gaussian(n: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian A (count, 2 n, n) with columns scaled from 1 to 1e-2, and b."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 2 * n, n)) * np.logspace(0, -2, n), rng.standard_normal((count, 2 * n))


# ---------------------------------------------------------------- optima


@every_method
@every_start
@pytest.mark.parametrize("p", [2.0, 2.5, 4.0, 8.0, 16.0])
def test_a_constant_fitted_to_two_values(method: lp.Method, start: lp.Start, p: float) -> None:
    """k zeros and l ones: k x^(p-1) = l (1 - x)^(p-1)."""
    k, ones = 3, 2
    A, b = np.ones((1, k + ones, 1)), np.concatenate((np.zeros(k), np.ones(ones)))[None]
    solution = lp.minimize(A, b, p, method, start, tol=1e-12)
    assert solution.converged.all()
    assert solution.x[0, 0] == pytest.approx(1 / (1 + (k / ones) ** (1 / (p - 1))), rel=1e-10)


def by_cvxpy(A: np.ndarray, b: np.ndarray, p: float) -> float:
    import cvxpy

    x = cvxpy.Variable(A.shape[1])
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.pnorm(A @ x - b, p)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(problem.solve(solver=cvxpy.CLARABEL))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [3.0, 8.0])
def test_optimum_against_cvxpy(kind: str, p: float) -> None:
    family = problems.get("lp-regression", n=6, kind=kind, p=(p,))
    params = family.parameters(range(2), seed=3)
    A, b = family.matrices(params)[:, :40], params["b"][:, :40]
    A = A + 1e-3 * np.eye(40, 6)[: A.shape[1]] if kind == "spline" else A  # half the sites leave splines without data
    solution = lp.minimize(A, b, p, tol=1e-10)
    problem = Regression.of(A, b, p)
    r = product(A, solution.x) - b
    assert dual_gap(problem.Q, r, problem.p).max() < 1e-8
    for i in range(2):
        reference = by_cvxpy(A[i], b[i], p)
        assert np.linalg.norm(r[i], p) == pytest.approx(reference, rel=1e-6)
        assert np.linalg.norm(r[i], p) <= reference * (1 + 1e-9)


@every_method
@every_start
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_finds_the_same_optimum(method: lp.Method, start: lp.Start, kind: str) -> None:
    family = problems.get("lp-regression", n=8, kind=kind, p=(3.0, 4.0, 6.0))
    params = family.parameters(range(8), seed=1)
    problem = family.regression(params)
    solution = lp.minimize(problem.A, problem.b, problem.p, method, start, maxiter=400)
    assert solution.converged.all()
    r = product(problem.A, solution.x) - problem.b
    best = p_norm(product(problem.A, lp.minimize(problem.A, problem.b, problem.p, "homotopy").x) - problem.b, problem.p)
    np.testing.assert_allclose(p_norm(r, problem.p), best, rtol=1e-10)
    assert dual_gap(problem.Q, r, problem.p).max() < 1e-6


@pytest.mark.parametrize(("p", "damped", "searched"), [(3.0, 4, 4), (4.0, 6, 5), (6.0, 9, 6), (8.0, 12, 7)])
def test_iterations_on_gaussian_problems(p: float, damped: int, searched: int) -> None:
    A, b = gaussian(64, 8)
    for method, expected in (("damped", damped), ("newton", searched)):
        solution = lp.minimize(A, b, p, method)
        assert abs(np.median(solution.iterations) - expected) <= 1
        assert (solution.gradient_norm <= 1e-8).all()


def test_irls_needs_its_damping() -> None:
    """Undamped it converges below p = 3 alone."""
    A, b = gaussian(8, 4)
    assert lp.minimize(A, b, 2.5, "irls").converged.all()
    assert not lp.minimize(A, b, 4.0, "irls").converged.any()


def test_p_2_is_least_squares() -> None:
    A, b = gaussian(10, 3)
    solution = lp.minimize(A, b, 2.0)
    assert (solution.iterations == 0).all()
    for i in range(3):
        np.testing.assert_allclose(solution.x[i], np.linalg.lstsq(A[i], b[i])[0], rtol=1e-10)


@pytest.mark.parametrize(("a", "c"), [(1.0, 1e200), (1e-150, 1.0), (1e150, 1e-150)])
@pytest.mark.parametrize("method", lp.METHODS)
def test_units_do_not_matter(method: lp.Method, a: float, c: float) -> None:
    A, b = gaussian(6, 2)
    plain, scaled = (lp.minimize(f * A, g * b, 8.0, method, maxiter=50) for f, g in ((1.0, 1.0), (a, c)))
    assert (plain.converged == scaled.converged).all()
    assert plain.converged.all() == (method != "irls")
    if method != "irls":
        np.testing.assert_allclose(scaled.x, plain.x * (c / a), rtol=1e-7)


def test_a_problem_does_not_see_the_others() -> None:
    """Bit for bit the same alone and in a batch, with exponents of their own."""
    A, b = gaussian(8, 5)
    p = np.array([3.0, 4.0, 6.0, 8.0, 12.0])
    for method in lp.METHODS:
        together = lp.minimize(A, b, p, method, maxiter=60)
        for i in range(5):
            alone = lp.minimize(A[i : i + 1], b[i : i + 1], p[i], method, maxiter=60)
            assert np.array_equal(alone.x[0], together.x[i], equal_nan=True)
            assert alone.iterations[0] == together.iterations[i]


# ---------------------------------------------------------------- measures and steps


@pytest.mark.parametrize("p", [2.5, 8.0])
def test_step_and_gradient_against_mpmath(p: float) -> None:
    rng = np.random.default_rng(0)
    A, r = rng.standard_normal((1, 7, 3)), rng.standard_normal((1, 7))
    with mpmath.workdps(40):
        M, v = mpmath.matrix(A[0].tolist()), [mpmath.mpf(float(t)) for t in r[0]]
        gradient = M.T * mpmath.matrix([abs(t) ** (p - 2) * t for t in v])
        hessian = (p - 1) * M.T * mpmath.diag([abs(t) ** (p - 2) for t in v]) * M
        d = mpmath.lu_solve(hessian, -gradient)
        whole = [sum(abs(M[i, j]) * abs(v[i]) ** (p - 1) for i in range(7)) for j in range(3)]
        relative = max(abs(g) for g in gradient) / max(whole)
    np.testing.assert_allclose(newton_step(A, r, np.array([p]))[0], [float(t) for t in d], rtol=1e-10)
    assert gradient_norm(A, r, np.array([p]))[0] == pytest.approx(float(relative), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), p=st.floats(2, 16), size=st.sampled_from([1e-6, 1.0, 1e6]))
def test_line_search_against_scipy(seed: int, p: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    r, q = rng.standard_normal(9), rng.standard_normal(9) * size
    q *= -np.sign(np.sum(np.abs(r) ** (p - 1) * np.sign(r) * q))
    t = line_search(r[None], q[None], np.array([p]))[0]
    high = 4 * np.linalg.norm(r, p) / np.linalg.norm(q, p)
    best = scipy.optimize.minimize_scalar(
        lambda t: np.linalg.norm(r + t * q, p), bounds=(0, high), method="bounded", options={"xatol": 1e-9 * high}
    )
    assert np.linalg.norm(r + t * q, p) <= best.fun * (1 + 1e-13)


def test_line_search_stays_where_nothing_descends() -> None:
    r, p = np.array([[1.0, -2.0]]), np.array([4.0])
    assert line_search(r, np.zeros_like(r), p)[0] == 0
    assert line_search(r, r, p)[0] < 1e-12


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), p=st.floats(2, 16), away=st.floats(0, 3))
def test_dual_gap_bounds_what_is_left(seed: int, p: float, away: float) -> None:
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((1, 9, 3)), rng.standard_normal((1, 9))
    problem = Regression.of(A, b, p)
    best = lp.minimize(A, b, p, tol=1e-11).x
    r = product(A, best + away * rng.standard_normal((1, 3))) - b
    f, least = np.sum(np.abs(r) ** p), np.sum(np.abs(product(A, best) - b) ** p)
    assert (f - least) / f <= dual_gap(problem.Q, r, problem.p)[0] + 1e-10


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("p", [1.5, 16.5, np.nan, np.inf])
def test_other_exponents_are_refused(p: float) -> None:
    A, b = gaussian(3, 2)
    with pytest.raises(ValueError, match="p must be a number from 2 to 16, received"):
        lp.minimize(A, b, np.array([4.0, p]))


def test_dependent_columns_are_named_by_problem() -> None:
    A, b = gaussian(4, 3)
    A[1, :, 2] = A[1, :, 0] - 2 * A[1, :, 1]
    A[2, :, 0] = 0
    with pytest.raises(SingularSystemError) as caught:
        lp.minimize(A, b, 4.0)
    assert caught.value.indices == (1, 2)


def test_unknown_words_are_refused() -> None:
    A, b = gaussian(3, 1)
    with pytest.raises(ConfigurationError, match=r"method must be one of damped.*received 'steepest'"):
        lp.minimize(A, b, 4.0, "steepest")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"start must be one of .*received 'ones'"):
        lp.minimize(A, b, 4.0, start="ones")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start must have shape \(1, 3\), received \(3,\)"):
        lp.minimize(A, b, 4.0, start=np.zeros(3))
