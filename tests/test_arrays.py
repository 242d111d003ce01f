"""Small functions on arrays of any library."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

from algebraformer.arrays import beside, conj, host, is_complex, kind_of, namespace, needs_gradient, power_of_two, real

LIBRARIES: list[Any] = [np, torch, array_api_strict]


@pytest.mark.parametrize("xp", LIBRARIES)
def test_powers_of_two_are_exact(xp):
    """To the ends of float64; the oracle is math.frexp."""
    values = [1.0, 0.3, 5.0, 2.0**-1000, 1.7e308, 3e-308, 1 - 2**-53, 1e-200]
    found = host(power_of_two(xp.asarray(values, dtype=xp.float64))).tolist()
    assert found == [math.ldexp(1.0, math.frexp(value)[1] - 1) for value in values]


@pytest.mark.parametrize("xp", LIBRARIES)
def test_parts_and_conjugates(xp):
    z, x = np.array([1 + 2j, -3j]), np.array([1.0, -2.0])
    for array in (z, x):
        given = xp.asarray(array)
        assert is_complex(given) == (array.dtype.kind == "c")
        np.testing.assert_array_equal(host(real(given)), array.real)
        np.testing.assert_array_equal(host(conj(given)), array.conj())
        assert type(beside(given, array)) is type(given)
        assert namespace(given).asarray(given) is not None


def test_where_gradients_are_wanted():
    with_gradient = torch.ones(2, requires_grad=True)
    assert needs_gradient(np.ones(2), with_gradient)
    assert not needs_gradient(np.ones(2), torch.ones(2), [1.0])
    with torch.no_grad():
        assert not needs_gradient(with_gradient)


def test_subclasses_of_arrays_are_numpys():
    class Mine(np.ndarray):
        pass

    assert kind_of(A=np.ones(2).view(Mine)) == kind_of(A=np.ones(2)) == kind_of(A=[1, 2])
