"""The command train with a family of one's own, in a file."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import algebraformer as af
from algebraformer import assessment, io
from algebraformer.training import get_recipe, trainer
from study_results import assert_coloured

OWN = """
import dataclasses
import numpy as np
from algebraformer.problems import ProblemFamily

@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled(ProblemFamily):
    n: int = 6
    high: float = 2.0

    def draw(self, rng):
        return {"d": rng.uniform(1, self.high, self.n), "b": rng.standard_normal(self.n)}

    def assemble(self, params):
        return params["d"][:, :, None] * np.eye(self.n) + 0.1, params["b"]

def sampled(rng):
    return rng.uniform(1, 2) * np.eye(5) + 0.1

def constant(rng):
    return np.eye(5) + 0.1
"""
SHORT = ("steps=3", "batch_size=32", "samples=256", "basis_samples=400", "model.n_layer=2", "model.n_embd=16")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file with two families, which this process forgets after the test; reports are made from few systems."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(af.problems.base, "_REGISTRY", dict(af.problems.base._REGISTRY))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(assessment, "Plan", functools.partial(assessment.Plan, systems=20, seconds=0.0, batches=(1, 8)))
    return tmp_path / "own.py"


def test_train_a_family_in_a_file(run, answer, refused, own, tmp_path, monkeypatch):
    arguments = ("train", f"{own}:Scaled", "--output", tmp_path / "run", "--workers", 0)
    arguments += ("--set", *SHORT, "family_settings.high=3.0", "model.n=5")
    code, found = answer(*arguments)
    assert (code, found["finished"], found["report"]) == (0, True, str(tmp_path / "run" / "report.json"))
    worth = found["outcomes"]["assessment.worth-it"]["verdict"]
    assert worth in ("worth it", "not worth it")
    assert ("assessment.payback" in found["outcomes"]) == (worth == "worth it")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (config["name"], config["family"]) == ("scaled", {"name": "scaled", "n": 5, "high": 3.0})
    assert config["recipe"]["model"]["head"]["name"] == "operator"
    written = json.loads((tmp_path / "run" / "report.json").read_text(), parse_constant=pytest.fail)
    assert (written["outcomes"], written["conclusions"]) == (found["outcomes"], found["conclusions"])
    assert_coloured(tmp_path / "run" / "report.png")

    code, out, err = run(*arguments)  # it has ended already: the report is made again
    assert (code, err) == (0, "")
    for words in (
        "on the frozen test set",
        "basis operators",
        "numpy.linalg.solve",
        "orth it for this family",
        "Report: ",
    ):
        assert words in out

    monkeypatch.setattr(af.problems.base, "_REGISTRY", {})  # as in another process
    io.write_system(tmp_path / "system.npz", np.eye(5) + 0.1, np.ones(5))
    code, found = answer("solve", tmp_path / "system.npz", "--model", tmp_path / "run")
    assert (code in (0, 3), found["certified"]) == (True, True)
    assert "unknown family 'scaled'" in (line := refused("evaluate", tmp_path / "run", "--count", 5))
    assert "name its file with --family FILE.py:NAME" in line
    code, found = answer("evaluate", tmp_path / "run", "--count", 5, "--family", f"{own}:Scaled")
    assert (code, found["family"]) == (0, {"name": "scaled", "n": 5, "high": 3.0})


def test_a_lost_report_is_made_again_and_nothing_else(answer, own, tmp_path, monkeypatch):
    arguments = ("train", f"{own}:Scaled", "--output", tmp_path / "run", "--workers", 0, "--set", *SHORT)
    first = answer(*arguments)[1]
    for path in (tmp_path / "run").glob("report.*"):
        path.unlink()
    monkeypatch.setattr("algebraformer.training.trainer.Trainer", None)
    code, found = answer(*arguments)
    assert (code, found["scores"], found["step"]) == (0, first["scores"], 3)
    assert {path.suffix for path in (tmp_path / "run").glob("report.*")} == {".md", ".json", ".png"}


def test_assess(run, answer, refused, own, tmp_path):
    """The report of a training, made again by the command of its own."""
    folder, source = tmp_path / "run", f"{own}:Scaled"
    trained = answer("train", source, "--output", folder, "--workers", 0, "--set", *SHORT)[1]
    code, found = answer("assess", folder, "--family", source, "--output", tmp_path / "assessed")
    assert (code, found["output"]) == (0, str(tmp_path / "assessed" / "report.json"))
    written = {at: json.loads((at / "report.json").read_text()) for at in (folder, tmp_path / "assessed")}
    assert written[tmp_path / "assessed"]["outcomes"] == found["outcomes"]
    for key in ("family", "n", "rank", "systems", "spectrum", "certified", "refinements"):
        assert found[key] == written[folder]["data"][key] == written[tmp_path / "assessed"]["data"][key]
    assert trained["report"] == str(folder / "report.json")
    assert {path.suffix for path in (tmp_path / "assessed").iterdir()} == {".md", ".json", ".png"}

    code, out, err = run("assess", folder, "--family", source)
    assert (code, err) == (0, "")
    assert all(words in out for words in ("basis operators", "numpy.linalg.solve", "orth it for this family"))
    assert "Report:" not in out
    refused("assess", "deer")
    refused("assess", "diffusion-64-token")


def test_reports_without_matplotlib(answer, refused, own, tmp_path, monkeypatch):
    """The figure alone is left out; where a figure is asked for, the command refuses before the work."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it fails
    arguments = ("train", f"{own}:sampled", "--output", tmp_path / "run", "--workers", 0, "--set", *SHORT)
    assert answer(*arguments)[0] == 0
    assert {path.suffix for path in (tmp_path / "run").glob("report.*")} == {".md", ".json"}
    line = refused("newton", own, "--figure", tmp_path / "x.png")
    assert "pip install 'algebraformer[plot]'" in line


