"""The paper's table: the Transformer against LSTM and GRU on three boundary value problems, with other baselines.

Every network has about the same number of parameters and gets the same floating-point operations of training, counted
by `studies.harness.flops`, offline work of the operator heads included; the same data, a fresh system every time
(operator heads: a set as large as their steps can see, up to `MAX_SET`); and the same grid of learning rates, from
which each chooses on the validation set of the first family with the first seed. Recurrent networks are trained by
AdamW, as in the paper, and by Muon; the better one of the two, chosen likewise, is in the table.

Classical rows: LU in float64 and float32, conjugate residuals with the inverse of the family's mean, and four that are
fitted on as many systems as the token head saw, but `CLASSICAL_SAMPLES` at most: the linear minimum mean square
estimator of x from b, a reduced basis, the inverse of the nearest matrix, and the answer zero.

Two more things are measured on the first family. The error against the size of a fixed training set, for an equal
number of steps; there an operator head computes its basis from this set alone. Scalers and z-scores of token heads and
recurrent networks come from a sample of 4,096 further systems in every case. And the paper's own recipe at a few
lengths, with a power law through them that is continued to its full length: an extrapolation, and marked as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from algebraformer.linalg import FloatArray
from algebraformer.metrics import answer_scores, score
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.models.heads import Sample
from algebraformer.models.heads.operator import fit_basis
from algebraformer.models.inference.stored_basis import Basis
from algebraformer.numerics import operator_basis
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.reporting import Report, conclusions
from algebraformer.rivals.direct import numpy_lu
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, Recipe
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from studies.baselines import lmmse, methods, reduced_basis
from studies.baselines.nearest import NearestInverse
from studies.harness.flops import flops as training_flops
from studies.harness.flops import steps_for
from studies.harness.memory import KERNELS, peak_bytes
from studies.harness.runs import Bases, Trained, folder_name, run_once, shared_basis
from studies.harness.study import where
from studies.harness.timing import in_turn
from studies.spectral import report
from studies.spectral.report import BIGRU, BILSTM, GRU, LSTM, OPERATOR, PERCEPTRON, TOKEN

CLASSICAL_SAMPLES = 4096
MAX_SET = 800_000
"""Largest training set of an operator head: that of the largest shipped recipe, 1.1 GB, which a resumed run makes
again. At full scale the steps could see thirty million systems."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained."""

    families: tuple[str, ...]
    """The first one also chooses the learning rates and has the small samples and the paper's recipe."""
    networks: dict[str, ModelConfig]
    """The networks of the table."""
    flops: float
    """Operations of one training."""
    tuning: float
    """Operations of one training of the grid."""
    rates: tuple[float, ...]
    """Peak learning rates of AdamW to choose from; Muon's is ten times that, for operator heads three times."""
    batch_size: int
    seeds: tuple[int, ...]
    samples: tuple[int, ...]
    """Sizes of fixed training sets."""
    sampled: tuple[str, ...]
    """Networks that are trained on them."""
    paper: Recipe
    """The paper's recipe."""
    lengths: tuple[int, ...]
    """Steps that it is run for."""
    full: int
    """Steps of the full recipe."""
    test: int = Recipe.test_systems
    rounds: int = 5
    device: str = "cpu"
    """Device of torch that the networks are trained on."""


def networks(
    n: int, token: ModelConfig, operator: ModelConfig, width: int, lstm: int, gru: int
) -> dict[str, ModelConfig]:
    """Return the networks of the table; widths are chosen for equal numbers of parameters."""
    recurrent = {
        LSTM: ModelConfig(n=n, architecture="lstm", n_layer=2, n_embd=lstm),
        GRU: ModelConfig(n=n, architecture="gru", n_layer=2, n_embd=gru),
        BILSTM: ModelConfig(n=n, architecture="lstm", n_layer=2, n_embd=int(0.62 * lstm), bidirectional=True),
        BIGRU: ModelConfig(n=n, architecture="gru", n_layer=2, n_embd=int(0.62 * gru), bidirectional=True),
    }
    perceptron = dataclasses.replace(operator, architecture="mlp", n_embd=width)
    return {TOKEN: token, OPERATOR: operator, PERCEPTRON: perceptron, **recurrent}


