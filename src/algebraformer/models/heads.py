"""What is read from the tokens after the last block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.numerics import sine_tiles
from algebraformer.numerics.entry_sampler import EntrySampler
from algebraformer.numerics.forward_error import MAX_DEFECT
from algebraformer.numerics.operator_basis import LEADING, OperatorBasis, inverse_weighted_metric
from algebraformer.numerics.preconditioner import ApproximateInverse
from algebraformer.numerics.sine_tiles import TiledInverse, TiledOperators

DEFECT_MARGIN = 4.0
"""Vectors unlike the family's right-hand sides leave a larger share than these: 2 to 5 times, random ones and A x with
random x, on the shipped families (LOG.md, 2026-11-26)."""


def distance_of(z: FloatArray) -> FloatArray:
    """Return the root mean square (B,) of z-scored entries z (B, q, m): how far a matrix is from the family's mean."""
    return np.sqrt(np.mean(z**2, axis=(1, 2)))


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


class OperatorHead(nn.Module):
    """One linear map of all tokens together to the coefficients of the inverse, and the basis these refer to.

    Departs from the paper, whose network returns x. The buffers hold an `OperatorBasis`; they travel in the checkpoint,
    components from number 32 on in float16.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        n, R, m, q = config.n, config.rank, config.n_row, config.n_column
        self.linear = nn.Linear(config.n_token * width, R)
        lead = min(R, LEADING)
        for name, shape, dtype in (
            ("rows", (m,), torch.int64),
            ("columns", (q,), torch.int64),
            ("weight", (m, q), torch.float64),
            ("mean", (m, q), torch.float64),
            ("inverse_std", (m, q), torch.float64),
            ("A_mean", (n, n), torch.float64),
            ("T_mean", (n, n), torch.float32),
            ("leading", (lead, n, n), torch.float32),
            ("others", (R - lead, n, n), torch.float16),
            ("sigma", (R,), torch.float64),
            ("size", (), torch.float64),
            ("reach", (), torch.float64),
            ("first_step", (), torch.float64),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        if config.whiten:
            self.register_buffer("whitening", torch.zeros((q * m, q * m), dtype=torch.float64))
        self.balance = config.balance
        self._basis: OperatorBasis | None = None
        self._operators: OperatorBasis | TiledOperators | None = None

    def forward(self, h: Tensor) -> Tensor:
        """Return the coefficients (B, R), float32, from tokens (B, T, width)."""
        return self.linear(h.flatten(1)) * self.scale_of_coefficients()

    def scale_of_coefficients(self) -> Tensor:
        """Return the typical size of each coefficient (R,), float32."""
        return (self.get_buffer("sigma") * self.get_buffer("size")).float()

    def loss(self, c: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the weighed mean square of c - target (B, R), relative to that of c = 0 over the family."""
        error = ((c - target).square().sum(dim=1) * weight.square()).mean()
        return error / self.get_buffer("sigma").square().sum().float()

    @torch.no_grad()
    def set_basis(self, basis: OperatorBasis) -> None:
        """Take over a basis."""
        lead = len(self.get_buffer("leading"))
        values = {
            **{name: getattr(basis.sampler, name) for name in ("rows", "columns", "weight", "mean", "inverse_std")},
            **{name: getattr(basis, name) for name in ("A_mean", "T_mean")},
            "sigma": basis.coefficient_rms,
            "size": np.array(basis.scale),
            "leading": basis.components[:lead],
            "others": basis.components[lead:],
        }
        if basis.sampler.whitening is not None:
            values["whitening"] = basis.sampler.whitening
        for name, value in values.items():
            self.get_buffer(name).copy_(torch.from_numpy(np.array(value)))
        self._basis = None

    def distance(self, A: FloatArray) -> FloatArray:
        """Return the root mean square (B,) of the z-scores of the entries that are read of A (B, n, n)."""
        return distance_of(self.basis.sampler(A)[0])

    def max_distance(self) -> float:
        """Return the largest distance from the mean at which a matrix counts as in distribution."""
        return float(self.get_buffer("reach"))

    def max_defect(self) -> float:
        """Return the largest share of L b, or of a random vector, that M A may leave of a matrix in distribution."""
        usual = DEFECT_MARGIN * float(self.get_buffer("first_step"))
        return min(MAX_DEFECT, usual) if np.isfinite(usual) else 0.0

    def inverse_of(self, c: NDArray[np.floating], s: FloatArray) -> ApproximateInverse | TiledInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and sizes s (B,).

        By the basis, or in fewer operations where `tiled_operators.compress` finds a way.
        """
        basis = self.basis
        if self._operators is None:
            self._operators = sine_tiles.compress(basis) or basis
        return self._operators.inverse_of(c, s)

    @property
    def basis(self) -> OperatorBasis:
        """The basis in NumPy; made from the buffers when it is first asked for.

        Raises `ConfigurationError` if the buffers hold no basis.
        """
        if self._basis is None:
            # Copies: sending a model to another process makes torch move its tensors, and leaves views behind.
            arrays = {name: buffer.cpu().numpy().copy() for name, buffer in self.named_buffers()}
            n = len(arrays["A_mean"])
            for name in ("rows", "columns"):
                if not ((arrays[name] >= 0) & (arrays[name] < n)).all():
                    raise ConfigurationError(f"{name} of an operator head must be from 0 to {n - 1}")
            try:
                inverse = np.linalg.inv(arrays["A_mean"])
            except np.linalg.LinAlgError:
                raise ConfigurationError(
                    "the mean matrix of an operator head is singular: no basis was fitted"
                ) from None
            self._operators = None
            names = ("rows", "columns", "weight", "mean", "inverse_std", "whitening")
            sampler = EntrySampler(*(arrays[name] for name in names if name in arrays))
            self._basis = OperatorBasis(
                sampler=sampler,
                A_mean=arrays["A_mean"],
                inverse=inverse,
                operators=np.concatenate(
                    (arrays["T_mean"][None], arrays["leading"], arrays["others"]), dtype=np.float32
                ),
                coefficient_rms=arrays["sigma"],
                scale=float(arrays["size"]),
                spectrum=np.empty(0),
                metric=inverse_weighted_metric(arrays["A_mean"]) if self.balance else None,
            )
        return self._basis
