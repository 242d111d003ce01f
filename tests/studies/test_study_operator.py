"""The study of the operator head: its numbers recomputed in other ways, its sentences on made-up records."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import mpmath
import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.reporting import Verdict, conclusions
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.baselines.methods import (
    KERNEL,
    LAPACK,
    MEAN,
    MLP,
    NEAREST,
    PROJECTED,
    REDUCED,
    RIDGE,
    SCALED,
    SNAPSHOTS,
    TRANSFORMER,
    draw,
)
from studies.harness.study import load_study, run_study
from studies.operator import measure as operator
from studies.operator import report
from study_results import assert_tables_and_figure

PLAN = operator.PRESETS["quick"]
ALL = {TRANSFORMER, MLP, RIDGE, KERNEL, PROJECTED, SNAPSHOTS, NEAREST, MEAN, SCALED, REDUCED, LAPACK}
FOLDERS = {TRANSFORMER: "diffusion-transformer", MLP: "diffusion-mlp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def result(folder):
    return run_study(load_study("operator"), "quick", folder, Progress(disable=True))


@pytest.fixture(scope="module")
def record(result):
    (record,) = result.data["records"]
    return record


@pytest.fixture(scope="module")
def solvers(result, folder):
    return {name: LearnedSolver.from_pretrained(folder / sub) for name, sub in FOLDERS.items()}


@pytest.fixture(scope="module")
def systems(solvers):
    return solvers[MLP].info.problem_family().sample(PLAN.systems, TEST_SEED)


def test_every_method_is_measured(record):
    assert set(record["methods"]) == ALL
    for name, method in record["methods"].items():
        assert set(method["seconds"]) == {"1", "64"}
        assert all(value > 0 for value in method["seconds"].values())
        assert method["accelerated"]["systems"] == PLAN.systems
        assert sum(method["accelerated"]["needed"]) == round(method["accelerated"]["certified"] * PLAN.systems)
        if name != LAPACK:
            assert 0 < method["normalized_mse"] < 1
            assert method["relative_error_median"] <= method["relative_error_max"]
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize("name", [TRANSFORMER, MLP])
def test_networks_against_the_solver(record, solvers, systems, name):
    """The solver's own answers, refinements and operator give the same numbers."""
    solver, found = solvers[name], record["methods"][name]
    x = solver.predict(systems.A, systems.b)
    assert found["normalized_mse"] == pytest.approx(np.sum((x - systems.x) ** 2) / np.sum(systems.x**2), rel=1e-6)
    errors = np.linalg.norm(x - systems.x, axis=1) / np.linalg.norm(systems.x, axis=1)
    assert found["relative_error_median"] == pytest.approx(np.median(errors), rel=1e-6)
    radii = [
        np.abs(np.linalg.eigvals(np.eye(16) - solver.operator(A).matmat(np.eye(16)) @ A)).max()
        for A in systems.A[: PLAN.contractions]
    ]
    assert found["contraction_median"] == pytest.approx(np.median(radii), rel=1e-3)
    assert found["contraction_max"] == pytest.approx(np.max(radii), rel=1e-3)
    answer = solver.solve(systems.A, systems.b, max_refinements=60, fallback=False)
    stable = answer.backward_error <= 16 * np.finfo(float).eps  # certified, were it in distribution
    assert found["accelerated"]["certified"] == np.mean(stable) > 0
    assert found["accelerated"]["needed"] == np.bincount(answer.refinements[stable]).tolist()


def test_mean_inverse_by_numpy(record, solvers, systems):
    found, mean = record["methods"][MEAN], solvers[MLP].model.operator_head.basis.A_mean
    radii = [
        np.abs(np.linalg.eigvals(np.eye(16) - np.linalg.solve(mean, A))).max() for A in systems.A[: PLAN.contractions]
    ]
    assert found["contraction_median"] == pytest.approx(np.median(radii), rel=1e-6)
    x = np.linalg.solve(mean, systems.b.T).T
    assert found["normalized_mse"] == pytest.approx(np.sum((x - systems.x) ** 2) / np.sum(systems.x**2), rel=1e-6)


