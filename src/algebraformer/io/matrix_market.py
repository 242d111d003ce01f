"""Matrix Market files, .mtx and .mtx.gz, dense and sparse.

They are decoded here rather than by `scipy.io` because the files may be hostile or damaged: SciPy 1.17's `mmread`
crashes the process on a symmetric array that is not square and on an array of size 0 by 0, and reads "4xyz" as 4. The
tests use it as an oracle.

References
----------
.. [1] R. F. Boisvert, R. Pozo and K. A. Remington, "The Matrix Market exchange formats: initial design", NISTIR 5935
   (1996).
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np

from algebraformer.io.limits import BLOCK_BYTES, HEADER, Array, Refused, Wanted, check_size, complex_array

_FIELDS: dict[str, tuple[type, int]] = {  # field -> dtype of its numbers, how many of them an entry takes
    "real": (np.float64, 1),
    "double": (np.float64, 1),
    "complex": (np.float64, 2),
    "integer": (np.int64, 1),
    "unsigned-integer": (np.uint64, 1),
    "pattern": (np.float64, 0),
}
_MIRRORED: dict[str, Callable[[Array], Array]] = {  # symmetry -> a[j, i] from a[i, j]
    "symmetric": np.asarray,
    "skew-symmetric": np.negative,
    "hermitian": np.conjugate,
}
_BANNER = re.compile(
    rf"%?%matrixmarket\s+matrix\s+(array|coordinate)\s+({'|'.join(_FIELDS)})\s+(general|{'|'.join(_MIRRORED)})\s*"
)
_CHUNK = 2**17  # characters parsed at a time
_BYTES_PER_ENTRY = 128  # two indices of 20 digits and two numbers of 25 take 93
_DEFLATE_RATIO = 1032  # the most that deflate can compress [RFC 1951]: 258 bytes in two bits


@dataclasses.dataclass(frozen=True)
class _Header:
    coordinate: bool
    field: str
    symmetry: str
    shape: tuple[int, int]
    stored: int  # entries in the file


def _header_lines(text: IO[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers; refuse endless ones, and too many of them."""
    budget, number = BLOCK_BYTES, 0
    while line := text.readline(HEADER):
        number += 1
        budget -= len(line)
        if budget < 0 or len(line) == HEADER:
            raise Refused(f"line {number}: expected a header of at most {BLOCK_BYTES} characters, received more text")
        if not line.isspace():
            yield number, line


def _refuse(number: int, expected: str, line: str) -> Refused:
    return Refused(f"line {number}: expected {expected}, received {line.strip()[:80]!r}")


def _read_header(text: IO[str], size: int) -> tuple[_Header, int]:
    """Return what banner and sizes of a file of `size` bytes say, and the number of the line of sizes."""
    lines = _header_lines(text)
    number, banner = next(lines, (1, ""))
    match = _BANNER.fullmatch(banner.lower())
    if match is None:
        raise _refuse(number, "a line like '%%MatrixMarket matrix array real general'", banner)
    layout, field, symmetry = match.groups()
    coordinate = layout == "coordinate"
    unsigned = field in ("pattern", "unsigned-integer") and symmetry in ("skew-symmetric", "hermitian")
    if unsigned or (field == "pattern" and not coordinate):
        raise Refused(f"expected a matrix that the format knows, received one that is {layout} {field} {symmetry}")
    number, sizes = next((line for line in lines if not line[1].startswith("%")), (number + 1, ""))
    words = sizes.split()
    if len(words) != (3 if coordinate else 2) or not all(w.isascii() and w.isdigit() and len(w) < 20 for w in words):
        wanted = "rows, columns and entries" if coordinate else "rows and columns"
        raise _refuse(number, f"the numbers of {wanted}", sizes)
    rows, columns = int(words[0]), int(words[1])
    if symmetry != "general" and rows != columns:
        raise Refused(f"expected a {symmetry} matrix to be square, received {rows} by {columns}")
    if coordinate:
        stored = int(words[2])
    elif symmetry == "general":
        stored = rows * columns
    else:
        stored = rows * (rows - 1 if symmetry == "skew-symmetric" else rows + 1) // 2
    if stored > (most := max(rows * columns, size)):  # repeated entries are as many as the file is large, no more
        raise Refused(f"expected at most {most} entries in {rows} by {columns}, received {stored}")
    return _Header(coordinate, field, symmetry, (rows, columns), stored), number


