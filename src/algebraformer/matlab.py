"""MATLAB files, .mat: versions 4 and 5 to 7, dense and sparse.

They are decoded here rather than by `scipy.io` because the files may be hostile or damaged: SciPy's `loadmat` unpacks
without a limit. The tests use it as an oracle.

References
----------
.. [1] The MathWorks, "MAT-file format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Mapping
from typing import IO, Any, Literal, cast

import numpy as np

from algebraformer.untrusted import HEADER, Array, Refused, check_size, choose, complex_array, from_entries

ByteOrder = Literal["<", ">"]

_MI_DOUBLE, _MI_MATRIX, _MI_COMPRESSED, _MX_SPARSE = 9, 14, 15, 5
_MI_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # as stored
_MX_DTYPES = {_MX_SPARSE: "f8", 6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_MX_DTYPES |= {14: "i8", 15: "u8"}  # MATLAB's classes; it stores doubles in fewer bytes where that is exact
_MAT4_DTYPES = ("f8", "f4", "i4", "i2", "u2", "u1")


@dataclasses.dataclass(frozen=True)
class _Variable:
    """Where a variable of a MATLAB file stands and what its header says."""

    start: int  # position in the file: of its element (version 5), of its numbers (version 4)
    length: int  # bytes: of its element, unpacked (version 5), of its numbers (version 4)
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the dense array
    sparse: bool
    stored: np.dtype[Any] | None = None  # version 4: as stored
    data: int = 0  # version 5: where the numbers start in the element


def read(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read the variable called `key`, or the only one there is, from a MATLAB file of `size` bytes."""
    head = stream.read(128)
    if head.startswith(b"\x89HDF") or head[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):
        raise Refused("expected a MATLAB file of version 4 to 7, received version 7.3 (HDF5): save it with -v7")
    if 0 in head[:4]:  # version 5 has text there
        return _read_mat4(stream, size, key, max_bytes)
    orders: dict[bytes, ByteOrder] = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
    order = orders.get(head[124:128])
    if order is None:
        raise Refused("expected the header of a MATLAB file, received something else")
    return _read_mat5(stream, size, key, max_bytes, order)


