"""What LearnedSolver is given: refused with a word on what is wrong, or answered and never modified."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy.linalg import LinAlgWarning
from test_solver import WRONG, N, exact, reference, shrunk, stub_solver, systems

from algebraformer import problems
from algebraformer.checkpoint import pretrained_names, solver_names
from algebraformer.drop_in import solve
from algebraformer.errors import ConfigurationError, FallbackWarning, SingularSystemError, Status, UnknownNameError
from algebraformer.solver import LearnedSolver
from tests.fakes import consistent

ZEROS = WRONG["zeros"]

# ---------------------------------------------------------------- bad input: refused

A1, B1 = systems()
AB, BB = systems(3)
HOLE = np.where(np.arange(N) == 4, np.nan, B1)


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (A1[:5], B1, r"A must have shape \(n, n\) or \(B, n, n\), received \(5, 6\)"),
        (AB[None], BB, r"received \(1, 3, 6, 6\)"),
        (B1, B1, r"received \(6,\)"),
        (2.0, B1, r"received \(\)"),
        (A1, B1[:5], "b has 5 rows, A has 6"),
        (A1, np.ones((5, 6)), "b has 5 rows, A has 6"),
        (AB, np.ones((3, 5)), "b has 5 rows, A has 6"),
        (AB, BB[:2], "b holds 2 systems, A holds 3"),
        (AB, B1, r"b must have shape \(B, n\) or \(B, n, k\), received \(6,\)"),
        (A1, 1.0, r"b must have shape \(n,\) or \(n, k\), received \(\)"),
        (A1, BB[..., None], r"b must have shape \(n,\) or \(n, k\), received \(3, 6, 1\)"),
        (A1 + np.diag(HOLE), B1, r"A contains NaN or infinity, first at index \(4, 4\)"),
        (A1, HOLE, r"b contains NaN or infinity, first at index \(4,\)"),
        (A1, -np.inf * np.ones((N, 2)), r"b contains NaN or infinity, first at index \(0, 0\)"),
        (A1 * np.longdouble("1e4000"), B1, r"A contains NaN or infinity, first at index \(0, 0\)"),
        (A1.astype(object), B1, "A has dtype object, expected real or complex numbers"),
        (A1, B1.astype(str), "b has dtype <U"),
        (A1, np.full(N, "2020-01-01", "datetime64[D]"), r"b has dtype datetime64\[D\]"),
        ([[1.0, 2.0], [3.0]], B1, "A is not an array of numbers"),
        (A1, np.ma.masked_array(B1, B1 > 0), "b is a masked array"),
        (None, B1, "A has dtype object"),
    ],
)
@pytest.mark.parametrize("method", ["solve", "predict"])
def test_refused(method, A, b, message):
    with pytest.raises(ValueError, match=message):
        getattr(stub_solver(exact), method)(A, b)


@pytest.mark.parametrize("name", sorted(set(pretrained_names()) - set(solver_names())))
def test_a_network_of_an_instrument_is_refused(name):
    """It reads measurements; the message says what loads it."""
    with pytest.raises(ConfigurationError, match=rf"{name}.*instruments\.load"):
        LearnedSolver.from_pretrained(name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["diffusion-64", "advection-diffusion-64", "diffusion-64-token"])
def test_refused_wherever_the_entry_is(name, value):
    """Linear heads find it by the probe, without a pass of its own; the first one in the batch is named."""
    solver = LearnedSolver.from_pretrained(name)
    family = solver.info.problem_family()
    A, b, _ = family.assembled(range(40), seed=3)
    rng = np.random.default_rng(5)
    for i, j in rng.integers(0, 64, (12, 2)):
        broken = A.copy()
        broken[[30, 38], i, j] = value
        message = rf"A contains NaN or infinity, first at index \(30, {i}, {j}\)"
        calls = (
            lambda A: solver.solve(A, b), lambda A: solver.solve(A, b, fallback=False), solver.prepare,
            lambda A: solver.solve(A, b[:, :, None][:, :, :0]), lambda A: solver.solve(A, b, transpose=True),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(ValueError, match=message):
                call(broken)


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (np.eye(7), np.ones(7), r"the model supports .*n = 6, received .*n = 7"),
        (A1 * (1 + 2j), B1, "real systems.*, received complex"),
    ],
)
def test_refused_without_fallback(A, b, message):
    with pytest.raises(ValueError, match=message):
        stub_solver(exact).solve(A, b, fallback=False)
    with pytest.raises(ValueError, match=message):
        stub_solver(exact).predict(A, b)
    result = stub_solver(exact).solve(A, b)
    assert (result.status, result.method, result.refinements) == (Status.UNSUPPORTED, "lapack", 0)
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-13)
    assert isinstance(result.relative_residual, float)
    json.dumps(result.record(), allow_nan=False)


# ---------------------------------------------------------------- unusual input: answered, never modified


KINDS = {
    "integers": lambda v: np.rint(10 * v).astype(np.int64),
    "unsigned": lambda v: np.rint(20 + 10 * v).astype(np.uint8),
    "bools": lambda v: v > 0,
    "float16": lambda v: v.astype(np.float16),
    "float32": lambda v: v.astype(np.float32),
    "longdouble": lambda v: v.astype(np.longdouble),
    "complex64": lambda v: (v * (1 + 2j)).astype(np.complex64),
    "clongdouble": lambda v: v * np.clongdouble(1 - 1j),
    "list": lambda v: v.tolist(),
    "not contiguous": lambda v: v.repeat(2, -1)[..., ::2],
    "negative strides": np.flip,
    "fortran": np.asfortranarray,
    "byte-swapped": lambda v: v.astype(v.dtype.newbyteorder()),
    "read-only": lambda v: np.frombuffer(v.tobytes()).reshape(v.shape),
}


@pytest.mark.parametrize("n", [1, N, N + 1])
@pytest.mark.parametrize("network", [exact, shrunk(0.1), ZEROS], ids=["exact", "shrunk", "zeros"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array(kind, network, n):
    A, b = map(KINDS[kind], systems(n=n, seed=1))
    if kind == "bools":
        A, b = np.triu(np.ones((n, n), bool)), np.arange(n) % 2 == 0
    before = np.array(A), np.array(b)
    double = np.result_type(*before, np.float64)
    plain = [v.astype(np.complex128 if double.kind == "c" else np.float64) for v in before]
    for size in {n, N}:
        result = stub_solver(network, size).solve(A, b)
        np.testing.assert_allclose(result.x, reference(*plain), rtol=1e-7, atol=1e-9)
        assert result.x.dtype == plain[0].dtype
        assert (result.status == Status.UNSUPPORTED) == (size != n or double.kind == "c")
        result.x[...] = 7  # the answer is the caller's own, and no view of what they gave
        np.testing.assert_array_equal(before[0], A)
        np.testing.assert_array_equal(before[1], b)


def test_empty_input():
    for size, b_shape in ((0, (0,)), (0, (0, 2)), (N, (N, 0)), (N + 1, (N + 1, 0))):
        result = stub_solver(exact).solve(np.eye(size), np.ones(b_shape))
        assert result.x.shape == b_shape
        assert result.certified
        assert result.method == ("learned" if size == N else "lapack")
    nothing = stub_solver(exact).solve(np.ones((0, N, N)), np.ones((0, N)))
    assert nothing.x.shape == (0, N)
    assert nothing.record()["status"] == []


@pytest.mark.parametrize(("A_scale", "b_scale"), [(1e300, 1), (1e-300, 1e-300), (1e300, 1e300), (1e150, 1e-150)])
@pytest.mark.parametrize("network", [exact, shrunk(0.1), ZEROS], ids=["exact", "shrunk", "zeros"])
def test_huge_and_tiny_entries(network, A_scale, b_scale):
    A, b = systems(3)
    result = stub_solver(network).solve(A_scale * A, b_scale * b)
    np.testing.assert_allclose(result.x / (b_scale / A_scale), exact(A, b), rtol=1e-9)
    assert result.certified.all()


def test_a_solution_out_of_range_is_not_certified():
    result = stub_solver(ZEROS).solve(1e-300 * np.eye(N), np.full(N, 1e300))
    assert (result.status, result.certified, result.record()["backward_error"]) == (Status.INACCURATE, False, None)


# ---------------------------------------------------------------- singular and nearly so


def careful(A, b):
    """Right, but for matrices with 1 in their first corner, which it does not touch."""
    x, good = 0 * b, A[:, 0, 0] != 1
    x[good] = exact(A[good], b[good])
    return x


@pytest.mark.parametrize(("network", "status"), [(ZEROS, "FALLBACK"), (careful, "LEARNED")], ids=["zeros", "careful"])
@pytest.mark.parametrize("which", [(5,), (0,), (2, 7)])
def test_singular_systems_of_a_batch(which, network, status):
    A, b = systems(8)
    A[list(which)] = 1.0
    others = [i for i in range(8) if i not in which]
    named = f"system{'s' * (len(which) > 1)} {', '.join(map(str, which))} of the batch"
    with pytest.raises(SingularSystemError, match=f"singular in {named}$") as caught:
        stub_solver(network).solve(A, b)
    assert isinstance(caught.value, scipy.linalg.LinAlgError)
    assert caught.value.indices == which
    result = caught.value.result
    assert np.isnan(result.x[list(which)]).all()
    np.testing.assert_allclose(result.x[others], reference(A[others], b[others]), rtol=1e-12)
    assert [s.name for s in result.status] == ["SINGULAR" if i in which else status for i in range(8)]
    assert list(result.certified) == [i not in which for i in range(8)]
    json.dumps(result.record(), allow_nan=False)


def test_a_singular_system_alone():
    with pytest.raises(SingularSystemError, match=r"^matrix A is singular$") as caught:
        stub_solver(ZEROS).solve(np.ones((N, N)), B1)
    assert caught.value.result.status is Status.SINGULAR


def test_nearly_singular_systems_are_named():
    A, b = systems(4, n=64)
    A[2] = scipy.linalg.hilbert(64)
    with pytest.warns(LinAlgWarning, match=r"ill-cond.*: system 2 of the batch has rcond = \d.\d+e-\d\d; x") as caught:
        result = stub_solver(careful, 64).solve(A, b)
    assert [w.filename for w in caught if w.category is LinAlgWarning] == [__file__]
    assert np.isfinite(result.x).all()
    with pytest.warns(LinAlgWarning, match="detected: rcond = "):
        stub_solver(ZEROS, 64).solve(A[2], b[2])


# ---------------------------------------------------------------- singular, and consistent: no residual tells


def singular_and_consistent(count=5, which=(1, 3)):
    """Systems of which some have rank one and a right-hand side in their range."""
    A, b = systems(count)
    A[list(which)] = 2.0
    b[list(which)] = 7.0
    return A, b


def test_a_singular_system_that_the_network_solves_is_named():
    A, b = singular_and_consistent()
    x = consistent(A, b)
    np.testing.assert_allclose(np.einsum("bij,bj->bi", A, x), b, rtol=1e-12)  # it does solve them
    with pytest.raises(SingularSystemError, match="singular in systems 1, 3 of the batch") as caught:
        stub_solver(consistent, reach=0).solve(A, b)
    result = caught.value.result
    assert caught.value.indices == (1, 3)
    outside = "OUT_OF_DISTRIBUTION"
    assert [s.name for s in result.status] == [outside, "SINGULAR", outside, "SINGULAR", outside]
    assert np.isnan(result.x[[1, 3]]).all()
    assert result.certified.tolist() == [True, False, True, False, True]
    with pytest.raises(scipy.linalg.LinAlgError, match=r"^matrix A is singular$"):
        stub_solver(consistent, reach=0).solve(A[1], b[1])
    alone = stub_solver(consistent, reach=0).solve(A, b, fallback=False)  # nothing is factorised, nothing trusted
    np.testing.assert_allclose(alone.x, x)
    assert not alone.certified.any()


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_line_of_zeros_is_singular_whatever_the_network_says(axis, fallback):
    A, b = systems(3)
    A[1][(slice(None), 2) if axis else 2] = 0.0
    b[1] = A[1] @ b[1]
    for network in (consistent, ZEROS, WRONG["nan"]):
        with pytest.raises(SingularSystemError, match="system 1 of the batch"):
            stub_solver(network).solve(A, b, fallback=fallback)


def test_a_nearly_singular_system_out_of_distribution_warns_as_scipy_does():
    A, b = systems(4)
    A[2] = np.diag([1.0] * (N - 1) + [1e-17])
    with pytest.warns(LinAlgWarning, match="system 2 of the batch has rcond = 1e-17; x may not be accurate"):
        result = stub_solver(exact, reach=0).solve(A, b)
    assert result.certified.all()
    assert result.rcond[2] == pytest.approx(1e-17)


def test_sparse_systems_get_scipys_message():
    A, b = scipy.sparse.eye_array(N, format="csr"), np.ones(N)
    for args in ((A, b), (np.eye(N), scipy.sparse.csr_array(b[:, None]))):
        with pytest.raises(ValueError, match="Sparse arrays/matrices are not supported") as theirs:
            scipy.linalg.solve(*args)
        for call in (stub_solver(exact).solve, lambda A, b: solve(A, b, model=stub_solver(exact))):
            with pytest.raises(ValueError, match=r"scipy\.sparse\.linalg") as ours:
                call(*args)
            assert str(ours.value) == str(theirs.value)


def test_one_warning_says_that_lapack_answered_most_of_a_batch():
    A, b = systems(20)
    with pytest.warns(FallbackWarning, match="20 of 20 systems .100%., 0 of them out of distribution") as caught:
        stub_solver(ZEROS).solve(A, b)
    assert len(caught) == 1
    with pytest.warns(FallbackWarning, match="20 of them out of distribution"):
        solve(A, b[..., None], model=stub_solver(exact, reach=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stub_solver(exact).solve(A, b)
        stub_solver(ZEROS).solve(A[0], b[0])  # one system costs what it costs
        first = A[0, 0, 0]
        stub_solver(lambda A, b: exact(A, b) * np.where(A[:, 0, :1] == first, -1, 1)).solve(A, b)  # one of twenty
        stub_solver(exact, N + 1).solve(A, b)  # not supported: nothing was tried


@pytest.mark.parametrize("stacks", [((), (40,)), ((3,), (3,)), ((3, 1), (5,)), ((), (2, 3)), ((4,), ()), ((1,), (5,))])
def test_stacks_that_broadcast(stacks):
    """As NumPy broadcasts them, and no matrix is repeated for the right-hand sides that share it."""
    rng = np.random.default_rng(0)
    A = 3 * np.eye(N) + rng.uniform(-1, 1, (*stacks[0], N, N)) / 2
    b = rng.standard_normal((*stacks[1], N, 2))
    asked = []
    x = solve(A, b, model=stub_solver(lambda A, b: asked.append(len(b)) or exact(A, b)))
    expected = np.linalg.solve(A, b)
    assert x.shape == expected.shape
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-13)


def test_memory_of_many_right_hand_sides():
    """A few times x and b, not a copy of A for each: what SciPy needs, and one block of working arrays."""
    n, count = 64, 20_000
    rng = np.random.default_rng(0)
    A, solver = np.eye(n) + rng.uniform(-1, 1, (n, n)) / n, LearnedSolver.from_pretrained("diffusion-64")
    size = 8 * n * count
    for b in (rng.standard_normal((count, n, 1)), rng.standard_normal((n, count))):
        tracemalloc.start()
        x = solve(A, b, model=solver)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_allclose(A @ x, b, atol=1e-10)
        assert peak < 12 * size  # a copy of A for every b takes 64


# ---------------------------------------------------------------- the ends of float64, and other people's processes


def test_a_matrix_whose_norm_overflows_is_not_called_ill_conditioned():
    """cond([[3, 2], [2, 3]]) is 5, whatever the unit."""
    A = np.array([[1.5e308, 1e308], [1e308, 1.5e308]])
    result = stub_solver(exact).solve(A, np.ones(2))
    assert result.certified
    assert result.rcond == pytest.approx(0.2)
    assert result.forward_error < 1e-14
    np.testing.assert_allclose(result.x, np.linalg.solve(A / 1e308, np.ones(2)) / 1e308, rtol=1e-14)


def test_a_condition_number_beyond_float64_warns_as_scipy_does():
    A = np.diag([1e200, 1e-200])
    with pytest.warns(LinAlgWarning, match="rcond"):
        scipy.linalg.solve(A, np.ones(2), assume_a="gen")
    with pytest.warns(LinAlgWarning, match="rcond"):
        result = stub_solver(exact).solve(A, np.ones(2))
    np.testing.assert_array_equal(result.x, [1e-200, 1e200])


def test_right_hand_sides_near_the_largest_number():
    systems = problems.get("diffusion", n=64).sample(3, seed=1)
    b = systems.b / np.abs(systems.b).max() * np.finfo(float).max
    solver = LearnedSolver.from_pretrained("diffusion-64")
    result, plain = (solver.solve(systems.A, v, fallback=False) for v in (b, systems.b))
    assert not result.certified.any()  # |A| |x| is beyond float64
    np.testing.assert_allclose(result.x / b[:, :1], plain.x / systems.b[:, :1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("call", [lambda A, b: stub_solver(ZEROS).solve(A, b), lambda A, b: solve(A, b[..., None])])
def test_warnings_name_the_line_of_the_caller(call):
    if call.__code__.co_names[0] == "solve":  # as scipy.linalg.solve: the default model
        A, b = systems(20, n=64)
    else:
        A, b = systems(20)
    with pytest.warns(FallbackWarning) as caught:
        call(A, b)
    assert [w.filename for w in caught] == [__file__]


@pytest.mark.parametrize(
    "error",
    [
        SingularSystemError([1, 3], True),
        UnknownNameError("family", "x", ["y"], "look again"),
        ConfigurationError("no"),
    ],
)
def test_errors_survive_the_way_back_from_another_process(error):
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))
