"""The scaling study at its smallest size, its outcomes on made-up records, and its trainings."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.reporting import Report, Verdict, conclusions
from algebraformer.rivals import POOL, Rival
from algebraformer.rivals.direct import numpy_lu
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED
from studies.harness import runs, timing
from studies.harness.study import load_study, run_study
from studies.scaling import measure, report
from studies.scaling.plan import PRESETS, SETTINGS, TRAININGS, Training, batch_sizes, recipes
from study_results import assert_tables_and_figure

FAMILY = problems.get("diffusion", n=16)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("scaling"), "quick", tmp_path_factory.mktemp("scaling"), Progress(disable=True))


def test_every_method_is_timed_on_every_batch(result: Report) -> None:
    records = result.data["records"]
    sizes = [("diffusion", 8), ("diffusion", 16), ("diffusion-2d", 9), ("diffusion-2d", 16)]
    found = [(r["family"], r["n"], r["batch"]) for r in records]
    assert found == [(family, n, batch) for family, n in sizes for batch in (1, 16)]
    for record in records:
        expected = {"dgesv", "float32 LU + refinement", "scaled mean inverse + conjugate residuals"}
        expected |= {f"{name} + conjugate residuals" for name in ("kernel ridge", "Zahm-Nouy snapshots")}
        names = set(record["seconds"])
        assert {report.OURS} | expected | {f"{name}, pool" for name in expected} <= names
        assert record["quartiles"].keys() == record["error"].keys() == names
        for name, seconds in record["seconds"].items():
            low, high = record["quartiles"][name]
            assert 0 < low <= seconds <= high
        assert 0 < record["pass"] < record["seconds"]["mean inverse + conjugate residuals"]
        assert record["backward_error_max"] < 1e-9
        for name, error in record["error"].items():
            assert error < 1e-6, name  # all of them solve the same systems
        assert record["excluded"] == {}
        assert 0 <= record["by_network"] <= 1


def test_the_table_follows_from_the_times(result: Report) -> None:
    main, every, sizes, errors, many, in_order = result.tables
    for row, record in zip(main.rows, result.data["records"], strict=True):
        seconds = record["seconds"]
        lapack = min(t for name, t in seconds.items() if name.startswith(("numpy.", "scipy.", "dgesv")))
        others = {name: value for name, value in seconds.items() if name != report.OURS}
        cells = dict(zip(main.columns, row, strict=True))
        assert cells["ours, µs per system"] == pytest.approx(1e6 * seconds[report.OURS])
        assert cells["LAPACK / ours"] == pytest.approx(lapack / seconds[report.OURS])
        assert cells["best rival / ours"] == pytest.approx(min(others.values()) / seconds[report.OURS])
        assert cells["best rival"] == min(others, key=lambda name: others[name])
        assert cells["ours / one pass"] == pytest.approx(seconds[report.OURS] / record["pass"])
    assert len(every.rows) == 8
    assert [row[:3] for row in sizes.rows] == [[8, 1, 2], [8, "large", 2], [16, 1, 2], [16, "large", 2]]
    assert len(errors.rows) == len(many.rows) == 4
    assert [row[:3] for row in in_order.rows] == [["stiff-jacobian", 16, 10]]


def test_share_solved_is_counted_on_other_systems_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = runs.run_once(tiny(("diffusion", 16))["diffusion", 16], tmp_path / "run").solver
    systems = FAMILY.sample(30, TEST_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certified = solver.solve(systems.A, systems.b, fallback=False)
        share = measure.solved(solver, FAMILY, 30)
    assert share <= certified.certified.mean()
    assert 30 * share == pytest.approx(round(30 * share))


def test_one_pass_is_a_product() -> None:
    systems = FAMILY.sample(5, seed=1)
    for way in measure.ONE_PASS.values():
        x = way(systems.A, systems.b)
        np.testing.assert_allclose(x, np.einsum("bij,bj->bi", systems.A, systems.b), rtol=1e-12, atol=1e-12)


def test_rivals_that_are_not_accurate_are_left_out() -> None:
    plan = dataclasses.replace(PRESETS["quick"], judged=5)
    ways = [Rival(f"{name}{end}", way) for name, way in (("LU", numpy_lu), ("b", lambda A, b: b)) for end in ("", POOL)]
    kept, excluded = measure.accurate(ways, FAMILY, plan)
    assert [way.name for way in kept] == ["LU", "LU, pool"]
    assert excluded == {"b": 0.0}


def test_hopeless_rivals_are_not_measured_in_large_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PRESETS["quick"], batches=(1, 2, 4), rounds=1)
    solver = runs.run_once(tiny(("diffusion", 16))["diffusion", 16], tmp_path / "run").solver
    slow = [Rival(name, lambda A, b: np.linalg.solve(A, b[..., None])[..., 0]) for name in ("slow", "dgesv", "fast")]
    seconds = {"slow": 10.0, "dgesv": 10.0, "fast": 1.0, report.OURS: 2.0}
    monkeypatch.setattr(measure, "contenders", lambda *_: slow)
    monkeypatch.setattr(measure, "accurate", lambda ways, *_: (ways, {}))
    monkeypatch.setattr(
        measure, "timed", lambda solver, ways, *_: {"seconds": {way.name: seconds[way.name] for way in ways}}
    )
    records = measure.measure(solver, plan)["records"]
    assert [set(r["seconds"]) for r in records] == [{"slow", "dgesv", "fast"}] * 2 + [{"dgesv", "fast"}]


def test_sequences_are_trajectories() -> None:
    A, b = measure.trajectory(16, 5)
    steps = np.linalg.norm(np.diff(A, axis=0), axis=(1, 2)) / np.linalg.norm(A[0])
    assert A.shape == (5, 16, 16)
    assert b.shape == (5, 16)
    assert steps.max() < 0.3
    assert steps.min() > 0


# ---------------------------------------------------------------- outcomes


LU = "float32 LU + refinement"


def made_up(family: str, n: int, batch: int, ours: float, best: float, solved: float = 1.0) -> dict[str, object]:
    """A record with LAPACK's time 1."""
    seconds = {"numpy.linalg.solve": 1.5, "dgesv, pool": 1.0, LU: best, report.OURS: ours}
    return {
        "family": family, "n": n, "batch": batch, "seconds": seconds, "by_network": solved, "refinements_median": 3.0,
        "pass": 0.05,
    }  # fmt: skip


