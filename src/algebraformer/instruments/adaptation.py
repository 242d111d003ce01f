"""Adapting a network to one's own measurements, without ground truth: empirical Bayes.

A network answers by the prior that it was trained with. Where one's own signals are only a part of it, many
measurements of one set-up tell which part, although none of them tells its own x: their answers, taken together, say
which signals are frequent. The prior is estimated by weights of simulated signals [1]_; the network then learns from
signals with these weights. Weights follow by expectation and maximisation [2]_ from kernels on the network's own
answers, since a likelihood of hundreds of data has no neighbours.

References
----------
.. [1] H. Robbins, "An empirical Bayes approach to statistics", Proceedings of the Third Berkeley Symposium 1 (1956).
.. [2] N. Laird, "Nonparametric maximum likelihood estimation of a mixing distribution", JASA 73 (1978).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from algebraformer.arrays import host
from algebraformer.checkpoint import check_name, load, resolve, save
from algebraformer.errors import ConfigurationError
from algebraformer.instruments.inversion import Inversion, Model
from algebraformer.linalg import FloatArray
from algebraformer.problems.instruments.base import GROUP, Instrument
from algebraformer.progress import PartCallback, all_silent

MIN_MEASUREMENTS = 32
"""With fewer measurements than this a prior cannot be estimated."""
NEIGHBOURS = 32
"""The kernel of a measurement is as wide as the distance of this neighbour among the simulated answers."""
ROUNDS = 2
"""Steps of expectation and maximisation. Thirty leave few signals with weights, and training on them makes answers
worse than they were (LOG.md)."""
NOISE_WIDTH = 0.5
"""Width of the kernel in the logarithm of the noise: an answer to noisier data is smoother for the same signal."""
BATCH_SIZE = 128
RATE = 0.3
"""Learning rates as a share of those of the training."""


@dataclasses.dataclass(frozen=True)
class Weighted:
    """Simulated signals (J, n) and their weights (J,) in the prior of the measurements."""

    signals: FloatArray
    weights: FloatArray

    @property
    def effective(self) -> float:
        """Number of signals that would weigh as much if all weighed the same: (sum w)^2 / sum w^2."""
        return float(self.weights.sum() ** 2 / np.sum(self.weights**2))


def weigh(answers: FloatArray, simulated: FloatArray, noise: FloatArray, simulated_noise: FloatArray) -> FloatArray:
    """Return the weights (J,) of simulated signals in the prior that measurements were drawn from.

    Parameters
    ----------
    answers, simulated : ndarray, shape (B, n) and (J, n)
        The network's x, with mean 1, for measurements and for simulated ones.
    noise, simulated_noise : ndarray, shape (B,) and (J,)
        Logarithms of the noise over the size of x.
    """
    square = np.sum(answers**2, axis=1)[:, None] + np.sum(simulated**2, axis=1) - 2 * answers @ simulated.T
    square = np.maximum(square, 0)
    apart = ((noise[:, None] - simulated_noise) / NOISE_WIDTH) ** 2

    # 1. Kernels as wide as it takes to have some neighbours.
    nearest = np.partition(square * np.exp(np.minimum(apart, 50)), NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
    exponent = square / np.maximum(nearest, np.finfo(float).tiny)[:, None] + apart
    kernel = np.exp(-0.5 * (exponent - exponent.min(axis=1, keepdims=True)))

    # 2. The likeliest weights, from equal ones.
    weights = np.full(len(simulated), 1 / len(simulated))
    for _ in range(ROUNDS):
        share = kernel * weights
        weights = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


def with_signals(instrument: Instrument, abscissa: FloatArray, prior: Weighted | None = None) -> Instrument:
    """Return an instrument that always measures at these abscissae, signals of a prior if there is one."""
    kind: Any = type(instrument)
    ends = None if prior is None else np.cumsum(prior.weights) / prior.weights.sum()

    def draw_signal(self: Instrument, rng: np.random.Generator, grid: FloatArray) -> FloatArray:
        if prior is None or ends is None:
            drawn: FloatArray = kind.draw_signal(self, rng, grid)
            return drawn
        return prior.signals[min(int(np.searchsorted(ends, rng.random())), len(ends) - 1)]

    body = {"draw_abscissa": lambda *_: abscissa, "draw_signal": draw_signal, "__module__": __name__}
    settings = {field.name: getattr(instrument, field.name) for field in dataclasses.fields(instrument)}
    own: Instrument = type(f"{kind.__name__}Here", (kind,), body)(**settings)
    return own


def estimated_prior(model: Model, found: Inversion, count: int = 8192, seed: int = 0) -> Weighted:
    """Estimate the prior of the signals behind measurements.

    Parameters
    ----------
    model : Model
    found : Inversion
        Of B measurements with the same abscissae, by that model or one for the same instrument.
    count : int
        Simulated signals that are given weights.
    seed : int

    Returns
    -------
    Weighted
    """
    if found.x.ndim != 2 or len(found.x) < MIN_MEASUREMENTS:
        received = len(found.x) if found.x.ndim == 2 else 1
        raise ConfigurationError(f"a prior needs at least {MIN_MEASUREMENTS} measurements, received {received}")
    here = with_signals(model.instrument, found.recorded.abscissa)
    signals, answers, noise = [], [], []
    for start in range(0, count, GROUP):
        simulated = here.simulate(range(start, start + GROUP), seed)
        reading = model.reader.read(here.measurements(simulated))
        signals.append(simulated.x)
        answers.append(model.reader.answer(model.network.forward, reading).x)
        noise.append(np.log(reading.fits.noise / reading.unit))
    own = model.reader.read(model.instrument.measurements(found.recorded)).fits
    size = np.maximum(own.x[1].mean(axis=1), np.finfo(float).tiny)
    weights = weigh(
        normalized(host(found.x)), normalized(np.concatenate(answers)), np.log(own.noise / size), np.concatenate(noise)
    )
    return Weighted(np.concatenate(signals), weights)


def normalized(x: FloatArray) -> FloatArray:
    """Return x (B, n) over its mean."""
    return x / np.maximum(x.mean(axis=1, keepdims=True), np.finfo(float).tiny)


def adapt(
    start: str | Path,
    found: Inversion,
    output: str | Path,
    *,
    steps: int = 300,
    count: int = 8192,
    seed: int = 0,
    part: PartCallback = all_silent,
) -> Weighted:
    """Train a network further for the measurements of one set-up, with the prior that they have in common.

    Nothing but the measurements is needed, no truth. It helps where one's own signals are a part of what the network
    was trained on; signals that it has never seen it cannot find.

    Parameters
    ----------
    start : str or path
        A shipped network or the folder of a training.
    found : Inversion
        What the network says about B measurements with the same abscissae, B at least 32, better some hundreds.
    output : path
        Folder for the new network: see `instruments.load`. It is for measurements at these abscissae.
    steps : int
        Optimiser steps.
    count : int
        Simulated signals that are given weights, and examples that are trained on.
    seed : int
    part : PartCallback
        Reports the progress.

    Returns
    -------
    Weighted
        The prior: few effective signals for many measurements mean that it rests on little.

    Raises
    ------
    ConfigurationError
        There are too few measurements.
    """
    import torch

    from algebraformer.models.heads.data import Sample, TrainingData
    from algebraformer.models.heads.inversion import InversionExamples, InversionHead
    from algebraformer.problems.base import CALIBRATION_SEED
    from algebraformer.training.optim import make_optimizers, schedule, set_learning_rates
    from algebraformer.training.recipes import INSTRUMENTS

    folder = resolve(start)
    network, info = load(folder)
    head = network.head
    assert isinstance(head, InversionHead)
    prior = estimated_prior(found.model, found, count, seed)
    here = with_signals(found.model.instrument, found.recorded.abscissa, prior)

    # 1. Examples, and steps as in training.
    maker = InversionExamples(head.reader)
    parts = [maker(here, range(i, i + GROUP), seed + 1) for i in range(0, count, GROUP)]
    examples = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
    own = {name: RATE * info.recipe.get(name, getattr(INSTRUMENTS["deer"], name)) for name in ("lr", "muon_lr")}
    recipe = dataclasses.replace(INSTRUMENTS["deer"], steps=steps, warmup=0.1, **own)
    optimizers, rng, report = make_optimizers(network, recipe), np.random.default_rng(seed), part("adaptation")
    network.train()
    for step in range(steps):
        set_learning_rates(optimizers, schedule(step, recipe))
        chosen = torch.from_numpy(rng.integers(0, count, BATCH_SIZE))
        network.loss(*(tensor[chosen] for tensor in examples)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        report(step + 1, steps)

    # 2. Bands that hold for this prior.
    network.eval()
    sample = Sample(here, 4096, CALIBRATION_SEED)
    head.finish(network, TrainingData(sample, sample, sample, 2, few=False, trained_on=0, readout=tuple), part)
    name = check_name(f"{info.name}-adapted"[:64])
    save(Path(output) / "model", network, dataclasses.replace(info, name=name, scores={}))
    return prior
