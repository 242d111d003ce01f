"""The contract of every noisy family, and each integral equation against quadrature and closed forms.

A new noisy family inherits the first part; one of integral equations adds a line to KERNELS.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats
from scipy.special import erfc

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.problems import PRIORS

NOISY = [name for name in problems.names() if issubclass(problems.family_class(name), problems.NoisyFamily)]
FREDHOLM = [name for name in NOISY if issubclass(problems.family_class(name), problems.FredholmFamily)]
FIXED_EQUATIONS = ("tomography",)
"""Families whose number of measurements follows from other settings."""
every_noisy_family = pytest.mark.parametrize("name", NOISY)
every_equation = pytest.mark.parametrize("name", FREDHOLM)


# ---------------------------------------------------------------- what a noisy sample is


@every_noisy_family
@pytest.mark.parametrize("m", [None, 6, 20])
def test_measurements_are_those_of_the_signal(name: str, m: int | None) -> None:
    if m is not None and name in FIXED_EQUATIONS:
        with pytest.raises(ConfigurationError, match="m follows from"):
            problems.get(name, n=16, m=m)
        return
    family = problems.get(name, n=16, m=m)
    systems, rows = family.sample(5, seed=3), family.n_equations
    assert rows == m or m is None
    assert (systems.A.shape, systems.b.shape, systems.x.shape) == ((5, rows, 16), (5, rows), (5, 16))
    assert systems.params["clean"].shape == (5, rows)
    for A, x, clean in zip(systems.A, systems.x, systems.params["clean"], strict=True):
        np.testing.assert_allclose(clean, A @ x, rtol=1e-12, atol=1e-13 * np.abs(A).max() * 16)
    np.testing.assert_allclose(np.linalg.norm(systems.x, axis=1) / 4, 1, rtol=1e-12)
    assert systems.x.min() >= 0 or not family.nonnegative


@every_noisy_family
@pytest.mark.parametrize(("kind", "tolerance"), [("gaussian", 0.05), ("poisson", 0.1), ("outliers", 0.25)])
def test_noise_has_its_level(name: str, kind: str, tolerance: float) -> None:
    systems = problems.get(name, n=64, noise_kind=kind).sample(200, seed=1)
    clean = systems.params["clean"]
    size = systems.params["noise"] * np.linalg.norm(clean, axis=1) / np.sqrt(clean.shape[1])
    relative = (systems.b - clean) / size[:, None]
    assert np.mean(relative**2) == pytest.approx(1, rel=tolerance)
    assert abs(np.mean(relative)) < 5 * np.sqrt(tolerance / 100)


@every_noisy_family
def test_levels_and_priors_are_drawn_as_they_are_said_to_be(name: str) -> None:
    params = problems.get(name, n=4, noise=(1e-4, 1e-2)).parameters(range(2000), seed=0)
    assert scipy.stats.kstest(np.log10(params["noise"]), "uniform", (-4, 2)).pvalue > 1e-4
    if problems.get(name).has_own_signals:
        assert set(params["prior"]) == {problems.OWN}
    else:
        counts = np.bincount(params["prior"], minlength=len(PRIORS))
        assert counts[PRIORS.index("classical")] == 0
        assert scipy.stats.chisquare(counts[:-1]).pvalue > 1e-4
    assert scipy.stats.kstest(params["z"].ravel(), "norm").pvalue > 1e-4


@every_noisy_family
def test_level_and_prior_change_nothing_else(name: str) -> None:
    family = problems.get(name, n=16)
    systems = family.sample(10, seed=2)
    quiet = problems.get(name, n=16, noise=(1e-6, 1e-6)).sample(10, seed=2)
    assert np.array_equal(quiet.A, systems.A)
    assert np.array_equal(quiet.x, systems.x)
    assert np.array_equal(quiet.params["z"], systems.params["z"])
    other = problems.get(name, n=16, priors=("classical",)).sample(10, seed=2)
    assert np.array_equal(other.A, systems.A)
    assert np.array_equal(other.params["z"], systems.params["z"])
    if name in FREDHOLM:
        assert np.ptp(other.x, axis=0).max() == 0  # one signal
    own = family.has_own_signals
    assert set(other.params["prior"]) == {problems.OWN if own else PRIORS.index("classical")}


@every_noisy_family
@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("m", 0, "m must be"),
        ("m", 2.0, "m must be"),
        ("noise", (0.0, 0.1), "noise must be positive"),
        ("noise", (0.1, 0.01), "noise must be"),
        ("priors", (), "priors must be some of"),
        ("priors", ("smooth", "rough"), "priors must be some of"),
        ("priors", ["smooth"], "priors must be some of"),
        ("noise_kind", "pink", "noise_kind must be one of"),
    ],
)
def test_bad_settings_are_refused(name: str, setting: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        problems.get(name, **{setting: value})


def test_poisson_noise_grows_with_the_measurement() -> None:
    """Variance over |A x| is the same where |A x| is small and where it is large."""
    systems = problems.get("deblur", n=64, noise_kind="poisson", noise=(0.1, 0.1)).sample(400, seed=0)
    clean = np.abs(systems.params["clean"])
    gain = clean / np.mean(clean, axis=1, keepdims=True) * np.mean(clean**2, axis=1, keepdims=True) * 0.01
    squares = (systems.b - systems.params["clean"]) ** 2
    some, small = clean > 1e-9, clean < np.median(clean, axis=1, keepdims=True)
    assert np.mean(squares[some & small] / gain[some & small]) == pytest.approx(1, rel=0.06)
    assert np.mean(squares[~small] / gain[~small]) == pytest.approx(1, rel=0.06)
    assert not squares[clean == 0].any()


def test_outliers_are_a_twentieth() -> None:
    z = problems.get("deblur", n=64, noise_kind="outliers").parameters(range(400), seed=0)["z"]
    unit = np.sqrt(1 + 0.05 * 99)
    inside, outside = 0.95 * 2 * scipy.stats.norm.sf(4), 0.05 * 2 * scipy.stats.norm.sf(0.4)
    assert np.mean(np.abs(z * unit) > 4) == pytest.approx(inside + outside, rel=0.15)


# ---------------------------------------------------------------- priors


def signals(prior: str, n: int, count: int = 300) -> np.ndarray:
    family = problems.get("deblur", n=n, m=4, priors=(prior,))  # as many random numbers for every n
    return np.array(family.parameters(range(count), seed=4)["signal"])


def test_piecewise_signals_jump_one_to_eight_times() -> None:
    jumps = np.count_nonzero(np.diff(signals("piecewise", 512)), axis=1)
    assert (jumps.min(), jumps.max()) == (1, 8)
    assert np.mean(jumps) == pytest.approx(4.5, abs=0.5)


def test_spikes_are_few() -> None:
    x = signals("spikes", 512)
    counts = np.count_nonzero(x, axis=1)
    assert (counts.min(), counts.max()) == (1, 6)
    assert np.mean(x > 0) == pytest.approx(np.mean(x < 0), rel=0.2)


def test_smooth_signals_are_resolved() -> None:
    """What a parabola through three neighbours predicts in the middle of a fine grid is what is there."""
    x = signals("smooth", 512)
    assert np.max(np.abs(np.diff(x, 3, axis=1))) < 2e-3
    coarse = signals("smooth", 256)
    between = (x[:, 0::2] + x[:, 1::2]) / 2  # the coarse midpoints
    between /= np.sqrt(np.mean(between**2, axis=1, keepdims=True))
    np.testing.assert_allclose(between, coarse, atol=5e-3)


def test_smooth_signals_have_the_covariance_that_is_documented() -> None:
    """Before scaling: sum_k s_k^2 cos(k pi (u - u')) is proportional to exp(-(u - u')^2 / (2 l^2))."""
    k, lag = np.arange(49), np.linspace(0, 0.5, 20)
    for length in (0.04, 0.1, 0.2):
        variance = np.exp(-((k * np.pi * length) ** 2) / 2)
        covariance = np.cos(np.pi * np.outer(lag, k)) @ variance - 0.5  # the constant mode would count half
        expected = np.exp(-(lag**2) / (2 * length**2))
        np.testing.assert_allclose(covariance / covariance[0], expected, atol=2e-3)


def test_mixtures_are_of_all_three() -> None:
    x = signals("mixture", 256)
    assert np.all(np.count_nonzero(np.diff(x), axis=1) > 200)
    assert np.median(np.abs(np.diff(x)).max(axis=1)) > 0.5


# ---------------------------------------------------------------- integral equations


def heat(p: dict[str, float], s: float, t: float) -> float:
    """The density of the first passage of a Brownian motion: what makes it a density is its integral below."""
    v, c = s - t, 1 / p["kappa"]
    return c / math.sqrt(4 * math.pi * v**3) * math.exp(-(c**2) / (4 * v)) if v > 0 else 0.0


def deblur(p: dict[str, float], s: float, t: float) -> float:
    return float(scipy.stats.norm.pdf(t, s, p["width"] * (1 - p["slope"] + 2 * p["slope"] * s)))


def shaw(p: dict[str, float], s: float, t: float) -> float:
    u = math.pi * (math.sin(s) + math.sin(t))
    return (math.cos(s) + math.cos(t)) ** 2 * (1.0 if u == 0 else (math.sin(u) / u) ** 2)


KERNELS: dict[str, Callable[[dict[str, float], float, float], float]] = {
    "deblur": deblur,
    "gravity": lambda p, s, t: p["depth"] / math.hypot(p["depth"], s - t) ** 3,
    "heat": heat,
    "shaw": shaw,
    "phillips": lambda p, s, t: 2 * math.cos(math.pi * (s - t) / 6) ** 2 if abs(s - t) < 3 else 0.0,
    "deriv2": lambda p, s, t: min(s, t) * (max(s, t) - 1),
    "baart": lambda p, s, t: math.exp(s * math.cos(t)),
    "foxgood": lambda p, s, t: math.sqrt(s * s + t * t),
}
"""K(s, t) with the parameters of one system, written another way than in the package."""


def one(name: str, n: int, seed: int = 0, m: int | None = None) -> tuple[Any, problems.Systems, dict[str, float]]:
    family = problems.get(name, n=n, m=m)
    systems = family.sample(1, seed)
    return family, systems, {k: float(v[0]) for k, v in systems.params.items() if v.ndim == 1}


def integral(
    name: str, p: dict[str, float], s: float, f: Callable[[float], float], limits: tuple[float, float]
) -> float:
    """Return the integral of K(s, t) f(t), kinks and peaks at s and 3 to either side of it told to the quadrature."""
    places = sorted(t for t in (s - 3, s - 0.1, s, s + 0.1, s + 3) if limits[0] < t < limits[1])
    pieces = [limits[0], *places, limits[1]]
    return sum(
        scipy.integrate.quad(lambda t: KERNELS[name](p, s, t) * f(t), low, high, epsabs=1e-12, limit=200)[0]
        for low, high in itertools.pairwise(pieces)
    )


@every_equation
def test_matrix_against_quadrature(name: str) -> None:
    """A f nears the integral at every site, with the second order of the midpoint rule."""
    errors = []
    for n in (1024, 2048) if name == "heat" else (64, 128):  # whose kernel can be very narrow
        family, systems, p = one(name, n, seed=3, m=7)
        low, high = family.domain

        def f(t: float, low: float = low, high: float = high) -> float:
            return 1.5 + math.sin(4 * (t - low) / (high - low))

        expected = [integral(name, p, s, f, family.domain) for s in family.sites]
        computed = systems.A[0] @ [f(t) for t in family.nodes]
        errors.append(np.max(np.abs(computed - expected)) / np.max(np.abs(expected)))
    assert errors[0] < 5e-3
    assert errors[1] < max(errors[0] / 3, 1e-10)


@pytest.mark.parametrize(
    ("name", "f", "g"),
    [
        ("baart", math.sin, lambda s: 2 * math.sinh(s) / s),
        ("deriv2", lambda t: t, lambda s: (s**3 - s) / 6),
        ("foxgood", lambda t: t, lambda s: ((1 + s**2) ** 1.5 - s**3) / 3),
        (
            "phillips",
            lambda t: 1 + math.cos(math.pi * t / 3) if abs(t) < 3 else 0.0,
            lambda s: (
                (6 - abs(s)) * (1 + math.cos(math.pi * s / 3) / 2) + 9 / (2 * math.pi) * math.sin(math.pi * abs(s) / 3)
            ),
        ),
    ],
)
def test_classical_signal_and_its_image_in_closed_form(name: str, f: Callable, g: Callable) -> None:
    """The relations of Hansen's manual: A x is g at the sites, and x is f at the nodes, both up to one factor."""
    family, systems, _ = one(name, 256)
    x = problems.get(name, n=256, priors=("classical",)).sample(1, seed=0).x[0]
    values = np.array([f(t) for t in family.nodes])
    np.testing.assert_allclose(x, values / np.sqrt(np.mean(values**2)), rtol=1e-12)
    expected = np.array([g(s) for s in family.sites])
    np.testing.assert_allclose(systems.A[0] @ values, expected, atol=1e-4 * np.abs(expected).max())


