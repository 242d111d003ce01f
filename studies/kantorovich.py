"""Newton-Kantorovich with a learned inverse against Newton with LU and its classical savings, over n.

For every equation and n an operator head is trained on the family of Jacobians, and then solves boundary value problems
it has never seen. The baselines start from the same guesses, with the same line search, certificate and fallback, and
are timed in turn in the same run:

- Newton with LU of every Jacobian, the batch through numpy.linalg.solve or one system at a time through LAPACK's dgesv,
  whichever is faster;
- the chord method, which keeps the factors of the first Jacobian for as long as every step halves the residual;
- Newton-GMRES with the inverse of the family's mean Jacobian as preconditioner: conjugate residuals, which give the
  iterates of GMRES, to the same forcing terms, with the same products without a matrix.

Times are medians of rounds that take turns, in seconds of the processor, all threads together: other programs on the
machine hardly change them. The cost of training has a column of its own, in seconds of the clock; the
mean Jacobian comes from the same sample.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import kantorovich
from algebraformer.kantorovich import Directions, GCRDirection, KantorovichResult, LUDirection
from algebraformer.linalg import FloatArray
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.problems import NonlinearFamily
from algebraformer.problems.nonlinear import Jacobians
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.baselines.chord import ChordDirection
from studies.harness.runs import Trained, folder_name, run_once
from studies.harness.study import distinct, where
from studies.harness.timing import in_turn

LEARNED_INVERSE, LU, DGESV, CHORD, GMRES = (
    "learned inverse", "Newton, LU, batched", "Newton, LU, dgesv", "chord", "Newton-GMRES, mean inverse",
)  # fmt: skip
TARGET_SHARE = 0.99
"""Share of problems that are to be solved without a factorisation."""
TARGET_SIZE = 256
"""From this n on the learned inverse is to be faster than Newton with LU, in batches."""
KRYLOV_LIMIT = 40
"""Most products for one step of Newton-GMRES."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    recipes: tuple[Recipe, ...]
    """How the network of every equation and n is trained."""
    problems: dict[int, int]
    """Unseen problems that the network solves, by n."""
    batch: dict[int, int]
    """How many of these, the first ones, all methods solve at once and are timed on, by n."""
    rounds: int
    """Rounds of the times."""


def recipe(equation: str, n: int, samples: int, steps: int, rank: int = 32, width: int = 96, layers: int = 4) -> Recipe:
    """Return the recipe of one network: a perceptron on whitened entries, as for any family."""
    model = ModelConfig(
        n=n,
        architecture="mlp",
        head=OperatorConfig(rank=rank, n_column=min(16, n), n_row=min(16, n), whiten=True),
        n_layer=layers,
        n_embd=width,
    )
    return Recipe(family=equation, model=model, samples=samples, steps=steps, batch_size=64, lr=3e-3)


AT_EVERY_SIZE, AT_SMALL_SIZES = ("allen-cahn", "burgers"), ("bratu", "quasilinear")
"""Equations that are measured at every n, and at n = 64 and 128 alone."""

PRESETS = {
    "quick": Plan(
        recipes=tuple(recipe(name, n, 200, 60, 12, 32, 2) for name in ("bratu", "burgers") for n in (16, 24)),
        problems={16: 40, 24: 40},
        batch={16: 8, 24: 8},
        rounds=1,
    ),
    "cpu": Plan(
        recipes=(
            *(recipe(name, 64, 4_000, 1_000) for name in AT_EVERY_SIZE + AT_SMALL_SIZES),
            *(recipe(name, 128, 4_000, 1_000) for name in AT_EVERY_SIZE + AT_SMALL_SIZES),
            *(recipe(name, 256, 2_048, 1_000) for name in AT_EVERY_SIZE),
            *(recipe(name, 512, 1_536, 1_000) for name in AT_EVERY_SIZE),
        ),
        problems={64: 1_000, 128: 1_000, 256: 500, 512: 200},
        batch={64: 256, 128: 128, 256: 64, 512: 16},
        rounds=3,
    ),
    "paper": Plan(
        recipes=tuple(
            recipe(name, n, 20_000, 4_000, rank=64, width=128, layers=6)
            for name in AT_EVERY_SIZE + AT_SMALL_SIZES
            for n in (64, 128, 256, 512)
        ),
        problems={64: 10_000, 128: 10_000, 256: 5_000, 512: 2_000},
        batch={64: 1024, 128: 512, 256: 256, 512: 128},
        rounds=9,
    ),
}  # fmt: skip


