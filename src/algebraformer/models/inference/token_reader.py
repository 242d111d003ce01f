"""How a token head answers: standardised systems go in, x comes out of the tokens."""

from __future__ import annotations

import abc

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig, TokenConfig
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.inference.reader import Arrays, ColumnReader, Forward
from algebraformer.models.scaling import Scaling

PREFIX = "scaler."
"""Of the names of the statistics among the buffers of a head."""


Statistics = dict[str, tuple[tuple[int, ...], DTypeLike]]


def statistics(n: int) -> Statistics:
    """Return shape and dtype of every array of `Scaling`."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("A_weight", "A_mean", "A_inverse_std"), (n, n))
    shapes |= dict.fromkeys(("b_mean", "b_inverse_std", "x_rms"), (n,)) | {"max_distance": ()}
    return {name: (shape, np.float64) for name, shape in shapes.items()}


class ScaledReader(ColumnReader, Scaling):
    """A reader that scales systems by statistics of their family, which tell its matrices from others."""

    @staticmethod
    @abc.abstractmethod
    def statistics(n: int) -> Statistics:
        """Return shape and dtype of every statistic."""

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        for name in self.statistics(config.n):
            setattr(self, name, buffers[PREFIX + name])

    @classmethod
    def buffers(cls, config: ModelConfig) -> Statistics:
        return {PREFIX + name: kind for name, kind in cls.statistics(config.n).items()}

    def in_distribution(self, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices (B, n, n) are no further from the middle of the family than its sample was."""
        with np.errstate(over="ignore", invalid="ignore"):  # of matrices beyond float64
            near: NDArray[np.bool_] = self.distance(A) <= self.max_distance
        return near


class TokenReader(ScaledReader):
    """Standardises A and b, and takes x from the tokens."""

    statistics = staticmethod(statistics)

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        self.encoding = ENCODINGS[TokenConfig.of(config).encoding]

    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        A_z, b_z, size = self.standardized(A, b)
        (y,) = forward(self.encoding.tokens(A_z.astype(np.float32), b_z.astype(np.float32), np))
        x: FloatArray = self.answer(y, size)
        return x
