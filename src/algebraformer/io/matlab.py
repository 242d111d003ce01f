"""MATLAB files, .mat: versions 4 and 5 to 7, dense and sparse.

They are decoded here and in `matlab5` rather than by `scipy.io` because the files may be hostile or damaged: SciPy's
`loadmat` unpacks without a limit. The tests use it as an oracle.

References
----------
.. [1] The MathWorks, "MAT-file format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import IO, Any, cast

import numpy as np

from algebraformer.io import matlab5
from algebraformer.io.limits import Array, Refused, Wanted, check_size, choose, complex_array, from_entries
from algebraformer.io.matlab5 import ByteOrder

_MAT4_DTYPES = ("f8", "f4", "i4", "i2", "u2", "u1")


@dataclasses.dataclass(frozen=True)
class _Variable:
    """Where a variable of a MATLAB 4 file stands and what its header says."""

    start: int  # position of its numbers in the file
    length: int  # bytes of its numbers
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sparse: bool
    stored: np.dtype[Any]  # as stored


def read(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read the wanted array of a MATLAB file of `size` bytes; "S.A" is the field A of the struct S."""
    head = stream.read(128)
    if head.startswith(b"\x89HDF") or head[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):
        raise Refused("expected a MATLAB file of version 4 to 7, received version 7.3 (HDF5): save it with -v7")
    if 0 in head[:4]:  # version 5 has text there
        return _read_mat4(stream, size, wanted, max_bytes)
    orders: dict[bytes, ByteOrder] = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
    order = orders.get(head[124:128])
    if order is None:
        raise Refused("expected the header of a MATLAB file, received something else")
    return matlab5.read(stream, size, wanted, max_bytes, order)


def _read_mat4(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read MATLAB 4, which knew matrices of doubles alone, whatever type they were stored in."""
    found: dict[str, _Variable] = {}
    start = 0
    while start < size:
        stream.seek(start)
        head = stream.read(20)
        if len(head) < 20:
            raise Refused(f"expected a header of 20 bytes, received {len(head)}: the file is cut short")
        order: ByteOrder = "<" if 0 <= struct.unpack("<i", head[:4])[0] <= 5000 else ">"
        code, rows, columns, imag, name_length = struct.unpack(order + "5i", head)
        machine, precision, kind = code // 100, code // 10 % 10, code % 10  # kind 0 dense, 1 text, 2 sparse
        if machine not in (0, 10) or precision > 5 or kind > 2 or imag not in (0, 1) or min(rows, columns) < 0:
            raise Refused("expected the header of a MATLAB 4 variable, received something else")
        stored = np.dtype(_MAT4_DTYPES[precision]).newbyteorder(order)
        length = rows * columns * stored.itemsize * (1 + imag)
        if name_length < 1 or start + 20 + name_length + length > size:
            raise Refused(f"expected a variable of {length} bytes, received {size - start}: the file is cut short")
        name = stream.read(name_length).rstrip(b"\0").decode("latin-1")
        start += 20 + name_length
        if kind != 1:
            dtype = np.dtype(np.complex128 if imag else np.float64)
            found[name] = _Variable(start, length, (rows, columns), dtype, kind == 2, stored)
        start += length
    variable = choose(found, wanted)
    check_size(variable.shape, variable.dtype, max_bytes)
    stream.seek(variable.start)
    numbers: Array = np.frombuffer(stream.read(variable.length), variable.stored).astype(np.float64)
    if variable.dtype.kind == "c":
        real, imag = np.split(numbers, 2)
        numbers = complex_array(real, imag, variable.dtype)
    table = numbers.reshape(variable.shape, order="F")
    return _mat4_dense(table, max_bytes) if variable.sparse else table


def _mat4_dense(table: Array, max_bytes: int) -> Array:
    """Return the dense matrix from columns i, j, value (and imaginary part); the last row holds the shape."""
    if table.shape[0] < 1 or table.shape[1] not in (3, 4) or table.dtype.kind == "c":
        raise Refused(f"expected a sparse matrix as 3 or 4 columns, received shape {table.shape}")
    if not (np.abs(table[:, :2]) < 2**31).all():
        raise Refused("expected row and column numbers below 2**31, received larger ones")
    positions = table[:, :2].astype(np.int64)
    shape = (int(positions[-1, 0]), int(positions[-1, 1]))
    dtype = np.dtype(np.float64 if table.shape[1] == 3 else np.complex128)
    check_size(shape, dtype, max_bytes)
    values = table[:-1, 2] if table.shape[1] == 3 else complex_array(table[:-1, 2], table[:-1, 3], dtype)
    return from_entries(positions[:-1, 0] - 1, positions[:-1, 1] - 1, values, shape)


def write(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write the arrays under their names, as MATLAB 5 does; vectors as columns."""
    import scipy.io  # reading does not need it

    # SciPy rounds real numbers of more than eight bytes to float64, and knows no complex ones.
    known = {name: x.astype(np.complex128) if x.dtype == np.clongdouble else x for name, x in arrays.items()}
    try:
        scipy.io.savemat(cast(Any, stream), known, oned_as="column")
    except scipy.io.matlab.MatWriteError as problem:
        raise Refused("expected arrays of less than 4 GiB for .mat, received a larger one: use .npz") from problem
