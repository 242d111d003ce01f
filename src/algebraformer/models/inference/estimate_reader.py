"""How an estimate head answers: scaled systems go in; means, standard deviations and noise levels come out.

References
----------
.. [1] R. E. Kalman, "A new approach to linear filtering and prediction problems", Journal of Basic Engineering 82
   (1960).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, estimate_scores
from algebraformer.models.config import EstimateConfig, ModelConfig
from algebraformer.models.inference.predictive_checks import NAMES, Ranges, statistics
from algebraformer.models.inference.reader import BATCH_SIZE, Arrays, ColumnReader, Forward, Singles
from algebraformer.models.inference.reading import Estimates
from algebraformer.models.scaling import ScaledSystems, scale_systems
from algebraformer.models.tikhonov import tikhonov_channels

STD_FLOOR = 1e-3
"""Least standard deviation, for systems scaled to A and b of size one."""
TYPICAL_NOISE = 1e-2
"""What a fresh network takes the relative noise level to be."""
N_AXES = 32
"""Principal axes of the family's matrices that are kept."""
VARIANCE_FLOOR = 1e-12
"""Least variances in the update, where b has mean square one."""
AMPLITUDES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95, 1.0)
"""Amplitudes |mean| / max |mean| at which the calibration of the standard deviations is tabulated. The last interval is
short: errors of the largest entry itself are other ones than those of entries nearly as large."""


class NetworkInput(NamedTuple):
    """What the network reads, float32."""

    tokens: Singles
    """(B, n, token_width)."""
    A: Singles
    """Scaled A (B, m, n)."""
    b: Singles
    """Scaled b (B, m)."""


def network_input(
    config: ModelConfig, systems: ScaledSystems, xp: Any = np, solve: Callable[..., Any] = np.linalg.solve
) -> NetworkInput:
    """Return what the network reads of scaled systems.

    Token i holds column i of A and b_i, or entry i of A^T b where m is not n. With the encoding column-tikhonov also
    entry i of five Tikhonov solutions, each shortened to a root mean square below one, and the logarithms of what
    they were shortened by: with noise in b and little regularisation they are large, and this shows the noise level.

    One matrix (1, m, n) may serve all b. The same lines work on tensors of torch, for gradients to b: `xp` is NumPy or
    torch, `solve` solves batches.
    """
    A, b, _ = systems
    encoding = EstimateConfig.of(config).encoding
    back = (A.mT @ b[:, :, None])[..., 0]
    columns = xp.broadcast_to(math.sqrt(config.n) * A.mT, (len(b), config.n, config.n_equations))
    parts = [columns, (b if config.n_equations == config.n else back)[:, :, None]]
    if encoding == "column-tikhonov":
        x = tikhonov_channels(A.mT @ A, back, xp, solve).mT  # (B, n, 5)
        power = 1 + xp.mean(x**2, axis=1, keepdims=True)
        parts += [x / xp.sqrt(power), xp.broadcast_to(0.5 * xp.log(power), x.shape)]
    double: tuple[Any, ...] = (xp.concatenate(parts, axis=2), xp.broadcast_to(A, (len(b), *A.shape[1:])), b)
    if xp is not np:
        return NetworkInput(*(part.float() for part in double))
    return NetworkInput(*(np.ascontiguousarray(part, dtype=np.float32) for part in double))


def kalman_update(
    systems: ScaledSystems, mean: Any, std: Any, noise: Any, xp: Any = np, solve: Callable[..., Any] = np.linalg.solve
) -> tuple[Any, Any]:
    """Update the network's estimates of scaled systems by their data, as Kalman's filter does [1]_.

    For x ~ N(mean, S), S = diag(std^2), mean and variance of x given b = A x + e with e ~ N(0, noise^2 I):

        x = mean + G (b - A mean),   S - G A S,   G = S A^T (A S A^T + noise^2 I)^-1.

    The network has seen b before, so this is no theorem. But a network is accurate to a few per cent everywhere, b may
    determine x to a thousandth where A damps little, and there the update acts.

    Parameters
    ----------
    systems : ScaledSystems
    mean, std : array, shape (B, n)
    noise : array, shape (B,)
    xp : module
        NumPy or torch, whichever the arrays are of.
    solve : callable
        Solves batches of systems of such arrays.

    Returns
    -------
    x, std : array, shape (B, n)
    """
    A, b, _ = systems
    AS = A * (std**2)[:, None, :]  # (B, m, n)
    identity = xp.eye(b.shape[1], dtype=xp.float64, device=A.device)
    K = AS @ A.mT + xp.clip(noise**2, VARIANCE_FLOOR, None)[:, None, None] * identity
    residual = b[:, :, None] - A @ mean[:, :, None]
    solved = solve(K, xp.concatenate((residual, AS), axis=2))  # (B, m, 1 + n)
    x = mean + (AS.mT @ solved[:, :, :1])[:, :, 0]
    variance = std**2 - xp.sum(AS * solved[:, :, 1:], axis=1)
    return x, xp.sqrt(xp.maximum(variance, VARIANCE_FLOOR * std**2))


