"""What the runs of the study `transfer` add up to: epochs to an error, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Report, TableData
from algebraformer.result import plain
from studies.harness.study import distinct, number, where

SCRATCH, FINE = "from scratch", "fine-tuned"
PAPER_SIZE, PAPER_N, PAPER_EPOCHS = 9_511_169, 64, 1_000
"""Parameters, n and epochs from scratch in the paper."""
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
    """Put the runs into tables and sentences."""
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
    return Report(tables, verdict(comparisons, records, len(seeds)), data)


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


# ---------------------------------------------------------------- sentences


def verdict(comparisons: Sequence[Record], records: Sequence[Record], seeds: int) -> list[str]:
    """Return plain sentences."""
    longest = max(c["reference"] for c in comparisons)
    lines = []
    for head in distinct(comparisons, "head"):
        lines.append(conclusion(head, where(comparisons, head=head, reference=longest)))
    for comparison in comparisons:
        if comparison["reference"] == longest:
            lines.append(sentence(comparison, seeds))
            lines.append(in_the_end(comparison))
    lines += readings(records)
    lines.append(effort(records))
    return lines


def conclusion(head: str, chosen: Sequence[Record]) -> str:
    """Return whether a head does what the paper claims, or what is wanted of ours."""
    target = TARGETS[chosen[0]["type"]]
    good = [c["family"] for c in chosen if c["fewer"] >= target]
    bad = [c["family"] for c in chosen if c["fewer"] < target]
    found = "; ".join(f"{c['family']} {factor(c)}" for c in chosen)
    if chosen[0]["type"] == "operator":
        outcome = (
            "met" if not bad else "missed" if not good else f"met on {', '.join(good)}, missed on {', '.join(bad)}"
        )
        return f"{head.capitalize()}: the target of {target:g} times fewer epochs is {outcome} ({found})."
    full = all(c["parameters"] >= PAPER_SIZE and c["n"] >= PAPER_N for c in chosen)
    full = full and chosen[0]["reference"] >= PAPER_EPOCHS
    if bad and good:
        outcome = f"reproduced {'' if full else 'at smaller scale '}on {', '.join(good)} and not on {', '.join(bad)}"
    elif bad:
        outcome = "not reproduced"
    else:
        outcome = "reproduced" if full else "reproduced at smaller scale"
    size = "" if full else f"; {chosen[0]['parameters']:,} parameters, n = {chosen[0]['n']}"
    return f"{head.capitalize()}: the paper's 100 epochs instead of 1,000 are {outcome} ({found}{size})."


def factor(comparison: Record) -> str:
    """Return how many times fewer epochs, in words."""
    return f"{comparison['fewer']:.3g} times fewer" if comparison["fine"] < math.inf else "not reached"


def sentence(comparison: Record, seeds: int) -> str:
    """Return what fine-tuning gains on one task, and how much of it a short run from scratch gains as well."""
    c = comparison
    where = f"{c['head'].capitalize()}, {c['samples']:,} systems of {c['family']}"
    goal = f"the normalized_mse of {c['reference']:,} epochs from scratch, {c['error']:.2g},"
    if c["fine"] == math.inf:
        reached = f"{c['reached']} of {seeds} seeds do" if c["reached"] else "no seed does"
        return f"{where}: fine-tuning ({c['variants'][FINE]}) does not reach {goal} at any length ({reached})."
    text = (
        f"{where}: fine-tuning ({c['variants'][FINE]}) reaches {goal} after {c['fine']:g} "
        f"epoch{'' if c['fine'] == 1 else 's'}, {c['fewer']:.3g} times fewer"
    )
    if c["scratch"] >= c["reference"]:
        return f"{text}; no shorter run from scratch gets there."
    return (
        f"{text}. A shorter run from scratch, of {c['scratch']:g} epochs, gets there too: beside it "
        f"{c['beside_short_runs']:.3g} times fewer."
    )


def in_the_end(comparison: Record) -> str:
    """Return which of both ends lower, each at its best length."""
    c = comparison
    better = "lower" if c["fine_lowest"] < c["scratch_lowest"] else "not lower"
    return (
        f"{c['head'].capitalize()}, {c['family']}: at its best length fine-tuning ends {better} than training from "
        f"scratch, {c['fine_lowest']:.2g} after {c['fine_epochs']:,} against {c['scratch_lowest']:.2g} after "
        f"{c['scratch_epochs']:,} epochs."
    )


def readings(records: Sequence[Record]) -> list[str]:
    """Return what whitened reading is worth, wherever both ways were tried."""
    lines = []
    tried = where(records, trial=True)
    for head, family, kind in distinct(tried, "head", "family", "kind"):
        own = where(tried, head=head, family=family, kind=kind)
        plain_name = "new weights" if kind == SCRATCH else "basis refitted"
        found = {
            name: min(map(validation, where(own, variant=name)), default=None)
            for name in (plain_name, f"{plain_name}, whitened")
        }
        plain_error, whitened = found.values()
        if plain_error is not None and whitened is not None:
            lines.append(
                f"{head.capitalize()}, {family}, {kind}: plain entries {plain_error:.2g}, whitened ones {whitened:.2g} "
                "(normalized_mse on the validation set, trials)."
            )
    return lines


def effort(records: Sequence[Record]) -> str:
    """Return how much was tried for each kind."""
    parts = []
    for kind in (SCRATCH, FINE):
        tried = where(records, trial=True, kind=kind)
        parts.append(f"{len(tried)} trials of {tried[0]['epochs']} epochs {kind}")
    return (
        f"Variants and learning rates were chosen on the frozen validation set with the first seed: {', '.join(parts)}."
    )
