"""Ill-conditioned systems, near the families and far from them: no certified answer is much worse than SciPy's.

Systems of 64 unknowns are drawn by (kind, index), so that a failure can be tried again: `system("kernels", 17)`. Every
shipped model that solves systems of this size solves all of them, and so does `scipy.linalg.solve`, one at a time. The
error of x is ||x - x*||_inf / ||x*||_inf, with x* from `extended_precision.solve`. A certified answer fails if its
error exceeds

    10 (error of SciPy's answer) + 10 n eps cond(A, x*),     cond(A, x) = || |A^-1| |A| |x| ||_inf / ||x||_inf.

This is Skeel's condition number. ||A|| ||A^-1|| is larger, and would excuse any answer to a badly scaled system. There
is no limit where `scipy.linalg.solve` raises `LinAlgError`, nor where longdouble does not resolve x*: cond(A, x*) is
then above about 1e16, its computed value only a lower bound, and a small backward error does not bound the error of x.
Certified answers with more than ten times SciPy's error that are excused for this reason are counted.

`forward_error` is compared with ||x - x*||_2 / ||x||_2 where the uncertainty of x* is at most `RESOLVED`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, LinAlgWarning

from algebraformer.checkpoint import solver_names
from algebraformer.errors import SingularSystemError
from algebraformer.linalg import EPS
from algebraformer.problems import ProblemFamily, generator
from algebraformer.problems.sampling import log_uniform
from algebraformer.reporting import finite
from algebraformer.result import SolveResult
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.harness import weights
from tests import fakes
from tests.stress import extended_precision
from tests.stress.base import Check
from tests.stress.gallery import GALLERY, GRIDS, KERNELS, kernel_matrix, randsvd

Array = NDArray[Any]
Generator = np.random.Generator
N = 64
BATCH = 256
FACTOR = 10.0
"""How much worse than SciPy's, and than n eps cond(A, x*), an answer may be."""
RESOLVED = 0.01
"""Largest uncertainty of a reference that an estimate is compared with; from 1 on there is no reference."""
FAMILY = "family"
"""The kind whose systems are inside the family of some models."""


# ---------------------------------------------------------------- matrices


