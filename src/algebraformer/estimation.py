"""Estimates of x from noisy systems b = A x + e: a mean, a standard deviation, and whether they fit the data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.arrays import Kind, kind_of
from algebraformer.errors import InconsistentWarning, warn_caller
from algebraformer.linalg import FloatArray
from algebraformer.metrics import GAUSS_90, misfit
from algebraformer.models.config import EstimateConfig
from algebraformer.models.inference.answers import AnyNetwork
from algebraformer.models.inference.reading import Estimates
from algebraformer.numerics import nonnegative, regularization
from algebraformer.result import plain
from algebraformer.validation import check_right_hand_sides, real_numbers

Array = NDArray[Any]
BLOCK_SIZE = 1024
"""Right-hand sides that are estimated at a time: each needs a copy of its matrix, unless there is one for all."""
MAX_EXPONENT = 250
"""Powers of two up to which squares and fourth powers of entries stay within float64."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A network's estimate for one noisy system or for a batch of B.

    Every right-hand side is a system of its own. Fields that hold one value per system are scalars for b (m,), and
    arrays of shape (k,), (B,) or (B, k) for b of shape (m, k), (B, m) or (B, m, k).

    Attributes
    ----------
    x : array, float64
        The mean, an array of the kind of b: shape (n,), (n, k), (B, n) or (B, n, k).
    std : array, float64
        Standard deviation, likewise, of every entry of x, calibrated so that `interval` holds 90 % of the entries of
        systems of the family. That was measured inside the family and is not guaranteed outside.
    noise : float or ndarray
        The predicted noise level: standard deviation of e over the root mean square of A x.
    misfit : float or ndarray
        ||A x - b|| / (noise ||b||), in float64 from the caller's A and b: about one where x fits b to the noise level.
    consistent : bool or ndarray
        Whether the misfit is like those of 99.5 % of the family's systems. If not, do not use x: it does not fit b to
        the predicted noise level, or fits it far too well.
    in_distribution : bool or ndarray
        Whether the system looks like the family the network was trained on: neither matrix nor data are further from
        the middle of the family than held-out systems reached, and residual and x look like theirs, see
        `models.inference.predictive_checks`. Checkpoints from before there were such checks tell by A and b alone.
    tikhonov : array or None
        Tikhonov's answer, likewise, with its parameter from generalised cross-validation, for systems that are not
        consistent; NaN for the others, None if there are no such systems. Of a nonnegative family it is the one with
        x >= 0, see `numerics.nonnegative`.
    nonnegative : bool
        Whether the model estimates x >= 0: then x and both ends of `interval` are.
    """

    x: FloatArray
    std: FloatArray
    noise: Any
    misfit: Any
    consistent: Any
    in_distribution: Any
    tikhonov: FloatArray | None = None
    nonnegative: bool = False

    @property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the 90 % intervals, each in the shape of x.

        x -+ 1.645 std. Where x >= 0, the lower end is cut off at 0: this loses no entry, and so std is calibrated for
        the interval as it is.
        """
        low, high = self.x - GAUSS_90 * self.std, self.x + GAUSS_90 * self.std
        return (low + abs(low)) / 2 if self.nonnegative else low, high

    def record(self) -> dict[str, Any]:
        """Return every field as plain JSON values; numbers that are not finite as None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: plain(kind_of(value=value).numpy(value)) for name, value in values.items()}

    def as_kind(self, kind: Kind) -> Estimate:
        """Return the estimates with x, std and tikhonov as arrays of another kind."""
        tikhonov = None if self.tikhonov is None else kind.array(self.tikhonov)
        return dataclasses.replace(self, x=kind.array(self.x), std=kind.array(self.std), tikhonov=tikhonov)


@dataclasses.dataclass(frozen=True)
class _Noisy:
    """Checked input: S right-hand sides, the matrix of each, and how they were given.

    Attributes
    ----------
    matrices : ndarray, shape (B, m, n)
    owner : ndarray of int, shape (S,)
        Whose matrix a right-hand side has.
    b : ndarray, shape (S, m)
    A_power, b_power : ndarray of int, shape (B,) and (S,)
        Powers of two that A and b are divided by before squares of them are taken.
    """

    matrices: FloatArray
    owner: NDArray[np.int64]
    b: FloatArray
    A_power: NDArray[np.int64]
    b_power: NDArray[np.int64]
    lead: tuple[int, ...]
    columns: bool

    def systems(self, chosen: slice | NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
        """Return A (C, m, n) and b (C, m) of the chosen right-hand sides, of moderate size; no copies of one matrix."""
        owner, b_power = self.owner[chosen], self.b_power[chosen]
        b = self.b[chosen]
        if len(self.matrices) == 1:
            A = np.broadcast_to(
                np.ldexp(self.matrices, -self.A_power[:, None, None]), (len(b), *self.matrices.shape[1:])
            )
            return A, np.ldexp(b, -b_power[:, None]) if b_power.any() else b
        A = self.matrices[owner]
        if self.A_power.any():
            A = np.ldexp(A, -self.A_power[owner][:, None, None])
        return A, np.ldexp(b, -b_power[:, None]) if b_power.any() else b

    def in_units(self, v: FloatArray) -> FloatArray:
        """Return vectors x (S, n) of the scaled systems in the caller's units; infinity where these are too small."""
        power = self.b_power - self.A_power[self.owner]
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(v, power[:, None]) if power.any() else v

    def values(self, v: Array) -> Any:
        """Return one value per system (S,) as the caller expects it."""
        return v.reshape(self.lead) if self.lead else v[0].item()

    def vectors(self, v: FloatArray) -> FloatArray:
        """Return one vector per system (S, n) as the caller expects it: with columns where b has some."""
        v = v.reshape(*self.lead, v.shape[1])
        return np.ascontiguousarray(np.swapaxes(v, -1, -2)) if self.columns else v


