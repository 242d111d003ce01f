"""Hessians of regressions that share a design, and Newton directions: against dense algebra, mpmath and SciPy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.optimize

from algebraformer import problems
from algebraformer.numerics.lp_design import (
    Design,
    Directions,
    Hessians,
    conjugate_residuals,
    descend,
    factorised,
    homotopy_exponents,
    scaled_by_diagonal,
)
from algebraformer.numerics.lp_norm import Regression, gradient_norm
from studies.baselines import lp
from studies.baselines.hessians import KeptFactors, NearestFactors

EPS = np.finfo(np.float64).eps


def hessians(seed: int = 0, decades: float = 4.0) -> Hessians:
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((40, 9)))
    return Hessians(Q, 10 ** rng.uniform(-decades, 0, (5, 40)))


def explicit(H: Hessians) -> np.ndarray:
    """Q' D Q, summed row by row."""
    return np.array([sum(w * np.outer(q, q) for w, q in zip(weights, H.Q, strict=True)) for weights in H.w])


def test_products_entries_and_diagonals_are_those_of_the_matrices() -> None:
    H, rng = hessians(), np.random.default_rng(1)
    dense, d = explicit(H), rng.standard_normal((5, 9))
    rows, columns = np.array([[7], [0]]), np.array([3, 7, 8])
    assert H.dense() == pytest.approx(dense, rel=1e-13, abs=1e-14)
    assert H.product(d) == pytest.approx(np.einsum("bij,bj->bi", dense, d), rel=1e-12, abs=1e-13)
    assert H.diagonal() == pytest.approx(np.einsum("bii->bi", dense), rel=1e-13)
    assert H[np.arange(5), rows, columns] == pytest.approx(dense[:, rows, columns], rel=1e-12, abs=1e-14)
    assert H[slice(1, 3), rows, columns] == pytest.approx(dense[1:3, rows, columns], rel=1e-12, abs=1e-14)
    assert H.take(np.array([4, 1])).dense() == pytest.approx(dense[[4, 1]], rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("decades", [2.0, 20.0])
def test_factorised_directions_against_mpmath(decades: float) -> None:
    """Weights over 20 decades: the normal equations have no digits left, QR has."""
    H = hessians(decades=decades)
    g = np.random.default_rng(2).standard_normal((5, 9))
    found = factorised(H, g, np.zeros(5), np.arange(5))
    for w, right, d in zip(H.w, g, found.d, strict=True):
        with mpmath.workdps(60):
            Q = mpmath.matrix(H.Q.tolist())
            exact = mpmath.lu_solve(Q.T * mpmath.diag(w.tolist()) * Q, mpmath.matrix(right.tolist()))
        exact = np.array([float(x) for x in exact])
        assert np.linalg.norm(d - exact) <= (1e-3 if decades > 10 else 1e-10) * np.linalg.norm(exact)
    assert found.good.all()
    assert (found.factorisations >= 1).all()


def test_conjugate_residuals_reach_their_forcing_terms_or_say_so() -> None:
    H, g = hessians(), np.random.default_rng(3).standard_normal((5, 9))
    forcing = np.array([0.5, 1e-1, 1e-2, 1e-4, 1e-8])
    found = conjugate_residuals(H, g, lambda z, _: z, forcing, 9)
    residual = np.linalg.norm(np.einsum("bij,bj->bi", explicit(H), found.d) - g, axis=1) / np.linalg.norm(g, axis=1)
    assert found.good.all()
    assert (residual <= forcing * (1 + 1e-8)).all()
    assert (found.products <= 9).all()
    assert found.products[0] < found.products[-1]
    few = conjugate_residuals(H, g, lambda z, _: z, np.full(5, 1e-8), 2)
    assert not few.good.any()
    assert few.products.tolist() == [2] * 5


def test_the_exact_inverse_needs_one_product() -> None:
    H, g = hessians(), np.random.default_rng(4).standard_normal((5, 9))
    X = np.linalg.inv(explicit(H))
    found = conjugate_residuals(H, g, lambda z, at: np.matvec(X[at], z), np.full(5, 1e-8), 9)
    assert found.products.tolist() == [1] * 5


def test_exponents_of_the_homotopy() -> None:
    assert homotopy_exponents(6.0, np.arange(4)).tolist() == [3, 4.5, 6, 6]
    assert float(homotopy_exponents(2.5, 0)) == 2.5


# ---------------------------------------------------------------- the loop


def bad(H: Hessians, g: np.ndarray, forcing: np.ndarray, of: np.ndarray) -> Directions:
    """Uphill, and not a number, and said to be good."""
    d = -g
    d[::2] = np.nan
    return Directions(d, np.ones(len(g), dtype=bool), np.zeros(len(g), dtype=np.int64), np.ones(len(g), dtype=np.int64))


@pytest.mark.parametrize("kind", ["filter", "spline", "polynomial"])
@pytest.mark.parametrize("p", [2.5, 4.0, 12.0])
def test_every_direction_finds_the_optimum(kind: str, p: float) -> None:
    family = problems.get("lp-hessian", n=10, kind=kind, p=p)
    design, b = family.design(), family.parameters(range(6), seed=1)["b"]
    problem = design.regression(b, p)
    assert problem.r == pytest.approx(Regression.of(np.array(problem.A), b, p).r, abs=1e-13)
    best = lp.minimize(np.array(problem.A), b, p, "newton", tol=1e-11).x
    f = np.linalg.norm(b - best @ design.A.T, p, axis=1)
    bank = NearestFactors.of(design, design.regression(family.parameters(range(6), seed=2)["b"], p).r, p)
    for direction in (factorised, scaled_by_diagonal, KeptFactors(3), bank, bad):
        found = descend(design, problem.r, p, direction, 1e-8, 100)
        r = problem.r + found.y @ design.Q.T
        assert gradient_norm(problem.A, r, problem.p).max() <= 1.1e-8
        assert np.linalg.norm(r, p, axis=1) == pytest.approx(f, rel=1e-10)
        assert (found.inexact <= found.iterations).all()
    assert (found.inexact == 0).all()
    assert (found.factorisations >= found.iterations).all()


def test_against_scipy_and_from_another_start() -> None:
    family = problems.get("lp-hessian", n=6, p=4.0)
    design, b = family.design(), family.parameters(range(3), seed=3)["b"]
    problem = design.regression(b, 4.0)
    y = np.random.default_rng(0).standard_normal((3, 6))
    warm = descend(design, problem.r, 4.0, scaled_by_diagonal, 1e-10, 100, y)
    for r, found in zip(problem.r, warm.y, strict=True):
        reference = scipy.optimize.minimize(
            lambda z, r=r: np.sum((r + design.Q @ z) ** 4),
            np.zeros(6),
            jac=lambda z, r=r: 4 * design.Q.T @ (r + design.Q @ z) ** 3,
            method="BFGS",
            options={"gtol": 1e-12},
        )
        assert np.sum((r + design.Q @ found) ** 4) <= reference.fun * (1 + 1e-12)


def test_kept_factors_are_fewer() -> None:
    family = problems.get("lp-hessian", n=16, p=8.0)
    design = family.design()
    r = design.regression(family.parameters(range(8), seed=4)["b"], 8.0).r
    every, kept = (descend(design, r, 8.0, way, 1e-8, 100) for way in (factorised, KeptFactors(12)))
    assert kept.factorisations.mean() < 0.5 * every.factorisations.mean()
    assert descend(design, r, 8.0, scaled_by_diagonal, 1e-8, 100).factorisations.max() == 0


def test_a_design_is_factorised_once() -> None:
    A = np.random.default_rng(5).standard_normal((12, 3)) * [1, 1e3, 1e-3]
    design = Design.of(A)
    np.testing.assert_allclose(design.Q @ design.R, A, rtol=0, atol=50 * EPS * np.abs(A).max())
    np.testing.assert_allclose(design.Q.T @ design.Q, np.eye(3), rtol=0, atol=50 * EPS)