def _element(stream: IO[bytes], start: int, order: ByteOrder, limit: int) -> tuple[memoryview, int, int]:
    """Return at most `limit` bytes of the matrix element at `start`, its length, and where the next one starts."""
    stream.seek(start)
    kind, length = struct.unpack(order + "II", stream.read(8))
    end = start + 8 + length
    if kind != _MI_COMPRESSED:
        content = stream.read(min(length, limit))
    else:  # deflate never adds more than a thousandth; the byte beyond the limit makes zlib verify its checksum
        packed = stream.read(min(length, limit + limit // 1000 + 1024))
        content = zlib.decompressobj().decompress(packed, limit + 9)
        kind, length = struct.unpack(order + "II", content[:8])
        content = content[8:]
    if kind != _MI_MATRIX:
        raise Refused(f"expected a matrix element (type {_MI_MATRIX}), received type {kind}")
    return memoryview(content), length, end


def _part(content: memoryview, at: int, order: ByteOrder) -> tuple[int, memoryview, int]:
    """Return type and bytes of the part of an element that starts at `at`, and where the next part starts."""
    (word,) = struct.unpack_from(order + "I", content, at)
    if word >> 16:  # at most four bytes, kept inside the tag
        kind, length, start, end = word & 0xFFFF, word >> 16, at + 4, at + 8
    else:
        (length,) = struct.unpack_from(order + "I", content, at + 4)
        kind, start, end = word, at + 8, at + 8 + length + -length % 8
    if start + length > min(len(content), end):
        raise Refused(f"expected {length} bytes inside a variable, received {len(content) - start}")
    return kind, content[start : start + length], end


def _numbers(content: memoryview, at: int, order: ByteOrder) -> tuple[Array, int]:
    """Return the numbers of one part of an element, and where the next part starts."""
    kind, data, end = _part(content, at, order)
    if kind not in _MI_DTYPES:
        raise Refused(f"expected numbers inside a variable, received type {kind}")
    return np.frombuffer(data, np.dtype(_MI_DTYPES[kind]).newbyteorder(order)), end


def _read_mat5(stream: IO[bytes], size: int, key: str | None, max_bytes: int, order: ByteOrder) -> Array:
    found: dict[str, _Variable] = {}
    start = 128
    while start < size:
        content, length, end = _element(stream, start, order, HEADER)
        if end > size:
            raise Refused(f"expected a variable of {end - start} bytes, received {size - start}: the file is cut short")
        (flags,) = struct.unpack_from(order + "I", content, 8)
        kind, is_complex, is_logical = flags & 0xFF, flags & 0x800, flags & 0x200
        if kind in _MX_DTYPES:  # the others are text, cells, structs, functions and objects
            dims, at = _numbers(content, 16, order)
            _, name, at = _part(content, at, order)
            dtype = np.dtype("?" if is_logical and kind != _MX_SPARSE else _MX_DTYPES[kind])
            if is_complex:
                dtype = np.dtype(np.complex64 if kind == 7 else np.complex128)
            variable = _Variable(start, length, tuple(dims.tolist()), dtype, kind == _MX_SPARSE, data=at)
            if len(name):  # functions keep their data in a variable without a name
                found[bytes(name).decode("latin-1")] = variable
        start = end
    variable = choose(found, key)
    # As full as it can be, a sparse matrix takes 12 bytes where the dense one takes 8.
    allowed = 2 * check_size(variable.shape, variable.dtype, max_bytes) + HEADER
    if variable.length > allowed:
        raise Refused(f"expected at most {allowed} bytes for shape {variable.shape}, received {variable.length}")
    content, _, _ = _element(stream, variable.start, order, variable.length)
    if len(content) != variable.length:
        raise Refused(f"expected a variable of {variable.length} bytes, unpacked {len(content)}")
    return _mat5_dense(content, variable, order)


def _mat5_dense(content: memoryview, variable: _Variable, order: ByteOrder) -> Array:
    if variable.sparse:
        return _mat5_sparse(content, variable, order)
    real, at = _numbers(content, variable.data, order)
    if real.size != math.prod(variable.shape):
        raise Refused(f"expected {math.prod(variable.shape)} numbers, received {real.size}")
    values = _mat5_values(content, real, at, variable, order)
    return values.reshape(variable.shape, order="F")


def _mat5_values(content: memoryview, real: Array, at: int, variable: _Variable, order: ByteOrder) -> Array:
    """Return the numbers in the variable's type, with the imaginary part that follows at `at`, if any."""
    if variable.dtype.kind != "c":
        return real.astype(variable.dtype)
    return complex_array(real, _numbers(content, at, order)[0], variable.dtype)


def _mat5_sparse(content: memoryview, variable: _Variable, order: ByteOrder) -> Array:
    """Return the dense matrix from row numbers, where each column starts among them, and values."""
    m, n = variable.shape
    rows, at = _numbers(content, variable.data, order)
    starts, at = _numbers(content, at, order)
    starts = starts[: n + 1].astype(np.int64)
    counts = np.diff(starts)  # entries in each column
    if starts.size != n + 1 or starts[0] or counts.min(initial=0) < 0 or starts[-1] > rows.size:
        raise Refused(f"expected the {n} columns of a sparse matrix, received column pointers that do not fit")
    nnz = int(starts[-1])
    kind, data, end = _part(content, at, order)
    if kind == _MI_DOUBLE and len(data) == nnz:  # MATLAB stores logical values as bytes, with the tag of doubles
        real = np.frombuffer(data, np.uint8)
    else:
        real, end = _numbers(content, at, order)
    values = _mat5_values(content, real, end, variable, order)
    return from_entries(rows[:nnz].astype(np.int64), np.repeat(np.arange(n), counts), values[:nnz], (m, n))


def _read_mat4(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read MATLAB 4, which knew matrices of doubles alone, whatever type they were stored in."""
    found: dict[str, _Variable] = {}
    start = 0
    while start < size:
        stream.seek(start)
        head = stream.read(20)
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
    variable = choose(found, key)
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

    try:
        scipy.io.savemat(cast(Any, stream), dict(arrays), oned_as="column")
    except scipy.io.matlab.MatWriteError as problem:
        raise Refused(f"expected arrays of less than 4 GiB for .mat: {problem}; use .npz") from None
