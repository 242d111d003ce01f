"""Do learned inverses of the Hessians Q' D(w) Q of one design save Newton's method its factorisations, and time?

For every design, n and p, on problems that no network has seen, all of them at once: iterations, factorisations and
products with Hessians until the relative gradient norm is 1e-8. All methods share the design's own factorisation, the
homotopy in p and the exact line search, and start from least squares:

- homotopy, with every Hessian factorised, and Newton with line search at p from the start;
- the primal-dual IRLS (counts only: each of its steps factorises a Hessian, and it takes more of them);
- conjugate residuals with the diagonals of the Hessians, to forcing terms;
- the same with inverses of Hessians that were factorised before: of the same problem, or the nearest of a bank;
- the same with inverses that an operator head predicts, at every iterate, or kept for as long as they serve;
- from a learned start, where there is one, with the factors of the first Hessian.

Times are medians of rounds that take turns, per problem of the batch. Designs, banks and networks are there before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import LearnedSolver
from algebraformer.designs import LearnedInverse
from algebraformer.linalg import FloatArray
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.numerics.lp_design import Descent, Design, Direction, descend, factorised, scaled_by_diagonal
from algebraformer.numerics.lp_norm import p_norm, product
from algebraformer.problems import LpHessian
from algebraformer.problems.lp_regression import start_step, start_tokens
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from studies.baselines import lp
from studies.baselines.hessians import KeptFactors, NearestFactors
from studies.harness.panels import legend_below, panel_grid
from studies.harness.regressions import real_problem
from studies.harness.runs import computed_once, folder_name, run_once
from studies.harness.study import distinct, where
from studies.harness.timing import in_turn

NEWTON, HOMOTOPY, IRLS = "Newton, line search", "homotopy", "primal-dual IRLS"
RESIDUALS, KEPT, NEAREST = "conjugate residuals, diagonal", "kept factors", "nearest factors"
LEARNED, LEARNED_KEPT, START = "learned inverse", "learned inverse, kept", "learned start, kept factors"
NETWORKS = (LEARNED, LEARNED_KEPT, START)
TIMED = (HOMOTOPY, RESIDUALS, KEPT, NEAREST, *NETWORKS)
REAL = "star98"
"""Shares of pupils above the median in mathematics by school district, in statsmodels."""
TARGET = 4.0
"""How many times fewer factorisations are wanted than the best classical method takes that factorises every Hessian."""
KEPT_PRODUCTS = 12
"""Of `KeptFactors`; of 3, 6 and 12 the fewest factorisations on filters with n = 32."""
GROUP = ("design", "m", "n", "p")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is solved."""

    kinds: tuple[Any, ...]
    """Kinds of designs, of the family lp-hessian."""
    p: tuple[float, ...]
    problems: dict[int, int]
    """Problems of each kind and p at once, by n; as many of the real design as for the smallest n."""
    bank: int
    """Solved problems of the bank."""
    timed: tuple[float, ...]
    """p of the times."""
    trained: tuple[Recipe, ...]
    """Networks."""
    start: str
    """Shipped network that predicts starts for filters."""
    rounds: int
    maxiter: int = 100


def recipe(kind: str, n: int, p: float, samples: int, steps: int, rank: int = 128, width: int = 96) -> Recipe:
    """Return the recipe of one network: a perceptron on whitened entries, as for any family."""
    head = OperatorConfig(rank=rank, n_column=min(16, n), n_row=min(16, n), whiten=True)
    model = ModelConfig(n=n, architecture="mlp", head=head, n_layer=4, n_embd=width)
    settings = {"kind": kind, "p": p}
    return Recipe(
        family="lp-hessian", family_settings=settings, model=model, samples=samples, steps=steps, batch_size=64, lr=3e-3
    )


