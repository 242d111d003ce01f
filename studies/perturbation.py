"""How far x moves when A or b is perturbed: LU, bare networks and the refined solve, compared with kappa eps.

For every system and every relative size eps

- A is replaced by A + eps ||A|| E with ||E|| = 1: E is random, or the worst one, u_n x^T / ||x||;
- b is replaced by b + eps ||b|| e with ||e|| = 1: e is random, or the worst one, u_n,

where u_n is the left singular vector of the smallest singular value and all norms are Euclidean. The change of a
method's answer is ||x' - x|| / ||x||, both by the same method. To first order the exact solution moves by at most
kappa eps, and by as much for the worst E whatever x is; for the worst e by eps ||b|| / (sigma_n ||x||), which is
kappa eps only where b lies along the largest singular vector [1]_.

A network that moves less than LU is not more right: the perturbed system has another solution, which LU finds.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 7.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress
from scipy.linalg import LinAlgWarning

from algebraformer import problems
from algebraformer.linalg import FloatArray, condition_number, relative_error
from algebraformer.problems import generator
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, finite, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.harness.study import distinct, where

Method = Callable[[FloatArray, FloatArray], FloatArray]
WHAT, DIRECTIONS = ("A", "b"), ("random", "worst")
LU, REFINED = "LU", "refined solve"
CHECKED_EPS, KAPPA = 1e-8, 1e5
"""The question of the paper's summary: condition number KAPPA, relative error CHECKED_EPS of the input."""
CHANGE_TOLERANCE = 0.05
"""Changes that differ by less than this share count as equal."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Systems, and the networks that know them."""

    name: str
    family: str
    settings: dict[str, Any]
    networks: dict[str, str]
    """Shipped models by what they are called here."""
    refined: str = ""
    """The shipped model whose `solve` is measured, if any."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    cases: tuple[Case, ...]
    systems: int
    """Systems of each case."""
    levels: tuple[float, ...]
    """Relative sizes eps of the perturbations."""


RANDSVD = Case(f"randsvd, kappa = {KAPPA:.0e}", "randsvd", {"n": 64, "kappa": (KAPPA, KAPPA)}, {})
DIFFUSION = Case(
    "diffusion",
    "diffusion",
    {"n": 64},
    {"operator head": "diffusion-64", "token head": "diffusion-64-token"},
    refined="diffusion-64",
)
LEVELS = tuple(10.0**power for power in range(-12, -1))

PRESETS = {
    "quick": Plan(cases=(RANDSVD, DIFFUSION), systems=6, levels=(1e-12, CHECKED_EPS, 1e-4)),
    "cpu": Plan(cases=(RANDSVD, DIFFUSION), systems=100, levels=LEVELS),
    "paper": Plan(cases=(RANDSVD, DIFFUSION), systems=2_000, levels=LEVELS),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Perturb and solve; nothing is trained."""
    task = bar.add_task("perturbation", total=len(plan.cases) * len(WHAT) * len(DIRECTIONS) * len(plan.levels))
    records: list[dict[str, Any]] = []
    about = []
    for case in plan.cases:
        systems = problems.get(case.family, **case.settings).sample(plan.systems, TEST_SEED)
        A, b = systems.A, systems.b[:, :, None]
        chosen = methods(case)
        before = {name: method(A, b) for name, method in chosen.items()}
        kappa = float(np.median(condition_number(A)))
        about.append({"case": case.name, "n": A.shape[-1], "kappa": kappa})
        for what in WHAT:
            for direction in DIRECTIONS:
                unit = directions(A, systems.x, what, direction)
                for level in plan.levels:
                    changed = perturbed(A, b, what, level, unit)
                    moved = {
                        name: relative_error(method(*changed), before[name])[:, 0] for name, method in chosen.items()
                    }
                    records.append(
                        {"case": case.name, "what": what, "direction": direction, "level": level}
                        | {"kappa_level": kappa * level}
                        | {"change": {name: finite(float(np.median(values))) for name, values in moved.items()}}
                        | {"largest": {name: finite(float(values.max())) for name, values in moved.items()}}
                    )
                    bar.advance(task)
    return summary(plan, about, records)


