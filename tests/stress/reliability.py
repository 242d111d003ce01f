"""The wall of reliability: what must never happen, tried as often as time allows, with the failures counted.

Every line of the main table is a module of `studies.wall`, which says what exactly is tried. A line that is done is
kept in the folder of the study; one that was made with other numbers is made anew.

SciPy's tests need pytest and the made-up systems need hypothesis: both come with the extra `algebraformer[test]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer.reporting import Report, TableData
from studies.harness.panels import WHO
from studies.harness.runs import computed_once
from tests.stress import (
    certificates,
    checkpoints,
    files,
    ill_conditioned,
    interruptions,
    lapack_types,
    scipy_suite,
    sharing,
    slices,
)
from tests.stress.base import Check

WANTED = {"made-up systems": 100_000, "ill-conditioned systems": 100_000, "checkpoints": 10_000}
"""Cases that these lines were meant to have; the verdict says where a preset has fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How often each line is tried."""

    networks: tuple[str, ...]
    """Networks that SciPy's tests run with."""
    chosen: str
    """Which of SciPy's tests, as pytest's -k; all if empty."""
    seeds: int
    """Draws of every one of LAPACK's matrices."""
    right_hand_sides: tuple[int, ...]
    """How many right-hand sides each of them has."""
    made_up: int
    """Calls that hypothesis makes up."""
    ill_conditioned: int
    """Ill-conditioned systems of every kind, for each model."""
    trials: int
    """Batches with three bad systems, for each model."""
    batch: int
    """Systems in such a batch."""
    checkpoints: int
    """Mutations of shipped checkpoints."""
    flips: int
    """Damaged copies of every small file; a fifth as many are cut short."""
    garbage: int
    """Files of random bytes for every format."""
    kills: int
    """Trainings that are killed."""
    terminations: int
    """Trainings that are asked to stop."""
    jobs: int
    """Calls that threads and processes share, for each model."""


PRESETS = {
    "quick": Plan(
        networks=("diffusion-64", "nearly right", "NaN"),
        chosen="(TestSolve and not overwrite_args and not structure_detection) or (test_solve and d-)",
        seeds=1,
        right_hand_sides=(2,),
        made_up=300,
        ill_conditioned=8,
        trials=1,
        batch=256,
        checkpoints=300,
        flips=10,
        garbage=10,
        kills=3,
        terminations=1,
        jobs=8,
    ),
    "cpu": Plan(
        networks=scipy_suite.NETWORKS,
        chosen="",
        seeds=10,
        right_hand_sides=lapack_types.RIGHT_HAND_SIDES,
        made_up=10_000,
        ill_conditioned=2_000,
        trials=20,
        batch=256,
        checkpoints=10_000,
        flips=1_000,
        garbage=1_000,
        kills=50,
        terminations=10,
        jobs=100,
    ),
}
PRESETS["paper"] = dataclasses.replace(PRESETS["cpu"], made_up=WANTED["made-up systems"])


def lines(plan: Plan) -> dict[str, tuple[Callable[..., Check], tuple[Any, ...]]]:
    """Return the function of every line and what it is called with."""
    return {
        "scipy": (scipy_suite.check, (plan.networks, plan.chosen)),
        "lapack": (lapack_types.check, (plan.seeds, plan.right_hand_sides)),
        "certificates": (certificates.check, (plan.made_up,)),
        "ill_conditioned": (ill_conditioned.check, (plan.ill_conditioned,)),
        "slices": (slices.check, (plan.trials, plan.batch)),
        "checkpoints": (checkpoints.check, (plan.checkpoints,)),
        "files": (files.check, (plan.flips, plan.garbage)),
        "interruptions": (interruptions.check, (plan.kills, plan.terminations)),
        "sharing": (sharing.check, (plan.jobs,)),
    }


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Try every line that has not been tried with these numbers."""
    todo = lines(plan)
    task = bar.add_task("reliability", total=len(todo))
    records = []
    for name, (check, arguments) in todo.items():
        bar.update(task, description=f"reliability: {name}")
        settings, compute = {"arguments": arguments}, partial(tried, check, arguments)
        records.append(computed_once(folder / f"{name}.json", settings, compute))
        bar.advance(task)
    return summary(records)


def tried(check: Callable[..., Check], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return what came out of a line, as plain JSON values."""
    return check(*arguments).record()


