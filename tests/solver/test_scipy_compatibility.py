"""af.solve against scipy.linalg.solve: signature, shapes, dtypes, errors, and SciPy's own tests unmodified."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from test_solver import GOOD, WRONG, stub_solver

import algebraformer as af
from algebraformer.errors import FallbackWarning
from tests.stress import scipy_suite

N = 4
NETWORKS = {"exact": GOOD["exact"], "single": GOOD["single"], "zeros": WRONG["zeros"], "nan": WRONG["nan"]}


@pytest.fixture(params=NETWORKS)
def model(request):
    """A solver of systems with N unknowns that counts how often it is asked."""
    solver = stub_solver(NETWORKS[request.param], N)
    solver.asked = 0
    whole = solver.solve

    def counted(*arguments, **options):
        solver.asked += 1
        return whole(*arguments, **options)

    solver.solve = counted
    return solver


def outcome(solve, *arguments, **options):
    """Return what came of a call: the answer or the kind of error, and the kinds of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = solve(*arguments, **options)
        except (ValueError, TypeError, NotImplementedError, np.linalg.LinAlgError) as error:
            kinds = (np.linalg.LinAlgError, NotImplementedError, TypeError, ValueError)
            answer = next(kind for kind in kinds if isinstance(error, kind))
    return answer, {w.category for w in caught} - {FallbackWarning}  # SciPy has nothing to fall back from


def same(model, A, b, **options):
    """Assert that both do the same with copies of the input, which ours leaves as it was; return the common answer."""
    theirs, their_warnings = outcome(scipy.linalg.solve, A, b, **options)
    copies = [v.copy() if isinstance(v, np.ndarray) else v for v in (A, b)]
    ours, our_warnings = outcome(af.solve, *copies, model=model, **options)
    assert our_warnings == their_warnings
    if isinstance(theirs, type):
        assert ours is theirs
        return theirs
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    single = theirs.dtype.itemsize // (2 if theirs.dtype.kind == "c" else 1) == 4
    np.testing.assert_allclose(ours, theirs, rtol=1e-3 if single else 1e-7, atol=1e-4 if single else 1e-9)
    for copy, v in zip(copies, (A, b), strict=True):
        if isinstance(v, np.ndarray):
            np.testing.assert_array_equal(copy, v)
    return ours


def matrix(*batch, n=N, dtype=float, seed=0):
    """Well-conditioned matrices (*batch, n, n)."""
    rng = np.random.default_rng(seed)
    return (2 * n * np.eye(n) + 4 * rng.uniform(-1, 1, (*batch, n, n))).astype(dtype)


def rhs(*shape, dtype=float):
    """A right-hand side of the given shape."""
    return (10 * np.random.default_rng(1).uniform(-1, 1, shape)).astype(dtype)


# ---------------------------------------------------------------- signature


def test_signature():
    theirs, ours = inspect.signature(scipy.linalg.solve), inspect.signature(af.solve)
    positional = [p for p in ours.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in theirs.parameters.values()]
    extra = {p.name: p.kind for p in ours.parameters.values() if p not in positional}
    assert extra == dict.fromkeys(("model", "rtol"), inspect.Parameter.KEYWORD_ONLY)


def test_every_argument_by_position(model):
    ours = af.solve(matrix(), rhs(N), False, True, True, True, "gen", False, model=model)
    np.testing.assert_allclose(ours, scipy.linalg.solve(matrix(), rhs(N), False, False, False, True, "gen", False))
    assert model.asked == 1


def test_tolerance_reaches_the_solver():
    loose, A, b = stub_solver(lambda A, b: 0.9 * NETWORKS["exact"](A, b), N), matrix(), rhs(N)
    np.testing.assert_allclose(A @ af.solve(A, b, model=loose, rtol=0.2), 0.9 * b)
    np.testing.assert_allclose(A @ af.solve(A, b, model=loose), b, rtol=1e-9)
    with pytest.raises(ValueError, match="rtol"):
        af.solve(A, b, model=loose, rtol=-1)


def test_model_by_name_and_folder():
    folder = Path(af.__file__).parent / "pretrained" / "diffusion-64"
    A, b = matrix(n=64), rhs(64)
    expected = scipy.linalg.solve(A, b)
    for model in ("diffusion-64", folder, str(folder)):
        np.testing.assert_allclose(af.solve(A, b, model=model), expected, rtol=1e-7)
    with pytest.raises(ValueError, match=r"unknown model .* 'nobody'; known: .*diffusion-64"):
        af.solve(A, b, model="nobody")


