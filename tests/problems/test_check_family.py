"""`testing.check_family`: it accepts whoever keeps the contract, and notices each rule that is broken."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import algebraformer as af
from algebraformer.errors import AlgebraformerError, ConfigurationError, FamilyContractError
from algebraformer.problems import Instrument, NoisyFamily, ProblemFamily, Systems, base
from algebraformer.problems.base import check_limits
from algebraformer.testing import RULES, check_family


@pytest.fixture(scope="module", autouse=True)
def own_registry() -> Iterator[None]:
    """These families are not among those that other tests list."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
        yield


@dataclasses.dataclass(frozen=True, kw_only=True)
class Good(ProblemFamily):
    """Diagonal matrices."""

    n: int = 4
    low_high: tuple[float, float] = (1.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"d": rng.uniform(*self.low_high, self.n), "b": rng.standard_normal(self.n)}

    def assemble(self, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return np.eye(self.n) * params["d"][:, None, :], params["b"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GoodNoisy(NoisyFamily):
    """A matrix of cosines."""

    n: int = 6

    def matrix(self, params: dict[str, np.ndarray]) -> np.ndarray:
        one = np.cos(np.outer(np.arange(self.n_equations), np.arange(self.n)) / self.n)
        return np.tile(one, (len(params["noise"]), 1, 1))

    def classical_signal(self) -> np.ndarray:
        return np.ones(self.n)


class Decay(Instrument):
    """Sums of decays, with an offset."""

    nuisance_names = ("offset",)
    nuisance_sizes = (0.1,)

    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> np.ndarray:
        return np.linspace(0, rng.uniform(1, 5), points or rng.integers(50, 200))

    def kernel(self, abscissa: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return np.exp(-10 * abscissa[:, None] * grid) / self.n

    def columns(self, abscissa: np.ndarray) -> np.ndarray:
        return np.full((len(abscissa), 1), 0.1)


def good_sampler(rng: np.random.Generator) -> np.ndarray:
    return np.eye(5) + rng.uniform(0, 0.1, (5, 5))


@pytest.mark.parametrize("source", [Good, Good(n=6), GoodNoisy, GoodNoisy(m=9), good_sampler])
def test_families_that_keep_the_contract(source: Any) -> None:
    check_family(source)


def test_an_instrument_of_two_methods_keeps_the_contract() -> None:
    check_family(Decay)
    check_family(Decay(n=20, m=30, noise=(0.01, 0.02)))


class Turned(Decay):
    def kernel(self, abscissa: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return super().kernel(abscissa, grid).T


class TwoColumns(Decay):
    def columns(self, abscissa: np.ndarray) -> np.ndarray:
        return np.ones((len(abscissa), 2))


class AnyNumber(Decay):
    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> np.ndarray:
        return np.linspace(0, 3, 50)


class Backwards(Decay):
    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> np.ndarray:
        return super().draw_abscissa(rng, points)[::-1]


class Overflowing(Decay):
    def draw_signal(self, rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
        return np.full(self.n, np.inf)


@pytest.mark.parametrize(
    ("instrument", "message"),
    [
        (Turned, r"Turned.kernel must return finite numbers of shape \(128, 100\), received shape \(100, 128\)"),
        (TwoColumns, r"TwoColumns.columns must return .* \(128, 1\), received shape \(128, 2\)"),
        (AnyNumber, "AnyNumber.draw_abscissa must return as many numbers as `points`, 128, received 50"),
        (Backwards, "Backwards.draw_abscissa must return at least 10 ascending numbers"),
        (Overflowing, "Overflowing.draw_signal must return finite numbers .* received NaN or infinity"),
    ],
)
def test_what_an_instrument_returns_wrongly_is_named(instrument: type[Instrument], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_family(instrument)


def test_it_is_public_and_takes_what_as_family_takes() -> None:
    assert af.testing.check_family is check_family
    with pytest.raises(ConfigurationError, match="expected a family"):
        check_family(3)  # type: ignore[arg-type]


# ---------------------------------------------------------------- each rule, broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotJson(Good):
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "low_high": {1.0, 2.0}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgetful(Good):
    """Says nothing of one setting."""

    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in super().settings().items() if key != "low_high"}


class Thawed(Good):
    """Takes new values."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class Unequal(Good):
    """Hashes by identity."""

    def __hash__(self) -> int:
        return id(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnySize(Good):
    def __post_init__(self) -> None:
        check_limits(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyRange(Good):
    def __post_init__(self) -> None:
        ProblemFamily.__post_init__(self)


def altered(name: str, change: Any) -> type[ProblemFamily]:
    """Return a family like `Good` whose systems are changed on their way out."""

    def at(self: ProblemFamily, indices: Any, seed: int = 0) -> Systems:
        return change(super(cls, self).at(indices, seed), indices, seed)

    cls = dataclasses.dataclass(frozen=True, kw_only=True)(type(name, (Good,), {"__module__": __name__, "at": at}))
    globals()[name] = cls  # as if it were written here: other processes find it
    cls.__qualname__ = name
    return cls


def said_to_be(name: str, structure: str, change: Any = lambda A: A) -> type[ProblemFamily]:
    """Return a family like `Good` of this structure, its matrices changed."""
    cls = altered(
        name, lambda s, i, seed: dataclasses.replace(s, A=change(s.A), b=(change(s.A) @ s.x[..., None])[..., 0])
    )
    cls.structure = structure
    return cls


COUNTER = itertools.count()
BROKEN = [
    (NotJson, "settings are JSON", "settings\\(\\) that are JSON"),
    (Forgetful(low_high=(1.0, 3.0)), "settings are JSON", "back from its settings"),
    (Thawed, "frozen and hashable", "a frozen dataclass"),
    (Unequal, "frozen and hashable", "one hash"),
    (AnySize, "bad sizes are refused", "ConfigurationError for n = 0"),
    (AnyRange, "bad ranges are refused", "ConfigurationError for low_high = \\(0.5, 0.1\\), received 'no error'"),
    (
        altered("Short", lambda s, i, seed: dataclasses.replace(s, x=s.x[:, 1:])),
        "shapes and dtypes",
        r"x of shape \(20, 4\)",
    ),
    (
        altered("Single", lambda s, i, seed: dataclasses.replace(s, b=s.b.astype(np.float32))),
        "shapes and dtypes",
        "b of shape .* float64",
    ),
    (
        altered("Loose", lambda s, i, seed: dataclasses.replace(s, params={"k": np.ones(3)})),
        "shapes and dtypes",
        "parameter 'k'",
    ),
    (altered("Endless", lambda s, i, seed: dataclasses.replace(s, x=s.x * np.inf)), "finite", "finite numbers in x"),
    (
        altered("Wrong", lambda s, i, seed: dataclasses.replace(s, x=s.x * (1 + 1e-13))),
        "x solves the system",
        "backward error of at most",
    ),
    (said_to_be("Crooked", "pos", lambda A: A + np.eye(4, k=1)), "structure", "Hermitian matrices"),
    (said_to_be("Bowl", "pos", lambda A: -A @ A.swapaxes(1, 2)), "structure", "positive definite matrices"),
    (said_to_be("Odd", "sym"), "structure", "the structure 'gen' or 'pos'"),
    (
        altered("Moody", lambda s, i, seed: dataclasses.replace(s, params={"k": np.full(len(s), next(COUNTER))})),
        "same seed and index, same system",
        "the same systems again",
    ),
    (
        altered("Batched", lambda s, i, seed: dataclasses.replace(s, params={"k": np.full(len(s), len(s))})),
        "same seed and index, same system",
        r"at\(\[1, 3\]\)",
    ),
    (
        altered("Ordered", lambda s, i, seed: dataclasses.replace(s, params={"k": np.arange(len(s))})),
        "same seed and index, same system",
        r"at\(\[1, 3\]\)",
    ),
    (
        altered("Hashing", lambda s, i, seed: dataclasses.replace(s, params={"k": np.full(len(s), os.getpid())})),
        "processes agree",
        "in another process",
    ),
]


class OneSystem(Good):
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"d": np.ones(self.n), "b": np.ones(self.n)}


class OneSeed(Good):
    def at(self, indices: Any, seed: int = 0) -> Systems:
        return super().at(indices, 0)


class NarrowIndices(Good):
    """Is right for smaller indices."""

    def at(self, indices: Any, seed: int = 0) -> Systems:
        systems = super().at(indices, seed)
        late = np.array([len(indices) if i >= 2**63 else 0 for i in indices])
        return dataclasses.replace(systems, params={"k": late})


class OneSize(Good):
    """Is of another size than it says."""

    def at(self, indices: Any, seed: int = 0) -> Systems:
        return Good(n=4).at(indices, seed)


class Unpicklable(Good):
    def __reduce__(self) -> Any:
        raise TypeError("no")


class OtherSignal(GoodNoisy):
    def solution(self, A: np.ndarray, b: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
        return -params["signal"]


class Loud(GoodNoisy):
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return super().draw(rng) | {"noise": 0.5}


class Unscaled(GoodNoisy):
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        drawn = super().draw(rng)
        return drawn | {"signal": 2 * drawn["signal"]}


class Unmeasured(GoodNoisy):
    def at(self, indices: Any, seed: int = 0) -> Systems:
        systems = super().at(indices, seed)
        return dataclasses.replace(systems, params=systems.params | {"clean": systems.b})


class OtherPrior(GoodNoisy):
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return super().draw(rng) | {"prior": 4}


class NoPrior(GoodNoisy):
    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {key: value for key, value in super().draw(rng).items() if key != "prior"}


class TwoSizes(Decay):
    nuisance_sizes = (0.1, 1.0)


class Signed(Decay):
    def draw_signal(self, rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
        return rng.standard_normal(self.n)


class Tiny(Decay):
    def draw_signal(self, rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
        return 1e-6 * super().draw_signal(rng, grid)


class NoDensity(Decay):
    is_density = True

    def draw_signal(self, rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
        return 2 * super().draw_signal(rng, grid)


class Descending(Decay):
    def grid(self, abscissa: np.ndarray) -> np.ndarray:
        return super().grid(abscissa)[::-1]


BROKEN += [
    (TwoSizes, "measurements by instruments", "nuisance_sizes"),
    (Signed, "measurements by instruments", "x >= 0"),
    (Tiny, "measurements by instruments", "mean of about one"),
    (NoDensity, "measurements by instruments", "mean 1"),
    (Descending, "measurements by instruments", "ascending grid"),
    (OneSystem, "seeds and indices differ", "systems that differ"),
    (OneSeed, "seeds and indices differ", "other systems for another seed"),
    (NarrowIndices, "any seed and index", "to be this row of a sample"),
    (OneSize, "another size", r"A of shape \(3, 8, 8\) for n = 8"),
    (Unpicklable, "processes agree", "can be pickled"),
    (OtherSignal, "noisy measurements", "x to be the signal"),
    (Loud, "noisy measurements", "noise from 0.001 to 0.1"),
    (Unscaled, "noisy measurements", "root mean square 1"),
    (Unmeasured, "noisy measurements", "clean to be A x"),
    (OtherPrior, "noisy measurements", "priors"),
    (NoPrior, "noisy measurements", "parameters of shapes"),
]


@pytest.mark.parametrize(("family", "rule", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_rule_is_noticed(family: Any, rule: str, message: str) -> None:
    with pytest.raises(FamilyContractError, match=message) as caught:
        check_family(family)
    assert caught.value.rule == rule
    assert isinstance(caught.value, AlgebraformerError)
    assert isinstance(caught.value, AssertionError)


def test_every_rule_has_a_family_that_breaks_it() -> None:
    assert {rule for _, rule, _ in BROKEN} == set(RULES)
