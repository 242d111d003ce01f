"""A learned estimator compared with the strongest classical ones on the same noisy systems: errors and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.metrics import noise_levels, relative_errors
from algebraformer.problems import NoisyFamily, Systems
from algebraformer.problems.base import CALIBRATION_SEED, SCALER_SEED
from algebraformer.progress import ProgressCallback, silent
from algebraformer.reporting import Cell, TableData
from algebraformer.result import plain
from algebraformer.rivals import noisy
from algebraformer.training.data import capped_sample_size

NETWORK = "network"
"""Name of the learned estimator among the methods."""
COMPARED = 200
"""Systems that all methods estimate, fewer where n is large."""
TUNED, MOMENTS = 64, 4096
"""Draws of the family that orders are chosen on, and whose signals give mean and covariance."""
LEAST_SECONDS = 0.3
"""Methods that take less for all systems are timed again, and the least of the times counts."""
MAX_ROUNDS = 5


def measurements(systems: Systems) -> noisy.Measurements:
    """Return noisy systems with the norm of their noise that is expected: noise ||A x||_2."""
    norms = systems.params["noise"] * np.linalg.norm(systems.params["clean"], axis=1)
    return noisy.Measurements(systems.A, systems.b, systems.x, norms)


def rivals_of(family: NoisyFamily) -> list[noisy.EstimateRival]:
    """Return the classical estimates for a family, tuned on draws that no network is tested on."""
    draws = measurements(family.sample(capped_sample_size(TUNED, family.n), CALIBRATION_SEED))
    signals = family.parameters(range(max(2 * family.n, MOMENTS)), SCALER_SEED)["signal"]
    return noisy.tuned(draws, signals, family.nonnegative)


def compare(
    estimate: Callable[[FloatArray, FloatArray], FloatArray],
    family: NoisyFamily,
    systems: Systems,
    progress: ProgressCallback = silent,
) -> dict[str, Any]:
    """Measure errors and times of a learned estimator and of its rivals on the first of these systems.

    Parameters
    ----------
    estimate : callable
        The learned estimator: x (B, n) from A (B, m, n) and b (B, m).
    family : NoisyFamily
        Family of the systems, which the rivals are tuned to.
    systems : Systems
        Unknown to the network and to the rivals.
    progress : callable
        Called with the number of methods that are done and the number in all.

    Returns
    -------
    dict
        systems : how many were estimated. levels : bounds of the noise levels, [low, high, number of systems].
        methods : for the network and each rival, name; told, what it knows besides A and b; relative_error_median and
        relative_error_90; by_level, the median of each level; seconds per system, all systems in one call. Plain JSON
        values.
    """
    count = min(len(systems), capped_sample_size(COMPARED, systems.A.shape[2]))
    few = measurements(systems[:count])
    levels = noise_levels(systems.params["noise"][:count])
    ways = [noisy.EstimateRival(NETWORK, "training", lambda A, b, noise_norm: estimate(A, b)), *rivals_of(family)]
    methods = []
    for number, way in enumerate(ways):
        progress(number, len(ways))
        x, seconds = _timed(way, few)
        errors = relative_errors(x, systems[:count])
        methods.append(
            {
                "name": way.name,
                "told": way.told,
                "relative_error_median": float(np.median(errors)),
                "relative_error_90": float(np.quantile(errors, 0.9)),
                "by_level": [float(np.median(errors[chosen])) for _, _, chosen in levels],
                "seconds": seconds / count,
            }
        )
    progress(len(ways), len(ways))
    bounds = [[low, high, int(chosen.sum())] for low, high, chosen in levels]
    found: dict[str, Any] = plain({"systems": count, "levels": bounds, "methods": methods})
    return found


def _timed(way: noisy.EstimateRival, systems: noisy.Measurements) -> tuple[FloatArray, float]:
    """Return the estimates of all systems, and the seconds that one call took."""
    least, spent, rounds = np.inf, 0.0, 0
    while rounds == 0 or (spent < LEAST_SECONDS and rounds < MAX_ROUNDS):
        start = time.perf_counter()
        x = way.estimate(systems.A, systems.b, systems.noise_norm)
        seconds = time.perf_counter() - start
        least, spent, rounds = min(least, seconds), spent + seconds, rounds + 1
    return x, least


def comparison_table(data: dict[str, Any], title: str = "") -> TableData:
    """Return what `compare` found as a table, a row for each method."""
    rows: list[list[Cell]] = [
        [
            method["name"],
            method["told"],
            method["relative_error_median"],
            method["relative_error_90"],
            *method["by_level"],
            1e3 * method["seconds"],
        ]
        for method in data["methods"]
    ]
    levels = [f"{low:g}–{high:g}" for low, high, _ in data["levels"]]
    columns = ("method", "told", "median", "90 %", *levels, "ms")
    about = f"Relative errors on {data['systems']} systems, medians by noise level, and time per system"
    return TableData(columns, rows, title or about)
