"""The study of encodings: equal costs by hand, fits and sentences on made-up numbers, the quick preset as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.metrics import score
from algebraformer.models import Algebraformer, ModelConfig, TokenConfig
from algebraformer.problems import get
from algebraformer.reporting import Report
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from studies.encoding import measure as study
from studies.encoding.measure import COMPUTE, ENCODINGS, PRESETS, SYSTEMS
from studies.harness import memory, runs
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

# ---------------------------------------------------------------- equal cost


def test_cost_of_a_training_by_hand() -> None:
    """n = 4, one block of width 8, AdamW: 16 entry tokens; scores and mixing are 2 x 2 x 16^2 x 8, three times."""
    model = ModelConfig(n=4, head=TokenConfig(encoding="entry"), n_layer=1, n_head=2, n_embd=8)
    recipe = Recipe(model=model, optimizer="adamw", steps=5, batch_size=3)
    block = 8 * 24 + 24 + 8 * 8 + 8 + 2 * 8 * 32 + 32 + 8 + 4 * 8
    parameters = 2 * 8 + 8 + 2 * 4 * 8 + block + 2 * 8 + 9
    systems = (15 + 4_096) * (2 * 16 * 6 + 2 / 3 * 64 + 2 * 16)
    assert study.cost(recipe) == pytest.approx(15 * (6 * parameters * 16 + 3 * 2 * 2 * 16**2 * 8) + systems)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_encoding_costs_the_same_and_is_as_large(preset: str) -> None:
    plan = PRESETS[preset]
    recipes = [study.equal_compute(plan, encoding) for encoding in ENCODINGS]
    for recipe in recipes:
        assert study.cost(recipe) <= plan.flops < study.cost(dataclasses.replace(recipe, steps=recipe.steps + 1))
        assert study.cost(recipe) > 0.97 * plan.flops
        assert recipe.batch_size * recipe.model.n_token == plan.tokens
    counts = [Algebraformer(recipe.model).parameter_count() for recipe in recipes]
    assert max(counts) < 1.02 * min(counts)
    entry = recipes[ENCODINGS.index("entry")]
    for encoding in ENCODINGS:
        again = study.equal_systems(plan, encoding)
        assert (again.steps, again.batch_size, again.model.head.encoding) == (entry.steps, entry.batch_size, encoding)
    assert len(plan.rates) in (2, 3)
    assert preset == "quick" or len(plan.seeds) >= 3


# ---------------------------------------------------------------- memory and time


def test_scores_are_what_the_math_kernel_adds() -> None:
    """At 144 tokens, width 8 and two heads most of the peak is scores: a few copies of those of a layer."""
    config = ModelConfig(n=12, head=TokenConfig(encoding="entry"), n_layer=1, n_head=2, n_embd=8)
    stored, default = (memory.peak_bytes(config, memory.KERNELS[kernel], 4) for kernel in ("math", "default"))
    scores = memory.score_bytes(config, 4)
    assert scores == 4 * 2 * 144**2 * 4
    assert 1 < (stored - default) / scores < 6


def test_a_pass_leaves_no_gradients_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call costs the same: gradients are not added up from call to call."""
    made = []
    monkeypatch.setattr(memory, "Algebraformer", lambda config: made.append(Algebraformer(config)) or made[-1])
    call = memory.one_pass(ModelConfig(n=4, n_layer=1, n_head=2, n_embd=8), memory.KERNELS["default"], 2)
    call()
    assert all(parameter.grad is None for parameter in made[0].parameters())


def test_exponents_are_those_of_the_three_largest_sizes() -> None:
    values = {64: 64**4.0, 4: 1e9, 8: 1e9, 32: 32**4.0, 16: 16**4.0}
    assert study.fitted(values) == {"from": 16, "to": 64, "exponent": pytest.approx(4)}


def test_what_is_too_large_is_left_out() -> None:
    plan = dataclasses.replace(PRESETS["quick"], memory=4 * 8 * 2 * 2 * 16**2, sizes=(4, 5), further=(6,), rounds=1)
    found = {(r["n"], r["encoding"], r["kernel"]) for n in (4, 5, 6) for r in study.measure(plan, n)}
    columns = {(n, "column", kernel) for n in (4, 5, 6) for kernel in memory.KERNELS}
    assert found == columns | {(4, "entry", "default"), (4, "entry", "math"), (5, "entry", "default")}


# ---------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("column", "entry", "words"),
    [
        (1.5, 3.7, "reproduced"),
        (2.4, 4.3, "reproduced"),
        (1.0, 3.9, "reproduced, column tokens stay even below n^2"),
        (1.0, 2.0, "not reproduced, entry tokens stay below n^4"),
        (2.6, 4.0, "not reproduced, column tokens exceed n^2"),
    ],
)
def test_what_becomes_of_the_exponents(column: float, entry: float, words: str) -> None:
    assert study.claim(column, entry).startswith(words)
    assert study.claim(column, entry) == words or "at these sizes" in study.claim(column, entry)


