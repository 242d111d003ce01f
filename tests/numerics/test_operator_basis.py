"""The basis of a family's inverses against dense NumPy oracles."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.numerics import operator_basis
from algebraformer.numerics.entry_sampler import WHITENING_RTOL
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse, MeanInverse, shared_matmul
from algebraformer.problems import ProblemFamily
from tests.bases import fit

N = 8
EPS32 = np.finfo(np.float32).eps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spanned(ProblemFamily):
    """A^-1 = C (I + p_1 D_1 + ... + p_k D_k) / scale: inverses that span k + 1 operators and no more."""

    n: int = N
    count: int = 3
    spread: float = 0.2

    def draw(self, rng):
        return {"p": self.spread * rng.uniform(-1, 1, self.count), "b": rng.standard_normal(self.n)}

    def operators(self):
        rng = np.random.default_rng(7)
        return rng.standard_normal((self.n, self.n)) + 3 * np.eye(self.n), rng.standard_normal(
            (self.count, self.n, self.n)
        )

    def assemble(self, params):
        C, D = self.operators()
        return np.linalg.inv(C @ (np.eye(self.n) + np.einsum("bk,kij->bij", params["p"], D))), params["b"]


@functools.cache
def basis(rank: int = 4, count: int = 200) -> OperatorBasis:
    return fit(problems.get("reaction-diffusion", n=N), rank, n_column=4, n_row=3, seed=1, count=count)


@functools.cache
def sample(count: int = 200, seed: int = 1) -> np.ndarray:
    return problems.get("reaction-diffusion", n=N).sample(count, seed=seed).A


def read(A: np.ndarray, found: OperatorBasis) -> np.ndarray:
    """The weighted entries that are read (B, m, q), in plain loops."""
    reading = found.sampler
    E = np.empty((len(A), len(reading.rows), len(reading.columns)))
    for i, row in enumerate(reading.rows):
        for j, column in enumerate(reading.columns):
            E[:, i, j] = A[:, row, column] * reading.weight[i, j]
    return E


def centred_inverses(A: np.ndarray, found: OperatorBasis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T (B, n^2) of matrices of size one, weights 1 / ||T||_F, and the weighted mean."""
    s = found.sampler(A)[1]
    T = np.array([np.linalg.inv(a / size) @ found.A_mean for a, size in zip(A, s, strict=True)]).reshape(len(A), -1)
    weight = 1 / np.linalg.norm(T, axis=1)
    return T, weight, weight @ T / weight.sum()


# ---------------------------------------------------------------- reading


def test_reading_against_numpy():
    A, found = sample(), basis()
    E = read(A, found)
    z, s = found.sampler(A)
    np.testing.assert_allclose(np.abs(s), np.sqrt(np.mean(E**2, axis=(1, 2))), rtol=1e-13)
    unit = E / s[:, None, None]
    assert np.all(np.sum(unit * found.sampler.mean, axis=(1, 2)) > 0)
    expected = (unit - found.sampler.mean) * found.sampler.inverse_std
    np.testing.assert_allclose(z, expected.transpose(0, 2, 1), rtol=1e-10, atol=1e-12)
    assert z.shape == (len(A), 4, 3)  # a row of z is a column of A


def test_what_is_read_has_mean_zero_and_spread_one():
    z, _ = basis().sampler(sample())
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-10)
    assert set(np.round(z.std(axis=0), 6).ravel()) <= {0.0, 1.0}