def methods(case: Case) -> dict[str, Method]:
    """Return what answers a system A (B, n, n), b (B, n, 1) of a case, by name."""

    def lu(A: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray(np.linalg.solve(A, b), dtype=np.float64)

    def refined(A: FloatArray, b: FloatArray) -> FloatArray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinAlgWarning)
            return np.asarray(solvers[case.refined].solve(A, b).x, dtype=np.float64)

    shipped = {*case.networks.values(), case.refined} - {""}
    solvers = {model: LearnedSolver.from_pretrained(model) for model in shipped}
    found: dict[str, Method] = {LU: lu}
    for name, model in case.networks.items():
        found[f"{name}, bare"] = solvers[model].predict
    return found | ({REFINED: refined} if case.refined else {})


def directions(A: FloatArray, x: FloatArray, what: str, direction: str) -> FloatArray:
    """Return E (B, n, n) or e (B, n, 1) of norm one for systems A (B, n, n) with solutions x (B, n)."""
    if direction == "worst":
        last = np.linalg.svd(A)[0][:, :, -1:]  # u_n
        row = x[:, None, :] / np.linalg.norm(x, axis=1)[:, None, None]
        return last @ row if what == "A" else last
    rng = generator(TEST_SEED, 0, stream=2)
    E = rng.standard_normal(A.shape if what == "A" else (*x.shape, 1))
    return E / np.linalg.norm(E, 2, axis=(1, 2), keepdims=True)


