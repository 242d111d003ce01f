"""What training shows a head: families, samples of their systems, and examples made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems
from algebraformer.progress import batches

Batch = tuple[Tensor, ...]
"""What the loss of a head takes: the examples of one step, the first axis of every tensor over the systems."""
Indices = Sequence[int] | NDArray[np.int64]


class Family(Protocol):
    """A family of systems, see `problems.ProblemFamily`."""

    @property
    def n(self) -> int:
        """Number of unknowns."""

    def at(self, indices: Indices, seed: int = 0) -> Any:
        """Return the systems at these indices."""

    def assembled(self, indices: Indices, seed: int = 0) -> tuple[FloatArray, FloatArray, dict[str, NDArray[Any]]]:
        """Return A, b and the parameters of the systems at these indices, without solving them."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """The first `count` systems of a family's sequence that `seed` names."""

    family: Any
    count: int
    seed: int

    def systems(self) -> Any:
        """Return all of them, as `problems.Systems`."""
        return self.family.at(range(self.count), self.seed)

    def parts(self, size: int) -> Iterator[Any]:
        """Yield them in order, at most `size` at a time."""
        for indices in batches(self.count, size):
            yield self.family.at(indices, self.seed)

    def matrices(self) -> FloatArray:
        """Return their matrices (B, m, n), without solving the systems."""
        return self.family.assembled(range(self.count), self.seed)[0]


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What training gives a head before the first step and after the last one.

    Attributes
    ----------
    scaler, basis, calibration : Sample
        Systems for the statistics of the family, for a basis of its inverses (the largest sample that may be taken),
        and for what is measured after the last step. With few systems each of these is all there are.
    prior_scale_samples : int
        Systems that an estimate head chooses its prior scale on.
    few : bool
        There are these systems and no others.
    trained_on : int
        Number of the first examples of `readout` that steps were taken on.
    readout : callable
        Returns the stored training set, or makes examples for a read-out that is fitted after the last step.
    """

    scaler: Sample
    basis: Sample
    calibration: Sample
    prior_scale_samples: int
    few: bool
    trained_on: int
    readout: Callable[[], Batch]


class ExampleMaker(Protocol):
    """Makes examples of systems, in other processes too; `compact` if they are much smaller than the systems."""

    @property
    def compact(self) -> bool:
        """Whether a training set of examples is kept in memory whatever its size."""

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        """Return the examples of the systems at these indices."""


@dataclasses.dataclass(frozen=True)
class SystemExamples:
    """Examples are A (B, m, n), b (B, m) and x (B, n), float64."""

    compact: ClassVar[bool] = False

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        return to_tensors(family.at(indices, seed))


def to_tensors(systems: ScoredSystems) -> Batch:
    """Return A (B, m, n), b (B, m) and x (B, n) as float64 tensors that share the arrays' memory."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)