def read(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read a Matrix Market file of `size` bytes."""
    return _read(stream, size, size, max_bytes)


def read_gz(stream: IO[bytes], size: int, wanted: Wanted, max_bytes: int) -> Array:
    """Read a Matrix Market file packed by gzip into `size` bytes."""
    with gzip.GzipFile(fileobj=stream) as unpacked:
        return _read(cast("IO[bytes]", unpacked), size, size * _DEFLATE_RATIO, max_bytes)


def _read(stream: IO[bytes], size: int, text_size: int, max_bytes: int) -> Array:
    """Read a file of `size` bytes with a text of at most `text_size`."""
    with io.TextIOWrapper(stream, encoding="latin-1") as text:
        header, number = _read_header(text, size)
        dtype = np.dtype(np.complex128 if header.field == "complex" else _FIELDS[header.field][0])
        check_size(header.shape, dtype, max_bytes)
        if text_size < header.stored * (4 if header.coordinate else 2):  # an entry is at least "1 1\n" or "1\n"
            raise Refused(f"expected {header.stored} entries, received a file too short to hold them")
        matrix = _Matrix(header, dtype)
        for numbers, chunk in _chunks(text, number + 1, header.stored):
            matrix.put(numbers, _parse(header, numbers, chunk))
    if matrix.done != header.stored:
        raise Refused(f"expected {header.stored} entries, received {matrix.done}")
    return matrix.dense


def _chunks(text: IO[str], number: int, stored: int) -> Iterator[tuple[Sequence[int], list[str]]]:
    """Yield the entries, at most so many, and the numbers of their lines, in turn; the first line is `number`."""
    budget = _BYTES_PER_ENTRY * stored + HEADER
    rest, block = "", " "
    while block:
        block = text.read(_CHUNK)
        lines = (rest + block).split("\n")
        rest = lines.pop() if block else ""  # the last line goes on in the next block
        budget -= len(block)
        if budget < 0 or len(rest) > HEADER:
            raise Refused(f"line {number + len(lines)}: expected less text than this for {stored} more entries")
        kept = [k for k, line in enumerate(lines) if line and not line.isspace()]
        chunk = [lines[k] for k in kept]
        if chunk[:stored]:
            yield [number + k for k in kept[:stored]], chunk[:stored]
        if len(chunk) > stored:
            raise _refuse(number + kept[stored], "no more entries than the header promises", chunk[stored])
        stored -= len(chunk)
        number += len(lines)


def _parse(header: _Header, numbers: Sequence[int], chunk: list[str]) -> Array:
    """Return the entries as an array of records: i and j if the file has them, and the numbers part0 and part1."""
    kind, per_entry = _FIELDS[header.field]
    columns: list[tuple[str, type]] = [("i", np.int64), ("j", np.int64)] if header.coordinate else []
    columns += [(f"part{k}", kind) for k in range(per_entry)]
    lines = chunk
    if kind is np.float64 and ("d" in (text := "\n".join(chunk)) or "D" in text):  # Fortran: 1.0D+03
        lines = text.replace("D", "E").replace("d", "e").split("\n")

    def parsed(first: int, end: int) -> Array | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # NumPy 2.0 to 2.2 on "1.5" in a column of integers
                return np.loadtxt(lines[first:end], dtype=columns, comments=None, ndmin=1)
        except (ValueError, OverflowError, DeprecationWarning):
            return None

    table = parsed(0, len(lines))
    if table is not None:
        return table
    first, end = 0, len(lines)  # halves: the first line that cannot be parsed stays between these two
    while end - first > 1:
        middle = (first + end) // 2
        if parsed(first, middle) is None:
            end = middle
        else:
            first = middle
    value = "number" if kind is np.float64 else "whole number"
    if header.coordinate:
        expected = ("row and column", f"row, column and {value}", "row, column, real and imaginary part")[per_entry]
    else:
        expected = f"one {value}" if per_entry == 1 else "real and imaginary part"
    raise _refuse(numbers[first], expected, chunk[first])


class _Matrix:
    """The dense matrix, filled with entries in the order of the file."""

    def __init__(self, header: _Header, dtype: np.dtype[Any]) -> None:
        self._header = header
        self.dense: Array = np.zeros(header.shape, dtype)
        self.done = 0  # entries so far
        self._side = 0  # of the diagonal on which a symmetric coordinate file has its entries: 1 below, -1 above

    def put(self, numbers: Sequence[int], table: Array) -> None:
        """Put the entries of the lines of these numbers in their places; repeated ones of a coordinate file add up."""
        header = self._header
        parts = [table[name] for name in table.dtype.names or () if name.startswith("part")]
        values: Array = np.ones(len(table)) if not parts else parts[0]
        if len(parts) == 2:
            values = complex_array(parts[0], parts[1], self.dense.dtype)
        i, j = (table["i"] - 1, table["j"] - 1) if header.coordinate else self._positions(len(table))
        self._check(numbers, i, j, values)
        self._add(i, j, values)
        if header.symmetry != "general":
            off = i != j
            self._add(j[off], i[off], _MIRRORED[header.symmetry](values[off]))
        self.done += len(table)

    def _positions(self, count: int) -> tuple[Array, Array]:
        """Return where the next entries of an array file belong: they list it, or its lower triangle, by columns."""
        n = self._header.shape[0]
        k = np.arange(self.done, self.done + count)
        if self._header.symmetry == "general":
            return k % n, k // n
        below = 1 if self._header.symmetry == "skew-symmetric" else 0  # the diagonal itself is left out there
        columns = np.arange(n)
        starts = columns * (n - below) - columns * (columns - 1) // 2
        j = np.searchsorted(starts, k, side="right") - 1
        return k - starts[j] + j + below, j

    def _check(self, numbers: Sequence[int], i: Array, j: Array, values: Array) -> None:
        rows, columns = self._header.shape
        symmetry = self._header.symmetry

        def refuse(wrong: Array, expected: str) -> None:
            if wrong.any():
                k = int(np.argmax(wrong))
                received = f"{values[k]} in row {i[k] + 1}, column {j[k] + 1}"
                raise Refused(f"line {numbers[k]}: expected {expected}, received {received}")

        refuse((i < 0) | (i >= rows) | (j < 0) | (j >= columns), f"an entry inside {rows} by {columns}")
        if symmetry == "skew-symmetric":
            refuse((i == j) & (values != 0), "a skew-symmetric matrix, whose diagonal is zero")
        elif symmetry == "hermitian":
            refuse((i == j) & (np.imag(values) != 0), "a hermitian matrix, whose diagonal is real")
        if symmetry != "general" and self._header.coordinate:
            sides = np.sign(i - j)
            self._side = self._side or int(next(iter(sides[sides != 0]), 0))
            refuse(sides * self._side < 0, f"the entries of a {symmetry} matrix on one side of the diagonal alone")

    def _add(self, i: Array, j: Array, values: Array) -> None:
        if self._header.coordinate:
            np.add.at(self.dense.reshape(-1), i * self._header.shape[1] + j, values)
        else:
            self.dense[i, j] = values  # and a negative zero stays one


def write(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write the one array, a vector as a column."""
    import scipy.io  # reading does not need it

    (x,) = arrays.values()
    if x.ndim not in (1, 2):
        raise Refused(f"expected a vector or a matrix for Matrix Market, received shape {x.shape}: use .npy or .npz")
    # SciPy's writer garbles complex64 and truncates float16 to whole numbers: give it the widest type of each kind.
    widest = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64, "c": np.complex128}[x.dtype.kind]
    column = x[:, None] if x.ndim == 1 else x
    scipy.io.mmwrite(stream, column.astype(widest), precision=17, symmetry="general")


def write_gz(stream: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """Write the one array as `write` does, packed by gzip; the same array gives the same bytes."""
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=6, mtime=0) as packed:
        write(cast("IO[bytes]", packed), arrays)
