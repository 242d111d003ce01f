"""Recorded traces, made ready: phase and zero time.

References
----------
.. [1] G. Jeschke, "DEER distance measurements on proteins", Annual Review of Physical Chemistry 63 (2012): the model.
.. [2] C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems" (1974): nonnegative least squares.
"""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments.dipolar import tabulated_kernel

LATEST = 1.5
"""Zeros are sought up to this time after the first point, in us."""
BEFORE, WINDOW = 0.2, 1.0
"""What lies so long before and after the zeros that are tried, in us, is fitted: recorded traces often begin with
artefacts, and what is far off says little."""
FURTHEST = 10.0
"""More than this, in us, from the zero there is no signal of pairs."""
FEWEST, COARSE = 40, 128
"""All of a trace is fitted if less points than this are near. The first fit is of so many means at most."""
CANDIDATES, ZOOMS = 33, 4
"""Zeros that are tried at once, and how often: each time in a narrower range."""
FLOOR = 0.5
"""Least noise for a trace of size one, per us between the zeros that are tried: what so coarse a grid misses."""
TEMPER = 0.7
"""Power of the likelihood: fits follow the noise a little. With it standard deviations of simulated traces hold."""
DISTANCES = np.geomspace(1.6, 8.0, 28)
"""Distances, in nm, whose signals are fitted."""
RATES = np.array([0.0, 0.1, 0.4, 1.5])
"""Rates, in 1/us, of the backgrounds that are fitted."""


def phase_corrected(echo: NDArray[np.complex128]) -> tuple[NDArray[np.complex128], float]:
    """Return a complex trace, phased to minimise its imaginary part, and the angle it was turned by.

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


def zero_time(time_us: FloatArray, trace: FloatArray) -> tuple[float, float]:
    """Return the zero of a trace, about which it is symmetric since all pairs are in phase, and its standard deviation.

    For each of some zeros that are tried, a sum of dipolar signals and backgrounds, none of them negative [2]_, is
    fitted to the trace near them. The likelihood of what they leave gives mean and standard deviation. Where at most
    three points lie before the time 0 and it is as likely as another zero, it is believed.

    Parameters
    ----------
    time_us : ndarray, shape (m,)
        Ascending, in us.
    trace : ndarray, shape (m,)
        Real part, with the phase corrected.

    Returns
    -------
    zero, std : float
        In us. Zeros are sought in the first half of the trace, and up to 1.5 us after the first point.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(0, 2, 0.01)
    >>> zero, std = zero_time(t, np.exp(-(((t - 0.205) / 0.3) ** 2)))
    >>> round(zero, 3), std < 0.001
    (0.205, True)
    """
    step = float(np.median(np.diff(time_us)))
    first, last = time_us[0], time_us[0] + min(LATEST, (time_us[-1] - time_us[0]) / 2)
    b = trace / np.sqrt(np.mean(trace**2))

    zeros = np.linspace(first, last, CANDIDATES)
    for zoom in range(ZOOMS):
        # 1. What is near the zeros that are tried, a few points at least; first in means, which are enough.
        near = (time_us >= zeros[0] - BEFORE) & (time_us <= zeros[-1] + WINDOW)
        near |= near.sum() < FEWEST
        t, V = time_us[near], b[near]
        if zoom == 0:
            t, V = averaged(t, COARSE), averaged(V, COARSE)

        # 2. Mean and standard deviation, as precisely as the zeros lie.
        apart = zeros[1] - zeros[0]
        likelihood = log_likelihood(t, V, zeros, FLOOR * apart)
        share = np.exp(likelihood - likelihood.max())
        share /= share.sum()
        mean = float(share @ zeros)
        std = float(np.sqrt(share @ (zeros - mean) ** 2))
        if zoom and std > 2 * apart:
            break
        half = max(4 * std, 2 * apart)
        zeros = np.linspace(max(first, mean - half), min(last, mean + half), CANDIDATES)
    if first <= 0 < first + 4 * step and abs(mean) < max(2 * std, step / 2):
        return 0.0, std
    return mean, std


def averaged(values: FloatArray, count: int) -> FloatArray:
    """Return means of as many neighbours among values (m,) as leave at most `count` of them."""
    starts = np.arange(0, len(values), -(-len(values) // count))
    means: FloatArray = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    return means


def log_likelihood(time_us: FloatArray, trace: FloatArray, zeros: FloatArray, noise: float) -> FloatArray:
    """Return the logarithm of the likelihood of each zero (c,), up to a constant.

    Parameters
    ----------
    time_us, trace : ndarray, shape (m,)
        The trace has a root mean square of about one.
    zeros : ndarray, shape (c,)
    noise : float
        Noise is at least this.
    """
    # 1. A QR decomposition for each zero; all zeros share the size of their systems.
    m, since = len(time_us), np.minimum(np.abs(time_us - zeros[:, None]), FURTHEST)[..., None]
    signals = tabulated_kernel(since.ravel(), DISTANCES).reshape(len(zeros), m, -1)
    data = np.broadcast_to(trace[:, None], since.shape)
    R = np.linalg.qr(np.concatenate((signals, np.exp(-RATES * since), data), axis=-1), mode="r")

    # 2. What nonnegative sums leave. One whose active set does not end counts as a fit of nothing.
    squares = np.full(len(zeros), trace @ trace)
    for i, r in enumerate(R):
        with contextlib.suppress(RuntimeError):
            squares[i] = nnls(r[:, :-1], r[:, -1])[1] ** 2
    found: FloatArray = -0.5 * TEMPER * m * np.log(squares / m + noise**2)
    return found
