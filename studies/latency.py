"""How long the first answer takes: every phase from the start of a process on.

The paper notes about one second on the first forward pass. Here fresh processes are timed, one after the other, the
cases in turn; medians over the repeats are reported. One process more comes first and is not counted, so that the
files that are imported lie in memory.

predict
    The imports, the load of a model as a module of torch, then the first, the second and many more calls of `predict`
    on the same systems. Once after the call with which `from_pretrained` warms up and once without (cold), which shows
    what a first call costs by itself.
solve
    The command `algebraformer solve A.mtx b.mtx --model NAME --json`, which loads no torch, as it is and once more with
    its phases marked.
imports
    The output of `python -X importtime` for that command, summed by package. It slows imports down and counts for a
    package only its own modules, so it gives shares rather than seconds.

Nothing is kept between runs of the study: it takes minutes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.progress import Progress

from algebraformer import io, problems
from algebraformer.checkpoint import CheckpointInfo, save
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.training.data import SCALER_SEED, TEST_SEED, to_tensors
from studies import latency_probe
from studies.harness import weights

TARGET_RATIO = 2.0
"""The first prediction after loading may take this many times as long as the later ones."""
TARGET_SECONDS = 2.5
"""The whole command `solve` may take this long."""
PAPER_SECONDS = 1.0
"""What the paper notes about the first forward pass; half of it counts as reproduced."""
EXIT = "exit of Python"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    models: tuple[str, ...]
    """Models for systems of 64 unknowns: shipped ones, and those of studies/weights."""
    untrained: ModelConfig
    """Network whose first calls are measured too, with a token head; it is not trained."""
    repeats: int
    """Processes of every kind."""
    batches: tuple[int, ...] = (1, 64)
    """Systems per call of predict."""
    calls: int = 12
    """Calls of predict in a process, at least; the first two are reported by themselves."""
    seconds: float = 0.5
    """Seconds of these calls, at least."""


PRESETS = {
    "quick": Plan(
        models=("diffusion-64",),
        untrained=ModelConfig(n_layer=1, n_head=2, n_embd=16),
        repeats=1,
        batches=(2,),
        seconds=0.0,
    ),
    "cpu": Plan(models=("diffusion-64-token", "diffusion-64"), untrained=ModelConfig(), repeats=9),
    "paper": Plan(
        models=("diffusion-64-token", "diffusion-64", "diffusion-64-transformer"), untrained=ModelConfig(), repeats=25
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Write the systems into the folder and start the processes."""
    systems = problems.get("diffusion", n=plan.untrained.n).sample(max(plan.batches), TEST_SEED)
    files = {"A": str(folder / "A.mtx"), "b": str(folder / "b.mtx")}
    for name, path in files.items():
        io.write_array(path, getattr(systems, name)[0])
    label = save_untrained(plan.untrained, folder / "untrained")
    jobs: dict[tuple[Any, ...], Callable[[], dict[str, Any]]] = {}
    for batch in plan.batches:
        npz = folder / f"{batch}.npz"
        np.savez(npz, A=systems.A[:batch], b=systems.b[:batch])
        for model in (*plan.models, label):
            for way in ("warm", "cold"):
                source = str(folder / "untrained") if model == label else weights.source(model)
                rest = (source, str(npz), way, str(plan.calls), str(plan.seconds))
                jobs["predict", model, batch, way] = partial(probe, "predict", *rest)
    for model in plan.models:
        jobs["solve", model] = partial(probe, "solve", weights.source(model), files["A"], files["b"])
        jobs["command", model] = partial(whole, command(model, files))
    task = bar.add_task("latency", total=plan.repeats * len(jobs) + 2)
    jobs["solve", plan.models[0]]()
    bar.advance(task)
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {key: [] for key in jobs}
    for _ in range(plan.repeats):
        for key, job in jobs.items():
            found[key].append(job())
            bar.advance(task)
    imports = by_package(process(command(plan.models[0], files, "-X", "importtime"))[1])
    bar.advance(task)
    return summary(found, imports)


def save_untrained(config: ModelConfig, folder: Path) -> str:
    """Write a checkpoint of a network with random weights and return what the tables call it."""
    family = problems.get("diffusion", n=config.n)
    model = Algebraformer(config)
    model.token_head.scaler.fit(*to_tensors(family.sample(64, SCALER_SEED)))
    save(folder, model, CheckpointInfo(name="untrained", family=family.settings()))
    return f"untrained, {model.parameter_count() / 1e6:.3g} M parameters"


# ---------------------------------------------------------------- processes


def command(model: str, files: dict[str, str], *options: str) -> list[str]:
    """Return the command line of a certified solve."""
    arguments = ["solve", files["A"], files["b"], "--model", weights.source(model), "--json"]
    return [sys.executable, *options, "-m", "algebraformer", *arguments]


