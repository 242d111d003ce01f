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

import numpy as np
from numpy.typing import NDArray
from scipy.special import fresnel

from algebraformer.linalg import FloatArray

DIPOLAR_FREQUENCY = 52.04
"""Dipolar frequency of two free electrons at a distance of 1 nm, in MHz: mu_0 (g mu_B)^2 / (4 pi h)."""
SHORTEST = 1.5
"""Shortest distance of a grid, in nm: pulses of the usual length do not excite both spins below it [2]_."""
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
    phase = 2 * np.pi * DIPOLAR_FREQUENCY * np.abs(time_us)[..., :, None] / r[..., None, :] ** 3
    q = np.sqrt(6 * phase / np.pi)
    S, C = fresnel(q)
    # Below this q, K = 1 to rounding, and the quotient is 0 / 0 at t = 0.
    small = q < 1e-5
    K = (np.cos(phase) * C + np.sin(phase) * S) / np.where(small, 1.0, q)
    return np.where(small, 1.0, K)


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
    return np.linspace(SHORTEST, min(10.0, REACH * length_us ** (1 / 3)), n)


def phase_corrected(echo: NDArray[np.complex128]) -> tuple[NDArray[np.complex128], float]:
    """Return a complex trace, turned so that its imaginary part is small, and the angle it was turned by.

    The phase is that of the sum of squares: of all angles it leaves the least in the imaginary part. Of the two angles
    that do, the one with a positive real part is taken.

    Parameters
    ----------
    echo : ndarray of complex, shape (m,)

    Returns
    -------
    ndarray of complex, shape (m,)
    float
        Radians.

    Examples
    --------
    >>> import numpy as np
    >>> turned, angle = phase_corrected(np.array([2.0, 1.0]) * np.exp(0.3j))
    >>> turned.real.round(12), round(angle, 12)
    (array([2., 1.]), -0.3)
    """
    angle = -np.angle(np.sum(echo**2)) / 2
    turned = echo * np.exp(1j * angle)
    if turned.real.sum() < 0:
        angle += np.pi if angle <= 0 else -np.pi
        turned = -turned
    return turned, float(angle)


def zero_time(time_us: FloatArray, trace: FloatArray) -> float:
    """Return the time about which a trace is symmetric: where all pairs of spins are in phase.

    It is where the first moment of the trace around it vanishes [2]_, over a window as wide as what was recorded before
    the maximum. Where nothing was, it is the time of the first point.

    Parameters
    ----------
    time_us : ndarray, shape (m,)
        Ascending, in us.
    trace : ndarray, shape (m,)
        Real part, with the phase corrected.

    Returns
    -------
    float
        In us.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(0, 2, 0.01)
    >>> round(zero_time(t, np.exp(-(((t - 0.205) / 0.3) ** 2))), 3)
    0.205
    """
    # 1. The maximum of means of five points: single ones are noisy.
    smooth = np.convolve(trace, np.full(5, 0.2), mode="valid") if len(trace) >= 5 else trace
    peak = time_us[int(np.argmax(smooth)) + (len(trace) - len(smooth)) // 2]
    half = (peak - time_us[0]) / 2
    step = float(np.median(np.diff(time_us)))
    if half < 2 * step:
        return float(time_us[0])

    # 2. The moment around each candidate, by the trapezoidal rule on a grid four times as fine as the data.
    candidates = np.arange(time_us[0] + half, min(peak + half, time_us[-1] - half) + step / 8, step / 4)
    window = np.linspace(-half, half, 8 * int(np.ceil(half / step)) + 1)
    moments = np.interp(candidates[:, None] + window, time_us, trace) @ window

    # 3. It falls through zero at a maximum; of several such places the one nearest to the peak counts.
    falls = np.flatnonzero((moments[:-1] > 0) & (moments[1:] <= 0))
    if falls.size == 0:
        return float(peak)
    shares = moments[falls] / (moments[falls] - moments[falls + 1])
    zeros = candidates[falls] + shares * (candidates[falls + 1] - candidates[falls])
    return float(zeros[np.argmin(np.abs(zeros - peak))])
