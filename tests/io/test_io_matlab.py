"""MATLAB files against SciPy's reader and files from MATLAB itself; and every kind of file to be refused."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.io.matlab
import scipy.sparse

from algebraformer.io import read_array
from files import refused
from tests.stress.files import GOOD_MAT, RANDOM, doubles, mat5, mat5_element

# -------------------------------------------------------------------------------------- what SciPy and MATLAB write


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}], ids=["5", "compressed", "4"])
@pytest.mark.parametrize("kind", ["real", "complex", "sparse", "sparse complex"])
def test_matlab_from_scipy(options, kind, tmp_path):
    x = RANDOM * (RANDOM > 0)
    x = x + 1j * RANDOM if "complex" in kind else x
    scipy.io.savemat(tmp_path / "x.mat", {"x": scipy.sparse.csc_array(x) if "sparse" in kind else x}, **options)
    assert np.array_equal(read_array(tmp_path / "x.mat"), x)


def test_matlab_variables_that_are_no_numbers_are_passed_over(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(mat5(mat5_element((1, 1), doubles(1.0)), mat5_element((1, 3), (2, b"abc"), kind=9, name=b"")))
    assert read_array(path).tolist() == [[1.0]]  # the data of a function has no name
    cells = np.array([[1, "two"]], dtype=object)
    scipy.io.savemat(path, {"note": "text", "s": {"a": np.eye(2)}, "A": RANDOM, "c": cells})
    assert np.array_equal(read_array(path), RANDOM)
    refused(path, "an array named 'note'", "received: s.a, A", key="note")


FROM_MATLAB = sorted((Path(scipy.io.matlab.__file__).parent / "tests" / "data").glob("*.mat"))


@pytest.mark.skipif(not FROM_MATLAB, reason="this SciPy came without the data of its tests")
def test_files_written_by_matlab_itself():
    """MATLAB 4.2 to 8 on Solaris (big endian), Linux and Windows, some broken on purpose: SciPy's own collection."""
    compared = 0
    for path in FROM_MATLAB:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                variables = scipy.io.loadmat(path)
        except (ValueError, NotImplementedError, zlib.error):
            if path.name not in ("bad_miuint32.mat", "bad_miutf8_array_name.mat", "corrupted_zlib_checksum.mat"):
                refused(path)  # those have types no more wrong than harmless, and damage beside the only array
            continue
        for name, value in variables.items():
            sparse = scipy.sparse.issparse(value)
            if sparse or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc" and name[:2] != "__"):
                got = read_array(path, key=name)
                expected = value.toarray() if sparse else value
                assert got.shape == expected.shape, path.name
                assert np.array_equal(got, expected), path.name
                if name.startswith(("testdouble", "testmatrix", "testminus", "testsparse")):
                    assert got.dtype.kind in "fc", path.name  # MATLAB stores doubles in bytes where it can
                compared += 1
    assert compared > 40


# ---------------------------------------------------------------------------- what must be refused: versions 5 to 7


def mat5_compressed(element):
    packed = zlib.compress(element)
    return struct.pack("<II", 15, len(packed)) + packed


def integers(*values):
    return 5, np.array(values, "<i4").tobytes()


def sparse_element(rows, starts, values, dims=(2, 2)):
    return mat5_element(dims, integers(*rows), integers(*starts), doubles(*values), kind=5)


