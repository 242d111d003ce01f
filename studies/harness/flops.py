"""Floating-point operations of a training run.

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

References
----------
.. [1] J. W. Demmel, "Applied Numerical Linear Algebra", SIAM (1997), section 5.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from algebraformer.models import Algebraformer, OperatorConfig
from algebraformer.numerics import entry_sampler, operator_basis
from algebraformer.problems import ProblemFamily
from algebraformer.training import Recipe
from algebraformer.training.data import capped_sample_size

NEWTON_SCHULZ = 5
"""Iterations of Muon."""


def flops(recipe: Recipe) -> dict[str, float]:
    """Return the floating-point operations of a training run by part, see the formulas above."""
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
