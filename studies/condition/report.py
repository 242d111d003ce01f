"""What came out of the study `condition`: averages over the seeds, tables, and outcomes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, finite, outcome
from studies.harness.study import MAX_LEARNED_MSE, distinct, where

MIN_SOLVED = 0.99
"""A network works where it solves this share of the systems without LAPACK."""
AROUND_KAPPAS = (3e4, 3e6)
"""Median condition numbers of the training that count as around 1e5."""
FAR_KAPPAS = (1e5, 1e6)
"""The condition numbers of the experiment that the paper's summary proposes, outside the training."""
KAPPA_TOLERANCE = 1.01
HAAR = "Haar"
Row = dict[str, Any]


def averaged(records: Sequence[Row]) -> list[Row]:
    """Return one row per subject, head and group: means over the seeds of mse and shares, medians of the rest."""
    rows = []
    for subject, head, group in distinct(records, "subject", "head", "group"):
        mine = where(records, subject=subject, head=head, group=group)
        refinements = [one["refinements"] for one in mine if one["refinements"] is not None]
        mse = [float(one["normalized_mse"]) for one in mine]
        row = {
            "normalized_mse": finite(float(np.mean(mse))),
            "normalized_mse_min": finite(min(mse)),
            "normalized_mse_max": finite(max(mse)),
            "contraction": finite(float(np.median([float(one["contraction"]) for one in mine]))),
            "distance": float(np.median([one["distance"] for one in mine])),
            "solved": 1 - float(np.mean([one["lapack"] for one in mine])),
            "certified": float(np.mean([one["certified"] for one in mine])),
            "refinements": float(np.median(refinements)) if refinements else None,
        }
        rows.append({name: mine[0][name] for name in ("subject", "head", "group", "inside", "kappa")} | row)
    return rows


@np.errstate(invalid="ignore")
def mean(rows: Sequence[Row], key: str) -> float:
    """Return the mean of a number over rows, NaN of none."""
    return float(np.mean([float(row[key]) for row in rows])) if rows else float("nan")


def is_far(row: Row) -> bool:
    """Say whether a group lies outside the training, at the condition numbers of the proposed experiment."""
    return (
        not row["inside"]
        and FAR_KAPPAS[0] <= KAPPA_TOLERANCE * row["kappa"]
        and row["kappa"] <= KAPPA_TOLERANCE * FAR_KAPPAS[1]
    )


def span(rows: Sequence[Row]) -> dict[str, float]:
    """Return the smallest and the largest condition number of some rows."""
    kappas = [row["kappa"] for row in rows]
    return {"kappa_min": min(kappas), "kappa_max": max(kappas)}


def span_in_words(rows: Sequence[Row]) -> str:
    """Return the condition numbers of some rows as text.

    Examples
    --------
    >>> span_in_words([{"kappa": 1e3}, {"kappa": 1e4}]), span_in_words([{"kappa": 350.0}])
    ('1.0e+03 to 1.0e+04', '3.5e+02')
    """
    low, high = span(rows).values()
    return f"{low:.1e}" if high <= KAPPA_TOLERANCE * low else f"{low:.1e} to {high:.1e}"


def reach(rows: Sequence[Row]) -> str:
    """Return where a network works, as text: ranges of neighbouring groups, or nothing."""
    runs = groupby(sorted(rows, key=lambda row: row["kappa"]), key=lambda row: row["solved"] >= MIN_SOLVED)
    return ", ".join(span_in_words(list(run)) for works, run in runs if works)


def pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return all pairs of a subject and a head."""
    return distinct(rows, "subject", "head")


def of(rows: Sequence[Row], pair: tuple[str, str], inside: bool | None = None) -> list[Row]:
    """Return the rows of a subject and a head, inside the training or outside if that is asked for."""
    mine = where(rows, subject=pair[0], head=pair[1])
    return mine if inside is None else where(mine, inside=inside)


# ---------------------------------------------------------------- tables


def main_row(rows: Sequence[Row], pair: tuple[str, str]) -> list[Cell]:
    """Return the row of one subject and head."""
    inside, far = of(rows, pair, True), [row for row in of(rows, pair) if is_far(row)]
    refinements = [row["refinements"] for row in inside if row["refinements"] is not None]
    return [
        *pair, span_in_words(inside), mean(inside, "normalized_mse"), mean(inside, "contraction"),
        float(np.median(refinements)) if refinements else None, mean(inside, "solved"),
        mean(far, "normalized_mse") if far else None, mean(far, "solved") if far else None,
        reach(of(rows, pair)) or "nowhere",
    ]  # fmt: skip


def summary(systems: int, about: list[Row], records: list[Row]) -> Report:
    """Put runs and measurements into tables and outcomes."""
    rows = averaged(records)
    seeds = ", ".join(map(str, distinct(about, "seed")))
    main = TableData(
        ("family", "network", "kappa of the training", "normalized_mse there", "contraction", "refinements, median",
         "solved without LAPACK", "normalized_mse at kappa 1e5 to 1e6", "solved without LAPACK there",
         "works for kappa"),
        [main_row(rows, pair) for pair in pairs(rows)],
        f"Seeds {seeds}, {systems} systems per group",
    )  # fmt: skip
    keys = (
        "subject", "head", "group", "inside", "kappa", "distance", "normalized_mse", "normalized_mse_min",
        "normalized_mse_max", "contraction", "refinements", "solved", "certified",
    )  # fmt: skip
    every = TableData(
        ("family", "network", "group", "in the training", "kappa, median", "distance", "normalized_mse, mean", "best",
         "worst", "contraction", "refinements, median", "solved without LAPACK", "certified"),
        [[row[key] if not isinstance(row[key], str) or key in keys[:3] else float(row[key]) for key in keys]
         for row in rows],
        "Every group: means and medians over the seeds",
    )  # fmt: skip
    runs = TableData(
        ("family", "network", "n", "parameters", "seconds of training, median"),
        [[*pair, mine[0]["n"], mine[0]["parameters"], float(np.median([one["seconds"] for one in mine]))]
         for pair in pairs(rows) if (mine := of(about, pair))],
        "Networks",
    )  # fmt: skip
    data = {"systems": systems, "runs": about, "rows": rows, "works": MIN_SOLVED, "learned": MAX_LEARNED_MSE}
    found = outcomes(data)
    return Report((main, every, runs), found, conclusions(found, SENTENCES), data)


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the averaged rows."""
    rows = data["rows"]
    return {
        **{f"condition.haar/{pair[1]}": haar(rows, pair) for pair in pairs(rows) if HAAR in pair[0]},
        **far_above_training(rows),
        **around_1e5(rows),
        "condition.beyond-1e5": beyond_1e5(rows),
        **{f"condition.works/{named(pair)}": where_it_works(rows, pair) for pair in pairs(rows)},
        "condition.distance": by_distance(rows),
        "condition.certified": certified(rows, data["systems"] * len(distinct(data["runs"], "seed"))),
    }


def haar(rows: Sequence[Row], pair: tuple[str, str]) -> Outcome:
    """Return whether networks of this size invert matrices whose factors are any orthogonal ones.

    Holds if they solve the systems; in part if they learn something about them.
    """
    inside = of(rows, pair, True)
    mse, solved = mean(inside, "normalized_mse"), mean(inside, "solved")
    verdict = Verdict.HOLDS if solved >= MIN_SOLVED else Verdict.PARTLY if mse < MAX_LEARNED_MSE else Verdict.FAILS
    return outcome(verdict, network=named(pair), **span(inside), normalized_mse=mse, solved=solved)


def far_above_training(rows: Sequence[Row]) -> dict[str, Outcome]:
    """Return how much accuracy is lost where the condition number is far above that of the training.

    Only networks count that have learned their family.
    """
    found = {}
    for pair in pairs(rows):
        near, far_rows = mean(of(rows, pair, True), "normalized_mse"), [row for row in of(rows, pair) if is_far(row)]
        if near < MAX_LEARNED_MSE and far_rows:
            far = mean(far_rows, "normalized_mse")
            verdict = Verdict.FAILS if far <= near else Verdict.HOLDS
            found[f"condition.lost/{named(pair)}"] = outcome(verdict, network=named(pair), near=near, far=far)
    worse = sum(one.verdict == Verdict.HOLDS for one in found.values())
    ratios = [one.numbers["far"] / one.numbers["near"] for one in found.values()]
    verdict = claim_verdict(worse, len(found))
    whole = outcome(verdict, worse=worse, networks=len(found), **extremes("ratio", ratios))
    return {"condition.far-above-training": whole, **found}


