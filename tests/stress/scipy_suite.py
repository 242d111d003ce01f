"""SciPy's own tests of `scipy.linalg.solve`, unmodified, with `algebraformer.solve` in its place.

This module is a plugin of pytest as well (`-p tests.stress.scipy_suite`): every test runs once for every
network that is asked for. Some are loaded as a user would load them, for systems of 64 unknowns, of which SciPy's tests
have none: they show that nothing breaks where LAPACK answers. Others are stand-ins for every size, which really answer.

SciPy's tests compare to 1e-14, and the tolerance of `solve` is 1e-10 of b by default: a network that only just meets it
fails some of them. The nearly right one is refined beyond it.

SciPy's test_overwrite_args insists that an array which may be overwritten is. The learned path never overwrites any, so
that this test runs with the networks of 64 unknowns alone.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.drop_in import solve
from algebraformer.errors import ConfigurationError, SingularSystemError
from algebraformer.solver import LearnedSolver
from tests import fakes
from tests.stress.base import Check

PLUGIN = "tests.stress.scipy_suite"
TESTS = ("TestSolve", "TestDTypes::test_solve")
OVERWRITING = "test_overwrite_args"
MODULE = "scipy.linalg.tests.test_basic"


def _wrong_head() -> LearnedSolver:
    return fakes.corrupted(fakes.shipped(), fakes.noise)


def _nan_head() -> LearnedSolver:
    return fakes.corrupted(fakes.shipped(), fakes.not_a_number)


OF_64: dict[str, Callable[[], LearnedSolver]] = {
    "diffusion-64": fakes.shipped,
    "diffusion-64 with wrong weights": _wrong_head,
    "diffusion-64 with NaN weights": _nan_head,
}
"""Networks for systems of 64 unknowns."""
ANY_SIZE = {
    "nearly right": fakes.nearly_right,
    "wrong": fakes.WRONG["1e30"],
    "NaN": fakes.WRONG["nan"],
}
"""Stand-ins for systems of every size."""
NETWORKS = (*OF_64, *ANY_SIZE)


def require(*packages: str) -> None:
    """Raise `ConfigurationError` if a package that only tests need is missing."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ConfigurationError(f'{missing[0]} is missing: pip install "algebraformer[test]"')


# ---------------------------------------------------------------- the plugin


@dataclasses.dataclass
class Counts:
    """Results of the tests and methods of the systems in them, for one network."""

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    methods: Counter[str] = dataclasses.field(default_factory=Counter)


COUNTS: dict[str, Counts] = {}


def counted(solver: LearnedSolver, methods: Counter[str]) -> LearnedSolver:
    """Return the solver; it now counts who answers the systems that it is given."""
    whole = solver.solve

    def solve(*arguments: Any, **options: Any) -> Any:
        try:
            result = whole(*arguments, **options)
        except SingularSystemError as error:
            methods.update(np.ravel(error.result.method).tolist())
            raise
        methods.update(np.ravel(result.method).tolist())
        return result

    solver.solve = solve  # type: ignore[method-assign]
    return solver


@functools.cache
def replacement(network: str) -> Callable[..., NDArray[Any]]:
    """Return the replacement of `scipy.linalg.solve`."""
    methods = COUNTS.setdefault(network, Counts()).methods
    if network in OF_64:
        model = counted(OF_64[network](), methods)
        return lambda a, *arguments, **options: solve(a, *arguments, model=model, **options)

    @functools.cache
    def of_size(n: int) -> LearnedSolver:
        return counted(fakes.fake_solver(ANY_SIZE[network], n), methods)

    def any_size(a: Any, *arguments: Any, **options: Any) -> NDArray[Any]:
        n = (*np.shape(a), 1)[-2] if np.ndim(a) > 1 else 1
        return solve(a, *arguments, model=of_size(n or 1), **options)

    return any_size


def pytest_addoption(parser: Any) -> None:
    """Add the options --networks and --counts."""
    parser.addoption("--networks", default=",".join(NETWORKS))
    parser.addoption("--counts")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out what insists on overwriting where the learned path answers."""
    items[:] = [
        item for item in items if not (item.originalname == OVERWRITING and item.callspec.params["network"] in ANY_SIZE)
    ]


def pytest_configure(config: Any) -> None:
    """Register the fixture that runs every test once for each network, with our function in the place of SciPy's."""
    import pytest

    class Fixtures:
        @pytest.fixture(autouse=True, params=config.getoption("--networks").split(","))
        def network(self, request: Any, monkeypatch: Any) -> None:
            monkeypatch.setattr(request.module, "solve", replacement(request.param))

    config.pluginmanager.register(Fixtures())


def pytest_runtest_makereport(item: Any, call: Any) -> None:
    """Count the result of a test."""
    if call.when == "call" or call.excinfo is not None:
        skipped = call.excinfo is not None and call.excinfo.typename in ("Skipped", "XFailed")
        outcome = "passed" if call.excinfo is None else "skipped" if skipped else "failed"
        COUNTS.setdefault(item.callspec.params["network"], Counts()).outcomes[outcome] += 1


def pytest_sessionfinish(session: Any) -> None:
    """Write the counts."""
    if (path := session.config.getoption("--counts")) is not None:
        Path(path).write_text(json.dumps({name: vars(counts) for name, counts in COUNTS.items()}))


# ---------------------------------------------------------------- the check


def check(networks: Sequence[str] = NETWORKS, chosen: str = "", tests: Sequence[str] = TESTS) -> Check:
    """Run SciPy's tests in a process of their own.

    Parameters
    ----------
    networks : sequence of str
        Names among `NETWORKS`.
    chosen : str
        pytest's expression for -k; all tests if empty.
    tests : sequence of str
        Among `TESTS`.
    """
    require("pytest")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-p", PLUGIN, "-p", "no:cacheprovider"]
        command += ["--networks", ",".join(networks), "--counts", str(path), "-k", chosen]
        command += ["--pyargs", *(f"{MODULE}::{name}" for name in tests)]
        source = str(Path(__file__).parents[3])  # where this package is
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((source, os.environ.get("PYTHONPATH", "")))}
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        found = json.loads(path.read_text()) if path.exists() else {}
    failures = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode != 0 and not failures:
        failures = [f"pytest ended with code {run.returncode}: {(run.stdout + run.stderr)[-500:]}"]
    rows = [
        {
            "network": name,
            **{key: found[name]["outcomes"].get(key, 0) for key in ("passed", "skipped", "failed")},
            **{key: found[name]["methods"].get(key, 0) for key in ("learned", "learned+refined", "lapack")},
        }
        for name in networks
        if name in found
    ]
    ran = sum(row[key] for row in rows for key in ("passed", "failed"))
    answered = sum(row["learned"] + row["learned+refined"] for row in rows)
    return Check(
        "SciPy's tests",
        "scipy.linalg's TestSolve and TestDTypes::test_solve pass unmodified, for any output of the network",
        ran,
        failures,
        {
            "skipped upstream": sum(row["skipped"] for row in rows),
            "systems answered by a network": answered,
            "systems given to LAPACK": sum(row["lapack"] for row in rows),
        },
        {"networks": rows},
    )
