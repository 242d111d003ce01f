"""The stress checks at a small size, and that each of them notices what it is there to notice."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer import prepared
from algebraformer import solver as solver_module
from algebraformer.checkpoint import CheckpointError, load, read_folder, resolve, step_folders
from algebraformer.errors import Status
from algebraformer.linalg import measure
from algebraformer.numerics import gcr
from algebraformer.reporting import Report, Verdict
from studies.harness.study import run_study, save_study
from study_results import assert_drawn
from tests import fakes
from tests.stress import (
    certificates,
    checkpoints,
    files,
    ill_conditioned,
    interruptions,
    lapack_types,
    reliability,
    sharing,
    slices,
    soak,
)
from tests.stress.base import Check

SILENT = Progress(disable=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reliability")


@pytest.fixture(scope="module")
def result(folder: Path) -> Report:
    return run_study(reliability, "quick", folder, SILENT)


@pytest.fixture(scope="module")
def records(result: Report) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in result.data["records"]}


# ---------------------------------------------------------------- the checks


def test_nothing_failed(records: dict[str, dict[str, Any]]) -> None:
    assert {name: record["failures"] for name, record in records.items()} == {name: [] for name in records}
    assert len(records) == 9


def test_scipys_tests_reach_the_networks(records: dict[str, dict[str, Any]]) -> None:
    rows = {row["network"]: row for row in records["SciPy's tests"]["networks"]}
    assert set(rows) == set(reliability.PRESETS["quick"].networks)
    assert all(row["passed"] > 130 and row["failed"] == 0 for row in rows.values())
    assert rows["nearly right"]["learned"] + rows["nearly right"]["learned+refined"] > 90
    assert rows["NaN"]["learned"] + rows["NaN"]["learned+refined"] == 0
    assert rows["NaN"]["lapack"] > 90


def test_lapacks_matrices_are_solved_by_networks_too(records: dict[str, dict[str, Any]]) -> None:
    record = records["LAPACK's matrix types"]
    assert record["cases"] == len(lapack_types.SOLVERS) * len(lapack_types.TYPES) * len(lapack_types.SIZES)
    assert record["counts"]["LinAlgError"] == 3 * 7 * len(lapack_types.SOLVERS)
    assert record["counts"]["learned"] > 20
    assert record["counts"]["learned+refined"] > 20
    assert record["counts"]["lapack"] > 20


def test_made_up_systems_end_in_every_way(records: dict[str, dict[str, Any]]) -> None:
    counts = records["made-up systems"]["counts"]
    assert records["made-up systems"]["cases"] >= 300
    for status in ("LEARNED", "REFINED", "FALLBACK", "UNSUPPORTED", "UNCERTIFIED", "SINGULAR"):
        assert counts[f"systems {status}"] > 5, status


def test_ill_conditioned_systems_are_solved_by_networks_and_by_lapack(records: dict[str, dict[str, Any]]) -> None:
    record = records["ill-conditioned systems"]
    count, models = reliability.PRESETS["quick"].ill_conditioned, len(ill_conditioned.models())
    assert record["cases"] == count * len(ill_conditioned.KINDS) * models
    rows = {row["kind"]: row for row in record["by_kind"]}
    assert set(rows) == set(ill_conditioned.KINDS)
    assert all(row["cases"] == count * models and row["certified"] > 0.5 * row["cases"] for row in rows.values())
    assert record["counts"]["answered by a network"] == sum(row["network"] for row in rows.values())
    assert rows["family"]["network"] >= count
    assert record["counts"]["answered by a network"] < 0.5 * record["cases"]
    inside, outside = ([row for row in record["forward_error"] if row["inside"] is where] for where in (True, False))
    assert sum(row["cases"] for row in inside) == count * models // len(ill_conditioned.families())
    assert sum(row["cases"] for row in outside) > 0.4 * record["cases"]


def test_the_presets_try_a_hundred_thousand_ill_conditioned_systems() -> None:
    for preset in ("cpu", "paper"):
        count = reliability.PRESETS[preset].ill_conditioned
        assert count * len(ill_conditioned.KINDS) * len(ill_conditioned.models()) >= 100_000


def test_most_of_a_batch_with_bad_systems_is_the_networks(records: dict[str, dict[str, Any]]) -> None:
    counts = records["one bad system among many"]["counts"]
    assert counts["systems SINGULAR"] == len(slices.MODELS)
    assert counts["systems REFINED"] > 256


def test_most_mutations_are_refused(records: dict[str, dict[str, Any]]) -> None:
    record = records["checkpoints"]
    assert record["counts"]["refused"] > 200
    assert sum(record["counts"].values()) == record["cases"] == 300
    assert all(sum(kind.values()) for kind in record["kinds"].values())
    for kind in ("NaN or infinity", "wrong shape", "truncated", "name that leads away", "pickle", "other tensors"):
        assert set(record["kinds"][kind]) == {"refused"}, kind
    assert record["counts"]["loaded, another network"] > 0  # forged weights with hashes of their own


def test_hostile_files_do_not_fill_the_memory(records: dict[str, dict[str, Any]]) -> None:
    record = records["files"]
    assert record["counts"]["bomb: refused"] == 14
    assert record["counts"]["forged: refused"] == len(files.forged())
    assert record["counts"]["damaged: read"] > 0
    assert 0 <= record["growth_mb"] < files.GROWTH


def test_trainings_were_disturbed(records: dict[str, dict[str, Any]]) -> None:
    counts = records["interrupted trainings"]["counts"]
    assert counts["SIGKILL: killed"] == 3
    assert counts["limit on the size of files"] == 1
    assert sum(count for name, count in counts.items() if name.startswith("read-only")) == 1
    assert counts["runs that ended with the same bytes"] >= 4


# ---------------------------------------------------------------- the study


def test_the_study_keeps_what_is_done(folder: Path, result: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "scipy_suite", "lapack_types", "certificates", "ill_conditioned", "slices", "checkpoints", "files",
        "interruptions",
    ):  # fmt: skip
        monkeypatch.setattr(getattr(reliability, name), "check", None)
    asked = []
    empty = Check("threads and processes", "", 0, [], {})
    monkeypatch.setattr(sharing, "check", lambda jobs: asked.append(jobs) or empty)
    assert run_study(reliability, "quick", folder, SILENT).data == result.data
    kept = json.loads((folder / "sharing.json").read_text())
    (folder / "sharing.json").write_text(json.dumps(kept | {"settings": [1]}))  # made with other numbers
    run_study(reliability, "quick", folder, SILENT)
    assert asked == [reliability.PRESETS["quick"].jobs]
    (folder / "sharing.json").write_text(json.dumps(kept))


def test_table_figure_and_file(result: Report, tmp_path: Path) -> None:
    figure = reliability.figure(result.data)
    assert_drawn(figure)
    save_study(reliability, result, tmp_path / "reliability.json", "command")
    assert json.loads((tmp_path / "reliability.json").read_text())["data"] == result.data
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    main = result.tables[0]
    assert [row[0] for row in main.rows] == [record["name"] for record in result.data["records"]]
    assert sum(row[2] for row in main.rows) == sum(record["cases"] for record in result.data["records"])


def test_outcomes_list_what_failed(result: Report) -> None:
    nothing = result.outcomes["reliability.nothing-fails"]
    cases = sum(record["cases"] for record in result.data["records"])
    assert (nothing.verdict, nothing.numbers) == (Verdict.HOLDS, {"cases": cases, "checks": 9, "failed": 0})
    few = result.outcomes["reliability.cases/made-up systems"]
    assert (few.verdict, few.numbers["wanted"]) == (Verdict.MISSED, 100_000)
    assert sum(line.endswith("cases were tried instead of 100,000.") for line in result.conclusions) == 2
    broken = json.loads(json.dumps(result.data["records"]))
    for record in broken:
        record["cases"] = max(record["cases"], 100_000)
    broken[2] |= {"failed": 2, "failures": ["one", "other"]}
    found = reliability.summary(broken)
    failed = found.outcomes["reliability.nothing-fails"]
    assert failed.verdict == Verdict.FAILS
    assert (failed.numbers["failed"], failed.numbers["made-up systems"]) == (2, 2)
    assert found.conclusions[0].endswith("2 of them failed: 2 of made-up systems.")
    assert found.outcomes["reliability.cases/made-up systems"].verdict == Verdict.MET
    assert len(found.conclusions) == len(found.outcomes) - len(reliability.WANTED)
    assert [list(row) for row in found.tables[-1].rows] == [["made-up systems", "one"], ["made-up systems", "other"]]


@pytest.mark.slow
def test_the_stress_checks_at_full_size(tmp_path: Path) -> None:
    found = run_study(reliability, "paper", tmp_path, SILENT)
    assert {r["name"]: r["failures"] for r in found.data["records"]} == {r["name"]: [] for r in found.data["records"]}


# ---------------------------------------------------------------- the checks notice


def certify_all(relative: Any, omega: Any, n: int, rtol: Any) -> Any:
    return np.ones_like(relative, dtype=bool)


def test_false_certificates_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcr, "is_certified", certify_all)
    found = certificates.check(60)
    assert any("certified, and is not" in text for text in found.failures)
    assert "Case(seed=" in found.failures[0]


def test_wrong_measures_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(A: Any, b: Any, x: Any, chosen: Any = None) -> Any:
        found = measure(A, b, x, chosen)
        return found._replace(relative_residual=2 * found.relative_residual, backward_error=2 * found.backward_error)

    monkeypatch.setattr(gcr, "measure", doubled)
    assert any(" is " in text for text in certificates.check(60).failures)


def test_singular_systems_that_pass_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(A: Any, *_: Any) -> Any:
        return np.zeros(len(A), dtype=bool)

    monkeypatch.setattr(prepared, "has_zero_line", nowhere)
    read = fakes.FakeNetwork.read
    monkeypatch.setattr(
        fakes.FakeNetwork, "read", lambda fake, A: dataclasses.replace(read(fake, A), in_distribution=~nowhere(A))
    )
    monkeypatch.setattr(gcr, "probe_defect", lambda A, M: np.zeros(len(A)))
    case = certificates.Case(
        seed=1, network="consistent", kind="zero column", n=4, batch=2, columns=1, A_power=0, b_power=0,
        consistent=True, rtol=1e-10, fallback=True, real=True,
    )  # fmt: skip
    wrong, _ = certificates.disagreements(case)
    assert wrong == [f"system {i} is singular and passed in silence" for i in (0, 1)]
    solver = fakes.fake_solver(fakes.consistent, 5)
    rng = np.random.default_rng(0)
    A = lapack_types.matrix(6, 5, rng)
    assert lapack_types.solved(solver, A, A @ rng.uniform(-1, 1, (5, 2)))[0] == "learned"
    found = slices.check(1, batch=8, models=("diffusion-64",))
    assert any("singular system is answered" in text for text in found.failures)


class Answers:
    """Takes the place of a solver in `ill_conditioned`: certified answers from any function of A and b."""

    def __init__(self, answer: Any, rcond: float = np.nan, forward_error: float = np.nan) -> None:
        self.answer, self.rcond, self.forward_error = answer, rcond, forward_error
        self.info = fakes.shipped().info

    def solve(self, A: Any, b: Any) -> Any:
        full = partial(np.full, len(b))
        x = np.array([self.answer(*system) for system in zip(A, b, strict=True)])
        relative = np.linalg.norm(b - (A @ x[:, :, None])[:, :, 0], axis=1) / np.linalg.norm(b, axis=1)
        return SimpleNamespace(
            x=x, method=full("learned"), status=full(Status.LEARNED, dtype=object), certified=relative <= 1e-10,
            in_distribution=full(True), rcond=full(self.rcond), forward_error=full(self.forward_error),
        )  # fmt: skip


def truncated(A: Any, b: Any) -> Any:
    """Return the truncated SVD's answer of fewest terms that leaves at most 1e-10 of b."""
    U, sigma, V = np.linalg.svd(A)
    c = U.T @ b
    left = np.sqrt(np.cumsum(c[::-1] ** 2)[::-1]) > 1e-10 * np.linalg.norm(b)
    return V[left].T @ (c / sigma)[left]


