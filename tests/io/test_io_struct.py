"""MATLAB structs, against SciPy's reader and files from MATLAB itself; and every kind of struct to be refused."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from test_io_matlab import FROM_MATLAB

from algebraformer.io import read_array, read_system
from files import assert_same_bits, refused
from tests.stress.files import MEGABYTE, RANDOM, doubles, mat5, mat5_element, mat5_part

CELLS = np.array([[1, "two"], [np.eye(3), {"x": 1}]], dtype=object)


def problem(A, **fields):
    """A struct as the SuiteSparse Matrix Collection has it, with fields of every kind."""
    odd = {"title": "A title", "name": "", "id": 7.0, "notes": CELLS, "empty": np.zeros((0, 0)), "kind": "éà"}
    return {"Problem": odd | {"A": A} | fields | {"aux": {"G": RANDOM.T, "deep": {"x": [1, 2]}}}}


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "stored"])
@pytest.mark.parametrize("kind", ["real", "complex", "sparse", "sparse complex"])
@pytest.mark.parametrize("column", [True, False], ids=["column", "row"])
def test_systems_of_suitesparse(compressed, kind, column, tmp_path):
    x = RANDOM * (RANDOM > 0)
    x = x + 1j * RANDOM if "complex" in kind else x
    right = RANDOM[0] * (2 if kind == "real" else 2j)
    content = problem(scipy.sparse.csc_array(x) if "sparse" in kind else x, b=right)
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, content, do_compression=compressed, oned_as="column" if column else "row")
    A, b = read_system(path)
    assert np.array_equal(A, x)
    assert A.dtype == x.dtype
    assert_same_bits(b, right)
    assert np.array_equal(read_array(path, key="Problem.aux.G"), RANDOM.T)
    assert read_array(path, key="Problem.aux.deep.x").tolist() in ([[1, 2]], [[1], [2]])
    assert read_array(path, key="Problem.empty").shape == (0, 0)
    refused(path, "Problem.id", "Problem.A", "Problem.aux.deep.x")  # lists what there is
    refused(path, "'Problem.title'", "Problem.A", key="Problem.title")
    refused(path, "'Problem'", key="Problem")


def test_a_struct_without_right_hand_side(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", problem(scipy.sparse.csc_array(RANDOM)))
    np.save(tmp_path / "b.npy", RANDOM[0])
    A, b = read_system(tmp_path / "x.mat", tmp_path / "b.npy")
    assert_same_bits(A, RANDOM)
    assert_same_bits(b, RANDOM[0])
    refused(tmp_path / "x.mat", "'b'", "second file", "Problem.A", read=read_system)
    A, b = read_system(tmp_path / "x.mat", A_key="Problem.aux.G", b_key="Problem.A")
    assert_same_bits(np.ascontiguousarray(A), RANDOM.T)
    assert_same_bits(b, RANDOM)


def test_arrays_of_their_own_come_before_those_in_structs(tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, problem(RANDOM, b=RANDOM[0]) | {"A": 2 * RANDOM})
    assert np.array_equal(read_array(path), 2 * RANDOM)
    A, b = read_system(path)
    assert np.array_equal(A, 2 * RANDOM)
    assert np.array_equal(b, RANDOM[0])
    scipy.io.savemat(path, problem(RANDOM) | {"ans": 3.0})
    assert np.array_equal(read_system(path, path, b_key="ans")[0], RANDOM)
    scipy.io.savemat(path, {"only": {"one": RANDOM, "note": "text"}})
    assert np.array_equal(read_array(path), RANDOM)


def test_structs_of_several_elements_are_passed_over(tmp_path):
    several = np.zeros(2, [("A", object)])
    several["A"] = [RANDOM, RANDOM]
    scipy.io.savemat(tmp_path / "x.mat", {"s": several, "none": several[:0], "c": CELLS, "t": {"A": RANDOM}})
    refused(tmp_path / "x.mat", "received: t.A", key="s.A")


def fields(value, name):
    """Yield the arrays of numbers in a struct as `scipy.io.loadmat` gives it."""
    if scipy.sparse.issparse(value):
        yield name, value.toarray()
    elif value.dtype.names:
        if value.size == 1:
            for field in value.dtype.names:
                yield from fields(np.asarray(value[field].item()), f"{name}.{field}")
    elif value.dtype.kind in "biufc":
        yield name, value


@pytest.mark.skipif(not FROM_MATLAB, reason="this SciPy came without the data of its tests")
def test_structs_written_by_matlab_itself():
    compared = 0
    for path in FROM_MATLAB:
        if path.name.startswith("teststruct"):
            for variable, value in scipy.io.loadmat(path).items():
                for name, expected in fields(value, variable) if variable[:2] != "__" else ():
                    got = read_array(path, key=name)
                    assert got.shape == expected.shape, path.name
                    assert np.array_equal(got, expected), path.name
                    compared += 1
    assert compared >= 12


# --------------------------------------------------------------------------------------------- what must be refused


def struct_element(names, *elements, width=8, dims=(1, 1), name=b"s"):
    listed = b"".join(n.encode().ljust(width, b"\0") for n in names)
    content = mat5_part(6, struct.pack("<II", 2, 0)) + mat5_part(5, np.array(dims, "<i4").tobytes())
    content += mat5_part(1, name) + struct.pack("<HHi", 5, 4, width) + mat5_part(1, listed) + b"".join(elements)
    return struct.pack("<II", 14, len(content)) + content


FIELD = mat5_element((2, 2), doubles(1, 2, 3, 4), name=b"")
GOOD = struct_element(["A", "b"], FIELD, mat5_element((2, 1), doubles(5, 6), name=b""))


def cut(element, removed):
    """An element that is so many bytes shorter, and says so."""
    return struct.pack("<II", 14, len(element) - 8 - removed) + element[8:-removed]


def nested(depth):
    element = FIELD
    for _ in range(depth):
        element = struct_element(["s"], element, name=b"")
    return struct_element(["s"], element)


BAD = {
    "fields missing": struct_element(["A", "b"], FIELD),
    "last field cut short": cut(GOOD, 8),
    "last tag cut short": cut(GOOD, 60),
    "field longer than the struct": GOOD.replace(FIELD[:8], struct.pack("<II", 14, 10_000)),
    "field of 4 GiB": GOOD.replace(FIELD[:8], struct.pack("<II", 14, 2**32 - 1)),
    "field is no matrix": GOOD.replace(FIELD[:8], struct.pack("<II", 9, len(FIELD) - 8)),
    "field is compressed": GOOD.replace(FIELD[:8], struct.pack("<II", 15, len(FIELD) - 8)),
    "names of no length": struct_element([], FIELD, width=0),
    "names of negative length": GOOD.replace(struct.pack("<HHi", 5, 4, 8), struct.pack("<HHi", 5, 4, -8)),
    "names as text": GOOD.replace(struct.pack("<HHi", 5, 4, 8), struct.pack("<HHi", 16, 4, 8)),
    "more names than a header": struct_element(["A"] * 9000, FIELD),
    "huge field": struct_element(["A"], mat5_element((2**31 - 1, 2**31 - 1), doubles(1), name=b"")),
    "negative field": struct_element(["A"], mat5_element((-2, -2), doubles(1, 2, 3, 4), name=b"")),
    "too few numbers": struct_element(["A"], mat5_element((2, 2), doubles(1, 2, 3), name=b"")),
    "nothing in the field": struct_element(["A"], struct.pack("<II", 14, 0)),
    "deeper than anybody nests": nested(12),
    "thousands deep": nested(1500),
}


def compressed(element):
    packed = zlib.compress(element)
    return struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize("pack", [bytes, compressed])
def test_the_malformed_structs_are_well_formed_but_for_one_thing(pack, tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(mat5(pack(GOOD)))
    assert read_array(path, key="s.A").tolist() == [[1, 3], [2, 4]]
    assert read_array(path, key="s.b").tolist() == [[5], [6]]
    assert scipy.io.loadmat(path)["s"]["A"].item().tolist() == [[1, 3], [2, 4]]
    path.write_bytes(mat5(pack(nested(3))))
    assert read_array(path, key="s.s.s.s.s").tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("pack", [bytes, compressed])
@pytest.mark.parametrize("case", BAD)
def test_malformed_structs(case, pack, tmp_path):
    (tmp_path / "x.mat").write_bytes(mat5(pack(BAD[case])))
    refused(tmp_path / "x.mat", "expected")
    refused(tmp_path / "x.mat", "expected", key="s.A")


def test_a_damaged_field_damages_the_struct_around_it(tmp_path):
    """What follows the array that is read belongs to the same compressed element, and to its checksum."""
    packed = bytearray(compressed(GOOD))
    packed[-1] ^= 1
    (tmp_path / "x.mat").write_bytes(mat5(bytes(packed)))
    refused(tmp_path / "x.mat", "compressed data", key="s.A")


def test_a_large_struct_is_not_held_in_memory(tmp_path):
    """A field that lies between others of 8 MB each is read without them."""
    path = tmp_path / "x.mat"
    large = {name: np.zeros((1000, 1000)) for name in ("before", "after")}
    scipy.io.savemat(
        path, {"s": {"before": large["before"], "A": RANDOM, "after": large["after"]}}, do_compression=True
    )
    tracemalloc.start()
    got = read_array(path, key="s.A", max_bytes=200)
    assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
    tracemalloc.stop()
    assert np.array_equal(got, RANDOM)
    refused(path, "at most 200 bytes", key="s.after", max_bytes=200)
