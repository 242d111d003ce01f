"""Solve very many systems on several processes; after an interruption, what is done is not done again."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algebraformer import checkpoint
from algebraformer.bulk.pool import Pool
from algebraformer.bulk.results import CERTIFICATES, MAX_NAMED, Summary, assemble, fields_of, write
from algebraformer.bulk.settings import Settings, naming_the_systems
from algebraformer.bulk.sources import Folder, MappedArrays, Task
from algebraformer.errors import ConfigurationError
from algebraformer.training.exclusive import exclusive
from algebraformer.writing import write_bytes

RUN, PARTS = "run.json", "parts"
"""In the folder of a run: what is solved and how, and the results of blocks until all are done."""
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Work:
    """Solve a task and write its results: what goes to the processes."""

    source: MappedArrays | Folder
    model: str
    settings: Settings
    parts: Path

    def __call__(self, task: Task) -> Summary:
        A, b = self.source.read(task)
        with naming_the_systems(self.source.label(task, None)):
            result = self.settings.solve(self.model, A, b)
        fields = fields_of(result)
        write(self.path(task), fields)
        return Summary.of(fields)

    def path(self, task: Task) -> Path:
        """Return the file with the results of a task."""
        return self.parts / f"{task.name}.npz"

    def is_done(self, task: Task) -> bool:
        """Say whether there are results, for a file also whether it has not changed since."""
        try:
            written = self.path(task).stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if isinstance(self.source, MappedArrays):  # `run.json` says that these are the same
            return True
        return written >= os.stat(os.path.join(self.source.folder, self.source.names[task.start])).st_mtime_ns


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes
    ----------
    summary : Summary
        Of all systems that were solved, now or before.
    uncertified : list of str
        The first systems that are not certified.
    refused : list of str
        What is wrong with the input of the tasks that were not solved.
    resumed : int
        How many of the systems, or files, had been solved before.
    """

    summary: Summary
    uncertified: list[str]
    refused: list[str]
    resumed: int


def solve_all(
    source: MappedArrays | Folder,
    model: str,
    settings: Settings,
    output: Path,
    workers: int,
    progress: Callable[[int, int, int], object],
) -> Outcome:
    """Solve all systems of a source into a folder.

    Parameters
    ----------
    source : MappedArrays or Folder
    model : str
        Name of a shipped model, or a folder.
    settings : Settings
    output : Path
        Folder for the results, made if it does not exist. For arrays it gets x.npy and certificates.npz, for a folder a
        file of the same name, .npz, for each.
    workers : int
        Number of processes, with one thread each.
    progress : callable
        Takes what is done, how much of it had been done before, and what there is to do in all, in the source's unit;
        what it raises ends the work, and the next call resumes it.

    Raises
    ------
    ConfigurationError
        The folder holds the results of something else, or another process works in it.
    WorkerError
        Processes die again and again.
    OSError
        Results cannot be written.
    """
    if workers < 1:
        raise ConfigurationError(f"expected at least one worker, received {workers}")
    if isinstance(source, Folder) and output.exists() and output.samefile(source.folder):
        raise ConfigurationError(f"{output}: expected another folder for the results than that of the systems")
    blocks = isinstance(source, MappedArrays)
    parts = output / PARTS if blocks else output
    work, tasks = Work(source, model, settings, parts), source.tasks()
    with exclusive(output):
        _claim(output, work)
        if blocks and (output / CERTIFICATES).exists():  # written last
            shutil.rmtree(parts, ignore_errors=True)
            summary = Summary.of_file(output / CERTIFICATES)
            return Outcome(summary, list(map(str, summary.uncertified)), [], summary.systems)
        parts.mkdir(exist_ok=True)
        for left in parts.glob(".*.tmp"):  # of processes that were killed while they wrote
            left.unlink()
        outcome = _solve(work, tasks, workers, progress)
        if blocks and not outcome.refused:
            done = outcome.summary.systems
            assemble(output, [work.path(task) for task in tasks], done, lambda: progress(done, outcome.resumed, done))
            shutil.rmtree(parts)
        return outcome


def _solve(work: Work, tasks: list[Task], workers: int, progress: Callable[[int, int, int], object]) -> Outcome:
    """Solve the tasks that are not done."""
    found: dict[int, Summary] = {}
    refused: dict[int, str] = {}
    left: list[int] = []
    for number, task in enumerate(tasks):
        if work.is_done(task):
            found[number] = Summary.of_file(work.path(task))
        else:
            left.append(number)
    total = sum(task.count for task in tasks)
    before = done = sum(tasks[number].count for number in found)
    with Pool(work, workers) as pool:
        for ended in pool.run([tasks[number] for number in left]):
            for at, result in ended:
                number = left[at]
                if isinstance(result, ValueError):
                    refused[number] = str(result)
                else:
                    found[number] = result
                done += tasks[number].count
            progress(done, before, total)
    summaries = [found[number] for number in sorted(found)]
    names = [work.source.label(tasks[k], index) for k in sorted(found) for index in found[k].uncertified]
    return Outcome(Summary.total(summaries), names[:MAX_NAMED], [refused[k] for k in sorted(refused)], before)


def _claim(output: Path, work: Work) -> None:
    """Write what is solved into the folder, or compare it with what was."""
    sums = (checkpoint.resolve(work.model) / checkpoint.SUMS).read_bytes()
    now: dict[str, Any] = {
        "format": FORMAT,
        "model": work.model,
        "sha256": hashlib.sha256(sums).hexdigest(),
        "settings": dataclasses.asdict(work.settings),
        **work.source.settings(),
    }
    path = output / RUN
    if not path.exists():
        if any(entry.name != ".lock" for entry in output.iterdir()):
            raise ConfigurationError(
                f"{output}: expected a new folder, or that of this run; received one with other files"
            )
        write_bytes(path, checkpoint.dump_json(now))
        return
    before = checkpoint.parse_json(path.read_bytes(), str(path))
    changed = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    if changed:
        raise ConfigurationError(
            f"{output} holds results of another run, with other {', '.join(changed)}: choose another folder"
        )