def test_a_broken_output_costs_no_result(own, tmp_path):
    """Nobody reads what is printed: the checkpoint, the model and the report are there all the same."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["train", f"{own}:Scaled", "--output", tmp_path / "run", "--workers", "0", "--set", *SHORT]
    words = [sys.executable, "-m", "algebraformer", *map(str, arguments)]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"log.jsonl", "model", "step-000000003", "report.md", "report.json", "report.png"}


def test_a_stopped_training(run, answer, tmp_path, monkeypatch):
    """Every command that trains says where it is and ends with 130."""
    real = trainer.Trainer.train_step

    def stopping(self, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch)

    monkeypatch.setattr(trainer.Trainer, "train_step", stopping)
    arguments = ("train", "quick", "--output", tmp_path / "run", "--workers", 0)
    code, found = answer(*arguments)
    assert (code, found["finished"], found["step"], found["scores"]) == (130, False, 1, {})
    code, out, err = run(*arguments)
    assert (code, err) == (130, "")
    assert "step 2 of" in out
    arguments = ("finetune", "--from", "diffusion-64-token", "--family", "diffusion", "--samples", 3, "--workers", 0)
    assert answer(*arguments, "--output", tmp_path / "tuned")[0] == 130


def test_a_time_limit(answer, refused, tmp_path):
    """A training in pieces ends as one without a limit."""
    settings = ("steps=60", "model.n=8", "model.n_embd=16", "scaler_samples=64", "validation_systems=16")
    arguments = ("train", "quick", "--workers", 0, "--set", *settings)
    code, found = answer(*arguments, "--output", tmp_path / "whole")
    assert code == 0
    handler = signal.getsignal(signal.SIGINT)
    code, piece = answer(*arguments, "steps=100000", "--output", tmp_path / "long", "--time-limit", 0.02)
    assert (code, piece["finished"]) == (130, False)
    assert 0 < piece["step"] < 100_000
    assert (tmp_path / "long" / f"step-{piece['step']:09d}").is_dir()
    pieces = 0
    while pieces < 100:
        code, piece = answer(*arguments, "--output", tmp_path / "pieces", "--time-limit", 0.01)
        pieces += 1
        if code == 0:
            break
        assert code == 130
    assert (piece["finished"], piece["scores"]) == (True, found["scores"])
    assert signal.getsignal(signal.SIGINT) == handler
    for minutes in (0, -1, "inf", "nan"):
        assert "positive" in refused("train", "quick", "--output", tmp_path / "none", "--time-limit", minutes)
    assert not (tmp_path / "none").exists()


def test_a_study_in_pieces(run, tmp_path, monkeypatch):
    """A study that is stopped in a training goes on with that training."""
    recipe = dataclasses.replace(get_recipe("quick"), steps=50, scaler_samples=64, validation_systems=16)
    command, runs = (importlib.import_module(f"studies.harness.{name}") for name in ("command", "runs"))
    monkeypatch.setattr(command, "run", lambda *_: runs.run_once(recipe, tmp_path / "run"))
    arguments = ("study", "spectral", "--output", tmp_path, "--work", tmp_path)
    with monkeypatch.context() as patch:
        real = trainer.Trainer.train_step
        patch.setattr(trainer.Trainer, "train_step", lambda *given: time.sleep(0.05) or real(*given))
        with pytest.raises(KeyboardInterrupt, match="the same command resumes it"):
            run(*arguments, "--time-limit", 0.02)
    [step] = (int(folder.name.removeprefix("step-")) for folder in (tmp_path / "run").glob("step-*"))
    assert 0 < step < 50
    taken = []
    monkeypatch.setattr(trainer.Trainer, "train_step", lambda self, batch: taken.append(self.step) or real(self, batch))
    assert run(*arguments)[0] == 0
    assert taken == list(range(step, 50))


def test_train_a_function_in_a_file(answer, own, tmp_path):
    arguments = ("train", f"{own}:sampled", "--output", tmp_path / "run", "--workers", 0, "--set", *SHORT)
    code, found = answer(*arguments, "--name", "mine")
    assert (code, found["finished"]) == (0, True)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (config["name"], config["family"]) == ("mine", {"name": "sampled", "n": 5})
    code, found = answer("evaluate", tmp_path / "run", "--count", 5, "--family", f"{own}:sampled")
    assert (code, found["solve"]["certified"]) == (0, 1)


def test_a_head_that_is_not_linear_has_no_report(run, own, tmp_path):
    settings = ("steps=3", "samples=256", "model.architecture=transformer", "model.n_layer=1", "model.n_embd=16")
    arguments = ("train", f"{own}:sampled", "--output", tmp_path / "run", "--workers", 0, "--set", *settings)
    code, out, err = run(*arguments, 'model.head={"name": "token"}', "model.n_head=2")
    assert (code, err) == (0, "")
    assert "not linear in b, such as token," in out
    assert "Noisy" not in out
    assert not list((tmp_path / "run").glob("report.*"))


def test_train_a_family_of_one_matrix(answer, own, tmp_path):
    arguments = ("train", f"{own}:constant", "--output", tmp_path / "run", "--workers", 0, "--set", *SHORT)
    code, found = answer(*arguments)
    assert (code, found["finished"]) == (0, True)
    written = json.loads((tmp_path / "run" / "report.json").read_text(), parse_constant=pytest.fail)
    assert written["data"]["behind"] == 0
    assert written["data"]["certified"] == 1


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("absent.py:Scaled", (), "absent.py: no such file; expected FILE.py:NAME"),
        ("own.py", (), "expected FILE.py:NAME, received"),
        ("own.py:Other", (), "own.py has no 'Other'; it defines: Scaled, sampled, constant"),
        ("own.py:np", (), "expected a family, a class of families or a function that samples A, received <module"),
        ("broken.py:Scaled", (), "broken.py cannot be executed: ZeroDivisionError: division by zero"),
        ("own.py:Scaled", ("family_settings.wide=1",), "family 'scaled' has no setting 'wide'"),
        ("own.py:Scaled", ("model.n=0",), "n must be a whole number"),
        ("own.py:Scaled", ("stepz=1",), "received 'stepz=1'"),
        ("own.py:sampled", ("model.n=7",), "sampled.assemble must return shapes"),
    ],
)
def test_train_refuses_files(refused, own, tmp_path, name, changes, words):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    options = ("--set", *changes) if changes else ()
    assert words in refused("train", tmp_path / name, "--output", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()
    if not changes:
        assert words in refused("evaluate", "diffusion-64", "--family", tmp_path / name)
