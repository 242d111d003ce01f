"""What the tests of all studies ask of a result: plain data, whole tables, a figure that can be drawn."""

from __future__ import annotations

import json
from pathlib import Path

from algebraformer import plots
from algebraformer.studies.base import StudyResult


def assert_tables_and_figure(name: str, result: StudyResult, folder: Path) -> None:
    """Check that the data are JSON, every row of a table is as wide as its head, and the figure is not empty."""
    json.dumps(result.data, allow_nan=False)
    for table in result.tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    plots.save(plots.STUDIES[name](result.data), folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 10_000
