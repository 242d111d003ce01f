"""What came out of the study `condition`: averages over the seeds, tables, and sentences that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Report, TableData, finite
from studies.harness.study import LEARNED, distinct, where

WORKS = 0.99
"""A network works where it solves this share of the systems without LAPACK."""
FAR = (1e5, 1e6)
"""The condition numbers of the experiment that the paper's summary proposes, outside the training."""
ROUNDING = 1.01
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
    return not row["inside"] and FAR[0] <= ROUNDING * row["kappa"] and row["kappa"] <= ROUNDING * FAR[1]


def span(rows: Sequence[Row]) -> str:
    """Return the condition numbers of some rows as text.

    Examples
    --------
    >>> span([{"kappa": 1e3}, {"kappa": 1e4}]), span([{"kappa": 350.0}])
    ('1.0e+03 to 1.0e+04', '3.5e+02')
    """
    low, high = min(row["kappa"] for row in rows), max(row["kappa"] for row in rows)
    return f"{low:.1e}" if high <= ROUNDING * low else f"{low:.1e} to {high:.1e}"


def reach(rows: Sequence[Row]) -> str:
    """Return where a network works, as text: ranges of neighbouring groups, or nothing."""
    runs = groupby(sorted(rows, key=lambda row: row["kappa"]), key=lambda row: row["solved"] >= WORKS)
    return ", ".join(span(list(run)) for works, run in runs if works)


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
        *pair, span(inside), mean(inside, "normalized_mse"), mean(inside, "contraction"),
        float(np.median(refinements)) if refinements else None, mean(inside, "solved"),
        mean(far, "normalized_mse") if far else None, mean(far, "solved") if far else None,
        reach(of(rows, pair)) or "nowhere",
    ]  # fmt: skip


def summary(systems: int, about: list[Row], records: list[Row]) -> Report:
    """Put runs and measurements into tables and sentences."""
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
    data = {"systems": systems, "runs": about, "rows": rows, "works": WORKS, "learned": LEARNED}
    return Report((main, every, runs), verdict(rows, systems, records), data)


# ---------------------------------------------------------------- sentences


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.4g} %"


def named(pair: tuple[str, str]) -> str:
    """Return a subject and a head as text."""
    return f"{pair[0]} ({pair[1]})"


def verdict(rows: Sequence[Row], systems: int, records: Sequence[Row]) -> list[str]:
    """Return plain sentences."""
    return [
        *haar_verdict(rows), lost_verdict(rows), around_verdict(rows), beyond_verdict(rows), *where_verdict(rows),
        distance_verdict(rows), certified_verdict(systems, records),
    ]  # fmt: skip


def haar_verdict(rows: Sequence[Row]) -> list[str]:
    """Say whether networks of this size invert matrices whose factors are any orthogonal ones."""
    lines = []
    for pair in (pair for pair in pairs(rows) if HAAR in pair[0]):
        inside = of(rows, pair, True)
        mse, solved = mean(inside, "normalized_mse"), mean(inside, "solved")
        if solved >= WORKS:
            outcome = "a network of this size inverts them"
        elif mse < LEARNED:
            outcome = "a network of this size learns something about them, and does not solve them"
        else:
            outcome = "a network of this size does not learn to invert them"
        lines.append(
            f"Haar-random matrices ({pair[0]}, {pair[1]}): {outcome}. At condition numbers of the training, "
            f"{span(inside)}, its normalized_mse is {mse:.2g}, where 1 is answering zero, and it solves "
            f"{percent(solved)} of the systems without LAPACK."
        )
    return lines


def lost_verdict(rows: Sequence[Row]) -> str:
    """Say what becomes of the error where the condition number is far above that of the training."""
    compared = []
    for pair in pairs(rows):
        near, far = mean(of(rows, pair, True), "normalized_mse"), [row for row in of(rows, pair) if is_far(row)]
        if near < LEARNED and far:
            compared.append((pair, near, mean(far, "normalized_mse")))
    claim = '"Less accurate where the condition number is far above that of the training"'
    if not compared:
        return (
            f"{claim}: not decided, since no network that was tested at kappa from 1e5 to 1e6 has learned its family."
        )
    worse = [pair for pair, near, far in compared if not far <= near]
    if len(worse) == len(compared):
        outcome = "reproduced at smaller scale"
    elif worse:
        outcome = f"holds for {len(worse)} of {len(compared)} networks"
    else:
        outcome = "not reproduced"
    parts = [f"{near:.2g} to {far:.2g} for {named(pair)}" for pair, near, far in compared]
    return (
        f"{claim}: {outcome}. From the training to kappa from 1e5 to 1e6 the normalized_mse of networks that have "
        f"learned their family goes from {'; '.join(parts)}."
    )


