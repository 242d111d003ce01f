"""Passes over A against the same with whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from algebraformer import passes, threads


@pytest.fixture
def two(monkeypatch):
    """Two threads, whatever the machine has: a large matrix is split by rows."""
    monkeypatch.setattr(threads, "processors", lambda: 2)
    with threadpool_limits(2, "blas"):
        yield


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(seed=0, B=2, n=1100, k=2, order=True)
@given(
    seed=st.integers(0, 2**32),
    B=st.integers(1, 3),
    n=st.sampled_from([1, 5, 40, 300, 1100]),
    k=st.integers(1, 2),
    order=st.booleans(),
)
def test_products(two, seed, B, n, k, order):
    """A x and |A| |x| in blocks, and A z of chosen systems, are those of the whole matrices in any memory order."""
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(rng.random(B) < 0.6)
    A, x, z = rng.standard_normal((B, n, n)), rng.standard_normal((B, n, k)), rng.standard_normal((len(chosen), n, k))
    if order:
        A, x, z = (np.asarray(part.mT, order="C").mT for part in (A, x, z))
    v, size = passes.products(A, x)
    np.testing.assert_allclose(v, A @ x, atol=1e-12 * n)
    np.testing.assert_allclose(size, np.abs(A) @ np.abs(x), rtol=1e-12)
    np.testing.assert_allclose(passes.multiply(A, chosen, z), A[chosen] @ z, atol=1e-12 * n)
    v, size = passes.products(A, z, chosen)
    np.testing.assert_allclose(v, A[chosen] @ z, atol=1e-12 * n)
    np.testing.assert_allclose(size, np.abs(A[chosen]) @ np.abs(z), rtol=1e-12)


@pytest.mark.parametrize("dtype", [float, complex])
def test_lines_of_zeros(dtype):
    """By counting; a first entry of zero alone is no line, nor is a tiny one."""
    rng = np.random.default_rng(0)
    A = (rng.random((200, 4, 4)) < 0.5).astype(dtype) * 1e-300
    expected = [not (a.any(axis=0).all() and a.any(axis=1).all()) for a in A]
    assert 20 < sum(expected) < 180
    np.testing.assert_array_equal(passes.has_zero_line(A), expected)
    assert passes.has_zero_line(np.empty((2, 0, 0))).tolist() == [False, False]
    assert passes.has_zero_line(np.zeros((1, 1, 1))).tolist() == [True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, complex(0, np.nan)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1100, 1100)])
def test_what_is_not_finite_is_found_anywhere(two, shape, bad):
    A = np.full(shape, 1e308, dtype=type(bad))  # sums overflow
    assert passes.all_finite(A)
    A.flat[A.size // 2] = bad
    assert not passes.all_finite(A)
    assert passes.all_finite(A[:0] if shape else np.empty(0))
