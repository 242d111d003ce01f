"""The head for noisy systems b = A x + e: a mean and a standard deviation for each entry of x (ours).

The paper's systems are exact. Here b carries noise of unknown level, A need not be square and may damp parts of x to
nothing, so that the answer is an estimate.

Departs from the paper: the head, the channels of the encoding column-tikhonov, the scaling without z-scores and
`models.bodies.Feedback` are ours.

References
----------
.. [1] A. N. Tikhonov, "Solution of incorrectly formulated problems and the regularization method", Soviet Mathematics
   Doklady 4 (1963).
.. [2] D. A. Nix and A. S. Weigend, "Estimating the mean and variance of the target probability distribution", ICNN
   1994.
.. [3] M. Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation with probabilistic neural
   networks", ICLR 2022.
.. [4] R. E. Kalman, "A new approach to linear filtering and prediction problems", Journal of Basic Engineering 82
   (1960).
.. [5] N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness: probabilistic algorithms for
   constructing approximate matrix decompositions", SIAM Review 53 (2011).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.metrics import GAUSS_90, ScoredSystems, estimate_scores, misfit, relative_errors
from algebraformer.models.config import TIKHONOV, EstimateConfig, ModelConfig
from algebraformer.models.heads.base import Head, Network, register_head
from algebraformer.models.inference.reader import BATCH_SIZE
from algebraformer.models.heads.data import Batch, Family, Indices, TrainingData
from algebraformer.models.inference.reading import Estimates
from algebraformer.models.scaling import DISTANCE_MARGIN, ScaledSystems, scale_systems
from algebraformer.models.tokens import tikhonov_channels
from algebraformer.progress import PartCallback, all_silent

STD_FLOOR = 1e-3
"""Least standard deviation, for systems scaled to A and b of size one."""
TYPICAL_NOISE = 1e-2
"""What a fresh network takes the relative noise level to be."""
AUXILIARY_WEIGHT = 0.1
"""Weight in the loss of the terms that teach standard deviation and noise level."""
N_AXES = 32
"""Principal axes of the family's matrices that are kept."""
OVERSAMPLES, POWER_ITERATIONS = 10, 7
"""Of the randomised SVD: with these, singular values of 1 % of the largest are right to many digits."""
MIN_SPREAD = 1e-2
"""Principal axes along which a family spreads less than this share of the widest one (for data: of the mean) are
measured as if it did."""
MIN_OUTSIDE = 1e-3
"""A share of A this small may always lie outside the axes: instruments are not known more precisely."""
DATA_QUANTILE = 0.999
"""Share of the sample whose data count as in distribution; the few others may be outliers."""
CONSISTENT_SHARE = 0.995
"""Share of the sample whose misfit counts as fitting the noise level."""
PRIOR_SCALES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""What the standard deviations may be multiplied by before the update by the data; 0 leaves the update out."""
VARIANCE_FLOOR = 1e-12
"""Least variances in the update, where b has mean square one."""


class NetworkInput(NamedTuple):
    """What the network reads, float32."""

    tokens: Tensor
    """(B, n, token_width)."""
    A: Tensor
    """Scaled A (B, m, n)."""
    b: Tensor
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
    return NetworkInput(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in single))


def examples(config: ModelConfig, A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> Batch:
    """Return what an estimate head learns from: `NetworkInput`, the scaled x (B, n) and log noise (B,), float32."""
    systems = scale_systems(A, b)
    y = x / np.where(systems.size != 0, systems.size, 1.0)[:, None]
    log_noise = np.log(np.maximum(noise, np.finfo(np.float32).tiny))
    return (*network_input(config, systems), torch.from_numpy(y).float(), torch.from_numpy(log_noise).float())


@dataclasses.dataclass(frozen=True)
class EstimateExamples:
    """Examples are those of `examples`."""

    compact: ClassVar[bool] = False
    config: ModelConfig

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        systems = family.at(indices, seed)
        return examples(self.config, systems.A, systems.b, systems.x, systems.params["noise"])


def kalman_update(
    systems: ScaledSystems, mean: FloatArray, std: FloatArray, noise: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Update the network's estimates of scaled systems by their data, as Kalman's filter does [4]_.

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


def principal_axes(X: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest singular values (k,) of X (B, d) and their right singular vectors (k, d), k at most `count`.

    By a randomised SVD with power iterations [5]_.
    """
    Q = np.random.default_rng(0).standard_normal((X.shape[1], count + OVERSAMPLES))

    for _ in range(POWER_ITERATIONS):
        Q = np.linalg.qr(X.T @ (X @ Q))[0]

    _, sigma, axes = np.linalg.svd(X @ Q, full_matrices=False)
    return sigma[:count], axes[:count] @ Q.T


class Output(NamedTuple):
    """Outputs of the network for scaled systems, float32."""

    mean: Tensor
    """(B, n)"""
    std: Tensor
    """(B, n), not calibrated."""
    log_noise: Tensor
    """Logarithm of the relative noise level (B,)."""


