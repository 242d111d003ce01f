"""What happens around a training: signals in every part of it, a second one in its folder, a broken terminal, a full
disk."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import algebraformer.training.trainer as loop
from algebraformer import checkpoint
from algebraformer.checkpoint import step_folders
from algebraformer.errors import ConfigurationError
from algebraformer.models import EstimateConfig, ModelConfig, OperatorConfig
from algebraformer.training import Recipe, RunOptions, train
from algebraformer.training.exclusive import LOCK, exclusive
from algebraformer.training.monitor import Monitor, Stopped, Unbreakable
from tests.stress.interruptions import Disturbed, outcome
from tests.training.small import SIZES

OPERATOR = Recipe(
    model=ModelConfig(n=8, head=OperatorConfig(rank=4, n_column=4, n_row=4), architecture="mlp", n_layer=1, n_embd=16),
    steps=20,
    batch_size=8,
    samples=42,
    **SIZES,
)
FRESH = dataclasses.replace(OPERATOR, samples=None)
TOKEN = Recipe(model=ModelConfig(n=8, n_layer=1, n_head=2, n_embd=16), steps=20, batch_size=8, **SIZES)
ESTIMATE = Recipe(
    family="gravity",
    model=ModelConfig(
        n=8, head=EstimateConfig(encoding="column-tikhonov"), architecture="feedback", n_layer=1, n_head=2, n_embd=16
    ),
    steps=20,
    batch_size=8,
    **SIZES,
)
OPTIONS = RunOptions(workers=0, progress=False, log_every=5, validate_every=10)
SHOWN = dataclasses.replace(OPTIONS, progress=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}

    def get(recipe: Recipe) -> dict[str, Any]:
        if repr(recipe) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert train(recipe, folder, OPTIONS).finished
            known[repr(recipe)] = outcome(folder)
        return known[repr(recipe)]

    return get


# ---------------------------------------------------------------- signals


def send_in(monkeypatch: pytest.MonkeyPatch, what: str, number: int) -> list[str]:
    """Send a signal to this process at the first report of a part (the second one of the steps); return the parts."""
    parts: list[str] = []
    real = Monitor.part

    def part(self: Monitor, name: str, *stopping: Any) -> Callable[..., None]:
        report = real(self, name, *stopping)

        def disturbed(*args: Any) -> None:
            parts.append(name)
            if name == what and parts.count(what) == (2 if name == "diffusion" else 1):
                os.kill(os.getpid(), number)
            report(*args)

        return disturbed

    monkeypatch.setattr(Monitor, "part", part)
    return parts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("recipe", "what", "step"),
    [
        (OPERATOR, "basis", 0),
        (OPERATOR, "training set", 0),
        (OPERATOR, "diffusion", 1),
        (OPERATOR, "read-out", 20),
        (OPERATOR, "calibration", 20),
        (FRESH, "training set", 20),
        (TOKEN, "scaler", 0),
        (TOKEN, "scores", 20),
        (ESTIMATE, "calibration", 20),
    ],
)
def test_a_signal_in_any_part(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Callable[[Recipe], dict[str, Any]],
    recipe: Recipe,
    what: str,
    step: int,
    number: signal.Signals,
) -> None:
    expected = undisturbed(recipe)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        parts = send_in(patch, what, number)
        result = train(recipe, tmp_path / "run", dataclasses.replace(OPTIONS, workers=1))
    assert (result.finished, result.step, result.scores) == (False, step, {})
    assert parts[-1] == what
    assert multiprocessing.active_children() == []
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith((".", "model"))]
    assert train(recipe, tmp_path / "run", OPTIONS).finished
    assert outcome(tmp_path / "run") == expected


def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """But one that comes at once, as from a shell and its child, does."""
    with Monitor(show=False) as monitor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert monitor.stop.is_set()
        monkeypatch.setattr("algebraformer.training.monitor.IMPATIENT", -1.0)
        with pytest.raises(KeyboardInterrupt) as raised:
            os.kill(os.getpid(), signal.SIGINT)
        assert raised.type is KeyboardInterrupt
        with pytest.raises(Stopped):
            monitor.part("anything")(0, 1)


OWN = """
import time
import numpy as np

