"""How good a network for an instrument is: compared with classical methods on the same held-out measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.instruments.inversion import Inversion, Model
from algebraformer.linalg import FloatArray
from algebraformer.models.inference.inversion_reader import InversionReader, Reading, filled, unit_of
from algebraformer.numerics import nonnegative
from algebraformer.problems.base import TEST_SEED
from algebraformer.problems.instruments import Instrument
from algebraformer.problems.instruments.base import GROUP, Recorded, Simulated
from algebraformer.progress import ProgressCallback, silent
from algebraformer.reporting import Report, Sentences, TableData, Verdict, conclusions, outcome
from algebraformer.result import plain

Answer = TypeVar("Answer")
NETWORK, GAUSSIAN, NONNEGATIVE, GCV = "network", "Gaussian fit", "GCV + NNLS", "GCV"
"""Methods: the network; the linear fit with the prior's covariance, which the network reads; Tikhonov's regularisation
with the parameter from generalised cross-validation, with x >= 0 and without."""
NOISE_EDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Edges of the levels of noise that scores are told apart by, over the root mean square of the data without noise."""
TARGET = (0.85, 0.95)
"""Limits of the coverage of 90 % bands that hold what they say."""
NORMAL_90 = 1.6448536269514722
"""95 % quantile of the normal distribution."""
SENTENCES: Sentences = {
    "inversion.accuracy": "Median relative error {network:.3g}; {best:.3g} by {rival}, the best of the other methods: "
    "{verdict}.",
    "inversion.bands": "The 90 % bands hold {coverage:.1%} of the truth: target {verdict}.",
}


def compare(model: Model, count: int = 512, seed: int = TEST_SEED, progress: ProgressCallback = silent) -> Report:
    """Compare a network with classical methods on simulated measurements that it was not trained on.

    Parameters
    ----------
    model : Model
        See `instruments.load`.
    count : int
        Number of measurements; those of which parts are missing are left out.
    seed : int
        Of the measurements; those of the training have seeds below 2**62.
    progress : callable
        Called with the number of measurements done and the number in all.

    Returns
    -------
    Report
        Two tables: median relative errors ||x - truth|| / ||truth|| and coverage of the 90 % bands by the level of the
        noise; and both for all measurements, with the time that each takes. `plotting.save_report` writes it with
        `figure.comparison_figure`.

    Notes
    -----
    Coverage is the share of the entries of the truth that lie in the band, where the network's x is at least 2 % of its
    maximum. Times are for measurements one by one, all checks of the network's answer included.
    """
    if count < 1:
        raise ConfigurationError(f"count must be at least 1, received {count}")
    found: dict[str, list[Any]] = {"noise": []}
    instrument = model.instrument
    for start in range(0, count, GROUP):
        simulated = instrument.simulate(range(start, min(start + GROUP, count)), seed)
        if simulated.present.all():
            _add(found, model, simulated)
        progress(min(start + GROUP, count), count)
    if not found["noise"]:
        raise ConfigurationError(f"all of {count} measurements have missing parts: choose a larger count")
    return _report(model, found)


def _add(found: dict[str, list[Any]], model: Model, simulated: Simulated) -> None:
    """Add errors, coverage and times of measurements with the same abscissae."""
    instrument, reader = model.instrument, model.reader
    for i, truth in enumerate(simulated.x):
        data = simulated.data[i : i + 1]
        recorded = Recorded(simulated.abscissa, data, simulated.present)
        shown = model.shown(data)[0]
        found["noise"].append(simulated.deviation[i] / np.sqrt(np.mean(simulated.clean[i] ** 2)))

        def record(name: str, x: FloatArray, seconds: float, truth: FloatArray = truth) -> None:
            for key, value in (("error", np.linalg.norm(x - truth) / np.linalg.norm(truth)), ("seconds", seconds)):
                found.setdefault(f"{name}: {key}", []).append(float(value))

        # 1. The network; everything in the units of the kernel.
        scale = instrument.x_scale(simulated.grid)
        answer, seconds = timed(partial(model.invert, recorded, shown, False))
        record(NETWORK, answer.x / scale, seconds)
        found.setdefault(f"{NETWORK}: coverage", []).append(_covered(answer, truth * scale))

        # 2. The linear fit and its band, a density with mean 1.
        reading, seconds = timed(partial(read, reader, instrument, recorded))
        unit = unit_of(reading.fits)[0] if instrument.is_density else 1.0
        x, std = reading.fits.x[1, 0] / unit, reading.fits.x_std[0] / unit
        record(GAUSSIAN, x, seconds)
        here = filled(answer.x[None])[0]
        found.setdefault(f"{GAUSSIAN}: coverage", []).append(
            float(np.mean(np.abs(x - truth)[here] <= NORMAL_90 * std[here]))
        )

        # 3. Tikhonov; without bounds only where everything else in the data is linear and known.
        classical, seconds = timed(partial(model.classical, recorded, shown, simulated.grid))
        record(NONNEGATIVE, classical.x / scale, seconds)
        if type(model).classical is Model.classical:
            K, N = instrument.kernel(simulated.abscissa, simulated.grid), instrument.columns(simulated.abscissa)
            x, seconds = timed(partial(nonnegative.linear, K, data[0], free=N))
            record(GCV, x / x.mean() if instrument.is_density else x, seconds)


