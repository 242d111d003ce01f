"""What the study of the operator head found, in tables and outcomes: from its records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.verdict import MIN_CERTIFIED, TIMING_NOISE
from studies.baselines.methods import LAPACK, MEAN, MLP, NETWORKS, PROJECTED, REDUCED, RIDGE, TRANSFORMER

Record = dict[str, Any]

TARGETS = {
    "diffusion": (1e-7, 1e-3, 1.0, 4),
    "reaction-diffusion": (1e-6, 5e-3, 1.0, 6),
    "advection-diffusion": (1e-5, 5e-3, 0.999, 6),
    "random-diffusion": (1e-5, 1.5e-2, 0.999, 8),
}
"""At n = 64: normalized_mse, median contraction, share certified, and within how many refinements."""
MAX_PROJECTED = 0.1
"""A family's inverses lie near few operators if their best combination leaves less than this of an error."""
FORWARD = 1e-9
"""Target for the relative error of certified answers."""


def summary(records: Sequence[Record]) -> Report:
    """Put the records of all families into tables and outcomes."""
    tables = (main(records), targets(records), accuracy(records), refinements(records), curves(records))
    data = {"records": list(records)}
    found = outcomes(data)
    return Report([table for table in tables if table.rows], found, conclusions(found, SENTENCES), data)


# ---------------------------------------------------------------- tables


def main(records: Sequence[Record]) -> TableData:
    """One row per family and method: what a user wants to know first."""
    batches = list(next(iter(records[0]["methods"].values()))["seconds"])
    rows = each(
        records,
        lambda m: [
            m.get("normalized_mse"),
            m.get("contraction_median"),
            m["accelerated"]["certified"],
            spread(m["accelerated"]),
            m["forward_error"],
            *(1e6 * m["seconds"][batch] for batch in batches),
            m["samples"],
            m["offline_seconds"],
        ],
    )
    columns = (
        "family", "method", "normalized_mse, bare", "contraction, median", "certified",
        "refinements: median / 99 % / max", "relative_error, worst certified",
        *(f"µs per system, batch {batch}" for batch in batches), "offline samples", "offline seconds",
    )  # fmt: skip
    title = f"Certified without fallback, n = {records[0]['n']}, {records[0]['systems']} unseen systems"
    return TableData(columns, rows, title)


def accuracy(records: Sequence[Record]) -> TableData:
    """The bare answers, and the spectral radius of I - M A."""
    names = [
        "relative_error_median", "relative_error_max", "contraction_median", "contraction_95", "contraction_max"
    ]  # fmt: skip
    columns = (
        "family", "method", "relative_error, median", "relative_error, worst", "contraction, median",
        "contraction, 95 %", "contraction, worst",
    )  # fmt: skip
    rows = each(records, lambda m: [m.get(name) for name in names])
    title = f"Bare answers against float64 LU, and contraction rho(I - M A) of the first {records[0]['contractions']}"
    return TableData(columns, rows, title)


def refinements(records: Sequence[Record]) -> TableData:
    """Plain and accelerated refinement, and the forward errors of certified answers."""
    rows = each(
        records,
        lambda m: [
            m["plain"]["certified"] if "plain" in m else None,
            spread(m["plain"]) if "plain" in m else None,
            m["accelerated"]["certified"],
            spread(m["accelerated"]),
            m["forward_error"],
            m["forward_error_exact"],
        ],
    )
    columns = (
        "family", "method", "certified, plain", "plain: median / 99 % / max", "certified, accelerated",
        "accelerated: median / 99 % / max", "worst relative_error against LU", "worst against 50 digits",
    )  # fmt: skip
    title = f"Refinements until certified; 50 digits for the first {records[0]['checked']} systems"
    return TableData(columns, rows, title)


def targets(records: Sequence[Record]) -> TableData:
    """What was to be reached at n = 64 by the better network, and what was."""
    rows: list[list[Cell]] = []
    for record in records:
        if record["n"] == 64 and record["family"] in TARGETS:
            m, (mse, contraction, share, within) = better(record), TARGETS[record["family"]]
            reached = share_within(m["accelerated"], within)
            for measure, key, limit in (
                ("normalized_mse of the bare network, at most", "normalized_mse", mse),
                ("median contraction, at most", "contraction_median", contraction),
                ("worst relative_error against LU, at most", "forward_error", FORWARD),
                ("worst relative_error against 50 digits, at most", "forward_error_exact", FORWARD),
            ):
                rows.append([record["family"], measure, limit, m[key], m[key] is not None and m[key] <= limit])
            measure = f"certified within {within} refinements, at least"
            rows.append([record["family"], measure, share, reached, reached >= share])
    return TableData(("family", "measure", "target", "reached", "met"), rows, "Targets for the better network")


