"""Which constant c the certificate omega <= c n eps has: LAPACK's own answers on every shipped family decide.

Every linear family is solved by LU with partial pivoting at many sizes, as LAPACK leaves the answer and after one step
of fixed-precision refinement. The constant is justified if unrefined answers meet it from n = 8 on, and refined ones
always. What it costs is counted on the shipped operator heads: refinements with it and with rtol = 1e-10, the earlier
default.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress
from scipy.linalg import lu_factor, lu_solve

from algebraformer import problems
from algebraformer.checkpoint import solver_names
from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, STABILITY_FACTOR, measure, relative_error
from algebraformer.models.registry import ships
from algebraformer.problems import NoisyFamily, ProblemFamily
from algebraformer.reporting import Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.harness import weights
from studies.harness.panels import legend_below
from studies.harness.study import distinct, where

MIN_N = 8
"""From this n on n eps is more than a handful of roundings."""
EARLIER_RTOL = 1e-10
QUANTILES = {"median": 0.5, "99": 0.99, "max": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    sizes: tuple[int, ...]
    entries: int
    """Entries of the matrices of one family and size, 2,000 systems at most and 8 at least."""
    systems: int
    """Unseen systems for every shipped model."""


PRESETS = {
    "quick": Plan(sizes=(4, 8, 16), entries=2**14, systems=50),
    "cpu": Plan(sizes=(4, 8, 16, 32, 64, 128, 256, 512), entries=2**21, systems=1000),
    "paper": Plan(sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024), entries=2**24, systems=10_000),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure LAPACK on the families, then the shipped models."""
    del folder  # nothing here takes long enough to be kept
    families = [family for name in linear_families() for family in sized(name, plan.sizes)]
    models = solving_models()
    task = bar.add_task("certificate", total=len(families) + len(models))
    records, costs = [], []
    for family in families:
        count = min(2000, max(8, plan.entries // family.n**2))
        records.append({"family": family.name, "n": family.n, "systems": count, **lapack(family, count)})
        bar.advance(task)
    for name in models:
        costs.append({"model": name, "systems": plan.systems, **cost(name, plan.systems)})
        bar.advance(task)
    return summary(records, costs)


def linear_families() -> list[str]:
    """Return the names of the shipped families whose x solves A x = b."""
    classes = {name: problems.family_class(name) for name in problems.names()}
    shipped = {name: cls() for name, cls in classes.items() if ships(cls.__module__)}
    return [name for name, family in shipped.items() if family.is_linear_system and not isinstance(family, NoisyFamily)]


def sized(name: str, sizes: Sequence[int]) -> list[ProblemFamily]:
    """Return a family at those of the sizes that it can have: a square grid has a square number of points."""
    found = []
    for n in sizes:
        with contextlib.suppress(ConfigurationError):
            found.append(problems.get(name, n=n))
    return found


def solving_models() -> list[str]:
    """Return the names of the models with an operator head: the shipped ones, and those the studies compare with."""
    found = {name: LearnedSolver.from_pretrained(weights.source(name)) for name in [*solver_names(), *weights.names()]}
    return sorted(name for name, solver in found.items() if solver.network.config.head.is_linear)


def lapack(family: ProblemFamily, count: int) -> dict[str, Any]:
    """Return quantiles of omega / (n eps) of LAPACK's answers, as they are and refined once."""
    systems = family.sample(count, TEST_SEED)
    found: dict[str, list[float]] = {"plain": [], "refined": []}
    for A, b in zip(systems.A, systems.b, strict=True):
        factors = lu_factor(A, check_finite=False)
        x = lu_solve(factors, b[:, None])
        first = measure(A, b[:, None], x)
        second = measure(A, b[:, None], x + lu_solve(factors, first.residual))
        found["plain"].append(first.backward_error[0])
        found["refined"].append(second.backward_error[0])
    unit = family.n * EPS
    return {
        f"{how}_{name}": float(np.quantile(values, q)) / unit
        for how, values in found.items()
        for name, q in QUANTILES.items()
    }


def cost(name: str, count: int) -> dict[str, Any]:
    """Return what a model needs for the certificate, and how often its estimated forward error held."""
    solver = LearnedSolver.from_pretrained(weights.source(name))
    systems = solver.info.problem_family().sample(count, TEST_SEED)
    before = solver.solve(systems.A, systems.b, rtol=EARLIER_RTOL)
    result = solver.solve(systems.A, systems.b)
    exact = refined_lapack(systems.A, systems.b)
    errors = relative_error(result.x[:, :, None], exact)[:, 0]
    by_network = result.method != "lapack"
    return {
        "by_network": float(np.mean(by_network)),
        "refinements_before": float(np.mean(before.refinements)),
        "refinements": float(np.mean(result.refinements)),
        "refinements_max": int(result.refinements.max()),
        "backward_error_max": float(result.backward_error.max() / (solver.n * EPS)),
        "held": float(np.mean(errors[by_network] <= result.forward_error[by_network])),
        "overestimate": float(np.median(result.forward_error[by_network] / errors[by_network])),
    }


def refined_lapack(A: Any, b: Any) -> Any:
    """Return solutions (B, n, 1) that are right to eps: LU, refined with residuals in longdouble."""
    x = np.linalg.solve(A, b[:, :, None]).astype(np.longdouble)
    wide_A, wide_b = A.astype(np.longdouble), b[:, :, None].astype(np.longdouble)
    for _ in range(3):
        r = wide_b - np.einsum("bij,bjk->bik", wide_A, x)
        x += np.linalg.solve(A, r.astype(np.float64))
    return x.astype(np.float64)


def summary(records: list[dict[str, Any]], costs: list[dict[str, Any]]) -> Report:
    """Put the measurements into tables and outcomes."""
    keys = {
        "model": "model",
        "systems": "systems",
        "by_network": "solved by the network",
        "refinements_before": "refinements at rtol 1e-10, mean",
        "refinements": "refinements, mean",
        "refinements_max": "refinements, max",
        "backward_error_max": "largest backward error, n eps",
        "held": "forward_error held",
        "overestimate": "overestimate, median",
    }
    tables = [TableData(tuple(keys.values()), [[c[key] for key in keys] for c in costs], "The shipped models")]
    columns = ("family", "n", "systems", *(f"{how}: {q}" for how in ("LAPACK", "refined once") for q in QUANTILES))
    rows = [
        [r["family"], r["n"], r["systems"], *(r[f"{how}_{q}"] for how in ("plain", "refined") for q in QUANTILES)]
        for r in records
    ]
    tables.append(TableData(columns, rows, "Backward error of LAPACK's answers, in n eps"))
    data = {"records": records, "models": costs, "constant": STABILITY_FACTOR}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether LAPACK meets the constant, what the certificate costs, and how often `forward_error` held."""
    records, models = data["records"], data["models"]
    worst = max((r for r in records if r["n"] >= MIN_N), key=lambda r: r["plain_max"])
    refined = max(r["refined_max"] for r in records)
    more = max(model["refinements"] - model["refinements_before"] for model in models)
    held = min(model["held"] for model in models)
    verdict = met(max(worst["plain_max"], refined) <= data["constant"])
    if verdict == Verdict.MISSED and refined <= data["constant"]:
        verdict = Verdict.PARTLY
    return {
        "certificate.met-by-lapack": outcome(
            verdict, constant=data["constant"], min_n=MIN_N,
            unrefined=worst["plain_max"], family=worst["family"], n=worst["n"], refined=refined,
        ),
        "certificate.cost": outcome(Verdict.MEASURED, refinements=more, rtol=EARLIER_RTOL),
        "certificate.forward-error": outcome(Verdict.HOLDS if held == 1 else Verdict.PARTLY, held=held),
    }  # fmt: skip


SENTENCES: Sentences = {
    "certificate.met-by-lapack": "LAPACK's answers within c = {constant:g}: {verdict}. The largest backward error from "
    "n = {min_n} on is {unrefined:.2g} n eps ({family}, n = {n}), after one refinement {refined:.2g} n eps over all "
    "sizes.",
    "certificate.cost": "Compared with rtol = {rtol:g} the certificate costs at most {refinements:.2g} refinements "
    "more, in the mean.",
    "certificate.forward-error": "The estimated forward error held in at least {held:.4%} of the systems.",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the backward error of LAPACK's answers against n, for every family, with the certificate."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, how, title in zip(panels, ("plain", "refined"), ("LU, as LAPACK leaves it", "refined once"), strict=True):
        for number, name in enumerate(distinct(data["records"], "family")):
            records = where(data["records"], family=name)
            sizes = [record["n"] for record in records]
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            axes.loglog(sizes, [r[f"{how}_max"] for r in records], marker="o", markersize=4, label=name, **style)
            axes.loglog(sizes, [r[f"{how}_median"] for r in records], alpha=0.3, **style)
        axes.axhline(data["constant"], color="k", linewidth=2, label=f"certificate: {data['constant']:g} n eps")
        axes.set(title=title, xlabel="n", xticks=sizes, xticklabels=sizes)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="ω / (n eps): largest (lines with dots), median (pale)")
    legend_below(figure, panels, columns=5)
    return figure
