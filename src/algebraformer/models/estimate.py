"""Noisy systems b = A x + e: what an estimate head reads of them, and what it says (ours).

The paper's systems are exact. Here b carries noise of a level nobody tells, A need not be square and may damp what is
wanted to nothing, so that the answer is an estimate: a mean and a standard deviation for each entry of x.

Departs from the paper: the head, the channels of the encoding column-tikhonov and `models.transformer.Feedback` are
ours. So is the scaling: entries of such matrices are constant over a family or nearly so, and z-scores would blow up
what is left; A and b are divided by their sizes alone.

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

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.models.config import TIKHONOV, ModelConfig
from algebraformer.models.encoding import MARGIN, signed_size

LAMBDAS = 10.0 ** np.linspace(-6, -1, TIKHONOV)
"""Tikhonov parameters of the channels, for A scaled so that ||A^T A||_F = 1."""
FLOOR = 1e-3
"""Least standard deviation, for systems scaled to A and b of size one."""
TYPICAL_NOISE = 1e-2
"""What a fresh network takes the relative noise level to be."""
SIDE = 0.1
"""Weight in the loss of the terms that teach standard deviation and noise level."""
AXES = 32
"""Principal axes of the family's matrices that are kept."""
OVERSAMPLES, POWER_ITERATIONS = 10, 7
"""Of the randomised SVD: with these, singular values of 1 % of the largest are right to many digits."""
NARROW = 1e-2
"""Principal axes along which a family spreads less than this share of the widest one (for data: of the mean) are
measured as if it did."""
SAME = 1e-3
"""A share of A this small may always lie outside the axes: instruments are not known better."""
FURTHEST = 0.999
"""Share of the sample whose data count as near; the few behind may be strange."""
FITTING = 0.995
"""Share of the sample whose misfit counts as fitting the noise level."""
TRUSTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""What the standard deviations may be multiplied by before the update by the data; 0 leaves the update out."""
TINY = 1e-12
"""Least variances in the update, where b has mean square one."""
GAUSS_90 = 1.6448536269514722
"""Half-width of the central 90 % interval of a normal distribution, in standard deviations."""


NOTHING = 1e-18
"""Entries of A below this share of the largest are read as zero: products of numbers near underflow take processors a
hundred times as long."""


class Scaled(NamedTuple):
    """Systems divided by their sizes."""

    A: FloatArray
    """A / s_A (B, m, n), where ||A^T A||_F = 1."""
    b: FloatArray
    """b / s_b (B, m), of mean square one."""
    size: FloatArray
    """s_b / s_A (B,): an answer y to the scaled system is size * y to the caller's."""


class Reading(NamedTuple):
    """What the network gets, float32."""

    tokens: Tensor
    """(B, n, token_width)."""
    A: Tensor
    """Scaled A (B, m, n)."""
    b: Tensor
    """Scaled b (B, m)."""


def scaled(A: FloatArray, b: FloatArray) -> Scaled:
    """Divide A (B, m, n) and b (B, m) by signed sizes, so that (c A, d b) gives (d / c) x for every c, d != 0."""
    flat = A.reshape(len(A), -1)
    largest = np.abs(flat).max(axis=1, initial=0.0)
    unit = A / np.where(largest > 0, largest, 1.0)[:, None, None]
    unit[np.abs(unit) < NOTHING] = 0
    gram = unit.mT @ unit
    s_A = largest * np.sqrt(np.sqrt(np.sum(gram**2, axis=(1, 2)))) * sign(flat)
    s_A = np.where(s_A != 0, s_A, 1.0)
    left = (largest / s_A)[:, None, None]
    s_b = signed_size(torch.from_numpy(b), torch.ones(b.shape[1], dtype=torch.float64)).numpy()
    return Scaled(unit * left, b / np.where(s_b != 0, s_b, 1.0)[:, None], s_b / s_A)


def sign(v: FloatArray) -> FloatArray:
    """Return the sign (B,) of the sum of each row of v, of its first large entry where the sum is rounding."""
    size = signed_size(torch.from_numpy(np.ascontiguousarray(v)), torch.ones(v.shape[1], dtype=torch.float64))
    return size.sign().numpy()


def tikhonov_channels(gram: FloatArray, back: FloatArray) -> FloatArray:
    """Return (A^T A + lambda I)^-1 A^T b for all `LAMBDAS`, shape (B, 5, n), from A^T A (B, n, n) and A^T b (B, n).

    One batched LU: with lambda from 1e-6 of the size of A^T A on, these systems are well enough conditioned, and it is
    five times faster than the eigenvalues of A^T A.
    """
    shifted = gram[:, None] + LAMBDAS[:, None, None] * np.eye(gram.shape[-1])
    right = np.broadcast_to(back[:, None, :, None], (*shifted.shape[:3], 1))
    return np.asarray(np.linalg.solve(shifted, right)[..., 0], dtype=np.float64)


