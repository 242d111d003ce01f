"""The classical peers of the operator head against exact inverses, closed forms, SciPy, and systems they span."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from algebraformer import problems
from algebraformer.numerics import gcr, operator_basis
from algebraformer.numerics.preconditioner import ApproximateInverse, MeanInverse
from algebraformer.rivals.iterative import ScaledMeanInverse
from studies.baselines import factor_regression, interpolation, kernel_ridge, polynomial, recycling, reduced_basis
from studies.baselines.factor_regression import FactorForm
from studies.baselines.nearest import NearestInverse
from studies.baselines.trunk import DAMPING, Jacobi, ScaledMean, TwoLevel
from tests.bases import fit as fit_basis

SINGLE = np.finfo(np.float32).eps
FAMILY = problems.get("diffusion", n=12)


@pytest.fixture(scope="module")
def basis():
    return fit_basis(FAMILY, rank=8, n_column=6, n_row=6, seed=5, count=200)


@pytest.fixture(scope="module")
def sample(basis):
    """z (S, q m), c (S, R), weights (S,) and T (S, n, n) of a sample."""
    A = FAMILY.sample(600, seed=1).A
    z, c, weight = basis.coefficients(A)
    T = operator_basis.preconditioned_inverse(A / basis.sampler(A)[1][:, None, None], basis.A_mean)
    return z.reshape(len(z), -1), c, weight, T


def dense(M, n=12, B=1):
    return M.right(M.left(np.broadcast_to(np.eye(n), (B, n, n)).copy()))


def spanned(basis, count, seed=3):
    """Return matrices whose inverses are exactly combinations of the basis' operators, and the coefficients."""
    rng = np.random.default_rng(seed)
    c = rng.uniform(-1, 1, (count, basis.rank)) * basis.coefficient_rms * basis.scale * 0.5
    T = basis.T_mean + np.einsum("br,rij->bij", c, basis.components)
    return np.linalg.inv(T @ basis.inverse), c


# ---------------------------------------------------------------- interpolation of inverses


def test_snapshots_are_recovered_exactly(basis, sample):
    """A system that is a snapshot, up to a factor, gets its own inverse back."""
    _, _, _, T = sample
    way = interpolation.of_snapshots(basis, T[:40], count=6, columns=4, seed=0)
    flat = T[:40].reshape(40, -1) / np.linalg.norm(T[:40].reshape(40, -1), axis=1)[:, None]
    A = -3 * FAMILY.sample(600, seed=1).A[interpolation.pivots(flat, 6)]
    assert gcr.contraction(A, way(A)).max() < 1e-3  # float32's rounding times what A amplifies
    np.testing.assert_allclose(dense(way(A), B=6) @ A, np.broadcast_to(np.eye(12), A.shape), atol=1e-3)


def test_coefficients_of_a_spanned_inverse_are_found(basis):
    """For matrices spanned by the basis, projection finds the coefficients they were made of, whatever the sketch."""
    A, c = spanned(basis, 5)
    for columns in (2, 12):
        way = interpolation.of_basis(basis, columns, seed=1)
        np.testing.assert_allclose(way._coefficients(A), c, atol=1e-4 * np.abs(c).max())


def test_least_squares_is_scipys(basis):
    """The coefficients minimise ||(I - M A) Omega||_F: the same problem, column by column, by SciPy."""
    way = interpolation.of_basis(basis, 3, seed=2)
    A = FAMILY.sample(3, seed=9).A
    s = basis.sampler(A)[1]
    M = way(A)
    for i in range(3):
        G = np.linalg.solve(basis.A_mean, A[i] / s[i] @ way.sketch)
        columns = np.stack([(T.astype(float) @ G).ravel() for T in way.operators[1:]], axis=1)
        best = scipy.linalg.lstsq(columns, (way.sketch - way.operators[0] @ G).ravel())[0]
        ours = np.linalg.norm((np.eye(12) - dense(M[np.array([i])])[0] @ A[i]) @ way.sketch)
        least = np.linalg.norm(columns @ best - (way.sketch - way.operators[0] @ G).ravel())
        assert ours == pytest.approx(least, rel=1e-2)


