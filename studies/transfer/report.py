"""What the runs of the study `transfer` add up to: epochs to an error, tables and outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.result import plain
from studies.harness.study import FULL_SIZE, distinct, number, where

SCRATCH, FINE = "from scratch", "fine-tuned"
PAPER_N, PAPER_EPOCHS = 64, 1_000
"""n and epochs from scratch in the paper."""
TARGETS = {"token": 10.0, "operator": 30.0}
"""How many times fewer epochs are wanted of a head of this type; of the token head what the paper claims."""

Record = dict[str, Any]


def error(record: Record) -> float:
    """Return normalized_mse on the test set, infinity if it is not finite."""
    return number(record["normalized_mse"])


def epochs_to(points: Sequence[tuple[int, float]], target: float) -> float:
    """Return the least number of epochs at whose end the error is not above the target; infinity if there is none.

    Nothing is interpolated: every point is a run of its own.

    Examples
    --------
    >>> epochs_to([(100, 0.01), (1, 0.3), (10, 0.05)], 0.1)
    10.0
    """
    return float(min((epochs for epochs, value in points if value <= target), default=math.inf))


def compare(records: Sequence[Record], seeds: Sequence[int], reference: int) -> Record:
    """Return how soon fine-tuning reaches the final error of `reference` epochs from scratch, and scratch itself does.

    Parameters
    ----------
    records : sequence of dict
        Runs of one head on one task, no trials.
    seeds : sequence of int
        Fine-tuning is held against the run from scratch on the same systems.
    reference : int

    Returns
    -------
    dict
        Medians over the seeds, infinity where most do not get there: `error` of scratch at the reference, `fine` and
        `scratch` epochs to it, `fewer` = reference / fine, `beside_short_runs` = scratch / fine; and `reached`, the
        number of seeds with which fine-tuning gets there.
    """
    points = {
        (kind, seed): [(r["epochs"], error(r)) for r in where(records, kind=kind, seed=seed)]
        for kind in (SCRATCH, FINE)
        for seed in seeds
    }
    targets = [dict(points[SCRATCH, seed])[reference] for seed in seeds]
    fine = [epochs_to(points[FINE, seed], target) for seed, target in zip(seeds, targets, strict=True)]
    scratch = [epochs_to(points[SCRATCH, seed], target) for seed, target in zip(seeds, targets, strict=True)]
    soon, own = median(fine), median(scratch)
    return {
        "reference": reference,
        "error": median(targets),
        "fine": soon,
        "scratch": own,
        "fewer": reference / soon,
        "beside_short_runs": own / soon,
        "reached": int(np.isfinite(fine).sum()),
    }


def median(values: Sequence[float]) -> float:
    """Return the middle value, the upper one of two: infinity unless more than half are finite."""
    return sorted(values)[len(values) // 2]


def summary(records: list[Record], seeds: Sequence[int], references: Sequence[int]) -> Report:
    """Put the runs into tables and outcomes."""
    comparisons, main, tuning, curves = [], [], [], []
    for head, family in distinct(records, "head", "family"):
        own = where(records, head=head, family=family)
        runs, first = where(own, trial=False), own[0]
        for reference in references:
            found = compare(runs, seeds, reference)
            about = {name: first[name] for name in ("head", "type", "family", "samples", "n", "parameters")}
            chosen = {r["kind"]: r["variant"] for r in runs}, {r["kind"]: r["rate"] for r in runs}
            lowest = dict(zip(("scratch_epochs", "scratch_lowest"), best_length(runs, SCRATCH), strict=True))
            lowest |= dict(zip(("fine_epochs", "fine_lowest"), best_length(runs, FINE), strict=True))
            comparisons.append(about | found | lowest | {"variants": chosen[0], "rates": chosen[1]})
            main.append(row(comparisons[-1], len(seeds)))
        tuning += trials(own)
        for kind in (SCRATCH, FINE):
            for epochs, middle in by_length(runs, kind).items():
                values = [error(r) for r in where(runs, kind=kind, epochs=epochs)]
                curves.append([head, family, kind, epochs, middle, min(values), max(values)])
    columns = (
        "head", "n", "family", "systems", "epochs from scratch", "its normalized_mse", "fine-tuned: epochs to it",
        "seeds that reach it", "times fewer", "shortest run from scratch to it", "times fewer than that",
    )  # fmt: skip
    trial_columns = (
        "head", "family", "kind", "variant", "best rate", "normalized_mse on the validation set", "on the test set",
    )  # fmt: skip
    rates = len(distinct(where(records, trial=True), "rate"))
    tables = (
        TableData(columns, main, f"Epochs to the final error from scratch, medians of {len(seeds)} seeds"),
        TableData(
            trial_columns, tuning, f"What was tried: the best of {rates} learning rates each, one seed, short runs"
        ),
        TableData(
            ("head", "family", "kind", "epochs", "normalized_mse, median", "best", "worst"),
            curves,
            "Learning curves: every point is a run to the end of its schedule",
        ),
    )
    data = {"records": records, "comparisons": plain(comparisons), "references": list(references)}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def by_length(runs: Sequence[Record], kind: str) -> dict[int, float]:
    """Return the median error of each length of a kind, ascending."""
    lengths = sorted(distinct(where(runs, kind=kind), "epochs"))
    return {epochs: median([error(r) for r in where(runs, kind=kind, epochs=epochs)]) for epochs in lengths}


def best_length(runs: Sequence[Record], kind: str) -> tuple[int, float]:
    """Return the length of a kind with the lowest median error, and that error."""
    return min(by_length(runs, kind).items(), key=lambda item: item[1])


def row(comparison: Record, seeds: int) -> list[Cell]:
    """Return a row of the main table."""
    reached = comparison["fine"] < math.inf
    names = "head", "n", "family", "samples", "reference", "error"
    return [
        *(comparison[name] for name in names),
        int(comparison["fine"]) if reached else "not reached",
        f"{comparison['reached']} of {seeds}",
        comparison["fewer"] if reached else None,
        int(comparison["scratch"]) if comparison["scratch"] < math.inf else None,
        comparison["beside_short_runs"] if reached else None,
    ]


def trials(own: Sequence[Record]) -> list[list[Cell]]:
    """Return, for every variant, its trial with the lowest error on the validation set."""
    rows: list[list[Cell]] = []
    for kind, variant in distinct(where(own, trial=True), "kind", "variant"):
        best = min(where(own, trial=True, kind=kind, variant=variant), key=validation)
        rows.append([best["head"], best["family"], kind, variant, best["rate"], best["validation"], error(best)])
    return rows


def validation(record: Record) -> float:
    """Return normalized_mse on the validation set, infinity if it is not finite."""
    return number(record["validation"])


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return how many times fewer epochs fine-tuning needs, where it ends, and what whitening gains."""
    records = data["records"]
    seeds = len(distinct(where(records, trial=False), "seed"))
    chosen = where(data["comparisons"], reference=max(data["references"]))
    found = {
        f"transfer.fewer-epochs/{head}": fewer_epochs(where(chosen, head=head)) for head in distinct(chosen, "head")
    }
    for c in chosen:
        task = f"{c['head']}, {c['family']}"
        names = (
            "head",
            "family",
            "samples",
            "reference",
            "error",
            "fine",
            "fewer",
            "scratch",
            "beside_short_runs",
            "reached",
        )
        found[f"transfer.epochs/{task}"] = outcome(
            Verdict.FAILS if c["fine"] is None else Verdict.HOLDS, **{name: c[name] for name in names}, seeds=seeds,
            variant=c["variants"][FINE],
        )  # fmt: skip
        fine, scratch = number(c["fine_lowest"]), number(c["scratch_lowest"])
        found[f"transfer.lowest-error/{task}"] = outcome(
            Verdict.HOLDS if fine < scratch else Verdict.FAILS, head=c["head"], family=c["family"], fine=fine,
            fine_epochs=c["fine_epochs"], scratch=scratch, scratch_epochs=c["scratch_epochs"],
        )  # fmt: skip
    tried = where(records, trial=True)
    found |= whitening(tried)
    found["transfer.trials"] = outcome(Verdict.MEASURED, **{
        f"{name} {what}": value
        for name, kind in (("scratch", SCRATCH), ("fine", FINE))
        for what, value in (("trials", len(where(tried, kind=kind))), ("epochs", where(tried, kind=kind)[0]["epochs"]))
    })  # fmt: skip
    return found


