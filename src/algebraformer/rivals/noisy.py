"""What a learned estimator has to beat on noisy systems: classical estimates, each tuned on draws of the family.

They differ in what they are told besides A and b:

- GCV: nothing. Tikhonov's regularisation, its parameter from generalised cross-validation.
- GCV + NNLS: nothing. The same with x >= 0, for families that say so.
- TV: the norm of the noise. Total variation, its parameter from the discrepancy principle. It takes neighbouring
  entries of x for neighbours, so it means little where x is an image.
- LMMSE: the level of the noise, and mean and covariance of the signals. The best affine estimate.

The order of the differences in the first two is the one with the lowest median error on the draws. Where signals are
>= 0, answers of TV and LMMSE are cut off at 0, which never makes them worse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from algebraformer.linalg import FloatArray, relative_error
from algebraformer.numerics import lmmse, nonnegative, regularization, total_variation

ORDERS = (0, 1, 2)
"""Orders of differences that are tried."""


class Measurements(NamedTuple):
    """B noisy systems, with what rivals may be told."""

    A: FloatArray
    """(B, m, n)"""
    b: FloatArray
    """(B, m)"""
    x: FloatArray
    """The true signals (B, n); no rival sees them, but for the draws it is tuned on."""
    noise_norm: FloatArray
    """What ||b - A x||_2 is expected to be (B,)."""


@dataclasses.dataclass(frozen=True)
class EstimateRival:
    """A classical way to estimate x.

    Attributes
    ----------
    name : str
    told : str
        What it is told besides A and b.
    estimate : callable
        estimate(A, b, noise_norm) -> x, of shapes (B, m, n), (B, m), (B,) and (B, n).
    """

    name: str
    told: str
    estimate: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def tuned(draws: Measurements, signals: FloatArray, is_nonnegative: bool = False) -> list[EstimateRival]:
    """Return the rivals that apply to a family, tuned on systems that are not those of the comparison.

    Parameters
    ----------
    draws : Measurements
        Systems of the family, from which the orders are chosen.
    signals : ndarray, shape (S, n)
        Signals of the family, from which mean and covariance are taken.
    is_nonnegative : bool
        Whether all signals are >= 0.
    """
    m, n = draws.A.shape[1:]
    orders = [order for order in ORDERS if order < min(m, n)]
    low = 0.0 if is_nonnegative else -np.inf
    mean, covariance = signals.mean(axis=0), np.cov(signals, rowvar=False).reshape(n, n)
    order = _best(regularization.cross_validated, orders, draws)
    found = [
        EstimateRival("GCV", "nothing", lambda A, b, noise_norm: regularization.cross_validated(A, b, order)),
    ]
    if is_nonnegative:
        bounded = _best(nonnegative.batch_cross_validated, orders, draws)
        found.append(
            EstimateRival(
                "GCV + NNLS", "x >= 0", lambda A, b, noise_norm: nonnegative.batch_cross_validated(A, b, bounded)
            )
        )
    if n > 1:
        found.append(
            EstimateRival(
                "TV",
                "noise",
                lambda A, b, noise_norm: np.maximum(total_variation.by_discrepancy(A, b, noise_norm), low),
            )
        )
    found.append(
        EstimateRival(
            "LMMSE",
            "noise, moments",
            lambda A, b, noise_norm: np.maximum(
                lmmse.known_matrix(A, b, mean, covariance, noise_norm / np.sqrt(A.shape[1])), low
            ),
        )
    )
    return found


def _best(
    method: Callable[[FloatArray, FloatArray, int], FloatArray], orders: Sequence[int], draws: Measurements
) -> int:
    """Return the order with the lowest median relative error on the draws."""

    def error(order: int) -> float:
        x = method(draws.A, draws.b, order)
        return float(np.median(relative_error(x[:, :, None], draws.x[:, :, None])))

    return min(orders, key=error)
