"""Input validation: A and b as float64 or complex128 arrays of shapes (B, n, n) and (B, n, k), or a `ValueError`.

Inputs are never modified.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.arrays import host, is_complex, join_parts, namespace, on_device, split_parts
from algebraformer.passes import all_finite

Array = NDArray[Any]

STRUCTURES = {"gen": "gen", "general": "gen", "pos": "pos", "positive definite": "pos"}
"""Structures of A by the names that scipy.linalg.solve has for them."""


@dataclasses.dataclass(frozen=True)
class CheckedSystem:
    """Checked input: A (B, n, n) and b (B, n, k), float64 or complex128, and the shape of the caller's b.

    Complex b with real A are twice as many real right-hand sides, the imaginary parts behind the real ones. Their worst
    measures bound those of the complex ones: residuals with ||Re r|| <= c ||Re b|| and ||Im r|| <= c ||Im b|| have
    ||r|| <= c ||b||, and componentwise it is the same.
    """

    A: Array
    b: Array
    shape: tuple[int, ...]
    batched: bool
    in_parts: bool = False

    @property
    def n(self) -> int:
        return self.A.shape[-1]

    def reshape_like_b(self, x: Array) -> Array:
        """Return x (B, n, k) in the shape of the caller's b."""
        if self.in_parts:
            x = join_parts(x)
        return x.reshape(self.shape)


def numbers(value: ArrayLike, name: str) -> Array:
    """Return a user's array as float64 or complex128, C-contiguous; the caller's array is never written to.

    Raises
    ------
    ValueError
        It is masked, ragged, not of numbers, or not finite; the message names it.
    """
    array = dense_array(value, name)
    check_finite(array, name)
    return array


def dense_array(value: ArrayLike, name: str) -> Array:
    """Return what `numbers` returns, but entries may be NaN or infinite; a tensor on a GPU stays there."""
    if on_device(value):
        xp = namespace(value)
        return xp.asarray(value, dtype=xp.complex128 if is_complex(value) else xp.float64)
    refuse_sparse(value)
    if np.ma.isMaskedArray(value):
        raise ValueError(f"{name} is a masked array, expected an array without missing entries")
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged lists
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} has dtype {array.dtype}, expected real or complex numbers")
    with np.errstate(over="ignore"):  # of a longdouble: it becomes infinity
        return np.asarray(array, dtype=complex if array.dtype.kind == "c" else float, order="C")


def check_finite(array: Array, name: str) -> None:
    """Raise `ValueError`, with the index, if an entry of a user's array is NaN or infinite."""
    if not all_finite(array):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(host(array)))[0])
        raise ValueError(f"{name} contains NaN or infinity{f', first at index {where}' if where else ''}")


def refuse_sparse(value: Any) -> None:
    """Raise `ValueError` for a sparse array or matrix, in SciPy's words."""
    sparse = sys.modules.get("scipy.sparse")  # without which there are no sparse arrays; importing it takes time
    if sparse is not None and sparse.issparse(value):
        raise ValueError(
            "Sparse arrays/matrices are not supported by this function. Perhaps one of the `scipy.sparse.linalg` "
            "functions would work instead."
        )


def real_numbers(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return a user's array as float64: `numbers`, and `ValueError` where they are complex."""
    array = numbers(value, name)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array


def check_right_hand_sides(A: Array, b: Array, rows: str) -> None:
    """Check that b has shape (m,) or (m, k) for A of shape (m, n), or (B, m) or (B, m, k) for A of shape (B, m, n).

    Raises
    ------
    ValueError
        It has another one; `rows` is the symbol of the number of rows in the message.
    """
    batched, m = A.ndim == 3, A.shape[-2]
    if batched and b.ndim in (2, 3) and len(b) != len(A):
        raise ValueError(f"b holds {len(b)} systems, A holds {len(A)}")
    if b.ndim - batched not in (1, 2):
        expected = f"(B, {rows}) or (B, {rows}, k)" if batched else f"({rows},) or ({rows}, k)"
        raise ValueError(f"b must have shape {expected}, received {b.shape}")
    if b.shape[batched] != m:
        raise ValueError(f"b has {b.shape[batched]} rows, A has {m}")


def check_matrices(A: ArrayLike, finite: bool = True) -> tuple[Array, bool]:
    """Return A in the shape (B, n, n), and whether it was given as a batch.

    Entries may be NaN or infinite with `finite=False`: who asks for that calls `check_finite` where it matters.

    Raises
    ------
    ValueError
        A is no matrix or batch of matrices, not square, or entries are NaN, infinite or not numbers.
    """
    A = numbers(A, "A") if finite else dense_array(A, "A")
    if A.ndim not in (2, 3) or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A must have shape (n, n) or (B, n, n), received {A.shape}")
    return (A, True) if A.ndim == 3 else (A[None], False)


def match_right_hand_sides(A: Array, batched: bool, b: ArrayLike) -> CheckedSystem:
    """Check b and bring it to the shape (B, n, k) for what `check_matrices` returned.

    Raises
    ------
    ValueError
        Its shape does not match A, or entries are NaN, infinite or not numbers.
    """
    b = numbers(b, "b")
    check_right_hand_sides(A if batched else A[0], b, "n")
    k, shape = b.shape[-1] if b.ndim - batched == 2 else 1, b.shape
    in_parts = is_complex(b) and not is_complex(A)
    right: Array = b.reshape(len(A), A.shape[-1], k)
    right = split_parts(right, axis=2) if in_parts else namespace(right).astype(right, A.dtype, copy=False)
    return CheckedSystem(A, right, shape, batched, in_parts)


def check_system(A: ArrayLike, b: ArrayLike) -> CheckedSystem:
    """Validate A and b and return them with the shapes (B, n, n) and (B, n, k).

    Raises
    ------
    ValueError
        Shapes do not match, or entries are NaN, infinite or not numbers.

    Examples
    --------
    >>> import numpy as np
    >>> check_system(np.eye(2), [1, 2]).b.shape
    (1, 2, 1)
    """
    return match_right_hand_sides(*check_matrices(A), b)


def check_tolerance(value: float, name: str) -> float:
    """Return a tolerance as a float; `ValueError`, with its `name`, unless it is finite and not negative."""
    value = float(value)
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be a finite number >= 0, received {value}")
    return value


def check_structure(assume_a: str) -> str:
    """Return "gen" or "pos" for a structure of A in SciPy's words; `ValueError` for any other."""
    structure = STRUCTURES.get(assume_a) if isinstance(assume_a, str) else None
    if structure is None:
        raise ValueError(f"assume_a must be one of {', '.join(map(repr, STRUCTURES))}, received {assume_a!r}")
    return structure


def check_count(value: int, name: str) -> int:
    """Return a count as an int; `ValueError`, with its `name`, if it is negative."""
    value = operator.index(value)
    if value < 0:
        raise ValueError(f"{name} must be at least 0, received {value}")
    return value


def is_whole(value: object) -> bool:
    """Return whether a value is an int; bool, 1.0 and NumPy's integers are not, since they change in JSON."""
    return isinstance(value, int) and not isinstance(value, bool)
