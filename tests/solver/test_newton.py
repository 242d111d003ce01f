"""minimize_lp: the optimum whatever the network answers, and typed errors for bad input."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

import algebraformer as af
from algebraformer import evaluation, newton, problems
from algebraformer.errors import ConfigurationError, SingularSystemError, UnknownNameError
from algebraformer.numerics.lp_norm import newton_step, product
from algebraformer.problems.lp_regression import LpRegression, newton_system, nodes, optimum, start_step, start_tokens
from studies.baselines import lp

TARGETS = ("newton", "optimum", "start")
Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def network(family: problems.ProblemFamily, answer: Answer) -> Any:
    """A solver that answers what it is told, and counts how often it is asked."""
    asked: list[int] = []

    def predict(A: np.ndarray, b: np.ndarray) -> np.ndarray:
        asked.append(len(A))
        return answer(A, b)

    info = SimpleNamespace(family=family.settings(), problem_family=lambda: family)
    return SimpleNamespace(info=info, n=family.n, predict=predict, asked=asked)


def filters(target: str, count: int = 5, p: tuple[float, ...] = (4.0, 8.0)) -> tuple[LpRegression, Any]:
    """Filters of n = 32, and their regressions."""
    family = problems.get("lp-regression", n=32, kind="filter", target=target, p=p)
    assert isinstance(family, LpRegression)
    return family, family.regression(family.parameters(range(count), seed=5))


# ---------------------------------------------------------------- without a network


def test_the_public_name() -> None:
    result = af.newton.minimize_lp(np.ones((3, 1)), [0.0, 0.0, 1.0], 4)
    assert result.x[0] == pytest.approx(1 / (1 + 2 ** (1 / 3)))


@pytest.mark.parametrize("p", [2, 2.5, 4, 8, 16])
def test_one_problem_against_scipy(p: float) -> None:
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((12, 4)), rng.standard_normal(12)
    result = newton.minimize_lp(A, b, p)
    assert result.success
    assert (result.status, result.n_learned) == (0, 0)
    assert result.message.startswith("The relative gradient norm")
    assert result.nit == result.n_exact == len(result.trace) - 1
    reference = scipy.optimize.minimize(
        lambda x: np.linalg.norm(A @ x - b, p), np.linalg.lstsq(A, b)[0], method="Nelder-Mead", tol=1e-12
    )
    assert result.fun ** (1 / p) <= reference.fun * (1 + 1e-12)
    assert result.fun == pytest.approx(np.sum(np.abs(A @ result.x - b) ** p), rel=1e-12)
    assert reference.fun == pytest.approx(result.fun ** (1 / p), rel=1e-4)
    assert 0 <= result.dual_gap < 1e-8


def test_iterations_are_those_of_the_classical_method() -> None:
    _, problem = filters("newton")
    result = newton.minimize_lp(problem.A, problem.b, problem.p)
    classical = lp.minimize(problem.A, problem.b, problem.p, "newton")
    assert result.nit.tolist() == classical.iterations.tolist()
    np.testing.assert_allclose(result.x, classical.x, rtol=1e-12, atol=1e-14)


def test_a_batch_is_its_problems() -> None:
    _, problem = filters("newton")
    batch = newton.minimize_lp(problem.A, problem.b, problem.p)
    for i in range(len(problem)):
        one = newton.minimize_lp(problem.A[i], problem.b[i], problem.p[i])
        assert {type(one[k]) for k in ("fun", "gradient_norm", "dual_gap")} == {float}
        assert {type(one[k]) for k in ("nit", "n_learned", "n_exact", "status")} == {int}
        assert one.success is True
        for key in one:
            assert np.array_equal(one[key], batch[key][i]), key


def test_the_trace_falls() -> None:
    _, problem = filters("newton", 1)
    (trace,) = newton.minimize_lp(problem.A, problem.b, problem.p).trace
    norms = [size for _, _, size in trace]
    assert norms == sorted(norms, reverse=True)
    assert [kind for kind, _, _ in trace] == ["start", *["exact"] * (len(trace) - 1)]
    assert trace[-1][1] <= 1e-8 < trace[-2][1]


def test_x0_is_where_it_starts() -> None:
    _, problem = filters("start", 2)
    best = optimum(problem)
    near = newton.minimize_lp(problem.A, problem.b, problem.p, x0=best)
    assert near.nit.max() <= 1
    far = newton.minimize_lp(problem.A, problem.b, problem.p, x0=best + 1.0)
    np.testing.assert_allclose(far.fun, near.fun, rtol=1e-9)
    assert far.trace[0][0][2] > far.trace[0][-1][2]


def test_maxiter_is_said_to_be_reached() -> None:
    _, problem = filters("newton", 1)
    result = newton.minimize_lp(problem.A[0], problem.b[0], 8, maxiter=2)
    assert (result.success, result.status, result.nit) == (False, 1, 2)
    assert "allow more" in result.message
    assert result.gradient_norm > 1e-8


# ---------------------------------------------------------------- whatever the network answers


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "answer",
    [
        lambda A, b: np.full_like(b, np.nan),
        lambda A, b: np.zeros_like(b),
        lambda A, b: np.full_like(b, 1e300),
        lambda A, b: np.full_like(b, -np.inf),
        lambda A, b: np.random.default_rng(0).standard_normal(b.shape),
        lambda A, b: -np.linalg.lstsq(A[0], b[0])[0] * np.ones_like(b),
    ],
    ids=["nan", "zero", "huge", "infinite", "random", "uphill"],
)
def test_a_wrong_network_costs_next_to_nothing(target: str, answer: Answer) -> None:
    family, problem = filters(target)
    solver = network(family, answer)
    result = newton.minimize_lp(problem.A, problem.b, problem.p, solver=solver)
    exact = newton.minimize_lp(problem.A, problem.b, problem.p)
    assert solver.asked
    assert result.success.all()
    np.testing.assert_allclose(result.fun, exact.fun, rtol=1e-10)
    assert (result.gradient_norm <= 1e-8).all()
    assert (result.nit == result.n_learned + result.n_exact).all()
    assert (result.nit <= exact.nit + 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), target=st.sampled_from(TARGETS), size=st.floats(-300, 300), p=st.floats(2, 16))
def test_any_network_any_problem(seed: int, target: str, size: float, p: float) -> None:
    rng = np.random.default_rng(seed)
    family = problems.get("lp-regression", n=16, kind="uniform", target=target)
    A, b = rng.standard_normal((20, 16)), rng.standard_normal(20) * 10 ** rng.uniform(-3, 3)
    solver = network(family, lambda A, b: rng.standard_normal(b.shape) * 10.0**size)
    result = newton.minimize_lp(A, b, p, solver=solver)
    exact = newton.minimize_lp(A, b, p)
    assert result.success
    assert result.fun == pytest.approx(exact.fun, rel=1e-9)
    assert result.dual_gap <= 1e-6


def test_a_right_start_is_taken_at_once() -> None:
    family, problem = filters("start")
    change = (product(problem.A, optimum(problem) - problem.x))[:, nodes(128, 32)]
    solver = network(family, lambda A, b: change)
    result = newton.minimize_lp(problem.A, problem.b, problem.p, solver=solver)
    assert result.n_learned.tolist() == [1] * 5
    assert solver.asked == [5]
    assert result.n_exact.max() <= 2
    assert [trace[1][0] for trace in result.trace] == ["learned"] * 5


def test_a_right_long_step_is_taken_at_once() -> None:
    family, problem = filters("optimum", 1)
    way = optimum(problem) - problem.x
    result = newton.minimize_lp(problem.A, problem.b, problem.p, solver=network(family, lambda A, b: way))
    assert result.n_learned.tolist() == [1]
    assert result.n_exact.max() <= 2


def test_right_directions_give_newtons_method() -> None:
    """A network that solves H d = -g: as many steps as Newton's method, also where they are short."""
    family, problem = filters("newton", 1, p=(8.0,))
    solver = network(family, lambda H, g: np.linalg.lstsq(H[0], g[0])[0][None])
    result = newton.minimize_lp(problem.A, problem.b, problem.p, solver=solver)
    exact = newton.minimize_lp(problem.A, problem.b, problem.p)
    assert abs(int(result.nit[0] - exact.nit[0])) <= 1
    assert result.n_learned[0] >= 2
    assert result.n_exact[0] >= 1


