"""What the commands share: exit codes, JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algebraformer.errors import ConfigurationError

DONE, NOT_SOLVED, BAD_INPUT, FALLBACK = 0, 1, 2, 3


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
