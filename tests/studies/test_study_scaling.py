"""The scaling study at its smallest size, and its baselines against NumPy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.reporting import Report, Verdict, conclusions
from studies import scaling
from studies.harness import runs, timing
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure
from tests.bases import fit as fit_basis

FAMILY = problems.get("diffusion", n=16)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("scaling"), "quick", tmp_path_factory.mktemp("scaling"), Progress(disable=True))


def test_every_method_is_timed_on_every_batch(result: Report) -> None:
    records = result.data["records"]
    assert [(r["n"], r["batch"]) for r in records] == [(8, 1), (8, 16), (16, 1), (16, 16)]
    for record in records:
        assert len(record["seconds"]) == 8
        assert all(seconds > 0 for seconds in record["seconds"].values())
        assert record["backward_error_max"] < 1e-9
        for name, error in record["error"].items():
            assert error < 1e-6, name  # all of them solve the same systems


def test_the_table_follows_from_the_times(result: Report) -> None:
    main, each, many, growth = result.tables
    for row, record in zip(main.rows, result.data["records"], strict=True):
        seconds = record["seconds"]
        lapack = min(seconds[name] for name in scaling.LAPACK)
        baselines = {name: value for name, value in seconds.items() if name != scaling.OURS}
        assert row[3] == pytest.approx(lapack / seconds[scaling.OURS])
        assert row[4] == pytest.approx(min(baselines.values()) / seconds[scaling.OURS])
        assert row[5] == min(baselines, key=lambda name: baselines[name])
    assert len(many.rows) == 2
    assert len(each.rows) == 4
    assert len(growth.rows) == 8


def made_up(n: int, batch: int, seconds: dict[str, float]) -> dict[str, object]:
    times = dict.fromkeys((*scaling.LAPACK, "float32 LU + refinement"), 1.0) | seconds
    return {"n": n, "batch": batch, "seconds": times, "by_network": 1.0, "refinements_median": 3.0}


def test_outcomes_follow_from_the_times() -> None:
    fast = "float32 LU + refinement"
    records = [
        made_up(64, 1, {scaling.OURS: 2.0}),
        made_up(64, 16, {scaling.OURS: 0.5, fast: 0.25}),
        made_up(512, 1, {scaling.OURS: 0.5}),
        made_up(512, 16, {scaling.OURS: 0.25, fast: 0.5}),
        made_up(1024, 16, {scaling.OURS: 0.25, fast: 0.25}),
    ]
    many = [{"n": n, "seconds": {scaling.OURS: 1.0, fast: 0.5}} for n in (64, 512)]
    found = scaling.outcomes({"records": records, "many": many})
    assert {key: one.verdict for key, one in found.items()} == {
        "scaling.speed-up/n = 64": Verdict.MEASURED,
        "scaling.speed-up/n = 512": Verdict.MET,
        "scaling.speed-up/n = 1024": Verdict.MISSED,
        "scaling.many-right-hand-sides": Verdict.FAILS,
        "scaling.one-at-a-time": Verdict.PARTLY,
    }
    numbers = found["scaling.speed-up/n = 512"].numbers
    assert (numbers["batch"], numbers["over_lapack"], numbers["over_best"], numbers["best"]) == (16, 4.0, 2.0, fast)
    assert (numbers["lapack_target"], numbers["best_target"]) == (3.0, 1.0)
    assert found["scaling.one-at-a-time"].numbers == {"wins": 1, "sizes": 2, "where": "512"}
    lines = conclusions(found, scaling.SENTENCES)
    assert lines[0] == f"n = 64, batch 16: 2 times as fast as LAPACK, 0.5 times as fast as the best baseline ({fast})."
    assert lines[1].endswith("; target 3 and 1, met.")
    assert lines[3:] == [
        "One matrix with many right-hand sides: a classical method is fastest at every n.",
        "One system at a time: the network is fastest at n = 512.",
    ]


def test_tables_and_figure(result: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("scaling", result, tmp_path)


def test_a_stopped_study_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = scaling.Plan(
        recipes={8: scaling.recipe(8, 4, 128, 2, width=16)}, batches=(1,), memory=2**20, rounds=1, right_hand_sides=2
    )
    scaling.run(plan, tmp_path, Progress(disable=True))
    monkeypatch.setattr(runs, "train", None)  # whoever calls it fails
    scaling.run(plan, tmp_path, Progress(disable=True))


def test_a_network_of_another_recipe_is_not_taken(tmp_path: Path) -> None:
    recipe = scaling.recipe(8, 4, 128, 2, width=16)
    plan = scaling.Plan(recipes={8: recipe}, batches=(1,), memory=2**20, rounds=1, right_hand_sides=2)
    scaling.run(plan, tmp_path, Progress(disable=True))
    with pytest.raises(ConfigurationError, match="another recipe"):
        scaling.run(dataclasses.replace(plan, recipes={8: dataclasses.replace(recipe, lr=1e-4)}), tmp_path, Progress())


def test_exponents() -> None:
    records = [
        {"n": n, "batch": batch, "seconds": {"cubic": 1e-9 * n**3 * (2 if batch == 1 else 1)}}
        for n in (8, 16, 32)
        for batch in (1, 16)
    ]
    assert scaling.exponent(records, "cubic") == pytest.approx(3)
    assert scaling.exponent(records[:2], "cubic") is None


@pytest.mark.parametrize("name", ["dgesv", "mixed"])
def test_one_by_one(name: str) -> None:
    systems = FAMILY.sample(5, seed=1)
    way = scaling.one_by_one({"dgesv": scaling.dgesv, "mixed": scaling.mixed_precision}[name])
    for solve in (way, scaling.pooled(way)):
        np.testing.assert_allclose(solve(systems.A, systems.b), systems.x, rtol=1e-8, atol=1e-10)


def test_float32_lu_is_refined_to_float64() -> None:
    systems = problems.get("diffusion", n=64).sample(4, seed=2)
    for A, b, x in zip(systems.A, systems.b, systems.x, strict=True):
        coarse = np.linalg.solve(A.astype(np.float32), b.astype(np.float32))
        fine = scaling.mixed_precision(A, b)
        assert np.linalg.norm(fine - x) < 1e-9 * np.linalg.norm(x)
        assert np.linalg.norm(fine - x) < 1e-3 * np.linalg.norm(coarse - x)


def test_batches_fit_into_memory() -> None:
    plan = scaling.PRESETS["cpu"]
    for n in plan.recipes:
        for batch in scaling.batch_sizes(n, plan):
            assert batch == 1 or 8 * n * n * batch <= plan.memory
    assert scaling.batch_sizes(64, plan) == [1, 16, 4096]


def test_mean_inverse_baseline_meets_the_tolerance() -> None:
    basis = fit_basis(FAMILY, 4, 4, 4, seed=0, count=64)
    systems = FAMILY.sample(6, seed=3)
    mean = MeanInverse(basis.inverse)
    x = scaling.refined(lambda A: mean)(systems.A, systems.b)
    np.testing.assert_allclose(x, systems.x, rtol=1e-7, atol=1e-9)


def test_calls_take_turns_of_a_least_length() -> None:
    """By a clock that ticks with the calls: a takes 1 s, b takes 3 s and more in the round that warms up."""
    now, order = [0.0], []

    def call(name: str, seconds: float) -> None:
        now[0] += seconds if name in order else 100.0
        order.append(name)

    calls = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 3.0)}
    found = timing.in_turn(calls, 3, clock=lambda: now[0], least=4.5)
    assert found == {"a": 1.0, "b": 3.0}
    assert order == ["a", "b", *(["a"] * 5 + ["b"] * 2) * 3]


def test_values_are_computed_once_and_anew_for_other_settings(tmp_path: Path) -> None:
    calls: list[int] = []
    path, compute = tmp_path / "deeper" / "found.json", lambda: calls.append(1) or len(calls)
    assert [runs.computed_once(path, {"n": (1, 2)}, compute) for _ in range(2)] == [1, 1]
    assert runs.computed_once(path, {"n": (1, 3)}, compute) == 2
    with pytest.raises(ValueError, match="JSON"):
        runs.computed_once(path, {"n": 4}, lambda: float("nan"))
    assert runs.computed_once(path, {"n": (1, 3)}, compute) == 2  # what was there is whole
    path.write_text('{"plan": 1, "errors": []}')  # of another form
    assert runs.computed_once(path, {"n": (1, 3)}, compute) == 3
