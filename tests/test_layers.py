"""The houses and floors of the repository: who may import whom.

Imports run tests -> studies -> algebraformer. In the library a unit (a module, or a folder as a whole) imports from
lower floors alone, and from other units only where `SIDEWAYS` says so. Imports are read with ast, so
those inside functions and `if TYPE_CHECKING` blocks count too.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from algebraformer import io, problems

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "algebraformer"
HOUSES = {"algebraformer": ROOT / "src" / PACKAGE, "studies": ROOT / "studies"}

FLOORS = (
    ("errors", "arrays"),
    (
        "threads",
        "passes",
        "linalg",
        "validation",
        "provenance",
        "writing",
        "forking",
        "progress",
        "extras",
        "_deprecated",
    ),
    ("result", "reporting", "io", "numerics", "metrics"),
    ("problems", "models", "rivals"),
    ("batch", "checkpoint", "autograd", "resampled"),
    ("training", "estimation", "prepared", "solver", "export"),
    (
        "drop_in",
        "nn",
        "evaluation",
        "assessment",
        "noisy_assessment",
        "comparison",
        "verdict",
        "newton",
        "designs",
        "kantorovich",
        "plotting",
        "testing",
        "instruments",
        "bulk",
        "distributed",
    ),
    ("cli", "__main__"),
    ("classical", "lp_norm", "plots", "report", "studies"),  # earlier names
)
SIDEWAYS = {
    ("passes", "threads"),
    ("arrays", "errors"),
    ("linalg", "passes"),
    ("validation", "passes"),
    ("solver", "prepared"),
    ("solver", "estimation"),
    ("__main__", "cli"),
    ("assessment", "verdict"),
    ("assessment", "noisy_assessment"),
    ("noisy_assessment", "comparison"),
    ("noisy_assessment", "evaluation"),
    ("distributed", "bulk"),
    ("instruments", "plotting"),
    ("designs", "newton"),
}
"""Who may import from whom all the same."""
FLOOR = {unit: number for number, floor in enumerate(FLOORS) for unit in floor}


def read_sources(house: str) -> dict[str, str]:
    """Return dotted name: source of every module, packages under their own name; the lazy root is left out.

    A lazy __init__.py says in the stub beside it what it imports.
    """
    sources: dict[str, str] = {}
    for path in sorted(HOUSES[house].rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(HOUSES[house]).with_suffix("").parts
            name = ".".join((house, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            sources[name] = sources.get(name, "") + path.read_text()
    sources.pop(PACKAGE, None)
    return sources


def packages(house: str) -> set[str]:
    """Return the dotted names of the packages, against which relative imports are resolved."""
    folders = (path.parent.relative_to(HOUSES[house]).parts for path in HOUSES[house].rglob("__init__.py"))
    return {".".join((house, *parts)) for parts in folders}


def imports(name: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Yield every dotted name that a module imports; `from a import b` gives a.b, which may be an attribute of a."""
    here = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = here[: len(here) - node.level + 1] if node.level else []
                base = [*base, *(node.module.split(".") if node.module else [])]
                yield from (".".join([*base, alias.name]) for alias in node.names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                yield target


def violations(name: str, source: str, is_package: bool = False) -> list[str]:
    """Return the imports of a module of the library that break the floor rule.

    The root resolves its names lazily to anything on any floor, so importing from it is going through the back door.
    """
    own = name.split(".")[1]
    found = []
    for dotted in imports(name, source, is_package):
        first, *rest = dotted.split(".")
        if first in ("studies", "tests") and name != f"{PACKAGE}.cli.study":  # which looks for a checkout
            found.append(f"{name} imports {dotted}: the library knows no studies and no tests")
        if first != PACKAGE or (rest and rest[0] == own):
            continue
        unit = rest[0] if rest else ""
        if unit not in FLOOR:
            found.append(f"{name} imports {dotted}: import from the module that defines it, not from the root")
        elif FLOOR[unit] >= FLOOR[own] and (own, unit) not in SIDEWAYS:
            found.append(f"{name} imports {dotted}, which is not below it")
    return found


def cycle(sources: Mapping[str, str], package_names: set[str]) -> list[str] | None:
    """Return the modules of an import cycle, or None."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        targets = set()
        for dotted in imports(name, source, name in package_names):
            # `from package import name`: the module of that name if there is one, else the package itself.
            target = dotted if dotted in sources else dotted.rpartition(".")[0]
            targets |= {target} & set(sources)
        graph[name] = targets
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


LIBRARY, STUDIES = read_sources("algebraformer"), read_sources("studies")
LOW = sorted(name for name in LIBRARY if FLOOR.get(name.split(".")[1], 9) <= 1)


def test_every_module_has_a_floor() -> None:
    assert {name.split(".")[1] for name in LIBRARY} == set(FLOOR)


def test_modules_import_only_from_below() -> None:
    assert [line for name in LIBRARY for line in violations(name, LIBRARY[name], name in packages(PACKAGE))] == []


def test_studies_import_no_tests() -> None:
    found = {name: set(imports(name, source, name in packages("studies"))) for name, source in STUDIES.items()}
    assert [(name, d) for name, dotted in found.items() for d in dotted if d.split(".")[0] == "tests"] == []


def test_studies_import_no_other_study() -> None:
    """What several of them need is in the harness."""
    shared = ("harness", "baselines", "claims")
    for name, source in STUDIES.items():
        parts = name.split(".")
        if len(parts) > 1 and parts[1] not in shared:
            found = {
                d.split(".")[1] for d in imports(name, source, name in packages("studies")) if d.startswith("studies.")
            }
            assert found <= {parts[1], "harness", "baselines", "latency_probe"}, name


def test_parts_of_studies_import_no_study() -> None:
    """The harness and the baselines serve all studies."""
    parts = ("studies.harness", "studies.baselines")
    for name, source in STUDIES.items():
        if name.startswith(parts):
            found = {d for d in imports(name, source, name in packages("studies")) if d.startswith("studies.")}
            assert {d for d in found if not d.startswith((*parts, "studies.claims"))} == set(), name


@pytest.mark.parametrize("house", HOUSES)
def test_no_import_cycle(house: str) -> None:
    assert cycle(read_sources(house), packages(house)) is None


def test_low_floors_do_not_mention_torch() -> None:
    found = {name: set(imports(name, LIBRARY[name], name in packages(PACKAGE))) for name in LOW}
    assert [name for name, dotted in found.items() if any("torch" in d.split(".") for d in dotted)] == []


def loaded_by(code: str) -> set[str]:
    """Return the names of the modules that a process has loaded after these statements."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_low_floors_do_not_load_torch() -> None:
    """Not through another package either; and the root loads nothing that needs it."""
    assert "torch" not in loaded_by(f"import {', '.join([PACKAGE, *LOW])}")


def test_solving_loads_no_training_and_no_tables() -> None:
    found = loaded_by("import algebraformer.solver")
    unwanted = ("algebraformer.training", "algebraformer.reporting", "rich", "matplotlib", "threadpoolctl", "torch")
    assert sorted(name for name in found if name.startswith(unwanted)) == []


USE = """
import algebraformer as af
def systems(name, n):
    return af.problems.get(name, n=n).sample(3, seed=1)
for name in ("diffusion-64", "diffusion-64-token"):
    solver, sample = af.LearnedSolver.from_pretrained(name), systems("diffusion", 64)
    assert solver.solve(sample.A, sample.b).certified.all()
    assert solver.predict(sample.A[0], sample.b[0]).shape == (64,)
    assert solver.prepare(sample.A).solve(sample.b).certified.all()
assert af.LearnedSolver.from_pretrained("diffusion-64").operator(sample.A[0]).shape == (64, 64)
assert af.solve(sample.A, sample.b[..., None]).shape == (3, 64, 1)
noisy = systems("deblur", 64)
assert af.LearnedSolver.from_pretrained("deblur-64").estimate(noisy.A, noisy.b).x.shape == (3, 64)
"""
COMMANDS = ("solve {0}/A.npy {0}/b.npy --json", "models --json", "families --json")


def test_using_networks_loads_no_torch() -> None:
    assert "torch" not in loaded_by(USE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_load_no_torch(tmp_path: Path, command: str) -> None:
    system = problems.get("diffusion", n=64).sample(1, seed=1)
    io.write_array(tmp_path / "A.npy", system.A[0])
    io.write_array(tmp_path / "b.npy", system.b[0])
    words = command.format(tmp_path).split()
    assert "torch" not in loaded_by(f"from algebraformer.cli import main; assert main({words!r}) == 0")


# ---------------------------------------------------------------- the rule catches what it should


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linalg", "import algebraformer.checkpoint"),
        ("linalg", "from algebraformer import models"),
        ("linalg", "from .problems import base"),
        ("linalg", "def f():\n    from algebraformer.training.trainer import train"),
        ("linalg", "if TYPE_CHECKING:\n    from algebraformer.solver import LearnedSolver"),
        ("linalg", "import algebraformer as af"),
        ("linalg", "from algebraformer import LearnedSolver"),
        ("linalg", "importlib.import_module('algebraformer.solver')"),
        ("linalg", "from studies.baselines import sparse"),
        ("io", "from algebraformer import numerics"),
        ("problems.base", "from ..models.config import ModelConfig"),
        ("problems.base", "from .. import solver"),
        ("training.loop", "from algebraformer.solver import solve"),
        ("solver", "from algebraformer.training import train"),
        ("plotting", "from algebraformer.cli import main"),
    ],
)
def test_forbidden_imports_are_caught(name: str, source: str) -> None:
    assert len(violations(f"{PACKAGE}.{name}", source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linalg", "import numpy as np\nfrom algebraformer.errors import Status"),
        ("solver", "from algebraformer.estimation import Estimate\nfrom algebraformer import problems"),
        ("problems.base", "from algebraformer.problems.chebyshev import points\nfrom .. import errors"),
        ("models.config", "from algebraformer_extras import solver"),
    ],
)
def test_allowed_imports_are_allowed(name: str, source: str) -> None:
    assert violations(f"{PACKAGE}.{name}", source) == []


def test_relative_imports_of_a_package_start_at_the_package() -> None:
    assert violations(f"{PACKAGE}.models", "from .config import ModelConfig", is_package=True) == []
    assert len(violations(f"{PACKAGE}.models", "from ..solver import solve", is_package=True)) == 1


def test_cycles_are_caught() -> None:
    package = f"{PACKAGE}.models"
    sources = {
        package: "from algebraformer.models.a import A",
        f"{package}.a": "from .b import B",
        f"{package}.b": "def f():\n    from algebraformer.models import A",
    }
    assert set(cycle(sources, {package}) or []) == set(sources)
    assert cycle(sources | {f"{package}.b": "import torch"}, {package}) is None
