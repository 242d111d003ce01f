"""The network's answers to a batch of systems: asked for, refined, measured, and put together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import beside, namespace
from algebraformer.linalg import FloatArray, largest, norm, ratio
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.numerics import gcr, lapack
from algebraformer.numerics.forward_error import MAX_DEFECT, forward_error
from algebraformer.numerics.gcr import RefinedSolution
from algebraformer.numerics.lapack import RHS_BLOCK_ENTRIES
from algebraformer.numerics.preconditioner import LinearInverse, Preconditioner

Array = NDArray[Any]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclasses.dataclass
class Batch:
    """Answers to B systems with k right-hand sides; the measures are those of the worst one."""

    x: Array  # (B, n, k)
    relative_residual: FloatArray  # (B,), and so are the others
    backward_error: FloatArray
    certified: Flags
    forward_error: FloatArray
    refinements: Indices
    in_distribution: Flags

    @classmethod
    def unanswered(cls, b: Array) -> Batch:
        """Return NaN for x and for its estimated error, and infinite residuals."""
        B = len(b)
        no, unknown = np.zeros(B, dtype=bool), np.full(B, np.inf)
        x = namespace(b).full_like(b, np.nan)
        return cls(x, unknown, unknown.copy(), no, unknown * np.nan, np.zeros(B, int), no.copy())

    @classmethod
    def empty(cls, b: Array) -> Batch:
        """Return the answers where there is nothing to solve: no right-hand side, or no unknown."""
        answers = cls.unanswered(b)
        answers.certified[:] = answers.in_distribution[:] = True
        answers.relative_residual[:] = answers.backward_error[:] = answers.forward_error[:] = 0.0
        return answers

    @classmethod
    def from_solution(cls, solution: RefinedSolution, error: FloatArray, in_distribution: Flags) -> Batch:
        """Return refined answers with their estimated errors (B,)."""
        return cls(
            x=solution.x,
            relative_residual=solution.relative_residual,
            backward_error=solution.backward_error,
            certified=solution.certified,
            forward_error=error,
            refinements=solution.refinements,
            in_distribution=in_distribution,
        )

    @classmethod
    def concatenate(cls, parts: list[Batch]) -> Batch:
        """Put the systems of several batches into one."""
        if len(parts) == 1:
            return parts[0]
        x = namespace(parts[0].x).concat([part.x for part in parts])
        others = [f.name for f in dataclasses.fields(cls) if f.name != "x"]
        return cls(x, *(np.concatenate([getattr(part, name) for part in parts]) for name in others))

    @classmethod
    def join_columns(cls, parts: list[Batch]) -> Batch:
        """Put the right-hand sides of the same systems together."""
        if len(parts) == 1:
            return parts[0]
        worst = {f.name: [getattr(p, f.name) for p in parts] for f in dataclasses.fields(cls)}
        columns = worst.pop("x")
        x = namespace(columns[0]).concat(columns, axis=2)
        reduced = {k: (np.min if v[0].dtype == bool else np.max)(v, axis=0) for k, v in worst.items()}
        return cls(x, **reduced)

    def assign(self, where: Indices, other: Batch | lapack.DirectSolution) -> None:
        """Take over all that another solution holds of the systems `where`."""
        for field in dataclasses.fields(self):
            if hasattr(other, field.name):
                own = getattr(self, field.name)
                own[where] = beside(own, getattr(other, field.name))


def solve_block(reading: MatrixReading, b: FloatArray, rtol: float | None, maxiter: int, everything: bool) -> Batch:
    """Return the network's refined answers to systems that look like the family, or to everything."""
    chosen = np.flatnonzero(reading.in_distribution | everything)
    # To leave out less than half of them would save less than copying the chosen costs.
    whole = chosen.size == len(b) or (reading.inverse is not None and 2 * chosen.size >= len(b))
    if whole and len(b):
        return _refined(reading, b, rtol, maxiter, everything)
    answers = Batch.unanswered(b)
    answers.in_distribution[:] = reading.in_distribution
    if chosen.size:
        answers.assign(chosen, _refined(reading[chosen], b[chosen], rtol, maxiter, everything))
    return answers


def _refined(reading: MatrixReading, b: FloatArray, rtol: float | None, maxiter: int, everything: bool) -> Batch:
    """Return the network's refined answers to systems that were all chosen."""
    if reading.preconditioner is not None:
        return _solve_without_adjoint(reading, reading.preconditioner, b, rtol, maxiter)
    if reading.inverse is None or reading.defect is None:
        return _predict_and_refine(reading, b, rtol, maxiter)
    return _solve_gcr(reading, reading.inverse, reading.defect, b, rtol, maxiter, everything)


def _predict_and_refine(reading: MatrixReading, b: FloatArray, rtol: float | None, maxiter: int) -> Batch:
    """Refine the answers of a head that is not linear in b by asking it again about the residual."""

    def correction(active: Indices, r: FloatArray) -> FloatArray:
        x = (reading if active.size == len(b) else reading[active]).predict(r)
        return x if x.shape == r.shape else np.full_like(r, np.nan)

    solution = gcr.richardson(reading.A, b, correction, rtol, maxiter)
    return Batch.from_solution(solution, solution.last_step_ratio, reading.in_distribution)


def _solve_without_adjoint(
    reading: MatrixReading, M: Preconditioner, b: FloatArray, rtol: float | None, maxiter: int
) -> Batch:
    """Refine by conjugate residuals with approximate inverses whose adjoints are not known.

    The estimated error of x is that which M sees in the residual, ||M (b - A x)|| / ||x||.
    """
    solution = gcr.gcr_restarted(reading.A, b, M, rtol, maxiter)
    with np.errstate(all="ignore"):
        step = M.right(M.left(solution.measures.residual))
        error = np.asarray(largest(ratio(norm(step), norm(solution.x)), axis=-1))
    return Batch.from_solution(solution, error, reading.in_distribution)


def _solve_gcr(
    reading: MatrixReading,
    inverse: LinearInverse,
    defect: FloatArray,
    b: FloatArray,
    rtol: float | None,
    maxiter: int,
    everything: bool,
) -> Batch:
    """Refine the answers of approximate inverses by conjugate residuals, a limited number of columns at a time."""
    B, n, k = b.shape
    max_first_ratio = np.inf if everything else reading.max_defect
    parts, columns = [], max(1, RHS_BLOCK_ENTRIES // (n * B))
    for j in range(0, k, columns):
        right = b[:, :, j : j + columns]
        solution = gcr.gcr_restarted(reading.A, right, inverse, rtol, maxiter, max_first_ratio=max_first_ratio)
        estimate = forward_error(inverse, solution.x, solution.measures, np.minimum(defect, MAX_DEFECT), probes=1)
        error = np.where(defect <= MAX_DEFECT, estimate, np.inf)
        known = reading.in_distribution & (solution.first_residual_ratio <= reading.max_defect)
        parts.append(Batch.from_solution(solution, error, known))
    return Batch.join_columns(parts)
