"""What the commands share: exit codes, JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from algebraformer.errors import ConfigurationError
from algebraformer.writing import check_file

DONE, NOT_SOLVED, BAD_INPUT, FALLBACK = 0, 1, 2, 3
INTERRUPTED = 130
SHOWN = 20
"""Systems that are shown at most; --json lists all."""


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


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for a person."""
    from algebraformer.reporting import TableData, print_table

    print_table(TableData(columns, rows, title))


def show_rows(title: str, what: str, names: Sequence[str], record: Mapping[str, Any]) -> None:
    """Print the fields of these names, one row for each system of a batch; `what` is the word for one of them."""
    values = [v if isinstance(v, list) else [v] for v in (record[name] for name in names)]
    rows = [[i, *row] for i, row in enumerate(zip(*values, strict=True))]
    show(title, (what, *names), rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN} more {what}s (--json lists all)")


def paths(command: Any, *options: str) -> dict[str, str | None]:
    """Return the paths that were given for these options, None where there is none."""
    given = {option: getattr(command, option) for option in options}
    return {option: None if path is None else str(path) for option, path in given.items()}


def show_paths(command: Any) -> None:
    """Say where x and the figure went."""
    for what, path in (("x", command.output), ("figure", command.figure)):
        if path is not None:
            print(f"{what} written to {path}")


def every(value: bool | list[bool]) -> bool:
    """Say whether a field is true, of a batch for every system."""
    return all(value) if isinstance(value, list) else value
