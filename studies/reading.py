"""What a network should read, and how b should enter: the paper's Transformer, recurrent networks, a carrier.

Every network has about the same number of parameters and gets the same floating-point operations of training, counted
by `studies.harness.flops`, on fresh systems. The Transformer and the recurrent networks in two directions, the
strongest rivals of `studies.spectral`, read the paper's tokens, columns of A, and those of a preconditioned head,
columns of P A; a carrier reads the latter, and is linear in b. Every network has the same grid of learning rates and
chooses on the validation set of the first family with the first seed; recurrent networks choose the optimiser as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer.metrics import score
from algebraformer.models import ModelConfig, PreconditionedConfig
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, conclusions, met, outcome
from algebraformer.training import Recipe
from algebraformer.training.data import VALIDATION_SEED
from studies.harness.flops import flops as training_flops
from studies.harness.flops import steps_for
from studies.harness.runs import folder_name, run_once
from studies.harness.study import distinct, number, where

CARRIER, TRANSFORMER = "carrier", "Transformer"
RECURRENT = ("LSTM, two directions", "GRU, two directions")
PLAIN, PRECONDITIONED = "A", "P A"


Rates = tuple[Literal["adamw", "muon"], float]
"""An optimiser and its learning rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained."""

    families: tuple[str, ...]
    """The first one also chooses the learning rates."""
    n: int
    widths: dict[str, int]
    """Of the networks, for about as many parameters."""
    n_layer: int
    """Blocks of the Transformer and the carrier; recurrent networks have two layers."""
    flops: float
    """Operations of one training."""
    tuning: float
    """Operations of one training of the grid."""
    rates: tuple[float, ...]
    """Peak learning rates of AdamW to choose from; Muon's is ten times that."""
    batch_size: int
    seeds: tuple[int, ...]


FAMILIES = ("diffusion", "reaction-diffusion", "advection-diffusion")
PRESETS = {
    "quick": Plan(
        families=FAMILIES[:1], n=16, widths={CARRIER: 24, TRANSFORMER: 32, RECURRENT[0]: 24, RECURRENT[1]: 28},
        n_layer=2, flops=2e9, tuning=1e9, rates=(1e-3,), batch_size=32, seeds=(0,),
    ),
    "cpu": Plan(
        families=FAMILIES, n=64, widths={CARRIER: 48, TRANSFORMER: 64, RECURRENT[0]: 69, RECURRENT[1]: 79},
        n_layer=4, flops=3e12, tuning=6e11, rates=(3e-4, 1e-3, 3e-3), batch_size=64, seeds=(0, 1, 2),
    ),
}  # fmt: skip


def networks(plan: Plan) -> dict[tuple[str, str], ModelConfig]:
    """Return every network by its name and what it reads."""
    bodies: dict[str, dict[str, Any]] = {
        CARRIER: {"architecture": "carrier", "n_layer": plan.n_layer, "n_head": 4},
        TRANSFORMER: {"architecture": "transformer", "n_layer": plan.n_layer, "n_head": 4},
        RECURRENT[0]: {"architecture": "lstm", "n_layer": 2, "bidirectional": True},
        RECURRENT[1]: {"architecture": "gru", "n_layer": 2, "bidirectional": True},
    }
    found = {}
    for name, body in bodies.items():
        if name != CARRIER:
            found[name, PLAIN] = ModelConfig(n=plan.n, n_embd=plan.widths[name], **body)
        head = PreconditionedConfig()
        found[name, PRECONDITIONED] = ModelConfig(n=plan.n, head=head, n_embd=plan.widths[name], **body)
    return found


def recipe_of(plan: Plan, family: str, model: ModelConfig, chosen: Rates, flops: float, seed: int) -> Recipe:
    """Return the recipe whose training takes this many operations, with an optimiser and its rate."""
    optimizer, lr = chosen
    recipe = Recipe(
        family=family, model=model, batch_size=plan.batch_size, optimizer=optimizer, lr=lr, muon_lr=10 * lr, seed=seed,
        clip=1.0,
    )  # fmt: skip
    steps = steps_for(lambda steps: sum(training_flops(dataclasses.replace(recipe, steps=steps)).values()), flops)
    return dataclasses.replace(recipe, steps=steps)


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then put the scores together."""
    first, models = plan.families[0], networks(plan)
    grid: dict[tuple[str, str], list[Rates]] = {
        key: [(optimizer, lr) for optimizer in (("adamw", "muon") if key[0] in RECURRENT else ("muon",))
              for lr in plan.rates]
        for key in models
    }  # fmt: skip
    total = sum(map(len, grid.values())) + len(plan.families) * len(models) * len(plan.seeds)
    task = bar.add_task("reading", total=total)
    tuning: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []

    # 1. Learning rates, on the first family.
    chosen = {}
    for key, model in models.items():
        scores = []
        for rates in grid[key]:
            recipe = recipe_of(plan, first, model, rates, plan.tuning, plan.seeds[0])
            solver = run_once(recipe, folder / folder_name(*key, first, "tuning", *rates)).solver
            validation = solver.info.problem_family().sample(recipe.validation_systems, VALIDATION_SEED)
            scores.append(score(solver.network, validation)["normalized_mse"])
            tuning.append(about(key) | {"optimizer": rates[0], "lr": rates[1], "validation": scores[-1]})
            bar.advance(task)
        chosen[key] = grid[key][int(np.argmin(scores))]

    # 2. Every network on every family, with every seed.
    for family in plan.families:
        for key, model in models.items():
            for seed in plan.seeds:
                recipe = recipe_of(plan, family, model, chosen[key], plan.flops, seed)
                found = run_once(recipe, folder / folder_name(*key, family, seed))
                scores_of = found.solver.info.scores
                runs.append(
                    {"family": family, **about(key), "seed": seed, "steps": recipe.steps,
                     "parameters": found.solver.network.parameter_count(), "seconds": found.seconds,
                     **{name: scores_of.get(name) for name in ("normalized_mse", "relative_error_median")}}
                )  # fmt: skip
                bar.advance(task)
    return summary({"tuning": tuning, "runs": runs, "flops": plan.flops})


def about(key: tuple[str, str]) -> dict[str, str]:
    """Return a network's name and what it reads as they are in the data."""
    return {"network": key[0], "reads": key[1]}


