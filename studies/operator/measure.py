"""When is the operator head worth it, and does its network earn its place?

On every family, the same unseen systems are solved by the operator head with a Transformer and with a perceptron, by
classical ways to find coefficients of the same basis (polynomial ridge regression, projection), by interpolation of
exact inverses, by the nearest sample's inverse, by the mean's inverse alone, by a reduced basis and by LAPACK. All but
LAPACK are refined to the same certificate by the same iteration (`numerics.gcr`), so they are compared at equal
accuracy: by refinements needed, and by time.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from rich.progress import Progress

from algebraformer.linalg import FloatArray, is_certified, measures, normalized_mse, relative_error
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.models.inference.stored_basis import as_dense
from algebraformer.numerics import gcr
from algebraformer.numerics.preconditioner import Preconditioner
from algebraformer.problems import Systems
from algebraformer.reporting import Report
from algebraformer.result import plain
from algebraformer.rivals import MAX_REFINEMENTS
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.baselines.methods import LAPACK, Method, classical, network
from studies.harness import weights
from studies.harness.runs import computed_once, run_once
from studies.harness.timing import in_turn
from studies.operator.report import summary

CURVE = 8
"""Refinements that the convergence curve follows."""
DIGITS = 50
"""Decimal digits of the exact solutions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    n: int = 64
    """Number of unknowns."""
    families: tuple[str, ...] = ("diffusion", "reaction-diffusion", "advection-diffusion", "random-diffusion")
    """Families, in the order of the tables."""
    recipes: tuple[Recipe, ...] = ()
    """How the two networks of every family are trained, if they are not the shipped ones."""
    systems: int = 1000
    """Unseen systems."""
    contractions: int = 300
    """Systems whose eigenvalues are computed."""
    checked: int = 20
    """Systems that are solved with 50 digits as well."""
    samples: int = 50_000
    """Systems that the baselines are fitted on: the first ones of the networks' training set."""
    snapshots: int = 4096
    """How many of these the snapshots of the interpolation are chosen from."""
    columns: int = 16
    """Columns of the random sketches."""
    batches: tuple[int, ...] = (1, 64)
    """Systems per call whose time is measured."""
    rounds: int = 7
    """Rounds whose median time is reported."""
    runs: Path = Path("runs")
    """Folder of the logs of shipped networks' trainings, which hold their times."""


def small(family: str, architecture: str) -> Recipe:
    """Return the recipe of a network for 16 unknowns that trains in seconds."""
    model = ModelConfig(
        n=16,
        architecture="mlp" if architecture == "mlp" else "transformer",
        head=OperatorConfig(rank=32, n_column=8, n_row=8),
        n_layer=2,
        n_head=2,
        n_embd=32,
    )
    return Recipe(family=family, model=model, samples=2000, steps=300, lr=3e-3)


