"""How cheap training gets: normalized_mse on the frozen test set against the floating-point operations of training.

The paper's recipe, the same idea at a small size with AdamW and with Muon, and operator heads with both coefficient
networks, each at several lengths. Every point is the end of a run whose learning rate has gone to zero: no curve is
judged in the middle of its schedule. The paper's fixed set of 50,000 systems is longer than any run of the preset cpu,
so there it makes no difference: every system is seen once at most.

Operations (a multiplication and an addition are two) of a run of S steps with batches of B; terms of lower order are
left out, and so is scoring, which is not training:

steps
    `Algebraformer.training_flops()`, 6 per parameter and token, for each of the S B systems seen. The products of
    attention scores are not in it: 4 % more for the paper's recipe, 3 % for the Transformer on 16 columns.
optimiser
    Muon's five Newton-Schulz iterations, 4 p^2 q + 2 p^3 each for a hidden matrix of sides p <= q, every step.
systems
    Assembling A takes 2 n^2 (n + 2), LU 2/3 n^3, its solution for k right-hand sides 2 n^2 k.
    Token head: one right-hand side for each system seen and for those the scaler is fitted on.
    Operator head: n right-hand sides, which give T = A^-1 Abar, and the projection of T on R components, 2 R n^2, for
    every stored example; without a fixed training set for each system seen and each that the read-out is fitted on.
basis
    P snapshots, assembled twice, solved for T once; those that columns and rows are chosen on assembled once more. Two
    spectral decompositions, one of matrices and one of T, each of the smaller Gram matrix: 2 P n^2 m for it and
    14/3 m^3 for its eigenvectors, m = min(P, n^2): 4/3 m^3 for the tridiagonal form, 4/3 m^3 for divide and conquer
    without the deflation that makes it cheaper, 2 m^3 for the transformation back [1]_. Modes and components from the
    eigenvectors where m = P, the coefficients of all snapshots, 2 P R n^2, and two pivoted QR factorisations.
read-out
    For each of N examples the features, 2 per parameter and token of the layers before the head, and the normal
    equations, 2 w^2 + 2 w R with w features; then w^3 / 3 + 2 w^2 R for their solution.
calibration
    For each system of the sample that `in_distribution` is measured by: assembly, solution, features, read-out,
    M and four products of matrix and vector.

The basis is the same for all runs with the same family and reading, so it is computed once and counted in every run,
in operations and in seconds.

References
----------
.. [1] J. W. Demmel, "Applied Numerical Linear Algebra", SIAM (1997), section 5.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.progress import Progress

from algebraformer.checkpoint import pretrained_names
from algebraformer.models import Algebraformer, ModelConfig, OperatorConfig
from algebraformer.numerics import entry_sampler, operator_basis
from algebraformer.problems import ProblemFamily
from algebraformer.reporting import Cell, Report, TableData
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, Recipe
from algebraformer.training.data import capped_sample_size
from studies.harness.runs import Bases, folder_name, run_once, shared_basis
from studies.harness.study import distinct, number, where

TARGETS = (1e-2, 1e-3, 1e-4)
"""Values of normalized_mse."""
GOAL, GOAL_AT = 50.0, 1e-3
"""The operator head is to need this many times fewer operations than the paper's recipe to this normalized_mse."""
PAPER, SMALL, MUON = "paper's recipe", "small token head, AdamW", "small token head, Muon"
TRANSFORMER, MLP = "operator head, Transformer", "operator head, MLP"
OURS = (TRANSFORMER, MLP)
NEWTON_SCHULZ = 5
"""Iterations of Muon."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A recipe at several lengths."""

    name: str
    recipe: Recipe
    lengths: tuple[tuple[int, int | None], ...]
    """Steps and size of the fixed training set (None: fresh systems), ascending."""

    def recipes(self, seed: int) -> list[Recipe]:
        """Return the recipe of every length."""
        return [dataclasses.replace(self.recipe, steps=s, samples=m, seed=seed) for s, m in self.lengths]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained."""

    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    shipped: str = ""
    """Shipped model of the recipe of `MUON`, one more point if it is there."""


def methods(
    paper: Sequence[int], token: Sequence[int], transformer: Sequence[tuple[int, int]], mlp: Sequence[tuple[int, int]]
) -> tuple[Method, ...]:
    """Return the methods for n = 64: the recipes by their names, at these lengths."""
    small = RECIPES["diffusion-64-token"]
    fresh = tuple((steps, None) for steps in token)
    return (
        Method(
            name=PAPER, recipe=RECIPES["paper"], lengths=tuple((steps, RECIPES["paper"].samples) for steps in paper)
        ),
        Method(name=SMALL, recipe=dataclasses.replace(small, optimizer="adamw"), lengths=fresh),
        Method(name=MUON, recipe=small, lengths=fresh),
        Method(name=TRANSFORMER, recipe=RECIPES["diffusion-64-transformer"], lengths=tuple(transformer)),
        Method(name=MLP, recipe=RECIPES["diffusion-64-mlp"], lengths=tuple(mlp)),
    )


def quick_methods() -> tuple[Method, ...]:
    """Return the methods at n = 16 and toy sizes."""
    sizes: dict[str, Any] = {"scaler_samples": 128, "basis_samples": 128, "calibration_samples": 128}
    token = dataclasses.replace(RECIPES["quick"], batch_size=16, **sizes)
    paper = dataclasses.replace(token, model=ModelConfig(n=16, n_layer=4, n_head=2, n_embd=48), optimizer="adamw")
    network = ModelConfig(n=16, head=OperatorConfig(rank=24, n_column=8, n_row=8), n_layer=2, n_head=2, n_embd=32)
    operator = dataclasses.replace(token, model=network, lr=3e-3)
    perceptron = dataclasses.replace(operator, model=dataclasses.replace(network, architecture="mlp"))
    lengths, fixed = ((5, None), (40, None)), ((5, 1_024), (60, 4_096))
    return (
        Method(name=PAPER, recipe=paper, lengths=lengths),
        Method(name=SMALL, recipe=dataclasses.replace(token, optimizer="adamw"), lengths=lengths),
        Method(name=MUON, recipe=token, lengths=lengths),
        Method(name=TRANSFORMER, recipe=operator, lengths=fixed),
        Method(name=MLP, recipe=perceptron, lengths=fixed),
    )


PRESETS = {
    "quick": Plan(methods=quick_methods(), seeds=(0,)),
    "cpu": Plan(
        methods=methods(
            paper=(20, 100),
            token=(60, 280),
            transformer=((30, 8_192), (150, 16_384), (600, 32_768)),
            mlp=((30, 8_192), (200, 16_384), (1_000, 32_768)),
        ),
        seeds=(0, 1, 2),
        shipped="diffusion-64-token",
    ),
    "paper": Plan(
        methods=methods(
            paper=(20_000, 80_000, 312_500),
            token=(1_000, 5_000, 25_000, 100_000),
            transformer=((60, 8_192), (600, 32_768), (4_500, 200_000), (20_000, 200_000)),
            mlp=((100, 8_192), (1_200, 32_768), (6_000, 200_000), (30_000, 200_000)),
        ),
        seeds=(0, 1, 2),
        shipped="diffusion-64-token",
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then put the scores together."""
    task = bar.add_task("efficiency", total=len(plan.seeds) * sum(len(method.lengths) for method in plan.methods))
    bases: Bases = {}
    runs = []
    for seed in plan.seeds:
        for method in plan.methods:
            for recipe in method.recipes(seed):
                output = folder / folder_name(method.name, recipe.steps, f"seed{seed}")
                found = measured(recipe, output, bases)
                runs.append({"method": method.name, "seed": seed, "steps": recipe.steps, **found})
                bar.advance(task)
    return summary(plan, runs, shipped_point(plan))


