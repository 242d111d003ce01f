"""Diffusion on the square, against Kronecker products of NumPy's Chebyshev series, and manufactured solutions."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from numpy.polynomial import chebyshev as cheb

from algebraformer.errors import ConfigurationError
from algebraformer.problems import Diffusion2D, Systems, get
from algebraformer.problems.diffusion_2d import frequencies
from algebraformer.testing import check_family

LOWEST = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2)]
LOWEST += [(0, 3), (3, 0), (1, 3), (3, 1), (2, 3), (3, 2), (0, 4), (4, 0)]


def single(systems: Systems, i: int) -> dict[str, np.ndarray]:
    """The parameters of one system."""
    return {key: value[i] for key, value in systems.params.items()}


def diffusivity(p: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """K at the points (x, y), as the docstring defines it."""
    terms = zip(p["a"], LOWEST, strict=False)
    return np.exp(sum(a * np.cos(k * np.pi * (x + 1) / 2) * np.cos(l * np.pi * (y + 1) / 2) for a, (k, l) in terms))


def source(p: dict[str, np.ndarray], x: float, y: float) -> float:
    """f at one point, as the docstring defines it."""
    m = range(len(p["phi"]))
    return sum(
        p["c"][k, l] * np.cos((k + 1) * np.pi * x / 2 + p["phi"][k]) * np.cos((l + 1) * np.pi * y / 2 + p["psi"][l])
        for k in m
        for l in m
    )


@pytest.mark.parametrize(("N", "K_modes"), [(1, 2), (3, 8), (6, 16)])
def test_matrix_and_right_hand_side_against_kronecker_products(N: int, K_modes: int) -> None:
    """Dx and Dy on the whole grid, K as a diagonal matrix, and the interior cut out at the end."""
    x = cheb.chebpts2(N + 2)[::-1]
    derivative = np.stack([cheb.chebval(x, cheb.chebder(unit)) for unit in np.eye(N + 2)], 1)
    D = np.linalg.solve(cheb.chebvander(x, N + 1).T, derivative.T).T
    Dx, Dy = np.kron(D, np.eye(N + 2)), np.kron(np.eye(N + 2), D)
    X, Y = (v.ravel() for v in np.meshgrid(x, x, indexing="ij"))
    inside = np.flatnonzero((np.abs(X) < 1 - 1e-9) & (np.abs(Y) < 1 - 1e-9))
    systems = get("diffusion-2d", n=N * N, K_modes=K_modes).sample(3, seed=5)
    for i in range(3):
        p = single(systems, i)
        K = np.diag(diffusivity(p, X, Y))
        A = -(Dx @ K @ Dx + Dy @ K @ Dy)[np.ix_(inside, inside)]
        np.testing.assert_allclose(systems.A[i], A, atol=1e-12 * np.max(np.abs(A)))
        f = [source(p, *point) for point in zip(X[inside], Y[inside], strict=True)]
        np.testing.assert_allclose(systems.b[i], f, atol=1e-13 * np.abs(p["c"]).sum() + 1e-13)


@pytest.mark.parametrize("K_modes", [2, 8, 16])
def test_error_falls_spectrally(K_modes: int) -> None:
    """With f made so that u is the solution: no symmetry between x and y, nor between the halves of the square."""

    def u(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * x) * np.cos(np.pi * y / 2) * np.exp(x / 2 + y)

    def partial(g: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        h = 1e-30  # complex step: no cancellation
        return [g(x + 1j * h, y).imag / h, g(x, y + 1j * h).imag / h]

    errors = []
    for N in (8, 16, 32):
        family = get("diffusion-2d", n=N * N, K_modes=K_modes)
        assert isinstance(family, Diffusion2D)
        systems = family.sample(3, seed=2)
        x, y = np.meshgrid(family.grid[1:-1], family.grid[1:-1], indexing="ij")
        wave, envelope = np.sin(np.pi * x), np.cos(np.pi * y / 2) * np.exp(x / 2 + y)
        uxx = (wave / 4 + np.pi * np.cos(np.pi * x) - np.pi**2 * wave) * envelope
        uyy = (1 - np.pi**2 / 4) * u(x, y) - np.pi * wave * np.sin(np.pi * y / 2) * np.exp(x / 2 + y)
        worst = 0.0
        for i in range(3):
            p = single(systems, i)
            (Kx, Ky), (ux, uy) = partial(lambda x, y, p=p: diffusivity(p, x, y), x, y), partial(u, x, y)
            f = -(diffusivity(p, x, y) * (uxx + uyy) + Kx * ux + Ky * uy)
            worst = max(worst, np.max(np.abs(np.linalg.solve(systems.A[i], f.ravel()) - u(x, y).ravel())))
        errors.append(worst)
    assert errors[0] <= 0.05
    assert errors[1] <= errors[0] / 2**5  # frequencies of up to 4 half waves need more than 8 points
    assert errors[2] <= max(errors[1] / 2**12, 1e-11)


def test_eigenvalues_of_the_laplacian() -> None:
    """For K = 1 the smallest ones are (k^2 + l^2) (pi / 2)^2."""
    A = get("diffusion-2d", n=196, sigma=0.0).sample(1).A[0]
    found = np.sort(np.linalg.eigvals(A).real)[:6]
    np.testing.assert_allclose(found, np.array([2, 5, 5, 8, 10, 10]) * (np.pi / 2) ** 2, rtol=1e-6)


def test_frequencies_are_the_lowest() -> None:
    assert frequencies(16).tolist() == [list(pair) for pair in LOWEST]
    for count in (1, 40):
        found = frequencies(count)
        largest = np.sum(found**2, axis=1).max()
        every = [(k, l) for k in range(count + 1) for l in range(count + 1) if 0 < k * k + l * l < largest]
        assert {tuple(pair) for pair in found} >= set(every)
        assert len({tuple(pair) for pair in found}) == count


def test_parameters_have_the_distributions_they_are_said_to_have() -> None:
    family = get("diffusion-2d", n=4, K_modes=16, sigma=0.7, f_modes=3)
    params = family.parameters(range(2000), seed=0)
    for m, (k, l) in enumerate(LOWEST):
        assert scipy.stats.kstest(params["a"][:, m], "norm", (0, 0.7 / np.hypot(k, l))).pvalue > 1e-4
    for k, l in itertools.product(range(3), repeat=2):
        assert scipy.stats.kstest(params["c"][:, k, l], "norm", (0, 1 / ((k + 1) * (l + 1)))).pvalue > 1e-4
    for name in ("phi", "psi"):
        assert scipy.stats.kstest(params[name].ravel(), "uniform", (0, 2 * np.pi)).pvalue > 1e-4
    assert not np.array_equal(params["phi"], params["psi"])


@pytest.mark.parametrize("settings", [{"n": 1}, {"n": 9, "K_modes": 16}, {"n": 16, "K_modes": 1, "f_modes": 1}])
def test_other_settings_keep_the_contract(settings: dict[str, int]) -> None:
    check_family(get("diffusion-2d", **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 12}, "n must be a square such as 9 or 16, .* received 12"),
        ({"n": 1023}, "such as 961 or 1024"),
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"K_modes": 0}, "K_modes must be"),
        ({"f_modes": 2.0}, "f_modes must be"),
        ({"sigma": -0.1}, "sigma must be"),
    ],
)
def test_settings_are_checked(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get("diffusion-2d", **settings)