def _power(largest: FloatArray) -> NDArray[np.int64]:
    """Return the powers of two near the sizes (S,) of arrays whose squares would leave float64's range, else 0."""
    _, power = np.frexp(largest)
    return np.where((largest > 0) & (np.abs(power) > MAX_EXPONENT), power, 0)


def _checked(A: ArrayLike, b: ArrayLike, m: int, n: int) -> _Noisy:
    """Check A and b and give every right-hand side its matrix."""
    A, b = real_numbers(A, "A"), real_numbers(b, "b")
    if A.ndim not in (2, 3):
        raise ValueError(f"A must have shape (m, n) or (B, m, n), received {A.shape}")
    batched = A.ndim == 3
    if A.shape[batched:] != (m, n):
        raise ValueError(f"the model estimates from matrices of shape {(m, n)}, received {A.shape[batched:]}")
    check_right_hand_sides(A, b, "m")
    if (zero := np.flatnonzero(~A.any(axis=(-2, -1)))).size:
        where = f"system {zero[0]} of A" if batched else "A"
        raise ValueError(f"{where} is zero throughout: b does not depend on x")
    columns = b.ndim - batched == 2
    flat = np.swapaxes(b, -1, -2) if columns else b
    lead = flat.shape[:-1]
    flat = np.ascontiguousarray(flat).reshape(-1, m)
    matrices = A if batched else A[None]
    owner = np.arange(len(matrices)).repeat(len(flat) // len(matrices)) if len(matrices) else np.empty(0, dtype=int)
    return _Noisy(
        matrices,
        owner,
        flat,
        A_power=_power(np.abs(matrices).max(axis=(1, 2), initial=0.0)),
        b_power=_power(np.abs(flat).max(axis=1, initial=0.0)),
        lead=lead,
        columns=columns,
    )


def _estimates(network: AnyNetwork, A: ArrayLike, b: ArrayLike) -> tuple[_Noisy, Estimates, FloatArray]:
    """Return checked input, the network's estimates and the misfits (S,), a limited number of systems at a time.

    Raises `ConfigurationError` unless the head makes estimates.
    """
    network.check_estimates()
    system = _checked(A, b, network.config.n_equations, network.config.n)
    parts, ratios = [], []
    for start in range(0, max(1, len(system.b)), BLOCK_SIZE):
        matrices, right = system.systems(slice(start, start + BLOCK_SIZE))
        predicted = network.estimates(matrices, right)
        with np.errstate(over="ignore", invalid="ignore"):
            ratios.append(misfit(matrices, right, predicted.mean, predicted.noise))
        parts.append(predicted)
    return system, Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True))), np.concatenate(ratios)


def mean(network: AnyNetwork, A: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return the mean alone, in the shape of `Estimate.x`."""
    system, predicted, _ = _estimates(network, A, b)
    return system.vectors(system.in_units(predicted.mean))


def estimate(network: AnyNetwork, A: ArrayLike, b: ArrayLike) -> Estimate:
    """Estimate x from noisy b = A x + e; see `LearnedSolver.estimate`."""
    system, predicted, ratio = _estimates(network, A, b)
    x, std = system.in_units(predicted.mean), system.in_units(predicted.std)
    fits = network.fits(ratio) & np.isfinite(x).all(axis=1) & np.isfinite(std).all(axis=1)
    tikhonov, head = None, network.config.head
    is_nonnegative = isinstance(head, EstimateConfig) and head.nonnegative
    classical = nonnegative.batch_cross_validated if is_nonnegative else regularization.cross_validated
    if (inconsistent := np.flatnonzero(~fits)).size:
        tikhonov = np.full_like(predicted.mean, np.nan)
        for rows in np.split(inconsistent, range(BLOCK_SIZE, inconsistent.size, BLOCK_SIZE)):
            tikhonov[rows] = classical(*system.systems(rows))
        what = f"{inconsistent.size} of {len(fits)} estimates are" if system.lead else "the estimate is"
        instead = "them" if system.lead else "it"
        warn_caller(
            f"{what} inconsistent with the predicted noise level; use the field tikhonov instead of {instead}",
            InconsistentWarning,
        )
    return Estimate(
        x=system.vectors(x),
        std=system.vectors(std),
        noise=system.values(predicted.noise),
        misfit=system.values(ratio),
        consistent=system.values(fits),
        in_distribution=system.values(predicted.in_distribution),
        tikhonov=None if tikhonov is None else system.vectors(system.in_units(tikhonov)),
        nonnegative=is_nonnegative,
    )
