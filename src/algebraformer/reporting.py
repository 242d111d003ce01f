"""Tables, progress bars and reports: in the terminal with rich, in files as JSON and Markdown."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from algebraformer.provenance import provenance
from algebraformer.writing import write_bytes

Cell = str | float | int | bool | None


class Verdict(enum.StrEnum):
    """What a measurement decides."""

    REPRODUCED = "reproduced"
    SMALLER_SCALE = "reproduced at smaller scale"
    PARTLY_REPRODUCED = "partly reproduced"
    NOT_REPRODUCED = "not reproduced"
    HOLDS = "holds"
    PARTLY = "holds in part"
    FAILS = "does not hold"
    MET = "met"
    MISSED = "missed"
    WORTH_IT = "worth it"
    NOT_WORTH_IT = "not worth it"
    MEASURED = "measured"
    INCONCLUSIVE = "inconclusive"


Number = float | int | str | None
NOT_FINITE = ("inf", "-inf", "nan")
"""Numbers that JSON has no name for, as `finite` writes them."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The answer to one question, as data.

    Attributes
    ----------
    verdict : Verdict
    numbers : dict
        What the verdict follows from, by name: `Number` values, also names such as that of the fastest method.
    """

    verdict: Verdict
    numbers: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become text, since JSON has none."""
        return {"verdict": str(self.verdict), "numbers": {name: finite(value) for name, value in self.numbers.items()}}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `settings` describes."""
        numbers = {name: float(v) if v in NOT_FINITE else v for name, v in settings["numbers"].items()}
        return cls(Verdict(settings["verdict"]), numbers)


Outcomes = Mapping[str, Outcome]
"""Outcomes by a stable id, such as "attention.mask", or "attention.positions/causal" for one of several cases."""
Sentences = Mapping[str, str | Callable[[Outcome], str]]
"""For each id, without its case, the sentence: a template of the numbers and `verdict`, or a function."""


def outcome(verdict: Verdict, **numbers: Number) -> Outcome:
    """Return an outcome, its numbers to ten digits: the last ones of a sum or a fit differ between processors.

    Examples
    --------
    >>> outcome(Verdict.MET, ratio=2 / 3, slowest="LU").settings()
    {'verdict': 'met', 'numbers': {'ratio': 0.6666666667, 'slowest': 'LU'}}
    """
    rounded = {name: float(f"{x:.10g}") if isinstance(x, float) else x for name, x in numbers.items()}
    return Outcome(verdict, rounded)


def met(condition: bool) -> Verdict:
    """Return whether a target is met."""
    return Verdict.MET if condition else Verdict.MISSED


def conclusions(outcomes: Outcomes, sentences: Sentences) -> list[str]:
    """Return the sentence of every outcome; those whose sentence is empty are left out.

    Examples
    --------
    >>> found = {"speed.ratio/n = 8": outcome(Verdict.MET, n=8, ratio=2.04)}
    >>> conclusions(found, {"speed.ratio": "n = {n}: {ratio:.2g} times as fast; target {verdict}."})
    ['n = 8: 2 times as fast; target met.']
    """
    lines = []
    for key, found in outcomes.items():
        sentence = sentences[key.partition("/")[0]]
        if isinstance(sentence, str):
            lines.append(sentence.format(verdict=found.verdict, **found.numbers))
        else:
            lines.append(sentence(found))
    return [line for line in lines if line]


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


@dataclasses.dataclass(frozen=True)
class Report:
    """What was measured and what follows from it.

    Attributes
    ----------
    tables : sequence of TableData
        The first one is the main table.
    outcomes : dict
        What was found, by id; see `Outcomes`.
    conclusions : sequence of str
        The same in sentences, made from the outcomes by `conclusions`.
    data : dict
        Everything that outcomes and figures need, as plain JSON values.
    """

    tables: Sequence[TableData]
    outcomes: Outcomes
    conclusions: Sequence[str]
    data: dict[str, Any]


def finite(cell: Any) -> Any:
    """Return the value, or its name as text where it is NaN or infinite."""
    if isinstance(cell, float):
        return float(cell) if math.isfinite(cell) else str(cell)
    return cell


def format_cell(cell: Cell) -> str:
    """Return a cell as text: three significant digits, powers of ten where numbers are very small or large."""
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case float():
            return f"{cell:.3g}" if cell == 0 or 1e-3 <= abs(cell) < 1e5 else f"{cell:.2e}"
        case _:
            return str(cell)


def print_table(data: TableData) -> None:
    """Print a table in the terminal; numbers stand at the right, and what is too long is broken, not cut off."""
    table = Table(title=data.title or None, title_justify="left")
    for i, column in enumerate(data.columns):
        numeric = all(isinstance(row[i], int | float) or row[i] is None for row in data.rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in data.rows:
        table.add_row(*map(format_cell, row))
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width of its own
    console.print(table)


class RateColumn(ProgressColumn):
    """Steps per second, or seconds per step where these are long."""

    def render(self, task: Task) -> Text:
        """Return the rate of a task, nothing before its second step."""
        if not task.speed:
            return Text("")
        return Text(f"{task.speed:.3g}/s" if task.speed >= 1 else f"{1 / task.speed:.3g} s each")


def progress_bar(disable: bool = False) -> Progress:
    """Return a progress bar with a rate and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=disable,
    )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *([format_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_page(name: str, command: str, report: Report, no_figure: str = "") -> str:
    """Return NAME.md: the conclusions first, then the tables, the figure or why there is none, and the command."""
    parts = [f"# {name}\n", *(f"{sentence}\n" for sentence in report.conclusions)]
    for table in report.tables:
        parts.append(f"## {table.title}\n" if table.title else "")
        parts.append(markdown_table(table.columns, table.rows))
    parts.append(f"{no_figure or f'![{name}]({name}.png)'}\n")
    parts.append(f"Made by `{command}`; {name}.json holds the data, the commit, the versions and the processor.\n")
    return "\n".join(parts)


def in_json(outcomes: Outcomes, sentences: Sequence[str]) -> dict[str, Any]:
    """Return outcomes and conclusions as they stand in NAME.json."""
    return {
        "outcomes": {key: found.settings() for key, found in outcomes.items()},
        "conclusions": list(sentences),
    }


def write_results(path: Path | str, *, command: str, table: TableData, **data: Any) -> None:
    """Write NAME.json: the command, where it ran, the table and further data as plain JSON values."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command, "provenance": provenance(), "table": table.settings(), **data}
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_report(report: Report, path: Path, command: str, no_figure: str = "", **about: Any) -> None:
    """Write NAME.json, with the further entries `about`, and NAME.md; path is that of NAME.json.

    NAME.md shows NAME.png, or says why there is none.
    """
    main, *others = report.tables
    more = {**in_json(report.outcomes, report.conclusions), "tables": [table.settings() for table in others]}
    write_results(path, command=command, table=main, **about, **more, data=report.data)
    write_bytes(path.with_suffix(".md"), markdown_page(path.stem, command, report, no_figure).encode())
