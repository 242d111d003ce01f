"""The measures against independent oracles: mpmath with 50 digits, LAPACK's own error bounds, plain definitions."""

from __future__ import annotations

import math
import warnings

import hypothesis.extra.numpy as hnp
import mpmath
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.linalg import LinAlgError

from algebraformer import linalg

EPS = 2.0**-52
quick = settings(max_examples=60, deadline=None)


# ------------------------------------------------------------------------------------------------- oracles in mpmath


def exact(v):
    """Return the matrix as mpmath numbers: every float64 is one, exactly."""
    return mpmath.matrix(v.tolist())


def exact_measures(A, b, x):
    """Return relative residual, backward error and residual of one system, in 50 digits."""
    with mpmath.workdps(50):
        A, b, x = exact(A), exact(b[:, None]), exact(x[:, None])
        r = b - A * x
        n = A.rows
        size = [mpmath.fsum(abs(A[i, j]) * abs(x[j]) for j in range(n)) + abs(b[i]) for i in range(n)]
        omega = max((abs(r[i]) / size[i] if size[i] else mpmath.mpf(0)) for i in range(n))
        return mpmath.norm(r) / mpmath.norm(b), omega, [r[i] for i in range(n)], [float(s) for s in size]


def exact_skeel(A):
    with mpmath.workdps(50):
        inverse = mpmath.inverse(exact(A))
        n = len(A)
        return max(mpmath.fsum(abs(inverse[i, k]) * abs(A[k, j]) for k in range(n) for j in range(n)) for i in range(n))


def collocation(n):
    """Second derivative on Chebyshev points with boundary rows: entries from 1 to n**4, as the package's families."""
    k = np.arange(n)
    t = np.cos(np.pi * k / (n - 1))
    c = np.where((k == 0) | (k == n - 1), 2.0, 1.0) * (-1.0) ** k
    D = np.outer(c, 1 / c) / (t[:, None] - t[None, :] + np.eye(n))
    D -= np.diag(D.sum(axis=1))
    A = D @ D
    A[[0, -1]] = np.eye(n)[[0, -1]]
    return A


