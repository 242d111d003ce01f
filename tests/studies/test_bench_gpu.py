"""The benchmark of GPUs runs on the processor as well, at toy size, and is not measured twice. No speed is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_and_resumes(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--output", str(output), "--device", "cpu", "--sizes", "12", "64",
               "--batches", "1", "3", "--rounds", "2"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    found = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(output.read_text()))
    records = found[0]["records"]
    assert records == found[1]["records"], "times would differ if they were measured again"
    assert [(record["n"], record["batch"]) for record in records] == [(12, 1), (12, 3), (64, 1), (64, 3)]
    for record in records:
        assert record["certified"] == 1.0
        assert set(record["seconds"]) == {"algebraformer", "one pass over A", "torch.linalg.solve"}
        assert max(record["error"].values()) < 1e-7
        assert record["by_network"] == 1.0 or record["n"] == 12
    assert len(found[0]["table"]["rows"]) == 4
