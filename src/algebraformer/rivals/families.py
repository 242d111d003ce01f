"""Which classical ways apply to a family, counted from a sample of its matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial

import numpy as np

from algebraformer.linalg import EPS
from algebraformer.rivals import direct, iterative
from algebraformer.rivals.direct import one_by_one
from algebraformer.rivals.pool import Array, Solve, pooled

MAX_BAND = 0.25
"""Matrices count as banded if this share of their diagonals, at most, is not zero: the factors of a band take
2 n l (l + u) operations and those of a full matrix 2 n^3 / 3."""
MIN_DIGITS = 3
"""Digits that the inverse of the mean has to have left in float64 for refinement with it."""
POOL = ", pool"
"""What the name of a way ends with that has the batch split over a pool of threads."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A classical way to solve the systems of a family.

    Attributes
    ----------
    name : str
    solve : callable
        Takes A (B, n, n) and b (B, n) to x (B, n): everything that a caller with dense matrices has to do.
    condition : str
        When it applies.
    """

    name: str
    solve: Solve
    condition: str = "always"


@dataclasses.dataclass(frozen=True)
class Structure:
    """What the matrices of a sample have in common.

    Attributes
    ----------
    mean : ndarray, shape (n, n)
        Of the matrices, each divided by its Frobenius norm.
    lower, upper : int
        Diagonals below and above the main one that are not zero in all of them.
    positive_definite : bool
        All of them are symmetric (Hermitian) but for rounding, and have a Cholesky factorisation.
    full_diagonal : bool
        No entry of a diagonal is zero.
    """

    mean: Array
    lower: int
    upper: int
    positive_definite: bool
    full_diagonal: bool

    @classmethod
    def of(cls, parts: Iterable[Array]) -> Structure:
        """Return the structure of the matrices (B, n, n) of all parts together.

        Examples
        --------
        >>> import numpy as np
        >>> A = np.array([[[2.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 1.0, 2.0]]])
        >>> found = Structure.of([A, 3 * A])
        >>> found.lower, found.upper, found.positive_definite, found.full_diagonal
        (1, 1, True, True)
        """
        total, used, count = np.zeros((1, 1)), np.zeros((1, 1), dtype=bool), 0
        definite = full = True
        for A in parts:
            size = np.linalg.norm(A, axis=(1, 2), keepdims=True)
            total = total + np.sum(A / np.where(size > 0, size, 1.0), axis=0)
            count += len(A)
            used = used | (A != 0).any(axis=0)
            full = full and bool((np.diagonal(A, axis1=1, axis2=2) != 0).all())
            definite = definite and is_positive_definite(A)
        i, j = np.nonzero(used)
        lower, upper = int(np.max(i - j, initial=0)), int(np.max(j - i, initial=0))
        return cls(np.asarray(total / count), lower, upper, definite, full)

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return len(self.mean)

    @property
    def is_banded(self) -> bool:
        """Whether few diagonals are not zero, see `MAX_BAND`."""
        return self.lower + self.upper + 1 <= MAX_BAND * (2 * self.n - 1)

    def inverse(self) -> Array | None:
        """Return the inverse of the mean, None where it is singular to working precision."""
        try:
            inverse = np.linalg.inv(self.mean)
        except np.linalg.LinAlgError:
            return None
        condition = np.linalg.norm(self.mean) * np.linalg.norm(inverse)
        return inverse if condition < 10**-MIN_DIGITS / EPS else None


def is_positive_definite(A: Array) -> bool:
    """Return whether all matrices (B, n, n) are Hermitian, but for rounding, and positive definite."""
    largest = np.abs(A).max(axis=(1, 2), keepdims=True, initial=0.0)
    if not (np.abs(A - A.conj().swapaxes(1, 2)) <= A.shape[-1] * EPS * largest).all():
        return False
    try:
        np.linalg.cholesky(A)
    except np.linalg.LinAlgError:
        return False
    return True


def rivals_for(structure: Structure, rtol: float | None = None) -> list[Rival]:
    """Return the ways that apply to a family, each as it is and with the batch split over a pool of threads.

    Parameters
    ----------
    structure : Structure
        Of a sample of the family.
    rtol : float, optional
        Tolerance of the certificate where less is enough, see `linalg.is_certified`.

    Returns
    -------
    list of Rival
        LAPACK's LU in three ways (`is_lapack`), LU in float32 with refinement; Cholesky likewise, in float64 and
        float32; LU or Cholesky of the bands; conjugate residuals with the inverse of the mean, plain and scaled, or
        conjugate gradients.

    Examples
    --------
    >>> import numpy as np
    >>> ways = rivals_for(Structure.of([np.array([[[2.0, 1.0], [0.0, 3.0]]])]))
    >>> [way.name for way in ways if not way.name.endswith(", pool")]
    ['numpy.linalg.solve', 'scipy.linalg.solve', 'dgesv', 'float32 LU + refinement', \
'mean inverse + conjugate residuals', 'scaled mean inverse + conjugate residuals']
    """
    real = structure.mean.dtype.kind == "f"
    letter = "d" if real else "z"
    ways = [
        Rival("numpy.linalg.solve", direct.numpy_lu),
        Rival("scipy.linalg.solve", direct.scipy_lu),
        Rival(f"{letter}gesv", one_by_one(direct.lu)),
        Rival("float32 LU + refinement", one_by_one(partial(direct.float32_lu, rtol=rtol))),
    ]
    if structure.positive_definite:
        condition = "symmetric positive definite"
        ways.append(Rival(f"{letter}posv", one_by_one(direct.cholesky), condition))
        if real:
            way = one_by_one(partial(direct.float32_cholesky, rtol=rtol))
            ways.append(Rival("float32 Cholesky + refinement", way, condition))
    if structure.is_banded:
        lower, upper = structure.lower, structure.upper
        condition = f"{lower} diagonals below the main one and {upper} above it"
        ways.append(Rival("banded LU", direct.banded_lu(lower, upper), condition))
        if structure.positive_definite:
            condition += ", positive definite"
            ways.append(Rival("banded Cholesky", direct.banded_cholesky(max(lower, upper)), condition))
    inverse = structure.inverse()
    if inverse is not None:
        diagonal = np.diagonal(structure.mean)
        condition = "the mean is not singular"
        ways.append(Rival("mean inverse + conjugate residuals", iterative.mean_inverse(inverse, rtol), condition))
        if structure.full_diagonal:
            condition += ", no diagonal entry is zero"
            way = iterative.scaled_mean_inverse(diagonal, inverse, rtol)
            ways.append(Rival("scaled mean inverse + conjugate residuals", way, condition))
        if structure.positive_definite and real:
            way = iterative.scaled_conjugate_gradients(diagonal, inverse, rtol)
            ways.append(Rival("scaled mean inverse + conjugate gradients", way, "symmetric positive definite"))
    return [both for way in ways for both in (way, with_pool(way))]


def with_pool(way: Rival) -> Rival:
    """Return the way with the batch split over a pool of threads."""
    return dataclasses.replace(way, name=f"{way.name}{POOL}", solve=pooled(way.solve))


def is_lapack(name: str) -> bool:
    """Return whether a way of that name is LAPACK's LU in float64 (complex128).

    Examples
    --------
    >>> is_lapack("dgesv, pool"), is_lapack("float32 LU + refinement")
    (True, False)
    """
    return name.removesuffix(POOL) in ("numpy.linalg.solve", "scipy.linalg.solve", "dgesv", "zgesv")
