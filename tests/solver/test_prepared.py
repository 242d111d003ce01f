"""Matrices that are read once: what `prepare(A)` returns solves like `LearnedSolver.solve`, for one b after another."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from algebraformer import problems, threads
from algebraformer.errors import ConfigurationError, FallbackWarning, SingularSystemError, Status
from algebraformer.linalg import measure
from algebraformer.models import NumpyNetwork
from algebraformer.models.inference import network as inference_network
from algebraformer.numerics import lapack
from algebraformer.prepared import Prepared
from algebraformer.result import SolveResult
from algebraformer.solver import LearnedSolver
from tests.fakes import GOOD, WRONG, fake_solver, shipped

N = 64
EPS = np.finfo(float).eps
FIELDS = [field.name for field in dataclasses.fields(SolveResult)]


def systems(count: int = 6, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A (B, n, n) and b (B, n) of the shipped models' families: the first half inside, the rest random matrices."""
    family = problems.get("diffusion", n=N).sample(count, seed=seed)
    A, b = family.A.copy(), family.b.copy()
    A[count // 2 :] = np.random.default_rng(seed).standard_normal((count - count // 2, N, N))
    return A, b


def same(result: SolveResult, expected: SolveResult) -> None:
    """Assert that two results are equal, bit for bit."""
    for name in FIELDS:
        left, right = getattr(result, name), getattr(expected, name)
        assert type(left) is type(right), name
        equal_nan = np.asarray(left).dtype.kind == "f"
        np.testing.assert_array_equal(left, right, err_msg=name) if equal_nan else np.testing.assert_equal(left, right)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        yield


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is computed from matrices alone, in order: "read" for the network, "lu" for LAPACK."""
    monkeypatch.setattr(threads, "processors", lambda: 1)  # several would read several blocks
    found: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            found.append(name)
            return function(*args)

        return call

    monkeypatch.setattr(NumpyNetwork, "read", counted("read", NumpyNetwork.read))
    monkeypatch.setattr(lapack.Factors, "of", counted("lu", lapack.Factors.of))
    return found


# ---------------------------------------------------------------- the same answers


@pytest.mark.parametrize("options", [{}, {"fallback": False}, {"rtol": 1e-6, "max_refinements": 2}])
@pytest.mark.parametrize("name", ["diffusion-64", "diffusion-64-token"])
def test_the_answers_are_those_of_solve(name: str, options: dict[str, Any]) -> None:
    solver = shipped(name)
    A, b = systems()
    rng = np.random.default_rng(0)
    batch, alone = solver.prepare(A), solver.prepare(A[0])
    for _ in range(2):
        for right in (b, rng.standard_normal((len(A), N, 3)), b):
            same(batch.solve(right, **options), solver.solve(A, right, **options))
        for right in (b[0], rng.standard_normal((N, 2))):
            same(alone.solve(right, **options), solver.solve(A[0], right, **options))


@pytest.mark.parametrize("name", [*GOOD, *WRONG])
def test_any_network(name: str) -> None:
    solver = fake_solver((GOOD | WRONG)[name], 6)
    rng = np.random.default_rng(0)
    A = 3 * np.eye(6) + 0.5 * rng.uniform(-1, 1, (4, 6, 6))
    ready = solver.prepare(A)
    for _ in range(3):
        b = rng.standard_normal((4, 6, 2))
        same(ready.solve(b), solver.solve(A, b))


def test_complex_and_other_sizes_go_to_lapack() -> None:
    solver = shipped()
    A, b = systems()
    for matrices, right in ((A * (1 + 1j), b), (A * 1j, b * 1j), (A[:, :20, :20], b[:, :20])):
        ready = solver.prepare(matrices)
        for scale in (1, 2):
            same(ready.solve(scale * right), solver.solve(matrices, scale * right))
        with pytest.raises(ValueError, match="the model supports real systems with n = 64, received"):
            ready.solve(right, fallback=False)


def test_complex_right_hand_sides_of_real_matrices() -> None:
    """By real arithmetic, and by the network where it knows the matrices."""
    solver = shipped()
    A, b = systems()
    rng = np.random.default_rng(0)
    ready = solver.prepare(A)
    for right in (b * 1j, b * (1 - 2j), rng.standard_normal((6, N, 3)) + 1j * rng.standard_normal((6, N, 3))):
        for result in (ready.solve(right), solver.solve(A, right)):
            assert result.x.dtype == complex
            assert result.x.shape == right.shape
            assert result.method.tolist() == ["learned+refined"] * 3 + ["lapack"] * 3
            columns = right.reshape(6, N, -1)
            exact = np.linalg.solve(A, columns).reshape(right.shape)
            np.testing.assert_allclose(result.x, exact, atol=1e-9 * np.abs(exact).max())
            measured = measure(A + 0j, columns, result.x.reshape(columns.shape))
            assert result.certified.all()
            assert (measured.backward_error.max(axis=1) <= 1.5 * N * EPS).all()  # rounding of the measure itself
    same(ready.solve(b), solver.solve(A, b))
    bare = solver.predict(A, b + 1j * b[::-1])
    np.testing.assert_allclose(bare, solver.predict(A, b) + 1j * solver.predict(A, b[::-1]), rtol=1e-4)


def test_more_systems_than_are_read_at_once(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    monkeypatch.setattr(inference_network, "max_batch_size", lambda n: 4)
    solver = shipped()
    A, b = systems(10)
    ready = solver.prepare(A)
    assert calls == ["read"] * 3
    same(ready.solve(b), solver.solve(A, b))
    assert len(ready.operator) == 10
    np.testing.assert_array_equal(ready.in_distribution, [True] * 5 + [False] * 5)


def test_nothing_to_solve() -> None:
    ready = shipped().prepare(np.empty((0, N, N)))
    assert ready.solve(np.empty((0, N))).x.shape == (0, N)
    assert ready.in_distribution.shape == (0,)
    assert ready.operator == []
    assert shipped().prepare(np.eye(N)).solve(np.empty((N, 0))).x.shape == (N, 0)


# ---------------------------------------------------------------- once


@pytest.mark.parametrize("name", ["diffusion-64", "diffusion-64-token"])
def test_matrices_are_read_once_and_factorised_when_that_is_needed(name: str, calls: list[str]) -> None:
    A, b = systems()
    ready = shipped(name).prepare(A)
    assert calls == ["read"]
    first = ready.solve(b)
    factorised = int(np.sum(first.method == "lapack"))
    assert factorised >= 3
    assert calls == ["read"] + ["lu"] * factorised
    for scale in (2.0, -4.0):
        np.testing.assert_array_equal(ready.solve(scale * b).x, scale * first.x)
    assert calls == ["read"] + ["lu"] * factorised


def test_solve_keeps_nothing(calls: list[str]) -> None:
    A, b = systems()
    for _ in range(2):
        shipped().solve(A, b)
    assert calls == (["read"] + ["lu"] * 3) * 2


# ---------------------------------------------------------------- errors and warnings


def test_singular_matrices_are_named_for_every_right_hand_side(calls: list[str]) -> None:
    A, b = systems()
    A[1], A[4, :, 2], A[5] = 1.0, 0.0, np.eye(N)
    ready = shipped().prepare(A)
    for fallback in (True, False, True):
        with pytest.raises(SingularSystemError) as expected:
            shipped().solve(A, b, fallback=fallback)
        with pytest.raises(SingularSystemError) as raised:
            ready.solve(b, fallback=fallback)
        assert raised.value.indices == expected.value.indices
        same(raised.value.result, expected.value.result)
    assert ready.solve(np.ones((6, N, 0))).x.shape == (6, N, 0)


def test_out_of_distribution_is_warned_of_every_time() -> None:
    A, b = systems()
    ready = shipped().prepare(A)
    for _ in range(2):
        with pytest.warns(FallbackWarning, match="LAPACK answered 3 of 6 systems"):
            result = ready.solve(b)
        assert set(result.status[3:]) == {Status.OUT_OF_DISTRIBUTION}
        assert result.certified.all()
    bare = ready.solve(b, fallback=False)
    assert bare.certified.tolist() == [True] * 3 + [False] * 3


def test_a_later_change_of_the_matrix_has_no_effect() -> None:
    A, b = systems()
    original, changed = A.copy(), A.copy()
    ready = shipped().prepare(changed)
    changed[:] = np.eye(N)
    same(ready.solve(b), shipped().solve(original, b))
    same(ready.solve(b), shipped().solve(original, b))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (np.ones((5, N)), "b holds 5 systems, A holds 6"),
        (np.ones((6, N - 1)), "b has 63 rows, A has 64"),
        (np.ones(6), "b must have shape"),
        (np.full((6, N), np.nan), "b contains NaN"),
        ([["a"] * N] * 6, "b has dtype"),
    ],
)
def test_wrong_right_hand_sides(b: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shipped().prepare(systems()[0]).solve(b)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones((2, 2, N, N)), "A must have shape"),
        (np.ones((N, N - 1)), "A must have shape"),
        (np.full((N, N), np.inf), "A contains NaN or infinity"),
    ],
)
def test_wrong_matrices(A: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shipped().prepare(A)


@pytest.mark.parametrize("options", [{"rtol": -1.0}, {"rtol": np.nan}, {"max_refinements": -1}])
def test_wrong_options(options: dict[str, Any]) -> None:
    ready = shipped().prepare(np.eye(N))
    with pytest.raises(ValueError, match=next(iter(options))):
        ready.solve(np.ones(N), **options)


def test_a_model_that_does_not_solve_prepares_nothing() -> None:
    with pytest.raises(ConfigurationError):
        shipped("deblur-64").prepare(np.eye(N))


# ---------------------------------------------------------------- what else it has


def test_the_operator_is_that_of_the_solver() -> None:
    A, b = systems()
    batch, alone = shipped().prepare(A), shipped().prepare(A[0])
    for operator, expected, right in zip(batch.operator, shipped().operator(A), b, strict=True):
        np.testing.assert_array_equal(operator @ right, expected @ right)
    np.testing.assert_array_equal(alone.operator @ b[0], shipped().operator(A[0]) @ b[0])


def test_what_has_no_operator() -> None:
    with pytest.raises(ConfigurationError, match="this model has a token head"):
        _ = shipped("diffusion-64-token").prepare(np.eye(N)).operator
    for A, message in ((np.eye(5), "the model supports n = 64, received n = 5"), (np.eye(N) * 1j, "complex")):
        with pytest.raises(ValueError, match=message):
            _ = shipped().prepare(A).operator


def test_in_distribution_by_the_matrix_alone() -> None:
    A, b = systems()
    assert shipped().prepare(A[0]).in_distribution is True
    assert shipped().prepare(A[5]).in_distribution is False
    assert shipped().prepare(np.eye(5)).in_distribution is False
    assert shipped().prepare(A * 1j).in_distribution.tolist() == [False] * 6
    ready: Prepared = shipped().prepare(A)
    inside = ready.solve(b).in_distribution
    assert not (inside & ~ready.in_distribution).any()


def test_loops_of_right_hand_sides_need_no_batch() -> None:
    """Inverse iteration, the plainest use of one matrix for many b: it ends at the smallest eigenvalue."""
    solver: LearnedSolver = shipped()
    A = systems()[0][0]
    ready, x = solver.prepare(A), np.ones(N)
    for _ in range(60):
        result = ready.solve(x)
        assert result.certified
        x = result.x / np.linalg.norm(result.x)
    smallest = np.min(np.abs(np.linalg.eigvals(A)))
    assert np.linalg.norm(A @ x) == pytest.approx(smallest, rel=1e-4)
