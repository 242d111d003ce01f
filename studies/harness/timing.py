"""Times that can be compared: the calls take turns, so that a busy moment of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def in_turn(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    least: float = 0.02,
) -> dict[str, float]:
    """Return the median seconds of each call, see `rounds_in_turn`."""
    return {name: float(np.median(values)) for name, values in rounds_in_turn(calls, rounds, clock, least).items()}


def rounds_in_turn(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    least: float = 0.02,
) -> dict[str, list[float]]:
    """Return the seconds of each call in every round; the calls take turns, after one round to warm up.

    A turn repeats the call until it has lasted `least` seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            repeats, start = 0, clock()
            while repeats == 0 or clock() - start < least:
                call()
                repeats += 1
            if number:
                seconds[name].append((clock() - start) / repeats)
    return seconds
