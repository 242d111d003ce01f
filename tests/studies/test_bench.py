"""The benchmark runs in its quick form and writes what its table and the documents rely on. No speed is asserted."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "bench.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what `bench.py --quick` writes."""
    folder = tmp_path_factory.mktemp("bench")
    output = folder / "deeper" / "bench.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "peak memory, entry tokens" in done.stdout
    assert [path.name for path in folder.iterdir()] == ["deeper"], "nothing else may be written"
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """Return the benchmark as a module."""
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_results_say_where_they_come_from(results: dict[str, Any]) -> None:
    assert "--quick" in results["command"]
    assert results["quick"] is True
    assert results["threads"]["torch"] == 1
    assert results["provenance"]["threads"] == 1
    assert {"torch", "numpy"} <= set(results["provenance"]["versions"])


def test_training_shares_follow_from_the_rates(results: dict[str, Any]) -> None:
    best = max(results["matmul_flops_per_second"].values())
    assert set(results["training"]) == {"quick"}
    entry = results["training"]["quick"]
    flops = 6 * entry["parameters"] * entry["batch_size"] * 16
    assert entry["flops_per_second"] == pytest.approx(flops / entry["seconds_per_step"])
    assert entry["share_of_matmul"] == pytest.approx(entry["flops_per_second"] / best)
    assert 0 < entry["share_of_matmul"] < 1


FIRST = ("solve, diffusion-64", "numpy.linalg.solve")


def test_inference_is_measured_against_numpy(results: dict[str, Any]) -> None:
    expected = {
        f"{what}, batch {size}"
        for what in (*(f"predict, {name}" for name in ("diffusion-64", "diffusion-64-token", "quick")), *FIRST)
        for size in (1, 64)
    }
    assert set(results["seconds_per_system"]) == expected
    assert all(0 < seconds < 60 for seconds in results["seconds_per_system"].values())
    solver = LearnedSolver.from_pretrained("diffusion-64")
    systems = solver.info.problem_family().sample(64, TEST_SEED)
    assert results["solved_by_network"] == np.mean(solver.solve(systems.A, systems.b).method != "lapack")


def test_answers_are_timed_by_threads_and_beside_busy_processes(bench: ModuleType, results: dict[str, Any]) -> None:
    by_threads = results["seconds_by_threads"]
    assert set(by_threads) == set(results["seconds_per_system"])
    ways = {f"{label}, {count} busy" for label in ("one thread", "default") for count in (0, 1, 2)}
    assert all(set(found) == ways and min(found.values()) > 0 for found in by_threads.values())
    (table,) = results["tables"]
    assert table["rows"] == bench.thread_rows(results)
    name = "solve, diffusion-64, batch 64"
    alone = results["seconds_per_system"][name]
    expected = [alone * 1e3, *(alone / by_threads[name]["one thread, 0 busy"],)]
    assert next(row for row in table["rows"] if row[0] == name)[1:3] == pytest.approx(expected)


def test_entry_tokens_take_more_memory_than_column_tokens(results: dict[str, Any]) -> None:
    peaks = {(entry["encoding"], entry["kernel"]): entry["peak_bytes"] for entry in results["memory"]}
    assert len(peaks) == 4
    for kernel in ("default", "math"):
        assert set(peaks["column", kernel]) > set(peaks["entry", kernel]) == {"4", "6"}
        assert all(peaks["entry", kernel][n] > peaks["column", kernel][n] for n in ("4", "6"))
    assert peaks["entry", "math"]["6"] > peaks["entry", "default"]["6"]


def test_every_row_of_the_table_has_its_number(bench: ModuleType, results: dict[str, Any]) -> None:
    table = results["table"]
    assert table["rows"] == bench.rows(with_whole_sizes(results))
    assert table["columns"] == ["measure", "value", "unit", "target"]
    assert all(len(row) == 4 for row in table["rows"])
    for measure, value, unit, _ in table["rows"]:
        assert isinstance(value, int | float), measure
        assert np.isfinite(value)
        assert unit or measure.startswith("threads")
    labels = " ".join(row[0] for row in table["rows"])
    for name in ("training, quick", "predict, quick, batch 64", "numpy.linalg.solve, batch 1", "n = 4 to 6"):
        assert name in labels


def test_the_committed_result_is_of_this_benchmark(bench: ModuleType) -> None:
    """What is measured, and in which words, is what the script of today measures: `make bench` if not."""
    committed = json.loads((ROOT / "results" / "bench.json").read_text())
    names = ("diffusion-64", "diffusion-64-token", bench.FULL.recipes[0])
    what = (*(f"predict, {name}" for name in names), *FIRST)
    assert set(committed["seconds_per_system"]) == {f"{w}, batch {size}" for w in what for size in bench.BATCHES}
    assert set(committed["training"]) == set(bench.FULL.recipes)
    assert committed["table"]["rows"] == bench.rows(with_whole_sizes(committed))


def test_a_forced_kernel_is_refused() -> None:
    environment = {**ENVIRONMENT, "OPENBLAS_CORETYPE": "Nehalem"}
    command = [sys.executable, str(SCRIPT), "--output", "never.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (1, "")
    assert "OPENBLAS_CORETYPE" in done.stderr
    assert done.stderr.count("\n") == 1


def test_targets_are_shown_beside_the_shares(bench: ModuleType, results: dict[str, Any]) -> None:
    assert set(bench.TARGETS) == set(bench.FULL.recipes)
    entry = results["training"]["quick"] | {"target": bench.TARGETS["paper"]}
    targets = [row[3] for row in bench.rows(with_whole_sizes(results) | {"training": {"paper": entry}})]
    assert "≥ 50" in targets


def with_whole_sizes(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results with sizes as numbers again; JSON has text keys alone."""
    memory = [e | {"peak_bytes": {int(n): v for n, v in e["peak_bytes"].items()}} for e in results["memory"]]
    return results | {"memory": memory}


def test_exponent_is_the_slope_of_the_logarithms(bench: ModuleType) -> None:
    assert bench.exponent({n: 7 * n**4 for n in (12, 16, 24)}) == pytest.approx(4)


def test_peak_memory_is_the_same_in_every_run(bench: ModuleType) -> None:
    config = bench.ModelConfig(n=5, head=bench.TokenConfig(encoding="entry"), n_layer=1, n_head=2, n_embd=8)
    assert len({bench.peak_bytes(config, bench.KERNELS["math"]) for _ in range(3)}) == 1
