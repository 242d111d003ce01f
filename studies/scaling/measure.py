"""How the time of a certified solve grows with n: the operator head against the strongest rivals.

For every family and n a small operator head is trained and then solves batches of unseen systems, the whole way:
scaling, reading, forward pass, forming M, refinement and certificate. In the same run, in turn and on the same threads,
all rivals of `algebraformer.rivals` solve the same batches, each also in a pool of threads with one BLAS thread each,
and so do interpolation of exact inverses and kernel ridge regression on the coefficients of the network's basis. One
pass over the matrices, a product with each of them, is the limit for any method that looks at every entry.

A rival counts if its answers have a backward error of at most n eps, or of LAPACK's. Factorisations do not compute the
certificate; the others do, and solve by LU what misses it.

Sequences of Jacobians along trajectories have rivals of their own: a stale factorisation, with recycling. They are
measured without a network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from algebraformer import problems, provenance, rivals
from algebraformer.errors import Status
from algebraformer.linalg import FloatArray
from algebraformer.metrics import relative_errors
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.problems import ProblemFamily
from algebraformer.progress import batches
from algebraformer.reporting import Report
from algebraformer.result import plain
from algebraformer.rivals import Rival, Structure, direct
from algebraformer.rivals.direct import one_by_one
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import SCALER_SEED, TEST_SEED
from studies.baselines import interpolation, kernel_ridge, recycling
from studies.baselines.methods import KERNEL, SEED, SNAPSHOTS, draw
from studies.harness.runs import computed_once, run_once
from studies.harness.timing import rounds_in_turn
from studies.scaling.plan import Plan, batch_sizes, capped
from studies.scaling.report import OURS, PASS, summary

SEQUENCE = "stiff-jacobian"
STEPS = (1.0, 2.0)
"""Times of the first and the last state of a sequence."""
ONE_PASS: dict[str, rivals.Solve] = {
    PASS: one_by_one(np.dot),
    f"{PASS}{rivals.POOL}": rivals.pooled(one_by_one(np.dot)),
}
"""Multiply every matrix by a vector: the least that looks at each entry once."""
HOPELESS = 8.0
"""Ways that take more than so many times the best one's time in a small batch are not measured in larger ones."""


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train and time what has not been trained or timed yet, at this commit and by this plan."""
    task = bar.add_task("scaling", total=2 * len(plan.recipes) + len(plan.sequences))
    solvers = {}
    for (family, n), how in plan.recipes.items():
        solvers[family, n] = run_once(how, folder / f"{family}-{n}").solver
        bar.advance(task)
    shared = {k: v for k, v in dataclasses.asdict(plan).items() if k not in ("recipes", "sequences")}
    shared["commit"] = provenance.commit()
    records, many = [], []
    for (family, n), solver in solvers.items():
        settings = shared | {"recipe": plan.recipes[family, n].settings()}
        found = computed_once(folder / f"{family}-{n}.json", settings, partial(measure, solver, plan))
        records += found["records"]
        many.append(found["many"])
        bar.advance(task)
    sequences = []
    for n, length in plan.sequences.items():
        settings = {"commit": shared["commit"], "rounds": plan.rounds, "length": length}
        sequences.append(computed_once(folder / f"sequence-{n}.json", settings, partial(sequence, n, length, plan)))
        bar.advance(task)
    return summary(records, many, sequences)


def measure(solver: LearnedSolver, plan: Plan) -> dict[str, Any]:
    """Return the records of all batch sizes, and that of many right-hand sides, for one family and n."""
    family = solver.info.problem_family()
    ways, excluded = accurate(contenders(solver, family, plan), family, plan)
    share, records = solved(solver, family, plan.solved), []
    for batch in batch_sizes(family.n, plan):
        records.append(timed(solver, ways, batch, plan) | {"by_network": share, "excluded": excluded})
        if batch > 1:
            seconds = records[-1]["seconds"]
            limit = HOPELESS * min(seconds.values())
            ways = [way for way in ways if seconds[way.name] <= limit or rivals.is_lapack(way.name)]
    return {"records": records, "many": many_right_hand_sides(solver, plan)}


# ---------------------------------------------------------------- who takes part


def contenders(solver: LearnedSolver, family: ProblemFamily, plan: Plan) -> list[Rival]:
    """Return all rivals: the library's, and those that are fitted to samples of the family."""
    n = family.n
    chunks = batches(capped(plan.structure, n, 2**26, 64), max(1, 2**24 // n**2))
    ways = rivals.rivals_for(Structure.of(family.assembled(part, SCALER_SEED)[0] for part in chunks))
    basis = getattr(solver.model.operator_head, "basis", None)
    if isinstance(basis, OperatorBasis):
        sample = draw(family, basis, capped(plan.samples, n, 2**27, 128), int(solver.info.recipe["seed"]))
        snapshots = interpolation.of_snapshots(basis, sample.T, min(basis.rank, len(sample.T) // 2), plan.columns, SEED)
        regression = kernel_ridge.fit(basis, sample.z, sample.c, sample.weight)
        for name, inverse in ((SNAPSHOTS, snapshots), (KERNEL, regression)):
            way = Rival(f"{name} + conjugate residuals", rivals.refined(inverse), "a basis of operators")
            ways += [way, rivals.with_pool(way)]
    return ways


def accurate(ways: list[Rival], family: ProblemFamily, plan: Plan) -> tuple[list[Rival], dict[str, float]]:
    """Return the ways that count, and the share of accurate answers of those that do not."""
    few = family.sample(capped(plan.judged, family.n, 2**24, 16), TEST_SEED)
    judged = rivals.judge(ways, few.A, few.b, few.x)
    excluded = {method.name: method.accuracy.share for method in judged if not method.accuracy.counts}
    return [way for method in judged if method.accuracy.counts for way in method.ways], excluded


# ---------------------------------------------------------------- what is measured


def timed(solver: LearnedSolver, ways: list[Rival], batch: int, plan: Plan) -> dict[str, Any]:
    """Time ours, all rivals and one pass on a batch of unseen systems; seconds per system, and how good answers are."""
    systems = solver.info.problem_family().sample(batch, TEST_SEED)
    ours = {OURS: lambda A, b: solver.solve(A, b).x}
    solves = {way.name: way.solve for way in ways} | ours
    calls = {name: partial(solve, systems.A, systems.b) for name, solve in (solves | ONE_PASS).items()}
    rounds = rounds_in_turn(calls, plan.rounds)
    spread = {name: [value / batch for value in rivals.quartiles(values)] for name, values in rounds.items()}
    result, few = solver.solve(systems.A, systems.b), systems[:16]
    errors = {name: relative_errors(solve(few.A, few.b), few).max() for name, solve in solves.items()}
    return {
        "family": systems_name(solver),
        "n": solver.n,
        "batch": batch,
        "seconds": {name: spread[name][1] for name in solves},
        "quartiles": {name: [spread[name][0], spread[name][2]] for name in solves},
        "pass": min(spread[name][1] for name in ONE_PASS),
        "refinements_median": float(np.median(result.refinements)),
        "refinements_max": int(result.refinements.max()),
        "backward_error_max": float(result.backward_error.max()),
        "error": plain(errors),
    }


def systems_name(solver: LearnedSolver) -> str:
    """Return the name of the family of a solver."""
    return str(solver.info.family["name"])


def solved(solver: LearnedSolver, family: ProblemFamily, count: int) -> float:
    """Return the share of unseen systems that are certified without LAPACK."""
    by_network = 0
    for part in batches(count, max(1, min(256, 2**25 // family.n**2))):
        A, b, _ = family.assembled(part, TEST_SEED)
        status = solver.solve(A, b).status
        by_network += sum(one in (Status.LEARNED, Status.REFINED) for one in status)
    return by_network / count


def many_right_hand_sides(solver: LearnedSolver, plan: Plan) -> dict[str, Any]:
    """Time one matrix with many right-hand sides."""
    family, count = solver.info.problem_family(), plan.right_hand_sides
    A = family.sample(1, TEST_SEED).A
    b = np.ascontiguousarray(family.assembled(range(count), TEST_SEED + 1)[1].T)[None]
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: solver.solve(A, b).x,
        "numpy.linalg.solve": lambda: np.linalg.solve(A, b),
        "float32 LU + refinement": lambda: direct.float32_lu(A[0], b[0]),
    }
    seconds = {name: float(np.median(values)) for name, values in rounds_in_turn(ways, plan.rounds).items()}
    return {"family": systems_name(solver), "n": solver.n, "right_hand_sides": count, "seconds": seconds}


def trajectory(n: int, length: int) -> tuple[FloatArray, FloatArray]:
    """Return the systems (L, n, n), (L, n) of equidistant states on one trajectory."""
    family = problems.get(SEQUENCE, n=n)
    params = {key: np.repeat(value, length, axis=0) for key, value in family.parameters([0], TEST_SEED).items()}
    params["time"] = np.linspace(*STEPS, length)
    return family.assemble(params)


def sequence(n: int, length: int, plan: Plan) -> dict[str, Any]:
    """Time a sequence of systems, of which each is solved before the next one is known."""
    A, b = trajectory(n, length)
    structure = Structure.of([A])
    ways: dict[str, rivals.Solve] = {
        "dgesv": one_by_one(direct.lu),
        "float32 LU + refinement": one_by_one(direct.float32_lu),
        "banded LU": direct.banded_lu(structure.lower, structure.upper),
        "stale LU + recycling": lambda A, b: recycling.solve_sequence(A, b).x,
    }
    seconds = rounds_in_turn({name: partial(way, A, b) for name, way in ways.items()}, plan.rounds)
    found = recycling.solve_sequence(A, b)
    return {
        "family": SEQUENCE,
        "n": n,
        "length": length,
        "seconds": {name: float(np.median(values)) / length for name, values in seconds.items()},
        "products_median": float(np.median(found.products[found.products > 0])) if found.products.any() else None,
        "factorisations": found.factorisations,
    }
