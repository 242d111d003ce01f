"""The layers between tokens and head in NumPy: what `models.bodies` computes, under the same names of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from scipy.special import expit

from algebraformer.models.body_kinds import BodyKind, add_kind
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.layers import (
    MEAN_SQUARE_FLOOR,
    Linear,
    Norm,
    Singles,
    Tensors,
    gelu,
    softmax_mean,
    standardized,
)
from algebraformer.models.registry import Registry


class NumpyBody(Protocol):
    """The layers between tokens and head. One of your own has these two attributes and methods.

    Parameters
    ----------
    config : ModelConfig
        Of the whole network.
    tensors : Tensors
        Parameters and buffers by the names of the torch module; every one is taken, see `layers`.
    name : str
        Of the body in the network: its parameters have names that begin with this and a dot.

    Attributes
    ----------
    width : int
        Values per token behind them.
    reads_norms : bool
        Whether tokens are read behind layer norms alone: then what is added to them is centred, see
        `layers.standardized`.
    """

    width: int
    reads_norms: ClassVar[bool]

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None: ...

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        """Return tokens (B, T, width) from embedded ones (B, T, n_embd), whose memory is used, and the context."""


SomeBody = TypeVar("SomeBody", bound=NumpyBody)
NUMPY_BODIES: Registry[type[NumpyBody]] = Registry("NumPy body", "architecture")
"""Bodies in NumPy by name."""


def register_numpy_body(name: str, kind: BodyKind | None = None) -> Callable[[type[SomeBody]], type[SomeBody]]:
    """Class decorator: make a body that answers without torch known under the name that it has in torch.

    Parameters
    ----------
    name : str
    kind : BodyKind, optional
        As for `register_body`, which need not have been called: where nothing is trained, torch may be missing.

    Raises
    ------
    ConfigurationError
        Another body has the name.
    """

    def add(cls: type[SomeBody]) -> type[SomeBody]:
        NUMPY_BODIES.add(name, cls, cls)
        add_kind(name, kind, cls.__module__)
        return cls

    return add


class Block:
    """Attention and a two-layer perceptron, each behind a layer norm and added to its input."""

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        C = config.n_embd
        self.n_head, self.causal, size = config.n_head, config.causal, C // config.n_head
        qkv = Linear.take(tensors, f"{name}.attention.qkv", C, 3 * C)
        qkv = Norm.take(tensors, f"{name}.norm_attention", C).then(qkv)
        self.qkv = qkv.scaled(slice(C), size**-0.5)
        self.out = Linear.take(tensors, f"{name}.attention.out", C, C).centred()
        widen = Linear.take(tensors, f"{name}.mlp.0", C, 4 * C)
        self.widen = Norm.take(tensors, f"{name}.norm_mlp", C).then(widen)
        self.narrow = Linear.take(tensors, f"{name}.mlp.2", 4 * C, C).centred()

    def __call__(self, h: Singles) -> Singles:
        B, T, C = h.shape

        # 1. Attention: the queries come divided by the root of their length.
        qkv = self.qkv(standardized(h)).reshape(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each (B, head, T, C / head)
        scores = k @ q.mT
        if self.causal:
            scores[..., np.tri(T, k=-1, dtype=bool)] = -np.inf  # keys of later tokens
        h += self.out(softmax_mean(scores, v).transpose(0, 2, 1, 3).reshape(B, T, C))

        # 2. The perceptron.
        h += self.narrow(gelu(self.widen(standardized(h))))
        return h


@register_numpy_body("transformer")
class Transformer:
    """The blocks and the final norm."""

    reads_norms: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        self.blocks = [Block(config, tensors, f"{name}.blocks.{i}") for i in range(config.n_layer)]
        self.norm = Norm.take(tensors, f"{name}.norm", config.n_embd)
        self.width = config.n_embd

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        for block in self.blocks:
            h = block(h)
        return self.norm(h)


class FirstAnswer:
    """Reads a first answer x from the tokens and adds A^T (b - A x) to them, see `models.bodies.FirstAnswer`."""

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        norm = Norm.take(tensors, f"{name}.norm", config.n_embd)
        self.read = norm.then(Linear.take(tensors, f"{name}.read", config.n_embd, 1))
        self.write = Linear.take(tensors, f"{name}.write", 3, config.n_embd).centred()

    def __call__(self, h: Singles, A: Singles, b: Singles) -> Singles:
        x = self.read(standardized(h))  # (B, n, 1)
        g = A.mT @ (b[:, :, None] - A @ x)
        rms = np.sqrt(np.mean(g * g, axis=1, keepdims=True) + MEAN_SQUARE_FLOOR)
        h += self.write(np.concatenate((x, g, g / rms), axis=2))
        return h


@register_numpy_body("feedback")
class Feedback(Transformer):
    """The same blocks, with a first answer between each and the next."""

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        super().__init__(config, tensors, name)
        self.reads = [FirstAnswer(config, tensors, f"{name}.reads.{i}") for i in range(config.n_layer - 1)]

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        h = self.blocks[0](h)
        for read, block in zip(self.reads, self.blocks[1:], strict=True):
            h = block(read(h, *context))
        return self.norm(h)


class CarrierBlock:
    """Mixes and changes what tokens carry, as tokens of A say."""

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        C = config.n_embd
        self.n_head, size = config.n_head, C // config.n_head
        read = Norm.take(tensors, f"{name}.norm", C).then(Linear.take(tensors, f"{name}.read", C, 4 * C))
        self.read = read.scaled(slice(C), size**-0.5)
        self.value, self.out, self.widen, self.narrow = (
            Linear.take_unbiased(tensors, f"{name}.{part}", C, C) for part in ("value", "out", "widen", "narrow")
        )

    def __call__(self, h: Singles, carried: Singles) -> Singles:
        B, T, C = h.shape

        # 1. Queries, which come divided by the root of their length, keys, factors of the values, gates.
        q, k, factor, gate = self.read(standardized(h)).reshape(B, T, 4, C).transpose(2, 0, 1, 3)
        factor += np.float32(1.0)
        factor *= self.value(carried)

        # 2. Attention.
        q, k, v = (part.reshape(B, T, self.n_head, -1).transpose(0, 2, 1, 3) for part in (q, k, factor))
        carried += self.out(softmax_mean(k @ q.mT, v).transpose(0, 2, 1, 3).reshape(B, T, C))

        # 3. The two linear maps.
        gate *= self.widen(carried)
        carried += self.narrow(gate)
        return carried


@register_numpy_body("carrier")
class Carrier:
    """Blocks that read A, and beside them values that carry b to x."""

    reads_norms: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        C = self.width = config.n_embd
        self.lift = Norm.take(tensors, f"{name}.norm_lift", C).then(Linear.take(tensors, f"{name}.lift", C, C))
        self.first, self.last = (tensors.take(f"{name}.places.{i}", (config.n_token, C)) for i in range(2))
        self.blocks = [Block(config, tensors, f"{name}.blocks.{i}") for i in range(config.n_layer)]
        self.carriers = [CarrierBlock(config, tensors, f"{name}.carriers.{i}") for i in range(config.n_layer)]
        self.gate = Norm.take(tensors, f"{name}.norm", C).then(Linear.take(tensors, f"{name}.gate", C, C))

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        lifted = self.lift(standardized(h))
        lifted += self.first
        carried = context[0][:, :, None] * lifted
        for block, carrier in zip(self.blocks, self.carriers, strict=True):
            h = block(h)
            carried = carrier(h, carried)
        gate = self.gate(standardized(h))
        gate += self.last
        carried *= gate
        return carried


@register_numpy_body("mlp")
class Perceptron:
    """Residual perceptrons on one token, and the standardised states behind all of them."""

    reads_norms: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        C = config.n_embd
        self.layers = []
        for i in range(config.n_layer):
            block = f"{name}.blocks.{i}"
            first = Norm.take(tensors, f"{block}.norm", C).then(Linear.take(tensors, f"{block}.mlp.0", C, C))
            self.layers.append((first, Linear.take(tensors, f"{block}.mlp.2", C, C).centred()))
        self.width = config.n_layer * C

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        h = h[:, 0]
        state, states = standardized(h), np.empty((len(h), len(self.layers), h.shape[1]), dtype=np.float32)
        for i, (first, second) in enumerate(self.layers):
            h += second(gelu(first(state)))
            state = standardized(h, out=states[:, i])  # the input of the next block, too
        return states.reshape(len(h), 1, self.width)


@register_numpy_body("gru")
@register_numpy_body("lstm")
class Recurrent:
    """Stacked LSTM or GRU layers, in one direction or both."""

    reads_norms: ClassVar[bool] = False

    def __init__(self, config: ModelConfig, tensors: Tensors, name: str) -> None:
        C, directions = config.n_embd, 1 + config.bidirectional
        self.step, gates = (lstm_step, 4) if config.architecture == "lstm" else (gru_step, 3)
        self.width = directions * C
        self.layers: list[list[tuple[Linear, Linear]]] = []
        for i in range(config.n_layer):
            self.layers.append([])
            for end in ("", "_reverse")[:directions]:
                pair = [
                    Linear.of(
                        tensors.take(f"{name}.layers.weight_{part}_l{i}{end}", (gates * C, width)),
                        tensors.take(f"{name}.layers.bias_{part}_l{i}{end}", (gates * C,)),
                    )
                    for part, width in (("ih", self.width if i else C), ("hh", C))
                ]
                self.layers[-1].append((pair[0], pair[1]))

    def __call__(self, h: Singles, *context: Singles) -> Singles:
        for layer in self.layers:
            states = [self.run(h[:, :: 1 - 2 * way], *parts)[:, :: 1 - 2 * way] for way, parts in enumerate(layer)]
            h = np.concatenate(states, axis=2)
        return h

    def run(self, h: Singles, of_input: Linear, of_state: Linear) -> Singles:
        """Return the states (B, T, C) of one layer in one direction."""
        inputs = of_input(h)
        states = np.zeros((*h.shape[:2], of_state.weight.shape[0]), dtype=np.float32)
        state = memory = np.zeros_like(states[:, 0])
        for t in range(h.shape[1]):
            state, memory = self.step(inputs[:, t], of_state(state), state, memory)
            states[:, t] = state
        return states


def lstm_step(inputs: Singles, recurrent: Singles, state: Singles, memory: Singles) -> tuple[Singles, Singles]:
    """Return the next state and memory of an LSTM from its gates: input, forget, cell and output."""
    i, f, g, o = np.split(inputs + recurrent, 4, axis=1)
    memory = expit(f) * memory + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(memory), memory


def gru_step(inputs: Singles, recurrent: Singles, state: Singles, memory: Singles) -> tuple[Singles, Singles]:
    """Return the next state of a GRU from its gates: reset, update and new."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(inputs, 3, axis=1), np.split(recurrent, 3, axis=1)
    z, n = expit(z_x + z_h), np.tanh(n_x + expit(r_x + r_h) * n_h)
    return (1 - z) * n + z * state, memory