def one_if_equal(A: FloatArray) -> FloatArray:
    """Return matrices A (B, m, n), or the first one (1, m, n) if all of them are equal."""
    return A[:1] if len(A) > 1 and (A.strides[0] == 0 or bool((A[:1] == A).all())) else A


def amplitudes(mean: Any, xp: Any = np) -> Any:
    """Return |mean| / max |mean| over each system (B, n); 0 where all means are 0. `xp` is NumPy or torch."""
    size = abs(mean)
    largest = xp.amax(size, axis=1, keepdims=True)
    return size / xp.where(largest > 0, largest, 1.0)


def interpolated(amplitude: Any, table: FloatArray, xp: Any = np) -> Any:
    """Return values of a table at `AMPLITUDES`, linear in between, for amplitudes (B, n); of a table of ones, ones.

    Examples
    --------
    >>> import numpy as np
    >>> interpolated(np.array([[0.0, 0.55, 1.0]]), np.array([1, 1, 1, 1, 1, 2, 2, 4.0]))
    array([[1. , 1.5, 4. ]])
    """
    value, values = float(table[0]), table.tolist()
    for (low, high), (first, last) in zip(itertools.pairwise(AMPLITUDES), itertools.pairwise(values), strict=True):
        value = value + (last - first) / (high - low) * (xp.clip(amplitude, low, high) - low)
    return value


def share_outside(left: FloatArray, coordinates: FloatArray, axes: NDArray[Any], size: FloatArray) -> FloatArray:
    """Return the share (B,) of matrices that lies outside of a family's principal axes, 1 for a matrix of zeros.

    Parameters
    ----------
    left : ndarray, shape (B, mn)
        Matrices less their mean over the family.
    coordinates : ndarray, shape (B, axes)
        left @ axes.T.
    axes : ndarray, shape (axes, mn)
    size : ndarray, shape (B,)
        Norms of the matrices.
    """
    outside = np.linalg.norm(left - coordinates @ axes, axis=1) / np.where(size > 0, size, 1.0)
    return np.where(size > 0, outside, 1.0)


