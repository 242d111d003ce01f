"""The low-rank form of a family's inverses against dense NumPy oracles."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.numerics import gcr, low_rank, low_rank_fit
from algebraformer.numerics.low_rank import LowRankBasis
from algebraformer.numerics.preconditioner import MeanInverse
from algebraformer.numerics.shared_factors import ROW_LEVELS, Factors, PairAlgebra, fit_factors
from algebraformer.problems.nonlinear import Jacobians

N, P, J, R = 24, 5, 2, 6
SEED = 1


@functools.cache
def basis(rank: int = R, n_rows: int = J, p: int = P) -> LowRankBasis:
    family = problems.get("advection-diffusion", n=N)
    return low_rank_fit.fit(lambda i: family.assembled(i, SEED)[0], N, rank, p, n_rows, 6, 5, count=120)


@functools.cache
def sample(count: int = 4, seed: int = 9) -> np.ndarray:
    return problems.get("advection-diffusion", n=N).assembled(range(count), seed)[0]


@functools.cache
def factors(n: int = 7, p: int = 3, n_rows: int = 2) -> Factors:
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((n, p)))[0].astype(np.float32) for _ in range(2))
    levels = rng.integers(-ROW_LEVELS, ROW_LEVELS, (n_rows, n, n), dtype=np.int8)
    return Factors(U, V, levels, rng.uniform(0.1, 1, (n_rows, n)).astype(np.float32))


def dense(pair: np.ndarray, shared: Factors) -> np.ndarray:
    """U C V^T + sum_j diag(d_j) H_j in plain loops."""
    (n, p), H = shared.U.shape, shared.row_scales[:, :, None].astype(float) * shared.row_levels
    found = shared.U.astype(float) @ pair[: p * p].reshape(p, p) @ shared.V.astype(float).T
    for j, d in enumerate(pair[p * p :].reshape(len(H), n)):
        found += np.diag(d) @ H[j]
    return found


def scaling(A: np.ndarray, found: LowRankBasis) -> tuple[np.ndarray, np.ndarray]:
    """l1 and l2 (n,) of one matrix."""
    g = np.diag(found.A_mean) / np.diag(A)
    return np.sqrt(np.abs(g)), np.sign(g) * np.sqrt(np.abs(g))


def left_to_learn(A: np.ndarray, found: LowRankBasis) -> np.ndarray:
    """E (B, n, n) by explicit inverses."""
    parts = []
    for one in A:
        l1, l2 = scaling(one, found)
        parts.append(np.diag(1 / l1) @ np.linalg.inv(one) @ np.diag(1 / l2) @ found.A_mean - np.eye(len(one)))
    return np.array(parts)


# ---------------------------------------------------------------- shared factors


def test_products_and_gram_against_explicit_matrices():
    shared = factors()
    algebra, size = PairAlgebra.of(shared), 9 + 2 * 7
    operators = np.array([dense(unit, shared).ravel() for unit in np.eye(size)])  # what each number stands for
    rng = np.random.default_rng(1)
    E, pairs = rng.standard_normal((4, 7, 7)), rng.standard_normal((4, size))
    np.testing.assert_allclose(algebra.products(E), E.reshape(4, -1) @ operators.T, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(algebra.gram(pairs), pairs @ operators @ operators.T, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(algebra.matrix(pairs[0]), dense(pairs[0], shared), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_best_pairs_against_least_squares(n_rows, monkeypatch):
    monkeypatch.setattr("algebraformer.numerics.shared_factors.SOLVE_SWEEPS", 2000)
    shared = factors(n_rows=n_rows)
    algebra, size = PairAlgebra.of(shared), 9 + n_rows * 7
    operators = np.array([dense(unit, shared).ravel() for unit in np.eye(size)])
    E = np.random.default_rng(1).standard_normal((3, 7, 7))
    expected = [operators.T @ np.linalg.lstsq(operators.T, e.ravel(), rcond=None)[0] for e in E]
    found = algebra.solve(algebra.products(E))
    np.testing.assert_allclose([dense(pair, shared).ravel() for pair in found], expected, atol=1e-4)


@pytest.mark.parametrize("n_rows", [0, 2])
def test_shared_factors_are_found_again(n_rows):
    """Of matrices that have this form, next to nothing is left: the rounding of rows to 8 bits."""
    shared, rng = factors(20, 3, n_rows), np.random.default_rng(2)
    unit = shared._replace(row_scales=shared.row_scales / 500)
    E = np.array([dense(pair, unit) for pair in rng.standard_normal((60, 9 + n_rows * 20))]).astype(np.float32)
    found = fit_factors(E, 3, n_rows)
    algebra = PairAlgebra.of(found)
    pairs = algebra.solve(algebra.products(E.astype(float)))
    rest = E - np.array([dense(pair, found) for pair in pairs])
    assert np.linalg.norm(rest) < (1e-5 if n_rows == 0 else 0.05) * np.linalg.norm(E)
    for orthonormal in (found.U, found.V):
        np.testing.assert_allclose(orthonormal.T @ orthonormal, np.eye(3), atol=1e-5)


def test_low_rank_is_that_of_the_singular_vectors():
    """Without rows, U and V leave about what the leading eigenvectors of the sums of E E^T and E^T E leave."""
    E = left_to_learn(sample(60), basis()).astype(np.float32)
    found = fit_factors(E, P, 0)
    weight = 1 / np.sum((E + np.eye(N)) ** 2, axis=(1, 2))
    left = np.linalg.eigh(np.einsum("b,bij,bkj->ik", weight, E, E))[1][:, -P:]
    right = np.linalg.eigh(np.einsum("b,bji,bjk->ik", weight, E, E))[1][:, -P:]

    def rest(U: np.ndarray, V: np.ndarray) -> float:
        return float(np.sqrt(np.sum(weight * np.sum((E - U @ U.T @ E @ V @ V.T) ** 2, axis=(1, 2)))))

    assert rest(found.U, found.V) < 1.05 * rest(left, right)


def test_rows_are_principal_components():
    """With no room for a low rank, H_1 is the first singular vector of each row over the family."""
    E = left_to_learn(sample(60), basis()).astype(np.float32)
    found = fit_factors(E, 1, 1)
    U, V = found.U.astype(float), found.V.astype(float)
    root = 1 / np.linalg.norm(E + np.eye(N), axis=(1, 2))[:, None, None]
    rest = root * (E - U @ (U.T @ E @ V) @ V.T)
    H = found.rows[0] / np.linalg.norm(found.rows[0], axis=1, keepdims=True)
    for i in range(N):
        best = np.linalg.svd(rest[:, i])[1][0]
        assert np.linalg.norm(rest[:, i] @ H[i]) > 0.9 * best


# ---------------------------------------------------------------- the basis


def test_scaled_matrices_have_one_diagonal():
    found, A = basis(), sample()
    _, g = found.read(A)
    np.testing.assert_allclose(g, np.diag(found.A_mean) / np.diagonal(A, axis1=1, axis2=2), rtol=1e-12)
    np.testing.assert_allclose(
        np.diagonal(low_rank.scaled(A, g), axis1=1, axis2=2), np.tile(np.diag(found.A_mean), (len(A), 1)), rtol=1e-12
    )
    np.testing.assert_array_equal(found.A_mean, found.A_mean.astype(np.float32))


def test_mean_against_numpy():
    A, found = problems.get("advection-diffusion", n=N).assembled(range(120), SEED)[0], basis()
    scaled = np.array([scaling(a, found)[1][:, None] * a * scaling(a, found)[0] for a in A])
    np.testing.assert_allclose(found.A_mean, scaled.mean(axis=0), rtol=1e-5, atol=1e-6 * np.abs(scaled).max())


def test_components_are_orthonormal_and_coefficients_are_projections():
    found, A = basis(), sample()
    T = np.array([dense(pair, found.factors) for pair in found.operators.astype(float)])
    np.testing.assert_allclose(
        np.einsum("rij,sij->rs", T[1:], T[1:]), np.eye(R), atol=5e-3
    )  # to the rounding of float16
    E = left_to_learn(A, found)
    z, c, weight = found.coefficients(A)
    np.testing.assert_allclose(c, np.einsum("bij,rij->br", E - T[0], T[1:]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weight, 1 / np.linalg.norm(np.eye(N) + E, axis=(1, 2)), rtol=1e-8)
    np.testing.assert_allclose(found.T_mean, np.eye(N) + T[0], atol=1e-6)
    np.testing.assert_array_equal(z, found.sampler(A)[0])


def test_coefficient_statistics():
    found, A = basis(), problems.get("advection-diffusion", n=N).assembled(range(120), SEED)[0]
    _, c, weight = found.coefficients(A)
    assert found.scale == pytest.approx(np.mean(weight**2) ** -0.5, rel=1e-6)
    rms = np.sqrt(np.mean((weight[:, None] * c) ** 2, axis=0))
    np.testing.assert_allclose(found.coefficient_rms, rms, rtol=0.05, atol=0.01 * rms.max())
    assert (np.diff(found.spectrum) <= 0).all()
    assert found.spectrum.shape == (120,)
    np.testing.assert_allclose(found.spectrum[:R], found.coefficient_rms, rtol=0.05)


def test_the_form_is_better_than_the_scaled_mean():
    found, A = basis(40, p=12), sample(8)
    g = found.read(A)[1]
    learned = gcr.contraction(A, found.inverse_of(found.coefficients(A)[1], g))
    mean = gcr.contraction(low_rank.scaled(A, g), MeanInverse(found.inverse))
    assert np.median(learned) < 0.4 * np.median(mean)


# ---------------------------------------------------------------- the inverse


@functools.cache
def inverse(n_rows: int = J) -> tuple[low_rank.LowRankInverse, np.ndarray]:
    found, A = basis(n_rows=n_rows), sample()
    c, M = found.coefficients(A)[1], []
    for one, coefficients in zip(A, c, strict=True):
        l1, l2 = scaling(one, found)
        pair = found.operators[0] + coefficients @ found.operators[1:].astype(float)
        inner = np.eye(N) + dense(pair, found.factors)
        M.append(np.diag(l1) @ inner @ np.linalg.inv(found.A_mean) @ np.diag(l2))
    return found.inverse_of(c, found.read(A)[1]), np.array(M)


@pytest.mark.parametrize("n_rows", [0, J])
@pytest.mark.parametrize("k", [1, 3])
def test_inverse_against_explicit_matrices(n_rows, k):
    M, expected = inverse(n_rows)
    b = np.random.default_rng(0).standard_normal((len(expected), N, k))
    np.testing.assert_allclose(M(b), expected @ b, atol=2e-6 * np.abs(expected @ b).max())
    transposed = expected.swapaxes(1, 2) @ b
    np.testing.assert_allclose(M.adjoint(b), transposed, atol=2e-6 * np.abs(transposed).max())


def test_parts_of_the_inverse():
    M, _ = inverse()
    b = np.random.default_rng(0).standard_normal((4, N, 2))
    np.testing.assert_array_equal(M.right(M.left(b)), M(b))
    np.testing.assert_allclose(M[np.array([2, 0])](b[[2, 0]]), M(b)[[2, 0]], rtol=1e-4, atol=1e-6 * np.abs(M(b)).max())
    np.testing.assert_allclose(M(1e-200 * b), 1e-200 * M(b), rtol=1e-6)
    assert not M(0 * b).any()
    assert M[slice(0, 0)](b[:0]).shape == (0, N, 2)


@pytest.mark.parametrize("d", [-1.0, 3e-200, -7e150])
def test_inverse_of_scaled_matrices(d):
    found, A = basis(), sample()
    z, g = found.read(d * A)
    np.testing.assert_allclose(z, found.read(A)[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(g * d, found.read(A)[1], rtol=1e-12)
    c, b = found.coefficients(A)[1], np.random.default_rng(0).standard_normal((len(A), N, 1))
    expected = found.inverse_of(c, found.read(A)[1])(b)
    np.testing.assert_allclose(found.inverse_of(c, g)(b) * d, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_foreign_matrices_have_finite_scalings():
    found = basis()
    strange = np.array([np.zeros((N, N)), np.ones((N, N)) - np.eye(N), np.diag(np.geomspace(1e-30, 1e30, N))])
    assert np.isfinite(found.read(strange)[1]).all()


def test_diagonals_that_change_sign_are_no_scaling():
    rng = np.random.default_rng(3)
    base = rng.standard_normal((N, N)) + 6 * np.eye(N)

    def draw(indices: range) -> np.ndarray:
        A = np.tile(base, (len(indices), 1, 1))
        A[:, 0, 0] = [0.5 * (-1) ** i for i in indices]
        A[:, 1, 2] = [np.random.default_rng(i).uniform() for i in indices]
        return A

    found = low_rank_fit.fit(draw, N, 2, 2, 1, 4, 4, count=20)
    A = draw(range(3))
    np.testing.assert_array_equal(found.scaling_range, [1, 1])
    np.testing.assert_allclose(found.read(A)[1], np.repeat(1 / found.sampler(A)[1][:, None], N, axis=1))
    M = found.inverse_of(found.coefficients(A)[1], found.read(A)[1])
    assert gcr.contraction(A, M).max() < 1e-2


def test_without_a_scaling_the_mean_is_that_of_the_matrices():
    """Also where the diagonals of many samples have the opposite sign."""
    n, count = 12, 300
    fixed = 3 * np.roll(np.eye(n), 1, axis=0)

    def sample(indices):
        draws = [np.random.default_rng(i) for i in indices]
        return fixed + np.array([np.diag(rng.uniform(-1, 1) + 0.3 * rng.standard_normal(n)) for rng in draws])

    found = low_rank_fit.fit(sample, n, rank=4, p=2, n_rows=0, n_column=n, n_row=n, count=count)
    np.testing.assert_array_equal(found.scaling_range, 1.0)
    A = sample(range(count))
    mean = (A / found.sampler(A)[1][:, None, None]).mean(axis=0)
    np.testing.assert_allclose(found.A_mean, mean, atol=1e-6 * np.abs(mean).max())
    assert not np.isnan(found.read(1e-309 * A[:3])[1]).any()  # and no warning


def test_entries_on_demand():
    family = problems.get("burgers", n=20)
    A, _, _ = family.assembled(range(30), 0)
    jacobians = Jacobians(*(np.random.default_rng(0).uniform(1, 2, (3, 3, 20))))
    np.testing.assert_allclose(
        low_rank.diagonal_of(jacobians, 20), np.diagonal(jacobians.dense(), axis1=1, axis2=2), rtol=1e-12
    )
    np.testing.assert_array_equal(low_rank.diagonal_of(A, 20), np.diagonal(A, axis1=1, axis2=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 10}, "needs more than 10 samples"),
        ({"p": N + 1}, "at most n"),
        ({"n_rows": N + 1}, "at most n"),
        ({"n_row": 0}, "at most n"),
    ],
)
def test_settings_are_checked(changes, message):
    settings = {"rank": 2, "p": 2, "n_rows": 1, "n_column": 2, "n_row": 2, "count": 10} | changes
    with pytest.raises(ConfigurationError, match=message):
        low_rank_fit.fit(lambda i: np.tile(np.eye(N), (len(i), 1, 1)), N, **settings)


def test_a_singular_mean_is_an_error():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 6, 1)) * rng.standard_normal((20, 1, 6))
    flat = np.tile(np.ones((6, 6)), (20, 1, 1)) + 1e-17 * A
    with pytest.raises(ConfigurationError, match="mean"):
        low_rank_fit.fit(lambda i: flat[i.start : i.stop], 6, 2, 2, 1, 2, 2, count=20)
