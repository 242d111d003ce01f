"""Adaptation to unlabelled measurements: weights of signals against a mixture that is known, and the whole of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import algebraformer as af
from algebraformer.errors import ConfigurationError
from algebraformer.instruments.adaptation import Weighted, estimated_prior, normalized, weigh, with_signals
from algebraformer.problems import base
from algebraformer.training import RunOptions


class Decay(af.instruments.Instrument):
    """Sums of decays."""

    def draw_abscissa(self, rng: np.random.Generator, points: int | None) -> np.ndarray:
        return np.linspace(0, 3, points or rng.integers(30, 60))

    def kernel(self, abscissa: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return np.exp(-10 * abscissa[:, None] * grid) / self.n


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
        recipe = af.recipe_for(Decay(n=20))
        few = dict.fromkeys(("scaler_samples", "calibration_samples", "validation_systems", "test_systems"), 64)
        recipe = dataclasses.replace(recipe, samples=256, steps=4, batch_size=64, **few)
        path = tmp_path_factory.mktemp("runs") / "decay"
        af.train(recipe, path, RunOptions(progress=False, workers=0))
        yield path


def bumps(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bumps at these places (B, 50), blurred as a network's answers are, with mean 1."""
    u = np.linspace(0, 1, 50)
    x = np.exp(-(((u - places[:, None]) / 0.1) ** 2) / 2) + 0.02 * rng.random((len(places), 50))
    return x / x.mean(axis=1, keepdims=True)


def test_weights_of_a_mixture_that_is_known() -> None:
    """Signals at four places, measured with shares 0.6, 0.4, 0 and 0."""
    rng = np.random.default_rng(0)
    places = np.array([0.2, 0.4, 0.6, 0.8])
    kind = rng.integers(4, size=800)
    measured = np.repeat([0, 1], [120, 80])
    simulated, answers = bumps(places[kind], rng), bumps(places[measured], rng)
    weights = weigh(answers, simulated, np.zeros(200), np.zeros(800))
    assert weights.sum() == pytest.approx(1)
    shares = [weights[kind == k].sum() for k in range(4)]
    np.testing.assert_allclose(shares, [0.6, 0.4, 0, 0], atol=0.01)
    assert 100 < Weighted(simulated, weights).effective < 500


def test_signals_are_compared_at_the_same_noise() -> None:
    """Of two answers that look alike, one to clean and one to noisy data, the one with the measured noise counts."""
    rng = np.random.default_rng(1)
    simulated, answers = bumps(np.full(400, 0.5), rng), bumps(np.full(100, 0.5), rng)
    noise = np.repeat([-6.0, -2.0], 200)
    weights = weigh(answers, simulated, np.full(100, -2.0), noise)
    assert weights[noise == -2.0].sum() > 0.99


def test_an_instrument_with_other_signals() -> None:
    signals = np.array([np.linspace(0, 2, 20), np.linspace(2, 0, 20)])
    here = with_signals(Decay(n=20), np.linspace(0, 2, 40), Weighted(signals, np.array([1.0, 3.0])))
    drawn = [here.simulate(range(i, i + 16), 0) for i in range(0, 800, 16)]
    assert {len(s.abscissa) for s in drawn} == {40}
    x = np.concatenate([s.x for s in drawn])
    assert {tuple(row) for row in x} == {tuple(row) for row in signals}
    assert np.mean(x[:, 0] > 1) == pytest.approx(0.75, abs=0.06)  # four standard deviations of 800 draws


def test_adapt(folder: Path, tmp_path: Path) -> None:
    """It writes a network for the same instrument, with another answer, and finds where the signals are."""
    model = af.instruments.load(folder)
    peak = np.exp(-(((np.arange(20) - 4) / 1.5) ** 2) / 2)
    one = Weighted(normalized(peak[None]), np.ones(1))
    mine = with_signals(Decay(n=20, noise=(3e-3, 3e-3)), np.linspace(0, 3, 50), one).simulate(range(64), 3)
    found = model(mine.abscissa, mine.data)
    prior = af.instruments.adapt(folder, found, tmp_path / "new", steps=3, count=512)
    assert prior.signals.shape == (512, 20)
    tensors = model(mine.abscissa, torch.from_numpy(mine.data))
    np.testing.assert_array_equal(estimated_prior(model, tensors, 512).weights, prior.weights)
    grid = np.arange(20)
    before = prior.signals.mean(axis=0) @ grid / prior.signals.mean(axis=0).sum()
    after = prior.weights @ prior.signals @ grid / (prior.weights @ prior.signals).sum()
    assert abs(after - 4) < 0.75 * abs(before - 4)  # by a network of four steps
    adapted = af.instruments.load(tmp_path / "new")
    assert (adapted.info.name, adapted.instrument) == ("decay-adapted", Decay(n=20))
    again = adapted(mine.abscissa, mine.data)
    assert np.isfinite(again.x).all()
    assert not np.array_equal(again.x, found.x)


def test_too_few_measurements(folder: Path, tmp_path: Path) -> None:
    model = af.instruments.load(folder)
    s = model.instrument.simulate(range(8), 1)
    with pytest.raises(ConfigurationError, match="at least 32 measurements, received 8"):
        af.instruments.adapt(folder, model(s.abscissa, s.data), tmp_path / "new")
    with pytest.raises(ConfigurationError, match="received 1"):
        af.instruments.adapt(folder, model(s.abscissa, s.data[0]), tmp_path / "new")
    assert not (tmp_path / "new").exists()
