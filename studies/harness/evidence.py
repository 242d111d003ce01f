"""What a result depends on: the caption of its table, and whether code has changed since it was measured."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "src/algebraformer"
TRAINED = ("problems", "models", "training")
SOLVED = ("linalg.py", "problems", "numerics", "models", "prepared.py", "solver.py")
BOTH = (*SOLVED, "training")
MEASURED = ("linalg.py", "problems", "numerics", "models", "instruments")
ESTIMATED = ("linalg.py", "problems", "numerics", "models", "estimation.py")
DEPENDS = {
    "operator": ("rivals", *BOTH),
    "scaling": ("rivals", *BOTH),
    "sizes": (*BOTH, "resampled.py"),
    "efficiency": BOTH,
    "outside": BOTH,
    "latency": ("checkpoint.py", "io", *SOLVED, "cli", "__main__.py"),
    "spectral": BOTH,
    "encoding": TRAINED,
    "attention": TRAINED,
    "transfer": TRAINED,
    "certificate": SOLVED,
    "condition": BOTH,
    "noise": BOTH,
    "perturbation": SOLVED,
    "reliability": ("validation.py", "result.py", *SOLVED),
    "soak": ("checkpoint.py", *SOLVED),
    "noisy": (*ESTIMATED, "training"),
    "heldout": ESTIMATED,
    "instruments": MEASURED,
    "faults": MEASURED,
    "newton": (*SOLVED, "training", "newton.py"),
    "hessians": (*SOLVED, "training", "newton.py", "designs.py"),
    "kantorovich": ("linalg.py", "problems", "numerics", "models", "training", "kantorovich.py"),
    "relatives": ("rivals", *BOTH),
}
"""Code of the library that a study's results depend on, in addition to its own modules."""
OWN = {"reliability": ("tests/stress",), "soak": ("tests/stress/soak.py",)}
"""Modules of what is run by `python -m tests.stress`."""


def sources(name: str) -> tuple[str, ...]:
    """Return the files and folders, from the root of the repository, that results/NAME.json depends on.

    Examples
    --------
    >>> sources("encoding")[-2:]
    ('src/algebraformer/training', 'studies/encoding')
    """
    if name in DEPENDS:
        module = f"studies/{name}" if (ROOT / "studies" / name).is_dir() else f"studies/{name}.py"
        return (*(f"{LIBRARY}/{path}" for path in DEPENDS[name]), *OWN.get(name, (module,)))
    if (ROOT / "benchmarks" / f"{name}.py").exists():
        return (*(f"{LIBRARY}/{path}" for path in (*BOTH, "estimation.py")), f"benchmarks/{name}.py")
    return tuple(f"{LIBRARY}/{path}" for path in (*SOLVED, "estimation.py", f"pretrained/{name}"))


@functools.cache
def changed_since(commit: str, paths: tuple[str, ...], root: Path = ROOT) -> tuple[str, ...]:
    """Return which of these files and folders differ from what they were at a commit.

    Raises
    ------
    LookupError
        There is no git, no repository or no such commit in it.
    """
    try:
        command = ["git", "diff", "--name-only", commit, "--", *paths]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LookupError(f"no history of commit {commit} in {root}: {error}") from error
    files = done.stdout.splitlines()
    return tuple(path for path in paths if any(file == path or file.startswith(f"{path}/") for file in files))


def caption(provenance: Mapping[str, Any]) -> str:
    """Return the caption of a table: where its numbers come from.

    Examples
    --------
    >>> caption({"commit": "0123456789abcdef", "processor": "A processor, 2 cores", "threads": 2})
    'Measured at 0123456 on A processor, 2 cores; threads: 2.'
    """
    commit = provenance["commit"]
    at = "outside a repository" if commit is None else f"at {commit[:7]}"
    changed = " with changes that are in no commit" if commit and commit.endswith("+") else ""
    return f"Measured {at}{changed} on {provenance['processor']}; threads: {provenance['threads']}."


def older(results: Path) -> list[str]:
    """Return a line for every result in a folder that is older than code it depends on."""
    lines = []
    for path in sorted(results.glob("*.json")):
        commit = str(json.loads(path.read_text())["provenance"]["commit"]).rstrip("+")
        try:
            changed = changed_since(commit, sources(path.stem))
        except LookupError:
            changed = ("its commit is not in the history",)
        if changed:
            short = [part.removeprefix(f"{LIBRARY}/") for part in changed]
            lines.append(f"{path.stem}, measured at {commit[:7]}: {', '.join(short)}")
    return lines
