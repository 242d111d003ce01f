"""Inversion heads: what they promise whatever the weights, in NumPy and in torch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from algebraformer import checkpoint, instruments, problems
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer, ModelConfig, NumpyNetwork
from algebraformer.models.heads import Sample, TrainingData
from algebraformer.models.heads.inversion import check_limits, groups, margins
from algebraformer.models.inference import inversion_reader
from algebraformer.models.inversion import QUANTILES
from algebraformer.training import RECIPES, RunOptions, train
from algebraformer.training.inversion import inversion_network

BODIES = {"transformer": {"n_layer": 2, "n_head": 2, "n_embd": 16}, "mlp": {"n_layer": 2, "n_embd": 16, "n_head": 8}}
KINDS = list(itertools.product(("deer", "drt"), BODIES))
every_kind = pytest.mark.parametrize(("name", "body"), KINDS)


def family(name: str) -> problems.Instrument:
    """Return a small instrument."""
    found = problems.get(name, n=20)
    assert isinstance(found, problems.Instrument)
    return found


@functools.cache
def pair(name: str, body: str) -> tuple[NumpyNetwork, Algebraformer]:
    """Return the same network with random weights in NumPy and in torch."""
    config = inversion_network(family(name))
    config = ModelConfig(n=20, head=config.head, architecture=body, **BODIES[body])
    torch.manual_seed(0)
    model = Algebraformer(config)
    sample = Sample(family(name), 320, seed=1)
    data = TrainingData(sample, sample, sample, 64, few=True, trained_on=64, readout=tuple)
    model.head.begin(model, data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    model.head.finish(model, data)
    return NumpyNetwork(config, checkpoint.arrays_of(model)), model


def answers(name: str, body: str, count: int = 12) -> list[inversion_reader.Inversions]:
    """Return the answers to some simulated measurements, of groups that differ in their abscissae."""
    network, _ = pair(name, body)
    return [
        network.reader.answer(network.forward, network.reader.read(family(name).measurements(group)))
        for group in groups(Sample(family(name), count * 16, seed=3))
    ]


@every_kind
def test_numpy_is_torch(name: str, body: str) -> None:
    network, model = pair(name, body)
    for group in groups(Sample(family(name), 64, seed=2)):
        reading = network.reader.read(family(name).measurements(group))
        with torch.no_grad():
            exact = [part.numpy() for part in model.head.outputs(model, torch.from_numpy(reading.tokens))]
        for found, expected in zip(network.forward(reading.tokens), exact, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@every_kind
def test_answers_are_positive_and_bands_nest(name: str, body: str) -> None:
    for found in answers(name, body):
        assert (found.x >= 0).all()
        assert np.isfinite(found.x).all()
        assert (found.quantiles >= 0).all()
        assert (np.diff(found.quantiles, axis=2) >= 0).all()
        assert (found.noise > 0).all()
        assert (found.coordinates_std > 0).all()
        if family(name).is_density:
            np.testing.assert_allclose(found.x.mean(axis=1), 1)


@every_kind
def test_a_change_of_unit_changes_the_unit_alone(name: str, body: str) -> None:
    network, _ = pair(name, body)
    for factor in (1e-6, 1e9):
        group = next(groups(Sample(family(name), 16, seed=4)))
        other = dataclasses.replace(group, data=factor * group.data)
        one, two = (
            network.reader.answer(network.forward, network.reader.read(family(name).measurements(g)))
            for g in (group, other)
        )
        size = 1.0 if family(name).is_density else factor
        np.testing.assert_allclose(two.x, size * one.x, rtol=1e-3, atol=1e-4 * size * one.x.max())
        np.testing.assert_allclose(two.noise, factor * one.noise, rtol=1e-3)


@every_kind
def test_a_batch_is_its_rows(name: str, body: str) -> None:
    network, _ = pair(name, body)
    group = next(groups(Sample(family(name), 16, seed=5)))
    whole = network.reader.answer(network.forward, network.reader.read(family(name).measurements(group)))
    for i in (0, 7):
        single = dataclasses.replace(group, data=group.data[i : i + 1])
        one = network.reader.answer(network.forward, network.reader.read(family(name).measurements(single)))
        np.testing.assert_allclose(one.x[0], whole.x[i], rtol=1e-3, atol=1e-4 * whole.x[i].max())


def test_margins_make_bands_hold_what_they_say() -> None:
    """Bands that are three times too narrow where there is much noise, and right elsewhere, hold 50, 90 and 95 %."""
    rng = np.random.default_rng(0)
    B, n = 2000, 20
    log_noise = np.where(rng.random(B) < 0.5, np.log(0.05), np.log(0.5))
    std = np.where(log_noise > np.log(0.1), 0.3, 0.1)[:, None]
    truth = 5 + std * rng.standard_normal((B, n))
    quantiles = 5 + 0.1 * np.broadcast_to(inversion_reader.SCORES, (B, n, len(QUANTILES)))
    mean = np.full((B, n), 5.0)
    moved = margins(mean, quantiles, truth, log_noise)
    for band, share in enumerate((0.5, 0.9, 0.95)):
        low, high = inversion_reader.band_ends(band)
        width = inversion_reader.band_width(mean, quantiles, band)
        room = moved[inversion_reader.noise_bins(log_noise)][:, inversion_reader.places(n), band]
        inside = (truth >= quantiles[:, :, low] - room[:, :, 0] * width) & (
            truth <= quantiles[:, :, high] + room[:, :, 1] * width
        )
        for level in np.unique(log_noise):
            assert inside[log_noise == level].mean() == pytest.approx(share, abs=0.01)


def test_limits_hold_all_but_one_in_a_hundred() -> None:
    rng = np.random.default_rng(0)
    values, log_noise = rng.standard_normal((40_000, 4)), np.full(40_000, np.log(0.05))
    limits = check_limits(values, log_noise)[inversion_reader.noise_bins(log_noise[:1])[0]]
    inside = np.all((values >= limits[:, 0]) & (values <= limits[:, 1]), axis=1)
    assert inside.mean() == pytest.approx(0.99, abs=0.002)


@pytest.mark.parametrize("name", ["deer", "drt"])
def test_recipes_know_their_instruments(name: str) -> None:
    assert RECIPES[name].model.head == inversion_network(problems.get(name)).head


def test_heads_and_instruments_go_together() -> None:
    recipe = RECIPES["deer"]
    with pytest.raises(ConfigurationError, match="instrument"):
        dataclasses.replace(recipe, family="deblur")
    with pytest.raises(ConfigurationError, match="instrument"):
        dataclasses.replace(RECIPES["deblur-64"], family="deer")


def test_it_trains_resumes_and_loads(tmp_path: Path) -> None:
    """A few steps beat the linear fit that they start from, and the model is what was trained."""
    model = dataclasses.replace(inversion_network(family("deer")), n_layer=1, n_embd=32)
    recipe = dataclasses.replace(
        RECIPES["deer"], model=model, steps=60, samples=640, scaler_samples=320, calibration_samples=640,
        test_systems=64, validation_systems=16,
    )  # fmt: skip
    result = train(recipe, tmp_path / "run", RunOptions(progress=False, workers=0))
    assert result.finished
    assert abs(result.scores["coverage_90"] - 0.9) < 0.05

    network = instruments.load(tmp_path / "run")
    group = next(groups(Sample(family("deer"), 16, seed=9)))
    found = network(group.abscissa, group.data)
    fits = network.reader.read(family("deer").measurements(group)).fits
    linear = fits.x[1] / fits.x[1].mean(axis=1, keepdims=True)
    x = found.x * (found.grid[-1] - found.grid[0])
    error, before = (np.linalg.norm(y - group.x, axis=1) / np.linalg.norm(group.x, axis=1) for y in (x, linear))
    assert np.median(error) < np.median(before)


def test_it_solves_no_systems(tmp_path: Path) -> None:
    network, model = pair("deer", "transformer")
    A, b = np.eye(20)[None], np.ones((1, 20, 1))
    for one in (network, model):
        with pytest.raises(ConfigurationError):
            one.predict(A, b)