KINDS, ALL_P = ("filter", "spline", "polynomial"), (3.0, 4.0, 6.0, 8.0, 12.0)
PRESETS = {
    "quick": Plan(
        kinds=("filter",),
        p=(4.0,),
        problems={32: 8},
        bank=8,
        timed=(4.0,),
        trained=(dataclasses.replace(recipe("filter", 32, 4.0, 128, 20, 16, 32), basis_samples=128),),
        start="lp-filter-32",
        rounds=1,
    ),
    "cpu": Plan(
        kinds=KINDS,
        p=ALL_P,
        problems={32: 128, 64: 32, 128: 16, 256: 4},
        bank=16,
        timed=(4.0, 8.0),
        trained=(
            recipe("filter", 32, 4.0, 4_000, 1_000),
            recipe("filter", 32, 8.0, 4_000, 1_000),
            recipe("spline", 32, 8.0, 4_000, 1_000),
            recipe("filter", 128, 8.0, 2_000, 600),
        ),
        start="lp-filter-32",
        rounds=3,
    ),
    "paper": Plan(
        kinds=KINDS,
        p=ALL_P,
        problems={32: 1024, 64: 512, 128: 256, 256: 128},
        bank=100,
        timed=ALL_P,
        trained=tuple(
            recipe(kind, n, p, 50_000, 20_000, 256, 256) for kind in KINDS for n in (32, 64, 128) for p in ALL_P
        ),
        start="lp-filter-32",
        rounds=9,
    ),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Problems of one design and p."""

    design: Design
    b: FloatArray
    bank: FloatArray
    """Right-hand sides of the solved problems (K, m)."""
    p: float


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, solve everything, time it."""
    task = bar.add_task("hessians", total=len(plan.trained) + len(plan.p) * (len(plan.kinds) * len(plan.problems) + 1))
    networks: dict[tuple[str, int, float], LearnedSolver] = {}
    for how in plan.trained:
        kind, p = how.family_settings["kind"], how.family_settings["p"]
        networks[kind, how.model.n, p] = run_once(how, folder / folder_name(kind, how.model.n, f"{p:g}")).solver
        bar.advance(task)
    start = LearnedSolver.from_pretrained(plan.start)
    records = []
    cases = [(kind, n, count) for n, count in plan.problems.items() for kind in plan.kinds]
    for name, n, count in (*cases, (REAL, 0, plan.problems[min(plan.problems)])):
        for p in plan.p:
            group = real_group(count, plan.bank, p) if name == REAL else generated(name, n, p, count, plan.bank)
            m, n = group.design.A.shape
            about = {"design": name, "m": m, "n": n, "p": p}
            solver, starter = networks.get((name, n, p)), start if name == "filter" and n == start.n else None
            directions = ways(group, solver, starter)
            settings = {**about, "problems": len(group.b), "bank": len(group.bank), "maxiter": plan.maxiter}
            settings["weights"] = None if solver is None else solver.info.family
            found = computed_once(
                folder / f"{folder_name(name, n, f'{p:g}')}.json", settings, partial(counts, group, directions, plan)
            )
            if p in plan.timed:
                seconds = times(directions, len(group.b), plan)
                found = [one | {"seconds": seconds.get(one["method"])} for one in found]
            records += [about | one for one in found]
            bar.advance(task)
    return summary(records)


# ---------------------------------------------------------------- problems


def generated(kind: Any, n: int, p: float, count: int, bank: int) -> Group:
    """Return problems of the family lp-hessian."""
    family = LpHessian(kind=kind, n=n, p=p)
    b, known = (family.parameters(range(k), seed)["b"] for k, seed in ((count, TEST_SEED), (bank, VALIDATION_SEED)))
    return Group(family.design(), b, known, p)


def real_group(count: int, bank: int, p: float) -> Group:
    """Return residual bootstraps of the real design: fitted values of least squares plus its residuals, redrawn."""
    A, b = real_problem(REAL)
    b = b[:, 0] / b.sum(axis=1) if b.ndim == 2 else b
    design, rng = Design.of(A), np.random.default_rng(0)
    r = design.regression(b[None], p).r[0]
    drawn = b + r - rng.choice(r, (count + bank, len(r)))
    return Group(design, drawn[:count], drawn[count:], p)


Solve = Callable[[int], Descent]
"""From the largest number of iterations to what a method finds."""


def ways(group: Group, solver: LearnedSolver | None, starter: LearnedSolver | None) -> dict[str, Solve]:
    """Return every method for a group, as far as there are networks for it."""
    design, p = group.design, group.p
    problem = design.regression(group.b, p)
    nearest = NearestFactors.of(design, design.regression(group.bank, p).r, p)

    def by(direction: Callable[[], Direction], y: Callable[[], FloatArray | None] = lambda: None) -> Solve:
        return lambda maxiter: descend(design, problem.r, p, direction(), 1e-8, maxiter, y())

    found = {
        NEWTON: by(lambda: factorised, lambda: np.zeros_like(problem.x)),
        HOMOTOPY: by(lambda: factorised),
        RESIDUALS: by(lambda: scaled_by_diagonal),
        KEPT: by(lambda: KeptFactors(KEPT_PRODUCTS)),
        NEAREST: by(lambda: nearest),
    }
    if solver is not None:
        read = solver.network.approximate_inverse
        found |= {LEARNED: by(lambda: LearnedInverse(read, kept=0)), LEARNED_KEPT: by(lambda: LearnedInverse(read))}
    if starter is not None:
        found[START] = by(
            lambda: KeptFactors(KEPT_PRODUCTS),
            lambda: product(problem.R, start_step(problem, starter.predict(*start_tokens(problem)))),
        )
    return found


def counts(group: Group, methods: Mapping[str, Solve], plan: Plan) -> list[dict[str, Any]]:
    """Return the records of every method on the problems of a group."""
    problem = group.design.regression(group.b, group.p)
    best = p_norm(problem.r + methods[HOMOTOPY](plan.maxiter).y @ group.design.Q.T, problem.p)
    records = []
    for method, solve in methods.items():
        found = solve(plan.maxiter)
        size = p_norm(problem.r + found.y @ group.design.Q.T, problem.p)
        records.append({
            "method": method,
            "problems": len(group.b),
            "converged": float(np.mean((found.error <= 1e-8) | found.stalled)),
            "iterations": float(np.median(found.iterations)),
            "iterations_max": int(found.iterations.max()),
            "factorisations": float(np.median(found.factorisations)),
            "factorisations_max": int(found.factorisations.max()),
            "factorisations_mean": float(np.mean(found.factorisations)),
            "products": float(np.median(found.products)),
            "inexact": float(np.sum(found.inexact) / np.maximum(np.sum(found.iterations), 1)),
            "difference": float(np.max(np.abs(np.expm1(group.p * np.log(size / best))))),
        })  # fmt: skip
    irls = lp.minimize(problem.A, problem.b, problem.p, "primal-dual irls", maxiter=plan.maxiter)
    records.append({
        "method": IRLS,
        "problems": len(group.b),
        "converged": float(np.mean(irls.converged)),
        **{key: float(np.median(irls.iterations)) for key in ("iterations", "factorisations")},
        **{f"{key}_max": int(irls.iterations.max()) for key in ("iterations", "factorisations")},
        "factorisations_mean": float(np.mean(irls.iterations)),
        "products": 0.0,
        "inexact": 0.0,
        "difference": None,
    })  # fmt: skip
    return records


def times(methods: Mapping[str, Solve], problems: int, plan: Plan) -> dict[str, float]:
    """Return the seconds per problem of the methods that are timed."""
    calls = {name: partial(methods[name], plan.maxiter) for name in TIMED if name in methods}
    return {name: seconds / problems for name, seconds in in_turn(calls, plan.rounds).items()}


# ---------------------------------------------------------------- results


def groups(records: list[dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """Return the records of every group by method."""
    return [
        {r["method"]: r for r in where(records, **dict(zip(GROUP, key, strict=True)))}
        for key in distinct(records, *GROUP)
    ]


def seconds(one: Mapping[str, Any]) -> float | None:
    """Return the time of a record, None where it was not measured."""
    value = one.get("seconds")
    return None if value is None else float(value)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether the targets are met by networks, and by a classical method."""
    found: dict[str, Outcome] = {}
    by_group = groups(data["records"])
    for method in (*NETWORKS, RESIDUALS, KEPT):
        cases = [g for g in by_group if method in g and seconds(g[method]) is not None]
        if not cases:
            continue
        others = [name for name in TIMED if name not in NETWORKS and name != method]
        ratios = [g[HOMOTOPY]["factorisations"] / max(g[method]["factorisations"], 1.0) for g in cases]
        gains = [
            min(float(g[name]["seconds"]) for name in others if name in g) / float(g[method]["seconds"]) for g in cases
        ]
        both = [(r, t, g) for r, t, g in zip(ratios, gains, cases, strict=True) if r >= TARGET and t > 1]
        best = max(zip(gains, ratios, cases, strict=True), key=lambda one: one[0])
        at = best[2][method]
        found[f"hessians.target/{method}"] = outcome(
            met(bool(both)), method=method, target=TARGET, cases=len(cases), met=len(both),
            fewer=sum(r >= TARGET for r in ratios), time=best[0], design=at["design"], n=at["n"], p=at["p"],
        )  # fmt: skip
    for g in by_group:
        if LEARNED in g:
            own, plain = g[LEARNED], g[RESIDUALS]
            found["hessians.steps/{design}, n = {n}, p = {p:g}".format(**own)] = outcome(
                Verdict.HOLDS if own["products"] < plain["products"] else Verdict.FAILS,
                design=own["design"], n=own["n"], p=own["p"], share=own["inexact"], products=own["products"],
                diagonal=plain["products"], factorisations=own["factorisations_mean"],
            )  # fmt: skip
    free = [g[RESIDUALS]["inexact"] for g in by_group]
    found["hessians.without-learning"] = outcome(
        Verdict.HOLDS if min(free) >= 0.99 else Verdict.FAILS, least=min(free), cases=len(free)
    )
    worst = max(one["difference"] for g in by_group for one in g.values() if one["difference"] is not None)
    lost = sorted({f"{r['method']}" for r in data["records"] if r["converged"] < 1})
    found["hessians.same-optimum"] = outcome(
        met(worst < 1e-9 and not lost), difference=worst, lost=", ".join(lost), cases=len(by_group)
    )
    return found


def target_sentence(found: Outcome) -> str:
    """Say in how many cases a method saves what was wanted."""
    return (
        "{method}: at least {target:g} times fewer factorisations than the homotopy, and faster than every other "
        "classical method: {verdict}, in {met} of {cases} cases ({fewer} have the factorisations); against the fastest "
        "of the others its time is at best {time:.3g} times shorter ({design}, n = {n}, p = {p:g})."
    ).format(verdict=found.verdict, **found.numbers)


SENTENCES: Sentences = {
    "hessians.target": target_sentence,
    "hessians.steps": "Learned inverses, {design}, n = {n}, p = {p:g}: {share:.1%} of the steps need no factorisation; "
    "{products:g} products per problem in the median, {diagonal:g} with the diagonal alone.",
    "hessians.without-learning": "Conjugate residuals with the diagonal need no factorisation for at least {least:.1%} "
    "of the steps, in {cases} cases: learning is not needed for this.",
    "hessians.same-optimum": lambda found: (
        (
            "The same optimum with all methods: {verdict} (objectives at most {difference:.2g} apart, {cases} cases)"
        ).format(verdict=found.verdict, **found.numbers)
        + (f"; not all converged: {found.numbers['lost']}." if found.numbers["lost"] else ".")
    ),
}


def summary(records: list[dict[str, Any]]) -> Report:
    """Return tables, outcomes and data."""
    methods = [m for m in (NEWTON, HOMOTOPY, IRLS, RESIDUALS, KEPT, NEAREST, *NETWORKS) if where(records, method=m)]
    main: list[list[Cell]] = []
    timed: list[list[Cell]] = []
    for g in groups(records):
        head = [g[HOMOTOPY][key] for key in ("design", "n", "p")]
        main.append([*head, g[HOMOTOPY]["problems"], *(cell(g.get(method)) for method in methods)])
        if seconds(g[HOMOTOPY]) is not None:
            timed.append([*head, g[HOMOTOPY]["problems"], *(
                1e3 * g[m]["seconds"] if m in g else None for m in TIMED if m in methods
            )])  # fmt: skip
    about = ("design", "n", "p", "problems")
    tables = [
        TableData((*about, *methods), main, "Iterations / factorisations / products with Hessians, medians"),
        TableData((*about, *(m for m in TIMED if m in methods)), timed, "Milliseconds per problem of the batch"),
    ]
    data = {"records": records}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def cell(one: Mapping[str, Any] | None) -> Cell:
    """Return the counts of a record."""
    if one is None:
        return None
    text = "{iterations:g} / {factorisations:g} / {products:g}".format(**one)
    return text if one["converged"] == 1 else f"{text} ({100 * one['converged']:.0f} % converged)"


STYLES = {HOMOTOPY: "C3o-", IRLS: "C5x-", RESIDUALS: "C0s-", KEPT: "C1^-", LEARNED: "C2d-"}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw factorisations (full) and products (dashed) against p, a panel for every design and n."""
    keys = distinct(data["records"], "design", "n")
    figure, panels = panel_grid(len(keys))
    for axes, (design, n) in zip(panels, keys, strict=True):
        for method, style in STYLES.items():
            mine = sorted(where(data["records"], design=design, n=n, method=method), key=lambda r: r["p"])
            p = [r["p"] for r in mine]
            axes.plot(p, [r["factorisations"] for r in mine], style, markersize=4, label=method)
            if method not in (HOMOTOPY, IRLS):
                axes.plot(p, [r["products"] for r in mine], style + "-", markersize=4, alpha=0.5)
        axes.set(title=f"{design}, n = {n}", xlabel="p", yscale="symlog")
        axes.grid(alpha=0.3)
    legend_below(figure, panels, columns=5)
    figure.suptitle("Factorisations (full) and products with Hessians (dashed) per problem, medians")
    return figure
