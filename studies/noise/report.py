"""Tables and outcomes of the study `noise`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, outcome
from studies.harness.study import distinct, where
from studies.noise.rivals import DISCREPANCY, LINEAR, LMMSE, LMMSE_A, LU, ORACLE, ORDERS, TIKHONOV, named

CLEAN, TOKEN, LSTM, GRU = "token head, trained without noise", "token head", "LSTM", "GRU"
BILSTM = "LSTM, two directions"
SHIPPED, BARE, REFINED = "token head, shipped", "operator head, shipped", "operator head, refined"
NETWORKS = (SHIPPED, CLEAN, TOKEN, LSTM, GRU, BILSTM, BARE)
CLASSICAL = (LU, TIKHONOV, DISCREPANCY, LMMSE, LMMSE_A, LINEAR)
"""Methods that do not know x."""
METHODS = (*CLASSICAL, ORACLE, *NETWORKS, REFINED)
MARGIN = 1.25
"""Smaller ratios of two networks' errors say nothing: in the study `spectral` those of different seeds differ by up to
a fifth."""
EQUAL = 0.9
"""Errors whose ratio is between this and 1 count as equal: they are medians of a hundred systems."""
SAME = 1e-6
"""Answers that differ by no more than this share are the same one."""
Errors = dict[str, list[float]]


def errors(data: Mapping[str, Any], place: str) -> Errors:
    """Return the median relative error at every level, by method; Tikhonov's with the best of its orders there."""
    mine = where(data["rows"], place=place)
    found = {
        method: [float(row["median"]) for row in where(mine, method=method)] for method in distinct(mine, "method")
    }
    for choice in (TIKHONOV, DISCREPANCY, ORACLE):
        found[choice] = [min(values) for values in zip(*(found.pop(named(choice, k)) for k in ORDERS), strict=True)]
    return {method: found[method] for method in METHODS if method in found}


def levels(data: Mapping[str, Any]) -> list[float]:
    """Return the levels of the noise, ascending."""
    return distinct(data["rows"], "level")


# ---------------------------------------------------------------- tables


