"""Checkpoints stored as 16-bit integers: half the size, the same answers on the family."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from algebraformer.checkpoint import CONFIG, MODEL, SCALE, load
from algebraformer.metrics import score
from algebraformer.problems.base import TEST_SEED
from studies.harness import compact
from studies.harness.compact import Compact, nearest, rounded


def restored(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the numbers that integers and scales stand for."""
    Q, scale = pair
    assert (Q.dtype, scale.dtype) == (torch.int16, torch.float32)
    return Q * scale.view(-1, *[1] * (Q.ndim - 1))


def test_nearest_is_within_half_a_step_of_each_row() -> None:
    T = torch.tensor(np.random.default_rng(0).standard_normal((5, 4, 6)), dtype=torch.float32)
    T[1] *= 1e-6
    T[2] = 0
    step = T.abs().flatten(1).amax(1) / 32767
    error = (restored(nearest(T)) - T).abs().flatten(1).amax(1)
    assert (error <= 0.51 * step).all()
    assert torch.equal(restored(nearest(T))[2], T[2])


def test_outputs_on_correlated_inputs_are_kept_better_than_by_rounding_to_nearest() -> None:
    """Inputs of 64 entries that 6 numbers decide, as those of a family with few parameters."""
    rng = np.random.default_rng(1)
    W = torch.tensor(rng.standard_normal((8, 64)), dtype=torch.float32)
    h = torch.tensor(rng.standard_normal((500, 6)) @ rng.standard_normal((6, 64)))
    errors = [
        ((restored(pair) - W).double() @ h.T).square().mean().sqrt().item()
        for pair in (rounded(W, h.T @ h), nearest(W))
    ]
    assert errors[0] < errors[1] / 5
    assert (restored(rounded(W, h.T @ h)) - W).abs().max() < 100 * W.abs().max() / 32767


def test_layers_without_inputs_that_differ() -> None:
    """Second moments of rank one."""
    W = torch.tensor(np.random.default_rng(2).standard_normal((3, 8)), dtype=torch.float32)
    ones = torch.ones(8, 8, dtype=torch.float64)
    assert torch.isfinite(restored(rounded(W, ones))).all()


@pytest.mark.parametrize("fixture", ["operator_run", "tiny_run", "estimate_run"])
def test_a_compact_checkpoint_scores_the_same(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "SYSTEMS", 500)
    original = request.getfixturevalue(fixture) / "model"
    folder = tmp_path / "model"
    shutil.copytree(original, folder)
    also = ("head.leading",) if fixture == "operator_run" else ()
    Compact(folder, also).run()
    (before, info), (after, _) = load(original), load(folder)
    stored = safetensors.torch.load_file(folder / MODEL)
    also_scales = [name + SCALE for name in also]
    weights = [name.removesuffix(SCALE) for name in stored if name.endswith(f".weight{SCALE}") or name in also_scales]
    assert set(also) < set(weights)
    assert all(stored[name].dtype == torch.int16 for name in weights)
    assert (folder / CONFIG).read_bytes() == (original / CONFIG).read_bytes()
    assert (folder / MODEL).stat().st_size < 0.8 * (original / MODEL).stat().st_size
    assert not torch.equal(*(model.state_dict()[weights[0]] for model in (before, after)))
    if fixture != "estimate_run":
        systems = info.problem_family().sample(200, TEST_SEED)
        old, new = score(before, systems), score(after, systems)
        assert new == pytest.approx(old, rel=5e-2)
