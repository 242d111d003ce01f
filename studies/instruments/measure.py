"""The shipped networks for DEER and relaxation times against the methods of their fields.

A case is one measurement with abscissae, nuisance parameters and noise of its own. Those of one kind of signals differ
between levels in the size of their noise alone. The network is told nothing but the data; what the others are told is
in their names, see `rivals`. Packages of the fields take seconds for a case and get the first few. A sampler of a
positive posterior gets fewer still, at two levels, and only where its package is installed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from rich.progress import Progress
from threadpoolctl import threadpool_limits

from algebraformer import instruments
from algebraformer.problems.instruments import Simulated
from algebraformer.reporting import Report
from algebraformer.training.data import TEST_SEED
from studies.harness.measurements import KINDS, PRIOR, axis, case, instrument
from studies.harness.runs import computed_once, folder_name
from studies.harness.timing import in_turn
from studies.instruments.metrics import coverage, scores
from studies.instruments.packages import Answer, cuqipy, deerlab, installed, pydrttools
from studies.instruments.report import LEARNED, Scores, summary
from studies.instruments.rivals import GCV_NNLS, LMMSE, METHODS, PACKAGES, SAMPLER, gcv_nnls, lmmse

LEVELS = {"deer": (0.003, 0.01, 0.03, 0.1), "drt": (0.001, 0.003, 0.01, 0.03)}
"""Standard deviations of the noise over V(0), or over the impedance."""
SAMPLED = {"deer": (0.01, 0.03)}
"""Levels at which the sampler gets cases of the training's kind."""
TIMED_POINTS = {"deer": 300, "drt": 60}
"""Times of a trace, and frequencies of a spectrum, that methods are timed with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    instruments: tuple[str, ...] = ("deer", "drt")
    systems: int = 1000
    """Cases of the training's kind for each level."""
    others: int = 100
    """Cases of each distribution of the literature for each level."""
    few: int = 20
    """Of these, cases for the packages of the fields; 0 leaves them out."""
    sampled: int = 0
    """Cases for the sampler at each of its levels, if it is installed."""
    rounds: int = 9
    """Rounds whose median time is reported."""
    processes: int = 2
    """Processes of one thread each that share the cases."""


