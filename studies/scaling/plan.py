"""What the study `scaling` measures: families, sizes, and how the networks are trained."""

from __future__ import annotations

import dataclasses
from typing import Any

from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.training import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    recipes: dict[tuple[str, int], Recipe]
    """How the operator head for each family and n is trained."""
    batches: tuple[int, ...]
    """Batch sizes; the last one is cut to what fits into `memory`."""
    memory: int
    """Bytes that the matrices of a batch may take."""
    rounds: int
    """Rounds whose median and quartiles are reported."""
    solved: int
    """Unseen systems whose share solved without fallback is reported."""
    judged: int
    """Unseen systems that a rival has to solve to count; fewer where n is large."""
    structure: int
    """Matrices that tell which rivals apply, and whose mean some of them use; fewer where n is large."""
    samples: int
    """Systems that kernel ridge and interpolation are fitted on; fewer where n is large."""
    columns: int = 16
    """Columns of the random sketches of the interpolation."""
    right_hand_sides: int
    """Right-hand sides of the single matrix with many."""
    sequences: dict[int, int]
    """Length of the sequence of Jacobians for each n."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What is expensive about a training."""

    rank: int
    samples: int
    steps: int
    p: int = 0
    """Rank of each operator of the low-rank form, with one row term; 0 for dense operators."""
    basis_samples: int = 4096
    """Most systems that the basis is computed from."""
    width: int = 128
    """Width of the perceptron: with 256 Muon takes most of the time of a step."""


SETTINGS: dict[str, dict[str, Any]] = {
    "diffusion": {},
    "random-diffusion": {},
    "advection-diffusion": {},
    "diffusion-2d": {"K_modes": 8},
}
"""The families and those of their settings that are not the default."""

FEW, MANY, MOST = 64, 128, 256
"""Components where two parameters decide A, where three to sixteen do, and of the low-rank form."""
P = 128
"""Rank of the low-rank form from n = 512 on. With exact coefficients, R = 64 and 255, systems of diffusion and
random-diffusion with n = 512 take 7.6 and 7.1 products with A at 64 and 5.5 and 6.3 at 128 (LOG.md, 2026-11-27)."""

TRAININGS: dict[tuple[str, int], Training] = {
    ("diffusion", 64): Training(FEW, 20_000, 1_500),
    ("diffusion", 256): Training(FEW, 20_000, 2_500),
    ("diffusion", 512): Training(FEW, 5_000, 2_500, P, 512, 256),
    ("diffusion", 1024): Training(FEW, 4_000, 3_000, P, 512, 256),
    ("random-diffusion", 64): Training(MANY, 20_000, 1_500),
    ("random-diffusion", 256): Training(MOST, 20_000, 2_500, 64),
    ("random-diffusion", 512): Training(MOST, 6_000, 2_500, P, 1024),
    ("random-diffusion", 1024): Training(MANY, 2_500, 2_500, P, 512, 256),
    ("advection-diffusion", 64): Training(MANY, 20_000, 1_500),
    ("advection-diffusion", 256): Training(MOST, 20_000, 2_500, 64),
    ("advection-diffusion", 512): Training(MOST, 6_000, 2_500, P, 1024),
    ("advection-diffusion", 1024): Training(MANY, 2_500, 2_500, P, 512, 256),
    ("diffusion-2d", 64): Training(MANY, 20_000, 1_500),
    ("diffusion-2d", 256): Training(MANY, 20_000, 2_500),
    ("diffusion-2d", 576): Training(MOST, 6_000, 2_500, P, 1024, 256),
    ("diffusion-2d", 1024): Training(MOST, 4_000, 4_000, P, 768, 256),
}
"""The networks of the committed results; n = N^2 on a square."""


def recipe(family: str, n: int, training: Training) -> Recipe:
    """Return the recipe for one family and n: a perceptron, since its cost must not matter here."""
    low_rank: dict[str, Any] = {"form": "low-rank", "p": training.p, "row_terms": 1} if training.p else {}
    model = ModelConfig(
        n=n,
        architecture="mlp",
        head=OperatorConfig(rank=training.rank, n_column=min(16, n), n_row=min(16, n), **low_rank),
        n_layer=4,
        n_embd=training.width,
    )
    return Recipe(
        family=family,
        family_settings=SETTINGS[family],
        model=model,
        samples=training.samples,
        basis_samples=training.basis_samples,
        steps=training.steps,
        batch_size=128,
        lr=3e-3,
    )


def recipes(trainings: dict[tuple[str, int], Training]) -> dict[tuple[str, int], Recipe]:
    """Return the recipe of every family and n."""
    return {(family, n): recipe(family, n, training) for (family, n), training in trainings.items()}


PRESETS = {
    "quick": Plan(
        recipes=recipes(
            {(family, n): Training(12, 400, 40, width=32) for family, n in (("diffusion", 8), ("diffusion", 16),
                                                                  ("diffusion-2d", 9), ("diffusion-2d", 16))}
        ),
        batches=(1, 16),
        memory=2**24,
        rounds=2,
        solved=20,
        judged=10,
        structure=40,
        samples=100,
        right_hand_sides=20,
        sequences={16: 10},
    ),
    "cpu": Plan(
        recipes=recipes(TRAININGS),
        batches=(1, 16, 4096),
        memory=2**29,
        rounds=3,
        solved=1000,
        judged=100,
        structure=256,
        samples=2000,
        right_hand_sides=1000,
        sequences={64: 200, 256: 100, 1024: 20},
    ),
    "paper": Plan(
        recipes=recipes(
            {key: dataclasses.replace(how, samples=40_000, steps=20_000) for key, how in TRAININGS.items()}
            | {
                ("diffusion", 2048): Training(FEW, 10_000, 20_000),
                ("random-diffusion", 2048): Training(FEW, 10_000, 20_000),
                ("advection-diffusion", 2048): Training(FEW, 10_000, 20_000),
                ("diffusion-2d", 2025): Training(FEW, 10_000, 20_000),
            }
        ),
        batches=(1, 16, 4096),
        memory=2**31,
        rounds=15,
        solved=10_000,
        judged=100,
        structure=256,
        samples=2000,
        right_hand_sides=1000,
        sequences={64: 200, 256: 100, 1024: 100},
    ),
}  # fmt: skip


def batch_sizes(n: int, plan: Plan) -> list[int]:
    """Return the batch sizes for this n, each at most what fits."""
    return sorted({min(batch, max(1, plan.memory // (8 * n * n))) for batch in plan.batches})


def capped(count: int, n: int, entries: int, least: int) -> int:
    """Return a number of systems of n unknowns: `count`, or what has so many entries, but `least` at least."""
    return min(count, max(least, entries // n**2))