def measured(recipe: Recipe, output: Path, bases: Bases) -> dict[str, Any]:
    """Train one network, unless it is trained already, and return what it cost and gave."""
    basis = partial(shared_basis, recipe, bases) if recipe.model.head.is_linear else None
    trained = run_once(recipe, output, basis)
    parts = flops(recipe)
    return {
        "systems": recipe.steps * recipe.batch_size,
        "samples": recipe.samples,
        "parts": parts,
        "flops": sum(parts.values()),
        "normalized_mse": trained.solver.info.scores.get("normalized_mse"),
        "seconds": trained.seconds,
    }


def shipped_point(plan: Plan) -> dict[str, Any] | None:
    """Return cost and score of the shipped model, one longer run of the recipe of `MUON`."""
    if plan.shipped not in pretrained_names():
        return None
    info = LearnedSolver.from_pretrained(plan.shipped).info
    recipe = next(method.recipe for method in plan.methods if method.name == MUON)
    recipe = dataclasses.replace(recipe, **{name: info.recipe[name] for name in ("steps", "batch_size", "samples")})
    return {
        "model": plan.shipped,
        "steps": recipe.steps,
        "flops": sum(flops(recipe).values()),
        "normalized_mse": info.scores.get("normalized_mse"),
    }


# ---------------------------------------------------------------- operations


