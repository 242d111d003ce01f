"""What happens outside the family: certified solves of systems a network was not trained on.

Groups of systems from ever further away: the family itself, its own equation with parameters beyond those of the
training, other families, other boundary conditions, rows permuted or scaled, and random matrices. For each of them who
computed the answers, how many refinements that took, and whether `in_distribution` was False.

The distance of a system is the largest of the three things `in_distribution` looks at, each relative to its limit: the
z-scores of the entries that are read, the share of the preconditioned residual that the first answer leaves, and the
share of a random vector that is left in its place. Up to 1 a system looks like the family.

Every answer is measured against LU's in the largest norm. Both x and LU's x_LU solve systems near the given one, by
their backward errors omega, so with Skeel's condition number [1]_

    ||x - x_LU|| <= 2 cond(A) (omega + omega_LU + 2 (n + 1) eps) ||x||,

where the last term is the rounding in the residuals that the omegas are computed from. An answer that is certified and
within this bound is right, as far as float64 can say.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 7.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress
from scipy.linalg import LinAlgWarning

from algebraformer import problems
from algebraformer.linalg import EPS, FloatArray, backward_error, skeel_condition_number
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.problems import BoundaryValueFamily, generator
from algebraformer.problems.base import Parameters
from algebraformer.problems.chebyshev import differentiation_matrix
from algebraformer.reporting import Outcome, Report, Sentences, TableData, Verdict, conclusions, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.harness.distances import distances
from studies.harness.runs import run_once

ALPHA, OMEGA = (0.0, 0.3, 0.6, 0.9, 0.95, 0.99), (2.0, 3.0, 4.0, 6.0, 8.0)
"""Edges of the groups by alpha and by omega; training has alpha to 0.9 and omega to 2."""
OTHERS = ("reaction-diffusion", "advection-diffusion", "random-diffusion")
DECADES = 3.0
"""Rows are scaled by powers of ten from -DECADES to DECADES."""
KAPPA = 1e5
"""Condition number of the random matrices with prescribed singular values."""
EDGES = (0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0, float("inf"))
"""Bins of the distance."""
METHODS = ("learned", "learned+refined", "lapack")
INSIDE = "the family itself"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is solved."""

    model: str | Recipe
    """A shipped model with an operator head for the diffusion family, or how to train one."""
    systems: int
    """Systems per group."""


QUICK = Recipe(
    model=ModelConfig(
        n=16, architecture="mlp", head=OperatorConfig(rank=48, n_column=8, n_row=8), n_layer=3, n_head=1, n_embd=48
    ),
    samples=4_096,
    steps=400,
    lr=3e-3,
    scaler_samples=1_024,
    basis_samples=256,
    calibration_samples=1_024,
)

PRESETS = {
    "quick": Plan(model=QUICK, systems=24),
    "cpu": Plan(model="diffusion-64", systems=500),
    "paper": Plan(model="diffusion-64", systems=5_000),
}


@dataclasses.dataclass(frozen=True)
class Group:
    """Systems of one kind.

    Attributes
    ----------
    name : str
    inside : bool
        Whether the network was trained on such systems.
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n)
    """

    name: str
    inside: bool
    A: FloatArray
    b: FloatArray


def groups(n: int, count: int) -> Iterator[Group]:
    """Yield the groups for the diffusion family with n unknowns, `count` systems each, near ones first."""

    def drawn(name: str, inside: bool, family: str = "diffusion", **settings: Any) -> Group:
        systems = problems.get(family, n=n, **settings).sample(count, TEST_SEED)
        return Group(name, inside, systems.A, systems.b)

    own = drawn(INSIDE, True)
    yield own
    for low, high in pairwise(ALPHA):
        yield drawn(f"alpha {low:g} to {high:g}", high <= 0.9, alpha=(low, high))
    for low, high in pairwise(OMEGA):
        yield drawn(f"omega {low:g} to {high:g}", False, omega=(low, high))
    for name in OTHERS:
        yield drawn(name, False, name)
    family = problems.get("diffusion", n=n)
    params = family.parameters(range(count), TEST_SEED)
    if isinstance(family, BoundaryValueFamily):
        yield Group("Neumann condition at x = 1", False, *with_condition(family, params, 0.0))
        yield Group("Robin condition at x = 1", False, *with_condition(family, params, 1.0))
    rng = generator(TEST_SEED, 0, stream=1)
    order = np.stack([rng.permutation(n) for _ in range(count)])
    yield Group(
        "rows permuted", False, np.take_along_axis(own.A, order[:, :, None], 1), np.take_along_axis(own.b, order, 1)
    )
    scale = 10.0 ** rng.uniform(-DECADES, DECADES, (count, n))
    yield Group("rows scaled", False, own.A * scale[:, :, None], own.b * scale)
    yield Group("standard normal matrices", False, rng.standard_normal((count, n, n)), rng.standard_normal((count, n)))
    yield drawn(f"random matrices, condition {KAPPA:.0e}", False, "randsvd", kappa=(KAPPA, KAPPA))


