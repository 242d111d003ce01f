"""Systems in files: vectors as rows, variables of other names, file objects."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array, read_system, write_array, write_system
from files import BINARY, assert_same_bits, refused
from tests.stress.files import MEGABYTE, RANDOM, SUFFIXES

NAMED = [".npz", ".mat"]


def save(path, **arrays):
    """Write arrays as NumPy and SciPy do by default: SciPy makes rows of vectors."""
    (scipy.io.savemat if path.suffix == ".mat" else lambda p, a: np.savez(p, **a))(path, arrays)


# ------------------------------------------------------------------------------------------------- vectors as rows


def test_what_savemat_writes_by_default(tmp_path):
    scipy.io.savemat(tmp_path / "s.mat", {"A": RANDOM, "b": RANDOM[0]})
    assert scipy.io.loadmat(tmp_path / "s.mat")["b"].shape == (1, 5)
    A, b = read_system(tmp_path / "s.mat")
    assert_same_bits(np.ascontiguousarray(A), RANDOM)
    assert_same_bits(b, RANDOM[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_is_a_vector_in_any_format(suffix, tmp_path):
    write_array(tmp_path / "A.npy", RANDOM)
    write_array(tmp_path / f"b{suffix}", RANDOM[:1])
    assert_same_bits(read_system(tmp_path / "A.npy", tmp_path / f"b{suffix}")[1], RANDOM[0])
    write_array(tmp_path / "tall.npy", RANDOM[:, :3])  # five measurements of three unknowns
    assert_same_bits(read_system(tmp_path / "tall.npy", tmp_path / f"b{suffix}")[1], RANDOM[0])


@pytest.mark.parametrize(
    ("A", "b"),
    [
        ((1, 1), (1, 1)),  # one equation, one right-hand side
        ((1, 1), (1, 3)),  # one equation, three right-hand sides
        ((1, 5), (1, 5)),  # one measurement of five unknowns: five right-hand sides
        ((5, 5), (1, 4)),
        ((5, 5), (2, 5)),
        ((5, 5), (1, 5, 1)),
        ((3, 5, 5), (3, 5)),
        ((1, 5, 5), (1, 5)),  # a batch of one
        ((5, 5, 5), (1, 5)),
    ],
)
def test_what_is_no_row_is_left_alone(A, b, tmp_path):
    np.savez(tmp_path / "s.npz", A=np.ones(A), b=np.ones(b))
    assert read_system(tmp_path / "s.npz")[1].shape == b


# ---------------------------------------------------------------------------------------- variables of other names


@pytest.mark.parametrize("suffix", NAMED)
def test_other_names(suffix, tmp_path):
    path = tmp_path / f"s{suffix}"
    save(path, K=RANDOM, y=RANDOM[0], A=np.eye(5), b=np.ones(5))
    for keys, A, b in (
        ({}, np.eye(5), np.ones(5)),
        ({"A_key": "K"}, RANDOM, np.ones(5)),
        ({"b_key": "y"}, np.eye(5), RANDOM[0]),
        ({"A_key": "K", "b_key": "y"}, RANDOM, RANDOM[0]),
    ):
        for files in ((path,), (path, path)):
            got = read_system(*files, **keys)
            assert np.array_equal(got[0], A)
            assert np.array_equal(got[1], b)
    refused(path, "'x'", "K, y, A, b", read=read_system, A_key="x")
    refused(path, "'x'", "K, y, A, b", read=read_system, b_key="x")
    refused(path, "''", "K, y, A, b", read=read_system, A_key="")


@pytest.mark.parametrize("suffix", NAMED)
def test_two_arrays_of_other_names_need_theirs(suffix, tmp_path):
    path = tmp_path / f"s{suffix}"
    save(path, K=RANDOM, y=RANDOM[0])
    refused(path, "'A'", "FILE:NAME", "A_key=", "received: K, y", read=read_system)
    refused(path, "'b'", "FILE:NAME", "b_key=", "received: K, y", read=read_system, A_key="K")
    refused(path, "exactly one array", "FILE:NAME", "key=", "received: K, y")


@pytest.mark.parametrize("suffix", NAMED)
def test_in_two_files_the_only_array_needs_no_name(suffix, tmp_path):
    save(tmp_path / f"K{suffix}", K=RANDOM)
    save(tmp_path / f"y{suffix}", y=RANDOM[0])
    save(tmp_path / f"both{suffix}", A=np.eye(5), b=np.ones(5))
    A, b = read_system(tmp_path / f"K{suffix}", tmp_path / f"y{suffix}")
    assert np.array_equal(A, RANDOM)
    assert np.array_equal(b, RANDOM[0])
    assert np.array_equal(read_system(tmp_path / f"both{suffix}", tmp_path / f"y{suffix}")[0], np.eye(5))
    assert np.array_equal(read_system(tmp_path / f"K{suffix}", tmp_path / f"both{suffix}")[1], np.ones(5))


@pytest.mark.parametrize("option", ["A_key", "b_key"])
def test_formats_of_one_array_have_no_names(option, tmp_path):
    for name in "Ab":
        write_array(tmp_path / f"{name}.npy", RANDOM)
    with pytest.raises(InputFormatError, match=rf"{option[0]}\.npy: .*'K'"):
        read_system(tmp_path / "A.npy", tmp_path / "b.npy", **{option: "K"})


# ---------------------------------------------------------------------------------------------------- file objects


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_objects(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_array(path, RANDOM)
    content = path.read_bytes()
    assert_same_bits(np.ascontiguousarray(read_array(io.BytesIO(content), format=suffix[1:])), RANDOM)
    with open(path, "rb") as stream:
        assert np.array_equal(read_array(stream, format=suffix[1:]), RANDOM)
        assert not stream.closed
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb") as sink:
        thread = threading.Thread(target=lambda: (sink.write(content), sink.close()))
        thread.start()
        assert np.array_equal(read_array(stream, format=suffix[1:]), RANDOM)
        thread.join()


def test_a_system_in_file_objects(tmp_path):
    write_system(tmp_path / "s.npz", RANDOM, RANDOM[0])
    np.savez(tmp_path / "k.npz", K=RANDOM, y=RANDOM[0])
    np.save(tmp_path / "b.npy", RANDOM[1])
    one, other = io.BytesIO((tmp_path / "s.npz").read_bytes()), io.BytesIO((tmp_path / "k.npz").read_bytes())
    assert np.array_equal(read_system(one, format="npz")[1], RANDOM[0])
    assert np.array_equal(read_system(other, other, A_key="K", b_key="y", format="npz")[1], RANDOM[0])
    one.seek(0)
    assert np.array_equal(read_system(one, tmp_path / "b.npy", format="npz")[1], RANDOM[1])
    with open(tmp_path / "b.npy", "rb") as stream:
        assert np.array_equal(read_system(tmp_path / "s.npz", stream, format="npy")[1], RANDOM[1])


def test_file_objects_that_are_refused(tmp_path):
    def refuse(stream, words, **options):
        with pytest.raises(InputFormatError, match=words) as caught:
            read_array(stream, **options)
        assert str(caught.value).isprintable()

    good = (np.save(tmp_path / "x.npy", RANDOM), (tmp_path / "x.npy").read_bytes())[1]
    refuse(io.BytesIO(good), "format=.*received None")
    refuse(io.BytesIO(good), "format=.*received 'csv'", format="csv")
    refuse(io.BytesIO(good), "zip archive", format="npz")
    refuse(io.BytesIO(good), "at most 200 bytes", format="npy", max_bytes=200)
    refuse(io.StringIO("text"), "'rb'", format="npy")
    refuse(io.BytesIO(), "expected", format="npy")
    refuse(tmp_path / "x.npy", "format=", format="npy")
    with pytest.raises(InputFormatError, match="second file"):
        read_system(io.BytesIO(good), format="npy")


class Endless(io.RawIOBase):
    """What `yes` writes; counts the bytes that are taken."""

    taken = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.taken += len(buffer)
        buffer[:] = bytes(len(buffer))
        return len(buffer)


@pytest.mark.parametrize("suffix", BINARY)
def test_an_endless_stream_is_read_up_to_the_limit(suffix):
    stream = Endless()
    with pytest.raises(InputFormatError, match=f"at most {3 * MEGABYTE} bytes"):
        read_array(stream, format=suffix[1:], max_bytes=3 * MEGABYTE)
    assert stream.taken == 3 * MEGABYTE + 1
