"""Traces of four-pulse double electron-electron resonance (DEER, also PELDOR) from distributions of distances.

With P(r) the density of distances between two spins, in 1/nm,

    V(t) = V0 (1 - modulation_depth + modulation_depth * integral of K(t, r) P(r) dr) B(t).

K is the average of cos(omega(theta) t) over all orientations of a powder [1]_, with the frequency of two electron spins

    omega(theta) = (1 - 3 cos^2 theta) 2 pi 52.04 MHz nm^3 / r^3,

and B(t) = exp(-(rate |t|)^(d / 3)) is the decay by the spins of other molecules, which fill a space of dimension d.
Times are in microseconds, distances in nanometres.

References
----------
.. [1] A. D. Milov, A. B. Ponomarev and Y. D. Tsvetkov, "Electron-electron double resonance in electron spin echo",
   Chemical Physics Letters 110 (1984).
.. [2] G. Jeschke, "DEER distance measurements on proteins", Annual Review of Physical Chemistry 63 (2012).
"""

from __future__ import annotations

import functools

import numpy as np

from algebraformer.linalg import FloatArray

DIPOLAR_FREQUENCY = 52.04
"""Dipolar frequency of two free electrons at a distance of 1 nm, in MHz: mu_0 (g mu_B)^2 / (4 pi h)."""
SHORTEST_DISTANCE = 1.5
"""Shortest distance of a grid, in nm: pulses of the usual length do not excite both spins below it [2]_."""
TABLE_STEP, TABLE_END = 0.004, 1000.0
"""Of the phases of `tabulated_kernel`: at 8 us and 1.5 nm it is 775. The error is an eighth of the squared step times
the second derivative, which is 0.8 at most."""
REACH = 5.0
"""Longest distance of a grid, in nm, for a trace of 1 us; it grows with the cube root of the length, since a trace has
to hold a good part of the slowest oscillation."""


def dipolar_kernel(time_us: FloatArray, r: FloatArray) -> FloatArray:
    """Return K(t, r): the signal of spin pairs at a distance, averaged over all orientations.

    With z = cos(theta), K is the integral of cos((3 z^2 - 1) w t) over z from 0 to 1, w = 2 pi 52.04 MHz nm^3 / r^3. By
    the Fresnel integrals C and S,

        K = (cos(w t) C(q) + sin(w |t|) S(q)) / q,   q = sqrt(6 w |t| / pi).

    Parameters
    ----------
    time_us : ndarray, shape (..., m)
        Times from the zero of the trace, in us, of either sign.
    r : ndarray, shape (..., n)
        Distances in nm, positive.

    Returns
    -------
    ndarray, shape (..., m, n)
        1 at t = 0.

    Examples
    --------
    >>> import numpy as np
    >>> dipolar_kernel(np.array([0.0, 1.0]), np.array([3.0, 5.0])).round(4)
    array([[ 1.    ,  1.    ],
           [ 0.0366, -0.1378]])
    """
    return powder_average(2 * np.pi * DIPOLAR_FREQUENCY * np.abs(time_us)[..., :, None] / r[..., None, :] ** 3)


def powder_average(phase: FloatArray) -> FloatArray:
    """Return `dipolar_kernel` for phases w |t| of any shape."""
    from scipy.special import fresnel  # slow to import, and the command line lists families

    q = np.sqrt(6 * phase / np.pi)
    S, C = fresnel(q)
    # Below this q, K = 1 to rounding, and the quotient is 0 / 0 at t = 0.
    small = q < 1e-5
    K = (np.cos(phase) * C + np.sin(phase) * S) / np.where(small, 1.0, q)
    return np.where(small, 1.0, K)


def tabulated_kernel(time_us: FloatArray, r: FloatArray) -> FloatArray:
    """Return `dipolar_kernel` to 2e-6, in a tenth of the time: by linear interpolation in the phase.

    Parameters
    ----------
    time_us : ndarray, shape (m,)
    r : ndarray, shape (n,)

    Returns
    -------
    ndarray, shape (m, n)
    """
    phase = np.outer(np.abs(time_us), 2 * np.pi * DIPOLAR_FREQUENCY / r**3)
    if phase.max(initial=0.0) >= TABLE_END:
        return powder_average(phase)
    values, differences = _table()
    phase /= TABLE_STEP
    index = phase.astype(np.int64)
    phase -= index
    phase *= differences[index]
    phase += values[index]
    return phase


@functools.cache
def _table() -> tuple[FloatArray, FloatArray]:
    """Return K at multiples of `TABLE_STEP`, and the differences between neighbours."""
    values = powder_average(np.arange(0, TABLE_END + 2 * TABLE_STEP, TABLE_STEP))
    return values[:-1], np.diff(values)


def background(time_us: FloatArray, rate: FloatArray, dimension: FloatArray) -> FloatArray:
    """Return B(t) = exp(-(rate |t|)^(d / 3)), the decay by spins of other molecules.

    Parameters
    ----------
    time_us : ndarray, shape (..., m)
    rate : ndarray, shape (...)
        In 1/us, not negative.
    dimension : ndarray, shape (...)
        d: 3 in solution, about 2 in membranes.

    Returns
    -------
    ndarray, shape (..., m)
    """
    power = np.asarray(dimension)[..., None] / 3
    decay: FloatArray = np.exp(-((np.asarray(rate)[..., None] * np.abs(time_us)) ** power))
    return decay


def trace(
    time_us: FloatArray,
    pairs: FloatArray,
    modulation_depth: FloatArray,
    rate: FloatArray,
    dimension: FloatArray,
    amplitude: FloatArray,
) -> FloatArray:
    """Return V(t) without noise.

    Parameters
    ----------
    time_us : ndarray, shape (..., m)
    pairs : ndarray, shape (..., m)
        Integral of K(t, r) P(r) dr.
    modulation_depth, rate, dimension, amplitude : ndarray, shape (...)
        Share of the pairs whose partner is flipped, `background`'s rate (1/us) and dimension, and V0.

    Returns
    -------
    ndarray, shape (..., m)
    """
    depth, V0 = np.asarray(modulation_depth)[..., None], np.asarray(amplitude)[..., None]
    V: FloatArray = V0 * (1 - depth + depth * pairs) * background(time_us, rate, dimension)
    return V


def distance_grid(length_us: float, n: int) -> FloatArray:
    """Return n distances in nm, equally spaced, that a trace of this length can tell apart.

    From 1.5 nm to 5 nm (length / 1 us)^(1/3), at most 10 nm.

    Examples
    --------
    >>> distance_grid(8.0, 3)
    array([ 1.5 ,  5.75, 10.  ])
    """
    return np.linspace(SHORTEST_DISTANCE, min(10.0, REACH * length_us ** (1 / 3)), n)