PRESETS = {
    "quick": Plan(systems=4, others=1, few=0, sampled=1, rounds=1, processes=1),
    "cpu": Plan(systems=300, others=30, few=3, sampled=10),
    "paper": Plan(sampled=100),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure what is missing, then put everything together."""
    cells: dict[tuple[str, str, float], Scores] = {}
    wanted = [
        (name, kind, level) for name in plan.instruments for kind in (PRIOR, *KINDS[name]) for level in LEVELS[name]
    ]
    task = bar.add_task("instruments", total=len(wanted) + len(plan.instruments))
    times = {}
    for name in plan.instruments:
        times[name] = timed(plan, name)
        bar.advance(task)
    for name, kind, level in wanted:
        count = plan.systems if kind == PRIOR else plan.others
        settings = {"count": count, "few": plan.few, "name": name, "kind": kind, "level": level}
        path = folder / f"{folder_name(name, kind, level)}.json"
        classical = cast(
            Scores, computed_once(path, settings, partial(classical_scores, plan, name, kind, level, count))
        )
        cells[name, kind, level] = {LEARNED: learned_scores(name, kind, level, count)} | classical
        if plan.sampled and kind == PRIOR and level in SAMPLED.get(name, ()) and installed("cuqi"):
            path, settings = path.with_stem(f"{path.stem}-sampled"), settings | {"count": plan.sampled}
            sampled = computed_once(path, settings, partial(sampled_scores, name, level, plan.sampled))
            cells[name, kind, level] |= cast(Scores, sampled)
        bar.advance(task)
    about = {
        "instruments": list(plan.instruments),
        "systems": plan.systems,
        "others": plan.others,
        "models": {name: instruments.load(name).info.commit for name in plan.instruments},
    }
    return summary(cells, times, about)


def kinds(name: str) -> tuple[str, ...]:
    """Return the kinds of signals of an instrument."""
    return (PRIOR, *KINDS[name])


def classical_scores(plan: Plan, name: str, kind: str, level: float, count: int) -> Scores:
    """Return the scores of all methods but ours, by several processes."""
    share = partial(scores_of_case, name, kind, level, plan.few)
    if plan.processes == 1:
        found: Iterable[Scores] = map(share, range(count))
        return joined(found)
    # Not forked: another thread may hold a lock of a library.
    with ProcessPoolExecutor(plan.processes, mp_context=get_context("spawn")) as pool:
        return joined(pool.map(share, range(count), chunksize=max(1, count // (8 * plan.processes))))


def joined(parts: Iterable[Scores]) -> Scores:
    """Return the scores of single cases, together."""
    found: Scores = {}
    for part in parts:
        for method, measured in part.items():
            for measure, values in measured.items():
                found.setdefault(method, {}).setdefault(measure, []).extend(values)
    return found


def scores_of_case(name: str, kind: str, level: float, few: int, index: int) -> Scores:
    """Return the scores of all methods but ours for one case."""
    family, one = instrument(name, kind, level), case(name, kind, level, index)
    extra: dict[str, dict[str, float]] = {}
    with threadpool_limits(1):
        found = {method: solve(family, one) for method, solve in METHODS.items()}
        found[LMMSE] = lmmse(family, one, kind)
        if index < few:
            package = PACKAGES[name]
            start = time.perf_counter()
            answer = (deerlab if name == "deer" else pydrttools)(family, one)
            found[package], extra[package] = answer.x, of_package(answer, one, start)
    u = axis(name, one.grid)
    return {
        method: {measure: [value] for measure, value in (scores(x, one.x[0], u) | extra.get(method, {})).items()}
        for method, x in found.items()
    }


def sampled_scores(name: str, level: float, count: int) -> Scores:
    """Return the scores of the sampler for the first cases of the training's kind."""
    family, parts = instrument(name, PRIOR, level), []
    for index in range(count):
        one, start = case(name, PRIOR, level, index), time.perf_counter()
        with threadpool_limits(1):
            answer = cuqipy(family, one)
        measured = scores(answer.x, one.x[0], axis(name, one.grid)) | of_package(answer, one, start)
        parts.append({SAMPLER: {measure: [value] for measure, value in measured.items()}})
    return joined(parts)


def of_package(answer: Answer, one: Simulated, start: float) -> dict[str, float]:
    """Return the seconds since a package was started and, if it gives bands, their coverage."""
    found = {"seconds": time.perf_counter() - start}
    if answer.lower is not None and answer.upper is not None:
        found["coverage_90"] = coverage(answer.lower, answer.upper, one.x[0], answer.x)
    return found


def learned_scores(name: str, kind: str, level: float, count: int) -> dict[str, list[float]]:
    """Return the scores of the shipped network, with coverage of its bands and its flags."""
    model = instruments.load(name)
    found: dict[str, list[float]] = {}
    for index in range(count):
        one = case(name, kind, level, index)
        answer = model.invert(one, one.data, batched=True)
        scale = model.instrument.x_scale(one.grid)
        x, truth = answer.x[0] / scale, one.x[0]
        measured = scores(x, truth, axis(name, one.grid))
        for band in (50, 90, 95):
            low, high = (end[0] / scale for end in answer.band(band / 100))
            measured[f"coverage_{band}"] = coverage(low, high, truth, x)
        measured["consistent"] = float(answer.consistent[0])
        measured["in_distribution"] = float(answer.in_distribution[0])
        for measure, value in measured.items():
            found.setdefault(measure, []).append(value)
    return found


def timed(plan: Plan, name: str) -> dict[str, dict[str, float]]:
    """Return seconds per measurement of the network and of the classical answer, by batch."""
    model, family = instruments.load(name), instrument(name, PRIOR, LEVELS[name][1])
    found: dict[str, dict[str, float]] = {}
    for batch in (1, 64):
        group: Simulated = family.simulate(range(batch), TEST_SEED, TIMED_POINTS[name])
        calls: dict[str, Callable[[], object]] = {LEARNED: partial(model.invert, group, group.data, True)}
        if batch == 1:
            calls[GCV_NNLS] = partial(gcv_nnls, family, group)
        for method, seconds in in_turn(calls, plan.rounds).items():
            found.setdefault(method, {})[str(batch)] = seconds / batch
    return found
