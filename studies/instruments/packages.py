"""Packages of the fields, called through their documented interfaces; none is needed by anything but this study.

Tried with DeerLab 1.2.0, pyDRTtools 0.2 and CUQIpy 1.5.1 under NumPy 2.4. CUQIpy asks for NumPy up to 2.2 and works
with 2.4: `DISTRIBUTIONS` installs it without what it depends on, so that NumPy stays. `pip install --target FOLDER` and
PYTHONPATH keep all of them out of an environment.

References
----------
.. [1] L. Fabregas Ibanez, G. Jeschke and S. Stoll, "DeerLab: a comprehensive software package for analyzing dipolar
   electron paramagnetic resonance spectroscopy data", Magnetic Resonance 1 (2020).
.. [2] T. H. Wan, M. Saccoccio, C. Chen and F. Ciucci, "Influence of the discretization methods on the distribution of
   relaxation times deconvolution: implementing radial basis functions with DRTtools", Electrochimica Acta 184 (2015).
.. [3] N. A. B. Riis et al., "CUQIpy: I. Computational uncertainty quantification for inverse problems in Python",
   Inverse Problems 40 (2024).
.. [4] J. M. Everink, Y. Dong and M. S. Andersen, "Sparse Bayesian inference with regularized Gaussian distributions",
   Inverse Problems 39 (2023).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.machinery
import io
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from algebraformer.arrays import join_parts
from algebraformer.errors import MissingExtraError
from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments import Instrument, Simulated
from studies.instruments.rivals import linear_problem, series_impedance

BAND = 0.9
"""Probability of the bands."""
ZERO_TIME = 0.05
"""Largest zero time that DeerLab may fit, us: what our own fits allow."""
WARMUP, SAMPLES = 50, 200
"""Samples of CUQIpy that are thrown away and kept: at 0.03 s each a case takes seconds, so only a subset gets them."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A density with its 90 % band, in the units of the measurement's truth.

    Attributes
    ----------
    x : ndarray, shape (n,)
    lower, upper : ndarray, shape (n,), or None
        None where the method gives no band.
    """

    x: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None


def deerlab(family: Instrument, case: Simulated) -> Answer:
    """Fit with DeerLab's [1]_ model of one pathway, a non-parametric P(r) and a background in three dimensions.

    Regularisation and bands are its defaults: the parameter by Akaike's criterion, the band from the covariance.
    """
    dl = imported("deerlab")
    with quiet():
        model = dl.dipolarmodel(case.abscissa, case.grid)
        model.reftime.set(par0=0.0, lb=-ZERO_TIME, ub=ZERO_TIME)
        fit = dl.fit(model, case.data[0])
        lower, upper = fit.PUncert.ci(100 * BAND).T
    scale = family.x_scale(case.grid)
    return Answer(fit.P / scale, lower / scale, upper / scale)


def pydrttools(family: Instrument, case: Simulated, selection: str = "re-im") -> Answer:
    """Fit with pyDRTtools' [2]_ ridge regression in radial basis functions.

    It has no capacitance in series: where the measurement has one, its true impedance is subtracted before. Its search
    for the parameter starts at 1e-3, its default; with SciPy 1.17 "GCV" has been seen to stay there.

    Parameters
    ----------
    family : Drt
    case : Simulated
        Complex: with real and imaginary parts.
    selection : {"GCV", "mGCV", "rGCV", "LC", "re-im"}
        How it chooses the regularisation parameter. With GCV, version 0.2 returned the value that it starts from.
    """
    runs = imported_runs()
    capacitance = series_impedance(family, case, ("elastance",))
    Z = join_parts(case.data[0] - capacitance)
    order = np.argsort(-case.abscissa)  # as it is recorded, and as the package expects
    with quiet():
        entry = runs.EIS_object(case.abscissa[order], Z[order].real, Z[order].imag)
        entry.tau_fine = case.grid  # where its sum of basis functions is evaluated
        entry = runs.simple_run(entry, cv_type=selection)
    return Answer(np.asarray(entry.gamma) / family.x_scale(case.grid))


def cuqipy(family: Instrument, case: Simulated, seed: int = 0) -> Answer:
    """Sample CUQIpy's [3]_ positive posterior [4]_ with the nuisance parameters and the noise known.

    Differences of x are normal with a precision that has a Gamma prior; samples are projected onto x >= 0. By Gibbs'
    sampling of both in turn, x by perturbed least squares. The answer is the mean.
    """
    cuqi = imported("cuqi")
    A, y = linear_problem(family, case)
    if len(A) > A.shape[1]:  # the same posterior, from fewer equations
        Q, R = np.linalg.qr(A)
        A, y = R, Q.T @ y

    d = cuqi.distribution.Gamma(1, 1e-4, name="d")
    x = cuqi.implicitprior.RegularizedGMRF(np.zeros(A.shape[1]), lambda d: d, constraint="nonnegativity", name="x")
    data = cuqi.distribution.Gaussian(cuqi.model.LinearModel(A)(x), 1.0, name="data")
    posterior = cuqi.distribution.JointDistribution(d, x, data)(data=y)
    state = np.random.get_state()  # noqa: NPY002  the package draws from the global generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        with quiet():
            strategy = {"d": cuqi.sampler.Conjugate(), "x": cuqi.sampler.RegularizedLinearRTO()}
            sampler = cuqi.sampler.HybridGibbs(posterior, strategy)
            sampler.warmup(WARMUP)
            sampler.sample(SAMPLES)
            draws = sampler.get_samples()["x"].samples[:, -SAMPLES:]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    lower, upper = np.quantile(draws, ((1 - BAND) / 2, (1 + BAND) / 2), axis=1)
    return Answer(draws.mean(axis=1), lower, upper)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and what packages print."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


DISTRIBUTIONS = {
    "deerlab": "deerlab",
    "pyDRTtools": "pyDRTtools cvxopt pandas scikit-learn",
    "cuqi": "--no-deps cuqipy 'arviz<1' xarray xarray-einstats h5netcdf h5py tqdm",
}
"""What `pip install` is told for a package."""


def installed(name: str) -> bool:
    """Return whether there is a package of that name; it is not imported."""
    return importlib.machinery.PathFinder.find_spec(name) is not None


def imported(name: str) -> Any:
    """Import a package or one of its modules.

    Raises
    ------
    MissingExtraError
        It is not installed, or lacks something itself.
    """
    package = name.partition(".")[0]
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"the study compares with {package} ({error}): pip install {DISTRIBUTIONS[package]}"
        ) from error


def imported_runs() -> Any:
    """Return pyDRTtools.runs without the package's `__init__`, which needs PyQt5 and a display for its windows."""
    if "pyDRTtools" not in sys.modules and (spec := importlib.machinery.PathFinder.find_spec("pyDRTtools")):
        package = types.ModuleType("pyDRTtools")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["pyDRTtools"] = package
    return imported("pyDRTtools.runs")