@pytest.mark.parametrize("count", [40, 100])
def test_rows_and_columns_are_those_that_vary(count):
    """Only rows 2 and 5 and columns 1 and 6 tell these matrices apart, of 64 entries: fewer samples, or more."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Corner(ProblemFamily):
        n: int = N

        def draw(self, rng):
            return {"p": rng.uniform(-1, 1, (2, 2)), "b": rng.standard_normal(self.n)}

        def assemble(self, params):
            A = np.tile(5 * np.eye(self.n), (len(params["b"]), 1, 1))
            A[:, np.array([[2], [5]]), [1, 6]] += params["p"]
            return A, params["b"]

    found = fit(Corner(), 4, n_column=2, n_row=2, seed=0, count=count)
    assert found.sampler.rows.tolist() == [2, 5]
    assert found.sampler.columns.tolist() == [1, 6]


@settings(max_examples=50, deadline=None)
@given(sign=st.sampled_from([1.0, -1.0]), factor=st.floats(1, 10), power=st.integers(-290, 290))
def test_reading_of_scaled_matrices(sign, factor, power):
    """(d A) has the entries of A and d times its size, for all d that are numbers."""
    A, d = sample(5, seed=2), sign * factor * 10.0**power
    (z, s), (scaled_z, scaled_s) = basis().sampler(A), basis().sampler(d * A)
    np.testing.assert_allclose(scaled_s / d, s, rtol=1e-13)
    np.testing.assert_allclose(scaled_z, z, rtol=1e-6, atol=1e-6)


def test_reading_of_nothing():
    z, s = basis().sampler(np.zeros((2, N, N)))
    assert not s.any()
    assert np.isfinite(z).all()


# ---------------------------------------------------------------- fit


def test_fit_against_numpy():
    """Mean, components and values by numpy's SVD of all the weighted, centred inverses."""
    A, found = sample(), basis()
    s = found.sampler(A)[1]
    np.testing.assert_allclose(found.A_mean, np.mean(A / s[:, None, None], axis=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.inverse @ found.A_mean, np.eye(N), atol=1e-8)
    T, weight, mean = centred_inverses(A, found)
    np.testing.assert_allclose(found.T_mean.ravel(), mean, rtol=1e-5, atol=1e-6 * np.abs(mean).max())
    _, values, right = np.linalg.svd((T - mean) * weight[:, None], full_matrices=False)
    components = found.components.reshape(4, -1).astype(float)
    np.testing.assert_allclose(np.abs(np.sum(components * right[:4], axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(found.spectrum[:6], values[:6] / np.sqrt(len(A)), rtol=1e-3)
    assert found.spectrum.shape == (len(A),)
    np.testing.assert_allclose(found.coefficient_rms, values[:4] / np.sqrt(len(A)), rtol=1e-4)
    assert found.scale == pytest.approx(np.mean(weight**2) ** -0.5, rel=1e-6)
    assert (found.rank, found.operators.dtype) == (4, np.float32)


def test_both_gram_matrices_give_the_same_basis():
    """More samples than entries of A, or fewer: that of columns or of rows is the smaller one."""
    T = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32) * np.geomspace(1, 1e-2, 60, dtype="f4")
    for rows in (T, T.T):
        components, values = operator_basis._principal(np.ascontiguousarray(rows), 5)
        _, expected, right = np.linalg.svd(rows.astype(float), full_matrices=False)
        np.testing.assert_allclose(np.abs(np.sum(components * right[:5], axis=1)), 1, atol=1e-5)
        np.testing.assert_allclose(values[:40], expected / np.sqrt(len(rows)), rtol=1e-5)
        assert values.shape == (len(rows),)


def test_components_behind_the_leading_ones_are_rounded_to_float16():
    """What is stored in half precision is what is used: rounding costs at most 2^-11 of every entry."""
    family = problems.get("random-diffusion", n=N)
    found = fit(family, operator_basis.LEADING + 4, n_column=4, n_row=4, seed=1, count=200)
    lead, rest = found.components[: operator_basis.LEADING], found.components[operator_basis.LEADING :]
    np.testing.assert_array_equal(rest, rest.astype(np.float16).astype(np.float32))
    assert (lead != lead.astype(np.float16).astype(np.float32)).any()
    np.testing.assert_allclose(np.linalg.norm(rest.reshape(4, -1), axis=1), 1, atol=2**-11)
    gram = np.einsum("rij,sij->rs", found.components, found.components, dtype=float)
    assert np.abs(gram - np.eye(len(gram))).max() < 2e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 4, "count": 4}, "a basis of 4 components needs more than 4 samples, received 4"),
        ({"rank": 0}, "a basis of 0 components"),
        ({"n_column": 9}, "n_column and n_row must be from 1 to n = 8, received 9 and 3"),
        ({"n_row": 0}, "received 4 and 0"),
    ],
)
def test_fit_refuses(options, message):
    family = problems.get("diffusion", n=N)
    with pytest.raises(ConfigurationError, match=message):
        fit(family, **{"rank": 4, "n_column": 4, "n_row": 3, "seed": 0, "count": 50} | options)


def test_a_family_with_a_singular_mean_or_member_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Projections(ProblemFamily):
        n: int = N
        shift: float = 0.0

        def draw(self, rng):
            v = rng.standard_normal(self.n) * np.array([1.0, 1.0] + [0.0] * (self.n - 2))
            return {"v": v, "b": rng.standard_normal(self.n)}

        def assemble(self, params):
            v = params["v"]
            return v[:, :, None] * v[:, None] + self.shift * np.eye(self.n), params["b"]

    with pytest.raises(ConfigurationError, match="mean of the family's matrices is singular"):
        fit(Projections(), 2, n_column=4, n_row=4, seed=0, count=20)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Broken(Spanned):
        def assemble(self, params):
            A, b = super().assemble(params)
            A[0, 0] = 0.0
            return A, b

    with pytest.raises(np.linalg.LinAlgError):
        fit(Broken(), 2, n_column=4, n_row=4, seed=0, count=20)


# ---------------------------------------------------------------- coefficients and inverses


