"""Approximate inverses M of the matrices A of a batch, applied as two factors, and products that a batch shares.

M = R L, with L the same for all systems of a family and R of each system its own: residuals are measured after L.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.arrays import Kind, check_kind, conj, is_complex, join_parts, namespace, split_parts
from algebraformer.linalg import FloatArray, largest

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Real = TypeVar("Real", np.float32, np.float64)
Chosen = slice | NDArray[np.int64]
COLUMNS_MIN_N = 256
"""From this n on vectors are multiplied as columns in float32, in two thirds of the time at n = 1024. In float64 rows
are as fast, and for smaller n the calls decide (LOG.md, 2026-11-27)."""


class Preconditioner(Protocol):
    """M = R L, for B matrices."""

    def left(self, r: FloatArray) -> FloatArray:
        """Return L r (B, n, k)."""

    def right(self, g: FloatArray) -> FloatArray:
        """Return R g (B, n, k)."""

    def __getitem__(self, chosen: Chosen, /) -> Self:
        """Return the preconditioner of the chosen systems."""


class LinearInverse(Preconditioner, Protocol):
    """A preconditioner that is applied as a whole, and so is its adjoint."""

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M b (B, n, k)."""

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return M^H v (B, n, k), which is M^T v for real M."""


@dataclasses.dataclass(frozen=True)
class ApproximateInverse:
    """M = T Abar^-1 / s for B matrices: a linear map of right-hand sides.

    T is kept and applied in float32, Abar^-1 in float64: in one float32 matrix the rounding of M, times the largest
    singular value of A, would be of size one for condition numbers from 1e7 on.

    Attributes
    ----------
    T : ndarray, shape (B, n, n), float32
        This and what follows are complex, of the same precision, for complex matrices.
    inverse : ndarray, shape (n, n), float64
        Abar^-1.
    s : ndarray, shape (B,)
    """

    T: NDArray[np.float32]
    inverse: FloatArray
    s: FloatArray

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M b (B, n, k) for right-hand sides b (B, n, k)."""
        return self.right(self.left(b))

    def left(self, r: FloatArray) -> FloatArray:
        """Return Abar^-1 r (B, n, k): one matrix for all systems, hence one product."""
        return shared_matmul(self.inverse, r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return T g / s (B, n, k)."""
        unit, peak = to_scaled_float32(g)
        return (self.T @ unit) * (peak / self.s[:, None, None])

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return M^H v (B, n, k): Abar^-H T^H v / conj(s)."""
        unit, peak = to_scaled_float32(v)
        scale = peak / conj(self.s)[:, None, None]
        return shared_matmul(conj(self.inverse).T, (adjoint(self.T) @ unit) * scale)

    def __getitem__(self, chosen: Chosen) -> ApproximateInverse:
        """Return the inverses of the chosen systems of the batch."""
        return ApproximateInverse(self.T[chosen], self.inverse, self.s[chosen])


@dataclasses.dataclass(frozen=True)
class MeanInverse:
    """Abar^-1 alone, for every system of a family: the preconditioner that needs no learning.

    Attributes
    ----------
    inverse : ndarray, shape (n, n), float64
    """

    inverse: FloatArray

    def left(self, r: FloatArray) -> FloatArray:
        """Return Abar^-1 r (B, n, k)."""
        return shared_matmul(self.inverse, r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return g."""
        return g

    def __getitem__(self, chosen: Chosen) -> MeanInverse:
        """Return the same: it is one matrix for all systems."""
        return self


@dataclasses.dataclass(frozen=True)
class TransposedInverse:
    """M^T for B matrices, which approximates inv(A^T): all of it on the right, so that residuals stay as they are.

    The other split, M^T = L^T R^T with R^T on the left, has the systems' own factor there, which is applied in float32:
    the preconditioned residual then follows the true one down to 1e-7 only, and conjugate residuals need 5 to 10 steps
    where this form needs 3 to 6, as many as A itself does (LOG.md, 2026-11-27).

    Attributes
    ----------
    inverse : LinearInverse
        M.
    """

    inverse: LinearInverse

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M^T b (B, n, k)."""
        return conj(self.inverse.adjoint(conj(b)))

    def left(self, r: FloatArray) -> FloatArray:
        """Return r."""
        return r

    def right(self, g: FloatArray) -> FloatArray:
        """Return M^T g (B, n, k)."""
        return self(g)

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return conj(M) v (B, n, k)."""
        return conj(self.inverse(conj(v)))

    def __getitem__(self, chosen: Chosen) -> TransposedInverse:
        """Return those of the chosen systems of the batch."""
        return TransposedInverse(self.inverse[chosen])


def adjoint(matrices: NDArray[Any]) -> NDArray[Any]:
    """Return A^H (..., n, m) for A (..., m, n)."""
    return conj(matrices).mT


def as_linear_operator(inverse: LinearInverse, n: int, dtype: DTypeLike = np.float64) -> LinearOperator:
    """Return one approximate inverse (of a batch of one) as a SciPy operator, for real and complex vectors.

    `dtype` is that of M, float64 or complex128.
    """
    from scipy.sparse.linalg import LinearOperator  # slow to import, and solving does not need it

    dtype = np.dtype(dtype)

    def forward(v: NDArray[Any]) -> NDArray[Any]:
        return _applied(inverse, np.asarray(v).reshape(n, -1), dtype.kind == "c")

    def backward(v: NDArray[Any]) -> NDArray[Any]:
        return _applied(inverse.adjoint, np.asarray(v).reshape(n, -1), dtype.kind == "c")

    return LinearOperator(
        (n, n),
        matvec=lambda v: forward(v).reshape(np.shape(v)),
        rmatvec=lambda v: backward(v).reshape(np.shape(v)),
        matmat=forward,
        rmatmat=backward,
        dtype=dtype,
    )


def _applied(product: Callable[[Any], Any], v: Any, complex_map: bool) -> Any:
    """Return a linear map of vectors v (n, k): a real one takes both parts of complex vectors in one product."""
    xp = namespace(v)
    if is_complex(v) and not complex_map:
        return join_parts(product(xp.astype(split_parts(v, axis=1), xp.float64)[None, ...])[0, ...])
    return product(xp.astype(v, xp.complex128 if complex_map else xp.float64)[None, ...])[0, ...]


@dataclasses.dataclass(frozen=True)
class ArrayOperator:
    """One approximate inverse M (n, n) for arrays of other libraries than NumPy, as `scipy.sparse.linalg` has it.

    `M @ v` and `M.matvec(v)` take v (n,) or (n, k), real or complex, to M v, an array of the same kind on the same
    device; `M.rmatvec(v)` takes it to M^H v.

    Attributes
    ----------
    shape : tuple of int
    inverse : LinearInverse
        Of a batch of one matrix.
    is_complex : bool
        Whether M is complex.
    kind : Kind
        Of the arrays.
    enter : callable
        Takes an array of this kind to one that the inverse is applied to.
    """

    shape: tuple[int, int]
    inverse: LinearInverse
    is_complex: bool
    kind: Kind
    enter: Callable[[Any], Any]

    def __matmul__(self, v: Any) -> Any:
        return self._product(self.inverse, v)

    def matvec(self, v: Any) -> Any:
        """Return M v."""
        return self @ v

    def rmatvec(self, v: Any) -> Any:
        """Return M^H v."""
        return self._product(self.inverse.adjoint, v)

    def _product(self, product: Callable[[Any], Any], v: Any) -> Any:
        check_kind(self.kind, "A", v=v)
        if v.ndim not in (1, 2) or v.shape[0] != self.shape[0]:
            raise ValueError(f"v must have shape ({self.shape[0]},) or ({self.shape[0]}, k), received {tuple(v.shape)}")
        found = _applied(product, self.enter(v).reshape(self.shape[0], -1), self.is_complex)
        return self.kind.array(found.reshape(v.shape))


def linear_combination(c: NDArray[Any], operators: NDArray[np.float32]) -> NDArray[Any]:
    """Return operators[0] + sum_r c_r operators[r] (B, E) for coefficients c (B, R) and flat operators (1 + R, E)."""
    if not isinstance(c, np.ndarray):
        return operators[0] + c @ operators[1:]
    weights = np.ones((len(c), len(operators)), dtype=single_precision(c.dtype))
    weights[:, 1:] = c
    with np.errstate(over="ignore", invalid="ignore"):  # of coefficients that are not finite
        return weights @ operators


def single_precision(dtype: np.dtype[Any]) -> type[np.float32] | type[np.complex64]:
    """Return float32 for real numbers, complex64 for complex ones."""
    return np.complex64 if dtype.kind == "c" else np.float32


def to_scaled_float32(g: FloatArray) -> tuple[NDArray[Any], FloatArray]:
    """Return g (B, n, k) in float32 or complex64, whose range is smaller, and what it was divided by (B, 1, k)."""
    xp = namespace(g)
    peak = largest(xp.abs(g), axis=1, keepdims=True)
    return xp.astype(g / xp.where(peak > 0, peak, 1.0), xp.complex64 if is_complex(g) else xp.float32), peak


def shared_matmul(matrix: NDArray[Real], v: NDArray[Real]) -> NDArray[Real]:
    """Return matrix @ v[i] for all i, v (B, n, k), as one product of two matrices."""
    B, n, k = v.shape
    if not isinstance(v, np.ndarray):
        xp = namespace(v)
        rows = xp.reshape(v.mT, (B * k, n)) @ matrix.mT
        return xp.reshape(rows, (B, k, matrix.shape[0])).mT
    if k == 1 and n >= COLUMNS_MIN_N and matrix.dtype == np.float32:
        return np.ascontiguousarray(np.dot(matrix, v[:, :, 0].T).T)[:, :, None]
    if k == 1:
        return (v[:, :, 0] @ matrix.T)[:, :, None]
    return (v.transpose(0, 2, 1).reshape(B * k, n) @ matrix.T).reshape(B, k, len(matrix)).transpose(0, 2, 1)