BAD_MAT = {
    "version 7.3": (mat5(version=b"\0\2IM"), "save it with -v7"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "save it with -v7"),
    "version 3": (mat5(GOOD_MAT, version=b"\0\3IM"), "header of a MATLAB file"),
    "no byte order": (mat5(GOOD_MAT, version=b"\0\1xx"), "header of a MATLAB file"),
    "no variable": (mat5(), "received: no array"),
    "header cut short": (mat5()[:100], "header of a MATLAB file"),
    "tag cut short": (mat5(GOOD_MAT)[:132], "cut short"),
    "element cut short": (mat5(GOOD_MAT)[:-1], "cut short"),
    "no matrix": (mat5(struct.pack("<II", 9, 8) + bytes(8)), "matrix element"),
    "element of no length": (mat5(struct.pack("<II", 14, 0)), "received: no array"),
    "element of 4 GiB": (mat5(struct.pack("<II", 14, 2**32 - 1) + GOOD_MAT[8:]), "cut short"),
    "negative size": (mat5(mat5_element((-2, -2), doubles(1, 2, 3, 4))), "sizes of at least 0"),
    "huge sizes": (mat5(mat5_element((2**31 - 1, 2**31 - 1), doubles(1))), "at most 2147483648 bytes"),
    "overflow": (mat5(mat5_element((2**31 - 1,) * 9, doubles(1))), "at most"),
    "too many dimensions": (mat5(mat5_element((1,) * 100, doubles(1))), "damaged"),
    "sizes are text": (mat5(GOOD_MAT.replace(b"\5\0\0\0\x08", b"\x10\0\0\0\x08")), "type 16"),
    "too few numbers": (mat5(mat5_element((2, 2), doubles(1, 2, 3))), "expected 4 numbers, received 3"),
    "too many numbers": (mat5(mat5_element((2, 2), doubles(1, 2, 3, 4, 5))), "expected 4 numbers, received 5"),
    "no numbers": (mat5(mat5_element((2, 2))), "another part"),
    "half a number": (mat5(mat5_element((1, 1), (9, b"1234567"))), "numbers of 8 bytes"),
    "numbers of no type": (mat5(mat5_element((1, 1), (8, bytes(8)))), "type 8"),
    "no imaginary part": (mat5(mat5_element((1, 1), doubles(1), flags=0x800)), "another part"),
    "short imaginary part": (
        mat5(mat5_element((2, 1), doubles(1, 2), doubles(1, 2, 3), flags=0x800)),
        "imaginary parts",
    ),
    "part beyond the element": (
        mat5(GOOD_MAT.replace(b"\x09\0\0\0\x20\0\0\0", b"\x09\0\0\0\x40\0\0\0")),
        "inside a variable",
    ),
    "much more than it needs": (mat5(mat5_element((1, 1), doubles(1), (1, bytes(10**6)))), "expected at most"),
    "sparse of three dimensions": (mat5(sparse_element([0], [0, 1, 1], [1.0], (2, 2, 2))), "two dimensions"),
    "row outside": (mat5(sparse_element([2], [0, 1, 1], [1.0])), "entries inside shape (2, 2)"),
    "row -1": (mat5(sparse_element([-1], [0, 1, 1], [1.0])), "entries inside shape (2, 2)"),
    "columns missing": (mat5(sparse_element([0], [0, 1], [1.0])), "3 pointers"),
    "columns backwards": (mat5(sparse_element([0, 1], [0, 2, 1], [1.0, 2.0])), "3 pointers"),
    "columns from 1": (mat5(sparse_element([0, 1], [1, 1, 2], [1.0, 2.0])), "3 pointers"),
    "columns beyond the rows": (mat5(sparse_element([0], [0, 0, 2**31 - 1], [1.0])), "3 pointers"),
    "values missing": (mat5(sparse_element([0, 1], [0, 1, 2], [1.0])), "2, 2 and 1"),
    "no zlib": (mat5(struct.pack("<II", 15, 8) + b"no zlib!"), "compressed data"),
    "compressed nothing": (mat5(mat5_compressed(b"")), "cut short"),
    "compressed no matrix": (mat5(mat5_compressed(bytes(64))), "matrix element"),
    "compressed less": (mat5(mat5_compressed(GOOD_MAT[:-8])), "cut short"),
    "compressed more": (mat5(mat5_compressed(GOOD_MAT + bytes(8))), "expected a variable of"),
    "wrong checksum": (mat5(mat5_compressed(GOOD_MAT)[:-1] + b"\0"), "compressed data"),
}


