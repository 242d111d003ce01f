"""Families with prescribed condition numbers, against LAPACK's DLATMS, SciPy and closed forms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.stats

from algebraformer.errors import ConfigurationError
from algebraformer.problems import conditioned, generator, get
from dlatms import CASES, dlatms, library

EPS = np.finfo(np.float64).eps
FROZEN = json.loads((Path(__file__).parents[1] / "dlatms.json").read_text())
SPREADS = (None, 0.0, 0.1, 3.0)

# ---------------------------------------------------------------- against LAPACK's matrices


def agrees(n: int, mode: int, kappa: float, spd: bool, d: np.ndarray, A: np.ndarray | None) -> None:
    """Check our singular values, those of our matrices and those of LAPACK's matrix against LAPACK's list."""
    np.testing.assert_allclose(conditioned.singular_values(np.array([kappa]), mode, n)[0], d, rtol=8 * n * EPS)
    for spread in SPREADS:
        ours = get("randsvd", n=n, kappa=(kappa, kappa), mode=mode, spd=spd, spread=spread).sample(2, seed=n)
        for matrix in ours.A:
            np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False), d, rtol=0, atol=8 * n * EPS)
            assert np.array_equal(matrix, matrix.T) or not spd or n == 1
            if spd:
                np.testing.assert_allclose(np.linalg.eigvalsh(matrix)[::-1], d, rtol=0, atol=8 * n * EPS)
    if A is not None:
        np.testing.assert_allclose(np.linalg.svd(A, compute_uv=False), d, rtol=0, atol=8 * n * EPS)
        assert np.array_equal(A, A.T) == spd or n == 1


@pytest.mark.parametrize("case", FROZEN, ids=lambda case: "{n}-mode{mode}-{kappa:g}-{spd}".format(**case))
def test_frozen_vectors_of_dlatms(case: dict[str, Any]) -> None:
    A = np.array(case["A"]) if "A" in case else None
    agrees(case["n"], case["mode"], case["kappa"], case["spd"], np.array(case["d"]), A)


def test_the_frozen_vectors_are_complete() -> None:
    assert [(case["n"], case["mode"], case["kappa"], case["spd"]) for case in FROZEN] == CASES


@pytest.mark.skipif(library() is None, reason="libtmglib3 is not installed")
@pytest.mark.parametrize("spd", [False, True])
@pytest.mark.parametrize("mode", conditioned.MODE_NAMES)
def test_dlatms_itself(mode: int, spd: bool) -> None:
    for n, kappa in ((3, 1e3), (16, 2e6), (33, 5.0)):
        A, d = dlatms(n, mode, kappa, spd)
        agrees(n, mode, kappa, spd, d, A)
    frozen = next(c for c in FROZEN if (c["n"], c["mode"], c["kappa"], c["spd"]) == (8, mode, 37.0, spd))
    np.testing.assert_allclose(dlatms(8, mode, 37.0, spd)[1], frozen["d"], rtol=4 * EPS)


# ---------------------------------------------------------------- condition numbers


@pytest.mark.parametrize("spd", [False, True])
@pytest.mark.parametrize("mode", conditioned.MODE_NAMES)
@pytest.mark.parametrize("spread", [None, 0.2])
def test_condition_numbers_are_numpys(mode: int, spd: bool, spread: float | None) -> None:
    systems = get("randsvd", n=16, kappa=(10.0, 1e8), mode=mode, spd=spd, spread=spread).sample(40, seed=1)
    kappa = systems.params["kappa"]
    assert kappa.min() < 100
    assert kappa.max() > 1e7
    difference = np.abs(np.linalg.cond(systems.A) / kappa - 1)
    assert (difference <= 16 * EPS * kappa + 1e-14).all()


@pytest.mark.parametrize("kappa", [10.0, 1e4, 1e8])
def test_normal_equations_have_the_condition_number(kappa: float) -> None:
    systems = get("normal-equations", n=16, kappa=(kappa, kappa)).sample(20, seed=2)
    assert (np.abs(np.linalg.cond(systems.A) / kappa - 1) <= 64 * EPS * kappa + 1e-13).all()
    for A, t in zip(systems.A, systems.params["t"], strict=True):
        V = np.polynomial.polynomial.polyvander(t, 15)
        difference = A - V.T @ V / 64
        shift = difference[0, 0]
        np.testing.assert_allclose(difference, shift * np.eye(16), atol=1e-14)
        assert shift > 0


def test_normal_equations_that_are_better_conditioned_are_not_regularised() -> None:
    systems = get("normal-equations", n=3, kappa=(1e3, 1e4)).sample(5, seed=0)
    for A, t in zip(systems.A, systems.params["t"], strict=True):
        V = np.polynomial.polynomial.polyvander(t, 2)
        np.testing.assert_allclose(A, V.T @ V / 64, atol=1e-15)


@pytest.mark.parametrize("name", ["randsvd", "normal-equations"])
def test_condition_numbers_are_log_uniform_and_x_is_normal(name: str) -> None:
    params = get(name, n=4, kappa=(1e2, 1e5)).parameters(range(2000), seed=0)
    assert scipy.stats.kstest(np.log10(params["kappa"]), "uniform", (2, 3)).pvalue > 1e-4
    assert scipy.stats.kstest(params["x"].ravel(), "norm").pvalue > 1e-4


def test_b_is_made_from_x() -> None:
    systems = get("randsvd", n=8, kappa=(10.0, 100.0)).sample(5, seed=0)
    np.testing.assert_allclose(systems.x, systems.params["x"], rtol=1e-11)


def test_the_same_index_has_the_same_factors_whatever_kappa() -> None:
    """So groups of other condition numbers differ in nothing else."""
    low, high = (get("randsvd", n=8, kappa=(k, k)).sample(3, seed=4) for k in (10.0, 1e6))
    for key in ("left", "right", "x"):
        np.testing.assert_array_equal(low.params[key], high.params[key])


# ---------------------------------------------------------------- orthogonal factors


def test_haar_is_scipys() -> None:
    """U_11^2 ~ Beta(1/2, (n - 1)/2); the trace, which the signs of QR would spoil, as scipy.stats.ortho_group's."""
    n, count = 6, 4000
    U = conditioned.haar(generator(0, 0).standard_normal((count, n, n)))
    np.testing.assert_allclose(U @ U.transpose(0, 2, 1), np.broadcast_to(np.eye(n), U.shape), atol=1e-14)
    for i, j in ((0, 0), (2, 5), (5, 0)):
        assert scipy.stats.kstest(U[:, i, j] ** 2, "beta", (0.5, (n - 1) / 2)).pvalue > 1e-4
    theirs = scipy.stats.ortho_group(n, seed=1).rvs(count)
    traces = [np.trace(matrices, axis1=1, axis2=2) for matrices in (U, theirs)]
    assert scipy.stats.ks_2samp(*traces).pvalue > 1e-4
    assert 0.45 < np.mean(np.linalg.det(U) > 0) < 0.55