def test_a_certificate_from_the_residual_alone_is_noticed() -> None:
    """Kernel matrices were solved to a relative residual of 1e-10, in the directions of large singular values alone."""
    batch = ill_conditioned.Batch("kernels", range(54))
    cases, wrong = batch.tried(Answers(truncated))
    failed = ill_conditioned.failed(cases)
    assert 3 <= failed.sum() == len(wrong)
    assert (cases["error"][failed] > 10 * batch.scipy[failed]).all()
    assert f"system('kernels', {np.flatnonzero(failed)[0]})" in wrong[0]
    cases, wrong = batch.tried(Answers(np.linalg.solve))
    assert wrong == []
    assert cases["certified"].sum() > 30


def test_wrong_answers_that_are_certified_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = solver_module.LearnedSolver.solve

    def wrong(self: Any, A: Any, b: Any) -> Any:
        result = real(self, A, b)
        return dataclasses.replace(result, x=result.x * (1 + 1e-7), certified=np.ones(len(b), dtype=bool))

    monkeypatch.setattr(solver_module.LearnedSolver, "solve", wrong)
    found = ill_conditioned.check(1)
    in_family = [text for text in found.failures if "system('family', 0)" in text]
    assert [text.split(":")[0] for text in in_family] == list(ill_conditioned.models())
    assert sum(row["failed"] for row in found.data["by_kind"]) == len(found.failures)