def reading(config: ModelConfig, systems: Scaled) -> Reading:
    """Return what the network reads of scaled systems.

    Token i holds column i of A and b_i, or entry i of A^T b where m is not n. With the encoding column-tikhonov also
    entry i of five Tikhonov solutions, each shortened to a root mean square below one, and the logarithms of what
    they were shortened by: with noise in b and little regularisation they are large, and this shows the noise level.
    """
    A, b, _ = systems
    back = (A.mT @ b[:, :, None])[..., 0]
    parts = [math.sqrt(config.n) * A.mT, (b if config.n_equation == config.n else back)[:, :, None]]
    if config.encoding == "column-tikhonov":
        x = tikhonov_channels(A.mT @ A, back).mT  # (B, n, 5)
        power = 1 + np.mean(x**2, axis=1, keepdims=True)
        parts += [x / np.sqrt(power), np.broadcast_to(0.5 * np.log(power), x.shape)]
    single = (np.concatenate(parts, axis=2), A, b)
    return Reading(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in single))


def examples(config: ModelConfig, A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> tuple[Tensor, ...]:
    """Return what an estimate head learns from: `Reading`, the scaled x (B, n) and log noise (B,), float32."""
    systems = scaled(A, b)
    y = x / np.where(systems.size != 0, systems.size, 1.0)[:, None]
    log_noise = np.log(np.maximum(noise, np.finfo(np.float32).tiny))
    return (*reading(config, systems), torch.from_numpy(y).float(), torch.from_numpy(log_noise).float())


def updated(systems: Scaled, mean: FloatArray, std: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Update what the network says of scaled systems by their data, as Kalman's filter does [4]_.

    For x ~ N(mean, S), S = diag(std^2), mean and variance of x given b = A x + e with e ~ N(0, noise^2 I):

        x = mean + G (b - A mean),   S - G A S,   G = S A^T (A S A^T + noise^2 I)^-1.

    The network has seen b before, so this is no theorem. But a network is good to a few per cent everywhere, b may
    tell a thousandth where A damps little, and there the update acts.

    Parameters
    ----------
    systems : Scaled
    mean, std : ndarray, shape (B, n)
    noise : ndarray, shape (B,)

    Returns
    -------
    x, std : ndarray, shape (B, n)
    """
    A, b, _ = systems
    AS = A * (std**2)[:, None, :]  # (B, m, n)
    K = AS @ A.mT + np.maximum(noise**2, TINY)[:, None, None] * np.eye(b.shape[1])
    residual = b[:, :, None] - A @ mean[:, :, None]
    solved = np.linalg.solve(K, np.concatenate((residual, AS), axis=2))  # (B, m, 1 + n)
    x = mean + (AS.mT @ solved[:, :, :1])[:, :, 0]
    variance = std**2 - np.sum(AS * solved[:, :, 1:], axis=1)
    return x, np.sqrt(np.maximum(variance, TINY * std**2))


def principal_axes(X: FloatArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest singular values (k,) of X (B, d) and their right singular vectors (k, d), k at most `count`.

    By a randomised SVD with power iterations [5]_.
    """
    Q = np.random.default_rng(0).standard_normal((X.shape[1], count + OVERSAMPLES))

    for _ in range(POWER_ITERATIONS):
        Q = np.linalg.qr(X.T @ (X @ Q))[0]

    _, sigma, axes = np.linalg.svd(X @ Q, full_matrices=False)
    return sigma[:count], axes[:count] @ Q.T


class Answer(NamedTuple):
    """What the head says of scaled systems, float32."""

    mean: Tensor
    """(B, n)"""
    std: Tensor
    """(B, n), not calibrated."""
    log_noise: Tensor
    """Logarithm of the relative noise level (B,)."""


class EstimateHead(nn.Module):
    """Token i gives mean and standard deviation of x_i; the mean of all tokens gives the noise level.

    With the encoding column-tikhonov the mean is the sum of an output and of the five Tikhonov solutions, each weighed
    by an output of its own: which of them to trust depends on the noise level and on the place.

    The buffers say how far the family reaches and how the standard deviations are calibrated; they are float64 and
    travel in the checkpoint.
    """

    A_mean: Tensor
    A_axes: Tensor
    A_inverse_std: Tensor
    A_reach: Tensor
    b_mean: Tensor
    b_whitening: Tensor
    b_reach: Tensor
    trust: Tensor
    std_factor: Tensor
    misfit: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        m, n = config.n_equation, config.n
        self.channels = TIKHONOV if config.encoding == "column-tikhonov" else 0
        self.linear = nn.Linear(width, 2 + self.channels)
        self.noise = nn.Linear(width, 1)
        axes = min(AXES, m * n)
        shapes = {"A_mean": (m, n), "A_inverse_std": (axes,), "A_reach": (2,), "b_mean": (m,), "b_whitening": (m, m),
                  "b_reach": (), "misfit": (2,)}  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("A_axes", torch.zeros((axes, m * n), dtype=torch.float32))
        for name in ("trust", "std_factor"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    def forward(self, h: Tensor, tokens: Tensor) -> Answer:
        """Return the answer from what the body returned (B, n, width) and the raw tokens (B, n, token_width)."""
        mean, log_std, weights = self.linear(h).split((1, 1, self.channels), dim=2)
        if self.channels:
            mean = mean + (weights * tokens[:, :, -2 * TIKHONOV : -TIKHONOV]).sum(dim=2, keepdim=True)
        log_noise = self.noise(h.mean(dim=1))[:, 0] + math.log(TYPICAL_NOISE)
        return Answer(mean[:, :, 0], FLOOR + log_std[:, :, 0].exp(), log_noise)

    def loss(self, answer: Answer, y: Tensor, log_noise: Tensor) -> Tensor:
        """Return the mean relative error ||mean - y|| / ||y||, and a little of what teaches the other outputs.

        The standard deviation has the Gaussian negative log-likelihood of the error, with the mean held fixed: the
        two never pull at each other, which is what a warm-up on squared errors is otherwise needed for [3]_. The
        noise level has the squared error of its logarithm.
        """
        error = answer.mean - y
        relative = error.norm(dim=1) / y.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        z = error.detach() / answer.std
        likelihood = answer.std.log() + 0.5 * z.square()
        return relative.mean() + SIDE * (likelihood.mean() + (answer.log_noise - log_noise).square().mean())

    def estimate(self, systems: Scaled, answer: Answer) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x (B, n), calibrated std (B, n) and noise (B,) of scaled systems from the network's answer."""
        mean, std, log_noise = (part.double().numpy(force=True) for part in answer)
        noise, trust = np.exp(log_noise), float(self.trust)
        if trust > 0:
            mean, std = updated(systems, mean, trust * std, noise)
        return mean, float(self.std_factor) * std, noise

    @torch.no_grad()
    def fit(self, systems: Scaled) -> None:
        """Learn from a sample of scaled systems how far the family reaches."""
        A, b = systems.A.reshape(len(systems.A), -1), systems.b
        mean = A.mean(axis=0)
        sigma, axes = principal_axes(A - mean, len(self.A_axes))
        std = np.maximum(sigma, NARROW * sigma[0]) / math.sqrt(len(A))
        self.A_mean.copy_(torch.from_numpy(mean.reshape(self.A_mean.shape)))
        self.A_axes[: len(axes)] = torch.from_numpy(axes)
        self.A_inverse_std[: len(axes)] = torch.from_numpy(1 / np.where(std > 0, std, 1.0))
        self.b_mean.copy_(torch.from_numpy(b.mean(axis=0)))
        values, vectors = np.linalg.eigh(np.cov(b, rowvar=False).reshape(b.shape[1], -1))
        floor = np.maximum(values, NARROW**2 * values.mean())
        self.b_whitening.copy_(torch.from_numpy(vectors / np.sqrt(floor)))
        along, outside, far_b = self.distances(systems)
        self.A_reach.copy_(torch.tensor([MARGIN * along.max(), max(SAME, MARGIN * outside.max())]))
        self.b_reach.fill_(MARGIN * float(np.quantile(far_b, FURTHEST)))

    def distances(self, systems: Scaled) -> tuple[FloatArray, FloatArray, FloatArray]:
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

    def is_familiar(self, systems: Scaled) -> NDArray[np.bool_]:
        """Say which scaled systems (B,) are no further out than the family's sample was."""
        along, outside, far_b = self.distances(systems)
        reach, left = self.A_reach.tolist()
        return (along <= reach) & (outside <= left) & (far_b <= float(self.b_reach))

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which ratios ||A x - b|| / (noise ||b||) are as those of the family's sample."""
        low, high = self.misfit.tolist()
        return (misfit >= low) & (misfit <= high)

    @torch.no_grad()
    def calibrate(self, z: FloatArray, misfit: FloatArray) -> None:
        """Take from systems of the family that no step was taken on what their errors and misfits are.

        Parameters
        ----------
        z : ndarray
            |x - mean| / std of every entry, with std as it is now.
        misfit : ndarray, shape (B,)
            ||A x - b|| / (noise ||b||).
        """
        self.std_factor.mul_(float(np.quantile(z, 0.9)) / GAUSS_90)
        tail = (1 - FITTING) / 2
        low, high = np.quantile(misfit, (tail, 1 - tail))
        self.misfit.copy_(torch.tensor([low / MARGIN, MARGIN * high]))