PRESETS = {
    "quick": Plan(
        n=16,
        families=("diffusion",),
        recipes=(small("diffusion", "transformer"), small("diffusion", "mlp")),
        systems=60,
        contractions=30,
        checked=4,
        samples=2000,
        snapshots=500,
        rounds=2,
    ),
    "cpu": Plan(),
    "paper": Plan(systems=10_000, contractions=1000, checked=100, samples=200_000, rounds=15),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure every family that has not been measured yet; its results are kept in a file of its own."""
    task = bar.add_task("operator", total=len(plan.families))
    records = []
    for name in plan.families:
        solvers = networks(plan, name, folder)
        about = [dataclasses.asdict(solver.info) for solver, _ in solvers]
        settings = {**dataclasses.asdict(plan), "runs": str(plan.runs), "networks": about}
        compute = functools.partial(measure, plan, solvers)
        records.append(computed_once(folder / f"{name}.json", settings, compute))
        bar.advance(task)
    return summary(records)


def networks(plan: Plan, family: str, folder: Path) -> list[tuple[LearnedSolver, float | None]]:
    """Return the two networks of a family, the better one first, and the seconds of their training where known.

    Of the shipped networks the better one has the plain name. Those that are trained here are told apart by their
    normalized_mse.
    """
    if plan.recipes:
        found = []
        for recipe in plan.recipes:
            if recipe.family == family:
                output = folder / f"{family}-{recipe.model.architecture}"
                solver = run_once(recipe, output).solver
                found.append((solver, training_seconds(solver, output)))
        return sorted(found, key=lambda pair: pair[0].info.scores["normalized_mse"])
    plain = LearnedSolver.from_pretrained(f"{family}-{plan.n}")
    first = plain.network.config.architecture
    second = "transformer" if first == "mlp" else "mlp"
    logs = [plan.runs / f"{family}-{plan.n}-{architecture}" for architecture in (first, second)]
    other = LearnedSolver.from_pretrained(weights.source(f"{family}-{plan.n}-{second}"))
    return [(plain, training_seconds(plain, logs[0])), (other, training_seconds(other, logs[1]))]


def training_seconds(solver: LearnedSolver, run: Path) -> float | None:
    """Return the seconds of training: those in the checkpoint, else those that the run's log ends with, else None."""
    if solver.info.seconds is not None or not (run / "log.jsonl").exists():
        return solver.info.seconds
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return max((record["seconds"] for record in records if "seconds" in record), default=None)


def measure(plan: Plan, solvers: list[tuple[LearnedSolver, float | None]]) -> dict[str, Any]:
    """Return what all methods do on one family, as plain JSON values; the better network comes first."""
    better = solvers[0][0]
    family, basis = better.info.problem_family(), as_dense(better.model.operator_head.basis)
    systems = family.sample(plan.systems, TEST_SEED)
    exact = np.stack([exact_solution(systems.A[i], systems.b[i]) for i in range(min(plan.checked, len(systems)))])
    methods = [network(*pair) for pair in solvers] + classical(
        family,
        basis,
        samples=plan.samples,
        snapshots=plan.snapshots,
        columns=plan.columns,
        seed=int(better.info.recipe["seed"]),
    )
    found = {method.name: measured(method, systems, exact, plan.contractions) for method in methods}
    for batch in plan.batches:
        part = systems.A[:batch].copy(), systems.b[:batch].copy()
        calls: dict[str, Callable[[], Any]] = {
            method.name: functools.partial(method.solve, *part) for method in methods
        }
        for name, seconds in in_turn(calls, plan.rounds).items():
            found[name]["seconds"][str(batch)] = seconds / batch
    few = systems[: len(exact)]
    return {
        "family": family.name,
        "n": plan.n,
        "rank": basis.rank,
        "systems": len(systems),
        "contractions": min(plan.contractions, len(systems)),
        "checked": len(exact),
        "methods": found,
        "curve": {
            "method": methods[0].name,
            **curve(few, exact, better.network.approximate_inverse(few.A)),
            LAPACK: levels(few, exact, np.asarray(np.linalg.solve(few.A, few.b[:, :, None]))),
        },
    }


def measured(method: Method, systems: Systems, exact: FloatArray, contractions: int) -> dict[str, Any]:
    """Return the accuracy of one method, bare and refined, on unseen systems; `exact` solves the first of them."""
    A, b, x = systems.A, systems.b[:, :, None], systems.x[:, :, None]
    record: dict[str, Any] = {"samples": method.samples, "offline_seconds": method.seconds, "seconds": {}}
    if method.inverse is None:
        answer = method.solve(A, systems.b)[:, :, None]
        relative, omega, _ = measures(A, b, answer)
        certified = np.asarray(is_certified(relative, omega, A.shape[-1]))[:, 0]
        record["accelerated"] = counts(np.zeros(len(A), dtype=np.int64), certified)
        return record | forward(answer, certified, x, exact) | {"forward_error": None}  # it is the reference itself
    M = method.inverse(A)
    bare = method.start(A, b) if method.start else M.right(M.left(b))
    errors = relative_error(bare, x)[:, 0]
    record |= {
        "normalized_mse": plain(normalized_mse(bare, x)),
        "relative_error_median": plain(np.median(errors)),
        "relative_error_max": plain(errors.max()),
    }
    if method.start is None:
        radii = gcr.contraction(A[:contractions], M[:contractions])
        record |= {f"contraction_{name}": plain(np.quantile(radii, q)) for name, q in QUANTILES.items()}
        refined = gcr.richardson(A, b, gcr.as_correction(M), None, MAX_REFINEMENTS, monotone=False)
        record["plain"] = counts(refined.refinements, refined.certified)
    found = gcr.gcr_restarted(A, b, M, None, MAX_REFINEMENTS, bare if method.start else None, method.stagnation_factor)
    record["accelerated"] = counts(found.refinements, found.certified)
    return record | forward(found.x, found.certified, x, exact)


QUANTILES = {"median": 0.5, "95": 0.95, "max": 1.0}


def counts(refinements: NDArray[np.int64], certified: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share certified, and how many of all systems needed 0, 1, 2, ... refinements for that."""
    needed = refinements[certified]
    return {"certified": float(np.mean(certified)), "systems": len(certified), "needed": np.bincount(needed).tolist()}


def forward(x: FloatArray, certified: NDArray[np.bool_], reference: FloatArray, exact: FloatArray) -> dict[str, Any]:
    """Return the largest relative errors of certified answers against LU, and against solutions with 50 digits."""
    against_lu = relative_error(x, reference)[:, 0][certified]
    against_exact = relative_error(x[: len(exact)], exact[:, :, None])[:, 0][certified[: len(exact)]]
    return {
        "forward_error": plain(against_lu.max()) if against_lu.size else None,
        "forward_error_exact": plain(against_exact.max()) if against_exact.size else None,
    }


def exact_solution(A: FloatArray, b: FloatArray) -> FloatArray:
    """Return the solution (n,) of A x = b with every digit of float64.

    LU in float64, corrected in 50 digits until the correction is below 1e-30: then x is the solution to some thirty
    digits, whatever the factors were.
    """
    factors = scipy.linalg.lu_factor(A)
    with mpmath.workdps(DIGITS):
        exact_A, exact_b = mpmath.matrix(A.tolist()), mpmath.matrix(b.tolist())
        x = mpmath.matrix(scipy.linalg.lu_solve(factors, b).tolist())
        for _ in range(20):
            r = np.array((exact_b - exact_A * x).tolist(), dtype=np.float64)[:, 0]
            step = scipy.linalg.lu_solve(factors, r)
            x += mpmath.matrix(step.tolist())
            if np.linalg.norm(step) <= 1e-30 * float(mpmath.norm(x)):
                break
        return np.array(x.tolist(), dtype=np.float64)[:, 0]


def curve(systems: Systems, exact: FloatArray, M: Preconditioner) -> dict[str, Any]:
    """Return the medians of relative and backward error after 0 ... 8 refinements, with nothing to stop them.

    Accelerated refinement ends where its updated residual meets what float64 allows; from there it goes on from the
    true residual by plain steps.
    """
    A, b = systems.A, systems.b[:, :, None]
    x, plain, accelerated = M.right(M.left(b)), [], []
    for count in range(CURVE + 1):
        plain.append(levels(systems, exact, x))
        x = x + M.right(M.left(b - A @ x))
        found = gcr.solve(A, b, M, 0.0, count + 1, stagnation_factor=np.inf)
        y, steps = found.x, found.steps
        while (left := np.flatnonzero(steps <= count)).size:
            part = M[left]
            y[left] += part.right(part.left(b[left] - A[left] @ y[left]))
            steps[left] += 1
        accelerated.append(levels(systems, exact, y))
    return {
        way: {key: [level[key] for level in found] for key in found[0]}
        for way, found in (("plain", plain), ("accelerated", accelerated))
    }


def levels(systems: Systems, exact: FloatArray, x: FloatArray) -> dict[str, float | None]:
    """Return the medians of relative error, against exact solutions, and backward error."""
    omega = measures(systems.A, systems.b[:, :, None], x)[1]
    return {
        "relative_error": plain(np.median(relative_error(x, exact[:, :, None]))),
        "backward_error": plain(np.median(omega)),
    }
