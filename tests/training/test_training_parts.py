"""What training is made of: optimisers against their definition, data addressed by step, recipes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import algebraformer.training.data as data
from algebraformer import problems
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.metrics import answer_scores, relative_errors
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.models.heads.data import SystemExamples
from algebraformer.problems import Systems
from algebraformer.training import RECIPES, FinetuneRecipe, Recipe, get_recipe
from algebraformer.training.optim import Muon, make_optimizers, orthogonalize, schedule, set_learning_rates
from algebraformer.training.recipes import SIZES

SMALL = ModelConfig(n=8, n_layer=1, n_head=2, n_embd=16)
FRESH = Recipe(model=SMALL, steps=60, batch_size=8)
FIXED = dataclasses.replace(FRESH, samples=42)

every_recipe = pytest.mark.parametrize("recipe", [FRESH, FIXED], ids=["fresh", "fixed"])


# ---------------------------------------------------------------- optimisers


def newton_schulz_by_svd(G: np.ndarray) -> np.ndarray:
    """U p(p(p(p(p(S / |G|_F))))) V^T with Muon's quintic p: what the iteration is in exact arithmetic."""
    U, s, Vt = scipy.linalg.svd(G, full_matrices=False)
    s = s / np.linalg.norm(G)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return U * s @ Vt


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 4), (2, 4, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalize_is_nearly_the_polar_factor(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    G = torch.randn(shape, dtype=dtype)
    X = orthogonalize(G)
    assert (X.dtype, X.shape) == (dtype, G.shape)
    for g, x in zip(G.double().numpy(), X.double().numpy(), strict=True):
        np.testing.assert_allclose(x, newton_schulz_by_svd(g), atol=1e-5)
        polar = scipy.linalg.polar(g)[0]
        s = scipy.linalg.svdvals(x)
        assert 0.65 < s.min() <= s.max() < 1.25
        assert np.linalg.norm(x - polar, 2) < 0.35


def test_orthogonalize_zero() -> None:
    assert not orthogonalize(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_on_stacked_matrices_is_muon_on_each(weight_decay: float) -> None:
    """Also against Muon's definition in NumPy: Nesterov momentum, orthogonalised, decoupled decay."""
    torch.manual_seed(1)
    stacked = nn.Parameter(torch.randn(18, 6))
    parts = [nn.Parameter(part.clone()) for part in stacked.detach().chunk(3)]
    wide = nn.Parameter(torch.randn(12, 3))
    one = Muon([(stacked, 3), (wide, 1)], lr=0.1, weight_decay=weight_decay)
    three = Muon([(part, 1) for part in parts], lr=0.1, weight_decay=weight_decay)
    W, momentum = wide.detach().double().numpy().copy(), np.zeros((12, 3))
    for _ in range(3):
        stacked.grad, wide.grad = torch.randn(18, 6), torch.randn(12, 3)
        for part, gradient in zip(parts, stacked.grad.chunk(3), strict=True):
            part.grad = gradient.clone()
        g = wide.grad.double().numpy()
        one.step()
        three.step()
        momentum = 0.95 * momentum + 0.05 * g
        direction = newton_schulz_by_svd(0.05 * g + 0.95 * momentum)
        W = (1 - 0.1 * weight_decay) * W - 0.1 * 2.0 * direction  # 2 = sqrt(12 / 3)
    torch.testing.assert_close(stacked.detach(), torch.cat([part.detach() for part in parts]), atol=1e-6, rtol=0)
    np.testing.assert_allclose(wide.detach(), W, atol=1e-5)


def test_schedule() -> None:
    recipe = dataclasses.replace(FRESH, steps=110, warmup=10.5 / 110)
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 60: 0.5, 85: 0.5 * (1 + math.cos(0.75 * math.pi))}
    assert {step: schedule(step, recipe) for step in expected} == pytest.approx(expected)
    for steps, warmup in itertools.product((1, 2, 7, 50), (0.0, 0.02, 0.99)):
        shares = [schedule(step, dataclasses.replace(recipe, steps=steps, warmup=warmup)) for step in range(steps)]
        assert all(0 < share <= 1 for share in shares)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("architecture", ["transformer", "lstm", "gru"])
def test_every_parameter_has_one_optimizer(architecture: str, optimizer: str) -> None:
    recipe = dataclasses.replace(FRESH, optimizer=optimizer, weight_decay=0.1)  # type: ignore[arg-type]
    model = Algebraformer(dataclasses.replace(SMALL, architecture=architecture))  # type: ignore[arg-type]
    optimizers = make_optimizers(model, recipe)
    groups = [group for one in optimizers for group in one.param_groups]
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.1}
    set_learning_rates(optimizers, 0.5)
    peaks = {0.5 * recipe.lr} | ({0.5 * recipe.muon_lr} if optimizer == "muon" else set())
    assert {group["lr"] for group in groups} == peaks


# ---------------------------------------------------------------- data


@every_recipe
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_addressed_by_step(recipe: Recipe, workers: int) -> None:
    family, recipe = recipe.problem_family(), dataclasses.replace(recipe, steps=14)
    batches = data.StepBatches(family, recipe)
    whole = list(data.step_batches(batches, 0, 0, False))
    later = list(data.step_batches(batches, 9, workers, False))
    assert len(whole) == 14
    assert len(later) == 5
    for one, other in zip(whole[9:], later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_which_sets_stay_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's does; larger ones, and systems that come once, do not; compact examples do whatever their number."""
    paper, operator = RECIPES["paper"], RECIPES["reaction-diffusion-64-mlp"]
    compact = mock.Mock(compact=True)
    for recipe, maker, resident in (
        (paper, SystemExamples(), True),
        (dataclasses.replace(paper, samples=100_000), SystemExamples(), False),
        (FRESH, SystemExamples(), False),
        (operator, compact, True),
        (dataclasses.replace(operator, samples=None), compact, False),
    ):
        assert data.is_resident(recipe, recipe.problem_family(), maker) == resident
    size = 8 * (8 * 8 + 8 + 8)
    for limit, resident in ((42 * size, True), (42 * size - 1, False)):
        monkeypatch.setattr(data, "RESIDENT_BYTES", limit)
        assert data.is_resident(FIXED, FIXED.problem_family(), SystemExamples()) == resident


def test_fresh_systems_never_repeat() -> None:
    batches = data.StepBatches(FRESH.problem_family(), FRESH)
    assert np.array_equal(np.concatenate([batches.indices(step) for step in range(60)]), np.arange(480))
    A, _, x = batches[3]
    expected = FRESH.problem_family().at(range(24, 32), seed=0)
    assert np.array_equal(A, expected.A)
    assert np.array_equal(x, expected.x)


@pytest.mark.parametrize("samples", [40, 42])
def test_a_fixed_set_is_shuffled_anew_every_epoch(samples: int) -> None:
    """Each system once per epoch; 2 of 42 do not fill a batch of 8 and are others each time."""
    batches = data.StepBatches(FIXED.problem_family(), dataclasses.replace(FIXED, samples=samples))
    epochs = [np.concatenate([batches.indices(5 * epoch + i) for i in range(5)]) for epoch in range(20)]
    assert all(len(set(epoch.tolist())) == 40 for epoch in epochs)
    assert set(np.concatenate(epochs).tolist()) == set(range(samples))
    assert len({epoch.tobytes() for epoch in epochs}) == 20


def test_frozen_sets_are_out_of_reach_of_recipes() -> None:
    frozen = {data.VALIDATION_SEED, data.TEST_SEED, data.SCALER_SEED}
    assert len(frozen) == 3
    for seed in frozen:
        with pytest.raises(ConfigurationError, match="seed must be"):
            Recipe(seed=seed)
    assert Recipe(seed=2**62 - 1).seed < min(frozen)


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_named_recipes_build(name: str) -> None:
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = Algebraformer(recipe.model)
    assert model.parameter_count() > 0
    assert recipe.problem_family().n == recipe.model.n
    assert json.loads(json.dumps(recipe.settings()))["family"] in problems.names()


def test_unknown_recipes_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown recipe 'papers'; known: .*paper"):
        get_recipe("papers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1"),
        ({"batch_size": 1.5}, "batch_size must be a whole number from 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"samples": 7}, "samples must be at least batch_size 8, received 7"),
        ({"samples": 8.5}, "samples must be a whole number"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or muon, received 'sgd'"),
        ({"lr": 0.0}, "lr must be > 0 and finite"),
        ({"muon_lr": math.nan}, "muon_lr must be > 0 and finite"),
        ({"clip": math.inf}, "clip must be > 0 and finite"),
        ({"lr": "fast"}, "lr must be > 0 and finite, received 'fast'"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ({"warmup": -0.1}, r"warmup must be in \[0, 1\)"),
        ({"family": "diffusio"}, "unknown family 'diffusio'"),
        ({"family_settings": {"zeta": 1}}, "has no setting 'zeta'"),
        ({"family_settings": {"n": 16}}, "family_settings cannot set n"),
    ],
)
def test_impossible_recipes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, UnknownNameError), match=message):
        dataclasses.replace(FRESH, **change)


def test_scores_of_answers_by_hand() -> None:
    x = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    systems = Systems(A=np.broadcast_to(np.eye(2), (3, 2, 2)), b=x, x=x, params={})
    answers = x + np.array([[0.5, 0.0], [0.0, 1.0], [0.0, 0.25]])
    np.testing.assert_allclose(relative_errors(answers, systems), [0.1, 0.5, 0.25])
    found = answer_scores(answers, systems)
    assert found["mse"] == pytest.approx((0.25 + 1 + 0.0625) / 6)
    assert found["normalized_mse"] == pytest.approx((0.25 + 1 + 0.0625) / 30)
    assert (found["relative_error_median"], found["relative_error_95"]) == pytest.approx((0.25, 0.5))


def test_the_old_name_of_a_recipe_for_few_systems_still_works() -> None:
    import algebraformer.training as training

    with pytest.warns(DeprecationWarning, match="FinetuneRecipe"):
        assert training.FewSystems is training.FinetuneRecipe
    with pytest.raises(AttributeError):
        training.nothing  # noqa: B018


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_samples_are_at_least_two(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number from 2"):
        Recipe(model=SMALL, **{name: 1})


def test_sizes_of_samples_are_capped_where_n_is_large() -> None:
    assert data.capped_sample_size(4096, 64) == 4096
    assert data.capped_sample_size(4096, 1024) == 128
    assert data.capped_sample_size(4096, 4096) == 64
    recipe = Recipe(model=SMALL, scaler_samples=30, basis_samples=20, calibration_samples=40)
    made = data.training_data(recipe)
    assert (made.scaler.count, made.basis.count, made.calibration.count, made.few) == (30, 20, 40, False)
    few = data.training_data(FinetuneRecipe(model=SMALL, samples=25, batch_size=5, seed=3))
    assert few.scaler == few.basis == few.calibration
    assert (few.scaler.count, few.scaler.seed, few.few, few.trained_on) == (25, 3, True, 25)
