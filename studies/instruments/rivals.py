"""The methods of the fields, and what they could reach at best.

All take one simulated measurement and return x in its units. What they are told beside the data is in their names: a
method that knows the nuisance parameters gets a linear problem A x = y of x alone, its rows divided by the deviations
of the noise.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from algebraformer.arrays import join_parts
from algebraformer.errors import MissingExtraError
from algebraformer.instruments.classical import fit_deer, fit_drt
from algebraformer.linalg import FloatArray
from algebraformer.numerics import nonnegative, regularization
from algebraformer.problems.instruments import Deer, Instrument, Simulated
from algebraformer.problems.instruments.dipolar import background
from algebraformer.problems.instruments.drt import SIZES
from studies.instruments.cases import instrument

ORDER = 2
"""Of the differences that are penalised: what DeerLab takes and what is usual for relaxation times."""
PARAMETERS = np.logspace(-4, 4, 33)
"""Regularisation parameters an oracle chooses from, over the largest singular value's size."""
GCV, GCV_NNLS, KNOWN, L_CURVE, ORACLE, LMMSE = (
    "GCV, nuisance known",
    "GCV + NNLS",
    "GCV + NNLS, nuisance known",
    "L-curve + NNLS, nuisance known",
    "NNLS oracle, nuisance known",
    "LMMSE, prior, noise and nuisance known",
)
PACKAGES = {"deer": "DeerLab", "drt": "pyDRTtools"}
PRIOR_DRAWS = 2000
"""Signals that LMMSE's second moment is taken of."""


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
        coefficients = np.array([nuisance[name] for name in family.nuisance_names]) / SIZES
        A = family.kernel(case.abscissa, case.grid)
        y = b - family.columns(case.abscissa) @ coefficients
        std = case.std[0]
    keep = case.present
    return A[keep] / std[keep, None], y[keep] / std[keep]


def gcv(family: Instrument, case: Simulated) -> FloatArray:
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
    A, y = linear_problem(family, case)
    return nonnegative.cross_validated(A, y, ORDER)[0]


def l_curve(family: Instrument, case: Simulated) -> FloatArray:
    A, y = linear_problem(family, case)
    path = regularization.tikhonov(regularization.decompose(A[None], ORDER), y[None])
    parameter = path.parameters[0, regularization.l_curve(path)[0]]
    return nonnegative.nonnegative(A, y, float(parameter), ORDER)[0]


def oracle(family: Instrument, case: Simulated) -> FloatArray:
    """NNLS with the parameter of least error."""
    A, y = linear_problem(family, case)
    size = np.linalg.norm(A, 2) / 4  # of second differences
    found = [nonnegative.nonnegative(A, y, float(size * value), ORDER)[0] for value in PARAMETERS]
    return min(found, key=lambda x: float(np.linalg.norm(x - case.x[0])))


@functools.cache
def second_moment(name: str, kind: str) -> FloatArray:
    """Return the second moment (n, n) of the signals of a kind, over grids of all lengths."""
    family = instrument(name, kind, 0.01)
    X = np.concatenate([family.simulate(range(i, i + 16), seed=1).x for i in range(0, PRIOR_DRAWS, 16)])
    return X.T @ X / len(X)


def lmmse(family: Instrument, case: Simulated, kind: str) -> FloatArray:
    A, y = linear_problem(family, case)
    S = second_moment("deer" if isinstance(family, Deer) else "drt", kind)
    SA = S @ A.T
    return SA @ np.linalg.solve(A @ SA + np.eye(len(y)), y)


def deerlab(family: Instrument, case: Simulated) -> tuple[FloatArray, FloatArray, FloatArray]:
    """DeerLab's fit with a non-parametric distribution at its defaults, and its 90 % band."""
    dl = imported("deerlab")
    t = case.abscissa
    model = dl.dipolarmodel(t, case.grid, Bmodel=dl.bg_hom3d, experiment=dl.ex_4pdeer(0.4, 4.0, pathways=[1]))
    model.reftime1.set(par0=0.0, lb=-0.05, ub=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = dl.fit(model, case.data[0])
    scale = family.x_scale(case.grid)
    low, high = found.PUncert.ci(90).T
    return found.P / scale, low / scale, high / scale


def pydrttools(family: Instrument, case: Simulated) -> FloatArray:
    """Ridge regression of pyDRTtools with its generalised cross-validation."""
    runs = imported("pyDRTtools.runs")
    Z = join_parts(case.data[0])
    order = np.argsort(-case.abscissa)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entry = runs.EIS_object(case.abscissa[order], Z[order].real, Z[order].imag)
        entry = runs.simple_run(entry, cv_type="GCV")
    tau, gamma = np.asarray(entry.out_tau_vec), np.asarray(entry.gamma)
    ascending = np.argsort(tau)
    on_grid = np.interp(np.log(case.grid), np.log(tau[ascending]), gamma[ascending], left=0.0, right=0.0)
    return on_grid / family.x_scale(case.grid)


def imported(name: str) -> Any:
    """Import a package that the study alone needs."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"the study compares with {name}: pip install {name.partition('.')[0]}") from error


Method = Callable[[Instrument, Simulated], FloatArray]
METHODS: dict[str, Method] = {GCV: gcv, GCV_NNLS: gcv_nnls, KNOWN: known, L_CURVE: l_curve, ORACLE: oracle}
"""Methods that are given nothing but a measurement, or the nuisance parameters as their name says."""
