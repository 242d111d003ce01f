"""The matrices of LAPACK's own tests of dgesv, types 1 to 11, and its test ratio.

LAPACK makes them with DLATMS in the settings of DLATB4 for general matrices [1]_: singular values in arithmetic
progression from 1 down to 1 / kappa (mode 4), random orthogonal factors, then a scaling. Triangular ones are made
here as a factor of QR, which has the same singular values. Right-hand sides are A x with x uniform in (-1, 1), so
that singular systems are consistent: an elimination notices, a residual does not.

An answer of a network is held to what the certificate promises: with |b - A x| <= omega (|A| |x| + |b|) and omega at
most n eps the ratio is at most 2 n. How many of them are above LAPACK's limit is counted.

References
----------
.. [1] E. Anderson et al., "LAPACK Working Note 41: Installation Guide for LAPACK", 1999; the programs DDRVGE and
   DLATB4 of LAPACK's TESTING/LIN.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgWarning

from algebraformer.errors import SingularSystemError
from algebraformer.linalg import EPS, STABILITY_FACTOR, test_ratio
from algebraformer.solver import LearnedSolver
from tests import fakes
from tests.stress.base import Check

Array = NDArray[np.float64]
SIZES = (0, 1, 2, 3, 5, 10, 50, 64)
RIGHT_HAND_SIDES = (1, 2, 15)
MAX_TEST_RATIO = 30.0
"""LAPACK's tests pass below this ratio."""
SMALL = 0.25 * float(np.finfo(np.float64).tiny) / EPS
"""Largest singular value of type 10; that of type 11 is its reciprocal."""
TYPES = {
    1: "diagonal",
    2: "upper triangular",
    3: "lower triangular",
    4: "random, condition 2",
    5: "first column zero",
    6: "last column zero",
    7: "last half of the columns zero",
    8: "random, condition sqrt(0.1 / eps)",
    9: "random, condition 0.1 / eps",
    10: "scaled near underflow",
    11: "scaled near overflow",
}
WITH_ZERO_COLUMN = (5, 6, 7)


def matrix(kind: int, n: int, rng: np.random.Generator) -> Array:
    """Return a matrix (n, n) of one of LAPACK's types.

    Examples
    --------
    >>> import numpy as np
    >>> A = matrix(8, 5, np.random.default_rng(0))
    >>> float(np.linalg.cond(A) / np.sqrt(0.1 / np.finfo(float).eps)).__round__(3)
    1.0
    """
    if n == 0:
        return np.empty((0, 0))
    condition = {8: np.sqrt(0.1 / EPS), 9: 0.1 / EPS}.get(kind, 2.0)
    sigma = 1 - (1 - 1 / condition) * np.arange(n) / max(n - 1, 1)
    if kind == 1:
        return np.diag(rng.permutation(sigma) * rng.choice([-1.0, 1.0], n))
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    A = left * sigma @ right
    if kind in (2, 3):
        R = np.triu(np.linalg.qr(A)[1])
        return R if kind == 2 else R.T.copy()
    if kind in WITH_ZERO_COLUMN:
        A[:, {5: slice(0, 1), 6: slice(n - 1, n), 7: slice(n // 2, n)}[kind]] = 0.0
    return A * {10: SMALL, 11: 1 / SMALL}.get(kind, 1.0)


def check(seeds: int, right_hand_sides: Sequence[int] = RIGHT_HAND_SIDES) -> Check:
    """Solve systems of every type and size, by shipped models and by stand-ins for every size."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    worst: dict[str, float] = dict.fromkeys(TYPES.values(), 0.0)
    cases = 0
    for label, solver_for in SOLVERS.items():
        for n in SIZES:
            solver = solver_for(n)
            for kind, name in TYPES.items():
                for k in right_hand_sides:
                    for seed in range(seeds):
                        rng = np.random.default_rng((seed, kind, n, k))
                        A = matrix(kind, n, rng)
                        b = A @ rng.uniform(-1, 1, (n, k))
                        cases += 1
                        outcome, ratio = solved(solver, A, b)
                        counts[outcome] += 1
                        worst[name] = max(worst[name], ratio)
                        must_raise = kind in WITH_ZERO_COLUMN and n > 0
                        of_network = outcome.startswith("learned")
                        counts["learned, above LAPACK's limit"] += of_network and ratio >= MAX_TEST_RATIO
                        limit = max(MAX_TEST_RATIO, 2 * STABILITY_FACTOR * n) if of_network else MAX_TEST_RATIO
                        if must_raise != (outcome == "LinAlgError") or ratio >= limit:
                            failures.append(f"{label}: {name}, n = {n}, k = {k}, seed {seed}: {outcome}, {ratio:.3g}")
    data: dict[str, Any] = {"worst_ratio": worst}
    claim = (
        f"LAPACK's test ratio below {MAX_TEST_RATIO:g} (a network's: 2 n, if more), and LinAlgError wherever a column "
        "is zero"
    )
    return Check("LAPACK's matrix types", claim, cases, failures, dict(counts), data)


def solved(solver: LearnedSolver, A: Array, b: Array) -> tuple[str, float]:
    """Return who answered, or the error, and the test ratio of the answer, 0 for an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)
        try:
            result = solver.solve(A, b)
        except SingularSystemError:
            return "LinAlgError", 0.0
    if b.size == 0:
        return "nothing to solve", 0.0
    scale = np.abs(A).max()  # by a power of two, so that norms neither overflow nor underflow
    unit = 2.0 ** -np.floor(np.log2(scale))
    return str(result.method), float(np.max(test_ratio(A * unit, b * unit, result.x)))


SOLVERS: dict[str, Callable[[int], LearnedSolver]] = {
    "diffusion-64": lambda n: fakes.shipped(),
    "diffusion-64-token": lambda n: fakes.shipped("diffusion-64-token"),
    "nearly right": lambda n: fakes.fake_solver(fakes.nearly_right, n or 1),
    "solves singular systems": lambda n: fakes.fake_solver(fakes.consistent, n or 1),
    "wrong": lambda n: fakes.fake_solver(fakes.WRONG["1e30"], n or 1),
    "NaN": lambda n: fakes.fake_solver(fakes.WRONG["nan"], n or 1),
}
