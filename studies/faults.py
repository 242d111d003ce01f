"""Measurements that are not what the instrument says: what the checks of an inversion see, and what it costs.

Each fault is added to simulated measurements of the training's kind. A measurement is flagged if its inversion is not
`consistent` or not `in_distribution`. Errors are those of x against the density without the fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import instruments
from algebraformer.arrays import split_parts
from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments import Simulated
from algebraformer.problems.instruments.base import Recorded
from algebraformer.problems.instruments.dipolar import background
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from studies.harness.measurements import PRIOR, axis, case, time
from studies.harness.panels import legend_below, panel_grid
from studies.harness.runs import computed_once, folder_name
from studies.harness.statistics import rounded
from studies.harness.study import distinct, where

Rng = np.random.Generator
NONE, HALF_TRACE, HALF_SPECTRUM = "none", "half of the trace", "half of the spectrum"
SOUND = (NONE, HALF_TRACE, HALF_SPECTRUM)
"""What is no fault: less is known, and nothing is wrong."""
MAX_FALSE_ALARMS, SEEN = 0.05, 0.5
"""Largest share of flagged measurements without a fault, and the share from which on a fault counts as seen."""
OUTLIERS, OUTLIER_SIZE = 0.02, 6.0
"""Share of the data that are wrong, and by how many standard deviations of the noise."""
DRIFT = 0.02
"""Over the amplitude, or over the largest |Z|, at the end of the measurement."""
COLOUR = 0.5
"""Correlation of the noise of neighbours."""
BURST, BURST_WIDTH = 0.05, 0.05
"""Height over the amplitude, and standard deviation in us."""
RATES = (0.05, 0.5)
"""Rates of two backgrounds, 1/us."""
LOOP = 0.2
"""Resistance of an inductive loop over the polarisation resistance."""
EXPONENT = 0.8
"""Of negative ZARC elements."""


def changed(one: Simulated, data: FloatArray) -> Recorded:
    """Return a measurement with other data (rows,)."""
    return Recorded(one.abscissa, data[None], one.present)


def none(one: Simulated, rng: Rng) -> Recorded:
    """Return the measurement as it is."""
    return changed(one, one.data[0])


def outliers(one: Simulated, rng: Rng) -> Recorded:
    """Move some of the data by six standard deviations, at least one of them."""
    count = len(one.data[0])
    chosen = rng.choice(count, max(1, round(OUTLIERS * count)), replace=False)
    shift = np.zeros(count)
    shift[chosen] = OUTLIER_SIZE * rng.choice((-1, 1), len(chosen))
    return changed(one, one.data[0] + shift * one.std[0])


def coloured(one: Simulated, rng: Rng) -> Recorded:
    """Draw noise of the same size anew, in which neighbours are correlated; real and imaginary parts are not."""
    parts = one.data.shape[1] // len(one.abscissa)
    z = rng.standard_normal((parts, len(one.abscissa)))
    for i in range(1, z.shape[1]):
        z[:, i] = COLOUR * z[:, i - 1] + np.sqrt(1 - COLOUR**2) * z[:, i]
    return changed(one, one.clean[0] + one.std[0] * z.ravel())


def drifting_trace(one: Simulated, rng: Rng) -> Recorded:
    """Add a straight line that begins with the trace."""
    t = one.abscissa
    return changed(one, one.data[0] + DRIFT * one.nuisance["amplitude"][0] * (t - t[0]) / (t[-1] - t[0]))


def burst(one: Simulated, rng: Rng) -> Recorded:
    """Add a Gaussian, as of crossing echoes, somewhere in the middle three fifths of the trace."""
    t = one.abscissa
    z = (t - rng.uniform(0.2, 0.8) * t[-1]) / BURST_WIDTH
    return changed(one, one.data[0] + BURST * one.nuisance["amplitude"][0] * np.exp(-(z**2) / 2))


def two_backgrounds(one: Simulated, rng: Rng) -> Recorded:
    """Replace the background by the mean of a slow and a fast one, with the same noise."""
    nuisance = {name: value[0] for name, value in one.nuisance.items()}
    t = one.abscissa - nuisance["zero_time"]
    before = background(t, nuisance["background_rate"], nuisance["dimension"])
    after = background(t, np.array(RATES), np.full(len(RATES), 3.0)).mean(axis=0)
    return changed(one, one.data[0] + one.clean[0] * (after / before - 1))


def half_trace(one: Simulated, rng: Rng) -> Recorded:
    """Cut the trace at half its length."""
    kept = one.abscissa <= one.abscissa[-1] / 2
    return Recorded(one.abscissa[kept], one.data[:, kept], one.present[kept])


def drifting_spectrum(one: Simulated, rng: Rng) -> Recorded:
    """Add to the real part what grows with the logarithm of the period, from nothing at the highest frequency."""
    u = np.log(one.abscissa)
    largest = np.hypot(*np.split(one.clean[0], 2)).max()
    line = DRIFT * largest * (u[-1] - u) / (u[-1] - u[0])
    return changed(one, one.data[0] + np.concatenate((line, np.zeros_like(line))))


def loop(one: Simulated, rng: Rng) -> Recorded:
    """Add an inductive loop, R beside an inductance, half to one and a half decades above the lowest frequency."""
    f = one.abscissa
    s = 1j * f / (f[0] * 10 ** rng.uniform(0.5, 1.5))
    return changed(one, one.data[0] + split_parts(LOOP * s / (1 + s), axis=0))


def negative_arc(share: float) -> Fault:
    """Return the fault that takes away a ZARC element, of this share of the polarisation resistance."""

    def fault(one: Simulated, rng: Rng) -> Recorded:
        s = 2j * np.pi * one.abscissa * time(rng, one.grid)
        return changed(one, one.data[0] - split_parts(share / (1 + s**EXPONENT), axis=0))

    return fault


def half_spectrum(one: Simulated, rng: Rng) -> Recorded:
    """Leave out the lower half of the frequencies."""
    kept = np.arange(len(one.abscissa)) >= len(one.abscissa) // 2
    both = np.tile(kept, 2)
    return Recorded(one.abscissa[kept], one.data[:, both], one.present[both])


Fault = Callable[[Simulated, Rng], Recorded]
FAULTS: dict[str, dict[str, Fault]] = {
    "deer": {
        NONE: none,
        "outliers": outliers,
        "drift": drifting_trace,
        "burst": burst,
        "two backgrounds": two_backgrounds,
        "correlated noise": coloured,
        HALF_TRACE: half_trace,
    },
    "drt": {
        NONE: none,
        "outliers": outliers,
        "drift": drifting_spectrum,
        "inductive loop": loop,
        "negative arc, 0.1": negative_arc(0.1),
        "negative arc, 0.3": negative_arc(0.3),
        "correlated noise": coloured,
        HALF_SPECTRUM: half_spectrum,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    instruments: tuple[str, ...] = ("deer", "drt")
    systems: int = 200
    """Measurements with each fault at each level."""
    levels: tuple[float, ...] = (0.01, 0.03)
    """Standard deviations of the noise over V(0), or over the impedance."""


PRESETS = {"quick": Plan(systems=8), "cpu": Plan(), "paper": Plan(systems=2000)}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Invert every measurement with every fault; what was measured before is taken from the folder."""
    models = {name: instruments.load(name).info.commit for name in plan.instruments}
    task = bar.add_task("faults", total=len(plan.instruments) * len(plan.levels))
    records: list[dict[str, Any]] = []
    for name in plan.instruments:
        for level in plan.levels:
            settings = {"systems": plan.systems, "model": models[name], "faults": list(FAULTS[name])}
            path = folder / f"{folder_name(name, level)}.json"
            records.extend(computed_once(path, settings, partial(measured, name, level, plan.systems)))
            bar.advance(task)
    data = {"systems": plan.systems, "models": models, "groups": records}
    decided = outcomes(data)
    return Report(tables(data), decided, conclusions(decided, SENTENCES), data)