def curves(records: Sequence[Record]) -> TableData:
    """Medians after k refinements of the better network, to the end."""
    rows: list[list[Cell]] = []
    for record in records:
        curve = record["curve"]
        for k in range(len(curve["plain"]["relative_error"])):
            values = [curve[way][key][k] for way in ("plain", "accelerated") for key in KEYS]
            rows.append([record["family"], curve["method"], str(k), *values])
        rows.append([record["family"], LAPACK, "", *(curve["LAPACK"][key] for key in KEYS), None, None])
    columns = (
        "family", "method", "refinements", "relative_error, plain", "backward_error, plain",
        "relative_error, accelerated", "backward_error, accelerated",
    )  # fmt: skip
    return TableData(
        columns, rows, f"Refinement run to the end: medians over {records[0]['checked']} systems, 50 digits"
    )


KEYS = ("relative_error", "backward_error")


def each(records: Sequence[Record], cells: Callable[[Record], list[Cell]]) -> list[list[Cell]]:
    """Return one row per family and method."""
    return [[r["family"], name, *cells(m)] for r in records for name, m in r["methods"].items()]


def spread(found: Record) -> str | None:
    """Return the median, the 99 % quantile and the largest number of refinements of the systems that were certified."""
    needed = np.repeat(np.arange(len(found["needed"])), found["needed"])
    if not needed.size:
        return None
    return " / ".join(f"{np.quantile(needed, q, method='higher'):g}" for q in (0.5, 0.99, 1.0))


def share_within(found: Record, limit: int) -> float:
    """Return the share of all systems that were certified after at most so many refinements."""
    return float(sum(found["needed"][: limit + 1]) / found["systems"])


def better(record: Record) -> Record:
    """Return the measures of the better network."""
    found: Record = record["methods"][record["curve"]["method"]]
    return found


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether it is worth it, whether the networks beat each baseline, who is best where, and the targets."""
    records = data["records"]
    found = {f"operator.worth-it/{record['family']}": worth(record) for record in records}
    for name, other in (
        (TRANSFORMER, MLP),
        (TRANSFORMER, RIDGE),
        (TRANSFORMER, PROJECTED),
        (MLP, RIDGE),
        (MLP, PROJECTED),
    ):
        for record in records:
            found[f"operator.better/{name}, {other}, {record['family']}"] = better_than(record, name, other)
    for record in records:
        found[f"operator.smooth/{record['family']}"] = smooth(record)
        found[f"operator.best/{record['family']}"] = best(record)
    rows = targets(records).rows
    if rows:
        missed = ", ".join(f"{row[0]} ({row[1]} {row[2]:g})" for row in rows if not row[-1])
        reached = sum(bool(row[-1]) for row in rows)
        found["operator.targets"] = outcome(met(not missed), met=reached, targets=len(rows), missed=missed)
    return found


def worth(record: Record) -> Outcome:
    """Return whether a network is the fastest way to a certified answer on a family, by more than the noise of "
    "times."""
    network, fastest = quickest(record, networks(record)), quickest(record, baselines(record))
    ours, theirs = seconds(record, network), seconds(record, fastest)
    without_lu = quickest(record, [name for name in solvers(record) if name != LAPACK])
    return outcome(
        Verdict.WORTH_IT if ours < (1 - TIMING_NOISE) * theirs else Verdict.NOT_WORTH_IT, family=record["family"],
        n=record["n"], batch=int(largest(record)), network=network, seconds=ours, baseline=fastest,
        baseline_seconds=theirs, without_factorisation=without_lu,
    )  # fmt: skip


def better_than(record: Record, name: str, other: str) -> Outcome:
    """Return whether a network earns its place against another method.

    It does unless that one has both the smaller median contraction and a certified solve that is no slower.
    """
    rho, rho_other = (record["methods"][who]["contraction_median"] for who in (name, other))
    more_accurate = rho_other is not None and (rho is None or rho_other < rho)
    as_fast = seconds(record, other) <= (1 + TIMING_NOISE) * seconds(record, name)
    return outcome(
        Verdict.FAILS if more_accurate and as_fast else Verdict.HOLDS, method=name, other=other,
        family=record["family"], contraction=rho, other_contraction=rho_other, seconds=seconds(record, name),
        other_seconds=seconds(record, other),
    )  # fmt: skip


def smooth(record: Record) -> Outcome:
    """Return how well a linear basis of a family's inverses can do: holds if a short one leaves little."""
    left = record["methods"][PROJECTED]["contraction_median"]
    verdict = Verdict.HOLDS if left < MAX_PROJECTED else Verdict.FAILS
    return outcome(verdict, family=record["family"], rank=record["rank"], contraction=left)


