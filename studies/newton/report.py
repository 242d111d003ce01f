"""Tables and outcomes of the study `newton`, from its records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from studies.harness.study import distinct, where

LEARNED_START, DIRECTION, LONG_STEP = "learned start", "direction", "long step"
NEIGHBOUR, PREVIOUS = "nearest neighbour", "previous solution"
NAMES = {
    "damped": "Newton, step 1/(p−1)",
    "newton": "Newton, exact line search",
    "irls": "IRLS",
    "p-irls": "p-IRLS",
    "primal-dual irls": "primal-dual IRLS",
    "homotopy": "homotopy in p",
}
GROUP = ("kind", "n", "m", "p")
"""What a group of problems has in common."""
TIMED = ("kind", "n", "p", "batch")
"""What the times of several methods have in common."""
MAIN_P = 8.0
"""The p of the targets."""
TARGETS = {"damped": 4.0, "newton": 2.0}
"""How many times fewer iterations are wanted, against which method."""
FAMILIES = {"b": ("polynomial", "spline"), "d": ("filter",)}
"""Families of the targets."""
PAPER = 4.0
"""About four times faster convergence: the paper's claim."""
MAX_DIFFERENCE = 1e-9
"""Relative difference of objectives that counts as the same optimum."""
WANTED_PROBLEMS = 10_000
"""Random problems that were to be checked."""


def distribution(values: NDArray[np.int64]) -> dict[str, float]:
    """Return median, 90 % quantile and largest value."""
    return {
        "median": float(np.median(values)),
        "quantile_90": float(np.quantile(values, 0.9, method="higher")),
        "max": int(np.max(values)),
    }


def shown(one: dict[str, Any] | None) -> Cell:
    """Return median / 90 % / largest as a cell, with the share that converged where it is not all."""
    if one is None:
        return None
    text = f"{one['median']:g} / {one['quantile_90']:g} / {one['max']}"
    return text if one["converged"] == 1 else f"{text} ({100 * one['converged']:.0f} % converged)"


