"""How a preconditioned head answers: columns of P A go in, corrections of P b come out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.reader import Arrays, Forward, by_column
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.models.inference.token_reader import ScaledReader, Statistics
from algebraformer.models.preconditioned import PreconditionedConfig
from algebraformer.models.scaling import PreconditionedScaling, signed_size
from algebraformer.numerics.preconditioner import Chosen, shared_matmul


def preconditioned_statistics(n: int) -> Statistics:
    """Return shape and dtype of every array of `PreconditionedScaling`."""
    matrices = ("inverse", "A_mean", "A_inverse_std")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(matrices, (n, n))
    shapes |= dict.fromkeys(("b_mean", "b_inverse_std"), (n,)) | dict.fromkeys(("x_rms", "max_distance"), ())
    return {name: (shape, np.float64) for name, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class CarriedInverse:
    """M = R P for B matrices, where R g is g and the network's correction of it: one pass for each product."""

    reader: PreconditionedReader
    forward: Forward
    tokens: NDArray[Any]
    """Tokens (B, n, n), float32, of the matrices."""
    s_A: FloatArray
    """Their sizes (B,)."""

    def __getitem__(self, chosen: Chosen) -> CarriedInverse:
        return dataclasses.replace(self, tokens=self.tokens[chosen], s_A=self.s_A[chosen])

    def left(self, r: FloatArray) -> FloatArray:
        """Return P r (B, n, k)."""
        return shared_matmul(self.reader.inverse, r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return R g (B, n, k)."""
        x = by_column(self._corrected, self.tokens, g)
        x /= self.s_A[:, None, None]
        return x

    def _corrected(self, tokens: NDArray[Any], g: FloatArray) -> FloatArray:
        size = signed_size(g, np.ones(g.shape[1]))
        unit = g / np.where(size != 0, size, 1.0)[:, None]
        (y,) = self.forward(tokens, unit.astype(np.float32))
        x: FloatArray = self.reader.answer_from(unit, y, size)
        return x


class PreconditionedReader(PreconditionedScaling, ScaledReader):
    """Preconditions A and b, and corrects P b by what the tokens say."""

    statistics = staticmethod(preconditioned_statistics)

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        PreconditionedConfig.of(config)

    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        carried = self.config.body.needs_right_side
        P_A, P_b, size = self.scaled(A, b)
        context = (P_b.astype(np.float32),) if carried else ()
        (y,) = forward(self.tokens(P_A, P_b, not carried).astype(np.float32), *context)
        return self.answer_from(P_b, y, size)

    def read_matrices(self, forward: Forward, A: FloatArray) -> MatrixReading:
        reading = super().read_matrices(forward, A)
        if not self.config.body.needs_right_side:
            return reading
        with np.errstate(over="ignore", invalid="ignore"):  # of matrices beyond float64
            P_A, s_A = self.scaled_matrix(A)
            tokens = self.tokens(P_A, None, with_b=False).astype(np.float32)
        return dataclasses.replace(reading, preconditioner=CarriedInverse(self, forward, tokens, s_A))
