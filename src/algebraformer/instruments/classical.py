"""The classical answers: nonnegative Tikhonov regularisation with the parameter from cross-validation.

What is known of the instrument but not of the measurement is fitted with it: of a trace modulation depth, amplitude and
background, of a spectrum the elements in series.

References
----------
.. [1] L. Fabregas Ibanez and G. Jeschke, "Optimal background treatment in dipolar spectroscopy", Physical Chemistry
   Chemical Physics 22 (2020): background and distribution are fitted together.
.. [2] G. H. Golub and V. Pereyra, "Separable nonlinear least squares: the variable projection method and its
   applications", Inverse Problems 19 (2003).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from algebraformer.arrays import join_parts, split_parts
from algebraformer.linalg import FloatArray
from algebraformer.numerics import nonnegative
from algebraformer.problems.instruments.dipolar import background, dipolar_kernel
from algebraformer.problems.instruments.relaxation import Complex, relaxation_kernel, series_elements

RATES = (1e-3, 3.0)
"""Limits of the rate of a background, in 1/us: a decay of one per cent over 10 us, and one over before the trace is."""
ALTERNATIONS = 2
"""How often regularisation and rate are chosen in turn: after that the rate changes by less than its error."""


@dataclasses.dataclass(frozen=True)
class Classical:
    """A classical answer.

    Attributes
    ----------
    x : ndarray, shape (n,)
        P(r) in 1/nm, with integral 1, or gamma(ln tau) in ohm.
    nuisance : dict of float
        modulation_depth, background_rate (1/us) and amplitude of a trace; R_inf (ohm), inductance (H) and
        series_capacitance (F, infinite if there is none) of a spectrum.
    fitted : ndarray
        The data without noise, as they were given: (m,), float64 or complex128.
    """

    x: FloatArray
    nuisance: dict[str, float]
    fitted: FloatArray | Complex


def fit_deer(time_us: FloatArray, trace: FloatArray, r: FloatArray, dimension: float = 3.0) -> Classical:
    """Fit a distribution of distances, modulation depth, amplitude and the rate of the background to a trace.

    For a given rate the trace is linear in amplitude times what is left of it: variable projection [2]_.

    Parameters
    ----------
    time_us : ndarray, shape (m,)
        From the zero of the trace, in us.
    trace : ndarray, shape (m,)
        Real part, with the phase corrected.
    r : ndarray, shape (n,)
        Distances in nm, equally spaced.
    dimension : float
        Of the background.

    Returns
    -------
    Classical
        x is zero where the trace shows no modulation at all.
    """
    size = np.abs(trace).max() or 1.0
    b, K = trace / size, dipolar_kernel(time_us, r) * (r[1] - r[0])

    def model(log_rate: float) -> tuple[FloatArray, FloatArray]:
        B = background(time_us, np.exp(log_rate), np.asarray(dimension))[:, None]
        return B * K, B

    log_rate = float(np.log(0.1))
    for _ in range(ALTERNATIONS):
        # 1. The regularisation, for the rate as it is.
        A, B = model(log_rate)
        parameter = nonnegative.choose_parameter(A, b, free=B)

        # 2. The rate, for the regularisation as it is.
        def cost(log_rate: float, parameter: float = parameter) -> float:
            A, B = model(log_rate)
            x, y = nonnegative.nonnegative(A, b, parameter, free=B)
            return float(np.sum((A @ x + B @ y - b) ** 2) + parameter**2 * np.sum(np.diff(x, 2) ** 2))

        log_rate = float(minimize_scalar(cost, bounds=np.log(RATES), method="bounded", options={"xatol": 1e-2}).x)

    A, B = model(log_rate)
    x, y = nonnegative.nonnegative(A, b, parameter, free=B)
    pairs = float(x.sum() * (r[1] - r[0]))
    V0 = pairs + float(y[0])
    nuisance = {
        "modulation_depth": pairs / V0 if V0 > 0 else 0.0,
        "background_rate": float(np.exp(log_rate)),
        "amplitude": size * V0,
    }
    return Classical(x / pairs if pairs > 0 else x, nuisance, size * (A @ x + B @ y))


def fit_drt(
    frequency_hz: FloatArray, impedance: Complex, tau: FloatArray, present: NDArray[np.bool_] | None = None
) -> Classical:
    """Fit a distribution of relaxation times and the elements in series to a spectrum.

    Parameters
    ----------
    frequency_hz : ndarray, shape (m,)
        In Hz.
    impedance : ndarray of complex, shape (m,)
        In ohm.
    tau : ndarray, shape (n,)
        Times in s, equally spaced in ln tau.
    present : ndarray of bool, shape (2 m,), optional
        Which real, and behind them imaginary parts are known; by default all.

    Returns
    -------
    Classical
    """
    b = split_parts(impedance, axis=0)
    known = np.ones(len(b), dtype=bool) if present is None else present
    size = np.abs(b[known]).max() or 1.0
    b = b / size
    A = split_parts(relaxation_kernel(frequency_hz, tau), axis=0)
    elements = split_parts(series_elements(frequency_hz), axis=0)
    sizes = np.abs(elements).max(axis=0)
    N = elements / sizes
    x, y = nonnegative.cross_validated(A[known], b[known], free=N[known])
    R_inf, inductance, elastance = size * y / sizes
    nuisance = {
        "R_inf": float(R_inf),
        "inductance": float(inductance),
        "series_capacitance": float(1 / elastance) if elastance > 0 else np.inf,
    }
    return Classical(size * x, nuisance, join_parts(size * (A @ x + N @ y)))


def fit_linear(K: FloatArray, data: FloatArray, N: FloatArray, names: tuple[str, ...]) -> Classical:
    """Fit x >= 0 and the coefficients, of either sign, of further columns to data.

    Parameters
    ----------
    K : ndarray, shape (m, n)
    data : ndarray, shape (m,)
    N : ndarray, shape (m, q)
    names : tuple of str, length q
        Of the coefficients.

    Returns
    -------
    Classical
    """
    size = np.abs(data).max() or 1.0
    parameter = nonnegative.choose_parameter(K, data / size, free=N)
    both = np.concatenate((N, -N), axis=1)  # of either sign
    x, y = nonnegative.nonnegative(K, data / size, parameter, free=both)
    y = y[: N.shape[1]] - y[N.shape[1] :]
    nuisance = {name: float(size * value) for name, value in zip(names, y, strict=True)}
    return Classical(size * x, nuisance, size * (K @ x + N @ y))
