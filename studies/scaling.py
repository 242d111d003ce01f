"""How the time of a certified solve grows with n: the operator head against LAPACK and the strongest baselines.

For every n a small operator head is trained on the diffusion family and then solves batches of unseen systems, the
whole way: scaling, reading, forward pass, forming M, refinement and certificate. In the same run, in turn and on the
same threads, the baselines solve the same batches, each in its faster form (multi-threaded BLAS, or a pool of threads
over the batch with one BLAS thread each):

- numpy.linalg.solve on the batch, and LAPACK's dgesv through SciPy;
- LU in float32 with refinement in float64, which is the strongest;
- conjugate residuals preconditioned by the inverse of the family's mean, batched, to the same certificate.

None of the baselines computes the certificate, except the last. Times are medians of rounds that take turns.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from algebraformer.errors import Status
from algebraformer.linalg import EPS, STABILITY_FACTOR, FloatArray
from algebraformer.metrics import relative_errors
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.problems import Systems
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.baselines.methods import Solve, lu, refined
from studies.harness import memory as growth
from studies.harness.runs import run_once
from studies.harness.study import distinct, where
from studies.harness.timing import in_turn

OURS = "operator head"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    recipes: dict[int, Recipe]
    """How the operator head for each n is trained."""
    batches: tuple[int, ...]
    """Batch sizes; the last one is cut to what fits into `memory`."""
    memory: int
    """Bytes that the matrices of a batch may take."""
    rounds: int
    """Rounds whose median is reported."""
    right_hand_sides: int
    """Right-hand sides of the single matrix with many."""


def recipe(n: int, rank: int, samples: int, steps: int, width: int = 128) -> Recipe:
    """Return the recipe for one n: a perceptron, since its cost must not matter here."""
    model = ModelConfig(
        n=n,
        architecture="mlp",
        head=OperatorConfig(rank=rank, n_column=min(16, n), n_row=min(16, n)),
        n_layer=4,
        n_embd=width,
    )
    return Recipe(model=model, samples=samples, steps=steps, batch_size=128, lr=3e-3)


PRESETS = {
    "quick": Plan(
        recipes={n: recipe(n, 12, 400, 40, width=32) for n in (8, 16)},
        batches=(1, 16),
        memory=2**24,
        rounds=2,
        right_hand_sides=20,
    ),
    "cpu": Plan(
        recipes={
            64: recipe(64, 64, 40_000, 2_000),
            128: recipe(128, 64, 20_000, 2_000),
            256: recipe(256, 64, 10_000, 2_000),
            512: recipe(512, 64, 4_000, 2_000),
            1024: recipe(1024, 64, 2_000, 3_000),
        },
        batches=(1, 16, 4096),
        memory=2**29,
        rounds=7,
        right_hand_sides=1000,
    ),
    "paper": Plan(
        recipes={n: recipe(n, 64, 40_000, 20_000) for n in (64, 128, 256, 512, 1024, 2048)},
        batches=(1, 16, 4096),
        memory=2**31,
        rounds=15,
        right_hand_sides=1000,
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then time everything."""
    task = bar.add_task("scaling", total=2 * len(plan.recipes))
    solvers: dict[int, LearnedSolver] = {}
    for n, how in plan.recipes.items():
        solvers[n] = run_once(how, folder / f"n{n}").solver
        bar.advance(task)
    records, many = [], []
    for n, solver in solvers.items():
        records += [measure(solver, batch, plan) for batch in batch_sizes(n, plan)]
        many.append(many_right_hand_sides(solver, plan))
        bar.advance(task)
    return summary(records, many)


