"""A training that is killed, stopped, or finds the disk full or read-only: it goes on and ends with the same bits.

All of it happens in a process of its own, which imports torch once and forks for every training: a child is killed or
stopped at a random moment, or something happens to its file system at one step. Then the newest or the previous
checkpoint has to load, no older than what had been there, and in the end the same command has to leave the same
bytes as a run to which nothing happened.

The full disk and the read-only folder are a small file system in memory that the process mounts in a namespace of its
own (`unshare`), since the superuser may write to any folder whatever its mode. Where that is not possible, a limit on
the size of files and an error in place of the call to the system stand in for them, and the counts say so.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from algebraformer.checkpoint import read_folder, step_folders, unpack
from algebraformer.errors import CheckpointError
from algebraformer.models import ModelConfig
from algebraformer.training import Recipe, RunOptions, Trainer
from algebraformer.training.data import Batch
from algebraformer.training.monitor import Stopped
from algebraformer.training.trainer import OPTIMIZERS, RNG, STATE
from tests.stress.base import Check

RECIPE = Recipe(model=ModelConfig(n=8, n_layer=1, n_head=2, n_embd=16), steps=24, batch_size=8)
OPTIONS = RunOptions(workers=0, progress=False, log_every=5, validate_every=20, checkpoint_seconds=0.0)
TIMING = ("seconds", "samples_per_second", "data_wait")
AT = 8
"""The step at which something happens to the file system."""
MEGABYTES = 4
"""Size of the file system in memory."""
FINISHED, STOPPED, NO_SPACE, CRASHED = 0, 3, 7, 9
"""How a child ends."""
NAMESPACE = ("unshare", "-Urm")


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything a finished run leaves but for timings: weights, optimisers, counters, log, scores."""
    newest = step_folders(folder)[0]
    optimizers = safetensors.torch.load_file(newest / OPTIMIZERS)
    optimizers.pop(RNG)  # nothing in training draws from it
    state = json.loads((newest / STATE).read_text())
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (newest / "model.safetensors").read_bytes(),
        "final": (folder / "model" / "model.safetensors").read_bytes(),
        "optimizers": {name: tensor.numpy().tobytes() for name, tensor in optimizers.items()},
        "state": {name: state[name] for name in ("step", "skipped")},
        "log": [{k: v for k, v in record.items() if k not in TIMING} for record in records],
        "scores": json.loads((folder / "model" / "config.json").read_text())["scores"],
    }


