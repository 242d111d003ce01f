"""What a caller gives to a solver: refused with a word on what is wrong, or brought to one shape; never written to."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class CheckedSystem:
    """Checked input: A (B, n, n) and b (B, n, k), float64 or complex128, and the shape x shall have."""

    A: Array
    b: Array
    shape: tuple[int, ...]
    batched: bool

    @property
    def n(self) -> int:
        return self.A.shape[-1]

    def restored(self, x: Array) -> Array:
        return x.reshape(self.shape)


def numbers(value: ArrayLike, name: str) -> Array:
    """Return a user's array as float64 or complex128, C-contiguous; the caller's array is never written to.

    Raises
    ------
    ValueError
        It is masked, ragged, not of numbers, or not finite; the message calls it `name`.
    """
    if np.ma.isMaskedArray(value):
        raise ValueError(f"{name} is a masked array, expected every entry to be there")
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} has dtype {array.dtype}, expected real or complex numbers")
    with np.errstate(over="ignore"):  # of a longdouble: it becomes infinity, which is refused below
        array = np.asarray(array, dtype=complex if array.dtype.kind == "c" else float, order="C")
    rows = array.reshape(-1, array.shape[-1]) if array.size and array.ndim else array.reshape(-1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = rows @ np.ones(rows.shape[1])  # one fast pass: what is not finite shows, and rarely what only overflows
    if not np.isfinite(sums).all() and not (finite := np.isfinite(array)).all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"{name} contains NaN or infinity, first at index {where}")
    return array


def check_system(A: ArrayLike, b: ArrayLike) -> CheckedSystem:
    """Check A and b and bring them to the shapes (B, n, n) and (B, n, k).

    Raises
    ------
    ValueError
        Shapes do not match, or entries are NaN, infinite or not numbers; the message names A or b.

    Examples
    --------
    >>> import numpy as np
    >>> check_system(np.eye(2), [1, 2]).b.shape
    (1, 2, 1)
    """
    A, b = numbers(A, "A"), numbers(b, "b")
    if A.ndim not in (2, 3) or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A must have shape (n, n) or (B, n, n), received {A.shape}")
    batched, n = A.ndim == 3, A.shape[-1]
    if batched and b.ndim in (2, 3) and len(b) != len(A):
        raise ValueError(f"b holds {len(b)} systems, A holds {len(A)}")
    if b.ndim - batched not in (1, 2):
        raise ValueError(
            f"b must have shape {'(B, n) or (B, n, k)' if batched else '(n,) or (n, k)'}, received {b.shape}"
        )
    if b.shape[batched] != n:
        raise ValueError(f"b has {b.shape[batched]} rows, A has {n}")
    if A.dtype != b.dtype:
        A, b = A.astype(complex), b.astype(complex)
    k = b.shape[-1] if b.ndim - batched == 2 else 1
    return CheckedSystem(A if batched else A[None], b.reshape(len(b) if batched else 1, n, k), b.shape, batched)


def check_options(rtol: float, max_refinements: int) -> tuple[float, int]:
    """Return both as numbers; `ValueError` where one is out of range."""
    rtol, max_refinements = float(rtol), operator.index(max_refinements)
    if not 0 <= rtol < np.inf:
        raise ValueError(f"rtol must be a finite number >= 0, received {rtol}")
    if max_refinements < 0:
        raise ValueError(f"max_refinements must be at least 0, received {max_refinements}")
    return rtol, max_refinements