def with_condition(family: BoundaryValueFamily, params: Parameters, gamma: float) -> tuple[FloatArray, FloatArray]:
    """Assemble -(K u')' = f with u(-1) = 0 and u'(1) + gamma u(1) = 0 on the points of the family.

    The unknown u(1) is eliminated by its own row of the collocation, D[0] u + gamma u(1) = 0, so that n unknowns at
    the interior points remain.

    Returns
    -------
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n)
    """
    D, x, interior = differentiation_matrix(family.n + 2), family.grid, slice(1, -1)
    K = family.diffusivity(params, x)
    A = -(D[interior] * K[:, None, :]) @ D  # (B, n, n + 2)
    boundary = -D[0, interior] / (D[0, 0] + gamma)  # u(1) = boundary @ u
    return A[:, :, interior] + A[:, :, :1] * boundary, family.source(params, x[interior])


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Solve every group, after training the network if the plan has a recipe."""
    solver = load(plan, folder)
    chosen = list(groups(solver.n, plan.systems))
    task = bar.add_task("outside", total=len(chosen))
    records = []
    for group in chosen:
        records.append(measure(solver, group))
        bar.advance(task)
    return summary(solver.info.name, solver.n, records)


def load(plan: Plan, folder: Path) -> LearnedSolver:
    """Return the shipped model, or the one that is trained in the folder."""
    if isinstance(plan.model, str):
        return LearnedSolver.from_pretrained(plan.model)
    return run_once(plan.model, folder / "network").solver


def measure(solver: LearnedSolver, group: Group) -> dict[str, Any]:
    """Solve a group; return the results of each system, as lists."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)  # LAPACK's, about matrices that are meant to be bad
        result = solver.solve(group.A, group.b)
    entries, answers = distances(solver, group.A, group.b)
    exact: FloatArray = np.linalg.solve(group.A, group.b[:, :, None]).astype(np.float64, copy=False)
    size = np.abs(exact).max(axis=(1, 2))
    error = np.abs(result.x[:, :, None] - exact).max(axis=(1, 2)) / size
    omega = result.backward_error + backward_error(group.A, group.b[:, :, None], exact)[:, 0]
    bound = 2 * skeel_condition_number(group.A) * (omega + 2 * (solver.n + 1) * EPS)
    return {
        "group": group.name,
        "inside": group.inside,
        "entries": entries.tolist(),
        "distance": np.maximum(entries, answers).tolist(),
        "method": [str(method) for method in result.method],
        "certified": result.certified.tolist(),
        "refinements": result.refinements.tolist(),
        "in_distribution": result.in_distribution.tolist(),
        "relative_error": error.tolist(),
        "of_bound": (error / bound).tolist(),
    }


# ---------------------------------------------------------------- tables and outcomes


def share(values: Any) -> float | None:
    """Return the share of true values, None of an empty set."""
    array = np.asarray(values, dtype=bool)
    return float(np.mean(array)) if array.size else None


def of_group(record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a group: shares, and the refinements of what the network solved."""
    method = np.array(record["method"])
    refinements = np.array(record["refinements"])[method != "lapack"]
    return {
        "group": record["group"],
        "inside": record["inside"],
        "systems": len(method),
        "distance": float(np.median(record["distance"])),
        "entries": float(np.median(record["entries"])),
        **{name: share(method == name) for name in METHODS},
        "certified": share(record["certified"]),
        "refinements_median": float(np.median(refinements)) if refinements.size else None,
        "refinements_max": int(refinements.max()) if refinements.size else None,
        "in_distribution": share(record["in_distribution"]),
        "relative_error_max": max(record["relative_error"]),
        "of_bound_max": max(record["of_bound"]),
    }


def by_distance(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for every bin of the distance that is not empty who answered, and how often `in_distribution` was True."""
    distance, method, familiar, refinements = (
        np.concatenate([record[key] for record in records])
        for key in ("distance", "method", "in_distribution", "refinements")
    )
    rows = []
    for low, high in pairwise(EDGES):
        chosen = (distance >= low) & (distance < high)
        if not chosen.any():
            continue
        learned = refinements[chosen & (method != "lapack")]
        rows.append(
            {
                "name": f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}",
                "low": low,
                "high": high if np.isfinite(high) else None,
                "systems": int(chosen.sum()),
                **{name: share(method[chosen] == name) for name in METHODS},
                "in_distribution": share(familiar[chosen]),
                "refinements_median": float(np.median(learned)) if learned.size else None,
            }
        )
    return rows


