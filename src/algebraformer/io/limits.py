"""Helpers of the readers of untrusted files: the size limit, and one error for all defects.

A reader raises `Refused`, or damaged data makes NumPy, zipfile, gzip, zlib or struct raise an error; `naming` turns
either into an `InputFormatError` with a message of one line that names the file. Messages of those libraries never
reach a user.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import math
import os
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import InputFormatError

Array = NDArray[Any]
FilePath = str | os.PathLike[str]
T = TypeVar("T")

BLOCK_BYTES = 2**20  # bytes read at a time
HEADER = 2**16  # bytes a header may take, and a single line of text


class Refused(ValueError):
    """What was expected and what was received; `naming` puts the file's name in front."""


READ_ERRORS = (  # what NumPy, zipfile, gzip, zlib and struct raise on damaged data
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # ast: nested too deeply
    EOFError,
    OSError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((MemoryError,), "one that takes more memory than there is"),
    ((EOFError, struct.error), "one that is cut short"),
    ((zlib.error, gzip.BadGzipFile), "one whose compressed data is damaged, or that is not compressed"),
    ((zipfile.BadZipFile,), "a zip archive that is damaged, or no zip archive"),
)


def _reason(problem: Exception) -> str:
    """Return our description of a defect that a library or the operating system has reported."""
    for kinds, reason in _REASONS:
        if isinstance(problem, kinds):
            return reason
    # What the system says of a file is for the user; EINVAL is the seek to a position that a damaged file has given.
    if isinstance(problem, OSError) and problem.strerror and problem.errno != errno.EINVAL:
        return f"one that cannot be read: {problem.strerror}"
    return "one that is damaged or of another format"


def _one_line(text: str, limit: int = 300) -> str:
    """Return text on one line, without control characters, cut to `limit` characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


@contextlib.contextmanager
def naming(path: FilePath, expected: str) -> Iterator[None]:
    """Turn any error that a damaged file causes into an `InputFormatError` that names the file."""
    name = os.fspath(path)
    name = name if name.isprintable() else repr(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Refused as problem:
        raise InputFormatError(f"{name}: {_one_line(str(problem))}") from None
    except FileNotFoundError:
        raise InputFormatError(f"{name}: no such file; expected a {expected}") from None
    except READ_ERRORS as problem:
        raise InputFormatError(f"{name}: expected a {expected}, received {_reason(problem)}") from problem


def open_file(path: FilePath, title: str) -> IO[bytes]:
    """Open a file for bytes; `Refused` if it is a folder or a special file, of which opening a pipe waits for a writer.

    Parameters
    ----------
    path : str or path-like
    title : str
        What it should be, for the message.
    """
    if "\0" in os.fspath(path):  # a name that no file can have
        raise FileNotFoundError
    if not stat.S_ISREG(os.stat(path).st_mode):
        kind = "folder" if os.path.isdir(path) else "special file"
        raise Refused(f"expected a {title}, received a {kind}")
    return open(path, "rb")


def check_size(shape: tuple[int, ...], dtype: np.dtype[Any], max_bytes: int) -> int:
    """Return the number of bytes of an array, after comparing it with the limit."""
    if min(shape, default=0) < 0:
        raise Refused(f"expected sizes of at least 0, received shape {shape}")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > max_bytes:
        raise Refused(
            f"expected an array of at most {max_bytes} bytes, received shape {shape} of {dtype}: {nbytes} bytes"
        )
    return nbytes


# ------------------------------------------------------------------------------------------------ variables by name


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which variable of a file to read."""

    names: tuple[str | None, ...]  # tried in turn; None is the only array there is
    hint: str = ""  # how a caller names another one


def choose(found: Mapping[str, T], wanted: Wanted, own: Mapping[str, T] | None = None) -> T:
    """Return the wanted array of a file; `own` are those among which a single one needs no name, by default all."""
    own = found if own is None else own
    for name in wanted.names:
        if name is None and len(own) == 1:
            return next(iter(own.values()))
        if name is not None and name in found:
            return found[name]
    expected = ["exactly one array"] if None in wanted.names else []
    expected += [f"an array named {name!r}" for name in wanted.names if name is not None][:1]
    hint = f" ({wanted.hint})" if wanted.hint else ""
    raise Refused(f"expected {' or '.join(expected)}{hint}; received: {', '.join(found) or 'no array'}")


# ------------------------------------------------------------------------------------------------- sparse to dense


def from_entries(i: Array, j: Array, values: Array, shape: tuple[int, int]) -> Array:
    """Return the dense array with values[k] at (i[k], j[k]), counted from 0. Repeated entries add up."""
    if not i.shape == j.shape == values.shape or i.ndim != 1:
        raise Refused(
            f"expected a row, a column and a value for every entry, received {i.size}, {j.size} and {values.size}"
        )
    i, j = i.astype(np.int64, copy=False), j.astype(np.int64, copy=False)
    if i.size and (min(i.min(), j.min()) < 0 or i.max() >= shape[0] or j.max() >= shape[1]):
        received = f"rows {i.min() + 1} to {i.max() + 1} and columns {j.min() + 1} to {j.max() + 1}"
        raise Refused(f"expected entries inside shape {shape}, received {received}")
    dense = np.zeros(shape, values.dtype)
    np.add.at(dense.reshape(-1), i * shape[1] + j, values)
    return dense


def expand_pointers(pointers: Array, count: int, stored: int) -> Array:
    """Return the row (csr) or column (csc) of every entry, from where each of `count` of them starts.

    Row r has the entries pointers[r] to pointers[r + 1] - 1 of the `stored` ones.
    """
    pointers = pointers.astype(np.int64, copy=False)
    if pointers.shape != (count + 1,) or pointers[0] or (pointers[1:] < pointers[:-1]).any() or pointers[-1] > stored:
        raise Refused(f"expected {count + 1} pointers from 0 to at most {stored}, received ones that do not fit")
    return np.repeat(np.arange(count), np.diff(pointers))


def complex_array(real: Array, imag: Array, dtype: np.dtype[Any]) -> Array:
    """Return real + i imag; unlike the sum, exact where one part is infinite or a negative zero."""
    if real.shape != imag.shape:
        raise Refused(f"expected as many imaginary parts as real ones, received {imag.size} and {real.size}")
    out = np.empty(real.shape, dtype)
    out.real, out.imag = real, imag
    return out
