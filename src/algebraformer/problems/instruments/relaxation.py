"""Impedance spectra from distributions of relaxation times.

With gamma(ln tau) the distribution, in ohm,

    Z(f) = R_inf + i omega L + 1 / (i omega C) + integral of gamma(ln tau) / (1 + i omega tau) d ln tau,

omega = 2 pi f. Frequencies are in Hz, times in seconds, impedances in ohm, inductances in henry, capacitances in farad.

References
----------
.. [1] F. Ciucci, "Modeling electrochemical impedance spectroscopy", Current Opinion in Electrochemistry 13 (2019).
.. [2] B. A. Boukamp, "Distribution (function) of relaxation times, successor to complex nonlinear least squares
   analysis of electrochemical impedance spectroscopy?", Journal of Physics: Energy 2 (2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray

Complex = NDArray[np.complex128]
MARGIN = 0.5
"""Decades that a grid of times reaches beyond the measured range at either end: an arc whose time lies outside of it
still shows at its edge."""


def relaxation_kernel(frequency_hz: FloatArray, tau: FloatArray) -> Complex:
    """Return the impedance per d ln tau of a relaxation at each time, by the trapezoidal rule on the grid of times.

    Parameters
    ----------
    frequency_hz : ndarray, shape (m,)
        Positive.
    tau : ndarray, shape (n,)
        Times in s, ascending and positive, n at least 2.

    Returns
    -------
    ndarray of complex, shape (m, n)
        `relaxation_kernel(f, tau) @ gamma` is the integral over ln tau.

    Examples
    --------
    >>> import numpy as np
    >>> tau = np.logspace(-6, 6, 2000)
    >>> gamma = 1 / (2 * np.cosh(np.log(tau) / 2) ** 2) / 2  # integral 1
    >>> Z = relaxation_kernel(np.array([1e-8, 1e8]), tau) @ gamma
    >>> np.abs(Z - [1, 0]).max() < 1e-4
    np.True_
    """
    u = np.log(tau)
    weight = np.gradient(u)
    weight[[0, -1]] /= 2
    return weight / (1 + 2j * np.pi * frequency_hz[:, None] * tau)


def series_elements(frequency_hz: FloatArray) -> Complex:
    """Return the impedances of a resistance of 1 ohm, an inductance of 1 H and a capacitance of 1 F: shape (m, 3).

    They are in series with what relaxes. The coefficient of the third is 1 / C.
    """
    s = 2j * np.pi * frequency_hz
    return np.stack((np.ones_like(s), s, 1 / s), axis=1)


def time_grid(frequency_hz: FloatArray, n: int) -> FloatArray:
    """Return n times in s, equally spaced in ln tau, half a decade beyond the range 1 / (2 pi f) of the frequencies.

    Examples
    --------
    >>> import numpy as np
    >>> np.log10(2 * np.pi * time_grid(np.array([1e5, 1e-1]), 3)).round(9)
    array([-5.5, -2. ,  1.5])
    """
    low, high = -np.log10(2 * np.pi * frequency_hz.max()), -np.log10(2 * np.pi * frequency_hz.min())
    return np.logspace(low - MARGIN, high + MARGIN, n)