def test_coefficients_against_numpy():
    A, found = sample(10, seed=3), basis()
    z, c, weight = found.coefficients(A)
    T, expected, _ = centred_inverses(A, found)
    components = found.components.reshape(4, -1).astype(float)
    np.testing.assert_allclose(c, (T - found.T_mean.ravel()) @ components.T, rtol=1e-5, atol=1e-6 * np.abs(c).max())
    np.testing.assert_allclose(weight, expected, rtol=1e-9)
    np.testing.assert_array_equal(z, found.sampler(A)[0])


def test_inverse_of_against_numpy():
    rng = np.random.default_rng(0)
    found, c, s = basis(), rng.standard_normal((3, 4)), np.array([2.0, -0.5, 1e5])
    b = rng.standard_normal((3, N, 2))
    T = found.T_mean + np.einsum("br,rij->bij", c, found.components.astype(float))
    M = T @ np.linalg.inv(found.A_mean) / s[:, None, None]
    approximate = found.inverse_of(c, s)
    rounding = (
        100
        * EPS32
        * np.linalg.norm(T, axis=(1, 2))[:, None, None]
        * np.linalg.norm(np.linalg.solve(found.A_mean, b.transpose(1, 0, 2).reshape(N, -1)))
        / np.abs(s)[:, None, None]
    )
    assert np.all(np.abs(approximate(b) - M @ b) <= rounding)
    np.testing.assert_array_equal(approximate(b), approximate.right(approximate.left(b)))
    taken = approximate[np.array([2, 0])]
    np.testing.assert_allclose(taken(b[[2, 0]]), approximate(b)[[2, 0]], rtol=1e-5)
    zero = found.inverse_of(c[:1], np.zeros(1))
    np.testing.assert_allclose(zero(b[:1]), found.inverse_of(c[:1], np.ones(1))(b[:1]))


def test_exact_recovery_when_the_family_spans_fewer_operators_than_the_rank():
    """Three operators beside the mean: with rank 3 the best coefficients give the inverse to float32's rounding.

    The size of A varies over the family, so that T(A / s) spans one operator more than A^-1.
    """
    family = Spanned()
    found = fit(family, 4, n_column=N, n_row=N, seed=0, count=100)
    assert np.all(found.spectrum[4:] < 1e-5 * found.spectrum[0])
    A = family.sample(20, seed=5).A
    s = found.sampler(A)[1]
    M = found.inverse_of(found.coefficients(A)[1], s)(np.broadcast_to(np.eye(N), A.shape).copy())
    error = np.linalg.norm(M @ A - np.eye(N), axis=(1, 2))
    assert error.max() < 1e4 * EPS32
    one_less = fit(family, 2, n_column=N, n_row=N, seed=0, count=100)
    M = one_less.inverse_of(one_less.coefficients(A)[1], s)(np.broadcast_to(np.eye(N), A.shape).copy())
    assert np.median(np.linalg.norm(M @ A - np.eye(N), axis=(1, 2))) > 100 * error.max()


def test_more_components_than_the_family_spans():
    found = fit(Spanned(), 30, n_column=N, n_row=N, seed=0, count=100)
    assert np.isfinite(found.operators).all()
    assert np.all(found.coefficient_rms[6:] < 1e-5 * found.coefficient_rms[0])


