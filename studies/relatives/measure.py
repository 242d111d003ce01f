"""The closest relatives of the operator head, each prepared from the same N systems of a family.

- The operator head: a perceptron with new weights, trained on these N systems and nothing else, and for comparison the
  shipped network, which has seen hundreds of thousands.
- Kernel ridge regression, the mean of a Gaussian process, of the coefficients in the same basis of inverses.
- The same regression of Cholesky factors of the inverse, the idea of CHONKNORIS: as it is, and preconditioned by the
  mean, which the operator head has as well.
- Two-level preconditioners with a basis of solutions, the idea of the trunk basis: with Jacobi's smoother, and with the
  inverse of the mean, scaled by diagonals, instead.
- Interpolation of stored inverses, the nearest sample's inverse, and the mean's inverse alone, scaled or not.

All but interpolation read the same entries of A: the network whitened ones, kernels their principal components, each
component counting by a power of its spread that is chosen with the length. All are refined by the same iteration
(`numerics.gcr`), which gives the iterates of GMRES, to the same certificate; nothing falls back to LAPACK. Contraction
is the spectral radius of I - M A. Operations are counted by the formulas of `costs`; the preset "times" measures times
as well.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from algebraformer.linalg import FloatArray, relative_error
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.models.inference.stored_basis import as_dense
from algebraformer.numerics import gcr
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.problems import ProblemFamily, Systems
from algebraformer.reporting import Report
from algebraformer.result import plain
from algebraformer.rivals import MAX_REFINEMENTS
from algebraformer.rivals.direct import numpy_lu
from algebraformer.rivals.iterative import Inverse, ScaledMeanInverse
from algebraformer.solver import LearnedSolver
from algebraformer.training import FinetuneRecipe
from algebraformer.training.data import TEST_SEED
from studies.baselines import factor_regression, interpolation, kernel_ridge, methods, reduced_basis
from studies.baselines.factor_regression import FactorForm
from studies.baselines.methods import LAPACK, MEAN, NEAREST, SCALED, SEED, SNAPSHOTS
from studies.baselines.nearest import NearestInverse
from studies.baselines.trunk import Jacobi, ScaledMean, TwoLevel
from studies.harness.runs import computed_once, folder_name, run_once
from studies.harness.timing import in_turn
from studies.relatives import calderon as calderon  # registers the family
from studies.relatives import costs
from studies.relatives.report import COEFFICIENTS, FACTORS, HEAD, MEAN_FACTORS, MEAN_TRUNK, SHIPPED, TRUNK, summary

COLUMNS = 16
"""Columns of the random sketch of the interpolation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    families: tuple[tuple[str, int, int], ...] = (
        ("diffusion", 64, 1024),
        ("calderon", 81, 256),
    )
    """Families, each with its number of unknowns and the most systems that everything is prepared from."""
    samples: tuple[int, ...] = (64, 256, 1024, 4096)
    """Numbers N of systems that everything is prepared from, ascending."""
    steps: tuple[int, ...] = (300, 300, 1000, 2000)
    """Steps that the network of each N is trained for."""
    rank: int = 192
    """Most components of the basis of inverses; half the number of systems where these are fewer."""
    n_read: int = 16
    """Rows and columns of A that are read."""
    width: int = 128
    """Width of the network."""
    n_layer: int = 4
    """Blocks of the network."""
    trunk: int = 32
    """Most functions of the trunk basis; half of n where that is less."""
    shipped: bool = True
    """Measure the shipped networks as well, where there are some."""
    systems: int = 200
    """Unseen systems."""
    rounds: int = 0
    """Rounds whose median time is reported; 0 for no times."""
    batch: int = 64
    """Systems per call whose time is measured."""