def fewer_epochs(chosen: Sequence[Record]) -> Outcome:
    """Return whether a head does on every task what the paper claims, or what was aimed at with ours."""
    first, good = chosen[0], [c["family"] for c in chosen if c["fewer"] >= TARGETS[c["type"]]]
    if first["type"] == "operator":
        verdict = Verdict.PARTLY if 0 < len(good) < len(chosen) else met(bool(good))
    elif len(good) < len(chosen):
        verdict = Verdict.PARTLY_REPRODUCED if good else Verdict.NOT_REPRODUCED
    else:
        full = all(c["parameters"] >= FULL_SIZE and c["n"] >= PAPER_N for c in chosen)
        verdict = Verdict.REPRODUCED if full and first["reference"] >= PAPER_EPOCHS else Verdict.SMALLER_SCALE
    return outcome(
        verdict, head=first["head"], target=TARGETS[first["type"]], parameters=first["parameters"], n=first["n"],
        tasks=len(chosen), met=len(good), **{c["family"]: c["fewer"] for c in chosen},
    )  # fmt: skip


def whitening(tried: Sequence[Record]) -> dict[str, Outcome]:
    """Return what whitened entries gain, wherever both ways were tried; holds if their error is lower."""
    found = {}
    for head, family, kind in distinct(tried, "head", "family", "kind"):
        own = where(tried, head=head, family=family, kind=kind)
        name = "new weights" if kind == SCRATCH else "basis refitted"
        errors = [
            min(map(validation, where(own, variant=variant)), default=None) for variant in (name, f"{name}, whitened")
        ]
        if errors[0] is not None and errors[1] is not None:
            found[f"transfer.whitening/{head}, {family}, {kind}"] = outcome(
                Verdict.HOLDS if errors[1] < errors[0] else Verdict.FAILS, head=head, family=family, kind=kind,
                plain=errors[0], whitened=errors[1],
            )  # fmt: skip
    return found