def slow(rng):
    time.sleep(0.02)
    return rng.uniform(1, 2) * np.eye(4) + 0.1
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ctrl_c_while_workers_start(tmp_path: Path) -> None:
    """A terminal sends it to all processes, also to workers that have just been forked."""
    (tmp_path / "own.py").write_text(OWN)
    code = (
        "import sys, algebraformer.training.automatic as a, algebraformer.training.trainer as t;"
        "a.recipe_for = lambda family, report: a.Recipe(family='slow', model=a.ModelConfig(n=4, n_layer=1, n_head=1,"
        "n_embd=4), samples=100_000, steps=9, scaler_samples=2, validation_systems=2);"
        "t.capped_sample_size = lambda size, n: size;"
        "from algebraformer.cli import main; sys.exit(main())"
    )
    command = ["train", f"{tmp_path / 'own.py'}:slow", "--output", str(tmp_path / "run"), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=-1, stderr=-1, start_new_session=True, text=True
    )
    deadline = time.monotonic() + 120
    while not ((tmp_path / "run" / "log.jsonl").exists() and (workers := children(process.pid))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (130, "")
    assert "step 0 of 9" in " ".join(out.split())
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert [folder.name for folder in step_folders(tmp_path / "run")] == ["step-000000000"]


# ---------------------------------------------------------------- one training per folder


def test_a_folder_has_one_training(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        for _ in range(2):
            with pytest.raises(ConfigurationError) as raised:
                train(TOKEN, tmp_path, OPTIONS)
        assert str(tmp_path) in str(raised.value)
        assert f"process {os.getpid()} on {platform.node()}" in str(raised.value)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert train(TOKEN, tmp_path, OPTIONS).finished
    assert not (tmp_path / LOCK).exists()


HOLD = """
import os, sys, time
from pathlib import Path
from algebraformer.training.exclusive import exclusive
with exclusive(Path(sys.argv[1])):
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_killed_training_leaves_no_lock(tmp_path: Path) -> None:
    """Not even while a worker that it forked is still alive."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=-1, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(ConfigurationError, match=f"process {process.pid} on "), exclusive(tmp_path):
            pass
        process.kill()
        process.wait()
        assert (tmp_path / LOCK).exists()
        os.kill(worker, 0)
        with exclusive(tmp_path):
            pass
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)
        process.communicate()


def test_a_finished_run_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(OPERATOR, tmp_path, OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Trainer", None)
        assert train(OPERATOR, tmp_path, OPTIONS) == result
        for folder in step_folders(tmp_path):  # model/ is enough
            for path in folder.iterdir():
                before.pop(path)
                path.unlink()
            before.pop(folder)
            folder.rmdir()
        assert train(OPERATOR, tmp_path, OPTIONS) == result
        with pytest.raises(ConfigurationError):
            train(dataclasses.replace(OPERATOR, seed=1), tmp_path, OPTIONS)
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_damaged_model_is_made_again(tmp_path: Path) -> None:
    result = train(TOKEN, tmp_path, OPTIONS)
    expected = outcome(tmp_path)
    os.truncate(tmp_path / "model" / "model.safetensors", 100)
    (tmp_path / ".model.left-behind").mkdir()
    assert train(TOKEN, tmp_path, OPTIONS) == result
    assert outcome(tmp_path) == expected
    assert not (tmp_path / ".model.left-behind").exists()


# ---------------------------------------------------------------- what a person sees


@pytest.fixture(params=["full", "closed"])
def broken(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A stream that nothing can be written to."""
    if request.param == "full":
        if not Path("/dev/full").exists():
            pytest.skip("needs /dev/full")
        stream = open("/dev/full", "w")  # noqa: SIM115
    else:
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    yield stream
    stream.close()  # raises if something is left in its buffer


@pytest.mark.parametrize("terminal", [False, True])
def test_a_broken_terminal_costs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Callable[[Recipe], dict[str, Any]],
    broken: Any,
    terminal: bool,
) -> None:
    expected = undisturbed(OPERATOR)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # the bar is drawn again and again, by a thread
    monkeypatch.setattr(sys, "stdout", broken)
    assert train(OPERATOR, tmp_path, dataclasses.replace(SHOWN, workers=1)).finished
    assert outcome(tmp_path) == expected


def test_a_stream_goes_on_after_the_bar_has_given_up(tmp_path: Path) -> None:
    """What the bar could not write is dropped; what others write afterwards is their business."""
    with (tmp_path / "file").open("w") as stream:
        bar = Unbreakable(stream)
        bar.write("first ")
        descriptor = os.dup(stream.fileno())
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, stream.fileno())
        bar.flush()
        os.dup2(descriptor, stream.fileno())
        bar.write("second ")
        print("third", file=stream)
        os.close(descriptor)
        os.close(full)
    assert (bar.broken, (tmp_path / "file").read_text()) == (True, "third\n")


def test_every_part_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(OPERATOR, tmp_path, SHOWN)
    out = capsys.readouterr().out
    assert [line.partition("━")[0].strip() for line in out.splitlines() if line.strip()] == [
        "basis", "training set", "diffusion", "read-out", "calibration", "scores",
    ]  # fmt: skip
    for done in ("192/192", "1/1", "20/20", "42/42", "64/64"):  # every sample of the basis is gone through three times
        assert done in out
    assert "systems/s" in out


def test_no_loss_is_shown_before_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Disturbed(TOKEN, tmp_path, SHOWN, at=1, action=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert not run.run().finished
    out = capsys.readouterr().out
    assert "2/20" in out
    assert "nan" not in out
    assert "loss" not in out


# ---------------------------------------------------------------- a full disk


@pytest.mark.parametrize("file", ["optimizers.safetensors", "log.jsonl"])
def test_a_full_disk_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    expected = train(TOKEN, tmp_path / "undisturbed", OPTIONS)
    eager = dataclasses.replace(OPTIONS, checkpoint_seconds=0)
    real = Path.open

    class Full:
        """A file that takes nothing."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def write(self, data: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        def opened(self: Path, *args: Any, **kwargs: Any) -> Any:
            stream = real(self, *args, **kwargs)
            return Full(stream) if self.name == file else stream

        monkeypatch.setattr(checkpoint.Path, "open", opened)

    with pytest.raises(OSError, match=file) as raised:
        Disturbed(TOKEN, tmp_path / "run", eager, at=9, action=fill).run()
    monkeypatch.undo()
    assert raised.value.errno == errno.ENOSPC
    assert Path(raised.value.filename).name == file
    newest = step_folders(tmp_path / "run")[0]
    assert newest.name == "step-000000009"
    checkpoint.load(newest)
    assert not list((tmp_path / "run").glob(".*"))
    assert train(TOKEN, tmp_path / "run", OPTIONS).scores == expected.scores
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")