def test_outcomes_are_medians_of_the_families() -> None:
    records = [
        made_up("one", 64, 1, 2.0, 1.0),
        made_up("one", 64, 16, 0.5, 0.25),
        made_up("one", 1024, 1, 0.25, 0.5),
        made_up("one", 1024, 16, 0.25, 0.5),
        made_up("one", 1024, 64, 0.1, 0.4),
        made_up("two", 1024, 1, 0.625, 0.5),
        made_up("two", 1024, 16, 0.1, 0.5),
        made_up("two", 1024, 64, 0.2, 0.4, 0.998),
        made_up("three", 1024, 64, 0.4, 0.4),
        made_up("three", 576, 200, 0.25, 0.5),
        made_up("two", 512, 250, 0.25, 0.5),
    ]
    many = [{"n": n, "seconds": {report.OURS: 1.0, LU: 0.5}} for n in (64, 512)]
    found = report.outcomes({"records": records, "many": many})
    assert {key: one.verdict for key, one in found.items()} == {
        "scaling.speed-up/n = 64": Verdict.MEASURED,
        "scaling.speed-up/n = 512": Verdict.MET,
        "scaling.speed-up/n = 1024, batch 1": Verdict.MISSED,
        "scaling.speed-up/n = 1024, batch 16": Verdict.MET,
        "scaling.speed-up/n = 1024": Verdict.MET,
        "scaling.solved": Verdict.MISSED,
        "scaling.passes": Verdict.MET,
        "scaling.many-right-hand-sides": Verdict.FAILS,
        "scaling.one-at-a-time": Verdict.PARTLY,
    }
    numbers = found["scaling.speed-up/n = 1024"].numbers
    assert (numbers["batch"], numbers["families"], numbers["best"], numbers["by_network"]) == (64, 3, LU, 0.998)
    assert (numbers["over_lapack"], numbers["over_best"]) == (5.0, 2.0)
    assert (numbers["lapack_target"], numbers["best_target"]) == (5.0, 2.0)
    alone = found["scaling.speed-up/n = 1024, batch 1"].numbers
    assert (alone["over_lapack"], alone["over_best"]) == (2.8, 1.4)
    assert found["scaling.passes"].numbers == {"n": 1024, "passes": 4.0, "target": 12.0}
    assert found["scaling.one-at-a-time"].numbers == {"wins": 1, "sizes": 2, "where": "1024"}
    assert found["scaling.solved"].numbers["least"] == 0.998
    lines = conclusions(found, report.SENTENCES)
    assert lines[0] == f"n = 64, batch 16: 2 times as fast as LAPACK, 0.5 times as fast as the best rival ({LU})."
    assert lines[1].endswith(", in the median of 2 families; target 3 and 1.5, met.")
    assert lines[-2:] == [
        "One matrix with many right-hand sides: a classical method is fastest at every n.",
        "One system at a time: the network is fastest at n = 1024.",
    ]