def kernels(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a kernel matrix plus jitter."""
    kernel, grid = list(KERNELS)[index % len(KERNELS)], str(rng.choice(list(GRIDS)))
    length, jitter = log_uniform(rng, (1e-2, 1e2)), log_uniform(rng, (1e-14, 1e-1))
    A = kernel_matrix(kernel, grid, length, jitter, N, rng)
    return A, f"{kernel}, {grid} points, length {length:.2g}, jitter {jitter:.1e}"


def gallery(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a matrix of the gallery, as it is, transposed, or with its rows permuted."""
    name, change = list(GALLERY)[index % len(GALLERY)], index // len(GALLERY) % 3
    A = GALLERY[name](N, rng)
    changed = (A, A.T.copy(), rng.permutation(A))[change]
    return changed, name + ("", ", transposed", ", rows permuted")[change]


def badly_scaled(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a matrix with rows, columns or both scaled over up to 300 decades."""
    A, name = base(index, rng)
    decades = log_uniform(rng, (1.0, 300.0))
    sides = (("rows",), ("columns",), ("rows", "columns"))[int(rng.integers(3))]
    limit = decades / 2 / len(sides)
    for side in sides:
        scale = 10.0 ** rng.uniform(-limit, limit, N)
        A = A * (scale[:, None] if side == "rows" else scale)
    return A, f"{name}, {' and '.join(sides)} scaled over {decades:.0f} decades"


def nearly_singular(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a matrix with its smallest singular value moved to 0 ... 1e-8 of the largest one."""
    A, name = base(index, rng)
    U, sigma, V = np.linalg.svd(A)
    smallest = log_uniform(rng, (1e-17, 1e-8)) if rng.integers(4) else 0.0
    sigma[-1] = smallest * sigma[0]
    return U * sigma @ V, f"{name}, smallest singular value {smallest:.1e}"


def perturbed(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a matrix of a family with noise, with rows permuted, with two rows nearly equal, or transposed."""
    A, name = of_family(index)
    match int(rng.integers(4)):
        case 0:
            noise = log_uniform(rng, (1e-14, 1.0))
            return A * (1 + noise * rng.standard_normal(A.shape)), f"{name}, noise {noise:.1e}"
        case 1:
            return rng.permutation(A), f"{name}, rows permuted"
        case 2:
            (i, j), near = rng.choice(N, 2, replace=False), log_uniform(rng, (1e-17, 1e-4))
            A[i] = A[j] * (1 + near * rng.standard_normal(N))
            return A, f"{name}, rows {i} and {j} equal to {near:.1e}"
        case _:
            return A.T.copy(), f"{name}, transposed"


def of_family(index: int) -> tuple[Array, str]:
    """Return a matrix of one of the families, which take turns."""
    family = families()[index % len(families())]
    return family.at([index], TEST_SEED).A[0], family.name


def base(index: int, rng: Generator) -> tuple[Array, str]:
    """Return a matrix to start from: half of them of a family, others Gaussian or with prescribed singular values."""
    match int(rng.integers(4)):
        case 0:
            return rng.standard_normal((N, N)), "Gaussian"
        case 1:
            mode, kappa = int(rng.integers(1, 6)), log_uniform(rng, (1.0, 1e14))
            return randsvd(N, rng, mode, kappa), f"randsvd, mode {mode}, condition {kappa:.1e}"
        case _:
            return of_family(index)


MATRICES = {
    "kernels": kernels,
    "gallery": gallery,
    "badly scaled": badly_scaled,
    "nearly singular": nearly_singular,
    "perturbed family": perturbed,
}
KINDS = (*MATRICES, FAMILY)


# ---------------------------------------------------------------- systems


@functools.cache
def models() -> tuple[str, ...]:
    """Return the names of the models, shipped or of studies/weights, that solve systems of N unknowns."""
    solvers = {name: fakes.shipped(name) for name in [*solver_names(), *weights.names()]}
    return tuple(
        name
        for name, solver in solvers.items()
        if solver.n == N and not solver.info.unsupported_reason(solver.network.config.head)
    )


@functools.cache
def families() -> tuple[ProblemFamily, ...]:
    """Return the families of these models, each one once."""
    return tuple(dict.fromkeys(fakes.shipped(name).info.problem_family() for name in models()))


def system(kind: str, index: int) -> tuple[Array, Array, str]:
    """Return A (N, N) and b (N,) of one system, and what it is, in words."""
    if kind == FAMILY:
        family = families()[index % len(families())]
        drawn = family.at([index], TEST_SEED)
        return drawn.A[0], drawn.b[0], family.name
    rng = generator(TEST_SEED, index, stream=1 + KINDS.index(kind))
    A, name = MATRICES[kind](index, rng)
    t = np.linspace(0, 1, N)
    match int(rng.integers(5)):
        case 0:
            b, what = A @ np.ones(N), "b = A ones"
        case 1:
            b, what = A @ (1 + np.sin(rng.uniform(1, 10) * t + rng.uniform(0, 6))), "b = A smooth"
        case 2:
            b, what = A @ rng.standard_normal(N), "b = A random"
        case 3:
            b, what = rng.standard_normal(N), "b random"
        case _:
            b, what = np.eye(N)[int(rng.integers(N))], "b a unit vector"
    return A, b, f"{name}, {what}"


def scipy_solutions(A: Array, b: Array) -> Array:
    """Return the answers of scipy.linalg.solve (B, N), one system at a time; NaN where it raises LinAlgError."""
    x = np.full(b.shape, np.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # LinAlgWarning is one of them
        for i in range(len(A)):
            try:
                x[i] = scipy.linalg.solve(A[i], b[i])
            except LinAlgError:
                continue
    return x


def relative_error(x: Array, reference: Array, order: float, of: Array) -> Array:
    """Return ||x - reference|| / ||of|| (B,) in longdouble's range as float64; infinity where x is not finite."""
    with np.errstate(all="ignore"):
        difference, size = (np.linalg.norm(v.astype(np.longdouble), order, axis=1) for v in (x - reference, of))
        error = np.where(difference == 0, 0, difference / size).astype(np.float64)
    return np.where(np.isfinite(x).all(axis=1), error, np.inf)


# ---------------------------------------------------------------- the check

CASE = np.dtype([
    ("kind", "U16"), ("inside", bool), ("network", bool), ("in_distribution", bool), ("certified", bool),
    ("singular", bool), ("warned", bool), ("scipy_raised", bool), ("resolved", bool), ("worse", bool),
    ("error", float), ("limit", float), ("true", float), ("estimate", float),
])  # fmt: skip
"""One system solved by one model.

error and limit are those of the module's docstring, worse says that there is no limit and error is above ten times
SciPy's; estimate is `forward_error` and true what it estimates.
"""


class Batch:
    """Systems of one kind with what does not depend on the model: the reference, SciPy's error and the limit."""

    def __init__(self, kind: str, indices: range) -> None:
        self.kind, self.indices = kind, indices
        drawn = [system(kind, index) for index in indices]
        self.A, self.b = np.array([A for A, _, _ in drawn]), np.array([b for _, b, _ in drawn])
        self.names = [name for _, _, name in drawn]
        self.reference = extended_precision.solve(self.A, self.b)
        x = self.reference.x
        self.scipy = relative_error(scipy_solutions(self.A, self.b), x, np.inf, x)
        with np.errstate(all="ignore"):
            self.limit = FACTOR * (self.scipy + N * EPS * self.reference.condition).astype(np.float64)
        self.limit[~self.resolved(1.0)] = np.inf

    def resolved(self, uncertainty: float) -> NDArray[np.bool_]:
        """Say which references are finite and at most so uncertain."""
        return np.isfinite(self.reference.x).all(axis=1) & (self.reference.uncertainty <= uncertainty)

    def tried(self, solver: LearnedSolver) -> tuple[Array, list[str]]:
        """Let a model solve the systems; return a CASE for each and what went wrong, in words."""
        result, warned = solve_quietly(solver, self.A, self.b)
        x, reference = result.x, self.reference.x
        cases = np.zeros(len(x), CASE)
        cases["kind"] = self.kind
        own = solver.info.problem_family()
        cases["inside"] = [self.kind == FAMILY and families()[i % len(families())] == own for i in self.indices]
        cases["network"] = result.method != "lapack"
        cases["in_distribution"], cases["certified"] = result.in_distribution, result.certified
        cases["singular"] = [status.name == "SINGULAR" for status in result.status]
        cases["warned"] = (result.rcond > 0) & (result.rcond < EPS)
        cases["scipy_raised"] = np.isinf(self.scipy)
        cases["error"], cases["limit"] = relative_error(x, reference, np.inf, reference), self.limit
        cases["true"], cases["estimate"] = relative_error(x, reference, 2, x), result.forward_error
        cases["resolved"] = self.resolved(RESOLVED) & np.isfinite(x).all(axis=1)
        cases["worse"] = np.isinf(self.limit) & (cases["error"] > FACTOR * self.scipy)
        wrong = [
            f"{solver.info.name}: system({self.kind!r}, {self.indices[i]}), {self.names[i]}: {result.method[i]}, error "
            f"{cases['error'][i]:.2g}, SciPy's {self.scipy[i]:.2g}, limit {self.limit[i]:.2g}"
            for i in np.flatnonzero(failed(cases))
        ]
        if cases["warned"].any() and not warned:
            wrong.append(f"{solver.info.name}: {self.kind} {self.indices[0]} to {self.indices[-1]}: no LinAlgWarning")
        return cases, wrong


def failed(cases: Array) -> NDArray[np.bool_]:
    """Say which cases are certified and not accurate."""
    return np.asarray(cases["certified"] & ((cases["error"] > cases["limit"]) | np.isinf(cases["error"])))


def solve_quietly(solver: LearnedSolver, A: Array, b: Array) -> tuple[SolveResult, bool]:
    """Return the result of a batch, also with singular systems in it, and whether a LinAlgWarning was given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = solver.solve(A, b)
        except SingularSystemError as error:
            result = error.result
    return result, any(issubclass(w.category, LinAlgWarning) for w in caught)


def batches(count: int) -> Iterator[Batch]:
    """Yield `count` systems of every kind, in batches."""
    for kind in KINDS:
        for start in range(0, count, BATCH):
            yield Batch(kind, range(start, min(start + BATCH, count)))


def check(count: int) -> Check:
    """Let every model solve `count` systems of every kind."""
    failures: list[str] = []
    parts = []
    for batch in batches(count):
        for name in models():
            cases, wrong = batch.tried(fakes.shipped(name))
            parts.append(cases)
            failures += wrong
    cases = np.concatenate(parts)
    counts = {
        "answered by a network": cases["network"],
        "in distribution": cases["in_distribution"],
        "certified": cases["certified"],
        "LinAlgWarning": cases["warned"],
        "SingularSystemError": cases["singular"],
        "SingularSystemError, and not from scipy.linalg.solve": cases["singular"] & ~cases["scipy_raised"],
        "LinAlgError from scipy.linalg.solve": cases["scipy_raised"],
        "certified, and LinAlgError from scipy.linalg.solve": cases["certified"] & cases["scipy_raised"],
        f"error of x known to {RESOLVED:.0%}": cases["resolved"],
        f"not resolved by longdouble, certified, and {FACTOR:g} times worse than SciPy's": (
            cases["worse"] & cases["certified"]
        ),
    }
    claim = f"the error of a certified answer is at most {FACTOR:g} times SciPy's plus {FACTOR:g} n eps cond(A, x)"
    data = {"by_kind": by_kind(cases), "forward_error": forward_error(cases)}
    summed = {what: int(chosen.sum()) for what, chosen in counts.items()}
    return Check("ill-conditioned systems", claim, len(cases), failures, summed, data)


def by_kind(cases: Array) -> list[dict[str, Any]]:
    """Return for every kind of matrix who answered, and the largest error of a certified answer per limit."""
    rows = []
    for kind in KINDS:
        chosen = cases[cases["kind"] == kind]
        limited = chosen[chosen["certified"] & np.isfinite(chosen["limit"]) & np.isfinite(chosen["error"])]
        keys = ("network", "in_distribution", "certified", "warned", "singular")
        rows.append(
            {"kind": kind, "cases": len(chosen)}
            | {key: int(chosen[key].sum()) for key in keys}
            | {"failed": int(failed(chosen).sum())}
            | {"of_limit_max": float(np.max(limited["error"] / limited["limit"], initial=0.0))}
        )
    return rows


def forward_error(cases: Array) -> list[dict[str, Any]]:
    """Return how often `forward_error` was not below the true error, inside the family and outside, by who answered.

    Returns
    -------
    list of dict
        cases : answers whose true error is known; unknown : those of them without an estimate (NaN); infinite : those
        with an infinite one; held : the share of the others, infinite ones included, that are at least the true error;
        overestimate_median : of estimate / true error, finite ones only; worst : the largest true error / estimate.
    """
    rows = []
    for inside in (True, False):
        for network in (True, False):
            of = cases[(cases["inside"] == inside) & (cases["network"] == network) & cases["resolved"]]
            known = of[~np.isnan(of["estimate"])]
            held = known["estimate"] >= known["true"]
            numbers = known[np.isfinite(known["estimate"]) & (known["true"] > 0)]
            factor = numbers["estimate"] / numbers["true"]
            least = float(factor.min(initial=np.inf))
            rows.append(
                {
                    "inside": inside,
                    "answered_by": "network" if network else "LAPACK",
                    "cases": len(of),
                    "unknown": len(of) - len(known),
                    "infinite": int(np.isinf(known["estimate"]).sum()),
                    "held": float(held.mean()) if len(known) else None,
                    "overestimate_median": float(np.median(factor)) if len(factor) else None,
                    "worst": finite(1 / least if least > 0 else np.inf),
                }
            )
    return rows
