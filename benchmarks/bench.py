"""Speed and memory, measured in one run: `make bench` writes results/bench.json and shows it as a table.

Times. Everything that is compared is timed in turn, round after round, and the median of the rounds is reported, so
that a busy moment of the machine hits all alike. Each turn repeats the call until it has lasted a while.

Training. One whole `Trainer.train_step` (scaling, forward, backward, clipping, optimiser) on a batch made beforehand.
Its FLOP count is 6 x parameters x tokens: a multiplication and an addition per weight and token forward, twice that
backward; the products inside attention are not counted. The share is taken of the best rate at which torch multiplies
float32 matrices in the same run, on the same threads.

Threads. Answers are timed on one thread and by default, alone and beside processes that keep a processor busy each, as
on machines that are shared: the default should not be slower than one thread by more than a tenth, and beside two busy
processes at most four times slower than alone.

Memory. The most bytes that one forward and backward pass held at once, see `studies.harness.memory`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from threadpoolctl import threadpool_info, threadpool_limits

from algebraformer import provenance
from algebraformer.models import ModelConfig, TokenConfig
from algebraformer.reporting import Cell, TableData, print_table, write_results
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, RunOptions, Trainer
from algebraformer.training.data import TEST_SEED, to_tensors
from studies.harness.memory import KERNELS, exponent, peak_bytes
from studies.harness.timing import in_turn

BATCHES = (1, 64)
NEIGHBOURS = (0, 1, 2)
"""Busy processes beside which answers are timed."""
TARGETS = {"paper": 0.50, "diffusion-64-token": 0.35, "lstm-64": 0.35, "gru-64": 0.35}
"""Shares of the matmul rate that training should reach."""
THREAD_COLUMNS = ("call", "ms per system", "over one thread", "beside 1 busy process, over alone", "beside 2")
PAPER_EXPONENTS = {"column": "2 in the paper", "entry": "4 in the paper"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int
    """Repeats whose median is reported."""
    turn: float
    """Seconds a turn lasts at least."""
    shapes: tuple[tuple[int, int, int], ...]
    """Products (m, k) @ (k, n) for the matmul rate."""
    recipes: tuple[str, ...]
    """Recipes whose training step is timed; the first one's network is timed in predict, too."""
    shared: tuple[int, ...]
    """Sizes n at which both encodings are measured."""
    column: tuple[int, ...]
    """Larger sizes n, for column tokens alone."""
    fitted: int
    """Smallest shared size that the exponents are fitted over."""


FULL = Plan(
    rounds=7,
    turn=0.3,
    shapes=((1024, 1024, 1024), (2048, 2048, 2048), (4096, 256, 1024), (4096, 1024, 256), (4096, 96, 384)),
    recipes=("paper", "diffusion-64-token", "lstm-64", "gru-64"),
    shared=(4, 8, 12, 16, 24, 32),
    column=(64, 128, 256),
    fitted=12,
)
QUICK = Plan(
    rounds=2, turn=0.01, shapes=((256, 256, 256),), recipes=("quick",), shared=(4, 6), column=(8, 10), fitted=4
)


def product(m: int, k: int, n: int) -> Callable[[], Any]:
    """Return a call that multiplies float32 matrices (m, k) @ (k, n)."""
    left, right, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    return partial(torch.mm, left, right, out=out)


def training_step(trainer: Trainer) -> Callable[[], Any]:
    """Return a call that takes one optimiser step on a batch of the trainer's family."""
    batch = to_tensors(trainer.family.sample(trainer.recipe.batch_size))
    return partial(trainer.train_step, batch)


