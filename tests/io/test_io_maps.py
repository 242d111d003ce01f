"""Arrays that are mapped into memory: the same as those that are read, and nothing of a damaged file."""

from __future__ import annotations

import io as streams
import zipfile

import numpy as np
import pytest

from algebraformer import io
from algebraformer.errors import InputFormatError

A = np.random.default_rng(1).standard_normal((5, 3, 3))
b = np.random.default_rng(2).standard_normal((5, 3))


def is_mapped(array):
    """Say whether an array, or one that it is a view of, is a map of a file."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize(
    "array",
    [
        A,
        A.astype(">f4"),
        np.asfortranarray(A),
        A + 1j * A,
        np.arange(7),
        np.float64(2),
    ],
    ids=["c", "big-endian", "fortran", "complex", "integers", "scalar"],
)
def test_maps_are_what_is_read(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", other=b, x=array)
    for path, key in ((tmp_path / "x.npy", None), (tmp_path / "x.npz", "x")):
        mapped = io.map_array(path, key=key)
        assert is_mapped(mapped)
        assert not mapped.flags.writeable
        assert mapped.dtype == array.dtype
        np.testing.assert_array_equal(mapped, array, strict=True)


def test_empty_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.empty((0, 3, 3)))
    assert io.map_array(tmp_path / "x.npy").shape == (0, 3, 3)


def test_systems(tmp_path):
    np.savez(tmp_path / "s.npz", A=A, b=b)
    np.savez(tmp_path / "t.npz", K=A, y=b)
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    for found in (
        io.map_system(tmp_path / "s.npz"),
        io.map_system(tmp_path / "t.npz", A_key="K", b_key="y"),
        io.map_system(tmp_path / "A.npy", tmp_path / "b.npy"),
        io.map_system(tmp_path / "A.npy", tmp_path / "t.npz", b_key="y"),
    ):
        assert all(map(is_mapped, found))
        np.testing.assert_array_equal(found[0], A)
        np.testing.assert_array_equal(found[1], b)


def npy(array):
    stream = streams.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(content, compression=zipfile.ZIP_STORED):
    stream = streams.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as packed:
        packed.writestr("A.npy", content)
    return stream.getvalue()


def moved(content):
    """Let the directory of an archive point to a place where no member is."""
    at = content.rindex(b"PK\1\2") + 42
    return content[:at] + (7).to_bytes(4, "little") + content[at + 4 :]


WHOLE = npy(A)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.npy", WHOLE[:-1]),
        ("A.npy", WHOLE + b"\0"),
        ("A.npy", WHOLE[:20]),
        ("A.npy", b""),
        ("A.npy", npy(np.array(["text"]))),
        ("A.npy", WHOLE.replace(b"(5, 3, 3)", b"(9, 9, 9)")),
        ("A.npz", archive(WHOLE, zipfile.ZIP_DEFLATED)),
        ("A.npz", archive(WHOLE[:-1])),
        ("A.npz", moved(archive(WHOLE))),
        ("A.npz", archive(WHOLE)[:-30]),
        ("A.npz", WHOLE),
        ("A.mtx", b"%%MatrixMarket matrix array real general\n1 1\n1.0\n"),
        ("A.txt", b""),
    ],
)
def test_what_cannot_be_mapped(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputFormatError, match=name) as caught:
        io.map_array(path)
    assert "\n" not in str(caught.value)


def test_absent_files_and_names(tmp_path):
    np.savez(tmp_path / "s.npz", A=A, b=b)
    np.save(tmp_path / "A.npy", A)
    for path, key in (("absent.npy", None), ("s.npz", None), ("s.npz", "c"), ("A.npy", "A")):
        with pytest.raises(InputFormatError):
            io.map_array(tmp_path / path, key=key)
