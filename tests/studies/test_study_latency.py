"""The latency study: its smallest size in fresh processes, and its arithmetic and sentences on made-up times."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.solver import LearnedSolver
from studies import latency
from studies.harness.study import load_study, run_study, save_study
from study_results import assert_tables_and_figure

CALLS = ("load", "first", "second", "later", "ratio")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("latency"), "quick", tmp_path_factory.mktemp("latency"), Progress(disable=True))


def test_every_case_is_measured(result: Report) -> None:
    calls = result.data["calls"]
    untrained = "untrained, 0.00541 M parameters"
    assert [(c["model"], c["batch"]) for c in calls] == [("diffusion-64", 2), (untrained, 2)]
    for entry in calls:
        for way in ("warm", "cold"):
            assert all(entry[way][key] > 0 for key in CALLS)
            assert entry[way]["ratio"] == pytest.approx(entry[way]["first"] / entry[way]["later"])  # of one process
    (solve,) = result.data["solves"]
    assert all(seconds > 0 for seconds in solve["phases"].values())
    assert sum(solve["phases"].values()) == pytest.approx(solve["sum"])
    assert {"import of NumPy", "load of the model", "solve", latency.EXIT} < set(solve["phases"])
    assert "import of torch" not in solve["phases"]
    assert all("import of torch" in entry["phases"] for entry in calls)
    assert "torch" not in result.data["imports"]


def test_the_tables_show_the_data(result: Report) -> None:
    main, script, solve, packages = result.tables
    for row, entry in zip(main.rows, result.data["calls"], strict=True):
        assert row[3] == pytest.approx(1e3 * entry["warm"]["first"])
        assert row[6] == pytest.approx(entry["warm"]["ratio"])
        assert row[8] == pytest.approx(1e3 * entry["cold"]["first"])
    assert [row[0] for row in script.rows][-1] == "first call of predict"
    seconds = dict(solve.rows)
    *phases, total, command, slowest = seconds.values()
    assert sum(phases) == pytest.approx(total)
    assert command == slowest == seconds["the command itself"]
    assert sum(row[1] for row in packages.rows) == pytest.approx(sum(result.data["imports"].values()))


def test_tables_and_figure(result: Report, tmp_path: Path) -> None:
    assert_tables_and_figure("latency", result, tmp_path)


def test_the_file_holds_the_data(result: Report, tmp_path: Path) -> None:
    save_study(load_study("latency"), result, tmp_path / "latency.json", "command")
    assert json.loads((tmp_path / "latency.json").read_text())["data"] == result.data


# ---------------------------------------------------------------- processes


def test_phases_are_differences_of_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = 'what the command prints\n{"marks": [["start", 11.0], ["load", 13.5]]}\n'
    monkeypatch.setattr(latency, "process", lambda _: (printed, "", 10.0, 14.0))
    assert latency.probe("solve") == {"phases": {"start": 1.0, "load": 2.5, latency.EXIT: 0.5}}
    printed = '{"marks": [["start", 11.0]], "calls": [1.0, 2.0]}'
    monkeypatch.setattr(latency, "process", lambda _: (printed, "", 10.0, 14.0))
    assert latency.probe("predict") == {"phases": {"start": 1.0}, "calls": [1.0, 2.0]}


def test_a_process_that_fails_stops_the_study() -> None:
    with pytest.raises(ChildProcessError, match=r"code 7: the reason$"):
        latency.process([sys.executable, "-c", "import sys; print('x\\nthe reason', file=sys.stderr); sys.exit(7)"])
    assert latency.process([sys.executable, "-c", "print(1); raise SystemExit(3)"])[0] == "1\n"


def test_imports_are_summed_by_package() -> None:
    code = "import numpy, scipy.linalg"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    found = latency.by_package(done.stderr)
    own = {"numpy": 0, "scipy": 0}
    for line in done.stderr.splitlines()[1:]:
        parts = line.removeprefix("import time:").split("|")
        package = parts[2].strip().split(".")[0]
        if package in own:
            own[package] += int(parts[0])
    assert {name: found[name] for name in own} == {name: pytest.approx(total / 1e6) for name, total in own.items()}
    assert list(found.values()) == sorted(found.values(), reverse=True)


# ---------------------------------------------------------------- medians and outcomes


def made_up() -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Three processes of each kind: first calls of 4, 6 and 20 ms, later ones of 2 ms."""
    phases = {"import of torch": 1.0, "load of the model": 0.5}
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for way in ("warm", "cold"):
        found["predict", "m", 1, way] = [
            {"phases": phases, "calls": [first, 3e-3, 2e-3, 1e-3, 9e-3, 2e-3, 2e-3], "threads": 1}
            for first in (4e-3, 20e-3, 6e-3)
        ]
    found["solve", "m"] = [{"phases": {"import of torch": t, "exit": 0.25}} for t in (1.0, 3.0, 0.75)]
    found["command", "m"] = [{"seconds": s} for s in (2.0, 9.0, 1.5)]
    return found


