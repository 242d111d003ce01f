"""The head for measurements by an instrument: a density with bands, and nuisance parameters (ours).

What an instrument measures depends on where it measures, and nobody knows the level of the noise or the nuisance
parameters. So the network does not read the data. It reads linear fits to them, on the grid of the unknown, with the
prior covariance of the densities: these exist for any number of data, cost little, and use all that is linear in the
problem. What they cannot know, that densities are nowhere negative and are made of peaks, the network learns.

Departs from the paper: all of it is ours.

References
----------
.. [1] R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46 (1978).
.. [2] Y. Romano, E. Patterson, E. Candes, "Conformalized quantile regression", NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig
from algebraformer.models.heads.base import Network, ReadHead, register_head, torch_dtype
from algebraformer.models.heads.data import Batch, Family, Indices, Sample, TrainingData
from algebraformer.models.inference.inversion_reader import (
    NOISE_EDGES,
    PLACES,
    InversionReader,
    band_ends,
    band_width,
    filled,
    noise_bins,
    outputs_of,
    places,
    read,
)
from algebraformer.models.inversion import OUTPUTS, QUANTILES, InversionConfig
from algebraformer.numerics.whiteness import checks as residual_checks
from algebraformer.progress import PartCallback, all_silent

PINBALL_WEIGHT, NUISANCE_WEIGHT = 1.0, 0.02
"""Weights in the loss of the terms that teach quantiles and nuisance parameters."""
CONSISTENT_SHARE = 0.99
"""Share of the sample whose residuals count as noise."""
MINIMUM = 100
"""Measurements, or entries of x, of a noise level that a calibration needs."""
TYPICAL_SHARE = 0.9995
"""Share of the sample, for each number that is read, whose range counts as typical."""
MARGIN = 0.1
"""That range is widened by this much of itself at either end."""


def groups(sample: Sample) -> Iterator[Any]:
    """Yield the simulated measurements of a sample, those with the same abscissae together."""
    return grouped(sample.family, range(sample.count), sample.seed)


def grouped(family: Any, indices: Indices, seed: int) -> Iterator[Any]:
    """Yield simulated measurements at ascending indices, those with the same abscissae together."""
    for _, chosen in itertools.groupby(indices, family.group):
        yield family.simulate([int(i) for i in chosen], seed)


@dataclasses.dataclass(frozen=True)
class InversionExamples:
    """Examples are tokens (B, T, token_width), the middle fit and its deviation (B, n), truth (B, n), coordinates."""

    compact: ClassVar[bool] = True
    reader: InversionReader

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        parts = []
        for simulated in grouped(family, indices, seed):
            reading = self.reader.read(family.measurements(simulated))  # type: ignore[attr-defined]
            unit = reading.unit[:, None]
            truth = simulated.x if self.reader.head.density else simulated.x / unit
            coordinates = coordinates_of(family, simulated, reading.fits, reading.unit)
            coordinates = (coordinates - self.reader.nuisance_mean) / self.reader.nuisance_std
            parts.append((reading.tokens, reading.fits.x[1] / unit, reading.fits.x_std / unit, truth, coordinates))
        return tuple(torch.from_numpy(np.concatenate(part).astype(np.float32)) for part in zip(*parts, strict=True))


def coordinates_of(family: Any, simulated: Any, fits: Any, unit: FloatArray) -> FloatArray:
    """Return the coordinates (B, k + 1) of nuisance parameters and noise."""
    noise = np.log(simulated.deviation / fits.noise)
    return np.column_stack((family.coordinates(simulated.nuisance, fits, unit), noise))


@register_head("inversion", InversionConfig)
class InversionHead(ReadHead):
    """Each token gives mean and quantiles of its unknowns; all of them together give the nuisance parameters.

    The mean minimises the relative error, quantiles the pinball loss [1]_. After training the bands are moved outwards
    or inwards until they hold what they say on held-out measurements, for each level of noise and place [2]_.
    """

    carries_gradients: ClassVar[bool] = False

    prior: Tensor
    number_mean: Tensor
    number_std: Tensor
    margins: Tensor
    limits: Tensor
    checks: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.config, self.settings = config, InversionConfig.of(config)
        self.linear = nn.Linear(width, config.n // config.n_token * OUTPUTS)
        self.nuisance = nn.Linear(width, 2 * (self.settings.n_nuisance + 1))
        for name, (shape, dtype) in InversionReader.buffers(config).items():
            value = 1.0 if name.endswith("_std") else 0.0
            self.register_buffer(name, torch.full(shape, value, dtype=torch_dtype(dtype)))

    @property
    def reader(self) -> InversionReader:
        """The reader for the buffers as they are now."""
        return InversionReader(self.config, self.arrays())

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return raw outputs (B, n, 8) and coordinates with logarithms of their deviations (B, 2 k + 2)."""
        h = network.encode(*inputs)
        return self.linear(h).reshape(h.shape[0], self.config.n, OUTPUTS), self.nuisance(h.mean(dim=1))

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        """Raise `ConfigurationError`: A and b do not say where was measured."""
        raise ConfigurationError(f"this model {InversionConfig.unsupported_reason}")

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return relative error, pinball loss over the root mean square of x, and likelihood of nuisance parameters."""
        tokens, base, spread, x, coordinates = batch
        raw, nuisance = self.outputs(network, tokens)
        mean, quantiles = outputs_of(raw, base, spread, self.settings.density, torch)

        size = x.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        relative = (mean - x).norm(dim=1) / size

        over, levels = x[:, :, None] - quantiles, quantiles.new_tensor(QUANTILES)
        pinball = torch.maximum(levels * over, (levels - 1) * over).mean(dim=(1, 2))
        pinball = pinball / (size / self.config.n**0.5)

        value, log_std = nuisance.chunk(2, dim=1)
        z = (coordinates - value) * torch.exp(-log_std)
        likelihood = (log_std + 0.5 * z.square()).mean(dim=1)
        return (relative + PINBALL_WEIGHT * pinball + NUISANCE_WEIGHT * likelihood).mean()

    @torch.no_grad()
    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Learn the prior covariance of x, and the typical sizes of what is read and of the nuisance parameters."""
        report = part("scaler")
        simulated = list(groups(data.scaler))
        report(0, len(simulated))

        # 1. The prior.
        X = np.concatenate([group.x for group in simulated])
        values, vectors = np.linalg.eigh(X.T @ X / len(X))
        largest = slice(None, -self.settings.prior_rank - 1, -1)
        self.prior.copy_(torch.from_numpy(vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0.0))))

        # 2. What is read.
        family, L = data.scaler.family, self.prior.cpu().numpy()
        channels, numbers, coordinates = [], [], []
        for count, group in enumerate(simulated, start=1):
            own, shared, fits, unit = read(family.measurements(group), L)
            channels.append(own)
            numbers.append(shared)
            coordinates.append(coordinates_of(family, group, fits, unit))
            report(count, len(simulated))
        for name, part_values in (
            ("channel", np.concatenate(channels).reshape(-1, 4)),
            ("number", np.concatenate(numbers)),
            ("nuisance", np.concatenate(coordinates)),
        ):
            self.get_buffer(f"{name}_mean").copy_(torch.from_numpy(part_values.mean(axis=0)))
            std = part_values.std(axis=0)
            self.get_buffer(f"{name}_std").copy_(torch.from_numpy(np.where(std > 1e-6, std, 1.0)))
        standardized = (np.concatenate(numbers) - self.number_mean.numpy(force=True)) / self.number_std.numpy(
            force=True
        )
        tail = (1 - TYPICAL_SHARE) / 2
        low, high = np.quantile(standardized, (tail, 1 - tail), axis=0)
        room = MARGIN * (high - low) + 1e-6
        self.limits.copy_(torch.from_numpy(np.clip(np.stack((low - room, high + room), axis=1), -8, 8)))

    def example_maker(self, network: Network) -> InversionExamples:
        return InversionExamples(self.reader)

    @torch.no_grad()
    def finish(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Calibrate the bands, the deviations of the nuisance parameters and the range of misfits on held-out data."""
        report = part("calibration")
        family, forward = data.calibration.family, self.forward_pass(network)
        self.margins.zero_()
        reader = self.reader
        rows, residuals, done = [], [], 0
        for group in groups(data.calibration):
            reading = reader.read(family.measurements(group))
            found = reader.answer(forward, reading)
            unit = np.ones(len(group.x)) if self.settings.density else reading.unit
            log_noise = np.log(reading.fits.noise / reading.unit)
            x, quantiles = found.x / unit[:, None], found.quantiles / unit[:, None, None]
            rows.append((x, quantiles, group.x / unit[:, None], log_noise))
            fitted = family.fitted(group, found.x, reading.fits)
            residuals.append(residual_checks(family.residual(group, fitted, reading.fits, found.noise)))
            done += len(group.x)
            report(done, data.calibration.count)
        mean, quantiles, truth, log_noise = (np.concatenate(column) for column in zip(*rows, strict=True))
        self.margins.copy_(torch.from_numpy(margins(mean, quantiles, truth, log_noise)))
        self.checks.copy_(torch.from_numpy(check_limits(np.concatenate(residuals), log_noise)))


def margins(mean: FloatArray, quantiles: FloatArray, truth: FloatArray, log_noise: FloatArray) -> FloatArray:
    """Return by how much of its width every band must grow at either end to hold what it says.

    Parameters
    ----------
    mean, truth : ndarray, shape (B, n)
    quantiles : ndarray, shape (B, n, 7)
    log_noise : ndarray, shape (B,)

    Returns
    -------
    ndarray, shape (levels of noise, places, 3, 2)
    """
    bins, place, here = noise_bins(log_noise), places(mean.shape[1]), filled(mean)
    found = np.zeros((len(NOISE_EDGES) + 1, PLACES, 3, 2))
    for band in range(3):
        low, high = band_ends(band)
        width = band_width(mean, quantiles, band)
        below = (quantiles[:, :, low] - truth) / width
        above = (truth - quantiles[:, :, high]) / width
        share = QUANTILES[high] - QUANTILES[low]
        for level, where in itertools.product(range(len(found)), range(PLACES)):
            chosen = (bins == level)[:, None] & (place == where) & here
            if np.count_nonzero(chosen) < MINIMUM:
                continue
            found[level, where, band] = np.quantile(np.maximum(below, above)[chosen], share)
    return found


def check_limits(values: FloatArray, log_noise: FloatArray) -> FloatArray:
    """Return the range of every check for each level of noise (levels, 4, 2)."""
    bins, tail = noise_bins(log_noise), (1 - CONSISTENT_SHARE) / 2 / values.shape[1]
    everywhere = np.array([np.quantile(column, (tail, 1 - tail)) for column in values.T])
    found = np.tile(everywhere, (len(NOISE_EDGES) + 1, 1, 1))
    for level in range(len(found)):
        if np.count_nonzero(bins == level) >= MINIMUM:
            found[level] = np.array([np.quantile(column, (tail, 1 - tail)) for column in values[bins == level].T])
    return found
