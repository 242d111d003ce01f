"""What the study `scaling` found, in tables and outcomes: from its records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.rivals import is_lapack
from studies.harness.study import distinct

Record = Mapping[str, Any]

OURS, PASS = "operator head", "one pass over A"
TARGETS = {
    (256, "large"): (1.5, 1.0),
    (512, "large"): (3.0, 1.5),
    (1024, "large"): (5.0, 2.0),
    (1024, 16): (5.0, 2.0),
    (1024, 1): (3.0, 1.5),
}
"""By size and batch: how many times faster than LAPACK, and than the best rival, in the median of the families."""
MIN_SOLVED = 0.999
"""Least share of unseen systems, of any family and n, that is to be solved without a fallback."""
MAX_PASSES, PASSES_AT = 12.0, 1024
"""A solve in a large batch is to take at most so many times one pass over A, at this size."""


# ---------------------------------------------------------------- parts of the records


def family_of(record: Record) -> str:
    """Return the family of a record; there was one alone before there were names."""
    return str(record.get("family", "diffusion"))


def size_of(n: int) -> int:
    """Return the power of two that n counts as, since a square grid has 576 points and not 512.

    Examples
    --------
    >>> size_of(64), size_of(576), size_of(2025)
    (64, 512, 2048)
    """
    return 2 ** round(np.log2(n))


def best_rival(record: Record) -> str:
    """Return the name of the fastest rival."""
    seconds = record["seconds"]
    return min((name for name in seconds if name != OURS), key=seconds.__getitem__)


def over_best(record: Record) -> float:
    """Return how many times as fast as the best rival ours is."""
    return float(record["seconds"][best_rival(record)] / record["seconds"][OURS])


def lapack(record: Record) -> float:
    """Return the seconds of LAPACK's LU in its best way."""
    return float(min(value for name, value in record["seconds"].items() if is_lapack(name)))


def over_lapack(record: Record) -> float:
    """Return how many times as fast as LAPACK's LU ours is."""
    return lapack(record) / float(record["seconds"][OURS])


def passes(record: Record, seconds: float) -> float | None:
    """Return a time in times of one pass over A, None where that was not measured."""
    return seconds / record["pass"] if "pass" in record else None


def largest(records: Sequence[Record]) -> list[Record]:
    """Return the record with the largest batch of every family and n."""
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        key = family_of(record), record["n"]
        if key not in found or record["batch"] > found[key]["batch"]:
            found[key] = record
    return list(found.values())


def at_size(records: Sequence[Record], size: int) -> list[Record]:
    """Return the records whose n counts as this size."""
    return [record for record in records if size_of(record["n"]) == size]


def median(values: Iterable[float]) -> float:
    """Return the median of numbers."""
    return float(np.median(list(values)))


# ---------------------------------------------------------------- tables


def summary(records: list[Record], many: list[Record], sequences: list[Record]) -> Report:
    """Put the measurements into tables and outcomes."""
    data = {"records": records, "many": many, "sequences": sequences}
    found = outcomes(data)
    tables = (main(records), each(records), by_size(records), errors(records), many_table(many), in_order(sequences))
    return Report([table for table in tables if table.rows], found, conclusions(found, SENTENCES), data)


def main(records: Sequence[Record]) -> TableData:
    """One row for each family, n and batch size."""
    rows: list[list[Cell]] = []
    for record in records:
        ours = record["seconds"][OURS]
        low, high = (1e6 * value for value in record["quartiles"][OURS])
        rows.append(
            [family_of(record), record["n"], record["batch"], 1e6 * ours, f"{low:.3g} to {high:.3g}",
             over_lapack(record), over_best(record), best_rival(record), 1e6 * lapack(record), passes(record, ours),
             record["by_network"], record["refinements_median"], record["refinements_max"]]
        )  # fmt: skip
    columns = (
        "family", "n", "batch", "ours, µs per system", "quartiles", "LAPACK / ours", "best rival / ours", "best rival",
        "LAPACK, µs per system", "ours / one pass", "solved by the network", "refinements, median", "refinements, max",
    )  # fmt: skip
    return TableData(columns, rows, "Certified solves")