def best(record: Record) -> Outcome:
    """Return who contracts most, who is fastest and whose bare answers are best; holds if these are all networks."""
    methods = record["methods"]
    known = [name for name in methods if methods[name].get("contraction_median") is not None]
    sharpest = min(known, key=lambda name: methods[name]["contraction_median"])
    first, second, *_ = sorted(solvers(record), key=lambda name: seconds(record, name))
    bare = min((*networks(record), REDUCED), key=lambda name: methods[name]["normalized_mse"] or np.inf)
    won = all(name in NETWORKS.values() for name in (sharpest, first, bare))
    return outcome(
        Verdict.HOLDS if won else Verdict.PARTLY, family=record["family"], smallest_contraction=sharpest,
        contraction=methods[sharpest]["contraction_median"], fastest=first, seconds=seconds(record, first),
        second=second, second_seconds=seconds(record, second), most_accurate=bare,
    )  # fmt: skip


# ---------------------------------------------------------------- sentences


def worth_sentence(found: Outcome) -> str:
    """Say whether a network is the fastest way to a certified answer."""
    numbers = found.numbers
    text = (
        f"{{family}}, n = {{n}}, {{batch}} systems per call: the learned solver is {found.verdict}; certified with the "
        f"{{network}} in {micro(numbers['seconds'])} per system, with {{baseline}} in "
        f"{micro(numbers['baseline_seconds'])}."
    ).format(**numbers)
    if found.verdict == Verdict.NOT_WORTH_IT and numbers["without_factorisation"] == numbers["network"]:
        text += " Without a factorisation, the network is the fastest."
    return text


def better_sentence(found: Outcome) -> str:
    """Say whether a network earns its place against another method, with contraction and time of both."""
    numbers = found.numbers
    rho, rho_other = (
        "none" if numbers[key] is None else f"{numbers[key]:.1e}" for key in ("contraction", "other_contraction")
    )
    result = "is not dominated" if found.verdict == Verdict.HOLDS else "is dominated"
    return (
        f"{numbers['family']}: {numbers['method']} {result} by {numbers['other']} in contraction and time ({rho} and "
        f"{micro(numbers['seconds'])} against {rho_other} and {micro(numbers['other_seconds'])})."
    )


def best_sentence(found: Outcome) -> str:
    """Say who contracts most, who is fastest and whose bare answers are best."""
    numbers = found.numbers
    return (
        f"{{family}}: smallest median contraction {{smallest_contraction}} ({{contraction:.1e}}); fastest to a "
        f"certified answer {{fastest}} ({micro(numbers['seconds'])}), then {{second}} "
        f"({micro(numbers['second_seconds'])}); best bare "
        "answers {most_accurate}."
    ).format(**numbers)


def micro(seconds: float) -> str:
    """Return a time as text, in microseconds to three digits."""
    value = 1e6 * seconds
    return f"{value:.0f} µs" if value >= 100 else f"{value:.3g} µs"


SENTENCES: Sentences = {
    "operator.worth-it": worth_sentence,
    "operator.better": better_sentence,
    "operator.smooth": "{family}: the best combination of {rank} operators leaves {contraction:.2g} of an error "
    "(median).",
    "operator.best": best_sentence,
    "operator.targets": lambda found: (
        "{met} of {targets} targets are met".format(**found.numbers)
        + (f"; missed: {found.numbers['missed']}." if found.numbers["missed"] else ".")
    ),
}


def networks(record: Record) -> list[str]:
    """Return the names of the networks."""
    return [name for name in record["methods"] if name in NETWORKS.values()]


def solvers(record: Record) -> list[str]:
    """Return the methods that certify nearly all systems of a family; LAPACK always counts."""
    methods = record["methods"]
    return [name for name in methods if name == LAPACK or methods[name]["accelerated"]["certified"] >= MIN_CERTIFIED]


def baselines(record: Record) -> list[str]:
    """Return the classical methods among them."""
    return [name for name in solvers(record) if name not in NETWORKS.values()]


def largest(record: Record) -> str:
    """Return the largest number of systems per call that was timed."""
    return max(record["methods"][MEAN]["seconds"], key=int)


def seconds(record: Record, name: str) -> float:
    """Return the time per system of a method at the largest batch."""
    return float(record["methods"][name]["seconds"][largest(record)])


def quickest(record: Record, names: Sequence[str]) -> str:
    """Return the fastest of these methods."""
    return min(names, key=lambda name: seconds(record, name))
