"""Tables in documents, from results/*.json.

`python -m studies.harness.pages README.md docs` (or `make tables`) rewrites every block of the form

    <!-- table: NAME -->
    ...
    <!-- end table -->

from results/NAME.json, so that no number in a document is typed by hand; a test fails when a block is out of date.
A caption gives the commit and the machine of the measurement. At the end it lists the results that are
older than code they depend on.
Blocks from <!-- claims: SECTION --> to <!-- end claims --> hold the tables of `studies.claims`, likewise.

`python -m studies.harness.pages --derive results/NAME.json ...` makes outcomes and conclusions of these files anew from
their data, and NAME.md with them; nothing is measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from algebraformer.reporting import markdown_table
from studies.harness.evidence import caption, older
from studies.harness.results import derive

BLOCK = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)
CLAIMS = re.compile(r"(<!-- claims: ([\w-]+) -->\n).*?(<!-- end claims -->)", re.DOTALL)


def refreshed(text: str, results: Path) -> str:
    """Return the text with every block made anew from the results folder."""

    def replace(match: re.Match[str]) -> str:
        content = json.loads((results / f"{match[2]}.json").read_text())
        table = markdown_table(content["table"]["columns"], content["table"]["rows"])
        return f"{match[1]}{table}\n{caption(content['provenance'])}\n{match[3]}"

    def claims(match: re.Match[str]) -> str:
        from studies.claims.rows import table  # which needs torch, and showing a table does not

        found = table(match[2], results)
        return match[1] + markdown_table(found.columns, found.rows) + match[3]

    return CLAIMS.sub(claims, BLOCK.sub(replace, text))


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
