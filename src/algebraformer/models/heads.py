"""What is read from the tokens after the last block."""

from __future__ import annotations

from torch import Tensor, nn

from algebraformer.models.config import ModelConfig


class TokenHead(nn.Module):
    """The paper's read-out: token i gives x_i through one linear map. Entry tokens give x_j by their mean over rows."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(width, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Return the standardised solution (B, n) from tokens (B, T, width)."""
        y = self.linear(h)[..., 0]  # (B, T)
        if self.config.encoding == "entry":
            y = y.view(-1, self.config.n, self.config.n).mean(dim=1)  # (B, row, column) -> (B, column)
        return y