def summary(data: dict[str, Any]) -> Report:
    """Put the measurements into tables and outcomes."""
    rows: list[list[Cell]] = []
    for family in distinct(data["runs"], "family"):
        for network, reads in keys(data):
            found = where(data["runs"], family=family, network=network, reads=reads)
            errors = [number(run["normalized_mse"]) for run in found]
            rows.append(
                [family, network, reads, found[0]["parameters"], found[0]["steps"], float(np.mean(errors)),
                 min(errors), max(errors), float(np.mean([number(run["relative_error_median"]) for run in found]))]
            )  # fmt: skip
    columns = (
        "family", "network", "columns of", "parameters", "steps", "normalized_mse", "lowest", "highest", "median error"
    )  # fmt: skip
    grid: list[list[Cell]] = [[*(row[key] for key in data["tuning"][0])] for row in data["tuning"]]
    tables = [
        TableData(columns, rows, f"{data['flops']:.2g} operations of training each"),
        TableData(tuple(data["tuning"][0]), grid, "Learning rates tried"),
    ]
    found_outcomes = outcomes(data)
    return Report(tables, found_outcomes, conclusions(found_outcomes, SENTENCES), data)


def keys(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and readings of the networks, in their order."""
    return list(dict.fromkeys((run["network"], run["reads"]) for run in data["runs"]))


def errors_of(data: Mapping[str, Any], family: str, network: str, reads: str) -> list[float]:
    """Return the errors of the seeds."""
    found = where(data["runs"], family=family, network=network, reads=reads)
    return [number(run["normalized_mse"]) for run in found]


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what reading P A is worth, and whether carrier and Transformer beat the best recurrent network."""
    found = {}
    for family in distinct(data["runs"], "family"):
        plain, read = (errors_of(data, family, TRANSFORMER, reads) for reads in (PLAIN, PRECONDITIONED))
        gain = float(np.mean(plain) / np.mean(read))
        found[f"reading.preconditioned/{family}"] = outcome(
            met(max(read) < min(plain)),
            family=family,
            gain=gain,
            plain=float(np.mean(plain)),
            read=float(np.mean(read)),
        )
        rivals = {key: errors_of(data, family, *key) for key in keys(data) if key[0] in RECURRENT}
        best = min(rivals, key=lambda key: float(np.mean(rivals[key])))
        for name, mine in ((CARRIER, errors_of(data, family, CARRIER, PRECONDITIONED)), (TRANSFORMER, read)):
            found[f"reading.{name.lower()}/{family}"] = outcome(
                met(max(mine) < min(rivals[best])), family=family, network=name, error=float(np.mean(mine)),
                rival=f"{best[0]}, columns of {best[1]}", rival_error=float(np.mean(rivals[best])),
                ratio=float(np.mean(mine) / np.mean(rivals[best])),
            )  # fmt: skip
    return found


BEATS = (
    "{family}: {network}, columns of P A, normalized_mse {error:.2g}; the best recurrent network ({rival}) has "
    "{rival_error:.2g}; below it with every seed: {verdict}."
)
SENTENCES: Sentences = {
    "reading.preconditioned": "{family}: the Transformer's normalized_mse is {plain:.2g} with columns of A and "
    "{read:.2g} with columns of P A, {gain:.2g} times less; less with every seed: {verdict}.",
    "reading.carrier": BEATS,
    "reading.transformer": BEATS,
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the error of every network and family, a point per seed."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    families, names = distinct(data["runs"], "family"), keys(data)
    for place, family in enumerate(families):
        for k, (network, reads) in enumerate(names):
            errors = errors_of(data, family, network, reads)
            at = place + 0.8 * (k + 0.5) / len(names) - 0.4
            mark = "o" if reads == PRECONDITIONED else "x"
            label = None if place else f"{network}, columns of {reads}"
            color = f"C{distinct(data['runs'], 'network').index(network)}"
            axes.semilogy([at] * len(errors), errors, color=color, marker=mark, linestyle="none", label=label)
    axes.set_xticks(range(len(families)), families)
    axes.set(ylabel="normalized_mse", title="equal operations of training, a point per seed")
    axes.legend(fontsize=7)
    return figure
