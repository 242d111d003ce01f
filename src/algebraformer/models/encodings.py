"""How a token head reads a system: raw tokens, before their embedding, and the registry of their encodings.

The same lines work on arrays of NumPy, for solving, and on tensors of torch, for training: `xp` is one of the two.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, TypeVar

from algebraformer.models.registry import Registry


class Encoding(abc.ABC):
    """How a system becomes tokens, and how one number per token becomes x.

    An encoding of one's own derives from this class and is registered with `register_encoding`. Token i gives x_i
    unless `unknowns` says otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> @register_encoding("both")
    ... class Both(Encoding):
    ...     def token_width(self, n):
    ...         return 2 * n + 1
    ...     def tokens(self, A, b, xp):
    ...         return xp.concatenate((A, A.mT, b[:, :, None]), axis=2)
    >>> ENCODINGS["both"].tokens(np.ones((3, 4, 4)), np.ones((3, 4)), np).shape
    (3, 4, 9)
    """

    def n_token(self, n: int) -> int:
        """Return the number T of tokens of a system of n unknowns."""
        return n

    @abc.abstractmethod
    def token_width(self, n: int) -> int:
        """Return the number of values in a token."""

    def position_shape(self, n: int) -> tuple[int, ...]:
        """Return how the T tokens are laid out; every axis gets learned positions of its own, two at most."""
        return (self.n_token(n),)

    @abc.abstractmethod
    def tokens(self, A: Any, b: Any, xp: Any) -> Any:
        """Return the tokens (B, T, token_width) of standardised A (B, n, n) and b (B, n).

        Parameters
        ----------
        A, b : array
            Of `xp`, float32.
        xp : module
            NumPy or torch.
        """

    def unknowns(self, y: Any, n: int) -> Any:
        """Return the standardised x (B, n) from what was read of the tokens, y (B, T)."""
        return y


SomeEncoding = TypeVar("SomeEncoding", bound=Encoding)
ENCODINGS: Registry[Encoding] = Registry("encoding", "encoding")
"""Encodings of token heads by name."""


def register_encoding(name: str) -> Callable[[type[SomeEncoding]], type[SomeEncoding]]:
    """Class decorator: make an encoding known under a name, as `TokenConfig.encoding` in configurations and recipes.

    Raises
    ------
    ConfigurationError
        Another encoding has the name.
    """

    def add(cls: type[SomeEncoding]) -> type[SomeEncoding]:
        ENCODINGS.add(name, cls(), cls)
        return cls

    return add


@register_encoding("column")
class ColumnEncoding(Encoding):
    """The paper's tokens [a_i, b_i]: column i of A joined with entry i of b."""

    def token_width(self, n: int) -> int:
        return n + 1

    def tokens(self, A: Any, b: Any, xp: Any) -> Any:
        return xp.concatenate((A.mT, b[:, :, None]), axis=2)


@register_encoding("row")
class RowEncoding(Encoding):
    """One token per equation: row i of A joined with entry i of b."""

    def token_width(self, n: int) -> int:
        return n + 1

    def tokens(self, A: Any, b: Any, xp: Any) -> Any:
        return xp.concatenate((A, b[:, :, None]), axis=2)


@register_encoding("column-b")
class ColumnBEncoding(Encoding):
    """Column i of A joined with all of b."""

    def token_width(self, n: int) -> int:
        return 2 * n

    def tokens(self, A: Any, b: Any, xp: Any) -> Any:
        return xp.concatenate((A.mT, xp.broadcast_to(b[:, None, :], A.shape)), axis=2)


@register_encoding("entry")
class EntryEncoding(Encoding):
    """One token [a_ij, b_i] per entry of A, rows first: what the paper argues against. x_j is the mean over rows."""

    def n_token(self, n: int) -> int:
        return n**2

    def token_width(self, n: int) -> int:
        return 2

    def position_shape(self, n: int) -> tuple[int, ...]:
        return (n, n)

    def tokens(self, A: Any, b: Any, xp: Any) -> Any:
        pairs = xp.concatenate((A[..., None], xp.broadcast_to(b[:, :, None], A.shape)[..., None]), axis=3)
        return pairs.reshape(len(A), -1, 2)

    def unknowns(self, y: Any, n: int) -> Any:
        return y.reshape(-1, n, n).mean(1)  # (B, row, column) -> (B, column)