class OneByOne(LUDirection):
    """Newton's method with LAPACK's dgesv, one system at a time."""

    def lu(self, J: Jacobians, F: FloatArray, systems: Any) -> Directions:
        found = [scipy.linalg.lapack.dgesv(A, -f) for A, f in zip(J.dense(), F, strict=True)]
        good = np.array([info == 0 for *_, info in found])
        return Directions(np.array([d for _, _, d, _ in found]), good, factorisations=1)


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then solve and time."""
    task = bar.add_task("kantorovich", total=2 * len(plan.recipes))
    trained: list[Trained] = []
    for how in plan.recipes:
        trained.append(run_once(how, folder / folder_name(how.family, how.model.n)))
        bar.advance(task)
    records = []
    for one in trained:
        records.append(measured(plan, one))
        bar.advance(task)
    return summary(records)


def measured(plan: Plan, trained: Trained) -> dict[str, Any]:
    """Solve and time the problems of one equation and n."""
    solver = trained.solver
    family = solver.info.problem_family()
    if not isinstance(family, NonlinearFamily):
        raise TypeError(f"expected a nonlinear family, received {family!r}")
    n, head = solver.n, solver.model.operator_head
    params = family.parameters(range(plan.problems[n]), TEST_SEED)
    some = {key: value[: plan.batch[n]] for key, value in params.items()}
    mean = MeanInverse(head.basis.inverse)
    ways: dict[str, Callable[[], KantorovichResult]] = {
        LEARNED_INVERSE: partial(kantorovich.solve, family, some, solver),
        LU: partial(kantorovich.solve, family, some),
        DGESV: lambda: kantorovich.iterate(family, some, OneByOne()),
        CHORD: lambda: kantorovich.iterate(family, some, ChordDirection()),
        GMRES: lambda: kantorovich.iterate(family, some, GCRDirection(lambda J: mean, KRYLOV_LIMIT)),
    }
    found = {name: way() for name, way in ways.items()}
    seconds = in_turn(ways, plan.rounds, time.process_time)
    exact = found[LU].u
    return {
        "equation": family.name,
        "n": n,
        "batch": plan.batch[n],
        "preparation": trained.seconds,
        "methods": {
            name: statistics(result)
            | {
                "seconds": seconds[name] / plan.batch[n],
                "difference": float(np.max(np.abs(result.u - exact)) / np.max(np.abs(exact))),
            }
            for name, result in found.items()
        },
        "learned": statistics(kantorovich.solve(family, params, solver)) | {"problems": plan.problems[n]},
    }


def statistics(result: KantorovichResult) -> dict[str, float]:
    """Return what a method needed for its problems."""
    return {
        "certified": float(result.certified.mean()),
        "without": float(np.mean(result.certified & (result.factorisations == 0))),
        "iterations_mean": float(result.nit.mean()),
        "iterations_max": int(result.nit.max()),
        "factorisations_mean": float(result.factorisations.mean()),
        "refinements_mean": float(result.refinements.mean()),
        "refinements_max": int(result.refinements.max()),
    }


def lu(record: dict[str, Any]) -> float:
    """Return the seconds of Newton with LU, in its faster form."""
    return float(min(record["methods"][name]["seconds"] for name in (LU, DGESV)))


def summary(records: list[dict[str, Any]]) -> Report:
    """Return tables, outcomes and data."""
    main: list[list[Cell]] = []
    details: list[list[Cell]] = []
    for r in records:
        own, learned, gmres = r["learned"], r["methods"][LEARNED_INVERSE], r["methods"][GMRES]
        main.append([
            r["equation"], r["n"], own["problems"], own["without"], own["certified"], r["batch"],
            1e3 * learned["seconds"], 1e3 * lu(r), 1e3 * r["methods"][CHORD]["seconds"], 1e3 * gmres["seconds"],
            lu(r) / learned["seconds"], r["preparation"],
        ])  # fmt: skip
        for name, m in r["methods"].items():
            details.append([
                r["equation"], r["n"], name, m["iterations_mean"], m["iterations_max"], m["factorisations_mean"],
                m["refinements_mean"], m["refinements_max"], m["certified"], 1e3 * m["seconds"], m["difference"],
            ])  # fmt: skip
    columns = (
        "equation", "n", "problems", "no factorisation", "certified", "batch", "learned: ms", "LU: ms", "chord: ms",
        "GMRES: ms", "LU / learned", "training: s",
    )  # fmt: skip
    more = (
        "equation", "n", "method", "iterations", "most", "factorisations", "refinements", "most of them", "certified",
        "ms", "difference",
    )  # fmt: skip
    tables = [
        TableData(
            columns, main, "Unseen problems solved without a factorisation; processor time per problem of a batch"
        ),
        TableData(more, details, "Means per problem of the batch; difference: max |u - u of Newton with LU| / max |u|"),
    ]
    data = {"records": records}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether the targets are met, and how often the classical savings are faster."""
    records = data["records"]
    worst = min(records, key=lambda r: r["learned"]["without"])
    certified = min(r["learned"]["certified"] for r in records)
    ratios = [lu(r) / r["methods"][LEARNED_INVERSE]["seconds"] for r in records if r["n"] >= TARGET_SIZE]
    faster = Verdict.INCONCLUSIVE if not ratios else met(min(ratios) > 1)
    found = {
        "kantorovich.no-factorisation": outcome(
            met(worst["learned"]["without"] >= TARGET_SHARE), target=TARGET_SHARE, share=worst["learned"]["without"],
            equation=worst["equation"], n=worst["n"], problems=worst["learned"]["problems"],
        ),
        "kantorovich.certified": outcome(Verdict.HOLDS if certified == 1 else Verdict.FAILS, share=certified),
        "kantorovich.faster-than-lu": outcome(
            faster, n=TARGET_SIZE, least=min(ratios, default=None), most=max(ratios, default=None)
        ),
    }  # fmt: skip
    for name in (GMRES, CHORD):
        cases = [r for r in records if r["methods"][name]["seconds"] < r["methods"][LEARNED_INVERSE]["seconds"]]
        listed = ", ".join(f"{r['equation']} at n = {r['n']}" for r in cases)
        found[f"kantorovich.faster-than/{name}"] = outcome(
            {0: Verdict.HOLDS, len(records): Verdict.FAILS}.get(len(cases), Verdict.PARTLY), method=name,
            lost=len(cases), cases=len(records), where=listed,
        )  # fmt: skip
    return found


