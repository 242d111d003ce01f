"""Where a learned solver wins on noisy, ill-posed systems, and where not: every family, prior, level and method.

A cell is a family, a prior and a noise level. The cells of a family and a prior hold the same matrices, signals and
unit noise, so that levels and methods differ in nothing else. Relative errors are ||x - true x||_2 / ||true x||_2; what
each method is given is listed in `studies.baselines.noisy`. Methods that follow a path one system at a time get the
first few systems of a cell, and are compared with others on these alone. Intervals are percentiles of medians of
bootstrap samples, the same samples for every method.

A learned solver is a shipped model, absent where none ships of that name, or a recipe that is trained first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

from rich.progress import Progress

from algebraformer import problems
from algebraformer.evaluation import quietly
from algebraformer.linalg import FloatArray
from algebraformer.metrics import relative_errors
from algebraformer.problems import Systems
from algebraformer.reporting import Report
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.baselines.noisy import (
    LASSO,
    LEARNED,
    LEARNED_ALL,
    PURSUIT,
    TOTAL_VARIATION,
    contenders,
    decompositions,
    fast,
    prior_of,
    slow,
)
from studies.harness.estimators import Models, described, learned_solvers, small
from studies.harness.runs import computed_once
from studies.harness.timing import in_turn
from studies.noisy.report import Errors, summary

FAMILIES = ("deblur", "gravity", "heat", "shaw", "phillips", "deriv2", "baart", "foxgood")
PRIORS = ("piecewise", "smooth", "spikes", "mixture")
LEVELS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SPARSE_PRIORS = ("spikes", "mixture")
"""Priors that lasso and matching pursuit are tried on."""
BATCHES = (1, 64)
TIMED_LEVEL = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    n: int = 64
    """Number of unknowns and of measurements."""
    families: tuple[str, ...] = FAMILIES
    priors: tuple[str, ...] = PRIORS
    levels: tuple[float, ...] = LEVELS
    systems: int = 200
    """Systems in a cell."""
    slow: int = 60
    """Of these, systems for the methods that take one at a time."""
    timed: tuple[str, ...] = ("deblur", "gravity")
    """Families whose systems are timed."""
    rounds: int = 5
    """Rounds whose median time is reported."""
    models: Models = dataclasses.field(
        default_factory=lambda: {name: f"{name}-64" for name in ("deblur", "gravity", "fredholm")}
    )
    """Model of a family, or "fredholm" for that of all: a shipped one, or a recipe."""


PRESETS = {
    "quick": Plan(
        n=12,
        families=("deblur", "gravity", "shaw"),
        priors=("piecewise", "spikes"),
        levels=(1e-2, 1e-1),
        systems=8,
        slow=4,
        rounds=1,
        models={"deblur": small("deblur"), "gravity": "gravity-12", "fredholm": small("fredholm")},
    ),
    "cpu": Plan(),
    "paper": Plan(systems=1000, slow=300, rounds=15),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure what is missing, then put everything together."""
    task = bar.add_task("noisy", total=len(plan.families) * len(plan.priors) + len(plan.timed))
    solvers = learned_solvers(plan.models, folder)
    errors: Errors = {}
    for name in plan.families:
        for prior in plan.priors:
            cells = classical_errors(plan, name, prior, folder)
            for level, cell in zip(plan.levels, cells, strict=True):
                systems = sample(plan, name, prior, level, plan.systems)
                for label, solver in of_family(solvers, name).items():
                    cell[label] = relative(quietly(solver, systems).x, systems)
                errors[name, prior, level] = cell
            bar.advance(task)
    times = {}
    for name in plan.timed:
        times[name] = timed(plan, name, of_family(solvers, name))
        bar.advance(task)
    about = {"n": plan.n, "systems": plan.systems, "slow": plan.slow, "models": described(plan.models, solvers)}
    return summary(errors, times, about)


def of_family(solvers: Mapping[str, LearnedSolver], family: str) -> dict[str, LearnedSolver]:
    """Return a family's own solver and that of all families, where there are such."""
    labels = {LEARNED: family, LEARNED_ALL: "fredholm"}
    return {label: solvers[name] for label, name in labels.items() if name in solvers}


def sample(plan: Plan, name: str, prior: str, level: float, count: int) -> Systems:
    """Return systems of a cell, or of its first few; levels change nothing but the size of the noise."""
    return problems.get(name, n=plan.n, priors=(prior,), noise=(level, level)).sample(count, TEST_SEED)


def relative(x: FloatArray, systems: Systems) -> list[float]:
    """Return the relative errors of estimates (B, n), to five digits."""
    return [float(f"{error:.4e}") for error in relative_errors(x, systems[: len(x)])]


def classical_errors(plan: Plan, name: str, prior: str, folder: Path) -> list[dict[str, list[float]]]:
    """Return the errors of the classical methods at every level, from the folder if they are there."""
    settings = {"n": plan.n, "levels": plan.levels, "systems": plan.systems, "slow": plan.slow}
    found = computed_once(folder / f"{name}-{prior}.json", settings, partial(errors_of_cells, plan, name, prior))
    return cast(list[dict[str, list[float]]], found)


def errors_of_cells(plan: Plan, name: str, prior: str) -> list[dict[str, list[float]]]:
    """Return the errors of the classical methods at every level."""
    moments, decomposed = prior_of(problems.get(name, n=plan.n, priors=(prior,))), None
    methods = (TOTAL_VARIATION, LASSO, PURSUIT) if prior in SPARSE_PRIORS else (TOTAL_VARIATION,)
    cells = []
    for level in plan.levels:
        systems = sample(plan, name, prior, level, plan.systems)
        decomposed = decomposed or decompositions(systems.A)
        found = fast(decomposed, systems, moments) | slow(systems[: plan.slow], methods)
        cells.append({method: relative(x, systems) for method, x in found.items()})
    return cells


def timed(plan: Plan, name: str, solvers: dict[str, LearnedSolver]) -> dict[str, dict[str, float]]:
    """Return seconds per system of every method, by batch, on systems of all priors and one level."""
    family = problems.get(name, n=plan.n, priors=plan.priors, noise=(TIMED_LEVEL, TIMED_LEVEL))
    moments, seconds = prior_of(family), {}
    for batch in BATCHES:
        systems = family.sample(min(batch, plan.systems), TEST_SEED)
        measured = in_turn(contenders(systems, moments, solvers), plan.rounds)
        seconds[str(batch)] = {method: value / len(systems) for method, value in measured.items()}
    return seconds