def test_dependent_snapshots_do_no_harm(basis, sample):
    T = np.repeat(sample[3][:3], 2, axis=0)
    way = interpolation.of_snapshots(basis, T, count=6, columns=4, seed=0)
    A = FAMILY.sample(3, seed=1).A
    assert np.isfinite(way(A).T).all()
    assert gcr.contraction(A, way(A)).max() < 1e-2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(2, 12), width=st.integers(2, 12))
def test_pivots_are_those_of_qr(seed, rows, width):
    X = np.random.default_rng(seed).standard_normal((rows, width))
    count = min(rows, width)
    _, order = scipy.linalg.qr(X.T, mode="r", pivoting=True)
    assert interpolation.pivots(X, count).tolist() == order[:count].tolist()


def test_sketch_keeps_the_norm_in_the_mean():
    X = np.diag([3.0, 4.0, 0.0])
    squares = [np.sum((X @ interpolation.sketch(3, 2, seed)) ** 2) for seed in range(4000)]
    assert np.mean(squares) == pytest.approx(25, rel=0.05)


# ---------------------------------------------------------------- nearest sample


def test_nearest_is_the_nearest(basis, sample):
    z, _, _, T = sample
    way = NearestInverse(basis.sampler, basis.inverse, z.astype(np.float32), T.astype(np.float32))
    A = FAMILY.sample(20, seed=2).A
    seen = basis.sampler(A)[0].reshape(20, -1)
    by_hand = np.argmin(np.linalg.norm(seen[:, None] - z[None], axis=2), axis=1)
    assert (way.nearest(seen.astype(np.float32)) == by_hand).all()
    np.testing.assert_array_equal(way(A).T, T[by_hand].astype(np.float32))


def test_nearest_of_a_sample_is_its_inverse(basis, sample):
    z, _, _, T = sample
    way = NearestInverse(basis.sampler, basis.inverse, z.astype(np.float32), T.astype(np.float32))
    A = FAMILY.sample(5, seed=1).A * np.array([1, -2, 1e5, 1e-5, 7])[:, None, None]
    np.testing.assert_allclose(dense(way(A), B=5) @ A, np.broadcast_to(np.eye(12), A.shape), atol=1e-3)


# ---------------------------------------------------------------- polynomial regression


@pytest.mark.parametrize(("d", "degree"), [(1, 5), (3, 4), (6, 2)])
def test_monomials_span_all_polynomials(d, degree):
    """As many as there are, each once, and any polynomial of that degree is a combination of them."""
    powers = polynomial.exponents(d, degree)
    assert len({tuple(row) for row in powers.tolist()}) == len(powers) == math.comb(d + degree, degree)
    assert powers.sum(axis=1).max() == degree
    assert (np.diff(powers.sum(axis=1)) >= 0).all()
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, (3 * len(powers), d))
    values = (y @ rng.standard_normal(d) + 0.3) ** degree
    found = polynomial.monomials(y, powers)
    solution = np.linalg.lstsq(found, values, rcond=None)[0]
    np.testing.assert_allclose(found @ solution, values, atol=1e-9)


def test_chebyshev_closed_form():
    y = np.cos(np.array([[0.3, 1.1]]))
    found = polynomial.monomials(y, np.array([[0, 0], [4, 0], [2, 3]]))
    np.testing.assert_allclose(found[0], [1, np.cos(1.2), np.cos(0.6) * np.cos(3.3)], rtol=1e-13)


def test_a_polynomial_is_recovered(basis):
    """Coefficients that are a cubic of two hidden variables are predicted on unseen data to ridge's accuracy."""
    rng = np.random.default_rng(0)
    hidden = rng.uniform(-1, 1, (1200, 2))
    z = hidden @ rng.standard_normal((2, 36)) + 5
    c = np.stack([hidden[:, 0] ** 3 - hidden[:, 1], hidden[:, 0] * hidden[:, 1] ** 2 + 2], axis=1)
    model = polynomial.fit(basis, z[:1000], c[:1000], rng.uniform(0.5, 2, 1000))
    assert model.exponents.sum(axis=1).max() >= 3
    np.testing.assert_allclose(model.coefficients(z[1000:]), c[1000:], atol=1e-7)


