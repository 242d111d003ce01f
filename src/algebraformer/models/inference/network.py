"""The whole network in NumPy, for answers: what `models.network.Algebraformer` is in torch, for training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems
from algebraformer.models.config import TIKHONOV, EstimateConfig, ModelConfig, OperatorConfig, TokenConfig
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.inference.bodies import NUMPY_BODIES
from algebraformer.models.inference.estimate_reader import STD_FLOOR, TYPICAL_NOISE, EstimateReader
from algebraformer.models.inference.inversion_reader import InversionReader, Inversions, Reading
from algebraformer.models.inference.layers import Linear, Singles, Tensors, centred
from algebraformer.models.inference.operator_reader import OperatorReader
from algebraformer.models.inference.preconditioned_reader import PreconditionedReader
from algebraformer.models.inference.reader import Arrays, Forward, HeadChecks, Reader, max_batch_size
from algebraformer.models.inference.reading import Estimates, MatrixReading
from algebraformer.models.inference.token_reader import TokenReader
from algebraformer.models.inversion import OUTPUTS, InversionConfig
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.threads import run, split

PARAMETERS_PER_ENTRY = 75
"""Parameters of the network, per token, that take as long as the passes over one entry of A in a solve, about: 150
floating point operations at 50 GFLOP/s."""
READERS: dict[str, type[Reader]] = {
    "token": TokenReader,
    "operator": OperatorReader,
    "estimate": EstimateReader,
    "inversion": InversionReader,
    "preconditioned": PreconditionedReader,
}
"""Readers by the name of their head."""
ReadOut = Callable[[Singles, Singles], tuple[Singles, ...]]
"""Takes encoded tokens (B, T, width) and raw ones (B, T, token_width) to the outputs that a reader asks for."""


def has_numpy_form(config: ModelConfig) -> bool:
    """Say whether such a network answers without torch: its head has a reader, and its body is registered in NumPy."""
    return config.head.name in READERS and config.architecture in NUMPY_BODIES


class NumpyNetwork(HeadChecks):
    """A trained network that answers without torch: tokens, body and read-out in NumPy, and the reader of its head.

    Parameters
    ----------
    config : ModelConfig
        One that `has_numpy_form`.
    arrays : mapping of str to ndarray
        Parameters and buffers, under the names that they have in the torch module; not copied.

    Raises
    ------
    ConfigurationError
        There is no reader for the head, or no body of that name in NumPy; an array is missing, unknown, or has the
        wrong shape or dtype; or buffers make no sense together.
    """

    def __init__(self, config: ModelConfig, arrays: Arrays) -> None:
        if not has_numpy_form(config):
            what = (
                f"no reader for the head {config.head.name!r}"
                if config.head.name not in READERS
                else f"no body {config.architecture!r} in NumPy"
            )
            raise ConfigurationError(f"there is {what}: such networks answer through torch")
        self.config, self.arrays = config, arrays
        kind, tensors = READERS[config.head.name], Tensors(arrays)
        self.buffers = {name: tensors.take(f"head.{name}", *of) for name, of in kind.buffers(config).items()}
        self._take_layers(tensors)
        tensors.check_empty()
        self.reader = kind(config, self.buffers)
        buffers = sum(array.size for array in self.buffers.values())
        self._parameter_count = sum(array.size for array in arrays.values()) - buffers

    def _take_layers(self, tensors: Tensors) -> None:
        """Make the layers from their parameters."""
        config = self.config
        self.embedding = Linear.take(tensors, "tokens.embedding", config.token_width, config.n_embd)
        self.positions = [
            tensors.take(f"tokens.positions.{i}", (length, config.n_embd))
            for i, length in enumerate(config.position_shape)
        ]
        self.body = NUMPY_BODIES[config.architecture](config, tensors, "body")
        if self.body.reads_norms:
            self.embedding = self.embedding.centred()
            self.positions = [centred(position) for position in self.positions]
        self.read_out = READ_OUTS[config.head.name](config, tensors, self.body.width)

    def __reduce__(self) -> tuple[Any, ...]:
        return NumpyNetwork, (self.config, self.arrays)

    def parameter_count(self) -> int:
        """Return the number of trained parameters; buffers are not counted."""
        return self._parameter_count

    def forward(self, tokens: Singles, *context: Singles) -> tuple[Singles, ...]:
        """Return the outputs that the reader asks for.

        Parameters
        ----------
        tokens : ndarray, shape (B, T, token_width), float32
        *context : ndarray, float32
            Scaled A (B, m, n) and b (B, m) for the feedback body, P b (B, n) for one that carries b.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # far outside the family
            h = self.embedding(tokens)
            match self.positions:
                case [column]:
                    h += column
                case [row, column]:
                    h += (row[:, None] + column).reshape(-1, h.shape[-1])  # (n, n, n_embd) -> (n * n, n_embd)
            return self.read_out(self.body(h, *context), tokens)

    def with_forward(self, forward: Forward) -> NumpyNetwork:
        """Return this network with another forward pass, such as that of its export.

        Parameters
        ----------
        forward : callable
            Takes and returns what `forward` does. Several threads may call it at the same time.

        Examples
        --------
        >>> import algebraformer as af
        >>> solver = af.LearnedSolver.from_pretrained("diffusion-64")
        >>> systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
        >>> calls = []
        >>> def forward(tokens):
        ...     calls.append(tokens.shape)
        ...     return solver.network.forward(tokens)
        >>> other = af.LearnedSolver(solver.network.with_forward(forward), solver.info)
        >>> bool(other.solve(systems.A, systems.b).certified.all()), calls
        (True, [(3, 1, 256)])
        """
        return _OtherForward(self, forward)

    def blocks(self, count: int) -> list[slice]:
        """Return slices of `count` systems that one thread reads at a time, see `threads.split`."""
        config = self.config
        work = config.n_equations * config.n + self.parameter_count() * config.n_token // PARAMETERS_PER_ENTRY
        return split(count, work, max_batch_size(config.n))

    def read(self, A: FloatArray) -> MatrixReading:
        """Read matrices A (B, n, n), float64 or complex128, once for all right-hand sides."""
        return self.reader.read_matrices(self.forward, A)

    def predict(self, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return the bare answers x (B, n, k) for A (B, m, n) and b (B, m, k)."""

        def answer(rows: slice) -> FloatArray:
            return self.reader.predict(self.forward, A[rows], b[rows])

        return joined(run(answer, self.blocks(len(A)) or [slice(0)]))

    def estimates(self, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates of an estimate head for A (B, m, n) and b (B, m)."""

        def answer(rows: slice) -> Estimates:
            return self.reader.estimates(self.forward, A[rows], b[rows])

        parts = run(answer, self.blocks(len(A)) or [slice(0)])
        return Estimates(*(joined(column) for column in zip(*parts, strict=True)))

    def inversions(self, reading: Reading) -> Inversions:
        """Return the answers of an inversion head to what its reader has read."""

        def forward(tokens: Singles) -> tuple[Singles, ...]:
            parts = run(lambda rows: self.forward(tokens[rows]), self.blocks(len(tokens)) or [slice(0)])
            return tuple(joined(part) for part in zip(*parts, strict=True))

        found: Inversions = self.reader.answer(forward, reading)  # type: ignore[attr-defined]
        return found

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits of estimates are like those of the family's systems."""
        return self.reader.fits(misfit)

    def scores(self, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare network on a set of systems."""
        return self.reader.scores(self.forward, systems)

    def approximate_inverse(self, A: Entries) -> LinearInverse:
        """Return a linear head's approximations of the inverses of A (B, n, n), float64 or complex128."""
        return self.reader.read_inverse(self.forward, A)


class _OtherForward(NumpyNetwork):
    """A network that leaves its forward pass to another function."""

    def __init__(self, network: NumpyNetwork, forward: Forward) -> None:
        self.__dict__.update(network.__dict__)
        self._network, self._forward = network, forward

    def __reduce__(self) -> tuple[Any, ...]:
        return _OtherForward, (self._network, self._forward)

    def forward(self, tokens: Singles, *context: Singles) -> tuple[Singles, ...]:
        return self._forward(tokens, *context)


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the parts of a batch as one array."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Counter(Tensors):
    """Gives zeros for whatever is asked for, and counts them."""

    def __init__(self) -> None:
        super().__init__({})
        self.count = 0

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        self.count += math.prod(shape)
        return np.zeros(shape, dtype)


def parameter_count(config: ModelConfig) -> int:
    """Return the number of trained parameters of a network with a head of ours, without torch.

    Examples
    --------
    >>> parameter_count(ModelConfig())  # the paper's
    9511169
    """
    counter, network = _Counter(), NumpyNetwork.__new__(NumpyNetwork)
    network.config, network.buffers = config, {}
    network._take_layers(counter)
    return counter.count


def token_read_out(config: ModelConfig, tensors: Tensors, width: int) -> ReadOut:
    """Return what gives the standardised solution (B, n): one linear map of each token."""
    linear, encoding = Linear.take(tensors, "head.linear", width, 1), ENCODINGS[TokenConfig.of(config).encoding]

    def read_out(h: Singles, tokens: Singles) -> tuple[Singles, ...]:
        return (encoding.unknowns(linear(h)[..., 0], config.n),)  # from (B, T)

    return read_out


def operator_read_out(config: ModelConfig, tensors: Tensors, width: int) -> ReadOut:
    """Return what gives the coefficients in their typical size (B, R): one linear map of all tokens together."""
    linear = Linear.take(tensors, "head.linear", config.n_token * width, OperatorConfig.of(config).n_output)

    def read_out(h: Singles, tokens: Singles) -> tuple[Singles, ...]:
        return (linear(h.reshape(len(h), -1)),)

    return read_out


def estimate_read_out(config: ModelConfig, tensors: Tensors, width: int) -> ReadOut:
    """Return what gives means (B, n), standard deviations (B, n) and logarithms of noise levels (B,)."""
    channels = TIKHONOV if EstimateConfig.of(config).encoding == "column-tikhonov" else 0
    linear = Linear.take(tensors, "head.linear", width, 2 + channels)
    noise = Linear.take(tensors, "head.noise", width, 1)

    def read_out(h: Singles, tokens: Singles) -> tuple[Singles, ...]:
        output = linear(h)
        mean = output[..., 0]
        if channels:
            mean = mean + np.vecdot(output[..., 2:], tokens[..., -2 * TIKHONOV : -TIKHONOV])
        log_noise = noise(h.mean(axis=1))[:, 0] + np.float32(math.log(TYPICAL_NOISE))
        return mean, np.float32(STD_FLOOR) + np.exp(output[..., 1]), log_noise

    return read_out


def inversion_read_out(config: ModelConfig, tensors: Tensors, width: int) -> ReadOut:
    """Return what gives the numbers for each unknown (B, n, 8) and those of nuisance parameters (B, 2 k + 2)."""
    linear = Linear.take(tensors, "head.linear", width, config.n // config.n_token * OUTPUTS)
    nuisance = Linear.take(tensors, "head.nuisance", width, 2 * (InversionConfig.of(config).n_nuisance + 1))

    def read_out(h: Singles, tokens: Singles) -> tuple[Singles, ...]:
        return linear(h).reshape(len(h), config.n, OUTPUTS), nuisance(h.mean(axis=1))

    return read_out


def preconditioned_read_out(config: ModelConfig, tensors: Tensors, width: int) -> ReadOut:
    """Return what gives the corrections (B, n) in their typical size: one linear map of each token."""
    linear = Linear.take_unbiased(tensors, "head.linear", width, 1)

    def read_out(h: Singles, tokens: Singles) -> tuple[Singles, ...]:
        return (linear(h)[..., 0],)

    return read_out


READ_OUTS: dict[str, Callable[[ModelConfig, Tensors, int], ReadOut]] = {
    "token": token_read_out,
    "operator": operator_read_out,
    "estimate": estimate_read_out,
    "inversion": inversion_read_out,
    "preconditioned": preconditioned_read_out,
}
