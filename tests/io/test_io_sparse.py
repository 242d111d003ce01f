"""Sparse matrices as `scipy.sparse.save_npz` writes them, against SciPy's own; and every kind that is to be refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from algebraformer.io import read_array, read_system
from files import assert_same_bits, refused
from tests.stress.files import MEGABYTE, RANDOM

LAYOUTS = ["csr", "csc", "coo", "bsr", "dia"]
WIDE = np.where(np.random.default_rng(5).random((6, 8)) < 0.4, np.random.default_rng(6).standard_normal((6, 8)), 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f8", "c16", "f4", "i8", "?"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "stored"])
def test_every_layout_comes_back(layout, dtype, kind, compressed, tmp_path):
    x = (WIDE * (1j if dtype == "c16" else 1) * 10).astype(dtype)
    sparse = getattr(scipy.sparse, f"coo_{kind}")(x).asformat(layout)
    scipy.sparse.save_npz(tmp_path / "x.npz", sparse, compressed=compressed)
    got = read_array(tmp_path / "x.npz")
    assert got.dtype == x.dtype
    assert np.array_equal(got, x)
    assert np.array_equal(got, scipy.sparse.load_npz(tmp_path / "x.npz").toarray())


@pytest.mark.parametrize("blocks", [(2, 2), (3, 4), (6, 8), (1, 1)])
def test_blocks_of_every_size(blocks, tmp_path):
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.bsr_array(WIDE, blocksize=blocks))
    assert_same_bits(read_array(tmp_path / "x.npz"), WIDE)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
@pytest.mark.parametrize("width", [3, 5, 9])
def test_diagonals_longer_and_shorter_than_the_matrix(shape, width, tmp_path):
    offsets = np.array([-9, -6, -3, 0, 2, 4, 8])
    data = np.arange(1.0, 7 * width + 1).reshape(7, width)
    sparse = scipy.sparse.dia_array((data, offsets), shape=shape)
    scipy.sparse.save_npz(tmp_path / "x.npz", sparse)
    assert np.array_equal(read_array(tmp_path / "x.npz"), sparse.toarray())


@pytest.mark.parametrize("index", ["<i4", "<i8", ">i4", "<u2"])
def test_repeated_entries_add_up_and_what_is_not_pointed_at_is_not_there(index, tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "x.npz", shape=(2, 3), data=[1.0, 2.0, 4.0, 8.0], **arrays)
        return read_array(tmp_path / "x.npz").tolist()

    many = np.array([1, 1, 0, 2], index)
    rows = np.array([0, 1, 1, 0], index)
    assert write(format="coo", row=rows, col=many) == [[0, 1, 8], [4, 2, 0]]
    assert write(format="coo", coords=np.stack([rows, many])) == [[0, 1, 8], [4, 2, 0]]
    assert write(format=b"csr", indices=many, indptr=np.array([0, 2, 3], index)) == [[0, 3, 0], [4, 0, 0]]
    assert write(format="csc", indices=rows, indptr=np.array([0, 0, 3, 4], index)) == [[0, 1, 8], [0, 6, 0]]


def test_more_repeated_entries_than_positions(tmp_path):
    count = 20_000  # far more than 2 x 2, and more than the header's allowance: as many as a stored file holds
    rows = np.arange(count) % 2
    sparse = scipy.sparse.coo_array((np.ones(count), (rows, rows)), shape=(2, 2))
    scipy.sparse.save_npz(tmp_path / "x.npz", sparse, compressed=False)
    assert read_array(tmp_path / "x.npz").tolist() == [[count / 2, 0], [0, count / 2]]


def test_one_of_two_files(tmp_path):
    scipy.sparse.save_npz(tmp_path / "A.npz", scipy.sparse.csr_array(RANDOM))
    scipy.sparse.save_npz(tmp_path / "b.npz", scipy.sparse.csc_array(RANDOM[:1]))
    np.save(tmp_path / "b.npy", RANDOM[0])
    for name in ("b.npz", "b.npy"):
        A, b = read_system(tmp_path / "A.npz", tmp_path / name)
        assert_same_bits(A, RANDOM)
        assert_same_bits(b, RANDOM[0])
    refused(tmp_path / "A.npz", "one sparse matrix", "second file", read=read_system)
    refused(tmp_path / "A.npz", "one sparse matrix", key="A")
    np.savez(tmp_path / "c.npz", format="csr", shape=RANDOM, data=2 * RANDOM)  # arrays of these names, not SciPy's
    assert_same_bits(read_array(tmp_path / "c.npz", key="data"), 2 * RANDOM)


# --------------------------------------------------------------------------------------------- what must be refused

CSR = {"format": b"csr", "shape": [2, 2], "data": [1.0, 2.0], "indices": [0, 1], "indptr": [0, 1, 2]}
COO = {"format": b"coo", "shape": [2, 2], "data": [1.0, 2.0], "row": [0, 1], "col": [0, 1]}
BSR = CSR | {"format": b"bsr", "shape": [4, 4], "data": np.ones((2, 2, 2))}
DIA = {"format": b"dia", "shape": [2, 2], "data": np.ones((2, 2)), "offsets": [0, 1]}
HUGE = 2**62

BAD = {
    "unknown layout": CSR | {"format": b"lil"},
    "layout of two words": CSR | {"format": ["csr", "csc"]},
    "layout of numbers": CSR | {"format": 3},
    "long layout": CSR | {"format": "c" * 100_000},
    "three dimensions": CSR | {"shape": [2, 2, 2]},
    "one dimension": CSR | {"shape": [2]},
    "fractions": CSR | {"shape": [2.0, 2.0]},
    "negative": CSR | {"shape": [-2, -2]},
    "text as data": CSR | {"data": ["a", "b"]},
    "no indices": {k: v for k, v in CSR.items() if k != "indices"},
    "no pointers": {k: v for k, v in CSR.items() if k != "indptr"},
    "no offsets": {k: v for k, v in DIA.items() if k != "offsets"},
    "index -1": CSR | {"indices": [0, -1]},
    "index out of range": CSR | {"indices": [0, 2]},
    "huge index": CSR | {"indices": [0, HUGE]},
    "index beyond int64": CSR | {"indices": np.array([0, 2**64 - 1], "u8")},
    "indices are fractions": CSR | {"indices": [0.0, 1.0]},
    "indices of two dimensions": CSR | {"indices": [[0], [1]]},
    "too few indices": CSR | {"indices": [0]},
    "too many indices": CSR | {"indices": [0, 1, 1]},
    "too few pointers": CSR | {"indptr": [0, 2]},
    "too many pointers": CSR | {"indptr": [0, 1, 2, 2]},
    "pointers from 1": CSR | {"indptr": [1, 1, 2]},
    "pointers backwards": CSR | {"indptr": [0, 2, 1]},
    "pointers wrap around": CSR | {"indptr": [0, 2**63 - 1, -(2**63)]},
    "pointers beyond the end": CSR | {"indptr": [0, 1, 3]},
    "pointers from -1": CSR | {"indptr": [-1, 1, 2]},
    "data of two dimensions": CSR | {"data": [[1.0], [2.0]]},
    "row -1": COO | {"row": [0, -1]},
    "row out of range": COO | {"row": [0, 2]},
    "column out of range": COO | {"col": [0, 2]},
    "a row too few": COO | {"row": [0]},
    "a value too few": COO | {"data": [1.0]},
    "rows of two dimensions": COO | {"row": [[0, 1]]},
    "three coordinates": {k: COO[k] for k in ("format", "shape", "data")} | {"coords": [[0, 1]] * 3},
    "blocks that do not divide": BSR | {"shape": [4, 5]},
    "blocks of nothing": BSR | {"data": np.ones((2, 0, 2))},
    "flat blocks": BSR | {"data": [1.0, 2.0]},
    "block column out of range": BSR | {"indices": [0, 2]},
    "block column -1": BSR | {"indices": [0, -1]},
    "block rows missing": BSR | {"indptr": [0, 2]},
    "an offset too few": DIA | {"offsets": [0]},
    "flat diagonals": DIA | {"data": [1.0, 2.0]},
    "offsets are fractions": DIA | {"offsets": [0.0, 1.0]},
    "a diagonal twice": DIA | {"offsets": [1, 1]},
    "objects": CSR | {"data": np.array([None, None])},
}


def test_the_malformed_archives_are_well_formed_but_for_one_thing(tmp_path):
    for arrays in (CSR, COO, BSR, DIA):
        np.savez(tmp_path / "x.npz", **arrays)
        assert np.array_equal(read_array(tmp_path / "x.npz"), scipy.sparse.load_npz(tmp_path / "x.npz").toarray())


@pytest.mark.parametrize("case", BAD)
def test_malformed_sparse_archives(case, tmp_path):
    np.savez(tmp_path / "x.npz", **BAD[case])
    refused(tmp_path / "x.npz", "expected", "pointers" if case.startswith("pointers ") else "")


@pytest.mark.parametrize(
    "arrays",
    [
        CSR | {"shape": [100_000, 100_000]},
        CSR | {"shape": [HUGE, HUGE]},
        CSR | {"shape": [2, HUGE]},
        COO | {"shape": [100_000, 100_000]},
        DIA | {"offsets": np.zeros(3_000_000, int), "data": np.ones((3_000_000, 1))},  # 48 MB of zeros and ones
        COO | {"row": np.zeros(3_000_000, int), "col": np.zeros(3_000_000, int), "data": np.ones(3_000_000)},
        CSR | {"indptr": np.zeros(6_000_000, int)},
    ],
)
def test_sizes_are_checked_before_anything_is_unpacked(arrays, tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    assert (tmp_path / "x.npz").stat().st_size < MEGABYTE
    tracemalloc.start()
    refused(tmp_path / "x.npz", "expected", "at most")
    assert tracemalloc.get_traced_memory()[1] < 2 * MEGABYTE
    tracemalloc.stop()


def test_all_members_together_are_no_larger_than_the_matrix_can_need(tmp_path):
    zeros = np.zeros(5_000, int)  # 40 kB each, where a header takes 64
    np.savez_compressed(tmp_path / "x.npz", **COO | {"row": zeros, "col": zeros, "data": np.ones(5_000)})
    refused(tmp_path / "x.npz", "at most", "120")


def test_the_limit_counts_the_dense_matrix(tmp_path):
    for layout in LAYOUTS:
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.coo_array(RANDOM).asformat(layout))
        assert read_array(tmp_path / "x.npz", max_bytes=200).shape == (5, 5)
        refused(tmp_path / "x.npz", "at most 199 bytes", max_bytes=199)
