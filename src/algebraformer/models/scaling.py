"""From a system (A, b) to scaled or standardised entries, and from the network's output back to x.

Two things happen here, both in float64, because raw entries of one collocation matrix span five decades:

1. Scaling. A is divided by a signed size s_A, b by s_b, and the answer is multiplied by s_b / s_A. So (c A, d b)
   gives (d / c) x to rounding for every c, d != 0, whatever the network does.
2. Standardising, for token heads. Each entry of the scaled A and b is z-scored over the family, and the output is
   multiplied by the root mean square of that entry of x over the family. Noisy families are scaled alone: entries of
   their matrices are constant over a family or nearly so, and z-scores would blow up what is left.

Departs from the paper: it says nothing about scaling. Entry-wise z-scores gave three times less error than row
equilibration in our measurements (LOG.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray

DISTANCE_MARGIN = 1.1
"""What lies further out than the furthest system of the fitted sample by this factor counts as outside the family."""
EPS = torch.finfo(torch.float64).eps
CONSTANT_RTOL = 1e-12
"""An entry whose spread over the family is below this share of its size counts as constant and is not read."""
ROUNDING = 16 * EPS
"""An entry below this share of the largest in its row and in its column is a rounding error: another processor has
another one, so it is not read."""
NEGLIGIBLE = 1e-18
"""Entries of A below this share of the largest are read as zero: products of numbers near underflow take processors a
hundred times as long."""


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
        odd right-hand side on a symmetric grid, the first entry above half the largest decides.
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
    max_distance: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        for name, shape in (("A_weight", (n, n)), ("A_inverse_std", (n, n)), ("b_inverse_std", (n,)), ("x_rms", (n,))):
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))
        self.register_buffer("A_mean", torch.zeros(n, n, dtype=torch.float64))
        self.register_buffer("b_mean", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("max_distance", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, A: Tensor, b: Tensor, x: Tensor) -> None:
        """Learn the statistics of a family from a sample: A (B, n, n), b and x (B, n), float64, B at least 2."""
        if len(A) < 2:
            raise ConfigurationError(f"the scaler needs at least 2 systems, received {len(A)}")
        # 1. Weights: each entry by its size over the family, rounding errors not at all.
        rms = A.square().mean(dim=0).sqrt()
        rounding = ROUNDING * torch.minimum(rms.amax(dim=1, keepdim=True), rms.amax(dim=0, keepdim=True))
        self.A_weight.copy_(inverse_or_zero(rms, rounding))

        # 2. z-scores of the scaled entries; the signs of the sizes are taken against the mean of the unscaled ones.
        self.A_mean.copy_((A * self.A_weight).mean(dim=0))
        self.b_mean.fill_(1.0)
        A_scaled, b_scaled, size = self.scaled(A, b)
        self.A_mean.copy_(A_scaled.mean(dim=0))
        self.A_inverse_std.copy_(inverse_or_zero(A_scaled.std(dim=0), CONSTANT_RTOL))
        self.b_mean.copy_(b_scaled.mean(dim=0))
        self.b_inverse_std.copy_(inverse_or_zero(b_scaled.std(dim=0), CONSTANT_RTOL))

        # 3. Size of the answers, and distance of the furthest matrix.
        unit = x / torch.where(size != 0, size, 1.0)[:, None]
        self.x_rms.copy_(unit.square().mean(dim=0).sqrt())
        self.max_distance.copy_(DISTANCE_MARGIN * self.distance(A).max())

    def distance(self, A: Tensor) -> Tensor:
        """Return the root mean square (B,) of the z-scores of A: how far a matrix is from the middle of the family."""
        return ((self.scaled_matrix(A)[0] - self.A_mean) * self.A_inverse_std).square().mean(dim=(1, 2)).sqrt()

    def scaled_matrix(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Return A / s_A with each entry weighted by its size over the family, and s_A (B,)."""
        weighted = A * self.A_weight
        s_A = signed_size(weighted.flatten(1), self.A_mean.flatten())
        s_A = torch.where(s_A != 0, s_A, 1.0)
        return weighted / s_A[:, None, None], s_A

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


class ScaledSystems(NamedTuple):
    """Noisy systems divided by their sizes."""

    A: FloatArray
    """A / s_A (B, m, n), where ||A^T A||_F = 1."""
    b: FloatArray
    """b / s_b (B, m), of mean square one."""
    size: FloatArray
    """s_b / s_A (B,): an answer y to the scaled system is size * y to the caller's."""


def scale_systems(A: FloatArray, b: FloatArray) -> ScaledSystems:
    """Divide A (B, m, n) and b (B, m) by signed sizes, so that (c A, d b) gives (d / c) x for every c, d != 0."""
    # 1. By the largest entry, so that fourth powers of entries stay within float64.
    flat = A.reshape(len(A), -1)
    largest = np.abs(flat).max(axis=1, initial=0.0)
    unit = A / np.where(largest > 0, largest, 1.0)[:, None, None]
    unit[np.abs(unit) < NEGLIGIBLE] = 0

    # 2. By the size.
    gram = unit.mT @ unit
    s_A = largest * np.sqrt(np.sqrt(np.sum(gram**2, axis=(1, 2)))) * row_signs(flat)
    s_A = np.where(s_A != 0, s_A, 1.0)
    left = (largest / s_A)[:, None, None]

    s_b = signed_size(torch.from_numpy(b), torch.ones(b.shape[1], dtype=torch.float64)).numpy()
    return ScaledSystems(unit * left, b / np.where(s_b != 0, s_b, 1.0)[:, None], s_b / s_A)


def row_signs(v: FloatArray) -> FloatArray:
    """Return the sign (B,) of the sum of each row of v, of its first large entry where the sum is rounding."""
    size = signed_size(torch.from_numpy(np.ascontiguousarray(v)), torch.ones(v.shape[1], dtype=torch.float64))
    return size.sign().numpy()
