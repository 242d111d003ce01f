"""Total variation by the discrepancy principle, against a conic solver and against exact solution paths."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

from algebraformer import problems
from algebraformer.numerics import total_variation
from studies.baselines import sparse


def variation(x: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(x, axis=1)).sum(axis=1)


def drawn(name: str, level: float, count: int = 4, m: int | None = None) -> tuple[problems.Systems, np.ndarray]:
    systems = problems.get(name, n=24, m=m, noise=(level, level), priors=("piecewise", "smooth")).sample(count, seed=5)
    return systems, level * np.linalg.norm(systems.params["clean"], axis=1)


@pytest.mark.parametrize("m", [24, 40, 12])
@pytest.mark.parametrize("level", [0.01, 0.1])
def test_least_variation_within_the_noise(level: float, m: int) -> None:
    """The discrepancy principle is min TV(x) subject to ||A x - b|| <= delta: a conic problem, solved by Clarabel."""
    systems, noise_norm = drawn("deblur", level, m=m)
    found = total_variation.by_discrepancy(systems.A, systems.b, noise_norm)
    left = np.linalg.norm(np.einsum("bmn,bn->bm", systems.A, found) - systems.b, axis=1)
    np.testing.assert_allclose(left, noise_norm, rtol=5e-3)
    for i in range(len(systems)):
        x = cvxpy.Variable(24)
        inside = [cvxpy.norm2(systems.A[i] @ x - systems.b[i]) <= noise_norm[i]]
        cvxpy.Problem(cvxpy.Minimize(cvxpy.norm1(cvxpy.diff(x))), inside).solve(solver="CLARABEL")
        np.testing.assert_allclose(variation(found[i : i + 1]), variation(x.value[None]), rtol=5e-3)
        if m >= 24:  # with fewer equations many x have nearly the least variation
            assert np.linalg.norm(found[i] - x.value) < 0.03 * np.linalg.norm(x.value)


def test_against_the_exact_path() -> None:
    """Least angle regression gives x for every mu."""
    systems, noise_norm = drawn("heat", 0.03, count=12)
    found = total_variation.by_discrepancy(systems.A, systems.b, noise_norm)
    pairs = zip(systems.A, systems.b, noise_norm, strict=True)
    exact = np.array([sparse.total_variation(A, b).by_discrepancy(A, b, size) for A, b, size in pairs])
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.median(error) < 1e-3
    assert error.max() < 0.02


def test_units_do_not_matter() -> None:
    systems, noise_norm = drawn("gravity", 0.03)
    found = total_variation.by_discrepancy(systems.A, systems.b, noise_norm)
    other = total_variation.by_discrepancy(2.0**20 * systems.A, 2.0**-15 * systems.b, 2.0**-15 * noise_norm)
    np.testing.assert_allclose(other, 2.0**-35 * found, rtol=1e-6, atol=2.0**-35 * 1e-7)


def test_one_matrix_for_all_is_decomposed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    systems, noise_norm = drawn("phillips", 0.05)
    alone = [
        total_variation.by_discrepancy(systems.A[i : i + 1], systems.b[i : i + 1], noise_norm[i : i + 1])[0]
        for i in range(len(systems))
    ]
    shapes, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda H: (shapes.append(H.shape), eigh(H))[1])
    found = total_variation.by_discrepancy(systems.A, systems.b, noise_norm)
    assert shapes == [(1, 23, 23)]
    np.testing.assert_allclose(found, alone, atol=2e-2)


def test_what_cannot_be_fitted_and_what_fits_anyway() -> None:
    A = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    found = total_variation.by_discrepancy(A, np.array([[1.0, 2.0, 5.0]]), np.array([1.0]))
    np.testing.assert_allclose(found, [[1.0, 2.0]], atol=1e-5)
    constant = total_variation.by_discrepancy(A, np.array([[1.0, 2.0, 0.0]]), np.array([10.0]))
    np.testing.assert_allclose(constant, [[1.5, 1.5]], atol=1e-3)
    np.testing.assert_array_equal(total_variation.by_discrepancy(A, np.zeros((1, 3)), np.zeros(1)), [[0.0, 0.0]])
