"""Families of a user: from a class, from a function that samples A, or from a Python file as "file.py:Name"."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from algebraformer.errors import AlgebraformerError, ConfigurationError
from algebraformer.problems.base import SPECTRUM_SEED, Parameters, ProblemFamily, family_class, names, real, register
from algebraformer.problems.sampling import FloatArray, generator

Sampler = Callable[[np.random.Generator], FloatArray]
"""Returns one matrix A (n, n)."""
PREFIX = "family_file_"
"""Prefix of the names of such modules, so that no other module is shadowed: a file may be named random.py."""


def as_family(source: ProblemFamily | type[ProblemFamily] | Sampler) -> ProblemFamily:
    """Return a family, registered under a name: checkpoints refer to families by name.

    Parameters
    ----------
    source : ProblemFamily, class of one, or function
        A family; a class with default settings; or a function that takes a numpy.random.Generator and returns one
        matrix A (n, n), real or complex, whose right-hand sides are then standard normal. What is not registered yet
        becomes so, under its own name in small letters: `ElasticBeam` is elastic-beam, `elastic_beam` too.

    Raises
    ------
    ConfigurationError
        None of these, a function that does not return a square matrix of numbers, or a name that another family
        has.

    Examples
    --------
    >>> import numpy as np
    >>> def shifted_ones(rng):
    ...     return np.ones((4, 4)) + rng.uniform(1, 2) * np.eye(4)
    >>> family = as_family(shifted_ones)
    >>> family.name, family.sample(3, seed=0).A.shape
    ('shifted-ones', (3, 4, 4))
    """
    if isinstance(source, types.FunctionType):
        A = np.asarray(source(generator(SPECTRUM_SEED, 0)))
        if A.ndim != 2 or A.shape[0] != A.shape[1] or not A.size:
            raise ConfigurationError(f"{source.__name__} must return a matrix of shape (n, n), received {A.shape}")
        if not np.iscomplexobj(A):
            real(A, f"A of the family {_registered_name(source.__name__)}")
        source = _family_class_of(source, np.iscomplexobj(A))(n=len(A))
    family: Any = source
    if isinstance(source, type) and issubclass(source, ProblemFamily):
        try:
            family = source()
        except TypeError as error:  # abstract, or a setting without default
            raise ConfigurationError(f"{source.__name__} cannot be made with default settings: {error}") from error
    if not isinstance(family, ProblemFamily):
        raise ConfigurationError(
            f"expected a family, a class of families or a function that samples A, received {family!r}"
        )
    cls = type(family)
    if not vars(cls).get("name"):  # that of a registered base class is not its own
        register(_registered_name(cls.__name__))(cls)
    return family


def _family_class_of(sample: Sampler, is_complex: bool) -> type[ProblemFamily]:
    """Return the class of the systems whose matrix the function samples, registered under the function's name."""

    def draw(self: ProblemFamily, rng: np.random.Generator) -> dict[str, Any]:
        A, b = sample(rng), rng.standard_normal(self.n)
        return {"A": A, "b": b + 1j * rng.standard_normal(self.n) if is_complex else b}

    def assemble(self: ProblemFamily, params: Parameters) -> tuple[FloatArray, FloatArray]:
        return params["A"], params["b"]

    name = _registered_name(sample.__name__)
    if name in names() and getattr(family_class(name), "sample_matrix", None) is sample:
        return family_class(name)
    body = {"__doc__": sample.__doc__, "__module__": sample.__module__, "draw": draw, "assemble": assemble}
    cls = type(
        sample.__name__, (ProblemFamily,), {**body, "sample_matrix": staticmethod(sample), "is_complex": is_complex}
    )
    return register(name)(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


def _registered_name(identifier: str) -> str:
    """Return ElasticBeam or elastic_beam as elastic-beam."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", identifier).replace("_", "-").lower()


def names_a_file(text: str) -> bool:
    """Say whether a text is meant as "file.py:Name"; names of recipes and families have no colon and no such ending."""
    return ":" in text or text.endswith(".py")


def family_from_file(source: str) -> ProblemFamily:
    """Return the family that a Python file defines, registered in this process.

    The file is executed, as a script is but for its part behind `if __name__ == "__main__"`, and one system is sampled
    to see that the family works.

    Parameters
    ----------
    source : str
        "file.py:Name": a family, a class of families or a function that samples A, as `as_family` takes them.

    Raises
    ------
    ConfigurationError
        The file does not exist or raises, does not have the name, or what has it is no family or cannot be sampled.
    """
    file, colon, name = source.rpartition(":")
    if not (colon and name.isidentifier()):
        raise ConfigurationError(f"expected FILE.py:NAME, received {source!r}")
    module = _executed(Path(file))
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ConfigurationError(f"{file} has no {name!r}; it defines: {', '.join(own) or 'nothing'}")
    try:
        family = as_family(getattr(module, name))
        family.sample(2)
    except AlgebraformerError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{source} cannot be sampled: {_described(error)}") from error
    return family


def _executed(path: Path) -> ModuleType:
    """Return the module of a file; its folder is searched for what it imports, after everything else."""
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file; expected FILE.py:NAME")
    specification = importlib.util.spec_from_file_location(f"{PREFIX}{path.stem}", path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"{path} is not a Python file: expected FILE.py:NAME")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigurationError(f"{path} cannot be executed: {_described(error)}") from error
    return module


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
