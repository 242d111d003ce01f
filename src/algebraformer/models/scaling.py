"""From a system (A, b) to standardised tokens, and from the network's output back to x.

Two things happen here, both in float64, because raw entries of one collocation matrix span five decades:

1. Scaling. A is divided by a signed size s_A, b by s_b, and the answer is multiplied by s_b / s_A. So (c A, d b)
   gives (d / c) x to rounding for every c, d != 0, whatever the network does.
2. Standardising. Each entry of the scaled A and b is z-scored over the family, and the output is multiplied by the
   root mean square of that entry of x over the family.

Departs from the paper: it says nothing about scaling. Entry-wise z-scores gave three times less error than row
equilibration in our measurements (LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import Encoding, ModelConfig

MARGIN = 1.1
"""What lies further out than the furthest system of the fitted sample by this factor counts as outside the family."""
EPS = torch.finfo(torch.float64).eps
CONSTANT = 1e-12
"""An entry whose spread over the family is below this share of its size counts as constant and is not read."""
ROUNDING = 16 * EPS
"""An entry below this share of the largest in its row and in its column is a rounding error: another processor has
another one, so it is not read."""


def signed_size(v: Tensor, reference: Tensor) -> Tensor:
    """Return the root mean square of each row of v, with the sign of its product with the reference.

    Parameters
    ----------
    v : Tensor, shape (B, m)
    reference : Tensor, shape (m,)

    Returns
    -------
    Tensor, shape (B,)
        Odd and homogeneous of degree one in v; 0 only where v is 0. Where the product vanishes to rounding, as for an
        odd right-hand side on a symmetric grid, the first entry above half the largest has the say.
    """
    largest = v.abs().amax(dim=-1, keepdim=True)
    unit = v / torch.where(largest > 0, largest, 1.0)  # the squares of 1e300 overflow
    rms = unit.square().mean(dim=-1).sqrt()
    size, side = largest[:, 0] * rms, unit @ reference
    tie = side.abs() <= 4 * EPS * v.shape[1] ** 1.5 * rms * reference.norm()
    first = unit.gather(1, (unit.abs() > 0.5).max(dim=1, keepdim=True).indices)[:, 0]
    return torch.where(torch.where(tie, first, side) < 0, -size, size)


def inverse_or_zero(v: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Return 1 / v, and 0 where v <= floor."""
    return torch.where(v > floor, 1.0 / v, 0.0)