def test_records_of_one_family_without_a_pass_have_outcomes() -> None:
    """Those of earlier results."""
    records = [
        {k: v for k, v in made_up("", n, 16, 0.5, 0.25).items() if k not in ("family", "pass")} for n in (8, 1024)
    ]
    found = report.outcomes({"records": records, "many": []})
    assert [key for key in found if "speed-up" in key] == ["scaling.speed-up/n = 8", "scaling.speed-up/n = 1024"]
    assert not {"scaling.passes", "scaling.solved"} & set(found)


def test_tables_and_figure(result: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("scaling", result, tmp_path)


# ---------------------------------------------------------------- trainings


def tiny(*keys: tuple[str, int], lr: float = 3e-3) -> dict[tuple[str, int], Recipe]:
    """Recipes of networks that train in a second."""
    found = recipes({key: Training(4, 128, 2, width=16) for key in keys})
    return {key: dataclasses.replace(how, lr=lr) for key, how in found.items()}


def test_a_stopped_study_does_not_train_or_measure_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PRESETS["quick"], recipes=tiny(("diffusion", 8)), rounds=1, sequences={4: 3})
    first = load_study("scaling").run(plan, tmp_path, Progress(disable=True))
    monkeypatch.setattr(runs, "train", None)  # whoever calls it fails
    for name in ("measure", "sequence"):
        monkeypatch.setattr(measure, name, lambda *_: pytest.fail("measured again"))
    assert load_study("scaling").run(plan, tmp_path, Progress(disable=True)).data == first.data


def test_times_of_another_commit_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dataclasses.replace(PRESETS["quick"], recipes=tiny(("diffusion", 8)), rounds=1, sequences={})
    load_study("scaling").run(plan, tmp_path, Progress(disable=True))
    calls: list[str] = []
    monkeypatch.setattr(measure.provenance, "commit", lambda: "another")
    real = measure.measure
    monkeypatch.setattr(measure, "measure", lambda *args: calls.append("measure") or real(*args))
    load_study("scaling").run(plan, tmp_path, Progress(disable=True))
    assert calls == ["measure"]


def test_a_network_of_another_recipe_is_not_taken(tmp_path: Path) -> None:
    plan = dataclasses.replace(PRESETS["quick"], recipes=tiny(("diffusion", 8)), rounds=1, sequences={})
    study = load_study("scaling")
    study.run(plan, tmp_path, Progress(disable=True))
    with pytest.raises(ConfigurationError, match="another recipe"):
        study.run(dataclasses.replace(plan, recipes=tiny(("diffusion", 8), lr=1e-4)), tmp_path, Progress())


def test_every_family_has_a_network_of_every_size() -> None:
    sizes = {size: {f for f, n in TRAININGS if report.size_of(n) == size} for size in (64, 256, 512, 1024)}
    assert all(families == set(SETTINGS) for families in sizes.values())
    for preset in PRESETS.values():
        for (family, n), how in preset.recipes.items():
            assert (how.family, how.problem_family().n) == (family, n)


def test_batches_fit_into_memory() -> None:
    plan = PRESETS["cpu"]
    for _, n in plan.recipes:
        for batch in batch_sizes(n, plan):
            assert batch == 1 or 8 * n * n * batch <= plan.memory
    assert batch_sizes(64, plan) == [1, 16, 4096]
    assert batch_sizes(1024, plan) == [1, 16, 64]


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
