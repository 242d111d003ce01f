"""Does a process that solves for a long time stay as it is: random families, models and sizes, and flat memory?

Every call draws a family, its size, how many systems and right-hand sides there are and what the answer may cost; the
system goes to a shipped model, which hands other sizes to LAPACK. In between files are written and read, models are
loaded, preconditioners are used and singular systems are refused. After the warm-up memory must stay within `TOLERANCE`
of what it was then.

Two kinds of memory are looked at. What is *in use* is what malloc has given out and not got back: a leak shows there.
What is *resident* is more, since malloc keeps freed pieces between others for the next call, and how much it keeps
depends on the sizes that came along. At the end malloc is asked to give back what it can.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress
from scipy.linalg import LinAlgWarning
from scipy.sparse.linalg import gmres

from algebraformer import io, problems
from algebraformer.checkpoint import solver_names
from algebraformer.drop_in import solve
from algebraformer.errors import FallbackWarning, SingularSystemError, Status
from algebraformer.reporting import Outcome, Report, Sentences, TableData, Verdict, conclusions, met, outcome
from algebraformer.solver import LearnedSolver

TOLERANCE = 20.0
"""Megabytes that memory may differ by after the warm-up."""
FAMILIES = ("diffusion", "reaction-diffusion", "advection-diffusion", "random-diffusion")
SIZES = (2, 128)
"""Least and largest n of systems that are left to LAPACK."""
BATCH, COLUMNS = 64, 4
"""Largest numbers of systems in a call, and of right-hand sides."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long it goes on."""

    seconds: float
    """Of the whole run."""
    warm_up: float
    """Seconds that are not judged."""
    models: tuple[str, ...]
    """Shipped models; all that solve systems if empty."""


