"""The operator head and its baselines on the same family, each fitted on the same systems."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics import operator_basis
from algebraformer.numerics.gcr import STAGNATION_FACTOR
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.problems import ProblemFamily
from algebraformer.progress import batches
from algebraformer.rivals import Solve, refined
from algebraformer.rivals.direct import numpy_lu
from algebraformer.rivals.iterative import Inverse, ScaledMeanInverse, Start
from algebraformer.solver import LearnedSolver
from studies.baselines import interpolation, kernel_ridge, polynomial, reduced_basis
from studies.baselines.nearest import NearestInverse

TRANSFORMER, MLP, RIDGE, PROJECTED = "Transformer", "MLP", "polynomial ridge", "projection"
KERNEL, SNAPSHOTS, NEAREST = "kernel ridge", "Zahm-Nouy snapshots", "nearest inverse"
MEAN, SCALED = "mean inverse", "scaled mean inverse"
REDUCED, LAPACK = "reduced basis + mean inverse", "LAPACK"
NETWORKS = {"transformer": TRANSFORMER, "mlp": MLP}
SEED = 0
"""Seed of the random sketches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A way to solve the systems of a family.

    Attributes
    ----------
    name : str
    inverse : callable, optional
        Returns approximate inverses of A (B, n, n); None for LAPACK, which has the exact ones.
    start : callable, optional
        Returns the first answer (B, n, k) from A and b (B, n, k); M b if None.
    solve : callable
        The whole way from A (B, n, n) and b (B, n) to x (B, n), certificate included (not for LAPACK): what is timed.
    stagnation_factor : float
        When refinement gives up, `stagnation_factor` of `gcr.solve`.
    samples : int
        Systems of the family that it was prepared from.
    seconds : float, optional
        Time of that, the making of the systems included.
    """

    name: str
    inverse: Inverse | None
    start: Start | None = None
    solve: Solve
    stagnation_factor: float = 1.0
    samples: int = 0
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
    """S systems of a family, as the baselines see them.

    Attributes
    ----------
    z : ndarray, shape (S, q m), float32
    c : ndarray, shape (S, R)
    weight : ndarray, shape (S,)
        See `OperatorBasis.coefficients` for these three.
    T : ndarray, shape (S, n, n), float32
        A^-1 Abar of matrices of size one.
    x : ndarray, shape (S, n)
        Solutions.
    seconds : float
        What it took to make them.
    """

    z: NDArray[np.float32]
    c: FloatArray
    weight: FloatArray
    T: NDArray[np.float32]
    x: FloatArray
    seconds: float


def draw(family: ProblemFamily, basis: OperatorBasis, count: int, seed: int) -> Sample:
    """Return the first systems that a seed names."""
    begin, n = time.perf_counter(), family.n
    z = np.empty((count, basis.sampler.rows.size * basis.sampler.columns.size), dtype=np.float32)
    c, weight = np.empty((count, basis.rank)), np.empty(count)
    T, x = np.empty((count, n, n), dtype=np.float32), np.empty((count, n))
    for indices in batches(count, max(1, min(256, 2**24 // n**2))):
        rows = slice(indices.start, indices.stop)
        A, b = family.assemble(family.parameters(indices, seed))
        entries, s = basis.sampler(A)
        exact = operator_basis.preconditioned_inverse(A / s[:, None, None], basis.A_mean)
        z[rows], T[rows] = entries.reshape(len(A), -1), exact
        c[rows], weight[rows] = basis.projected(exact)
        x[rows] = (exact @ (b @ basis.inverse.T)[:, :, None])[:, :, 0] / s[:, None]
    return Sample(z, c, weight, T, x, time.perf_counter() - begin)


def network(solver: LearnedSolver, seconds: float | None) -> Method:
    """Return the method of a network; `seconds` is what its training took."""
    return Method(
        name=NETWORKS[solver.network.config.architecture],
        inverse=solver.network.approximate_inverse,
        solve=lambda A, b: solver.solve(A, b).x,
        stagnation_factor=STAGNATION_FACTOR,
        samples=int(solver.info.recipe["samples"]),
        seconds=seconds,
    )


def classical(
    family: ProblemFamily, basis: OperatorBasis, *, samples: int, snapshots: int, columns: int, seed: int
) -> list[Method]:
    """Prepare the methods that need no network.

    Parameters
    ----------
    family : ProblemFamily
    basis : OperatorBasis
        That of the network; its rank is also the number of snapshots of the interpolation.
    samples : int
        Systems they are prepared from.
    snapshots : int
        How many of these the snapshots are chosen from.
    columns : int
        Columns of the random sketches.
    seed : int
        Seed of the systems.
    """
    sample = draw(family, basis, samples, seed)
    few = min(snapshots, samples)
    mean = MeanInverse(basis.inverse)
    diagonal = np.diagonal(basis.A_mean)

    def scaled(A: FloatArray) -> ScaledMeanInverse:
        return ScaledMeanInverse.of(A, diagonal, basis.inverse)

    def snapshot_inverses() -> Inverse:
        return interpolation.of_snapshots(basis, sample.T[:few], min(basis.rank, few), columns, SEED)

    def timed(name: str, used: int, prepare: Callable[[], Inverse]) -> Method:
        begin = time.perf_counter()
        inverse = prepare()
        seconds = time.perf_counter() - begin + sample.seconds * used / samples
        return Method(name=name, inverse=inverse, solve=certified(inverse), samples=used, seconds=seconds)

    begin = time.perf_counter()
    reduced = reduced_basis.fit(sample.x, basis.inverse, rank=max(1, family.n // 2))
    seconds = time.perf_counter() - begin + sample.seconds
    return [
        timed(RIDGE, samples, lambda: polynomial.fit(basis, sample.z, sample.c, sample.weight)),
        timed(
            KERNEL,
            min(samples, kernel_ridge.MAX_SAMPLES),
            lambda: kernel_ridge.fit(basis, sample.z, sample.c, sample.weight),
        ),
        timed(PROJECTED, 0, lambda: interpolation.of_basis(basis, columns, SEED)),
        timed(SNAPSHOTS, few, snapshot_inverses),
        timed(NEAREST, samples, lambda: NearestInverse(basis.sampler, basis.inverse, sample.z, sample.T)),
        Method(name=MEAN, inverse=lambda A: mean, solve=certified(lambda A: mean)),
        Method(name=SCALED, inverse=scaled, solve=certified(scaled)),
        Method(
            name=REDUCED,
            inverse=lambda A: mean,
            start=reduced,
            solve=certified(lambda A: mean, reduced),
            samples=samples,
            seconds=seconds,
        ),
        Method(name=LAPACK, inverse=None, solve=numpy_lu),
    ]


def certified(inverse: Inverse, start: Start | None = None) -> Solve:
    """Return the whole way of a method without a fallback: its share of certified answers is measured."""
    return refined(inverse, start, fallback=False)
