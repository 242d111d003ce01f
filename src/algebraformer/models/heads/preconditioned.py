"""A token head that reads the preconditioned system: token i corrects entry i of P b."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.models.config import ModelConfig
from algebraformer.models.heads.base import Network, register_head
from algebraformer.models.heads.data import (
    Batch,
    ExampleMaker,
    Family,
    Indices,
    SystemExamples,
    to_tensors,
)
from algebraformer.models.heads.scaled import ScaledHead
from algebraformer.models.heads.scaler import PreconditionedScaler
from algebraformer.models.preconditioned import PreconditionedConfig

ROUGHNESS = 0.1
"""White noise in the solutions that a network which is linear in b learns from, over their root mean square.

Its answers are refined by asking it about residuals, whose solutions are errors of answers and look like no solution of
the family. With a tenth, both parts of the loss end about equally large.
"""


@dataclasses.dataclass(frozen=True)
class RoughExamples:
    """Examples are A (B, n, n), b (B, n) and x (B, n), float64, with white noise in x, and b = A x."""

    compact: ClassVar[bool] = False

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        A, _, x = to_tensors(family.at(indices, seed))
        for row, index in enumerate(indices):
            white = torch.from_numpy(np.random.default_rng((seed, int(index))).standard_normal(x.shape[1]))
            x[row] += ROUGHNESS * x[row].square().mean().sqrt() * white
        return A, (A @ x[:, :, None])[:, :, 0], x


@register_head("preconditioned", PreconditionedConfig)
class PreconditionedHead(ScaledHead):
    """One linear map of each token, times the family's correction of P b, is added to P b."""

    scaler: PreconditionedScaler

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.carried = config.body.needs_right_side
        self.scaler = PreconditionedScaler(config.n)
        self.linear = nn.Linear(width, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Return the corrections (B, n) in their typical size from tokens (B, n, width)."""
        y: Tensor = self.linear(h)[..., 0]
        return y

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self(network.encode(*inputs)),)

    def corrections(self, network: Network, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return P b of size one (B, n), its corrections (B, n), float32, and the sizes (B,) of the answers."""
        P_A, P_b, size = self.scaler.scaled(A, b)
        tokens = self.scaler.tokens(P_A, P_b, not self.carried).float()
        context = (P_b.float(),) if self.carried else ()
        return P_b, self.outputs(network, tokens, *context)[0], size

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        x: Tensor = self.scaler.answer_from(*self.corrections(network, A, b))
        return x

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the mean squared error of x for P b of size one, relative to that of P b itself.

        Parameters
        ----------
        network : Network
        *batch : Tensor
            A (B, n, n), b (B, n) and x (B, n), float64.
        """
        A, b, x = batch
        P_b, y, size = self.corrections(network, A, b)
        wanted = (x / torch.where(size != 0, size, 1.0)[:, None] - P_b) / self.scaler.x_rms
        return (y - wanted).square().mean()

    def example_maker(self, network: Network) -> ExampleMaker:
        return RoughExamples() if self.carried else SystemExamples()
