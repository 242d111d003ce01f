"""Tables, outcomes and sentences of the study `relatives`, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from algebraformer.reporting import (
    Cell,
    Outcome,
    Report,
    Sentences,
    TableData,
    Verdict,
    conclusions,
    format_cell,
    outcome,
)
from algebraformer.verdict import MIN_CERTIFIED
from studies.baselines.methods import MEAN, NEAREST, SCALED, SNAPSHOTS
from studies.harness.study import distinct, number, where

HEAD, SHIPPED = "operator head", "operator head, shipped"
COEFFICIENTS = "kernel ridge, coefficients"
FACTORS, MEAN_FACTORS = "kernel ridge, Cholesky factors", "kernel ridge, Cholesky factors after the mean"
TRUNK, MEAN_TRUNK = "trunk basis + Jacobi", "trunk basis + scaled mean inverse"
METHODS = (HEAD, COEFFICIENTS, FACTORS, MEAN_FACTORS, TRUNK, MEAN_TRUNK, SNAPSHOTS, NEAREST, SCALED, MEAN)
"""In the order of the tables; the shipped networks come last."""
CHOLESKY, TRUNKS = (FACTORS, MEAN_FACTORS), (TRUNK, MEAN_TRUNK)
TIE = 1.5
"""Contractions within this factor count as equal: there is one training set for each number of systems."""

KEYS = ("contraction_median", "contraction_95")

Record = dict[str, Any]


def summary(records: Sequence[Record]) -> Report:
    """Put the records of all families into tables and outcomes."""
    data = {"records": list(records)}
    found = outcomes(data)
    tables = [main(records), curves(records), details(records)]
    return Report(tables, found, conclusions(found, SENTENCES), data)


# ---------------------------------------------------------------- tables


def main(records: Sequence[Record]) -> TableData:
    """One row per method: what it does on every family after the most systems."""
    most = {family: max(r["N"] for r in where(records, family=family)) for family in distinct(records, "family")}
    last = [r for r in records if r["N"] == most[r["family"]] or r["method"] == SHIPPED]
    rows: list[list[Cell]] = []
    for method in (m for m in (*METHODS, SHIPPED) if where(last, method=m)):
        found = {r["family"]: r for r in where(last, method=method)}
        cost = [value for r in found.values() if (value := ratio(r)) is not None]
        cells = [in_short(found[family]) if family in found else None for family in most]
        rows.append([method, *cells, f"{min(cost):.3g} to {max(cost):.3g}" if cost else None])
    title = "Median contraction; median refinements; share certified, on unseen systems after N systems of training"
    heads = (f"{family}, N = {N}" for family, N in most.items())
    return TableData(("method", *heads, "operations / LU"), rows, title)


def in_short(record: Record) -> str:
    """Return contraction, refinements and share certified as one cell."""
    steps = record["refinements_median"]
    shown = "–" if steps is None else f"{steps:g}"
    return f"{format_cell(record['contraction_median'])}; {shown}; {100 * record['certified']:.3g} %"


def curves(records: Sequence[Record]) -> TableData:
    """One row per family and method: contraction against the number of systems."""
    sizes = distinct(records, "N")
    rows: list[list[Cell]] = []
    for family, method in distinct(records, "family", "method"):
        own = {r["N"]: r for r in where(records, family=family, method=method)}
        if method == SHIPPED:
            continue
        rows.append([family, method, *(own[N][key] if N in own else None for key in KEYS for N in sizes)])
    columns = ("family", "method", *(f"{which}, N = {N}" for which in ("median", "95 %") for N in sizes))
    return TableData(columns, rows, "Contraction on unseen systems against the number N of systems of training")


def details(records: Sequence[Record]) -> TableData:
    """Everything that was measured; times where there are some."""
    timed = all("seconds" in r for r in records)
    rows: list[list[Cell]] = [
        [
            r["family"], r["n"], r["method"], r["samples"], r["contraction_median"], r["contraction_95"],
            r["relative_error_median"], r["certified"], r["refinements_median"], r["refinements_99"], ratio(r),
            *((1e6 * r["seconds"], 1e6 * r["lapack_seconds"]) if timed else ()),
        ]
        for r in records
    ]  # fmt: skip
    columns = (
        "family", "n", "method", "systems", "contraction, median", "contraction, 95 %",
        "relative_error of M b, median", "certified", "refinements, median", "refinements, 99 %", "operations / LU",
        *(("µs per system", "LAPACK, µs per system") if timed else ()),
    )  # fmt: skip
    return TableData(columns, rows, f"All measures on {records[0]['systems']} unseen systems of each family")


def ratio(record: Record) -> float | None:
    """Return the operations of a solve relative to LU's."""
    return None if record["flops"] is None else record["flops"] / record["lu_flops"]


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return who contracts most with most and with fewest systems, how the relatives compare, and what is cheap."""
    records, found = data["records"], {}
    for family in distinct(records, "family"):
        own = [r for r in where(records, family=family) if r["method"] != SHIPPED]
        sizes = distinct(own, "N")
        few, many = (where(own, N=N) for N in (sizes[0], sizes[-1]))
        found[f"relatives.most-systems/{family}"] = sharpest(many)
        found[f"relatives.fewest-systems/{family}"] = sharpest(few)
        found[f"relatives.cholesky/{family}"] = cholesky(many)
        found[f"relatives.network/{family}"] = network(many)
        found[f"relatives.trunk/{family}"] = trunk(many)
    cheap = [r for r in records if r["certified"] >= MIN_CERTIFIED and r["flops"] < r["lu_flops"]]
    names = ", ".join(f"{r['method']} ({r['family']}, N = {r['N']})" for r in cheap)
    verdict = Verdict.HOLDS if cheap else Verdict.FAILS
    found["relatives.cheaper-than-lu"] = outcome(verdict, cases=len(cheap), all=len(records), names=names)
    return found


def contraction(record: Record) -> float:
    """Return the median contraction, infinity where it is not finite."""
    return number(record["contraction_median"])


def best_of(records: Sequence[Record], names: Sequence[str]) -> Record:
    """Return the record of the smallest median contraction among these methods."""
    return min((r for r in records if r["method"] in names), key=contraction)


def sharpest(records: Sequence[Record]) -> Outcome:
    """Return who contracts most after N systems; holds if it is the operator head, by more than a tie."""
    ours, best = best_of(records, [HEAD]), best_of(records, METHODS)
    other = best_of(records, METHODS[1:])
    quotient = contraction(other) / contraction(ours)
    verdict = Verdict.HOLDS if quotient > TIE else Verdict.FAILS if quotient < 1 / TIE else Verdict.INCONCLUSIVE
    return outcome(
        verdict, family=ours["family"], N=ours["N"], best=best["method"], contraction=contraction(best),
        head=contraction(ours), other=other["method"], other_contraction=contraction(other),
    )  # fmt: skip


def compared(ours: Record, theirs: Record) -> Outcome:
    """Return whether the first method contracts more than the second: inconclusive within `TIE`."""
    quotient = contraction(theirs) / contraction(ours)
    verdict = Verdict.HOLDS if quotient > TIE else Verdict.FAILS if quotient < 1 / TIE else Verdict.INCONCLUSIVE
    return outcome(
        verdict, family=ours["family"], N=ours["N"], method=ours["method"], contraction=contraction(ours),
        refinements=ours["refinements_median"], other=theirs["method"], other_contraction=contraction(theirs),
        other_refinements=theirs["refinements_median"],
    )  # fmt: skip


def cholesky(records: Sequence[Record]) -> Outcome:
    """Return whether regressing coefficients is better than regressing Cholesky factors, in their better form."""
    return compared(best_of(records, [COEFFICIENTS]), best_of(records, CHOLESKY))


def network(records: Sequence[Record]) -> Outcome:
    """Return whether the network is better than kernel ridge regression of the same coefficients."""
    return compared(best_of(records, [HEAD]), best_of(records, [COEFFICIENTS]))


def trunk(records: Sequence[Record]) -> Outcome:
    """Return whether the operator head needs fewer refinements than a trunk basis, and certifies as much."""
    ours = best_of(records, [HEAD])
    theirs = min(
        (r for r in records if r["method"] in TRUNKS),
        key=lambda r: (-r["certified"], number(r["refinements_median"])),
    )
    fewer = number(ours["refinements_median"]) < number(theirs["refinements_median"])
    holds = fewer and ours["certified"] >= theirs["certified"]
    return outcome(
        Verdict.HOLDS if holds else Verdict.PARTLY if fewer else Verdict.FAILS, family=ours["family"], N=ours["N"],
        refinements=ours["refinements_median"], certified=ours["certified"], other=theirs["method"],
        other_refinements=theirs["refinements_median"], other_certified=theirs["certified"],
    )  # fmt: skip


# ---------------------------------------------------------------- sentences


def sharpest_sentence(found: Outcome) -> str:
    """Say who contracts most, and where the operator head stands."""
    text = "{family}, {N} systems: {best} contracts most (median {contraction:.2g})"
    if found.numbers["best"] == HEAD:
        text += ", then {other} ({other_contraction:.2g})."
    else:
        text += "; the operator head: {head:.2g}."
    if found.verdict == Verdict.INCONCLUSIVE:
        text += f" Within a factor of {TIE}, which counts as equal."
    return text.format(**found.numbers)


def compared_sentence(found: Outcome) -> str:
    """Say which of two methods contracts more."""
    words = {Verdict.HOLDS: "contracts more than", Verdict.FAILS: "contracts less than"}
    word = words.get(found.verdict, "is equal, within the tolerance, to")
    text = "{family}, {N} systems: {method} {word} {other} ({contraction:.2g} and {other_contraction:.2g})."
    return text.format(word=word, **found.numbers)


def trunk_sentence(found: Outcome) -> str:
    """Say how many refinements the operator head and the better trunk basis take."""
    ours, theirs = (
        "no certified answer" if found.numbers[key] is None else f"{found.numbers[key]:g} refinements (median)"
        for key in ("refinements", "other_refinements")
    )
    return (
        f"{{family}}, {{N}} systems: {ours} with the operator head, {{certified:.3g}} certified; {theirs} with the "
        "{other}, {other_certified:.3g} certified."
    ).format(**found.numbers)


SENTENCES: Sentences = {
    "relatives.most-systems": sharpest_sentence,
    "relatives.fewest-systems": sharpest_sentence,
    "relatives.cholesky": compared_sentence,
    "relatives.network": compared_sentence,
    "relatives.trunk": trunk_sentence,
    "relatives.cheaper-than-lu": lambda found: (
        "Fewer operations than LU, at least 99 % certified: {cases} of {all} cases".format(**found.numbers)
        + (f": {found.numbers['names']}." if found.numbers["cases"] else ".")
    ),
}
