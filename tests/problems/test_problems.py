"""The contract of every registered family; a new one inherits all of it through `problems.names()`."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev as cheb

from algebraformer import problems
from algebraformer.errors import ConfigurationError, SingularSystemError, UnknownNameError
from algebraformer.problems.chebyshev import differentiation_matrix, interpolate, points
from algebraformer.testing import check_family, fingerprint

EPS = np.finfo(np.float64).eps
NAMES = problems.names()
SEEDS = st.integers(0, 2**64 - 1)

BOUNDARY_VALUE = [name for name in NAMES if issubclass(problems.family_class(name), problems.BoundaryValueFamily)]
NOISY = (problems.NoisyFamily, problems.Instrument)
EXACT = [
    name for name in NAMES if not issubclass(problems.family_class(name), NOISY) and problems.get(name).is_linear_system
]
"""Families whose x solves A x = b; tests/problems/test_noisy_families.py has what holds for the others."""

every_family = pytest.mark.parametrize("name", NAMES)
every_boundary_value_family = pytest.mark.parametrize("name", BOUNDARY_VALUE)


def family_of_size(name: str, n: int) -> problems.ProblemFamily:
    """Return a family with n unknowns, or the next number that it allows: a square grid has a square number."""
    return problems.get(name, n=(math.isqrt(n - 1) + 1) ** 2 if name in ("diffusion-2d", "tomography") else n)


def componentwise_backward_error(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    """Oettli and Prager's omega of one system, with the residual in long double where there is one."""
    r = np.abs(b - A.astype(np.result_type(A, np.longdouble)) @ x)
    return float(np.max(r / (np.abs(A) @ np.abs(x) + np.abs(b))))


# ---------------------------------------------------------------- what a sample is


@every_family
def test_family_keeps_the_contract(name: str) -> None:
    check_family(family_of_size(name, 12))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("n", [8, 64])
def test_x_solves_the_system(name: str, n: int) -> None:
    """x has a small backward error, and is within the condition number of what QR gives (LU is what made it)."""
    systems = family_of_size(name, n).sample(20, seed=1)
    for A, b, x in zip(systems.A, systems.b, systems.x, strict=True):
        assert componentwise_backward_error(A, b, x) <= 10 * len(b) * EPS
        Q, R = scipy.linalg.qr(A)
        difference = np.linalg.norm(x - scipy.linalg.solve_triangular(R, Q.conj().T @ b)) / np.linalg.norm(x)
        assert difference <= 10 * EPS * np.linalg.cond(A)


@every_family
def test_systems_differ(name: str) -> None:
    systems = family_of_size(name, 8).sample(50, seed=0)
    assert len({b.tobytes() for b in systems.b}) == 50


# ---------------------------------------------------------------- sampling is addressed by (seed, index)


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(NAMES), seed=SEEDS, start=st.integers(0, 2**64 - 4), other=SEEDS)
def test_any_seed_and_index_works(name: str, seed: int, start: int, other: int) -> None:
    family = family_of_size(name, 8)
    systems = family.sample(3, seed=seed, start=start)
    assert fingerprint(family.at([start + 2], seed=seed)) == fingerprint(systems[2:])
    assert (fingerprint(family.sample(3, seed=other, start=start)) == fingerprint(systems)) == (seed == other)


def test_generators_do_not_overlap() -> None:
    """Not one number in common among neighbours, nor where only the highest bit of the seed differs."""
    keys = [(0, 0), (0, 1), (0, 2), (1, 0), (2**63, 0), (2**32, 0), (0, 2**63), (0, 2**32), (0, 0, 1), (0, 1, 1)]
    drawn = np.concatenate([problems.generator(*key).random(100) for key in keys])
    assert len(set(drawn.tolist())) == 100 * len(keys)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", None, True])
def test_bad_seeds_are_refused(seed: object) -> None:
    family = problems.get(NAMES[0], n=4)
    with pytest.raises(ConfigurationError, match="seed must be a whole number from 0 to 2"):
        family.sample(1, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 2**64, 0.5])
def test_bad_indices_are_refused(index: object) -> None:
    family = problems.get(NAMES[0], n=4)
    with pytest.raises(ConfigurationError, match="index must be a whole number from 0 to 2"):
        family.at([index])  # type: ignore[list-item]


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one index"):
        problems.get(NAMES[0], n=4).sample(0)


# ---------------------------------------------------------------- settings and the registry


@every_family
def test_families_are_picklable(name: str) -> None:
    family = family_of_size(name, 8)
    assert pickle.loads(pickle.dumps(family)) == family  # background workers may be spawned


@every_family
def test_unknown_settings_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="has no setting 'zeta'"):
        problems.get(name, zeta=1)


@pytest.mark.parametrize("name", ["", "Diffusion", "diffusion ", "no-such-family"])
def test_unknown_names_list_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown family .*; known: .*diffusion"):
        problems.get(name)


