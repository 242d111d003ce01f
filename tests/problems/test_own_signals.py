"""Noisy families with signals of one's own: what is drawn, what is refused, and that nothing else has changed."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.errors import ConfigurationError
from algebraformer.problems import OWN, PRIORS, noisy
from algebraformer.problems.sampling import generator, log_uniform
from algebraformer.testing import check_family


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(problems.NoisyFamily):
    """Narrow lines, seen with a width of 0.1."""

    n: int = 8
    nonnegative: ClassVar[bool] = True

    def matrix(self, params: dict[str, np.ndarray]) -> np.ndarray:
        s, t = ((np.arange(k) + 0.5) / k for k in (self.n_equations, self.n))
        return np.tile(np.exp(-(((s[:, None] - t) / 0.1) ** 2)), (len(params["noise"]), 1, 1))

    def draw_signal(self, rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
        return 7 * np.exp(-(((u - rng.random()) / 0.2) ** 2))


class Changed(Lines):
    """Lines with another signal."""

    signal: ClassVar[Any] = None

    def draw_signal(self, rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
        return self.signal(u)


def test_own_signals_keep_the_contract() -> None:
    check_family(Lines(m=11))


def test_own_signals_are_scaled_and_nothing_else() -> None:
    family = Lines(n=9, m=14)
    systems = family.sample(20, seed=3)
    places = (np.arange(9) + 0.5) / 9
    for i, x in enumerate(systems.x):
        rng = generator(3, i)
        log_uniform(rng, family.noise), rng.standard_normal(14)
        expected = family.draw_signal(rng, places)
        np.testing.assert_allclose(x, expected / np.sqrt(np.mean(expected**2)), rtol=1e-14)
    assert set(systems.params["prior"]) == {OWN}


@pytest.mark.parametrize("kind", ["gaussian", "outliers"])
@pytest.mark.parametrize("priors", [tuple(noisy.DRAWS), ("classical", "spikes")])
def test_default_signals_have_the_same_bits_as_before(kind: Any, priors: tuple[str, ...]) -> None:
    """The order of the random numbers, as frozen test sets and shipped weights have it."""
    family = problems.get("gravity", n=10, m=12, priors=priors, noise_kind=kind)
    params = family.parameters(range(40), seed=9)
    for i in range(40):
        rng = generator(9, i)
        depth, level, z = log_uniform(rng, family.depth), log_uniform(rng, (1e-3, 1e-1)), rng.standard_normal(12)
        if kind == "outliers":
            z = z * np.where(rng.random(12) < 0.05, 10.0, 1.0) / np.sqrt(1 + 0.05 * 99)
        prior = priors[rng.integers(len(priors))]
        x = noisy.normalized(family.classical_signal())
        if prior != "classical":
            x = noisy.DRAWS[prior](rng, (np.arange(10) + 0.5) / 10)
        drawn = {"depth": depth, "noise": level, "prior": PRIORS.index(prior), "signal": x}
        for name, value in drawn.items():
            np.testing.assert_array_equal(params[name][i], value)
        np.testing.assert_allclose(params["z"][i], z, rtol=1e-15)


def test_own_signals_of_all_equations_together() -> None:
    class Ones(problems.Fredholm):
        def draw_signal(self, rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
            return np.ones(len(u))

    systems = Ones(n=6).sample(20, seed=1)
    np.testing.assert_allclose(systems.x, 1, rtol=1e-15)
    plain = problems.get("fredholm", n=6).sample(20, seed=1)
    np.testing.assert_array_equal(systems.A, plain.A)
    np.testing.assert_array_equal(systems.params["z"], plain.params["z"])


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (lambda u: np.ones(3), r"must return shape \(8,\), received \(3,\)"),
        (lambda u: np.where(u < 0.5, np.nan, 1.0), "must return finite numbers"),
        (np.zeros_like, "not zero throughout"),
        (lambda u: u - 0.5, "nonnegative = True, received a signal with entries below zero"),
        (lambda u: 1j * u, "must be real"),
    ],
)
def test_bad_signals_are_refused(signal: Any, message: str) -> None:
    class Odd(Changed):
        pass

    Odd.signal = staticmethod(signal)
    with pytest.raises(ConfigurationError, match=message):
        Odd().sample(2)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_own_signals_have_any_scale(size: float) -> None:
    class Odd(Changed):
        pass

    Odd.signal = staticmethod(lambda u: size * u)
    expected = (np.arange(8) + 0.5) / np.sqrt(np.mean((np.arange(8) + 0.5) ** 2))
    np.testing.assert_allclose(Odd().sample(1).x[0], expected, rtol=1e-14)


def test_a_family_without_a_test_signal_has_no_classical_prior() -> None:
    class Bare(problems.NoisyFamily):
        def matrix(self, params: dict[str, np.ndarray]) -> np.ndarray:
            return np.tile(np.eye(self.n), (len(params["noise"]), 1, 1))

    Bare(n=4).sample(3)
    with pytest.raises(ConfigurationError, match="no classical_signal"):
        Bare(n=4, priors=("classical",)).sample(1)


def test_default_priors_are_not_positive() -> None:
    class Positive(problems.FredholmFamily):
        nonnegative: ClassVar[bool] = True

        def kernel(self, params: Any, s: np.ndarray, t: np.ndarray) -> np.ndarray:
            return np.exp(-((s - t) ** 2))

    with pytest.raises(ConfigurationError, match="override draw_signal"):
        Positive(n=6).sample(20)
