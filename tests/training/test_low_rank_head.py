"""Operator heads of the low-rank form: trained, stored, loaded, fine-tuned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import algebraformer as af
from algebraformer import problems
from algebraformer.checkpoint import CONFIG, load, save
from algebraformer.errors import CheckpointError, ConfigurationError
from algebraformer.models import ModelConfig, OperatorConfig
from algebraformer.numerics.low_rank import LowRankBasis, LowRankInverse
from algebraformer.training import Recipe, RunOptions, finetune, train
from algebraformer.training.error_sources import error_sources

N = 24
HEAD = OperatorConfig(rank=24, n_column=8, n_row=8, form="low-rank", p=20, row_terms=2)
MODEL = ModelConfig(n=N, head=HEAD, architecture="mlp", n_layer=2, n_embd=64)
OPTIONS = RunOptions(workers=0, progress=False)
FAMILY = problems.get("diffusion", n=N)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("low-rank")
    recipe = Recipe(
        family="diffusion",
        model=MODEL,
        samples=2000,
        steps=400,
        batch_size=64,
        lr=3e-3,
        basis_samples=400,
        calibration_samples=200,
    )
    train(recipe, output, OPTIONS)
    return output


def test_its_answers_are_certified_without_lapack(folder):
    systems = FAMILY.sample(50, seed=11)
    result = af.LearnedSolver.from_pretrained(folder).solve(systems.A, systems.b, fallback=False)
    assert result.certified.mean() > 0.9
    assert result.in_distribution.mean() > 0.9
    good = result.certified
    exact = np.linalg.solve(systems.A[good], systems.b[good][:, :, None])[:, :, 0]
    np.testing.assert_allclose(result.x[good], exact, atol=1e-7 * np.abs(exact).max())


def test_basis_and_answers_survive_storage(folder, tmp_path):
    model, info = load(folder / "model")
    before = model.operator_head.basis
    save(tmp_path / "again", model, info)
    after = load(tmp_path / "again")[0].operator_head.basis
    assert isinstance(before, LowRankBasis)
    assert isinstance(after, LowRankBasis)
    for field in dataclasses.fields(before):
        if field.name not in ("sampler", "factors"):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
    A, b = FAMILY.assembled(range(3), 5)[:2]
    inverse = model.approximate_inverse(A)
    assert isinstance(inverse, LowRankInverse)
    network = af.LearnedSolver.from_pretrained(tmp_path / "again").network
    expected = inverse(b[:, :, None])
    found = network.approximate_inverse(A)(b[:, :, None])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())  # forward passes in float32


def test_stored_sizes(folder):
    """Nothing of size n^2 per component; the settings of dense heads are as they were."""
    head = load(folder / "model")[0].operator_head
    sizes = {name: buffer.numel() * buffer.element_size() for name, buffer in head.named_buffers()}
    assert sizes["A_mean"] == 4 * N**2
    assert sizes["row_levels"] == HEAD.row_terms * N**2
    assert sizes["pairs"] == 2 * HEAD.rank * (HEAD.p**2 + HEAD.row_terms * N)
    stored = json.loads((folder / "model" / CONFIG).read_text())["model"]["head"]
    assert OperatorConfig(**{key: value for key, value in stored.items() if key != "name"}) == HEAD
    assert "form" not in OperatorConfig(rank=2, n_column=2, n_row=2).settings()


def test_error_sources(folder):
    found = error_sources(load(folder / "model")[0], FAMILY, 20)
    assert 0 < found.truncation < 0.5
    assert 0 < found.network < 0.3


def test_finetuning_refits_and_nothing_else(folder, tmp_path):
    for basis in ("kept", "extended"):
        with pytest.raises(ConfigurationError, match="can be refitted only"):
            finetune(folder, "reaction-diffusion", 60, tmp_path / basis, OPTIONS, basis=basis)
    finetune(folder, "reaction-diffusion", 60, tmp_path / "refitted", OPTIONS, basis="refitted")
    systems = problems.get("reaction-diffusion", n=N).sample(10, seed=3)
    assert af.LearnedSolver.from_pretrained(tmp_path / "refitted").solve(systems.A, systems.b).certified.all()


def test_damaged_limits_are_refused(folder, tmp_path):
    model, info = load(folder / "model")
    model.operator_head.get_buffer("scaling_range").fill_(-1.0)
    save(tmp_path / "damaged", model, info)
    with pytest.raises(CheckpointError, match="scaling"):
        load(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "dense"}, "p must be"),
        ({"form": "dense", "p": 0}, "row_terms must be"),
        ({"form": "sparse"}, "form must be one of"),
        ({"p": 0}, "p must be"),
        ({"p": N + 1}, "p must be"),
        ({"row_terms": 9}, "row_terms must be"),
        ({"norm": "weighted"}, "norm weighted is for dense operators"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(MODEL, head=dataclasses.replace(HEAD, **changes))
