"""Recorded traces, made ready: phase and zero time.

References
----------
.. [1] G. Jeschke, "DEER distance measurements on proteins", Annual Review of Physical Chemistry 63 (2012).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray


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

    It is where the first moment of the trace around it vanishes [1]_, over a window as wide as what was recorded before
    the maximum. Where nothing was, it is 0 if that is between the first point and the maximum, else the first point.

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
        return float(np.clip(0.0, time_us[0], peak))

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
