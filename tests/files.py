"""What the tests of files share: readers and writers that check, and files put together by hand, byte by byte."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array, write_array
from algebraformer.io.limits import Refused

BINARY = [".npy", ".npz", ".mat"]

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
    problem = caught.value
    while problem := problem.__cause__ or problem.__context__:  # NumPy's words, zlib's or zipfile's are not for users
        if not isinstance(problem, (Refused, OSError)) and str(problem):
            assert str(problem) not in message
    return message


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
