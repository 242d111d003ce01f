"""What a head is: it reads a system, turns what the body makes of it into an answer, and knows how it is trained.

A head is everything that varies between kinds of networks; tokens and body are the same for all. A new kind is one
class, derived from `Head` and registered with `register_head`, beside a `HeadConfig` with its settings. Only `answer`
and `loss` have to be written; the other methods have defaults that suit a head which reads A, b and learns x.

Heads know no families and no training loop: they see both through `Family`, `Sample` and `TrainingData`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, answer_scores
from algebraformer.models.config import HeadConfig, ModelConfig, register_config
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.progress import PartCallback, all_silent

BATCH_SIZE = 128
"""Systems per forward pass."""
Batch = tuple[Tensor, ...]
"""What the loss of a head takes: the examples of one step, the first axis of every tensor over the systems."""
Indices = Sequence[int] | NDArray[np.int64]


def max_batch_size(n: int) -> int:
    """Return how many approximate inverses of size n are kept in memory: 256 MB of them."""
    return max(1, min(1024, 2**26 // n**2))


# ---------------------------------------------------------------- what a head sees of the others


class Network(Protocol):
    """The network around a head."""

    config: ModelConfig

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    def encode(self, tokens: Tensor, *context: Tensor) -> Tensor:
        """Return what the body makes of raw tokens (B, T, token_width): (B, T, width)."""


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
        for start in range(0, self.count, size):
            yield self.family.at(range(start, min(start + size, self.count)), self.seed)

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


class Reader(Protocol):
    """Makes examples of systems, in other processes too; `compact` if they are much smaller than the systems."""

    @property
    def compact(self) -> bool:
        """Whether a training set of examples is kept in memory whatever its size."""

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        """Return the examples of the systems at these indices."""


@dataclasses.dataclass(frozen=True)
class SystemReader:
    """Examples are A (B, m, n), b (B, m) and x (B, n), float64."""

    compact: ClassVar[bool] = False

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        return to_tensors(family.at(indices, seed))


def to_tensors(systems: ScoredSystems) -> Batch:
    """Return A (B, m, n), b (B, m) and x (B, n) as float64 tensors that share the arrays' memory."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)


# ---------------------------------------------------------------- refinement


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a head has read of B matrices: all that refinement needs, whatever the right-hand sides are.

    Attributes
    ----------
    A : ndarray, shape (B, n, n), float64
    in_distribution : ndarray of bool, shape (B,)
        Which matrices look like the family, by A alone.
    answer : callable
        answer(A, b) -> x (B, n, k) for b (B, n, k).
    inverse : LinearInverse, optional
        The approximate inverses, if the head is linear in b.
    defect : ndarray, shape (B,), optional
        With an inverse M: share of a random probe vector that M A leaves.
    max_defect : float
        Largest share of a probe, or of the first residual, that is left of matrices in distribution.
    """

    A: FloatArray
    in_distribution: NDArray[np.bool_]
    answer: Callable[[FloatArray, FloatArray], FloatArray]
    inverse: LinearInverse | None = None
    defect: FloatArray | None = None
    max_defect: float = 0.0

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Self:
        """Return what was read of the chosen matrices."""
        return dataclasses.replace(
            self,
            A=self.A[chosen],
            in_distribution=self.in_distribution[chosen],
            inverse=None if self.inverse is None else self.inverse[chosen],
            defect=None if self.defect is None else self.defect[chosen],
        )

    def predict(self, b: FloatArray) -> FloatArray:
        """Return the bare answers x (B, n, k) for right-hand sides b (B, n, k)."""
        return self.answer(self.A, b)


# ---------------------------------------------------------------- the head


class Head(nn.Module, abc.ABC):
    """One kind of head. Where a method takes a `network`, it is the one whose head this is.

    Parameters
    ----------
    config : ModelConfig
        Of the whole network.
    width : int
        Values per token behind the body.
    """

    carries_gradients: ClassVar[bool] = True
    """Whether gradients flow from x to A and b."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set every linear map to zero, so that a fresh network answers x = 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)

    def check(self) -> None:
        """Raise `ConfigurationError` unless buffers read from a file make sense together."""

    def parameters_per_system(self) -> int:
        """Return how many parameters are used once per system, not once per token."""
        return 0

    # Answers

    @abc.abstractmethod
    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        """Return x (B, n) for A (B, m, n) and b (B, m), all float64."""

    @torch.inference_mode()
    def predict(self, network: Network, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n, k) for A (B, m, n) and b (B, m, k), a limited number of systems at a time.

        Every right-hand side is a system of its own.
        """
        B, m, k = b.shape
        n, device = A.shape[2], network.device
        flat, owner = np.ascontiguousarray(b.transpose(0, 2, 1)).reshape(B * k, m), np.arange(B).repeat(k)
        parts = [np.empty((0, n))]
        for start in range(0, B * k, BATCH_SIZE):
            chunk = slice(start, start + BATCH_SIZE)
            A_part, b_part = torch.from_numpy(A[owner[chunk]]), torch.from_numpy(flat[chunk].copy())
            parts.append(self.answer(network, A_part.to(device), b_part.to(device)).double().cpu().numpy())
        x = np.concatenate(parts[1:] or parts)
        return x.reshape(B, k, n).transpose(0, 2, 1) if x.shape == (B * k, n) else x

    def in_distribution(self, network: Network, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices A (B, n, n) look like the family; all of them, where a head cannot tell."""
        return np.ones(len(A), dtype=bool)

    def read_matrices(self, network: Network, A: FloatArray) -> Reading:
        """Read matrices A (B, n, n), float64, once for all right-hand sides."""
        return Reading(A, self.in_distribution(network, A), lambda A, b: self.predict(network, A, b))

    def scores(self, network: Network, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare network on systems of its family."""
        return answer_scores(self.predict(network, systems.A, systems.b[:, :, None])[:, :, 0], systems)

    # Training

    @abc.abstractmethod
    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the loss of a batch of examples, relative to that of answering zero."""

    def reader(self, network: Network) -> Reader:
        """Return what makes examples of systems."""
        return SystemReader()

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Learn what has to be known of the family before the first step."""

    def begin_from(
        self,
        network: Network,
        initial: Head,
        data: TrainingData,
        scaler: str,
        basis: str,
        part: PartCallback = all_silent,
    ) -> None:
        """Begin, on few systems of another family, where another network's head has ended.

        Parameters
        ----------
        network : Network
        initial : Head
            Of the same kind.
        data : TrainingData
        scaler, basis : str
            As in `training.FinetuneRecipe`.
        part : PartCallback
        """
        self.load_state_dict(initial.state_dict())
        self.begin(network, data, part)

    def finish(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Fit and calibrate after the last step; `part(name)` reports the progress of a part of the work."""


SomeHead = TypeVar("SomeHead", bound=Head)
_HEADS: dict[str, type[Head]] = {}


def register_head(name: str, config: type[HeadConfig]) -> Callable[[type[SomeHead]], type[SomeHead]]:
    """Class decorator: make a kind of head known under a name, for configurations, recipes and checkpoints.

    Parameters
    ----------
    name : str
    config : type of HeadConfig
        Its settings, a frozen dataclass.
    """

    def add(cls: type[SomeHead]) -> type[SomeHead]:
        register_config(name)(config)
        _HEADS[name] = cls
        return cls

    return add


def make_head(config: ModelConfig, width: int) -> Head:
    """Return a new head of the kind that a configuration names."""
    if config.head.name not in _HEADS:
        raise ConfigurationError(f"head {config.head.name!r} has a configuration and no class: see register_head")
    return _HEADS[config.head.name](config, width)
