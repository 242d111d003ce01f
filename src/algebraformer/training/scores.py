"""Scores of answers to the systems of a family, whoever gave the answers."""

from __future__ import annotations

from algebraformer.linalg import FloatArray, normalized_mse, relative_error
from algebraformer.problems import Systems


def relative_errors(x: FloatArray, systems: Systems) -> FloatArray:
    """Return the relative errors (B,) of answers x (B, n): ||x - systems.x||_2 / ||systems.x||_2."""
    return relative_error(x[:, :, None], systems.x[:, :, None])[:, 0]


def answer_scores(x: FloatArray, systems: Systems) -> dict[str, float]:
    """Return the scores of answers x (B, n).

    Returns
    -------
    dict
        mse : mean of (x - systems.x)^2; normalized_mse : sum ||x - systems.x||^2 / sum ||systems.x||^2;
        relative_error_median and relative_error_95 : quantiles over the systems of the relative error, each the error
        of a system.
    """
    errors = sorted(relative_errors(x, systems).tolist())
    return {
        "mse": float(((x - systems.x) ** 2).mean()),
        "normalized_mse": normalized_mse(x, systems.x),
        "relative_error_median": errors[len(errors) // 2],
        "relative_error_95": errors[min(len(errors) - 1, int(0.95 * len(errors)))],
    }