MATRICES = {
    "hilbert-8": scipy.linalg.hilbert(8),
    "hilbert-14": scipy.linalg.hilbert(14),
    "collocation-24": collocation(24),
    "graded-12": np.random.default_rng(1).standard_normal((12, 12)) * np.logspace(-12, 12, 12)[:, None],
    "random-16": np.random.default_rng(2).standard_normal((16, 16)),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("perturbation", [0.0, 1e-12, 1e-4, 1.0])
def test_measures_agree_with_fifty_digits(name, perturbation):
    A = MATRICES[name]
    n = len(A)
    rng = np.random.default_rng(n)
    b = A @ rng.standard_normal(n)
    x = np.linalg.solve(A, b) * (1 + perturbation * rng.standard_normal(n))
    relative, omega, r, size = exact_measures(A, b, x)
    got_relative, got_omega, got_r = linalg.measures(A, b[:, None], x[:, None])
    # The residual is a sum of n + 1 terms: its rounding error is at most (n + 1) eps times their absolute sum.
    rounding = (n + 1) * EPS
    for i in range(n):
        assert abs(got_r[i, 0] - r[i]) <= rounding * size[i]
    assert abs(got_omega[0] - omega) <= rounding * (1 + omega) ** 2
    assert abs(got_relative[0] - relative) <= rounding * (np.linalg.norm(size) / np.linalg.norm(b) + relative)
    assert linalg.relative_residual(A, b[:, None], x[:, None]) == got_relative
    assert linalg.backward_error(A, b[:, None], x[:, None]) == got_omega
    assert np.array_equal(linalg.residual(A, b[:, None], x[:, None]), got_r)


@pytest.mark.parametrize("name", ["hilbert-8", "collocation-24", "graded-12", "random-16"])
def test_lapack_reports_the_same_backward_error(name):
    """?GESVX without equilibration solves, refines, and returns BERR of the x it returns."""
    A = MATRICES[name]
    b = A @ np.random.default_rng(3).standard_normal((len(A), 4))
    *_, x, _, _, berr, info = scipy.linalg.lapack.dgesvx(A, b, fact="N")
    assert info in (0, len(A) + 1)  # n + 1: solved, but ill-conditioned
    # LAPACK sums in another order, so the two residuals differ in rounding: by (n + 1) eps of the size at most each.
    np.testing.assert_allclose(linalg.backward_error(A, b, x), berr, rtol=0, atol=2 * (len(A) + 1) * EPS)


def test_lapack_reports_the_same_backward_error_where_it_is_large():
    """With the LU factors of another matrix, ?GESVX cannot refine: BERR is far from eps and known to many digits."""
    rng = np.random.default_rng(4)
    A = rng.standard_normal((20, 20))
    b = rng.standard_normal((20, 3))
    lu, pivots, _ = scipy.linalg.lapack.dgetrf(A + rng.standard_normal((20, 20)))
    *_, x, _, _, berr, _ = scipy.linalg.lapack.dgesvx(A, b, fact="F", af=lu, ipiv=pivots + 1, equed="N")
    assert (berr > 1e-3).all()
    np.testing.assert_allclose(linalg.backward_error(A, b, x), berr, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------- properties


def moderate(shape):
    """Arrays with entries of ordinary size: nothing over- or underflows when they are scaled by 2**±40."""
    sizes = st.floats(1e-6, 1e6)
    return hnp.arrays(np.float64, shape, elements=st.one_of(st.just(0.0), sizes, sizes.map(lambda v: -v)))


@st.composite
def systems(draw, batch=False):
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    lead = (draw(st.integers(1, 4)),) if batch else ()
    return draw(moderate((*lead, n, n))), draw(moderate((*lead, n, k))), draw(moderate((*lead, n, k)))


@given(systems(), st.data())
@quick
def test_row_scaling_by_powers_of_two_leaves_the_backward_error_unchanged(system, data):
    A, b, x = system
    powers = data.draw(hnp.arrays(np.int64, len(A), elements=st.integers(-40, 40)))
    scale = np.ldexp(1.0, powers)[:, None]
    assert np.array_equal(linalg.backward_error(scale * A, scale * b, x), linalg.backward_error(A, b, x))


@given(systems())
@quick
def test_backward_error_lies_between_zero_and_one(system):
    omega = linalg.backward_error(*system)
    assert ((omega >= 0) & (omega <= 1 + 4 * EPS)).all()  # the triangle inequality, up to rounding


@given(systems(batch=True))
@quick
def test_a_batch_equals_one_at_a_time(batch):
    together = linalg.measures(*batch)
    ratio, error = linalg.test_ratio(*batch), linalg.relative_error(batch[1], batch[2])
    for i, one in enumerate(zip(*batch, strict=True)):
        for whole, single in zip(together, linalg.measures(*one), strict=True):
            assert np.array_equal(whole[i], single)
        assert np.array_equal(ratio[i], linalg.test_ratio(*one))
        assert np.array_equal(error[i], linalg.relative_error(*one[1:]))


@given(systems(), st.data())
@quick
def test_several_right_hand_sides_equal_one_at_a_time(system, data):
    A, b, x = system
    j = data.draw(st.integers(0, b.shape[1] - 1))
    _, omega, _ = linalg.measures(A, b, x)
    _, single, _ = linalg.measures(A, b[:, j : j + 1], x[:, j : j + 1])
    np.testing.assert_allclose(omega[j], single[0], rtol=0, atol=2 * (len(A) + 1) * EPS)  # gemm against gemv


@given(systems(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
@quick
def test_an_x_that_is_not_finite_is_never_certified(system, bad, data):
    A, b, x = system
    i, j = data.draw(st.integers(0, len(x) - 1)), data.draw(st.integers(0, x.shape[1] - 1))
    x[i, j] = bad
    relative, omega, _ = linalg.measures(A, b, x)
    assert relative[j] == np.inf
    assert omega[j] == np.inf
    assert not linalg.is_certified(relative, omega, len(A), rtol=1e300)[j]
    others = np.arange(x.shape[1]) != j
    assert np.isfinite(omega[others]).all()  # its neighbours are not spoilt


@pytest.mark.parametrize("where", ["A", "b"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_system_that_is_not_finite_is_never_certified(where, bad):
    A, b, x = np.eye(3), np.ones((3, 1)), np.ones((3, 1))
    (A if where == "A" else b)[1, 0] = bad
    relative, omega, _ = linalg.measures(A, b, x)
    assert relative == np.inf
    assert omega == np.inf


def test_zero_over_zero_counts_as_zero_and_something_over_zero_as_infinity():
    A, zero, one = np.diag([1.0, 0.0]), np.zeros((2, 1)), np.ones((2, 1))
    for measure in (linalg.relative_residual, linalg.backward_error, linalg.test_ratio):
        assert measure(A, zero, zero) == 0
    assert linalg.relative_residual(A, zero, one) == np.inf
    assert linalg.backward_error(A, one, zero) == 1
    assert linalg.test_ratio(A, one, zero) == np.inf
    assert linalg.relative_error(zero, zero) == 0
    assert linalg.relative_error(one, zero) == np.inf


EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e300, -1e300, 1.7e308, -1.7e308, 1e-300, -1e-300, 5e-324])


@given(st.data())
@quick
def test_extreme_entries_neither_warn_nor_give_nan(data):
    n = data.draw(st.integers(1, 4))
    A, b, x = (data.draw(hnp.arrays(np.float64, (n, m), elements=EXTREME)) for m in (n, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relative, omega, _ = linalg.measures(A, b, x)
        measures = [relative, omega, linalg.test_ratio(A, b, x), linalg.relative_error(x, b)]
        measures.append(np.asarray(linalg.normalized_mse(x, b)))
    for measure in measures:
        assert not np.isnan(measure).any()
        assert (measure >= 0).all()


@st.composite
def near_overflow(draw):
    """Return A, b with the exact solution x, all of powers of two up to the largest ones, and x with one entry changed.

    The terms of a row lie within 20 binary digits and its diagonal outweighs the others, so that b is exact and not 0.
    """
    n = draw(st.integers(1, 4))
    rows = draw(st.lists(st.sampled_from([0, 1000, 1023, 1023]), min_size=n, max_size=n))
    columns = draw(st.lists(st.sampled_from([0, 20, 500, 1000]), min_size=n, max_size=n))
    below = draw(hnp.arrays(np.int64, (n, n), elements=st.integers(2, 20)))
    sign = draw(hnp.arrays(np.float64, (n, n), elements=st.sampled_from([1.0, -1.0])))
    np.fill_diagonal(below, 0)
    products = sign * np.exp2(np.array(rows)[:, None] - below)
    x = np.exp2(columns)
    changed = x.copy()
    changed[draw(st.integers(0, n - 1))] *= draw(st.sampled_from([1, 1 + EPS, 1 + 2**-30, 1 + 2**-7, 0.5, 0, -1]))
    return products / x, products.sum(axis=1), changed


@given(near_overflow())
@quick
def test_overflow_never_certifies(system):
    """No measure is below the exact one, up to rounding: an overflowed norm must not pass for a large one.

    Nor above it, but for those that are infinite because something did overflow.
    """
    A, b, x = system
    relative, omega, _ = linalg.measures(A, b[:, None], x[:, None])
    with mpmath.workdps(50):
        exact_relative, exact_omega, r, size = exact_measures(A, b, x)
        norms = [mpmath.norm(v) for v in (exact(b), mpmath.matrix(r), mpmath.matrix(size))]
    rounding = (len(A) + 2) * EPS
    slack = rounding * math.sqrt(len(A)) * 16  # each |A||x| + |b| is less than 16 |b|
    assert omega[0] >= exact_omega - rounding
    assert relative[0] >= exact_relative - slack
    assert omega[0] <= exact_omega + rounding or omega[0] == np.inf
    assert relative[0] <= exact_relative + slack or relative[0] == np.inf
    assert np.isfinite(omega[0]) or max(size) == np.inf
    assert np.isfinite(relative[0]) or max(norms) > np.finfo(float).max


def test_a_norm_that_overflows_proves_nothing():
    """||b|| = 2.4e308 is not a float64; the second component is wrong by nine tenths."""
    A, b, x = np.eye(2), np.full((2, 1), 1.7e308), np.array([[1.7e308], [0.1e308]])
    relative, omega, _ = linalg.measures(A, b, x)
    assert not linalg.is_certified(relative, omega, 2, rtol=1e-10)
    assert linalg.relative_error(x, b) == np.inf


def test_norms_survive_squares_that_overflow_or_underflow():
    A = np.eye(2)
    for size in (1e300, 1e-300):
        b, x = np.full((2, 1), size), np.array([[size], [0.5 * size]])
        np.testing.assert_allclose(linalg.relative_residual(A, b, x), math.sqrt(0.125), rtol=1e-15)
        np.testing.assert_allclose(linalg.relative_error(x, b), math.sqrt(0.125), rtol=1e-15)


# --------------------------------------------------------------------------------------------------- the documents


def test_the_normwise_ratio_passes_where_the_relative_residual_is_large():
    """The example in the docstring of `test_ratio`; the digits depend on the BLAS, the conclusion does not."""
    A = scipy.linalg.hilbert(14)
    b = np.eye(14)[:, -1:]
    x = np.linalg.solve(A, b)
    assert linalg.test_ratio(A, b, x) < 30
    assert 0.01 < linalg.relative_residual(A, b, x) < 100
    assert linalg.backward_error(A, b, x) < linalg.STABILITY_FACTOR * 14 * EPS  # as accurate as float64 allows


def test_the_test_ratio_is_its_definition():
    rng = np.random.default_rng(5)
    A, b, x = rng.standard_normal((7, 7)), rng.standard_normal((7, 2)), rng.standard_normal((7, 2))
    for j in range(2):
        r = np.linalg.norm(b[:, j] - A @ x[:, j], 1)
        expected = r / (np.linalg.norm(A, 1) * np.linalg.norm(x[:, j], 1) * EPS)
        np.testing.assert_allclose(linalg.test_ratio(A, b, x)[j], expected, rtol=1e-12)


def test_the_forward_error_bound_of_the_docstring_holds():
    """||x - x*||_inf / ||x*||_inf <= cond(A) omega (1 + ...) with Skeel's condition number, against 50 digits."""
    A = MATRICES["collocation-24"]
    b = A @ np.random.default_rng(6).standard_normal(24)
    x = np.linalg.solve(A, b)
    with mpmath.workdps(50):
        true = mpmath.lu_solve(exact(A), exact(b[:, None]))
        error = max(abs(x[i] - true[i]) for i in range(24)) / max(abs(v) for v in true)
    bound = linalg.skeel_condition_number(A) * linalg.backward_error(A, b[:, None], x[:, None])[0]
    assert error <= 2 * bound + EPS  # |b| <= |A||x|: the two perturbations together are at most twice the one


def test_the_certificate_is_inclusive_at_both_thresholds():
    n, rtol = 64, 1e-10
    stable = linalg.STABILITY_FACTOR * n * EPS
    above = np.nextafter(rtol, 1), np.nextafter(stable, 1)
    relative = np.array([rtol, above[0], above[0], 0.0, np.inf, np.nan, np.nan])
    omega = np.array([1.0, stable, above[1], 1.0, np.inf, 1.0, stable])
    expected = [True, True, False, True, False, False, True]
    assert linalg.is_certified(relative, omega, n, rtol).tolist() == expected
    assert linalg.is_certified(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1, 0.0).tolist() == [True, False]


def test_wrong_answers_are_not_certified():
    """One wrong digit in one unknown, in a row that is a trillion times smaller than the others."""
    A = np.diag(np.logspace(0, -12, 8))
    b = A @ np.ones((8, 1))
    x = np.ones((8, 1))
    assert linalg.is_certified(*linalg.measures(A, b, x)[:2], 8, 1e-14)
    x[-1] = 1.001
    relative, omega, _ = linalg.measures(A, b, x)
    assert relative < 1e-14  # the norm overlooks the row, and the caller asked for no more than the norm
    assert omega > 1e-4  # the componentwise measure does not


# --------------------------------------------------------------------------------------------- condition and errors


@pytest.mark.parametrize("kappa", [1.0, 1e3, 1e8, 1e12])
def test_condition_number_is_that_of_numpy(kappa):
    rng = np.random.default_rng(7)
    U, V = (scipy.linalg.qr(rng.standard_normal((10, 10)))[0] for _ in range(2))
    A = U * np.geomspace(1, 1 / kappa, 10) @ V
    np.testing.assert_allclose(linalg.condition_number(A), np.linalg.cond(A), rtol=1e-10)
    np.testing.assert_allclose(linalg.condition_number(A), kappa, rtol=1e-2)
    batch = np.stack([A, 5 * A, np.eye(10)])
    np.testing.assert_allclose(linalg.condition_number(batch), [np.linalg.cond(a) for a in batch], rtol=1e-10)


@pytest.mark.parametrize("A", [np.zeros((3, 3)), np.diag([1.0, 0.0, 2.0])], ids=["zero", "singular"])
def test_a_singular_matrix_has_an_infinite_condition_number(A):
    assert linalg.condition_number(A) == np.inf
    assert linalg.condition_number(np.stack([A, np.eye(3)])).tolist() == [np.inf, 1.0]


@pytest.mark.parametrize("name", ["hilbert-8", "collocation-24", "random-16"])
def test_skeel_condition_number_is_its_definition(name):
    A = MATRICES[name]
    tolerance = 100 * EPS * np.linalg.cond(A)  # what inverting in float64 leaves
    np.testing.assert_allclose(linalg.skeel_condition_number(A), float(exact_skeel(A)), rtol=tolerance)


def test_skeel_condition_number_overlooks_row_scaling_and_takes_batches():
    A = MATRICES["random-16"]
    scaled = np.ldexp(A, np.arange(-8, 8)[:, None])
    batch = linalg.skeel_condition_number(np.stack([A, scaled]))
    assert batch.shape == (2,)
    np.testing.assert_allclose(batch[1], batch[0], rtol=1e-10)
    with pytest.raises(LinAlgError):
        linalg.skeel_condition_number(np.zeros((2, 2)))


def test_relative_error_is_per_right_hand_side_and_normalized_mse_over_the_set():
    reference = np.array([[[3.0, 1.0], [4.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])  # (B, n, k) = (2, 2, 2)
    x = reference + np.array([[[0.3, 0.0], [0.4, 0.0]], [[0.0, 0.0], [0.5, 1.0]]])
    np.testing.assert_allclose(linalg.relative_error(x, reference), [[0.1, 0.0], [0.5, 0.5]], rtol=1e-12)
    # Not the mean of squared relative errors: large solutions weigh more.
    np.testing.assert_allclose(linalg.normalized_mse(x, reference), (0.25 + 0.25 + 1.0) / (25 + 1 + 1 + 4), rtol=1e-12)


@given(moderate((3, 4)), moderate((3, 4)))
@quick
def test_normalized_mse_against_exact_sums(x, reference):
    with mpmath.workdps(50):
        error = mpmath.fsum((mpmath.mpf(a) - mpmath.mpf(c)) ** 2 for a, c in zip(x.flat, reference.flat, strict=True))
        size = mpmath.fsum(mpmath.mpf(c) ** 2 for c in reference.flat)
    got = linalg.normalized_mse(x, reference)
    if size == 0:
        assert got == (np.inf if error else 0.0)
    else:
        np.testing.assert_allclose(got, float(error / size), rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_normalized_mse_of_a_diverged_answer_is_infinite_not_nan(bad):
    assert linalg.normalized_mse(np.array([bad, 1.0]), np.ones(2)) == np.inf


@pytest.mark.parametrize(("n", "matrices", "systems"), [(3, 1, 5), (400, 5, 3), (400, 1, 2)])
def test_every_system_needs_a_matrix_of_its_own(n, matrices, systems):
    """The first ones would be taken, block by block."""
    A, x = np.ones((matrices, n, n)), np.ones((systems, n, 1))
    with pytest.raises(ValueError):
        linalg.measure(A, x, x)
    chosen = np.zeros(systems, dtype=np.int64)
    assert linalg.measure(A, x, x, chosen).backward_error.shape == (systems, 1)
