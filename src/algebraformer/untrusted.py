"""What the readers of files from elsewhere share: the limit on sizes, and one error for whatever is wrong.

A reader raises `Refused`, or whatever damaged data makes NumPy, zipfile, gzip, zlib or struct raise; `naming` turns
either into one `InputFormatError` of one line that names the file.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from algebraformer.errors import InputFormatError

Array = NDArray[Any]
FilePath = str | os.PathLike[str]
T = TypeVar("T")

BLOCK = 2**20  # bytes read at a time
HEADER = 2**16  # bytes a header may take, and a single line of text


class Refused(ValueError):
    """What was expected and what was received; `naming` puts the file's name in front."""


_READ_ERRORS = (  # what NumPy, zipfile, gzip, zlib and struct raise on damaged data
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # zipfile: encrypted; ast: nested too deeply
    EOFError,
    OSError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    DeprecationWarning,  # NumPy 2.0 to 2.2 on "1.5" in a column of integers
)


def _one_line(text: str, limit: int = 300) -> str:
    """Return text on one line, without control characters, cut to `limit` characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


@contextlib.contextmanager
def naming(path: FilePath, expected: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one `InputFormatError` that names the file."""
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
    except _READ_ERRORS as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        reason = _one_line(reason) or type(problem).__name__
        raise InputFormatError(
            f"{name}: expected a {expected}, received one that cannot be read: {reason}"
        ) from problem


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


def choose(found: Mapping[str, T], key: str | None) -> T:
    """Return the array called `key`, or the only one there is."""
    if key is None and len(found) == 1:
        (key,) = found
    if key is not None and key in found:
        return found[key]
    wanted = f"an array named {key!r}" if key is not None else "exactly one array, or key= to name one of several"
    raise Refused(f"expected {wanted}; received: {', '.join(found) or 'no array'}")


def from_entries(i: Array, j: Array, values: Array, shape: tuple[int, int]) -> Array:
    """Return the dense array with values[k] at (i[k], j[k]), counted from 0. Repeated entries add up."""
    if i.size and (min(i.min(), j.min()) < 0 or i.max() >= shape[0] or j.max() >= shape[1]):
        received = f"rows {i.min() + 1} to {i.max() + 1} and columns {j.min() + 1} to {j.max() + 1}"
        raise Refused(f"expected entries inside shape {shape}, received {received}")
    return np.asarray(scipy.sparse.coo_array((values, (i, j)), shape=shape).toarray())


def complex_array(real: Array, imag: Array, dtype: np.dtype[Any]) -> Array:
    """Return real + i imag; unlike the sum, exact where one part is infinite or a negative zero."""
    out = np.empty(real.shape, dtype)
    out.real, out.imag = real, imag
    return out
