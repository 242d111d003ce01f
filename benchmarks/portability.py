"""The same on other processors: tests and scores with other instruction sets and numbers of threads, in turn.

    python benchmarks/portability.py tests    every test, as `make portability` does; failures are named at the end
    python benchmarks/portability.py scores   which digits of the shipped models' scores hold: results/portability.json

Each environment changes one variable. OpenBLAS and torch then run the kernels they would choose on another processor;
settings that this one cannot run, or that choose the same kernels as another, are left out with a word. How SciPy's and
NumPy's other loops are vectorised, and MKL inside torch, stay those of this processor.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tyro

from algebraformer.checkpoint import pretrained_names
from algebraformer.provenance import KERNELS, THREADS, commit, provenance
from algebraformer.reporting import Cell, TableData, markdown_table, print_table, write_results
from studies.harness.evidence import caption

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (
    ("", "", ""),
    ("OPENBLAS_CORETYPE", "SkylakeX", "avx512f"),
    ("OPENBLAS_CORETYPE", "Haswell", "avx2"),
    ("OPENBLAS_CORETYPE", "Zen", "avx2"),
    ("OPENBLAS_CORETYPE", "Sandybridge", "avx"),
    ("ATEN_CPU_CAPABILITY", "default", ""),
    ("ATEN_CPU_CAPABILITY", "avx2", "avx2"),
    ("OMP_NUM_THREADS", "1", ""),
    ("OMP_NUM_THREADS", "2", ""),
)
"""Variable, value and the instructions that the processor needs for it."""
SCORES = ("network", "solve", "estimate")
ASK = "import numpy, scipy.linalg, torch; from algebraformer.provenance import kernels; print(sorted(kernels()))"


@functools.cache
def instructions() -> frozenset[str]:
    """Return the flags of this processor, none where /proc/cpuinfo does not tell them."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def environments() -> dict[str, dict[str, str]]:
    """Return the environments of this processor by name, the one without any setting first; say what is left out."""
    plain = {name: value for name, value in os.environ.items() if name not in THREADS + KERNELS}
    found: dict[str, dict[str, str]] = {}
    seen: dict[str, str] = {}
    for variable, value, needed in SETTINGS:
        name = f"{variable}={value}" if variable else "default"
        if variable in KERNELS and platform.machine() != "x86_64":
            print(f"{name}: left out, not a setting of {platform.machine()}")
        elif needed and needed not in instructions():
            print(f"{name}: left out, this processor has no {needed}")
        else:
            environment = plain | ({variable: value} if variable else {})
            ran = subprocess.run(
                [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
            )
            if (same := seen.setdefault(ran.stdout, name)) != name:
                print(f"{name}: left out, the same kernels and threads as {same}")
            else:
                found[name] = environment
    return found


def run_tests(arguments: Iterable[str]) -> int:
    """Run the tests in every environment and name those that failed; return 1 if any did."""
    failed = {}
    for name, environment in environments().items():
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *arguments]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            failed[name] = f"{name} {shlex.join(command)}" if "=" in name else shlex.join(command)
    print("\nEvery environment passed." if not failed else "\nFailed, to be seen again with:")
    print(*failed.values(), sep="\n")
    return int(bool(failed))


def numbers(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of nested scores by name.

    Examples
    --------
    >>> numbers({"network": {"mse": 0.5, "name": "x"}, "systems": 3})
    {'network: mse': 0.5, 'systems': 3.0}
    """
    found = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{key}: ")
        elif isinstance(value, int | float):
            found[prefix + key] = float(value)
    return found


def spread(values: Iterable[float]) -> float:
    """Return (largest - smallest) / largest size of numbers; 0 where all are 0.

    Examples
    --------
    >>> spread([1.0, 0.75, 0.5])
    0.5
    """
    values = list(values)
    size = max(map(abs, values))
    return (max(values) - min(values)) / size if size else 0.0


def evaluated(model: str, count: int, environment: Mapping[str, str]) -> dict[str, float]:
    """Return the scores that the command `evaluate` prints."""
    command = [sys.executable, "-m", "algebraformer", "evaluate", model, "--count", str(count), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return numbers({key: value for key, value in json.loads(done.stdout).items() if key in SCORES})


def measure_scores(models: Iterable[str], count: int, output: Path) -> None:
    """Evaluate the models in every environment and write how far each score differs."""
    commit()  # now, not when everything has run
    found = environments()
    rows: list[list[Cell]] = []
    scores = {}
    for model in models:
        runs = {name: evaluated(model, count, environment) for name, environment in found.items()}
        scores[model] = {score: {name: run[score] for name, run in runs.items()} for score in runs["default"]}
        for score, values in scores[model].items():
            far = {name: abs(value - values["default"]) for name, value in values.items()}
            furthest = max(far, key=far.__getitem__)
            rows.append([model, score, values["default"], spread(values.values()), furthest if far[furthest] else None])
    columns = ("model", "score", "value", "relative spread", "furthest from the default")
    table = TableData(columns, rows, f"Scores on {count} systems in {len(found)} environments")
    print_table(table)
    command = shlex.join(["python", *sys.argv])
    write_results(output, command=command, table=table, systems=count, environments=list(found), scores=scores)
    shown = f"{markdown_table(table.columns, table.rows)}\n{caption(provenance())}"
    output.with_suffix(".md").write_text(
        f"# portability\n\n{table.title}: {', '.join(found)}.\n\n{shown}\n\nMade by `{command}`.\n"
    )
    print(f"Written to {output}")


def main(
    what: tyro.conf.Positional[Literal["tests", "scores"]],
    select: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    count: int = 200,
    output: Path = Path("results/portability.json"),
) -> None:
    """Run the tests, or evaluate the shipped models, in the environments of other processors.

    Parameters
    ----------
    what : str
        Tests or scores.
    select : tuple of str
        Files of tests; all if not given.
    models : tuple of str
        Names of shipped models; all if not given.
    count : int
        Systems that every model is evaluated on.
    output : Path
        File for the scores; a page of that name is written beside it.
    """
    if what == "tests":
        sys.exit(run_tests(select))
    measure_scores(models or pretrained_names(), count, output)


if __name__ == "__main__":
    tyro.cli(main)