def batch_sizes(n: int, plan: Plan) -> list[int]:
    """Return the batch sizes for this n, each at most what fits."""
    return sorted({min(batch, max(1, plan.memory // (8 * n * n))) for batch in plan.batches})


def measure(solver: LearnedSolver, batch: int, plan: Plan) -> dict[str, Any]:
    """Time ours and all baselines on one batch of unseen systems; seconds per system, and how good the answers are."""
    systems = solver.info.problem_family().sample(batch, TEST_SEED)
    ways = baselines(solver) | {OURS: lambda A, b: solver.solve(A, b).x}
    seconds = in_turn({name: partial(way, systems.A, systems.b) for name, way in ways.items()}, plan.rounds)
    result = solver.solve(systems.A, systems.b)
    by_network = np.array([status in (Status.LEARNED, Status.REFINED) for status in result.status])
    return {
        "n": solver.n,
        "batch": batch,
        "seconds": {name: value / batch for name, value in seconds.items()},
        "by_network": float(by_network.mean()),
        "refinements_median": float(np.median(result.refinements)),
        "refinements_max": int(result.refinements.max()),
        "backward_error_max": float(result.backward_error.max()),
        "error": {name: worst_error(way, systems) for name, way in ways.items()},
    }


def worst_error(way: Solve, systems: Systems) -> float:
    """Return the largest relative error against float64 LU over the first systems of a batch."""
    few = systems[:16]
    return float(relative_errors(way(few.A, few.b), few).max())


def many_right_hand_sides(solver: LearnedSolver, plan: Plan) -> dict[str, Any]:
    """Time one matrix with many right-hand sides."""
    family, count = solver.info.problem_family(), plan.right_hand_sides
    A = family.sample(1, TEST_SEED).A
    b = np.ascontiguousarray(family.sample(count, TEST_SEED + 1).b.T)[None]
    ways = {
        OURS: lambda: solver.solve(A, b).x,
        "numpy.linalg.solve": lambda: np.linalg.solve(A, b),
        "float32 LU + refinement": lambda: mixed_precision(A[0], b[0]),
    }
    return {"n": solver.n, "right_hand_sides": count, "seconds": in_turn(ways, plan.rounds)}


# ---------------------------------------------------------------- the baselines


def baselines(solver: LearnedSolver) -> dict[str, Solve]:
    """Return the classical ways, each taking A (B, n, n) and b (B, n)."""
    mean = MeanInverse(solver.model.operator_head.basis.inverse)
    return {
        "numpy.linalg.solve": lu,
        "numpy.linalg.solve, pool": pooled(lu),
        "dgesv": one_by_one(dgesv),
        "dgesv, pool": pooled(one_by_one(dgesv)),
        "float32 LU + refinement": one_by_one(mixed_precision),
        "float32 LU + refinement, pool": pooled(one_by_one(mixed_precision)),
        "mean inverse + conjugate residuals": refined(lambda A: mean),
    }


def one_by_one(solve: Callable[[FloatArray, FloatArray], FloatArray]) -> Solve:
    """Return a way that solves one system of the batch after the other."""
    return lambda A, b: np.stack([solve(A[i], b[i]) for i in range(len(A))])


def pooled(way: Solve) -> Solve:
    """Return the way with the batch split over a pool of threads that use one BLAS thread each."""

    def solve(A: FloatArray, b: FloatArray) -> FloatArray:
        count = min(os.cpu_count() or 1, len(A))
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(count) as pool:
            return np.concatenate(list(pool.map(way, np.array_split(A, count), np.array_split(b, count))))

    return solve


def dgesv(A: FloatArray, b: FloatArray) -> FloatArray:
    """Solve one system by LU."""
    return np.asarray(scipy.linalg.lapack.dgesv(A, b)[2])


def mixed_precision(A: FloatArray, b: FloatArray, limit: int = 6) -> FloatArray:
    """Solve A (n, n) x = b by LU in float32, refined with float64 residuals to the same certificate as ours.

    |A| |x| + |b| is computed once, from the first answer. The iteration also ends where the residual no longer falls
    to a quarter.
    """
    lu, pivots, _ = scipy.linalg.lapack.sgetrf(A.astype(np.float32))
    x: FloatArray = scipy.linalg.lapack.sgetrs(lu, pivots, b.astype(np.float32))[0].astype(np.float64)
    allowed = STABILITY_FACTOR * len(A) * EPS * (np.abs(A) @ np.abs(x) + np.abs(b))
    last = np.inf
    for _ in range(limit):
        r = b - A @ x
        size = float(np.linalg.norm(r))
        if (np.abs(r) <= allowed).all() or not size < 0.25 * last:
            break
        last = size
        x += scipy.linalg.lapack.sgetrs(lu, pivots, (r / size).astype(np.float32))[0] * size
    return x


# ---------------------------------------------------------------- tables and outcomes

LAPACK = ("numpy.linalg.solve", "numpy.linalg.solve, pool", "dgesv", "dgesv, pool")
TARGETS = {256: (1.2, None), 512: (3.0, 1.0), 1024: (5.0, 2.0)}
"""At the largest batch: how many times faster than LAPACK, and than the best baseline."""


def speedups(record: dict[str, Any]) -> tuple[float, float, str]:
    """Return ours over LAPACK's best form, ours over the best baseline, and who that is."""
    seconds = dict(record["seconds"])
    ours = seconds.pop(OURS)
    best = min(seconds, key=seconds.__getitem__)
    return min(seconds[name] for name in LAPACK) / ours, seconds[best] / ours, best


def summary(records: list[dict[str, Any]], many: list[dict[str, Any]]) -> Report:
    """Put the measurements into tables and outcomes."""
    rows: list[list[Cell]] = []
    for record in records:
        over_lapack, over_all, best = speedups(record)
        seconds = record["seconds"]
        rows.append(
            [record["n"], record["batch"], 1e6 * seconds[OURS], over_lapack, over_all, best,
             1e6 * min(seconds[name] for name in LAPACK), record["by_network"], record["refinements_median"],
             record["refinements_max"]]
        )  # fmt: skip
    columns = (
        "n", "batch", "ours, µs per system", "LAPACK / ours", "best baseline / ours", "best baseline",
        "LAPACK, µs per system", "solved by the network", "refinements, median", "refinements, max",
    )  # fmt: skip
    main = TableData(columns, rows, "Certified solves, diffusion")
    names = list(records[0]["seconds"])
    each = TableData(
        ("n", "batch", *names),
        [[r["n"], r["batch"], *(1e6 * r["seconds"][name] for name in names)] for r in records],
        "Microseconds per system, every method",
    )
    many_table = TableData(
        ("n", "right-hand sides", *(f"{name}, ms" for name in many[0]["seconds"])),
        [[r["n"], r["right_hand_sides"], *(1e3 * s for s in r["seconds"].values())] for r in many],
        "One matrix, many right-hand sides",
    )
    exponents = {name: exponent(records, name) for name in names}
    growth = TableData(
        ("method", "exponent of n"), list(map(list, exponents.items())), "Fitted growth of the time, largest batches"
    )
    data = {"records": records, "many": many, "exponents": exponents}
    found = outcomes(data)
    return Report((main, each, many_table, growth), found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return the speed-up at the largest batch of every n, and where single matrices are fastest with a network."""
    found: dict[str, Outcome] = {}
    for n in distinct(data["records"], "n"):
        record = max(where(data["records"], n=n), key=lambda r: r["batch"])
        over_lapack, over_all, best = speedups(record)
        lapack_target, all_target = TARGETS.get(n, (None, None))
        verdict = Verdict.MEASURED
        if lapack_target is not None:
            verdict = met(over_lapack >= lapack_target and (all_target is None or over_all >= all_target))
        found[f"scaling.speed-up/n = {n}"] = outcome(
            verdict, n=n, batch=record["batch"], over_lapack=over_lapack, lapack_target=lapack_target,
            over_best=over_all, best_target=all_target, best=best, by_network=record["by_network"],
            refinements=record["refinements_median"],
        )  # fmt: skip
    many = [r["n"] for r in data["many"] if min(r["seconds"], key=r["seconds"].__getitem__) == OURS]
    single = where(data["records"], batch=1)
    alone = [r["n"] for r in single if speedups(r)[1] > 1]
    for key, wins, total in (
        ("scaling.many-right-hand-sides", many, len(data["many"])),
        ("scaling.one-at-a-time", alone, len(single)),
    ):
        verdict = Verdict.HOLDS if len(wins) == total else Verdict.PARTLY if wins else Verdict.FAILS
        found[key] = outcome(verdict, wins=len(wins), sizes=total, where=", ".join(map(str, wins)))
    return found


def speed_up_sentence(found: Outcome) -> str:
    """Say how many times faster than LAPACK and than the best baseline the network is at one n."""
    numbers = found.numbers
    text = (
        "n = {n}, batch {batch}: {over_lapack:.2g} times as fast as LAPACK, {over_best:.2g} times as fast as the best "
        "baseline ({best})"
    ).format(**numbers)
    if found.verdict == Verdict.MEASURED:
        return f"{text}."
    goal = f"{numbers['lapack_target']:g}" + (f" and {numbers['best_target']:g}" if numbers["best_target"] else "")
    return f"{text}; target {goal}, {found.verdict}."


def wins_sentence(what: str) -> Callable[[Outcome], str]:
    """Return the sentence on the n at which the network is the fastest."""
    return lambda found: (
        f"{what}: the network is fastest at n = {found.numbers['where']}."
        if found.numbers["wins"]
        else f"{what}: a classical method is fastest at every n."
    )


SENTENCES: Sentences = {
    "scaling.speed-up": speed_up_sentence,
    "scaling.many-right-hand-sides": wins_sentence("One matrix with many right-hand sides"),
    "scaling.one-at-a-time": wins_sentence("One system at a time"),
}


def exponent(records: list[dict[str, Any]], name: str) -> float | None:
    """Fit time = c n^p over the larger half of the sizes, at the largest batch of each."""
    largest: dict[int, dict[str, Any]] = {}
    for record in records:
        if record["batch"] >= largest.get(record["n"], record)["batch"]:
            largest[record["n"]] = record
    sizes = sorted(largest)[-3:]
    if len(sizes) < 2:
        return None
    return growth.exponent({n: largest[n]["seconds"][name] for n in sizes})


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw time per system against n, one panel for single systems and one for the largest batches."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    for axes, choose, title in zip(
        figure.subplots(1, 2, sharey=True), (min, max), ("one system at a time", "largest batches"), strict=True
    ):
        sizes = sorted({record["n"] for record in data["records"]})
        chosen = [choose((r for r in data["records"] if r["n"] == n), key=lambda r: r["batch"]) for n in sizes]
        for name in chosen[0]["seconds"]:
            exponent = data["exponents"][name]
            label = name if choose is min or exponent is None else f"{name}: n^{exponent:.1f}"
            style = {"color": "k", "linewidth": 2.5} if name == "operator head" else {"linewidth": 1}
            axes.loglog(sizes, [1e6 * r["seconds"][name] for r in chosen], "o-", markersize=4, label=label, **style)
        axes.set(title=title, xlabel="n", ylabel="µs per system", xticks=sizes, xticklabels=sizes)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