@register_head("estimate", EstimateConfig)
class EstimateHead(Head):
    """Token i gives mean and standard deviation of x_i; the mean of all tokens gives the noise level.

    With the encoding column-tikhonov the mean is the sum of an output and of the five Tikhonov solutions, each weighted
    by an output of its own: which of them is best depends on the noise level and on the place.

    The buffers hold the extent of the family and the calibration of the standard deviations; they are float64 and
    travel in the checkpoint.
    """

    carries_gradients: ClassVar[bool] = False

    A_mean: Tensor
    A_axes: Tensor
    A_inverse_std: Tensor
    max_A_distance: Tensor
    b_mean: Tensor
    b_whitening: Tensor
    max_b_distance: Tensor
    prior_scale: Tensor
    std_factor: Tensor
    misfit: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        m, n = config.n_equations, config.n
        self.config = config
        self.channels = TIKHONOV if EstimateConfig.of(config).encoding == "column-tikhonov" else 0
        self.linear = nn.Linear(width, 2 + self.channels)
        self.noise = nn.Linear(width, 1)
        axes = min(N_AXES, m * n)
        shapes = {"A_mean": (m, n), "A_inverse_std": (axes,), "max_A_distance": (2,), "b_mean": (m,),
                  "b_whitening": (m, m), "max_b_distance": (), "misfit": (2,)}  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("A_axes", torch.zeros((axes, m * n), dtype=torch.float32))
        for name in ("prior_scale", "std_factor"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    def forward(self, h: Tensor, tokens: Tensor) -> Output:
        """Return the output from encoded tokens (B, n, width) and the raw ones (B, n, token_width)."""
        mean, log_std, weights = self.linear(h).split((1, 1, self.channels), dim=2)
        if self.channels:
            mean = mean + (weights * tokens[:, :, -2 * TIKHONOV : -TIKHONOV]).sum(dim=2, keepdim=True)
        log_noise = self.noise(h.mean(dim=1))[:, 0] + math.log(TYPICAL_NOISE)
        return Output(mean[:, :, 0], STD_FLOOR + log_std[:, :, 0].exp(), log_noise)

    def output(self, network: Network, systems: ScaledSystems) -> Output:
        """Return the network's output for scaled systems."""
        tokens, A, b = (part.to(network.device) for part in network_input(self.config, systems))
        return self(network.encode(tokens, A, b), tokens)

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        """Return the mean x (B, n) that the network gives, before the update by the data."""
        systems = scale_systems(A.numpy(force=True), b.numpy(force=True))
        return torch.from_numpy(systems.size).to(A.device)[:, None] * self.output(network, systems).mean.double()

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return `output_loss` of a batch of `examples`."""
        tokens, A, b, y, log_noise = batch
        return self.output_loss(self(network.encode(tokens, A, b), tokens), y, log_noise)

    def output_loss(self, output: Output, y: Tensor, log_noise: Tensor) -> Tensor:
        """Return the mean relative error ||mean - y|| / ||y||, and small terms that train the other outputs.

        The standard deviation has the Gaussian negative log-likelihood [2]_ of the error, with the mean held fixed: so
        its gradient does not disturb the mean, and no warm-up on squared errors is needed [3]_. The noise level has the
        squared error of its logarithm.
        """
        error = output.mean - y
        relative = error.norm(dim=1) / y.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        z = error.detach() / output.std
        likelihood = output.std.log() + 0.5 * z.square()
        return relative.mean() + AUXILIARY_WEIGHT * (likelihood.mean() + (output.log_noise - log_noise).square().mean())

    @torch.inference_mode()
    def estimates(self, network: Network, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates for A (B, m, n) and b (B, m), a limited number of systems at a time."""
        n = self.config.n
        parts = [Estimates(np.empty((0, n)), np.empty((0, n)), np.empty(0), np.empty(0, bool))]
        for start in range(0, len(b), BATCH_SIZE):
            systems = scale_systems(A[start : start + BATCH_SIZE], b[start : start + BATCH_SIZE])
            mean, std, noise = self.calibrated(systems, self.output(network, systems))
            size = systems.size[:, None]
            parts.append(Estimates(size * mean, np.abs(size) * std, noise, self.system_in_distribution(systems)))
        return Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def scores(self, network: Network, systems: ScoredSystems) -> dict[str, float]:
        found = self.estimates(network, systems.A, systems.b)
        return estimate_scores(found.mean, found.std, found.noise, systems)

    def calibrated(self, systems: ScaledSystems, output: Output) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x (B, n), calibrated std (B, n) and noise (B,) of scaled systems from the network's output."""
        mean, std, log_noise = (part.double().numpy(force=True) for part in output)
        noise, prior_scale = np.exp(log_noise), float(self.prior_scale)
        if prior_scale > 0:
            mean, std = kalman_update(systems, mean, prior_scale * std, noise)
        return mean, float(self.std_factor) * std, noise

    @torch.no_grad()
    def fit(self, systems: ScaledSystems) -> None:
        """Learn the extent of the family from a sample of scaled systems."""
        # 1. The matrices: mean and principal axes.
        A, b = systems.A.reshape(len(systems.A), -1), systems.b
        mean = A.mean(axis=0)
        sigma, axes = principal_axes(A - mean, len(self.A_axes))
        std = np.maximum(sigma, MIN_SPREAD * sigma[0]) / math.sqrt(len(A))
        self.A_mean.copy_(torch.from_numpy(mean.reshape(self.A_mean.shape)))
        self.A_axes[: len(axes)] = torch.from_numpy(axes)
        self.A_inverse_std[: len(axes)] = torch.from_numpy(1 / np.where(std > 0, std, 1.0))

        # 2. The data: mean and all principal axes.
        self.b_mean.copy_(torch.from_numpy(b.mean(axis=0)))
        values, vectors = np.linalg.eigh(np.cov(b, rowvar=False).reshape(b.shape[1], -1))
        floor = np.maximum(values, MIN_SPREAD**2 * values.mean())
        self.b_whitening.copy_(torch.from_numpy(vectors / np.sqrt(floor)))

        # 3. How far out the sample is.
        along, outside, far_b = self.distances(systems)
        self.max_A_distance.copy_(
            torch.tensor([DISTANCE_MARGIN * along.max(), max(MIN_OUTSIDE, DISTANCE_MARGIN * outside.max())])
        )
        self.max_b_distance.fill_(DISTANCE_MARGIN * float(np.quantile(far_b, DATA_QUANTILE)))

    def distances(self, systems: ScaledSystems) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return how far B scaled systems are from the middle of the family, (B,) each.

        Of the matrices: the root mean square of their coordinates along the family's principal axes, in standard
        deviations, and the share that lies outside of these axes, 1 for a matrix of zeros. Of the data: the root mean
        square along all of their principal axes.
        """
        mean, axes, inverse_std, b_mean, b_whitening = (
            getattr(self, name).double().numpy(force=True)
            for name in ("A_mean", "A_axes", "A_inverse_std", "b_mean", "b_whitening")
        )
        flat = systems.A.reshape(len(systems.A), -1)
        left = flat - mean.reshape(-1)
        coordinates = left @ axes.T
        size = np.linalg.norm(flat, axis=1)
        outside = np.linalg.norm(left - coordinates @ axes, axis=1) / np.where(size > 0, size, 1.0)
        along = np.sqrt(np.mean((coordinates * inverse_std) ** 2, axis=1))
        far_b = np.sqrt(np.mean(((systems.b - b_mean) @ b_whitening) ** 2, axis=1))
        return along, np.where(size > 0, outside, 1.0), far_b

    def system_in_distribution(self, systems: ScaledSystems) -> NDArray[np.bool_]:
        """Say which scaled systems (B,), matrix and data, are no further out than the family's sample was."""
        along, outside, far_b = self.distances(systems)
        max_along, max_outside = self.max_A_distance.tolist()
        return (along <= max_along) & (outside <= max_outside) & (far_b <= float(self.max_b_distance))

    def fits(self, network: Network, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits are in the range of the family's sample."""
        low, high = self.misfit.tolist()
        return (misfit >= low) & (misfit <= high)

    @torch.no_grad()
    def calibrate(self, z: FloatArray, misfit: FloatArray) -> None:
        """Scale the standard deviations and set the range of misfits by held-out systems of the family.

        Parameters
        ----------
        z : ndarray
            |x - mean| / std of every entry, with std as it is now.
        misfit : ndarray, shape (B,)
            ||A x - b|| / (noise ||b||).
        """
        self.std_factor.mul_(float(np.quantile(z, 0.9)) / GAUSS_90)
        tail = (1 - CONSISTENT_SHARE) / 2
        low, high = np.quantile(misfit, (tail, 1 - tail))
        self.misfit.copy_(torch.tensor([low / DISTANCE_MARGIN, DISTANCE_MARGIN * high]))

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Learn the extent of the family."""
        report = part("scaler")
        report(0, 1)
        systems = data.scaler.systems()
        self.fit(scale_systems(systems.A, systems.b))
        report(1, 1)

    def example_maker(self, network: Network) -> EstimateExamples:
        return EstimateExamples(self.config)

    def finish(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Choose the prior scale with the least mean relative error, then calibrate, on held-out systems.

        The scale of the standard deviations is the one with which 90 % intervals hold 90 % of the entries.
        """
        # The seed is that of the scaler's sample: no step is taken on these systems either.
        report, systems = part("calibration"), dataclasses.replace(data.calibration, seed=data.scaler.seed).systems()
        few = systems[: data.prior_scale_samples]
        errors, total = {}, len(PRIOR_SCALES) * len(few) + len(systems)
        for number, value in enumerate(PRIOR_SCALES):
            report(number * len(few), total)
            self.prior_scale.fill_(value)
            x = self.estimates(network, few.A, few.b).mean
            errors[value] = float(np.mean(relative_errors(x, few)))
        self.prior_scale.fill_(min(PRIOR_SCALES, key=lambda value: errors[value]))

        report(total - len(systems), total)
        found = self.estimates(network, systems.A, systems.b)
        z = np.abs(systems.x - found.mean) / found.std
        self.calibrate(z, misfit(systems.A, systems.b, found.mean, found.noise))
        report(total, total)
