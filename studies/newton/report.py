"""Tables and sentences of the study `newton`, from its records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.reporting import Cell, Report, TableData
from studies.harness.study import distinct, where

LEARNED, DIRECTION, LONG_STEP = "learned start", "direction", "long step"
NEIGHBOUR, PREVIOUS = "nearest neighbour", "previous solution"
NAMES = {
    "damped": "Newton, step 1/(p−1)",
    "newton": "Newton, exact line search",
    "irls": "IRLS",
    "p-irls": "p-IRLS",
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
SAME = 1e-9
"""Relative difference of objectives that counts as the same optimum."""


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


def rival(
    records: list[dict[str, Any]], one: dict[str, Any], method: str, start: str = "least-squares"
) -> dict[str, Any] | None:
    """Return the record of a method on the problems of another record, if there is one."""
    return find(records, {key: one[key] for key in GROUP}, method, start)


def networks_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of networks."""
    return [r for r in records if "accepted" in r]


def times_fewer(records: list[dict[str, Any]], one: dict[str, Any], method: str) -> float | None:
    """Return the ratio of a method's median iterations to those of a network, which count as one at least."""
    other = rival(records, one, method)
    return float(other["median"] / max(one["median"], 1)) if other else None


def iteration_table(
    records: list[dict[str, Any]], start: str, title: str, more: tuple[tuple[str, str], ...]
) -> TableData:
    """Return the iterations of every method from one start, and those of others (method, start)."""
    columns = [(method, start) for method in NAMES] + list(more)
    rows: list[list[Cell]] = []
    for group in groups(records):
        cells = [shown(find(records, group, *column)) for column in columns]
        rows.append([group["kind"], group["n"], group["p"], *cells])
    return TableData(("kind", "n", "p", *(NAMES.get(method, method) for method, _ in columns)), rows, title)


def network_table(records: list[dict[str, Any]]) -> TableData:
    """Return how the networks do, each beside the two classical methods of the targets."""
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
    other = rival(records, one, "newton")
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


# ---------------------------------------------------------------- sentences


def target_sentences(records: list[dict[str, Any]]) -> list[str]:
    """Say for both families of the targets how many times fewer iterations the best network takes at `MAIN_P`."""
    lines = []
    for letter, kinds in FAMILIES.items():
        mine = [r for r in where(networks_of(records), p=MAIN_P) if r["kind"] in kinds]
        if not mine:
            lines.append(f"Family ({letter}), {' and '.join(kinds)}: no network, targets not met.")
            continue
        for one in mine:
            parts, met = [], True
            for method, factor in TARGETS.items():
                ratio = times_fewer(records, one, method) or 0.0
                met &= ratio >= factor
                parts.append(
                    f"{ratio:.3g} times fewer than {NAMES[method]} ({'met' if ratio >= factor else 'missed'}: "
                    f"{factor:g} wanted)"
                )
            lines.append(
                f"Family ({letter}), {one['kind']}, n = {one['n']}, p = {MAIN_P:g}, from least squares, "
                f"{one['method']}: {one['median']:g} iterations in the median, {parts[0]}, {parts[1]}; targets "
                f"{'met' if met else 'missed'}."
            )
    return lines


def verdict(
    records: list[dict[str, Any]], times: list[dict[str, Any]], checks: list[dict[str, Any]], real: list[dict[str, Any]]
) -> list[str]:
    """Return the sentences."""
    networks = networks_of(records)
    lines = target_sentences(records)
    starts = where(networks, method=LEARNED, p=MAIN_P)
    ratios = [ratio for one in starts if (ratio := times_fewer(records, one, "damped")) is not None]
    word = "reproduced" if ratios and max(ratios) >= PAPER else "not reproduced"
    best = f"at most {max(ratios):.3g} times" if ratios else "no network"
    lines.append(
        f"The paper's about 4 times faster convergence: {word} against Newton with step 1/(p−1) ({best} at p = "
        f"{MAIN_P:g}); the paper does not say which Newton it is against."
    )
    for one in where(networks, method=DIRECTION, p=MAIN_P):
        ratio = times_fewer(records, one, "damped") or 0.0
        word = "reproduced" if one["accepted"] > 0 and ratio >= PAPER else "not reproduced"
        lines.append(
            f"The paper's own way, a network that solves the Newton system: {word} by this training; of its steps one "
            f"was good enough to be taken in {100 * one['accepted']:.3g} % of the problems at p = {MAIN_P:g}."
        )
    if networks:
        for label in distinct(networks, "method"):
            mine = where(networks, method=label)
            worst = max(extra(records, one) for one in mine)
            lines.append(
                f"Never more than one iteration above Newton with exact line search, {label}: "
                f"{'met' if worst <= 1 else 'missed'} (at most {worst} more, over "
                f"{sum(len(one['iterations']) for one in mine):,} solves with the network)."
            )
        for method, start in ((NEIGHBOUR, "warm"), (PREVIOUS, "warm"), ("homotopy", "least-squares")):
            for one in starts:
                if (other := rival(records, one, method, start)) is None:
                    continue
                ours, theirs = one["median"], other["median"]
                word = "fewer than" if ours < theirs else "as many as" if ours == theirs else "more than"
                lines.append(
                    f"At p = {MAIN_P:g} the learned start takes {ours:g} iterations in the median, {word} "
                    f"{NAMES.get(method, method)} ({theirs:g})."
                )
    solved, converged = sum(c["problems"] for c in checks), sum(c["converged"] for c in checks)
    difference = max(c["difference"] for c in checks)
    lines.append(
        f"The same optimum on {solved:,} random problems (10,000 wanted): "
        f"{'met' if converged == solved and difference <= SAME else 'missed'} on these, {converged:,} converged with "
        f"both methods, objectives at most {difference:.2g} apart."
    )
    lines += time_sentences(times)
    failed = [f"{r['name']} p = {r['p']:g}" for r in real if not r["success"]]
    lines.append(f"Real data: {'all converged' if not failed else 'not converged: ' + ', '.join(failed)}.")
    return lines


def time_sentences(times: list[dict[str, Any]]) -> list[str]:
    """Say where a network is faster than the fastest classical method, start and inference included."""
    lines = []
    for one in where(times, method=LEARNED, p=MAIN_P):
        same = where(times, **{key: one[key] for key in TIMED})
        others = {t["method"]: t["seconds"] for t in same if t["method"] in NAMES}
        fastest = min(others, key=lambda method: others[method])
        ratio = others[fastest] / one["seconds"]
        lines.append(
            f"Time, {one['kind']}, n = {one['n']}, p = {MAIN_P:g}, {one['batch']} at once: the learned start takes "
            f"{1e3 * one['seconds']:.3g} ms a problem, {NAMES[fastest]} {1e3 * others[fastest]:.3g} ms: the "
            f"{'network' if ratio > 1 else 'classical method'} is {max(ratio, 1 / ratio):.3g} times faster."
        )
    return lines


def summary(
    records: list[dict[str, Any]],
    times: list[dict[str, Any]],
    checks: list[dict[str, Any]],
    real: list[dict[str, Any]],
    networks: list[dict[str, Any]],
) -> Report:
    """Return tables, verdict and data."""
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
    return Report(tables, verdict(records, times, checks, real), data)
