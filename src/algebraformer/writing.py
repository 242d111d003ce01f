"""Atomic writing of files, and checks of output paths before long computations."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path` for writing, and rename it to `path` when the block ends.

    If the block or the disk fails, `path` remains unchanged and the temporary file is removed.

    Raises
    ------
    OSError
        The file cannot be written; the message names `path`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "x.txt"
    ...     with new_file(path) as stream:
    ...         _ = stream.write(b"text")
    ...         exists_early = path.exists()
    ...     path.read_bytes(), exists_early
    (b'text', False)
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # To a stream opened only for writing, NumPy writes through C's stdio and misses the error of a full disk.
        with open(temporary, "x+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        raise type(error)(error.errno, os.strerror(error.errno), os.fspath(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file atomically, see `new_file`."""
    with new_file(path) as stream:
        stream.write(data)


def check_file(path: Path, folder_is_made: bool = False) -> None:
    """Raise `OSError` if no file of this name can be written: it is a folder, or its folder is absent or read-only.

    With `folder_is_made` the folder may be absent if it can be created.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, received a folder")
    folder = Path(os.path.realpath(path)).parent
    if not folder_is_made and not folder.is_dir():
        raise FileNotFoundError(f"{path}: no folder {folder}")
    _check_writable(path, folder)


def check_folder(path: Path) -> None:
    """Raise `OSError` if there is no folder of this name and it cannot be created, or it is read-only."""
    _check_writable(path, Path(os.path.realpath(path)))


def _check_writable(path: Path, folder: Path) -> None:
    """Raise `OSError`, which names `path`, if the folder, or the first of its parents that exists, is not writable."""
    existing = next(candidate for candidate in (folder, *folder.parents) if candidate.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{path}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{path}: no permission to write in {existing}")
