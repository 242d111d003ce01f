"""Estimates of x from noisy systems b = A x + e: a mean, a standard deviation, and whether they fit the data."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.checked_input import check_right_hand_sides, real_numbers
from algebraformer.classical import regularization
from algebraformer.errors import InconsistentWarning
from algebraformer.linalg import FloatArray
from algebraformer.models import Algebraformer, Estimates, estimates
from algebraformer.models.estimate import GAUSS_90
from algebraformer.result import plain
from algebraformer.training.estimate import misfit

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a network says of one noisy system or of a batch of B.

    Every right-hand side is a system of its own. Fields that hold one value per system are scalars for b (m,), and
    arrays of shape (k,), (B,) or (B, k) for b of shape (m, k), (B, m) or (B, m, k).

    Attributes
    ----------
    x : ndarray, float64
        The mean: shape (n,), (n, k), (B, n) or (B, n, k).
    std : ndarray, float64
        Standard deviation of every entry of x, calibrated so that `interval` holds 90 % of the entries of systems of
        the family. That was measured inside the family and is not guaranteed outside.
    noise : float or ndarray
        The noise level as the network sees it: standard deviation of e over the root mean square of A x.
    misfit : float or ndarray
        ||A x - b|| / (noise ||b||), in float64 from the caller's A and b: about one where x fits b to the noise level.
    consistent : bool or ndarray
        Whether the misfit is as those of 99.5 % of the family's systems. If not, do not use x: it does not fit b to the
        noise level that the network claims, or fits it far too well.
    in_distribution : bool or ndarray
        Whether the system looks like the family the network was trained on: neither matrix nor data are further from
        the middle of the family than the training sample reached. A judgement about A and b, not about x.
    tikhonov : ndarray or None
        Tikhonov's answer, with its parameter from generalised cross-validation, for systems that are not consistent;
        NaN for the others, None if there are no such systems.
    """

    x: FloatArray
    std: FloatArray
    noise: Any
    misfit: Any
    consistent: Any
    in_distribution: Any
    tikhonov: FloatArray | None = None

    @property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends of the 90 % intervals, each in the shape of x."""
        return self.x - GAUSS_90 * self.std, self.x + GAUSS_90 * self.std

    def record(self) -> dict[str, Any]:
        """Return every field as plain JSON values; numbers that are not finite as None."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class _Noisy:
    """Checked input: A (S, m, n) and b (S, m), one right-hand side each, and how they were given."""

    A: FloatArray
    b: FloatArray
    lead: tuple[int, ...]
    columns: bool

    def values(self, v: Array) -> Any:
        """Return one value per system (S,) as the caller expects it."""
        return v.reshape(self.lead) if self.lead else v[0].item()

    def vectors(self, v: FloatArray) -> FloatArray:
        """Return one vector per system (S, n) as the caller expects it: with columns where b has some."""
        v = v.reshape(*self.lead, v.shape[1])
        return np.ascontiguousarray(np.swapaxes(v, -1, -2)) if self.columns else v


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
        raise ValueError(f"{where} is zero throughout: b says nothing of x")
    columns = b.ndim - batched == 2
    flat = np.swapaxes(b, -1, -2) if columns else b
    lead = flat.shape[:-1]
    owner = np.arange(len(A)).repeat(b.shape[-1] if columns else 1) if batched else np.zeros(flat.size // m, dtype=int)
    stacked = A if batched else A[None]
    whole = len(owner) == len(stacked)  # one right-hand side each: nothing to repeat
    return _Noisy(stacked if whole else stacked[owner], np.ascontiguousarray(flat).reshape(-1, m), lead, columns)


def _asked(model: Algebraformer, A: ArrayLike, b: ArrayLike) -> tuple[_Noisy, Estimates]:
    """Return checked input and what the network says of it; `ConfigurationError` without an estimate head."""
    _ = model.estimate_head
    system = _checked(A, b, model.config.n_equation, model.config.n)
    return system, estimates(model, system.A, system.b)


def mean(model: Algebraformer, A: ArrayLike, b: ArrayLike) -> FloatArray:
    """Return the mean alone, in the shape of `Estimate.x`."""
    system, found = _asked(model, A, b)
    return system.vectors(found.mean)


def estimate(model: Algebraformer, A: ArrayLike, b: ArrayLike) -> Estimate:
    """Estimate x from noisy b = A x + e; `LearnedSolver.estimate` says what goes in and what comes out."""
    system, found = _asked(model, A, b)
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = misfit(system.A, system.b, found.mean, found.noise)
    fits = model.estimate_head.fits(ratio) & np.isfinite(found.mean).all(axis=1) & np.isfinite(found.std).all(axis=1)
    tikhonov = None
    if (odd := np.flatnonzero(~fits)).size:
        tikhonov = np.full_like(found.mean, np.nan)
        tikhonov[odd] = regularization.cross_validated(system.A[odd], system.b[odd])
        count = f"{odd.size} of {len(fits)} systems" if system.lead else "the system"
        warnings.warn(
            f"the estimate of {count} does not fit the data to the noise level that the network sees: do not use it; "
            "Tikhonov's answer is in the field tikhonov",
            InconsistentWarning,
            stacklevel=3,
        )
    return Estimate(
        x=system.vectors(found.mean),
        std=system.vectors(found.std),
        noise=system.values(found.noise),
        misfit=system.values(ratio),
        consistent=system.values(fits),
        in_distribution=system.values(found.familiar),
        tikhonov=None if tikhonov is None else system.vectors(tikhonov),
    )
