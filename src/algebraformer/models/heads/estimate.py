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
.. [4] N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness: probabilistic algorithms for
   constructing approximate matrix decompositions", SIAM Review 53 (2011).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.metrics import GAUSS_90, misfit, relative_errors
from algebraformer.models.config import TIKHONOV, EstimateConfig, ModelConfig
from algebraformer.models.heads.base import Network, ReadHead, register_head, torch_dtype
from algebraformer.models.heads.data import Batch, Family, Indices, TrainingData
from algebraformer.models.inference.estimate_reader import (
    AMPLITUDES,
    STD_FLOOR,
    TYPICAL_NOISE,
    EstimateReader,
    amplitudes,
    interpolated,
    network_input,
)
from algebraformer.models.inference.predictive_checks import Ranges, statistics
from algebraformer.models.scaling import DISTANCE_MARGIN, ScaledSystems, scale_systems
from algebraformer.progress import PartCallback, all_silent

AUXILIARY_WEIGHT = 0.1
"""Weight in the loss of the terms that teach standard deviation and noise level."""
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
CALIBRATION_ROUNDS = 10
"""Of the fit of the table by amplitude: each multiplies its values by what their surroundings ask for."""
MIN_ENTRIES = 200
"""Entries of the sample that a value of the table needs around it; with fewer it is that of its neighbour below."""
PRIOR_SCALES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""What the standard deviations may be multiplied by before the update by the data; 0 leaves the update out."""


def examples(config: ModelConfig, A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> Batch:
    """Return what an estimate head learns from: `network_input`, the scaled x (B, n) and log noise (B,), float32."""
    systems = scale_systems(A, b)
    y = x / np.where(systems.size != 0, systems.size, 1.0)[:, None]
    log_noise = np.log(np.maximum(noise, np.finfo(np.float32).tiny))
    parts = (*network_input(config, systems), y.astype(np.float32), log_noise.astype(np.float32))
    return tuple(torch.from_numpy(part) for part in parts)


@dataclasses.dataclass(frozen=True)
class EstimateExamples:
    """Examples are those of `examples`."""

    compact: ClassVar[bool] = False
    config: ModelConfig

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        systems = family.at(indices, seed)
        return examples(self.config, systems.A, systems.b, systems.x, systems.params["noise"])


def principal_axes(X: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest singular values (k,) of X (B, d) and their right singular vectors (k, d), k at most `count`.

    By a randomised SVD with power iterations [4]_.
    """
    Q = np.random.default_rng(0).standard_normal((X.shape[1], count + OVERSAMPLES))

    for _ in range(POWER_ITERATIONS):
        Q = np.linalg.qr(X.T @ (X @ Q))[0]

    _, sigma, axes = np.linalg.svd(X @ Q, full_matrices=False)
    return sigma[:count], axes[:count] @ Q.T


def amplitude_table(z: FloatArray, amplitude: FloatArray) -> FloatArray:
    """Return factors at `AMPLITUDES`, linear in between, with which 90 % intervals hold 90 % at every amplitude.

    Parameters
    ----------
    z : ndarray, shape (B, n)
        |x - mean| / std.
    amplitude : ndarray, shape (B, n)
        See `amplitudes`.
    """
    table, z, amplitude = np.ones(len(AMPLITUDES)), z.ravel(), amplitude.ravel()
    # Entries belong to the value that they are nearest to, those at the peak to the last one.
    edges = [(low + high) / 2 for low, high in itertools.pairwise(AMPLITUDES)]
    nearest = np.searchsorted(edges, amplitude)
    counts = np.bincount(nearest, minlength=len(table))

    for _ in range(CALIBRATION_ROUNDS):
        left = z / interpolated(amplitude, table)
        for k in range(len(table)):
            if counts[k] >= MIN_ENTRIES:
                table[k] *= max(float(np.quantile(left[nearest == k], 0.9)) / GAUSS_90, np.finfo(np.float32).eps)
            elif k:
                table[k] = table[k - 1]
    return table


class Output(NamedTuple):
    """Outputs of the network for scaled systems, float32."""

    mean: Tensor
    """(B, n)"""
    std: Tensor
    """(B, n), not calibrated."""
    log_noise: Tensor
    """Logarithm of the relative noise level (B,)."""


