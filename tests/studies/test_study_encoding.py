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
from algebraformer.reporting import Report, Verdict, conclusions
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


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    ("column", "entry", "verdict"),
    [
        (1.5, 3.7, Verdict.REPRODUCED),
        (2.4, 4.3, Verdict.REPRODUCED),
        (1.0, 3.9, Verdict.REPRODUCED),
        (1.0, 2.0, Verdict.NOT_REPRODUCED),
        (2.6, 4.0, Verdict.NOT_REPRODUCED),
    ],
)
def test_exponents_of_the_memory(column: float, entry: float, verdict: Verdict) -> None:
    assert study.claim(column, entry) == verdict


def made_up(values: dict[str, list[float]], again: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Runs with these scores by encoding, at equal compute and at equal systems."""
    common = {"chosen": True, "steps": 10, "batch_size": 4, "flops": 1e12, "parameters": 1_000}
    made = [
        {"series": series, "encoding": name, "seed": seed, "normalized_mse": value, **common}
        for series, table in ((COMPUTE, values), (SYSTEMS, again))
        for name, scores in table.items()
        for seed, value in enumerate(scores)
    ]
    return [*made, {**made[0], "chosen": False, "normalized_mse": 1e-9}]  # a rate that was not chosen


ROWS = {"row": [0.2, 0.3], "column-b": [0.002, 0.003]}


INFINITE = float("inf")


@pytest.mark.parametrize(
    ("column", "entry", "verdict", "side", "times"),
    [
        ([0.02, 0.03], [0.2, 0.3], Verdict.SMALLER_SCALE, "lower", 10),
        ([0.02, 0.3], [0.2, 0.3], Verdict.SMALLER_SCALE, "as high", 1.5625),
        ([0.2, 0.3], [0.02, 0.03], Verdict.NOT_REPRODUCED, "higher", 10),
        ([0.9, 1.0], [0.02, 0.03], Verdict.INCONCLUSIVE, "higher", 38),
        ([INFINITE, INFINITE], [0.02, 0.03], Verdict.INCONCLUSIVE, "higher", INFINITE),
    ],
)
def test_outcomes_follow_from_the_scores(
    column: list[float], entry: list[float], verdict: Verdict, side: str, times: float
) -> None:
    data = made_up_data(made_up({"column": column, "entry": entry, **ROWS}, {"column": [0.5, 0.6], **ROWS}))
    found = study.outcomes(data)
    main, again = found["encoding.columns-suffice"], found["encoding.equal-systems"]
    assert (main.verdict, main.numbers["side"], main.numbers["n"]) == (verdict, side, 16)
    assert main.numbers["times"] == pytest.approx(times)
    assert (again.numbers["systems"], again.numbers["mean"]) == (40, pytest.approx(0.55))
    assert found["encoding.memory/math"].verdict == Verdict.REPRODUCED
    assert found["encoding.memory/default"].verdict == Verdict.NOT_REPRODUCED
    for kernel in memory.KERNELS:
        for what in ("memory", "time"):
            numbers = found[f"encoding.{what}/{kernel}"].numbers
            assert (numbers["n"], numbers["ratio"], numbers["column"]) == (8, 7, 1.9)
    assert len(conclusions(found, study.SENTENCES)) == len(found)


def made_up_data(runs: list[dict[str, Any]]) -> dict[str, Any]:
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
    return {"n": 16, "runs": runs, "records": records, "fits": fits}


def test_the_papers_size_is_no_smaller_scale() -> None:
    runs = [
        run | {"parameters": 9_500_000}
        for run in made_up({"column": [0.1], "entry": [0.2], **ROWS}, {"column": [0.5], **ROWS})
    ]
    found = study.outcomes(made_up_data(runs))
    assert found["encoding.columns-suffice"].verdict == Verdict.REPRODUCED
    lines = conclusions(found, study.SENTENCES)
    assert lines[0] == (
        '"Column-wise representation preserves sufficient information": reproduced. With 1e+12 operations of training '
        "each, at n = 16, the normalized_mse of column tokens is 0.1, that of entry tokens 0.2: 2 times lower."
    )
    assert lines[4].startswith('Memory, "n^2 instead of n^4", attention scores not stored: not reproduced.')


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
            assert score(solver.network, systems)["normalized_mse"] == pytest.approx(one[key], rel=1e-3)


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
