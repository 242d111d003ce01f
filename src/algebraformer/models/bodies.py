"""The layers between tokens and head: the paper's Transformer and recurrent baselines, two bodies of ours, and yours.

Every body takes embedded tokens (B, T, n_embd), and what a head gives it besides, and returns (B, T, width).

References
----------
.. [1] "Algebraformer: A Neural Approach to Linear Systems", arXiv:2511.14263.
.. [2] A. Vaswani et al., "Attention is all you need", NeurIPS 2017.
.. [3] R. Xiong et al., "On layer normalization in the Transformer architecture", ICML 2020 (pre-norm).
.. [4] K. Gregor and Y. LeCun, "Learning fast approximations of sparse coding", ICML 2010.
.. [5] J. Adler and O. Oktem, "Solving ill-posed inverse problems using iterative deep neural networks", Inverse
   Problems 33 (2017).
.. [6] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).
.. [7] K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
.. [8] K. He et al., "Identity mappings in deep residual networks", ECCV 2016.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algebraformer.models.body_kinds import BodyKind, add_kind
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.layers import MEAN_SQUARE_FLOOR
from algebraformer.models.registry import Registry


class Body(nn.Module, abc.ABC):
    """The layers between tokens and head. One of your own derives from this class: see `register_body`.

    Layers in a `ModuleList` named `blocks` or `carriers` are what `frozen` and `layer_decay` of a fine-tuning count.

    Parameters
    ----------
    config : ModelConfig
        Of the whole network.

    Attributes
    ----------
    width : int
        Values per token behind the body; n_embd unless it is set.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.n_embd

    @abc.abstractmethod
    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return tokens (B, T, width) from embedded ones (B, T, n_embd), without mixing systems.

        `context` is scaled A (B, m, n) and b (B, m), float32, from heads that give them, see `BodyKind.needs_system`;
        or P b (B, T), see `BodyKind.needs_right_side`.
        """

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Change what should not start as `Algebraformer.reset_parameters` has set it, or torch; nothing by default."""

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield the weight matrices that Muon orthogonalises and how many square-ish matrices each of them stacks."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                yield module.get_parameter("weight"), 1


SomeBody = TypeVar("SomeBody", bound=Body)
BODIES: Registry[type[Body]] = Registry("body", "architecture")
"""Bodies in torch by name."""


def register_body(name: str, kind: BodyKind | None = None) -> Callable[[type[SomeBody]], type[SomeBody]]:
    """Class decorator: make a body known under a name, as `ModelConfig.architecture` in recipes and checkpoints.

    A network with such a body answers through torch, unless the same body is registered in NumPy as well, see
    `register_numpy_body`.

    Parameters
    ----------
    name : str
    kind : BodyKind, optional
        Which settings it goes by, and what it needs; by default learned positions, and tokens alone.

    Raises
    ------
    ConfigurationError
        Another body has the name.

    Examples
    --------
    >>> import torch
    >>> from algebraformer.models import Algebraformer, Body, ModelConfig, register_body
    >>> @register_body("average")
    ... class Average(Body):
    ...     def __init__(self, config):
    ...         super().__init__(config)
    ...         self.linear = torch.nn.Linear(config.n_embd, config.n_embd)
    ...     def forward(self, h, *context):
    ...         return h + self.linear(h.mean(dim=1, keepdim=True))
    >>> model = Algebraformer(ModelConfig(n=4, architecture="average", n_embd=8))
    >>> model(torch.eye(4).double()[None], torch.ones(1, 4).double()).shape
    torch.Size([1, 4])
    """

    def add(cls: type[SomeBody]) -> type[SomeBody]:
        BODIES.add(name, cls, cls)
        add_kind(name, kind, cls.__module__)
        return cls

    return add


class Attention(nn.Module):
    """Multi-head self-attention, over all tokens or over the earlier ones alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.causal = config.n_head, config.causal
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.heads(h)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(h.shape))

    def heads(self, h: Tensor) -> Tensor:
        """Return queries, keys and values (3, B, head, T, C / head) of tokens (B, T, C)."""
        B, T, C = h.shape
        return self.qkv(h).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)

    def weights(self, h: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(C / head)) (B, head, T, T), which `forward` mixes the values with.

        Row i says how much token i takes from each token j. The kernels of `forward` never show this matrix.
        """
        q, k, _ = self.heads(h)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return scores.softmax(dim=-1)


class Block(nn.Module):
    """Attention and a two-layer perceptron of width 4 n_embd, each behind a layer norm and added to its input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd), nn.GELU(), nn.Linear(4 * config.n_embd, config.n_embd)
        )

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attention(self.norm_attention(h))
        return h + self.mlp(self.norm_mlp(h))

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.attention.out.weight)
        nn.init.zeros_(self.get_parameter("mlp.2.weight"))

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield the weight matrices, queries, keys and values as three."""
        yield self.get_parameter("attention.qkv.weight"), 3
        yield self.get_parameter("attention.out.weight"), 1
        yield self.get_parameter("mlp.0.weight"), 1
        yield self.get_parameter("mlp.2.weight"), 1


class BlockBody(Body):
    """A body whose hidden matrices are those of its blocks."""

    blocks: nn.ModuleList

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, Block | CarrierBlock | PerceptronBlock | FirstAnswer):
                module.reset_parameters()

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        for block in self.blocks:
            if isinstance(block, Block | PerceptronBlock):
                yield from block.hidden_matrices()


