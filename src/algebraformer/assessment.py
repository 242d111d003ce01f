"""Is a network worth it for this family? How fast the singular values of its inverses decay, what a refinement gains,
how many are needed, and the time of a certified solve against LAPACK's, measured in turn in the same run.

Not one of the studies of `algebraformer study`: `algebraformer train` writes this report when it is given a family, and
`assess` makes it for any head that is linear in b.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import LinAlgWarning

from algebraformer.checkpoint import CheckpointInfo, dump_json
from algebraformer.errors import ConfigurationError, FallbackWarning
from algebraformer.linalg import FloatArray
from algebraformer.metrics import relative_errors, score
from algebraformer.numerics import gcr
from algebraformer.problems import ProblemFamily, Systems
from algebraformer.progress import ProgressCallback, batches, silent
from algebraformer.reporting import (
    Cell,
    Outcome,
    Report,
    Sentences,
    TableData,
    Verdict,
    conclusions,
    outcome,
)
from algebraformer.result import plain
from algebraformer.solver import LearnedSolver
from algebraformer.training.automatic import READING_GAIN, READING_TOLERANCE, spectrum
from algebraformer.training.data import TEST_SEED, capped_sample_size
from algebraformer.training.error_sources import error_sources

MIN_CERTIFIED = 0.99
"""Share of systems that have to be certified without LAPACK's help for a method to count as a solver of the family."""
TIMING_NOISE = 0.05
"""Times that differ by less than this share count as equal."""
MAX_ERROR = 1e-2
"""Errors of the inverse up to this are small: a refinement leaves a hundredth, and a better network saves few."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    systems: int = 500
    """Unseen systems that are solved; fewer where n is large."""
    contractions: int = 200
    """Systems whose eigenvalues are computed; fewer where n is large, 8 at least."""
    inverses: int = 200
    """Systems whose inverses are compared with basis and network; fewer where n is large."""
    batches: tuple[int, ...] = (1, 16, 256)
    """Systems per call whose time is measured."""
    seconds: float = 2.0
    """Time of measurement per batch size; three rounds at least."""
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


def times(
    solver: LearnedSolver, systems: Systems, batch: int, seconds: float, rtol: float | None
) -> tuple[float, float]:
    """Return the median time per system of certified solves and of numpy.linalg.solve, in seconds, in turn.

    Ours are complete: reading, network, refinement, certificate, and LAPACK for what is not certified. NumPy certifies
    nothing. Every round takes other systems of the sample.
    """
    ours: list[float] = []
    numpy: list[float] = []
    count, begin = len(systems) // batch, time.perf_counter()
    while len(ours) < 4 or time.perf_counter() - begin < seconds:
        part = slice(len(ours) % count * batch, (len(ours) % count + 1) * batch)
        A, b = systems.A[part].copy(), systems.b[part].copy()
        clock = [time.perf_counter()]
        solver.solve(A, b, rtol)
        clock.append(time.perf_counter())
        np.linalg.solve(A, b[:, :, None])
        clock.append(time.perf_counter())
        ours.append(clock[1] - clock[0])
        numpy.append(clock[2] - clock[1])
    return float(np.median(ours[1:])) / batch, float(np.median(numpy[1:])) / batch  # the first round warms up


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
    """Measure what a linear head is worth for its family, on systems it has never seen.

    These are other draws than those of the training. A family that draws from a finite set of matrices may draw the
    same ones again: the report counts them, and its outcome is then inconclusive. `problems.stored` holds some out.

    Parameters
    ----------
    solver : LearnedSolver or path
        With a linear head, such as an operator head; a path as in `LearnedSolver.from_pretrained`.
    family : ProblemFamily, optional
        Family of the systems; that of the checkpoint, which must be registered, if None.
    plan : Plan, optional
        How much is measured.
    rtol : float, optional
        Tolerance of the certificate, see `linalg.is_certified`.
    training_seconds : float, optional
        What the training took: then the report says after how many solves it has paid for itself.
    progress : callable
        Called with the number of parts that are done and the number in all.

    Returns
    -------
    Report
        Its first table holds the measures, its second one the times; outcome "assessment.worth-it" says whether the
        network is worth it. data is what `plotting.assessment_figure` draws.

    Raises
    ------
    ConfigurationError
        The model's head is not linear in b, or the family has another number of unknowns.
    UnknownNameError
        The family of the checkpoint is not registered in this process.
    """
    plan = plan or Plan()
    if not isinstance(solver, LearnedSolver):
        solver = LearnedSolver.from_pretrained(solver)
    family = family or solver.info.problem_family()
    solver.network.check_linear()
    n, rank = solver.n, solver.network.config.head.basis_rank
    if family.n != n:
        raise ConfigurationError(f"the model is for n = {n}, the family has n = {family.n}")
    total = 5 + len(plan.batches)
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
    timing = []
    with warnings.catch_warnings():
        for category in (LinAlgWarning, FallbackWarning):  # the table counts the systems that LAPACK answers
            warnings.simplefilter("ignore", category)
        for batch in sorted({min(size, len(systems)) for size in plan.batches}):
            timing.append((batch, *times(solver, systems, batch, plan.seconds, rtol)))
            progress(5 + len(timing), total)
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
        "times": [{"batch": batch, "ours": ours, "numpy": numpy} for batch, ours, numpy in timing],
        "training_seconds": training_seconds,
    }
    found = outcomes(data)
    return Report((_measures(data), _times(data)), found, conclusions(found, SENTENCES), data)


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
    title = f"{data['model']}, n = {data['n']}: {data['systems']} {_kind(data)}"
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
    rows = [[t["batch"], 1e3 * t["ours"], 1e3 * t["numpy"], t["numpy"] / t["ours"]] for t in data["times"]]
    columns = ("systems per call", "certified solve (ms per system)", "numpy.linalg.solve (ms per system)", "speed-up")
    return TableData(columns, rows, "Time against LAPACK, in turn in the same run")


def _kind(data: dict[str, Any]) -> str:
    """Return what the systems are called that the measures were taken on."""
    return "partly seen systems" if data["repeated"] else "unseen systems"


def outcomes(data: dict[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the data of a report.

    "assessment.worth-it" is worth it where at least 99 % of unseen systems are certified without LAPACK, and at the
    largest batch that was measured a certified solve takes less time than NumPy's batched LAPACK, by more than 5 %. It
    is inconclusive where the matrix of one or more systems was found among those of the training, bit for bit.
    """
    largest, radii = data["times"][-1], np.array(data["contraction"])
    ours, numpy, certified, repeated = largest["ours"], largest["numpy"], data["certified"], data["repeated"]
    faster, enough = ours < (1 - TIMING_NOISE) * numpy, certified >= MIN_CERTIFIED
    worth = Verdict.WORTH_IT if faster and enough else Verdict.NOT_WORTH_IT
    found = {
        "assessment.worth-it": outcome(
            Verdict.INCONCLUSIVE if repeated else worth, n=data["n"], batch=largest["batch"], ours=ours, numpy=numpy,
            speed_up=numpy / ours, certified=certified, systems=data["systems"], repeated=repeated,
        ),
    }  # fmt: skip
    if worth == Verdict.WORTH_IT and not repeated:
        first = next(t["batch"] for t in data["times"] if t["ours"] < (1 - TIMING_NOISE) * t["numpy"])
        found["assessment.faster-from"] = outcome(Verdict.MEASURED, batch=first)
        if data["training_seconds"]:
            solves = data["training_seconds"] / (numpy - ours)
            found["assessment.payback"] = outcome(Verdict.MEASURED, seconds=data["training_seconds"], solves=solves)
    found["assessment.accuracy"] = outcome(
        Verdict.MEASURED, certified=certified, systems=data["systems"], kind=_kind(data),
        contraction_median=float(np.median(radii)), contraction_95=float(np.quantile(radii, 0.95)),
        contraction_max=float(radii.max()),
    )  # fmt: skip
    if data["matrices"] < data["systems"]:
        found["assessment.matrices"] = outcome(Verdict.MEASURED, matrices=data["matrices"], systems=data["systems"])
    errors = data["errors"]
    if errors is None:
        if not repeated and not enough:
            found["assessment.limit"] = outcome(Verdict.MEASURED, limit="unknown")
    elif not repeated and (not enough or errors["truncation"] + errors["network"] > MAX_ERROR):
        found["assessment.limit"] = outcome(
            Verdict.MEASURED, limit=_limit(**errors), rank=data["rank"], n_read=data["n_read"], **errors
        )
    if not repeated and enough and not faster:
        found["assessment.size"] = outcome(Verdict.MEASURED, n=data["n"])
    return found


