"""Transposed systems A^T x = b: the learned inverse of A transposed, the factors of A, and the certificate of A^T."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import algebraformer as af
from algebraformer import problems
from algebraformer.errors import ConfigurationError, FallbackWarning, SingularSystemError, Status
from algebraformer.linalg import backward_error, relative_residual
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.numerics import lapack
from algebraformer.numerics.lapack import Factors
from algebraformer.numerics.preconditioner import TransposedInverse
from tests.fakes import WRONG, fake_solver, shipped

N = 64
EPS = np.finfo(float).eps
FAMILY = problems.get("diffusion", n=N)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        yield


def systems(count: int = 5, columns: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the family (B, n, n) and any right-hand sides (B, n, k)."""
    return FAMILY.sample(count, seed=1).A, np.random.default_rng(1).standard_normal((count, N, columns))


@pytest.mark.parametrize("prepare", [False, True])
def test_certified_by_the_network(prepare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Factors, "of", None)  # nothing is factorised
    A, b = systems()
    transposes, before = A.swapaxes(1, 2), A.copy()
    if prepare:
        ready = shipped().prepare(A)
        result = ready.solve(b, transpose=True)
        again = ready.solve(b, transpose=True)
        np.testing.assert_array_equal(again.x, result.x)
        np.testing.assert_array_equal(ready.solve(b).x, shipped().solve(A, b).x)  # A itself is still solved
    else:
        result = shipped().solve(A, b, transpose=True)
    np.testing.assert_array_equal(A, before)
    assert result.certified.all()
    assert result.in_distribution.all()
    assert set(result.status) == {Status.REFINED}
    omega = backward_error(transposes, b, result.x).max(axis=1)
    np.testing.assert_array_less(omega, N * EPS)
    np.testing.assert_allclose(result.backward_error, omega, atol=N * EPS)  # both are rounding of that size
    rounding = N * EPS * (np.linalg.norm(np.abs(transposes) @ np.abs(result.x) + np.abs(b), axis=1)).max(axis=1)
    difference = result.relative_residual - relative_residual(transposes, b, result.x).max(axis=1)
    assert (np.abs(difference) <= rounding / np.linalg.norm(b, axis=1).min(axis=1)).all()
    exact = np.linalg.solve(transposes, b)
    error = np.linalg.norm(result.x - exact, axis=1) / np.linalg.norm(exact, axis=1)
    condition = np.linalg.cond(A)
    assert (error.max(axis=1) <= 4 * N * EPS * condition).all()
    assert (error.max(axis=1) <= result.forward_error + 4 * N * EPS).all()


def test_as_few_refinements_as_for_the_matrices_themselves() -> None:
    A, b = systems(100, 1)
    counts = [shipped().solve(A, b, transpose=transpose).refinements for transpose in (False, True)]
    assert np.mean(counts[1]) <= np.mean(counts[0]) + 1


@pytest.mark.parametrize("shape", [(N,), (N, 4), (5, N), (5, N, 2)])
@pytest.mark.parametrize("numbers", [float, complex])
def test_shapes_and_lapack(shape: tuple[int, ...], numbers: type) -> None:
    """Complex systems and other matrices, which LAPACK solves: for complex ones too it is the transpose."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((5, N, N)).astype(numbers) + (
        1j * rng.standard_normal((5, N, N)) if numbers is complex else 0
    )
    A, b = (A if shape[0] == 5 else A[0]), rng.standard_normal(shape)
    result = shipped().solve(A, b, transpose=True)
    columns = b if b.ndim == A.ndim else b[..., None]
    exact = np.linalg.solve(A.swapaxes(-1, -2), columns).reshape(b.shape)
    np.testing.assert_allclose(result.x, exact, rtol=1e-9, atol=1e-10)
    assert np.all(result.certified)
    assert np.all(result.method == "lapack")


@pytest.mark.parametrize("numbers", [float, complex])
@pytest.mark.parametrize("assume_a", ["gen", "pos"])
def test_factors_of_the_matrix_serve_its_transpose(
    numbers: type, assume_a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((3, 8, 8)) + (1j * rng.standard_normal((3, 8, 8)) if numbers is complex else 0)
    A = A @ A.conj().swapaxes(1, 2) + np.eye(8) if assume_a == "pos" else A
    A = (A + A.conj().swapaxes(1, 2)) / 2 if assume_a == "pos" else A
    count, factorise = [], Factors.of
    monkeypatch.setattr(lapack.Factors, "of", lambda *args: count.append(1) or factorise(*args))
    ready, b = fake_solver(WRONG["nan"], 8).prepare(A, assume_a), rng.standard_normal((3, 8, 2))
    for transpose in (False, True, False):
        result = ready.solve(b, transpose=transpose)
        np.testing.assert_allclose(result.x, np.linalg.solve(A.swapaxes(1, 2) if transpose else A, b), rtol=1e-9)
        assert result.certified.all()
        assert (result.forward_error < 1e-10).all()
    assert len(count) == 3


def test_singular_matrices() -> None:
    A, b = systems(3)
    A[1] = np.ones((N, N))
    with pytest.raises(SingularSystemError) as raised:
        shipped().solve(A, b, transpose=True)
    assert raised.value.indices == (1,)
    assert raised.value.result.certified.tolist() == [True, False, True]


def test_heads_that_are_not_linear_leave_it_to_lapack() -> None:
    A, b = systems(2)
    solver = shipped("diffusion-64-token")
    result = solver.solve(A, b, transpose=True)
    assert set(result.status) == {Status.UNSUPPORTED}
    np.testing.assert_allclose(result.x, np.linalg.solve(A.swapaxes(1, 2), b), rtol=1e-6)
    with pytest.raises(ConfigurationError, match="only linear heads"):
        solver.solve(A, b, fallback=False, transpose=True)


def test_readings_without_an_inverse_have_no_transpose() -> None:
    """A itself would be solved instead, and certified."""
    reading = MatrixReading(np.eye(2)[None], np.ones(1, dtype=bool), lambda A, b: b)
    with pytest.raises(ConfigurationError):
        reading.transposed()


def test_scipys_name_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = systems(2)
    monkeypatch.setattr(Factors, "of", None)
    x = af.solve(A, b, transposed=True)
    np.testing.assert_allclose(x, np.linalg.solve(A.swapaxes(1, 2), b), rtol=1e-7)


def test_the_inverse_and_its_transpose() -> None:
    """M^T of M^T is M, and both are adjoint to each other."""
    A, b = systems(4)
    inverse = shipped().model.approximate_inverse(A)
    transposed = TransposedInverse(inverse)
    u, v = b, np.random.default_rng(2).standard_normal(b.shape)
    left, right = np.sum(u * inverse(v), axis=1), np.sum(transposed(u) * v, axis=1)
    size = np.linalg.norm(u, axis=1) * np.linalg.norm(inverse(v), axis=1)
    np.testing.assert_allclose(left / size, right / size, atol=1e-5)
    np.testing.assert_array_equal(transposed.adjoint(v), inverse(v))
    np.testing.assert_array_equal(transposed.right(transposed.left(u)), transposed(u))
    # BLAS may take another path for a batch of one.
    np.testing.assert_allclose(transposed[np.array([2])](u[2:3]), transposed(u)[2:3], rtol=1e-10)
