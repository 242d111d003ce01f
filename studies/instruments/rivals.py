"""The methods of the fields, and what they could reach at best.

All take one simulated measurement and return x in its units. What they are told beside the data is in their names: a
method that knows the nuisance parameters gets a linear problem A x = y of x alone, its rows divided by the deviations
of the noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from algebraformer.arrays import join_parts
from algebraformer.instruments.classical import fit_deer, fit_drt
from algebraformer.linalg import FloatArray
from algebraformer.numerics import nonnegative, regularization
from algebraformer.problems.instruments import Deer, Instrument, Simulated
from algebraformer.problems.instruments.dipolar import background
from algebraformer.problems.instruments.drt import SIZES
from studies.baselines import lmmse as linear_estimator
from studies.harness.measurements import instrument

ORDER = 2
"""Of the differences that are penalised: what DeerLab takes and what is usual for relaxation times."""
PARAMETERS = np.logspace(-4, 4, 33)
"""Regularisation parameters an oracle chooses from, over the largest singular value's size."""
BETWEEN = np.logspace(-0.25, 0.25, 11)
"""Multiples of the best of them, up to its neighbours, that it chooses from next."""
GCV, GCV_NNLS, KNOWN, L_CURVE, ORACLE, LMMSE = (
    "GCV, nuisance known",
    "GCV + NNLS",
    "GCV + NNLS, nuisance known",
    "L-curve + NNLS, nuisance known",
    "NNLS oracle, nuisance known",
    "LMMSE, prior, noise and nuisance known",
)
PACKAGES = {"deer": "DeerLab", "drt": "pyDRTtools"}
"""See `packages`."""
SAMPLER = "CUQIpy, noise and nuisance known"
"""Samples of a positive posterior, see `packages`."""
PRIOR_DRAWS = 2000
"""Signals that LMMSE's moments are taken of."""


def linear_problem(family: Instrument, case: Simulated) -> tuple[FloatArray, FloatArray]:
    """Return A (m, n) and y (m,), A x + noise of deviation one = y, with the true nuisance parameters."""
    nuisance = {name: value[0] for name, value in case.nuisance.items()}
    b = case.data[0]
    if isinstance(family, Deer):
        t = case.abscissa - nuisance["zero_time"]
        B = background(t, nuisance["background_rate"], nuisance["dimension"])
        depth, V0 = nuisance["modulation_depth"], nuisance["amplitude"]
        A, y = V0 * depth * B[:, None] * family.kernel(t, case.grid), b - V0 * (1 - depth) * B
        std = np.full(len(y), case.deviation[0])
    else:
        A, y = family.kernel(case.abscissa, case.grid), b - series_impedance(family, case, family.nuisance_names)
        std = case.std[0]
    keep = case.present
    return A[keep] / std[keep, None], y[keep] / std[keep]


def series_impedance(family: Instrument, case: Simulated, names: Sequence[str]) -> FloatArray:
    """Return the true impedance (rows,) of some of the elements in series, real parts first."""
    values = [case.nuisance[name][0] if name in names else 0.0 for name in family.nuisance_names]
    impedance: FloatArray = family.columns(case.abscissa) @ (np.array(values) / SIZES)
    return impedance


def gcv(family: Instrument, case: Simulated) -> FloatArray:
    """Tikhonov's regularisation without bounds, by the singular value decomposition, with cross-validation."""
    A, y = linear_problem(family, case)
    return regularization.cross_validated(A[None], y[None], ORDER)[0]


def gcv_nnls(family: Instrument, case: Simulated) -> FloatArray:
    """Fit with unknown nuisance parameters: the classical answer of the package."""
    if isinstance(family, Deer):
        P = fit_deer(case.abscissa, case.data[0], case.grid).x
        return P / P.mean() if P.any() else np.ones_like(P)
    gamma = fit_drt(case.abscissa, join_parts(case.data[0]), case.grid).x
    return gamma / family.x_scale(case.grid)


def known(family: Instrument, case: Simulated) -> FloatArray:
    """NNLS with the parameter from cross-validation."""
    A, y = linear_problem(family, case)
    return nonnegative.cross_validated(A, y, ORDER)[0]


def l_curve(family: Instrument, case: Simulated) -> FloatArray:
    """NNLS with the parameter at the corner of the L-curve without bounds."""
    A, y = linear_problem(family, case)
    path = regularization.tikhonov(regularization.decompose(A[None], ORDER), y[None])
    parameter = path.parameters[0, regularization.l_curve(path)[0]]
    return nonnegative.nonnegative(A, y, float(parameter), ORDER)[0]


def oracle(family: Instrument, case: Simulated) -> FloatArray:
    """NNLS with the parameter of least error: of four per decade, then of twenty around the best of these."""
    A, y = linear_problem(family, case)
    size = float(np.linalg.norm(A, 2)) / 4  # of second differences

    # The same minima, from at most n + 1 equations.
    _, R = np.linalg.qr(np.column_stack((A, y)))
    A, y = R[:, :-1], R[:, -1]

    def attempt(parameter: float) -> tuple[float, float, FloatArray]:
        x = nonnegative.nonnegative(A, y, parameter, ORDER)[0]
        return float(np.linalg.norm(x - case.x[0])), parameter, x

    _, best, _ = min(attempt(float(size * value)) for value in PARAMETERS)
    return min(attempt(float(best * value)) for value in BETWEEN)[2]


@functools.cache
def moments(name: str, kind: str) -> tuple[FloatArray, FloatArray]:
    """Return mean (n,) and covariance (n, n) of the signals of a kind, over grids of all lengths."""
    family = instrument(name, kind, 0.01)
    X = np.concatenate([family.simulate(range(i, i + 16), seed=1).x for i in range(0, PRIOR_DRAWS, 16)])
    return X.mean(axis=0), np.cov(X.T)


def lmmse(family: Instrument, case: Simulated, kind: str) -> FloatArray:
    """Return the best affine estimate, with the moments of the kind of signals that the case is of."""
    A, y = linear_problem(family, case)
    mean, covariance = moments("deer" if isinstance(family, Deer) else "drt", kind)
    return linear_estimator.known_matrix(A[None], y[None], mean, covariance, np.ones(1))[0]


Method = Callable[[Instrument, Simulated], FloatArray]
METHODS: dict[str, Method] = {GCV: gcv, GCV_NNLS: gcv_nnls, KNOWN: known, L_CURVE: l_curve, ORACLE: oracle}
"""Methods that are given nothing but a measurement, or the nuisance parameters as their name says."""
