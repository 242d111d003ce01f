"""The paper's head: token i gives x_i."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import ModelConfig, TokenConfig
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.heads.base import Network, register_head
from algebraformer.models.heads.scaled import ScaledHead
from algebraformer.models.heads.scaler import FamilyScaler


@register_head("token", TokenConfig)
class TokenHead(ScaledHead):
    """The paper's read-out: one linear map of each token, of which the encoding makes x; usually token i gives x_i."""

    scaler: FamilyScaler

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.n, self.encoding = config.n, ENCODINGS[TokenConfig.of(config).encoding]
        self.check_encoding(config)
        self.scaler = FamilyScaler(config.n)
        self.linear = nn.Linear(width, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the standardised solution (B, n) from tokens (B, T, width)."""
        y: Tensor = self.encoding.unknowns(self.linear(h)[..., 0], self.n)  # from (B, T)
        return y

    def check_encoding(self, config: ModelConfig) -> None:
        """Raise `ConfigurationError` unless the encoding gives what it promises."""
        tokens = self.read(torch.zeros(1, self.n, self.n), torch.zeros(1, self.n))
        shapes = {"tokens": tokens.shape, "unknowns": self.encoding.unknowns(tokens[..., 0], self.n).shape}
        for method, expected in (("tokens", (1, config.n_token, config.token_width)), ("unknowns", (1, self.n))):
            if shapes[method] != expected:
                raise ConfigurationError(
                    f"{method} of the encoding {TokenConfig.of(config).encoding!r} returns shape "
                    f"{tuple(shapes[method])} for one system, expected {expected}"
                )

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self(network.encode(*inputs)),)

    def standardized(self, network: Network, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standardised solution y (B, n), float32, and the factors (B,) that `scaler.answer` needs."""
        A_z, b_z, size = self.scaler(A, b)
        return self.outputs(network, self.read(A_z.float(), b_z.float()))[0], size

    def read(self, A: Tensor, b: Tensor) -> Tensor:
        """Return raw tokens (B, T, token_width) of standardised A (B, n, n) and b (B, n)."""
        tokens: Tensor = self.encoding.tokens(A, b, torch)
        return tokens

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        return self.scaler.answer(*self.standardized(network, A, b))

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean squared error of x for systems scaled to A and b of size one, relative to that of zero.

        Departs from the paper, whose loss is the mean squared error of x itself: there a few systems with a large b
        make most of the gradient. With the scaled loss the error of x itself came out lower as well (LOG.md).

        Parameters
        ----------
        network : Network
        *batch : Tensor
            A (B, n, n), b (B, n) and x (B, n), float64.
        """
        A, b, x = batch
        y, size = self.standardized(network, A, b)
        error = self.scaler.x_rms * y - x / torch.where(size != 0, size, 1.0)[:, None]
        return error.square().mean() / self.scaler.x_rms.square().mean()
