"""What the report of `assess` says: whether a network is worth it for its family, against the strongest rival.

Outcomes follow from the data of a report alone, and sentences from the outcomes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from algebraformer.reporting import Outcome, Sentences, Verdict, outcome
from algebraformer.training.automatic import READING_GAIN, READING_TOLERANCE

MIN_CERTIFIED = 0.99
"""Share of systems that have to be certified without LAPACK's help for a method to count as a solver of the family."""
TIMING_NOISE = 0.05
"""Times that differ by less than this share count as equal."""
MAX_ERROR = 1e-2
"""Errors of the inverse up to this are small: a refinement leaves a hundredth, and a better network saves few."""


def kind_of_systems(data: dict[str, Any]) -> str:
    """Return what the systems are called that the measures were taken on."""
    return "partly seen systems" if data["repeated"] else "unseen systems"


def outcomes(data: dict[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the data of a report.

    "assessment.worth-it" is worth it where at least 99 % of unseen systems are certified without LAPACK, and at one or
    more of the batch sizes that were measured a certified solve takes less time than the fastest rival, by more than
    5 %. It has the times of the largest of these, or of the largest batch. It is inconclusive where the matrix of one
    or more systems was found among those of the training, bit for bit. "assessment.rival" compares at every batch
    size.
    """
    certified, repeated, radii = data["certified"], data["repeated"], np.array(data["contraction"])
    wins = [t for t in data["times"] if t["ours"] < (1 - TIMING_NOISE) * t["rival"]]
    faster, enough, shown = bool(wins), certified >= MIN_CERTIFIED, (wins or data["times"])[-1]
    worth = Verdict.WORTH_IT if faster and enough else Verdict.NOT_WORTH_IT
    found = {
        "assessment.worth-it": outcome(
            Verdict.INCONCLUSIVE if repeated else worth, n=data["n"], certified=certified, systems=data["systems"],
            repeated=repeated, faster_at=", ".join(str(t["batch"]) for t in wins), **comparison(shown),
        ),
    }  # fmt: skip
    for t in data["times"]:
        found[f"assessment.rival/batch {t['batch']}"] = outcome(Verdict.MEASURED, **comparison(t))
    if worth == Verdict.WORTH_IT and not repeated and data["training_seconds"]:
        solves = data["training_seconds"] / (shown["rival"] - shown["ours"])
        found["assessment.payback"] = outcome(Verdict.MEASURED, seconds=data["training_seconds"], solves=solves)
    found["assessment.accuracy"] = outcome(
        Verdict.MEASURED, certified=certified, systems=data["systems"], kind=kind_of_systems(data),
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
        found["assessment.size"] = outcome(Verdict.MEASURED, n=data["n"], best=shown["best"])
    return found


def comparison(t: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of one batch size: seconds per system, the best rival, and how many times as fast ours is."""
    return {
        "batch": t["batch"],
        "ours": t["ours"],
        "rival": t["rival"],
        "best": t["best"],
        "speed_up": t["rival"] / t["ours"],
        "lapack": t["lapack"],
        "over_lapack": t["lapack"] / t["ours"],
    }


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
    size = (
        "{:.3g} ms per certified solve against {:.3g} ms for the fastest rival ({best}; n = {n}, {batch} systems per "
        "call)"
    ).format(1e3 * numbers["ours"], 1e3 * numbers["rival"], **numbers)
    if found.verdict == Verdict.INCONCLUSIVE:
        return (
            "Not judged on unseen matrices: the matrices of {repeated} of the {systems} systems of this report were "
            "used in training. If the matrices of the family are stored, make it with algebraformer.problems.stored, "
            "which holds some of them out. On the systems of this report: "
        ).format(**numbers) + f"{size}."
    if found.verdict == Verdict.WORTH_IT:
        return (
            f"Worth it for this family: {size}, {numbers['speed_up']:.2g} times as fast. Of the batch "
            f"sizes that were measured it is faster at {numbers['faster_at']}."
        )
    reasons = []
    if numbers["certified"] < MIN_CERTIFIED:
        reasons.append(f"only {100 * numbers['certified']:.3g} % of unseen systems are certified without LAPACK")
    if not numbers["faster_at"]:
        reasons.append(f"it is not faster: {size}")
    return f"Not worth it for this family: {' and '.join(reasons)}."


def _rival_sentence(found: Outcome) -> str:
    """Name the fastest rival at one batch size."""
    numbers = found.numbers
    return (
        "Batch {batch}: {:.3g} ms per system, the fastest rival ({best}) {:.3g} ms, LAPACK's LU {:.3g} ms: "
        "{speed_up:.2g} and {over_lapack:.2g} times as fast."
    ).format(*(1e3 * numbers[name] for name in ("ours", "rival", "lapack")), **numbers)


def _size_sentence(found: Outcome) -> str:
    """Say why a network that converges is not the fastest."""
    if str(found.numbers["best"]).startswith("banded"):
        return (
            "The matrices are banded, and the factorisation of a band takes O(n) operations: less than to read a full "
            "matrix once."
        )
    return (
        "It converges, so what is missing is size: the work of a factorisation grows as n^3, that of a learned solve "
        "as n^2. As a fixed preconditioner, or where no factorisation is wanted, it may be useful all the same."
    )


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
    "assessment.rival": _rival_sentence,
    "assessment.payback": "The training of {seconds:.0f} s is paid back after {solves:.2g} solves.",
    "assessment.accuracy": _accuracy_sentence,
    "assessment.matrices": "The {systems} systems have {matrices} different matrices.",
    "assessment.size": _size_sentence,
    "assessment.limit": lambda found: _LIMITS[str(found.numbers["limit"])].format(**found.numbers),
}
