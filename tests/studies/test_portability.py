"""The script that runs tests and scores in the environments of other processors; what it starts is made up here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def portability() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("portability", ROOT / "benchmarks" / "portability.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def processor(portability: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the script a processor: its instructions, and kernels that follow the variables."""

    def install(*flags: str, machine: str = "x86_64") -> None:
        def ran(command: list[str], env: dict[str, str], **_: Any) -> types.SimpleNamespace:
            core = env.get("OPENBLAS_CORETYPE", "Haswell").replace("Zen", "Haswell")
            return types.SimpleNamespace(stdout=f"{core} {env.get('ATEN_CPU_CAPABILITY')} {env.get('OMP_NUM_THREADS')}")

        monkeypatch.setattr(portability, "instructions", lambda: frozenset(flags))
        monkeypatch.setattr(portability, "platform", types.SimpleNamespace(machine=lambda: machine))
        monkeypatch.setattr(portability.subprocess, "run", ran)

    return install


def test_what_a_processor_cannot_run_is_left_out(portability: Any, processor: Any, capsys: Any) -> None:
    processor("avx", "avx2")
    found = portability.environments()
    assert "OPENBLAS_CORETYPE=Sandybridge" in found
    assert found["OPENBLAS_CORETYPE=Sandybridge"]["OPENBLAS_CORETYPE"] == "Sandybridge"
    left_out = {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()}
    assert left_out == {"OPENBLAS_CORETYPE=SkylakeX", "OPENBLAS_CORETYPE=Haswell", "OPENBLAS_CORETYPE=Zen"}
    assert next(iter(found)) == "default"
    processor()
    assert not any("Sandybridge" in name or "avx2" in name for name in portability.environments())
    processor(machine="aarch64")
    assert set(portability.environments()) == {"default", "OMP_NUM_THREADS=1", "OMP_NUM_THREADS=2"}


def test_the_default_sets_nothing(portability: Any, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processor("avx", "avx2", "avx512f")
    found = portability.environments()
    assert not {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS"} & set(found["default"])
    assert "OPENBLAS_CORETYPE" not in found["OMP_NUM_THREADS=1"]


def test_failures_are_named_at_the_end(portability: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def ran(command: list[str], env: dict[str, str], **_: Any) -> types.SimpleNamespace:
        return types.SimpleNamespace(returncode=int(env["NUMBER"] == "2"))

    environments = {"default": {"NUMBER": "1"}, "A=b": {"NUMBER": "2"}, "A=c": {"NUMBER": "3"}}
    monkeypatch.setattr(portability, "environments", lambda: environments)
    monkeypatch.setattr(portability.subprocess, "run", ran)
    assert portability.run_tests(["tests/test_x.py"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("A=b ")
    assert last.endswith("tests/test_x.py")
    del environments["A=b"]
    assert portability.run_tests([]) == 0


def test_spread(portability: Any) -> None:
    assert portability.spread([1.0, 0.75, 0.5]) == 0.5
    assert portability.spread([-2.0, 2.0]) == 2
    assert portability.spread([0.0, 0.0]) == 0


def test_scores_of_every_environment(
    portability: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def evaluated(model: str, count: int, environment: dict[str, str]) -> dict[str, float]:
        return {"network: mse": {"1": 0.5, "2": 0.4}[environment["NUMBER"]], "solve: certified": 1.0}

    monkeypatch.setattr(portability, "environments", lambda: {"default": {"NUMBER": "1"}, "A=b": {"NUMBER": "2"}})
    monkeypatch.setattr(portability, "evaluated", evaluated)
    portability.measure_scores(["some-model"], 3, tmp_path / "portability.json")
    written = json.loads((tmp_path / "portability.json").read_text())
    assert (written["systems"], written["environments"]) == (3, ["default", "A=b"])
    assert written["scores"]["some-model"]["network: mse"] == {"default": 0.5, "A=b": 0.4}
    rows = written["table"]["rows"]
    assert rows[0] == ["some-model", "network: mse", 0.5, pytest.approx(0.2), "A=b"]
    assert rows[1] == ["some-model", "solve: certified", 1.0, 0.0, None]
    assert "| some-model | network: mse |" in (tmp_path / "portability.md").read_text()


def test_scores_are_those_of_the_command(portability: Any) -> None:
    """One model for real, on few systems, in this environment: what `evaluate` prints."""
    command = [sys.executable, "-m", "algebraformer", "evaluate", "diffusion-64", "--count", "2", "--json"]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout)
    found = portability.evaluated("diffusion-64", 2, None)
    expected = {f"{part}: {key}": value for part in ("network", "solve") for key, value in printed[part].items()}
    assert found == pytest.approx({key: value for key, value in expected.items() if value is not None})
