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
from algebraformer.problems import NoisyFamily, ProblemFamily, Systems, base
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


def good_sampler(rng: np.random.Generator) -> np.ndarray:
    return np.eye(5) + rng.uniform(0, 0.1, (5, 5))


@pytest.mark.parametrize("source", [Good, Good(n=6), GoodNoisy, GoodNoisy(m=9), good_sampler])
def test_families_that_keep_the_contract(source: Any) -> None:
    check_family(source)


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


BROKEN += [
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
