"""Means and spreads of a score over several seeds, and comparisons of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, None of a single value and of what is not finite."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None


def rounded(value: Any) -> float:
    """Return a number to four digits."""
    return float(f"{float(value):.3e}")


def in_words(mean: float, spread: float | None) -> str:
    """Return mean and standard deviation as text.

    Examples
    --------
    >>> in_words(0.0131, 0.00104), in_words(0.0131, None)
    ('0.013 ± 0.001', '0.013')
    """
    return f"{mean:.2g}" + ("" if spread is None else f" ± {spread:.1g}")


def compared(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return "lower" or "higher" if every seed of ours is on that side of every one of theirs, "as high" if not.

    Examples
    --------
    >>> compared([0.1, 0.2], [0.3, 0.4]), compared([0.1, 0.35], [0.3, 0.4])
    ('lower', 'as high')
    """
    if max(ours) < min(theirs):
        return "lower"
    return "higher" if min(ours) > max(theirs) else "as high"


def comparison(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return means and standard deviations of both, `compared`, and how many times the one mean is the other.

    Examples
    --------
    >>> comparison([0.1], [0.4])
    {'mean': 0.1, 'deviation': None, 'other_mean': 0.4, 'other_deviation': None, 'side': 'lower', 'times': 4.0}
    """
    means = float(np.mean(ours)), float(np.mean(theirs))
    return {
        "mean": means[0],
        "deviation": deviation(ours),
        "other_mean": means[1],
        "other_deviation": deviation(theirs),
        "side": compared(ours, theirs),
        "times": max(means) / min(means),
    }


def mean_in_words(numbers: Mapping[str, Any]) -> str:
    """Return our mean of a `comparison` as text."""
    return in_words(numbers["mean"], numbers["deviation"])


def other_in_words(numbers: Mapping[str, Any]) -> str:
    """Return the other mean of a `comparison` as text."""
    return in_words(numbers["other_mean"], numbers["other_deviation"])


def difference(numbers: Mapping[str, Any]) -> str:
    """Return a `comparison` as text.

    Examples
    --------
    >>> difference(comparison([0.1, 0.2], [0.3, 0.6])), difference(comparison([0.1, 0.4], [0.3, 0.6]))
    ('3 times lower', 'within the spread of the seeds')
    """
    return (
        "within the spread of the seeds"
        if numbers["side"] == "as high"
        else "{times:.3g} times {side}".format(**numbers)
    )