def claim_verdict(good: int, total: int) -> Verdict:
    """Return what a claim comes to that holds for so many of all networks."""
    if not total:
        return Verdict.INCONCLUSIVE
    return {total: Verdict.SMALLER_SCALE, 0: Verdict.NOT_REPRODUCED}.get(good, Verdict.PARTLY_REPRODUCED)


def extremes(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return the smallest and the largest value, None of none."""
    return {f"{name}_min": min(values, default=None), f"{name}_max": max(values, default=None)}


def around_1e5(rows: Sequence[Row]) -> dict[str, Outcome]:
    """Return what networks reach that are trained on condition numbers around 1e5: do any learn their family?"""
    found = {}
    for pair in pairs(rows):
        inside = of(rows, pair, True)
        if AROUND_KAPPAS[0] <= float(np.median([row["kappa"] for row in inside])) <= AROUND_KAPPAS[1]:
            mse, solved = mean(inside, "normalized_mse"), mean(inside, "solved")
            verdict = Verdict.HOLDS if mse < MAX_LEARNED_MSE else Verdict.FAILS
            numbers = span(inside) | {"normalized_mse": mse, "solved": solved}
            found[f"condition.trained-around-1e5/{named(pair)}"] = outcome(verdict, network=named(pair), **numbers)
    learned = sum(one.verdict == Verdict.HOLDS for one in found.values())
    solved_range = extremes("solved", [one.numbers["solved"] for one in found.values()])
    verdict = Verdict.INCONCLUSIVE if not found else Verdict.SMALLER_SCALE if learned else Verdict.NOT_REPRODUCED
    return {"condition.around-1e5": outcome(verdict, learned=learned, networks=len(found), **solved_range), **found}


def beyond_1e5(rows: Sequence[Row]) -> Outcome:
    """Return in how many groups far above 1e5 a network solves the systems."""
    far = [row for row in rows if KAPPA_TOLERANCE * row["kappa"] >= FAR_KAPPAS[1]]
    if not far:
        return outcome(Verdict.INCONCLUSIVE, works=0, groups=0, best=None, kappa=None, solved=None)
    works = sum(row["solved"] >= MIN_SOLVED for row in far)
    best = max(far, key=lambda row: row["solved"])
    return outcome(
        Verdict.HOLDS if works == len(far) else Verdict.PARTLY if works else Verdict.FAILS, works=works,
        groups=len(far), best=named((best["subject"], best["head"])), kappa=best["kappa"], solved=best["solved"],
    )  # fmt: skip


def where_it_works(rows: Sequence[Row], pair: tuple[str, str]) -> Outcome:
    """Return for which condition numbers a network solves its systems; in part if not for all of its training."""
    found, inside = reach(of(rows, pair)), of(rows, pair, True)
    everywhere = all(row["solved"] >= MIN_SOLVED for row in inside)
    verdict = Verdict.HOLDS if everywhere else Verdict.PARTLY if found else Verdict.FAILS
    return outcome(verdict, network=named(pair), kappa=found, solved_inside=mean(inside, "solved"))


def by_distance(rows: Sequence[Row]) -> Outcome:
    """Return what networks that work inside their family solve, by the median distance of the groups."""
    working = [pair for pair in pairs(rows) if mean(of(rows, pair, True), "solved") >= MIN_SOLVED]
    chosen = [row for pair in working for row in of(rows, pair)]
    numbers: dict[str, float | int | None] = {"networks": len(working)}
    for side, near in (("near", True), ("far", False)):
        group = [row for row in chosen if (row["distance"] <= 1) == near]
        numbers |= {f"{side}_groups": len(group), f"{side}_solved": mean(group, "solved") if group else None}
    return Outcome(Verdict.MEASURED if chosen else Verdict.INCONCLUSIVE, numbers)


def certified(rows: Sequence[Row], systems: int) -> Outcome:
    """Return how many answers were certified, by the network or LAPACK."""
    missing = round(systems * sum(1 - row["certified"] for row in rows))
    return outcome(Verdict.FAILS if missing else Verdict.HOLDS, answers=systems * len(rows), missing=missing)


# ---------------------------------------------------------------- sentences


def haar_sentence(found: Outcome) -> str:
    """Say whether Haar-random matrices are learned."""
    result = {
        Verdict.HOLDS: "are inverted by a network of this size",
        Verdict.PARTLY: "are learned in part by a network of this size, but not solved",
        Verdict.FAILS: "are not learned by a network of this size",
    }[found.verdict]
    return (
        f"Haar-random matrices {result} ({{network}}): at condition numbers of the training, "
        f"{range_in_words(found)}, its normalized_mse is {{normalized_mse:.2g}} (1 is answering zero), and it solves "
        f"{percent(found.numbers['solved'])} of the systems without LAPACK."
    ).format(**found.numbers)


def range_in_words(found: Outcome) -> str:
    """Return the condition numbers of an outcome as text."""
    return span_in_words([{"kappa": found.numbers["kappa_min"]}, {"kappa": found.numbers["kappa_max"]}])


def around_sentence(found: Outcome) -> str:
    """Say how many networks learn families with condition numbers around 1e5."""
    if found.verdict == Verdict.INCONCLUSIVE:
        return "Condition numbers around 1e5 in the training: no family of this study has them."
    return (
        '"It copes with condition numbers around 1e5": {verdict}. {learned} of {networks} networks that are trained '
        "there have learned their family."
    ).format(verdict=found.verdict, **found.numbers)


def beyond_sentence(found: Outcome) -> str:
    """Say whether systems with condition numbers far above 1e5 are solved by a network."""
    if found.verdict == Verdict.INCONCLUSIVE:
        return "Condition numbers far above 1e5: no group of this study has them."
    return (
        "Condition numbers of 1e6 and more: solved without LAPACK in {works} of {groups} groups. The largest share is "
        f"{percent(found.numbers['solved'])}, {{best}} at kappa {{kappa:.1e}}."
    ).format(**found.numbers)


def works_sentence(found: Outcome) -> str:
    """Say for which condition numbers a network works."""
    share = percent(found.numbers["solved_inside"])
    if found.verdict == Verdict.FAILS:
        return f"{found.numbers['network']}: works nowhere; {share} solved without LAPACK inside the family."
    return (
        f"{found.numbers['network']}: works ({percent(MIN_SOLVED)} solved without LAPACK) for kappa "
        f"{found.numbers['kappa']}; {share} solved inside the family."
    )


def distance_sentence(found: Outcome) -> str:
    """Say how the share of solved systems depends on the distance from the training."""
    numbers = found.numbers
    if found.verdict == Verdict.INCONCLUSIVE:
        return "Distance from the training: no network works inside its family, so nothing can be lost outside."
    parts = [
        f"{percent(numbers[f'{side}_solved'])} in {numbers[f'{side}_groups']} groups with a median distance {what}"
        for side, what in (("near", "of at most 1"), ("far", "above 1"))
        if numbers[f"{side}_groups"]
    ]
    return f"Distance from the training: networks that work inside their family solve {' and '.join(parts)}."


SENTENCES: Sentences = {
    "condition.haar": haar_sentence,
    "condition.far-above-training": lambda found: (
        '"Less accurate where the condition number is far above that of the training": {verdict}, for {worse} of '
        "{networks} networks that have learned their family."
    ).format(verdict=found.verdict, **found.numbers),
    "condition.lost": "{network}: normalized_mse {near:.2g} in the training, {far:.2g} at kappa from 1e5 to 1e6.",
    "condition.around-1e5": around_sentence,
    "condition.trained-around-1e5": lambda found: (
        f"{found.numbers['network']}, trained at kappa {range_in_words(found)}: normalized_mse "
        f"{found.numbers['normalized_mse']:.2g}, {percent(found.numbers['solved'])} solved without LAPACK."
    ),
    "condition.beyond-1e5": beyond_sentence,
    "condition.works": works_sentence,
    "condition.distance": distance_sentence,
    "condition.certified": "{answers} answers of solve, {missing} of them not certified.",
}


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.4g} %"


def named(pair: tuple[str, str]) -> str:
    """Return a subject and a head as text."""
    return f"{pair[0]} ({pair[1]})"
