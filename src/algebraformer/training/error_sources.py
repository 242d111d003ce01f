"""Where the error of an operator head comes from: the rank of its basis, what it reads, its samples or its training."""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.models import Algebraformer
from algebraformer.numerics.reading import reading_errors
from algebraformer.problems import ProblemFamily
from algebraformer.problems.base import SPECTRUM_SEED, TEST_SEED
from algebraformer.progress import batches
from algebraformer.training.automatic import READ_SIZES, entry_samplers, reading_count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorSources:
    """Errors of T = A^-1 Abar, the medians over systems, relative to its root mean square spread over the family."""

    truncation: float
    """What the basis leaves of unseen systems even with exact coefficients."""
    network: float
    """Error of the network's coefficients for unseen systems."""
    network_seen: float | None
    """The same for the first systems of the training; None if these are not known."""
    reading: float
    """What a regression on the entries that the network reads leaves open, see `numerics.reading`."""
    most_read: int
    """Largest number of columns and rows that can be read."""
    most_reading: float
    """What so many leave open."""


def error_sources(
    model: Algebraformer, family: ProblemFamily, count: int, seen: tuple[int, int] | None = None
) -> ErrorSources:
    """Measure where the error of an operator head comes from.

    Parameters
    ----------
    model : Algebraformer
        With an operator head.
    family : ProblemFamily
    count : int
        Number of systems whose exact inverses are computed.
    seen : (int, int), optional
        Seed and number of the systems of the training.
    """
    truncation, network = _errors(model, family, count, TEST_SEED)
    n, most = family.n, min(family.n, READ_SIZES[-1])
    reading, most_reading = reading_errors(
        lambda part: family.assembled(part, SPECTRUM_SEED)[0],
        n,
        [model.operator_head.basis.sampler, *entry_samplers(family, [most])],
        reading_count(n),
    )
    return ErrorSources(
        truncation=truncation,
        network=network,
        network_seen=None if seen is None else _errors(model, family, min(count, seen[1]), seen[0])[1],
        reading=reading,
        most_read=most,
        most_reading=most_reading,
    )


def _errors(model: Algebraformer, family: ProblemFamily, count: int, seed: int) -> tuple[float, float]:
    """Return the errors of basis and network on the first systems of a seed; 1e300 where they are not finite."""
    head, parts = model.operator_head, []
    basis = head.basis
    for indices in batches(count, max(1, min(256, 2**24 // family.n**2))):
        A = family.assembled(indices, seed)[0]
        z, scaling = basis.read(A)
        T = basis.preconditioned(A, scaling)
        c, weight = basis.projected(T)
        spread = basis.squared_norm(T - basis.T_mean)
        left = np.maximum(spread - np.sum(np.abs(c) ** 2, axis=1), 0.0)  # the components are orthonormal
        wrong = np.sum(np.abs(head.coefficients(model, z) - c) ** 2, axis=1)
        parts.append(weight**2 * np.array([spread, left, wrong]))
    spread, left, wrong = np.concatenate(parts, axis=1)
    size = float(np.mean(spread)) or 1.0  # all of them are 0 where every system has the same matrix
    found = (float(np.nan_to_num(np.sqrt(np.median(part) / size), nan=1e300, posinf=1e300)) for part in (left, wrong))
    return next(found), next(found)
