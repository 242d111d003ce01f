"""What a head is: it reads a system, turns what the body makes of it into an answer, and knows how it is trained.

A head is everything that varies between kinds of networks; tokens and body are the same for all. A new kind is one
class, derived from `Head` and registered with `register_head`, beside a `HeadConfig` with its settings. Only `answer`
and `loss` have to be written; the other methods have defaults that suit a head which reads A, b and learns x.

A head that is linear in b, for which its configuration says `is_linear`, returns its approximate inverses from
`read_matrices`; one whose configuration says `estimates` has the methods `estimates` and `fits`.

Heads know no families and no training loop: they see both through `Family`, `Sample` and `TrainingData` of `data`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, answer_scores
from algebraformer.models.config import HeadConfig, ModelConfig, register_config
from algebraformer.models.heads.data import ExampleMaker, SystemExamples, TrainingData
from algebraformer.models.inference.reader import (
    Forward,
    Reader,
    Singles,
    by_column,
    not_estimating,
    not_linear,
    unable,
)
from algebraformer.models.inference.reading import Estimates, MatrixReading
from algebraformer.models.inference.stored_basis import Basis
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.progress import PartCallback, all_silent


class Network(Protocol):
    """The network around a head."""

    config: ModelConfig

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    def encode(self, tokens: Tensor, *context: Tensor) -> Tensor:
        """Return what the body makes of raw tokens (B, T, token_width): (B, T, width)."""


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
                if module.bias is not None:
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

        def answer(A: FloatArray, b: FloatArray) -> FloatArray:
            on_device = (torch.from_numpy(part).to(network.device) for part in (A, b.copy()))
            x: FloatArray = self.answer(network, *on_device).double().cpu().numpy()
            return x

        return by_column(answer, A, b)

    def in_distribution(self, network: Network, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices A (B, n, n) look like the family; all of them, where a head cannot tell."""
        return np.ones(len(A), dtype=bool)

    def read_matrices(self, network: Network, A: FloatArray) -> MatrixReading:
        """Read matrices A (B, n, n), float64 or complex128, once for all right-hand sides."""
        return MatrixReading(A, self.in_distribution(network, A), lambda A, b: self.predict(network, A, b))

    def read_inverse(self, network: Network, A: Entries) -> LinearInverse:
        """Return the approximate inverses of A (B, n, n), float64 or complex128.

        Raises
        ------
        ConfigurationError
            The head is not linear in b.
        """
        i = np.arange(network.config.n)
        inverse = self.read_matrices(network, A[:, i[:, None], i]).inverse
        if inverse is None:
            raise not_linear(network)
        return inverse

    def estimates(self, network: Network, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates for A (B, m, n) and b (B, m); `ConfigurationError` if the head makes none."""
        raise not_estimating(network)

    def fits(self, network: Network, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits ||A x - b|| / (noise ||b||) of estimates are like those of the family's systems."""
        raise not_estimating(network)

    def scores(self, network: Network, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare network on systems of its family."""
        return answer_scores(self.predict(network, systems.A, systems.b[:, :, None])[:, :, 0], systems)

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what a reader asks the network for, from what it makes of systems: what an exported network computes.

        Raises
        ------
        ConfigurationError
            The head has no reader.
        """
        raise unable(network, "only heads of the package can be exported")

    # Training

    @abc.abstractmethod
    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the loss of a batch of examples, a mean over its systems, relative to that of answering zero."""

    def example_maker(self, network: Network) -> ExampleMaker:
        """Return what makes examples of systems."""
        return SystemExamples()

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Learn what has to be known of the family before the first step."""

    def use_basis(self, network: Network, basis: Basis) -> None:
        """Begin with a basis that was computed before; `ConfigurationError` if the head has none."""
        raise unable(network, "only operator heads have a basis")

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


def torch_dtype(dtype: DTypeLike) -> torch.dtype:
    """Return torch's name for a dtype of NumPy."""
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


class ReadHead(Head):
    """A head that answers through a reader, so that solving needs no torch: see `models.inference`."""

    @property
    @abc.abstractmethod
    def reader(self) -> Reader:
        """The reader for the buffers as they are now."""

    @abc.abstractmethod
    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what the reader asks the network for, from what it makes of systems."""

    def check(self) -> None:
        """Make the reader, which raises `ConfigurationError` if the buffers make no sense."""
        self.reader  # noqa: B018

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the buffers in NumPy.

        Copies: sending a model to another process makes torch move its tensors, and leaves views behind.
        """
        return {name: buffer.cpu().numpy().copy() for name, buffer in self.named_buffers()}

    def forward_pass(self, network: Network) -> Forward:
        """Return the network's forward pass from arrays to arrays."""

        @torch.inference_mode()
        def forward(*inputs: Singles) -> tuple[Singles, ...]:
            tensors = (torch.from_numpy(np.ascontiguousarray(part)).to(network.device) for part in inputs)
            return tuple(part.numpy(force=True) for part in self.outputs(network, *tensors))

        return forward

    def predict(self, network: Network, A: FloatArray, b: FloatArray) -> FloatArray:
        return self.reader.predict(self.forward_pass(network), A, b)

    def in_distribution(self, network: Network, A: FloatArray) -> NDArray[np.bool_]:
        return self.reader.in_distribution(A)

    def read_matrices(self, network: Network, A: FloatArray) -> MatrixReading:
        return self.reader.read_matrices(self.forward_pass(network), A)

    def read_inverse(self, network: Network, A: Entries) -> LinearInverse:
        return self.reader.read_inverse(self.forward_pass(network), A)

    def estimates(self, network: Network, A: FloatArray, b: FloatArray) -> Estimates:
        return self.reader.estimates(self.forward_pass(network), A, b)

    def fits(self, network: Network, misfit: FloatArray) -> NDArray[np.bool_]:
        return self.reader.fits(misfit)

    def scores(self, network: Network, systems: ScoredSystems) -> dict[str, float]:
        return self.reader.scores(self.forward_pass(network), systems)


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