def summary(records: list[dict[str, Any]]) -> Report:
    """Put the lines into tables and sentences."""
    by_name = {record["name"]: record for record in records}
    main = TableData(
        ("what was tried", "what must hold", "cases", "failed"),
        [[r["name"], r["claim"], r["cases"], r["failed"]] for r in records],
    )
    rows = [[r["name"], what, count] for r in records for what, count in sorted(r["counts"].items())]
    tables = [main, TableData(("what was tried", "what happened", "times"), rows, "What happened")]
    networks = by_name["SciPy's tests"]["networks"]
    keys = ("network", "passed", "skipped", "failed", "learned", "learned+refined", "lapack")
    columns = ("network", "tests passed", "skipped", "failed", "systems: network", "network, refined", "LAPACK")
    tables.append(TableData(columns, [[row[key] for key in keys] for row in networks], "SciPy's tests by network"))
    ratios = by_name["LAPACK's matrix types"]["worst_ratio"]
    tables.append(TableData(("type", "worst ratio"), [[*item] for item in ratios.items()], "LAPACK's matrix types"))
    tables += ill_conditioned_tables(by_name["ill-conditioned systems"])
    kinds = by_name["checkpoints"]["kinds"]
    outcomes = sorted({outcome for kind in kinds.values() for outcome in kind})
    rows = [[kind, *(counts.get(outcome, 0) for outcome in outcomes)] for kind, counts in kinds.items()]
    tables.append(TableData(("mutation", *outcomes), rows, "Mutated checkpoints"))
    failures = [[r["name"], text] for r in records for text in r["failures"]]
    if failures:
        tables.append(TableData(("what was tried", "what failed"), failures, "Failures"))
    return Report(tables, verdict(by_name), {"records": records})


def ill_conditioned_tables(record: dict[str, Any]) -> list[TableData]:
    """Return who answered the ill-conditioned systems, and how often `forward_error` held."""
    columns = (
        "matrices", "cases", "network", "in_distribution", "certified", "warned", "singular", "failed",
        "largest error per limit",
    )  # fmt: skip
    kinds = TableData(columns, [[*row.values()] for row in record["by_kind"]], "Ill-conditioned systems")
    measures = (
        "systems", "answered by", "cases", "no estimate", "infinite", "held", "overestimate, median",
        "largest error per estimate",
    )  # fmt: skip
    rows = [["inside" if row["inside"] else "outside", *list(row.values())[1:]] for row in record["forward_error"]]
    return [kinds, TableData(measures, rows, "forward_error inside and outside the family")]


def verdict(by_name: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence on the whole, and one each on what the numbers alone do not say."""
    cases, failed = (sum(record[key] for record in by_name.values()) for key in ("cases", "failed"))
    broken = [f"{record['failed']} of {name}" for name, record in by_name.items() if record["failed"]]
    sentences = [
        f"{cases} cases in {len(by_name)} lines, "
        + (f"{failed} of them failed: {', '.join(broken)}." if failed else "none of them failed.")
    ]
    for name, wanted in WANTED.items():
        if by_name[name]["cases"] < wanted:
            sentences.append(f"Of the {name}, {by_name[name]['cases']} cases were tried instead of {wanted}.")
    counts = by_name["SciPy's tests"]["counts"]
    answered, given = counts["systems answered by a network"], counts["systems given to LAPACK"]
    sentences.append(
        f"In SciPy's tests {answered} of the {answered + given} systems that reached a solver were answered by the "
        f"network, the others by LAPACK."
    )
    above = by_name["LAPACK's matrix types"]["counts"].get("learned, above LAPACK's limit", 0)
    learned = sum(by_name["LAPACK's matrix types"]["counts"].get(key, 0) for key in ("learned", "learned+refined"))
    sentences.append(
        f"Of LAPACK's matrices, {above} of {learned} answers by a network were certified with a test ratio above "
        f"LAPACK's own limit of {lapack_types.LIMIT:g}, which the certificate allows."
    )
    sentences.append(estimates_held(by_name["ill-conditioned systems"]["forward_error"]))
    counts = by_name["one bad system among many"]["counts"]
    noticed = [counts.get(f"two equal rows: {how}", 0) for how in ("LinAlgError", "LinAlgWarning", "not noticed")]
    sentences.append(
        f"A limit: of {sum(noticed)} matrices of a family with two rows made equal and b in their range, {noticed[0]} "
        f"raised, {noticed[1]} warned, and {noticed[2]} were answered without a word."
    )
    return sentences


def estimates_held(rows: list[dict[str, Any]]) -> str:
    """Return a sentence on how often `forward_error` was at least the true error."""
    parts = []
    for inside, where in ((True, "inside the family"), (False, "outside")):
        chosen = [row for row in rows if row["inside"] == inside and row["held"] is not None]
        total = sum(row["cases"] - row["unknown"] for row in chosen)
        held = sum(row["held"] * (row["cases"] - row["unknown"]) for row in chosen)
        if total:
            parts.append(f"{100 * held / total:.5g} % of {total} answers {where}")
    return f"forward_error is at least the true error for {' and '.join(parts)}."


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the cases of every line, failed ones in red, and who answered the systems in SciPy's tests."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    records = data["records"]
    places = np.arange(len(records))
    left.barh(places, [record["cases"] for record in records], color="C2", label="cases")
    left.barh(places, [record["failed"] for record in records], color="C3", label="failed")
    left.set_yticks(places, [record["name"] for record in records])
    left.set(xscale="log", xlim=(1, None), xlabel="number", title="what was tried")
    networks = next(record["networks"] for record in records if record["name"] == "SciPy's tests")
    places, base = np.arange(len(networks)), np.zeros(len(networks))
    for key, (colour, label) in WHO.items():
        values = np.array([row[key] for row in networks])
        right.barh(places, values, left=base, color=colour, label=label)
        base += values
    right.set_yticks(places, [row["network"] for row in networks])
    right.set(xlabel="systems", title="who answered in SciPy's tests")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
        axes.legend(fontsize="small")
    return figure
