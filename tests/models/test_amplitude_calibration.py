"""Standard deviations that are calibrated by amplitude: the table, its fit, and checkpoints that have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

import algebraformer as af
from algebraformer import checkpoint, evaluation
from algebraformer.checkpoint import MODEL
from algebraformer.metrics import GAUSS_90, estimate_scores
from algebraformer.models import legacy
from algebraformer.models.heads.estimate import MIN_ENTRIES, amplitude_table
from algebraformer.models.inference.estimate_reader import AMPLITUDES, EstimateReader, amplitudes, interpolated
from algebraformer.problems import Systems


def test_amplitudes_by_hand():
    mean = np.array([[1.0, -4.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(amplitudes(mean), [[0.25, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(amplitudes(torch.from_numpy(mean), torch), amplitudes(mean))


@pytest.mark.parametrize("xp", [np, torch])
def test_interpolation_is_numpys(xp):
    rng = np.random.default_rng(0)
    table, amplitude = rng.uniform(0.5, 2, len(AMPLITUDES)), rng.random((5, 7))
    given = torch.from_numpy(amplitude) if xp is torch else amplitude
    expected = np.interp(amplitude, AMPLITUDES, table)
    np.testing.assert_allclose(np.asarray(interpolated(given, table, xp)), expected, rtol=1e-12)
    assert (np.asarray(interpolated(given, np.ones(len(AMPLITUDES)), xp)) == 1).all()


@pytest.mark.parametrize("error", [lambda a: 0.2 + 3 * a, lambda a: 1 / (0.1 + a), lambda a: np.where(a > 0.9, 5, 1)])
def test_every_amplitude_is_covered(error):
    """Errors that grow or fall with the amplitude, as std does not know; other draws than those of the fit."""
    rng = np.random.default_rng(1)
    amplitude = rng.random((4000, 16)) ** 3
    amplitude[:, 0] = 1
    z = np.abs(error(amplitude) * rng.standard_normal(amplitude.shape))
    table = amplitude_table(z[:2000], amplitude[:2000])
    inside = z[2000:] <= GAUSS_90 * interpolated(amplitude[2000:], table)
    for low, high in ((0, 0.01), (0.01, 0.05), (0.05, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 0.999), (1, 2)):
        part = (amplitude[2000:] >= low) & (amplitude[2000:] < high)
        step = error(np.array([0.8]))[0] != error(np.array([0.95]))[0] == 5
        if not (step and low in (0.5, 0.8)):  # a jump is not linear
            assert np.mean(inside[part]) == pytest.approx(0.9, abs=0.03), (low, high)


def test_too_few_entries_have_their_neighbours_factor():
    z = np.abs(np.random.default_rng(2).standard_normal((MIN_ENTRIES, 10)))
    amplitude = np.full(z.shape, 0.01)
    amplitude[:, 1] = 0.4
    amplitude[0, 2] = 1.0
    table = amplitude_table(z, amplitude)
    assert table[-1] == table[-2] == table[AMPLITUDES.index(0.4)]
    assert (amplitude_table(np.zeros((3, 4)), np.zeros((3, 4))) == 1).all()


def test_scores_by_amplitude_by_hand():
    x, empty = np.array([[10.0, 0.5, 3.0], [1.0, 0.0, 0.0]]), np.empty((2, 0, 3))
    systems = Systems(empty, empty[:, :, 0], x, {"noise": np.ones(2)})
    mean = np.array([[9.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    scores = estimate_scores(mean, np.ones((2, 3)), np.ones(2), systems)
    assert scores["coverage"] == pytest.approx(5 / 6)
    assert scores["coverage, peak"] == 1
    assert scores["coverage, amplitude 0 to 0.1"] == 1
    assert scores["coverage, amplitude 0.4 to 0.8"] == 0
    assert "coverage, amplitude 0.8 to 1" not in scores


@pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")
def test_a_trained_network_covers_every_amplitude(estimate_run):
    solver = af.LearnedSolver.from_pretrained(estimate_run)
    systems = solver.info.problem_family().sample(3000, seed=123)
    table = solver.network.reader.amplitude_factor
    assert np.ptp(table) > 0.02
    scores = evaluation.evaluate_estimates(solver, systems)["estimate"]
    parts = {
        name: value for name, value in scores.items() if name.startswith(("coverage, amplitude", "coverage, peak"))
    }
    assert len(parts) == 5
    for name, value in parts.items():
        assert value == pytest.approx(0.9, abs=0.03), name


def test_checkpoints_without_the_table(estimate_run, tmp_path):
    """They are read with a table of ones; one that lacks something else is refused as before."""
    model, info = checkpoint.load(checkpoint.resolve(estimate_run))
    files = checkpoint.pack(model, info)
    tensors = load(files[MODEL])
    added = legacy.ADDED["estimate"]
    shapes = {name.removeprefix("head."): value.shape for name, value in added.items()}
    needed = EstimateReader.buffers(model.config)
    assert {name: needed[name][0] for name in shapes} == shapes
    old = {name: tensor for name, tensor in tensors.items() if name not in added}
    checkpoint.write_folder(tmp_path / "old", files | {MODEL: save(old)})
    for read in (checkpoint.load, checkpoint.load_network):
        network, _ = read(tmp_path / "old")
        reader = network.head.reader if read is checkpoint.load else network.reader
        assert (reader.amplitude_factor == 1).all()
    del old["head.misfit"]
    checkpoint.write_folder(tmp_path / "damaged", files | {MODEL: save(old)})
    with pytest.raises(checkpoint.CheckpointError, match="misfit"):
        checkpoint.load(tmp_path / "damaged")