class Disturbed(Trainer):
    """A run to which something happens at the beginning of one step."""

    def __init__(self, *args: Any, at: int, action: Callable[[], object], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at, self.action = at, action

    def train_step(self, batch: Batch) -> dict[str, Any]:
        """Take a step."""
        if self.step == self.at:
            self.action()
        return super().train_step(batch)


# ---------------------------------------------------------------- in the process of its own


def started(folder: Path, action: Callable[[], object] | None = None) -> int:
    """Fork a child that trains, or goes on, in this folder; return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        run = Disturbed(RECIPE, folder, OPTIONS, at=AT if action else -1, action=action or time.monotonic)
        code = FINISHED if run.run().finished else STOPPED
    except Stopped:  # before there was anything to save; `train` says so
        code = STOPPED
    except OSError as error:
        code = NO_SPACE if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EROFS) else CRASHED
    except BaseException:  # noqa: BLE001 the child must end here, whatever happened
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for_progress(pid: int, folder: Path) -> None:
    """Wait until a child has written a checkpoint, or has ended."""
    before = step_folders(folder)[:1]
    while step_folders(folder)[:1] == before:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint if it loads, of the previous one if not, -1 if there is none.

    Raises `CheckpointError` if there are checkpoints and neither loads.
    """
    found = step_folders(folder)[:2]
    for number, path in enumerate(found):
        try:
            unpack(read_folder(path), str(path))
            return int(path.name.removeprefix("step-"))
        except CheckpointError:
            if number == len(found) - 1:
                raise
    return -1


class Attack:
    """The disturbances, each on runs in folders of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.rng = root, random.Random(0)
        self.failures: list[str] = []
        self.counts: Counter[str] = Counter()
        begin = time.monotonic()
        self.must(ended(started(root / "undisturbed")) == FINISHED, "a run to which nothing happens does not finish")
        self.span = time.monotonic() - begin
        self.expected = outcome(root / "undisturbed")

    def must(self, holds: bool, text: str) -> None:
        """Note a failure."""
        if not holds:
            self.failures.append(text)

    def loads(self, folder: Path, before: int, what: str) -> int:
        """Note a failure if neither the newest nor the previous checkpoint loads; return its step."""
        try:
            step = newest_step(folder)
        except CheckpointError as error:
            self.failures.append(f"{what}: {error}")
            return before
        self.must(step >= before, f"{what}: step {step} after step {before}")
        return step

    def finish(self, folder: Path, what: str) -> None:
        """Let a run go on to its end and compare it with the undisturbed one."""
        code = ended(started(folder))
        same = code == FINISHED and outcome(folder) == self.expected
        self.must(same, f"{what}: ends with code {code}, or with other bytes than the undisturbed run")
        self.counts["runs that ended with the same bytes"] += same

    def signals(self, number: signal.Signals, times: int) -> None:
        """Send a signal at random moments, again and again into the same run until it is finished."""
        folder, step, runs, left = self.root / f"{number.name}-0", -1, 0, times
        while left:
            pid = started(folder)
            if self.rng.random() < 0.8:  # in the middle of steps and checkpoints; else while it begins
                wait_for_progress(pid, folder)
            time.sleep(self.rng.uniform(0, 10 * self.span / RECIPE.steps))
            os.kill(pid, number)
            code = ended(pid)
            what = f"{number.name} {times - left} in {folder.name}"
            if code == FINISHED:  # before the signal came
                self.finish(folder, what)
                folder, step, runs = self.root / f"{number.name}-{runs + 1}", -1, runs + 1
                continue
            left -= 1
            self.must(code in (-number, STOPPED), f"{what}: ended with {code}")
            self.counts[f"{number.name}: {'stopped and saved' if code == STOPPED else 'killed'}"] += 1
            step = self.loads(folder, step, what)
        self.finish(folder, f"{number.name}, at the end")

    def disturbed(self, name: str, folder: Path, action: Callable[[], object], undo: Callable[[], object]) -> None:
        """Let something happen at one step, put it right, and go on."""
        code = ended(started(folder, action))
        self.must(code == NO_SPACE, f"{name}: ended with {code}, expected an OSError")
        step = self.loads(folder, AT, name)
        self.counts[name] += 1
        self.must(step == AT, f"{name}: goes on from step {step}")
        undo()
        self.finish(folder, name)

    def file_systems(self) -> None:
        """Fill the disk, and make it read-only."""
        mounted = self.root / "mounted"
        mounted.mkdir()
        options = ("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(mounted))
        if subprocess.run(options, capture_output=True, check=False).returncode != 0:
            self.errors()
            return
        ballast = mounted / "ballast"

        def fill() -> None:
            with ballast.open("wb") as stream:
                for size in (2**16, 2**10):
                    try:
                        while True:
                            stream.write(bytes(size))
                            stream.flush()
                    except OSError:
                        continue

        def remount(how: str) -> Callable[[], object]:
            return lambda: subprocess.run(("mount", "-o", f"remount,{how}", str(mounted)), check=True)

        self.disturbed("disk full (a file system in memory)", mounted / "full", fill, ballast.unlink)
        shutil.rmtree(mounted / "full")
        self.disturbed("read-only (a file system in memory)", mounted / "read-only", remount("ro"), remount("rw"))
        subprocess.run(("umount", str(mounted)), check=True)

    def errors(self) -> None:
        """Stand in for both where nothing can be mounted: the folder cannot be made."""

        def refuse() -> None:
            def fail(*_: Any, **__: Any) -> None:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))

            tempfile.mkdtemp = fail  # type: ignore[assignment]  # in the child alone

        self.disturbed("read-only (an error in place of the call)", self.root / "refused", refuse, lambda: None)

    def file_size(self) -> None:
        """Limit the size of files, so that a checkpoint breaks off in the middle of one."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

        self.disturbed("limit on the size of files", self.root / "limited", limit, lambda: None)


def attack(kills: int, terminations: int) -> dict[str, Any]:
    """Do all of it in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = Attack(Path(folder))
        found.signals(signal.SIGKILL, kills)
        found.signals(signal.SIGTERM, terminations)
        found.file_size()
        found.file_systems()
        return {"failures": found.failures, "counts": dict(found.counts)}


# ---------------------------------------------------------------- the check


def check(kills: int, terminations: int) -> Check:
    """Disturb trainings; `kills` of them by SIGKILL and `terminations` by SIGTERM, at random moments."""
    command = [sys.executable, "-m", __name__, str(kills), str(terminations)]
    if shutil.which(NAMESPACE[0]) and subprocess.run((*NAMESPACE, "true"), check=False).returncode == 0:
        command = [*NAMESPACE, *command]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        found: dict[str, Any] = {"failures": [f"the process ended: {run.stderr[-500:]}"], "counts": {}}
    else:
        found = json.loads(run.stdout.splitlines()[-1])
        if "Traceback" in run.stderr:
            found["failures"].append(f"a traceback: {run.stderr[-500:]}")
    counts = found["counts"]
    cases = sum(count for name, count in counts.items() if not name.startswith("runs"))
    claim = "the newest or the previous checkpoint loads, and the run ends with the bytes of an undisturbed one"
    return Check("interrupted trainings", claim, cases, found["failures"], counts)


if __name__ == "__main__":
    print(json.dumps(attack(*map(int, sys.argv[1:]))))