def test_methods_stand_in_the_order_they_must(record):
    """Projection sees all of A where others see some entries; learning beats the mean; acceleration saves steps."""
    rho = {name: method["contraction_median"] for name, method in record["methods"].items() if "plain" in method}
    assert rho[PROJECTED] == min(rho[name] for name in (PROJECTED, RIDGE, TRANSFORMER, MLP, NEAREST, MEAN))
    assert rho[MEAN] == max(rho.values())
    for method in record["methods"].values():
        assert method["accelerated"]["certified"] == 1  # n = 16: even the mean's inverse gets there
        assert method["forward_error_exact"] < 1e-9
    for name, method in record["methods"].items():
        if plain := method.get("plain"):
            assert (plain["certified"] >= 0.9) == (name not in (MEAN, SCALED))  # MEAN leaves 0.87 of the worst errors
            assert sum(plain["needed"]) == round(plain["certified"] * PLAN.systems)
            assert len(method["accelerated"]["needed"]) <= len(plain["needed"])


def test_curve_ends_at_the_level_of_lapack(record):
    curve = record["curve"]
    assert record["methods"][curve["method"]]["normalized_mse"] == min(
        record["methods"][name]["normalized_mse"] for name in FOLDERS
    )
    last = curve["accelerated"]
    assert last["backward_error"][-1] < 2e-15
    assert last["relative_error"][-1] < 100 * curve["LAPACK"]["relative_error"]
    assert last["relative_error"][2] < last["relative_error"][0] / 10
    for way in ("plain", "accelerated"):
        assert len(curve[way]["relative_error"]) == operator.CURVE + 1


def test_sample_is_the_familys(solvers):
    """Solutions, coefficients and inverses of the baselines' sample, against the family's own and NumPy's."""
    solver = solvers[MLP]
    family, basis = solver.info.problem_family(), solver.model.operator_head.basis
    sample, systems = draw(family, basis, 300, seed=4), family.sample(300, seed=4)
    np.testing.assert_allclose(sample.x, systems.x, rtol=1e-8, atol=1e-11)
    s = basis.sampler(systems.A)[1]
    T = np.linalg.inv(systems.A / s[:, None, None]) @ basis.A_mean
    np.testing.assert_allclose(sample.T, T, rtol=1e-4, atol=1e-5)
    z, c, weight = basis.coefficients(systems.A)
    np.testing.assert_allclose(sample.c, c, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sample.weight, weight, rtol=1e-9)
    np.testing.assert_allclose(sample.z, z.reshape(300, -1), rtol=1e-4, atol=1e-5)


def test_exact_solution_has_all_digits():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((10, 10)) * np.geomspace(1, 1e9, 10), rng.standard_normal(10)
    with mpmath.workdps(60):
        oracle = mpmath.lu_solve(mpmath.matrix(A.tolist()), mpmath.matrix(b.tolist()))
        assert operator.exact_solution(A, b).tolist() == [float(value) for value in oracle]


# ---------------------------------------------------------------- stopping and going on


def test_a_measured_family_is_not_measured_again(result, folder, monkeypatch):
    monkeypatch.setattr(operator, "measure", lambda *_: pytest.fail("measured again"))
    again = run_study(load_study("operator"), "quick", folder, Progress(disable=True))
    assert again.data == result.data
    assert again.outcomes == result.outcomes


def test_another_plan_is_measured_again(result, record, folder, monkeypatch):
    kept = (folder / "diffusion.json").read_text()
    monkeypatch.setattr(operator, "measure", lambda *_: {**record, "systems": 61})
    other = operator.run(dataclasses.replace(PLAN, systems=61), folder, Progress(disable=True))
    assert other.data["records"][0]["systems"] == 61
    (folder / "diffusion.json").write_text(kept)


@pytest.mark.parametrize(("plain", "other"), [("mlp", "transformer"), ("transformer", "mlp")])
def test_shipped_networks_go_by_their_names(solvers, monkeypatch, tmp_path, plain, other):
    by_architecture = {solver.network.config.architecture: solver for solver in solvers.values()}
    old, new = by_architecture[plain], by_architecture[other]
    old = LearnedSolver(old.model, dataclasses.replace(old.info, seconds=None))  # as older checkpoints
    asked = {"diffusion-16": old, f"diffusion-16-{other}": new}
    monkeypatch.setattr(operator.LearnedSolver, "from_pretrained", asked.__getitem__)
    (tmp_path / f"diffusion-16-{plain}").mkdir()
    (tmp_path / f"diffusion-16-{plain}" / "log.jsonl").write_text('{"seconds": 1.5}\n{"loss": 1}\n{"seconds": 2.5}\n')
    found = operator.networks(dataclasses.replace(PLAN, recipes=(), runs=tmp_path), "diffusion", tmp_path)
    assert found == [(old, 2.5), (new, new.info.seconds)]
    assert new.info.seconds > 0
    shutil.rmtree(tmp_path / f"diffusion-16-{plain}")
    assert operator.training_seconds(old, tmp_path / f"diffusion-16-{plain}") is None