def measure_training(trainers: Mapping[str, Trainer], plan: Plan) -> dict[str, dict[str, Any]]:
    """Return FLOP/s of matrix products and of training steps, and the steps' share of the best product."""
    products = {f"{m} x {k} x {n}": (m, k, n) for m, k, n in plan.shapes}
    calls = {name: product(*shape) for name, shape in products.items()}
    calls |= {name: training_step(trainer) for name, trainer in trainers.items()}
    seconds = in_turn(calls, plan.rounds, least=plan.turn)
    matmul = {name: 2 * math.prod(shape) / seconds[name] for name, shape in products.items()}
    training = {}
    for name, trainer in trainers.items():
        parameters, batch = trainer.model.parameter_count(), trainer.recipe.batch_size
        flops = 6 * parameters * batch * trainer.recipe.model.n_token
        training[name] = {
            "parameters": parameters,
            "batch_size": batch,
            "seconds_per_step": seconds[name],
            "flops_per_second": flops / seconds[name],
            "share_of_matmul": flops / seconds[name] / max(matmul.values()),
            "target": TARGETS.get(name),
        }
    return {"matmul_flops_per_second": matmul, "training": training}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep `count` processors busy meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def inference_calls(solvers: Mapping[str, LearnedSolver]) -> tuple[dict[str, Callable[[], Any]], dict[str, int]]:
    """Return predict of every solver, solve of the first one, and NumPy on the same systems, with batch sizes."""
    calls: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, int] = {}
    first = next(iter(solvers))
    for name, solver in solvers.items():
        systems = solver.info.problem_family().sample(max(BATCHES), TEST_SEED)
        for size in BATCHES:
            A, b = (systems.A[0], systems.b[0]) if size == 1 else (systems.A[:size], systems.b[:size])
            mine: dict[str, Callable[[], Any]] = {f"predict, {name}": partial(solver.predict, A, b)}
            if name == first:
                mine[f"solve, {name}"] = partial(solver.solve, A, b)
                mine["numpy.linalg.solve"] = partial(np.linalg.solve, A, b[..., None])
            calls |= {f"{what}, batch {size}": call for what, call in mine.items()}
            sizes |= {f"{what}, batch {size}": size for what in mine}
    return calls, sizes


def measure_inference(solvers: Mapping[str, LearnedSolver], plan: Plan) -> dict[str, Any]:
    """Return seconds per system: by default, and for every number of busy processes on one thread and by default."""
    calls, sizes = inference_calls(solvers)
    rounds: dict[str, dict[str, list[float]]] = {name: {} for name in calls}
    for neighbours in NEIGHBOURS:
        with busy_processes(neighbours):
            for _ in range(plan.rounds):
                for label, limit in (("one thread", 1), ("default", None)):
                    with threadpool_limits(limit, "blas"):
                        found = in_turn(calls, 1, least=plan.turn / 6)
                    for name, seconds in found.items():
                        rounds[name].setdefault(f"{label}, {neighbours} busy", []).append(seconds / sizes[name])
    threads = {name: {way: float(np.median(found)) for way, found in ways.items()} for name, ways in rounds.items()}
    solver = next(iter(solvers.values()))
    systems = solver.info.problem_family().sample(max(BATCHES), TEST_SEED)
    return {
        "seconds_per_system": {name: ways["default, 0 busy"] for name, ways in threads.items()},
        "seconds_by_threads": threads,
        "solved_by_network": float(np.mean(solver.solve(systems.A, systems.b).method != "lapack")),
    }


def thread_rows(data: Mapping[str, Any]) -> list[list[Cell]]:
    """Return the rows of the second table: the default over one thread, and beside busy processes over alone."""
    table: list[list[Cell]] = []
    for name, ways in data["seconds_by_threads"].items():
        alone = ways["default, 0 busy"]
        beside = [ways[f"default, {neighbours} busy"] / alone for neighbours in NEIGHBOURS[1:]]
        table.append([name, 1e3 * alone, alone / ways["one thread, 0 busy"], *beside])
    return table