def measured(name: str, level: float, count: int) -> list[dict[str, Any]]:
    """Return for every fault the shares of measurements that are what they should be, and the median error."""
    found: dict[str, list[tuple[float, ...]]] = {fault: [] for fault in FAULTS[name]}
    for index in range(count):
        one = case(name, PRIOR, level, index)
        for fault, change in FAULTS[name].items():
            found[fault].append(inverted(name, one, change(one, np.random.default_rng(index))))
    records = []
    for fault, values in found.items():
        consistent, typical, errors = np.array(values).T
        records.append({
            "instrument": name, "fault": fault, "level": level, "error": rounded(np.median(errors)),
            "consistent": rounded(np.mean(consistent)), "in_distribution": rounded(np.mean(typical)),
            "flagged": rounded(np.mean((consistent == 0) | (typical == 0))),
        })  # fmt: skip
    return records


def inverted(name: str, one: Simulated, recorded: Recorded) -> tuple[float, float, float]:
    """Return whether an inversion is consistent and in distribution, and its relative error on its own grid."""
    model = instruments.load(name)
    found = model.invert(recorded, recorded.data, batched=True)
    truth = np.interp(axis(name, found.grid), axis(name, one.grid), model.instrument.x_scale(one.grid) * one.x[0])
    error = np.linalg.norm(found.x[0] - truth) / np.linalg.norm(truth)
    return float(found.consistent[0]), float(found.in_distribution[0]), float(error)