def perturbed(A: FloatArray, b: FloatArray, what: str, level: float, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return A and b, one of them changed by `level` times its size along `unit`."""
    if what == "A":
        return A + level * np.linalg.norm(A, 2, axis=(1, 2), keepdims=True) * unit, b
    return A, b + level * np.linalg.norm(b, axis=1, keepdims=True) * unit


# ---------------------------------------------------------------- tables and outcomes


def summary(plan: Plan, about: list[dict[str, Any]], records: list[dict[str, Any]]) -> Report:
    """Put measurements into tables and outcomes."""
    names = list(dict.fromkeys(name for one in records for name in one["change"]))
    columns = ("system", "perturbed", "direction", "eps", "kappa eps", *names)
    middle = f"Relative change of x, median of {plan.systems} systems"
    checked = where(records, level=CHECKED_EPS)
    tables = [
        TableData(columns, [row(one, names, key) for one in chosen], title)
        for chosen, key, title in (
            (checked, "change", f"{middle}, eps = {CHECKED_EPS:g}"),
            (records, "change", f"{middle}, every eps"),
            (records, "largest", "Relative change of x, largest of them, every eps"),
        )
    ]
    data = {"systems": plan.systems, "cases": about, "records": records}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def row(one: dict[str, Any], names: list[str], key: str) -> list[Cell]:
    """Return the cells of one level."""
    values = [None if (value := one[key].get(name)) is None else float(value) for name in names]
    return [one["case"], one["what"], one["direction"], one["level"], one["kappa_level"], *values]


def change(records: list[dict[str, Any]], case: str, what: str, direction: str, level: float, method: str) -> float:
    """Return the median change of x that a perturbation made."""
    return float(where(records, case=case, what=what, direction=direction, level=level)[0]["change"][method])


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return for each case whether LU's answer moves by kappa eps, and how the networks' answers move compared with "
    "it."""
    found: dict[str, Outcome] = {}
    records = data["records"]
    for case in data["cases"]:
        name, expected = case["case"], case["kappa"] * CHECKED_EPS
        moved = {key: change(records, name, *key, CHECKED_EPS, LU) for key in product(WHAT, DIRECTIONS)}
        reached = max(moved.values()) / expected
        verdict = Verdict.PARTLY if reached < 1 else Verdict.FAILS
        found[f"perturbation.kappa-eps/{name}"] = outcome(
            Verdict.HOLDS if abs(reached - 1) <= CHANGE_TOLERANCE else verdict, case=name, n=case["n"],
            kappa=case["kappa"], eps=CHECKED_EPS, expected=expected, reached=reached,
            **{f"{what}_{direction}": value for (what, direction), value in moved.items()},
        )  # fmt: skip
        for method in where(records, case=name)[0]["change"]:
            if method != LU:
                found[f"perturbation.network/{name}, {method}"] = network_outcome(name, records, method)
    return found


def network_outcome(case: str, records: list[dict[str, Any]], name: str) -> Outcome:
    """Return how a method's answer moves against LU's; holds if no perturbation moves it otherwise."""
    mine = where(records, case=case)
    ratios = [float(one["change"][name]) / float(one["change"][LU]) for one in mine]
    less, more = sum(r < 1 - CHANGE_TOLERANCE for r in ratios), sum(r > 1 + CHANGE_TOLERANCE for r in ratios)
    eps = min(one["level"] for one in mine)
    least = where(mine, level=eps)
    return outcome(
        Verdict.FAILS if less or more else Verdict.HOLDS, case=case, method=name, perturbations=len(ratios),
        same=len(ratios) - less - more, less=less, more=more, eps=eps,
        change=max(float(one["change"][name]) for one in least), lu=max(float(one["change"][LU]) for one in least),
    )  # fmt: skip


def rule_sentence(found: Outcome) -> str:
    """Say whether the rule kappa eps is reached."""
    share = {
        Verdict.HOLDS: "reached",
        Verdict.PARTLY: f"an upper bound, of which {100 * found.numbers['reached']:.2g} % is reached",
        Verdict.FAILS: f"exceeded {found.numbers['reached']:.2g} times",
    }[found.verdict]
    return (
        "{case}, n = {n}: a condition number of {kappa:.1e} and a relative error of {eps:g} allow x to change by "
        "{expected:.1e}; the rule kappa eps is {share}. Median change of LU's answer: {A_random:.1e} (A, random "
        "direction), {A_worst:.1e} (A, worst direction), {b_random:.1e} (b, random direction), {b_worst:.1e} (b, worst "
        "direction)."
    ).format(share=share, **found.numbers)


SENTENCES: Sentences = {
    "perturbation.kappa-eps": rule_sentence,
    "perturbation.network": "{case}, {method}: of {perturbations} perturbations {same} change it as much as LU, {less} "
    "less and {more} more; at eps = {eps:g} its x changes by at most {change:.1e}, LU's by {lu:.1e}.",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw, for every system, what is perturbed and the direction, how far x moves against eps, with kappa eps."""
    cases = [case["case"] for case in data["cases"]]
    kinds = distinct(data["records"], "what", "direction")
    figure = Figure(figsize=(4 * len(kinds), 4 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), len(kinds), sharey=True, squeeze=False)
    for line, case in zip(panels, cases, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            mine = where(data["records"], case=case, what=kind[0], direction=kind[1])
            levels = [one["level"] for one in mine]
            axes.loglog(levels, [one["kappa_level"] for one in mine], "k--", linewidth=1, label="kappa eps")
            for number, name in enumerate(mine[0]["change"]):
                values = [max(float(one["change"][name]), 1e-17) for one in mine]
                axes.loglog(levels, values, f"C{number}o-", markersize=4, label=name)
            axes.set(title=f"{case}\n{kind[0]}, {kind[1]} direction", xlabel="eps")
            axes.grid(alpha=0.3)
        line[0].set(ylabel="relative change of x, median")
    panels[-1, 0].legend(fontsize="small")
    figure.suptitle("Perturbations of A and b")
    return figure