def test_regression_gives_the_projected_inverse(basis, sample):
    """On the family, the predicted M is near the one with the best coefficients, and scales with A as it should."""
    z, c, weight, _ = sample
    model = polynomial.fit(basis, z, c, weight)
    A = FAMILY.sample(50, seed=2).A
    _, exact, _ = basis.coefficients(A)
    found = model.coefficients(basis.sampler(A)[0].reshape(50, -1))
    assert np.sum((found - exact) ** 2) < 5e-2 * np.sum((c.mean(axis=0) - exact) ** 2)
    np.testing.assert_allclose(dense(model(-4 * A), B=50), -dense(model(A), B=50) / 4, rtol=1e-4, atol=1e-9)


# ---------------------------------------------------------------- reduced basis


def test_solutions_in_the_space_are_found_exactly():
    rng = np.random.default_rng(0)
    V = np.linalg.qr(rng.standard_normal((12, 4)))[0]
    x = rng.standard_normal((30, 4)) @ V.T * np.geomspace(1e-6, 1e6, 30)[:, None]
    A = FAMILY.sample(30, seed=0).A
    way = reduced_basis.fit(x, np.linalg.inv(A.mean(axis=0)), rank=4)
    np.testing.assert_allclose(way.V @ (way.V.T @ V), V, atol=1e-9)
    found = way(A, A @ x[:, :, None])[:, :, 0]
    assert (np.linalg.norm(found - x, axis=1) < 1e-8 * np.linalg.norm(x, axis=1)).all()


def test_reduced_answers_are_the_best_of_the_space():
    systems = FAMILY.sample(20, seed=4)
    L = np.linalg.inv(systems.A.mean(axis=0))
    way = reduced_basis.fit(systems.x, L, rank=3)
    found = way(systems.A, systems.b[:, :, None])[:, :, 0]
    for A, b, x in zip(systems.A, systems.b, found, strict=True):
        y = scipy.linalg.lstsq(L @ A @ way.V, L @ b)[0]
        np.testing.assert_allclose(x, way.V @ y, atol=1e-10)


# ---------------------------------------------------------------- refinement with any of them


def perturbed(B=6, n=9, spread=0.05, seed=0):
    """A (B, n, n), b (B, n, 1) and approximate inverses of them, all of size one."""
    rng = np.random.default_rng(seed)
    A = np.eye(n) * np.geomspace(1, 100, n) + 0.1 * rng.standard_normal((B, n, n))
    T = np.linalg.inv(A) @ A[0] + spread * rng.standard_normal((B, n, n)) / np.sqrt(n)
    return A, rng.standard_normal((B, n, 1)), ApproximateInverse(T.astype(np.float32), np.linalg.inv(A[0]), np.ones(B))


def test_contraction_is_the_rate_of_plain_refinement():
    A, b, M = perturbed(spread=0.2)
    radii = gcr.contraction(A, M)
    exact = [np.abs(np.linalg.eigvals(np.eye(9) - (M.T[i].astype(float) @ M.inverse) @ A[i])).max() for i in range(6)]
    np.testing.assert_allclose(radii, exact, rtol=1e-4)
    x, exact = M(b), np.linalg.solve(A, b)
    errors = []
    for _ in range(9):
        x = x + M(b - A @ x)
        errors.append(np.linalg.norm(x - exact, axis=(1, 2)))
    rate = (errors[-1] / errors[2]) ** (1 / 6)
    np.testing.assert_allclose(rate, radii, rtol=0.5)