def around_verdict(rows: Sequence[Row]) -> str:
    """Say what networks reach that are trained on condition numbers around 1e5."""
    found = []
    for pair in pairs(rows):
        inside = of(rows, pair, True)
        if 3e4 <= float(np.median([row["kappa"] for row in inside])) <= 3e6:
            mse, solved = mean(inside, "normalized_mse"), mean(inside, "solved")
            found.append((mse, f"{named(pair)}, kappa {span(inside)}: {mse:.2g} and {percent(solved)}"))
    if not found:
        return "Condition numbers around 1e5 in the training: no family of this study has them."
    learned = sum(mse < LEARNED for mse, _ in found)
    outcome = "reproduced at smaller scale" if learned else "not reproduced"
    return (
        f'"It copes with condition numbers around 1e5": {outcome}, {learned} of {len(found)} networks that are trained '
        f"there have learned their family. Their normalized_mse, and the share solved without LAPACK: "
        f"{'; '.join(text for _, text in found)}."
    )


def beyond_verdict(rows: Sequence[Row]) -> str:
    """Say whether systems with condition numbers far above 1e5 are solved by a network."""
    far = [row for row in rows if ROUNDING * row["kappa"] >= FAR[1]]
    if not far:
        return "Condition numbers far above 1e5: none of this study's groups has them."
    works = [row for row in far if row["solved"] >= WORKS]
    text = f"Condition numbers far above 1e5 (1e6 and more): {len(works)} of {len(far)} groups and networks work"
    if not works:
        best = max(far, key=lambda row: row["solved"])
        place = f"{named((best['subject'], best['head']))} at kappa {best['kappa']:.1e}"
        return f"{text}; the largest share solved without LAPACK is {percent(best['solved'])}, {place}."
    parts = [f"{named(pair)}: {reach(mine)}" for pair in pairs(works) if (mine := of(works, pair))]
    return f"{text}: {'; '.join(parts)}."


def where_verdict(rows: Sequence[Row]) -> list[str]:
    """Say for which condition numbers every network works."""
    found = {pair: reach(of(rows, pair)) for pair in pairs(rows)}
    works = [f"{named(pair)}: {text}" for pair, text in found.items() if text]
    shares = {pair: mean(of(rows, pair, True), "solved") for pair in found}
    nowhere = [f"{named(pair)}, {percent(shares[pair])}" for pair, text in found.items() if not text]
    lines = []
    if works:
        lines.append(f"It works, {percent(WORKS)} solved without LAPACK, for kappa as follows. {'; '.join(works)}.")
    if nowhere:
        lines.append(f"It works nowhere, with the share solved inside the family: {'; '.join(nowhere)}.")
    return lines


def distance_verdict(rows: Sequence[Row]) -> str:
    """Say how far the distance from the family of the training decides."""
    working = [pair for pair in pairs(rows) if mean(of(rows, pair, True), "solved") >= WORKS]
    mine = [row for pair in working for row in of(rows, pair)]
    near, away = ([row for row in mine if (row["distance"] <= 1) == side] for side in (True, False))
    if not mine:
        return "Distance from the training: no network works inside its family, so there is nothing to lose outside."
    parts = [
        f"{percent(mean(group, 'solved'))} in {len(group)} groups whose median distance is {what}"
        for group, what in ((near, "at most 1"), (away, "above 1"))
        if group
    ]
    return f"Distance from the training: networks that work inside their family solve {' and '.join(parts)}."


def certified_verdict(systems: int, records: Sequence[Row]) -> str:
    """Say whether every answer was certified, whoever gave it."""
    total = systems * len(records)
    missing = round(systems * sum(1 - one["certified"] for one in records))
    if not missing:
        return f"All {total} answers of solve are certified, whatever the condition number: LAPACK gives the rest."
    return f"Of {total} answers of solve {missing} are not certified, and solve says so."
