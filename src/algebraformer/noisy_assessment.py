"""Is a learned estimator worth it for its noisy family? Its errors beside those of the strongest classical estimates.

`assessment.assess` makes this report for heads that estimate. Outcomes follow from its data alone, and sentences from
the outcomes.
"""

from __future__ import annotations

from typing import Any

from algebraformer.comparison import NETWORK, compare, comparison_table
from algebraformer.evaluation import evaluate_estimates, table
from algebraformer.problems import NoisyFamily
from algebraformer.problems.base import TEST_SEED
from algebraformer.progress import ProgressCallback, silent
from algebraformer.reporting import Outcome, Report, Sentences, Verdict, conclusions, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import capped_sample_size

MARGIN = 0.05
"""A network is worth it if its median error is below the best rival's by more than this share."""


def assess_estimates(
    solver: LearnedSolver,
    family: NoisyFamily,
    systems: int,
    training_seconds: float | None = None,
    progress: ProgressCallback = silent,
) -> Report:
    """Measure what an estimator is worth for its family, on systems it has never seen.

    Parameters
    ----------
    solver : LearnedSolver
        With a head that estimates.
    family : NoisyFamily
    systems : int
        Number of unseen systems, fewer where n is large. The comparison with the rivals has the first 200 at most.
    training_seconds : float, optional
        What the training took; goes into the data.
    progress : callable
        Called with the number of parts that are done and the number in all.

    Returns
    -------
    Report
        Its first table compares with the rivals, see `comparison.compare`; the second one holds the scores of
        `evaluation.evaluate_estimates`. Outcome "assessment.worth-it" says whether the network beats the best rival.
    """
    unseen = family.sample(capped_sample_size(systems, family.n), TEST_SEED)
    scores = evaluate_estimates(solver, unseen)
    compared = compare(lambda A, b: solver.predict(A, b), family, unseen, progress)
    data: dict[str, Any] = {
        "family": family.settings(),
        "model": solver.info.name,
        "n": family.n,
        "m": family.n_equations,
        "systems": len(unseen),
        "estimate": scores["estimate"],
        "comparison": compared,
        "training_seconds": training_seconds,
    }
    found = outcomes(data)
    tables = (comparison_table(compared), table(scores, f"{solver.info.name} on {len(unseen)} unseen systems"))
    return Report(tables, found, conclusions(found, SENTENCES), data)


def outcomes(data: dict[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the data of a report.

    "assessment.worth-it" is worth it where the median error of the network over all noise levels is more than 5 % below
    that of the best rival, whatever that is told. "assessment.noise/LOW–HIGH" compares at every noise level with the
    rival that is best there. "assessment.intervals" has the share of the entries in their 90 % intervals.
    """
    methods = {method["name"]: method for method in data["comparison"]["methods"]}
    network = methods.pop(NETWORK)
    found = {}
    best = min(methods.values(), key=lambda method: method["relative_error_median"])
    errors = network["relative_error_median"], best["relative_error_median"]
    found["assessment.worth-it"] = outcome(
        Verdict.WORTH_IT if errors[0] < (1 - MARGIN) * errors[1] else Verdict.NOT_WORTH_IT,
        n=data["n"], m=data["m"], systems=data["comparison"]["systems"], network=errors[0], rival=errors[1],
        best=best["name"], told=best["told"], ratio=errors[1] / errors[0], seconds=network["seconds"],
        rival_seconds=best["seconds"],
    )  # fmt: skip
    for number, (low, high, count) in enumerate(data["comparison"]["levels"]):
        at_level = {name: method["by_level"][number] for name, method in methods.items()}
        ours, nearest = network["by_level"][number], min(at_level, key=at_level.__getitem__)
        found[f"assessment.noise/{low:g}–{high:g}"] = outcome(
            Verdict.MEASURED, low=low, high=high, systems=count, network=ours, rival=at_level[nearest], best=nearest,
            ratio=at_level[nearest] / ours,
        )  # fmt: skip
    scores = data["estimate"]
    found["assessment.intervals"] = outcome(
        Verdict.MEASURED, systems=data["systems"], coverage=scores["coverage"], consistent=scores["consistent"],
        in_distribution=scores["in_distribution"],
    )  # fmt: skip
    return found


def _worth_sentence(found: Outcome) -> str:
    """Say whether the network is worth it; starts with "Worth it" or "Not worth it"."""
    worth = "Worth it" if found.verdict == Verdict.WORTH_IT else "Not worth it"
    return worth + (
        " for this family: median relative error {network:.3g}; of the best rival ({best}, told: {told}) {rival:.3g}, "
        "{ratio:.2g} times as large. Time per system: {:.3g} and {:.3g} ms."
    ).format(1e3 * found.numbers["seconds"], 1e3 * found.numbers["rival_seconds"], **found.numbers)


def _intervals_sentence(found: Outcome) -> str:
    """Say what the intervals hold, and how many of the family's own systems are flagged."""
    percent = {name: 100 * found.numbers[name] for name in ("coverage", "consistent", "in_distribution")}
    return (
        "The 90 % intervals hold {coverage:.3g} % of the entries of {systems} unseen systems, of which "
        "{consistent:.4g} % are consistent and {in_distribution:.4g} % in distribution."
    ).format(systems=found.numbers["systems"], **percent)


SENTENCES: Sentences = {
    "assessment.worth-it": _worth_sentence,
    "assessment.noise": "Noise {low:g} to {high:g}: relative error {network:.3g}, best rival ({best}) {rival:.3g}.",
    "assessment.intervals": _intervals_sentence,
}