def test_warnings_that_are_not_given_are_noticed() -> None:
    batch = ill_conditioned.Batch("family", range(2))
    assert batch.tried(Answers(np.linalg.solve, rcond=1e-3))[1] == []
    assert len(batch.tried(Answers(np.linalg.solve, rcond=1e-17))[1]) == 1


def test_answers_without_a_number_are_failures() -> None:
    batch, cases = ill_conditioned.Batch("gallery", range(2)), np.zeros(2, ill_conditioned.CASE)
    cases["certified"], cases["error"], cases["limit"] = [True, False], np.inf, batch.limit
    assert ill_conditioned.failed(cases).tolist() == [True, False]


def test_forward_errors_that_are_too_small_are_noticed() -> None:
    batch = ill_conditioned.Batch("family", range(8))
    inside = np.array([family.name == fakes.shipped().info.family["name"] for family in ill_conditioned.families()])
    for estimate, held, infinite in ((1e-30, 0.0, 0), (1.0, 1.0, 0), (np.inf, 1.0, 2)):
        cases, _ = batch.tried(Answers(np.linalg.solve, forward_error=estimate))
        assert cases["inside"].tolist() == [*inside, *inside]
        row = ill_conditioned.forward_error(cases)[0]
        assert (row["cases"], row["unknown"], row["held"], row["infinite"]) == (2, 0, held, infinite)
        if estimate < np.inf:
            assert row["overestimate_median"] == pytest.approx(
                estimate / np.median(cases["true"][cases["inside"]]), rel=2
            )
    cases, _ = batch.tried(Answers(np.linalg.solve))
    assert [row["unknown"] for row in ill_conditioned.forward_error(cases)] == [2, 0, 6, 0]