def summary(model: str, n: int, records: list[dict[str, Any]]) -> Report:
    """Put the groups into tables and outcomes."""
    rows = [of_group(record) for record in records]
    bins = by_distance(records)
    columns = (
        "systems", "distance", "by entries alone", "learned", "refined", "LAPACK", "certified", "refinements, median",
        "max", "in_distribution", "worst relative error", "share of its bound",
    )  # fmt: skip
    keys = (
        "group", "distance", "entries", *METHODS, "certified", "refinements_median", "refinements_max",
        "in_distribution", "relative_error_max", "of_bound_max",
    )  # fmt: skip
    title = f"{model}, n = {n}, {rows[0]['systems']} systems per group"
    main = TableData(columns, [[row[key] for key in keys] for row in rows], title)
    distances = TableData(
        ("distance", "systems", "learned", "refined", "LAPACK", "refinements, median", "in_distribution"),
        [
            [b["name"], b["systems"], *(b[name] for name in METHODS), b["refinements_median"], b["in_distribution"]]
            for b in bins
        ],
        "All groups together, by distance",
    )
    data = {"model": model, "n": n, "groups": rows, "distances": bins, "detection": detection(records)}
    found = outcomes(data)
    return Report((main, distances), found, conclusions(found, SENTENCES), data)


def detection(records: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return how often `in_distribution` is False: where LAPACK answered, and where it should not be.

    Returns
    -------
    dict
        fallback : of the systems that fell back; by_entries : the same, if it looked at the entries alone; inside : of
        those of groups the network was trained on; outside_learned : of those outside that the network solved.
    """

    def together(key: str) -> Any:
        return np.concatenate([record[key] for record in records])

    flagged, lapack = ~together("in_distribution"), together("method") == "lapack"
    inside = np.repeat([record["inside"] for record in records], [len(record["method"]) for record in records])
    return {
        "fallback": share(flagged[lapack]),
        "by_entries": share(together("entries")[lapack] > 1),
        "inside": share(flagged[inside]),
        "outside_learned": share(flagged[~inside & ~lapack]),
    }


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether every answer was right, who gave it, and what `in_distribution` found."""
    groups = data["groups"]
    total = sum(g["systems"] for g in groups)
    uncertified = round(sum(g["systems"] * (1 - g["certified"]) for g in groups))
    worst = max(g["of_bound_max"] for g in groups)
    found = {
        "outside.never-wrong": outcome(
            Verdict.FAILS if uncertified or worst > 1 else Verdict.HOLDS, answers=total, groups=len(groups),
            uncertified=uncertified, of_bound=worst,
        ),
    }  # fmt: skip
    inside = groups[0]["refinements_median"]
    if inside is not None:
        more = {
            g["group"]: g["refinements_median"]
            for g in groups[1:]
            if g["refinements_median"] is not None and g["refinements_median"] > inside
        }
        found["outside.refinements"] = outcome(Verdict.MEASURED, **{INSIDE: inside}, **more)
    fallback = {g["group"]: g["lapack"] for g in groups if g["lapack"]}
    found["outside.fallback"] = Outcome(Verdict.MEASURED, fallback)
    found["outside.detection"] = Outcome(Verdict.MEASURED, dict(data["detection"]))
    return found


def right_sentence(found: Outcome) -> str:
    """Say whether an answer was wrong."""
    if found.verdict == Verdict.HOLDS:
        return (
            "Never wrong: all {answers} answers in {groups} groups are certified, and none differs from LU's by more "
            "than the condition number allows (at most {of_bound:.2g} of that)."
        ).format(**found.numbers)
    return (
        "Of {answers} answers in {groups} groups {uncertified} are not certified; the largest difference from LU's is "
        "{of_bound:.2g} times what the condition number allows."
    ).format(**found.numbers)


def refinements_sentence(found: Outcome) -> str:
    """Say in which groups the network takes more refinements."""
    inside, *more = found.numbers.items()
    text = f"Inside the family the network's answers take {inside[1]:g} refinements (median)"
    return f"{text}; more in: {', '.join(f'{g} ({v:g})' for g, v in more)}." if more else f"{text}, and nowhere more."


def detection_sentence(found: Outcome) -> str:
    """Say how often `in_distribution` is False."""
    parts = [
        f"{100 * found.numbers[key]:.3g} % of the systems {what}"
        for key, what in (
            ("fallback", "that fell back to LAPACK"),
            ("inside", "inside the family (false alarms)"),
            ("outside_learned", "outside it that the network solved"),
        )
        if found.numbers[key] is not None
    ]
    text = f"in_distribution is False for {', '.join(parts)}."
    if found.numbers["by_entries"] is None:
        return text
    return text + f" The entries alone detect {100 * found.numbers['by_entries']:.3g} % of the systems that fell back."


SENTENCES: Sentences = {
    "outside.never-wrong": right_sentence,
    "outside.refinements": refinements_sentence,
    "outside.fallback": lambda found: (
        f"LAPACK answers in: {', '.join(f'{group} ({100 * share:.3g} %)' for group, share in found.numbers.items())}."
        if found.numbers
        else "LAPACK is needed nowhere."
    ),
    "outside.detection": detection_sentence,
}
