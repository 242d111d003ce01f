"""How many iterations of Newton's method a network saves in l_p regression, against every classical method.

For every kind of problem and every p, on problems that no network has seen: iterations until the relative gradient
norm is 1e-8, of the classical methods from least squares and from zero, of `minimize_lp` with every network for that
kind and size, and of Newton's method with exact line search from warm starts: the optimum of the problem before, and
the way from least squares to the optimum of the nearest of many solved problems (nearest in the residuals of least
squares, divided by the largest), at its best length like a network's. An iteration is a weighted least squares problem,
or a step that a network or a neighbour proposed and that was taken.

Times include inference and the least squares start. The classical methods and the driver are batched alike.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from algebraformer.linalg import FloatArray
from algebraformer.newton import minimize_lp
from algebraformer.numerics.lp_norm import Regression, iterate, line_search_step, max_abs, newton, p_norm, product
from algebraformer.problems import LpRegression
from algebraformer.problems.lp_regression import Kind
from algebraformer.progress import batches
from algebraformer.reporting import Report
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, Recipe
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from studies.baselines import lp
from studies.harness.regressions import real_problem
from studies.harness.runs import computed_once, run_once
from studies.harness.timing import in_turn
from studies.newton.report import (
    DIRECTION,
    LEARNED_START,
    LONG_STEP,
    MAIN_P,
    NEIGHBOUR,
    PREVIOUS,
    distribution,
    summary,
)

REAL = ("longley", "stackloss", "engel", "scotland", "copper")
"""Data sets of statsmodels, with a constant added to their explanatory variables."""
BATCH = 250
"""Problems at once."""
RANDOM_START = 2_000
"""Index of the first of the many random problems, beyond those that are measured one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is solved."""

    groups: tuple[tuple[Kind, int], ...]
    """Kinds and n."""
    p: tuple[float, ...]
    problems: int
    """Problems of each kind, n and p."""
    solved: int
    """Problems whose optima are known to the nearest neighbour, of each kind, n and p."""
    shipped: tuple[str, ...]
    """Shipped models."""
    trained: dict[str, Recipe]
    """Networks that are trained for the study."""
    random: int
    """Random problems whose optimum is checked against another method's."""
    rounds: int
    """Rounds whose median time is reported."""
    maxiter: int = 100
    """Iterations after which a method has not converged."""


KINDS: tuple[Kind, ...] = get_args(Kind)
FILTER = RECIPES["lp-filter-32"]


def _other(target: str, steps: int) -> Recipe:
    """Return the recipe of the shipped start with another target."""
    return dataclasses.replace(FILTER, family_settings={"kind": "filter", "target": target}, steps=steps)