# ---------------------------------------------------------------- tables and sentences


def changed(record, *, seconds=None, contraction=None, n=16):
    """A copy of the record with other times at batch 64 and contractions by method."""
    record = copy.deepcopy(record) | {"n": n}
    for name, value in (seconds or {}).items():
        record["methods"][name]["seconds"]["64"] = value
    for name, value in (contraction or {}).items():
        record["methods"][name]["contraction_median"] = value
    return record


def test_tables_hold_the_records(result, record):
    main = result.tables[0]
    rows = {row[1]: dict(zip(main.columns, row, strict=True)) for row in main.rows}
    assert set(rows) == ALL
    for name, row in rows.items():
        assert row["certified"] == record["methods"][name]["accelerated"]["certified"]
        assert row["µs per system, batch 64"] == 1e6 * record["methods"][name]["seconds"]["64"]
    assert "Targets" not in "".join(table.title for table in result.tables)  # they are for n = 64


def test_refinements_by_hand():
    found = {"systems": 200, "needed": [0, 1, 197, 0, 1], "certified": 199 / 200}
    assert report.spread(found) == "2 / 2 / 4"
    assert report.share_within(found, 2) == 198 / 200
    assert report.share_within(found, 1) == 1 / 200
    assert report.spread({"systems": 3, "needed": [], "certified": 0.0}) is None


def test_who_is_worth_it(record):
    slow = changed(record, seconds=dict.fromkeys(ALL, 0.001) | {LAPACK: 1e-5})
    found = report.worth(slow)
    assert found.verdict == Verdict.NOT_WORTH_IT
    assert (found.numbers["baseline"], found.numbers["baseline_seconds"]) == (LAPACK, 1e-5)
    assert (found.numbers["seconds"], found.numbers["n"], found.numbers["batch"]) == (1e-3, 16, 64)
    second = report.worth(changed(slow, seconds={MLP: 1e-4}))
    assert (second.verdict, second.numbers["without_factorisation"]) == (Verdict.NOT_WORTH_IT, MLP)
    third = report.worth(changed(slow, seconds={MLP: 1e-4, NEAREST: 2e-5}))
    assert third.numbers["without_factorisation"] == NEAREST
    fast = changed(record, seconds=dict.fromkeys(ALL, 0.001) | {MLP: 1e-5})
    assert report.worth(fast).verdict == Verdict.WORTH_IT
    both = report.outcomes({"records": [fast, slow | {"family": "other"}]})
    assert both["operator.worth-it/diffusion"].verdict == Verdict.WORTH_IT
    assert both["operator.worth-it/other"].verdict == Verdict.NOT_WORTH_IT
    tie = changed(record, seconds=dict.fromkeys(ALL, 0.001) | {MLP: 0.97e-3})
    assert report.worth(tie).verdict == Verdict.NOT_WORTH_IT


def test_a_baseline_that_certifies_too_few_does_not_count(record):
    fast = changed(record, seconds=dict.fromkeys(ALL, 0.001) | {MLP: 1e-5, NEAREST: 1e-6})
    assert report.worth(fast).verdict == Verdict.NOT_WORTH_IT
    fast["methods"][NEAREST]["accelerated"]["certified"] = 0.5
    assert report.worth(fast).verdict == Verdict.WORTH_IT