@register_head("estimate", EstimateConfig)
class EstimateHead(ReadHead):
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
    amplitude_factor: Tensor
    check_trend: Tensor
    check_limits: Tensor
    misfit: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.config = config
        self.channels = TIKHONOV if EstimateConfig.of(config).encoding == "column-tikhonov" else 0
        self.linear = nn.Linear(width, 2 + self.channels)
        self.noise = nn.Linear(width, 1)
        for name, (shape, dtype) in EstimateReader.buffers(config).items():
            value = 1.0 if name in ("prior_scale", "std_factor", "amplitude_factor") else 0.0
            self.register_buffer(name, torch.full(shape, value, dtype=torch_dtype(dtype)))
        self.set_ranges(Ranges.unlimited())

    @property
    def reader(self) -> EstimateReader:
        """The reader for the buffers as they are now."""
        return EstimateReader(self.config, self.arrays())

    def forward(self, h: Tensor, tokens: Tensor) -> Output:
        """Return the output from encoded tokens (B, n, width) and the raw ones (B, n, token_width)."""
        mean, log_std, weights = self.linear(h).split((1, 1, self.channels), dim=2)
        if self.channels:
            mean = mean + (weights * tokens[:, :, -2 * TIKHONOV : -TIKHONOV]).sum(dim=2, keepdim=True)
        log_noise = self.noise(h.mean(dim=1))[:, 0] + math.log(TYPICAL_NOISE)
        return Output(mean[:, :, 0], STD_FLOOR + log_std[:, :, 0].exp(), log_noise)

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self(network.encode(*inputs), inputs[0])

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        """Return the mean x (B, n) that the network gives, before the update by the data."""
        systems = scale_systems(A.numpy(force=True), b.numpy(force=True))
        inputs = (torch.from_numpy(part).to(network.device) for part in network_input(self.config, systems))
        return torch.from_numpy(systems.size).to(A.device)[:, None] * self.outputs(network, *inputs)[0]

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
        along, outside, far_b = self.reader.distances(systems)
        self.max_A_distance.copy_(
            torch.tensor([DISTANCE_MARGIN * along.max(), max(MIN_OUTSIDE, DISTANCE_MARGIN * outside.max())])
        )
        self.max_b_distance.fill_(DISTANCE_MARGIN * float(np.quantile(far_b, DATA_QUANTILE)))

    @torch.no_grad()
    def set_ranges(self, ranges: Ranges) -> None:
        """Keep the ranges of the predictive checks."""
        self.check_trend.copy_(torch.from_numpy(ranges.trend))
        self.check_limits.copy_(torch.from_numpy(ranges.limits))

    @torch.no_grad()
    def widen(self, systems: ScaledSystems) -> None:
        """Let the family reach as far as a held-out sample of scaled systems does.

        The sample that the axes come from is nearer to them than others are, the more so the smaller it is.
        """
        along, outside, far_b = self.reader.distances(systems)
        reached = torch.tensor([along.max(), outside.max()], dtype=torch.float64)
        self.max_A_distance.copy_(torch.maximum(self.max_A_distance, DISTANCE_MARGIN * reached))
        far = DISTANCE_MARGIN * float(np.quantile(far_b, DATA_QUANTILE))
        self.max_b_distance.fill_(max(float(self.max_b_distance), far))

    @torch.no_grad()
    def calibrate(self, z: FloatArray, amplitude: FloatArray, misfit: FloatArray) -> None:
        """Scale the standard deviations and set the range of misfits by held-out systems of the family.

        Parameters
        ----------
        z : ndarray, shape (B, n)
            |x - mean| / std of every entry, with std as it is now.
        amplitude : ndarray, shape (B, n)
            See `amplitudes`. The scale depends on it: errors at a peak are other ones than those on the floor.
        misfit : ndarray, shape (B,)
            ||A x - b|| / (noise ||b||).
        """
        factor = float(np.quantile(z, 0.9)) / GAUSS_90
        if factor > 0:
            self.std_factor.mul_(factor)
            self.amplitude_factor.copy_(torch.from_numpy(amplitude_table(z / factor, amplitude)))
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

        The scale of the standard deviations is the one with which 90 % intervals hold 90 % of the entries. The ranges
        of the predictive checks and the extent of the family are those of these systems.
        """
        report, systems = part("calibration"), data.calibration.systems()
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
        self.calibrate(z, amplitudes(found.mean), misfit(systems.A, systems.b, found.mean, found.noise))
        self.set_ranges(Ranges.fitted(statistics(systems.A, systems.b, found.mean, found.noise), found.noise))
        self.widen(scale_systems(systems.A, systems.b))
        report(total, total)
