"""A trained network at another size n: what it reads and the operators of its inverses are fitted anew, linearly.

The network takes the entries of A to coefficients c(A), which depend on the parameters of a system and hardly on n. So
it is kept, and with pairs of systems of the same parameters, one of each size, two linear maps are fitted by least
squares. One takes the entries of a matrix of size n to those that the network reads at its own size m. The other takes
the coefficients that the network then gives to the preconditioned inverses at size n,

    T_n(A) = A^-1 Abar_n is about Tbar_n + sum_r c_r T_n,r.

Interpolating A and M between the grids instead needs no fit, and does not hold the high modes (`studies/sizes.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, FloatArray
from algebraformer.models.config import OperatorConfig
from algebraformer.models.inference.network import NumpyNetwork
from algebraformer.models.inference.operator_reader import OperatorReader, limits
from algebraformer.models.inference.reader import Arrays
from algebraformer.models.inference.stored_basis import as_dense, to_arrays
from algebraformer.numerics.entry_sampler import EntrySampler, entry_weights
from algebraformer.numerics.operator_basis import (
    LEADING,
    check_mean,
    preconditioned_inverse,
    read_count,
    rounded,
    snapshot_count,
)
from algebraformer.problems import ProblemFamily
from algebraformer.problems.base import CALIBRATION_SEED, SCALER_SEED
from algebraformer.progress import ProgressCallback, batches, silent

READING_TOLERANCE = 0.03
"""Largest median error of what the network reads, relative to its spread over the family: 1e-6 for diffusion, 1e-3 for
reaction-diffusion."""
READING_RTOL = 1e-11
"""Combinations of entries that are smaller than this share of the largest are rounding."""
CALIBRATION_SAMPLES = 1024
"""Systems that the limits are measured on."""


def resampled(
    network: NumpyNetwork, family: ProblemFamily, other: ProblemFamily, report: ProgressCallback = silent
) -> NumpyNetwork:
    """Return a trained network for the systems of the same family at another size.

    Parameters
    ----------
    network : NumpyNetwork
        With an operator head of dense, real operators.
    family, other : ProblemFamily
        The family that it was trained on, and the same at the other size.
    report : callable
        Called with the number of systems done, of about four thousand in all.

    Raises
    ------
    ConfigurationError
        Another kind of head; a network that is resampled already; a size below the number of rows and columns that it
        reads; parameters that depend on n; or matrices that do not determine, linearly, what the network reads.
    """
    head = OperatorConfig.of(network.config)
    head.check_trained()
    config = dataclasses.replace(network.config, n=other.n).with_head(resampled=True)
    check_parameters(family, other)
    reader, n = network.reader, other.n
    if not isinstance(reader, OperatorReader):
        raise ConfigurationError(f"only operator heads have other sizes, received {head.name}")
    basis = as_dense(reader.basis)
    count, few = snapshot_count(n, head.rank), min(read_count(n), read_count(family.n))
    total, done = 2 * few + 2 * count + CALIBRATION_SAMPLES, 0

    def advance(systems: int) -> None:
        nonlocal done
        done += systems
        report(done, total)

    # 1. What is read: the entries of both sizes, and the map between them.
    sampler = resampling(basis.sampler, family, other, few)
    advance(2 * few)

    # 2. The coefficients that the network gives to a sample, and Abar.
    A_mean, parts = np.zeros((n, n)), []
    for A in matrices(other, count):
        z, s = sampler(A)
        A_mean += np.sum(A / s[:, None, None], axis=0) / count
        parts.append(reader.coefficients(network.forward, z).astype(np.float64))
        advance(len(A))
    check_mean(A_mean)

    # 3. The operators: weighted least squares on T, in the typical size of the coefficients.
    scale = np.concatenate(([1.0], np.where(reader.typical > 0, reader.typical, 1.0)))
    features = np.insert(np.concatenate(parts), 0, 1.0, axis=1) / scale
    gram, moments, start = np.zeros((scale.size, scale.size)), np.zeros((scale.size, n * n)), 0
    for A in matrices(other, count):
        T = preconditioned_inverse(A / sampler(A)[1][:, None, None], A_mean).reshape(len(A), -1)
        weight = 1 / np.linalg.norm(T, axis=1, keepdims=True)
        rows = weight * features[start : start + len(A)]
        gram += rows.T @ rows
        moments += rows.T @ (weight * T)
        start += len(A)
        advance(len(A))
    fitted = np.linalg.pinv(gram, rcond=scale.size * EPS, hermitian=True) @ moments / scale[:, None]
    operators = fitted.astype(np.float32).reshape(-1, n, n)
    operators[1 + LEADING :] = rounded(operators[1 + LEADING :])
    found = dataclasses.replace(basis, sampler=sampler, A_mean=A_mean, operators=operators)

    # 4. The limits, on other systems.
    arrays = {**network.arrays, **named(to_arrays(found), network.buffers)}
    made = NumpyNetwork(config, arrays)
    own = limits(made.reader, made.forward, other, CALIBRATION_SAMPLES, CALIBRATION_SEED)  # type: ignore[arg-type]
    advance(CALIBRATION_SAMPLES)
    values = {name: np.array(value) for name, value in own._asdict().items()}
    return NumpyNetwork(config, arrays | named(values, network.buffers))


def check_parameters(family: ProblemFamily, other: ProblemFamily) -> None:
    """Raise `ConfigurationError` unless both sizes of a family draw the same parameters."""
    first, second = (one.parameters(range(2), SCALER_SEED) for one in (family, other))
    for name, value in first.items():
        if not np.array_equal(value, second[name]):
            raise ConfigurationError(
                f"{name} of the family {family.name} depends on n, so that no system of size {other.n} corresponds to "
                f"one of size {family.n}: train a network for n = {other.n}"
            )


def matrices(family: ProblemFamily, count: int) -> Iterator[FloatArray]:
    """Yield the matrices (B, n, n) of the sample that everything is fitted on, a limited number at a time."""
    for part in batches(count, max(1, min(256, 2**23 // family.n**2))):
        yield family.assembled(part, SCALER_SEED)[0]


def resampling(sampler: EntrySampler, family: ProblemFamily, other: ProblemFamily, count: int) -> EntrySampler:
    """Return what reads of matrices of the other size what `sampler` reads of those of the family.

    Rows and columns are those at the same places of the grid, so that entries of the diagonal stay such. The map is
    fitted on three quarters of `count` systems and judged on the rest. Weights make the entries of both sizes
    comparable, and every system counts by 1 / the size of its entries.

    Raises
    ------
    ConfigurationError
        The median error of the entries, z-scored, is above `READING_TOLERANCE`.
    """
    mine, theirs = (np.concatenate(list(matrices(one, count))) for one in (family, other))
    rows, columns = (places(of, family.n, other.n) for of in (sampler.rows, sampler.columns))
    E = theirs[:, rows[:, None], columns]
    own = entry_weights(np.sqrt(np.mean(E**2, axis=0)))
    X = (E * own).reshape(count, -1)
    Y = (mine[:, sampler.rows[:, None], sampler.columns] * sampler.weight).reshape(count, -1)
    size = np.sqrt(np.mean(X**2, axis=1, keepdims=True))
    fitted = slice(3 * count // 4)
    solution = np.linalg.lstsq((X / size)[fitted], (Y / size)[fitted], rcond=READING_RTOL)[0]  # weighted entries
    weight = sampler.weight.ravel()
    unweighted = np.where(weight > 0, 1 / np.where(weight > 0, weight, 1.0), 0.0)
    resampled = dataclasses.replace(
        sampler,
        rows=rows,
        columns=columns,
        resampling=unweighted[:, None] * solution.T * own.ravel(),
    )
    held_out = slice(fitted.stop, None)
    errors = resampled(theirs[held_out])[0] - sampler(mine[held_out])[0]
    if not (error := float(np.median(np.sqrt(np.mean(errors**2, axis=(1, 2)))))) <= READING_TOLERANCE:
        raise ConfigurationError(
            f"matrices of {family.name} with n = {other.n} do not determine those with n = {family.n}: what the "
            f"network reads has an error of {error:.2g} of its spread: train a network for n = {other.n}"
        )
    return resampled


def places(indices: NDArray[np.int64], m: int, n: int) -> NDArray[np.int64]:
    """Return the indices among n interior points of a grid that are nearest to these among m.

    Examples
    --------
    >>> places(np.array([0, 31, 63]), 64, 15)
    array([ 0,  7, 14])
    """
    found = np.rint((indices + 1) * (n + 1) / (m + 1)).astype(np.int64) - 1
    return np.clip(found, 0, n - 1)


def named(values: Arrays, buffers: Arrays) -> dict[str, NDArray[np.generic]]:
    """Return buffers of a head under their names in the network, in the precision that these are stored in."""
    return {
        f"head.{name}": np.asarray(array, dtype=buffers.get(name, array).dtype, order="C")
        for name, array in values.items()
    }
