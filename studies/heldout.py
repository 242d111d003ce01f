"""Noisy systems that are not like those of the training: where the learned solver loses, and whether it is flagged.

Each group changes one thing of the family that a model was trained on: the instrument, the signals, the level or the
kind of the noise; or what is measured, while the model is told the same A as before: by a wider instrument, of signals
from no prior, with a drift. Two baselines: Tikhonov's regularisation with cross-validation, which needs no training,
and total variation, which is given the norm of the noise. A system is flagged if its estimate is not `consistent` or it
is not `in_distribution`. "Guarded" uses Tikhonov's answer for flagged systems. A system counts as lost where the
learned error is 1.5 times Tikhonov's or more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import problems
from algebraformer.evaluation import quietly
from algebraformer.linalg import FloatArray
from algebraformer.metrics import coverage, relative_errors
from algebraformer.numerics import regularization
from algebraformer.problems import NoisyFamily, Systems
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.baselines.noisy import ORDERS, TOTAL_VARIATION, slow
from studies.harness.estimators import Models, described, learned_solvers, small
from studies.harness.statistics import rounded
from studies.harness.study import distinct, where

LOST_RATIO = 1.5
"""Ratio of the learned error to Tikhonov's from which a system counts as lost."""
MAX_LOST_SHARE, MAX_GUARDED = 0.1, 1.1
"""Share of lost systems that has to be noticed, and the largest ratio of guarded to Tikhonov's median error."""
INSIDE = "as trained"
SHARED: dict[str, dict[str, Any]] = {
    INSIDE: {},
    "classical signal": {"priors": ("classical",)},
    "less noise": {"noise": (1e-5, 1e-3)},
    "more noise": {"noise": (1e-1, 5e-1)},
    "noise of counts": {"noise_kind": "poisson"},
    "outliers": {"noise_kind": "outliers"},
    "white signals": {"disturbance": {"signals": "white"}},
    "gratings": {"disturbance": {"signals": "gratings"}},
    "drift": {"disturbance": {"drift": 3.0}},
}
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "deblur": SHARED
    | {
        "narrower": {"width": (0.005, 0.015)},
        "wider": {"width": (0.05, 0.15)},
        "steeper": {"varying": 1.0, "slope": (0.6, 0.95)},
        "another instrument": {"family": "phillips"},
        "wider than told": {"disturbance": {"factor": 1.15, "setting": "width"}},
    },
    "gravity": SHARED
    | {
        "shallower": {"depth": (0.01, 0.05)},
        "deeper": {"depth": (0.25, 1.0)},
        "another instrument": {"family": "heat"},
        "deeper than told": {"disturbance": {"factor": 1.15, "setting": "depth"}},
    },
}
"""Settings of each group that differ from the family's, for each family with a model; `disturbed` has disturbances."""
GRATINGS = (8.0, 14.0)
"""Limits of the number of periods of a grating."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    systems: int = 300
    """Systems in a group."""
    slow: int = 30
    """Of these, systems for total variation."""
    models: Models = dataclasses.field(default_factory=lambda: {name: f"{name}-64" for name in GROUPS})
    """Model of a family: a shipped one, or a recipe."""


PRESETS = {
    "quick": Plan(systems=20, slow=4, models={"deblur": small("deblur"), "gravity": "gravity-12"}),
    "cpu": Plan(),
    "paper": Plan(systems=2_000, slow=300),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Measure every group of every family that has a model."""
    solvers = learned_solvers(plan.models, folder)
    task = bar.add_task("heldout", total=sum(len(GROUPS[name]) for name in solvers))
    records = []
    for name, solver in solvers.items():
        for group, changes in GROUPS[name].items():
            records.append({"family": name, "group": group, **measured(plan, name, solver, changes)})
            bar.advance(task)
    return summary(plan, records, described(plan.models, solvers))