@pytest.mark.parametrize(
    ("seconds", "contraction", "earned"),
    [((1e-4, 1e-4), (1e-3, 1e-2), True), ((1e-4, 1e-4), (1e-2, 1e-3), False), ((1e-4, 2e-4), (1e-2, 1e-3), True),
     ((2e-4, 1e-4), (1e-2, 1e-3), False), ((2e-4, 1e-4), (1e-3, 1e-2), True)],
)  # fmt: skip
def test_a_place_is_earned_unless_dominated(record, seconds, contraction, earned):
    case = changed(
        record,
        seconds=dict(zip((TRANSFORMER, MLP), seconds, strict=True)),
        contraction=dict(zip((TRANSFORMER, MLP), contraction, strict=True)),
    )
    found = report.better_than(case, TRANSFORMER, MLP)
    assert found.verdict == (Verdict.HOLDS if earned else Verdict.FAILS)
    assert (found.numbers["contraction"], found.numbers["other_contraction"]) == contraction
    assert (found.numbers["seconds"], found.numbers["other_seconds"]) == seconds


def test_a_classical_win_is_found(record):
    times = dict.fromkeys(ALL, 0.001)
    case = changed(record, seconds=times | {MLP: 1e-5}, contraction={MLP: 1e-9})
    case["methods"][REDUCED]["normalized_mse"] = 0.5
    assert report.best(case).verdict == Verdict.HOLDS
    case = changed(record, seconds=times | {LAPACK: 1e-5}, contraction={PROJECTED: 1e-9})
    found = report.best(case)
    assert found.verdict == Verdict.PARTLY
    assert (found.numbers["smallest_contraction"], found.numbers["fastest"]) == (PROJECTED, LAPACK)
    case["methods"][REDUCED]["normalized_mse"] = 1e-30
    assert report.best(case).numbers["most_accurate"] == REDUCED


def test_a_smooth_family_has_a_short_basis(record):
    for contraction, verdict in ((0.05, Verdict.HOLDS), (0.5, Verdict.FAILS)):
        found = report.smooth(changed(record, contraction={PROJECTED: contraction}))
        assert (found.verdict, found.numbers["contraction"]) == (verdict, contraction)
        assert found.numbers["rank"] == record["rank"]


def test_sentences(record):
    case = changed(
        record,
        seconds=dict.fromkeys(ALL, 0.001) | {LAPACK: 1e-5, MLP: 1e-4},
        contraction={TRANSFORMER: 1e-3, MLP: 1e-2},
    )
    found = report.outcomes({"records": [case]})
    lines = conclusions(found, report.SENTENCES)
    assert len(lines) == len(found)
    assert lines[0] == (
        f"diffusion, n = 16, 64 systems per call: the learned solver is not worth it; certified with the {MLP} in "
        f"100 µs per system, with {LAPACK} in 10 µs. Without a factorisation, the network is the fastest."
    )
    assert lines[1].startswith(
        f"diffusion: {TRANSFORMER} is not dominated by {MLP} in contraction and time (1.0e-03 and "
    )


def test_targets(record):
    network = record["curve"]["method"]
    case = changed(record, contraction={network: 1e-3}, n=64)
    case["methods"][network] |= {
        "normalized_mse": 2e-7, "forward_error": 1e-10, "forward_error_exact": 1e-8,
        "accelerated": {"systems": 4, "needed": [0, 0, 0, 2, 2], "certified": 1.0},
    }  # fmt: skip
    rows = report.targets([case]).rows
    assert [row[-1] for row in rows] == [False, True, True, False, True]
    found = report.outcomes({"records": [case]})["operator.targets"]
    assert (found.verdict, found.numbers["met"], found.numbers["targets"]) == (Verdict.MISSED, 3, 5)
    case["methods"][network]["accelerated"]["needed"] = [0, 0, 0, 2, 1, 1]
    assert report.targets([case]).rows[-1][-2:] == [0.75, False]


def test_every_question_has_an_outcome(result):
    assert result.outcomes == report.outcomes(json.loads(json.dumps(result.data)))
    kinds = {key.partition("/")[0] for key in result.outcomes}
    assert kinds == {f"operator.{kind}" for kind in ("worth-it", "better", "smooth", "best")}


def test_figure_is_drawn_from_plain_data(result, tmp_path):
    assert_tables_and_figure("operator", result, tmp_path)
    data = json.loads(json.dumps(result.data))
    left, right = load_study("operator").figure(data).axes
    assert left.get_title() == "diffusion, n = 16"
    drawn = {line.get_label(): line for line in left.get_lines()}
    assert set(drawn) == ALL
    ridge = data["records"][0]["methods"][RIDGE]
    assert drawn[RIDGE].get_ydata()[0] == ridge["contraction_median"]
    assert len(right.get_lines()) == 6