def read(reader: InversionReader, instrument: Instrument, recorded: Recorded) -> Reading:
    """Return what a network is shown: the linear fits."""
    return reader.read(instrument.measurements(recorded))


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    """Return what a call returns, and the seconds it took."""
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def _covered(answer: Inversion, truth: FloatArray) -> float:
    low, high = answer.interval
    here = filled(answer.x[None])[0]
    return float(np.mean(((truth >= low) & (truth <= high))[here]))


def _report(model: Model, found: dict[str, list[Any]]) -> Report:
    """Return tables and verdict."""
    columns = {name: np.array(values) for name, values in found.items()}
    methods = [name for name in (NETWORK, GAUSSIAN, NONNEGATIVE, GCV) if f"{name}: error" in columns]
    banded = [name for name in methods if f"{name}: coverage" in columns]
    level = np.searchsorted(NOISE_EDGES, columns["noise"])
    by_noise, rows = [], []
    for number in np.unique(level):
        chosen = level == number
        entry: dict[str, Any] = {"noise": float(np.median(columns["noise"][chosen])), "count": int(chosen.sum())}
        entry |= {f"{name}: error": float(np.median(columns[f"{name}: error"][chosen])) for name in methods}
        entry |= {f"{name}: coverage": float(np.mean(columns[f"{name}: coverage"][chosen])) for name in banded}
        by_noise.append(entry)
        rows.append([level_name(int(number)), *list(entry.values())[1:]])
    heads = [*(f"error, {name}" for name in methods), *(f"coverage, {name}" for name in banded)]
    overall = [
        [
            name,
            float(np.median(columns[f"{name}: error"])),
            float(np.mean(columns[f"{name}: coverage"])) if name in banded else None,
            1e3 * float(np.median(columns[f"{name}: seconds"])),
        ]
        for name in methods
    ]
    errors = {name: float(np.median(columns[f"{name}: error"])) for name in methods}
    rival = min(errors.keys() - {NETWORK}, key=errors.__getitem__)
    share = float(np.mean(columns[f"{NETWORK}: coverage"]))
    verdict = Verdict.WORTH_IT if errors[NETWORK] < errors[rival] else Verdict.NOT_WORTH_IT
    met = Verdict.MET if TARGET[0] <= share <= TARGET[1] else Verdict.MISSED
    outcomes = {
        "inversion.accuracy": outcome(verdict, network=errors[NETWORK], best=errors[rival], rival=rival),
        "inversion.bands": outcome(met, coverage=share),
    }
    name = model.instrument.name
    tables = [
        TableData(("noise / data", "measurements", *heads), rows, f"{name}: median relative errors, by noise"),
        TableData(("method", "median relative error", "coverage of 90 %", "ms each"), overall, f"{name}: all levels"),
    ]
    data = {"instrument": model.instrument.settings(), "methods": methods, "by_noise": by_noise, **found}
    return Report(tables, outcomes, conclusions(outcomes, SENTENCES), plain(data))


def level_name(number: int) -> str:
    """Return a level of noise in words.

    Examples
    --------
    >>> level_name(0), level_name(2), level_name(6)
    ('below 0.001', '0.003 to 0.01', 'above 0.3')
    """
    if number == 0:
        return f"below {NOISE_EDGES[0]:g}"
    if number == len(NOISE_EDGES):
        return f"above {NOISE_EDGES[-1]:g}"
    return f"{NOISE_EDGES[number - 1]:g} to {NOISE_EDGES[number]:g}"