# ---------------------------------------------------------------- shapes, dtypes, options

SHAPES = [
    ((N, N), (N,)),
    ((N, N), (N, 1)),
    ((N, N), (N, 3)),
    ((N, N), (N, N)),
    ((N, N), (5, N, 2)),
    ((N, N), (2, 3, N, 1)),
    ((3, N, N), (N,)),
    ((3, N, N), (N, 2)),
    ((3, N, N), (3, N, 2)),
    ((3, N, N), (1, N, 2)),
    ((1, N, N), (3, N, 2)),
    ((N, N, N), (N, N)),  # one matrix b for the whole batch, not one vector for each
    ((2, 3, N, N), (N,)),
    ((2, 3, N, N), (N, 2)),
    ((2, 3, N, N), (2, 3, N, 2)),
    ((2, 1, N, N), (3, N, 2)),
    ((2, 3, N, N), (3, N, 1)),
]


@pytest.mark.parametrize(("A_shape", "b_shape"), SHAPES)
def test_shapes(model, A_shape, b_shape):
    same(model, matrix(*A_shape[:-2]), rhs(*b_shape))
    assert model.asked == 1


@pytest.mark.parametrize(
    ("A_shape", "b_shape"),
    [
        ((N, N), (N + 1,)),
        ((N, N), (N + 1, N)),
        ((N, N), (1, N)),
        ((N, N), ()),
        ((N, N + 1), (N,)),
        ((N + 1, N), (N,)),
        ((N,), (N,)),
        ((), (3,)),
        ((), ()),
        ((3, N, N), (3, N)),  # SciPy reads a matrix with 3 rows
        ((3, N, N), (2, N, 1)),
        ((2, 3, N, N), (2, N, 1)),
        ((0, 0), (0,)),
        ((0, 0), (0, 2)),
        ((N, N), (N, 0)),
        ((0, N, N), (N,)),
        ((0, N, N), (0, N, 2)),
        ((3, N, N), (0, N, 2)),
        ((3, N, N), (3, N, 0)),
        ((7, 7), (7,)),
        ((1, 1), (5,)),
        ((1, 1), (5, 2)),
        ((1, 1, 1), (5,)),
        ((2, 1, 1), (1,)),
    ],
)
def test_shapes_that_are_left_to_scipy(model, A_shape, b_shape):
    same(model, np.random.default_rng(0).uniform(1, 2, A_shape), rhs(*b_shape))
    assert model.asked == 0


def test_size_one():
    """A single entry divides right-hand sides of any size (SciPy 1.17.1 refuses one of shape (3, 1, 2), by mistake)."""
    for b_shape in ((1,), (1, 4), (5,), (5, 2)):
        same(stub_solver(NETWORKS["exact"], 1), np.array([[4.0]]), rhs(*b_shape))
    assert same(stub_solver(NETWORKS["zeros"], 1), np.zeros((1, 1)), rhs(1)) is np.linalg.LinAlgError


DTYPES = "?bBhHiIlLefdgFDG"


@pytest.mark.parametrize("b_dtype", DTYPES)
@pytest.mark.parametrize("A_dtype", DTYPES)
def test_dtypes(A_dtype, b_dtype):
    solver = stub_solver(NETWORKS["single"], N)
    A = np.triu(np.ones((N, N), bool)) if A_dtype == "?" else np.abs(matrix()).astype(A_dtype)
    x = same(solver, A, np.abs(rhs(N)).astype(b_dtype))
    assert x.dtype.char in "fdFD"


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    "assume_a",
    [
        *(None, "gen", "general", "sym", "symmetric", "her", "hermitian", "pos", "positive definite", "banded"),
        *("diagonal", "tridiagonal", "upper triangular", "lower triangular", "nonsense"),
    ],
)
@pytest.mark.parametrize("dtype", [float, complex])
def test_options(model, dtype, assume_a, lower, transposed):
    A = matrix(dtype=dtype)
    for order in "CF":
        same(model, np.array(A, order=order), rhs(N), assume_a=assume_a, lower=lower, transposed=transposed)
    covered = assume_a in (None, "gen", "general", "sym", "symmetric", "her", "hermitian")
    assert model.asked == (2 if covered and dtype is float else 0)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("assume_a", ["sym", "hermitian", "pos"])
