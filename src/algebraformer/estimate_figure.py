"""The figure of an estimate: the mean with its band, and what it stands beside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from algebraformer.estimation import Estimate
from algebraformer.linalg import FloatArray


def estimate_figure(estimate: Estimate, title: str, others: Mapping[str, FloatArray] | None = None) -> Figure:
    """Draw the mean of one system with its 90 % band.

    Parameters
    ----------
    estimate : Estimate
        Of one system.
    title : str
    others : dict of ndarray, shape (n,)
        Further curves by label, for instance the true x; Tikhonov's answer is drawn where the estimate carries it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(1, len(estimate.x) + 1)
    axes.fill_between(place, *estimate.interval, color="C0", alpha=0.25, linewidth=0, label="90 % intervals")
    axes.plot(place, estimate.x, "C0", label="mean")
    beside = {} if estimate.tikhonov is None else {"Tikhonov": estimate.tikhonov}
    for (label, values), style in zip((beside | dict(others or {})).items(), ("C1--", "k:", "C2-."), strict=False):
        axes.plot(place, values, style, label=label)
    axes.set(title=title, xlabel="entry of x")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure
