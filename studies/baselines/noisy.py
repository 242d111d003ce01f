"""Baselines of a learned solver on noisy systems, and the learned solver itself: name -> estimates of x.

Each is given A and b, and in addition:

- cross-validation and L-curve: nothing.
- discrepancy: the norm of the noise in each system.
- oracle: the true x, to choose the parameter by.
- LMMSE: mean and covariance of the prior, and the level of the noise.
- the learned solver: the prior and the levels of its training, by having been trained on them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from algebraformer.evaluation import quietly
from algebraformer.linalg import FloatArray
from algebraformer.numerics import regularization
from algebraformer.problems import ProblemFamily, Systems
from studies.baselines import lmmse, sparse

ORDERS = (0, 1, 2)
CHOICES = ("cross-validation", "L-curve", "discrepancy", "oracle")
TIKHONOV = [f"Tikhonov {order}" for order in ORDERS]
SPECTRAL = [f"{filtered}, {choice}" for filtered in (*TIKHONOV, "TSVD") for choice in CHOICES]
UNREGULARIZED, LMMSE = "no regularisation", "LMMSE"
TOTAL_VARIATION, LASSO, PURSUIT = "total variation", "lasso", "matching pursuit"
SLOW_METHODS = [
    f"{method}, {choice}" for method in (TOTAL_VARIATION, LASSO, PURSUIT) for choice in ("discrepancy", "oracle")
]
LEARNED, LEARNED_ALL = "learned", "learned, all families"
METHODS = (UNREGULARIZED, *SPECTRAL, LMMSE, *SLOW_METHODS, LEARNED, LEARNED_ALL)
MOMENTS = 4096
"""Signals from which mean and covariance of a prior are computed."""
PRIOR_SEED = 2**63 + 7


@dataclasses.dataclass(frozen=True)
class Prior:
    """First two moments of the signals of a family."""

    mean: FloatArray
    covariance: FloatArray


def prior_of(family: ProblemFamily) -> Prior:
    """Return the moments of a sample of the signals of a noisy family."""
    signals = family.parameters(range(MOMENTS), PRIOR_SEED)["signal"]
    return Prior(signals.mean(axis=0), np.cov(signals.T))


def deviation(systems: Systems) -> FloatArray:
    """Return the standard deviation (B,) of the noise of systems."""
    return systems.params["noise"] * np.linalg.norm(systems.params["clean"], axis=1) / np.sqrt(systems.b.shape[1])


def noise_norm(systems: Systems) -> FloatArray:
    """Return what the norm of the noise (B,) is expected to be."""
    return deviation(systems) * np.sqrt(systems.b.shape[1])


Decompositions = Sequence[regularization.Decomposition]


def decompositions(A: FloatArray) -> Decompositions:
    """Return those of every order; they serve every b."""
    return [regularization.decompose(A, order) for order in ORDERS]


def fast(decomposed: Decompositions, systems: Systems, prior: Prior) -> dict[str, FloatArray]:
    """Return the estimates (B, n) of everything that is batched."""
    estimates: dict[str, FloatArray] = {}
    truncated = regularization.truncated(decomposed[0], systems.b)
    estimates[UNREGULARIZED] = truncated.chosen(np.full(len(systems), truncated.parameters.shape[1] - 1))
    paths = [regularization.tikhonov(decomposition, systems.b) for decomposition in decomposed]
    for name, path in zip((*TIKHONOV, "TSVD"), (*paths, truncated), strict=True):
        indices = (
            regularization.cross_validation(path),
            regularization.l_curve(path),
            regularization.discrepancy(path, noise_norm(systems)),
            regularization.oracle(path, systems.x),
        )
        for choice, index in zip(CHOICES, indices, strict=True):
            estimates[f"{name}, {choice}"] = path.chosen(index)
    estimates[LMMSE] = affine(systems, prior)
    return estimates


def affine(systems: Systems, prior: Prior) -> FloatArray:
    """Return the best affine estimates (B, n), given the prior's mean and covariance, and the noise level."""
    return lmmse.known_matrix(systems.A, systems.b, prior.mean, prior.covariance, deviation(systems))


SPARSE: dict[str, Callable[[FloatArray, FloatArray], sparse.SparsePath]] = {
    TOTAL_VARIATION: sparse.total_variation,
    LASSO: sparse.lasso,
    PURSUIT: sparse.matching_pursuit,
}


def slow(systems: Systems, methods: Sequence[str]) -> dict[str, FloatArray]:
    """Return the estimates of methods that follow a path one system at a time, by both choices."""
    estimates: dict[str, FloatArray] = {}
    for method in methods:
        pairs = []
        for A, b, x, size in zip(systems.A, systems.b, systems.x, noise_norm(systems), strict=True):
            path = SPARSE[method](A, b)
            pairs.append((path.by_discrepancy(A, b, float(size)), path.by_oracle(x)))
        estimates[f"{method}, discrepancy"], estimates[f"{method}, oracle"] = map(np.array, zip(*pairs, strict=True))
    return estimates


def contenders(systems: Systems, prior: Prior, solvers: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return calls that do all that it takes to solve these systems, from A and b on; for their times."""

    def truncated() -> FloatArray:
        path = regularization.truncated(regularization.decompose(systems.A, 0), systems.b)
        return path.chosen(regularization.cross_validation(path))

    def path(method: str) -> Callable[[], list[FloatArray]]:
        sizes = noise_norm(systems)
        return lambda: [
            SPARSE[method](A, b).by_discrepancy(A, b, float(size))
            for A, b, size in zip(systems.A, systems.b, sizes, strict=True)
        ]

    calls: dict[str, Callable[[], Any]] = {
        **{
            name: functools.partial(regularization.cross_validated, systems.A, systems.b, order)
            for order, name in zip(ORDERS, TIKHONOV, strict=True)
        },
        "TSVD": truncated,
        LMMSE: functools.partial(affine, systems, prior),
        **{method: path(method) for method in SPARSE},
    }
    return calls | {name: functools.partial(quietly, solver, systems) for name, solver in solvers.items()}
