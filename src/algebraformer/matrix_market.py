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
from collections.abc import Callable, Iterator, Mapping
from typing import IO, cast

import numpy as np

from algebraformer.untrusted import BLOCK, HEADER, Array, Refused, check_size, complex_array, from_entries

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
    rf"%%matrixmarket\s+matrix\s+(array|coordinate)\s+({'|'.join(_FIELDS)})\s+(general|{'|'.join(_MIRRORED)})\s*"
)
_BYTES_PER_ENTRY = 128  # two indices of 20 digits and two numbers of 25 take 93
_DEFLATE_RATIO = 1032  # the most that deflate can compress [RFC 1951]: 258 bytes in two bits


@dataclasses.dataclass(frozen=True)
class _Header:
    coordinate: bool
    field: str
    symmetry: str
    shape: tuple[int, int]
    stored: int  # entries in the file


def _lines(text: IO[str], budget: int) -> Iterator[str]:
    """Yield the lines of a text; refuse lines longer than a header and, in all, more than `budget` characters."""
    while line := text.readline(HEADER):
        budget -= len(line)
        if budget < 0 or len(line) == HEADER:
            raise Refused("expected a Matrix Market file, received more text than its header accounts for")
        yield line


def _read_header(text: IO[str]) -> _Header:
    lines = _lines(text, BLOCK)
    banner = next(lines, "")
    match = _BANNER.fullmatch(banner.lower())
    if match is None:
        raise Refused(f"expected a line like '%%MatrixMarket matrix array real general', received {banner[:80]!r}")
    layout, field, symmetry = match.groups()
    coordinate = layout == "coordinate"
    unsigned = field in ("pattern", "unsigned-integer") and symmetry in ("skew-symmetric", "hermitian")
    if unsigned or (field == "pattern" and not coordinate):
        raise Refused(f"expected a matrix that the format knows, received one that is {layout} {field} {symmetry}")
    sizes = next((line for line in lines if line.strip() and not line.startswith("%")), "")
    numbers = [int(word) for word in sizes.split() if word.isascii() and word.isdigit()]
    if len(numbers) != len(sizes.split()) or len(numbers) != (3 if coordinate else 2):
        wanted = "rows, columns and entries" if coordinate else "rows and columns"
        raise Refused(f"expected the numbers of {wanted}, received {sizes[:80]!r}")
    rows, columns = numbers[:2]
    if symmetry != "general" and rows != columns:
        raise Refused(f"expected a {symmetry} matrix to be square, received {rows} by {columns}")
    if coordinate:
        stored = numbers[2]
    elif symmetry == "general":
        stored = rows * columns
    else:
        stored = rows * (rows - 1 if symmetry == "skew-symmetric" else rows + 1) // 2
    if stored > rows * columns:
        raise Refused(f"expected at most {rows * columns} entries in {rows} by {columns}, received {stored}")
    return _Header(coordinate, field, symmetry, (rows, columns), stored)


def read(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read a Matrix Market file whose text is at most `size` bytes long."""
    with io.TextIOWrapper(stream, encoding="latin-1") as text:
        header = _read_header(text)
        number, per_entry = _FIELDS[header.field]
        dtype = np.dtype(np.complex128 if header.field == "complex" else number)
        check_size(header.shape, dtype, max_bytes)
        if size < header.stored * (4 if header.coordinate else 2):  # an entry is at least "1 1\n" or "1\n"
            raise Refused(f"expected {header.stored} entries, received a file too short to hold them")
        columns: list[tuple[str, type]] = [("i", np.int64), ("j", np.int64)] if header.coordinate else []
        columns += [(f"part{k}", number) for k in range(per_entry)]
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            table = np.loadtxt(
                _lines(text, _BYTES_PER_ENTRY * header.stored + HEADER),
                dtype=columns,
                comments=None,
                ndmin=1,
                max_rows=header.stored + 1,  # one more than promised, to notice it
            )
    if len(table) != header.stored:
        received = "more" if len(table) > header.stored else str(len(table))
        raise Refused(f"expected {header.stored} entries, received {received}")
    if per_entry == 2:
        values = complex_array(table["part0"], table["part1"], dtype)
    else:
        values = table["part0"] if per_entry else np.ones(header.stored)
    return _dense(header, table, values)


def _dense(header: _Header, table: Array, values: Array) -> Array:
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
        mirrored = _MIRRORED[header.symmetry](values[off])
        i, j, values = np.append(i, j[off]), np.append(j, i[off]), np.append(values, mirrored)
    return from_entries(i, j, values, header.shape)


def read_gz(stream: IO[bytes], size: int, key: str | None, max_bytes: int) -> Array:
    """Read a Matrix Market file packed by gzip into `size` bytes."""
    with gzip.GzipFile(fileobj=stream) as unpacked:
        return read(cast("IO[bytes]", unpacked), size * _DEFLATE_RATIO, key, max_bytes)


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
