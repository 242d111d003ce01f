"""Training on several processes: the same run as on one, whoever stops it and however many go on with it."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import algebraformer.training.trainer as loop
from algebraformer import cli
from algebraformer.checkpoint import load, step_folders
from algebraformer.errors import ConfigurationError, TrainingError
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.training import RECIPES, Recipe, RunOptions, Trainer, train
from algebraformer.training.exclusive import exclusive
from algebraformer.training.options import TrainResult
from algebraformer.training.processes import Processes, joined, launched, own_device
from tests.training.small import SIZES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

TOKEN = Recipe(model=ModelConfig(n=8, n_layer=1, n_head=2, n_embd=16), steps=20, batch_size=9, **SIZES)
PAPER = dataclasses.replace(
    RECIPES["paper"], model=dataclasses.replace(TOKEN.model, n_layer=2), samples=42, steps=20, batch_size=8, **SIZES
)
OPERATOR = dataclasses.replace(
    TOKEN,
    model=ModelConfig(n=8, head=OperatorConfig(rank=4, n_column=4, n_row=4), architecture="mlp", n_layer=2, n_embd=16),
    samples=42,
)
OPTIONS = RunOptions(workers=0, progress=False, log_every=1, validate_every=10, checkpoint_seconds=0)
FINISHED, STOPPED, ENDED, REFUSED, CRASHED = 0, 3, 4, 5, 6
"""How a process ends."""
TIMING = ("seconds", "samples_per_second", "data_wait")
ROUNDING = 2e-4
"""Relative: sums of one batch in another order differ by 1e-7, and twenty steps of Muon make a hundred times that."""


def ends_as(call: Callable[[], TrainResult]) -> int:
    """Return how a training ended."""
    try:
        return FINISHED if call().finished else STOPPED
    except TrainingError:
        return ENDED
    except ConfigurationError:
        return REFUSED


def start(count: int, call: Callable[[], TrainResult]) -> list[Any]:
    """Start processes as torchrun does, but forked: they have imported everything already."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        os.environ.update(
            TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(count),
            LOCAL_WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank),
        )  # fmt: skip
        code = CRASHED
        try:
            code = ends_as(call)
        finally:
            os._exit(code)

    processes = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    return processes


def ended(processes: list[Any]) -> list[int]:
    """Return the exit codes of all processes; they have a minute."""
    deadline = time.monotonic() + 60
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def run(
    count: int, recipe: Recipe, folder: Path, at: int = -1, action: Callable[[int], None] = lambda rank: None
) -> Any:
    """Train on several processes; before step `at` each of them does something. Return the exit codes."""

    def call() -> TrainResult:
        real = Trainer.train_step

        def step(self: Trainer, batch: Any) -> Any:
            if self.step == at:
                action(self.processes.rank)
            return real(self, batch)

        loop.Trainer.train_step = step  # type: ignore[method-assign]  # in the child alone
        return train(recipe, folder, OPTIONS)

    return ended(start(count, call))


def log_records(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMING} for record in records]


def assert_same_run(folder: Path, other: Path) -> None:
    """Compare two finished runs to rounding: every line of the log, the weights, the scores."""
    records, expected = log_records(folder), log_records(other)
    assert [list(record) for record in records] == [list(record) for record in expected]
    for record, wanted in zip(records, expected, strict=True):
        assert record == pytest.approx(wanted, rel=ROUNDING)
    arrays, wanted_arrays = (
        safetensors.numpy.load_file(step_folders(path)[0] / "model.safetensors") for path in (folder, other)
    )
    assert arrays.keys() == wanted_arrays.keys()
    for name, array in arrays.items():
        scale = np.abs(wanted_arrays[name]).max(initial=0)
        np.testing.assert_allclose(array, wanted_arrays[name], rtol=0, atol=ROUNDING * scale, err_msg=name)
    assert load(folder / "model")[1].scores == pytest.approx(load(other / "model")[1].scores, rel=10 * ROUNDING)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """Folders of runs on this process alone, each made once."""
    known: dict[str, Path] = {}

    def get(recipe: Recipe) -> Path:
        if repr(recipe) not in known:
            folder = known[repr(recipe)] = tmp_path_factory.mktemp("alone")
            assert train(recipe, folder, OPTIONS).finished
        return known[repr(recipe)]

    return get


Alone = Callable[[Recipe], Path]


@pytest.mark.parametrize("recipe", [TOKEN, PAPER, OPERATOR], ids=["fresh", "paper", "operator"])
def test_two_processes_train_as_one_does(recipe: Recipe, tmp_path: Path, alone: Alone) -> None:
    """Shares of batches of nine are not of equal size."""
    expected = alone(recipe)
    assert run(2, recipe, tmp_path) == [FINISHED, FINISHED]
    assert_same_run(tmp_path, expected)
    assert {path.name for path in tmp_path.iterdir()} == {
        "log.jsonl", "model", "step-000000019", "step-000000020",
    }  # fmt: skip
    assert run(2, recipe, tmp_path) == [FINISHED, FINISHED]  # once more changes nothing


