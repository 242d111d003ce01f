"""Families that were written for the former names of their attributes work as before, with a warning."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from algebraformer import problems


def former_names() -> type[problems.NoisyFamily]:
    """Define a family of 3 n measurements under the former names."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Former(problems.NoisyFamily):
        n: int = 4

        @property
        def rows(self):
            return 3 * self.n

        @property
        def has_systems(self):
            return False

        def instrument(self, rng):
            return {"gain": 2.0}

        def matrix(self, params):
            return params["gain"][:, None, None] * np.ones((3 * self.n, self.n))

        def classical_signal(self):
            return np.ones(self.n)

    return Former


def test_former_names_are_used_where_a_family_defines_them() -> None:
    with pytest.warns(DeprecationWarning, match="is now called") as caught:
        cls = former_names()
    assert {str(warning.message).split()[0] for warning in caught} == {
        "Former.rows",
        "Former.has_systems",
        "Former.instrument",
    }
    assert all(warning.filename == __file__ for warning in caught)
    family = cls()
    systems = family.sample(2, seed=0)
    assert (family.n_equations, family.is_linear_system, systems.A.shape) == (12, False, (2, 12, 4))
    np.testing.assert_array_equal(systems.A, 2.0)


def test_former_name_of_the_number_of_equations_can_be_read() -> None:
    family = problems.get("deblur", n=8, m=5)
    with pytest.warns(DeprecationWarning, match="n_equations"):
        assert family.rows == family.n_equations == 5
    assert problems.get("diffusion", n=8).n_equations == 8