def flops(recipe: Recipe) -> dict[str, float]:
    """Return the floating-point operations of a training run by part, see the formulas at the top."""
    with torch.device("meta"):  # shapes alone
        model = Algebraformer(recipe.model)
    n, seen = recipe.model.n, recipe.steps * recipe.batch_size
    parts: dict[str, float] = {
        "steps": float(model.training_flops() * seen),
        "optimiser": recipe.steps * newton_schulz(model) if recipe.optimizer == "muon" else 0.0,
    }
    if not recipe.model.head.is_linear:
        return parts | {
            "systems": (seen + capped_sample_size(recipe.scaler_samples, n)) * (assembly(n) + solution(n, 1))
        }
    R, stored = OperatorConfig.of(recipe.model).rank, recipe.samples or recipe.readout_samples
    examples = stored if recipe.samples else seen + stored
    width, head = model.operator_head.linear.in_features + 1, sum(p.numel() for p in model.head.parameters())
    features = 2.0 * (model.parameter_count() - head) * recipe.model.n_token
    first_answer = features + 2 * head + 2 * (1 + R) * n**2 + 4 * 2 * n**2
    return parts | {
        "systems": examples * (assembly(n) + solution(n, n) + 2 * R * n**2),
        "basis": basis_flops(recipe.problem_family(), R, recipe.basis_samples),
        "read-out": stored * (features + 2 * width**2 + 2 * width * R) + width**3 / 3 + 2 * width**2 * R,
        "calibration": capped_sample_size(recipe.calibration_samples, n)
        * (assembly(n) + solution(n, 1) + first_answer),
    }


def steps_for(cost: Callable[[int], float], flops: float) -> int:
    """Return the most steps, one at least, that cost no more than `flops`; the cost is linear in the steps."""
    one, two = cost(1), cost(2)
    return max(1, int(1 + (flops - one) / (two - one)))


def assembly(n: int) -> float:
    """Return the operations that make the matrix of a boundary value problem."""
    return 2.0 * n**2 * (n + 2)


def solution(n: int, k: int) -> float:
    """Return the operations of LU and its solution for k right-hand sides."""
    return 2 / 3 * n**3 + 2.0 * n**2 * k


