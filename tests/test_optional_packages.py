"""The library without the packages of its extras: all but figures and studies works, and these say what they need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algebraformer import io, problems

BLOCKED = ("matplotlib", "mpmath", "sklearn", "statsmodels")
WITHOUT = f"""
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        # torch needs SymPy, which needs mpmath, and it looks which other packages there are.
        others = frame.f_globals["__name__"].startswith(("sympy", "mpmath", "torch"))
        if name.partition(".")[0] in {BLOCKED} and not others:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""
USE = """
import algebraformer as af
from algebraformer import assessment, evaluation
from algebraformer.models import EstimateConfig, ModelConfig, OperatorConfig
from algebraformer.training import Recipe, RunOptions

quiet = RunOptions(progress=False, workers=0)
systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
solver = af.LearnedSolver.from_pretrained("diffusion-64")
assert solver.solve(systems.A, systems.b).certified.all()
assert "normalized_mse" in evaluation.evaluate(solver, systems)["network"]

noisy = af.problems.get("deblur", n=64).sample(2, seed=1)
assert af.LearnedSolver.from_pretrained("deblur-64").estimate(noisy.A, noisy.b).x.shape == (2, 64)

head = OperatorConfig(rank=8, n_column=8, n_row=8)
model = ModelConfig(n=8, architecture="mlp", head=head, n_layer=1, n_embd=16)
assert af.train(Recipe(model=model, samples=256, steps=3, batch_size=32), "operator", quiet).finished
head = EstimateConfig(encoding="column-tikhonov", n_equations=8)
model = ModelConfig(n=8, architecture="feedback", head=head, n_layer=1, n_head=1, n_embd=8)
recipe = Recipe(family="deblur", model=model, samples=256, steps=3, batch_size=32)
assert af.train(recipe, "estimate", quiet).finished

plan = assessment.Plan(systems=20, contractions=8, batches=(1,), seconds=0.0)
report = af.assess("operator", plan=plan)
print(af.plotting.save_report(report, "report", command="a test"))
try:
    af.plotting.assessment_figure(report.data)
except af.errors.MissingExtraError as error:
    print(error)
"""
MESSAGE = "a figure needs matplotlib: pip install 'algebraformer[plot]'"


def without(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import the packages of the extras."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_packages_are_blocked(tmp_path: Path) -> None:
    for name in BLOCKED:
        assert "ModuleNotFoundError" in without(f"import {name}", tmp_path).stderr


def test_solving_estimating_training_and_assessing(tmp_path: Path) -> None:
    run = without(USE, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["report/report.json", MESSAGE]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.json", "report.md"]
    page = (tmp_path / "report" / "report.md").read_text()
    assert MESSAGE in page
    assert "report.png" not in page


COMMAND = "import sys; from algebraformer.cli import main; sys.exit(main())"


def test_a_figure_is_refused_before_the_work_begins(tmp_path: Path) -> None:
    systems = problems.get("deblur", n=64).sample(1, seed=0)
    io.write_array(tmp_path / "A.npy", systems.A[0])
    io.write_array(tmp_path / "b.npy", systems.b[0])
    files = ("solve", "A.npy", "b.npy", "--model", "deblur-64", "--output", "x.npy")
    run = without(COMMAND, tmp_path, *files, "--figure", "x.png")
    assert (run.returncode, run.stderr) == (2, f"algebraformer: {MESSAGE}\n")
    assert not (tmp_path / "x.npy").exists()
    assert without(COMMAND, tmp_path, *files, "--json").returncode == 0
    assert np.load(tmp_path / "x.npy").shape == (64,)


def test_a_report_without_a_figure(tmp_path: Path) -> None:
    """`algebraformer train` of one's own family: the report is there, and says why it has no figure."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef mine(rng):\n    return np.eye(6) + rng.uniform(0, 0.1, (6, 6))\n"
    )
    code = "from algebraformer.assessment import Plan\nPlan.__init__.__kwdefaults__.update(systems=20, seconds=0.0)\n"
    changes = ("steps=3", "samples=256", "batch_size=32", "model.n_layer=1")
    run = without(code + COMMAND, tmp_path, "train", "mine.py:mine", "--output", "run", "--json", "--set", *changes)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["report"] == "run/report.json"
    assert MESSAGE in (tmp_path / "run" / "report.md").read_text()
    assert not (tmp_path / "run" / "report.png").exists()


@pytest.mark.parametrize("name", ["latency", "operator"])
def test_studies_say_what_they_need(tmp_path: Path, name: str) -> None:
    run = without(COMMAND, tmp_path, "study", name)
    assert run.returncode == 2
    assert "pip install algebraformer[study]" in run.stderr


# ---------------------------------------------------------------- torch

WITHOUT_ONE = """
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == HIDDEN else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""
NO_TORCH, NO_DASK = (f"HIDDEN = {name!r}{WITHOUT_ONE}" for name in ("torch", "dask"))
SOLVE = """
import algebraformer as af
from algebraformer import checkpoint, evaluation, models
from algebraformer.errors import MissingExtraError

systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
solver = af.LearnedSolver.from_pretrained("diffusion-64")
assert solver.solve(systems.A, systems.b).certified.all()
assert solver.operator(systems.A[0]).shape == (64, 64)
assert evaluation.evaluate(solver, systems)["solve"]["certified"] == 1
checkpoint.save("again", solver.network, solver.info)
assert checkpoint.load_network("again")[0].parameter_count() == solver.network.parameter_count()
for use in (
    lambda: af.train("diffusion-64", "run"),
    lambda: af.finetune("diffusion-64", systems, "run"),
    lambda: models.Algebraformer,
    lambda: models.register_head,
    lambda: solver.model,
    lambda: af.nn,
    lambda: checkpoint.load("again"),
    lambda: af.LearnedSolver.from_pretrained("diffusion-64", device="cuda"),
):
    try:
        use()
    except MissingExtraError as error:
        assert isinstance(error, ImportError)
        print(error)
"""
TRAIN_MESSAGE = "needs torch: pip install 'algebraformer[train]'"


def test_without_torch(tmp_path: Path) -> None:
    """Networks answer; what needs torch says so in one typed error."""
    run = without(NO_TORCH + SOLVE, tmp_path)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 8
    assert all(line.endswith(TRAIN_MESSAGE) for line in lines)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("train", "diffusion-64", "--output", "run"), 2), (("info", "--json"), 0), (("models", "--json"), 0)],
)
def test_commands_without_torch(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    run = without(NO_TORCH + COMMAND, tmp_path, *words)
    assert (run.returncode, run.stderr) == (code, f"algebraformer: training {TRAIN_MESSAGE}\n" if code else "")


# ---------------------------------------------------------------- dask

BULK = """
import numpy as np
import algebraformer as af
from algebraformer.errors import MissingExtraError

for use in (lambda: af.distributed.solve(None, None), lambda: af.distributed.from_npy("A.npy")):
    try:
        use()
    except MissingExtraError as error:
        print(error)
"""
DASK_MESSAGE = "algebraformer.distributed needs dask: pip install 'algebraformer[dask]'"


def test_without_dask(tmp_path: Path) -> None:
    """Dask arrays need it; workers on one machine do not."""
    run = without(NO_DASK + BULK, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [DASK_MESSAGE] * 2
    systems = problems.get("diffusion", n=64).sample(3, seed=0)
    np.savez(tmp_path / "systems.npz", A=systems.A, b=systems.b)
    words = ("solve", "systems.npz", "--workers", "1", "--output", "solved", "--json")
    run = without(NO_DASK + COMMAND, tmp_path, *words)
    assert json.loads(run.stdout)["certified"] == 3, run.stderr
