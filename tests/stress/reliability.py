"""The stress checks: what must never happen, tried as often as time allows, with the failures counted.

Every row of the main table is a module of `tests.stress`, which documents what exactly is tried. A check that is done
is kept in the working folder; one that was run with other numbers is run again.

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

from algebraformer.reporting import Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
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
"""Cases that these checks are to have; the conclusions list those with fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How often each check is tried."""

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


def checks(plan: Plan) -> dict[str, tuple[Callable[..., Check], tuple[Any, ...]]]:
    """Return the function of every check and what it is called with."""
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
    """Run every check that has not been run with these numbers."""
    todo = checks(plan)
    task = bar.add_task("reliability", total=len(todo))
    records = []
    for name, (check, arguments) in todo.items():
        bar.update(task, description=f"reliability: {name}")
        settings, compute = {"arguments": arguments}, partial(tried, check, arguments)
        records.append(computed_once(folder / f"{name}.json", settings, compute))
        bar.advance(task)
    return summary(records)


def tried(check: Callable[..., Check], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return the result of a check, as plain JSON values."""
    return check(*arguments).record()


def summary(records: list[dict[str, Any]]) -> Report:
    """Put the checks into tables and outcomes."""
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
    ends = sorted({end for kind in kinds.values() for end in kind})
    rows = [[kind, *(counts.get(end, 0) for end in ends)] for kind, counts in kinds.items()]
    tables.append(TableData(("mutation", *ends), rows, "Mutated checkpoints"))
    failures = [[r["name"], text] for r in records for text in r["failures"]]
    if failures:
        tables.append(TableData(("what was tried", "what failed"), failures, "Failures"))
    data = {"records": records}
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


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


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what failed, how much was tried, and what the numbers of the checks say about the solver."""
    by_name = {record["name"]: record for record in data["records"]}
    cases, failed = (sum(record[key] for record in by_name.values()) for key in ("cases", "failed"))
    broken = {name: record["failed"] for name, record in by_name.items() if record["failed"]}
    found = {
        "reliability.nothing-fails": outcome(
            Verdict.FAILS if failed else Verdict.HOLDS, cases=cases, checks=len(by_name), failed=failed, **broken
        )
    }
    for name, wanted in WANTED.items():
        tried = by_name[name]["cases"] if name in by_name else 0
        verdict = met(tried >= wanted) if tried else Verdict.INCONCLUSIVE
        found[f"reliability.cases/{name}"] = outcome(verdict, check=name, cases=tried, wanted=wanted)
    counts = by_name["SciPy's tests"]["counts"]
    network, fallback = counts["systems answered by a network"], counts["systems given to LAPACK"]
    found["reliability.scipy-by-network"] = outcome(Verdict.MEASURED, network=network, systems=network + fallback)
    counts = by_name["LAPACK's matrix types"]["counts"]
    found["reliability.above-lapack-limit"] = outcome(
        Verdict.MEASURED, above=counts.get("learned, above LAPACK's limit", 0), limit=lapack_types.MAX_TEST_RATIO,
        answers=sum(counts.get(key, 0) for key in ("learned", "learned+refined")),
    )  # fmt: skip
    for inside, where in ((True, "inside the family"), (False, "outside")):
        rows = by_name.get("ill-conditioned systems", {}).get("forward_error", ())
        chosen = [row for row in rows if row["inside"] == inside and row["held"] is not None]
        total = sum(row["cases"] - row["unknown"] for row in chosen)
        held = sum(row["held"] * (row["cases"] - row["unknown"]) for row in chosen)
        if total:
            found[f"reliability.forward-error/{where}"] = outcome(
                Verdict.HOLDS if held == total else Verdict.PARTLY, where=where, share=held / total, answers=total
            )
    counts = by_name["one bad system among many"]["counts"]
    raised, warned, silent = (counts.get(f"two equal rows: {how}", 0) for how in EQUAL_ROWS)
    found["reliability.equal-rows"] = outcome(
        Verdict.PARTLY if silent else Verdict.HOLDS, matrices=raised + warned + silent, raised=raised, warned=warned,
        silent=silent,
    )  # fmt: skip
    return found


EQUAL_ROWS = ("LinAlgError", "LinAlgWarning", "not noticed")
"""Ways in which a matrix with two equal rows ends."""


def failures_sentence(found: Outcome) -> str:
    """Say how much was tried and what failed."""
    numbers = dict(found.numbers)
    cases, checks, failed = (numbers.pop(key) for key in ("cases", "checks", "failed"))
    text = f"{cases:,} cases in {checks} checks, {failed or 'none'} of them failed"
    return f"{text}: {', '.join(f'{count} of {name}' for name, count in numbers.items())}." if numbers else f"{text}."


SENTENCES: Sentences = {
    "reliability.nothing-fails": failures_sentence,
    "reliability.cases": lambda found: (
        ""
        if found.verdict == Verdict.MET
        else "Of the {check}, {cases:,} cases were tried instead of {wanted:,}.".format(**found.numbers)
    ),
    "reliability.scipy-by-network": "In SciPy's tests {network:,} of {systems:,} systems were solved by the network, "
    "the others by LAPACK.",
    "reliability.above-lapack-limit": "Of {answers:,} answers by a network to LAPACK's test matrices, {above} were "
    "certified with a test ratio above LAPACK's own limit of {limit:g}, which the certificate allows.",
    "reliability.forward-error": "{where}: forward_error is at least the true error for {share:.3%} of {answers:,} "
    "answers.",
    "reliability.equal-rows": "Limit: of {matrices} matrices of a family with two rows made equal and b in their "
    "range, {raised} raised an error, {warned} a warning, and {silent} neither.",
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the cases of every check, failed ones in red, and who answered the systems in SciPy's tests."""
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