def measured(plan: Plan, name: str, solver: LearnedSolver, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of one group."""
    settings = {key: value for key, value in changes.items() if key not in ("family", "disturbance")}
    family = cast(NoisyFamily, problems.get(changes.get("family", name), n=solver.n, **settings))
    systems = disturbed(family, family.sample(plan.systems, TEST_SEED), **changes.get("disturbance", {}))
    estimate = quietly(solver, systems)
    tikhonov = best_tikhonov(systems)
    few = systems[: plan.slow]
    variation = slow(few, (TOTAL_VARIATION,))[f"{TOTAL_VARIATION}, discrepancy"]
    flagged = ~(estimate.consistent & estimate.in_distribution)
    ours, theirs = relative_errors(estimate.x, systems), relative_errors(tikhonov, systems)
    lost = ours >= LOST_RATIO * theirs
    return {
        "learned": rounded(np.median(ours)),
        "tikhonov": rounded(np.median(theirs)),
        "total_variation": rounded(np.median(relative_errors(variation, few))),
        "guarded": rounded(np.median(np.where(flagged, theirs, ours))),
        "coverage": coverage(systems.x, estimate.x, estimate.std),
        "consistent": float(np.mean(estimate.consistent)),
        "in_distribution": float(np.mean(estimate.in_distribution)),
        "flagged": float(np.mean(flagged)),
        "lost": float(np.mean(lost)),
        "lost_flagged": float(np.mean(flagged[lost])) if lost.any() else None,
    }


def disturbed(
    family: NoisyFamily,
    systems: Systems,
    factor: float = 1.0,
    setting: str = "",
    signals: str = "",
    drift: float = 0.0,
) -> Systems:
    """Return systems with the same A and other b.

    Parameters
    ----------
    family : NoisyFamily
    systems : Systems
        Of the family.
    factor, setting : float, str
        What this parameter of the instrument is multiplied by before it measures.
    signals : str
        "white": entries are N(0, 1). "gratings": sines of 8 to 14 periods. Empty: those that there are.
    drift : float
        Size at both ends of a straight line that is added to b, in standard deviations of the noise.
    """
    if not (setting or signals or drift):
        return systems
    params, rng, (count, m, n) = systems.params, np.random.default_rng(0), systems.A.shape
    x = systems.x
    if signals:
        x = rng.standard_normal((count, n))
    if signals == "gratings":
        phase, periods = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(*GRATINGS, (count, 1))
        x = np.sin(2 * np.pi * periods * (np.arange(n) + 0.5) / n + phase)
    x = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True))
    A = family.matrix({**params, setting: factor * params[setting]}) if setting else systems.A
    clean = (A @ x[:, :, None])[..., 0]
    deviation = params["noise"] * np.linalg.norm(clean, axis=1) / np.sqrt(m)
    e = deviation[:, None] * (params["z"] + drift * np.linspace(-1, 1, m))
    return dataclasses.replace(systems, b=clean + e, x=x, params=params | {"clean": clean, "signal": x})


def best_tikhonov(systems: Systems) -> FloatArray:
    """Return Tikhonov's answers by cross-validation, of the order with the lowest median error in the group."""
    answers = [regularization.cross_validated(systems.A, systems.b, order) for order in ORDERS]
    return min(answers, key=lambda x: float(np.median(relative_errors(x, systems))))


# ---------------------------------------------------------------- tables and outcomes


def summary(plan: Plan, records: Sequence[dict[str, Any]], models: Mapping[str, str | None]) -> Report:
    """Put the groups into a table and outcomes."""
    columns = {
        "learned": "learned",
        "tikhonov": "Tikhonov, cross-validation",
        "total_variation": f"{TOTAL_VARIATION}, discrepancy",
        "guarded": "guarded",
        "coverage": "in the 90 % intervals",
        "consistent": "consistent",
        "in_distribution": "in distribution",
        "lost": "lost",
        "lost_flagged": "of these flagged",
    }
    rows: list[list[Cell]] = [[one["family"], one["group"], *(one[key] for key in columns)] for one in records]
    title = f"Median relative errors and shares of {plan.systems} systems in each group"
    table = TableData(("family", "group", *columns.values()), rows, title)
    data = {"systems": plan.systems, "models": dict(models), "groups": list(records)}
    found = outcomes(data)
    return Report((table,), found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return for each family where the learned solver loses, whether it notices, and what guarding gives.

    Of every group that it loses there is an outcome of its own: holds if at least half of the lost systems are
    flagged, or few are lost.
    """
    found: dict[str, Outcome] = {}
    for name in data["models"]:
        records = where(data["groups"], family=name)
        if not records:
            found[f"heldout.beats-tikhonov/{name}"] = outcome(Verdict.INCONCLUSIVE, family=name, groups=0, lost=None)
            continue
        outside = [one for one in records if one["group"] != INSIDE]
        (inside,) = where(records, group=INSIDE)
        lost = [one for one in outside if one["learned"] > one["tikhonov"]]
        found[f"heldout.beats-tikhonov/{name}"] = outcome(
            Verdict.PARTLY if lost else Verdict.HOLDS, family=name, groups=len(outside), lost=len(lost),
            false_alarms=inside["flagged"],
        )  # fmt: skip
        for one in outside:
            many = one["lost"] > MAX_LOST_SHARE
            if one in lost or many:
                flagged = one["lost_flagged"] or 0.0
                found[f"heldout.lost-is-flagged/{name}, {one['group']}"] = outcome(
                    Verdict.FAILS if many and flagged < 0.5 else Verdict.HOLDS, family=name, group=one["group"],
                    learned=one["learned"], tikhonov=one["tikhonov"], flagged=one["flagged"], lost=one["lost"],
                    lost_flagged=flagged,
                )  # fmt: skip
        worst = max(outside, key=lambda one: one["guarded"] / one["tikhonov"])
        ratio = worst["guarded"] / worst["tikhonov"]
        found[f"heldout.guarded/{name}"] = outcome(
            Verdict.HOLDS if ratio <= MAX_GUARDED else Verdict.FAILS, family=name, group=worst["group"], ratio=ratio
        )
    return found


def beats_sentence(found: Outcome) -> str:
    """Say in how many groups the learned solver loses to Tikhonov."""
    if found.verdict == Verdict.INCONCLUSIVE:
        return "{family}: no model, so there is no learned solver to measure.".format(**found.numbers)
    return (
        "{family}: on held-out groups the learned solver has a higher median error than cross-validated Tikhonov in "
        "{lost} of {groups} groups. Systems flagged as trained: {share:.3g} %."
    ).format(share=100 * found.numbers["false_alarms"], **found.numbers)


def flagged_sentence(found: Outcome) -> str:
    """Say what is lost in a group, and how much of it is flagged."""
    percent = {key: 100 * found.numbers[key] for key in ("flagged", "lost", "lost_flagged")}
    return (
        "{family}, {group}: median error {learned:.3g} (Tikhonov {tikhonov:.3g}); {flagged:.3g} % of the systems are "
        "flagged, {lost:.3g} % are lost, of which {lost_flagged:.3g} % are flagged."
    ).format(**{**found.numbers, **percent})


SENTENCES: Sentences = {
    "heldout.beats-tikhonov": beats_sentence,
    "heldout.lost-is-flagged": flagged_sentence,
    "heldout.guarded": "{family}: with Tikhonov's answer for flagged systems, the median error is at most "
    f"{MAX_GUARDED:g} times Tikhonov's: {{verdict}}. The largest ratio is {{ratio:.3g}} ({{group}}).",
}


BARS = {
    "learned": ("k", "learned"),
    "guarded": ("0.6", "learned, Tikhonov where flagged"),
    "tikhonov": ("C1", "Tikhonov, cross-validation"),
    "total_variation": ("C2", "total variation, discrepancy"),
}
SHARES = {
    "coverage": ("C0o", "in the 90 % intervals"),
    "consistent": ("C2s", "consistent"),
    "in_distribution": ("C4^", "in distribution"),
    "lost": ("C3X", "lost to Tikhonov by half"),
}


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw errors and shares of every group, a row for each family with a model."""
    families = distinct(data["groups"], "family")
    rows = max(1, len(families))
    figure = Figure(figsize=(13, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False)
    for (left, right), family in zip(panels, families, strict=False):
        groups = where(data["groups"], family=family)
        _bars(left, groups)
        _shares(right, groups)
        left.set(title=family)
    for axes in panels[len(families) :].ravel():
        axes.set_axis_off()
    absent = ", ".join(name for name, model in data["models"].items() if model is None)
    figure.suptitle("Outside the training" + (f" (no model: {absent})" if absent else ""))
    return figure


def _bars(axes: Axes, groups: Sequence[Mapping[str, Any]]) -> None:
    """Draw the median errors of the groups side by side."""
    places = np.arange(len(groups))
    for number, (key, (colour, label)) in enumerate(BARS.items()):
        axes.bar(places + 0.2 * (number - 1.5), [one[key] for one in groups], 0.2, color=colour, label=label)
    axes.set_yscale("log")
    axes.set_xticks(places, [one["group"] for one in groups], rotation=40, ha="right", fontsize="small")
    axes.set(ylabel="median relative error")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small")


def _shares(axes: Axes, groups: Sequence[Mapping[str, Any]]) -> None:
    """Draw what the estimates say of themselves, and how often they lose."""
    places = np.arange(len(groups))
    for key, (style, label) in SHARES.items():
        axes.plot(places, [one[key] for one in groups], style, markersize=6, label=label)
    axes.axhline(0.9, color="C0", linestyle=":", linewidth=1)
    axes.set_xticks(places, [one["group"] for one in groups], rotation=40, ha="right", fontsize="small")
    axes.set(ylabel="share", ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
