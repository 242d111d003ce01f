"""What training an estimate head adds to the loop: how far its family reaches, calibration, scores."""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.models import Algebraformer, estimates
from algebraformer.models.estimate import GAUSS_90, TRUSTS, scaled
from algebraformer.problems import ProblemFamily, Systems
from algebraformer.training.data import SCALER_SEED
from algebraformer.training.monitor import Report, silent
from algebraformer.training.scores import relative_errors

CHOOSING = 1024
"""Systems that the trust is chosen on."""


def begin(model: Algebraformer, family: ProblemFamily, count: int) -> None:
    """Tell a fresh estimate head how far the family reaches."""
    systems = family.sample(count, SCALER_SEED)
    model.estimate_head.fit(scaled(systems.A, systems.b))


def calibrate_estimates(model: Algebraformer, family: ProblemFamily, count: int, report: Report = silent) -> None:
    """Choose how far the network is trusted against the data, scale the standard deviations, learn how answers fit.

    Trust: that with the least mean relative error. Scale: 90 % intervals hold 90 % of the entries. On systems that no
    step was taken on.
    """
    systems = family.sample(count, SCALER_SEED)
    trust, few = model.estimate_head.trust, systems[:CHOOSING]
    errors, total = {}, len(TRUSTS) * len(few) + len(systems)
    for number, value in enumerate(TRUSTS):
        report(number * len(few), total)
        trust.fill_(value)
        x = estimates(model, few.A, few.b).mean
        errors[value] = float(np.mean(relative_errors(x, few)))
    trust.fill_(min(TRUSTS, key=lambda value: errors[value]))
    report(total - len(systems), total)
    found = estimates(model, systems.A, systems.b)
    model.estimate_head.calibrate(
        np.abs(systems.x - found.mean) / found.std, misfit(systems.A, systems.b, found.mean, found.noise)
    )
    report(total, total)


def misfit(A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> FloatArray:
    """Return ||A x - b|| / (noise ||b||) (B,): about one where x fits b to the noise level. 0 where b is 0."""
    size = np.linalg.norm(b, axis=1)
    left = np.linalg.norm((A @ x[:, :, None])[..., 0] - b, axis=1)
    return left / np.where(size > 0, noise * size, 1.0)


def coverage(x: FloatArray, mean: FloatArray, std: FloatArray) -> float:
    """Return the share of the entries of x that lie in the central 90 % intervals of normal distributions."""
    return float(np.mean(np.abs(x - mean) <= GAUSS_90 * std))


def estimate_scores(mean: FloatArray, std: FloatArray, noise: FloatArray, systems: Systems) -> dict[str, float]:
    """Return the scores of estimates of noisy systems: means and standard deviations (B, n), noise levels (B,).

    Returns
    -------
    dict
        relative_error_median, relative_error_90, relative_error_95 : quantiles over the systems of
        ||mean - x|| / ||x||; coverage : share of the entries of x in their 90 % intervals; noise_error_median : median
        of |noise_hat / noise - 1|.
    """
    errors = relative_errors(mean, systems)
    median, high, higher = np.quantile(errors, (0.5, 0.9, 0.95))
    return {
        "relative_error_median": float(median),
        "relative_error_90": float(high),
        "relative_error_95": float(higher),
        "coverage": coverage(systems.x, mean, std),
        "noise_error_median": float(np.median(np.abs(noise / systems.params["noise"] - 1))),
    }