SMALL_NETWORKS = networks(
    64,
    token=ModelConfig(n=64, n_layer=4, n_head=4, n_embd=64),
    operator=dataclasses.replace(RECIPES["diffusion-64-transformer"].model, n_embd=48),
    width=120,
    lstm=112,
    gru=128,
)
TOY_NETWORKS = networks(
    16,
    token=ModelConfig(n=16, n_layer=2, n_head=2, n_embd=32),
    operator=ModelConfig(n=16, head=OperatorConfig(rank=16, n_column=8, n_row=8), n_layer=2, n_head=2, n_embd=24),
    width=32,
    lstm=40,
    gru=48,
)
FAMILIES = ("diffusion", "reaction-diffusion", "advection-diffusion")
PRESETS = {
    "quick": Plan(
        families=FAMILIES[:2],
        networks={name: TOY_NETWORKS[name] for name in (TOKEN, OPERATOR, LSTM, GRU)},
        flops=3e9,
        tuning=2e9,
        rates=(1e-3,),
        batch_size=32,
        seeds=(0, 1),
        samples=(64, 256),
        sampled=(TOKEN, OPERATOR),
        paper=dataclasses.replace(RECIPES["quick"], optimizer="adamw", batch_size=16),
        lengths=(10, 20),
        full=400,
        test=100,
        rounds=2,
    ),
    "cpu": Plan(
        families=FAMILIES,
        networks=SMALL_NETWORKS,
        flops=1.5e12,
        tuning=3e11,
        rates=(1e-3, 3e-3),
        batch_size=64,
        seeds=(0, 1, 2),
        samples=(250, 1_000, 4_000, 16_000, 50_000),
        sampled=(TOKEN, OPERATOR, LSTM, GRU),
        paper=RECIPES["paper"],
        lengths=(40, 80, 160),
        full=RECIPES["paper"].steps,
    ),
    "paper": Plan(
        families=FAMILIES,
        networks=networks(
            64,
            token=RECIPES["paper"].model,
            operator=dataclasses.replace(RECIPES["diffusion-64-transformer"].model, n_layer=12, n_head=8, n_embd=256),
            width=620,
            lstm=740,
            gru=860,
        ),
        flops=7.4e16,
        tuning=7.4e15,
        rates=(3e-4, 1e-3, 3e-3),
        batch_size=64,
        seeds=(0, 1, 2),
        samples=(250, 1_000, 4_000, 16_000, 50_000),
        sampled=(TOKEN, OPERATOR, LSTM, GRU),
        paper=RECIPES["paper"],
        lengths=(20_000, 80_000, 312_500),
        full=RECIPES["paper"].steps,
        device="cuda",
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rates:
    """Optimiser and learning rate of a network."""

    optimizer: str
    lr: float


def candidates(model: ModelConfig, rates: Sequence[float]) -> list[Rates]:
    """Return what a network can choose from."""
    optimizers = ("adamw", "muon") if model.architecture in ("lstm", "gru") else ("muon",)
    return [Rates(optimizer, lr) for optimizer in optimizers for lr in rates]


def recipe_of(plan: Plan, family: str, model: ModelConfig, chosen: Rates, flops: float, seed: int) -> Recipe:
    """Return the recipe whose training takes this many operations."""
    operator = model.head.is_linear
    model = model.with_head(whiten=True) if operator and family == "reaction-diffusion" else model
    muon_lr = (3 if operator else 10) * chosen.lr

    def of(steps: int) -> Recipe:
        count = min(steps * plan.batch_size, MAX_SET)
        return Recipe(
            family=family, model=model, steps=steps, batch_size=plan.batch_size, samples=count if operator else None,
            optimizer="adamw" if chosen.optimizer == "adamw" else "muon", lr=chosen.lr, muon_lr=muon_lr, seed=seed,
        )  # fmt: skip

    def cost(steps: int) -> float:
        return sum(training_flops(of(steps)).values())

    steps, full = steps_for(cost, flops), -(-MAX_SET // plan.batch_size)
    if operator and steps > full:  # further steps make no further systems, and are cheaper
        steps = full + steps_for(lambda further: cost(full + further), flops)
    return of(steps)


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then put the scores together."""
    first = plan.families[0]
    grid = {name: candidates(model, plan.rates) for name, model in plan.networks.items()}
    total = sum(map(len, grid.values())) + len(plan.families) * len(plan.networks) * len(plan.seeds)
    total += len(plan.samples) * len(plan.sampled) + len(plan.lengths)
    task = bar.add_task("spectral", total=total)
    bases: Bases = {}

    def trained(recipe: Recipe, name: str, *words: object, basis: Any = None) -> Trained:
        if basis is None and recipe.model.head.is_linear:
            basis = partial(shared_basis, recipe, bases)
        found = run_once(recipe, folder / folder_name(name, recipe.family, *words), basis, device=plan.device)
        bar.advance(task)
        return found

    tuning: list[dict[str, Any]] = []
    chosen: dict[str, Rates] = {}
    for name, model in plan.networks.items():
        scores = []
        for rates in grid[name]:
            recipe = recipe_of(plan, first, model, rates, plan.tuning, plan.seeds[0])
            solver = trained(recipe, name, "tuning", rates.optimizer, rates.lr).solver
            validation = solver.info.problem_family().sample(recipe.validation_systems, VALIDATION_SEED)
            scores.append(score(solver.network, validation)["normalized_mse"])
            tuning.append({"network": name, **dataclasses.asdict(rates), "validation": scores[-1]})
        chosen[name] = grid[name][int(np.argmin(scores))]
    runs: list[dict[str, Any]] = []
    seconds: dict[str, dict[str, float]] = {}
    for family in plan.families:
        for name, model in plan.networks.items():
            for seed in plan.seeds:
                recipe = recipe_of(plan, family, model, chosen[name], plan.flops, seed)
                found = trained(recipe, name, seed)
                runs.append({"family": family, "network": name, "seed": seed, **described(recipe, found)})
                if name not in seconds:
                    seconds[name] = times(found.solver, plan.rounds)
    data: dict[str, Any] = {
        "tuning": tuning,
        "runs": runs,
        "times": seconds,
        "memory": {name: peak_bytes(model, KERNELS["default"]) for name, model in plan.networks.items()
                   if model.head.name == "token"},
        "classical": [row for family in plan.families for row in classical(plan, family, runs)],
        "small": small_samples(plan, chosen, trained),
        "paper": [
            {"steps": steps, **described(recipe, trained(recipe, "paper", steps))}
            for steps in plan.lengths
            for recipe in (dataclasses.replace(plan.paper, family=first, steps=steps),)
        ],
    }  # fmt: skip
    data["full_flops"] = sum(training_flops(dataclasses.replace(plan.paper, steps=plan.full)).values())
    return summary(plan, data)


def described(recipe: Recipe, found: Trained) -> dict[str, Any]:
    """Return what a run cost and gave."""
    scores = found.solver.info.scores
    return {
        "steps": recipe.steps,
        "systems": recipe.steps * recipe.batch_size,
        "parameters": found.solver.network.parameter_count(),
        "flops": sum(training_flops(recipe).values()),
        "seconds": found.seconds,
        **{name: scores.get(name) for name in ("mse", "normalized_mse", "relative_error_median", "relative_error_95")},
    }


def times(solver: LearnedSolver, rounds: int) -> dict[str, float]:
    """Return the seconds per system of the bare network, for one system at a time and for 64."""
    systems = solver.info.problem_family().sample(64, TEST_SEED)
    calls: dict[str, Callable[[], Any]] = {
        str(batch): partial(solver.predict, systems.A[:batch], systems.b[:batch]) for batch in (1, len(systems.b))
    }
    return {batch: seconds / int(batch) for batch, seconds in in_turn(calls, rounds).items()}


def small_samples(plan: Plan, chosen: dict[str, Rates], trained: Callable[..., Trained]) -> list[dict[str, Any]]:
    """Train on fixed sets, with the steps that the networks of the table had."""
    first, rows = plan.families[0], []
    for count in plan.samples:
        for name in plan.sampled:
            recipe = recipe_of(plan, first, plan.networks[name], chosen[name], plan.flops, plan.seeds[0])
            if count >= recipe.steps * recipe.batch_size:
                continue
            recipe = dataclasses.replace(recipe, samples=count)
            basis = None
            if recipe.model.head.is_linear:
                rank = min(OperatorConfig.of(recipe.model).rank, count // 2)
                model = recipe.model.with_head(rank=rank)
                recipe = dataclasses.replace(recipe, model=model)
                few = min(count, operator_basis.snapshot_count(model.n, rank))
                basis = partial(own_basis, recipe, few)
            found = trained(recipe, name, "of", count, basis=basis)
            rows.append({"network": name, "count": count, **described(recipe, found)})
    return rows


def own_basis(recipe: Recipe, count: int) -> tuple[Basis, float]:
    """Return a basis from the first systems of the recipe's training set; it is not timed."""
    sample = Sample(recipe.problem_family(), count, recipe.seed)
    return fit_basis(OperatorConfig.of(recipe.model), sample, few=True), 0.0


# ---------------------------------------------------------------- classical rows


def classical(plan: Plan, name: str, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores and times of the classical ways on a family."""
    n = plan.networks[TOKEN].n
    seen = min(run["systems"] for run in where(runs, family=name, network=TOKEN))
    count = min(seen, CLASSICAL_SAMPLES)
    family = Recipe(family=name, model=plan.networks[TOKEN]).problem_family()
    q, snapshots = min(16, n), min(count, 1024)
    basis = operator_basis.fit(
        lambda indices: family.assembled(indices, seed=0)[0], n, min(n, 64), q, q, count=snapshots
    )
    sample = methods.draw(family, basis, count, seed=0)
    sources = family.sample(count, seed=0)
    estimator = lmmse.fit(sources.b, sources.x)
    mean = MeanInverse(basis.inverse)
    reduced = reduced_basis.fit(sources.x, basis.inverse, rank=max(1, n // 2))
    nearest = NearestInverse(basis.sampler, basis.inverse, sample.z, sample.T)

    def of_single(A: FloatArray, b: FloatArray) -> FloatArray:
        x = np.linalg.solve(A.astype(np.float32), b[:, :, None].astype(np.float32))
        return np.asarray(x[:, :, 0], dtype=np.float64)

    ways: dict[str, tuple[int, Callable[[FloatArray, FloatArray], FloatArray]]] = {
        "zero": (0, lambda A, b: np.zeros_like(b)),
        "linear estimator b → x": (count, lambda A, b: estimator(b)),
        "nearest inverse": (count, lambda A, b: nearest(A)(b[:, :, None])[:, :, 0]),
        "reduced basis": (count, lambda A, b: reduced(A, b[:, :, None])[:, :, 0]),
        "mean inverse + conjugate residuals": (snapshots, methods.certified(lambda A: mean)),
        "LU, float32": (0, of_single),
        "LU, float64": (0, numpy_lu),
    }
    test = family.sample(plan.test, TEST_SEED)
    calls: dict[str, Callable[[], Any]] = {
        f"{way}|{batch}": partial(solve, test.A[:batch], test.b[:batch])
        for way, (_, solve) in ways.items()
        for batch in (1, 64)
    }
    seconds = in_turn(calls, plan.rounds)
    return [
        {
            "family": name, "method": way, "samples": samples, **answer_scores(solve(test.A, test.b), test),
            **{f"seconds_{batch}": seconds[f"{way}|{batch}"] / batch for batch in (1, 64)},
        }
        for way, (samples, solve) in ways.items()
    ]  # fmt: skip


# ---------------------------------------------------------------- tables and outcomes


def summary(plan: Plan, data: dict[str, Any]) -> Report:
    """Put the measurements into tables and outcomes."""
    first = plan.families[0]
    tables = [report.family_table(data, family) for family in plan.families]
    tables += [report.tuning_table(data), report.paper_table(data)]
    if data["small"]:
        tables.append(report.sample_table(data, first))
    found = report.outcomes(data)
    return Report(tables, found, conclusions(found, report.SENTENCES), data)
