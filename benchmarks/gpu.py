"""Certified solves on a GPU against its own factorisations, in one run: `python benchmarks/gpu.py --output gpu.json`.

For every n an operator head for the family diffusion is trained first (n = 64 is shipped). Then batches of unseen
systems that lie on the device are solved, in turn, by it, by torch.linalg.solve with both of torch's libraries, by LU
in float32 with refinement, and by CuPy where it is installed. The limit is one pass over A, a product with a vector.

What was measured is kept beside the output and is not measured again by the same command at the same commit, so that
the run can be split. A rival's answers are not certified; ours are, and the time of that is in ours.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from algebraformer import problems, provenance
from algebraformer.arrays import Kind, host
from algebraformer.errors import Status
from algebraformer.metrics import relative_errors
from algebraformer.problems import Systems
from algebraformer.reporting import Cell, TableData, print_table, write_results
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.harness.runs import computed_once, run_once
from studies.harness.timing import rounds_in_turn
from studies.scaling.plan import Training, recipe

OURS, PASS = "algebraformer", "one pass over A"
FAMILY = "diffusion"
TRAININGS = {
    256: Training(64, 10_000, 2_000),
    512: Training(64, 3_000, 2_000, 128, 256),
    1024: Training(64, 1_000, 2_000, 128, 128),
}
"""How operator heads are trained; the one for n = 64 is shipped."""
BATCHES = (1, 16, 256, 4096)
REFINEMENTS = 3
"""Of LU in float32: enough on this family."""
RIVALS = 3
"""A, its factors and a copy: what a rival holds on the device at least, in matrices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and where."""

    output: Path = Path("results/gpu.json")
    """File for the results; what a stopped run resumes from lies beside it."""
    device: str = "cuda"
    """Device of torch. On the processor the run shows that it works, and nothing else."""
    sizes: tuple[int, ...] = (64, 256, 512, 1024)
    """Numbers of unknowns."""
    batches: tuple[int, ...] = BATCHES
    """Batch sizes, each at most what fits into the device's memory."""
    rounds: int = 5
    """Rounds whose median is reported."""


def main(options: Options) -> None:
    """Train, measure, write and show."""
    device = torch.device(options.device)
    if device.type == "cpu":  # as on a GPU, so that the same functions run
        Kind.on_host = property(lambda self: self.library != "torch")  # type: ignore[assignment, method-assign]
    folder, records = options.output.with_suffix(""), []
    settings = {"commit": provenance.commit(), "device": device_name(device), "rounds": options.rounds}
    for n in options.sizes:
        solver = trained(n, folder)
        for batch in batch_sizes(n, options.batches, device):
            path = folder / f"{n}-{batch}.json"
            records.append(computed_once(path, settings, partial(measure, solver, batch, device, options.rounds)))
            print(f"n = {n}, batch {batch}: done", flush=True)
    table = summary(records, device)
    print_table(table)
    command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    write_results(options.output, command=command, table=table, device=settings["device"], records=records)


def trained(n: int, folder: Path) -> LearnedSolver:
    """Return the operator head for systems of n unknowns, trained if it is not shipped."""
    if n == 64:
        return LearnedSolver.from_pretrained(f"{FAMILY}-64")
    how = TRAININGS.get(n, Training(16, 500, 100))
    return run_once(recipe(FAMILY, n, how), folder / f"{FAMILY}-{n}").solver


