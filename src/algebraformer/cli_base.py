"""What the commands share: exit codes, JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

DONE, NOT_SOLVED, BAD_INPUT, FALLBACK = 0, 1, 2, 3


def emit(data: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(data, allow_nan=False))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for a person."""
    from algebraformer.report import print_table
    from algebraformer.studies.base import TableData

    print_table(TableData(columns, rows, title))
