"""The paper's head: token i gives x_i."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig, TokenConfig
from algebraformer.models.heads.base import Head, Network, register_head
from algebraformer.models.heads.data import TrainingData, to_tensors
from algebraformer.models.heads.scaler import FamilyScaler
from algebraformer.models.raw_tokens import TOKENS
from algebraformer.models.scaling import DISTANCE_MARGIN
from algebraformer.progress import PartCallback, all_silent


@register_head("token", TokenConfig)
class TokenHead(Head):
    """The paper's read-out: token i gives x_i through one linear map. Entry tokens give x_j by their mean over rows."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.n, self.encoding = config.n, TokenConfig.of(config).encoding
        self.scaler = FamilyScaler(config.n)
        self.linear = nn.Linear(width, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the standardised solution (B, n) from tokens (B, T, width)."""
        y = self.linear(h)[..., 0]  # (B, T)
        if self.encoding == "entry":
            y = y.view(-1, self.n, self.n).mean(dim=1)  # (B, row, column) -> (B, column)
        return y

    def standardized(self, network: Network, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the standardised solution y (B, n), float32, and the factors (B,) that `scaler.answer` needs."""
        A_z, b_z, size = self.scaler(A, b)
        return self(network.encode(self.read(A_z.float(), b_z.float()))), size

    def read(self, A: Tensor, b: Tensor) -> Tensor:
        """Return raw tokens (B, T, token_width) of standardised A (B, n, n) and b (B, n)."""
        return TOKENS[self.encoding](A, b, torch)

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

    @torch.no_grad()
    def in_distribution(self, network: Network, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices (B, n, n) are no further from the middle of the family than its sample was."""
        limit = self.scaler.max_distance
        return (self.scaler.distance(torch.from_numpy(A.copy()).to(limit.device)) <= limit).numpy(force=True)

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Fit the scaler."""
        report = part("scaler")
        report(0, 1)
        self.scaler.fit(*to_tensors(data.scaler.systems()))
        report(1, 1)

    @torch.no_grad()
    def begin_from(
        self,
        network: Network,
        initial: Head,
        data: TrainingData,
        scaler: str,
        basis: str,
        part: PartCallback = all_silent,
    ) -> None:
        """Take over the read-out; refit the scaler, or keep it and measure how far the new matrices are from it."""
        self.load_state_dict(initial.state_dict())
        if scaler == "refitted":
            self.begin(network, data, part)
        else:
            A = torch.from_numpy(data.scaler.systems().A)
            self.scaler.max_distance.copy_(DISTANCE_MARGIN * self.scaler.distance(A).max())
