"""NumPy files, .npy and .npz, among them the sparse matrices of `scipy.sparse.save_npz`.

Headers are read first, members are unpacked no further than their headers promise, and nothing is ever unpickled.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
from collections.abc import Mapping
from typing import IO, Any, Literal, cast

import numpy as np

from algebraformer.io.limits import (
    BLOCK_BYTES,
    HEADER,
    READ_ERRORS,
    Array,
    Refused,
    Wanted,
    check_size,
    choose,
    expand_pointers,
    from_entries,
)

NUMERIC = "biufc"  # kinds of dtype: bool, integers, floating, complex
_WHOLE, _TEXT = "iu", "SU"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], io.BytesIO]:
    """Return shape, order and dtype of a .npy array, and what was read with them, positioned where the data starts."""
    head = io.BytesIO(stream.read(HEADER))
    start = head.read(8)
    version = tuple(start[6:])
    if not start.startswith(b"\x93NUMPY") or version not in ((1, 0), (2, 0)):
        received = f"version {'.'.join(map(str, version))}" if start.startswith(b"\x93NUMPY") else "something else"
        raise Refused(f"expected a .npy header of version 1.0 or 2.0, received {received}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran_order, dtype = read_header(head)
    except READ_ERRORS:
        raise Refused("expected a .npy header with type, order and shape, received something else") from None
    return shape, fortran_order, dtype, head


def _checked_header(
    stream: IO[bytes], size: int, max_bytes: int, kinds: str = NUMERIC
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], IO[bytes], int]:
    """Return shape, order and dtype of a .npy array of `size` bytes, the stream at its data, and their bytes."""
    shape, fortran_order, dtype, head = _header(stream)
    if dtype.kind not in kinds:
        raise Refused(f"expected an array of numbers, received dtype {dtype} (pickled objects are never loaded)")
    nbytes = check_size(shape, dtype, max_bytes)
    if head.tell() + nbytes != size:
        raise Refused(f"expected {nbytes} bytes of data for shape {shape} of {dtype}, received {size - head.tell()}")
    return shape, "F" if fortran_order else "C", dtype, head, nbytes


def _read(stream: IO[bytes], size: int, max_bytes: int, kinds: str = NUMERIC) -> Array:
    """Read one .npy array from a stream that holds it and nothing else, `size` bytes."""
    shape, order, dtype, head, nbytes = _checked_header(stream, size, max_bytes, kinds)
    buffer = np.empty(nbytes, np.uint8)
    block = head.read()
    done = 0
    while block:
        buffer[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
        block = stream.read(min(BLOCK_BYTES, nbytes - done))
    if done != nbytes:
        raise Refused(f"expected {nbytes} bytes of data, received {done}")
    return buffer.view(dtype).reshape(shape, order=order)


def read_npy(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read the array of a .npy file of `size` bytes."""
    return _read(stream, size, max_bytes)


