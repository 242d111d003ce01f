"""Tables in documents, from results/*.json.

`python -m studies.harness.pages README.md docs` (or `make tables`) rewrites every block of the form

    <!-- table: NAME -->
    ...
    <!-- end table -->

from results/NAME.json: its first table, or with NAME/1 and so on those that follow. So no number in a document is typed
by hand; a test fails when a block is out of date.
A caption gives the commit and the machine of the measurement. At the end, results older than code they depend on are
listed. The block from <!-- claims --> to <!-- end claims --> holds the table of `studies.claims`, and the block
from <!-- summary --> to <!-- end summary --> the table of `summary`, likewise.

`python -m studies.harness.pages --derive results/NAME.json ...` makes outcomes and conclusions of these files anew from
their data, and NAME.md with them; nothing is measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algebraformer.reporting import Cell, markdown_table
from studies.harness.evidence import caption, older
from studies.harness.results import derive

BLOCK = re.compile(r"(<!-- table: ([\w.-]+)(?:/(\d+))? -->\n).*?(<!-- end table -->)", re.DOTALL)
CLAIMS = re.compile(r"(<!-- claims -->\n).*?(<!-- end claims -->)", re.DOTALL)
SUMMARY = re.compile(r"(<!-- summary -->\n).*?(<!-- end summary -->)", re.DOTALL)
SUMMARY_FAMILY, SUMMARY_SIZES = "diffusion", (64, 256, 1024)
"""Family and sizes n of the summary, each with its smallest and its largest batch."""
SUMMARY_NOISE = ("deblur", 0.01)
"""Family and noise level of the summary."""
WITHOUT_TRUTH = ("Tikhonov, cross-validation", "TSVD, cross-validation", "total variation, discrepancy")
"""Classical methods of results/noisy.json that need no knowledge of the true signals; the last one needs the noise."""


def refreshed(text: str, results: Path) -> str:
    """Return the text with every block made anew from the results folder."""

    def replace(match: re.Match[str]) -> str:
        content = json.loads((results / f"{match[2]}.json").read_text())
        chosen = content["tables"][int(match[3]) - 1] if match[3] else content["table"]
        table = markdown_table(chosen["columns"], chosen["rows"])
        return f"{match[1]}{table}\n{caption(content['provenance'])}\n{match[4]}"

    def summarised(match: re.Match[str]) -> str:
        return match[1] + summary(results) + match[2]

    def claims(match: re.Match[str]) -> str:
        from studies.claims.rows import table  # which needs torch, and showing a table does not

        found = table(results)
        return match[1] + markdown_table(found.columns, found.rows) + match[2]

    return SUMMARY.sub(summarised, CLAIMS.sub(claims, BLOCK.sub(replace, text)))


def records(results: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of the main table of results/NAME.json as dictionaries, cells by column."""
    table = json.loads((results / f"{name}.json").read_text())["table"]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def summary(results: Path) -> str:
    """Return the Markdown table of README: certified solves by size and batch, and one row on noisy systems."""
    rows: list[list[Cell]] = []
    timed = [row for row in records(results, "scaling") if row.get("family", SUMMARY_FAMILY) == SUMMARY_FAMILY]
    for n in SUMMARY_SIZES:
        batches = [row for row in timed if row["n"] == n]
        for row in (batches[0], batches[-1]):
            milliseconds = 1e-3 * row["ours, µs per system"]
            shown = [milliseconds, 1e-3 * row["LAPACK, µs per system"], milliseconds * row["best rival / ours"]]
            rows.append([f"{SUMMARY_FAMILY}, n = {n}, batch {row['batch']}: ms per system", *shown, row["best rival"]])
    family, noise = SUMMARY_NOISE
    (row,) = (row for row in records(results, "noisy") if (row["family"], row["noise"]) == SUMMARY_NOISE)
    medians = {name: float(str(cell).split()[0]) for name, cell in row.items() if "(" in str(cell)}
    best = min(WITHOUT_TRUTH, key=medians.__getitem__)
    errors = [medians["learned"], medians["no regularisation"], medians[best]]
    rows.append([f"{family}, {100 * noise:g} % noise: median relative error", *errors, best])
    columns = ("task: measure", "algebraformer", "LAPACK", "best rival", "which rival")
    about = [json.loads((results / f"{name}.json").read_text())["provenance"] for name in ("scaling", "noisy")]
    return f"{markdown_table(columns, rows)}\nTimes: {caption(about[0])} Errors: {caption(about[1])}\n"


def documents(paths: Sequence[str]) -> list[Path]:
    """Return the Markdown files among paths, and those in folders among them."""
    return [file for path in map(Path, paths) for file in (sorted(path.rglob("*.md")) if path.is_dir() else [path])]


if __name__ == "__main__":
    if "--derive" in sys.argv:
        for path in map(Path, sys.argv[2:]):
            derive(path)
        sys.exit()
    for document in documents(sys.argv[1:]):
        document.write_text(refreshed(document.read_text(), Path("results")))
    if lines := older(Path("results")):
        print("Older than code they depend on:", *lines, sep="\n  ")
