"""The study of training costs: its count of operations by hand, its interpolation, and the quick preset as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.metrics import score
from algebraformer.problems import get
from algebraformer.reporting import Outcome, Report, Verdict, conclusions, outcome
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, Recipe
from algebraformer.training.data import TEST_SEED
from studies.efficiency import measure as efficiency
from studies.efficiency.measure import MLP, PAPER, PRESETS, SMALL_MUON, TRANSFORMER, Reach
from studies.harness import flops, runs
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

# ---------------------------------------------------------------- operations, by hand


def test_operations_of_the_papers_recipe() -> None:
    """9,511,169 parameters, 64 tokens; one right-hand side each for 200 x 64 systems and 4,096 of the scaler."""
    parts = flops.flops(dataclasses.replace(RECIPES["paper"], steps=200))
    assert parts["steps"] == 6 * 9_511_169 * 64 * 12_800
    assert parts["optimiser"] == 0
    system = 2 * 64 * 66 * 64 + 2 / 3 * 64**3 + 2 * 64**2
    assert parts["systems"] == pytest.approx((12_800 + 4_096) * system)
    assert set(parts) == {"steps", "optimiser", "systems"}


def test_operations_of_muon() -> None:
    """Four blocks of width 96: query, key, value and out are 96 x 96, the perceptron 96 x 384 twice."""
    square, wide = 5 * (4 + 2) * 96**3, 5 * (4 * 96**2 * 384 + 2 * 96**3)
    step = 4 * (4 * square + 2 * wide)
    parts = flops.flops(dataclasses.replace(RECIPES["diffusion-64-token"], steps=7))
    assert parts["optimiser"] == 7 * step
    adamw = dataclasses.replace(RECIPES["diffusion-64-token"], steps=7, optimizer="adamw")
    assert flops.flops(adamw) == parts | {"optimiser": 0}


OPERATOR = next(method for method in PRESETS["quick"].methods if method.name == MLP).recipe


def test_operations_of_an_operator_head() -> None:
    """n = 16, 24 components, 8 x 8 entries, two blocks of width 32, whose states are all read: 64 features and one."""
    parts = flops.flops(dataclasses.replace(OPERATOR, steps=10, samples=1_000))
    n, R, w = 16, 24, 65
    blocks = 2 * (2 * 32 + 2 * (32 * 32 + 32))
    body, head = 64 * 32 + 32 + blocks, 64 * R + R
    assert parts["steps"] == 6 * (body + head) * 10 * OPERATOR.batch_size
    assert parts["optimiser"] == 10 * 4 * 5 * (6 * 32**3)
    assembly, inverse = 2 * n * (n + 2) * n, 2 / 3 * n**3 + 2 * n**3
    assert parts["systems"] == pytest.approx(1_000 * (assembly + inverse + 2 * R * n**2))
    normal_equations = 1_000 * (2 * w**2 + 2 * w * R) + w**3 / 3 + 2 * w**2 * R
    assert parts["read-out"] == pytest.approx(1_000 * 2 * body + normal_equations)
    solved = assembly + 2 / 3 * n**3 + 2 * n**2
    answer = 2 * body + 2 * head + 2 * (1 + R) * n**2 + 8 * n**2
    assert parts["calibration"] == pytest.approx(OPERATOR.calibration_samples * (solved + answer))


def test_operations_without_a_fixed_set_count_what_the_read_out_is_fitted_on() -> None:
    def systems(recipe: Recipe) -> float:
        return flops.flops(recipe)["systems"]

    fresh = dataclasses.replace(OPERATOR, steps=10, batch_size=8, samples=None)
    fixed = dataclasses.replace(OPERATOR, samples=80 + 2**16)
    assert systems(fresh) == pytest.approx(systems(fixed))


def test_operations_of_a_basis() -> None:
    """More snapshots than entries: both Gram matrices are 256 x 256. Fewer: they are 100 x 100.

    Sixteen for every component, unless memory allows fewer. Columns and rows are chosen on 1,024 at most.
    """
    n, R, P = 16, 100, 1_600
    common = (2 * P + 1_024) * (2 * n**2 * (n + 2)) + P * (8 / 3 * n**3) + 2 * P * R * n**2
    pivoting = 2 * (2 * 32 * n**3 - 2 / 3 * n**3)
    expected = common + 2 * (P + 1_024) * 256 * 256 + 2 * 14 / 3 * 256**3 + pivoting
    assert flops.basis_flops(get("diffusion", n=n), R, 4096) == pytest.approx(expected)
    R = 24
    common = 3 * 100 * (2 * n**2 * (n + 2)) + 100 * (8 / 3 * n**3) + 2 * 100 * R * n**2
    spectra = 2 * (2 * 100 * 256 * 100 + 14 / 3 * 100**3) + 2 * 100 * 256 * (32 + R)
    assert flops.basis_flops(get("diffusion", n=n), R, 100) == pytest.approx(common + spectra + pivoting)


# ---------------------------------------------------------------- where a curve gets to


def test_a_power_law_is_interpolated_exactly() -> None:
    """score = (f / 1e9)^-1.5 reaches t at 1e9 t^(-2/3), wherever the points lie."""
    points = [(f, (f / 1e9) ** -1.5) for f in (3e13, 1e9, 7e10, 2e12)]
    for target in (0.5, 1e-2, 1e-4):
        found = efficiency.reach(points, target)
        assert found.kind == "="
        assert found.flops == pytest.approx(1e9 * target ** (-2 / 3), rel=1e-12)


def test_nothing_is_extrapolated() -> None:
    points = [(1e10, 5e-3), (1e12, 2e-3)]
    assert efficiency.reach(points, 1e-3) == Reach(1e12, ">")
    assert efficiency.reach(points, 1e-2) == Reach(1e10, "<")
    assert str(efficiency.reach(points, 1e-3)) == "not reached: > 1e+12"
    assert str(efficiency.reach(points, 1e-2)) == "at most 1e+10"
    assert efficiency.reach([(1.0, math.inf), (2.0, 1e-3)], 1e-2) == Reach(2.0, "<")
    assert efficiency.reach([(1.0, math.inf)], 1e-2) == Reach(1.0, ">")


def test_the_first_crossing_counts() -> None:
    assert efficiency.reach([(1.0, 1.0), (10.0, 0.01), (100.0, 0.5), (1000.0, 0.001)], 0.01) == Reach(
        pytest.approx(10.0),  # type: ignore[arg-type]
        "=",
    )


def test_median_over_seeds_puts_what_is_not_reached_last() -> None:
    assert efficiency.median([Reach(9.0, ">"), Reach(5.0, "="), Reach(2.0, "<")]) == Reach(5.0, "=")
    assert efficiency.median([Reach(9.0, ">"), Reach(5.0, "="), Reach(9.0, ">")]) == Reach(9.0, ">")


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("=", "=", (4.0, "=")),
        (">", "=", (4.0, ">")),
        (">", "<", (4.0, ">")),
        ("=", "<", (4.0, ">")),
        ("<", "=", (4.0, "<")),
        ("=", ">", (4.0, "<")),
        ("<", ">", (4.0, "<")),
        (">", ">", (None, "")),
        ("<", "<", (None, "")),
    ],
)
def test_a_ratio_of_bounds_is_a_bound(theirs: Any, ours: Any, expected: tuple[float | None, str]) -> None:
    assert efficiency.ratio(Reach(8.0, theirs), Reach(2.0, ours)) == expected


@pytest.mark.parametrize(
    ("paper", "ours", "verdict", "ratio", "kind"),
    [
        (Reach(2e14, ">"), Reach(1e12, "="), Verdict.MET, 200, ">"),
        (Reach(2e13, "="), Reach(1e12, "="), Verdict.MISSED, 20, "="),
        (Reach(2e13, ">"), Reach(1e12, "="), Verdict.INCONCLUSIVE, 20, ">"),
        (Reach(2e13, ">"), Reach(1e12, ">"), Verdict.INCONCLUSIVE, None, ""),
    ],
)
def test_outcomes_follow_from_the_numbers(
    paper: Reach, ours: Reach, verdict: Verdict, ratio: float | None, kind: str
) -> None:
    parts = {"steps": 1.0, "optimiser": 1.0, "basis": 2.0}
    made = [{"method": name, "flops": 4.0, "parts": parts} for name in (TRANSFORMER, MLP)]
    curves = {PAPER: [paper] * 3, TRANSFORMER: [Reach(9e13, ">")] * 3, MLP: [ours] * 3}
    reached = {name: [dataclasses.asdict(one) for one in curve] for name, curve in curves.items()}
    data = {"runs": made, "reach": reached, "targets": list(efficiency.TARGETS), "shipped": None}
    found = efficiency.outcomes(data)
    goal = found["efficiency.goal"]
    assert (goal.verdict, goal.numbers["ratio"], goal.numbers["kind"]) == (verdict, ratio, kind)
    assert found[f"efficiency.reach/{PAPER}"].numbers["1e-03"] == paper.flops
    assert found[f"efficiency.offline/{MLP}"].numbers == {"method": MLP, "share": 0.5, "flops": 4.0, "basis": 2.0}
    assert len(conclusions(found, efficiency.SENTENCES)) == len(found) == 6


def test_sentences() -> None:
    found = outcome(Verdict.MET, best=MLP, ratio=200.0, kind=">", target=50.0, normalized_mse=1e-3)
    assert conclusions({"efficiency.goal": found}, efficiency.SENTENCES) == [
        "To a normalized_mse of 1e-03 the operator head, MLP, takes at least 2e+02 times fewer operations than the "
        "paper's recipe; target 50, met."
    ]
    found = Outcome(
        Verdict.MEASURED, {"method": MLP, "1e-02": 1e12, "1e-02 kind": "<", "1e-03": 2e12, "1e-03 kind": ">"}
    )
    assert conclusions({"efficiency.reach/x": found}, efficiency.SENTENCES) == [
        f"{MLP}: operations to a normalized_mse of 1e-02 at most 1e+12; 1e-03 not reached: > 2e+12."
    ]


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """The quick preset with smaller samples around the training."""
    folder = tmp_path_factory.mktemp("efficiency")
    return run_study(load_study("efficiency"), "quick", folder, Progress(disable=True)), folder


def test_every_run_is_scored_on_the_frozen_test_set(quick: tuple[Report, Path]) -> None:
    result, folder = quick
    assert len(result.data["runs"]) == 10
    systems = get("diffusion", n=16).sample(1_000, TEST_SEED)
    for run in result.data["runs"][::3]:
        name = f"{run['method'].replace(',', '').replace(' ', '-')}-{run['steps']}-seed0"
        solver = LearnedSolver.from_pretrained(folder / name)
        x = np.stack([solver.predict(A, b) for A, b in zip(systems.A[:50], systems.b[:50], strict=True)])
        assert np.isfinite(x).all()
        assert score(solver.network, systems)["normalized_mse"] == pytest.approx(run["normalized_mse"], rel=1e-3)
        assert solver.info.recipe["steps"] == run["steps"]
        last = json.loads((folder / name / "log.jsonl").read_text().splitlines()[-2])
        assert last["training_flops"] == run["parts"]["steps"]
        assert last["lr"] < 0.05 * solver.info.recipe["lr"] or run["steps"] < 10, "the schedule was run to its end"
        assert run["flops"] == pytest.approx(sum(run["parts"].values()))


def test_longer_runs_are_better(quick: tuple[Report, Path]) -> None:
    runs = quick[0].data["runs"]
    for name in (PAPER, SMALL_MUON, TRANSFORMER, MLP):
        short, long = (run["normalized_mse"] for run in runs if run["method"] == name)
        assert long < short


def test_finished_runs_are_not_run_again(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    result, folder = quick
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    again = run_study(load_study("efficiency"), "quick", folder, Progress(disable=True))
    assert again.data == result.data


def test_a_run_of_another_recipe_is_not_taken_for_this_one(quick: tuple[Report, Path]) -> None:
    folder = quick[1] / "paper's-recipe-5-seed0"
    recipe = PRESETS["quick"].methods[0].recipes(0)[0]
    with pytest.raises(ConfigurationError, match="another recipe"):
        runs.run_once(dataclasses.replace(recipe, lr=1e-5), folder)


def test_figure_and_tables(quick: tuple[Report, Path], tmp_path: Path) -> None:
    assert_tables_and_figure("efficiency", quick[0], tmp_path)


def test_presets_take_the_named_recipes() -> None:
    for preset in ("cpu", "paper"):
        by_name = {method.name: method for method in PRESETS[preset].methods}
        for name, recipe in ((PAPER, "paper"), (SMALL_MUON, "diffusion-64-token"), (MLP, "diffusion-64-mlp")):
            for made in by_name[name].recipes(seed=2):
                assert (
                    dataclasses.replace(made, steps=RECIPES[recipe].steps, samples=RECIPES[recipe].samples, seed=0)
                    == (RECIPES[recipe])
                )