# ---------------------------------------------------------------- tables and outcomes


def tables(data: Mapping[str, Any]) -> list[TableData]:
    """Return a table for each instrument: shares of flagged measurements and median errors, by fault and level."""
    found = []
    for name in data["models"]:
        levels = distinct(where(data["groups"], instrument=name), "level")
        rows: list[list[Cell]] = []
        for fault in distinct(where(data["groups"], instrument=name), "fault"):
            mine = where(data["groups"], instrument=name, fault=fault)
            rows.append([fault, *(row["flagged"] for row in mine), *(row["error"] for row in mine)])
        columns = [f"{what}, noise {level:g}" for what in ("flagged", "median error") for level in levels]
        title = f"{name}: shares of {data['systems']} measurements that are flagged, and median relative errors"
        found.append(TableData(("fault", *columns), rows, title))
    return found


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return for each instrument the false alarms, and which faults are seen at every level of noise."""
    found: dict[str, Outcome] = {}
    for name in data["models"]:
        mine = where(data["groups"], instrument=name)
        alarms = max(row["flagged"] for row in where(mine, fault=NONE))
        least = {
            fault: min(row["flagged"] for row in where(mine, fault=fault))
            for fault in distinct(mine, "fault")
            if fault not in SOUND
        }
        missed = [fault for fault, share in least.items() if share < SEEN]
        verdict = Verdict.PARTLY if 0 < len(missed) < len(least) else Verdict.FAILS if missed else Verdict.HOLDS
        found |= {
            f"faults.false-alarms/{name}": outcome(met(alarms <= MAX_FALSE_ALARMS), instrument=name, share=alarms),
            f"faults.seen/{name}": outcome(
                verdict, instrument=name, faults=len(least), seen=len(least) - len(missed), missed=", ".join(missed)
            ),
        }
    return found


def seen_sentence(found: Outcome) -> str:
    """Say how many faults are seen, and which are not."""
    said = (
        "{instrument}: {seen} of {faults} faults are flagged in at least half of the measurements, at every level of "
        "noise: {verdict}."
    ).format(verdict=found.verdict, **found.numbers)
    return f"{said} Not so: {found.numbers['missed']}." if found.numbers["missed"] else said


SENTENCES: Sentences = {
    "faults.false-alarms": "{instrument}: without a fault at most {share:.1%} of the measurements are flagged; target "
    f"of {MAX_FALSE_ALARMS:.0%} {{verdict}}.",
    "faults.seen": seen_sentence,
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the share of flagged measurements by fault, a panel for each instrument."""
    figure, panels = panel_grid(len(data["models"]), more=0.6)
    for axes, name in zip(panels, data["models"], strict=True):
        mine: Sequence[Mapping[str, Any]] = where(data["groups"], instrument=name)
        faults, levels = distinct(mine, "fault"), distinct(mine, "level")
        for number, level in enumerate(levels):
            places = np.arange(len(faults)) + 0.8 * ((number + 0.5) / len(levels) - 0.5)
            shares = [row["flagged"] for row in where(mine, level=level)]
            axes.barh(places, shares, 0.8 / len(levels), color=f"C{number}", label=f"noise {level:g}")
        axes.set_yticks(np.arange(len(faults)), faults, fontsize="small")
        axes.invert_yaxis()
        axes.set(title=name, xlabel="flagged", xlim=(0, 1))
        axes.grid(alpha=0.3, axis="x")
    legend_below(figure, panels, columns=2)
    return figure
