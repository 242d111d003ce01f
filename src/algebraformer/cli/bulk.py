"""`solve --workers`: very many systems, on several processes."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from algebraformer.cli.files import STDIN, split_name
from algebraformer.cli.output import BAD_INPUT, DONE, FALLBACK, NOT_SOLVED, emit, paths, show
from algebraformer.errors import ConfigurationError
from algebraformer.writing import check_folder

if TYPE_CHECKING:
    from algebraformer.bulk.run import Outcome
    from algebraformer.bulk.sources import Folder, MappedArrays

MAX_REFUSED = 5
"""Lines on stderr about input that could not be solved; --json lists all."""


def solve_on_workers(command: Any) -> int:
    """Run `solve` with workers; return the exit code."""
    from algebraformer.io import FORMATS

    if command.output is None:
        raise ConfigurationError("--workers needs --output, a folder for the results")
    if command.figure is not None:
        raise ConfigurationError("--figure shows one system, --workers is for very many")
    if command.output.name.lower().endswith(tuple(f".{name}" for name in FORMATS)):
        raise ConfigurationError(f"--workers needs a folder for the results, received --output {command.output}")
    check_folder(command.output)
    source = _source(command)

    from algebraformer.bulk.run import solve_all  # slow to import: not before the files are looked at
    from algebraformer.bulk.settings import Settings
    from algebraformer.solver import LearnedSolver
    from algebraformer.training.monitor import Monitor

    LearnedSolver.from_pretrained(command.model).check_can_solve()
    settings = Settings(command.rtol, command.max_refinements, command.fallback)
    with Monitor(not command.json) as monitor:
        progress = _with_rate(monitor.part(source.unit), source.unit)
        outcome = solve_all(source, command.model, settings, command.output, command.workers, progress)

    summary = outcome.summary
    record = dataclasses.asdict(summary) | {
        "uncertified": outcome.uncertified,
        "refused": outcome.refused,
        "resumed": outcome.resumed,
        "model": command.model,
        **paths(command, "output"),
    }
    for line in outcome.refused[:MAX_REFUSED]:
        print(f"algebraformer: {' '.join(line.split())}", file=sys.stderr)
    if len(outcome.refused) > MAX_REFUSED:
        print(f"algebraformer: ... and {len(outcome.refused) - MAX_REFUSED} more (--json lists all)", file=sys.stderr)
    if command.json:
        from algebraformer.result import plain

        emit(plain(record))
    else:
        _show(command, source, outcome)
    if outcome.refused:
        return BAD_INPUT
    if summary.certified < summary.systems:
        return NOT_SOLVED
    return FALLBACK if summary.lapack else DONE


def _source(command: Any) -> MappedArrays | Folder:
    """Return the systems that the arguments name."""
    from algebraformer.bulk.sources import Folder, MappedArrays

    if os.path.isdir(command.A):
        if command.b is not None:
            raise ConfigurationError(
                f"{command.A} is a folder of files with A and b; received {command.b} for b as well"
            )
        return Folder.of(command.A, command.max_bytes)
    A_file, A_key = split_name(command.A)
    b_file, b_key = (None, None) if command.b is None else split_name(command.b)
    if STDIN in (A_file, b_file) or command.format is not None:
        raise ConfigurationError("--workers reads files again and again, and no standard input")
    return MappedArrays.of(A_file, b_file, A_key, b_key, command.max_bytes)


def _with_rate(report: Callable[..., None], unit: str) -> Callable[[int, int, int], None]:
    """Return what shows progress with the rate of what was done since it began."""
    begin = time.monotonic()

    def show_rate(done: int, before: int, total: int) -> None:
        rate = (done - before) / max(time.monotonic() - begin, 1e-3)
        report(done, total, f"{rate:.3g} {unit}/s")

    return show_rate


def _show(command: Any, source: MappedArrays | Folder, outcome: Outcome) -> None:
    """Print how many systems have which status, and the largest measures."""
    summary = outcome.summary
    rows = [[name, count] for name, count in summary.status.items()]
    show(f"{command.A}, model {command.model}", ("status", "systems"), rows)
    print(
        f"Certified: {summary.certified} of {summary.systems}; largest relative residual "
        f"{summary.relative_residual:.2g}, backward error {summary.backward_error:.2g}, estimated relative error of x "
        f"{summary.forward_error:.1g}."
    )
    if outcome.uncertified:
        more = summary.systems - summary.certified - len(outcome.uncertified)
        print(f"Not certified: {', '.join(outcome.uncertified)}{f' and {more} more' if more else ''}")
    if outcome.resumed:
        print(f"{outcome.resumed} {source.unit} had been solved before")
    print(f"Results written to {command.output}")
