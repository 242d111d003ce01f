"""Generalised conjugate residuals against SciPy's GMRES and closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse.linalg

from algebraformer.linalg import backward_error, relative_residual
from algebraformer.numerics import gcr

EPS = np.finfo(float).eps


@dataclasses.dataclass(frozen=True)
class Dense:
    """M = R L with given matrices R (B, n, n) and L (n, n); counts what is asked of it."""

    R: np.ndarray
    L: np.ndarray
    calls: list[int] = dataclasses.field(default_factory=list)

    def left(self, r):
        return self.L @ r

    def right(self, g):
        self.calls.append(len(g))
        return self.R @ g

    def __getitem__(self, chosen):
        return Dense(self.R[chosen], self.L, self.calls)


def systems(B=4, n=9, k=1, spread=0.3, seed=0):
    """A (B, n, n) around a common matrix, b (B, n, k), and that matrix's inverse."""
    rng = np.random.default_rng(seed)
    mean = np.diag(np.geomspace(1, 1e3, n)) + rng.standard_normal((n, n))
    A = mean @ (np.eye(n) + spread * rng.standard_normal((B, n, n)) / np.sqrt(n))
    return A, rng.standard_normal((B, n, k)), np.linalg.inv(mean)


def identity(A, L):
    return Dense(np.broadcast_to(np.eye(A.shape[1]), A.shape), L)


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_residuals_are_those_of_gmres(steps):
    """The preconditioned residual after k steps is the least of the Krylov space: SciPy's GMRES finds the same."""
    A, b, L = systems()
    R = np.linalg.inv(L @ A) + 0.05 * np.random.default_rng(1).standard_normal(A.shape)
    found = gcr.solve(A, b, Dense(R, L), rtol=0.0, maxiter=steps, stagnation_factor=1.0)
    assert (found.steps == steps).all()
    for i in range(len(A)):
        operator, right = L @ A[i] @ R[i], L @ b[i, :, 0]
        y, _ = scipy.sparse.linalg.gmres(operator, right, rtol=0.0, atol=0.0, restart=steps, maxiter=1)
        ours = np.linalg.norm(L @ (b[i] - A[i] @ found.x[i]))
        assert ours == pytest.approx(np.linalg.norm(right - operator @ y), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_converges_to_the_certificate(k):
    A, b, L = systems(k=k)
    found = gcr.solve(A, b, identity(A, L), rtol=1e-10, maxiter=9, stagnation_factor=1.0)
    assert relative_residual(A, b, found.x).max() <= 1e-10
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-7, atol=1e-9)


def test_stops_where_float64_allows_no_more():
    """A tolerance that cannot be met ends where float64 does, and a new start from there meets the certificate."""
    A, b, L = systems(spread=0.01)
    found = gcr.solve(A, b, identity(A, L), rtol=0.0, maxiter=50)
    assert found.steps.max() < 9
    assert found.residual_ratio.max() <= 2 * 9 * EPS
    again = gcr.solve(A, b, identity(A, L), rtol=0.0, maxiter=1, x0=found.x)
    assert backward_error(A, b, again.x).max() <= 10 * 9 * EPS


def test_systems_that_are_done_are_left_alone():
    A, b, L = systems(B=8, spread=0.3)
    R = np.linalg.inv(L @ A)
    R[5:] = np.eye(9)
    M = Dense(R, L)
    found = gcr.solve(A, b, M, rtol=1e-10, maxiter=9, stagnation_factor=1.0)
    assert (found.steps[:5] <= 2).all()
    assert (found.steps[5:] > 2).all()
    assert M.calls[0] == 8
    assert M.calls[-1] == 3  # the others were dropped
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b), rtol=1e-7, atol=1e-9)


def test_first_steps_by_hand():
    A, b = np.diag([1.0, 2.0])[None], np.array([[[1.0], [1.0]]])
    found = gcr.solve(A, b, identity(A, np.eye(2)), rtol=0.0, maxiter=1)
    alpha = 3 / 5  # <w, g> / <w, w> with w = (1, 2), g = (1, 1)
    np.testing.assert_allclose(found.x[0, :, 0], [alpha, alpha])
    assert found.first_residual_ratio == pytest.approx(np.hypot(1 - alpha, 1 - 2 * alpha) / np.sqrt(2))
    found = gcr.solve(A, b, identity(A, np.eye(2)), rtol=0.0, maxiter=2)
    np.testing.assert_allclose(found.x[0, :, 0], [1, 0.5])


def test_goes_on_from_x0():
    A, b, L = systems()
    M = Dense(np.linalg.inv(L @ A) * (1 + 1e-2 * np.random.default_rng(2).standard_normal(A.shape)), L)
    near = np.linalg.solve(A, b) * (1 + 1e-6)
    found = gcr.solve(A, b, M, rtol=1e-10, maxiter=9, x0=near)
    assert relative_residual(A, b, found.x).max() <= 1e-10
    from_zero = gcr.solve(A, b, M, rtol=1e-10, maxiter=9)
    assert (found.steps < from_zero.steps).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308, 0.0])
def test_a_preconditioner_that_is_wrong_spoils_nothing(bad):
    A, b, L = systems()
    R = np.linalg.inv(L @ A)
    R[2] = bad
    found = gcr.solve(A, b, Dense(R, L), rtol=1e-10, maxiter=9)
    assert np.isfinite(found.x).all()
    assert relative_residual(A, b, found.x)[[0, 1, 3]].max() <= 1e-10
    assert relative_residual(A, b, found.x)[2] == 1  # x = 0


def test_nothing_to_solve():
    A, b, L = systems()
    assert not gcr.solve(A, 0 * b, identity(A, L), 1e-10, 9).x.any()
    empty = gcr.solve(A[:0], b[:0], identity(A[:0], L), 1e-10, 9)
    assert empty.x.shape == (0, 9, 1)


def test_share_that_is_left_of_one_vector():
    """By SVD: what the best multiple of L A R g leaves of g, for the same g."""
    A, _, L = systems()
    M = Dense(np.linalg.inv(L @ A) + 0.05 * np.random.default_rng(1).standard_normal(A.shape), L)
    share = gcr.probe_defect(A, M)
    g = np.random.default_rng(0).standard_normal(A.shape[-1])
    for i, value in enumerate(share):
        w = L @ A[i] @ M.R[i] @ g
        (best,), (square,), *_ = np.linalg.lstsq(w[:, None], g, rcond=None)
        assert value == pytest.approx(np.sqrt(square) / np.linalg.norm(g))
        assert best == pytest.approx(1, abs=0.5)


def test_little_is_left_where_the_inverse_is_near_and_nearly_all_where_the_matrix_has_low_rank():
    A, _, L = systems(B=3, n=40)
    M = Dense(np.linalg.inv(L @ A), L)
    A[1] = 1.0
    A[2, 5] = A[2, 6]
    near, low_rank, equal_rows = gcr.probe_defect(A, M)
    assert near < 1e-10
    assert low_rank > 0.9
    assert equal_rows > 0.01
    bad = Dense(np.full_like(A, np.nan), L)
    np.testing.assert_array_equal(gcr.probe_defect(A, bad), 1.0)