def test_plain_refinement_counts_what_it_needs():
    A, b, M = perturbed()
    found = gcr.richardson(A, b, gcr.as_correction(M), rtol=1e-9, maxiter=30)
    assert found.certified.all()
    for i in range(6):
        one = M[np.array([i])]
        x, count = one(b[i : i + 1]), 0
        while np.linalg.norm(b[i] - A[i] @ x[0]) > 1e-9 * np.linalg.norm(b[i]):
            x, count = x + one(b[i : i + 1] - A[i : i + 1] @ x), count + 1
        assert found.refinements[i] == count
        np.testing.assert_allclose(found.x[i], x[0], rtol=1e-12)


def test_accelerated_refinement_needs_no_more_steps():
    A, b, M = perturbed(spread=0.3)
    plain = gcr.richardson(A, b, gcr.as_correction(M), rtol=1e-10, maxiter=60, monotone=False)
    accelerated = gcr.gcr_restarted(A, b, M, rtol=1e-10, maxiter=60)
    assert plain.certified.all()
    assert accelerated.certified.all()
    assert accelerated.refinements.sum() < plain.refinements.sum()
    np.testing.assert_allclose(accelerated.x, np.linalg.solve(A, b), rtol=1e-6, atol=1e-9)


def test_a_first_answer_counts_as_the_first():
    A, b, M = perturbed()
    near = np.linalg.solve(A, b) * (1 + 1e-7)
    found = gcr.gcr_restarted(A, b, M, rtol=1e-10, maxiter=30, x0=near)
    assert found.certified.all()
    assert (found.refinements < gcr.gcr_restarted(A, b, M, rtol=1e-10, maxiter=30).refinements).all()


def test_a_new_start_that_makes_it_worse_is_not_taken(monkeypatch):
    A, b, M = perturbed()
    solve = gcr.solve
    starts = []

    def worse(A, b, M, rtol, maxiter, x0=None, stagnation_factor=0.0, max_first_ratio=np.inf, **restart):
        starts.append(x0)
        found = solve(A, b, M, 1e-3, maxiter, None, stagnation_factor)
        return found if x0 is None else dataclasses.replace(found, x=2 * found.x)

    monkeypatch.setattr(gcr, "solve", worse)
    found = gcr.gcr_restarted(A, b, M, rtol=1e-10, maxiter=30)
    assert len(starts) == 2  # and not a third time from where the second one went wrong
    np.testing.assert_array_equal(found.x, solve(A, b, M, 1e-3, 31).x)
    assert not found.certified.any()


@pytest.mark.parametrize("bad", [1e30, np.inf, np.nan, 0.0])
def test_what_diverges_is_not_certified_and_disturbs_no_one(bad):
    A, b, M = perturbed()
    M.T[2] = bad
    for found in (
        gcr.richardson(A, b, gcr.as_correction(M), 1e-10, 30),
        gcr.richardson(A, b, gcr.as_correction(M), 1e-10, 30, monotone=False),
        gcr.gcr_restarted(A, b, M, 1e-10, 30),
    ):
        assert found.certified.tolist() == [True, True, False, True, True, True]
    assert gcr.contraction(A, M)[2] >= 1


def test_mean_inverse_refines_too():
    systems = FAMILY.sample(10, seed=6)
    M = MeanInverse(np.linalg.inv(systems.A.mean(axis=0)))
    found = gcr.gcr_restarted(systems.A, systems.b[:, :, None], M, 1e-10, 30, stagnation_factor=1.0)
    assert found.certified.all()
    np.testing.assert_allclose(found.x[:, :, 0], systems.x, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------- kernel ridge regression


def test_kernel_ridge_predicts_unseen_coefficients(basis, sample):
    z, c, weight, _ = sample
    A = FAMILY.sample(200, seed=2).A
    regression = kernel_ridge.fit(basis, z, c, weight)
    unseen, exact, size = basis.coefficients(A)
    error = np.linalg.norm(regression.coefficients(unseen.reshape(len(A), -1)) - exact, axis=1) * size
    assert np.median(error) < 5e-3
    assert np.median(gcr.contraction(A, regression(A))) < 0.1
    np.testing.assert_allclose(dense(regression(-2 * A[:1])), -dense(regression(A[:1])) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "matern"])