def test_classical_signals_without_closed_form() -> None:
    """The others, against values at chosen points: (node nearest to t, f(t))."""
    known = {
        "gravity": [(0.5, 1.0), (0.25, math.sqrt(0.5) + 0.5)],
        "shaw": [(0.8, 2 + math.exp(-2 * 1.3**2)), (-0.5, 2 * math.exp(-6 * 1.3**2) + 1)],
        "heat": [(0.05, 0.1875), (0.125, 1.0), (0.15, 0.75), (0.25, 0.75 * math.exp(-4)), (0.75, 0.0)],
        "deblur": [(0.2, 0.75), (0.31, 0.25), (0.28, 0.0), (0.05, 0.0), (0.75, 1.0), (0.625, 0.25)],
    }
    for name, points in known.items():
        family = problems.get(name, n=4001)
        signal = family.classical_signal()
        for t, value in points:
            assert signal[np.argmin(np.abs(family.nodes - t))] == pytest.approx(value, abs=4e-3), (name, t)


def test_constant_signals_in_closed_form() -> None:
    """What the instruments with parameters make of f = 1."""
    family, systems, p = one("heat", 512)
    passed = erfc(1 / (2 * p["kappa"] * np.sqrt(family.sites)))
    np.testing.assert_allclose(systems.A[0].sum(axis=1), passed, atol=2e-3)
    family, systems, p = one("gravity", 512)
    s, d = family.sites, p["depth"]
    arms = ((1 - s) / np.hypot(d, 1 - s) + s / np.hypot(d, s)) / d
    np.testing.assert_allclose(systems.A[0].sum(axis=1), arms, rtol=1e-3)
    family, systems, p = one("deblur", 512, seed=1)
    w = p["width"] * (1 + p["slope"] * (2 * family.sites - 1))
    inside = scipy.stats.norm.cdf((1 - family.sites) / w) - scipy.stats.norm.cdf(-family.sites / w)
    np.testing.assert_allclose(systems.A[0].sum(axis=1), inside, atol=1e-3)


