"""What was found, and why not to trust it, in words."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

WHAT = {
    "neighbours": "neighbouring residuals are correlated",
    "blocks": "whole parts of them lie above or below the fit",
    "outlier": "single ones are far too large",
}
"""What the checks of residuals find, in words; `misfit` has two ways to fail."""
UNLIKE = {
    "fits": "what linear fits find is unusual",
    "noise": "there is more noise",
    "zero_time": "the zero is not determined by the trace: give zero_time=",
    "length": "the trace is shorter or longer",
    "points": "there are fewer or more points",
    "gap": "there is a wide gap between points",
    "start": "the trace starts long after its zero",
    "integral": "x and its samples disagree about the integral",
}
"""What is unlike the simulated measurements, in words; a nuisance parameter outside of its limits goes by its name."""


def quantity(name: str, value: float, std: float, unit: str) -> str:
    """Return a nuisance parameter in words; one that is infinite is absent, one that is NaN not determined.

    Examples
    --------
    >>> quantity("R_inf", 10.04, 0.021, "ohm"), quantity("series_capacitance", np.inf, np.nan, "F")
    ('R_inf 10 ± 0.02 ohm', 'no series_capacitance')
    >>> quantity("inductance", np.nan, np.nan, "H")
    'inductance not determined'
    """
    if np.isnan(value):
        return f"{name} not determined"
    return f"{name} {value:.3g} ± {std:.1g} {unit}".strip() if np.isfinite(value) else f"no {name}"


def reasons(failed: Collection[str], larger: bool, unlike: Collection[str]) -> list[str]:
    """Return why not to trust a measurement, at most one sentence for each flag.

    Parameters
    ----------
    failed : collection of str
        Checks of the residuals that fail.
    larger : bool
        Whether the residuals are larger than the predicted noise, if their size is among these.
    unlike : collection of str
        What is unlike the simulated measurements.

    Examples
    --------
    >>> reasons(["misfit"], False, [])
    ['not consistent: the residuals are not white noise (they are smaller than the predicted noise)']
    """
    found = []
    if failed:
        words = WHAT | {"misfit": f"they are {'larger' if larger else 'smaller'} than the predicted noise"}
        found.append(f"not consistent: the residuals are not white noise ({'; '.join(words[n] for n in failed)})")
    if unlike:
        given = "; ".join(UNLIKE.get(name, f"{name} is beyond its limits") for name in unlike)
        found.append(f"not in distribution: unlike what the network was trained on ({given})")
    return found
