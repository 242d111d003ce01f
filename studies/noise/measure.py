"""Noise on A, on b, on both: networks trained with and without it against LU and the classical answers to noise.

The family is the paper's diffusion equation, n = 64; see `studies.noise.systems` for the noise. What is sought is the
x of the clean system. Token heads, LSTM and GRU have about the same number of parameters, and take the same number of
steps on fresh systems; trained with noise means that its place is A, b or both, each equally often, and its level
log-uniform over the levels of the tests. Their learning rates are those that the study `spectral` chose for them from
the same grid, without noise. The shipped networks have never seen noise either.

The classical methods are those of `studies.noise.rivals`. LMMSE, the discrepancy principle and the linear estimate are
told the level of the noise, oracles know x; LU, cross-validation and the networks have A and b alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from algebraformer import problems
from algebraformer.linalg import FloatArray, relative_error
from algebraformer.models import ModelConfig
from algebraformer.problems import Systems
from algebraformer.reporting import Report, finite
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import SCALER_SEED, TEST_SEED
from studies.harness.runs import folder_name, run_once
from studies.noise import rivals
from studies.noise.report import BARE, BILSTM, CLEAN, GRU, LSTM, REFINED, SHIPPED, TOKEN, summary
from studies.noise.systems import FAMILY, PLACES

CLEAN_FAMILY = "diffusion"
QUANTILE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and measured."""

    recipes: dict[str, Recipe]
    """The networks by name; all but `CLEAN` learn the family with noise."""
    seeds: tuple[int, ...]
    levels: tuple[float, ...]
    systems: int
    """Systems of the test, the same at every level."""
    sample: int
    """Systems that the moments of x are taken from, and as many that noise is measured on."""
    matrices: int
    """Systems that those of A are taken from."""


def networks(token: ModelConfig, lstm: int, gru: int) -> dict[str, ModelConfig]:
    """Return the networks; the widths of the recurrent ones are for equal numbers of parameters."""
    return {
        TOKEN: token,
        LSTM: ModelConfig(n=token.n, architecture="lstm", n_layer=2, n_embd=lstm),
        GRU: ModelConfig(n=token.n, architecture="gru", n_layer=2, n_embd=gru),
        BILSTM: ModelConfig(n=token.n, architecture="lstm", n_layer=2, n_embd=int(0.62 * lstm), bidirectional=True),
    }


def recipes(models: dict[str, ModelConfig], **common: Any) -> dict[str, Recipe]:
    """Return one recipe for every network, and one without noise for the token head."""
    found = {
        name: Recipe(
            family=FAMILY, model=model, optimizer="adamw" if name in (LSTM, GRU) else "muon", lr=3e-3, muon_lr=3e-2,
            **common,
        )
        for name, model in models.items()
    }  # fmt: skip
    return {CLEAN: dataclasses.replace(found[TOKEN], family=CLEAN_FAMILY), **found}


SMALL = networks(ModelConfig(n=64, n_layer=4, n_head=4, n_embd=64), lstm=112, gru=128)
TOY = networks(ModelConfig(n=64, n_layer=1, n_head=2, n_embd=16), lstm=16, gru=16)
LEVELS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

PRESETS = {
    "quick": Plan(
        recipes=recipes(
            {name: TOY[name] for name in (TOKEN, LSTM)},
            steps=10, batch_size=8, scaler_samples=100, validation_systems=8, test_systems=8,
        ),
        seeds=(0, 1), levels=(1e-6, 1e-3, 1e-1), systems=12, sample=200, matrices=60,
    ),
    "cpu": Plan(
        recipes=recipes(SMALL, steps=600, batch_size=64), seeds=(0,), levels=LEVELS, systems=100, sample=2048,
        matrices=1024,
    ),
    "paper": Plan(
        recipes=recipes(
            networks(ModelConfig(n=64, n_layer=12, n_head=8, n_embd=256), lstm=740, gru=860),
            steps=100_000, batch_size=64,
        ),
        seeds=(0, 1, 2), levels=LEVELS, systems=2_000, sample=20_000, matrices=4_096,
    ),
}  # fmt: skip


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then measure every method at every place and level."""
    task = bar.add_task("noise", total=len(plan.recipes) * len(plan.seeds) + len(PLACES) * len(plan.levels))
    about: list[dict[str, Any]] = []
    solvers: dict[str, list[LearnedSolver]] = {}
    for name, first in plan.recipes.items():
        for seed in plan.seeds:
            found = run_once(dataclasses.replace(first, seed=seed), folder / folder_name(name, seed))
            solvers.setdefault(name, []).append(found.solver)
            about.append({"network": name, "seed": seed, "seconds": found.seconds, "steps": first.steps,
                          "parameters": found.solver.network.parameter_count()})  # fmt: skip
            bar.advance(task)
    solvers[SHIPPED] = [LearnedSolver.from_pretrained("diffusion-64-token")]
    solvers[BARE] = [LearnedSolver.from_pretrained("diffusion-64")]
    clean = problems.get(CLEAN_FAMILY, n=64)
    prior = rivals.fit(clean.sample(plan.sample, SCALER_SEED), plan.matrices)
    rows: list[dict[str, Any]] = []
    refined: list[dict[str, Any]] = []
    for place in PLACES:
        for level in plan.levels:
            family = problems.get(FAMILY, n=64, level=(level, level), places=(place,))
            test = family.sample(plan.systems, TEST_SEED)
            answers = rivals.answers(test, family.sample(plan.sample, SCALER_SEED, start=plan.sample), prior)
            certified = solvers[BARE][0].solve(test.A, test.b)
            at = {"place": place, "level": level}
            refined.append(at | followed(certified, answers[rivals.LU]))
            everything = {name: [x] for name, x in answers.items()} | {REFINED: [certified.x]}
            everything |= {name: [one.predict(test.A, test.b) for one in mine] for name, mine in solvers.items()}
            rows += [at | {"method": name} | scores(found, test) for name, found in everything.items()]
            bar.advance(task)
    return summary(plan.systems, about, rows, refined)


def scores(answers: list[FloatArray], test: Systems) -> dict[str, Any]:
    """Return the relative error of answers (B, n), one array for every seed: median and upper tenth over the systems.

    Means over the seeds; of the median also the least and the largest.
    """
    errors = np.array([relative_error(x[..., None], test.x[..., None])[:, 0] for x in answers])  # (seeds, B)
    medians, high = np.median(errors, axis=1), np.quantile(errors, QUANTILE, axis=1)
    return {
        "median": finite(float(medians.mean())),
        "median_min": finite(float(medians.min())),
        "median_max": finite(float(medians.max())),
        "high": finite(float(high.mean())),
    }


def followed(result: Any, lu: FloatArray) -> dict[str, float]:
    """Return how a certified solve compares with LU (B, n): the shares certified and by LAPACK, and what lies between.

    The last is the median of ||x - x_LU|| / ||x_LU||.
    """
    apart = relative_error(result.x[..., None], lu[..., None])[:, 0]
    return {
        "certified": float(np.mean(result.certified)),
        "lapack": float(np.mean(result.method == "lapack")),
        "from_lu": float(np.median(apart)),
    }
