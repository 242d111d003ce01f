"""The matrices, the references and the limit of the stress line on ill-conditioned systems, against other sources."""

from __future__ import annotations

import warnings
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from numpy.typing import NDArray
from sklearn.gaussian_process import kernels as gaussian_process

from algebraformer.linalg import EPS, skeel_condition_number
from tests.stress import extended_precision, ill_conditioned
from tests.stress.gallery import GALLERY, GRIDS, KERNELS, dorr, kahan, kernel_matrix, randsvd, upper_triangular

Array = NDArray[Any]


def gallery(name: str, n: int = 8) -> Array:
    return GALLERY[name](n, np.random.default_rng(0))


def exact_solution(A: Array, b: Array, digits: int) -> list[Any]:
    with mpmath.workdps(digits):
        return list(mpmath.lu_solve(mpmath.matrix(A.tolist()), mpmath.matrix(b.tolist())))


def error_of(x: Array, exact: list[Any]) -> float:
    """Return the largest |x_i - exact_i| over the largest |exact_i|, for longdouble x."""
    with mpmath.workdps(400):
        numbers = [mpmath.mpf(np.format_float_scientific(v, precision=40)) for v in x]
        worst = max(abs(v - e) for v, e in zip(numbers, exact, strict=True))
        return float(worst / max(abs(e) for e in exact))


# ---------------------------------------------------------------- the reference


@pytest.mark.parametrize(
    ("kind", "index"), [("kernels", 5), ("kernels", 10), ("badly scaled", 11), ("perturbed family", 57)]
)
def test_the_reference_is_as_certain_as_it_says(kind: str, index: int) -> None:
    A, b, _ = ill_conditioned.system(kind, index)
    reference = extended_precision.solve(A[None], b[None])
    assert error_of(reference.x[0], exact_solution(A, b, 60)) <= reference.uncertainty[0] < 1e-3


def test_references_of_systems_over_many_decades() -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((3, 12, 12)), rng.standard_normal((3, 12))
    A[0] *= 10.0 ** rng.uniform(-150, 150, (12, 1))
    A[1] *= 10.0 ** rng.uniform(-150, 150, 12)
    A[2] = scipy.linalg.hilbert(12)
    reference = extended_precision.solve(A, b)
    for i in range(3):
        assert error_of(reference.x[i], exact_solution(A[i], b[i], 400)) <= reference.uncertainty[i]
    assert reference.uncertainty[:2].max() < 1e-14
    assert reference.uncertainty[2] < 0.1
    assert reference.condition[2] > 1e14


def test_growth_of_the_pivots_is_seen() -> None:
    """Elimination loses up to n - 1 bits of this matrix; refinement, or else the uncertainty, makes up for it."""
    A = gallery("growth", 64) * (1 + 1e-3 * np.random.default_rng(0).standard_normal((64, 64)))
    b = np.random.default_rng(1).standard_normal(64)
    reference = extended_precision.solve(A[None], b[None])
    assert error_of(reference.x[0], exact_solution(A, b, 60)) <= reference.uncertainty[0]


def test_singular_matrices_have_no_reference() -> None:
    A = np.stack([np.ones((3, 3)), np.diag([1.0, 0.0, 1.0]), np.eye(3)])
    finite = np.isfinite(extended_precision.solve(A, np.ones((3, 3))).x).all(axis=1)
    assert finite.tolist() == [False, False, True]


def test_condition_of_a_matrix_and_a_solution() -> None:
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((2, 6, 6)), rng.standard_normal((2, 6))
    b = (A @ x[:, :, None])[:, :, 0]
    expected = [np.max(abs(np.linalg.inv(M)) @ abs(M) @ abs(v)) / np.max(abs(v)) for M, v in zip(A, x, strict=True)]
    condition = extended_precision.solve(A, b).condition.astype(float)
    np.testing.assert_allclose(condition, expected, rtol=1e-12)
    scale = 10.0 ** rng.uniform(-50, 50, (2, 6))
    scaled = extended_precision.solve(A * scale[:, :, None], b * scale).condition.astype(float)
    np.testing.assert_allclose(scaled, condition, rtol=1e-12)
    ones = extended_precision.solve(A, A.sum(axis=2)).condition.astype(float)
    np.testing.assert_allclose(ones, skeel_condition_number(A), rtol=1e-12)


