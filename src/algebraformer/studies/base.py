"""What every result carries: the command that made it, where it ran, and the table a person reads."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algebraformer.provenance import provenance

Cell = str | float | int | bool | None


@dataclasses.dataclass(frozen=True)
class TableData:
    """A table with one list of cells per row; numbers stay numbers and are formatted where they are shown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""

    def settings(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become text, since JSON has none."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[finite(cell) for cell in row] for row in self.rows],
        }


def finite(cell: Any) -> Any:
    """Return the value, or its name as text where it is NaN or infinite."""
    if isinstance(cell, float):
        return float(cell) if math.isfinite(cell) else str(cell)
    return cell


def write_results(path: Path | str, *, command: str, table: TableData, **data: Any) -> None:
    """Write results/NAME.json: the command, where it ran, the table and further data as plain JSON values."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "provenance": provenance(), "table": table.settings(), **data}
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