def _limit(
    truncation: float,
    network: float,
    network_seen: float | None,
    reading: float,
    most_reading: float,
    most_read: int,
) -> str:
    """Return what limits the accuracy: rank, reading, samples or training; see `ErrorSources` for the errors.

    The rank where the basis leaves more than the network adds. The reading where the network is as good as what it
    reads, within a factor of two, and more entries would leave less than half open. Samples where the network has less
    than half its error on those of its training. Else training.
    """
    if truncation >= network:
        return "rank"
    as_good = network / READING_GAIN <= reading <= READING_GAIN * network
    if as_good and reading > max(READING_TOLERANCE, READING_GAIN * most_reading):
        return "reading"
    return "samples" if network_seen is not None and network_seen < network / 2 else "training"


def _worth_sentence(found: Outcome) -> str:
    """Say whether the network is worth it; starts with "Worth it", "Not worth it" or "Not judged"."""
    numbers = found.numbers
    size = "{:.3g} ms per certified solve against {:.3g} ms for LAPACK (n = {n}, {batch} systems per call)".format(
        1e3 * numbers["ours"], 1e3 * numbers["numpy"], **numbers
    )
    if found.verdict == Verdict.INCONCLUSIVE:
        return (
            "Not judged on unseen matrices: the matrices of {repeated} of the {systems} systems of this report were "
            "used in training. If the matrices of the family are stored, make it with algebraformer.problems.stored, "
            "which holds some of them out. On the systems of this report: "
        ).format(**numbers) + f"{size}."
    if found.verdict == Verdict.WORTH_IT:
        return f"Worth it for this family: {size}, {numbers['speed_up']:.2g} times as fast."
    reasons = []
    if numbers["certified"] < MIN_CERTIFIED:
        reasons.append(f"only {100 * numbers['certified']:.3g} % of unseen systems are certified without LAPACK")
    if numbers["ours"] >= (1 - TIMING_NOISE) * numbers["numpy"]:
        reasons.append(f"it is not faster: {size}")
    return f"Not worth it for this family: {' and '.join(reasons)}."


