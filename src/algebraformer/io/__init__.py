"""Linear systems from and to files: .npy, .npz, .mtx, .mtx.gz and .mat (MATLAB 4 and 5 to 7).

Files are not trusted. The header is read first, and the declared size is checked against a limit before memory is
allocated; compressed data is unpacked only up to the declared size; nothing is ever unpickled or evaluated. Any defect
of a file raises an `InputFormatError` with a message of one line.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import ArrayLike

from algebraformer.errors import InputFormatError
from algebraformer.io.inputs import FORMATS as FORMATS
from algebraformer.io.inputs import Format, Input, format_of, inputs, wanted_names
from algebraformer.io.limits import Array, FilePath, Refused, Wanted, naming
from algebraformer.io.numpy_files import NUMERIC
from algebraformer.writing import check_file, write_bytes

DEFAULT_MAX_BYTES = 2**31
"""Default limit on the size of one array in memory, in bytes: 2 GiB, a float64 matrix of n = 16384."""

# ---------------------------------------------------------------------------------------------------------- reading


def read_array(
    file: FilePath | IO[bytes],
    *,
    key: str | None = None,
    format: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Array:
    """Read one array of numbers from a file; the suffix determines the format.

    Parameters
    ----------
    file : str, path-like or binary file object
        A .npy, .npz, .mtx, .mtx.gz or .mat file. A file object, for instance ``sys.stdin.buffer``, is read to its end.
    key : str, optional
        Variable of a .npz or .mat file to read. Without it the file must contain exactly one array. "S.A" is the
        field A of a MATLAB struct S. A .npz file of `scipy.sparse.save_npz` is one array without a name.
    format : {"npy", "npz", "mtx", "mtx.gz", "mat"}, optional
        Format of a file object.
    max_bytes : int, default 2**31
        Size limit of the array in memory, and of a file object, in bytes. A sparse matrix counts as a dense one.

    Returns
    -------
    ndarray, any shape, dtype as in the file
        Always dense. Matrix Market and MATLAB have no vectors: from them a vector is a column, shape (n, 1), or a row,
        shape (1, n).

    Raises
    ------
    InputFormatError
        If there is no such file, or it is damaged, of unknown format, contains no numbers or exceeds `max_bytes`.

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
    (source,) = inputs(format, file)
    source.check_key(key)
    (array,) = source.read([wanted_names(key, "key", ())], max_bytes)
    return array


def map_array(path: FilePath, *, key: str | None = None) -> Array:
    """Map an array of numbers in a .npy or .npz file into memory: what is used of it is read when it is used.

    Parameters
    ----------
    path : str or path-like
        A .npy file, or a .npz file of `numpy.savez`, not of `numpy.savez_compressed`.
    key : str, optional
        Variable of a .npz file. Without it the file must contain exactly one array.

    Returns
    -------
    ndarray, any shape, dtype as in the file
        It cannot be written to. The file must not change as long as it is used.

    Raises
    ------
    InputFormatError
        As `read_array`; also if the file is of another format, or compressed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "A.npy"
    ...     write_array(path, np.arange(6.0).reshape(3, 2))
    ...     np.array(map_array(path)[1:2])
    array([[2., 3.]])
    """
    (source,) = inputs(None, path)
    source.check_key(key)
    (array,) = source.map([wanted_names(key, "key", ())])
    return array