class EstimateReader(ColumnReader):
    """Scales systems, calibrates the network's outputs, and knows the extent of the family."""

    def __init__(self, config: ModelConfig, buffers: Arrays) -> None:
        super().__init__(config, buffers)
        double = {name: buffers[name].astype(np.float64) for name in self.buffers(config)}
        self.A_mean, self.A_axes, self.A_inverse_std = (double[f"A_{name}"] for name in ("mean", "axes", "inverse_std"))
        self.b_mean, self.b_whitening = double["b_mean"], double["b_whitening"]
        self.max_along, self.max_outside = double["max_A_distance"].tolist()
        self.max_b_distance = float(double["max_b_distance"])
        self.min_misfit, self.max_misfit = double["misfit"].tolist()
        self.prior_scale, self.std_factor = float(double["prior_scale"]), float(double["std_factor"])
        self.amplitude_factor = double["amplitude_factor"]
        self.ranges = Ranges(double["check_trend"], double["check_limits"])
        self.nonnegative = EstimateConfig.of(config).nonnegative

    @staticmethod
    def buffers(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        m, n = config.n_equations, config.n
        axes = min(N_AXES, m * n)
        shapes = {"A_mean": (m, n), "A_inverse_std": (axes,), "max_A_distance": (2,), "b_mean": (m,),
                  "b_whitening": (m, m), "max_b_distance": (), "misfit": (2,), "prior_scale": (),
                  "std_factor": (), "amplitude_factor": (len(AMPLITUDES),), "check_trend": (3, len(NAMES)),
                  "check_limits": (len(NAMES), 2)}  # fmt: skip
        return {name: (shape, np.float64) for name, shape in shapes.items()} | {"A_axes": ((axes, m * n), np.float32)}

    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return the mean x (B, n) that the network gives, before the update by the data."""
        systems = scale_systems(A, b)
        x: FloatArray = systems.size[:, None] * forward(*network_input(self.config, systems))[0]
        return np.maximum(x, 0.0) if self.nonnegative else x

    def estimates(self, forward: Forward, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates for A (B, m, n) and b (B, m), a limited number of systems at a time."""
        n = self.config.n
        parts = [Estimates(np.empty((0, n)), np.empty((0, n)), np.empty(0), np.empty(0, bool))]
        for start in range(0, len(b), BATCH_SIZE):
            systems = scale_systems(one_if_equal(A[start : start + BATCH_SIZE]), b[start : start + BATCH_SIZE])
            mean, std, log_noise = (part.astype(np.float64) for part in forward(*network_input(self.config, systems)))
            mean, std, noise = self.calibrated(systems, mean, std, log_noise)
            size, typical = systems.size[:, None], self.system_in_distribution(systems)
            with np.errstate(over="ignore", invalid="ignore"):  # of a network without sense
                typical &= self.ranges.keep(statistics(systems.A, systems.b, mean, noise), noise)
            parts.append(Estimates(size * mean, np.abs(size) * std, noise, typical))
        return Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def scores(self, forward: Forward, systems: ScoredSystems) -> dict[str, float]:
        found = self.estimates(forward, systems.A, systems.b)
        return estimate_scores(found.mean, found.std, found.noise, systems)

    def calibrated(
        self,
        systems: ScaledSystems,
        mean: Any,
        std: Any,
        log_noise: Any,
        xp: Any = np,
        solve: Callable[..., Any] = np.linalg.solve,
    ) -> tuple[Any, Any, Any]:
        """Return x (B, n), calibrated std (B, n) and noise (B,) of scaled systems from outputs as float64.

        Where x >= 0, negative means are cut off; of scaled systems x has the sign of their size. `xp` and `solve` are
        those of `kalman_update`.
        """
        noise = xp.exp(log_noise)
        if self.prior_scale > 0:
            mean, std = kalman_update(systems, mean, self.prior_scale * std, noise, xp, solve)
        if self.nonnegative:
            upwards = (systems.size >= 0)[:, None]
            mean = xp.where(upwards, xp.clip(mean, 0.0, None), xp.clip(mean, None, 0.0))
        std = interpolated(amplitudes(mean, xp), self.amplitude_factor, xp) * (self.std_factor * std)
        return mean, std, noise

    def distances(self, systems: ScaledSystems) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return how far B scaled systems are from the middle of the family, (B,) each.

        Of the matrices: the root mean square of their coordinates along the family's principal axes, in standard
        deviations, and the share that lies outside of these axes, 1 for a matrix of zeros. Of the data: the root mean
        square along all of their principal axes.
        """
        flat = systems.A.reshape(len(systems.A), -1)
        left = flat - self.A_mean.reshape(-1)
        coordinates = left @ self.A_axes.T
        outside = share_outside(left, coordinates, self.A_axes, np.linalg.norm(flat, axis=1))
        along = np.sqrt(np.mean((coordinates * self.A_inverse_std) ** 2, axis=1))
        far_b = np.sqrt(np.mean(((systems.b - self.b_mean) @ self.b_whitening) ** 2, axis=1))
        return along, outside, far_b

    def system_in_distribution(self, systems: ScaledSystems) -> NDArray[np.bool_]:
        """Say which scaled systems (B,), matrix and data, are no further out than the family's sample was."""
        along, outside, far_b = self.distances(systems)
        return (along <= self.max_along) & (outside <= self.max_outside) & (far_b <= self.max_b_distance)

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits are in the range of the family's sample."""
        return (misfit >= self.min_misfit) & (misfit <= self.max_misfit)
