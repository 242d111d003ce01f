"""Is a network worth it for this family? How fast the singular values of its inverses decay, what a refinement gains,
how many are needed, and the time of a certified solve against the strongest rivals', measured in turn in the same run.

Not one of the studies of `algebraformer study`: `algebraformer train` writes this report when it is given a family, and
`assess` makes it for any head that is linear in b. For estimates of noisy systems see `noisy_assessment`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import LinAlgWarning

from algebraformer import rivals
from algebraformer.checkpoint import CheckpointInfo, dump_json
from algebraformer.errors import ConfigurationError, FallbackWarning
from algebraformer.linalg import FloatArray
from algebraformer.metrics import relative_errors, score
from algebraformer.models.config import EstimateConfig
from algebraformer.noisy_assessment import assess_estimates
from algebraformer.numerics import gcr
from algebraformer.problems import NoisyFamily, ProblemFamily
from algebraformer.progress import ProgressCallback, batches, silent
from algebraformer.reporting import Cell, Report, TableData, conclusions
from algebraformer.result import plain
from algebraformer.rivals import Rival
from algebraformer.solver import LearnedSolver
from algebraformer.training.automatic import spectrum
from algebraformer.training.data import SCALER_SEED, TEST_SEED, capped_sample_size
from algebraformer.training.error_sources import error_sources
from algebraformer.verdict import SENTENCES, kind_of_systems, outcomes

BATCH_ENTRIES = 2**26
"""Entries that the matrices of a timed batch have at most: half a gigabyte, and 64 systems at n = 1024."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    systems: int = 500
    """Unseen systems that are solved; fewer where n is large."""
    contractions: int = 200
    """Systems whose eigenvalues are computed; fewer where n is large, 8 at least."""
    inverses: int = 200
    """Systems whose inverses are compared with basis and network; fewer where n is large."""
    batches: tuple[int, ...] = (1, 16, 64, 256)
    """Systems per call whose time is measured; fewer where n is large."""
    seconds: float = 2.0
    """Time of measurement per batch size; three rounds at least."""
    structure: int = 256
    """Matrices that tell which rivals apply, and whose mean some of them use; fewer where n is large."""
    judged: int = 100
    """Unseen systems that a rival has to solve to count; fewer where n is large."""
    training: int = 4096
    """Systems of the training that are looked through for matrices of the unseen systems; fewer where n is large."""


