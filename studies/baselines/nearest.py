"""The inverse of the nearest sample: the plainest way to reuse work on a family."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import EntrySampler
from algebraformer.numerics.preconditioner import ApproximateInverse


@dataclasses.dataclass(frozen=True)
class NearestInverse:
    """Stored inverses of S samples; the sample nearest in the z-scored entries that are read is used.

    Attributes
    ----------
    sampler : EntrySampler
    inverse : ndarray, shape (n, n), float64
        Abar^-1.
    z : ndarray, shape (S, q m), float32
        Entries of the samples.
    T : ndarray, shape (S, n, n), float32
        A^-1 Abar of the samples, of size one.
    """

    sampler: EntrySampler
    inverse: FloatArray
    z: NDArray[np.float32]
    T: NDArray[np.float32]

    def __call__(self, A: FloatArray) -> ApproximateInverse:
        """Return the nearest sample's inverse for each of the matrices A (B, n, n), scaled to their sizes."""
        z, s = self.sampler(A)
        nearest = self.nearest(z.reshape(len(A), -1).astype(np.float32))
        return ApproximateInverse(self.T[nearest], self.inverse, np.where(s != 0, s, 1.0))

    def nearest(self, z: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the indices (B,) of the samples nearest to z (B, q m)."""
        squares = np.einsum("sd,sd->s", self.z, self.z)
        return np.argmin(squares - 2 * (z @ self.z.T), axis=1)