def test_one_triangle_is_read(model, assume_a, lower):
    model.info = dataclasses.replace(model.info, family={"name": "kernel", "n": N})
    same(model, matrix(3), rhs(N), assume_a=assume_a, lower=lower)
    hole = matrix()
    hole[(0, -1) if lower else (-1, 0)] = np.nan
    assert same(model, hole, rhs(N), assume_a=assume_a, lower=lower) is ValueError
    assert model.asked == 2


def test_indefinite_matrices_under_assume_a_pos():
    """SciPy raises, and so does ours, whether the model's family is positive definite or not."""
    A = np.stack([np.eye(N), np.eye(N) - 2 * np.diag(np.arange(N) == 2)])
    for family in ({}, {"name": "kernel", "n": N}):
        solver = stub_solver(WRONG["nan"], N)
        solver.info = dataclasses.replace(solver.info, family=family)
        assert same(solver, A, rhs(N), assume_a="pos") is np.linalg.LinAlgError
        assert same(solver, A[1], rhs(N), assume_a="pos") is np.linalg.LinAlgError
        same(solver, A[0], rhs(N), assume_a="pos")


@pytest.mark.parametrize("kind", ["symmetric", "positive", "upper", "lower", "diagonal", "tridiagonal"])
def test_structured_matrices(model, kind):
    A = matrix()
    structure = {
        "symmetric": A - A.T + np.triu(A) + np.triu(A).T,
        "positive": A @ A.T,
        "upper": np.triu(A),
        "lower": np.tril(A),
        "diagonal": np.diag(np.diag(A)),
        "tridiagonal": np.triu(np.tril(A, 1), -1),
    }[kind]
    same(model, structure, rhs(N, 2))


# ---------------------------------------------------------------- errors and warnings

HOLE = np.where(np.eye(N) == 1, np.nan, matrix())


@pytest.mark.parametrize(
    ("A", "b", "error"),
    [
        (HOLE, rhs(N), ValueError),
        (matrix(), HOLE, ValueError),
        (matrix() * np.inf, rhs(N), ValueError),
        (np.ones((N, N)), rhs(N), np.linalg.LinAlgError),
        (np.zeros((N, N)), rhs(N), np.linalg.LinAlgError),
        (np.triu(matrix(), 1), rhs(N), np.linalg.LinAlgError),
        (np.stack([matrix(), np.ones((N, N)), matrix()]), rhs(N), np.linalg.LinAlgError),
        (np.ma.masked_array(matrix(), matrix() > 1), rhs(N), ValueError),
        (matrix(), np.ma.masked_array(rhs(N)), ValueError),
        (scipy.sparse.csr_array(matrix()), rhs(N), ValueError),
        ([[1.0, 2.0], [3.0]], rhs(N), ValueError),
        (None, rhs(N), ValueError),
    ],
)
def test_errors(model, A, b, error):
    with pytest.raises(error):
        scipy.linalg.solve(A, b)
    with pytest.raises(error):
        af.solve(A, b, model=model)


def test_near_singular_matrices_warn(model):
    A = matrix()
    A[-1] = A[0] + 1e-15 * A[-1]
    for solve, options in ((scipy.linalg.solve, {}), (af.solve, {"model": stub_solver(WRONG["nan"], N)})):
        with pytest.warns(scipy.linalg.LinAlgWarning, match="An ill-conditioned matrix detected: ") as caught:
            solve(A, rhs(N), **options)
        assert {w.category for w in caught} == {scipy.linalg.LinAlgWarning}


def test_a_singular_slice_is_named(model):
    A = np.tile(matrix(), (2, 3, 1, 1))
    A[1, 1] = 1.0
    model.model.answer = WRONG["zeros"]
    with pytest.raises(af.errors.SingularSystemError, match="system 4 of the batch") as caught:
        af.solve(A, rhs(N), model=model)
    assert caught.value.indices == (4,)


# ---------------------------------------------------------------- SciPy's own tests


@pytest.mark.slow
def test_scipys_own_tests():
    """TestSolve and TestDTypes::test_solve unmodified, with every network; a part of them is in test_reliability.py."""
    found = scipy_suite.check()
    assert found.failures == []
    rows = {row["network"]: row for row in found.data["networks"]}
    assert set(rows) == set(scipy_suite.NETWORKS)
    for name, row in rows.items():
        assert row["skipped"] == 1
        if name in scipy_suite.OF_64:
            assert row["passed"] == 1167 + 784  # 1,168 and 784, one skipped upstream
            assert row["learned"] == row["learned+refined"] == 0
        else:
            assert row["passed"] > 1000
            answers = row["learned"] + row["learned+refined"]
            assert (answers > 300) == (name == "nearly right")
