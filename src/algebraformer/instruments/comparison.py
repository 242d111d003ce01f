"""How good a network for an instrument is: compared with classical methods on the same held-out measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.instruments.inversion import Model
from algebraformer.linalg import FloatArray
from algebraformer.models.inference.inversion_reader import filled, unit_of
from algebraformer.numerics import nonnegative
from algebraformer.numerics.gaussian_fit import Fits
from algebraformer.problems.base import TEST_SEED
from algebraformer.problems.instruments.base import GROUP, Instrument, Recorded, Simulated
from algebraformer.progress import ProgressCallback, silent
from algebraformer.reporting import Report, Sentences, TableData, Verdict, conclusions, outcome
from algebraformer.result import plain

P = ParamSpec("P")
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
    instrument, grid = model.instrument, simulated.grid
    scale = instrument.x_scale(grid)
    for i, truth in enumerate(simulated.x):
        data = simulated.data[i : i + 1]
        recorded = Recorded(simulated.abscissa, data, simulated.present)
        shown = model.shown(data)[0]
        found["noise"].append(simulated.deviation[i] / np.sqrt(np.mean(simulated.clean[i] ** 2)))

        # 1. The network; everything in the units of the kernel.
        answer, seconds = timed(model.invert, recorded, shown, False)
        record(found, NETWORK, answer.x / scale, truth, seconds)
        here = filled(answer.x[None])[0]
        low, high = (end / scale for end in answer.interval)
        found.setdefault(f"{NETWORK}: coverage", []).append(np.mean(((truth >= low) & (truth <= high))[here]))

        # 2. The linear fit and its band, a density with mean 1.
        (fits, unit), seconds = timed(linear_fit, model, recorded)
        x, std = fits.x[1, 0] / unit, fits.x_std[0] / unit
        record(found, GAUSSIAN, x, truth, seconds)
        inside = np.abs(x - truth) <= NORMAL_90 * std
        found.setdefault(f"{GAUSSIAN}: coverage", []).append(np.mean(inside[here]))

        # 3. Tikhonov; without bounds only where everything else in the data is linear and known.
        classical, seconds = timed(model.classical, recorded, shown, grid)
        record(found, NONNEGATIVE, classical.x / scale, truth, seconds)
        if type(model).classical is Model.classical:
            x, seconds = timed(unbounded, instrument, recorded, grid)
            record(found, GCV, x, truth, seconds)


def linear_fit(model: Model, recorded: Recorded) -> tuple[Fits, float]:
    """Return the linear fit to a measurement, and the size of its x for a density."""
    fits = model.reader.read(model.instrument.measurements(recorded)).fits
    return fits, float(unit_of(fits)[0]) if model.instrument.is_density else 1.0


def unbounded(instrument: Instrument, recorded: Recorded, grid: FloatArray) -> FloatArray:
    """Return x (n,) of either sign by Tikhonov's regularisation with cross-validation."""
    K, N = instrument.kernel(recorded.abscissa, grid), instrument.columns(recorded.abscissa)
    x = nonnegative.linear(K, recorded.data[0], free=N)
    return x / x.mean() if instrument.is_density else x


def record(found: dict[str, list[Any]], name: str, x: FloatArray, truth: FloatArray, seconds: float) -> None:
    """Add the error of a method, and its time."""
    found.setdefault(f"{name}: error", []).append(np.linalg.norm(x - truth) / np.linalg.norm(truth))
    found.setdefault(f"{name}: seconds", []).append(seconds)


def timed(call: Callable[P, Answer], *arguments: P.args, **options: P.kwargs) -> tuple[Answer, float]:
    """Return what a call returns, and the seconds it took."""
    begin = time.perf_counter()
    return call(*arguments, **options), time.perf_counter() - begin


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
    errors = {name: float(np.median(columns[f"{name}: error"])) for name in methods}
    shares = {name: float(np.mean(columns[f"{name}: coverage"])) for name in banded}
    times = {name: 1e3 * float(np.median(columns[f"{name}: seconds"])) for name in methods}
    overall = [[name, errors[name], shares.get(name), times[name]] for name in methods]
    rival, share = min(methods[1:], key=lambda name: errors[name]), shares[NETWORK]
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