def made_up(values: dict[str, list[float]], again: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Runs with these scores by encoding, at equal compute and at equal systems."""
    common = {"chosen": True, "steps": 10, "batch_size": 4, "flops": 1e12}
    made = [
        {"series": series, "encoding": name, "seed": seed, "normalized_mse": value, **common}
        for series, table in ((COMPUTE, values), (SYSTEMS, again))
        for name, scores in table.items()
        for seed, value in enumerate(scores)
    ]
    return [*made, {**made[0], "chosen": False, "normalized_mse": 1e-9}]  # a rate that was not chosen


ROWS = {"row": [0.2, 0.3], "column-b": [0.002, 0.003]}


@pytest.mark.parametrize(
    ("column", "entry", "words"),
    [
        ([0.02, 0.03], [0.2, 0.3], ("reproduced at smaller scale", "10 times lower")),
        ([0.02, 0.3], [0.2, 0.3], ("reproduced at smaller scale", "within the spread")),
        ([0.2, 0.3], [0.02, 0.03], ("not reproduced", "10 times higher")),
        ([0.9, 1.0], [0.02, 0.03], ("not decided", "learn nothing")),
        ([float("inf"), float("inf")], [0.02, 0.03], ("not decided", "inf times higher")),
    ],
)
def test_the_verdict_follows_from_the_scores(column: list[float], entry: list[float], words: tuple[str, ...]) -> None:
    found = made_up({"column": column, "entry": entry, **ROWS}, {"column": [0.5, 0.6], **ROWS})
    fits = [
        {"encoding": name, "kernel": kernel, "what": what, "from": 4, "to": 8, "exponent": power}
        for kernel in memory.KERNELS
        for what in ("peak_bytes", "seconds")
        for name, power in (("column", 1.9), ("entry", 3.9 if kernel == "math" else 2.0))
    ]
    records = [
        {"n": n, "encoding": name, "kernel": kernel, "peak_bytes": n * size, "seconds": size}
        for n in (4, 8)
        for name, size in (("column", 1.0), ("entry", 7.0))
        for kernel in memory.KERNELS
    ]
    lines = study.verdict(PRESETS["cpu"], found, records, fits)
    assert all(word in lines[0] for word in words)
    assert "40 systems" in lines[1]
    assert "0.55" in lines[1]
    assert "stored: reproduced." in lines[4]
    assert "not stored: not reproduced" in lines[6]
    assert all("at n = 8 entry tokens take 7 times as much" in line for line in lines[4:])


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("encoding")
    return run_study(load_study("encoding"), "quick", folder, Progress(disable=True)), folder


def test_every_run_is_scored_on_both_sets(quick: tuple[Report, Path]) -> None:
    result, folder = quick
    found = result.data["runs"]
    assert len(found) == 7 * len(PRESETS["quick"].rates)
    family = get("diffusion", n=8)
    for one in found[::4]:
        name = f"{one['series'].replace(' ', '-')}-{one['encoding']}-rate{one['rate']:g}-seed{one['seed']}"
        solver = LearnedSolver.from_pretrained(folder / name)
        recipe = solver.info.recipe
        assert recipe["model"]["head"]["encoding"] == one["encoding"]
        assert (recipe["lr"], recipe["muon_lr"], recipe["steps"]) == (one["rate"], 10 * one["rate"], one["steps"])
        for systems, key in (
            (family.sample(1_000, TEST_SEED), "normalized_mse"),
            (family.sample(256, VALIDATION_SEED), "validation"),
        ):
            assert score(solver.model, systems)["normalized_mse"] == pytest.approx(one[key], rel=1e-3)


def test_the_rate_is_chosen_by_the_validation_set(quick: tuple[Report, Path]) -> None:
    found = quick[0].data["runs"]
    for series, encoding in {(one["series"], one["encoding"]) for one in found}:
        mine = [one for one in found if (one["series"], one["encoding"]) == (series, encoding)]
        (best,) = [one for one in mine if one["chosen"]]
        assert best["validation"] == min(one["validation"] for one in mine)
        assert study.scores(found, series, encoding) == [best["normalized_mse"]]


def test_entry_tokens_are_the_same_runs_in_both_tables(quick: tuple[Report, Path]) -> None:
    main, again = quick[0].tables[:2]
    assert main.rows[ENCODINGS.index("entry")] == again.rows[ENCODINGS.index("entry")]
    seen = main.columns.index("systems seen")
    assert len({row[seen] for row in again.rows}) == 1
    assert main.rows[0][seen] > 4 * again.rows[0][seen]


def test_finished_runs_are_not_run_again(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    result, folder = quick
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    again = run_study(load_study("encoding"), "quick", folder, Progress(disable=True))
    assert again.data["runs"] == result.data["runs"]
    assert [r["peak_bytes"] for r in again.data["records"]] == [r["peak_bytes"] for r in result.data["records"]]


def test_runs_of_another_length_are_not_taken_for_these(quick: tuple[Report, Path]) -> None:
    longer = dataclasses.replace(PRESETS["quick"], flops=2 * PRESETS["quick"].flops)
    with pytest.raises(ConfigurationError, match="another recipe"):
        study.run(longer, quick[1], Progress(disable=True))


def test_tables_and_figure(quick: tuple[Report, Path], tmp_path: Path) -> None:
    result, _ = quick
    assert_tables_and_figure("encoding", result, tmp_path)
    peaks = result.tables[3]
    assert peaks.rows[-1][3:] == [None, None], "entry tokens are not measured at the further sizes"
    assert np.isfinite([row[1] for row in peaks.rows]).all()
