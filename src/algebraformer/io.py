"""Linear systems from and to files: .npy, .npz, .mtx, .mtx.gz and .mat (MATLAB 4 and 5 to 7).

A file from elsewhere is not trusted. Its header is read first and the size it declares is checked against a limit
before anything of that size is allocated; compressed data is unpacked no further than the header promised; nothing is
ever unpickled or evaluated. Whatever is wrong with a file, the caller sees one `InputFormatError` of one line.
"""

from __future__ import annotations

import dataclasses
import io
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from algebraformer import matlab, matrix_market
from algebraformer.errors import InputFormatError
from algebraformer.untrusted import BLOCK, HEADER, Array, FilePath, Refused, check_size, choose, naming
from algebraformer.writing import check_file, new_file

DEFAULT_MAX_BYTES = 2**31
"""Default limit on the size of one array in memory, in bytes: 2 GiB, a float64 matrix of n = 16384."""

_NUMERIC = "biufc"  # kinds of dtype: bool, integers, floating, complex


# ---------------------------------------------------------------------------------------------------- .npy and .npz


def _read_npy(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read one .npy array from a stream that holds it and nothing else, `size` bytes."""
    head = io.BytesIO(stream.read(HEADER))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise Refused(f"expected a .npy header of version 1.0 or 2.0, received {version[0]}.{version[1]}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(head)
    if dtype.kind not in _NUMERIC:
        raise Refused(f"expected an array of numbers, received dtype {dtype} (pickled objects are never loaded)")
    nbytes = check_size(shape, dtype, max_bytes)
    if head.tell() + nbytes != size:
        raise Refused(f"expected {nbytes} bytes of data for shape {shape} of {dtype}, received {size - head.tell()}")
    buffer = np.empty(nbytes, np.uint8)
    block = head.read()
    done = 0
    while block:
        buffer[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
        block = stream.read(min(BLOCK, nbytes - done))
    if done != nbytes:
        raise Refused(f"expected {nbytes} bytes of data, received {done}")
    return buffer.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_npz(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    with zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        member = choose(members, key)
        # bzip2 and LZMA members are not written by NumPy, and zipfile unpacks them without a limit.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"expected members stored or deflated, received compression type {member.compress_type}")
        with archive.open(member) as unpacked:
            return _read_npy(unpacked, member.file_size, None, max_bytes)


def _write_npy(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    (x,) = arrays.values()
    np.save(stream, x, allow_pickle=False)


def _write_npz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    np.savez(stream, **cast("dict[str, Any]", arrays))


# ----------------------------------------------------------------------------------------------------------- public


@dataclasses.dataclass(frozen=True)
class _Format:
    title: str
    read: Callable[[IO[bytes], int, str | None, int], Array]  # stream, its size, key, max_bytes
    write: Callable[[IO[bytes], Mapping[str, Array]], None]
    named: bool  # holds several variables, by name
    vectors: bool  # knows one-dimensional arrays


_FORMATS = {
    ".npy": _Format("NumPy array (.npy)", _read_npy, _write_npy, named=False, vectors=True),
    ".npz": _Format("NumPy archive (.npz)", _read_npz, _write_npz, named=True, vectors=True),
    ".mtx": _Format("Matrix Market file (.mtx)", matrix_market.read, matrix_market.write, named=False, vectors=False),
    ".mtx.gz": _Format(
        "Matrix Market file (.mtx.gz)", matrix_market.read_gz, matrix_market.write_gz, named=False, vectors=False
    ),
    ".mat": _Format("MATLAB file (.mat)", matlab.read, matlab.write, named=True, vectors=False),
}


def _format_of(path: FilePath) -> _Format:
    name = os.fspath(path).lower()
    for suffix, form in _FORMATS.items():
        if name.endswith(suffix):
            return form
    with naming(path, "file"):
        raise Refused(f"expected a name that ends in {', '.join(_FORMATS)}, received {os.path.splitext(name)[1]!r}")


def read_array(path: FilePath, *, key: str | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> Array:
    """Read one array of numbers from a file; its name's suffix says the format.

    Parameters
    ----------
    path : str or path-like
        A .npy, .npz, .mtx, .mtx.gz or .mat file.
    key : str, optional
        Which variable of a .npz or .mat file to read. Without it the file must hold exactly one array.
    max_bytes : int, default 2**31
        Largest size of the array in memory, in bytes. A sparse matrix counts with the size of the dense one.

    Returns
    -------
    ndarray, any shape, dtype as in the file
        Always dense. Matrix Market and MATLAB know no vectors: from them a vector comes as a column, shape (n, 1).

    Raises
    ------
    InputFormatError
        If there is no such file, or it is damaged, of unknown format, holds no numbers or exceeds `max_bytes`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "A.mtx"
    ...     write_array(path, np.diag([1.0, 2.0]))
    ...     read_array(path)
    array([[1., 0.],
           [0., 2.]])
    """
    form = _format_of(path)
    with naming(path, form.title):
        if key is not None and not form.named:
            raise Refused(f"expected a .npz or .mat file for the name {key!r}, received one array without a name")
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise Refused(f"expected a {form.title}, received a {'folder' if os.path.isdir(path) else 'special file'}")
        with open(path, "rb") as stream:
            array = form.read(stream, os.fstat(stream.fileno()).st_size, key, max_bytes)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_system(
    A_path: FilePath, b_path: FilePath | None = None, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> tuple[Array, Array]:
    """Read A and b from two files, or from one .npz or .mat file with variables of these names.

    Parameters
    ----------
    A_path : str or path-like
        File of A, or of both.
    b_path : str or path-like, optional
        File of b.
    max_bytes : int, default 2**31
        Largest size of each array in memory, in bytes.

    Returns
    -------
    A, b : ndarray
        As read; whether their shapes fit each other is for the solver to say. Beside a single A, a column b of shape
        (n, 1) from a Matrix Market or MATLAB file, which know no vectors, is returned with shape (n,).

    Raises
    ------
    InputFormatError
        As `read_array`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "system.mat"
    ...     write_system(path, np.diag([1.0, 2.0]), np.array([3.0, 4.0]))
    ...     A, b = read_system(path)
    >>> A.shape, b
    ((2, 2), array([3., 4.]))
    """
    if b_path is None:
        form = _format_of(A_path)
        if not form.named:
            with naming(A_path, form.title):
                raise Refused("expected a second file with b, or one .npz or .mat file that holds A and b")
        A = read_array(A_path, key="A", max_bytes=max_bytes)
        b = read_array(A_path, key="b", max_bytes=max_bytes)
    else:
        form = _format_of(b_path)
        A = read_array(A_path, max_bytes=max_bytes)
        b = read_array(b_path, max_bytes=max_bytes)
    if not form.vectors and A.ndim == 2 and b.ndim == 2 and b.shape[1] == 1:
        b = b[:, 0]
    return A, b


def _write(path: FilePath, form: _Format, arrays: Mapping[str, Array]) -> None:
    """Write a temporary file beside the target, then put it in the target's place in one step."""
    with naming(path, form.title):
        for name, x in arrays.items():
            if x.dtype.kind not in _NUMERIC:
                raise Refused(f"expected {name} to be an array of numbers, received dtype {x.dtype}")
    check_file(Path(path))
    with new_file(path) as stream:
        try:
            form.write(stream, arrays)
        except Refused as problem:
            raise InputFormatError(f"{os.fspath(path)}: {problem}") from None


def check_name(path: FilePath) -> None:
    """Raise `InputFormatError` if the name's suffix is not that of a format."""
    _format_of(path)


def write_array(path: FilePath, x: ArrayLike) -> None:
    """Write one array to a file; its name's suffix says the format. float64 comes back bit for bit.

    The file appears whole or not at all: a file that was there before stays until the new one is complete.

    Parameters
    ----------
    path : str or path-like
        A .npy, .npz, .mtx, .mtx.gz or .mat file; .npz and .mat call the array "x".
    x : array_like, any shape; a vector or matrix for Matrix Market
        Numbers. .npy and .npz keep shape and dtype. Matrix Market and MATLAB store a vector as a column, and Matrix
        Market knows one type each for integers, real and complex numbers.

    Raises
    ------
    InputFormatError
        If the suffix is unknown, or the format cannot hold x.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "x.mtx"
    ...     write_array(path, [0.1])
    ...     print(path.read_text().splitlines()[-1])
    1.0000000000000001e-01
    """
    _write(path, _format_of(path), {"x": np.asarray(x)})


def write_system(path: FilePath, A: ArrayLike, b: ArrayLike) -> None:
    """Write A and b to one .npz or .mat file, under these names. float64 comes back bit for bit.

    Parameters
    ----------
    path : str or path-like
        A .npz or .mat file.
    A, b : array_like
        One system or a batch. MATLAB stores a vector b as a column.

    Raises
    ------
    InputFormatError
        If the suffix is another, or the format cannot hold A or b.
    OSError
        If the file cannot be written.
    """
    form = _format_of(path)
    with naming(path, form.title):
        if not form.named:
            raise Refused(f"expected a .npz or .mat file for two arrays, received a {form.title}")
    _write(path, form, {"A": np.asarray(A), "b": np.asarray(b)})
