"""How an estimate head answers: scaled systems go in; means, standard deviations and noise levels come out.

References
----------
.. [1] R. E. Kalman, "A new approach to linear filtering and prediction problems", Journal of Basic Engineering 82
   (1960).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, estimate_scores
from algebraformer.models.config import EstimateConfig, ModelConfig
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


class NetworkInput(NamedTuple):
    """What the network reads, float32."""

    tokens: Singles
    """(B, n, token_width)."""
    A: Singles
    """Scaled A (B, m, n)."""
    b: Singles
    """Scaled b (B, m)."""


def network_input(config: ModelConfig, systems: ScaledSystems) -> NetworkInput:
    """Return what the network reads of scaled systems.

    Token i holds column i of A and b_i, or entry i of A^T b where m is not n. With the encoding column-tikhonov also
    entry i of five Tikhonov solutions, each shortened to a root mean square below one, and the logarithms of what
    they were shortened by: with noise in b and little regularisation they are large, and this shows the noise level.
    """
    A, b, _ = systems
    encoding = EstimateConfig.of(config).encoding
    back = (A.mT @ b[:, :, None])[..., 0]
    parts = [math.sqrt(config.n) * A.mT, (b if config.n_equations == config.n else back)[:, :, None]]
    if encoding == "column-tikhonov":
        x = tikhonov_channels(A.mT @ A, back).mT  # (B, n, 5)
        power = 1 + np.mean(x**2, axis=1, keepdims=True)
        parts += [x / np.sqrt(power), np.broadcast_to(0.5 * np.log(power), x.shape)]
    single = (np.concatenate(parts, axis=2), A, b)
    return NetworkInput(*(np.ascontiguousarray(part, dtype=np.float32) for part in single))


def kalman_update(
    systems: ScaledSystems, mean: FloatArray, std: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Update the network's estimates of scaled systems by their data, as Kalman's filter does [1]_.

    For x ~ N(mean, S), S = diag(std^2), mean and variance of x given b = A x + e with e ~ N(0, noise^2 I):

        x = mean + G (b - A mean),   S - G A S,   G = S A^T (A S A^T + noise^2 I)^-1.

    The network has seen b before, so this is no theorem. But a network is accurate to a few per cent everywhere, b may
    determine x to a thousandth where A damps little, and there the update acts.

    Parameters
    ----------
    systems : ScaledSystems
    mean, std : ndarray, shape (B, n)
    noise : ndarray, shape (B,)

    Returns
    -------
    x, std : ndarray, shape (B, n)
    """
    A, b, _ = systems
    AS = A * (std**2)[:, None, :]  # (B, m, n)
    K = AS @ A.mT + np.maximum(noise**2, VARIANCE_FLOOR)[:, None, None] * np.eye(b.shape[1])
    residual = b[:, :, None] - A @ mean[:, :, None]
    solved = np.linalg.solve(K, np.concatenate((residual, AS), axis=2))  # (B, m, 1 + n)
    x = mean + (AS.mT @ solved[:, :, :1])[:, :, 0]
    variance = std**2 - np.sum(AS * solved[:, :, 1:], axis=1)
    return x, np.sqrt(np.maximum(variance, VARIANCE_FLOOR * std**2))


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

    @staticmethod
    def buffers(config: ModelConfig) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        m, n = config.n_equations, config.n
        axes = min(N_AXES, m * n)
        shapes = {"A_mean": (m, n), "A_inverse_std": (axes,), "max_A_distance": (2,), "b_mean": (m,),
                  "b_whitening": (m, m), "max_b_distance": (), "misfit": (2,), "prior_scale": (),
                  "std_factor": ()}  # fmt: skip
        return {name: (shape, np.float64) for name, shape in shapes.items()} | {"A_axes": ((axes, m * n), np.float32)}

    def answer_columns(self, forward: Forward, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return the mean x (B, n) that the network gives, before the update by the data."""
        systems = scale_systems(A, b)
        x: FloatArray = systems.size[:, None] * forward(*network_input(self.config, systems))[0]
        return x

    def estimates(self, forward: Forward, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates for A (B, m, n) and b (B, m), a limited number of systems at a time."""
        n = self.config.n
        parts = [Estimates(np.empty((0, n)), np.empty((0, n)), np.empty(0), np.empty(0, bool))]
        for start in range(0, len(b), BATCH_SIZE):
            systems = scale_systems(A[start : start + BATCH_SIZE], b[start : start + BATCH_SIZE])
            mean, std, noise = self.calibrated(systems, *forward(*network_input(self.config, systems)))
            size = systems.size[:, None]
            parts.append(Estimates(size * mean, np.abs(size) * std, noise, self.system_in_distribution(systems)))
        return Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def scores(self, forward: Forward, systems: ScoredSystems) -> dict[str, float]:
        found = self.estimates(forward, systems.A, systems.b)
        return estimate_scores(found.mean, found.std, found.noise, systems)

    def calibrated(
        self, systems: ScaledSystems, mean: NDArray[Any], std: NDArray[Any], log_noise: NDArray[Any]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x (B, n), calibrated std (B, n) and noise (B,) of scaled systems from the network's outputs."""
        mean, std, noise = mean.astype(np.float64), std.astype(np.float64), np.exp(log_noise.astype(np.float64))
        if self.prior_scale > 0:
            mean, std = kalman_update(systems, mean, self.prior_scale * std, noise)
        return mean, self.std_factor * std, noise

    def distances(self, systems: ScaledSystems) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return how far B scaled systems are from the middle of the family, (B,) each.

        Of the matrices: the root mean square of their coordinates along the family's principal axes, in standard
        deviations, and the share that lies outside of these axes, 1 for a matrix of zeros. Of the data: the root mean
        square along all of their principal axes.
        """
        flat = systems.A.reshape(len(systems.A), -1)
        left = flat - self.A_mean.reshape(-1)
        coordinates = left @ self.A_axes.T
        size = np.linalg.norm(flat, axis=1)
        outside = np.linalg.norm(left - coordinates @ self.A_axes, axis=1) / np.where(size > 0, size, 1.0)
        along = np.sqrt(np.mean((coordinates * self.A_inverse_std) ** 2, axis=1))
        far_b = np.sqrt(np.mean(((systems.b - self.b_mean) @ self.b_whitening) ** 2, axis=1))
        return along, np.where(size > 0, outside, 1.0), far_b

    def system_in_distribution(self, systems: ScaledSystems) -> NDArray[np.bool_]:
        """Say which scaled systems (B,), matrix and data, are no further out than the family's sample was."""
        along, outside, far_b = self.distances(systems)
        return (along <= self.max_along) & (outside <= self.max_outside) & (far_b <= self.max_b_distance)

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits are in the range of the family's sample."""
        return (misfit >= self.min_misfit) & (misfit <= self.max_misfit)