def process(arguments: Sequence[str]) -> tuple[str, str, float, float]:
    """Run a process; return its stdout, its stderr, and when it was started and had ended.

    Raises
    ------
    ChildProcessError
        It failed; `solve` by LAPACK, code 3, is no failure.
    """
    begin = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    end = time.monotonic()
    if done.returncode not in (0, 3):
        reason = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise ChildProcessError(f"a process of the study ended with code {done.returncode}: {reason}")
    return done.stdout, done.stderr, begin, end


def whole(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a process; return its seconds."""
    _, _, begin, end = process(arguments)
    return {"seconds": end - begin}


def probe(*arguments: str) -> dict[str, Any]:
    """Run `latency_probe`; return the seconds of its phases by name, from before its start to after its end."""
    output, _, begin, end = process([sys.executable, "-P", latency_probe.__file__, *arguments])
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    marks = [*found.pop("marks"), [EXIT, end]]
    moments = [begin, *(moment for _, moment in marks)]
    phases = dict(zip([name for name, _ in marks], np.diff(moments).tolist(), strict=True))
    if "calls" in found:
        del phases[EXIT]  # with all the calls in it
    return {"phases": phases, **found}


def by_package(importtime: str) -> dict[str, float]:
    """Return the seconds of each top-level package in what `python -X importtime` wrote, the largest first.

    The numbers of a line are the microseconds of the module itself and those with all that it imported; the first ones
    can be added.
    """
    seconds: Counter[str] = Counter()
    for own, package in re.findall(r"^import time: +(\d+) \| +\d+ \| *(\w+)", importtime, re.MULTILINE):
        seconds[package] += int(own)
    return {package: total / 1e6 for package, total in seconds.most_common()}


# ---------------------------------------------------------------- tables and outcomes


def summary(found: dict[tuple[Any, ...], list[dict[str, Any]]], imports: dict[str, float]) -> Report:
    """Put what the processes found into medians, tables and outcomes."""
    calls = [calls_of(key, found) for key in found if key[0] == "predict" and key[3] == "warm"]
    solves = [solve_of(key[1], found) for key in found if key[0] == "solve"]
    threads = next(runs[0]["threads"] for key, runs in found.items() if key[0] == "predict")
    main = TableData(
        ("model", "batch", "load, ms", "first call, ms", "second, ms", "later, ms", "first / later",
         "cold: load, ms", "cold: first call, ms", "cold: first / later"),
        [
            [c["model"], c["batch"], *(1e3 * c["warm"][key] for key in ("load", "first", "second", "later")),
             c["warm"]["ratio"], 1e3 * c["cold"]["load"], 1e3 * c["cold"]["first"], c["cold"]["ratio"]]
            for c in calls
        ],
        f"predict in fresh processes, medians of {len(next(iter(found.values())))}, threads of torch: {threads}",
    )  # fmt: skip
    ones = [entry for entry in calls if entry["batch"] == calls[0]["batch"]]
    script = TableData(
        ("phase", *(entry["model"] for entry in ones)),
        [[phase, *(entry["phases"][phase] for entry in ones)] for phase in ones[0]["phases"]],
        f"A script up to its first answer, batch {ones[0]['batch']}, seconds",
    )
    rows: list[list[Cell]] = [[phase, *(solve["phases"][phase] for solve in solves)] for phase in solves[0]["phases"]]
    rows += [[name, *(solve[name] for solve in solves)] for name in ("sum", "the command itself", "its slowest run")]
    phases = TableData(("phase", *(s["model"] for s in solves)), rows, "The command solve, seconds")
    shown = {name: seconds for name, seconds in imports.items() if seconds >= 0.01}
    shown["all others"] = sum(imports.values()) - sum(shown.values())
    packages = TableData(
        ("package", "seconds"),
        [[name, seconds] for name, seconds in shown.items()],
        "Imports of solve by package, slowed down by the measurement",
    )
    data = {"calls": calls, "solves": solves, "imports": imports, "threads": threads, "target": TARGET_SECONDS}
    outcome_by_id = outcomes(data)
    return Report((main, script, phases, packages), outcome_by_id, conclusions(outcome_by_id, SENTENCES), data)


def calls_of(key: tuple[Any, ...], found: dict[tuple[Any, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    """Return load and calls of predict for one model and batch, warmed up and not: medians over the processes."""
    job, model, batch, _ = key
    entry: dict[str, Any] = {"model": model, "batch": batch}
    for way in ("warm", "cold"):
        runs = found[job, model, batch, way]
        first, second = (np.array([run["calls"][i] for run in runs]) for i in (0, 1))
        later = np.array([np.median(run["calls"][2:]) for run in runs])
        load = np.array([run["phases"]["load of the model"] for run in runs])
        values = {"load": load, "first": first, "second": second, "later": later, "ratio": first / later}
        entry[way] = {name: float(np.median(value)) for name, value in values.items()}
    entry["phases"] = phases_of(found[key]) | {"first call of predict": entry["warm"]["first"]}
    return entry


def solve_of(model: str, found: dict[tuple[Any, ...], list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the phases of `solve` and what the command takes: medians over the processes."""
    runs, seconds = found["solve", model], [run["seconds"] for run in found["command", model]]
    return {
        "model": model,
        "phases": phases_of(runs),
        "sum": float(np.median([sum(run["phases"].values()) for run in runs])),
        "the command itself": float(np.median(seconds)),
        "its slowest run": max(seconds),
    }


def phases_of(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median seconds of every phase."""
    return {name: float(np.median([run["phases"][name] for run in runs])) for name in runs[0]["phases"]}


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether the targets are met, whether the paper's delay shows, and where the rest of the time goes."""
    calls, solves = data["calls"], data["solves"]
    worst = max(calls, key=lambda entry: entry["warm"]["ratio"])
    slow = max(solves, key=lambda entry: entry["the command itself"])
    cold = max(calls, key=lambda entry: delay(entry["cold"]))
    extra, seconds = delay(cold["cold"]), slow["the command itself"]
    shares = {name: value / slow["sum"] for name, value in slow["phases"].items()}
    largest = sorted(shares, key=lambda name: -shares[name])[:3]
    return {
        "latency.first-prediction": outcome(
            met(worst["warm"]["ratio"] <= TARGET_RATIO), ratio=worst["warm"]["ratio"], target=TARGET_RATIO,
            model=worst["model"], batch=worst["batch"],
        ),
        "latency.command": outcome(
            met(seconds <= data["target"]), seconds=seconds, target=data["target"], model=slow["model"]
        ),
        "latency.paper-delay": outcome(
            Verdict.REPRODUCED if extra >= PAPER_SECONDS / 2 else Verdict.NOT_REPRODUCED, paper=PAPER_SECONDS,
            extra_ms=1e3 * extra, model=cold["model"], batch=cold["batch"],
            torch_seconds=cold["phases"]["import of torch"],
        ),
        "latency.largest-phases": outcome(Verdict.MEASURED, **{name: shares[name] for name in largest}),
    }  # fmt: skip


SENTENCES: Sentences = {
    "latency.first-prediction": "First prediction after loading: at most {ratio:.3g} times as long as the later ones "
    "({model}, batch {batch}); target {target:g}, {verdict}.",
    "latency.command": "The whole command solve: {seconds:.3g} s with {model}, the slowest model; target {target:g} s, "
    "{verdict}.",
    "latency.paper-delay": "A delay of about {paper:g} s in the first forward pass: {verdict}. Without warming up, the "
    "first call takes at most {extra_ms:.3g} ms longer than the later ones ({model}, batch {batch}); the import of "
    "torch takes {torch_seconds:.3g} s.",
    "latency.largest-phases": lambda found: (
        "The largest parts of this command: "
        + ", ".join(f"{name} {100 * share:.3g} %" for name, share in found.numbers.items())
        + "."
    ),
}


def delay(entry: dict[str, float]) -> float:
    """Return by how many seconds the first call is longer than the later ones."""
    return entry["first"] - entry["later"]


BARS = (("cold", "first", "first, not warmed up"), ("warm", "first", "first"), ("warm", "later", "later"))
MIN_LABELLED_SHARE = 0.02
"""Phases below this share of the whole command have no name in the figure."""


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the phases of the command solve as stacked bars, and the first and later calls of predict."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
    solves = data["solves"]
    places, base = np.arange(len(solves)), np.zeros(len(solves))
    colours = colormaps["tab20"](range(20))
    for number, phase in enumerate(solves[0]["phases"]):
        seconds = np.array([solve["phases"][phase] for solve in solves])
        large = (seconds > MIN_LABELLED_SHARE * np.array([solve["sum"] for solve in solves])).any()
        left.bar(places, seconds, 0.6, bottom=base, color=colours[number], label=phase if large else None)
        base += seconds
    left.plot(places, [solve["the command itself"] for solve in solves], "kD", label="the command itself")
    left.axhline(data["target"], color="k", linestyle="--", linewidth=1, label="target")
    left.set_xticks(places, [solve["model"] for solve in solves])
    left.set(title="the command solve, from the start of its process", ylabel="seconds", xlim=(-0.6, len(solves) - 0.4))
    left.grid(alpha=0.3, axis="y")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize="small")
    calls = data["calls"]
    places = np.arange(len(calls))
    for number, (way, key, label) in enumerate(BARS):
        right.barh(
            places + 0.27 * (number - 1), [1e3 * c[way][key] for c in calls], 0.25, label=label, color=f"C{number}"
        )
    right.set_yticks(places, [f"{c['model']}\nbatch {c['batch']}" for c in calls], fontsize="small")
    right.invert_yaxis()
    right.set(title="calls of predict in a fresh process", xlabel="ms", xscale="log")
    right.grid(alpha=0.3, axis="x")
    right.legend(fontsize="small")
    figure.suptitle(f"From nothing to the first answer, threads of torch: {data['threads']}")
    return figure
