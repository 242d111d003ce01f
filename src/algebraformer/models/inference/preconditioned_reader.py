"""How a preconditioned head answers: columns of P A go in, corrections of P b come out."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.reader import Arrays, ColumnReader, Forward
from algebraformer.models.inference.token_reader import PREFIX
from algebraformer.models.preconditioned import PreconditionedConfig
from algebraformer.models.scaling import PreconditionedScaling


def preconditioned_statistics(n: int) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
    """Return shape and dtype of every array of `PreconditionedScaling`."""
    matrices = ("A_weight", "A_reference", "inverse", "A_mean", "A_inverse_std")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(matrices, (n, n))
    shapes |= dict.fromkeys(("b_mean", "b_inverse_std"), (n,)) | dict.fromkeys(("x_rms", "max_distance"), ())
    return {name: (shape, np.float64) for name, shape in shapes.items()}


class PreconditionedReader(ColumnReader, PreconditionedScaling):
    """Preconditions A and b, and corrects P b by what the tokens say."""

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        PreconditionedConfig.of(config)
        for name in preconditioned_statistics(config.n):
            setattr(self, name, buffers[PREFIX + name])

    @staticmethod
    def buffers(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        return {PREFIX + name: kind for name, kind in preconditioned_statistics(config.n).items()}

    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        carried = self.config.body.needs_right_side
        P_A, P_b, size = self.preconditioned(A, b)
        context = (P_b.astype(np.float32),) if carried else ()
        (y,) = forward(self.tokens(P_A, P_b, not carried).astype(np.float32), *context)
        return self.answer_from(P_b, y, size)

    def in_distribution(self, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices (B, n, n) are no further from the middle of the family than its sample was."""
        with np.errstate(over="ignore", invalid="ignore"):  # of matrices beyond float64
            near: NDArray[np.bool_] = self.distance(A) <= self.max_distance
        return near
