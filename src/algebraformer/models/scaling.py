"""From a system (A, b) to scaled or standardised entries, and from the network's output back to x.

Two things happen here, both in float64, because raw entries of one collocation matrix span five decades:

1. Scaling. A is divided by a signed size s_A, b by s_b, and the answer is multiplied by s_b / s_A. So (c A, d b)
   gives (d / c) x to rounding for every c, d != 0, whatever the network does.
2. Standardising, for token heads. Each entry of the scaled A and b is z-scored over the family, and the output is
   multiplied by the root mean square of that entry of x over the family. Noisy families are scaled alone: entries of
   their matrices are constant over a family or nearly so, and z-scores would blow up what is left.

The same lines work on arrays of NumPy, for solving, and on tensors of torch, for training and for gradients to A and b:
`xp` is one of the two libraries.

Departs from the paper: it says nothing about scaling. Entry-wise z-scores gave three times less error than row
equilibration in our measurements (LOG.md).
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from algebraformer.linalg import EPS, FloatArray

DISTANCE_MARGIN = 1.1
"""What lies further out than the furthest system of the fitted sample by this factor counts as outside the family."""
NEGLIGIBLE = 1e-18
"""Entries of A below this share of the largest are read as zero: products of numbers near underflow take processors a
hundred times as long."""


def signed_size(v: Any, reference: Any, xp: Any = np) -> Any:
    """Return the root mean square of each row of v, with the sign of its product with the reference.

    Parameters
    ----------
    v : array, shape (B, m)
    reference : array, shape (m,)
    xp : module
        NumPy or torch, whichever the arrays are of.

    Returns
    -------
    array, shape (B,)
        Odd and homogeneous of degree one in v; 0 only where v is 0. Where the product vanishes to rounding, as for an
        odd right-hand side on a symmetric grid, the first entry above half the largest decides.

    Examples
    --------
    >>> signed_size(np.array([[3.0, 4.0], [-3.0, -4.0], [1.0, -1.0]]), np.ones(2))
    array([ 3.53553391, -3.53553391,  1.        ])
    """
    largest = xp.amax(abs(v), axis=-1, keepdims=True)
    unit = v / xp.where(largest > 0, largest, 1.0)  # the squares of 1e300 overflow
    rms = xp.sqrt(xp.mean(unit**2, axis=-1))
    size, side = largest[:, 0] * rms, unit @ reference
    tie = abs(side) <= 4 * EPS * v.shape[1] ** 1.5 * rms * xp.sqrt(xp.sum(reference**2))
    first = unit[xp.arange(len(v)), xp.argmax(xp.asarray(abs(unit) > 0.5, dtype=xp.uint8), axis=1)]
    return xp.where(xp.where(tie, first, side) < 0, -size, size)


class Scaling:
    """The scaling and the z-scores of one family, from its statistics: arrays of `xp`, float64."""

    xp: ClassVar[Any] = np
    A_weight: Any
    """(n, n), and so are mean and reciprocal standard deviation."""
    A_mean: Any
    A_inverse_std: Any
    b_mean: Any
    """(n,), and so are the others."""
    b_inverse_std: Any
    x_rms: Any
    max_distance: Any
    """How far a matrix of the family may be from its middle."""

    def distance(self, A: Any) -> Any:
        """Return the root mean square (B,) of the z-scores of A: how far a matrix is from the middle of the family."""
        z = (self.scaled_matrix(A)[0] - self.A_mean) * self.A_inverse_std
        return self.xp.sqrt(self.xp.mean(z**2, axis=(1, 2)))

    def scaled_matrix(self, A: Any) -> tuple[Any, Any]:
        """Return A / s_A with each entry weighted by its size over the family, and s_A (B,)."""
        weighted = A * self.A_weight
        s_A = signed_size(weighted.reshape(len(A), -1), self.A_mean.reshape(-1), self.xp)
        s_A = self.xp.where(s_A != 0, s_A, 1.0)
        return weighted / s_A[:, None, None], s_A

    def scaled(self, A: Any, b: Any) -> tuple[Any, Any, Any]:
        """Return the scaled matrix, b / s_b, and s_b / s_A (B,)."""
        A_scaled, s_A = self.scaled_matrix(A)
        s_b = signed_size(b, self.xp.ones_like(self.b_mean), self.xp)
        b_scaled = b / self.xp.where(s_b != 0, s_b, 1.0)[:, None]
        return A_scaled, b_scaled, s_b / s_A

    def standardized(self, A: Any, b: Any) -> tuple[Any, Any, Any]:
        """Return z-scored A (B, n, n) and b (B, n), and the factor (B,) that `answer` needs."""
        A_scaled, b_scaled, size = self.scaled(A, b)
        return (A_scaled - self.A_mean) * self.A_inverse_std, (b_scaled - self.b_mean) * self.b_inverse_std, size

    def answer(self, y: Any, size: Any) -> Any:
        """Return x (B, n), float64, from the network's output y (B, n)."""
        return size[:, None] * (self.x_rms * y)


class PreconditionedScaling(Scaling):
    """The same for P A x = P b, where P is the inverse of the family's mean matrix: P A is the identity and a little.

    The size of A is the mean of the diagonal of P A. `A_mean` and `A_inverse_std` are those of P A for A of size one;
    the answer is P b plus `x_rms` times the network's output.
    """

    inverse: Any
    """P (n, n)."""

    def scaled(self, A: Any, b: Any) -> tuple[Any, Any, Any]:
        """Return P A, P b divided by its signed size, and the factor (B,) that `answer_from` needs."""
        P_A, s_A = self.scaled_matrix(A)
        ones = self.xp.ones_like(self.b_mean)
        s_b = signed_size(b, ones, self.xp)
        P_b = (b / self.xp.where(s_b != 0, s_b, 1.0)[:, None]) @ self.inverse.T
        s_P = signed_size(P_b, ones, self.xp)
        return P_A, P_b / self.xp.where(s_P != 0, s_P, 1.0)[:, None], s_b * s_P / s_A

    def scaled_matrix(self, A: Any) -> tuple[Any, Any]:
        """Return P A (B, n, n) for A of size one, and the size s_A (B,)."""
        P_A = self.inverse @ A
        s_A = self.xp.einsum("bii->b", P_A) / P_A.shape[1]
        s_A = self.xp.where(s_A != 0, s_A, 1.0)
        return P_A / s_A[:, None, None], s_A

    def tokens(self, P_A: Any, P_b: Any, with_b: bool) -> Any:
        """Return the tokens (B, n, n) or (B, n, n + 1), float64: z-scored columns, with entries of P b or without."""
        columns = ((P_A - self.A_mean) * self.A_inverse_std).mT
        if not with_b:
            return columns
        return self.xp.concatenate((columns, ((P_b - self.b_mean) * self.b_inverse_std)[:, :, None]), axis=2)

    def answer_from(self, P_b: Any, y: Any, size: Any) -> Any:
        """Return x (B, n), float64, from P b of size one and the network's output y (B, n)."""
        return size[:, None] * (P_b + self.x_rms * y)


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
    sign = np.sign(signed_size(flat, np.ones(flat.shape[1])))
    s_A = largest * np.sqrt(np.sqrt(np.sum(gram**2, axis=(1, 2)))) * sign
    s_A = np.where(s_A != 0, s_A, 1.0)
    left = (largest / s_A)[:, None, None]

    s_b = signed_size(b, np.ones(b.shape[1]))
    return ScaledSystems(unit * left, b / np.where(s_b != 0, s_b, 1.0)[:, None], s_b / s_A)
