"""A recipe for any family, made from the family alone.

The rank of the operator head is read off the spectrum of the family's inverses; the rest is the same for all families
but for the size of the training set, which is made in minutes on two cores for n up to about 500.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from algebraformer._deprecated import moved
from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import EstimateConfig, ModelConfig, OperatorConfig
from algebraformer.numerics import operator_basis
from algebraformer.problems import NoisyFamily, ProblemFamily
from algebraformer.problems.base import SPECTRUM_SEED
from algebraformer.progress import ProgressCallback, silent
from algebraformer.training.recipes import ESTIMATE, ESTIMATE_HEADS, Recipe

MAX_RANK = 256
"""Largest number of basis operators that is chosen."""
SPECTRUM_TOLERANCE = 1e-4
"""Components are kept down to this share of the first singular value."""
RANK_MULTIPLE = 16
"""Ranks are rounded up to a multiple of this, so that the last digits of a spectrum do not decide."""
N_READ = 16
"""Columns and rows of A that are read, or n if that is less."""
TRAINING_SAMPLES, MIN_TRAINING_SAMPLES = 50_000, 2_048
"""Training systems for n up to 128, and least number of them for larger n."""


def spectrum(family: ProblemFamily, report: ProgressCallback = silent) -> FloatArray:
    """Return singular values (S,) of a sample of the family's inverses, see `operator_basis.OperatorBasis`.

    The S samples, about a thousand (fewer where n is large), are others than those a network learns from.

    Raises
    ------
    ConfigurationError
        The mean of the family is singular: an operator head does not fit it.
    """
    q = min(N_READ, family.n)
    count = max(MAX_RANK + MAX_RANK // 4, min(1024, 2**26 // family.n**2))
    return operator_basis.fit(
        lambda indices: family.assembled(indices, SPECTRUM_SEED)[0], family.n, 1, q, q, count=count, report=report
    ).spectrum


def estimate_network(family: NoisyFamily) -> ModelConfig:
    """Return the network of the shipped estimate heads in the size of a family."""
    head = EstimateConfig.of(ESTIMATE)
    m = None if family.n_equations == family.n else family.n_equations
    return dataclasses.replace(ESTIMATE, n=family.n, head=dataclasses.replace(head, n_equations=m))


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
    >>> recipe.family, recipe.model.head.name, recipe.model.head.n_column, recipe.model.head.rank <= 64
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
    needed = int(np.count_nonzero(values > SPECTRUM_TOLERANCE * values[0]))
    rank = min(MAX_RANK, n**2, RANK_MULTIPLE * max(1, -(-needed // RANK_MULTIPLE)))
    q = min(N_READ, n)
    head = OperatorConfig(rank=rank, n_column=q, n_row=q, whiten=True)
    model = ModelConfig(n=n, architecture="mlp", head=head, n_layer=6, n_embd=128)
    return Recipe(
        family=family.name,
        family_settings=settings,
        model=model,
        samples=min(TRAINING_SAMPLES, max(MIN_TRAINING_SAMPLES, int(TRAINING_SAMPLES * (128 / n) ** 2))),
        steps=4_000,
        batch_size=128,
        lr=3e-3,
    )


def __getattr__(name: str) -> Any:
    if name in ("as_family", "Sampler"):  # until 0.2
        return moved("training.automatic", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