def batch_sizes(n: int, batches: tuple[int, ...], device: torch.device) -> list[int]:
    """Return the batch sizes for this n, each at most what fits into two thirds of the free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**28
    return sorted({min(batch, max(1, int(free * 2 / 3) // (8 * n * n * RIVALS))) for batch in batches})


def device_name(device: torch.device) -> str:
    """Return what the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def drawn(n: int, batch: int) -> Systems:
    """Return unseen systems: the same few hundred again and again in a large batch, which costs no time to make."""
    count = min(batch, max(64, 2**26 // n**2))
    systems = problems.get(FAMILY, n=n).sample(count, TEST_SEED)
    return systems[np.arange(batch) % count]


# ---------------------------------------------------------------- what is measured


def measure(solver: LearnedSolver, batch: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """Return seconds per system, and how good the answers are, of every way for one n and batch size."""
    systems = drawn(solver.n, batch)
    A, b = (torch.asarray(array, device=device) for array in (systems.A, systems.b))
    ways = {OURS: lambda: solver.solve(A, b).x} | rivals(A, b)
    calls = {name: partial(finished, way, device) for name, way in (ways | {PASS: lambda: A @ b[:, :, None]}).items()}
    seconds = {name: np.array(values) / batch for name, values in rounds_in_turn(calls, rounds).items()}
    result, few = solver.solve(A, b), systems[:16]
    return {
        "n": solver.n,
        "batch": batch,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "quartiles": {name: np.quantile(values, [0.25, 0.75]).tolist() for name, values in seconds.items()},
        "error": {name: float(relative_errors(host(way()[: len(few.b)]), few).max()) for name, way in ways.items()},
        "certified": float(np.mean(result.certified)),
        "by_network": float(np.mean([status in (Status.LEARNED, Status.REFINED) for status in result.status])),
        "refinements_median": float(np.median(result.refinements)),
        "backward_error_max": float(np.max(result.backward_error)),
    }


def finished(call: Callable[[], Any], device: torch.device) -> None:
    """Call, and wait until the device has done what was asked of it."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rivals(A: torch.Tensor, b: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return the factorisations of the device by name; on the processor torch's, one matrix after the other."""
    if A.device.type == "cpu":
        one_by_one = partial(map, torch.linalg.solve, A, b)
        return {"torch.linalg.solve": lambda: torch.stack(list(one_by_one()))}
    right, found = b[:, :, None], {}
    for library in ("cusolver", "magma"):
        found[f"torch.linalg.solve, {library}"] = partial(with_library, library, A, right)
    found["LU in float32 + refinement"] = partial(single_lu, A, right)
    if importlib.util.find_spec("cupy"):
        import cupy

        matrices, columns = cupy.from_dlpack(A), cupy.from_dlpack(right)
        found["cupy.linalg.solve"] = lambda: torch.from_dlpack(cupy.linalg.solve(matrices, columns))[:, :, 0]
    return found


def with_library(library: str, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return x (B, n) by torch.linalg.solve in one of torch's libraries."""
    before = torch.backends.cuda.preferred_linalg_library(library)
    try:
        return torch.linalg.solve(A, b)[:, :, 0]
    finally:
        torch.backends.cuda.preferred_linalg_library(before)


def single_lu(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return x (B, n) by LU in float32, refined with residuals in float64."""
    lu, pivots, _ = torch.linalg.lu_factor_ex(A.float())
    x = torch.zeros_like(b)
    for _ in range(1 + REFINEMENTS):
        x += torch.linalg.lu_solve(lu, pivots, (b - A @ x).float())
    return x[:, :, 0]


def summary(records: list[dict[str, Any]], device: torch.device) -> TableData:
    """Return the table of ratios: how many times as fast as the best rival that is accurate, and how many passes."""
    rows: list[list[Cell]] = []
    for record in records:
        seconds, error = record["seconds"], record["error"]
        accurate = [name for name in error if name != OURS and error[name] <= max(10 * error[OURS], 1e-9)]
        best = min(accurate, key=seconds.__getitem__, default="")
        rows.append(
            [
                record["n"],
                record["batch"],
                1e6 * seconds[OURS],
                seconds[best] / seconds[OURS] if best else "",
                best,
                seconds[OURS] / seconds[PASS],
                record["by_network"],
            ]
        )
    columns = ("n", "batch", "ours, µs", "best rival / ours", "best rival", "passes over A", "solved by the network")
    return TableData(columns, rows, f"Certified solves on {device_name(device)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
