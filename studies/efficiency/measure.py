"""How cheap training gets: normalized_mse on the frozen test set against the floating-point operations of training.

The paper's recipe, the same idea at a small size with AdamW and with Muon, and operator heads with both coefficient
networks, each at several lengths. Every point is the end of a run whose learning rate has gone to zero: no curve is
judged in the middle of its schedule. The paper's fixed set of 50,000 systems is longer than any run of the preset cpu,
so there it makes no difference: every system is seen once at most.

Operations are counted by `studies.harness.flops`.

The basis is the same for all runs with the same family and reading, so it is computed once and counted in every run,
in operations and in seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from algebraformer.checkpoint import pretrained_names
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, Recipe
from studies.harness.flops import flops
from studies.harness.runs import Bases, folder_name, run_once, shared_basis
from studies.harness.study import distinct, number, where

TARGETS = (1e-2, 1e-3, 1e-4)
"""Values of normalized_mse."""
GOAL, GOAL_AT = 50.0, 1e-3
"""The operator head is to need this many times fewer operations than the paper's recipe to this normalized_mse."""
PAPER, SMALL_ADAMW, SMALL_MUON = "paper's recipe", "small token head, AdamW", "small token head, Muon"
TRANSFORMER, MLP = "operator head, Transformer", "operator head, MLP"
OURS = (TRANSFORMER, MLP)


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
    """Shipped model of the recipe of `SMALL_MUON`, one more point if it is there."""


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
        Method(name=SMALL_ADAMW, recipe=dataclasses.replace(small, optimizer="adamw"), lengths=fresh),
        Method(name=SMALL_MUON, recipe=small, lengths=fresh),
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
        Method(name=SMALL_ADAMW, recipe=dataclasses.replace(token, optimizer="adamw"), lengths=lengths),
        Method(name=SMALL_MUON, recipe=token, lengths=lengths),
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
    """Return cost and score of the shipped model, one longer run of the recipe of `SMALL_MUON`."""
    if plan.shipped not in pretrained_names():
        return None
    info = LearnedSolver.from_pretrained(plan.shipped).info
    recipe = next(method.recipe for method in plan.methods if method.name == SMALL_MUON)
    recipe = dataclasses.replace(recipe, **{name: info.recipe[name] for name in ("steps", "batch_size", "samples")})
    return {
        "model": plan.shipped,
        "steps": recipe.steps,
        "flops": sum(flops(recipe).values()),
        "normalized_mse": info.scores.get("normalized_mse"),
    }


# ---------------------------------------------------------------- tables and outcomes


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
    """Put the runs into tables and outcomes."""
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
    outcome_by_id = outcomes(data)
    return Report((main, ratios, runs_table, parts_table), outcome_by_id, conclusions(outcome_by_id, SENTENCES), data)


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


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether the goal is met, what every method takes, and the share of offline work."""
    curves = {name: [Reach(**one) for one in found] for name, found in data["reach"].items()}
    found = {"efficiency.goal": goal(curves, list(data["targets"]).index(GOAL_AT))}
    for name, reaches in curves.items():
        numbers: dict[str, float | str] = {"method": name}
        for target, reach in zip(data["targets"], reaches, strict=True):
            numbers |= {f"{target:.0e}": reach.flops, f"{target:.0e} kind": reach.kind}
        found[f"efficiency.reach/{name}"] = Outcome(Verdict.MEASURED, numbers)
    for name in OURS:
        cheapest = min(where(data["runs"], method=name), key=lambda run: run["flops"])
        parts, total = cheapest["parts"], cheapest["flops"]
        share = (total - parts["steps"] - parts["optimiser"]) / total
        found[f"efficiency.offline/{name}"] = outcome(
            Verdict.MEASURED, method=name, share=share, flops=total, basis=parts["basis"]
        )
    shipped = data["shipped"]
    if shipped and shipped["normalized_mse"] is not None:
        found["efficiency.shipped"] = Outcome(Verdict.MEASURED, shipped)
    return found


def goal(curves: Mapping[str, Sequence[Reach]], at: int) -> Outcome:
    """Return whether an operator head needs as many times fewer operations than the paper's recipe as was aimed at."""
    best = min(OURS, key=lambda name: (curves[name][at].kind == ">", curves[name][at].flops))
    value, kind = ratio(curves[PAPER][at], curves[best][at])
    verdict = Verdict.INCONCLUSIVE
    if value is not None and (kind in "=>" if value >= GOAL else kind in "=<"):
        verdict = met(value >= GOAL)
    return outcome(verdict, best=best, ratio=value, kind=kind, target=GOAL, normalized_mse=GOAL_AT)


def goal_sentence(found: Outcome) -> str:
    """Say how many times fewer operations the better operator head takes."""
    numbers = found.numbers
    if numbers["ratio"] is None:
        text = f"No run of the {PAPER} or of the operator heads reaches a normalized_mse of {{normalized_mse:.0e}}"
    else:
        times = in_words(numbers["ratio"], numbers["kind"])
        text = (
            f"To a normalized_mse of {{normalized_mse:.0e}} the {{best}}, takes {times} times fewer operations than "
            f"the "
            f"{PAPER}"
        )
    return f"{text}; target {{target:g}}, {found.verdict}.".format(**numbers)


def reach_sentence(found: Outcome) -> str:
    """Say how many operations a method takes to each error."""
    numbers = found.numbers
    targets = [key for key in numbers if f"{key} kind" in numbers]
    texts = [f"{key} {Reach(numbers[key], numbers[f'{key} kind'])}" for key in targets]
    return f"{numbers['method']}: operations to a normalized_mse of {'; '.join(texts)}."


SENTENCES: Sentences = {
    "efficiency.goal": goal_sentence,
    "efficiency.reach": reach_sentence,
    "efficiency.offline": "{method}: {share:.0%} of the {flops:.2g} operations of its shortest run are offline work "
    "(exact inverses, basis, read-out), the basis alone {basis:.2g}.",
    "efficiency.shipped": "The shipped {model} is one longer run of the small token head with Muon: {flops:.2g} "
    "operations, normalized_mse {normalized_mse:.2g}.",
}