# ---------------------------------------------------------------- the matrices


@pytest.mark.parametrize("name", GALLERY)
def test_gallery_matrices_are_finite_and_not_views(name: str) -> None:
    A = gallery(name, 64)
    assert A.shape == (64, 64)
    assert A.dtype == np.float64
    assert A.flags.writeable
    assert np.isfinite(A).all()


def test_inverses_in_closed_form() -> None:
    np.testing.assert_array_equal(gallery("hilbert"), scipy.linalg.hilbert(8))
    np.testing.assert_allclose(gallery("hilbert", 5) @ gallery("invhilbert", 5), np.eye(5), atol=1e-9)
    np.testing.assert_allclose(gallery("invol", 5) @ gallery("invol", 5), np.eye(5), atol=1e-8)
    np.testing.assert_array_equal(gallery("lotkin")[1:], scipy.linalg.hilbert(8)[1:])
    np.testing.assert_array_equal(gallery("lotkin")[0], 1)
    second = scipy.linalg.toeplitz([2.0, -1.0, *[0.0] * 6])
    np.testing.assert_array_equal(gallery("second difference"), second)
    second[-1, -1] = 1.0
    np.testing.assert_allclose(np.linalg.inv(gallery("minij")), second, atol=1e-12)
    for name in ("lehmer", "kms"):
        inverse = np.linalg.inv(gallery(name))
        assert abs(np.triu(inverse, 2)).max() < 1e-10 * abs(inverse).max(), f"the inverse of {name} is tridiagonal"


def test_factors_in_closed_form() -> None:
    U = upper_triangular(-1.0, 8)
    np.testing.assert_array_equal(gallery("moler"), U.T @ U)
    L = gallery("pascal, lower")
    np.testing.assert_array_equal(gallery("pascal"), L @ L.T)
    growth = scipy.linalg.lu(gallery("growth"))[2]
    assert growth[-1, -1] == 2.0**7
    c, s = np.cos(1.2), np.sin(1.2)
    np.testing.assert_allclose(kahan(1.2, 3), [[1, -c, -c], [0, s, -c * s], [0, 0, s * s]])


@pytest.mark.parametrize(
    ("name", "determinant"),
    # of Redheff's matrix Mertens' function, 1 - 1 - 1 + 0 - 1 + 1 - 1 + 0; of Pei's and the rest by their factors
    [("frank", 1), ("pascal", 1), ("moler", 1), ("redheff", -2), ("hadamard", 4096), ("clement", 11025)],
)
def test_determinants(name: str, determinant: int) -> None:
    assert np.linalg.det(gallery(name)) == pytest.approx(determinant, rel=1e-8)


def test_eigenvalues_and_singular_values() -> None:
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(gallery("clement")).real), np.arange(-7, 8, 2), atol=1e-9)
    assert np.linalg.eigvalsh(gallery("wilkinson", 21))[-1] == pytest.approx(10.746194182903393, rel=1e-14)
    assert 0 < np.linalg.eigvalsh(gallery("prolate"))[0] < np.linalg.eigvalsh(gallery("prolate"))[-1] < 1
    assert np.linalg.svd(gallery("parter", 64), compute_uv=False)[:30] == pytest.approx(np.pi, rel=1e-9)
    np.testing.assert_array_equal(2 * gallery("ris"), gallery("parter")[::-1])
    angles = np.arange(1, 5) * np.pi / 5
    one = 2 - 2 * np.cos(angles)
    np.testing.assert_allclose(np.linalg.eigvalsh(gallery("poisson", 16)), np.sort((one[:, None] + one).ravel()))
    np.testing.assert_allclose(abs(np.linalg.eigvals(gallery("forsythe"))) ** 8, gallery("forsythe")[-1, 0])
    for mode, middle in {1: 1e-3, 2: 1.0, 3: 10**-1.5, 4: (1 + 1e-3) / 2, 5: None}.items():
        sigma = np.linalg.svd(randsvd(9, np.random.default_rng(0), mode, 1e3), compute_uv=False)
        if middle is not None:
            assert (sigma[0], sigma[4], sigma[-1]) == pytest.approx((1, middle, 1e-3))
        assert 1e-3 - 1e-12 < sigma[-1] < sigma[0] < 1 + 1e-12