def newton_schulz(model: Algebraformer) -> float:
    """Return the operations of Muon's iterations in one step."""
    total = 0.0
    for parameter, count in model.hidden_matrices():
        p, q = sorted((parameter.shape[0] // count, parameter.shape[1]))
        total += count * NEWTON_SCHULZ * (4.0 * p**2 * q + 2.0 * p**3)
    return total


def basis_flops(family: ProblemFamily, rank: int, samples: int) -> float:
    """Return the operations of `operator_basis.fit` on this many samples at most."""
    n, modes = family.n, entry_sampler.N_MODES
    P = operator_basis.snapshot_count(n, rank, samples)
    kept = min(P, operator_basis.read_count(n))
    pivoting = 2 * (2.0 * modes * n**3 - 2 / 3 * n**3)
    return (
        (kept + 2 * P) * assembly(n)
        + P * solution(n, n)
        + spectral(kept, n**2, min(modes, kept))
        + spectral(P, n**2, rank)
        + 2.0 * P * rank * n**2
        + pivoting
    )


def spectral(count: int, width: int, rank: int) -> float:
    """Return the operations of the leading components of a (count, width) matrix by its smaller Gram matrix."""
    m = min(count, width)
    components = 2.0 * rank * count * width if count <= width else 0.0
    return 2.0 * count * width * m + 14 / 3 * m**3 + components


# ---------------------------------------------------------------- what came out


@dataclasses.dataclass(frozen=True)
class Reach:
    """Operations that a normalized_mse takes: flops, at most flops ("<"), or more than flops (">")."""

    flops: float
    kind: Literal["=", "<", ">"]

    def __str__(self) -> str:
        return {"=": "", "<": "at most ", ">": "not reached: > "}[self.kind] + f"{self.flops:.2g}"


def reach(points: Sequence[tuple[float, float]], target: float) -> Reach:
    """Return where a curve of (operations, score) first falls to the target, linear in both logarithms.

    There is no extrapolation: a curve that starts below the target gives an upper bound, one that ends above it a lower
    bound. A score that is not finite counts as infinite.

    Examples
    --------
    >>> str(reach([(1e9, 1.0), (1e11, 1e-4)], 1e-2))
    '1e+10'
    >>> str(reach([(1e9, 1.0), (1e11, 0.1)], 1e-2))
    'not reached: > 1e+11'
    """
    points = sorted(points)
    below = [i for i, (_, score) in enumerate(points) if score <= target]
    if not below:
        return Reach(points[-1][0], ">")
    i = below[0]
    (f0, s0), (f1, s1) = points[max(i - 1, 0)], points[i]
    if i == 0 or not (np.isfinite(s0) and s1 > 0):
        return Reach(f1, "=" if s1 == target else "<")
    share = np.log(s0 / target) / np.log(s0 / s1)
    return Reach(float(np.exp(np.log(f0) + share * np.log(f1 / f0))), "=")


def median(found: Sequence[Reach]) -> Reach:
    """Return the middle one; a curve that does not get there counts as the most expensive, in doubt the upper one."""
    return sorted(found, key=lambda r: (r.kind == ">", r.flops))[len(found) // 2]


def ratio(theirs: Reach, ours: Reach) -> tuple[float | None, str]:
    """Return theirs / ours and what it is: "=" the ratio, ">" at least this, "<" at most this; None if it can be any.

    Examples
    --------
    >>> ratio(Reach(1e14, ">"), Reach(1e12, "="))
    (100.0, '>')
    >>> ratio(Reach(1e14, ">"), Reach(1e12, ">"))
    (None, '')
    """
    opposite = {"=": "=", "<": ">", ">": "<"}
    kinds = {theirs.kind, opposite[ours.kind]} - {"="}
    if len(kinds) > 1:
        return None, ""
    return theirs.flops / ours.flops, kinds.pop() if kinds else "="


def summary(plan: Plan, runs: list[dict[str, Any]], shipped: dict[str, Any] | None) -> Report:
    """Put the runs into tables and sentences."""
    n, names = plan.methods[0].recipe.model.n, [method.name for method in plan.methods]
    found = {name: [median(reached(runs, plan, name, target)) for target in TARGETS] for name in names}
    curve_rows: list[list[Cell]] = []
    for name, steps in distinct(runs, "method", "steps"):
        chosen = where(runs, method=name, steps=steps)
        scores = [number(run["normalized_mse"]) for run in chosen]
        total, first = chosen[0]["flops"], chosen[0]
        offline = 1 - (first["parts"]["steps"] + first["parts"]["optimiser"]) / total
        middle = float(np.median(scores))
        curve_rows.append(
            [name, steps, first["systems"], total, offline, middle, min(scores), max(scores),
             float(np.median([run["seconds"] for run in chosen]))]
        )  # fmt: skip
    columns = (
        "method", "steps", "systems seen", "operations", "share offline", "normalized_mse, median", "best", "worst",
        "seconds",
    )  # fmt: skip
    seeds = f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''}"
    main = TableData(
        ("method", *(f"to {target:.0e}" for target in TARGETS)),
        [[name, *map(str, found[name])] for name in names],
        f"Operations of training to reach a normalized_mse, diffusion, n = {n}, median of {seeds}",
    )
    ratio_rows: list[list[Cell]] = [
        [f"{theirs} / {ours}", *(in_words(*ratio(found[theirs][i], found[ours][i])) for i in range(len(TARGETS)))]
        for theirs in names
        for ours in OURS
        if theirs not in OURS
    ]
    ratios = TableData(("ratio", *(f"to {target:.0e}" for target in TARGETS)), ratio_rows, "How many times fewer")
    runs_table = TableData(columns, curve_rows, "Every run, to the end of its schedule")
    parts_table = TableData(
        ("method", "steps", *(parts := ("steps", "optimiser", "systems", "basis", "read-out", "calibration"))),
        [
            [run["method"], run["steps"], *(run["parts"].get(part) for part in parts)]
            for run in runs
            if run["seed"] == plan.seeds[0]
        ],
        "Where the operations go",
    )
    data = {
        "n": n,
        "targets": list(TARGETS),
        "runs": runs,
        "reach": {name: [dataclasses.asdict(r) for r in found[name]] for name in names},
        "shipped": shipped,
    }
    return Report((main, ratios, runs_table, parts_table), verdict(runs, found, shipped), data)


def reached(runs: list[dict[str, Any]], plan: Plan, name: str, target: float) -> list[Reach]:
    """Return where the curve of every seed of a method falls to the target."""
    return [
        reach(
            [(r["flops"], number(r["normalized_mse"])) for r in where(runs, method=name, seed=seed)],
            target,
        )
        for seed in plan.seeds
    ]


def in_words(value: float | None, kind: str) -> str:
    """Return a ratio as text."""
    if value is None:
        return "not decided"
    return {"=": "", ">": "at least ", "<": "at most "}[kind] + f"{value:.2g}"


def verdict(runs: list[dict[str, Any]], found: dict[str, list[Reach]], shipped: dict[str, Any] | None) -> list[str]:
    """Return plain sentences."""
    lines, at = [], TARGETS.index(GOAL_AT)
    best = min(OURS, key=lambda name: (found[name][at].kind == ">", found[name][at].flops))
    value, kind = ratio(found[PAPER][at], found[best][at])
    if value is not None and value >= GOAL and kind in "=>":
        outcome = "met"
    else:
        outcome = "missed" if value is not None and value < GOAL and kind in "=<" else "not decided by these lengths"
    if value is None:
        text = f"No run of the {PAPER} or of the operator heads reaches a normalized_mse of {GOAL_AT:.0e}"
    else:
        times = f"{in_words(value, kind)} times fewer operations than the {PAPER}"
        text = f"To a normalized_mse of {GOAL_AT:.0e} the {best}, takes {times}"
    lines.append(f"{text}: the target of {GOAL:g} is {outcome}.")
    for name in found:
        texts = [f"{target:.0e} {r}" for target, r in zip(TARGETS, found[name], strict=True)]
        lines.append(f"{name}: {'; '.join(texts)}.")
    for name in OURS:
        cheapest = min(where(runs, method=name), key=lambda run: run["flops"])
        share = (cheapest["flops"] - cheapest["parts"]["steps"] - cheapest["parts"]["optimiser"]) / cheapest["flops"]
        lines.append(
            f"{name}: {100 * share:.0f} % of the {cheapest['flops']:.2g} operations of its shortest run are offline "
            f"work (exact inverses, basis, read-out), the basis alone {cheapest['parts']['basis']:.2g}."
        )
    if shipped and shipped["normalized_mse"] is not None:
        lines.append(
            f"The shipped {shipped['model']} is one longer run of the small token head with Muon: "
            f"{shipped['flops']:.2g} operations, normalized_mse {shipped['normalized_mse']:.2g}."
        )
    return lines