def test_a_name_is_registered_once() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Impostor(problems.BoundaryValueFamily):
        pass

    with pytest.raises(ConfigurationError, match="registered already"):
        problems.register("diffusion")(Impostor)
    assert problems.family_class("diffusion") is not Impostor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scripted(problems.ProblemFamily):
    """diag(1, ..., 1, d) with d = 0 at some draws, or matrices of the wrong shape."""

    n: int = 3
    wrong: bool = False

    def draw(self, rng: np.random.Generator) -> dict[str, object]:
        return {"d": float(rng.random() < 0.5)}

    def assemble(self, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        A = np.tile(np.eye(self.n + self.wrong), (len(params["d"]), 1, 1))
        A[:, -1, -1] = params["d"]
        return A, np.ones((len(A), self.n))


def test_singular_systems_are_named() -> None:
    family = Scripted()
    d = family.parameters(range(16), seed=0)["d"]
    assert 0 < np.sum(d == 0) < 16
    with pytest.raises(SingularSystemError) as caught:
        family.sample(16, seed=0)
    assert caught.value.indices == tuple(np.flatnonzero(d == 0))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="assemble must return shapes"):
        Scripted(wrong=True).sample(2)


# ---------------------------------------------------------------- Chebyshev collocation


@pytest.mark.parametrize("n", [2, 3, 4, 9, 66])
def test_points_are_numpys_in_descending_order(n: int) -> None:
    x = points(n)
    np.testing.assert_allclose(x, cheb.chebpts2(n)[::-1], rtol=0, atol=8 * EPS)  # angles of up to pi, rounded twice
    assert np.array_equal(x, -x[::-1])
    assert not x.flags.writeable


@pytest.mark.parametrize("n", [2, 3, 4, 9, 66])
def test_differentiation_matrix_is_exact_on_polynomials(n: int) -> None:
    """D T_k = T_k' for every Chebyshev polynomial of degree below n."""
    derivatives = [cheb.chebval(points(n), cheb.chebder(unit)) for unit in np.eye(n)]
    D = differentiation_matrix(n)
    np.testing.assert_allclose(D @ cheb.chebvander(points(n), n - 1), np.stack(derivatives, 1), atol=4 * EPS * n**3)
    assert not D.flags.writeable


