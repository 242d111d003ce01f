"""The study of instruments: outcomes of made-up numbers, and its quick preset as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.plotting import save
from algebraformer.reporting import Report, Verdict
from studies.harness.measurements import PRIOR, case
from studies.harness.study import load_study, run_study, where
from studies.instruments import measure, packages
from studies.instruments.measure import LEVELS, SAMPLED
from studies.instruments.report import LEARNED, Scores, outcomes, summary
from studies.instruments.rivals import GCV_NNLS, ORACLE, SAMPLER


def made_up(ours: float, oracle: float, coverage: float) -> dict[str, object]:
    """Return the data of a study with these errors of the network and the oracle, and 1 for GCV + NNLS."""
    bands = {f"coverage_{level}": [coverage * level / 100] for level in (50, 90, 95)}
    cell: Scores = {
        LEARNED: {"relative_error": [ours]} | bands,
        GCV_NNLS: {"relative_error": [1.0]},
        ORACLE: {"relative_error": [oracle]},
    }
    cells = {("deer", kind, level): cell for kind in (PRIOR, "Rice") for level in (0.01, 0.1)}
    times = {"deer": {LEARNED: {"1": 4e-3, "64": 4e-4}}}
    return summary(cells, times, {"instruments": ["deer"]}).data


@pytest.mark.parametrize(
    ("ours", "oracle", "coverage", "expected"),
    [
        (0.5, 0.6, 1.0, {"classical": Verdict.MET, "oracle": Verdict.MET, "coverage": Verdict.MET}),
        (0.8, 0.6, 0.9, {"classical": Verdict.MISSED, "oracle": Verdict.MISSED, "coverage": Verdict.MISSED}),
    ],
)
def test_outcomes_follow_the_numbers(ours: float, oracle: float, coverage: float, expected: dict[str, Verdict]) -> None:
    found = outcomes(made_up(ours, oracle, coverage))
    assert {key: found[f"instruments.{key}/deer"].verdict for key in expected} == expected
    assert found["instruments.time/deer"].verdict == Verdict.MET
    assert found["instruments.classical/deer"].numbers["ratio"] == pytest.approx(ours)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("instruments"), "quick", tmp_path_factory.mktemp("instruments"), Progress(disable=True))


def test_the_quick_preset_measures_every_cell(quick: Report) -> None:
    cells = {(row["instrument"], row["kind"], row["level"]) for row in quick.data["cells"] if row["method"] == LEARNED}
    assert {(name, level) for name, _, level in cells} == {(name, level) for name in LEVELS for level in LEVELS[name]}
    assert len(quick.tables) == 10
    assert all(np.isfinite(row["relative_error"]) for row in quick.data["cells"])


def test_errors_grow_with_the_noise(quick: Report) -> None:
    """Levels differ in nothing but the noise."""
    for name in LEVELS:
        mine = [
            row["relative_error"]
            for row in quick.data["cells"]
            if (row["instrument"], row["kind"], row["method"]) == (name, PRIOR, LEARNED)
        ]
        assert mine[0] < mine[-1]


def test_the_figure_is_drawn(quick: Report, tmp_path: Path) -> None:
    save(load_study("instruments").figure(quick.data), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_the_sampler_is_left_out_where_it_is_not_installed(quick: Report) -> None:
    found = {(row["instrument"], row["level"]) for row in where(quick.data["cells"], method=SAMPLER)}
    expected = {(name, level) for name, levels in SAMPLED.items() for level in levels}
    assert found == (expected if packages.installed("cuqi") else set())


def test_scores_of_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sampler that says twice the truth, in a band that begins there."""
    truths = iter(case("deer", PRIOR, 0.01, index).x[0] for index in range(2))

    def twice(family: object, one: object) -> packages.Answer:
        x = 2 * next(truths)
        return packages.Answer(x, x, 2 * x)

    monkeypatch.setattr(measure, "cuqipy", twice)
    found = measure.sampled_scores("deer", 0.01, 2)
    assert found.keys() == {SAMPLER}
    assert found[SAMPLER]["relative_error"] == pytest.approx([1, 1])
    assert found[SAMPLER]["coverage_90"] == [0, 0]
    assert len(found[SAMPLER]["seconds"]) == 2
