"""Limits: networks for families of ever larger condition numbers, and beyond them.

The condition number kappa is controlled in three ways.

- Prescribed singular values (`randsvd`): networks learn kappa from 1e3 to 1e4 and are tested from 1e1 to 1e8 in
  half-decades, on orthogonal factors of Haar's measure, and on factors that are rotated from a fixed frame by a small
  angle, where A has as many parameters but stays near one matrix.
- Diffusion: the contrast alpha, up to 0.9 in training, goes to 1, and n goes from 16 to 128, with networks of their own
  for every n, since a network reads systems of one size.
- Regularised normal equations (`normal-equations`): the ridge parameter sets kappa, trained and tested as `randsvd`.

For every group of systems: normalized_mse of the bare network, the contraction of its refinement, refinements and
fallbacks of a certified solve, and the distance from the family of the training: what `in_distribution` looks at,
relative to where it draws the line. Up to 1 a system looks like the family. With a token head these are the z-scores of
the entries of A, with an operator head also the residual of the first answer, as in the study `outside`.

The contraction of an operator head is the spectral radius of I - M A. A token head is no linear map: there it is the
share of the error of x that asking the network about the residual leaves, ||x_1 - x|| / ||x_0 - x||.

At n = 16 the operator head has as many operators as A has entries and reads all of A: what it cannot do is the
network's doing, not the basis's.
"""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from scipy.linalg import LinAlgWarning

from algebraformer import assessment as report
from algebraformer import problems
from algebraformer.linalg import FloatArray, condition_number, normalized_mse, relative_error, residual
from algebraformer.models import ModelConfig, OperatorConfig, predict
from algebraformer.problems import Systems
from algebraformer.reporting import Report, finite
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.condition.report import summary
from studies.harness.distances import distances
from studies.harness.runs import Bases, folder_name, run_once, shared_basis