@pytest.mark.parametrize("name", ["gravity", "phillips", "shaw", "deriv2", "foxgood"])
def test_symmetric_kernels(name: str) -> None:
    A = problems.get(name, n=33).sample(3, seed=0).A
    np.testing.assert_allclose(A, A.mT, atol=1e-14 * np.abs(A).max())


def test_convolutions_are_toeplitz_and_heat_looks_back_only() -> None:
    fixed = problems.get("deblur", n=20, varying=0.0).sample(3, seed=0)
    assert not fixed.params["slope"].any()
    for A in (fixed.A, problems.get("gravity", n=20).sample(3).A, problems.get("heat", n=20).sample(3).A):
        np.testing.assert_allclose(A[:, 1:, 1:], A[:, :-1, :-1], rtol=1e-10, atol=1e-300)
    heat_matrices = problems.get("heat", n=20).sample(3).A
    assert np.array_equal(heat_matrices, np.tril(heat_matrices))
    assert np.all(np.diagonal(heat_matrices, axis1=1, axis2=2) > 0)
    varying = problems.get("deblur", n=20, varying=1.0).sample(20, seed=0)
    assert np.all(varying.params["slope"] != 0)
    share = problems.get("deblur", n=4, varying=0.3).parameters(range(1000))["slope"]
    assert np.mean(share != 0) == pytest.approx(0.3, abs=0.05)


