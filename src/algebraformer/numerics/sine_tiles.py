"""The basis operators of a large family in few numbers: tiles of them in a basis of sines.

For n from a few hundred on, forming T = Tbar + sum_r c_r T_r costs more than all the rest of a solve. The operators of
boundary value problems are smooth kernels and multiplications by smooth functions: in sines over the Chebyshev points
all of them live near the diagonal, and where the coefficients of the equation are even, in the blocks that join modes
of the same parity. So every operator is transformed by the orthogonal matrix P of sines, the modes ordered by parity,
and only the tiles that hold any of the family are kept:

    M(A) = P^T Y(A) P Abar^-1 / s,   Y(A) = sum of the kept tiles of P T P^T.

What is left out is below `TRUNCATION_RTOL` of the whole, weighted as the family uses it. Families that do not become
sparse this way keep their dense operators.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import namespace
from algebraformer.linalg import FloatArray
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import Chosen, linear_combination, shared_matmul, to_scaled_float32

TILE = 32
"""Rows and columns of a tile."""
MIN_N = 256
"""Below this n the dense operators are as fast."""
TRUNCATION_RTOL = 1e-3
"""Share of the operators, weighted by their typical coefficients, that may be left out (root of the sum of squares)."""
MAX_KEPT_SHARE = 0.5
"""Families that need more than this share of all tiles keep their dense operators."""


@dataclasses.dataclass(frozen=True)
class TiledOperators:
    """What `compress` returns.

    Attributes
    ----------
    transform : ndarray, shape (n, n), float32
        The orthogonal matrix P.
    left : ndarray, shape (n, n), float64
        P Abar^-1.
    columns : list of ndarray of int
        For every row of tiles, the columns of P T P^T that are kept.
    operators : ndarray, shape (1 + R, E), float32
        Their entries, one row of tiles after the other.
    """

    transform: NDArray[np.float32]
    left: FloatArray
    columns: list[NDArray[np.int64]]
    operators: NDArray[np.float32]

    def inverse_of(self, c: NDArray[np.floating], s: FloatArray) -> TiledInverse:
        """Return the approximate inverses of B matrices, as `OperatorBasis.inverse_of` does."""
        return TiledInverse(linear_combination(c, self.operators), self, namespace(s).where(s != 0, s, 1.0))


@dataclasses.dataclass(frozen=True)
class TiledInverse:
    """M = P^T Y P Abar^-1 / s for B matrices: a linear map of right-hand sides, like `ApproximateInverse`.

    Attributes
    ----------
    entries : ndarray, shape (B, E), float32
        The kept tiles of Y, one row of tiles after the other.
    tiled : TiledOperators
    s : ndarray, shape (B,)
    """

    entries: NDArray[np.float32]
    tiled: TiledOperators
    s: FloatArray

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M b (B, n, k) for right-hand sides b (B, n, k)."""
        return self.right(self.left(b))

    def left(self, r: FloatArray) -> FloatArray:
        """Return P Abar^-1 r (B, n, k)."""
        return shared_matmul(self.tiled.left, r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return P^T Y g / s (B, n, k)."""
        unit, peak = to_scaled_float32(g)
        y, start = namespace(unit).empty_like(unit), 0
        for row, columns in enumerate(self.tiled.columns):
            part = self.entries[:, start : start + TILE * len(columns)].reshape(len(g), TILE, len(columns))
            y[:, row * TILE : (row + 1) * TILE] = part @ unit[:, columns]
            start += TILE * len(columns)
        return shared_matmul(self.tiled.transform.T, y) * (peak / self.s[:, None, None])

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return M^T v (B, n, k): (P Abar^-1)^T Y^T P v / s."""
        unit, peak = to_scaled_float32(v)
        transformed = shared_matmul(self.tiled.transform, unit)
        xp = namespace(unit)
        y, start = xp.zeros_like(unit), 0
        for row, columns in enumerate(self.tiled.columns):
            part = self.entries[:, start : start + TILE * len(columns)].reshape(len(v), TILE, len(columns))
            y[:, columns] += part.mT @ transformed[:, row * TILE : (row + 1) * TILE]
            start += TILE * len(columns)
        return shared_matmul(self.tiled.left.T, y * (peak / self.s[:, None, None]))

    def __getitem__(self, chosen: Chosen) -> TiledInverse:
        """Return the inverses of the chosen systems of the batch."""
        return TiledInverse(self.entries[chosen], self.tiled, self.s[chosen])


def sines(n: int) -> FloatArray:
    """Return the orthogonal matrix P (n, n) of sin(k theta_i), theta_i = i pi / (n + 1): k = 1, 3, ..., then 2, 4, ...

    Examples
    --------
    >>> import numpy as np
    >>> bool(np.allclose(sines(6) @ sines(6).T, np.eye(6)))
    True
    """
    k = np.concatenate((np.arange(1, n + 1, 2), np.arange(2, n + 1, 2)))
    theta = np.arange(1, n + 1) * np.pi / (n + 1)
    return np.asarray(np.sqrt(2 / (n + 1)) * np.sin(np.outer(k, theta)), dtype=np.float64)


def compress(basis: OperatorBasis) -> TiledOperators | None:
    """Compress the operators of a basis, or return None where that is not worth it.

    Parameters
    ----------
    basis : OperatorBasis
        It is worth it if n is at least `MIN_N` and a multiple of `TILE`, and if the family is real and becomes sparse.

    Returns
    -------
    TiledOperators or None
    """
    n, count = len(basis.inverse), 1 + basis.rank
    if n < MIN_N or n % TILE or np.iscomplexobj(basis.inverse):
        return None

    # 1. Every operator in sines, in tiles, and the energy of each tile over the family.
    P, tiles = sines(n), n // TILE
    transform = P.astype(np.float32)
    blocks, energy = np.empty((count, tiles, tiles, TILE, TILE), dtype=np.float32), np.zeros((tiles, tiles))
    typical = np.concatenate(([1.0], basis.scale * basis.coefficient_rms))
    for r, operator in enumerate(basis.operators):
        blocks[r] = (transform @ operator @ transform.T).reshape(tiles, TILE, tiles, TILE).swapaxes(1, 2)
        energy += typical[r] ** 2 * np.sum(blocks[r].astype(np.float64) ** 2, axis=(2, 3))

    # 2. The fewest tiles that leave out no more than the tolerance.
    order = np.argsort(-energy, axis=None)
    lost = energy.sum() - np.cumsum(energy.ravel()[order])
    needed = int(np.argmax(lost <= TRUNCATION_RTOL**2 * energy.sum())) + 1
    if needed > MAX_KEPT_SHARE * energy.size:
        return None

    # 3. Their entries, one row of tiles after the other.
    keep = np.zeros((tiles, tiles), dtype=bool)
    keep.flat[order[:needed]] = True
    kept = [np.flatnonzero(row) for row in keep]
    return TiledOperators(
        transform=transform,
        left=P @ basis.inverse,
        columns=[(TILE * chosen[:, None] + np.arange(TILE)).ravel() for chosen in kept],
        operators=np.concatenate(
            [blocks[:, i, chosen].swapaxes(1, 2).reshape(count, -1) for i, chosen in enumerate(kept)], axis=1
        ),
    )
