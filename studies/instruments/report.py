"""Tables and outcomes of the study `instruments`, from the scores of every case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from studies.harness.measurements import PRIOR
from studies.harness.statistics import rounded
from studies.instruments.rivals import GCV_NNLS, LMMSE, ORACLE, PACKAGES

LEARNED = "learned"
Scores = dict[str, dict[str, list[float]]]
"""Of one cell: method -> measure -> a number for each case."""
MEASURES = ("relative_error", "wasserstein", "mean_error", "width_error", "false_peaks")
AIM, AIM_BATCH_1, AIM_BATCH_64, AIM_COVERAGE = 0.75, 5e-3, 0.5e-3, 0.03
"""Largest ratio to GCV + NNLS, seconds per measurement in batches of 1 and of 64, and error of a coverage."""
LEVELS_OF_BANDS = (50, 90, 95)

SENTENCES: Sentences = {
    "instruments.classical": "{instrument}: the network's median error is {ratio:.2g} of that of GCV + NNLS at "
    "worst: {verdict}.",
    "instruments.oracle": "{instrument}: it is below that of the NNLS oracle, which knows the nuisance parameters, at "
    "{below} of {levels} levels of noise: {verdict}.",
    "instruments.outside": "{instrument}: on distributions of the literature it is {ratio:.2g} of GCV + NNLS at worst: "
    "{verdict}.",
    "instruments.coverage": "{instrument}: bands hold what they say to within {off:.2g} at every level of noise: "
    "{verdict}.",
    "instruments.time": "{instrument}: {single:.2g} ms for one measurement, {many:.2g} ms each in batches of 64: "
    "{verdict}.",
}


def summary(cells: dict[tuple[str, str, float], Scores], times: dict[str, Any], about: dict[str, Any]) -> Report:
    """Return the report of all cells (instrument, kind, level)."""
    rows = [
        {
            "instrument": name,
            "kind": kind,
            "level": level,
            "method": method,
            "cases": len(measured["relative_error"]),
            **{measure: rounded(float(np.median(measured[measure]))) for measure in MEASURES if measure in measured},
            **{
                measure: rounded(float(np.mean(values)))
                for measure, values in measured.items()
                if measure not in MEASURES or measure == "false_peaks"
            },
        }
        for (name, kind, level), scores in cells.items()
        for method, measured in scores.items()
    ]
    data = about | {"cells": rows, "paired": paired(cells), "times": times}
    decided = outcomes(data)
    return Report(tables(data), decided, conclusions(decided, SENTENCES), data)


def paired(cells: dict[tuple[str, str, float], Scores]) -> list[dict[str, Any]]:
    """Return our median error over that of each rival, on the cases that both have seen."""
    found = []
    for (name, kind, level), scores in cells.items():
        ours = scores[LEARNED]["relative_error"]
        for method, measured in scores.items():
            theirs = measured["relative_error"]
            few = min(len(ours), len(theirs))
            ratio = float(np.median(ours[:few]) / np.median(theirs[:few]))
            found.append({"instrument": name, "kind": kind, "level": level, "method": method, "ratio": rounded(ratio)})
    return found


def ratios(data: Mapping[str, Any], name: str, method: str, prior: bool) -> list[float]:
    """Return our ratios to a method, on signals of the training's kind or on all others."""
    return [
        row["ratio"]
        for row in data["paired"]
        if (row["instrument"], row["method"]) == (name, method) and (row["kind"] == PRIOR) == prior
    ]


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what the measurements decide."""
    found: dict[str, Outcome] = {}
    for name in data["instruments"]:
        inside, outside = (ratios(data, name, GCV_NNLS, prior) for prior in (True, False))
        oracle = ratios(data, name, ORACLE, True)
        below = sum(ratio < 1 for ratio in oracle)
        off = max(
            abs(row[f"coverage_{level}"] - level / 100)
            for row in data["cells"]
            if (row["instrument"], row["kind"], row["method"]) == (name, PRIOR, LEARNED)
            for level in LEVELS_OF_BANDS
        )
        single, many = (data["times"][name][LEARNED][batch] for batch in ("1", "64"))
        oracle_verdict = met(below == len(oracle)) if below in (0, len(oracle)) else Verdict.PARTLY
        fast = met(single <= AIM_BATCH_1 and many <= AIM_BATCH_64)
        about = {"instrument": name}
        found |= {
            f"instruments.classical/{name}": outcome(met(max(inside) <= AIM), **about, ratio=max(inside)),
            f"instruments.oracle/{name}": outcome(oracle_verdict, **about, below=below, levels=len(oracle)),
            f"instruments.outside/{name}": outcome(met(max(outside) <= 1), **about, ratio=max(outside)),
            f"instruments.coverage/{name}": outcome(met(off <= AIM_COVERAGE), **about, off=off),
            f"instruments.time/{name}": outcome(fast, **about, single=1e3 * single, many=1e3 * many),
        }
    return found


def tables(data: Mapping[str, Any]) -> list[TableData]:
    """Return median errors by level, by distribution, further measures, and times."""
    found = []
    for name in data["instruments"]:
        mine = [row for row in data["cells"] if row["instrument"] == name]
        levels = sorted({row["level"] for row in mine})
        methods = list(dict.fromkeys(row["method"] for row in mine))

        def cell(kind: str, level: float, method: str, measure: str, mine: list[Any] = mine) -> Cell:
            rows = [r for r in mine if (r["kind"], r["level"], r["method"]) == (kind, level, method)]
            return rows[0].get(measure) if rows else None

        rows: list[list[Cell]] = [
            [method, *(cell(PRIOR, level, method, "relative_error") for level in levels)] for method in methods
        ]
        title = f"{name}: median relative error on signals of the training's kind, by noise"
        found.append(TableData(("method", *(f"{level:g}" for level in levels)), rows, title))

        middle = levels[len(levels) // 2 - 1]
        rows = [[method, *(cell(PRIOR, middle, method, measure) for measure in MEASURES)] for method in methods]
        title = f"{name}: medians of all measures at noise {middle:g} (false peaks: mean)"
        found.append(TableData(("method", *MEASURES), rows, title))

        kinds = [kind for kind in dict.fromkeys(row["kind"] for row in mine) if kind != PRIOR]
        shown = (LEARNED, GCV_NNLS, ORACLE, LMMSE, PACKAGES[name])
        rows = [
            [kind, f"{level:g}", *(cell(kind, level, method, "relative_error") for method in shown)]
            for kind in kinds
            for level in levels
        ]
        found.append(TableData(("distribution", "noise", *shown), rows, f"{name}: distributions of the literature"))

        names = [f"coverage_{level}" for level in LEVELS_OF_BANDS] + ["consistent", "in_distribution"]
        rows = [
            [kind, f"{level:g}", *(cell(kind, level, LEARNED, measure) for measure in names)]
            for kind in (PRIOR, *kinds)
            for level in levels
        ]
        found.append(TableData(("distribution", "noise", *names), rows, f"{name}: bands and flags of the network"))
        times = data["times"][name]
        batches = sorted({batch for method in times.values() for batch in method}, key=int)
        rows = [[method, *(ms(times[method].get(batch)) for batch in batches)] for method in times]
        found.append(TableData(("method", *(f"batch {batch}" for batch in batches)), rows, f"{name}: ms a measurement"))
    return found


def ms(seconds: float | None) -> Cell:
    """Return milliseconds, to three digits."""
    return None if seconds is None else rounded(1e3 * seconds)
