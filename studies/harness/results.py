"""Outcomes of results/*.json: read, and derived anew from the data of a file.

A study's outcomes and conclusions follow from its data alone, so those of a file can be made again without measuring:
after a change of wording, or for a file that was measured before a study had outcomes.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from algebraformer.reporting import Outcome, Report, TableData, conclusions, in_json, markdown_page
from algebraformer.writing import write_bytes
from studies.harness.evidence import OWN
from studies.harness.study import load_study

DERIVED = ("verdict", "outcomes", "conclusions")
"""Parts of a file that follow from its data; "verdict" is what the conclusions were called before there were "
"outcomes."""


def module_of(name: str) -> ModuleType:
    """Return the study, or the stress checks, of that name."""
    return importlib.import_module(f"tests.stress.{name}") if name in OWN else load_study(name)


def read_outcomes(name: str, content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return the outcomes of a study's file; derived from its data if it was measured before there were outcomes.

    Raises
    ------
    KeyError
        The data lack something that an outcome needs.
    """
    if "outcomes" in content:
        return {key: Outcome.from_settings(found) for key, found in content["outcomes"].items()}
    found: dict[str, Outcome] = module_of(name).outcomes(content["data"])
    return found


def derive(path: Path) -> None:
    """Write outcomes and conclusions of results/NAME.json, and NAME.md, from the data in the file.

    Command, provenance, tables and data stay as they were measured.
    """
    content, module = json.loads(path.read_text()), module_of(path.stem)
    outcomes = module.outcomes(content["data"])
    sentences = conclusions(outcomes, module.SENTENCES)
    kept = {key: value for key, value in content.items() if key not in (*DERIVED, "tables", "data")}
    new = kept | in_json(outcomes, sentences) | {key: content[key] for key in ("tables", "data")}
    write_bytes(path, (json.dumps(new, indent=1, allow_nan=False) + "\n").encode())
    tables = [TableData(**table) for table in (content["table"], *content["tables"])]
    page = markdown_page(path.stem, content["command"], Report(tables, outcomes, sentences, content["data"]))
    write_bytes(path.with_suffix(".md"), page.encode())