def test_what_is_beyond_float64_is_not_certified() -> None:
    """x = 1e308 everywhere, rows that sum to 0: |A| |x| is beyond float64, and the small backward error not known."""
    case = certificates.Case(
        seed=5552, network="1e308", kind="small integers", n=2, batch=3, columns=1, A_power=10, b_power=-10,
        consistent=False, rtol=1e-14, fallback=False, real=True,
    )  # fmt: skip
    result = case.solver().solve(*case.systems(), case.rtol, fallback=False)
    assert result.backward_error[0] == np.inf
    assert not result.certified[0]
    assert certificates.disagreements(case)[0] == []


def test_mpmath_and_longdouble_agree() -> None:
    rng = np.random.default_rng(0)
    for complex_too in (False, True):
        A, b, x = rng.standard_normal((5, 5)), rng.standard_normal(5), rng.standard_normal(5)
        if complex_too:
            A, b = A + 1j * A.T, b * (1 - 1j)
        fast, slow = (np.array([float(v) for v in f(A, b, x)]) for f in (
            certificates.exact_measures, certificates.mpmath_measures
        ))  # fmt: skip
        np.testing.assert_allclose(fast, slow, rtol=1e-15)
    r, size = np.abs(b - A @ x), np.abs(A) @ np.abs(x) + np.abs(b)
    np.testing.assert_allclose(
        slow, [np.linalg.norm(r) / np.linalg.norm(b), max(r / size), np.linalg.norm(size) / np.linalg.norm(b)]
    )


