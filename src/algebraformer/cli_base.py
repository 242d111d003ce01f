"""What the commands share: exit codes, JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algebraformer.errors import ConfigurationError

DONE, NOT_SOLVED, BAD_INPUT, FALLBACK = 0, 1, 2, 3
INTERRUPTED = 130
SHOWN = 20
"""Systems that are shown at most; --json lists all."""


def emit(data: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(data, allow_nan=False))


def check_figure(path: Path | None) -> None:
    """Raise `ConfigurationError` if a figure shall go to a file that is not named as a PNG."""
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigurationError(f"--figure writes PNG: expected a name that ends in .png, received {str(path)!r}")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for a person."""
    from algebraformer.report import print_table
    from algebraformer.studies.base import TableData

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
