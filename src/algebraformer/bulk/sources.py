"""Where very many systems come from: arrays that are mapped into memory, or a folder with a file for each."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, ClassVar, Protocol

from algebraformer import io
from algebraformer.errors import ConfigurationError
from algebraformer.io.limits import Array
from algebraformer.validation import check_right_hand_sides

BLOCK_BYTES = 2**25
"""Most bytes of A in a block. 32 MB, which are a thousand systems of n = 64 (more are solved no faster together) or
four of n = 1024, take about a tenth of a second, and so much is lost with a process that is killed. It bounds the
memory of a worker, which holds a few times as much."""
MIN_BLOCKS = 32
"""Blocks that there are at least, if there are as many systems: the last one of them, for which other workers wait, is
then a small part of the whole."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Systems that one process solves at a time."""

    name: str
    """Names the file with their results."""
    start: int
    count: int
    """First system, or file, and how many."""


class Source(Protocol):
    """Systems, shared out in tasks; it is pickled, and read in other processes."""

    unit: ClassVar[str]
    """What is counted."""

    def tasks(self) -> list[Task]:
        """Return the tasks, in order; the same ones whatever is done already, so that answers are the same."""
        ...

    def read(self, task: Task) -> tuple[Array, Array]:
        """Return A and b of a task; `ValueError` if they cannot be solved."""
        ...

    def label(self, task: Task, index: int | None) -> str:
        """Return what a user calls a task, or the system at this position of it."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what identifies the systems, as JSON values."""
        ...


@dataclasses.dataclass(frozen=True)
class MappedArrays:
    """A (B, n, n) and b (B, n) or (B, n, k) of .npy or .npz files, in blocks of consecutive systems."""

    A_file: str
    b_file: str | None
    A_key: str | None
    b_key: str | None
    count: int
    step: int
    unit: ClassVar[str] = "systems"

    @classmethod
    def of(cls, A_file: str, b_file: str | None, A_key: str | None, b_key: str | None, max_bytes: int) -> MappedArrays:
        """Look at the files; one system must fit into `max_bytes`.

        Raises
        ------
        ConfigurationError
            There is no batch of systems, or they are too large.
        ValueError
            The files cannot be mapped (`InputFormatError`), or shapes do not match.
        """
        A, b = io.map_system(A_file, b_file, A_key=A_key, b_key=b_key)
        if A.ndim != 3 or A.shape[-1] != A.shape[-2]:
            raise ConfigurationError(f"--workers needs A of shape (B, n, n), or a folder; received {A.shape}")
        if not len(A):
            raise ConfigurationError("expected at least one system, received none")
        check_right_hand_sides(A, b, "n")
        each = A.nbytes // max(len(A), 1)
        if each > max_bytes:
            raise ConfigurationError(f"expected matrices of at most {max_bytes} bytes, received {each}")
        step = min(-(-len(A) // MIN_BLOCKS), min(BLOCK_BYTES, max_bytes) // max(each, 1))
        return cls(A_file, b_file, A_key, b_key, len(A), max(1, step))

    def tasks(self) -> list[Task]:
        """Return blocks of `step` systems."""
        starts = range(0, self.count, self.step)
        return [Task(f"{start:012d}", start, min(self.step, self.count - start)) for start in starts]

    def read(self, task: Task) -> tuple[Array, Array]:
        """Return the systems as maps: nothing is read yet."""
        A, b = io.map_system(self.A_file, self.b_file, A_key=self.A_key, b_key=self.b_key)
        rows = slice(task.start, task.start + task.count)
        return A[rows], b[rows]

    def label(self, task: Task, index: int | None) -> str:
        """Return positions in the whole arrays."""
        if index is not None:
            return str(task.start + index)
        return f"systems {task.start} to {task.start + task.count - 1}"

    def settings(self) -> dict[str, Any]:
        """Return names, sizes and times of the files."""
        files = {}
        for name, file, key in (("A", self.A_file, self.A_key), ("b", self.b_file, self.b_key)):
            if file is not None:
                about = os.stat(file)
                files[name] = [os.path.abspath(file), key, about.st_size, about.st_mtime_ns]
        return {"files": files, "count": self.count, "step": self.step}


@dataclasses.dataclass(frozen=True)
class Folder:
    """The .npz and .mat files of a folder, each with A and b of one system or of a batch, under these names."""

    folder: str
    names: tuple[str, ...]
    max_bytes: int
    unit: ClassVar[str] = "files"

    @classmethod
    def of(cls, folder: str, max_bytes: int) -> Folder:
        """Look at the folder.

        Raises
        ------
        ConfigurationError
            There is no such file in it, or there are two for whose results there is one name.
        """
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".npz", ".mat")))
        if not names:
            raise ConfigurationError(f"{folder}: expected .npz or .mat files with A and b, received none")
        stems: dict[str, str] = {}
        for name in names:
            if (other := stems.setdefault(Path(name).stem, name)) != name:
                raise ConfigurationError(f"{folder}: expected files of different names, received {other} and {name}")
        return cls(folder, tuple(names), max_bytes)

    def tasks(self) -> list[Task]:
        """Return one task for each file: what is solved together must not depend on what is done already."""
        return [Task(Path(name).stem, number, 1) for number, name in enumerate(self.names)]

    def read(self, task: Task) -> tuple[Array, Array]:
        """Return what is in the file."""
        return io.read_system(os.path.join(self.folder, self.names[task.start]), max_bytes=self.max_bytes)

    def label(self, task: Task, index: int | None) -> str:
        """Return the name of the file, and the position in it."""
        return self.names[task.start] + ("" if index is None else f" ({index})")

    def settings(self) -> dict[str, Any]:
        """Return the folder: files may come and go."""
        return {"folder": os.path.abspath(self.folder)}