@pytest.mark.parametrize("kind", lapack_types.TYPES)
def test_lapacks_matrices_are_what_they_are_called(kind: int) -> None:
    A = lapack_types.matrix(kind, 10, np.random.default_rng(kind))
    sigma = np.linalg.svd(A, compute_uv=False)
    if kind in lapack_types.WITH_ZERO_COLUMN:
        zero = {5: [0], 6: [9], 7: [5, 6, 7, 8, 9]}[kind]
        assert np.flatnonzero((A == 0).all(axis=0)).tolist() == zero
        return
    condition = {8: np.sqrt(0.1 / 2.0**-52), 9: 0.1 / 2.0**-52}.get(kind, 2.0)
    assert sigma[0] / sigma[-1] == pytest.approx(condition, rel=0.1 if kind == 9 else 1e-6)
    steps = np.diff(sigma)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)  # LAPACK's mode 4
    size = {10: 0.25 * 2.0**-1022 / 2.0**-52, 11: 4 * 2.0**-52 / 2.0**-1022}.get(kind, 1.0)
    assert sigma[0] == pytest.approx(size)
    shape = {1: np.diag(np.diag(A)), 2: np.triu(A), 3: np.tril(A)}.get(kind, A)
    np.testing.assert_array_equal(A, shape)
    assert np.count_nonzero(A) == {1: 10, 2: 55, 3: 55}.get(kind, 100)


def test_loading_that_goes_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path) -> Any:
        return load(resolve("diffusion-64-token"))

    monkeypatch.setattr(checkpoints, "load", careless)
    found = checkpoints.check(30, models=("diffusion-64-token",))
    assert any("loaded against its hashes" in text for text in found.failures)

    def crashing(path: Path) -> Any:
        (path / "left-behind").touch()
        raise KeyError("x")

    monkeypatch.setattr(checkpoints, "load", crashing)
    failures = checkpoints.check(3, models=("diffusion-64-token",)).failures
    assert any("KeyError" in text for text in failures)
    assert any("files appeared" in text for text in failures)


