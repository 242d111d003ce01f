"""The floor rule of the design: a module imports only from lower floors or from earlier siblings on its own floor.

Imports are read with ast, so those inside functions and `if TYPE_CHECKING` blocks count too. Inside a package the
order is free, but there must be no cycle.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "algebraformer"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

FLOORS = {
    0: ("errors", "linalg", "checked_input", "provenance", "result", "forking", "writing"),
    1: ("untrusted", "matrix_market", "matlab5", "matlab", "numpy_files", "io", "lp_norm", "problems", "classical"),
    2: ("models",),
    3: ("checkpoint",),
    4: ("training", "estimation", "learned_answers", "solver"),
    5: ("newton", "kantorovich"),
    6: ("studies",),
    7: (
        "paper_claims",
        "evidence",
        "report",
        "figure_parts",
        "operator_figure",
        "latency_figure",
        "spectral_figure",
        "study_figures",
        "encoding_figure",
        "attention_figure",
        "transfer_figure",
        "certificate_figure",
        "condition_figure",
        "reliability_figure",
        "noisy_figure",
        "estimate_figure",
        "newton_figure",
        "kantorovich_figure",
        "plots",
        "cli_base",
        "cli_files",
        "cli_estimate",
        "cli_training",
        "cli_newton",
        "cli",
        "__main__",
    ),
}
ORDER = [unit for floor in FLOORS.values() for unit in floor]


def read_sources() -> dict[str, str]:
    """Return dotted name: source of every module, packages under their own name; the lazy root is left out.

    A lazy __init__.py says in the stub beside it what it imports.
    """
    sources: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(SOURCE).with_suffix("").parts
            name = ".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))
            sources[name] = sources.get(name, "") + path.read_text()
    del sources[PACKAGE]
    return sources


def packages() -> set[str]:
    """Return the dotted names of the packages, against which relative imports are resolved."""
    return {".".join((PACKAGE, *path.parent.relative_to(SOURCE).parts)) for path in SOURCE.rglob("__init__.py")}


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


def unit_of(dotted: str) -> str | None:
    """Return which entry of FLOORS a dotted name belongs to: "" for the root itself, None for other packages."""
    first, *rest = dotted.split(".")
    if first != PACKAGE:
        return None
    return rest[0] if rest and rest[0] in ORDER else ""


def violations(name: str, source: str, is_package: bool = False) -> list[str]:
    """Return the imports of a module that break the floor rule.

    The root resolves its names lazily to anything on any floor, so importing from it is going through the back door.
    """
    own = name.split(".")[1]
    found = []
    for dotted in imports(name, source, is_package):
        unit = unit_of(dotted)
        if unit == "":
            found.append(f"{name} imports {dotted}: import from the module that defines it, not from the root")
        elif unit is not None and unit != own and ORDER.index(unit) >= ORDER.index(own):
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


SOURCES = read_sources()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_module_imports_only_from_below(name: str) -> None:
    assert name.split(".")[1] in ORDER, f"{name} has no floor: add it to the design and to FLOORS"
    assert violations(name, SOURCES[name], name in packages()) == []


def test_no_import_cycle() -> None:
    assert cycle(SOURCES, packages()) is None


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if unit_of(name) in FLOORS[0] + FLOORS[1]))
def test_low_floors_do_not_mention_torch(name: str) -> None:
    found = set(imports(name, SOURCES[name], name in packages()))
    assert not {dotted for dotted in found if "torch" in dotted.split(".")}


def test_low_floors_do_not_load_torch() -> None:
    """Not through another package either; and the root loads nothing that needs it."""
    modules = [PACKAGE, *sorted(name for name in SOURCES if unit_of(name) in FLOORS[0] + FLOORS[1])]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# ---------------------------------------------------------------- the rule catches what it should


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linalg", "import algebraformer.checkpoint"),
        ("linalg", "from algebraformer import models"),
        ("linalg", "from .problems import base"),
        ("linalg", "def f():\n    from algebraformer.training.loop import train"),
        ("linalg", "if TYPE_CHECKING:\n    from algebraformer.solver import LearnedSolver"),
        ("linalg", "import algebraformer as af"),
        ("linalg", "from algebraformer import LearnedSolver"),
        ("linalg", "importlib.import_module('algebraformer.solver')"),
        ("io", "from algebraformer import classical"),
        ("problems.base", "from ..models.config import ModelConfig"),
        ("problems.base", "from .. import solver"),
        ("training.loop", "from algebraformer.solver import solve"),
        ("report", "from algebraformer.cli import main"),
    ],
)
def test_forbidden_imports_are_caught(name: str, source: str) -> None:
    assert len(violations(f"{PACKAGE}.{name}", source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linalg", "import numpy as np\nfrom algebraformer.errors import Status"),
        ("solver", "from algebraformer.training import train\nfrom algebraformer import problems"),
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
