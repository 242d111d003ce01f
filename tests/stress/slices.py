"""One bad system among many: it is named by its position, and the others are answered."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning

from algebraformer import problems
from algebraformer.drop_in import solve
from algebraformer.errors import SingularSystemError, Status
from algebraformer.solver import LearnedSolver
from tests import fakes
from tests.stress.base import Check

BATCH = 256
EQUAL_ROWS = 16
"""Matrices with two equal rows, for every model and trial."""
MODELS = ("diffusion-64", "random-diffusion-64", "diffusion-64-token")


def check(trials: int, batch: int = BATCH, models: Sequence[str] = MODELS) -> Check:
    """Put a singular, a NaN and a nearly singular system somewhere into a batch of the family, again and again."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    for name in models:
        solver = fakes.shipped(name)
        family = problems.from_settings(solver.info.family)
        for seed in range(trials):
            systems = family.sample(batch, seed)
            rng = np.random.default_rng(seed)
            where = [int(i) for i in rng.choice(batch, 3, replace=False)]
            wrong = spoiled_batch(solver, systems.A.copy(), systems.b.copy(), where, rng, counts)
            failures += [f"{name}, seed {seed}, systems {where}: {text}" for text in wrong]
        counts.update(equal_rows(solver, family.sample(EQUAL_ROWS * trials, trials)))
    claim = f"a singular, a NaN and a nearly singular system among {batch} are named, and the others answered"
    return Check("one bad system among many", claim, trials * len(models), failures, dict(counts))


def spoiled_batch(
    solver: LearnedSolver,
    A: NDArray[Any],
    b: NDArray[Any],
    where: list[int],
    rng: np.random.Generator,
    counts: Counter[str],
) -> list[str]:
    """Corrupt three systems; return what was not reported, or reported wrongly."""
    singular, unknown, nearly = where
    n = A.shape[-1]
    A[nearly] = rng.permutation(scipy.linalg.hilbert(n))
    row, column = rng.integers(n, size=2)
    A[unknown, row, column] = np.nan
    wrong = []
    for call in (solver.solve, lambda A, b: solve(A, b[..., None], model=solver)):
        try:
            call(A, b)
        except ValueError as error:
            if f"A contains NaN or infinity, first at index ({unknown}, {row}, {column})" not in str(error):
                wrong.append(f"error on NaN: {error}")
        else:
            wrong.append("NaN is not refused")
    A[unknown] = np.eye(n)  # put right
    match rng.integers(4):
        case 0:
            A[singular, :, row] = 0.0
        case 1:
            A[singular, row] = 0.0
        case 2:
            A[singular] = 1.0
        case 3:
            A[singular] = np.outer(*rng.choice([-2.0, 1.0, 4.0], (2, n)))
    b[singular] = A[singular] @ rng.standard_normal(n)  # so that no residual reveals it
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            solver.solve(A, b)
        except SingularSystemError as error:
            result, named = error.result, error.indices
            if f"singular in system {singular} of the batch" not in str(error):
                wrong.append(f"error on the singular system: {error}")
        else:
            return [*wrong, "the singular system is answered"]
    warned = " ".join(str(w.message) for w in caught if issubclass(w.category, LinAlgWarning))
    if named != (singular,):
        wrong.append(f"the error names {named}")
    if re.findall(r"system (\d+) of the batch", warned) != [str(nearly)]:
        wrong.append(f"warning on the nearly singular system: {warned}")
    if not np.isnan(result.x[singular]).all() or result.status[singular] is not Status.SINGULAR:
        wrong.append("x of the singular system is not NaN")
    others = np.delete(np.arange(len(A)), singular)
    if not result.certified[others].all() or not np.isfinite(result.x[others]).all():
        wrong.append(f"not certified: {others[~result.certified[others].astype(bool)]}")
    counts.update(f"systems {status.name}" for status in result.status)
    return wrong


def equal_rows(solver: LearnedSolver, systems: problems.Systems) -> Counter[str]:
    """Count the results for matrices of the family with two rows made equal, and right-hand sides in their range.

    Elimination in float64 finds some of them exactly singular; the others it reports as ill-conditioned. The
    network may solve them: only another right-hand side reveals that they are singular.
    """
    A, rng = systems.A.copy(), np.random.default_rng(len(systems.A))
    for matrix in A:
        first, second = rng.choice(len(matrix), 2, replace=False)
        matrix[first] = matrix[second]
    counts: Counter[str] = Counter()
    for matrix in A:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                solver.solve(matrix, matrix @ rng.standard_normal(len(matrix)))
            except SingularSystemError:
                counts["two equal rows: LinAlgError"] += 1
            else:
                counts["two equal rows: " + ("LinAlgWarning" if caught else "not noticed")] += 1
    return counts