def test_kernel_ridge_against_a_gaussian_process(basis, sample, monkeypatch, name):
    """scikit-learn's posterior mean with the same kernel and noise: the ridge over the squared weights."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, Matern

    monkeypatch.setattr(kernel_ridge, "gaussian", getattr(kernel_ridge, name))  # the choice has this kernel alone
    monkeypatch.setattr(kernel_ridge, "matern", getattr(kernel_ridge, name))
    z, c, weight, _ = sample
    regression = kernel_ridge.regression(z[:300], c[:300], weight[:300])
    w = weight[:300] / np.sqrt(np.mean(weight[:300] ** 2))
    features, target = (z - regression.mean) @ regression.projection, c[:300] - regression.offset
    oracle = {"gaussian": RBF(1.0), "matern": Matern(1.0, nu=2.5)}[name]
    model = GaussianProcessRegressor(oracle, alpha=regression.ridge / w**2, optimizer=None).fit(features[:300], target)
    expected = model.predict(features[300:]) + regression.offset
    np.testing.assert_allclose(regression(z[300:]), expected, rtol=1e-6, atol=1e-7 * np.abs(c).max())


def test_errors_of_samples_left_out(sample):
    """The closed form against as many fits as there are samples, and in fewer directions of the targets."""
    z, c, _, _ = sample
    features, target, ridge = z[:30, :3] / 2, c[:30], 1e-3
    K = kernel_ridge.matern(features, features)
    expected = 0.0
    for i in range(30):
        rest = np.delete(np.arange(30), i)
        weights = np.linalg.solve(K[np.ix_(rest, rest)] + ridge * np.eye(29), target[rest])
        expected += np.sum((K[i, rest] @ weights - target[i]) ** 2)
    values, V = np.linalg.eigh(K)
    assert kernel_ridge.left_out(values, V, V.T @ target, ridge) == pytest.approx(expected, rel=1e-9)


def test_directions_of_targets_keep_their_errors(monkeypatch):
    rng = np.random.default_rng(0)
    target = rng.standard_normal((20, 6)) @ rng.standard_normal((6, 40))
    monkeypatch.setattr(kernel_ridge, "COUNTED", 6)
    few = kernel_ridge.rotated(target)
    assert few.shape == (20, 6)
    np.testing.assert_allclose(few @ few.T, target @ target.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "nu"), [("gaussian", None), ("matern", 2.5)])
def test_kernels_against_scikit_learn(name, nu):
    from sklearn.gaussian_process.kernels import RBF, Matern

    u, v = np.random.default_rng(1).standard_normal((2, 7, 3))
    expected = RBF(1.0)(u, v) if nu is None else Matern(1.0, nu=nu)(u, v)
    np.testing.assert_allclose(getattr(kernel_ridge, name)(u, v), expected, rtol=1e-12)


def test_kernel_ridge_of_a_family_of_one_matrix(basis):
    z, c = np.ones((20, 5)), np.tile(np.arange(8.0), (20, 1))
    np.testing.assert_allclose(kernel_ridge.fit(basis, z, c, np.ones(20)).coefficients(z[:2]), c[:2])


# ---------------------------------------------------------------- Cholesky factors


def positive(count, seed=0, n=12):
    """Return symmetric and positive definite matrices near each other."""
    S = np.random.default_rng(seed).standard_normal((count, n, n))
    return np.diag(np.arange(1.0, n + 1)) + 0.05 * S @ S.transpose(0, 2, 1)


@pytest.mark.parametrize("is_positive", [True, False])
@pytest.mark.parametrize("preconditioned", [True, False])
def test_cholesky_factors_give_the_inverse(is_positive, preconditioned):
    """The factors of NumPy's inverse, column by column, and M A = I with them."""
    A = positive(4) if is_positive else FAMILY.sample(4, seed=1).A
    s, mean = np.array([1.0, 2.0, 3.0, 0.5]), A.mean(axis=0)
    form = FactorForm.of(mean, is_positive, preconditioned)
    R = form.factors(A, s)
    assert (np.triu(R, 1) == 0).all()
    assert (np.diagonal(R, axis1=1, axis2=2) > 0).all()
    for i in range(4):
        L = np.linalg.cholesky(mean) if is_positive else None
        B = A[i] / s[i]
        if preconditioned and is_positive:
            B = np.linalg.solve(L, np.linalg.solve(L, B).T).T
        elif preconditioned:
            B = np.linalg.solve(mean, B)
        expected = np.linalg.cholesky(np.linalg.inv(B if is_positive else B.T @ B))
        np.testing.assert_allclose(R[i], expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
    M = form.inverse(R, A, s)
    np.testing.assert_allclose(dense(M, B=4) @ A, np.broadcast_to(np.eye(12), A.shape), atol=1e-7)
    np.testing.assert_allclose(dense(M[np.array([2])], B=1), dense(M, B=4)[2:3], rtol=1e-12, atol=1e-14)


def test_factors_of_training_systems_are_reproduced(basis, monkeypatch):
    """Without a ridge, a Gaussian process passes through its samples."""
    monkeypatch.setattr(kernel_ridge, "RIDGES", (1e-15,))
    A = FAMILY.sample(60, seed=4).A
    z = basis.sampler(A)[0].reshape(60, -1)
    for preconditioned in (False, True):
        form = FactorForm.of(basis.A_mean, False, preconditioned)
        regression = factor_regression.fit(basis.sampler, form, A, z)
        exact, found = form.factors(A, basis.sampler(A)[1]), regression(A).R
        np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())
        np.testing.assert_allclose(dense(regression(-2 * A[:1])), -dense(regression(A[:1])) / 2, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- trunk basis


@pytest.mark.parametrize("name", ["Jacobi", "mean"])
def test_two_level_preconditioner_by_its_formula(name):
    A, mean = FAMILY.sample(3, seed=1).A, FAMILY.sample(50, seed=2).A.mean(axis=0)
    V = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 4)))[0]
    scaled = ScaledMeanInverse.of(A, np.diagonal(mean), np.linalg.inv(mean))
    M = TwoLevel.of(A, V, Jacobi.of(A) if name == "Jacobi" else ScaledMean(scaled, mean))
    for i in range(3):
        l = np.diag(np.sqrt(np.diag(mean) / np.diag(A[i])))
        S = DAMPING * np.diag(1 / np.diag(A[i])) if name == "Jacobi" else l @ np.linalg.inv(mean) @ l
        C = V @ np.linalg.solve(V.T @ A[i] @ V, V.T)
        expected = C + S @ (np.eye(12) - A[i] @ C)
        np.testing.assert_allclose(dense(M, B=3)[i], expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
        np.testing.assert_allclose(dense(M[np.array([i])])[0], expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_a_trunk_basis_of_all_directions_is_exact():
    A = FAMILY.sample(3, seed=1).A
    M = TwoLevel.of(A, np.eye(12), Jacobi.of(A))
    np.testing.assert_allclose(dense(M, B=3) @ A, np.broadcast_to(np.eye(12), A.shape), atol=1e-8)


# ---------------------------------------------------------------- sequences


def test_a_sequence_is_solved_with_few_factorisations():
    family = problems.get("stiff-jacobian", n=40)
    params = {key: np.repeat(value, 30, axis=0) for key, value in family.parameters([0], 3).items()}
    params["time"] = np.linspace(1.0, 1.5, 30)
    A, b = family.assemble(params)
    found = recycling.solve_sequence(A, b)
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b[..., None])[..., 0], rtol=1e-9, atol=1e-14)
    assert found.factorisations == 1
    assert 1 <= np.median(found.products[1:]) <= 10


def test_unrelated_matrices_are_factorised_anew():
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((5, 60, 60)), rng.standard_normal((5, 60))
    found = recycling.solve_sequence(A, b)
    assert found.factorisations == 5
    np.testing.assert_allclose(found.x, np.linalg.solve(A, b[..., None])[..., 0], rtol=1e-8)