@pytest.mark.parametrize("d", [-1.0, 1e-200, 3e150])
def test_inverses_of_scaled_matrices(d):
    """M(d A) = M(A) / d."""
    A, found = sample(5, seed=4), basis()
    b = np.random.default_rng(0).standard_normal((5, N, 1))
    one = found.inverse_of(found.coefficients(A)[1], found.sampler(A)[1])(b)
    scaled = found.inverse_of(found.coefficients(d * A)[1], found.sampler(d * A)[1])(b) * d
    np.testing.assert_allclose(scaled, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_singular_matrices_have_no_coefficients():
    A = sample(3, seed=4).copy()
    A[1, 2] = 0.0
    with pytest.raises(np.linalg.LinAlgError):
        basis().coefficients(A)


def test_right_hand_sides_of_any_size():
    """T is applied in float32, whose range is smaller than that of b."""
    T, b = np.eye(N, dtype=np.float32)[None], np.arange(N, dtype=float)[None, :, None]
    inverse = ApproximateInverse(T, np.eye(N), np.ones(1))
    for size in (1e-300, 1e-50, 1e50, 1e300):
        np.testing.assert_allclose(inverse(size * b), size * b, rtol=1e-6)
    assert not inverse(0 * b).any()
    assert np.isfinite(inverse(b)).all()


def test_mean_inverse():
    rng = np.random.default_rng(0)
    L, b = rng.standard_normal((N, N)), rng.standard_normal((3, N, 2))
    mean = MeanInverse(L)
    np.testing.assert_allclose(mean.right(mean.left(b)), L @ b)
    assert mean[np.array([1])] is mean


@pytest.mark.parametrize("columns", [1, 3])
def test_apply_to_all(columns):
    rng = np.random.default_rng(0)
    L, v = rng.standard_normal((N, N)), rng.standard_normal((4, N, columns))
    np.testing.assert_allclose(shared_matmul(L, v), np.stack([L @ part for part in v]), rtol=1e-12, atol=1e-13)


def test_whitened_entries_are_uncorrelated() -> None:
    """Over the systems they were fitted on: variance one or identically zero, and what is small is there too."""
    family = problems.get("reaction-diffusion", n=16)
    count = 400
    plain = fit(family, 8, 6, 6, seed=0, count=count).sampler
    white = fit(family, 8, 6, 6, seed=0, count=count, whiten=True).sampler
    A = family.assembled(range(count), 0)[0]
    z, s = white(A)
    covariance = np.cov(z.reshape(count, -1).T, bias=True)
    kept = np.diag(covariance) > 0.5
    assert 4 <= kept.sum() < 36
    np.testing.assert_allclose(covariance[np.ix_(kept, kept)], np.eye(kept.sum()), atol=1e-6)
    assert not z.reshape(count, -1)[:, ~kept].any()
    np.testing.assert_array_equal(s, plain(A)[1])
    spread = np.linalg.svd(plain(A)[0].reshape(count, -1), compute_uv=False)  # independent of the fit
    assert kept.sum() == np.count_nonzero(spread > WHITENING_RTOL * spread[0])
    np.testing.assert_allclose(white(3.0 * A)[0], z, atol=1e-7)


def test_a_weighted_basis_measures_errors_of_the_inverse_too() -> None:
    """Coefficients are those of least ||E||_F^2 + n ||E Abar^-1||_F^2 / ||Abar^-1||_F^2, by SciPy's least squares."""
    family, rank, count = problems.get("reaction-diffusion", n=N), 5, 120
    found = fit(family, rank, n_column=4, n_row=3, seed=1, count=count, weighted=True)
    A = family.assembled(range(6), 9)[0]
    _, c, weight = found.coefficients(A)
    s = found.sampler(A)[1]
    inverse = np.linalg.inv(found.A_mean)
    ratio = np.sqrt(N) / np.linalg.norm(inverse)

    def stacked(E: np.ndarray) -> np.ndarray:
        return np.concatenate((E.ravel(), ratio * (E @ inverse).ravel()))

    columns = np.stack([stacked(E) for E in found.components.astype(float)], axis=1)
    np.testing.assert_allclose(columns.T @ columns, np.eye(rank), atol=1e-5)
    for i in range(len(A)):
        T = np.linalg.inv(A[i] / s[i]) @ found.A_mean
        best = scipy.linalg.lstsq(columns, stacked(T - found.T_mean))[0]
        np.testing.assert_allclose(c[i], best, rtol=1e-4, atol=1e-5 * np.linalg.norm(best))
        assert weight[i] == pytest.approx(1 / np.linalg.norm(stacked(T)), rel=1e-6)


def test_a_weighted_basis_is_better_for_solutions() -> None:
    """At the same rank, the error of the inverse itself is less than that of a plain basis."""
    family, count = problems.get("reaction-diffusion", n=N), 300
    A = family.assembled(range(100), 9)[0]
    exact, errors = np.linalg.inv(A), []
    for weighted in (False, True):
        found = fit(family, 6, n_column=4, n_row=3, seed=1, count=count, weighted=weighted)
        s = found.sampler(A)[1]
        M = found.inverse_of(found.coefficients(A)[1], s)(np.broadcast_to(np.eye(N), A.shape).copy())
        errors.append(np.median(np.linalg.norm(M - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))))
    assert errors[1] < errors[0]


def test_a_weighted_basis_is_not_extended() -> None:
    family = problems.get("reaction-diffusion", n=N)
    found = fit(family, 4, n_column=4, n_row=3, seed=1, count=60, weighted=True)
    with pytest.raises(ConfigurationError, match="weighted"):
        operator_basis.extended(found, family.assembled(range(3), 0)[0], 5)


def test_the_combinations_of_largest_spread_are_kept() -> None:
    family = Spanned()
    whole = fit(family, 4, 6, 6, seed=0, count=200, whiten=True).sampler
    few = fit(family, 4, 6, 6, seed=0, count=200, whiten=True, n_combination=2).sampler
    A = family.sample(5, seed=3).A
    z, _ = few(A)
    assert z.shape == (5, 6, 2)
    np.testing.assert_allclose(z.reshape(5, -1), whole(A)[0].reshape(5, -1)[:, :12], atol=1e-12)