def test_medians() -> None:
    data = latency.summary(made_up(), {"torch": 1.0}).data
    (entry,), (solve,) = data["calls"], data["solves"]
    assert entry["warm"] == pytest.approx({"load": 0.5, "first": 6e-3, "second": 3e-3, "later": 2e-3, "ratio": 3.0})
    assert solve["phases"] == {"import of torch": 1.0, "exit": 0.25}
    assert (solve["sum"], solve["the command itself"], solve["its slowest run"]) == (1.25, 2.0, 9.0)


def outcomes(first: float = 3e-3, cold: float = 5e-3, seconds: float = 2.0) -> dict[str, Outcome]:
    """The outcomes for other times: of first calls, warmed up and not, and of the command."""
    found = copy.deepcopy(made_up())
    for way, value in (("warm", first), ("cold", cold)):
        for run in found["predict", "m", 1, way]:
            run["calls"][0] = value
    found["command", "m"] = [{"seconds": seconds}] * 3
    return dict(latency.summary(found, {"torch": 1.0}).outcomes)


def test_targets_met_and_missed() -> None:
    found = outcomes()
    first, whole = found["latency.first-prediction"], found["latency.command"]
    assert first.verdict == whole.verdict == Verdict.MET
    assert first.numbers == {"ratio": pytest.approx(1.5), "target": 2.0, "model": "m", "batch": 1}
    assert whole.numbers == {"seconds": 2.0, "target": 2.5, "model": "m"}
    assert outcomes(first=4.1e-3)["latency.first-prediction"].verdict == Verdict.MISSED
    assert outcomes(seconds=2.6)["latency.command"].verdict == Verdict.MISSED


def test_the_papers_delay() -> None:
    found = outcomes()["latency.paper-delay"]
    assert (found.verdict, found.numbers["extra_ms"]) == (Verdict.NOT_REPRODUCED, pytest.approx(3))
    found = outcomes(cold=0.8)["latency.paper-delay"]
    assert (found.verdict, found.numbers["extra_ms"]) == (Verdict.REPRODUCED, pytest.approx(798))


def test_the_largest_phases_come_first() -> None:
    found = outcomes()
    assert list(found["latency.largest-phases"].numbers.items()) == [("import of torch", 0.8), ("exit", 0.2)]
    assert conclusions(found, latency.SENTENCES) == [
        "First prediction after loading: at most 1.5 times as long as the later ones (m, batch 1); target 2, met.",
        "The whole command solve: 2 s with m, the slowest model; target 2.5 s, met.",
        "A delay of about 1 s in the first forward pass: not reproduced. Without warming up, the first call takes at "
        "most 3 ms longer than the later ones (m, batch 1); the import of torch takes 1 s.",
        "The largest parts of this command: import of torch 80 %, exit 20 %.",
    ]


# ---------------------------------------------------------------- what was moved into loading


def test_a_loaded_model_has_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    predict = LearnedSolver.predict

    def counted(self: LearnedSolver, A: Any, b: Any) -> Any:
        asked.append((np.shape(A), np.shape(b)))
        return predict(self, A, b)

    monkeypatch.setattr(LearnedSolver, "predict", counted)
    for name in ("diffusion-64", "diffusion-64-token"):
        LearnedSolver.from_pretrained(name)
    assert asked == [((64, 64), (64,))] * 2


@pytest.mark.parametrize("name", ["diffusion-64", "diffusion-64-token"])
def test_the_first_call_imports_nothing(name: str) -> None:
    code = f"""
import sys
import numpy as np
from algebraformer.solver import LearnedSolver
solver = LearnedSolver.from_pretrained({name!r})
before = set(sys.modules)
solver.predict(np.eye(64), np.ones(64))
print(sorted(set(sys.modules) - before))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_reading_a_system_does_not_import_what_writes_files() -> None:
    code = "import sys, algebraformer.cli, algebraformer.io, algebraformer.solver; print('scipy.io' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_the_collector_leaves_a_command_alone() -> None:
    """What was imported is not looked through at the exit: it is frozen by then."""
    code = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 10_000, gc.get_threshold()[0]))
from algebraformer.__main__ import main
raise SystemExit(main())
"""
    done = subprocess.run([sys.executable, "-c", code, "families"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "True 100000"