TRAINED = (1e3, 1e4)
"""Condition numbers of the training where they are prescribed."""
HALF_DECADES = tuple(10 ** (k / 2) for k in range(2, 17))
"""Condition numbers of the tests there."""
ALPHA = ((0.0, 0.9), (0.9, 0.99), (0.99, 0.999), (0.999, 0.9999))
"""Limits of the contrast; training has the first."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Systems of one kind."""

    name: str
    inside: bool
    """Whether the networks were trained on such systems."""
    settings: dict[str, Any]
    """Settings of the family."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A family, one recipe for each kind of network on it, and the groups they are tested on."""

    name: str
    heads: dict[str, Recipe]
    groups: tuple[Group, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and measured."""

    subjects: tuple[Subject, ...]
    seeds: tuple[int, ...]
    systems: int
    """Systems per group."""


def prescribed(kappas: tuple[float, ...]) -> tuple[Group, ...]:
    """Return one group for every condition number."""
    low, high = TRAINED
    return tuple(Group(f"kappa {k:.1e}", low * 0.99 < k < high * 1.01, {"kappa": (k, k)}) for k in kappas)


def by_contrast(limits: tuple[tuple[float, float], ...]) -> tuple[Group, ...]:
    """Return one group for every range of the contrast."""
    return tuple(Group(f"alpha {low:g} to {high:g}", high <= 0.9, {"alpha": (low, high)}) for low, high in limits)


def subject(
    name: str, family: str, groups: tuple[Group, ...], token: Recipe, operator: Recipe, **settings: Any
) -> Subject:
    """Return a subject: both recipes on this family."""
    common: dict[str, Any] = {"family": family, "family_settings": settings}
    heads = {"token head": token, "operator head": operator}
    return Subject(name, {head: dataclasses.replace(recipe, **common) for head, recipe in heads.items()}, groups)


def token(n: int, steps: int, width: int = 32, layers: int = 2) -> Recipe:
    """Return the recipe of a small Transformer on column tokens; every step has 512 of them."""
    model = ModelConfig(n=n, n_layer=layers, n_head=4, n_embd=width)
    return Recipe(model=model, steps=steps, batch_size=512 // n)


def operator(n: int, rank: int, read: int, steps: int, width: int = 64, layers: int = 3) -> Recipe:
    """Return the recipe of residual perceptrons that give coefficients of `rank` operators."""
    model = ModelConfig(
        n=n,
        architecture="mlp",
        head=OperatorConfig(rank=rank, n_column=read, n_row=read),
        n_layer=layers,
        n_head=1,
        n_embd=width,
    )
    return Recipe(model=model, samples=max(8_192, 10 * steps), steps=steps, batch_size=128, lr=3e-3)


def subjects(
    steps: int, kappas: tuple[float, ...], spreads: dict[str, float | None], sizes: tuple[int, ...], **size: int
) -> tuple[Subject, ...]:
    """Return all subjects: randsvd by spread, normal equations, diffusion by n; `size` is that of both networks."""
    small, full = token(16, steps, **size), operator(16, 256, 16, steps, **size)
    return (
        *(
            subject(f"randsvd, {name}", "randsvd", prescribed(kappas), small, full, kappa=TRAINED, spread=spread)
            for name, spread in spreads.items()
        ),
        subject("normal equations", "normal-equations", prescribed(kappas), small, full, kappa=TRAINED),
        *(
            subject(
                f"diffusion, n = {n}", "diffusion", by_contrast(ALPHA),
                token(n, steps, **size), operator(n, 96, 16, steps, **size), alpha=ALPHA[0],
            )
            for n in sizes
        ),
    )  # fmt: skip


def with_small_samples(subject: Subject) -> Subject:
    """Return a subject with recipes that take few systems besides those of the steps."""
    sizes: dict[str, Any] = {
        "scaler_samples": 256,
        "basis_samples": 300,
        "calibration_samples": 256,
        "test_systems": 64,
    }
    return dataclasses.replace(
        subject, heads={head: dataclasses.replace(recipe, **sizes) for head, recipe in subject.heads.items()}
    )


SPREADS = {"Haar": None, "spread 0.1": 0.1, "spread 0.001": 0.001}
SIZES = (16, 32, 64, 128)

PRESETS = {
    "quick": Plan(
        subjects=tuple(
            with_small_samples(subject)
            for subject in subjects(
                40, (1e2, 1e3, 1e4, 1e5), {"Haar": None, "spread 0.001": 0.001}, (16,), width=16, layers=1
            )
        ),
        seeds=(0,),
        systems=10,
    ),
    "cpu": Plan(subjects=subjects(500, HALF_DECADES, SPREADS, SIZES), seeds=(0, 1, 2), systems=64),
    "paper": Plan(
        subjects=subjects(20_000, HALF_DECADES, SPREADS, SIZES, width=256, layers=12), seeds=(0, 1, 2), systems=1_000
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, measure every network on every group, then put everything together."""
    task = bar.add_task("condition", total=len(plan.seeds) * sum(len(subject.heads) for subject in plan.subjects))
    records: list[dict[str, Any]] = []
    about: list[dict[str, Any]] = []
    bases: Bases = {}
    for subject in plan.subjects:
        samples = drawn(subject, plan.systems)
        for head, first in subject.heads.items():
            basis = partial(shared_basis, first, bases) if first.model.head.is_linear else None
            for seed in plan.seeds:
                recipe = dataclasses.replace(first, seed=seed)
                trained = run_once(recipe, folder / folder_name(subject.name, head, seed), basis)
                common = {"subject": subject.name, "head": head, "seed": seed}
                about.append(common | {"n": recipe.model.n, "seconds": trained.seconds,
                                       "parameters": trained.solver.network.parameter_count()})  # fmt: skip
                for group, systems in zip(subject.groups, samples, strict=True):
                    kappa = float(np.median(condition_number(systems.A)))
                    records.append(
                        common
                        | {"group": group.name, "inside": group.inside, "kappa": kappa}
                        | measure(trained.solver, systems)
                    )
                bar.advance(task)
    return summary(plan.systems, about, records)


def drawn(subject: Subject, count: int) -> list[Systems]:
    """Return the test systems of every group."""
    recipe = next(iter(subject.heads.values()))
    settings = [recipe.family_settings | group.settings for group in subject.groups]
    return [problems.get(recipe.family, n=recipe.model.n, **each).sample(count, TEST_SEED) for each in settings]


def measure(solver: LearnedSolver, systems: Systems) -> dict[str, Any]:
    """Return the scores of a network on systems of one kind.

    Returns
    -------
    dict
        normalized_mse of the bare network; contraction and distance, medians over the systems; lapack and certified,
        shares of them; refinements, the median over those that the network solved, None if there are none.
    """
    A, b, x = systems.A, systems.b[:, :, None], systems.x[:, :, None]
    bare = predict(solver.network, A, b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)  # LAPACK's, about matrices that are meant to be bad
        result = solver.solve(A, systems.b)
    lapack = result.method == "lapack"
    return {
        "normalized_mse": finite(normalized_mse(bare, x)),
        "contraction": finite(float(np.median(contraction(solver, A, b, x, bare)))),
        "distance": float(np.median(distance(solver, systems))),
        "lapack": float(np.mean(lapack)),
        "certified": float(np.mean(result.certified)),
        "refinements": float(np.median(result.refinements[~lapack])) if not lapack.all() else None,
    }


def contraction(solver: LearnedSolver, A: FloatArray, b: FloatArray, x: FloatArray, bare: FloatArray) -> FloatArray:
    """Return what a refinement leaves of the error, (B,); see the head of this module."""
    if solver.network.config.head.is_linear:
        return report.contraction(solver, A)
    again = bare + predict(solver.network, A, residual(A, b, bare))
    return relative_error(again, x)[:, 0] / relative_error(bare, x)[:, 0]


def distance(solver: LearnedSolver, systems: Systems) -> FloatArray:
    """Return how far systems are from the family of the training, (B,); up to 1 they look like it."""
    if solver.network.config.head.is_linear:
        return np.maximum(*distances(solver, systems.A, systems.b))
    scaler = solver.model.token_head.scaler
    with torch.no_grad():
        return (scaler.distance(torch.from_numpy(systems.A)) / scaler.max_distance).numpy()