def by_size(records: Sequence[Record]) -> TableData:
    """Return the medians over the families by size, for batches of 1 and 16 and the largest ones."""
    rows: list[list[Cell]] = []
    for size, batch, chosen in cases(records):
        target = TARGETS.get((size, batch), (None, None))
        times = [passes(record, record["seconds"][OURS]) for record in chosen]
        measured = [value for value in times if value is not None]
        rows.append(
            [size, batch, len(chosen), median(map(over_lapack, chosen)), target[0], median(map(over_best, chosen)),
             target[1],
             median(measured) if measured else None]
        )  # fmt: skip
    columns = (
        "n", "batch", "families", "LAPACK / ours", "target", "best rival / ours", "target, best rival",
        "ours / one pass",
    )  # fmt: skip
    return TableData(columns, rows, "Medians of the families")


def cases(records: Sequence[Record]) -> list[tuple[int, int | str, list[Record]]]:
    """Return size, batch ("large" for the largest ones) and the records, one for each family, of what is compared."""
    found: list[tuple[int, int | str, list[Record]]] = []
    for size in sorted({size_of(record["n"]) for record in records}):
        there = at_size(records, size)
        tops = largest(there)
        for batch in sorted({record["batch"] for record in there}):
            chosen = [record for record in there if record["batch"] == batch and record not in tops]
            if chosen:
                found.append((size, batch, chosen))
        found.append((size, "large", tops))
    return found


def each(records: Sequence[Record]) -> TableData:
    """Every method's time."""
    names = distinct([{"name": name} for record in records for name in record["seconds"]], "name")
    rows = [
        [family_of(r), r["n"], r["batch"], *(scaled(r["seconds"].get(name), 1e6) for name in names),
         scaled(r.get("pass"), 1e6)]
        for r in records
    ]  # fmt: skip
    return TableData(("family", "n", "batch", *names, PASS), rows, "Microseconds per system, every method")


def errors(records: Sequence[Record]) -> TableData:
    """Every method's largest error, at the smallest batch after one, and who did not count."""
    firsts = [record for record in records if record["batch"] != 1]
    shown = {(family_of(record), record["n"]): record for record in reversed(firsts)}
    names = distinct([{"name": name} for record in shown.values() for name in record["error"]], "name")
    names = [name for name in names if not name.endswith(", pool")]
    rows: list[list[Cell]] = [
        [*key, *(record["error"].get(name) for name in names),
         ", ".join(f"{name} ({share:.0%})" for name, share in record["excluded"].items()) or None]
        for key, record in reversed(shown.items())
    ]  # fmt: skip
    columns = ("family", "n", *names, "does not count (share accurate)")
    return TableData(columns, rows, "Largest relative error against LU of up to 16 systems")


def many_table(many: Sequence[Record]) -> TableData:
    """One matrix, many right-hand sides."""
    return TableData(
        ("family", "n", "right-hand sides", *(f"{name}, ms" for name in many[0]["seconds"])),
        [[family_of(r), r["n"], r["right_hand_sides"], *(1e3 * s for s in r["seconds"].values())] for r in many],
        "One matrix, many right-hand sides",
    )


def in_order(sequences: Sequence[Record]) -> TableData:
    """Jacobians along a trajectory."""
    names = list(sequences[0]["seconds"]) if sequences else []
    rows = [
        [r["family"], r["n"], r["length"], *(1e6 * r["seconds"][name] for name in names), r["products_median"],
         r["factorisations"]]
        for r in sequences
    ]  # fmt: skip
    columns = (
        "family", "n", "systems", *(f"{name}, µs per system" for name in names), "products with stale factors, median",
        "factorisations",
    )  # fmt: skip
    return TableData(columns, rows, "Systems along a trajectory, one after the other, without a network")