def read_npz(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read the wanted array of a .npz file of `size` bytes, or the sparse matrix that the file is."""
    with zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        if members.keys() >= {"format", "shape", "data"} and not members.keys() & set(wanted.names):
            choose({"one sparse matrix without a name": None}, wanted)
            return _read_sparse(archive, members, size, max_bytes)
        return _member(archive, choose(members, wanted), max_bytes)


def _open(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    # bzip2 and LZMA members are not written by NumPy, and zipfile unpacks them without a limit.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"expected members stored or deflated, received compression type {member.compress_type}")
    if member.flag_bits & 1:
        raise Refused("expected members that anybody can read, received one that is encrypted")
    return archive.open(member)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int, kinds: str = NUMERIC) -> Array:
    with _open(archive, member) as unpacked:
        return _read(unpacked, member.file_size, max_bytes, kinds)


# ------------------------------------------------------------------------------------------------- memory maps

_LOCAL_HEADER = 30
"""Bytes of a zip member's own header before its name; the last four are the lengths of name and extra field."""


def map_npy(stream: IO[bytes], size: int, wanted: Wanted) -> Array:
    """Map the array of a .npy file of `size` bytes."""
    return _map(stream, 0, size)


def map_npz(stream: IO[bytes], size: int, wanted: Wanted) -> Array:
    """Map the wanted array of a .npz file of `size` bytes, which has to be stored as it is."""
    with zipfile.ZipFile(stream) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        member = choose(members, wanted)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise Refused("expected an array stored as numpy.savez does, to map it, received one that is compressed")
    stream.seek(member.header_offset)
    header = stream.read(_LOCAL_HEADER)
    if len(header) != _LOCAL_HEADER or not header.startswith(b"PK\3\4"):
        raise Refused("expected a member with a header, received something else")
    start = stream.tell() + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if start + member.file_size > size:
        raise Refused(f"expected {member.file_size} bytes of a member, received {max(0, size - start)}")
    return _map(stream, start, member.file_size)


def _map(stream: IO[bytes], start: int, size: int) -> Array:
    """Map the .npy array in these bytes of a file, for reading."""
    stream.seek(start)
    shape, order, dtype, head, nbytes = _checked_header(stream, size, size)
    if nbytes == 0:  # which no system maps
        return np.empty(shape, dtype)
    mapped = np.memmap(os.fspath(stream.name), dtype, "r", start + head.tell(), shape, order)
    return np.asarray(mapped)


# ------------------------------------------------------------------------------------ what scipy.sparse.save_npz writes

_INDICES = {  # layout -> the members with indices
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}


def _read_sparse(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], size: int, max_bytes: int) -> Array:
    """Return the dense matrix, after the sizes of all members have been compared with what its shape can need."""
    read = functools.partial(_member, archive)
    text = read(members["format"], HEADER, _TEXT).reshape(-1).tolist()  # bytes, or str from SciPy before 1.0
    layout = (text[0].decode("latin-1") if isinstance(text[0], bytes) else text[0]) if len(text) == 1 else ""
    if layout not in _INDICES:
        raise Refused(f"expected a sparse matrix as {', '.join(_INDICES)}, received {layout[:20]!r}")
    sizes = read(members["shape"], HEADER, _WHOLE)
    if sizes.shape != (2,):
        raise Refused(f"expected a sparse matrix of two dimensions, received {sizes.size}")
    shape = (int(sizes[0]), int(sizes[1]))

    names = ("coords",) if layout == "coo" and "coords" in members else _INDICES[layout]
    missing = [name for name in names if name not in members]
    if missing:
        raise Refused(f"expected {' and '.join(names)} for a sparse matrix as {layout}, received no {missing[0]}")
    with _open(archive, members["data"]) as unpacked:
        _, _, dtype, _ = _header(unpacked)
    dense_bytes = check_size(shape, dtype, max_bytes)
    # Each position once, with two indices of eight bytes; more repeated entries only where the file itself is as large.
    allowed = min(max(dense_bytes + 16 * shape[0] * shape[1], size), 3 * max_bytes) + HEADER
    received = sum(members[name].file_size for name in ("data", *names))
    if received > allowed:
        raise Refused(f"expected at most {allowed} bytes for a sparse matrix of shape {shape}, received {received}")

    data = read(members["data"], allowed)
    indices = [read(members[name], allowed, _WHOLE) for name in names]
    if layout == "dia":
        return _from_diagonals(indices[0], data, shape)
    if layout == "coo":
        row, col = indices[0] if names == ("coords",) else indices
        return from_entries(row, col, data, shape)
    minor, pointers = indices
    if len(minor.shape) != 1 or len(minor) != len(data):
        raise Refused(f"expected an index for each of {len(data)} entries, received shape {minor.shape}")
    if layout == "bsr":
        return _from_blocks(minor, pointers, data, shape)
    major = expand_pointers(pointers, shape[0 if layout == "csr" else 1], len(minor))
    minor, data = minor[: len(major)], data[: len(major)]
    return from_entries(*((major, minor) if layout == "csr" else (minor, major)), data, shape)


def _from_blocks(columns: Array, pointers: Array, blocks: Array, shape: tuple[int, int]) -> Array:
    """Return the dense matrix from blocks (K, r, c), the block column of each, and pointers to block rows."""
    if blocks.ndim != 3 or min(blocks.shape[1:]) < 1 or shape[0] % blocks.shape[1] or shape[1] % blocks.shape[2]:
        raise Refused(f"expected blocks that divide shape {shape}, received them with shape {blocks.shape}")
    _, r, c = blocks.shape
    rows = expand_pointers(pointers, shape[0] // r, len(columns))
    columns, blocks = columns[: len(rows)].astype(np.int64), blocks[: len(rows)]
    if columns.size and (columns.min() < 0 or columns.max() >= shape[1] // c):
        raise Refused(f"expected block columns below {shape[1] // c}, received {columns.min()} to {columns.max()}")
    dense = np.zeros(shape, blocks.dtype)
    tiles = dense.reshape(shape[0] // r, r, shape[1] // c, c).swapaxes(1, 2)  # (block row, block column, r, c)
    np.add.at(tiles, (rows, columns), blocks)
    return dense


def _from_diagonals(offsets: Array, diagonals: Array, shape: tuple[int, int]) -> Array:
    """Return the dense matrix with diagonals[k, j] in column j and row j - offsets[k]."""
    if diagonals.ndim != 2 or offsets.shape != (len(diagonals),):
        raise Refused(f"expected an offset for each diagonal, received {offsets.size} and shape {diagonals.shape}")
    if len(np.unique(offsets)) != len(offsets):
        raise Refused("expected every diagonal once, received one of them twice")
    dense = np.zeros(shape, diagonals.dtype)
    for offset, diagonal in zip(offsets.tolist(), diagonals, strict=True):
        first, end = max(offset, 0), min(shape[1], shape[0] + offset, diagonals.shape[1])
        if first < end:
            columns = np.arange(first, end)
            dense[columns - offset, columns] = diagonal[first:end]
    return dense


# --------------------------------------------------------------------------------------------------------- writing


def write_npy(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write the one array."""
    (x,) = arrays.values()
    np.save(stream, x, allow_pickle=False)


def write_npz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write the arrays under their names."""
    np.savez(stream, **cast("dict[str, Any]", arrays))