# ---------------------------------------------------------------- sentences


def fewer_sentence(found: Outcome) -> str:
    """Say whether a head does what is claimed or aimed at."""
    numbers = found.numbers
    tasks = ", ".join(
        f"{key} {value:.3g}" if value else f"{key} not reached"
        for key, value in numbers.items()
        if key not in FEWER_KEYS
    )
    return (
        f"{str(numbers['head']).capitalize()} ({{parameters:,}} parameters, n = {{n}}): at least {{target:g}} times "
        f"fewer epochs by fine-tuning: {found.verdict} ({tasks})."
    ).format(**numbers)


FEWER_KEYS = ("head", "target", "parameters", "n", "tasks", "met")


def epochs_sentence(found: Outcome) -> str:
    """Say what fine-tuning gains on one task, and how much of it a short run from scratch gains as well."""
    numbers = found.numbers
    start = "{}, {samples:,} systems of {family}: fine-tuning ({variant})".format(
        str(numbers["head"]).capitalize(), **numbers
    )
    goal = "the normalized_mse of {reference:,} epochs from scratch, {error:.2g},".format(**numbers)
    if found.verdict == Verdict.FAILS:
        return f"{start} does not reach {goal} at any length ({{reached}} of {{seeds}} seeds do).".format(**numbers)
    text = f"{start} reaches {goal} after {{fine:g}} epochs, {{fewer:.3g}} times fewer".format(**numbers)
    if numbers["scratch"] is None or numbers["scratch"] >= numbers["reference"]:
        return f"{text}; no shorter run from scratch gets there."
    return (
        f"{text}. A shorter run from scratch, of {{scratch:g}} epochs, gets there too; compared with that it is "
        "{beside_short_runs:.3g} times fewer."
    ).format(**numbers)


def lowest_sentence(found: Outcome) -> str:
    """Say which of both ends lower, each at its best length."""
    lower = "lower" if found.verdict == Verdict.HOLDS else "not lower"
    return (
        f"{str(found.numbers['head']).capitalize()}, {{family}}: at its best length fine-tuning ends {lower} than "
        f"training "
        "from scratch, {fine:.2g} after {fine_epochs:,} epochs against {scratch:.2g} after {scratch_epochs:,}."
    ).format(**found.numbers)


SENTENCES: Sentences = {
    "transfer.fewer-epochs": fewer_sentence,
    "transfer.epochs": epochs_sentence,
    "transfer.lowest-error": lowest_sentence,
    "transfer.whitening": lambda found: (
        f"{str(found.numbers['head']).capitalize()}, {{family}}, {{kind}}: normalized_mse on the validation set "
        f"(trials) "
        "{plain:.2g} with plain entries, {whitened:.2g} with whitened ones."
    ).format(**found.numbers),
    "transfer.trials": lambda found: (
        "Variants and learning rates were chosen on the frozen validation set with the first seed: {} trials of {} "
        "epochs from scratch, {} trials of {} epochs fine-tuned."
    ).format(*found.numbers.values()),
}
