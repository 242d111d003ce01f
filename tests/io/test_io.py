"""Files in and out, all formats alike, against NumPy's and SciPy's own readers and writers."""

from __future__ import annotations

import gzip
import os
import re
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from algebraformer.errors import InputFormatError
from algebraformer.io import DEFAULT_MAX_BYTES, read_array, read_system, write_array, write_system
from files import BINARY, assert_same_bits, quick, refused, there_and_back
from tests.stress.files import MEGABYTE, RANDOM, SUFFIXES, held

# ------------------------------------------------------------------------------------------------------ round trips

any_float = st.floats(allow_nan=True, allow_infinity=True)
matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=any_float)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(x=matrices)
@quick
def test_float64_comes_back_bit_for_bit(suffix, x):
    if suffix.startswith(".mtx"):
        x = np.where(np.isnan(x), np.nan, x)  # text keeps no payload of a NaN
    assert_same_bits(there_and_back(suffix, x), x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_edges_of_float64_come_back_bit_for_bit(suffix):
    tiny, huge = np.finfo(np.float64).tiny, np.finfo(np.float64).max
    x = np.array([[0.1, 1 / 3, np.pi], [-0.0, 5e-324, tiny], [huge, -huge, np.nextafter(1, 2)], [np.inf, -np.inf, 0.0]])
    assert_same_bits(there_and_back(suffix, x), x)
    assert_same_bits(there_and_back(suffix, np.asfortranarray(x)), x)
    assert_same_bits(there_and_back(suffix, x[::2, ::-2]), np.ascontiguousarray(x[::2, ::-2]))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_complex_comes_back_bit_for_bit(suffix):
    x = np.array([[1 + 2j, complex(np.inf, 1), complex(-0.0, 0.1)], [1j / 3, complex(0.1, -0.0), 5e-324j]])
    assert_same_bits(there_and_back(suffix, x), x)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G", ">f8"]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_type_of_number_keeps_its_value(suffix, dtype):
    x = np.array([[1, 0, 1], [0, 1, 1]], dtype)
    if x.dtype.kind in "iu":
        x[0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    if x.dtype.kind in "fc":
        x[0] = 0.1 if dtype not in ("g", "G") else 0.125, 1.5, -3.25
    got = there_and_back(suffix, x)
    assert np.array_equal(got, x)
    assert got.dtype.isnative
    if suffix in (".npy", ".npz") or (suffix == ".mat" and dtype not in ("f2", "g", "G")):
        assert got.dtype == x.dtype.newbyteorder("=")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_vectors(suffix):
    x = np.array([0.1, 0.2, 0.3])
    got = there_and_back(suffix, x)
    assert np.array_equal(got, x if suffix in (".npy", ".npz") else x[:, None])


@pytest.mark.parametrize("suffix", BINARY)
def test_batches(suffix):
    x = np.random.default_rng(0).standard_normal((3, 4, 2))
    assert_same_bits(there_and_back(suffix, x), x)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_empty_and_single(suffix, shape):
    got = there_and_back(suffix, np.ones(shape))
    assert got.shape == shape
    assert np.array_equal(got, np.ones(shape))


@pytest.mark.parametrize("suffix", BINARY[:2])
def test_a_scalar_keeps_its_shape(suffix):
    assert there_and_back(suffix, np.float64(2.5)).shape == ()


@pytest.mark.parametrize("x", [RANDOM, RANDOM + 1j * RANDOM.T, np.arange(6).reshape(2, 3)], ids=["f", "c", "i"])
def test_others_read_what_we_write(x, tmp_path):
    for suffix in SUFFIXES:
        write_array(tmp_path / f"x{suffix}", x)
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)
    assert np.array_equal(np.load(tmp_path / "x.npz")["x"], x)
    assert np.array_equal(scipy.io.mmread(tmp_path / "x.mtx"), x)
    assert np.array_equal(scipy.io.mmread(tmp_path / "x.mtx.gz"), x)
    assert np.array_equal(scipy.io.loadmat(tmp_path / "x.mat")["x"], x)


# ---------------------------------------------------------------------------------------------------------- systems


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
@pytest.mark.parametrize(
    "shapes", [((4, 4), (4,)), ((4, 4), (4, 2)), ((3, 4, 4), (3, 4)), ((3, 4, 4), (3, 4, 2))], ids=str
)
def test_a_system_in_one_file(suffix, shapes, tmp_path):
    rng = np.random.default_rng(3)
    A, b = (rng.standard_normal(shape) for shape in shapes)
    path = tmp_path / f"system{suffix}"
    write_system(path, A, b)
    for got, expected in zip(read_system(path), (A, b), strict=True):
        assert_same_bits(np.ascontiguousarray(got), expected)


@pytest.mark.parametrize("A_suffix", SUFFIXES)
@pytest.mark.parametrize("b_suffix", SUFFIXES)
def test_a_system_in_two_files(A_suffix, b_suffix, tmp_path):
    A, b = RANDOM, RANDOM[0]
    write_array(tmp_path / f"A{A_suffix}", A)
    write_array(tmp_path / f"b{b_suffix}", b)
    for paths in (
        (tmp_path / f"A{A_suffix}", tmp_path / f"b{b_suffix}"),
        (f"{tmp_path}/A{A_suffix}", f"{tmp_path}/b{b_suffix}"),
    ):
        got_A, got_b = read_system(*paths)
        assert_same_bits(np.ascontiguousarray(got_A), A)
        assert_same_bits(got_b, b)


def test_columns_become_vectors_only_where_the_format_has_none(tmp_path):
    column = RANDOM[:, :1]
    write_array(tmp_path / "A.npy", RANDOM)
    for suffix in SUFFIXES:
        write_array(tmp_path / f"b{suffix}", column)
        write_array(tmp_path / f"two{suffix}", RANDOM[:, :2])
        _, b = read_system(tmp_path / "A.npy", tmp_path / f"b{suffix}")
        assert b.shape == ((5, 1) if suffix in (".npy", ".npz") else (5,))
        assert read_system(tmp_path / "A.npy", tmp_path / f"two{suffix}")[1].shape == (5, 2)
    write_system(tmp_path / "s.npz", RANDOM, column)
    assert read_system(tmp_path / "s.npz")[1].shape == (5, 1)
    write_system(tmp_path / "batch.mat", np.ones((3, 1, 1)), np.ones((3, 1)))  # three systems of one equation
    assert read_system(tmp_path / "batch.mat")[1].shape == (3, 1)


def test_shapes_that_do_not_fit_are_left_to_the_solver(tmp_path):
    write_system(tmp_path / "s.npz", np.eye(3), np.ones(2))
    A, b = read_system(tmp_path / "s.npz")
    assert A.shape == (3, 3)
    assert b.shape == (2,)


def test_systems_that_are_not_there(tmp_path):
    np.savez(tmp_path / "s.npz", A=RANDOM, rhs=RANDOM[0])
    refused(tmp_path / "s.npz", "'b'", "A, rhs", read=read_system)
    scipy.io.savemat(tmp_path / "s.mat", {"K": RANDOM, "b": RANDOM[0]})
    refused(tmp_path / "s.mat", "'A'", "K, b", read=read_system)
    write_array(tmp_path / "A.mtx", RANDOM)
    refused(tmp_path / "A.mtx", "second file", read=read_system)
    refused(tmp_path / "no.mtx", "second file", read=read_system)
    with pytest.raises(InputFormatError, match=r"b\.mtx: no such file"):
        read_system(tmp_path / "A.mtx", tmp_path / "b.mtx")


@pytest.mark.parametrize("suffix", [".npy", ".mtx", ".mtx.gz"])
def test_formats_of_one_array_take_neither_systems_nor_keys(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(InputFormatError, match=r"expected a \.npz or \.mat file"):
        write_system(path, RANDOM, RANDOM[0])
    write_array(path, RANDOM)
    refused(path, "without a name", "'A'", key="A")


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_one_of_several_arrays_needs_its_name(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_system(path, RANDOM, RANDOM[0])
    refused(path, "exactly one array", "A, b")
    refused(path, "'x'", "A, b", key="x")
    assert np.array_equal(read_array(path, key="A"), RANDOM)


# --------------------------------------------------------------------------------------------------- writing safely


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file(suffix, step, tmp_path, monkeypatch):
    path = tmp_path / f"x{suffix}"
    write_array(path, RANDOM)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_array(path, np.zeros((50, 50)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_stops_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    write_array(path, RANDOM)

    def interrupted(stream, x, **_):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_array(path, np.zeros(5))
    assert np.array_equal(read_array(path), RANDOM)
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_the_usual_permissions_and_links_stay_links(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_array(tmp_path / "x.npy", RANDOM)
    assert (tmp_path / "x.npy").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "link.npy").symlink_to("x.npy")
    write_array(tmp_path / "link.npy", RANDOM[0])
    assert (tmp_path / "link.npy").is_symlink()
    assert read_array(tmp_path / "x.npy").shape == (5,)


def test_what_cannot_be_written(tmp_path):
    for bad in (["text"], [object()], [{"a": 1}]):
        with pytest.raises(InputFormatError, match="expected x to be an array of numbers"):
            write_array(tmp_path / "x.npy", bad)
    with pytest.raises(InputFormatError, match="expected a name that ends in"):
        write_array(tmp_path / "x.csv", RANDOM)
    with pytest.raises(FileNotFoundError, match=rf"x.npy: no folder {re.escape(str(tmp_path / 'no'))}$"):
        write_array(tmp_path / "no" / "x.npy", RANDOM)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- what must be refused


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_paths_without_a_readable_file(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    refused(path, "no such file")
    refused(str(path), "no such file")
    path.mkdir()
    refused(path, "received a folder")
    path.rmdir()
    os.mkfifo(path)
    refused(path, "received a special file")  # and does not wait for somebody to write
    path.unlink()
    path.symlink_to(path)
    refused(path, "cannot be read")
    path.unlink()
    for content in (b"", b"\0", b"\n" * 1000, b"garbage " * 100, bytes(range(256)) * 4, bytes(1000), b"\xff" * 1000):
        path.write_bytes(content)
        refused(path, "expected")
    if os.geteuid():
        path.chmod(0)
        refused(path, "Permission denied")


@pytest.mark.parametrize("name", ["x.csv", "x", "x.gz", "x.npy.bak", ".hidden", "x.mtx.bz2"])
def test_unknown_formats(name, tmp_path):
    refused(tmp_path / name, ".npy, .npz, .mtx, .mtx.gz, .mat")
    (tmp_path / name).write_bytes(held(np.save, RANDOM))
    refused(tmp_path / name, "expected a name that ends in")


def test_suffixes_in_capitals(tmp_path):
    write_array(tmp_path / "X.NPY", RANDOM)
    assert np.array_equal(read_array(tmp_path / "X.NPY"), RANDOM)


def test_odd_paths():
    for path in ("a\nb.npy", "a\0b.npy", "\udc80.npy", "x" * 5000 + ".npy"):
        with pytest.raises(InputFormatError) as caught:
            read_array(path)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_limit_counts_the_dense_array(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_array(path, RANDOM)  # 200 bytes
    assert read_array(path, max_bytes=200).shape == (5, 5)
    refused(path, "at most 199 bytes", "200 bytes", max_bytes=199)
    assert DEFAULT_MAX_BYTES == 2**31


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz", ".mat", "4.mat"])
def test_the_limit_counts_a_sparse_matrix_as_dense(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    matrix = scipy.sparse.coo_array(([1.0], ([3], [4])), shape=(100_000, 100_000)).tocsc()
    if suffix.endswith(".mat"):
        scipy.io.savemat(path, {"x": matrix}, format="4" if suffix == "4.mat" else "5")
    else:
        path.write_bytes((gzip.compress if suffix == ".mtx.gz" else bytes)(held(scipy.io.mmwrite, matrix)))
    tracemalloc.start()
    refused(path, "(100000, 100000)", "80000000000 bytes")
    assert tracemalloc.get_traced_memory()[1] < 10 * MEGABYTE
    tracemalloc.stop()