PRESETS = {
    "quick": Plan(seconds=6.0, warm_up=4.0, models=("diffusion-64", "diffusion-64-token")),
    "cpu": Plan(seconds=600.0, warm_up=120.0, models=()),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Solve until the time is over."""
    task = bar.add_task("soak", total=plan.seconds)
    every = map(LearnedSolver.from_pretrained, plan.models or solver_names())
    solvers = [one for one in every if not one.info.unsupported_reason(one.network.config.head)]
    for solver in solvers:
        warmed(solver)
    rng, counts, failures = np.random.default_rng(0), Counter[str](), []
    seconds: list[float] = []
    memory: list[float] = []
    in_use: list[float] = []
    begin, number = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        while (now := time.monotonic() - begin) < plan.seconds:
            name = str(rng.choice(list(CALLS), p=[share for _, share in CALLS.values()]))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    for category in (LinAlgWarning, FallbackWarning):
                        warnings.simplefilter("ignore", category)
                    problem = CALLS[name][0](solvers[rng.integers(len(solvers))], rng, Path(scratch), counts)
            except Exception as error:  # noqa: BLE001 whatever it is, it is a failure
                problem = f"{type(error).__name__}: {error}"
            counts[name] += 1
            failures += [f"call {number}, {name}: {problem}"] * bool(problem)
            number += 1
            if not seconds or now - seconds[-1] >= plan.seconds / 300:
                gc.collect()
                seconds.append(now)
                memory.append(resident())
                in_use.append(allocated())
                bar.update(task, completed=now)
    bar.update(task, completed=plan.seconds)
    LIBC.malloc_trim(0)
    return summary(plan, seconds, memory, in_use, resident(), number, failures, counts)


def warmed(solver: LearnedSolver) -> None:
    """Let a model do once what takes most memory, so that what it keeps is there from the beginning."""
    systems = problems.get(FAMILIES[0], n=solver.n).sample(BATCH, 0)
    solver.solve(systems.A, np.repeat(systems.b[:, :, None], COLUMNS, axis=2))


def resident() -> float:
    """Return the resident memory of this process in megabytes, from /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


LIBC = ctypes.CDLL(None)


def allocated() -> float:
    """Return what malloc has given out in this process, in megabytes, from glibc."""
    LIBC.mallinfo2.restype = MallInfo
    info = LIBC.mallinfo2()
    return (info.uordblks + info.hblkhd) / 2**20


# ---------------------------------------------------------------- calls


def drawn(rng: np.random.Generator, n: int) -> problems.Systems:
    """Return systems of a random family, which is often not that of the model."""
    family = problems.get(str(rng.choice(FAMILIES)), n=n)
    return family.sample(int(rng.integers(1, BATCH + 1)), int(rng.integers(2**31)))


def solved(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Solve a batch; return what is wrong with the answer."""
    n = solver.n if rng.random() < 0.7 else int(rng.integers(*SIZES))
    systems = drawn(rng, n)
    b = systems.b if rng.random() < 0.7 else rng.standard_normal((len(systems.A), n, int(rng.integers(1, COLUMNS + 1))))
    result = solver.solve(systems.A, b, rtol=10.0 ** -int(rng.integers(2, 13)), max_refinements=int(rng.integers(12)))
    counts.update(f"systems {status.name}" for status in result.status)
    answered = np.array([status is not Status.INACCURATE for status in result.status])
    if (result.certified != answered).any() or not np.isfinite(result.x[answered]).all() or not result.explain():
        return f"{Counter(s.name for s in result.status)}, {result.certified.sum()} certified"
    return ""


def like_scipy(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Solve one system as with SciPy."""
    systems = drawn(rng, solver.n)
    x = solve(systems.A[0], systems.b[0], model=solver)
    return "" if np.isfinite(x).all() else "not finite"


def refused(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Solve a batch with a singular system in it."""
    systems = drawn(rng, solver.n)
    bad = int(rng.integers(len(systems.A)))
    systems.A[bad] = 1.0
    try:
        solver.solve(systems.A, systems.b)
    except SingularSystemError as error:
        return "" if error.indices == (bad,) else f"system {bad} is singular, the error names {error.indices}"
    return f"system {bad} is singular, and answered"


def preconditioned(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Ask for the bare answer, and use an operator head as a preconditioner."""
    systems = drawn(rng, solver.n)
    x = solver.predict(systems.A, systems.b)
    if solver.network.config.head.name == "operator":
        gmres(systems.A[0], systems.b[0], M=solver.operator(systems.A[0]), maxiter=3, restart=10)
    return "" if x.shape == systems.b.shape else f"shape {x.shape}"


def filed(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Write a system to a file, and read it."""
    systems = drawn(rng, int(rng.integers(*SIZES)))
    path = scratch / f"x{rng.choice(['.npz', '.mat'])}"
    io.write_system(path, systems.A[0], systems.b[0])
    A, b = io.read_system(path)
    return "" if np.array_equal(A, systems.A[0]) and np.array_equal(b, systems.b[0]) else "other numbers"


def loaded(solver: LearnedSolver, rng: np.random.Generator, scratch: Path, counts: Counter[str]) -> str:
    """Load a model that is loaded already."""
    return "" if LearnedSolver.from_pretrained(solver.info.name).n == solver.n else "another size"


CALLS = {
    "solve": (solved, 0.6),
    "solve like SciPy": (like_scipy, 0.1),
    "solve a singular system": (refused, 0.08),
    "predict and precondition": (preconditioned, 0.1),
    "write and read files": (filed, 0.1),
    "load a model": (loaded, 0.02),
}
"""Calls and their shares."""


# ---------------------------------------------------------------- tables and outcomes


def summary(
    plan: Plan,
    seconds: list[float],
    memory: list[float],
    in_use: list[float],
    trimmed: float,
    calls: int,
    failures: list[str],
    counts: Counter[str],
) -> Report:
    """Compare the memory after the warm-up with what it was then, and put it into tables and outcomes."""
    settled = {name: after(plan.warm_up, seconds, values) for name, values in (("use", in_use), ("resident", memory))}
    rows: list[list[Any]] = [["minutes", seconds[-1] / 60], ["calls", calls], ["failures", len(failures)]]
    for name, words in (("use", "memory in use"), ("resident", "resident memory")):
        values = settled[name]
        rows += [
            [f"{words} after the warm-up, MB", values[0]],
            [f"{words}, least after that, MB", min(values)],
            [f"{words}, most after that, MB", max(values)],
        ]
    rows.append(["resident memory after malloc_trim, MB", trimmed])
    happened = TableData(("what", "times"), [[name, count] for name, count in sorted(counts.items())], "What happened")
    tables = [TableData(("measure", "value"), rows), happened]
    if failures:
        tables.append(TableData(("failure",), [[text[:300]] for text in failures[:20]], "Failures"))
    data = {
        "seconds": seconds,
        "memory_mb": memory,
        "in_use_mb": in_use,
        "trimmed_mb": trimmed,
        "warm_up": plan.warm_up,
        "tolerance": TOLERANCE,
        "calls": calls,
        "failed": len(failures),
        "failures": failures[:20],
    }
    found = outcomes(data)
    return Report(tables, found, conclusions(found, SENTENCES), data)


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether a call failed, and whether the memory stayed where it was after the warm-up."""
    seconds = data["seconds"]
    found = {
        "soak.nothing-fails": outcome(
            Verdict.FAILS if data["failed"] else Verdict.HOLDS, calls=data["calls"], failed=data["failed"],
            minutes=seconds[-1] / 60,
        ),
    }  # fmt: skip
    for key, name in (("in_use_mb", "memory in use"), ("memory_mb", "resident memory")):
        values = after(data["warm_up"], seconds, data[key])
        first, low, high = values[0], min(values), max(values)
        found[f"soak.flat/{name}"] = outcome(
            met(high - first <= data["tolerance"] and first - low <= data["tolerance"]), memory=name, first=first,
            low=low, high=high, tolerance=data["tolerance"], minutes=data["warm_up"] / 60,
        )  # fmt: skip
    found["soak.trimmed"] = outcome(Verdict.MEASURED, trimmed=data["trimmed_mb"], last=data["memory_mb"][-1])
    return found


SENTENCES: Sentences = {
    "soak.nothing-fails": "{calls:,} calls in {minutes:.3g} minutes, {failed} of them failed.",
    "soak.flat": "After {minutes:.2g} minutes the {memory} stayed between {low:.0f} and {high:.0f} MB, from "
    "{first:.0f} MB; target {tolerance:g} MB more or less, {verdict}.",
    "soak.trimmed": "When malloc returns its free memory, {trimmed:.0f} MB of the last {last:.0f} MB stay resident.",
}


def after(warm_up: float, seconds: list[float], values: list[float]) -> list[float]:
    """Return the values after the warm-up, the last one if there are none."""
    return [value for now, value in zip(seconds, values, strict=True) if now >= warm_up] or values[-1:]


def figure(data: Mapping[str, Any]) -> Figure:
    """Draw the memory in use and the resident memory over time, and the bands they have to stay in."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    seconds = np.array(data["seconds"])
    for number, (key, label) in enumerate((("memory_mb", "resident"), ("in_use_mb", "in use"))):
        values = np.array(data[key])
        axes.plot(seconds, values, ".-", color=f"C{number}", markersize=3, label=label)
        middle = (values[seconds >= data["warm_up"]].tolist() or values[-1:].tolist())[0]
        axes.axhspan(middle - data["tolerance"], middle + data["tolerance"], color=f"C{number}", alpha=0.15)
    axes.axvline(data["warm_up"], color="k", linestyle=":", linewidth=1, label="end of the warm-up")
    axes.set(xlabel="seconds", ylabel="MB", title=f"{data['calls']} calls, {data['failed']} failures")
    axes.set(ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
