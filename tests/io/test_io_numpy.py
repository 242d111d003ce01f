""".npy and .npz: what NumPy writes is read, and every kind of file to be refused is."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from algebraformer.io import read_array
from files import refused
from tests.stress.files import RANDOM, held, npy_header, npy_with

# ------------------------------------------------------------------------------------------------ what NumPy writes


@pytest.mark.parametrize("x", [RANDOM, np.asfortranarray(RANDOM), RANDOM.astype(">f4"), RANDOM > 0], ids=str)
def test_npy_and_npz_from_numpy(x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "y.npz", x=x)
    np.savez_compressed(tmp_path / "z.npz", x=x, other=np.arange(3))
    for got in (
        read_array(tmp_path / "x.npy"),
        read_array(tmp_path / "y.npz"),
        read_array(tmp_path / "z.npz", key="x"),
    ):
        assert np.array_equal(got, x)
        assert got.dtype == x.dtype.newbyteorder("=")


def test_npy_of_version_2_and_of_python_2(tmp_path):
    with open(tmp_path / "x.npy", "wb") as stream:
        np.lib.format.write_array(stream, RANDOM, version=(2, 0))
    assert np.array_equal(read_array(tmp_path / "x.npy"), RANDOM)
    text = held(np.save, np.arange(3.0)).replace(b"(3,), }  ", b"(3L,), } ")
    (tmp_path / "old.npy").write_bytes(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of such headers
        assert read_array(tmp_path / "old.npy").tolist() == [0, 1, 2]


# --------------------------------------------------------------------------------------------- what must be refused

BAD_NPY = {
    "negative size": (npy_with(npy_header(shape="(-2, -2)"), bytes(32)), "sizes of at least 0"),
    "huge sizes": (npy_with(npy_header(shape="(2000000, 2000000)"), bytes(32)), "at most 2147483648 bytes"),
    "overflowing sizes": (npy_with(npy_header(shape=f"({2**40}, {2**40})"), bytes(32)), "at most"),
    "sizes beyond C": (npy_with(npy_header(shape=f"(0, {10**30})")), "expected"),
    "thousands of digits": (npy_with(npy_header(shape=f"({'9' * 4000}, {'9' * 4000})")), "expected"),
    "too many dimensions": (npy_with(npy_header(shape="(" + "1, " * 200 + ")"), bytes(8)), "expected"),
    "less data than promised": (npy_with(npy_header(), bytes(31)), "expected 32 bytes of data"),
    "more data than promised": (npy_with(npy_header(), bytes(33)), "expected 32 bytes of data"),
    "no data": (npy_with(npy_header()), "expected 32 bytes of data"),
    "text": (npy_with(npy_header("'<U2'"), bytes(32)), "array of numbers"),
    "bytes": (npy_with(npy_header("'|S8'"), bytes(32)), "array of numbers"),
    "dates": (npy_with(npy_header("'<M8[s]'"), bytes(32)), "array of numbers"),
    "objects": (npy_with(npy_header("'|O'"), bytes(32)), "never loaded"),
    "void": (npy_with(npy_header("'|V8'"), bytes(32)), "array of numbers"),
    "structures": (npy_with(npy_header("[('a', '<f4'), ('b', '<f4')]"), bytes(32)), "array of numbers"),
    "arrays of arrays": (npy_with(npy_header("('<f4', (2,))"), bytes(32)), "array of numbers"),
    "unknown dtype": (npy_with(npy_header("'<f7'"), bytes(32)), "a .npy header"),
    "no dict": (npy_with("1"), "a .npy header"),
    "code": (npy_with("__import__('os').system('true')"), "a .npy header"),
    "deep nesting": (npy_with("(" * 5000), "a .npy header"),
    "deep minus": (npy_with("-" * 9000 + "1"), "a .npy header"),
    "not a key": (npy_with("{[]: 1}"), "a .npy header"),
    "indents": (npy_with("  1\n 2\n   3"), "a .npy header"),
    "no bool": (npy_with(npy_header(order="1"), bytes(32)), "a .npy header"),
    "no tuple": (npy_with(npy_header(shape="4"), bytes(32)), "a .npy header"),
    "header too long": (npy_with(" " * 70_000, version=(2, 0)), "a .npy header"),
    "header of 4 GiB": (b"\x93NUMPY\2\0" + b"\xff" * 4 + b"{", "a .npy header"),
    "header beyond the end": (b"\x93NUMPY\1\0\xff\xff{", "a .npy header"),
    "version 3": (npy_with(npy_header(), bytes(32), (3, 0)), "version 1.0 or 2.0"),
    "version 9": (npy_with(npy_header(), bytes(32), (9, 0)), "version 1.0 or 2.0"),
}


@pytest.mark.parametrize("case", BAD_NPY)
def test_malformed_npy(case, tmp_path):
    content, words = BAD_NPY[case]
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy", words)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    refused(tmp_path / "x.npz", words)


class Mischief:
    """Unpickling it leaves a folder behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path):
    trace = tmp_path / "trace"
    objects = np.array([Mischief(trace)], dtype=object)
    for path, content in (
        ("x.npy", held(np.save, objects, allow_pickle=True)),
        ("x.npz", held(np.savez, x=objects)),
        ("y.npy", pickle.dumps(Mischief(trace))),
        ("y.npz", pickle.dumps(Mischief(trace))),
    ):
        (tmp_path / path).write_bytes(content)
        refused(tmp_path / path)
    assert not trace.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)  # the trap works
    assert trace.exists()


def test_malformed_npz(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(held(np.savez))
    refused(path, "received: no array")
    path.write_bytes(held(np.save, RANDOM))
    refused(path, "zip archive")

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, "received: no array")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", held(np.save, RANDOM))
    assert np.array_equal(read_array(path), RANDOM)

    short = npy_with(npy_header(shape="(50, 50)"), bytes(100))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", short)
        archive.getinfo("x.npy").file_size += 50 * 50 * 8 - 100  # the directory and the header agree, the data does not
    refused(path, "expected 20000 bytes of data, received 100")

    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x.npy", held(np.save, RANDOM))
        refused(path, "stored or deflated")

    good = held(np.savez, x=RANDOM)
    encrypted = bytearray(good)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[good.index(signature) + offset] |= 1
    path.write_bytes(encrypted)
    refused(path, "encrypted")
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    path.write_bytes(damaged)
    refused(path, "zip archive that is damaged")

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\nb\x1b[31m.npy", held(np.save, RANDOM))
        archive.writestr("c" * 5000 + ".npy", held(np.save, RANDOM))
    refused(path, "exactly one array")  # one printable line of bounded length
