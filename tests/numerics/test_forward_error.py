"""Estimates of the forward error against solutions in 50 digits: on the high side, for networks and for LAPACK."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg

from algebraformer import problems
from algebraformer.linalg import measure
from algebraformer.numerics import lapack
from algebraformer.numerics.forward_error import SAFETY_FACTOR, forward_error, probe
from algebraformer.solver import LearnedSolver

EPS = np.finfo(float).eps


def exact_error(A, b, x):
    """||x - x*|| / ||x*|| for one system, with x* in 50 digits."""
    with mpmath.workdps(50):
        true = mpmath.lu_solve(mpmath.matrix(A.tolist()), mpmath.matrix(b.tolist()))
        return float(mpmath.norm(mpmath.matrix(x.tolist()) - true) / mpmath.norm(true))


MATRICES = {
    "random": np.random.default_rng(0).standard_normal((12, 12)),
    "hilbert-8": scipy.linalg.hilbert(8),
    "hilbert-11": scipy.linalg.hilbert(11),
    "rows over 40 decades": np.random.default_rng(1).standard_normal((12, 12)) * np.logspace(-20, 20, 12)[:, None],
    "columns over 40 decades": np.random.default_rng(2).standard_normal((12, 12)) * np.logspace(-20, 20, 12),
    "pascal-20": scipy.linalg.pascal(20).astype(float),
    "triangular": np.triu(np.random.default_rng(3).uniform(1, 2, (12, 12))),
}


@pytest.mark.parametrize("name", MATRICES)
def test_of_lapack(name):
    A = MATRICES[name]
    rng = np.random.default_rng(5)
    for b in (A @ np.ones(len(A)), rng.standard_normal(len(A)), A @ rng.standard_normal(len(A))):
        found = lapack.solve(A[None], b[None, :, None])
        error = exact_error(A, b, found.x[0, :, 0])
        assert found.forward_error[0] >= error
        assert found.forward_error[0] <= 1e6 * max(error, EPS) or found.rcond[0] < EPS  # and it says something


def test_row_scaling_does_not_make_an_answer_look_worse():
    """LAPACK's rcond sees a singular matrix there; the answer is right to all digits, and its estimate says so."""
    A = np.random.default_rng(0).standard_normal((12, 12))
    scaled = A * np.logspace(-20, 20, 12)[:, None]
    plain, graded = (lapack.solve(M[None], (M @ np.ones(12))[None, :, None]) for M in (A, scaled))
    assert graded.rcond[0] < 1e-30
    assert graded.forward_error[0] < 100 * plain.forward_error[0]


def test_of_a_network():
    """For every system that diffusion-64 answers itself; the worst of several right-hand sides decides."""
    systems = problems.get("diffusion", n=64).sample(6, seed=11)
    b = np.stack((systems.b, np.random.default_rng(0).standard_normal(systems.b.shape)), axis=2)
    result = LearnedSolver.from_pretrained("diffusion-64").solve(systems.A, b)
    for i in np.flatnonzero(result.method != "lapack"):
        error = max(exact_error(systems.A[i], b[i, :, j], result.x[i, :, j]) for j in range(2))
        assert error <= result.forward_error[i] <= 1e4 * error


@pytest.mark.parametrize("rtol", [1.0, 1e-2, 1e-6])
def test_at_loose_tolerances(rtol):
    """The first answers of a network, against LAPACK's: still on the high side, and within a factor of five."""
    for name in ("diffusion-64", "reaction-diffusion-64", "random-diffusion-64", "advection-diffusion-64"):
        solver = LearnedSolver.from_pretrained(name)
        systems = solver.info.problem_family().sample(100, seed=9)
        result = solver.solve(systems.A, systems.b, rtol=rtol)
        exact = np.linalg.solve(systems.A, systems.b[:, :, None])[:, :, 0]
        errors = np.linalg.norm(result.x - exact, axis=1) / np.linalg.norm(exact, axis=1)
        chosen = (result.method != "lapack") & (errors > 1e-9)  # far above LAPACK's own errors
        assert chosen.sum() > 5
        assert np.all(errors[chosen] <= result.forward_error[chosen])
        assert np.all(result.forward_error[chosen] <= 5 * errors[chosen])


def test_a_wrong_answer_has_a_large_estimate():
    """With the exact inverse for M it is the error itself, once it is far above rounding; defect enters as a series."""
    A = MATRICES["random"][None]
    inverse, x = np.linalg.inv(A), np.ones((1, 12, 2))
    b = A @ x
    x[0, 3, 1] += 1e-3
    found = forward_error(lambda v: inverse @ v, x, measure(A, b, x), np.array([0.0]), 3)
    assert found[0] == pytest.approx(SAFETY_FACTOR * 1e-3 / np.linalg.norm(x[0, :, 1]), rel=1e-6)
    halved = forward_error(lambda v: inverse @ v, x, measure(A, b, x), np.array([0.5]), 3)
    assert halved[0] == pytest.approx(2 * found[0])


def test_ends_of_the_range():
    """Nothing to solve is solved exactly; what is not finite, or answers b with 0, is infinitely wrong."""
    A = np.eye(3)[None]

    def estimate(x, b):
        return forward_error(lambda v: v, x, measure(A, b, x), np.zeros(1), 3)[0]

    nothing, ones = np.zeros((1, 3, 1)), np.ones((1, 3, 1))
    assert estimate(nothing, nothing) == 0
    assert estimate(nothing, ones) == np.inf
    assert estimate(ones * np.nan, ones) == np.inf
    assert np.linalg.norm(probe(7)) == pytest.approx(1)
