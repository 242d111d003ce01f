"""Tables, outcomes and data of the study `noisy`, from the relative errors of every cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from studies.baselines.noisy import LEARNED, LEARNED_ALL, LMMSE, METHODS, TIKHONOV, TOTAL_VARIATION, UNREGULARIZED
from studies.harness.statistics import rounded
from studies.harness.study import where

Errors = dict[tuple[str, str, float], dict[str, list[float]]]
"""(family, prior, level) -> method -> relative errors."""
CV, ORACLE = "Tikhonov, cross-validation", "Tikhonov, oracle"
"""The best of the orders in the median, for each family and level."""
TV_ORACLE, TV_DISCREPANCY = f"{TOTAL_VARIATION}, oracle", f"{TOTAL_VARIATION}, discrepancy"
MAIN = (UNREGULARIZED, CV, "TSVD, cross-validation", TV_DISCREPANCY, LEARNED, LEARNED_ALL, ORACLE, LMMSE, TV_ORACLE)
"""Methods of the main table: given nothing, given the noise level, learned, and oracles, which are given the truth."""
RESAMPLES = 1000
CONFIDENCE = 0.9
AIM_CV, AIM_TIME, AIM_OTHERS, MIN_NOISY_LEVEL = 0.6, 1 / 20, 1.02, 1e-2
TARGETED = ("deblur", "gravity")


def interval(errors: FloatArray, share: float) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of a quantile, by percentiles; the same samples for every method."""
    rng = np.random.default_rng(0)
    drawn = errors[rng.integers(len(errors), size=(RESAMPLES, len(errors)))]
    low, high = np.quantile(np.quantile(drawn, share, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def pooled(errors: Errors, family: str, level: float) -> dict[str, FloatArray]:
    """Return the errors of all priors together, of the methods that every prior has, and of the best of the orders."""
    cells = with_best_orders(cell for (name, _, at), cell in errors.items() if (name, at) == (family, level))
    return {
        method: np.concatenate([cell[method] for cell in cells])
        for method in (*METHODS, CV, ORACLE)
        if all(method in cell for cell in cells)
    }


def with_best_orders(found: Iterable[dict[str, list[float]]]) -> list[dict[str, list[float]]]:
    """Return cells with Tikhonov's regularisation by that order which is best over all of them."""
    cells = list(found)
    for label, choice in ((CV, "cross-validation"), (ORACLE, "oracle")):
        names = [f"{name}, {choice}" for name in TIKHONOV]
        medians = {name: float(np.median(np.concatenate([cell[name] for cell in cells]))) for name in names}
        best = min(medians, key=medians.__getitem__)
        cells = [cell | {label: cell[best]} for cell in cells]
    return cells


def ratio(errors: Errors, family: str, level: float, ours: str, theirs: str) -> float:
    """Return our median over theirs, on the systems that both have seen."""
    cells = with_best_orders(cell for (name, _, at), cell in errors.items() if (name, at) == (family, level))
    pairs = [zip(cell[ours], cell[theirs], strict=False) for cell in cells]  # the shorter one is of the first systems
    mine, others = np.array([pair for pairs_of_cell in pairs for pair in pairs_of_cell]).T
    return float(np.median(mine) / np.median(others))


# ---------------------------------------------------------------- tables


def in_words(errors: Sequence[float] | FloatArray | None, share: float = 0.5) -> Cell:
    """Return a quantile and its interval as text."""
    if errors is None or len(errors) == 0:
        return None
    values = np.asarray(errors)
    low, high = interval(values, share)
    return f"{np.quantile(values, share):.3g} ({low:.3g}–{high:.3g})"


def summary(errors: Errors, times: dict[str, dict[str, Any]], about: dict[str, Any]) -> Report:
    """Put errors and times into tables and outcomes.

    Parameters
    ----------
    errors : Errors
    times : dict
        Seconds per system: family -> batch -> method.
    about : dict
        n, systems, slow and models of the plan.
    """
    families = list(dict.fromkeys(name for name, _, _ in errors))
    levels = sorted({level for _, _, level in errors})
    together = {(name, level): pooled(errors, name, level) for name in families for level in levels}
    methods = [method for method in METHODS if any(method in cell for cell in errors.values())]
    shown = [method for method in MAIN if any(method in found for found in together.values())]
    tables = [
        TableData(
            ("family", "noise", *shown),
            [[name, level, *(in_words(found.get(m)) for m in shown)] for (name, level), found in together.items()],
            f"Median relative error over all priors, n = {about['n']}, with 90 % bootstrap intervals",
        ),
        TableData(
            ("family", "noise", *shown),
            [[name, level, *(in_words(found.get(m), 0.9) for m in shown)] for (name, level), found in together.items()],
            "90 % of the relative errors are below this, over all priors",
        ),
        TableData(
            ("family", "method", "priors", *(f"{batch} at once" for batch in next(iter(times.values()), {}))),
            [[name, method, "all", *(1e3 * by_batch[batch][method] for batch in by_batch)]
             for name, by_batch in times.items() for method in next(iter(by_batch.values()))],
            "Time, ms per system",
        ),
        *(
            TableData(
                ("family", "prior", "noise", *methods),
                [[*cell, *(in_words(found.get(m), share) for m in methods)] for cell, found in errors.items()],
                title,
            )
            for share, title in ((0.5, "Median relative error of every cell"), (0.9, "90 % quantile of every cell"))
        ),
    ]  # fmt: skip
    data = about | {
        "families": families,
        "levels": levels,
        "times": times,
        "pooled": [
            point(name, level, m, found[m]) for (name, level), found in together.items() for m in shown if m in found
        ],
        "priors": [prior_point(*cell, medians_of(found)) for cell, found in errors.items()],
        "paired": [
            {
                "family": name,
                "level": level,
                "theirs": TV_ORACLE,
                "ratio": ratio(errors, name, level, LEARNED, TV_ORACLE),
            }
            for (name, level), found in together.items()
            if LEARNED in found and TV_ORACLE in found
        ],
    }
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def point(family: str, level: float, method: str, errors: FloatArray) -> dict[str, Any]:
    """Return median, 90 % quantile and the interval of the median of one method."""
    low, high = interval(errors, 0.5)
    middle, most = np.quantile(errors, (0.5, 0.9))
    return {"family": family, "level": level, "method": method, "median": rounded(middle), "low": rounded(low),
            "high": rounded(high), "q90": rounded(most)}  # fmt: skip


def medians_of(found: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the medians of one cell, without those of no regularisation."""
    return {method: rounded(np.median(errors)) for method, errors in found.items() if method != UNREGULARIZED}


def prior_point(family: str, prior: str, level: float, medians: dict[str, float]) -> dict[str, Any]:
    """Return the medians of a cell, and which method had the lowest."""
    return {
        "family": family,
        "prior": prior,
        "level": level,
        "best": min(medians, key=lambda m: medians[m]),
        "medians": medians,
    }


# ---------------------------------------------------------------- outcomes


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return for every family whether the learned solver meets its targets, and which method has the lowest errors."""
    found: dict[str, Outcome] = {}
    for name in data["families"]:
        medians = {(one["method"], one["level"]): one["median"] for one in where(data["pooled"], family=name)}
        ours = next((m for m in (LEARNED, LEARNED_ALL) if all((m, level) in medians for level in data["levels"])), None)
        if ours is None:
            found[f"noisy.learned/{name}"] = outcome(Verdict.INCONCLUSIVE, family=name)
        elif name in TARGETED and ours == LEARNED:
            found |= targets(data, name, medians)
        else:
            found[f"noisy.aim/{name}, {CV}"] = aimed(name, ours, CV, ratios(data, medians, ours, CV), AIM_OTHERS)
        found[f"noisy.lowest-error/{name}"] = lowest(data["priors"], name)
    return found


def targets(data: Mapping[str, Any], name: str, medians: Mapping[tuple[str, float], float]) -> dict[str, Outcome]:
    """Return whether the targets of deblur and gravity are met."""
    found = {
        f"noisy.aim/{name}, {theirs}": aimed(name, LEARNED, theirs, ratios(data, medians, LEARNED, theirs), aim, how)
        for theirs, aim, how in ((CV, AIM_CV, "at most"), (ORACLE, 1.0, "below"), (LMMSE, 1.0, "below"))
    }
    noisy = [level for level in data["levels"] if level >= MIN_NOISY_LEVEL]
    paired = {one["level"]: one["ratio"] for one in where(data.get("paired", ()), family=name, theirs=TV_ORACLE)}
    if noisy:
        over = {level: paired[level] for level in noisy if level in paired}
        found[f"noisy.aim/{name}, {TV_ORACLE}"] = aimed(name, LEARNED, TV_ORACLE, over, 1.0)
    if times := data["times"].get(name):
        batch = max(times, key=int)
        mine, theirs = times[batch][LEARNED], min(times[b][TOTAL_VARIATION] for b in times)
        found[f"noisy.time/{name}"] = outcome(
            met(mine <= AIM_TIME * theirs), family=name, batch=int(batch), target=1 / AIM_TIME, speed_up=theirs / mine,
            ms=1e3 * mine, total_variation_ms=1e3 * theirs,
        )  # fmt: skip
    return found


def ratios(
    data: Mapping[str, Any], medians: Mapping[tuple[str, float], float], ours: str, theirs: str
) -> dict[float, float]:
    """Return our median over theirs, by level, of methods that saw the same systems."""
    return {level: medians[ours, level] / medians[theirs, level] for level in data["levels"]}


def aimed(name: str, ours: str, theirs: str, found: Mapping[float, float], aim: float, how: str = "at most") -> Outcome:
    """Return whether our median over theirs is as aimed at, at every level; inconclusive if there are no ratios."""
    missed = [level for level, r in found.items() if not (r < aim if how == "below" else r <= aim)]
    return outcome(
        met(not missed) if found else Verdict.INCONCLUSIVE, family=name, ours=ours, theirs=theirs, how=how, aim=aim,
        missed=len(missed), **{f"{level:g}": r for level, r in found.items()},
    )  # fmt: skip


def lowest(priors: Sequence[Mapping[str, Any]], name: str) -> Outcome:
    """Return in how many cells of prior and level each method that is given no truth has the lowest median."""
    counts: Counter[str] = Counter()
    for cell in where(priors, family=name):
        medians = {method: value for method, value in cell["medians"].items() if "oracle" not in method}
        counts[min(medians, key=medians.__getitem__)] += 1
    return Outcome(Verdict.MEASURED, {"family": name, "cells": counts.total(), **dict(counts.most_common())})


# ---------------------------------------------------------------- sentences


def aim_sentence(found: Outcome) -> str:
    """Say at which levels a target is missed, or that it is met, with the ratios."""
    numbers = found.numbers
    at = {key: value for key, value in numbers.items() if key not in AIM_KEYS}
    goal = "{family} ({ours}): median error {how} {times}that of {theirs}".format(
        times="" if numbers["aim"] == 1 else f"{numbers['aim']:g} times ", **numbers
    )
    if not at:
        return f"{goal}: not measured on the same systems."
    text = ", ".join(f"{ratio:.3g} at noise {level}" for level, ratio in at.items())
    return f"{goal}: {found.verdict} at {len(at) - numbers['missed']} of {len(at)} levels (ratio {text})."


AIM_KEYS = ("family", "ours", "theirs", "how", "aim", "missed")


def lowest_sentence(found: Outcome) -> str:
    """Say which methods have the lowest errors."""
    name, cells, *counts = found.numbers.items()
    by_method = ", ".join(f"{method} in {count}" for method, count in counts)
    return f"{name[1]}: lowest median error, oracles aside, in {cells[1]} cells: {by_method}."


SENTENCES: Sentences = {
    "noisy.learned": "{family}: no model, so there is no learned solver to measure.",
    "noisy.aim": aim_sentence,
    "noisy.time": "{family}, batch {batch}: at most 1/{target:.0f} of the time of one total-variation solve: "
    "{verdict}, 1/{speed_up:.3g} ({ms:.3g} ms against {total_variation_ms:.3g} ms).",
    "noisy.lowest-error": lowest_sentence,
}
