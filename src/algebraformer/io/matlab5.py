"""MATLAB files of version 5 to 7: arrays, dense and sparse, and the fields of structs.

An element is read from front to end and, if it is compressed, unpacked on the way, so that no more of it is held than
the array that is wanted.

References
----------
.. [1] The MathWorks, "MAT-file format", https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal

import numpy as np

from algebraformer.io.limits import (
    BLOCK_BYTES,
    HEADER,
    Array,
    Refused,
    Wanted,
    check_size,
    choose,
    complex_array,
    expand_pointers,
    from_entries,
)

ByteOrder = Literal["<", ">"]

_MI_DOUBLE, _MI_MATRIX, _MI_COMPRESSED, _MX_STRUCT, _MX_SPARSE = 9, 14, 15, 2, 5
_MI_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # as stored
_MX_DTYPES = {_MX_SPARSE: "f8", 6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_MX_DTYPES |= {14: "i8", 15: "u8"}  # MATLAB's classes; it stores doubles in fewer bytes where that is exact
_DEPTH = 8  # of structs in structs


class _Content:
    """What one element of a file holds: its parts in turn, unpacked if it is compressed."""

    def __init__(self, stream: IO[bytes], start: int, order: ByteOrder) -> None:
        self._stream, self.order = stream, order
        self._zlib = None
        self.position = 0
        stream.seek(start)
        kind, packed = self.tag()
        self.stop = start + 8 + packed  # where the next element starts in the file
        self._packed = packed  # bytes not read yet
        if kind == _MI_COMPRESSED:
            self._zlib = zlib.decompressobj()
            kind, packed = self.tag()
        if kind != _MI_MATRIX:
            raise Refused(f"expected a matrix element (type {_MI_MATRIX}), received type {kind}")
        self.length = packed
        self.position = 0

    def tag(self) -> tuple[int, int]:
        """Return the type and the length in bytes of what follows."""
        kind, length = struct.unpack(self.order + "II", self._read(8))
        return kind, length

    def part(self, end: int, limit: int = HEADER) -> tuple[int, bytes]:
        """Return type and bytes of the next part of a variable that ends at `end`."""
        if self.position + 8 > end:
            raise Refused(f"expected another part inside a variable, received {end - self.position} bytes")
        kind, length = self.tag()
        if kind >> 16:  # at most four bytes, kept inside the tag
            data = struct.pack(self.order + "I", length)
            kind, length = kind & 0xFFFF, kind >> 16
        else:
            if length > min(end - self.position, limit):
                raise Refused(f"expected {length} bytes inside a variable, received {end - self.position}")
            data = self._read(length)
            self.skip(min(-length % 8, end - self.position))
        if length > len(data):
            raise Refused(f"expected at most 4 bytes in a tag, received {length}")
        return kind, data[:length]

    def numbers(self, end: int, limit: int = HEADER) -> Array:
        """Return the numbers of the next part of a variable that ends at `end`."""
        kind, data = self.part(end, limit)
        return self.as_numbers(kind, data)

    def as_numbers(self, kind: int, data: bytes) -> Array:
        """Return the numbers of a part."""
        if kind not in _MI_DTYPES:
            raise Refused(f"expected numbers inside a variable, received type {kind}")
        dtype = np.dtype(_MI_DTYPES[kind]).newbyteorder(self.order)
        if len(data) % dtype.itemsize:
            raise Refused(f"expected numbers of {dtype.itemsize} bytes, received {len(data)} bytes")
        return np.frombuffer(data, dtype)

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        if self._zlib is None:
            self._stream.seek(count, 1)
            self.position += count
            return
        while count > 0:
            count -= len(self._read(min(count, BLOCK_BYTES)))

    def finish(self) -> None:
        """Go to the end of the element; compressed data must end there, with the right checksum."""
        self.skip(self.length - self.position)
        if self._zlib is not None and (self._take(1) or not self._zlib.eof):
            raise Refused(f"expected a variable of {self.length} bytes, received another length")

    def _read(self, count: int) -> bytes:
        data = self._take(count)
        if len(data) != count:
            raise Refused(f"expected {count} bytes inside a variable, received {len(data)}: the file is cut short")
        self.position += count
        return data

    def _take(self, count: int) -> bytes:
        """Return the next `count` bytes, or what is left."""
        if self._zlib is None:
            return self._stream.read(count)
        pieces = []
        while count > 0 and not self._zlib.eof:
            packed = self._zlib.unconsumed_tail
            if not packed:
                packed = self._stream.read(min(HEADER, self._packed))
                self._packed -= len(packed)
            pieces.append(self._zlib.decompress(packed, count))
            count -= len(pieces[-1])
            if not packed and not pieces[-1]:
                break
        return b"".join(pieces)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the numbers of an array are, and what its header says."""

    element: int  # where its element starts in the file
    start: int  # where its numbers start in the element
    end: int  # and end
    shape: tuple[int, ...]
    dtype: np.dtype[Any]  # of the dense array
    sparse: bool