@register_body("transformer")
class Transformer(BlockBody):
    """The blocks and the final norm (the paper's): tokens (B, T, n_embd) to tokens (B, T, n_embd)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(h)
        return self.norm(h)


@register_body("feedback")
class Feedback(BlockBody):
    """The same blocks; between them every token learns how well its part of a first answer fits the data (ours).

    After a block, entry i of a first answer x is read from token i, and A^T (b - A x), along which the misfit falls, is
    added to the tokens, as it is and divided by its root mean square: with A of size one it falls to the size of the
    noise [4]_, [5]_.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.reads = nn.ModuleList(FirstAnswer(config) for _ in range(config.n_layer - 1))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        h = self.blocks[0](h)
        for read, block in zip(self.reads, self.blocks[1:], strict=True):
            h = block(read(h, *context))
        return self.norm(h)


class FirstAnswer(nn.Module):
    """Reads x from the tokens and adds what A^T (b - A x) says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.n_embd)
        self.read = nn.Linear(config.n_embd, 1)
        self.write = nn.Linear(3, config.n_embd)

    def forward(self, h: Tensor, A: Tensor, b: Tensor) -> Tensor:
        x = self.read(self.norm(h))  # (B, n, 1)
        g = A.mT @ (b[:, :, None] - A @ x)
        rms = (g.square().mean(dim=1, keepdim=True) + float(MEAN_SQUARE_FLOOR)).sqrt()
        return h + self.write(torch.cat((x, g, g / rms), dim=2))

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.write.weight)


@register_body("carrier")
class Carrier(BlockBody):
    """Blocks that read A, and beside them values that carry b to x: linear in b (ours).

    `context` is b (B, T). Token i starts to carry b_i times a vector of its own. Behind every block, attention between
    the tokens of A mixes what they carry, and two linear maps with a gate from the token of A between them change it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        C = config.n_embd
        self.norm_lift, self.lift = nn.LayerNorm(C), nn.Linear(C, C)
        self.places = nn.ParameterList(nn.Parameter(torch.empty(config.n_token, C)) for _ in range(2))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.carriers = nn.ModuleList(CarrierBlock(config) for _ in range(config.n_layer))
        self.norm, self.gate = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        first, last = self.places
        carried = context[0][:, :, None] * (first + self.lift(self.norm_lift(h)))
        for block, carrier in zip(self.blocks, self.carriers, strict=True):
            h = block(h)
            carried = carrier(h, carried)
        return carried * (last + self.gate(self.norm(h)))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Let every token carry b_i in a direction of its own."""
        super().reset_parameters()
        for place in self.places:
            nn.init.normal_(place)

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        yield from super().hidden_matrices()
        yield self.get_parameter("lift.weight"), 1
        yield self.get_parameter("gate.weight"), 1
        for carrier in self.carriers:
            yield carrier.get_parameter("read.weight"), 4
            for name in ("value", "out", "widen", "narrow"):
                yield carrier.get_parameter(f"{name}.weight"), 1


class CarrierBlock(nn.Module):
    """Mixes and changes what tokens carry (B, T, n_embd), as tokens of A (B, T, n_embd) say."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.norm, self.read = nn.LayerNorm(C), nn.Linear(C, 4 * C)
        self.value, self.out, self.widen, self.narrow = (nn.Linear(C, C, bias=False) for _ in range(4))

    def forward(self, h: Tensor, carried: Tensor) -> Tensor:
        # 1. Queries, keys, factors of the values, gates.
        q, k, factor, gate = self.read(self.norm(h)).chunk(4, dim=-1)
        values = self.value(carried) * (1 + factor)

        # 2. Attention, whose weights are those of A.
        q, k, v = (part.unflatten(2, (self.n_head, -1)).transpose(1, 2) for part in (q, k, values))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        carried = carried + self.out(mixed)

        # 3. The two linear maps.
        return carried + self.narrow(self.widen(carried) * gate)

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.narrow.weight)


@register_body("gru")
@register_body("lstm")
class Recurrent(Body):
    """Stacked LSTM [6]_ or GRU [7]_ layers, the paper's baselines: tokens (B, T, n_embd) to states (B, T, width)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[config.architecture]
        self.layers = kind(
            config.n_embd, config.n_embd, config.n_layer, batch_first=True, bidirectional=config.bidirectional
        )
        self.width = config.n_embd * (2 if config.bidirectional else 1)

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        states: Tensor = self.layers(h)[0]
        return states

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        gates = 4 if isinstance(self.layers, nn.LSTM) else 3
        for name, parameter in self.layers.named_parameters():
            if name.startswith("weight"):
                yield parameter, gates


class PerceptronBlock(nn.Module):
    """Two layers of width n_embd behind a layer norm, added to their input [8]_."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, config.n_embd), nn.GELU(), nn.Linear(config.n_embd, config.n_embd)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.mlp(self.norm(h))

    def reset_parameters(self) -> None:
        """Start as the identity."""
        nn.init.zeros_(self.get_parameter("mlp.2.weight"))

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield both weight matrices."""
        yield self.get_parameter("mlp.0.weight"), 1
        yield self.get_parameter("mlp.2.weight"), 1


@register_body("mlp")
class Perceptron(BlockBody):
    """Residual perceptrons on one token, for operator heads (ours).

    The token (B, 1, n_embd) becomes the normalised states behind all blocks, (B, 1, n_layer n_embd).

    The read-out is linear and fitted by least squares, so every state behind a block is one more set of features.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(PerceptronBlock(config) for _ in range(config.n_layer))
        self.width = config.n_layer * config.n_embd

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        states = []
        for block in self.blocks:
            h = block(h)
            states.append(F.layer_norm(h, h.shape[-1:]))
        return torch.cat(states, dim=-1)


def make_body(config: ModelConfig) -> Body:
    """Return the layers between tokens and head; `ConfigurationError` if torch has no body of that name."""
    return BODIES[config.architecture](config)