ALL = (
    ("diffusion", 64, 4096),
    ("calderon", 81, 4096),
    ("reaction-diffusion", 64, 4096),
    ("advection-diffusion", 64, 4096),
)
"""All families with all numbers of systems."""
PRESETS = {
    "quick": Plan(
        families=(("diffusion", 16, 128), ("calderon", 16, 128)),
        samples=(32, 128),
        steps=(100, 200),
        rank=24,
        n_read=8,
        width=32,
        n_layer=2,
        trunk=8,
        shipped=False,
        systems=50,
        rounds=1,
        batch=8,
    ),
    "cpu": Plan(),
    "times": Plan(families=ALL, rounds=7),
    "paper": Plan(families=ALL, steps=(1000, 2000, 4000, 8000), width=192, n_layer=6, systems=2000, rounds=15),
}


@dataclasses.dataclass(frozen=True)
class Relative:
    """A way to approximate inverses.

    Attributes
    ----------
    name : str
    inverse : callable
        Returns approximate inverses of A (B, n, n).
    cost : Cost
        Operations for one system.
    samples : int
        Systems that it was prepared from.
    """

    name: str
    inverse: Inverse
    cost: costs.Cost
    samples: int


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure every family with every number of systems, unless that has been done already."""
    cases = [
        (name, n, N, steps)
        for name, n, most in plan.families
        for N, steps in zip(plan.samples, plan.steps, strict=True)
        if most >= N
    ]
    task = bar.add_task("relatives", total=len(cases))
    records: list[dict[str, Any]] = []
    for name, n, N, steps in cases:
        recipe = recipe_of(plan, name, n, N, steps)
        shipped = plan.shipped and plan.samples[0] == N and n == 64  # once for every family
        what = {key: getattr(plan, key) for key in ("trunk", "systems", "rounds", "batch")}
        settings = {**what, "shipped": shipped, "recipe": recipe.settings()}
        compute = functools.partial(measure, plan, recipe, folder, shipped)
        records += computed_once(folder / f"{folder_name(name, N)}.json", settings, compute)
        bar.advance(task)
    return summary(records)


def recipe_of(plan: Plan, family: str, n: int, samples: int, steps: int) -> FinetuneRecipe:
    """Return how the network learns from so many systems and nothing else."""
    head = OperatorConfig(rank=min(plan.rank, samples // 2), n_column=plan.n_read, n_row=plan.n_read, whiten=True)
    return FinetuneRecipe(
        family=family,
        model=ModelConfig(n=n, architecture="mlp", head=head, n_layer=plan.n_layer, n_embd=plan.width),
        samples=samples,
        steps=steps,
        batch_size=min(64, samples * 3 // 4),
        lr=3e-3,
    )


def measure(plan: Plan, recipe: FinetuneRecipe, folder: Path, shipped: bool) -> list[dict[str, Any]]:
    """Return what all methods, the shipped network too if asked for, do after N systems, as plain JSON values."""
    family = recipe.problem_family()
    solver = run_once(recipe, folder / folder_name(family.name, recipe.samples)).solver
    relatives = [head(HEAD, solver, recipe.samples), *others(plan, family, solver, recipe)]
    if shipped:
        best = LearnedSolver.from_pretrained(f"{family.name}-64")
        relatives.append(head(SHIPPED, best, int(best.info.recipe["samples"])))
    systems = family.sample(plan.systems, TEST_SEED)
    records = [
        {"family": family.name, "n": family.n, "N": recipe.samples, "method": r.name, **measured(r, systems)}
        for r in relatives
    ]
    if plan.rounds:
        few = systems.A[: plan.batch].copy(), systems.b[: plan.batch].copy()
        ways = {r.name: methods.certified(r.inverse) for r in relatives} | {LAPACK: numpy_lu}
        calls: dict[str, Callable[[], Any]] = {name: functools.partial(solve, *few) for name, solve in ways.items()}
        seconds = in_turn(calls, plan.rounds)
        for record in records:
            record["seconds"] = seconds[record["method"]] / plan.batch
            record["lapack_seconds"] = seconds[LAPACK] / plan.batch
    return records


def head(name: str, solver: LearnedSolver, samples: int) -> Relative:
    """Return the method of an operator head."""
    basis = as_dense(solver.model.operator_head.basis)
    cost = costs.head(basis, solver.model.parameter_count())
    return Relative(name, solver.network.approximate_inverse, cost, samples)


def others(plan: Plan, family: ProblemFamily, solver: LearnedSolver, recipe: FinetuneRecipe) -> list[Relative]:
    """Prepare the relatives from the systems that a network has learned from, with the same basis."""
    N, n = recipe.samples, family.n
    basis = as_dense(solver.model.operator_head.basis)
    sample = methods.draw(family, basis, N, recipe.seed)
    A = family.assembled(range(N), recipe.seed)[0]
    sampler = dataclasses.replace(basis.sampler, whitening=None)
    z = sampler(A)[0].reshape(N, -1).astype(np.float32)
    V = reduced_basis.fit(sample.x, basis.inverse, min(plan.trunk, n // 2)).V
    mean = MeanInverse(basis.inverse)

    def scaled(A: FloatArray) -> ScaledMeanInverse:
        return ScaledMeanInverse.of(A, np.diagonal(basis.A_mean), basis.inverse)

    def with_jacobi(A: FloatArray) -> TwoLevel:
        return TwoLevel.of(A, V, Jacobi.of(A))

    def with_mean(A: FloatArray) -> TwoLevel:
        return TwoLevel.of(A, V, ScaledMean(scaled(A), basis.A_mean))

    found = []
    regression = kernel_ridge.fit(dataclasses.replace(basis, sampler=sampler), z, sample.c, sample.weight)
    cost = costs.coefficients(regression.basis, regression.coefficients)
    found.append(Relative(COEFFICIENTS, regression, cost, len(regression.coefficients.features)))
    for name, preconditioned in ((FACTORS, False), (MEAN_FACTORS, True)):
        form = FactorForm.of(basis.A_mean, family.structure == "pos", preconditioned)
        factors = factor_regression.fit(sampler, form, A, z)
        cost = costs.factors(n, factors.entries, form.positive, preconditioned)
        found.append(Relative(name, factors, cost, len(factors.entries.features)))
    count = min(basis.rank, N)
    snapshots = interpolation.of_snapshots(basis, sample.T, count, COLUMNS, SEED)
    nearest = NearestInverse(sampler, basis.inverse, z, sample.T)
    return [
        *found,
        Relative(TRUNK, with_jacobi, costs.trunk(n, V.shape[1], smoother=n), N),
        Relative(MEAN_TRUNK, with_mean, costs.trunk(n, V.shape[1], smoother=6 * n**2), N),
        Relative(SNAPSHOTS, snapshots, costs.snapshots(n, count, COLUMNS), N),
        Relative(NEAREST, nearest, costs.nearest(n, z.size), N),
        Relative(SCALED, scaled, costs.Cost(0, 2 * n**2), N),
        Relative(MEAN, lambda A: mean, costs.Cost(0, 2 * n**2), N),
    ]


def measured(relative: Relative, systems: Systems) -> dict[str, Any]:
    """Return the accuracy of one method, bare and refined, and its operations on unseen systems."""
    A, b, x = systems.A, systems.b[:, :, None], systems.x[:, :, None]
    M = relative.inverse(A)
    errors = relative_error(M.right(M.left(b)), x)[:, 0]
    radii = gcr.contraction(A, M)
    found = gcr.gcr_restarted(A, b, M, None, MAX_REFINEMENTS, None, stagnation_factor=1.0)
    needed = found.refinements[found.certified]
    steps = float(np.median(needed)) if needed.size else None
    n = A.shape[-1]
    return {
        "samples": relative.samples,
        "systems": len(A),
        "contraction_median": plain(np.median(radii)),
        "contraction_95": plain(np.quantile(radii, 0.95)),
        "relative_error_median": plain(np.median(errors)),
        "certified": float(np.mean(found.certified)),
        "refinements_median": steps,
        "refinements_99": float(np.quantile(needed, 0.99, method="higher")) if needed.size else None,
        "flops": None if steps is None else relative.cost.solve(n, steps),
        "lu_flops": costs.lu(n),
    }
