"""One training per folder: a lock of the operating system, which ends with the process that holds it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from algebraformer.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
"""File in the folder of a run. Its text, process id and host, is for people; what counts is the lock on it."""

_held: set[int] = set()
"""File descriptors of the locks of this process."""


def _close_in_child() -> None:
    """Close what a forked process has inherited: a worker that outlives its parent must not keep the folder."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it does not exist; no other process or thread can hold it at the same time.

    Where there are no such locks (Windows, some network file systems) nothing is held.

    Raises
    ------
    ConfigurationError
        Another run holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    path = folder / LOCK
    descriptor = _lock(path)
    _held.add(descriptor)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        if descriptor in _held:  # not in a forked child that has come out here
            path.unlink(missing_ok=True)  # before the lock ends: whoever opened the file before finds that it is gone
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(path: Path) -> int:
    """Return a descriptor of the file with the lock on it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise ConfigurationError(
                f"{path.parent} is in use by another run, {holder}: wait for its end, stop it, or choose another "
                "output folder"
            ) from None
        except OSError:  # a file system without locks
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # the one before us has removed it in between
        os.close(descriptor)