def test_a_network_is_not_asked_again_after_a_bad_step() -> None:
    family, problem = filters("newton", 1)
    solver = network(family, lambda A, b: np.zeros_like(b))
    newton.minimize_lp(problem.A, problem.b, problem.p, solver=solver)
    assert solver.asked == [1]


def test_a_start_is_not_asked_for_where_x0_is_given() -> None:
    family, problem = filters("start", 1)
    solver = network(family, lambda A, b: np.ones_like(b))
    newton.minimize_lp(problem.A, problem.b, problem.p, x0=problem.x, solver=solver)
    assert solver.asked == []


# ---------------------------------------------------------------- hard input


def test_interpolation_is_the_optimum_for_every_p() -> None:
    rng = np.random.default_rng(0)
    for A in (rng.standard_normal((9, 4)), rng.standard_normal((4, 4))):
        x = rng.standard_normal(4)
        result = newton.minimize_lp(A, A @ x, 8)
        assert (result.status, result.success, result.nit) == (3, True, 0)
        np.testing.assert_allclose(result.x, x, rtol=1e-10)
        assert result.fun < 1e-60
        assert (result.gradient_norm, result.dual_gap) == (0, 0)
        assert result.trace == [("start", 0.0, 0.0)]
    assert newton.minimize_lp(A, np.zeros(4), 3).x.tolist() == [0, 0, 0, 0]