def test_formulas() -> None:
    assert np.linalg.matrix_rank(gallery("magic")) == 3
    sums = [*gallery("magic").sum(axis=0), *gallery("magic").sum(axis=1), np.trace(gallery("magic"))]
    assert sums == [260.0] * 17
    assert sorted(gallery("magic").ravel()) == list(range(1, 65))
    np.testing.assert_array_equal(gallery("grcar"), scipy.linalg.toeplitz([1, -1, *[0] * 6], [1, 1, 1, 1, *[0] * 4]))
    np.testing.assert_array_equal(gallery("fiedler"), scipy.linalg.toeplitz(np.arange(8.0)))
    np.testing.assert_array_equal(gallery("frank", 3), [[3, 2, 1], [2, 2, 1], [0, 1, 1]])
    np.testing.assert_array_equal(gallery("riemann", 3), [[1, -1, 1], [-1, 2, -1], [-1, -1, 3]])
    np.testing.assert_allclose(gallery("lesp", 3), [[-5, 2, 0], [1 / 2, -7, 3], [0, 1 / 3, -9]])
    np.testing.assert_array_equal(gallery("ipjfact", 2), [[2, 6], [6, 24]])
    np.testing.assert_array_equal(gallery("cauchy", 2), [[1 / 2, 1 / 3], [1 / 3, 1 / 4]])
    p = np.linspace(-1, 1, 8)
    expected = np.polynomial.chebyshev.chebvander(p, 7).T
    np.testing.assert_allclose(gallery("chebvand, equispaced"), expected, atol=1e-12)
    A = dorr(0.01, 8)
    np.testing.assert_allclose(A[1:-1].sum(axis=1), 0, atol=1e-12)
    assert (A.sum(axis=1)[[0, -1]] > 0.1).all()
    assert (np.diag(A) > 0).all()


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("RBF", gaussian_process.RBF(0.3)),
        ("Matern 1/2", gaussian_process.Matern(0.3, nu=0.5)),
        ("Matern 3/2", gaussian_process.Matern(0.3, nu=1.5)),
        ("Matern 5/2", gaussian_process.Matern(0.3, nu=2.5)),
        ("rational quadratic", gaussian_process.RationalQuadratic(0.3, alpha=1.0)),
        ("periodic", gaussian_process.ExpSineSquared(1.0, periodicity=0.3)),
    ],
)
@pytest.mark.parametrize("grid", GRIDS)
def test_kernels_are_those_of_scikit_learn(name: str, kernel: Any, grid: str) -> None:
    p = GRIDS[grid](16, np.random.default_rng(0))
    A = kernel_matrix(name, grid, 0.3, 1e-3, 16, np.random.default_rng(0))
    np.testing.assert_allclose(A, kernel(p) + 1e-3 * np.eye(16), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_symmetric_and_positive(kernel: str) -> None:
    A = kernel_matrix(kernel, "random", 0.5, 1e-6, 16, np.random.default_rng(0))
    np.testing.assert_allclose(A, A.T)
    assert np.linalg.eigvalsh(A)[0] > 0


def test_the_cosine_kernel_that_was_answered_wrongly() -> None:
    X = np.linspace(0, 1, 64)
    A = kernel_matrix("cosine", "equispaced", 0.2, 1e-10, 64, np.random.default_rng(0))
    np.testing.assert_allclose(A, 1 + np.cos((X[:, None] - X) / 0.2) + 1e-10 * np.eye(64), atol=1e-15)


# ---------------------------------------------------------------- the systems


@pytest.mark.parametrize("kind", ill_conditioned.KINDS)
def test_systems_are_drawn_by_their_index(kind: str) -> None:
    systems = [ill_conditioned.system(kind, index) for index in range(30)]
    for A, b, _ in systems:
        assert A.shape == (64, 64)
        assert np.isfinite(A).all()
        assert np.isfinite(b).all()
        assert b.any()
    again = ill_conditioned.system(kind, 7)
    np.testing.assert_array_equal(again[0], systems[7][0])
    np.testing.assert_array_equal(again[1], systems[7][1])
    assert len({A.tobytes() + b.tobytes() for A, b, _ in systems}) == 30


def test_systems_are_as_bad_as_they_are_meant_to_be() -> None:
    scaled = [np.abs(ill_conditioned.system("badly scaled", index)[0]) for index in range(40)]
    decades = [np.log10(A[A > 0].max() / A[A > 0].min()) for A in scaled]
    assert max(decades) > 200
    assert min(decades) < 30
    nearly = [np.linalg.svd(ill_conditioned.system("nearly singular", i)[0], compute_uv=False) for i in range(40)]
    ratios = np.array([sigma[-1] / sigma[0] for sigma in nearly])
    assert (ratios < 1.1e-8).all()
    assert ratios.min() < 1e-15
    assert ratios.max() > 1e-11


def test_models_and_families() -> None:
    assert {"diffusion-64", "diffusion-64-token", "advection-diffusion-64-transformer"} <= set(ill_conditioned.models())
    assert not {"deblur-64", "fredholm-64", "lp-filter-32"} & set(ill_conditioned.models())
    assert len({family.name for family in ill_conditioned.families()}) == len(ill_conditioned.families()) >= 4


def test_scipys_answers() -> None:
    A = np.stack([np.eye(3), np.ones((3, 3)), np.diag([1.0, 1e-200, 1e200]), np.diag([1.0, 1.0, 1e-320])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing gets out
        x = ill_conditioned.scipy_solutions(A, np.ones((4, 3)))
    assert np.isnan(x[1]).all()
    np.testing.assert_array_equal(x[0], 1)
    np.testing.assert_allclose(x[2], [1, 1e200, 1e-200])


def test_relative_errors() -> None:
    x, reference = np.array([[1.0, 3.0], [0.0, 0.0], [np.nan, 1.0], [1e300, 1e300]]), np.array([1.0, 2.0])
    error = ill_conditioned.relative_error(x, np.tile(reference, (4, 1)), np.inf, np.tile(reference, (4, 1)))
    np.testing.assert_allclose(error, [0.5, 1.0, np.inf, 5e299])
    zero = np.zeros((1, 2))
    assert ill_conditioned.relative_error(zero, zero, 2, zero) == [0.0]
    huge = np.full((1, 2), 1e300)
    assert ill_conditioned.relative_error(huge, -huge, 2, huge) == pytest.approx(2.0)  # no overflow on the way


def test_the_limit() -> None:
    batch = ill_conditioned.Batch("kernels", range(3, 6))
    expected = 10 * batch.scipy + 10 * 64 * EPS * batch.reference.condition.astype(float)
    resolved = np.isfinite(batch.limit)
    assert resolved.any()
    np.testing.assert_allclose(batch.limit[resolved], expected[resolved], rtol=1e-12)
    magic = list(GALLERY).index("magic")
    assert ill_conditioned.Batch("gallery", range(magic, magic + 1)).limit == [np.inf]