def contraction(solver: LearnedSolver, A: FloatArray) -> FloatArray:
    """Return the spectral radii (B,) of I - M A: by how much a refinement x + M (b - A x) shrinks the error in the end.

    Infinite where M is not finite.

    Parameters
    ----------
    solver : LearnedSolver
        With a linear head.
    A : ndarray, shape (B, n, n)
    """
    n, radii = A.shape[-1], []
    step = max(1, 2**24 // n**2)
    for i in range(0, len(A), step):
        part = A[i : i + step]
        radii.append(gcr.contraction(part, solver.network.approximate_inverse(part)))
    return np.concatenate(radii)


def rivals_of(family: ProblemFamily, count: int, rtol: float | None = None) -> list[Rival]:
    """Return the classical ways that apply to a family, by the structure of this many of its matrices."""
    parts = batches(count, max(1, 2**24 // family.n**2))
    structure = rivals.Structure.of(family.assembled(part, SCALER_SEED)[0] for part in parts)
    return rivals.rivals_for(structure, rtol)


def digests(A: FloatArray) -> list[bytes]:
    """Return a hash of the bytes of each matrix of A (B, n, n)."""
    return [hashlib.blake2b(np.ascontiguousarray(matrix).data, digest_size=16).digest() for matrix in A]


def trained_on(info: CheckpointInfo, family: ProblemFamily, count: int) -> set[bytes]:
    """Return `digests` of the first systems that a training took its steps on, `count` at most.

    Empty if that is unknown: the checkpoint has no recipe, or was trained on another family than this one.
    """
    if (training := training_set(info, family)) is None:
        return set()
    found: set[bytes] = set()
    for indices in batches(min(count, training[1]), max(1, min(256, 2**24 // family.n**2))):
        found.update(digests(family.assembled(indices, training[0])[0]))
    return found


def training_set(info: CheckpointInfo, family: ProblemFamily) -> tuple[int, int] | None:
    """Return seed and number of the systems that a training took its steps on, None if that is unknown."""
    recipe, same = info.recipe, dump_json(family.settings()) == dump_json(info.family)
    if not same or not {"seed", "samples", "steps", "batch_size"} <= set(recipe):
        return None
    return recipe["seed"], recipe["samples"] or recipe["steps"] * recipe["batch_size"]


def assess(
    solver: LearnedSolver | Path | str,
    family: ProblemFamily | None = None,
    *,
    plan: Plan | None = None,
    rtol: float | None = None,
    training_seconds: float | None = None,
    progress: ProgressCallback = silent,
) -> Report:
    """Measure what a head is worth for its family, on systems it has never seen: one linear in b, or an estimate head.

    These are other draws than those of the training. A family that draws from a finite set of matrices may draw the
    same ones again: the report counts them, and its outcome is then inconclusive. `problems.stored` holds some out.

    Parameters
    ----------
    solver : LearnedSolver or path
        With a linear head, such as an operator head, or an estimate head; a path as in
        `LearnedSolver.from_pretrained`.
    family : ProblemFamily, optional
        Family of the systems; that of the checkpoint, which must be registered, if None.
    plan : Plan, optional
        How much is measured; of estimates `systems` alone.
    rtol : float, optional
        Tolerance of the certificate, see `linalg.is_certified`.
    training_seconds : float, optional
        What the training took: then the report says after how many solves it has paid for itself.
    progress : callable
        Called with the number of parts that are done and the number in all.

    Returns
    -------
    Report
        Its first table holds the measures, its second one the times, its third one the rivals; outcome
        "assessment.worth-it" says whether the network is worth it: faster than the best rival. For an estimate head see
        `noisy_assessment.assess_estimates`: worth it means more accurate. data is what `plotting.assessment_figure`
        draws.

    Raises
    ------
    ConfigurationError
        The model's head is neither linear in b nor an estimate head, or the family does not fit it.
    UnknownNameError
        The family of the checkpoint is not registered in this process.
    """
    plan = plan or Plan()
    if not isinstance(solver, LearnedSolver):
        solver = LearnedSolver.from_pretrained(solver)
    family = family or solver.info.problem_family()
    if isinstance(solver.network.config.head, EstimateConfig):
        _check_size(solver, family)
        if rtol is not None:
            raise ConfigurationError("rtol is for certified solves: estimates of noisy systems have no certificate")
        if not isinstance(family, NoisyFamily):
            raise ConfigurationError(f"the model estimates from noisy systems; family {family.name} is not noisy")
        return assess_estimates(solver, family, plan.systems, training_seconds, progress)
    solver.network.check_linear()
    _check_size(solver, family)
    n, rank = solver.n, solver.network.config.head.basis_rank
    total = 6 + len(plan.batches)
    progress(0, total)
    systems = family.sample(capped_sample_size(plan.systems, n), TEST_SEED)
    drawn, seen = digests(systems.A), trained_on(solver.info, family, capped_sample_size(plan.training, n))
    progress(1, total)
    values = np.empty(0) if rank is None else spectrum(family)
    progress(2, total)
    values = values / (values.max(initial=0.0) or 1.0)  # all of them are 0 where every system has the same matrix
    radii = contraction(solver, systems.A[: capped_sample_size(min(plan.contractions, max(8, 2**24 // n**2)), n)])
    progress(3, total)
    result = solver.solve(systems.A, systems.b, rtol, fallback=False)
    progress(4, total)
    errors = relative_errors(result.x, systems)
    sources = None
    if rank is not None:
        known = training_set(solver.info, family)
        sources = error_sources(solver.model, family, capped_sample_size(plan.inverses, n), known)
    progress(5, total)
    with warnings.catch_warnings():
        for category in (LinAlgWarning, FallbackWarning):  # the table counts the systems that LAPACK answers
            warnings.simplefilter("ignore", category)
        ways = rivals_of(family, min(plan.structure, max(32, BATCH_ENTRIES // 2 // n**2)), rtol)
        few = systems[: min(plan.judged, max(8, 2**23 // n**2))]
        judged = rivals.judge(ways, few.A, few.b, few.x, rtol)
        progress(6, total)
        timing = rivals.race(
            lambda A, b: solver.solve(A, b, rtol).x,
            rivals.contenders(judged),
            systems.A,
            systems.b,
            sorted({min(size, len(systems), max(1, BATCH_ENTRIES // n**2)) for size in plan.batches}),
            plan.seconds,
            lambda done: progress(6 + done, total),
        )
    progress(total, total)
    data: dict[str, Any] = {
        "family": family.settings(),
        "model": solver.info.name,
        "n": n,
        "rank": rank,
        "rtol": rtol,
        "systems": len(systems),
        "matrices": len(set(drawn)),
        "repeated": sum(digest in seen for digest in drawn),
        "spectrum": [] if rank is None else values.tolist()[: 2 * rank + 16],
        "behind": None if rank is None else float(values[min(rank, len(values) - 1)]),
        "n_read": None if rank is None else solver.model.operator_head.basis.sampler.mean.size,
        "errors": None if sources is None else dataclasses.asdict(sources),
        "contraction": np.where(np.isfinite(radii), radii, 1e300).tolist(),
        "certified": float(np.mean(result.certified)),
        "refinements": result.refinements[result.certified].tolist(),
        "relative_error_median": float(np.median(errors[result.certified])) if result.certified.any() else None,
        "relative_error_max": float(errors[result.certified].max()) if result.certified.any() else None,
        "in_distribution": float(np.mean(result.in_distribution)),
        "network": plain(score(solver.network, systems)),
        "rivals": [
            {"name": method.name, "condition": method.condition, "counts": method.accuracy.counts}
            | plain(dataclasses.asdict(method.accuracy))
            for method in judged
        ],
        "times": timing,
        "training_seconds": training_seconds,
    }
    found = outcomes(data)
    return Report((_measures(data), _times(data), _rivals(data)), found, conclusions(found, SENTENCES), data)


def _check_size(solver: LearnedSolver, family: ProblemFamily) -> None:
    """Raise `ConfigurationError` unless a family has the shape of a model's systems."""
    (m, n), (rows, columns) = ((thing.n_equations, thing.n) for thing in (solver.network.config, family))
    if columns != n:
        raise ConfigurationError(f"the model is for n = {n}, the family has n = {columns}")
    if rows != m:
        raise ConfigurationError(f"the model is for m = {m} equations, the family has {rows}")


def _measures(data: dict[str, Any]) -> TableData:
    radii, refinements = np.array(data["contraction"]), np.array(data["refinements"] or [np.nan])
    rows: list[list[Cell]] = [
        ["different matrices", data["matrices"]],
        ["systems whose matrix was trained on", data["repeated"]],
        *_basis_rows(data),
        ["normalized_mse of the bare network", data["network"]["normalized_mse"]],
        ["contraction per refinement, median", float(np.median(radii))],
        ["contraction per refinement, 95 %", float(np.quantile(radii, 0.95))],
        [f"contraction per refinement, worst of {len(radii)}", float(radii.max())],
        ["certified without LAPACK", data["certified"]],
        ["refinements needed, median", float(np.median(refinements))],
        ["refinements needed, 95 %", float(np.quantile(refinements, 0.95))],
        ["refinements needed, most", float(refinements.max())],
        ["relative error against LAPACK, median", data["relative_error_median"]],
        ["relative error against LAPACK, worst", data["relative_error_max"]],
    ]
    title = f"{data['model']}, n = {data['n']}: {data['systems']} {kind_of_systems(data)}"
    return TableData(("measure", "value"), [[k, plain(v)] for k, v in rows], title)


def _basis_rows(data: dict[str, Any]) -> list[list[Cell]]:
    """Return what there is to say of a head's basis, if it has one."""
    if data["rank"] is None:
        return []
    errors, most = data["errors"], data["errors"]["most_read"]
    return [
        ["basis operators", data["rank"]],
        ["next singular value / first", data["behind"]],
        ["error of the inverse by the rank", errors["truncation"]],
        ["error by the reading", errors["reading"]],
        [f"error by reading {most} x {most} entries", errors["most_reading"]],
        ["error by the network", errors["network"]],
        ["error by the network on its training systems", errors["network_seen"]],
    ]


def _times(data: dict[str, Any]) -> TableData:
    rows: list[list[Cell]] = [
        [t["batch"], 1e3 * t["ours"], t["best"], 1e3 * t["rival"], t["rival"] / t["ours"], 1e3 * t["lapack"],
         t["lapack"] / t["ours"]]
        for t in data["times"]
    ]  # fmt: skip
    columns = (
        "systems per call", "certified solve (ms per system)", "best rival", "best rival (ms per system)",
        "best rival / ours", "LAPACK's LU (ms per system)", "LAPACK / ours",
    )  # fmt: skip
    return TableData(columns, rows, "Time against the strongest rivals, in turn in the same run")


def _rivals(data: dict[str, Any]) -> TableData:
    """List the methods with their errors, and the time of the faster way of each: with or without a pool."""
    sizes, rows = [t["batch"] for t in data["times"]], []
    for way in data["rivals"]:
        both = way["name"], f"{way['name']}{rivals.POOL}"
        seconds = [
            min((t["rivals"][name] for name in both if name in t["rivals"]), default=None) for t in data["times"]
        ]
        times = [None if value is None else 1e3 * value for value in seconds]
        rows.append([way["name"], way["condition"], way["share"], way["relative_error_max"], *times])
    columns = ("rival", "applies", "share accurate", "relative error, worst", *(f"ms, batch {size}" for size in sizes))
    return TableData(columns, rows, "All rivals; a time is missing where a rival is not accurate, or was far behind")