def summary(
    systems: int, about: list[dict[str, Any]], rows: list[dict[str, Any]], refined: list[dict[str, Any]]
) -> Report:
    """Put runs and measurements into tables and outcomes."""
    data = {"systems": systems, "runs": about, "rows": rows, "refined": refined}
    tables = [place_table(data, place) for place in distinct(rows, "place")]
    columns = ("network", "parameters", "steps", "seeds", "seconds of training, mean")
    runs: list[list[Cell]] = [
        [name, mine[0]["parameters"], mine[0]["steps"], len(mine), float(np.mean([one["seconds"] for one in mine]))]
        for name in distinct(about, "network")
        for mine in (where(about, network=name),)
    ]
    tables.append(TableData(columns, runs, "Networks"))
    keys = ("place", "level", "certified", "lapack", "from_lu")
    tables.append(
        TableData(
            ("noise on", "level", "certified", "solved by LAPACK", "relative distance from LU, median"),
            [[row[key] for key in keys] for row in refined],
            "Operator head, refined: the noisy system is solved",
        )
    )
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def place_table(data: Mapping[str, Any], place: str) -> TableData:
    """Return the errors of every method with noise at one place."""
    rows: list[list[Cell]] = [[method, *values] for method, values in errors(data, place).items()]
    where_to = {"A": "A", "b": "b", "both": "A and b"}[place]
    title = f"Median relative error of {data['systems']} systems, noise on {where_to}"
    return TableData(("method", *(f"{level:g}" for level in levels(data))), rows, title)


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return where networks beat LU and the classical methods, and each other."""
    places, every = distinct(data["rows"], "place"), levels(data)
    by_place = {place: errors(data, place) for place in places}
    networks = [name for name in NETWORKS if name in by_place[places[0]]]
    return {
        **{f"noise.lu/{name}": against_lu(name, by_place, every) for name in networks},
        **{f"noise.classical/{place}": against_classical(place, found, every) for place, found in by_place.items()},
        **{f"noise.training/{place}": of_training(place, found, every) for place, found in by_place.items()},
        **{f"noise.recurrent/{place}": against_recurrent(place, found) for place, found in by_place.items()},
        **{f"noise.best/{place}": best(place, found, every) for place, found in by_place.items()},
        "noise.refined": of_refinement(data["refined"]),
    }


def clearly_below(mine: Sequence[float], others: Sequence[float], every: Sequence[float]) -> list[float]:
    """Return the levels at which some errors are below others and not equal to them.

    Examples
    --------
    >>> clearly_below([3.0, 1.0, 0.99], [2.0, 2.0, 1.0], [0.01, 0.1, 1.0])
    [0.1]
    """
    return [level for level, a, b in zip(every, mine, others, strict=True) if a < EQUAL * b]


def share_verdict(good: int, total: int) -> Verdict:
    """Return what it comes to that something holds for so many of all cases."""
    return Verdict.HOLDS if good == total else Verdict.PARTLY if good else Verdict.FAILS


def against_lu(name: str, by_place: Mapping[str, Errors], every: Sequence[float]) -> Outcome:
    """Return the lowest and the highest level of noise at which a network is more accurate than LU, for every place."""
    found = {place: clearly_below(one[name], one[LU], every) for place, one in by_place.items()}
    limits = {f"from_{place}": min(below, default=None) for place, below in found.items()}
    limits |= {f"to_{place}": max(below, default=None) for place, below in found.items()}
    return outcome(share_verdict(sum(map(bool, found.values())), len(found)), network=name, **limits)


def against_classical(place: str, found: Errors, every: Sequence[float]) -> Outcome:
    """Return how the token head trained with noise compares with the best classical method that does not know x."""
    rivals = [min(CLASSICAL, key=lambda name: found[name][i]) for i in range(len(every))]
    ratios = [found[TOKEN][i] / found[rival][i] for i, rival in enumerate(rivals)]
    least, most = int(np.argmin(ratios)), int(np.argmax(ratios))
    return outcome(
        share_verdict(sum(ratio < 1 for ratio in ratios), len(ratios)), place=place, better=sum(r < 1 for r in ratios),
        levels=len(ratios), ratio_min=ratios[least], level_min=every[least], rival_min=rivals[least],
        ratio_max=ratios[most], level_max=every[most], rival_max=rivals[most],
    )  # fmt: skip


def of_training(place: str, found: Errors, every: Sequence[float]) -> Outcome:
    """Return what training with noise changes: the error without it over that with it.

    Holds if it helps at some level and harms at none.
    """
    ratios = [a / b for a, b in zip(found[CLEAN], found[TOKEN], strict=True)]
    helps, harms = max(ratios) >= MARGIN, min(ratios) <= 1 / MARGIN
    verdict = Verdict.FAILS if not helps else Verdict.PARTLY if harms else Verdict.HOLDS
    least, most = int(np.argmin(ratios)), int(np.argmax(ratios))
    return outcome(
        verdict, place=place, ratio_min=ratios[least], level_min=every[least], ratio_max=ratios[most],
        level_max=every[most],
    )  # fmt: skip


def against_recurrent(place: str, found: Errors) -> Outcome:
    """Return how the token head compares with recurrent networks: geometric means over the levels of error ratios."""
    mine = np.array(found[TOKEN])
    ratios = {}
    for key, names in (("one_direction", (LSTM, GRU)), ("two_directions", (BILSTM,))):
        if present := [found[name] for name in names if name in found]:
            ratios[key] = float(np.exp(np.mean(np.log(mine / np.min(present, axis=0)))))
    good = sum(ratio <= 1 / MARGIN for ratio in ratios.values())
    return outcome(share_verdict(good, len(ratios)), place=place, **ratios)


def best(place: str, found: Errors, every: Sequence[float]) -> Outcome:
    """Return the most accurate method at every level that does not know x; of equal ones the first in `METHODS`."""
    allowed = {name: values for name, values in found.items() if name != ORACLE}
    least = np.min(list(allowed.values()), axis=0)
    names = [next(name for name, values in allowed.items() if EQUAL * values[i] <= least[i]) for i in range(len(every))]
    runs = []
    for name, group in groupby(zip(names, every, strict=True), key=lambda pair: pair[0]):
        inside = [level for _, level in group]
        runs.append(f"{name} ({inside[0]:.1g}" + (f" to {inside[-1]:.1g})" if len(inside) > 1 else ")"))
    return outcome(Verdict.MEASURED, place=place, methods="; ".join(runs))


def of_refinement(refined: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return whether the certified solve gives LU's answer to the noisy system, noise and all."""
    certified, apart = min(row["certified"] for row in refined), max(row["from_lu"] for row in refined)
    return outcome(
        Verdict.HOLDS if certified == 1 and apart <= SAME else Verdict.FAILS, certified=certified, from_lu=apart,
        lapack_min=min(row["lapack"] for row in refined), lapack_max=max(row["lapack"] for row in refined),
    )  # fmt: skip


def lu_sentence(found: Outcome) -> str:
    """Say at which levels a network beats LU."""
    words = []
    for place, text in {"A": "on A", "b": "on b", "both": "on both"}.items():
        low, high = found.numbers[f"from_{place}"], found.numbers[f"to_{place}"]
        span = "nowhere" if low is None else f"at {low:.1g}" + (f" to {high:.1g}" if high > low else "")
        words.append(f"{span} with noise {text}")
    return f"{found.numbers['network']}: more accurate than LU {', '.join(words)}."


def recurrent_sentence(found: Outcome) -> str:
    """Say how the token head compares with recurrent networks."""
    words = {"one_direction": "the better of LSTM and GRU", "two_directions": "an LSTM in two directions"}
    parts = [f"{found.numbers[key]:.2g} times that of {text}" for key, text in words.items() if key in found.numbers]
    return (
        f"Noise on {found.numbers['place']}, all networks trained with it: the error of the token head is "
        f"{', '.join(parts)}, in the geometric mean over the levels."
    )


SENTENCES: Sentences = {
    "noise.lu": lu_sentence,
    "noise.classical": "Noise on {place}: the token head trained with noise is more accurate than the best classical "
    "method that does not know x at {better} of {levels} levels. Its error is {ratio_min:.2g} times that of "
    "{rival_min} at {level_min:.1g}, and {ratio_max:.2g} times that of {rival_max} at {level_max:.1g}.",
    "noise.training": "Noise on {place}: a token head trained without noise has {ratio_max:.2g} times the error of one "
    "trained with it at {level_max:.1g}, and {ratio_min:.2g} times at {level_min:.1g}.",
    "noise.recurrent": recurrent_sentence,
    "noise.best": "Noise on {place}: most accurate, without knowing x: {methods}.",
    "noise.refined": "The certified solve answers the noisy system as LU does: at most {from_lu:.1g} apart in the "
    "median, at least {certified:.0%} certified, {lapack_min:.0%} to {lapack_max:.0%} by LAPACK.",
}
