"""What the study of the operator head found, in tables and sentences: from its records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from algebraformer.assessment import ENOUGH, QUIET
from algebraformer.reporting import Cell, Report, TableData
from studies.baselines.methods import LAPACK, MEAN, MLP, NETWORKS, PROJECTED, REDUCED, RIDGE, TRANSFORMER

Record = dict[str, Any]

TARGETS = {
    "diffusion": (1e-7, 1e-3, 1.0, 4),
    "reaction-diffusion": (1e-6, 5e-3, 1.0, 6),
    "advection-diffusion": (1e-5, 5e-3, 0.999, 6),
    "random-diffusion": (1e-5, 1.5e-2, 0.999, 8),
}
"""At n = 64: normalized_mse, median contraction, share certified, and within how many refinements."""
FORWARD = 1e-9
"""Target for the relative error of certified answers."""


def summary(records: Sequence[Record]) -> Report:
    """Put the records of all families into tables and sentences."""
    tables = (main(records), targets(records), accuracy(records), refinements(records), curves(records))
    return Report([table for table in tables if table.rows], verdict(records), {"records": list(records)})


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
    """Plain refinement beside accelerated, and the forward errors of certified answers."""
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


# ---------------------------------------------------------------- sentences


def verdict(records: Sequence[Record]) -> list[str]:
    """Return plain sentences: is it worth it, does the Transformer earn its place, who wins where, what was missed."""
    lines = [worth(records)]
    lines.append(
        "A network earns its place against a rival unless that one has both the smaller median contraction and a "
        f"certified solve that is no slower ({largest(records[0])} systems per call)."
    )
    for rival in (MLP, RIDGE, PROJECTED):
        lines.append(place(records, TRANSFORMER, rival))
    for rival in (RIDGE, PROJECTED):
        lines.append(place(records, MLP, rival))
    lines += [standing(record) for record in records]
    met = [bool(row[-1]) for row in targets(records).rows]
    missed = [f"{row[0]} ({row[1]} {row[2]:g})" for row in targets(records).rows if not row[-1]]
    if met:
        lines.append(
            f"{sum(met)} of {len(met)} targets are met" + (f"; missed: {', '.join(missed)}." if missed else ".")
        )
    return lines


def worth(records: Sequence[Record]) -> str:
    """Say on which families a network is the fastest way to a certified answer at this n, and what is where not."""
    n, batch = records[0]["n"], largest(records[0])
    won, lost, alone = [], [], []
    for record in records:
        network, fastest = quickest(record, networks(record)), quickest(record, solvers(record))
        if seconds(record, network) < (1 - QUIET) * min(seconds(record, name) for name in rivals(record)):
            won.append(record["family"])
        else:
            times = f"{micro(record, fastest)} per system against {micro(record, network)} of the {network}"
            lost.append(f"{record['family']} ({fastest}, {times})")
            if network == quickest(record, [name for name in solvers(record) if name != LAPACK]):
                alone.append(record["family"])
    where = f"at n = {n}, {batch} systems per call"
    if not lost:
        return f"The learned solver is worth it on every family {where}: nothing is as fast to a certified answer."
    if not won:
        text = (
            f"The learned solver is not worth it for speed {where}: a classical method is at least as fast on every "
            f"family: {', '.join(lost)}."
        )
    else:
        text = (
            f"The learned solver is worth it {where} on {', '.join(won)}; not on {', '.join(lost)}, where a classical "
            "method is at least as fast."
        )
    if alone:
        text += f" Without a factorisation, a network is the fastest way on {', '.join(alone)}."
    return text + " LAPACK's time grows as n^3 and holds no certificate; the study `scaling` has larger n."


def place(records: Sequence[Record], name: str, rival: str) -> str:
    """Say on which families a network earns its place against a rival, with contraction and time of both."""
    earned: list[str] = []
    not_earned: list[str] = []
    for record in records:
        own, other = record["methods"][name], record["methods"][rival]
        rho, rho_rival = own["contraction_median"], other["contraction_median"]
        more_accurate = rho_rival is not None and (rho is None or rho_rival < rho)
        as_fast = seconds(record, rival) <= (1 + QUIET) * seconds(record, name)
        figures = " against ".join(
            f"{'none' if m['contraction_median'] is None else format(m['contraction_median'], '.1e')} and "
            f"{micro(record, who)}"
            for who, m in ((name, own), (rival, other))
        )
        dominated = more_accurate and as_fast
        (not_earned if dominated else earned).append(f"{record['family']} (contraction {figures})")
    text = f"{name} against {rival}: it "
    parts = [f"earns its place on {', '.join(earned)}"] if earned else []
    parts += [f"does not earn it on {', '.join(not_earned)}"] if not_earned else []
    return text + "; ".join(parts) + "."


def standing(record: Record) -> str:
    """Say who contracts most and who is fastest on a family, and name it where that is a classical method."""
    methods = record["methods"]
    known = [name for name in methods if methods[name].get("contraction_median") is not None]
    sharpest = min(known, key=lambda name: methods[name]["contraction_median"])
    ordered = sorted(solvers(record), key=lambda name: seconds(record, name))
    order = ", ".join(f"{name} {micro(record, name)}" for name in ordered[:4])
    text = (
        f"{record['family']}: the smallest median contraction is that of {sharpest} "
        f"({methods[sharpest]['contraction_median']:.1e}); the fastest to a certified answer are {order}."
    )
    wins = [("in contraction", sharpest), ("in time", ordered[0])]
    classical = [f"{what} ({name})" for what, name in wins if name not in NETWORKS.values()]
    reduced = methods[REDUCED]["normalized_mse"]
    if reduced is not None and reduced < min(methods[name]["normalized_mse"] or np.inf for name in networks(record)):
        classical.append("in bare accuracy (reduced basis)")
    return text + (f" A classical method wins {' and '.join(classical)}." if classical else "")


def networks(record: Record) -> list[str]:
    """Return the names of the networks."""
    return [name for name in record["methods"] if name in NETWORKS.values()]


def solvers(record: Record) -> list[str]:
    """Return the methods that certify nearly all systems of a family; LAPACK always counts."""
    methods = record["methods"]
    return [name for name in methods if name == LAPACK or methods[name]["accelerated"]["certified"] >= ENOUGH]


def rivals(record: Record) -> list[str]:
    """Return the classical methods among them."""
    return [name for name in solvers(record) if name not in NETWORKS.values()]


def largest(record: Record) -> str:
    """Return the largest number of systems per call that was timed."""
    return max(record["methods"][MEAN]["seconds"], key=int)


def seconds(record: Record, name: str) -> float:
    """Return the time per system of a method at the largest batch."""
    return float(record["methods"][name]["seconds"][largest(record)])


def micro(record: Record, name: str) -> str:
    """Return that time as text, in microseconds to three digits."""
    value = 1e6 * seconds(record, name)
    return f"{value:.0f} µs" if value >= 100 else f"{value:.3g} µs"


def quickest(record: Record, names: Sequence[str]) -> str:
    """Return the fastest of these methods."""
    return min(names, key=lambda name: seconds(record, name))
