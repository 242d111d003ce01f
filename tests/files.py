"""What the tests of files share: readers and writers that check, and files put together by hand, byte by byte."""

from __future__ import annotations

import io
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array, write_array

SUFFIXES = [".npy", ".npz", ".mtx", ".mtx.gz", ".mat"]
BINARY = [".npy", ".npz", ".mat"]
BANNER = "%%MatrixMarket matrix "
MEGABYTE = 2**20
RANDOM = np.random.default_rng(1).standard_normal((5, 5))

quick = settings(max_examples=40, deadline=None)


def refused(path, *words, read=read_array, **options):
    """Check that a file is refused with one line that names it and says these words; return the line."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputFormatError) as caught:
            read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 400
    for word in words:
        assert word in message
    return message


def held(write, *arguments, **options):
    """Return the bytes a NumPy or SciPy writer produces."""
    stream = io.BytesIO()
    write(stream, *arguments, **options)
    return stream.getvalue()


def there_and_back(suffix, x):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        write_array(path, x)
        return read_array(path)


def assert_same_bits(got, x):
    """Equal values, dtype and shape, negative zeros and the sign of NaN included."""
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    assert got.tobytes() == x.tobytes()


# ------------------------------------------------------------------------------------------------------------- .npy


def npy_with(header, data=b"", version=(1, 0)):
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def npy_header(descr="'<f8'", shape="(2, 2)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


# ------------------------------------------------------------------------------------------------------------- .mat


def mat5_part(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def mat5_element(dims, *parts, kind=6, name=b"x", flags=0):
    """Return a matrix element of a MATLAB 5 file; the parts are pairs of type and bytes."""
    content = mat5_part(6, struct.pack("<II", kind | flags, 1)) + mat5_part(5, np.array(dims, "<i4").tobytes())
    content += mat5_part(1, name) + b"".join(mat5_part(*part) for part in parts)
    return struct.pack("<II", 14, len(content)) + content


def mat5(*elements, version=b"\0\1IM"):
    return b"MATLAB 5.0 MAT-file".ljust(124) + version + b"".join(elements)


def doubles(*values):
    return 9, np.array(values, "<f8").tobytes()


GOOD_MAT = mat5_element((2, 2), doubles(1, 2, 3, 4))