def test_a_signal_to_one_stops_all_and_others_go_on(tmp_path: Path, alone: Alone) -> None:
    """Two processes, then three, then one."""

    def stop(rank: int) -> None:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(2, TOKEN, tmp_path, 6, stop) == [STOPPED] * 2
    assert step_folders(tmp_path)[0].name == "step-000000007"
    assert run(3, TOKEN, tmp_path, 12, stop) == [STOPPED] * 3
    assert step_folders(tmp_path)[0].name == "step-000000013"
    assert train(TOKEN, tmp_path, OPTIONS).finished
    assert_same_run(tmp_path, alone(TOKEN))


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_run(killed: int, tmp_path: Path, alone: Alone) -> None:
    def kill(rank: int) -> None:
        if rank == killed:
            os.kill(os.getpid(), signal.SIGKILL)

    codes = run(2, TOKEN, tmp_path, 9, kill)
    assert (codes[killed], codes[1 - killed]) == (-signal.SIGKILL, ENDED)
    assert step_folders(tmp_path)[0].name == "step-000000009"
    assert not (tmp_path / "model").exists()
    assert run(2, TOKEN, tmp_path) == [FINISHED] * 2
    assert_same_run(tmp_path, alone(TOKEN))


def test_what_the_first_process_cannot_do_ends_all(tmp_path: Path) -> None:
    with exclusive(tmp_path / "in use"):
        assert run(2, TOKEN, tmp_path / "in use") == [REFUSED, ENDED]
    assert train(TOKEN, tmp_path / "other", OPTIONS).finished
    assert run(2, dataclasses.replace(TOKEN, clip=0.5), tmp_path / "other") == [REFUSED, REFUSED]


def test_the_first_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured for a family's recipe could be another in every process, and so could a basis."""

    def recipe_for(*_: Any) -> Recipe:
        return dataclasses.replace(TOKEN, steps=2 + launched()[0], seed=launched()[0])

    monkeypatch.setattr(loop, "recipe_for", recipe_for)
    family = TOKEN.problem_family()

    def call() -> TrainResult:
        result = train(family, tmp_path, OPTIONS)
        assert (result.step, result.scores) == (2, load(tmp_path / "model")[1].scores)
        return result

    assert ended(start(2, call)) == [FINISHED, FINISHED]
    assert load(tmp_path / "model")[1].recipe["seed"] == 0


# ---------------------------------------------------------------- without other processes


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [7, 64])
def test_shares_are_a_partition_of_a_batch(count: int, size: int) -> None:
    shares = [range(size)[Processes(rank=rank, count=count).share(size)] for rank in range(count)]
    assert [index for share in shares for index in share] == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_has_a_system_for_everyone(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="10 processes share batches of 9 systems"):
        Trainer(TOKEN, tmp_path, OPTIONS, processes=Processes(count=10))


def test_one_process_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")  # of some other launcher
    monkeypatch.setenv("WORLD_SIZE", "4")
    with joined("cpu") as processes:
        assert processes == Processes("cpu", 0, 1)
    assert not torch.distributed.is_initialized()


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (own_device("cpu"), own_device("cuda"), chosen) == ("cpu", "cuda:1", ["cuda:1"])
    with pytest.raises(ConfigurationError, match="received 'cuda:0'"):
        own_device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigurationError, match=r"3 processes .* found 2"):
        own_device("cuda")


# ---------------------------------------------------------------- the command, started by torchrun

SETTINGS = ("batch_size=8", "model.n=8", "model.n_layer=1", "model.n_embd=16", "scaler_samples=64", "test_systems=32")


def torchrun(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "algebraformer", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), stdout=-1, stderr=-1, text=True, env=environment)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_command(tmp_path: Path) -> None:
    """One process is killed in the middle: the other one says so in a line, and the run ends."""
    arguments = ("train", "quick", "--output", tmp_path / "run", "--json", "--set", *SETTINGS)
    process = torchrun(*arguments, "steps=100000")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "log.jsonl").exists() or not (tmp_path / "run" / "log.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    ours = [line for line in err.splitlines() if line.startswith("algebraformer:")]
    assert (process.returncode != 0, out, len(ours)) == (True, "", 1)
    assert err.count("Traceback") == err.count("ChildFailedError(")  # torchrun's own report


def test_the_first_process_speaks_for_all(tmp_path: Path) -> None:
    """Mistakes are everyone's, and so is the result: one line of each on the terminal."""

    def command(*words: str) -> TrainResult:
        arguments = [
            "train",
            "quick",
            "--output",
            str(tmp_path / "run"),
            "--workers",
            "0",
            "--json",
            "--set",
            *SETTINGS,
        ]
        with (tmp_path / f"{len(words)}-{launched()[0]}").open("w") as sys.stdout:
            sys.stderr = sys.stdout
            code = cli.main([*arguments, "steps=2", *words])
        assert code == (cli.BAD_INPUT if words else cli.DONE)
        return TrainResult(folder=tmp_path, step=2, finished=True, scores={})

    for words in ((), ("family=absent",)):
        assert ended(start(2, lambda words=words: command(*words))) == [FINISHED, FINISHED]
    files = {path.name: path.read_text().splitlines() for path in tmp_path.iterdir() if path.is_file()}
    assert {name: len(lines) for name, lines in files.items()} == {"0-0": 1, "0-1": 0, "1-0": 1, "1-1": 0}
    assert json.loads(files["0-0"][0])["finished"]
    assert "'absent'" in files["1-0"][0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus(tmp_path: Path) -> None:
    settings = ("--set", *SETTINGS, "samples=64", "steps=100")
    process = torchrun("train", "quick", "--output", tmp_path, "--device", "cuda", "--json", *settings)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["scores"]["normalized_mse"] < 1
