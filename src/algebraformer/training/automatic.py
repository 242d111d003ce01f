"""A recipe for any family, made from the family alone.

The rank of the operator head is read off the spectrum of the family's inverses, how many entries of A the network reads
off the errors of a regression that reads them, and the form of the inverse off the time that solving with it takes. The
rest is the same for all families but for what gets more expensive with n: the training set of an operator head, and
steps and batches of an estimate head.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from algebraformer._deprecated import moved
from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import EstimateConfig, ModelConfig, Numbers, OperatorConfig
from algebraformer.numerics import operator_basis
from algebraformer.numerics.entry_sampler import EntrySampler, select_entries
from algebraformer.numerics.reading import reading_errors
from algebraformer.problems import Instrument, NoisyFamily, ProblemFamily
from algebraformer.problems.base import SCALER_SEED, SPECTRUM_SEED
from algebraformer.progress import ProgressCallback, silent
from algebraformer.training.forms import FORMS_MIN_N, candidates, fastest
from algebraformer.training.inversion import instrument_recipe
from algebraformer.training.recipes import ESTIMATE, ESTIMATE_HEADS, Recipe

MAX_RANK = 256
"""Largest number of basis operators that is chosen."""
SPECTRUM_TOLERANCE = 1e-4
"""Components are kept down to this share of the first singular value."""
RANK_MULTIPLE = 16
"""Ranks are rounded up to a multiple of this, so that the last digits of a spectrum do not decide."""
READ_SIZES = (16, 32, 64)
"""Numbers of columns and rows of A that may be read: those of the shipped networks, and twice and four times as many,
which is the most that a network reads."""
READING_TOLERANCE = 3e-3
"""Errors of the reading below this are no reason to read more: the networks of the shipped families leave 2e-4 to 1e-2
of the error (results/operator.md)."""
READING_GAIN = 2.0
"""More is read only if it makes the error of the reading smaller by this factor: it differs by up to 1.3 between sizes
that tell the same on the shipped families, and four times the entries take four times as long to read."""
READING_SAMPLES, MIN_READING_SAMPLES = 512, 128
"""Samples that the reading is measured on, and least number of them for larger n."""
TRAINING_SAMPLES, MIN_TRAINING_SAMPLES = 50_000, 2_048
"""Training systems for n up to 128, and least number of them for larger n."""
MIN_ESTIMATE_STEPS, MIN_ESTIMATE_BATCH = 1_500, 8
"""Least number of steps of an estimate head, and of systems per step, for larger n."""


def spectrum(family: ProblemFamily, report: ProgressCallback = silent) -> FloatArray:
    """Return singular values (S,) of a sample of the family's inverses, see `operator_basis.OperatorBasis`.

    The S samples, about a thousand (fewer where n is large), are others than those a network learns from.

    Raises
    ------
    ConfigurationError
        The mean of the family is singular: an operator head does not fit it.
    """
    q = min(READ_SIZES[0], family.n)
    count = max(MAX_RANK + MAX_RANK // 4, min(1024, 2**26 // family.n**2))
    return operator_basis.fit(
        lambda indices: family.assembled(indices, SPECTRUM_SEED)[0], family.n, 1, q, q, count=count, report=report
    ).spectrum


def readings(family: ProblemFamily, report: ProgressCallback = silent) -> dict[int, float]:
    """Return, for numbers of rows and columns that may be read, the share of the inverse that these leave open.

    It is the error of a regression on samples left out, see `numerics.reading`: a network that reads as little does
    not get much below it, however long it is trained. The rows and columns are those that a training chooses.

    Parameters
    ----------
    family : ProblemFamily
    report : callable
        Called with the number of samples drawn so far and the number in all.

    Examples
    --------
    >>> from algebraformer import problems
    >>> errors = readings(problems.get("diffusion", n=24))
    >>> list(errors), max(errors.values()) < 1e-4
    ([16, 24], True)
    """
    n, sizes = family.n, sorted({min(size, family.n) for size in READ_SIZES})
    errors = reading_errors(
        lambda part: family.assembled(part, SPECTRUM_SEED)[0],
        n,
        entry_samplers(family, sizes),
        reading_count(n),
        report,
    )
    return dict(zip(sizes, errors, strict=True))


def entry_samplers(family: ProblemFamily, sizes: Sequence[int]) -> list[EntrySampler]:
    """Return the entries that a training chooses for each number of columns and rows, not whitened."""
    A = family.assembled(range(operator_basis.read_count(family.n)), SCALER_SEED)[0]
    return [select_entries(iter([A]), len(A), size, size, whiten=False) for size in sizes]


def reading_count(n: int) -> int:
    """Return how many samples a reading is measured on: 512, fewer where n is above 512."""
    return max(MIN_READING_SAMPLES, min(READING_SAMPLES, 2**27 // n**2))


def enough_read(errors: dict[int, float]) -> int:
    """Return the least number of rows and columns behind which the errors of `readings` fall no further.

    Examples
    --------
    >>> enough_read({16: 0.6, 32: 0.4, 64: 0.01}), enough_read({16: 0.3, 32: 0.2, 64: 0.2})
    (64, 16)
    """
    limit = max(READING_TOLERANCE, READING_GAIN * min(errors.values()))
    return min(size for size, error in errors.items() if error <= limit)


def estimate_network(family: NoisyFamily) -> ModelConfig:
    """Return the network of the shipped estimate heads in the size of a family."""
    head = EstimateConfig.of(ESTIMATE)
    m = None if family.n_equations == family.n else family.n_equations
    head = dataclasses.replace(head, n_equations=m, nonnegative=family.nonnegative)
    return dataclasses.replace(ESTIMATE, n=family.n, head=head)


def recipe_for(family: ProblemFamily, report: ProgressCallback = silent) -> Recipe:
    """Return a recipe for a family that is registered.

    An operator head with a perceptron of six blocks of width 128 on entries of A, whitened, so that a small term beside
    a large one is seen: a perceptron on plain entries fails there (LOG.md). Its rank is the least multiple of 16 behind
    which the singular values are below 1e-4 of the first, and 256 at most. It reads 16 x 16 entries, or as many as
    `enough_read` finds in `readings`, 64 x 64 at most. From 96 unknowns on, the form of the inverse and its rank, up to
    this one, are those that systems are solved fastest with, see `training.forms`.

    A noisy family gets the network and the steps of the recipe deblur-64 in its own size. Above 64 unknowns or
    equations the numbers of steps and of systems per step fall as 1 / n, since a system takes about n^2 times as long:
    at n = 576 there are 12,000 systems instead of 384,000. An instrument gets the network of the recipe deer, with one
    block less, and 3,000 steps.

    Parameters
    ----------
    family : ProblemFamily
    report : callable
        Called with the number of samples that spectrum or readings have been taken of and the number in all.

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
    if isinstance(family, Instrument):
        return instrument_recipe(family)
    if isinstance(family, NoisyFamily):
        like, share = ESTIMATE_HEADS["deblur-64"], min(1.0, 64 / max(family.n, family.n_equations))
        return dataclasses.replace(
            like,
            family=family.name,
            family_settings=settings,
            model=estimate_network(family),
            steps=max(MIN_ESTIMATE_STEPS, int(like.steps * share)),
            batch_size=max(MIN_ESTIMATE_BATCH, int(like.batch_size * share)),
        )
    n, values = family.n, spectrum(family, report)
    needed = int(np.count_nonzero(values > SPECTRUM_TOLERANCE * values[0]))
    rank = min(MAX_RANK, n**2, RANK_MULTIPLE * max(1, -(-needed // RANK_MULTIPLE)))
    q = enough_read(readings(family, report)) if n > READ_SIZES[0] else n
    numbers: Numbers = "complex" if family.is_complex else "real"
    form: dict[str, Any] = {"rank": rank}
    if n >= FORMS_MIN_N and not family.is_complex:
        form = fastest(candidates(family, rank, READ_SIZES[0], report)).settings()
    head = OperatorConfig(n_column=q, n_row=q, whiten=True, numbers=numbers, **form)
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
