"""Families of linear systems: `names()` lists them, `get(name, n=64)` makes one, `.sample(1000)` draws from it."""

from algebraformer.problems.base import (
    ProblemFamily,
    Systems,
    family_class,
    from_settings,
    generator,
    get,
    names,
    register,
)
from algebraformer.problems.boundary_value import BoundaryValueFamily
from algebraformer.problems.nonlinear import NonlinearFamily

__all__ = [
    "BoundaryValueFamily",
    "NonlinearFamily",
    "ProblemFamily",
    "Systems",
    "family_class",
    "from_settings",
    "generator",
    "get",
    "names",
    "register",
]
