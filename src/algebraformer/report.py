"""Tables for people: in the terminal with rich, and in Markdown from results/*.json.

`python -m algebraformer.report README.md docs` (or `make tables`) rewrites every block of the form

    <!-- table: NAME -->
    ...
    <!-- end table -->

from results/NAME.json, so that no number in a document is typed by hand; a test fails when a block is out of date.
Below the table stands at which commit it was measured, and on what. At the end it lists the results that are older than
code they depend on.
Blocks from <!-- claims: SECTION --> to <!-- end claims --> hold the tables of `paper_claims`, likewise.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

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

from algebraformer.evidence import caption, older
from algebraformer.studies.base import Cell, TableData

BLOCK = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)
CLAIMS = re.compile(r"(<!-- claims: ([\w-]+) -->\n).*?(<!-- end claims -->)", re.DOTALL)


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
    """Print a table in the terminal; numbers stand at the right."""
    table = Table(title=data.title or None, title_justify="left")
    for i, column in enumerate(data.columns):
        numeric = all(isinstance(row[i], int | float) or row[i] is None for row in data.rows)
        table.add_column(column, justify="right" if numeric else "left")
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
    """Return a progress bar with a rate and the time left, for studies."""
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


def study_page(name: str, command: str, verdict: Sequence[str], tables: Sequence[TableData]) -> str:
    """Return results/NAME.md: the verdict first, then the tables, the figure and the command."""
    parts = [f"# {name}\n", *(f"{sentence}\n" for sentence in verdict)]
    for table in tables:
        parts.append(f"## {table.title}\n" if table.title else "")
        parts.append(markdown_table(table.columns, table.rows))
    parts.append(f"![{name}]({name}.png)\n")
    parts.append(f"Made by `{command}`; {name}.json holds the data, the commit, the versions and the processor.\n")
    return "\n".join(parts)


def refreshed(text: str, results: Path) -> str:
    """Return the text with every block made anew from the results folder."""

    def replace(match: re.Match[str]) -> str:
        content = json.loads((results / f"{match[2]}.json").read_text())
        table = markdown_table(content["table"]["columns"], content["table"]["rows"])
        return f"{match[1]}{table}\n{caption(content['provenance'])}\n{match[3]}"

    def claims(match: re.Match[str]) -> str:
        from algebraformer.paper_claims import table  # which needs torch, and showing a table does not

        found = table(match[2], results)
        return match[1] + markdown_table(found.columns, found.rows) + match[3]

    return CLAIMS.sub(claims, BLOCK.sub(replace, text))


def documents(paths: Sequence[str]) -> list[Path]:
    """Return the Markdown files among paths, and those in folders among them."""
    return [file for path in map(Path, paths) for file in (sorted(path.rglob("*.md")) if path.is_dir() else [path])]


if __name__ == "__main__":
    for document in documents(sys.argv[1:]):
        document.write_text(refreshed(document.read_text(), Path("results")))
    if lines := older(Path("results")):
        print("Older than code they depend on:", *lines, sep="\n  ")