def read_system(
    A_file: FilePath | IO[bytes],
    b_file: FilePath | IO[bytes] | None = None,
    *,
    A_key: str | None = None,
    b_key: str | None = None,
    format: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[Array, Array]:
    """Read A and b from two files, or from one .npz or .mat file.

    Parameters
    ----------
    A_file : str, path-like or binary file object
        File of A, or of both.
    b_file : str, path-like or binary file object, optional
        File of b.
    A_key, b_key : str, optional
        Names of the variables in .npz and .mat files. Without them they are "A" and "b", or in a MATLAB struct
        "Problem.A" and "Problem.b" as in the SuiteSparse Matrix Collection; in two files also the only array.
    format : {"npy", "npz", "mtx", "mtx.gz", "mat"}, optional
        Format of file objects.
    max_bytes : int, default 2**31
        Size limit of each array in memory, and of a file object, in bytes.

    Returns
    -------
    A, b : ndarray
        As read; the solver checks whether their shapes match. For a single A of shape (m, n), b has shape (m,) if it
        can only be a vector: a row of shape (1, m), m > 1, or a column of shape (m, 1) from a Matrix Market or MATLAB
        file, which have no vectors.

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

    Variables with other names:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "system.npz"
    ...     np.savez(path, K=np.diag([1.0, 2.0]), y=np.array([3.0, 4.0]))
    ...     A, b = read_system(path, A_key="K", b_key="y")
    >>> A.shape, b
    ((2, 2), array([3., 4.]))
    """
    A, b, form = _take(A_file, b_file, A_key, b_key, format, lambda source, wanted: source.read(wanted, max_bytes))
    if A.ndim == b.ndim == 2:
        if b.shape[1] == 1 and not form.vectors:
            b = b[:, 0]
        elif b.shape == (1, len(A)) and len(A) > 1:
            b = b[0]
    return A, b


def map_system(
    A_file: FilePath, b_file: FilePath | None = None, *, A_key: str | None = None, b_key: str | None = None
) -> tuple[Array, Array]:
    """Map A and b of .npy or .npz files into memory, see `map_array`; arguments and errors as in `read_system`."""
    A, b, _ = _take(A_file, b_file, A_key, b_key, None, Input.map)
    return A, b


def _take(
    A_file: FilePath | IO[bytes],
    b_file: FilePath | IO[bytes] | None,
    A_key: str | None,
    b_key: str | None,
    format: str | None,
    take: Callable[[Input, list[Wanted]], list[Array]],
) -> tuple[Array, Array, Format]:
    """Return A and b from two files or one, and the format that b has."""
    A_names, b_names = ("A", "Problem.A"), ("b", "Problem.b")
    if b_file is A_file and not isinstance(b_file, (str, os.PathLike)):  # a file object can be read once
        b_file = None
    if b_file is None:
        (source,) = inputs(format, A_file)
        if not source.form.named:
            source.refuse("expected a second file with b, or one .npz or .mat file that holds A and b")
        both = [wanted_names(A_key, "A_key", A_names, both=True), wanted_names(b_key, "b_key", b_names, both=True)]
        A, b = take(source, both)
    else:
        first, source = inputs(format, A_file, b_file)
        first.check_key(A_key)
        source.check_key(b_key)
        (A,) = take(first, [wanted_names(A_key, "A_key", A_names)])
        (b,) = take(source, [wanted_names(b_key, "b_key", b_names)])
    return A, b, source.form


# ---------------------------------------------------------------------------------------------------------- writing


def _write(path: FilePath, form: Format, arrays: Mapping[str, Array]) -> None:
    """Write the arrays to memory first, and then to the file atomically."""
    with naming(path, form.title):
        for name, x in arrays.items():
            if x.dtype.kind not in NUMERIC:
                raise Refused(f"expected {name} to be an array of numbers, received dtype {x.dtype}")
    check_file(Path(path))
    content = io.BytesIO()  # NumPy writes to a file through C's stdio, and misses the error of a full disk
    try:
        form.write(content, arrays)
    except Refused as problem:
        raise InputFormatError(f"{os.fspath(path)}: {problem}") from None
    write_bytes(path, content.getbuffer())


def check_name(path: FilePath) -> None:
    """Raise `InputFormatError` if the name's suffix is not that of a format."""
    format_of(path)


def write_array(path: FilePath, x: ArrayLike) -> None:
    """Write one array to a file; the suffix determines the format. float64 is preserved bit for bit.

    Writing is atomic: an existing file is replaced only when the new one is complete.

    Parameters
    ----------
    path : str or path-like
        A .npy, .npz, .mtx, .mtx.gz or .mat file; .npz and .mat call the array "x".
    x : array_like, any shape; a vector or matrix for Matrix Market
        Numbers. .npy and .npz keep shape and dtype. Matrix Market and MATLAB store a vector as a column, and Matrix
        Market has one type each for integers, real and complex numbers.

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
    _write(path, format_of(path), {"x": np.asarray(x)})


def write_system(path: FilePath, A: ArrayLike, b: ArrayLike) -> None:
    """Write A and b to one .npz or .mat file, under these names. float64 is preserved bit for bit.

    Parameters
    ----------
    path : str or path-like
        A .npz or .mat file.
    A, b : array_like
        One system or a batch. MATLAB stores a vector b as a column.

    Raises
    ------
    InputFormatError
        If the suffix is not .npz or .mat, or the format cannot hold A or b.
    OSError
        If the file cannot be written.
    """
    form = format_of(path)
    with naming(path, form.title):
        if not form.named:
            raise Refused(f"expected a .npz or .mat file for two arrays, received a {form.title}")
    _write(path, form, {"A": np.asarray(A), "b": np.asarray(b)})
