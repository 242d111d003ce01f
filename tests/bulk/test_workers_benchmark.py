"""The benchmark of workers, at a size that takes seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "workers.py"


@pytest.mark.slow
def test_efficiencies_are_ratios_of_times_from_the_same_round(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("workers", SCRIPT)
    workers = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "workers", workers)  # where dataclasses look
    spec.loader.exec_module(workers)
    workers.main(workers.Options(systems=64, rounds=1, output=tmp_path / "workers.json"))
    table = json.loads((tmp_path / "workers.json").read_text())["table"]
    (_, two, *_), (_, apart, *_), (_, ratio, *_) = table["rows"]
    assert min(two, apart) > 0
    assert abs(two / apart - ratio) < 1e-12
