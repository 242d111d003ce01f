"""Helpers of all commands: exit codes, JSON for programs, tables for people."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algebraformer.errors import ConfigurationError
from algebraformer.writing import check_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from algebraformer.reporting import Report

DONE, NOT_SOLVED, BAD_INPUT, FALLBACK = 0, 1, 2, 3
INTERRUPTED = 130
MAX_ROWS = 20
"""Rows of a table that are printed; --json lists all systems."""


def emit(data: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(data, allow_nan=False))


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Print each warning as one line on stderr, also where warnings are errors (`python -W error`)."""

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        if any(action == "error" for action, *_ in warnings.filters):
            warnings.simplefilter("default")
        warnings.showwarning = show_warning
        yield


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block, for --json; they are shown as well."""
    collected: list[str] = []
    show = warnings.showwarning

    def collect(message: Warning | str, *rest: Any, **more: Any) -> None:
        collected.append(str(message))
        show(message, *rest, **more)

    with warnings.catch_warnings():
        warnings.showwarning = collect
        yield collected


def check_output(path: Path | None) -> None:
    """Raise an error, before the work begins, if an array cannot be written to this file."""
    from algebraformer import io

    if path is not None:
        io.check_name(path)
        check_file(path)


def check_figure(path: Path | None) -> None:
    """Raise an error, before the work begins, if a PNG cannot be written to this file."""
    from algebraformer.plotting import require_matplotlib

    if path is not None:
        if path.suffix.lower() != ".png":
            raise ConfigurationError(f"--figure writes PNG: expected a name that ends in .png, received {str(path)!r}")
        check_file(path)
        require_matplotlib()


def save_report(report: Report, folder: Path, draw: Callable[[Mapping[str, Any]], Figure] | None = None) -> Path:
    """Write report.json, report.md and report.png into a folder; return the path of report.json."""
    from algebraformer import plotting

    command = shlex.join(["algebraformer", *sys.argv[1:]])
    return plotting.save_report(report, folder, command, draw or plotting.assessment_figure)


def show_report(report: Report, path: Path | None) -> None:
    """Print the tables and the verdict of a report, and where it was written."""
    from algebraformer.reporting import print_table

    for table in report.tables:
        print_table(table)
    print("\n".join(report.conclusions))
    if path is not None:
        print(f"Report: {path.with_suffix('.md')}")
        if not path.with_suffix(".png").exists():
            print("No figure: that needs matplotlib, pip install 'algebraformer[plot]'")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for a person."""
    from algebraformer.reporting import TableData, print_table

    print_table(TableData(columns, rows, title))


def show_rows(title: str, what: str, names: Sequence[str], record: Mapping[str, Any]) -> None:
    """Print these fields, one row per system of a batch; `what` is the word for one of them."""
    values = [v if isinstance(v, list) else [v] for v in (record[name] for name in names)]
    rows = [[i, *row] for i, row in enumerate(zip(*values, strict=True))]
    show(title, (what, *names), rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        print(f"... and {len(rows) - MAX_ROWS} more {what}s (--json lists all)")


def paths(command: Any, *options: str) -> dict[str, str | None]:
    """Return the paths given for these options as text, None where there is none."""
    given = {option: getattr(command, option) for option in options}
    return {option: None if path is None else str(path) for option, path in given.items()}


def show_paths(command: Any) -> None:
    """Print where x and the figure were written."""
    for what, path in (("x", command.output), ("figure", command.figure)):
        if path is not None:
            print(f"{what} written to {path}")


def all_true(value: bool | list[bool]) -> bool:
    """Return whether a field is true; for a batch, whether it is true for every system."""
    return all(value) if isinstance(value, list) else value
