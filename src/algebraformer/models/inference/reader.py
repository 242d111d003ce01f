"""What a reader is: the part of a head that solving needs, in NumPy."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, answer_scores
from algebraformer.models.config import ModelConfig
from algebraformer.models.inference.reading import Estimates, MatrixReading
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.progress import slices

Singles = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
Forward = Callable[..., tuple[Singles, ...]]
"""Body and read-out of a network: takes what a reader makes of B systems, returns the outputs that it asks for."""
BATCH_SIZE = 128
"""Systems per forward pass."""


class Configured(Protocol):
    """Whatever has the configuration of a network."""

    config: ModelConfig


def max_batch_size(n: int) -> int:
    """Return how many approximate inverses of size n are kept in memory: 256 MB of them."""
    return max(1, min(1024, 2**26 // n**2))


def unable(network: Configured, needed: str) -> ConfigurationError:
    """Return the error that a network has the wrong head for something; `needed` says which one it takes."""
    name = network.config.head.name
    return ConfigurationError(f"this model has {'an' if name[0] in 'aeiou' else 'a'} {name} head: {needed}")


def not_linear(network: Configured) -> ConfigurationError:
    """Return the error that a network gives no approximate inverse."""
    return unable(network, "only linear heads, such as operator heads, approximate the inverse itself")


def not_estimating(network: Configured) -> ConfigurationError:
    """Return the error that a network makes no estimates from noisy systems."""
    return unable(network, "only estimate heads take noisy b")


class HeadChecks:
    """What all kinds of network say of their head, and how many systems they read at a time."""

    config: ModelConfig

    def check_linear(self) -> None:
        """Raise `ConfigurationError` unless the head approximates the inverse itself."""
        if not self.config.head.is_linear:
            raise not_linear(self)

    def check_estimates(self) -> None:
        """Raise `ConfigurationError` unless the head makes estimates from noisy systems."""
        if not self.config.head.estimates:
            raise not_estimating(self)

    def blocks(self, count: int) -> list[slice]:
        """Return slices of `count` systems to read at a time: here for torch, which has threads of its own."""
        return slices(count, max_batch_size(self.config.n))


class Reader(abc.ABC):
    """What solving needs of one kind of head. Methods take the `forward` pass of the network whose head it is.

    Parameters
    ----------
    config : ModelConfig
        Of the whole network.
    buffers : mapping of str to ndarray
        What the head knows of its family: the arrays that `buffers` lists.

    Raises
    ------
    ConfigurationError
        The buffers make no sense together.
    """

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        self.config = config

    @staticmethod
    @abc.abstractmethod
    def buffers(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        """Return shape and dtype of every buffer."""

    @abc.abstractmethod
    def predict(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n, k) for A (B, m, n) and b (B, m, k), a limited number of systems at a time."""

    def in_distribution(self, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices A (B, n, n) look like the family; all of them, where A alone does not tell."""
        return np.ones(len(A), dtype=bool)

    def read_matrices(self, forward: Forward, A: FloatArray) -> MatrixReading:
        """Read matrices A (B, n, n), float64 or complex128, once for all right-hand sides."""
        return MatrixReading(A, self.in_distribution(A), lambda A, b: self.predict(forward, A, b))

    def read_inverse(self, forward: Forward, A: Entries) -> LinearInverse:
        """Return the approximate inverses of A (B, n, n); `ConfigurationError` if the head is not linear in b."""
        raise not_linear(self)

    def estimates(self, forward: Forward, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates for A (B, m, n) and b (B, m); `ConfigurationError` if the head makes none."""
        raise not_estimating(self)

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits ||A x - b|| / (noise ||b||) of estimates are like those of the family's systems."""
        raise not_estimating(self)

    def scores(self, forward: Forward, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare network on systems of its family."""
        return answer_scores(self.predict(forward, systems.A, systems.b[:, :, None])[:, :, 0], systems)


class ColumnReader(Reader):
    """A reader to which every right-hand side is a system of its own: not linear in b."""

    @abc.abstractmethod
    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n) for A (B, m, n) and b (B, m)."""

    def predict(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):  # of systems and answers beyond float64
            return by_column(lambda A, b: self.answer_columns(forward, A, b), A, b)


def by_column(answer: Callable[[FloatArray, FloatArray], FloatArray], A: FloatArray, b: FloatArray) -> FloatArray:
    """Return x (B, n, k) from a function to which every right-hand side is a system of its own.

    Parameters
    ----------
    answer : callable
        answer(A, b) -> x (C, n), float64, for A (C, m, n) and b (C, m), a limited number C of systems.
    A : ndarray, shape (B, m, n)
    b : ndarray, shape (B, m, k)

    Returns
    -------
    ndarray, float64
        The answers one after the other where they do not have n entries: the function is broken.
    """
    B, m, k = b.shape
    n = A.shape[2]
    flat, owner = np.ascontiguousarray(b.transpose(0, 2, 1)).reshape(B * k, m), np.arange(B).repeat(k)
    parts = [answer(A[owner[chunk]], flat[chunk]) for chunk in slices(B * k, BATCH_SIZE)]
    x = np.concatenate(parts) if parts else np.empty((0, n))
    return x.reshape(B, k, n).transpose(0, 2, 1) if x.shape == (B * k, n) else x
