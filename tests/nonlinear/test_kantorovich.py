"""Newton-Kantorovich: right whatever the inverse does, honest counts, typed errors; and the study, quick."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from rich.progress import Progress
from test_nonlinear import CLOSED, NAMES, SETTINGS, family

from algebraformer import kantorovich, problems
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.kantorovich import GCRDirection, LUDirection, Outcome
from algebraformer.numerics.preconditioner import ApproximateInverse, MeanInverse
from algebraformer.problems.nonlinear import Jacobians, operators
from algebraformer.reporting import Report, Verdict
from algebraformer.solver import LearnedSolver
from studies import kantorovich as study
from studies.baselines.chord import ChordDirection
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

N = 32


def exact_inverse(J: Jacobians) -> ApproximateInverse:
    """The inverse itself, as an operator head would give it."""
    A = J.dense()
    return ApproximateInverse(np.linalg.inv(A).astype(np.float32), np.eye(A.shape[1]), np.ones(len(A)))


def useless(J: Jacobians) -> MeanInverse:
    return MeanInverse(np.diag((-1.0) ** np.arange(J.p.shape[1])))


def broken(J: Jacobians) -> MeanInverse:
    return MeanInverse(np.full((J.p.shape[1],) * 2, np.nan))


def mean_inverse(name: str) -> GCRDirection:
    problem = family(name, n=N)
    A = problem.assembled(range(20), 7)[0]
    inverse = MeanInverse(np.linalg.inv(A.mean(axis=0)))
    return GCRDirection(lambda J: inverse, 40)


def certified(result: kantorovich.KantorovichResult) -> bool:
    return bool(result.certified.all() and all(status is Outcome.CONVERGED for status in result.status))


# ---------------------------------------------------------------- the answers


@pytest.mark.parametrize("name", NAMES)
def test_closed_forms_are_found(name: str) -> None:
    params, exact = CLOSED[name]()
    problem = family(name, n=48, **SETTINGS.get(name, {}))
    for method in (LUDirection(), ChordDirection(), GCRDirection(exact_inverse, 10)):
        result = kantorovich.iterate(problem, params, method)
        assert certified(result)
        np.testing.assert_allclose(result.u[0], exact(problem.grid[1:-1]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_finds_what_scipys_root_finds(name: str) -> None:
    problem = family(name, n=N)
    params = problem.parameters(range(6), seed=9)
    L = kantorovich._inverse_second_derivative(N)
    results = {
        "direct": kantorovich.iterate(problem, params, LUDirection()),
        "chord": kantorovich.iterate(problem, params, ChordDirection()),
        "mean": kantorovich.iterate(problem, params, mean_inverse(name)),
        "exact": kantorovich.iterate(problem, params, GCRDirection(exact_inverse, 10)),
    }
    for i in range(2):
        p = {key: value[i : i + 1] for key, value in params.items()}
        found = scipy.optimize.root(
            lambda u, p=p: L @ problem.residual(p, u[None])[0], problem.initial(p)[0], tol=1e-13
        )
        for result in results.values():
            np.testing.assert_allclose(result.u[i], found.x, rtol=0, atol=1e-7)
    for result in results.values():
        assert certified(result)
    assert results["mean"].factorisations.sum() == results["exact"].factorisations.sum() == 0
    assert np.array_equal(results["direct"].factorisations, results["direct"].nit)
    assert (results["chord"].factorisations <= results["direct"].factorisations).all()
    assert (results["mean"].refinements >= results["exact"].refinements).all()


@pytest.mark.parametrize("maxiter", [1, 50])
def test_measures_are_those_of_u(maxiter: int) -> None:
    """Up to the rounding of F, n eps |size|: a solution leaves nothing else, one step far more."""
    problem = family("burgers", n=N)
    params = problem.parameters(range(5), seed=1)
    result = kantorovich.solve(problem, params, maxiter=maxiter)
    F, start = problem.residual(params, result.u), problem.residual(params, problem.initial(params))
    size, eps = problem.size(params, result.u), N * np.finfo(float).eps
    inverse = np.linalg.inv(operators(N)[0][:, 1:-1])
    natural, first = (np.linalg.norm(inverse @ v[:, :, None], axis=(1, 2)) for v in (F, start))
    slack = eps * np.linalg.norm(np.abs(inverse) @ size[:, :, None], axis=(1, 2)) / first
    omega, norm = np.max(np.abs(F) / size, axis=1), np.linalg.norm(F, axis=1)
    for found, expected, rounding in (
        (result.residual_norm, norm, eps * np.linalg.norm(size, axis=1)),
        (result.backward_error, omega, eps),
        (result.natural_residual, natural / first, slack),
    ):
        assert (np.abs(found - expected) <= rounding + 1e-10 * expected).all()
        assert maxiter > 1 or (expected > 1e6 * rounding).all()
    assert result.certified.all() == (maxiter > 1)
    assert ((natural <= kantorovich.RTOL * first) == result.certified).all()


# ---------------------------------------------------------------- safe whatever the inverse does


@pytest.mark.parametrize("inverse", [useless, broken])
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_inverse_costs_factorisations_and_nothing_else(name: str, inverse: Any) -> None:
    problem = family(name, n=N)
    params = problem.parameters(range(6), seed=5)
    exact, result = kantorovich.solve(problem, params), kantorovich.iterate(problem, params, GCRDirection(inverse, 3))
    assert certified(result)
    np.testing.assert_allclose(result.u, exact.u, rtol=0, atol=1e-9)
    assert np.array_equal(result.factorisations, exact.factorisations)


def test_a_wrong_inverse_for_some_problems_leaves_the_others_alone() -> None:
    """Every other system of a batch gets the inverse with the wrong sign in every other row."""
    problem = family("bratu", n=N, left=(0.0, 0.0), right=(0.0, 0.0))
    params = problem.parameters(range(6), seed=5)
    order = np.sort(params["strength"])
    threshold = (order[2] + order[3]) / 2
    strong = params["strength"] > threshold

    def sometimes(J: Jacobians) -> ApproximateInverse:
        found = exact_inverse(J)
        wrong = J.r[:, -1] > threshold  # type: ignore[index]  # lambda e^u next to an end, where u is about 0
        sign = np.where(wrong[:, None, None], (-1.0) ** np.arange(N)[:, None], 1.0)
        return dataclasses.replace(found, T=found.T * sign.astype(np.float32))

    result = kantorovich.iterate(problem, params, GCRDirection(sometimes, 2))
    assert certified(result)
    assert (result.factorisations[strong] > 0).all()
    assert (result.factorisations[~strong] == 0).all()


def test_line_search_helps_where_full_steps_go_astray() -> None:
    problem = family("burgers", n=N)
    params = problem.parameters(range(8), seed=2)
    far = problem.initial(params) + 3 * np.cos(np.pi * problem.grid[1:-1] / 2)
    result = kantorovich.solve(problem, params, u0=far)
    assert certified(result)
    np.testing.assert_allclose(result.u, kantorovich.solve(problem, params).u, rtol=0, atol=1e-7)


def test_beyond_the_fold_there_is_nothing_to_find() -> None:
    problem = family("bratu", n=N, left=(0.0, 0.0), right=(0.0, 0.0), strength=(1.5, 1.6))
    result = kantorovich.solve(problem, problem.parameters(range(4)))
    assert not result.certified.any()
    assert all(status in (Outcome.STAGNATED, Outcome.LIMIT) for status in result.status)


def test_the_limit_is_kept_and_said() -> None:
    problem = family("burgers", n=N)
    params = problem.parameters(range(4))
    for limit in (0, 1):
        result = kantorovich.solve(problem, params, maxiter=limit)
        assert (result.nit == limit).all()
        assert all(status is Outcome.LIMIT for status in result.status)
        assert not result.certified.any()


def test_a_guess_whose_residual_overflows_proves_nothing() -> None:
    """exp(800) is not a float64: any residual whatever is small against it."""
    problem = family("bratu", n=8, left=(800.0, 800.0), right=(0.0, 0.0))
    result = kantorovich.solve(problem, problem.parameters(range(2)), u0=np.zeros((2, 8)), maxiter=0)
    assert (result.residual_norm > 1e4).all()
    assert not result.certified.any()


def test_solutions_are_recognised() -> None:
    problem = family("burgers", n=N)
    params = problem.parameters(range(4))
    found = kantorovich.solve(problem, params)
    again = kantorovich.solve(problem, params, u0=found.u)
    assert certified(again)
    assert (again.nit == 0).all()
    np.testing.assert_array_equal(again.u, found.u)


# ---------------------------------------------------------------- the study and a trained network


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("kantorovich")
    return run_study(load_study("kantorovich"), "quick", folder, Progress(disable=True)), folder


def test_the_quick_preset_runs(quick: tuple[Report, Path], tmp_path: Path) -> None:
    result, _ = quick
    records = result.data["records"]
    assert [(r["equation"], r["n"]) for r in records] == [(k, n) for k in ("bratu", "burgers") for n in (16, 24)]
    for record in records:
        assert record["learned"]["certified"] == 1
        assert record["learned"]["without"] >= 0.9
        assert set(record["methods"]) == {study.LEARNED_INVERSE, study.LU, study.DGESV, study.CHORD, study.GMRES}
        for name, method in record["methods"].items():
            assert method["certified"] == 1, name
            assert method["difference"] <= 1e-6, name
            assert method["seconds"] > 0
        assert record["methods"][study.GMRES]["factorisations_mean"] == 0
    assert_tables_and_figure("kantorovich", result, tmp_path)


def test_trained_networks_are_taken_at_their_word(quick: tuple[Report, Path]) -> None:
    solver = LearnedSolver.from_pretrained(quick[1] / "burgers-16")
    problem = family("burgers", n=16)
    params = problem.parameters(range(30), seed=11)
    result = kantorovich.solve(problem, params, solver)
    assert certified(result)
    np.testing.assert_allclose(result.u, kantorovich.solve(problem, params).u, rtol=0, atol=1e-6)
    with pytest.raises(ConfigurationError, match="must be trained on bratu, received one for burgers"):
        kantorovich.solve(family("bratu", n=16), params, solver)
    with pytest.raises(ValueError, match="supports n = 16, received a family with n = 24"):
        kantorovich.solve(family("burgers", n=24), params, solver)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rtol": -1.0}, "rtol must be a finite number"),
        ({"rtol": float("nan")}, "rtol must be a finite number"),
        ({"maxiter": -1}, "maxiter must be at least 0"),
        ({"max_refinements": -1}, "max_refinements must be at least 0, received -1"),
        ({"u0": np.zeros((2, N))}, r"u0 must have shape \(3, 32\), received \(2, 32\)"),
        ({"u0": np.full((3, N), np.inf)}, "u0 contains NaN or infinity"),
        ({"u0": np.full((3, N), 1j)}, "u0 has dtype complex128, expected real numbers"),
        ({"u0": np.ma.masked_array(np.ones((3, N)), True)}, "u0 is a masked array"),
    ],
)
def test_bad_input_is_refused(settings: dict[str, Any], message: str) -> None:
    problem = family("bratu", n=N)
    with pytest.raises(ValueError, match=message):
        kantorovich.solve(problem, problem.parameters(range(3)), **settings)


def test_what_is_no_nonlinear_problem_is_refused() -> None:
    problem = family("bratu", n=N)
    params = problem.parameters(range(3))
    linear: Any = problems.get("diffusion", n=N)
    with pytest.raises(ConfigurationError, match="expected a nonlinear family such as bratu or burgers, received diff"):
        kantorovich.solve(linear, linear.parameters(range(3)))
    with pytest.raises(ConfigurationError, match="params of bratu need left, right, strength, received none for stren"):
        kantorovich.solve(problem, family("burgers", n=N).parameters(range(3)))
    with pytest.raises(ValueError, match=r"^params\['left'\] contains NaN or infinity$"):
        kantorovich.solve(problem, params | {"left": np.full(3, np.nan)})


def test_a_network_may_be_named() -> None:
    problem = family("bratu", n=N)
    with pytest.raises(ConfigurationError, match="must be trained on bratu, received one for diffusion"):
        kantorovich.solve(problem, problem.parameters(range(3)), "diffusion-64")
    with pytest.raises(UnknownNameError, match="unknown model"):
        kantorovich.solve(problem, problem.parameters(range(3)), "nothing")


# ---------------------------------------------------------------- outcomes


def record(n: int, without: float, seconds: dict[str, float], certified: float = 1.0) -> dict[str, Any]:
    numbers = {
        "certified": certified, "without": without, "iterations_mean": 4.0, "iterations_max": 5,
        "factorisations_mean": 0.0, "refinements_mean": 3.0, "refinements_max": 6,
    }  # fmt: skip
    return {
        "equation": "burgers", "n": n, "batch": 8, "preparation": 3.0, "learned": numbers | {"problems": 100},
        "methods": {name: numbers | {"seconds": s, "difference": 1e-9} for name, s in seconds.items()},
    }  # fmt: skip


def times(learned: float, lu: float, gmres: float = 1.0) -> dict[str, float]:
    return {study.LEARNED_INVERSE: learned, study.LU: 2 * lu, study.DGESV: lu, study.CHORD: 1.0, study.GMRES: gmres}


def test_outcomes_follow_from_the_numbers() -> None:
    good = study.summary([record(128, 1.0, times(0.5, 0.1)), record(256, 0.995, times(0.2, 0.4))]).outcomes
    assert {key: found.verdict for key, found in good.items()} == {
        "kantorovich.no-factorisation": Verdict.MET,
        "kantorovich.certified": Verdict.HOLDS,
        "kantorovich.faster-than-lu": Verdict.MET,
        f"kantorovich.faster-than/{study.GMRES}": Verdict.HOLDS,
        f"kantorovich.faster-than/{study.CHORD}": Verdict.HOLDS,
    }
    assert good["kantorovich.no-factorisation"].numbers == {
        "target": 0.99, "share": 0.995, "equation": "burgers", "n": 256, "problems": 100,
    }  # fmt: skip
    assert good["kantorovich.faster-than-lu"].numbers["least"] == pytest.approx(2)
    poor = study.summary([record(256, 0.98, times(0.5, 0.4, gmres=0.1), certified=0.99)])
    found = poor.outcomes
    assert found["kantorovich.no-factorisation"].verdict == Verdict.MISSED
    assert found["kantorovich.no-factorisation"].numbers["share"] == 0.98
    assert found["kantorovich.certified"].verdict == Verdict.FAILS
    assert found["kantorovich.certified"].numbers == {"share": 0.99}
    assert found["kantorovich.faster-than-lu"].verdict == Verdict.MISSED
    gmres = found[f"kantorovich.faster-than/{study.GMRES}"]
    assert gmres.verdict == Verdict.FAILS
    assert gmres.numbers == {"method": study.GMRES, "lost": 1, "cases": 1, "where": "burgers at n = 256"}
    none = study.summary([record(64, 1.0, times(0.5, 0.4))])
    assert none.outcomes["kantorovich.faster-than-lu"].verdict == Verdict.INCONCLUSIVE
    assert poor.conclusions[0] == (
        "No factorisation in at least 99% of the problems inside the family: missed. The smallest share is 98.00% "
        "(burgers, n = 256, 100 problems)."
    )
    assert none.conclusions[2].endswith("not measured at these n.")