def test_the_malformed_matlab_files_are_well_formed_but_for_one_thing(tmp_path):
    path = tmp_path / "x.mat"
    sparse = sparse_element([0, 1], [0, 1, 2], [1.0, 2.0])
    for content, expected in ((GOOD_MAT, [[1, 3], [2, 4]]), (sparse, [[1, 0], [0, 2]])):
        for element in (content, mat5_compressed(content)):
            path.write_bytes(mat5(element))
            assert read_array(path).tolist() == expected
            assert scipy.sparse.coo_array(scipy.io.loadmat(path)["x"]).toarray().tolist() == expected


@pytest.mark.parametrize("case", BAD_MAT)
def test_malformed_matlab(case, tmp_path):
    content, words = BAD_MAT[case]
    (tmp_path / "x.mat").write_bytes(content)
    refused(tmp_path / "x.mat", words)


# -------------------------------------------------------------------------------------------------------- version 4


def mat4(code=0, rows=2, columns=2, imag=0, name_length=2, data=bytes(32), order="<"):
    return struct.pack(order + "5i", code, rows, columns, imag, name_length) + b"x\0" + data


def table4(*rows):
    return mat4(2, len(rows), len(rows[0]), data=np.array(rows, "<f8").tobytes("F"))


BAD_MAT4 = {
    "VAX": (mat4(2000), "header of a MATLAB 4 variable"),
    "unknown storage": (mat4(60), "header of a MATLAB 4 variable"),
    "unknown kind": (mat4(3), "header of a MATLAB 4 variable"),
    "negative sizes": (mat4(rows=-2, columns=-2), "header of a MATLAB 4 variable"),
    "negative rows, going in circles": (mat4(rows=-1, columns=22 // 8), "header of a MATLAB 4 variable"),
    "huge": (mat4(rows=2**31 - 1, columns=2**31 - 1), "cut short"),
    "no name": (mat4(name_length=0), "cut short"),
    "negative name": (mat4(name_length=-5), "cut short"),
    "huge name": (mat4(name_length=2**31 - 1), "cut short"),
    "odd complex": (mat4(imag=7), "header of a MATLAB 4 variable"),
    "cut short": (mat4()[:-1], "cut short"),
    "header cut short": (mat4() + mat4()[:10], "cut short"),
    "text alone": (mat4(1), "received: no array"),
    "sparse of two columns": (table4([1, 1], [2, 2]), "3 or 4 columns"),
    "sparse of nothing": (mat4(2, 0, 3, data=b""), "3 or 4 columns"),
    "sparse, row outside": (table4([3, 1, 1], [2, 2, 0]), "entries inside shape (2, 2)"),
    "sparse, row 0": (table4([0, 1, 1], [2, 2, 0]), "entries inside shape (2, 2)"),
    "sparse, NaN": (table4([1, 1, 1], [np.nan, 2, 0]), "below 2**31"),
    "sparse, negative": (table4([1, 1, 1], [-2, -2, 0]), "sizes of at least 0"),
    "sparse, huge": (table4([1, 1, 1], [2e9, 2e9, 0]), "at most"),
}


@pytest.mark.parametrize("case", BAD_MAT4)
def test_malformed_matlab_4(case, tmp_path):
    content, words = BAD_MAT4[case]
    (tmp_path / "x.mat").write_bytes(content)
    refused(tmp_path / "x.mat", words)


def test_matlab_4_by_hand(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(mat4(1000, data=np.array([1, 2, 3, 4], ">f8").tobytes(), order=">"))
    assert read_array(path).tolist() == [[1, 3], [2, 4]]
    path.write_bytes(table4([1, 2, 5.0], [2, 1, 7.0], [2, 3, 0]))
    assert read_array(path).tolist() == [[0, 5, 0], [7, 0, 0]]
