"""The files that are read: their formats, and which variables are wanted of them."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Mapping
from typing import IO

from algebraformer.io import matlab, matrix_market, numpy_files
from algebraformer.io.limits import BLOCK_BYTES, Array, FilePath, Refused, Wanted, naming, open_file


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of files."""

    title: str
    read: Callable[[IO[bytes], int, Wanted, int], Array]  # stream, its size, which variable, max_bytes
    write: Callable[[IO[bytes], Mapping[str, Array]], None]
    named: bool  # holds several variables, by name
    vectors: bool  # knows one-dimensional arrays
    map: Callable[[IO[bytes], int, Wanted], Array] | None = None  # for formats that keep arrays as they are in memory


BY_SUFFIX = {
    ".npy": Format("NumPy array (.npy)", numpy_files.read_npy, numpy_files.write_npy, False, True, numpy_files.map_npy),
    ".npz": Format(
        "NumPy archive (.npz)", numpy_files.read_npz, numpy_files.write_npz, True, True, numpy_files.map_npz
    ),
    ".mtx": Format("Matrix Market file (.mtx)", matrix_market.read, matrix_market.write, named=False, vectors=False),
    ".mtx.gz": Format(
        "Matrix Market file (.mtx.gz)", matrix_market.read_gz, matrix_market.write_gz, named=False, vectors=False
    ),
    ".mat": Format("MATLAB file (.mat)", matlab.read, matlab.write, named=True, vectors=False),
}
FORMATS = tuple(suffix.removeprefix(".") for suffix in BY_SUFFIX)
"""Names of the formats, for file objects."""


def format_of(path: FilePath) -> Format:
    """Return the format of a path, by its suffix."""
    name = os.fspath(path).lower()
    for suffix, form in BY_SUFFIX.items():
        if name.endswith(suffix):
            return form
    with naming(path, "file"):
        raise Refused(f"expected a name that ends in {', '.join(BY_SUFFIX)}, received {os.path.splitext(name)[1]!r}")


@dataclasses.dataclass(frozen=True)
class Input:
    """A file to read, or the rest of a file object."""

    file: FilePath | IO[bytes]
    name: FilePath
    form: Format

    def refuse(self, words: str) -> None:
        """Raise `InputFormatError` with these words behind the name of the file."""
        with naming(self.name, self.form.title):
            raise Refused(words)

    def check_key(self, key: str | None) -> None:
        """Raise `InputFormatError` if a variable is named in a file that has no names."""
        if key is not None and not self.form.named:
            self.refuse(f"expected a .npz or .mat file for the name {key!r}, received one array without a name")

    def read(self, wanted: list[Wanted], max_bytes: int) -> list[Array]:
        """Read these variables."""
        with naming(self.name, self.form.title), self._open(max_bytes) as stream:
            size = stream.seek(0, os.SEEK_END)
            arrays = []
            for variable in wanted:
                stream.seek(0)
                array = self.form.read(stream, size, variable, max_bytes)
                arrays.append(array.astype(array.dtype.newbyteorder("="), copy=False))
            return arrays

    def map(self, wanted: list[Wanted]) -> list[Array]:
        """Map these variables into memory."""
        with naming(self.name, self.form.title), self._open(0) as stream:
            if self.form.map is None:
                raise Refused("expected a .npy or .npz file, to map it into memory")
            return [self.form.map(stream, stream.seek(0, os.SEEK_END), variable) for variable in wanted]

    def _open(self, max_bytes: int) -> IO[bytes]:
        """Open the file; the rest of a file object, which may be a pipe, is read into memory."""
        if isinstance(self.file, (str, os.PathLike)):
            return open_file(self.file, self.form.title)
        held = io.BytesIO()
        while block := self.file.read(min(BLOCK_BYTES, max_bytes + 1 - held.tell())):
            if not isinstance(block, bytes):
                raise Refused("expected a file object opened for bytes ('rb'), received one opened for text")
            held.write(block)
            if held.tell() > max_bytes:
                raise Refused(f"expected a file object with at most {max_bytes} bytes, received more")
        return held


def wanted_names(key: str | None, option: str, names: tuple[str, ...], both: bool = False) -> Wanted:
    """Return the variable `key` or, if None, the first of these names; `both` if one file should contain A and b."""
    if key is not None:
        return Wanted((key,))
    if both:
        way = f"FILE:NAME for each of A and b on the command line, {option}= in Python, or a second file for b"
        return Wanted(names, f"or {way}")
    return Wanted((*names, None), f"or FILE:NAME on the command line, {option}= in Python")


def inputs(format: str | None, *files: FilePath | IO[bytes]) -> list[Input]:
    """Return the files with their formats: paths by suffix, file objects by the argument."""
    found = []
    for file in files:
        if isinstance(file, (str, os.PathLike)):
            found.append(Input(file, file, format_of(file)))
            continue
        name = getattr(file, "name", None)
        name = name if isinstance(name, str) else "<stream>"
        if format not in FORMATS:
            with naming(name, "file"):
                raise Refused(f"expected format= for a file object, one of {', '.join(FORMATS)}, received {format!r}")
        found.append(Input(file, name, BY_SUFFIX[f".{format}"]))
    if format is not None and all(isinstance(file, (str, os.PathLike)) for file in files):
        found[0].refuse(f"expected format= for a file object alone, received {format!r} for a path")
    return found