@pytest.mark.parametrize("n", [2, 5, 16])
@pytest.mark.parametrize("angle", [0.0, 0.01, 1.0, np.pi])
def test_rotations_are_scipys_exponentials(n: int, angle: float) -> None:
    G = generator(0, n).standard_normal((4, n, n))
    R = conditioned.rotations(G, angle)
    for g, r in zip(G, R, strict=True):
        S = g - g.T
        exact = scipy.linalg.expm(S * angle / np.linalg.norm(S, 2))
        np.testing.assert_allclose(r, exact, atol=1e-13)
        assert np.linalg.norm(r - np.eye(n), 2) == pytest.approx(2 * np.sin(angle / 2), abs=1e-13)


def test_frames_are_scipys_transforms() -> None:
    for n in (1, 2, 9):
        np.testing.assert_allclose(
            conditioned.cosines(n).T, scipy.fft.dct(np.eye(n), type=2, norm="ortho", axis=0), atol=1e-14
        )
        np.testing.assert_allclose(
            conditioned.sines(n).T, scipy.fft.dst(np.eye(n), type=1, norm="ortho", axis=0), atol=1e-14
        )


def test_spread_bounds_how_far_matrices_are_apart() -> None:
    """A spread of 0 gives one matrix for each kappa; ||A - A_0|| is at most 2 (2 sin(spread / 2)) for sigma_1 = 1."""
    frame = get("randsvd", n=8, kappa=(100.0, 100.0), spread=0.0).sample(3, seed=0).A
    np.testing.assert_allclose(frame[0], frame[2], atol=1e-14)
    expected = conditioned.cosines(8) @ np.diag(10 ** np.linspace(0, -2, 8)) @ conditioned.sines(8).T
    np.testing.assert_allclose(frame[0], expected, atol=1e-14)
    for spread in (0.01, 0.3):
        A = get("randsvd", n=8, kappa=(100.0, 100.0), spread=spread).sample(50, seed=0).A
        distance = np.linalg.norm(A - frame[0], 2, axis=(1, 2))
        assert distance.max() <= 4 * np.sin(spread / 2)
        assert distance.min() > 0.1 * spread


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("randsvd", {"kappa": (0.5, 10.0)}, "at least 1, received .0.5, 10.0."),
        ("randsvd", {"mode": 5}, "mode must be 1, 2, 3 or 4, received 5"),
        ("randsvd", {"mode": 3.0}, "mode must be"),
        ("randsvd", {"mode": True}, "mode must be"),
        ("randsvd", {"spread": -0.1}, "spread must be an angle from 0 to pi, or None, received -0.1"),
        ("randsvd", {"spread": 4.0}, "spread must be"),
        ("randsvd", {"spread": float("nan")}, "spread must be"),
        ("randsvd", {"spread": True}, "spread must be"),
        ("randsvd", {"spread": "wide"}, "spread must be"),
        ("randsvd", {"spd": 1}, "spd must be True or False, received 1"),
        ("normal-equations", {"kappa": (1.0, 10.0)}, "kappa must be above 1"),
        ("normal-equations", {"sites": 0}, "sites must be a whole number of at least 1, received 0"),
        ("normal-equations", {"sites": 8.0}, "sites must be"),
    ],
)
def test_settings_are_checked(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get(name, **settings)


def test_the_smallest_systems() -> None:
    for spread in SPREADS:
        systems = get("randsvd", n=1, kappa=(10.0, 10.0), spread=spread).sample(3, seed=0)
        np.testing.assert_allclose(np.abs(systems.A), 1)
    np.testing.assert_array_equal(get("normal-equations", n=1).sample(2, seed=0).A, np.ones((2, 1, 1)))
    assert (get("randsvd", n=5, kappa=(1.0, 1.0)).sample(1).params["kappa"] == 1).all()