def test_differentiation_matrix_at_50_digits() -> None:
    """Off the diagonal every entry is accurate by itself; the diagonal is so against the largest entry of its row."""
    n = 66
    with mpmath.workdps(50):
        x = [mpmath.cos(mpmath.pi * j / (n - 1)) for j in range(n)]
        c = [mpmath.mpf(2 if j in (0, n - 1) else 1) * (-1) ** j for j in range(n)]
        exact = [[c[i] / c[j] / (x[i] - x[j]) if i != j else mpmath.mpf(0) for j in range(n)] for i in range(n)]
        for i in range(n):
            exact[i][i] = -mpmath.fsum(exact[i])
        D = differentiation_matrix(n)
        error = np.array([[float(abs(D[i, j] - exact[i][j])) for j in range(n)] for i in range(n)])
    size = np.abs(np.array(exact, dtype=float))
    off_diagonal = ~np.eye(n, dtype=bool)
    assert np.max(error[off_diagonal] / size[off_diagonal]) <= 32 * EPS
    assert np.max(np.diag(error) / size.max(axis=1)) <= 64 * EPS
    assert D[0, 0] == pytest.approx((2 * (n - 1) ** 2 + 1) / 6, rel=1e-13)  # the closed form at the ends


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
def test_interpolation_is_scipys(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, x = rng.standard_normal(n), points(n)
    t = np.concatenate((rng.uniform(-1, 1, 20), x[[0, n // 2, -1]]))  # the points themselves divide by zero
    np.testing.assert_allclose(interpolate(u, t), scipy.interpolate.BarycentricInterpolator(x, u)(t), atol=1e-11)
    assert np.array_equal(interpolate(u, x), u)


@pytest.mark.parametrize("function", [points, differentiation_matrix])
def test_one_point_is_not_enough(function: Callable[[int], np.ndarray]) -> None:
    with pytest.raises(ValueError, match="n >= 2, received 1"):
        function(1)


# ---------------------------------------------------------------- boundary value problems


def diffusivity(name: str, p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """K as the docstrings define it, for one system; a new family adds its line here."""
    if name == "random-diffusion":
        k = np.pi * np.arange(1, len(p["K_cos"]) + 1)
        return np.exp(np.cos(np.multiply.outer(x, k)) @ p["K_cos"] + np.sin(np.multiply.outer(x, k)) @ p["K_sin"])
    return 1 + p["alpha"] * np.cos(2 * np.pi * p["omega"] * x)


def lower_terms(name: str, p: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray | float, np.ndarray | float]:
    """v and r as the docstrings define them, for one system."""
    r = p["s"] * (1 + np.cos(2 * np.pi * p["omega_2"] * x) / 2) if name == "reaction-diffusion" else 0.0
    return p["v"] if name == "advection-diffusion" else 0.0, r


def single(systems: problems.Systems, i: int) -> dict[str, np.ndarray]:
    """The parameters of one system."""
    return {key: value[i] for key, value in systems.params.items()}


@every_boundary_value_family
def test_matrix_and_right_hand_side_against_chebyshev_series(name: str) -> None:
    """Nodal values to coefficients, NumPy's chebder, and back: no differentiation matrix of ours is involved."""
    n = 20
    systems = problems.get(name, n=n).sample(4, seed=5)
    x = cheb.chebpts2(n + 2)[::-1]
    derivative = np.stack([cheb.chebval(x, cheb.chebder(unit)) for unit in np.eye(n + 2)], 1)
    D = np.linalg.solve(cheb.chebvander(x, n + 1).T, derivative.T).T
    for i in range(4):
        p = single(systems, i)
        v, r = lower_terms(name, p, x[1:-1])
        A = -(D @ np.diag(diffusivity(name, p, x)) @ D)[1:-1, 1:-1] + v * D[1:-1, 1:-1] + np.diag(r * np.ones(n))
        np.testing.assert_allclose(systems.A[i], A, atol=1e-12 * np.max(np.abs(A)))
        modes = zip(range(1, 9), p["c"], p["phi"], strict=True)
        f = sum(c * np.cos(k * np.pi * x[1:-1] / 2 + phi) for k, c, phi in modes)
        np.testing.assert_allclose(systems.b[i], f, atol=1e-13)


@every_boundary_value_family
def test_error_falls_spectrally(name: str) -> None:
    """With f made so that u = sin(pi x) is the solution, every doubling of n divides the error by 2**8 or more."""
    errors = []
    for n in (32, 64, 128):
        systems = problems.get(name, n=n).sample(10, seed=2)
        x, h, worst = points(n + 2)[1:-1], 1e-30, 0.0
        u, du, ddu = np.sin(np.pi * x), np.pi * np.cos(np.pi * x), -(np.pi**2) * np.sin(np.pi * x)
        for i in range(10):
            p = single(systems, i)
            K, dK = diffusivity(name, p, x), diffusivity(name, p, x + 1j * h).imag / h  # complex step: no cancellation
            v, r = lower_terms(name, p, x)
            f = -(dK * du + K * ddu) + v * du + r * u
            worst = max(worst, np.max(np.abs(scipy.linalg.solve(systems.A[i], f) - u)))
        errors.append(worst)
    assert errors[0] <= 0.1  # 16 random parameters need more points than two
    for coarse, fine in itertools.pairwise(errors):
        assert fine <= max(coarse / 2**8, 1e-11)
    assert errors[-1] <= 1e-9


@every_boundary_value_family
def test_condition_numbers_at_64(name: str) -> None:
    kappa = np.linalg.cond(problems.get(name, n=64).sample(200, seed=0).A)
    assert 1e5 <= np.median(kappa) <= 1e6
    assert kappa.min() >= 1e4
    assert kappa.max() <= 1e7


@every_boundary_value_family
def test_diffusivity_is_positive(name: str) -> None:
    systems, x = problems.get(name, n=8).sample(300, seed=0), np.linspace(-1, 1, 401)
    assert min(diffusivity(name, single(systems, i), x).min() for i in range(300)) > 0


@every_boundary_value_family
def test_parameters_have_the_distributions_they_are_said_to_have(name: str) -> None:
    """Kolmogorov-Smirnov at a level of 1e-4: with a fixed seed this passes for good or fails for good."""
    family = problems.get(name, n=4)
    params = family.parameters(range(2000), seed=0)
    for k in range(family.f_modes):
        assert scipy.stats.kstest(params["c"][:, k], "norm", (0, 1 / (k + 1))).pvalue > 1e-4
        assert scipy.stats.kstest(params["phi"][:, k], "uniform", (0, 2 * np.pi)).pvalue > 1e-4
    values = {field.name: getattr(family, field.name) for field in dataclasses.fields(family)}
    ranges = {name: limits for name, limits in values.items() if isinstance(limits, tuple)}
    assert ranges or name == "random-diffusion"  # a random field, without one
    for setting, (low, high) in ranges.items():
        assert scipy.stats.kstest(params[setting], "uniform", (low, high - low)).pvalue > 1e-4


@every_boundary_value_family
def test_source_has_its_variance_everywhere(name: str) -> None:
    """Random phases make f stationary: mean 0 and variance sum 1 / (2 k^2) at every point."""
    b = problems.get(name, n=8).sample(5000, seed=1).b
    variance = sum(0.5 / k**2 for k in range(1, 9))
    np.testing.assert_allclose(b.mean(axis=0), 0, atol=5 * (variance / 5000) ** 0.5)
    np.testing.assert_allclose(b.var(axis=0), variance, rtol=0.1)


def test_contrast_must_leave_the_diffusivity_positive() -> None:
    with pytest.raises(ConfigurationError, match="alpha must lie within"):
        problems.get("diffusion", alpha=(0.0, 1.0))
