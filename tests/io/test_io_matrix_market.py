"""Matrix Market files against SciPy's reader and writer; and every kind of file to be refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from algebraformer.errors import InputFormatError
from algebraformer.io import read_array, write_array
from files import refused
from tests.stress.files import BANNER, RANDOM, held

# ---------------------------------------------------------------------------------------------------- what we write


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_matrix_market_refuses_batches(suffix, tmp_path):
    with pytest.raises(InputFormatError, match=r"expected a vector or a matrix.* received shape \(2, 2, 2\)"):
        write_array(tmp_path / f"x{suffix}", np.zeros((2, 2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_says_the_same_whoever_writes_it(tmp_path):
    write_array(tmp_path / "x.mtx.gz", np.eye(3))
    first = (tmp_path / "x.mtx.gz").read_bytes()
    write_array(tmp_path / "y.mtx.gz", np.eye(3))
    assert (tmp_path / "y.mtx.gz").read_bytes() == first
    assert first[3:8] == bytes(5)  # no name and no time inside


# ------------------------------------------------------------------------------------------------ what others write

MTX_KINDS = [
    (layout, kind, symmetry)
    for layout in ("array", "coordinate")
    for kind in ("real", "integer", "complex", "pattern")
    for symmetry in ("general", "symmetric", "skew-symmetric", "hermitian")
    if kind != "pattern" or (layout == "coordinate" and symmetry in ("general", "symmetric"))
]


@pytest.mark.parametrize(("layout", "kind", "symmetry"), MTX_KINDS)
def test_matrix_market_from_scipy(layout, kind, symmetry, tmp_path):
    rng = np.random.default_rng(2)
    x = rng.integers(-9, 9, (6, 6)) if kind == "integer" else rng.standard_normal((6, 6))
    x = x * (rng.random((6, 6)) < 0.6)
    if kind == "complex":
        x = x + 1j * x[::-1]
    if kind == "pattern":
        x = (x != 0).astype(float)
    lower = np.tril(x, -1)
    if symmetry == "symmetric":
        x = lower + lower.T + np.diag(np.diag(x))
    elif symmetry == "skew-symmetric":
        x = lower - lower.T
    elif symmetry == "hermitian":
        x = lower + lower.conj().T + np.diag(np.diag(x).real)
    path = tmp_path / "x.mtx"
    sparse = layout == "coordinate"
    scipy.io.mmwrite(path, scipy.sparse.coo_array(x) if sparse else x, symmetry=symmetry, field=kind, precision=17)
    assert path.read_text().startswith(f"{BANNER}{layout} {kind} {symmetry}")
    (tmp_path / "x.mtx.gz").write_bytes(gzip.compress(path.read_bytes()))
    oracle = scipy.io.mmread(path)
    oracle = oracle.toarray() if sparse else oracle
    assert np.array_equal(oracle, x)
    for got in (read_array(path), read_array(tmp_path / "x.mtx.gz")):
        assert np.array_equal(got, x)
        assert got.dtype == oracle.dtype


def test_matrix_market_as_people_write_it(tmp_path):
    path = tmp_path / "x.mtx"
    path.write_bytes(
        b"%%matrixMarket MATRIX Array Real General\r\n% caf\xe9\r\n%\r\n\r\n 2   2 \r\n1\r\n\r\n 2e0\r\n+3.\r\n\t.4E1"
    )
    assert read_array(path).tolist() == [[1, 3], [2, 4]]
    path.write_text(BANNER + "coordinate real general\n2 2 3\n1 2 1.5\n1 2 2.5\n2 1 -1\n")
    assert read_array(path).tolist() == [[0, 4], [-1, 0]]  # repeated entries add up, as in SciPy


def test_banners_with_one_sign_and_blank_lines(tmp_path):
    path = tmp_path / "x.mtx"
    for text in (
        "%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n",
        "\n \n%%MatrixMarket matrix array real general\n\n% comment\n\n2 2\n1\n2\n3\n4\n",
        "\r\n%matrixmarket matrix coordinate real general\r\n\r\n2 2 4\r\n1 1 1\r\n\r\n2 1 2\r\n1 2 3\r\n2 2 4",
    ):
        path.write_bytes(text.encode())
        assert read_array(path).tolist() == [[1, 3], [2, 4]]


def test_exponents_of_fortran(tmp_path):
    path = tmp_path / "x.mtx"
    words = ["1.0D+03", "-.25d-2", "3D5", "1e3", "-1.5E-300", "Infinity", "nan", "0.1d0"]
    path.write_text(BANNER + "array real general\n8 1\n" + "\n".join(words) + "\n")
    expected = [1000.0, -0.0025, 3e5, 1000.0, -1.5e-300, np.inf, np.nan, 0.1]
    assert np.array_equal(read_array(path)[:, 0], expected, equal_nan=True)
    path.write_text(BANNER + "coordinate complex general\n2 2 1\n2 1 1.5D0 -2D-1\n")
    assert read_array(path).tolist() == [[0, 0], [1.5 - 0.2j, 0]]
    path.write_text(BANNER + "coordinate integer general\n2 2 1\n2 1 1D3\n")
    refused(path, "line 3: ", "'2 1 1D3'")


@pytest.mark.parametrize("suffix", [".mtx", ".mtx.gz"])
def test_repeated_entries_add_up_however_many_there_are(suffix, tmp_path):
    rng = np.random.default_rng(8)
    count = 30_000  # several blocks of text
    i, j, values = rng.integers(0, 3, count), rng.integers(0, 4, count), rng.standard_normal(count)
    lines = "".join(f"{r + 1} {c + 1} {v!r}\n" for r, c, v in zip(i, j, values.tolist(), strict=True))
    text = f"{BANNER}coordinate real general\n3 4 {count}\n{lines}".encode()
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(text) if suffix == ".mtx.gz" else text)
    expected = np.zeros((3, 4))
    for r, c, v in zip(i, j, values, strict=True):
        expected[r, c] += v
    assert np.array_equal(read_array(tmp_path / f"x{suffix}"), expected)


def test_repeated_entries_are_bounded_by_the_file_not_by_what_it_unpacks_to(tmp_path):
    count = 100_000
    text = f"{BANNER}coordinate real general\n1 1 {count}\n" + "1 1 1\n" * count
    (tmp_path / "x.mtx").write_text(text)
    assert read_array(tmp_path / "x.mtx").tolist() == [[count]]
    packed = gzip.compress(text.encode())
    assert len(packed) < count / 50
    (tmp_path / "x.mtx.gz").write_bytes(packed)
    refused(tmp_path / "x.mtx.gz", f"at most {len(packed)} entries", str(count))


@pytest.mark.parametrize("symmetry", ["symmetric", "skew-symmetric", "hermitian"])
def test_either_triangle_of_a_symmetric_file_but_not_both(symmetry, tmp_path):
    path = tmp_path / "x.mtx"
    sign = -1 if symmetry == "skew-symmetric" else 1

    def read(*entries):
        lines = "".join(f"{i} {j} {value}\n" for i, j, value in entries)
        path.write_text(f"{BANNER}coordinate real {symmetry}\n3 3 {len(entries)}\n{lines}")
        return read_array(path).tolist()

    assert read((2, 1, 5), (3, 1, 6), (2, 1, 1)) == [[0, sign * 6, sign * 6], [6, 0, 0], [6, 0, 0]]
    assert read((1, 2, 5), (1, 3, 6)) == [[0, 5, 6], [sign * 5, 0, 0], [sign * 6, 0, 0]]
    if symmetry != "skew-symmetric":
        assert read((1, 1, 7), (1, 2, 5)) == [[7, 5, 0], [5, 0, 0], [0, 0, 0]]
    with pytest.raises(InputFormatError, match=r"line 5: .*row 1, column 2"):
        read((2, 2, 0), (2, 1, 5), (1, 2, 5))
    with pytest.raises(InputFormatError, match=r"line 4: .*row 3, column 1"):
        read((1, 2, 5), (3, 1, 6))


def test_diagonals_that_contradict_the_symmetry(tmp_path):
    path = tmp_path / "x.mtx"
    path.write_text(BANNER + "coordinate real skew-symmetric\n2 2 2\n2 1 1\n1 1 0\n")
    assert read_array(path).tolist() == [[0, -1], [1, 0]]
    path.write_text(BANNER + "coordinate real skew-symmetric\n2 2 2\n2 1 1\n1 1 3\n")
    refused(path, "line 4: ", "row 1, column 1")
    path.write_text(BANNER + "coordinate complex hermitian\n2 2 2\n2 1 1 1\n1 1 3 1\n")
    refused(path, "line 4: ", "row 1, column 1")
    path.write_text(BANNER + "array complex hermitian\n2 2\n3 0\n1 1\n\n2 5\n")
    refused(path, "line 6: ", "row 2, column 2")


@pytest.mark.parametrize("at", [0, 1, 4321, 19_999, 39_999])
def test_a_bad_line_is_named_wherever_it_is(at, tmp_path):
    lines = ["1.5"] * 40_000
    lines[at] = "1,5"
    lines.insert(3000, "")
    (tmp_path / "x.mtx").write_text(BANNER + "array real general\n% comment\n200 200\n" + "\n".join(lines))
    refused(tmp_path / "x.mtx", f"line {at + 4 + (at >= 3000)}: ", "'1,5'")


@pytest.mark.parametrize("symmetry", ["general", "symmetric", "skew-symmetric", "hermitian"])
@pytest.mark.parametrize("n", [1, 2, 150])
def test_array_files_of_several_blocks(symmetry, n, tmp_path):
    lower = np.tril(np.random.default_rng(n).standard_normal((n, n)), -1)
    x = {"general": lower + np.pi, "skew-symmetric": lower - lower.T}.get(symmetry, lower + lower.T + np.eye(n))
    scipy.io.mmwrite(tmp_path / "x.mtx", x, symmetry=symmetry, precision=17)
    assert np.array_equal(read_array(tmp_path / "x.mtx"), x)


# --------------------------------------------------------------------------------------------- what must be refused

BAD_MTX = {
    "other banner": ("%%MatrixMarkt matrix array real general\n1 1\n1\n", "expected a line like"),
    "no banner": ("1 1\n1\n", "expected a line like"),
    "vector": ("%%MatrixMarket vector array real general\n1\n1\n", "expected a line like"),
    "half a banner": (BANNER + "array", "expected a line like"),
    "one word too many": (BANNER + "array real general more\n1 1\n1\n", "expected a line like"),
    "unknown layout": (BANNER + "list real general\n1 1\n1\n", "expected a line like"),
    "unknown field": (BANNER + "array quaternion general\n1 1\n1\n", "expected a line like"),
    "unknown symmetry": (BANNER + "array real odd\n1 1\n1\n", "expected a line like"),
    "array pattern": (BANNER + "array pattern general\n1 1\n", "array pattern general"),
    "skew pattern": (BANNER + "coordinate pattern skew-symmetric\n2 2 1\n2 1\n", "pattern skew-symmetric"),
    "skew and unsigned": (BANNER + "array unsigned-integer skew-symmetric\n2 2\n1\n", "unsigned-integer skew"),
    "no sizes": (BANNER + "array real general\n", "rows and columns"),
    "comments alone": (BANNER + "array real general\n% 1 1\n", "rows and columns"),
    "one size": (BANNER + "array real general\n2\n1\n2\n", "rows and columns"),
    "three sizes": (BANNER + "array real general\n1 2 2\n1\n2\n", "rows and columns"),
    "two sizes": (BANNER + "coordinate real general\n1 1\n1 1 1\n", "rows, columns and entries"),
    "negative size": (BANNER + "array real general\n-1 -1\n1\n", "received '-1 -1"),
    "negative count": (BANNER + "coordinate real general\n2 2 -1\n", "received '2 2 -1"),
    "fraction": (BANNER + "array real general\n1.0 1.0\n1\n", "received '1.0 1.0"),
    "underscore": (BANNER + "array real general\n1_0 1\n1\n", "rows and columns"),
    "superscript": (BANNER + "array real general\n² 1\n1\n", "rows and columns"),
    "huge sizes": (BANNER + "array real general\n1000000 1000000\n1\n", "at most 2147483648 bytes"),
    "huge sparse": (BANNER + "coordinate real general\n1000000 1000000 1\n1 1 1\n", "at most 2147483648 bytes"),
    "overflow": (BANNER + f"array real general\n{2**40} {2**40}\n1\n", "at most"),
    "thousands of digits": (BANNER + f"array real general\n{'9' * 5000} 1\n1\n", "line 2: "),
    "huge count": (BANNER + "coordinate real general\n2 2 9999999999\n1 1 1\n", "entries in 2 by 2"),
    "count without entries": (BANNER + "array real general\n9999 9999\n1\n", "too short"),
    "not square": (BANNER + "array real symmetric\n2 300\n" + "1\n" * 600, "symmetric matrix to be square"),
    "not square, sparse": (BANNER + "coordinate real hermitian\n2 3 1\n1 3 1\n", "hermitian matrix to be square"),
    "too few": (BANNER + "array real general\n2 2\n1\n2\n3.00000\n", "expected 4 entries, received 3"),
    "too many": (BANNER + "array real general\n2 2\n1\n2\n3\n4\n5\n", "line 7: "),
    "none": (BANNER + "array real general\n2 2\n\n\n\n\n\n\n\n", "expected 4 entries, received 0"),
    "too few, sparse": (BANNER + "coordinate real general\n2 2 2\n1 1 1.25\n", "expected 2 entries, received 1"),
    "too many, sparse": (
        BANNER + "coordinate real general\n2 2 1\n1 1 1\n2 2 1\n",
        "line 4: ",
    ),
    "no number": (BANNER + "array real general\n1 1\n1xyz\n", "line 3: "),  # SciPy reads 1
    "two on a line": (BANNER + "array real general\n2 1\n1 2\n3 4\n", "line 3: "),  # SciPy reads 1 and 3
    "half a complex": (BANNER + "array complex general\n1 1\n1\n", "line 3: "),
    "no value": (BANNER + "coordinate real general\n2 2 1\n1 1\n", "line 3: "),
    "value of a pattern": (BANNER + "coordinate pattern general\n2 2 1\n1 1 1.0\n", "line 3: "),
    "row 0": (BANNER + "coordinate real general\n2 2 1\n0 1 1\n", "line 3: "),
    "column 3": (BANNER + "coordinate real general\n2 2 1\n1 3 1\n", "line 3: "),
    "row -1": (BANNER + "coordinate real general\n2 2 1\n-1 1 1\n", "line 3: "),
    "row 1.5": (BANNER + "coordinate real general\n2 2 1\n1.5 1 1\n", "line 3: "),
    "row beyond int64": (BANNER + f"coordinate real general\n2 2 1\n{10**30} 1 1\n", "line 3: "),
    "entry of nothing": (BANNER + "coordinate real general\n0 0 1\n1 1 1\n", "line 3: "),
    "fraction as integer": (BANNER + "array integer general\n1 1\n1.5\n", "line 3: "),  # SciPy reads 1
    "integer beyond int64": (BANNER + f"array integer general\n1 1\n{10**30}\n", "line 3: "),
    "comment among entries": (BANNER + "array real general\n2 1\n1\n% 2\n2\n", "line 4: "),
    "zero byte": (BANNER + "array real general\n1 1\n1\0\n", "line 3: "),
    "long line": (BANNER + "array real general\n% " + "x" * 70_000 + "\n1 1\n1\n", "line 2: "),
}


@pytest.mark.parametrize("case", BAD_MTX)
def test_malformed_matrix_market(case, tmp_path):
    content, words = BAD_MTX[case]
    (tmp_path / "x.mtx").write_text(content, encoding="utf-8")
    refused(tmp_path / "x.mtx", words)
    with gzip.open(tmp_path / "x.mtx.gz", "wt", encoding="utf-8") as stream:
        stream.write(content)
    if words != "too short":  # how long the text is, only unpacking tells
        refused(tmp_path / "x.mtx.gz", words)


def test_malformed_gzip(tmp_path):
    path = tmp_path / "x.mtx.gz"
    good = gzip.compress(held(scipy.io.mmwrite, RANDOM))
    for damaged in (good[:-9], good[:-1], good[:-8] + b"\1" * 8, good[:20] + b"\xff" * 9 + good[29:], good + b"more"):
        path.write_bytes(damaged)
        refused(path, "received one ")
    path.write_bytes(held(scipy.io.mmwrite, RANDOM))
    refused(path, "not compressed")