def singular_values(name: str, n: int, **settings: Any) -> np.ndarray:
    return np.linalg.svd(problems.get(name, n=n, **settings).sample(1).A[0], compute_uv=False)


def test_singular_values_of_the_second_derivative() -> None:
    k = np.arange(1, 21)
    np.testing.assert_allclose(singular_values("deriv2", 256)[:20], 1 / (np.pi * k) ** 2, rtol=0.02)


def test_singular_values_fall_as_the_kernels_transforms() -> None:
    """Gravity as exp(-pi d k), the Gaussian as exp(-(pi w k)^2 / 2): convolutions at the frequency of k half waves."""
    k = np.arange(20, 40)
    s = singular_values("gravity", 256, depth=(0.1, 0.1))[k]
    slope = np.polyfit(k, np.log(s / np.sqrt(k)), 1)[0]  # |w| K_1(d |w|) is like sqrt(w) exp(-d w)
    assert slope == pytest.approx(-np.pi * 0.1, rel=0.1)
    s = singular_values("deblur", 256, width=(0.03, 0.03), varying=0.0)
    assert s[0] <= 1
    k = np.arange(5, 30)
    np.testing.assert_allclose(np.sqrt(-2 * np.log(s[k])) / (np.pi * 0.03), k + 1, rtol=0.1)


