"""Efficiency of two workers over one, with one BLAS thread each: `python benchmarks/workers.py`.

Time is that of all blocks of a batch, with processes that have started. One worker, two workers, and two runs of one
worker side by side, which have nothing in common but the machine, take turns: two processors that are threads of one
core, or that other programs use as well, do not do twice the work of one, whoever shares it out. The efficiency is
half of how many times as fast two are as one.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from pathlib import Path

import numpy as np
import tyro

from algebraformer.bulk.pool import Pool
from algebraformer.bulk.run import Work
from algebraformer.bulk.settings import Settings
from algebraformer.bulk.sources import MappedArrays, Task
from algebraformer.reporting import TableData, print_table, write_results
from studies.harness.timing import rounds_in_turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    model: str = "diffusion-64"
    """A shipped model that solves systems."""
    systems: int = 8192
    """Systems of its family."""
    rounds: int = 5
    """Turns of each way."""
    output: Path | None = None
    """File for the results, .json."""


def measure(options: Options) -> dict[str, list[float]]:
    """Return the seconds of every round for one worker, for two, and for two runs of one, which solve twice as much."""
    from algebraformer.solver import LearnedSolver

    family = LearnedSolver.from_pretrained(options.model).info.problem_family()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        systems = family.sample(options.systems, seed=1)
        np.save(folder / "A.npy", systems.A)
        np.save(folder / "b.npy", systems.b)
        del systems
        source = MappedArrays.of(str(folder / "A.npy"), str(folder / "b.npy"), None, None, 2**31)
        work = Work(source, options.model, Settings(), folder)
        again = Work(source, options.model, Settings(), folder / "again")
        again.parts.mkdir()
        tasks = source.tasks()
        with Pool(work, 1) as one, Pool(work, 2) as two, Pool(again, 1) as other:

            def side_by_side() -> None:
                beside = threading.Thread(target=solve, args=(other, tasks))
                beside.start()
                solve(one, tasks)
                beside.join()

            ways = {
                "one worker": lambda: solve(one, tasks),
                "two workers": lambda: solve(two, tasks),
                "two runs of one worker": side_by_side,
            }
            return rounds_in_turn(ways, options.rounds)


def solve(pool: Pool, tasks: list[Task]) -> None:
    """Solve all blocks."""
    for ended in pool.run(tasks):
        for _, result in ended:
            if isinstance(result, ValueError):
                raise result


def main(options: Options) -> None:
    """Measure, and show the efficiencies."""
    seconds = {way: np.array(times) for way, times in measure(options).items()}
    one, two, apart = seconds.values()
    share = {
        "two workers": one / two / 2,
        "two runs of one worker": one / apart,
        "the first over the second": apart / two / 2,
    }
    rows = [[way, *map(float, (np.median(x), x.min(), x.max()))] for way, x in share.items()]
    rate = options.systems / np.median(one)
    title = f"{options.systems} systems of {options.model}, {options.rounds} rounds; {rate:.3g} per second on one"
    table = TableData(("way", "efficiency, median", "least", "largest"), rows, title)
    print_table(table)
    if options.output is not None:
        write_results(options.output, command="python benchmarks/workers.py", table=table)


if __name__ == "__main__":
    main(tyro.cli(Options))