class FamilyScaler(nn.Module):
    """The scaling and the z-scores of one family; its buffers are float64 and travel in the checkpoint."""

    A_weight: Tensor
    A_mean: Tensor
    A_inverse_std: Tensor
    b_mean: Tensor
    b_inverse_std: Tensor
    x_rms: Tensor
    reach: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        for name, shape in (("A_weight", (n, n)), ("A_inverse_std", (n, n)), ("b_inverse_std", (n,)), ("x_rms", (n,))):
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))
        self.register_buffer("A_mean", torch.zeros(n, n, dtype=torch.float64))
        self.register_buffer("b_mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("reach", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, A: Tensor, b: Tensor, x: Tensor) -> None:
        """Learn the statistics of a family from a sample: A (B, n, n), b and x (B, n), float64, B at least 2."""
        if len(A) < 2:
            raise ConfigurationError(f"the scaler needs at least 2 systems, received {len(A)}")
        rms = A.square().mean(dim=0).sqrt()
        rounding = ROUNDING * torch.minimum(rms.amax(dim=1, keepdim=True), rms.amax(dim=0, keepdim=True))
        self.A_weight.copy_(inverse_or_zero(rms, rounding))
        self.A_mean.copy_((A * self.A_weight).mean(dim=0))  # the reference that signs are taken against
        self.b_mean.fill_(1.0)
        A_scaled, b_scaled, size = self.scaled(A, b)
        self.A_mean.copy_(A_scaled.mean(dim=0))
        self.A_inverse_std.copy_(inverse_or_zero(A_scaled.std(dim=0), CONSTANT))
        self.b_mean.copy_(b_scaled.mean(dim=0))
        self.b_inverse_std.copy_(inverse_or_zero(b_scaled.std(dim=0), CONSTANT))
        unit = x / torch.where(size != 0, size, 1.0)[:, None]
        self.x_rms.copy_(unit.square().mean(dim=0).sqrt())
        self.reach.copy_(MARGIN * self.distance(A).max())

    def distance(self, A: Tensor) -> Tensor:
        """Return the root mean square (B,) of the z-scores of A: how far a matrix is from the middle of the family."""
        return ((self.scaled_matrix(A)[0] - self.A_mean) * self.A_inverse_std).square().mean(dim=(1, 2)).sqrt()

    def scaled_matrix(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Return A / s_A with each entry weighed by its size over the family, and s_A (B,)."""
        weighed = A * self.A_weight
        s_A = signed_size(weighed.flatten(1), self.A_mean.flatten())
        s_A = torch.where(s_A != 0, s_A, 1.0)
        return weighed / s_A[:, None, None], s_A

    def scaled(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled matrix, b / s_b, and s_b / s_A (B,)."""
        A_scaled, s_A = self.scaled_matrix(A)
        s_b = signed_size(b, torch.ones_like(b[0]))
        b_scaled = b / torch.where(s_b != 0, s_b, 1.0)[:, None]
        return A_scaled, b_scaled, s_b / s_A

    def forward(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z-scored A (B, n, n) and b (B, n), and the factor (B,) that `answer` needs."""
        A_scaled, b_scaled, size = self.scaled(A, b)
        return (A_scaled - self.A_mean) * self.A_inverse_std, (b_scaled - self.b_mean) * self.b_inverse_std, size

    def answer(self, y: Tensor, size: Tensor) -> Tensor:
        """Return x (B, n), float64, from the network's output y (B, n)."""
        return size[:, None] * (self.x_rms * y.double())


def column_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return the paper's tokens [a_i, b_i]: column i of A joined with entry i of b, shape (B, n, n + 1)."""
    return torch.cat((A.transpose(1, 2), b[:, :, None]), dim=2)


def row_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return one token per equation: row i of A joined with entry i of b, shape (B, n, n + 1)."""
    return torch.cat((A, b[:, :, None]), dim=2)


def column_b_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return column i of A joined with all of b, shape (B, n, 2 n)."""
    return torch.cat((A.transpose(1, 2), b[:, None, :].expand_as(A)), dim=2)


def entry_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return one token [a_ij, b_i] per entry of A, rows first, shape (B, n * n, 2): what the paper argues against."""
    return torch.stack((A, b[:, :, None].expand_as(A)), dim=3).flatten(1, 2)


TOKENS: dict[Encoding, Callable[[Tensor, Tensor], Tensor]] = {
    "column": column_tokens,
    "row": row_tokens,
    "column-b": column_b_tokens,
    "entry": entry_tokens,
}


class Tokens(nn.Module):
    """Tokens of a system in the width of the network, with learned positions if the network is to have them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Linear(config.token_width, config.n_embd)
        axes = 2 if config.encoding == "entry" else 1  # entry tokens have a row and a column position
        self.positions = nn.ParameterList(
            nn.Parameter(torch.empty(config.n_token if axes == 1 else config.n, config.n_embd))
            for _ in range(axes if config.architecture in ("transformer", "feedback") and config.positions else 0)
        )

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        """Return tokens (B, T, n_embd) from standardised A (B, n, n) and b (B, n)."""
        return self.embed(TOKENS[self.config.encoding](A, b))

    def embed(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, T, n_embd) from raw ones (B, T, token_width)."""
        tokens = self.embedding(tokens)
        match list(self.positions):
            case [column]:
                return tokens + column
            case [row, column]:
                return tokens + (row[:, None] + column).flatten(0, 1)  # (n, n, n_embd) -> (n * n, n_embd)
            case _:  # recurrent networks know the order; a Transformer may be made not to
                return tokens