def scaled(value: float | None, factor: float) -> float | None:
    """Return a number times a factor, None for None."""
    return None if value is None else factor * value


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return the speed-ups by size, in the median of the families, and where a network is fastest."""
    records, many = data["records"], data["many"]
    found: dict[str, Outcome] = {}
    for size, batch, chosen in cases(records):
        target = TARGETS.get((size, batch), (None, None))
        if batch == "large" or target[0] is not None:
            key = f"n = {size}" if batch == "large" else f"n = {size}, batch {batch}"
            found[f"scaling.speed-up/{key}"] = speed_up(size, batch, chosen, target)
    shares = [record["by_network"] for record in records if "family" in record]
    if shares:  # of enough systems to tell: it was the share of one batch before
        found["scaling.solved"] = outcome(met(min(shares) >= MIN_SOLVED), least=min(shares), target=MIN_SOLVED)
    measured = [
        value for r in at_size(largest(records), PASSES_AT) if (value := passes(r, r["seconds"][OURS])) is not None
    ]
    if measured:
        found["scaling.passes"] = outcome(
            met(median(measured) <= MAX_PASSES), n=PASSES_AT, passes=median(measured), target=MAX_PASSES
        )
    single = [record for record in records if record["batch"] == 1]
    for key, chosen in (("scaling.many-right-hand-sides", many), ("scaling.one-at-a-time", single)):
        sizes = sorted({size_of(record["n"]) for record in chosen})
        wins = [n for n in sizes if median([over_best(r) for r in at_size(chosen, n)]) > 1]
        verdict = Verdict.HOLDS if len(wins) == len(sizes) else Verdict.PARTLY if wins else Verdict.FAILS
        found[key] = outcome(verdict, wins=len(wins), sizes=len(sizes), where=", ".join(map(str, wins)))
    for r in data.get("sequences", ()):
        best = min(r["seconds"], key=r["seconds"].__getitem__)
        stale = r["seconds"]["stale LU + recycling"]
        found[f"scaling.sequence/n = {r['n']}"] = outcome(
            Verdict.MEASURED, n=r["n"], best=best, seconds=r["seconds"][best], over_lu=r["seconds"]["dgesv"] / stale
        )
    return found


def speed_up(
    size: int, batch: int | str, chosen: Sequence[Record], target: tuple[float | None, float | None]
) -> Outcome:
    """Return the median speed-ups of the families at one size and batch."""
    lapack_ratio, best_ratio = median(map(over_lapack, chosen)), median(map(over_best, chosen))
    verdict = Verdict.MEASURED
    if target[0] is not None and target[1] is not None:
        verdict = met(lapack_ratio >= target[0] and best_ratio >= target[1])
    return outcome(
        verdict, n=size, batch=max(r["batch"] for r in chosen) if batch == "large" else batch, families=len(chosen),
        over_lapack=lapack_ratio, lapack_target=target[0], over_best=best_ratio, best_target=target[1],
        best=Counter(map(best_rival, chosen)).most_common(1)[0][0], by_network=min(r["by_network"] for r in chosen),
        refinements=median([r["refinements_median"] for r in chosen]),
    )  # fmt: skip


def speed_up_sentence(found: Outcome) -> str:
    """Say how many times faster than LAPACK and than the best rival the network is at one n."""
    numbers = found.numbers
    text = (
        "n = {n}, batch {batch}: {over_lapack:.2g} times as fast as LAPACK, {over_best:.2g} times as fast as the best "
        "rival ({best})"
    ).format(**numbers)
    if numbers["families"] > 1:
        text += f", in the median of {numbers['families']} families"
    if found.verdict == Verdict.MEASURED:
        return f"{text}."
    return f"{text}; target {numbers['lapack_target']:g} and {numbers['best_target']:g}, {found.verdict}."


def wins_sentence(what: str) -> Callable[[Outcome], str]:
    """Return the sentence on the n at which the network is the fastest."""
    return lambda found: (
        f"{what}: the network is fastest at n = {found.numbers['where']}."
        if found.numbers["wins"]
        else f"{what}: a classical method is fastest at every n."
    )


SENTENCES: Sentences = {
    "scaling.speed-up": speed_up_sentence,
    "scaling.solved": "At least {least:.2%} of the unseen systems of every family and n are solved without a fallback; "
    "target {target:.1%}, {verdict}.",
    "scaling.passes": "n = {n}, largest batch: a solve takes {passes:.3g} times one pass over A; target {target:g}, "
    "{verdict}.",
    "scaling.many-right-hand-sides": wins_sentence("One matrix with many right-hand sides"),
    "scaling.one-at-a-time": wins_sentence("One system at a time"),
    "scaling.sequence": "Along a trajectory, n = {n}: {best} is fastest; a stale factorisation with recycling is "
    "{over_lu:.2g} times as fast as LU.",
}
