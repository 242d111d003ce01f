"""What is wrong with abscissae and data that a caller gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import kind_of
from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments import Instrument
from algebraformer.problems.instruments.base import MIN_POINTS
from algebraformer.validation import check_finite, dense_array

Array = NDArray[Any]
SMALLEST, LARGEST = 1e-100, 1e100
"""Limits of the largest datum in absolute value: squares and their products stay within the range of float64."""


def checked(abscissa: Any, data: Any, instrument: Instrument) -> tuple[FloatArray, Array]:
    """Return abscissae and data as float64 arrays; `ValueError` says what is wrong with them."""
    abscissa, data = as_numbers(abscissa, "abscissa"), as_numbers(data, "data")
    for name, array in (("abscissa", abscissa), ("data", data)):
        if array.dtype.kind == "c":
            raise ValueError(f"{name} has dtype {array.dtype}, expected real numbers")
    check_shapes(abscissa, data, "abscissa", "data", instrument.values_per_point)
    return abscissa, data


def as_numbers(value: Any, name: str) -> Array:
    """Return an array of any library as one of NumPy, float64 or complex128; gradients are left behind.

    Raises
    ------
    ValueError
        It is masked, ragged, sparse or not of numbers.
    """
    return dense_array(kind_of(**{name: value}).numpy(value), name)


def check_shapes(abscissa: FloatArray, data: Array, name: str, of_data: str, values: int = 1) -> None:
    """Raise `ValueError` unless abscissae are finite and ascend, and there are data of some size for each of them."""
    if abscissa.ndim != 1 or len(abscissa) < MIN_POINTS:
        raise ValueError(
            f"{name} must have one axis with at least {MIN_POINTS} points, received shape {abscissa.shape}"
        )
    if data.ndim not in (1, 2) or data.shape[-1] != values * len(abscissa) or 0 in data.shape:
        raise ValueError(
            f"{of_data} must have shape (m,) or (B, m) with m = {values * len(abscissa)}, received {data.shape}"
        )
    check_finite(abscissa, name)
    check_finite(data, of_data)
    for row, size in enumerate(np.abs(np.atleast_2d(data)).max(axis=1)):
        where = f" in row {row}" if data.ndim == 2 else ""
        if size == 0:
            raise ValueError(f"{of_data} is zero throughout{where}")
        if not SMALLEST <= size <= LARGEST:
            raise ValueError(
                f"{of_data} has values up to {size:.3g}{where}, expected them between {SMALLEST:g} and {LARGEST:g}: "
                "use another unit"
            )
    if not (np.diff(abscissa) > 0).all():
        i = int(np.argmin(np.diff(abscissa) > 0))
        pair = f"{abscissa[i]:.6g} before {abscissa[i + 1]:.6g}"
        raise ValueError(f"{name} must ascend without repeats, received {pair}: sort it, with the data")
