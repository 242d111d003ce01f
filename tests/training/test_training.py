"""Training: optimisers, data, and a loop that may be stopped in any way at any moment without changing the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import algebraformer.training.data as data
import algebraformer.training.optim as optim
import algebraformer.training.trainer as loop
from algebraformer import problems
from algebraformer.checkpoint import SUMS, load, step_folders
from algebraformer.errors import CheckpointError, ConfigurationError, TrainingError
from algebraformer.metrics import score
from algebraformer.models import Algebraformer, EstimateConfig, ModelConfig, OperatorConfig
from algebraformer.models.encodings import ENCODINGS
from algebraformer.training import Recipe, RunOptions, Trainer, train
from tests.stress.interruptions import Disturbed, outcome

SIZES: dict[str, Any] = {
    "scaler_samples": 128,
    "basis_samples": 64,
    "readout_samples": 64,
    "calibration_samples": 128,
    "validation_systems": 32,
    "test_systems": 64,
}
"""Samples of a few systems: full ones take longer than the training here."""
SMALL = ModelConfig(n=8, n_layer=1, n_head=2, n_embd=16)
FRESH = Recipe(model=SMALL, steps=60, batch_size=8, **SIZES)
FIXED = Recipe(
    model=dataclasses.replace(SMALL, architecture="lstm"),
    steps=60,
    batch_size=8,
    samples=42,
    optimizer="adamw",
    **SIZES,
)
OPTIONS = RunOptions(workers=0, progress=False, log_every=5, validate_every=20)
OPERATOR = Recipe(
    model=ModelConfig(
        n=8, head=OperatorConfig(rank=4, n_column=4, n_row=4), architecture="mlp", n_layer=2, n_head=1, n_embd=16
    ),
    steps=60,
    batch_size=8,
    samples=42,
    **SIZES,
)
OPERATOR_FRESH = dataclasses.replace(
    OPERATOR, model=dataclasses.replace(OPERATOR.model, architecture="transformer"), samples=None
)
ESTIMATE = Recipe(
    family="gravity",
    family_settings={"m": 10},
    model=ModelConfig(
        n=8,
        head=EstimateConfig(encoding="column-tikhonov", n_equations=10),
        architecture="feedback",
        n_layer=2,
        n_head=2,
        n_embd=16,
    ),
    steps=60,
    batch_size=8,
    **SIZES,
)

every_recipe = pytest.mark.parametrize(
    "recipe",
    [FRESH, FIXED, OPERATOR, OPERATOR_FRESH, ESTIMATE],
    ids=[
        "fresh-muon-transformer",
        "fixed-adamw-lstm",
        "fixed-operator-mlp",
        "fresh-operator-transformer",
        "fresh-estimate-feedback",
    ],
)


def log_records(folder: Path) -> list[dict[str, Any]]:
    """Return the log; NaN and Infinity, which JSON does not have, are errors here."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def crash() -> None:
    raise MemoryError("crash")


# ---------------------------------------------------------------- the loop


def test_a_tiny_network_learns(tiny_run: Path) -> None:
    losses = [record["loss"] for record in log_records(tiny_run) if "loss" in record]
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) / 4
    info = load(tiny_run / "model")[1]
    assert info.scores["normalized_mse"] < 0.3
    assert info.seconds == max(record["seconds"] for record in log_records(tiny_run) if "seconds" in record) > 0
    assert info.threads == torch.get_num_threads()
    validations = [
        record["validation_normalized_mse"] for record in log_records(tiny_run) if "validation_mse" in record
    ]
    assert validations[1] < validations[0] < 1


def test_a_crash_leaves_no_worker(tmp_path: Path) -> None:
    """Not even while the exception, and with it the frame that had the worker, is still held."""
    with pytest.raises(MemoryError, match="crash") as held:
        Disturbed(FRESH, tmp_path, dataclasses.replace(OPTIONS, workers=1), at=2, action=crash).run()
    assert held.tb is not None
    assert multiprocessing.active_children() == []