def read(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int, order: ByteOrder) -> Array:
    """Read the wanted array of a MATLAB 5 file of `size` bytes; "S.A" is the field A of the struct S."""
    own = _arrays(stream, size, order, depth=0)
    found = own if wanted.names[0] in own else _arrays(stream, size, order, _DEPTH)
    place = choose(found, wanted, own or found)
    # As full as it can be, a sparse matrix takes 12 bytes where the dense one takes 8.
    allowed = 2 * check_size(place.shape, place.dtype, max_bytes) + HEADER
    if place.end - place.start > allowed:
        raise Refused(f"expected at most {allowed} bytes for shape {place.shape}, received {place.end - place.start}")
    content = _Content(stream, place.element, order)
    content.skip(place.start)
    array = (_sparse if place.sparse else _dense)(content, place)
    content.finish()
    return array


def _arrays(stream: IO[bytes], size: int, order: ByteOrder, depth: int) -> dict[str, _Place]:
    """Return the arrays of numbers in a file by name, with those in structs up to a depth."""
    found: dict[str, _Place] = {}
    start = 128
    while start < size:
        content = _Content(stream, start, order)
        if content.stop > size:
            received = f"received {size - start}: the file is cut short"
            raise Refused(f"expected a variable of {content.stop - start} bytes, {received}")
        found.update(_walk(content, start, content.length, None, depth))
        start = content.stop
    return found


def _walk(content: _Content, element: int, end: int, name: str | None, depth: int) -> Iterator[tuple[str, _Place]]:
    """Yield the array of numbers that ends at `end`, or those in the fields of a struct of one element.

    The name is that of the field, or None where the variable has its own.
    """
    if content.position == end:  # how MATLAB writes a field of which nothing has been set
        return
    _, data = content.part(end)
    (flags,) = struct.unpack_from(content.order + "I", data)
    kind, is_complex, is_logical = flags & 0xFF, flags & 0x800, flags & 0x200
    if kind not in (*_MX_DTYPES, _MX_STRUCT):  # text, cells, functions and objects
        return
    shape = tuple(content.numbers(end).tolist())
    _, own_name = content.part(end)
    name = own_name.decode("latin-1") if name is None else name
    if not name:  # functions keep their data in a variable without a name
        return
    if kind != _MX_STRUCT:
        dtype = np.dtype("?" if is_logical and kind != _MX_SPARSE else _MX_DTYPES[kind])
        if is_complex:
            dtype = np.dtype(np.complex64 if kind == 7 else np.complex128)
        yield name, _Place(element, content.position, end, shape, dtype, kind == _MX_SPARSE)
    elif depth and math.prod(shape) == 1:
        width = int(content.numbers(end)[0])
        _, fields = content.part(end)
        if width < 1:
            raise Refused(f"expected names of fields of at least 1 byte, received {width}")
        for k in range(0, len(fields) - width + 1, width):
            field = fields[k : k + width].partition(b"\0")[0].decode("latin-1")
            kind, length = content.tag()
            stop = content.position + length
            if kind != _MI_MATRIX or stop > end:
                raise Refused(f"expected a matrix element inside a struct, received type {kind} of {length} bytes")
            yield from _walk(content, element, stop, f"{name}.{field}", depth - 1)
            content.skip(stop - content.position)


def _values(content: _Content, real: Array, place: _Place) -> Array:
    """Return the numbers in the variable's type, with the imaginary part that follows, if any."""
    if place.dtype.kind != "c":
        return real.astype(place.dtype)
    return complex_array(real, content.numbers(place.end, place.end), place.dtype)


def _dense(content: _Content, place: _Place) -> Array:
    real = content.numbers(place.end, place.end)
    if real.size != math.prod(place.shape):
        raise Refused(f"expected {math.prod(place.shape)} numbers, received {real.size}")
    return _values(content, real, place).reshape(place.shape, order="F")


def _sparse(content: _Content, place: _Place) -> Array:
    """Return the dense matrix from row numbers, where each column starts among them, and values."""
    if len(place.shape) != 2:
        raise Refused(f"expected a sparse matrix of two dimensions, received shape {place.shape}")
    m, n = place.shape
    rows, pointers = (content.numbers(place.end, place.end) for _ in range(2))
    columns = expand_pointers(pointers[: n + 1], n, rows.size)
    nnz = columns.size
    kind, data = content.part(place.end, place.end)
    if kind == _MI_DOUBLE and len(data) == nnz:  # MATLAB stores logical values as bytes, with the tag of doubles
        real: Array = np.frombuffer(data, np.uint8)
    else:
        real = content.as_numbers(kind, data)
    values = _values(content, real, place)
    return from_entries(rows[:nnz], columns, values[:nnz], (m, n))