def lu_sentence(found: Outcome) -> str:
    """Say whether the learned inverse is faster than Newton with LU."""
    if found.verdict == Verdict.INCONCLUSIVE:
        return "Faster than Newton with LU from n = {n} on: not measured at these n.".format(**found.numbers)
    return (
        "Faster than Newton with LU from n = {n} on, in batches: {verdict}. There LU in its faster form takes "
        "{least:.3g} to {most:.3g} times as long as the learned inverse."
    ).format(verdict=found.verdict, **found.numbers)


SENTENCES: Sentences = {
    "kantorovich.no-factorisation": "No factorisation in at least {target:.0%} of the problems inside the family: "
    "{verdict}. The smallest share is {share:.2%} ({equation}, n = {n}, {problems} problems).",
    "kantorovich.certified": "With the learned inverse at least {share:.2%} of the problems of every case end "
    "certified.",
    "kantorovich.faster-than-lu": lu_sentence,
    "kantorovich.faster-than": lambda found: (
        "{method}: faster than the learned inverse in {lost} of {cases} cases".format(**found.numbers)
        + (f" ({found.numbers['where']})." if found.numbers["lost"] else ".")
    ),
}


STYLES = {
    "learned inverse": "C0o-",
    "Newton, LU, batched": "C1s-",
    "Newton, LU, dgesv": "C1x--",
    "chord": "C2^-",
    "Newton-GMRES, mean inverse": "C3d-",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw milliseconds per problem against n for every equation, and below the products with inverses they need."""
    records = data["records"]
    equations = distinct(records, "equation")
    figure = Figure(figsize=(3.6 * len(equations), 6.6), layout="constrained")
    panels = figure.subplots(2, len(equations), squeeze=False, sharey="row")
    for (upper, lower), equation in zip(panels.T, equations, strict=True):
        own = sorted(where(records, equation=equation), key=lambda r: r["n"])
        sizes = [r["n"] for r in own]
        for name, style in STYLES.items():
            found = [r["methods"][name] for r in own]
            upper.loglog(sizes, [1e3 * m["seconds"] for m in found], style, markersize=4, label=name)
            lower.plot(sizes, [m["iterations_mean"] + m["refinements_mean"] for m in found], style, markersize=4)
        lower.set(xscale="log", xlabel="n")
        for axes in (upper, lower):
            axes.set_xticks(sizes, [str(n) for n in sizes])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        shares = min(100 * r["learned"]["without"] for r in own)
        upper.set(title=f"{equation}\nwithout LU: at least {shares:.4g} %")
    panels[0, 0].set(ylabel="ms per problem, in batches")
    panels[1, 0].set(ylabel="iterations and refinements")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    return figure