def test_scores_by_hand() -> None:
    """A fresh network answers zero: every relative error is 1, and mse is the mean square of x."""
    systems = problems.get("diffusion", n=8).sample(21, seed=0)
    expected = {"mse": np.mean(systems.x**2), "normalized_mse": 1, "relative_error_median": 1, "relative_error_95": 1}
    assert score(Algebraformer(SMALL).eval(), systems) == pytest.approx(expected)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], dict[str, Any]]:
    """Outcomes of runs nothing happened to, each made once."""
    known: dict[int, dict[str, Any]] = {}

    def get(recipe: Recipe) -> dict[str, Any]:
        key = hash(repr(recipe))
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert train(recipe, folder, OPTIONS).finished
            known[key] = outcome(folder)
        return known[key]

    return get


Undisturbed = Callable[[Recipe], dict[str, Any]]


@every_recipe
@pytest.mark.parametrize("workers", [0, 1])
def test_runs_are_reproducible(recipe: Recipe, workers: int, tmp_path: Path, undisturbed: Undisturbed) -> None:
    result = train(recipe, tmp_path, dataclasses.replace(OPTIONS, workers=workers))
    assert (result.finished, result.step, result.folder) == (True, 60, tmp_path)
    assert outcome(tmp_path) == undisturbed(recipe)
    assert multiprocessing.active_children() == []
    assert len(step_folders(tmp_path)) <= 2


@every_recipe
def test_stopped_and_resumed_runs_end_the_same(recipe: Recipe, tmp_path: Path, undisturbed: Undisturbed) -> None:
    """Three stops in one run: a signal, a crash after which the newest checkpoint is damaged, the other signal."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run = Disturbed(recipe, tmp_path, OPTIONS, at=7, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run.run() == loop.TrainResult(folder=tmp_path, step=8, finished=False, scores={})
    eager = dataclasses.replace(OPTIONS, checkpoint_seconds=0)
    with pytest.raises(MemoryError, match="crash"):
        Disturbed(recipe, tmp_path, eager, at=25, action=crash).run()
    newest, previous = step_folders(tmp_path)
    assert (newest.name, previous.name) == ("step-000000025", "step-000000024")
    os.truncate(newest / loop.OPTIMIZERS, 100)
    run = Disturbed(recipe, tmp_path, OPTIONS, at=41, action=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run.step == 24  # and the log's line of step 25 goes
    assert not run.run().finished
    assert not (tmp_path / "model").exists()
    assert train(recipe, tmp_path, OPTIONS).finished
    assert outcome(tmp_path) == undisturbed(recipe)
    assert train(recipe, tmp_path, OPTIONS).finished  # once more changes nothing
    assert outcome(tmp_path) == undisturbed(recipe)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


CHILD = """
import json, sys, time
import test_training as t
t.torch.set_num_threads(1)
options = t.dataclasses.replace(t.OPTIONS, workers=1, checkpoint_seconds=0.05)
trainer = t.Disturbed(t.FRESH, sys.argv[1], options, at=-1, action=None)
step = trainer.train_step
trainer.train_step = lambda batch: time.sleep(0.05) or step(batch)
result = trainer.run()
print(json.dumps([result.finished, result.step]))
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_may_be_stopped_and_killed(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """SIGTERM to the whole group saves and reports; kill -9 loses a moment of work and leaves no worker behind."""
    rng, workers, done = random.Random(0), [], [0]
    for number in (signal.SIGTERM, signal.SIGKILL):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], cwd=Path(__file__).parent, stdout=-1, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while not any(folder.name > f"step-{done[-1]:09d}" for folder in step_folders(tmp_path)):
            assert time.monotonic() < deadline, "no checkpoint within a minute"
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        workers += children(child.pid)
        sent = time.monotonic()
        if number == signal.SIGTERM:
            os.killpg(child.pid, number)
        else:
            child.kill()
        output = child.communicate(timeout=60)[0]
        assert time.monotonic() - sent < 60
        if number == signal.SIGTERM:
            finished, step = json.loads(output)
            assert (child.returncode, finished) == (0, False)
            assert step_folders(tmp_path)[0].name == f"step-{step:09d}"
            done.append(step)
        else:
            assert child.returncode == -signal.SIGKILL
    assert train(FRESH, tmp_path, OPTIONS).finished
    assert outcome(tmp_path) == undisturbed(FRESH)
    deadline = time.monotonic() + 15  # a worker looks every 5 s whether its parent lives
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workers) == 2
    assert not any(map(alive, workers))


