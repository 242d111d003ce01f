"""What several seeds together say of a score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample, None of a single value and of what is not finite."""
    return float(np.std(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else None


def in_words(values: Sequence[float]) -> str:
    """Return mean and standard deviation as text."""
    spread = deviation(values)
    return f"{np.mean(values):.2g}" + ("" if spread is None else f" ± {spread:.1g}")


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


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return how ours stand to theirs as text, for instance "3 times lower"."""
    kind, means = compared(ours, theirs), (float(np.mean(ours)), float(np.mean(theirs)))
    if kind == "as high":
        return "within the spread of the seeds"
    return f"{max(means) / min(means):.3g} times {kind}"