def test_the_forged_pickle_would_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its being harmless says something."""
    import pickle

    original = dict(read_folder(resolve("diffusion-64-token")))
    original[checkpoints.SUMS] = checkpoints.hashes(original)
    found = checkpoints.pickled(original, np.random.default_rng(0), tmp_path / "model")
    (code,) = [data for name, data in found.items() if data != original[name]]
    pickle.loads(code)
    assert (tmp_path / "executed").exists()


def test_reading_that_goes_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(path: Path, **_: Any) -> Any:
        warnings.warn("look", stacklevel=1)
        raise KeyError("x")

    monkeypatch.setattr(files, "read_array", crashing)
    assert files.read_or_refused(tmp_path / "x.npy")[1] == ["KeyError: 'x'"]
    monkeypatch.setattr(files, "read_array", lambda path, **_: np.zeros(files.MEGABYTE))
    assert files.read_or_refused(tmp_path / "x.npy")[1] == [f"gives {8 * files.MEGABYTE} bytes of float64"]


def test_checkpoints_that_do_not_load_are_noticed(tiny_run: Path) -> None:
    assert interruptions.newest_step(tiny_run.parent / "nothing") == -1
    assert interruptions.newest_step(tiny_run) == 200


def test_the_newest_or_the_previous_checkpoint(tmp_path: Path) -> None:
    run = interruptions.Disturbed(
        interruptions.RECIPE, tmp_path, interruptions.OPTIONS, at=2, action=lambda: os.kill(os.getpid(), 15)
    )
    assert not run.run().finished
    newest, previous = step_folders(tmp_path)
    os.truncate(newest / "model.safetensors", 100)
    assert interruptions.newest_step(tmp_path) == int(previous.name.removeprefix("step-"))
    os.truncate(previous / "model.safetensors", 100)
    with pytest.raises(CheckpointError):
        interruptions.newest_step(tmp_path)


def test_answers_that_differ_in_threads_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    number = iter(range(10**6))
    monkeypatch.setattr(sharing, "answers", lambda solver, seed: (b"", {"status": ["X"], "number": next(number)}))
    found = sharing.check(4, models=("diffusion-64-token",), threads=2, processes=1)
    assert any("differ in threads" in text for text in found.failures)


# ---------------------------------------------------------------- the soak


def test_soak(tmp_path: Path) -> None:
    found = run_study(soak, "quick", tmp_path, SILENT)
    assert found.data["failures"] == []
    assert found.data["calls"] >= 1
    assert found.data["memory_mb"][-1] > 50
    figure = soak.figure(found.data)
    assert_drawn(figure)
    save_study(soak, found, tmp_path / "soak.json", "command")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", soak.CALLS)
def test_every_call_of_the_soak(name: str, tmp_path: Path) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", soak.LinAlgWarning)
            assert soak.CALLS[name][0](fakes.shipped(), rng, tmp_path, Counter()) == ""


def test_memory_that_grows_is_noticed() -> None:
    plan, flat = soak.PRESETS["cpu"], [100.0, 300.0, 300.0, 300.0]
    memory_names = ("memory in use", "resident memory")
    for growth, verdict in ((15.0, Verdict.MET), (25.0, Verdict.MISSED), (-25.0, Verdict.MISSED)):
        seconds, memory = [0.0, 130.0, 300.0, 600.0], [100.0, 300.0, 300.0 + growth, 300.0]
        for values, name in (((memory, flat), memory_names[0]), ((flat, memory), memory_names[1])):
            found = soak.summary(plan, seconds, values[1], values[0], 250.0, 9, [], Counter()).outcomes
            for other in memory_names:
                assert found[f"soak.flat/{other}"].verdict == (verdict if other == name else Verdict.MET)
            extremes = [found[f"soak.flat/{name}"].numbers[key] for key in ("low", "first", "high")]
            assert extremes == [min(300.0, 300.0 + growth), 300.0, max(300.0, 300.0 + growth)]
    found = soak.summary(plan, seconds, flat, flat, 250.0, 9, ["a", "b"], Counter())
    assert found.outcomes["soak.nothing-fails"].verdict == Verdict.FAILS
    assert found.outcomes["soak.nothing-fails"].numbers == {"calls": 9, "failed": 2, "minutes": 10.0}
    assert found.conclusions[0] == "9 calls in 10 minutes, 2 of them failed."


def test_memory_in_use_is_what_malloc_gave_out() -> None:
    before = soak.allocated()
    block = np.ones(2**22)  # 32 MB
    assert soak.allocated() - before == pytest.approx(32, abs=2)
    del block
    assert soak.allocated() - before == pytest.approx(0, abs=2)