# ---------------------------------------------------------------- folders that cannot be gone on with


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run stopped after step 3, with two checkpoints."""
    eager = dataclasses.replace(OPTIONS, checkpoint_seconds=0)
    assert (
        not Disturbed(FRESH, tmp_path, eager, at=2, action=lambda: os.kill(os.getpid(), signal.SIGTERM)).run().finished
    )
    return tmp_path


@pytest.mark.parametrize("change", [{"clip": 0.7}, {"steps": 61}, {"family_settings": {"f_modes": 3}}])
def test_another_recipe_needs_another_folder(stopped: Path, change: dict[str, Any]) -> None:
    before = sorted(path.stat().st_mtime_ns for path in stopped.rglob("*"))
    with pytest.raises(ConfigurationError, match="holds a run of another recipe"):
        train(dataclasses.replace(FRESH, **change), stopped, OPTIONS)
    assert sorted(path.stat().st_mtime_ns for path in stopped.rglob("*")) == before


def test_a_run_without_a_readable_checkpoint_is_not_overwritten(stopped: Path) -> None:
    for folder in step_folders(stopped):
        os.truncate(folder / "model.safetensors", 100)
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        Trainer(FRESH, stopped, OPTIONS)
    assert len(step_folders(stopped)) == 2


@pytest.mark.parametrize(
    ("file", "content"),
    [(loop.STATE, b"{}"), (loop.STATE, b'{"step": "x"}'), (loop.STATE, b"[]"), (loop.OPTIMIZERS, b"")],
)
def test_nonsense_with_good_hashes_falls_back_too(stopped: Path, file: str, content: bytes) -> None:
    newest = step_folders(stopped)[0]
    old = hashlib.sha256((newest / file).read_bytes()).hexdigest()
    (newest / file).write_bytes(content)
    (newest / SUMS).write_text((newest / SUMS).read_text().replace(old, hashlib.sha256(content).hexdigest()))
    assert Trainer(FRESH, stopped, OPTIONS).step == 2
    shutil.rmtree(step_folders(stopped)[1])
    with pytest.raises(CheckpointError, match=f"{newest.name}.*(state|valid|object)"):
        Trainer(FRESH, stopped, OPTIONS)


# ---------------------------------------------------------------- steps that are not finite


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(tmp_path: Path) -> None:
    trainer = Trainer(FRESH, tmp_path, OPTIONS)
    batches = data.step_batches(
        data.StepBatches(trainer.family, FRESH, trainer.model.head.example_maker(trainer.model)), 0, 0, False
    )
    trainer.train_step(next(batches))
    A, b, x = next(batches)
    states = [trainer.model.state_dict(), *(optim.flatten_state(one, "") for one in trainer.optimizers)]
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
    record = trainer.train_step((A, b, torch.full_like(x, torch.nan)))
    after = [trainer.model.state_dict(), *(optim.flatten_state(one, "") for one in trainer.optimizers)]
    assert record["skipped"]
    assert trainer.counters.skipped == 1
    for one, other in zip(before, after, strict=True):
        assert one
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not trainer.train_step((A, b, x))["skipped"]
    assert any(not torch.equal(before[0][name], tensor) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("bad", [50, 51])
def test_training_gives_up_after_50_such_steps_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    real = loop.step_batches

    def spoiled(*args: Any) -> Iterator[data.Batch]:
        for step, (A, b, x) in enumerate(real(*args)):
            yield A * (torch.nan if 4 <= step < 4 + bad else 1), b, x

    monkeypatch.setattr(loop, "step_batches", spoiled)
    trainer = Trainer(FRESH, tmp_path, OPTIONS)
    if bad > loop.MAX_SKIPPED:
        with pytest.raises(TrainingError, match="50 steps in a row were not finite"):
            trainer.run()
    else:
        assert trainer.run().finished
    assert trainer.counters.skipped == bad
    skipped = {record["step"]: record for record in log_records(tmp_path) if "loss" in record}
    assert (skipped[50]["skipped"], skipped[50]["loss"]) == (46, None)


# ---------------------------------------------------------------- kinds of runs


@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize("architecture", ["transformer", "lstm", "gru"])
def test_every_kind_of_network_goes_through_the_same_loop(tmp_path: Path, architecture: str, encoding: str) -> None:
    model = dataclasses.replace(SMALL, n=4, architecture=architecture).with_head(encoding=encoding)
    assert train(dataclasses.replace(FRESH, model=model, steps=2), tmp_path, OPTIONS, name="x").finished


@pytest.mark.parametrize(
    "change",
    [{"workers": -1}, {"log_every": 0}, {"validate_every": 0}, {"checkpoint_seconds": -1.0}, {"autocast": True}],
)
def test_impossible_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        RunOptions(**change)


@pytest.mark.parametrize("resident", [False, True])
def test_a_set_on_the_device_needs_no_workers(
    resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed
) -> None:
    """They are there while it is made, and then no more; a larger one is made for each step anew, with the same end."""
    expected = undisturbed(FIXED)
    if not resident:
        monkeypatch.setattr(data, "RESIDENT_BYTES", 0)
    workers = set()
    real = Trainer.train_step

    def step(self: Trainer, batch: data.Batch) -> dict[str, Any]:
        workers.add(len(multiprocessing.active_children()))
        assert (self.stored is not None) == resident
        assert {part.device for part in batch} == {torch.device("cpu")}
        return real(self, batch)

    monkeypatch.setattr(Trainer, "train_step", step)
    assert train(FIXED, tmp_path, dataclasses.replace(OPTIONS, workers=1)).finished
    assert workers == ({0} if resident else {1})
    assert outcome(tmp_path) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", [FIXED, OPERATOR, ESTIMATE], ids=["fixed", "operator", "estimate"])
def test_a_run_on_cuda(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixed set lies on the device; the run stops, goes on, and its network solves on the CPU."""
    options = dataclasses.replace(OPTIONS, device="cuda")
    run = Disturbed(recipe, tmp_path, options, at=20, action=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not run.run().finished
    assert (run.stored is None) == (recipe.samples is None)
    assert run.stored is None or {part.device.type for part in run.stored} == {"cuda"}
    result = train(recipe, tmp_path, options)
    assert (result.finished, result.step) == (True, recipe.steps)
    cpu = train(recipe, tmp_path / "cpu", OPTIONS)
    assert result.scores["normalized_mse"] == pytest.approx(cpu.scores["normalized_mse"], rel=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_autocast_on_cuda(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, device="cuda", autocast=True)
    result = train(dataclasses.replace(FRESH, steps=200, batch_size=32), tmp_path, options)
    assert result.scores["normalized_mse"] < 0.5


# ---------------------------------------------------------------- torch.compile


def first_steps(folder: Path, options: RunOptions) -> list[float]:
    """Return the losses of the first two steps."""
    trainer = Trainer(OPERATOR, folder, options)
    batches = data.step_batches(
        data.StepBatches(trainer.family, OPERATOR, trainer.model.head.example_maker(trainer.model)), 0, 0, False
    )
    return [float(trainer.train_step(next(batches))["loss"]) for _ in range(2)]


def test_compile_goes_through_torch_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's backend that compiles nothing, since the other one takes a C++ compiler and long."""
    real, graphs = torch.compile, []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function: real(function, backend=backend))
    plain = first_steps(tmp_path / "plain", OPTIONS)
    assert not graphs
    assert first_steps(tmp_path / "compiled", dataclasses.replace(OPTIONS, compile=True)) == pytest.approx(plain)
    assert graphs


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_training(tmp_path: Path) -> None:
    plain = first_steps(tmp_path / "plain", OPTIONS)
    assert first_steps(tmp_path / "compiled", dataclasses.replace(OPTIONS, compile=True)) == pytest.approx(plain, 1e-4)