def groups(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return kind, n, m and p of every group, in order."""
    return [dict(zip(GROUP, key, strict=True)) for key in distinct(records, *GROUP)]


def find(records: list[dict[str, Any]], group: dict[str, Any], method: str, start: str) -> dict[str, Any] | None:
    """Return the record of a method in a group, if there is one."""
    found = where(records, **group, method=method, start=start)
    return found[0] if found else None


def baseline(
    records: list[dict[str, Any]], one: dict[str, Any], method: str, start: str = "least-squares"
) -> dict[str, Any] | None:
    """Return the record of a method on the problems of another record, if there is one."""
    return find(records, {key: one[key] for key in GROUP}, method, start)


def networks_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of networks."""
    return [r for r in records if "accepted" in r]


def times_fewer(records: list[dict[str, Any]], one: dict[str, Any], method: str) -> float | None:
    """Return the ratio of a method's median iterations to those of a network, which count as one at least."""
    other = baseline(records, one, method)
    return float(other["median"] / max(one["median"], 1)) if other else None


def iteration_table(
    records: list[dict[str, Any]], start: str, title: str, more: tuple[tuple[str, str], ...]
) -> TableData:
    """Return the iterations of every method from one start, and those of others (method, start)."""
    columns = [(method, start) for method in NAMES if where(records, method=method)] + list(more)
    rows: list[list[Cell]] = []
    for group in groups(records):
        cells = [shown(find(records, group, *column)) for column in columns]
        rows.append([group["kind"], group["n"], group["p"], *cells])
    return TableData(("kind", "n", "p", *(NAMES.get(method, method) for method, _ in columns)), rows, title)


def network_table(records: list[dict[str, Any]]) -> TableData:
    """Return how the networks do, each against the two classical methods of the targets."""
    rows: list[list[Cell]] = []
    for one in networks_of(records):
        rows.append(
            [
                one["method"],
                one["kind"],
                one["n"],
                one["p"],
                one["accepted"],
                one["n_learned"],
                shown(one),
                *(times_fewer(records, one, method) for method in TARGETS),
                extra(records, one),
            ]
        )
    columns = (
        "network", "kind", "n", "p", "share with a learned step", "learned steps", "iterations",
        "times fewer than step 1/(p−1)", "times fewer than line search", "most iterations more than line search",
    )  # fmt: skip
    return TableData(columns, rows, "Networks: iterations (median / 90 % / largest), ratios of medians")


def extra(records: list[dict[str, Any]], one: dict[str, Any]) -> int:
    """Return the most iterations that a network took more than Newton with line search, over the problems."""
    other = baseline(records, one, "newton")
    return int(np.max(np.array(one["iterations"]) - np.array(other["iterations"]))) if other else 0


def time_table(times: list[dict[str, Any]]) -> TableData:
    """Return milliseconds per problem, alone and in a batch."""
    methods = distinct(times, "method")
    rows: list[list[Cell]] = []
    for key in distinct(times, *TIMED):
        mine = {t["method"]: t["seconds"] for t in where(times, **dict(zip(TIMED, key, strict=True)))}
        rows.append([*key, *(1e3 * mine[m] if m in mine else None for m in methods)])
    names = (NAMES.get(method, method) for method in methods)
    return TableData(
        ("kind", "n", "p", "problems at once", *names), rows, "ms per problem, start and inference included"
    )


def check_table(checks: list[dict[str, Any]]) -> TableData:
    """Return how far the optima of two methods are apart."""
    columns = (
        "kind",
        "n",
        "problems",
        "converged",
        "largest relative difference of the objectives",
        "largest dual gap",
    )
    rows = [[c["kind"], c["n"], c["problems"], c["converged"], c["difference"], c["dual_gap"]] for c in checks]
    return TableData(columns, rows, "The same optimum: minimize_lp against the homotopy, random p")


def real_table(real: list[dict[str, Any]]) -> TableData:
    """Return the iterations on real data; no network is for these sizes."""
    rows = [
        [
            r["name"],
            f"{r['m']} x {r['n']}",
            r["p"],
            *(r["iterations"][m] for m in NAMES),
            r["gradient_norm"],
            r["dual_gap"],
        ]
        for r in real
    ]
    columns = ("data", "size", "p", *NAMES.values(), "gradient norm", "dual gap")
    return TableData(columns, rows, "Real data: iterations from least squares (–: not converged)")


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the records: targets, the paper's claims, optima, times and real data."""
    records = data["records"]
    networks = networks_of(records)
    starts = where(networks, method=LEARNED_START, p=MAIN_P)
    found = targets_met(records)
    ratios = [ratio for one in starts if (ratio := times_fewer(records, one, "damped")) is not None]
    found["newton.four-times"] = outcome(
        Verdict.REPRODUCED if ratios and max(ratios) >= PAPER else Verdict.NOT_REPRODUCED,
        times=max(ratios, default=None), paper=PAPER, p=MAIN_P,
    )  # fmt: skip
    for one in where(networks, method=DIRECTION, p=MAIN_P):
        ratio = times_fewer(records, one, "damped") or 0.0
        found[f"newton.learned-direction/{one['kind']}, n = {one['n']}"] = outcome(
            Verdict.REPRODUCED if one["accepted"] > 0 and ratio >= PAPER else Verdict.NOT_REPRODUCED,
            accepted=one["accepted"], times=ratio, p=MAIN_P,
        )  # fmt: skip
    for label in distinct(networks, "method"):
        mine = where(networks, method=label)
        worst = max(extra(records, one) for one in mine)
        solves = sum(len(one["iterations"]) for one in mine)
        found[f"newton.never-worse/{label}"] = outcome(met(worst <= 1), network=label, extra=worst, solves=solves)
    for method, start in ((NEIGHBOUR, "warm"), (PREVIOUS, "warm"), ("homotopy", "least-squares")):
        for one in starts:
            if other := baseline(records, one, method, start):
                ours, theirs = one["median"], other["median"]
                found[f"newton.start/{method}, {one['kind']}, n = {one['n']}"] = outcome(
                    Verdict.HOLDS if ours < theirs else Verdict.INCONCLUSIVE if ours == theirs else Verdict.FAILS,
                    method=NAMES.get(method, method), ours=ours, theirs=theirs, p=MAIN_P,
                )  # fmt: skip
    found["newton.same-optimum"] = same_optimum(data["checks"])
    found |= times_of(data["times"])
    failed = [f"{r['name']} p = {r['p']:g}" for r in data["real"] if not r["success"]]
    found["newton.real-data"] = outcome(
        Verdict.FAILS if failed else Verdict.HOLDS, problems=len(data["real"]), failed=", ".join(failed)
    )
    return found


def targets_met(records: list[dict[str, Any]]) -> dict[str, Outcome]:
    """Return for both families of the targets how many times fewer iterations the networks take at `MAIN_P`."""
    found = {}
    for letter, kinds in FAMILIES.items():
        chosen = [r for r in where(networks_of(records), p=MAIN_P) if r["kind"] in kinds]
        if not chosen:
            found[f"newton.target/{letter}"] = outcome(Verdict.INCONCLUSIVE, family=letter, kind=" and ".join(kinds))
        for one in chosen:
            ratios = {method: times_fewer(records, one, method) or 0.0 for method in TARGETS}
            found[f"newton.target/{letter}, {one['method']}, {one['kind']}, n = {one['n']}"] = outcome(
                met(all(ratios[method] >= factor for method, factor in TARGETS.items())), family=letter,
                kind=one["kind"], n=one["n"], p=MAIN_P, network=one["method"], median=one["median"], **ratios,
            )  # fmt: skip
    return found


def same_optimum(checks: list[dict[str, Any]]) -> Outcome:
    """Return whether two methods find the same optimum of every random problem."""
    solved, converged = (sum(check[key] for check in checks) for key in ("problems", "converged"))
    difference = max(check["difference"] for check in checks)
    verdict = met(converged == solved and difference <= MAX_DIFFERENCE)
    return outcome(verdict, problems=solved, converged=converged, difference=difference, wanted=WANTED_PROBLEMS)


def times_of(times: list[dict[str, Any]]) -> dict[str, Outcome]:
    """Return where a network is faster than the fastest classical method, start and inference included."""
    found = {}
    for one in where(times, method=LEARNED_START, p=MAIN_P):
        same = where(times, **{key: one[key] for key in TIMED})
        others = {t["method"]: t["seconds"] for t in same if t["method"] in NAMES}
        fastest = min(others, key=lambda method: others[method])
        ratio = others[fastest] / one["seconds"]
        found[f"newton.time/{one['kind']}, n = {one['n']}, batch {one['batch']}"] = outcome(
            Verdict.HOLDS if ratio > 1 else Verdict.FAILS, kind=one["kind"], n=one["n"], p=MAIN_P, batch=one["batch"],
            ms=1e3 * one["seconds"], fastest=NAMES[fastest], fastest_ms=1e3 * others[fastest], ratio=ratio,
        )  # fmt: skip
    return found


# ---------------------------------------------------------------- sentences


def target_sentence(found: Outcome) -> str:
    """Say how many times fewer iterations a network takes."""
    if found.verdict == Verdict.INCONCLUSIVE:
        return "Family ({family}), {kind}: no network, so the targets are not met.".format(**found.numbers)
    parts = [
        f"{found.numbers[method]:.3g} times fewer than {NAMES[method]} (target {factor:g}, "
        f"{met(found.numbers[method] >= factor)})"
        for method, factor in TARGETS.items()
    ]
    return (
        f"Family ({{family}}), {{kind}}, n = {{n}}, p = {{p:g}}, from least squares, {{network}}: {{median:g}} "
        f"iterations in the median, {', '.join(parts)}."
    ).format(**found.numbers)


def four_times_sentence(found: Outcome) -> str:
    """Say whether Newton's method converges four times faster with a network."""
    if found.numbers["times"] is None:
        return "The paper's four times faster convergence: not reproduced, since there is no network."
    return (
        "The paper's four times faster convergence: {verdict} against Newton with step 1/(p−1) (at most {times:.3g} "
        "times at p = {p:g}); the paper does not say which Newton method it compares with."
    ).format(verdict=found.verdict, **found.numbers)


def start_sentence(found: Outcome) -> str:
    """Say whether the learned start saves iterations."""
    how = {Verdict.HOLDS: "fewer than", Verdict.INCONCLUSIVE: "as many as", Verdict.FAILS: "more than"}[found.verdict]
    return (
        f"At p = {{p:g}} the learned start takes {{ours:g}} iterations in the median, {how} {{method}} ({{theirs:g}})."
    ).format(**found.numbers)


def time_sentence(found: Outcome) -> str:
    """Say who is faster."""
    ratio = found.numbers["ratio"]
    faster = f"{'network' if ratio > 1 else 'classical method'} is {max(ratio, 1 / ratio):.3g} times faster"
    return (
        f"Time, {{kind}}, n = {{n}}, p = {{p:g}}, {{batch}} at once: the learned start takes {{ms:.3g}} ms per "
        f"problem, {{fastest}} {{fastest_ms:.3g}} ms: the {faster}."
    ).format(**found.numbers)


SENTENCES: Sentences = {
    "newton.target": target_sentence,
    "newton.four-times": four_times_sentence,
    "newton.learned-direction": "The paper's own way, a network that solves the Newton system: {verdict} by this "
    "training; at least one of its steps was taken in {accepted:.3%} of the problems at p = {p:g}.",
    "newton.never-worse": "Never more than one iteration above Newton with exact line search, {network}: {verdict} "
    "(at most {extra} more, over {solves:,} solves with the network).",
    "newton.start": start_sentence,
    "newton.same-optimum": "The same optimum on {problems:,} random problems (target {wanted:,}): {verdict} on these, "
    "{converged:,} converged with both methods, objectives at most {difference:.2g} apart.",
    "newton.time": time_sentence,
    "newton.real-data": lambda found: (
        f"Real data: not converged: {found.numbers['failed']}."
        if found.numbers["failed"]
        else "Real data: all converged."
    ),
}


def summary(
    records: list[dict[str, Any]],
    times: list[dict[str, Any]],
    checks: list[dict[str, Any]],
    real: list[dict[str, Any]],
    networks: list[dict[str, Any]],
) -> Report:
    """Return tables, outcomes and data."""
    learned = ((method, "least-squares") for method in distinct(networks_of(records), "method"))
    more = (*learned, (NEIGHBOUR, "warm"), (PREVIOUS, "warm"))
    tables = [
        iteration_table(records, "least-squares", "Iterations from least squares: median / 90 % / largest", more),
        network_table(records),
        iteration_table(records, "zero", "Iterations from zero: median / 90 % / largest", ()),
        time_table(times),
        check_table(checks),
        real_table(real),
    ]
    data = {
        "records": records,
        "times": times,
        "checks": checks,
        "real": real,
        "networks": [{"name": n["name"], "family": n["family"], "seconds": n["seconds"]} for n in networks],
    }
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)
