"""Outcomes and conclusions of the committed results: those that follow from their data, and a page that shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from algebraformer.reporting import Outcome, Verdict, conclusions, outcome
from studies.harness.evidence import DEPENDS
from studies.harness.results import derive, module_of, read_outcomes

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.mark.parametrize("name", DEPENDS)
def test_outcomes_of_the_results_follow_from_their_data(name: str) -> None:
    content, module = json.loads((RESULTS / f"{name}.json").read_text()), module_of(name)
    found = module.outcomes(content["data"])
    written = read_outcomes(name, content)
    assert written == found, "run `python -m studies.harness.pages --derive results/NAME.json`"
    assert content["conclusions"] == conclusions(found, module.SENTENCES)
    page = (RESULTS / f"{name}.md").read_text()
    assert [line for line in content["conclusions"] if line not in page] == []
    assert all(key.startswith(f"{name}.") for key in found)


def test_older_files_are_read_by_their_data(tmp_path: Path) -> None:
    """A file without outcomes has the same ones; deriving writes them, and leaves what was measured as it is."""
    content = json.loads((RESULTS / "scaling.json").read_text())
    older = {key: value for key, value in content.items() if key not in ("outcomes", "conclusions")}
    assert read_outcomes("scaling", older) == read_outcomes("scaling", content)
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps(older | {"verdict": ["as it was said before"]}))
    derive(path)
    assert path.read_text() == (RESULTS / "scaling.json").read_text()
    assert path.with_suffix(".md").read_text() == (RESULTS / "scaling.md").read_text()


def test_data_that_lack_something_are_an_error(tmp_path: Path) -> None:
    shutil.copy(RESULTS / "scaling.json", tmp_path)
    path = tmp_path / "scaling.json"
    content = json.loads(path.read_text())
    del content["data"]["many"]
    path.write_text(json.dumps(content))
    with pytest.raises(KeyError, match="many"):
        derive(path)


# ---------------------------------------------------------------- outcomes and sentences


def test_outcomes_as_json() -> None:
    found = outcome(Verdict.SMALLER_SCALE, ratio=float("inf"), count=3, name="LU", missing=None)
    settings = json.loads(json.dumps(found.settings(), allow_nan=False))
    assert settings["numbers"] == {"ratio": "inf", "count": 3, "name": "LU", "missing": None}
    assert Outcome.from_settings(settings) == found
    with pytest.raises(ValueError, match="nearly"):
        Outcome.from_settings({"verdict": "nearly", "numbers": {}})


def test_sentences_are_found_by_the_id_without_its_case() -> None:
    sentences = {"a.b": "{x:.1f}: {verdict}", "a.c": lambda found: "" if found.verdict == Verdict.MET else "no"}
    found = {
        "a.b/one": outcome(Verdict.HOLDS, x=0.25),
        "a.b/two": outcome(Verdict.FAILS, x=float("inf")),
        "a.c": outcome(Verdict.MET),
        "a.c/other": outcome(Verdict.MISSED),
    }
    assert conclusions(found, sentences) == ["0.2: holds", "inf: does not hold", "no"]
    with pytest.raises(KeyError, match="x"):
        conclusions({"a.b": outcome(Verdict.HOLDS)}, sentences)
    with pytest.raises(KeyError, match=r"a\.d"):
        conclusions({"a.d": outcome(Verdict.HOLDS)}, sentences)
