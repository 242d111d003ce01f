"""What every result carries: the command that made it, where it ran, and the table a person reads.

A study is a module of this package with a dictionary PRESETS of plans (frozen dataclasses) and a function
run(plan, folder, bar) that returns a `StudyResult`; `NAMES` lists them. `folder` keeps what a study that was stopped
goes on from; `bar` is a rich progress bar. The same code path serves every preset: quick in under two minutes (tests
use it), cpu for the committed results, paper for the full scale on a GPU.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import Progress

from algebraformer.errors import FallbackWarning, UnknownNameError
from algebraformer.provenance import commit, provenance
from algebraformer.writing import write_bytes

Cell = str | float | int | bool | None
Row = TypeVar("Row", bound=Mapping[str, Any])


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


NAMES = (
    "operator", "scaling", "efficiency", "outside", "latency", "spectral", "encoding", "attention", "transfer",
    "certificate", "condition", "noise", "reliability", "soak", "noisy", "heldout", "newton", "kantorovich",
)  # fmt: skip
PRESETS = ("quick", "cpu", "paper")
ENOUGH = 0.99
"""Share of systems that have to be certified without LAPACK's help for a method to count as a solver of the family."""
LEARNED = 0.5
"""A normalized_mse below this is learning; 1 is answering zero."""


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes
    ----------
    tables : sequence of TableData
        The first one is the main table; all of them go into NAME.md.
    verdict : sequence of str
        Plain sentences, the first lines of NAME.md.
    data : dict
        Everything a figure needs, as plain JSON values.
    """

    tables: Sequence[TableData]
    verdict: Sequence[str]
    data: dict[str, Any]


def run_study(name: str, preset: str, folder: Path, bar: Progress) -> StudyResult:
    """Run a study of that name.

    Raises
    ------
    UnknownNameError
        No study, or no preset of it, has that name.
    """
    if name not in NAMES:
        raise UnknownNameError("study", name, NAMES)
    module = importlib.import_module(f"algebraformer.studies.{name}")
    if preset not in module.PRESETS:
        raise UnknownNameError(f"preset of {name}", preset, list(module.PRESETS))
    commit()  # now, not when a run of hours has ended
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # studies count what LAPACK answers
        result: StudyResult = module.run(module.PRESETS[preset], folder, bar)
    return result


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have all these values.

    Examples
    --------
    >>> where([{"n": 8, "p": 4}, {"n": 8, "p": 6}, {"n": 16, "p": 4}], n=8, p=4)
    [{'n': 8, 'p': 4}]
    """
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def distinct(rows: Iterable[Mapping[str, Any]], *keys: str) -> list[Any]:
    """Return the different values of a key, or tuples of values of several keys, in the order of the rows.

    Examples
    --------
    >>> rows = [{"n": 8, "p": 4}, {"n": 8, "p": 6}, {"n": 8, "p": 4}]
    >>> distinct(rows, "n"), distinct(rows, "n", "p")
    ([8], [(8, 4), (8, 6)])
    """
    return list(dict.fromkeys(map(itemgetter(*keys), rows)))


def number(value: float | None) -> float:
    """Return a score; infinity for None, which stands for one that was not finite."""
    return math.inf if value is None else float(value)


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
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
