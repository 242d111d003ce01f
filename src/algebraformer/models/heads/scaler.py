"""The scaling of a family as a module: its statistics are buffers, which travel in the checkpoint."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS
from algebraformer.models.heads.base import torch_dtype
from algebraformer.models.inference.preconditioned_reader import preconditioned_statistics
from algebraformer.models.inference.token_reader import statistics
from algebraformer.models.scaling import DISTANCE_MARGIN, PreconditionedScaling, Scaling, signed_size

CONSTANT_RTOL = 1e-12
"""An entry whose spread over the family is below this share of its size counts as constant and is not read."""
PRECONDITIONED_RTOL = 1e-7
"""The same for P A, whose rounding errors are those of A times condition numbers of 1e5 and more; below this share of
the largest spread."""
ROUNDING = 16 * EPS
"""An entry below this share of the largest in its row and in its column is a rounding error: another processor has
another one, so it is not read."""


def inverse_or_zero(v: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Return 1 / v, and 0 where v <= floor."""
    return torch.where(v > floor, 1.0 / v, 0.0)


class FamilyScaler(nn.Module, Scaling):
    """The scaling and the z-scores of one family; its buffers are float64 and travel in the checkpoint."""

    xp: ClassVar[Any] = torch
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
        for name, (shape, dtype) in statistics(n).items():
            zero = name in ("A_mean", "b_mean", "max_distance")
            self.register_buffer(name, torch.full(shape, 0.0 if zero else 1.0, dtype=torch_dtype(dtype)))

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

    def forward(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z-scored A (B, n, n) and b (B, n), and the factor (B,) that `answer` needs."""
        return self.standardized(A, b)


class PreconditionedScaler(nn.Module, PreconditionedScaling):
    """The scaling of preconditioned systems of one family; its buffers are float64 and travel in the checkpoint."""

    xp: ClassVar[Any] = torch
    inverse: Tensor
    A_mean: Tensor
    A_inverse_std: Tensor
    b_mean: Tensor
    b_inverse_std: Tensor
    x_rms: Tensor
    max_distance: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        for name, (shape, dtype) in preconditioned_statistics(n).items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch_dtype(dtype)))
        self.x_rms.fill_(1.0)

    @torch.no_grad()
    def fit(self, A: Tensor, b: Tensor, x: Tensor) -> None:
        """Learn the statistics of a family from a sample: A (B, n, n), b and x (B, n), float64, B at least 2."""
        if len(A) < 2:
            raise ConfigurationError(f"the scaler needs at least 2 systems, received {len(A)}")
        # 1. The inverse of the mean matrix; matrices that are multiples of each other count alike.
        size = signed_size(A.flatten(1), A.mean(dim=0).flatten(), torch)
        mean = (A / torch.where(size != 0, size, 1.0)[:, None, None]).mean(dim=0)
        try:
            self.inverse.copy_(torch.from_numpy(np.linalg.inv(mean.numpy(force=True))))
        except np.linalg.LinAlgError as error:
            raise ConfigurationError("the mean of the family's matrices is singular: choose another head") from error

        # 2. z-scores of what P leaves. Entries that do not vary hold rounding errors alone.
        P_A, P_b, size = self.scaled(A, b)
        std = P_A.std(dim=0)
        self.A_mean.copy_(P_A.mean(dim=0))
        self.A_inverse_std.copy_(inverse_or_zero(std, PRECONDITIONED_RTOL * std.max()))
        self.b_mean.copy_(P_b.mean(dim=0))
        self.b_inverse_std.copy_(inverse_or_zero(P_b.std(dim=0), CONSTANT_RTOL))

        # 3. How much P b leaves of x, and the distance of the furthest matrix.
        unit = x / torch.where(size != 0, size, 1.0)[:, None]
        rest = (unit - P_b).square().mean().sqrt()
        self.x_rms.copy_(torch.where(rest > 0, rest, 1.0))
        self.max_distance.copy_(DISTANCE_MARGIN * self.distance(A).max())