def test_how_ill_posed_they_are() -> None:
    """Singular values above 1e-10 of the largest, at n = 64, in the order of the literature."""
    counts = {name: int(np.sum(s > 1e-10 * s[0])) for name in FREDHOLM for s in [singular_values(name, 64)]}
    assert counts["baart"] < counts["foxgood"] <= counts["shaw"] < 30
    assert counts["deriv2"] == counts["phillips"] == counts["deblur"] == 64
    well, ill = (singular_values("heat", 64, kappa=(k, k)) for k in (5.0, 1.0))
    assert well[-1] / well[0] > 1e-5
    assert ill[-1] / ill[0] < 1e-15


@pytest.mark.parametrize(("name", "setting"), [("deblur", "width"), ("gravity", "depth"), ("heat", "kappa")])
def test_instruments_are_log_uniform(name: str, setting: str) -> None:
    family = problems.get(name, n=4)
    low, high = np.log(getattr(family, setting))
    drawn = np.log(family.parameters(range(1000))[setting])
    assert scipy.stats.kstest(drawn, "uniform", (low, high - low)).pvalue > 1e-4
    with pytest.raises(ConfigurationError, match=f"{setting} must be positive"):
        problems.get(name, **{setting: (0.0, 1.0)})


@pytest.mark.parametrize(
    ("setting", "value"), [("varying", 1.5), ("varying", "half"), ("varying", True), ("slope", (-1.0, 0.0))]
)
def test_bad_widths_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=setting):
        problems.get("deblur", **{setting: value})