def _accuracy_sentence(found: Outcome) -> str:
    """Say how many systems are certified, and how much of the error a refinement leaves."""
    return (
        "{share:.4g} % of {systems} {kind} are certified without LAPACK; one refinement leaves "
        "{contraction_median:.1e} "
        "of the error (median), {contraction_95:.1e} (95 %), {contraction_max:.1e} (worst)."
    ).format(share=100 * found.numbers["certified"], **found.numbers)


_LIMITS = {
    "unknown": "Longer training, more samples or a larger network may help.",
    "rank": "The rank limits the accuracy: {rank} basis operators leave an error of {truncation:.1e}, and the network "
    "adds {network:.1e}. A larger rank, or fewer or narrower parameters, would help; longer training would not.",
    "reading": "The reading limits the accuracy: the {n_read} entries that are read leave {reading:.1e} of the inverse "
    "open, {most_read} x {most_read} entries {most_reading:.1e}; the network's error is {network:.1e}. Reading more "
    "would help; longer training would not.",
    "samples": "The number of samples limits the accuracy: the network's error is {network_seen:.1e} on the systems of "
    "its training and {network:.1e} on others. More samples would help.",
    "training": "Training limits the accuracy: the network's error is {network:.1e}, the basis leaves "
    "{truncation:.1e}. Longer training or a larger network would help.",
}
SENTENCES: Sentences = {
    "assessment.worth-it": _worth_sentence,
    "assessment.faster-from": "It is faster from {batch} systems per call on, of the sizes that were measured.",
    "assessment.payback": "The training of {seconds:.0f} s is paid back after {solves:.2g} solves.",
    "assessment.accuracy": _accuracy_sentence,
    "assessment.matrices": "The {systems} systems have {matrices} different matrices.",
    "assessment.size": "It converges, so what is missing is size: LAPACK's work grows as n^3, that of a learned solve "
    "as n^2. As a fixed preconditioner, or where no factorisation is wanted, it may be useful all the same.",
    "assessment.limit": lambda found: _LIMITS[str(found.numbers["limit"])].format(**found.numbers),
}