PRESETS = {
    "quick": Plan(
        groups=(("filter", 32), ("spline", 32)),
        p=(4.0, 8.0),
        problems=6,
        solved=12,
        shipped=("lp-filter-32",),
        trained={},
        random=20,
        rounds=1,
    ),
    "cpu": Plan(
        groups=(*((kind, 32) for kind in KINDS), ("spline", 64), ("filter", 64)),
        p=(3.0, 4.0, 6.0, 8.0, 12.0),
        problems=50,
        solved=500,
        shipped=("lp-filter-32",),
        trained={DIRECTION: _other("newton", 5_000), LONG_STEP: _other("optimum", 5_000)},
        random=10_000,
        rounds=3,
    ),
    "paper": Plan(
        groups=tuple((kind, n) for kind in KINDS for n in (32, 64)),
        p=(3.0, 4.0, 6.0, 8.0, 12.0),
        problems=1_000,
        solved=10_000,
        shipped=("lp-filter-32",),
        trained={DIRECTION: _other("newton", 100_000), LONG_STEP: _other("optimum", 100_000)},
        random=10_000,
        rounds=9,
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, solve everything, then put it together."""
    task = bar.add_task("newton", total=len(plan.groups) * (len(plan.p) + 1) + len(plan.trained) + len(REAL))
    networks = {LEARNED_START: [LearnedSolver.from_pretrained(name) for name in plan.shipped]}
    for label, recipe in plan.trained.items():
        networks[label] = [run_once(recipe, folder / label.replace(" ", "-")).solver]
        bar.advance(task)
    records, times, checks = [], [], []
    for kind, n in plan.groups:
        here = {
            label: solver
            for label, solvers in networks.items()
            for solver in solvers
            if solver.n == n and solver.info.family["kind"] == kind
        }
        for p in plan.p:
            family = LpRegression(kind=kind, n=n, p=(p,))
            problem = family.regression(family.parameters(range(plan.problems), TEST_SEED))
            about = {"kind": kind, "n": n, "m": family.m, "p": p}
            settings = {"problems": plan.problems, "solved": plan.solved, "maxiter": plan.maxiter}
            found = computed_once(
                folder / f"{kind}-{n}-{p:g}.json", about | settings, partial(baselines, family, problem, plan)
            )
            records += [about | one for one in found + learned(problem, here, plan.maxiter)]
            if p == MAIN_P:
                times += [about | one for one in seconds(problem, here, plan)]
            bar.advance(task)
        checks.append({"kind": kind, "n": n, **same_optimum(kind, n, plan, here.get(LEARNED_START))})
        bar.advance(task)
    real = []
    for name in REAL:
        real += real_data(name, plan)
        bar.advance(task)
    return summary(records, times, checks, real, [vars(s.info) for group in networks.values() for s in group])


# ---------------------------------------------------------------- iterations


def record(
    method: str, start: str, iterations: NDArray[np.int64], converged: NDArray[np.bool_], **more: Any
) -> dict[str, Any]:
    """Return the iterations of one method on the problems of one group."""
    return {
        "method": method,
        "start": start,
        "iterations": iterations.tolist(),
        "converged": float(np.mean(converged)),
        **distribution(iterations),
        **more,
    }


def classical(problem: Regression, maxiter: int) -> list[dict[str, Any]]:
    """Return the records of every classical method from every start."""
    found = []
    for method in lp.METHODS:
        for start in lp.STARTS:
            solution = lp.minimize(problem.A, problem.b, problem.p, method, start, maxiter=maxiter)
            found.append(record(method, start, solution.iterations, solution.converged))
    return found


def baselines(family: LpRegression, problem: Regression, plan: Plan) -> list[dict[str, Any]]:
    """Return the records of every method without a network."""
    bank = family.regression(family.parameters(range(plan.solved), VALIDATION_SEED))
    return classical(problem, plan.maxiter) + warm(problem, bank, plan.maxiter)


def learned(problem: Regression, networks: dict[str, LearnedSolver], maxiter: int) -> list[dict[str, Any]]:
    """Return the records of `minimize_lp` with every network."""
    found = []
    for label, solver in networks.items():
        result = minimize_lp(problem.A, problem.b, problem.p, solver=solver, maxiter=maxiter)
        taken = float(np.mean(result.n_learned > 0))
        steps = float(np.mean(result.n_learned))
        found.append(record(label, "least-squares", result.nit, result.success, accepted=taken, n_learned=steps))
    return found


def scaled_residuals(problem: Regression) -> tuple[FloatArray, FloatArray]:
    """Return u = r / s (B, m) at least squares and s (B,), the largest residual with its sign."""
    s = np.take_along_axis(problem.r, np.argmax(np.abs(problem.r), axis=1)[:, None], axis=1)[:, 0]
    s = np.where(s != 0, s, 1.0)
    return problem.r / s[:, None], s


def warm(problem: Regression, bank: Regression, maxiter: int) -> list[dict[str, Any]]:
    """Return the records of Newton's method from the problem before and from the nearest solved problem."""
    best = iterate(problem, newton, problem.x, 1e-8, 10 * maxiter).x
    solution = iterate(problem, newton, np.roll(best, 1, axis=0), 1e-8, maxiter)
    before = record(PREVIOUS, "warm", solution.iterations, solution.converged)
    u, s = scaled_residuals(problem)
    known, size = scaled_residuals(bank)
    ways = (iterate(bank, newton, bank.x, 1e-8, 10 * maxiter).x - bank.x) / size[:, None]
    nearest = np.array([int(np.argmin(np.sum((known - one) ** 2, axis=1))) for one in u])
    step = line_search_step(problem.A, problem.r, problem.p, ways[nearest] * s[:, None])
    taken = np.any(step != 0, axis=1)
    solution = iterate(problem, newton, problem.x + step, 1e-8, maxiter)
    return [before, record(NEIGHBOUR, "warm", solution.iterations + taken, solution.converged)]


# ---------------------------------------------------------------- time


def seconds(problem: Regression, networks: dict[str, LearnedSolver], plan: Plan) -> list[dict[str, Any]]:
    """Return the seconds per problem of the best classical methods and of every network, alone and in a batch."""
    found = []
    few = min(5, len(problem))  # single problems whose times are averaged: they differ in their iterations
    for batch in (1, len(problem)):
        parts = [problem[i : i + 1] for i in range(few)] if batch == 1 else [problem]

        def classic(method: lp.Method, parts: list[Regression] = parts) -> None:
            for part in parts:
                lp.minimize(part.A, part.b, part.p, method, maxiter=plan.maxiter)

        def ours(solver: LearnedSolver | None, parts: list[Regression] = parts) -> None:
            for part in parts:
                minimize_lp(part.A, part.b, part.p, solver=solver, maxiter=plan.maxiter)

        calls: dict[str, Any] = {m: lambda m=m: classic(m) for m in ("damped", "newton", "homotopy")}
        calls |= {label: lambda solver=solver: ours(solver) for label, solver in networks.items()}
        solved = sum(map(len, parts))
        for method, taken in in_turn(calls, plan.rounds).items():
            found.append({"method": method, "batch": batch, "seconds": taken / solved})
    return found


# ---------------------------------------------------------------- the same optimum


def same_optimum(kind: Kind, n: int, plan: Plan, solver: LearnedSolver | None) -> dict[str, Any]:
    """Compare the objectives of `minimize_lp`, with the network if there is one, with those of the homotopy."""
    family = LpRegression(kind=kind, n=n, p=plan.p)
    count = -(-plan.random // len(plan.groups))
    worst, gap, converged = 0.0, 0.0, 0
    for chosen in batches(count, BATCH):
        indices = range(RANDOM_START + chosen.start, RANDOM_START + chosen.stop)
        problem = family.regression(family.parameters(indices, TEST_SEED))
        result = minimize_lp(problem.A, problem.b, problem.p, solver=solver)
        other = lp.minimize(problem.A, problem.b, problem.p, "homotopy")
        f, g = (p_norm(product(problem.A, x) - problem.b, problem.p) for x in (result.x, other.x))
        worst = max(worst, float(np.max(np.abs(np.expm1(problem.p * np.log(f / g))))))
        gap = max(gap, float(np.max(result.dual_gap)))
        converged += int(np.sum(result.success & other.converged))
    return {"problems": count, "converged": converged, "difference": worst, "dual_gap": gap}


# ---------------------------------------------------------------- real data


def real_data(name: str, plan: Plan) -> list[dict[str, Any]]:
    """Return the records of every classical method and of `minimize_lp` on one data set, for every p."""
    A, b = real_problem(name)
    found = []
    for p in plan.p:
        result = minimize_lp(A, b, p, maxiter=plan.maxiter)
        iterations = {m: lp.minimize(A[None], b[None], p, m, maxiter=plan.maxiter) for m in lp.METHODS}
        found.append(
            {
                "name": name,
                "m": A.shape[0],
                "n": A.shape[1],
                "p": p,
                "gradient_norm": result.gradient_norm,
                "dual_gap": result.dual_gap,
                "largest": float(max_abs((A @ result.x - b)[None])[0]),
                "iterations": {m: int(s.iterations[0]) if s.converged[0] else None for m, s in iterations.items()},
                "driver": int(result.nit),
                "success": bool(result.success),
            }
        )
    return found
