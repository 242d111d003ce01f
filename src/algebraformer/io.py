"""Linear systems from and to files: .npy, .npz, .mtx, .mtx.gz and .mat (MATLAB 4 and 5 to 7).

A file from elsewhere is not trusted. Its header is read first and the size it declares is checked against a limit
before anything of that size is allocated; compressed data is unpacked no further than the header promised; nothing is
ever unpickled or evaluated. Whatever is wrong with a file, the caller sees one `InputFormatError` of one line.

Matrix Market and MATLAB files are decoded here rather than by `scipy.io` because the files may be hostile or damaged:
SciPy 1.17's `mmread` crashes the process on a symmetric array that is not square and on an array of size 0 by 0, and
reads "4xyz" as 4; its `loadmat` unpacks without a limit. The tests use both as oracles.

References
----------
.. [1] R. F. Boisvert, R. Pozo and K. A. Remington, "The Matrix Market exchange formats: initial design", NISTIR 5935
   (1996).
.. [2] The MathWorks, "MAT-file format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import math
import os
import secrets
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

import numpy as np
import scipy.io
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from algebraformer.errors import InputFormatError

DEFAULT_MAX_BYTES = 2**31
"""Default limit on the size of one array in memory, in bytes: 2 GiB, a float64 matrix of n = 16384."""

Array = NDArray[Any]
FilePath = str | os.PathLike[str]
ByteOrder = Literal["<", ">"]
T = TypeVar("T")

_BLOCK = 2**20  # bytes read at a time
_HEADER = 2**16  # bytes a header may take, and a single line of text
_NUMERIC = "biufc"  # kinds of dtype: bool, integers, floating, complex


class _Refused(ValueError):
    """What was expected and what was received; `_named` puts the file's name in front."""


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
def _named(path: FilePath, expected: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one `InputFormatError` that names the file."""
    name = os.fspath(path)
    name = name if name.isprintable() else repr(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _Refused as problem:
        raise InputFormatError(f"{name}: {_one_line(str(problem))}") from None
    except FileNotFoundError:
        raise InputFormatError(f"{name}: no such file; expected a {expected}") from None
    except _READ_ERRORS as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        reason = _one_line(reason) or type(problem).__name__
        raise InputFormatError(
            f"{name}: expected a {expected}, received one that cannot be read: {reason}"
        ) from problem


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], max_bytes: int) -> int:
    """Return the number of bytes of an array, after comparing it with the limit."""
    if min(shape, default=0) < 0:
        raise _Refused(f"expected sizes of at least 0, received shape {shape}")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > max_bytes:
        raise _Refused(
            f"expected an array of at most {max_bytes} bytes, received shape {shape} of {dtype}: {nbytes} bytes"
        )
    return nbytes


def _choose(found: Mapping[str, T], key: str | None) -> T:
    """Return the array called `key`, or the only one there is."""
    if key is None and len(found) == 1:
        (key,) = found
    if key is not None and key in found:
        return found[key]
    wanted = f"an array named {key!r}" if key is not None else "exactly one array, or key= to name one of several"
    raise _Refused(f"expected {wanted}; received: {', '.join(found) or 'no array'}")


def _from_entries(i: Array, j: Array, values: Array, shape: tuple[int, int]) -> Array:
    """Return the dense array with values[k] at (i[k], j[k]), counted from 0. Repeated entries add up."""
    if i.size and (min(i.min(), j.min()) < 0 or i.max() >= shape[0] or j.max() >= shape[1]):
        received = f"rows {i.min() + 1} to {i.max() + 1} and columns {j.min() + 1} to {j.max() + 1}"
        raise _Refused(f"expected entries inside shape {shape}, received {received}")
    return np.asarray(scipy.sparse.coo_array((values, (i, j)), shape=shape).toarray())


def _complex(real: Array, imag: Array, dtype: np.dtype[Any]) -> Array:
    """Return real + i imag; unlike the sum, exact where one part is infinite or a negative zero."""
    out = np.empty(real.shape, dtype)
    out.real, out.imag = real, imag
    return out


# ---------------------------------------------------------------------------------------------------- .npy and .npz


def _read_npy(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read one .npy array from a stream that holds it and nothing else, `size` bytes."""
    head = io.BytesIO(stream.read(_HEADER))
    version = np.lib.format.read_magic(head)
    if version not in ((1, 0), (2, 0)):
        raise _Refused(f"expected a .npy header of version 1.0 or 2.0, received {version[0]}.{version[1]}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(head)
    if dtype.kind not in _NUMERIC:
        raise _Refused(f"expected an array of numbers, received dtype {dtype} (pickled objects are never loaded)")
    nbytes = _check_size(shape, dtype, max_bytes)
    if head.tell() + nbytes != size:
        raise _Refused(f"expected {nbytes} bytes of data for shape {shape} of {dtype}, received {size - head.tell()}")
    buffer = np.empty(nbytes, np.uint8)
    block = head.read()
    done = 0
    while block:
        buffer[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
        block = stream.read(min(_BLOCK, nbytes - done))
    if done != nbytes:
        raise _Refused(f"expected {nbytes} bytes of data, received {done}")
    return buffer.view(dtype).reshape(shape, order="F" if fortran_order else "C")


def _read_npz(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    with zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        member = _choose(members, key)
        # bzip2 and LZMA members are not written by NumPy, and zipfile unpacks them without a limit.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Refused(f"expected members stored or deflated, received compression type {member.compress_type}")
        with archive.open(member) as unpacked:
            return _read_npy(unpacked, member.file_size, None, max_bytes)


# ------------------------------------------------------------------------------------------------ .mtx and .mtx.gz

_MTX_FIELDS: dict[str, tuple[type, int]] = {  # field -> dtype of its numbers, how many of them an entry takes
    "real": (np.float64, 1),
    "double": (np.float64, 1),
    "complex": (np.float64, 2),
    "integer": (np.int64, 1),
    "unsigned-integer": (np.uint64, 1),
    "pattern": (np.float64, 0),
}
_MTX_MIRRORED: dict[str, Callable[[Array], Array]] = {  # symmetry -> a[j, i] from a[i, j]
    "symmetric": np.asarray,
    "skew-symmetric": np.negative,
    "hermitian": np.conjugate,
}
_MTX_BYTES_PER_ENTRY = 128  # two indices of 20 digits and two numbers of 25 take 93
_DEFLATE_RATIO = 1032  # the most that deflate can compress [RFC 1951]: 258 bytes in two bits


@dataclasses.dataclass(frozen=True)
class _MtxHeader:
    coordinate: bool
    field: str
    symmetry: str
    shape: tuple[int, int]
    stored: int  # entries in the file


def _lines(text: IO[str], budget: int) -> Iterator[str]:
    """Yield the lines of a text; refuse lines longer than a header and, in all, more than `budget` characters."""
    while line := text.readline(_HEADER):
        budget -= len(line)
        if budget < 0 or len(line) == _HEADER:
            raise _Refused("expected a Matrix Market file, received more text than its header accounts for")
        yield line


def _mtx_header(text: IO[str]) -> _MtxHeader:
    lines = _lines(text, _BLOCK)
    banner = next(lines, "")
    words = banner.lower().split()
    coordinate, field, symmetry = "coordinate" in words[2:3], *words[3:5], *("", "")[: max(0, 5 - len(words))]
    known = words[:2] == ["%%matrixmarket", "matrix"] and words[2:3] in (["coordinate"], ["array"]) and len(words) == 5
    if not known or field not in _MTX_FIELDS or symmetry not in ("general", *_MTX_MIRRORED):
        raise _Refused(f"expected a line like '%%MatrixMarket matrix array real general', received {banner[:80]!r}")
    if field == "pattern" and not (coordinate and symmetry in ("general", "symmetric")):
        raise _Refused(f"expected a pattern to be coordinate and general or symmetric, received {banner[:80]!r}")
    sizes = next((line for line in lines if line.strip() and not line.startswith("%")), "")
    numbers = [int(word) for word in sizes.split() if word.isascii() and word.isdigit()]
    if len(numbers) != len(sizes.split()) or len(numbers) != (3 if coordinate else 2):
        wanted = "rows, columns and entries" if coordinate else "rows and columns"
        raise _Refused(f"expected the numbers of {wanted}, received {sizes[:80]!r}")
    rows, columns = numbers[:2]
    if symmetry != "general" and rows != columns:
        raise _Refused(f"expected a {symmetry} matrix to be square, received {rows} by {columns}")
    if coordinate:
        stored = numbers[2]
    elif symmetry == "general":
        stored = rows * columns
    else:
        stored = rows * (rows - 1 if symmetry == "skew-symmetric" else rows + 1) // 2
    if stored > rows * columns:
        raise _Refused(f"expected at most {rows * columns} entries in {rows} by {columns}, received {stored}")
    return _MtxHeader(coordinate, field, symmetry, (rows, columns), stored)


def _read_mtx(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read a Matrix Market file whose text is at most `size` bytes long."""
    with io.TextIOWrapper(stream, encoding="latin-1") as text:
        header = _mtx_header(text)
        number, per_entry = _MTX_FIELDS[header.field]
        dtype = np.dtype(np.complex128 if header.field == "complex" else number)
        _check_size(header.shape, dtype, max_bytes)
        if size < header.stored * (4 if header.coordinate else 2):  # an entry is at least "1 1\n" or "1\n"
            raise _Refused(f"expected {header.stored} entries, received a file too short to hold them")
        columns: list[tuple[str, type]] = [("i", np.int64), ("j", np.int64)] if header.coordinate else []
        columns += [(f"part{k}", number) for k in range(per_entry)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            table = np.loadtxt(
                _lines(text, _MTX_BYTES_PER_ENTRY * header.stored + _HEADER),
                dtype=columns,
                comments=None,
                ndmin=1,
                max_rows=header.stored + 1,  # one more than promised, to notice it
            )
    if len(table) != header.stored:
        received = "more" if len(table) > header.stored else str(len(table))
        raise _Refused(f"expected {header.stored} entries, received {received}")
    if per_entry == 2:
        values = _complex(table["part0"], table["part1"], dtype)
    else:
        values = table["part0"] if per_entry else np.ones(header.stored)
    return _mtx_dense(header, table, values)


def _mtx_dense(header: _MtxHeader, table: Array, values: Array) -> Array:
    """Return the dense matrix: array files list it column by column, symmetric ones the lower triangle alone."""
    n = header.shape[0]
    if header.coordinate:
        i, j = table["i"] - 1, table["j"] - 1
    elif header.symmetry == "general":
        return values.reshape(header.shape, order="F")
    else:
        j, i = np.triu_indices(n, 1 if header.symmetry == "skew-symmetric" else 0)
    if header.symmetry != "general":
        off = i != j
        mirrored = _MTX_MIRRORED[header.symmetry](values[off])
        i, j, values = np.append(i, j[off]), np.append(j, i[off]), np.append(values, mirrored)
    return _from_entries(i, j, values, header.shape)


def _read_mtx_gz(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    with gzip.GzipFile(fileobj=stream) as unpacked:
        return _read_mtx(cast("IO[bytes]", unpacked), size * _DEFLATE_RATIO, key, max_bytes)


# ------------------------------------------------------------------------------------------------------------ .mat

_MI_DOUBLE, _MI_MATRIX, _MI_COMPRESSED, _MX_SPARSE = 9, 14, 15, 5
_MI_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # as stored
_MX_DTYPES = {_MX_SPARSE: "f8", 6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_MX_DTYPES |= {14: "i8", 15: "u8"}  # MATLAB's classes; it stores doubles in fewer bytes where that is exact
_MAT4_DTYPES = ("f8", "f4", "i4", "i2", "u2", "u1")


@dataclasses.dataclass(frozen=True)
class _MatVariable:
    """Where a variable of a MATLAB file stands and what its header says."""

    start: int  # position in the file: of its element (version 5), of its numbers (version 4)
    length: int  # bytes: of its element, unpacked (version 5), of its numbers (version 4)
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the dense array
    sparse: bool
    stored: np.dtype[Any] | None = None  # version 4: as stored
    data: int = 0  # version 5: where the numbers start in the element


def _read_mat(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    head = stream.read(128)
    if head.startswith(b"\x89HDF") or head[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):
        raise _Refused("expected a MATLAB file of version 4 to 7, received version 7.3 (HDF5): save it with -v7")
    if 0 in head[:4]:  # version 5 has text there
        return _read_mat4(stream, size, key, max_bytes)
    orders: dict[bytes, ByteOrder] = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
    order = orders.get(head[124:128])
    if order is None:
        raise _Refused("expected the header of a MATLAB file, received something else")
    return _read_mat5(stream, size, key, max_bytes, order)


def _mat_element(stream: IO[bytes], start: int, order: ByteOrder, limit: int) -> tuple[memoryview, int, int]:
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
        raise _Refused(f"expected a matrix element (type {_MI_MATRIX}), received type {kind}")
    return memoryview(content), length, end


def _mat_part(content: memoryview, at: int, order: ByteOrder) -> tuple[int, memoryview, int]:
    """Return type and bytes of the part of an element that starts at `at`, and where the next part starts."""
    (word,) = struct.unpack_from(order + "I", content, at)
    if word >> 16:  # at most four bytes, kept inside the tag
        kind, length, start, end = word & 0xFFFF, word >> 16, at + 4, at + 8
    else:
        (length,) = struct.unpack_from(order + "I", content, at + 4)
        kind, start, end = word, at + 8, at + 8 + length + -length % 8
    if start + length > min(len(content), end):
        raise _Refused(f"expected {length} bytes inside a variable, received {len(content) - start}")
    return kind, content[start : start + length], end


def _mat_numbers(content: memoryview, at: int, order: ByteOrder) -> tuple[Array, int]:
    """Return the numbers of one part of an element, and where the next part starts."""
    kind, data, end = _mat_part(content, at, order)
    if kind not in _MI_DTYPES:
        raise _Refused(f"expected numbers inside a variable, received type {kind}")
    return np.frombuffer(data, np.dtype(_MI_DTYPES[kind]).newbyteorder(order)), end


def _read_mat5(stream: IO[bytes], size: int, key: str | None, max_bytes: int, order: ByteOrder) -> Array:
    found: dict[str, _MatVariable] = {}
    start = 128
    while start < size:
        content, length, end = _mat_element(stream, start, order, _HEADER)
        if end > size:
            raise _Refused(
                f"expected a variable of {end - start} bytes, received {size - start}: the file is cut short"
            )
        (flags,) = struct.unpack_from(order + "I", content, 8)
        kind, is_complex, is_logical = flags & 0xFF, flags & 0x800, flags & 0x200
        if kind in _MX_DTYPES:  # the others are text, cells, structs, functions and objects
            dims, at = _mat_numbers(content, 16, order)
            _, name, at = _mat_part(content, at, order)
            dtype = np.dtype("?" if is_logical and kind != _MX_SPARSE else _MX_DTYPES[kind])
            if is_complex:
                dtype = np.dtype(np.complex64 if kind == 7 else np.complex128)
            shape = tuple(int(d) for d in dims)
            found[bytes(name).decode("latin-1")] = _MatVariable(
                start, length, shape, dtype, kind == _MX_SPARSE, data=at
            )
        start = end
    variable = _choose(found, key)
    # As full as it can be, a sparse matrix takes 12 bytes where the dense one takes 8.
    allowed = 2 * _check_size(variable.shape, variable.dtype, max_bytes) + _HEADER
    if variable.length > allowed:
        raise _Refused(f"expected at most {allowed} bytes for shape {variable.shape}, received {variable.length}")
    content, _, _ = _mat_element(stream, variable.start, order, variable.length)
    if len(content) != variable.length:
        raise _Refused(f"expected a variable of {variable.length} bytes, unpacked {len(content)}")
    return _mat5_dense(content, variable, order)


def _mat5_dense(content: memoryview, variable: _MatVariable, order: ByteOrder) -> Array:
    if variable.sparse:
        return _mat5_sparse(content, variable, order)
    real, at = _mat_numbers(content, variable.data, order)
    if real.size != math.prod(variable.shape):
        raise _Refused(f"expected {math.prod(variable.shape)} numbers, received {real.size}")
    values = _mat5_values(content, real, at, variable, order)
    return values.reshape(variable.shape, order="F")


def _mat5_values(content: memoryview, real: Array, at: int, variable: _MatVariable, order: ByteOrder) -> Array:
    """Return the numbers in the variable's type, with the imaginary part that follows at `at`, if any."""
    if variable.dtype.kind != "c":
        return real.astype(variable.dtype)
    return _complex(real, _mat_numbers(content, at, order)[0], variable.dtype)


def _mat5_sparse(content: memoryview, variable: _MatVariable, order: ByteOrder) -> Array:
    """Return the dense matrix from row numbers, where each column starts among them, and values."""
    m, n = variable.shape
    rows, at = _mat_numbers(content, variable.data, order)
    starts, at = _mat_numbers(content, at, order)
    starts = starts[: n + 1].astype(np.int64)
    counts = np.diff(starts)  # entries in each column
    if starts.size != n + 1 or starts[0] or counts.min(initial=0) < 0 or starts[-1] > rows.size:
        raise _Refused(f"expected the {n} columns of a sparse matrix, received column pointers that do not fit")
    nnz = int(starts[-1])
    kind, data, end = _mat_part(content, at, order)
    if kind == _MI_DOUBLE and len(data) == nnz:  # MATLAB stores logical values as bytes, with the tag of doubles
        real = np.frombuffer(data, np.uint8)
    else:
        real, end = _mat_numbers(content, at, order)
    values = _mat5_values(content, real, end, variable, order)
    return _from_entries(rows[:nnz].astype(np.int64), np.repeat(np.arange(n), counts), values[:nnz], (m, n))


def _read_mat4(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read MATLAB 4, which knew matrices of doubles alone, whatever type they were stored in."""
    found: dict[str, _MatVariable] = {}
    start = 0
    while start < size:
        stream.seek(start)
        head = stream.read(20)
        order: ByteOrder = "<" if 0 <= struct.unpack("<i", head[:4])[0] <= 5000 else ">"
        code, rows, columns, imag, name_length = struct.unpack(order + "5i", head)
        machine, precision, kind = code // 100, code // 10 % 10, code % 10  # kind 0 dense, 1 text, 2 sparse
        if machine not in (0, 10) or precision > 5 or kind > 2 or imag not in (0, 1) or min(rows, columns) < 0:
            raise _Refused("expected the header of a MATLAB 4 variable, received something else")
        stored = np.dtype(_MAT4_DTYPES[precision]).newbyteorder(order)
        length = rows * columns * stored.itemsize * (1 + imag)
        if name_length < 1 or start + 20 + name_length + length > size:
            raise _Refused(f"expected a variable of {length} bytes, received {size - start}: the file is cut short")
        name = stream.read(name_length).rstrip(b"\0").decode("latin-1")
        start += 20 + name_length
        if kind != 1:
            dtype = np.dtype(np.complex128 if imag else np.float64)
            found[name] = _MatVariable(start, length, (rows, columns), dtype, kind == 2, stored)
        start += length
    variable = _choose(found, key)
    _check_size(variable.shape, variable.dtype, max_bytes)
    stream.seek(variable.start)
    numbers: Array = np.frombuffer(stream.read(variable.length), variable.stored).astype(np.float64)
    if variable.dtype.kind == "c":
        real, imag = np.split(numbers, 2)
        numbers = _complex(real, imag, variable.dtype)
    table = numbers.reshape(variable.shape, order="F")
    return _mat4_dense(table, max_bytes) if variable.sparse else table


def _mat4_dense(table: Array, max_bytes: int) -> Array:
    """Return the dense matrix from columns i, j, value (and imaginary part); the last row holds the shape."""
    if table.shape[0] < 1 or table.shape[1] not in (3, 4) or table.dtype.kind == "c":
        raise _Refused(f"expected a sparse matrix as 3 or 4 columns, received shape {table.shape}")
    if not (np.abs(table[:, :2]) < 2**31).all():
        raise _Refused("expected row and column numbers below 2**31, received larger ones")
    positions = table[:, :2].astype(np.int64)
    shape = (int(positions[-1, 0]), int(positions[-1, 1]))
    dtype = np.dtype(np.float64 if table.shape[1] == 3 else np.complex128)
    _check_size(shape, dtype, max_bytes)
    values = table[:-1, 2] if table.shape[1] == 3 else _complex(table[:-1, 2], table[:-1, 3], dtype)
    return _from_entries(positions[:-1, 0] - 1, positions[:-1, 1] - 1, values, shape)


# --------------------------------------------------------------------------------------------------------- writing


def _write_npy(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    (x,) = arrays.values()
    np.save(stream, x, allow_pickle=False)


def _write_npz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    np.savez(stream, **cast("dict[str, Any]", arrays))


def _write_mtx(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    (x,) = arrays.values()
    if x.ndim not in (1, 2):
        raise _Refused(f"expected a vector or a matrix for Matrix Market, received shape {x.shape}: use .npy or .npz")
    # SciPy's writer garbles complex64 and truncates float16 to whole numbers: give it the widest type of each kind.
    widest = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64, "c": np.complex128}[x.dtype.kind]
    column = x[:, None] if x.ndim == 1 else x
    scipy.io.mmwrite(stream, column.astype(widest), precision=17, symmetry="general")


def _write_mtx_gz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:
        _write_mtx(cast("IO[bytes]", packed), arrays)


def _write_mat(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    try:
        scipy.io.savemat(cast(Any, stream), dict(arrays), oned_as="column")
    except scipy.io.matlab.MatWriteError as problem:
        raise _Refused(f"expected arrays of less than 4 GiB for .mat: {problem}; use .npz") from None


# ---------------------------------------------------------------------------------------------------------- public


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
    ".mtx": _Format("Matrix Market file (.mtx)", _read_mtx, _write_mtx, named=False, vectors=False),
    ".mtx.gz": _Format("Matrix Market file (.mtx.gz)", _read_mtx_gz, _write_mtx_gz, named=False, vectors=False),
    ".mat": _Format("MATLAB file (.mat)", _read_mat, _write_mat, named=True, vectors=False),
}


def _format_of(path: FilePath) -> _Format:
    name = os.fspath(path).lower()
    for suffix, form in _FORMATS.items():
        if name.endswith(suffix):
            return form
    with _named(path, "file"):
        raise _Refused(f"expected a name that ends in {', '.join(_FORMATS)}, received {os.path.splitext(name)[1]!r}")


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
    with _named(path, form.title):
        if key is not None and not form.named:
            raise _Refused(f"expected a .npz or .mat file for the name {key!r}, received one array without a name")
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise _Refused(f"expected a {form.title}, received a {'folder' if os.path.isdir(path) else 'special file'}")
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
            with _named(A_path, form.title):
                raise _Refused("expected a second file with b, or one .npz or .mat file that holds A and b")
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
    with _named(path, form.title):
        for name, x in arrays.items():
            if x.dtype.kind not in _NUMERIC:
                raise _Refused(f"expected {name} to be an array of numbers, received dtype {x.dtype}")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            try:
                form.write(stream, arrays)
            except _Refused as problem:
                raise InputFormatError(f"{os.fspath(path)}: {problem}") from None
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
    with _named(path, form.title):
        if not form.named:
            raise _Refused(f"expected a .npz or .mat file for two arrays, received a {form.title}")
    _write(path, form, {"A": np.asarray(A), "b": np.asarray(b)})
