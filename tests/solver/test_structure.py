"""Positive definite matrices: Cholesky where LAPACK is needed, LU where that fails; determinants from the factors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import SingularSystemError, Status
from algebraformer.models.registry import ships
from algebraformer.numerics import lapack
from algebraformer.numerics.lapack import Factors
from algebraformer.solver import LearnedSolver
from tests.fakes import WRONG, fake_solver

N = 9
EPS = np.finfo(float).eps
SYMMETRIC = [np.eye(N), -np.eye(N), np.diag(np.arange(N) - 3.5), np.ones((N, N)) + 1e-3 * np.eye(N)]


def matrices(kind: str, complex_numbers: bool = False, count: int = 5) -> np.ndarray:
    """Matrices (B, N, N): Hermitian and positive definite, Hermitian, or any."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((count, N, N)) + (1j * rng.standard_normal((count, N, N)) if complex_numbers else 0)
    adjoint = A.conj().swapaxes(1, 2)
    A = {"pos": A @ adjoint + np.eye(N), "her": A + adjoint, "gen": A}[kind]
    return A if kind == "gen" else (A + A.conj().swapaxes(1, 2)) / 2


def solver_of(family: str) -> LearnedSolver:
    """A solver whose network is of no use, so that LAPACK solves everything."""
    solver = fake_solver(WRONG["nan"], N)
    return LearnedSolver(solver.model, dataclasses.replace(solver.info, family={"name": family, "n": N}))


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize(("kind", "cholesky"), [("pos", True), ("her", False), ("gen", False)])
def test_factors(kind: str, cholesky: bool, complex_numbers: bool) -> None:
    for A in matrices(kind, complex_numbers):
        b = A @ np.arange(2 * N).reshape(N, 2)
        by_lu, factors = Factors.of(A), Factors.of(A, "pos")
        assert by_lu.pivots is not None
        assert (factors.pivots is None) == cholesky
        condition = np.linalg.cond(A, 1)
        assert 1 / condition * (1 - 1e-9) <= factors.rcond <= 10 / condition  # an estimate, never too pessimistic
        limit = 10 * N * EPS * condition
        np.testing.assert_allclose(factors.inverse(b), np.arange(2 * N).reshape(N, 2), atol=limit * 2 * N)
        assert factors.defect <= limit


@pytest.mark.parametrize("complex_numbers", [False, True])
@pytest.mark.parametrize("assume_a", ["gen", "pos"])
@pytest.mark.parametrize("kind", ["pos", "her", "gen"])
def test_logdet(kind: str, assume_a: str, complex_numbers: bool) -> None:
    A = matrices(kind, complex_numbers)
    expected = np.linalg.slogdet(A)
    prepared = fake_solver(WRONG["nan"], N).prepare(A, assume_a=assume_a)
    found = prepared.logdet()
    np.testing.assert_allclose(found.sign, expected.sign, atol=1e-12)
    np.testing.assert_allclose(found.logabsdet, expected.logabsdet, atol=1e-12)
    assert found.sign.dtype == A.dtype
    sign, size = fake_solver(WRONG["nan"], N).prepare(A[2], assume_a).logdet()
    assert isinstance(size, float)
    np.testing.assert_allclose([sign, size], [expected.sign[2], expected.logabsdet[2]], atol=1e-12)


def test_logdet_of_singular_and_of_enormous_matrices() -> None:
    A = np.stack([np.ones((N, N)), 1e308 * np.eye(N), 1e308 * (np.eye(N) + np.eye(N, k=1)), 1e-300 * np.eye(N)])
    for assume_a in ("gen", "pos"):
        sign, size = fake_solver(WRONG["nan"], N).prepare(A, assume_a).logdet()
        assert sign.tolist() == [0, 1, 1, 1]
        np.testing.assert_allclose(size, [-np.inf, *(N * np.log([1e308, 1e308, 1e-300]))], rtol=1e-14)


def test_logdet_without_unknowns_or_matrices() -> None:
    for shape in ((0, 0), (3, 0, 0), (0, N, N)):
        A = np.zeros(shape)
        expected, found = np.linalg.slogdet(A), fake_solver(WRONG["nan"], N).prepare(A).logdet()
        np.testing.assert_array_equal(found.sign, expected.sign)
        np.testing.assert_array_equal(found.logabsdet, expected.logabsdet)


@pytest.mark.parametrize("assume_a", ["gen", "pos"])
def test_rows_whose_sums_overflow(assume_a: str) -> None:
    """Where those of the columns do not: without a warning."""
    A = np.eye(4)
    A[0] = 1.7e308
    b = np.array([0.0, 1.0, 2.0, -3.0])
    x = lapack.solve(A[None], b[None, :, None], assume_a=assume_a).x[0, :, 0]
    np.testing.assert_allclose(x, np.linalg.solve(A, b), atol=1e-15)


def test_factors_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The determinant and every right-hand side share them, whichever comes first."""
    count, factorise = [], Factors.of
    monkeypatch.setattr(lapack.Factors, "of", lambda *args: count.append(1) or factorise(*args))
    A, b = matrices("pos"), np.ones((5, N))
    prepared = solver_of("kernel").prepare(A)
    prepared.logdet()
    for _ in range(2):
        prepared.solve(b)
        prepared.logdet()
    assert len(count) == len(A)


@pytest.mark.parametrize(
    ("family", "assume_a", "cholesky"),
    [
        *(("kernel", None, True), ("kernel", "gen", False), ("kernel", "positive definite", True)),
        *(("diffusion", None, False), ("diffusion", "pos", True), ("nobody", None, False)),
    ],
)
@pytest.mark.filterwarnings("ignore::algebraformer.errors.FallbackWarning")
def test_who_says_that_matrices_are_positive_definite(
    family: str, assume_a: str | None, cholesky: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, factorise = [], Factors.of

    def recorded(*args: object) -> Factors:
        factors = factorise(*args)  # type: ignore[arg-type]
        used.append(factors.pivots is None)
        return factors

    monkeypatch.setattr(lapack.Factors, "of", recorded)
    A, b = matrices("pos"), np.ones((5, N))
    result = solver_of(family).solve(A, b, assume_a=assume_a)
    assert used == [cholesky] * len(A)
    assert result.certified.all()
    np.testing.assert_allclose(result.x, np.linalg.solve(A, b[..., None])[..., 0], rtol=1e-9)


@pytest.mark.filterwarnings("ignore::algebraformer.errors.FallbackWarning")
def test_matrices_that_are_not_positive_definite_are_solved_by_lu() -> None:
    A = np.concatenate((matrices("her"), matrices("gen"), SYMMETRIC))
    result = solver_of("kernel").solve(A, np.ones((len(A), N)))
    assert result.certified.all()
    assert set(result.status) == {Status.FALLBACK}
    with pytest.raises(SingularSystemError):
        solver_of("kernel").solve(np.ones((N, N)), np.ones(N))


def test_unknown_structures_are_refused() -> None:
    for assume_a in ("positive", "sym", "", 1, ["pos"]):
        with pytest.raises(ValueError, match="assume_a must be one of 'gen', 'general', 'pos'"):
            fake_solver(WRONG["nan"], N).solve(np.eye(N), np.ones(N), assume_a=assume_a)  # type: ignore[arg-type]


def test_families_say_what_they_are() -> None:
    classes = {name: problems.family_class(name) for name in problems.names()}
    positive = {name for name, cls in classes.items() if cls.structure == "pos" and ships(cls.__module__)}
    assert positive == {"kernel"}
