"""Tiles of the basis operators in sines: against the dense basis, and against a scipy.fft transform."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.fft

from algebraformer import problems
from algebraformer.numerics import gcr, sine_tiles
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.sine_tiles import MIN_N, TILE, TiledOperators, compress, sines
from tests.bases import fit


@functools.cache
def basis(n: int = MIN_N) -> OperatorBasis:
    return fit(problems.get("diffusion", n=n), 8, n_column=8, n_row=8, seed=0, count=40)


@functools.cache
def tiled() -> TiledOperators:
    found = compress(basis())
    assert found is not None
    return found


@pytest.mark.parametrize("n", [1, 5, 64])
def test_sines_are_the_discrete_sine_transform(n):
    k = np.argsort(np.concatenate((np.arange(0, n, 2), np.arange(1, n, 2))))
    v = np.random.default_rng(0).standard_normal(n)
    np.testing.assert_allclose((sines(n) @ v)[k], scipy.fft.dst(v, type=1, norm="ortho"), atol=1e-13)


def test_what_is_kept_are_tiles_of_the_transformed_operators():
    P = sines(MIN_N)
    for r in (0, 3):
        exact, start = P @ basis().operators[r].astype(float) @ P.T, 0
        kept = np.zeros_like(exact)
        for i, columns in enumerate(tiled().columns):
            rows = slice(i * TILE, (i + 1) * TILE)
            entries = tiled().operators[r, start : start + TILE * columns.size].reshape(TILE, -1)
            np.testing.assert_allclose(entries, exact[rows, columns], atol=1e-5 * np.abs(exact).max())
            kept[rows, columns] = exact[rows, columns]
            start += entries.size
        if r == 0:  # the mean is most of the whole
            assert np.linalg.norm(kept - exact) <= 2 * sine_tiles.TRUNCATION_RTOL * np.linalg.norm(exact)
    assert tiled().operators.shape[1] < 0.5 * MIN_N**2


def test_the_inverse_is_that_of_the_dense_basis():
    A = problems.get("diffusion", n=MIN_N).sample(3, seed=5).A
    _, c, _ = basis().coefficients(A)
    s = basis().sampler(A)[1]
    dense, sparse = basis().inverse_of(c, s), tiled().inverse_of(c, s)
    b = np.random.default_rng(0).standard_normal((3, MIN_N, 2))
    np.testing.assert_allclose(sparse.left(b), sines(MIN_N) @ dense.left(b), rtol=1e-9, atol=1e-12)
    expected = dense(b)
    assert np.linalg.norm(sparse(b) - expected) < 1e-2 * np.linalg.norm(expected)
    radii = gcr.contraction(A, dense), gcr.contraction(A, sparse)
    np.testing.assert_allclose(radii[1], radii[0], rtol=0.2, atol=2 * sine_tiles.TRUNCATION_RTOL)
    np.testing.assert_array_equal(sparse[np.array([2])](b[2:]), sparse(b)[2:])
    np.testing.assert_allclose(sparse(1e-200 * b), 1e-200 * sparse(b), rtol=1e-6)
    assert not sparse(0 * b).any()


@pytest.mark.parametrize("which", ["dense", "tiled"])
def test_adjoint(which):
    """<u, M v> = <M^T u, v> for all u and v, to the rounding of float32."""
    A = problems.get("diffusion", n=MIN_N).sample(3, seed=5).A
    _, c, _ = basis().coefficients(A)
    inverse = (basis() if which == "dense" else tiled()).inverse_of(c, basis().sampler(A)[1])
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 3, MIN_N, 2))
    Mv, Mu = inverse(v), inverse.adjoint(u)
    size = np.linalg.norm(u, axis=1) * np.linalg.norm(Mv, axis=1)
    np.testing.assert_array_less(np.abs(np.sum(u * Mv - Mu * v, axis=1)), 1e-5 * size)


def test_compressing_is_left_where_nothing_is_gained(monkeypatch):
    assert compress(basis(16)) is None
    monkeypatch.setattr(sine_tiles, "MIN_N", 16)
    assert compress(basis(40)) is None  # not a multiple of a tile
    monkeypatch.setattr(sine_tiles, "MAX_KEPT_SHARE", 0.01)
    assert compress(basis()) is None