def test_single_zero_residuals_do_no_harm() -> None:
    """At the start two of four residuals vanish, and their weights with them."""
    A, b = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0.0, 1.0, 2.0, 2.0])
    result = newton.minimize_lp(A, b, 8)
    np.testing.assert_allclose(result.x, [0.5, 2.0], rtol=1e-12)
    assert result.success


@pytest.mark.parametrize("large", [1e4, 1e10, 1e13])
def test_residuals_that_are_small_against_b(large: float) -> None:
    rng = np.random.default_rng(1)
    A, noise = rng.standard_normal((20, 3)), rng.uniform(-1, 1, 20)
    b = A @ np.full(3, large) + noise
    result = newton.minimize_lp(A, b, 8)
    assert result.success
    assert result.status == (0 if large < 1e7 else 2)
    exact = newton.minimize_lp(A, b - A @ np.full(3, large), 8)
    np.testing.assert_allclose(result.x - large, exact.x, atol=1e-15 * large + 1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_units(scale: float) -> None:
    _, problem = filters("newton", 1, p=(8.0,))
    plain = newton.minimize_lp(problem.A[0], problem.b[0], 8)
    scaled = newton.minimize_lp(problem.A[0], problem.b[0] * scale, 8)
    np.testing.assert_allclose(scaled.x, plain.x * scale, rtol=1e-8)
    assert scaled.success
    assert scaled.fun in (0.0, np.inf)  # beyond the numbers of float64, unlike x and the measures
    assert scaled.gradient_norm <= 1e-8


A_GOOD, B_GOOD = np.arange(12.0).reshape(6, 2) ** 2, np.ones(6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": 1.5}, "p must be a number from 2 to 16, received 1.5"),
        ({"p": np.nan}, "p contains NaN or infinity$"),
        ({"p": np.inf}, "p contains NaN or infinity$"),
        ({"p": "8"}, "p has dtype"),
        ({"p": [4, 8]}, r"p must be one number, received shape \(2,\)"),
        ({"A": A_GOOD.T, "b": np.ones(2)}, "at least as many rows as columns, received 2 x 6"),
        ({"A": np.where(A_GOOD == 4, np.nan, A_GOOD)}, "A contains NaN or infinity"),
        ({"b": np.full(6, np.inf)}, "b contains NaN or infinity"),
        ({"b": np.ones(5)}, r"b must have shape \(6,\) for A of shape \(6, 2\), received \(5,\)"),
        ({"A": np.ones(6)}, r"A must have shape \(m, n\) or \(B, m, n\), received \(6,\)"),
        ({"A": A_GOOD + 1j}, "A has dtype complex128, expected real numbers"),
        ({"x0": np.ones(3)}, r"x0 must have shape \(2,\), received \(3,\)"),
        ({"A": np.ma.masked_array(A_GOOD, A_GOOD == 4)}, "A is a masked array"),
        ({"x0": np.ma.masked_array(np.ones(2), [True, False])}, "x0 is a masked array"),
        ({"x0": np.full(2, np.nan)}, "x0 contains NaN or infinity"),
        ({"tol": -1.0}, "tol must be a finite number >= 0, received -1"),
        ({"maxiter": -1}, "maxiter must be at least 0, received -1"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        newton.minimize_lp(**({"A": A_GOOD, "b": B_GOOD, "p": 4} | changes))


def test_dependent_columns_are_refused() -> None:
    words = "the columns of A are linearly dependent{}: the optimum is not unique; leave out columns"
    with pytest.raises(SingularSystemError, match=f"^{words.format('')}$"):
        newton.minimize_lp(np.ones((5, 2)), np.arange(5.0), 4)
    A = np.random.default_rng(0).standard_normal((3, 5, 2))
    A[1:] = 1.0
    with pytest.raises(SingularSystemError, match=words.format(" in problems 1, 2 of the batch")) as caught:
        newton.minimize_lp(A, np.ones((3, 5)), 4)
    assert caught.value.indices == (1, 2)


def test_networks_for_something_else_are_refused() -> None:
    family, problem = filters("start", 1)
    solver = network(family, lambda A, b: b)
    with pytest.raises(ValueError, match="supports n = 32, received A with 31 columns"):
        newton.minimize_lp(problem.A[..., :31], problem.b, 8, solver=solver)
    with pytest.raises(ValueError, match="supports up to 128 rows, received A with 256"):
        newton.minimize_lp(np.tile(problem.A, (1, 2, 1)), np.tile(problem.b, 2), 8, solver=solver)
    other = network(problems.get("diffusion", n=32), lambda A, b: b)
    with pytest.raises(ConfigurationError, match="trained on lp-regression, received one for diffusion"):
        newton.minimize_lp(problem.A, problem.b, 8, solver=other)


# ---------------------------------------------------------------- what networks read


def test_newton_systems_give_newtons_step() -> None:
    for kind in ("gaussian", "spline", "uniform", "filter"):
        family = problems.get("lp-regression", n=8, kind=kind, p=(4.0,))
        assert isinstance(family, LpRegression)
        systems = family.sample(6, seed=2)
        problem = family.regression(systems.params)
        x = family.iterate(problem, systems.params)
        r = np.einsum("bmn,bn->bm", problem.A, x) - problem.b
        np.testing.assert_allclose(systems.x, newton_step(problem.A, r, problem.p), rtol=1e-5)
        np.testing.assert_allclose(systems.A, np.swapaxes(systems.A, 1, 2), rtol=1e-12)
        assert np.linalg.eigvalsh(systems.A).min() > 0
        assert len(set(systems.params["iterate"].tolist())) > 1


@pytest.mark.parametrize("target", ["optimum", "start"])
@pytest.mark.parametrize("kind", ["spline", "filter"])
def test_targets_lead_to_the_optimum(target: str, kind: str) -> None:
    family = problems.get("lp-regression", n=32, kind=kind, target=target)
    assert isinstance(family, LpRegression)
    systems = family.sample(6, seed=2)
    problem = family.regression(systems.params)
    step = start_step(problem, systems.x) if target == "start" else systems.x
    best = newton.minimize_lp(problem.A, problem.b, problem.p, x0=family.iterate(problem, systems.params) + step)
    assert best.nit.max() <= 2
    if target == "start":
        np.testing.assert_array_equal(family.iterate(problem, systems.params), problem.x)


def test_start_tokens_know_neither_sign_nor_unit() -> None:
    _, problem = filters("start", 3)
    tokens, s = start_tokens(problem)
    again, t = start_tokens(type(problem).of(problem.A, -7 * problem.b, problem.p))
    np.testing.assert_allclose(again, tokens, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(t, -7 * s, rtol=1e-9)
    np.testing.assert_allclose(np.abs(s[:, 0]), np.abs(problem.r).max(axis=1))


def test_newton_systems_scale_with_the_residual() -> None:
    _, problem = filters("newton", 3)
    H, g = newton_system(problem, problem.x)
    again = type(problem).of(problem.A, -7 * problem.b, problem.p)
    H_again, g_again = newton_system(again, again.x)
    np.testing.assert_allclose(H_again, H, rtol=1e-7)
    np.testing.assert_allclose(g_again, -7 * g, rtol=1e-7)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kind": "cubic"}, "kind must be one of gaussian"),
        ({"target": "end"}, "target must be one of newton"),
        ({"p": ()}, "p must be a tuple of numbers from 2 to 16"),
        ({"p": (1.0,)}, "p must be a tuple of numbers from 2 to 16"),
        ({"p": 8.0}, "p must be a tuple of numbers from 2 to 16"),
        ({"iterates": 0}, "iterates must be a whole number of at least 1"),
        ({"kind": "spline", "n": 3}, "n must be at least 4 for kind spline"),
        ({"kind": "spline", "target": "start", "n": 8}, "n must be at least"),
    ],
)
def test_bad_settings_of_the_family_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        problems.get("lp-regression", **bad)


def test_a_network_may_be_named() -> None:
    _, problem = filters("start", 2)
    named = newton.minimize_lp(problem.A, problem.b, 8, solver="lp-filter-32")
    given = newton.minimize_lp(problem.A, problem.b, 8, solver=af.LearnedSolver.from_pretrained("lp-filter-32"))
    np.testing.assert_array_equal(named.x, given.x)
    with pytest.raises(UnknownNameError, match="unknown model"):
        newton.minimize_lp(problem.A, problem.b, 8, solver="nothing")


def test_what_has_no_systems_does_not_solve() -> None:
    solver = af.LearnedSolver.from_pretrained("lp-filter-32")
    A, b = np.eye(32), np.ones(32)
    calls: list[Callable[[], Any]] = [
        lambda: solver.solve(A, b), lambda: solver.operator(A), lambda: af.solve(A, b, model="lp-filter-32"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"use predict, or newton\.minimize_lp"):
            call()
    assert solver.predict(A, b).shape == (32,)


def test_what_is_no_system_is_not_certified() -> None:
    """Tokens of a start are scored, but nobody solves them."""
    assert problems.get("lp-regression", n=8).is_linear_system
    family = problems.get("lp-regression", n=32, kind="filter", target="start")
    assert not family.is_linear_system
    solver = af.LearnedSolver.from_pretrained("lp-filter-32")
    scores = evaluation.evaluate(solver, family.sample(4, seed=0), is_linear_system=family.is_linear_system)
    assert list(scores) == ["network"]
    assert scores["network"]["normalized_mse"] > 0
