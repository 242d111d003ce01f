"""The wheel outside the checkout, the examples in docstrings and documents, and what every module must have."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from algebraformer import problems

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "algebraformer"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted(path.relative_to(SOURCE.parent) for path in SOURCE.rglob("*.py"))
DOCUMENTS = sorted(path for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if "_build" not in path.parts)
SHIPPED = [
    "advection-diffusion-64",
    "deblur-64",
    "deer",
    "diffusion-64",
    "diffusion-64-carrier",
    "diffusion-64-token",
    "drt",
    "fredholm-64",
    "gravity-64",
    "lp-filter-32",
    "random-diffusion-64",
    "reaction-diffusion-64",
]
PUBLIC = [
    "LearnedSolver",
    "LearnedSolver.from_pretrained",
    "LearnedSolver.predict",
    "LearnedSolver.solve",
    "Estimate",
    "SolveResult",
    "Status",
    "as_family",
    "assess",
    "checkpoint",
    "designs.minimize",
    "distributed.from_npy",
    "distributed.solve",
    "errors.SingularSystemError",
    "finetune",
    "io.read_system",
    "io.write_system",
    "kantorovich.solve",
    "linalg.measures",
    "models.ModelConfig",
    "newton.minimize_lp",
    "plotting.save_report",
    "pretrained_names",
    "problems.ProblemFamily",
    "problems.Systems",
    "problems.get",
    "problems.names",
    "recipe_for",
    "solve",
    "testing.check_family",
    "train",
    "training.RECIPES",
]


def python(*arguments, **options):
    """Run this Python with these arguments; return the finished process."""
    run = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    python("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with nothing but the wheel's contents; the dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    return folder


OUTSIDE = """
import functools, importlib.metadata, json, sys
import algebraformer as af

early = "torch" in sys.modules
systems = af.problems.get("diffusion", n=64).sample(2, seed=1)
result = af.LearnedSolver.from_pretrained("diffusion-64").solve(systems.A, systems.b)
missing = []
for name in sys.argv[1:]:
    try:
        functools.reduce(getattr, name.split("."), af)
    except AttributeError:
        missing.append(name)
print(json.dumps({
    "file": af.__file__,
    "early": early,
    "versions": [af.__version__, importlib.metadata.version("algebraformer")],
    "names": af.pretrained_names(),
    "commit": af.checkpoint.commit(),
    "certified": result.certified.tolist(),
    "missing": missing,
    "listed": sorted(set(n.split(".")[0] for n in sys.argv[1:]) - set(dir(af))),
}))
"""


@pytest.fixture(scope="module")
def outside(installed, tmp_path_factory):
    """What the installed wheel says of itself, far from the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONWARNINGS": "error"}
    run = python("-c", OUTSIDE, *PUBLIC, cwd=tmp_path_factory.mktemp("elsewhere"), env=environment)
    return json.loads(run.stdout)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"algebraformer-{PROJECT['version']}.dist-info"
    assert {Path(name).parts[0] for name in names} == {"algebraformer", info}
    sources = {str(path.relative_to(SOURCE.parent)) for path in SOURCE.rglob("*.py*") if path.suffix in (".py", ".pyi")}
    weights = {
        f"algebraformer/pretrained/{name}/{file}"
        for name in SHIPPED
        for file in ("model.safetensors", "config.json", "sha256sums")
    }
    assert names >= sources | weights | {"algebraformer/py.typed", f"{info}/licenses/LICENSE"}
    suffixes = {Path(name).suffix for name in names if name.startswith("algebraformer/")} - {""}
    assert suffixes <= {".py", ".pyi", ".typed", ".safetensors", ".json"}


def test_wheel_is_small(wheel):
    """The weights take most of it."""
    assert wheel.stat().st_size <= 23.5e6


def test_few_dependencies():
    """Training, figures and studies need more, by extras; what the tests need is in the extra test."""
    assert len(PROJECT["dependencies"]) <= 8
    extras = PROJECT["optional-dependencies"]
    packages = {name: {re.split(r"[>=]", entry)[0] for entry in entries} for name, entries in extras.items()}
    assert (packages["plot"], packages["train"]) == ({"matplotlib"}, {"torch"})
    assert packages["study"] == {"algebraformer[plot,train]", "mpmath", "scikit-learn", "statsmodels"}
    assert packages["onnx"] == {"algebraformer[train]", "onnx", "onnxruntime", "onnxscript"}
    assert "algebraformer[onnx,study]" in packages["test"]
    assert "algebraformer[study]" in packages["docs"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, built from this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    python("-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (path,) = folder.iterdir()
    return path


def test_the_source_distribution_holds_studies_and_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    wanted = ["studies/harness/study.py", "studies/weights/diffusion-64-transformer/model.safetensors"]
    assert names >= {*wanted, "tests/test_packaging.py", "tests/stress/base.py", "src/algebraformer/py.typed"}


def test_installed_wheel_works_outside_the_checkout(outside, installed):
    assert Path(outside["file"]).is_relative_to(installed)
    assert outside["names"] == SHIPPED
    assert outside["certified"] == [True, True]
    assert outside["commit"] is None
    assert not outside["early"]


def test_versions_agree(outside):
    assert set(outside["versions"]) == {PROJECT["version"]}


def test_public_names(outside):
    assert outside["missing"] == []
    assert outside["listed"] == []


def test_command_of_the_wheel(installed, tmp_path):
    entry = (installed / f"algebraformer-{PROJECT['version']}.dist-info" / "entry_points.txt").read_text()
    assert "algebraformer = algebraformer.__main__:main" in entry
    run = python("-m", "algebraformer", "families", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)})
    assert "reaction-diffusion" in run.stdout


# ---------------------------------------------------------------- modules and documents


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_has_a_docstring(module):
    docstring = ast.get_docstring(ast.parse((SOURCE.parent / module).read_text()))
    assert docstring
    assert docstring[0].isupper() or docstring[0] == "`"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_doctests_of_modules(module):
    parts = module.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_in_documents(path, monkeypatch):
    """The blocks of one document run in order and share their names; families they register are forgotten."""
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(block for block in blocks if ">>>" in block)
    if not text:
        pytest.skip("no examples with prompts in it")
    name = str(path.relative_to(ROOT))
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, name, 0)
    assert doctest.DocTestRunner().run(test).failed == 0