def measure_memory(plan: Plan) -> list[dict[str, Any]]:
    """Return peak memory over n for both encodings and attention kernels, with exponents fitted to it."""
    series = []
    for encoding in ("column", "entry"):
        larger = plan.column if encoding == "column" else ()
        ranges = [[n for n in plan.shared if n >= plan.fitted], list(larger)]
        for kernel, backends in KERNELS.items():
            peaks = {}
            for n in plan.shared + larger:
                config = ModelConfig(n=n, head=TokenConfig(encoding=encoding), n_layer=2, n_head=2, n_embd=32)
                peaks[n] = peak_bytes(config, backends)
            fits = [
                {"from": sizes[0], "to": sizes[-1], "exponent": exponent({n: peaks[n] for n in sizes})}
                for sizes in ranges
                if sizes
            ]
            series.append({"encoding": encoding, "kernel": kernel, "peak_bytes": peaks, "exponents": fits})
    return series


def rows(data: Mapping[str, Any]) -> list[list[Cell]]:
    """Return the table's rows: measure, value, unit, target."""
    best = max(data["matmul_flops_per_second"], key=data["matmul_flops_per_second"].get)
    rate = data["matmul_flops_per_second"][best] / 1e9
    table: list[list[Cell]] = [
        ["threads of torch", data["threads"]["torch"], "", None],
        ["threads of NumPy's BLAS", data["threads"]["blas"], "", None],
        [f"float32 matrix product, {best}", rate, "GFLOP/s", None],
    ]
    for name, entry in data["training"].items():
        label = f"training, {name} ({entry['parameters'] / 1e6:.2f} M parameters, batch {entry['batch_size']})"
        target = None if entry["target"] is None else f"≥ {100 * entry['target']:.0f}"
        table.append([label, 100 * entry["share_of_matmul"], "% of the matrix product", target])
    table += [[name, 1e3 * value, "ms per system", None] for name, value in data["seconds_per_system"].items()]
    table.append(["systems that solve answered without LAPACK", 100 * data["solved_by_network"], "%", None])
    for entry in data["memory"]:
        label = f"peak memory, {entry['encoding']} tokens, {entry['kernel']} attention"
        largest = entry["exponents"][0]["to"]
        table.append([f"{label}, n = {largest}", entry["peak_bytes"][largest] / 1e6, "MB", None])
        for fit in entry["exponents"]:
            what = f"{label}, n = {fit['from']} to {fit['to']}"
            table.append([what, fit["exponent"], "exponent of n", PAPER_EXPONENTS[entry["encoding"]]])
    return table


def main(quick: bool = False, output: Path | None = None) -> None:
    """Measure speed and memory and write them as JSON.

    Parameters
    ----------
    quick : bool
        Measure little, in seconds: to see that the benchmark works.
    output : Path, optional
        File to write; results/bench.json if not given, and none with --quick.
    """
    if not quick and (forced := [name for name in provenance.KERNELS if name in os.environ]):
        sys.exit(f"bench.py times the kernels that this processor gets by itself: unset {', '.join(forced)}")
    provenance.commit()  # now, not when everything has run
    plan = QUICK if quick else FULL
    options = RunOptions(workers=0, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: Trainer(RECIPES[name], Path(folder, name), options, name) for name in plan.recipes}
        data: dict[str, Any] = measure_training(trainers, plan)
    large = trainers[plan.recipes[0]]
    shipped = {name: LearnedSolver.from_pretrained(name) for name in ("diffusion-64", "diffusion-64-token")}
    data |= measure_inference(shipped | {large.info.name: LearnedSolver(large.model.eval(), large.info)}, plan)
    data["memory"] = measure_memory(plan)
    blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    data["threads"] = {"torch": torch.get_num_threads(), "blas": max(blas, default=1)}
    table = TableData(("measure", "value", "unit", "target"), rows(data), f"Benchmark on {provenance.processor()}")
    calm = TableData(THREAD_COLUMNS, thread_rows(data), "Default number of threads")
    for part in (table, calm):
        print_table(part)
    output = output or (None if quick else Path("results/bench.json"))
    if output is not None:
        command, tables = shlex.join(["python", *sys.argv]), [calm.settings()]
        write_results(output, command=command, table=table, tables=tables, quick=quick, **data)
        print(f"Written to {output}")


if __name__ == "__main__":
    tyro.cli(main)
