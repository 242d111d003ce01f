"""A recipe for any family: how to learn its inverses when nobody has thought about it yet.

The rank of the operator head is read off the spectrum of the family's inverses; the rest is the same for all families
but for the size of the training set, which is made in minutes on two cores for n up to about 500.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.numerics import operator_basis
from algebraformer.problems import NoisyFamily, ProblemFamily, family_class, names, register
from algebraformer.problems.base import SPECTRUM_SEED, Parameters, real
from algebraformer.problems.sampling import generator
from algebraformer.training.config import ESTIMATE, ESTIMATE_HEADS, Recipe
from algebraformer.training.monitor import ProgressCallback, silent

MAX_RANK = 256
"""Largest number of basis operators that is chosen."""
TOLERANCE = 1e-4
"""Components are kept down to this share of the first singular value."""
MULTIPLE = 16
"""Ranks are rounded up to a multiple of this, so that the last digits of a spectrum do not decide."""
READ = 16
"""Columns and rows of A that are read, or n if that is less."""
SAMPLES, MIN_SAMPLES = 50_000, 2_048
"""Training systems for n up to 128, and least number of them for larger n."""

Sampler = Callable[[np.random.Generator], FloatArray]


def as_family(source: ProblemFamily | type[ProblemFamily] | Sampler) -> ProblemFamily:
    """Return the family that a user means, registered: checkpoints know families by name.

    Parameters
    ----------
    source : ProblemFamily, class of one, or function
        A family; a class with default settings; or a function that takes a numpy.random.Generator and returns one
        matrix A (n, n), whose right-hand sides are then standard normal. What is not registered yet becomes so, under
        its own name in small letters: `ElasticBeam` is elastic-beam, `elastic_beam` too.

    Raises
    ------
    ConfigurationError
        None of these, a function that does not return a square matrix of real numbers, or a name that another family
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
        real(A, f"A of the family {_name(source.__name__)}")
        source = _class_of(source)(n=len(A))
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
        register(_name(cls.__name__))(cls)
    return family


def _class_of(sample: Sampler) -> type[ProblemFamily]:
    """Return the class of the systems whose matrix the function samples, registered under the function's name."""

    def draw(self: ProblemFamily, rng: np.random.Generator) -> dict[str, Any]:
        return {"A": sample(rng), "b": rng.standard_normal(self.n)}

    def assemble(self: ProblemFamily, params: Parameters) -> tuple[FloatArray, FloatArray]:
        return params["A"], params["b"]

    name = _name(sample.__name__)
    if name in names() and getattr(family_class(name), "sample_matrix", None) is sample:
        return family_class(name)
    body = {"__doc__": sample.__doc__, "__module__": sample.__module__, "draw": draw, "assemble": assemble}
    cls = type(sample.__name__, (ProblemFamily,), {**body, "sample_matrix": staticmethod(sample)})
    return register(name)(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


def _name(identifier: str) -> str:
    """Return ElasticBeam or elastic_beam as elastic-beam."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", identifier).replace("_", "-").lower()


def spectrum(family: ProblemFamily, report: ProgressCallback = silent) -> FloatArray:
    """Return singular values (S,) of a sample of the family's inverses, see `operator_basis.OperatorBasis`.

    The S samples, about a thousand (fewer where n is large), are others than those a network learns from.

    Raises
    ------
    ConfigurationError
        The mean of the family is singular: an operator head does not fit it.
    """
    q = min(READ, family.n)
    count = max(MAX_RANK + MAX_RANK // 4, min(1024, 2**26 // family.n**2))
    return operator_basis.fit(family, 1, q, q, SPECTRUM_SEED, count, report=report).spectrum


def estimate_network(family: NoisyFamily) -> ModelConfig:
    """Return the network of the shipped estimate heads in the size of a family."""
    return dataclasses.replace(ESTIMATE, n=family.n, n_row=0 if family.n_equations == family.n else family.n_equations)


def recipe_for(family: ProblemFamily, report: ProgressCallback = silent) -> Recipe:
    """Return a recipe for a family that is registered.

    An operator head with a perceptron of six blocks of width 128 on 16 x 16 entries of A, whitened, so that a small
    term beside a large one is seen: a perceptron on plain entries fails there (LOG.md). Its rank is the least multiple
    of 16 behind which the singular values are below 1e-4 of the first, and 256 at most.

    A noisy family gets the network and the steps of the recipe deblur-64 in its own size.

    Parameters
    ----------
    family : ProblemFamily
    report : callable
        Called with the number of samples that the spectrum has been taken of and the number in all.

    Returns
    -------
    Recipe

    Raises
    ------
    ConfigurationError
        The family is not registered, its settings are not JSON values, or an operator head does not fit it.

    Examples
    --------
    >>> from algebraformer import problems
    >>> recipe = recipe_for(problems.get("diffusion", n=8))
    >>> recipe.family, recipe.model.head, recipe.model.n_column, recipe.model.rank <= 64
    ('diffusion', 'operator', 8, True)
    """
    settings = family.own_settings()
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"settings of a family travel in checkpoints as JSON: {error}") from error
    if isinstance(family, NoisyFamily):
        return dataclasses.replace(
            ESTIMATE_HEADS["deblur-64"], family=family.name, family_settings=settings, model=estimate_network(family)
        )
    n, values = family.n, spectrum(family, report)
    needed = int(np.count_nonzero(values > TOLERANCE * values[0]))
    rank = min(MAX_RANK, n**2, MULTIPLE * max(1, -(-needed // MULTIPLE)))
    model = ModelConfig(
        n=n, architecture="mlp", head="operator", rank=rank, n_column=min(READ, n), n_row=min(READ, n), whiten=True,
        n_layer=6, n_embd=128,
    )  # fmt: skip
    return Recipe(
        family=family.name,
        family_settings=settings,
        model=model,
        samples=min(SAMPLES, max(MIN_SAMPLES, int(SAMPLES * (128 / n) ** 2))),
        steps=4_000,
        batch_size=128,
        lr=3e-3,
    )
