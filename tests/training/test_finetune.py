"""Fine-tuning: what is kept is kept, nothing but the N systems is looked at, and a run goes on as any other."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import Disturbed, log_records, outcome

import algebraformer as af
from algebraformer import problems
from algebraformer.checkpoint import load
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.metrics import score
from algebraformer.models import Algebraformer, ModelConfig, OperatorConfig
from algebraformer.models.heads import readout
from algebraformer.numerics import operator_basis
from algebraformer.problems.base import _REGISTRY, Parameters
from algebraformer.problems.boundary_value import ReactionDiffusion
from algebraformer.training import FinetuneRecipe, Recipe, RunOptions, fine_tuning, finetune, train
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED, StepBatches, store_examples
from algebraformer.training.optim import make_optimizers
from algebraformer.training.warm_start import starting_model
from tests.bases import fit as fit_basis

N = 40
EPS32 = float(np.finfo(np.float32).eps)
OPTIONS = RunOptions(workers=0, progress=False, log_every=5, validate_every=10)
TOKEN = ModelConfig(n=8, n_layer=2, n_head=2, n_embd=16)
OPERATOR = ModelConfig(
    n=8, head=OperatorConfig(rank=6, n_column=4, n_row=4), architecture="mlp", n_layer=2, n_head=1, n_embd=16
)
MODELS = {
    "token": TOKEN,
    "lstm": dataclasses.replace(TOKEN, architecture="lstm"),
    "operator": OPERATOR,
    "operator-transformer": dataclasses.replace(OPERATOR, architecture="transformer"),
}


SIZES: dict[str, Any] = {"scaler_samples": 64, "basis_samples": 64, "calibration_samples": 64}
FROZEN: dict[str, Any] = {"validation_systems": 32, "test_systems": 64}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs on diffusion, by kind of network."""
    folders = {}
    for name, model in MODELS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        fixed = 64 if model.head.is_linear else None
        recipe = Recipe(model=model, steps=30, batch_size=8, samples=fixed, lr=2e-3, **SIZES)
        train(recipe, folders[name], OPTIONS, name)
    return folders


def state(model: Algebraformer, prefix: str = "") -> dict[str, np.ndarray]:
    return {name: t.numpy().copy() for name, t in model.state_dict().items() if name.startswith(prefix)}


def started(folder: Path, samples: int = N, **settings: Any) -> tuple[Algebraformer, Algebraformer, FinetuneRecipe]:
    """Return the network before its first step, the one it starts from and the recipe."""
    recipe, initial = fine_tuning(folder, "reaction-diffusion", samples, **settings)
    return starting_model(recipe, recipe.problem_family(), initial), initial, recipe


# ---------------------------------------------------------------- a run as any other


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("token", {}),
        ("token", {"scaler": "kept", "frozen": 1, "layer_decay": 0.5}),
        ("lstm", {"layer_decay": 0.5}),
        ("operator", {}),
        ("operator", {"basis": "extended", "rank": 9, "frozen": 1}),
        ("operator-transformer", {"basis": "kept", "layer_decay": 0.7}),
    ],
)
def test_stopped_and_resumed_runs_end_the_same(
    starts: dict[str, Path], tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    settings = {"epochs": 3, "batch_size": 4, **settings}
    result = finetune(starts[kind], "reaction-diffusion", N, tmp_path / "whole", OPTIONS, "mine", **settings)
    steps = 3 * ((N if not MODELS[kind].head.is_linear else 32) // 4)  # an operator head keeps a fifth for the read-out
    assert (result.finished, result.step) == (True, steps)
    recipe, initial = fine_tuning(starts[kind], "reaction-diffusion", N, **settings)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    broken = Disturbed(recipe, tmp_path / "parts", OPTIONS, "mine", initial=initial, at=7, action=stop)
    assert not broken.run().finished
    assert finetune(starts[kind], "reaction-diffusion", N, tmp_path / "parts", OPTIONS, "mine", **settings).finished
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert log_records(tmp_path / "whole")[-1]["validation_mse"] > 0


def test_the_checkpoint_says_where_it_comes_from(starts: dict[str, Path], tmp_path: Path) -> None:
    finetune(starts["token"], "reaction-diffusion", N, tmp_path, OPTIONS, epochs=1)
    info = load(tmp_path / "model")[1]
    assert (info.name, info.family["name"]) == ("reaction-diffusion", "reaction-diffusion")
    assert (info.recipe["samples"], info.recipe["lr"]) == (N, 2e-3)
    start, weights = info.recipe["start"], (starts["token"] / "model" / "model.safetensors").read_bytes()
    assert (start["name"], start["family"]["name"], start["recipe"]["steps"]) == ("token", "diffusion", 30)
    assert start["sha256"] == hashlib.sha256(weights).hexdigest()
    again, _ = fine_tuning(tmp_path, "advection-diffusion", N)  # and what it came from is in there as well
    assert again.start["recipe"]["start"] == start


def test_another_start_needs_another_folder(starts: dict[str, Path], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 8}
    finetune(starts["token"], "reaction-diffusion", N, tmp_path / "run", OPTIONS, **settings)
    train(Recipe(model=TOKEN, steps=1, batch_size=8, seed=5), tmp_path / "other", OPTIONS, "token")
    with pytest.raises(ConfigurationError, match="another recipe"):
        finetune(tmp_path / "other", "reaction-diffusion", N, tmp_path / "run", OPTIONS, **settings)


def test_it_learns(starts: dict[str, Path], tmp_path: Path) -> None:
    result = finetune(starts["token"], "reaction-diffusion", 200, tmp_path, OPTIONS, epochs=40)
    before, after = (load(folder / "model")[0] for folder in (starts["token"], tmp_path))
    systems = problems.get("reaction-diffusion", n=8).sample(100, seed=7)
    scores = [score(model, systems)["normalized_mse"] for model in (before, after)]
    assert scores[1] < 0.7 * scores[0]
    assert result.scores["normalized_mse"] == pytest.approx(scores[1], rel=1)


# ---------------------------------------------------------------- the N systems and no others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched(ReactionDiffusion):
    """Reaction-diffusion that writes down which systems are drawn."""

    def parameters(self, indices: Any, seed: int = 0) -> Parameters:
        DRAWN.update((seed, int(index)) for index in indices)
        return super().parameters(indices, seed)


DRAWN: set[tuple[int, int]] = set()


@pytest.fixture
def watched() -> Iterator[str]:
    problems.register("watched")(Watched)
    DRAWN.clear()
    yield "watched"
    del _REGISTRY["watched"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("token", {}),
        ("token", {"scaler": "kept"}),
        ("operator", {}),
        ("operator", {"basis": "kept"}),
        ("operator", {"basis": "extended"}),
    ],
)
def test_only_the_n_systems_are_learned_from(
    starts: dict[str, Path], tmp_path: Path, watched: str, kind: str, settings: dict[str, Any]
) -> None:
    finetune(starts[kind], watched, N, tmp_path, OPTIONS, epochs=2, batch_size=4, seed=9, **FROZEN, **settings)
    measured = {(VALIDATION_SEED, i) for i in range(32)} | {(TEST_SEED, i) for i in range(64)}
    assert measured | {(9, i) for i in range(N)} == DRAWN


def test_new_weights_learn_from_the_n_systems_alone_too(tmp_path: Path, watched: str) -> None:
    for model in (TOKEN, OPERATOR):
        recipe = FinetuneRecipe(family=watched, model=model, samples=N, batch_size=4, steps=8)
        assert train(recipe, tmp_path / model.head.name, OPTIONS).finished
    assert {seed for seed, _ in DRAWN} == {0, VALIDATION_SEED, TEST_SEED}
    assert max(index for seed, index in DRAWN if seed == 0) == N - 1


# ---------------------------------------------------------------- what is kept, extended, refitted


def test_a_kept_scaler_is_kept(starts: dict[str, Path], tmp_path: Path) -> None:
    finetune(starts["token"], "reaction-diffusion", N, tmp_path, OPTIONS, epochs=2, scaler="kept")
    before, after = (load(folder / "model")[0] for folder in (starts["token"], tmp_path))
    old, new = state(before, "head.scaler"), state(after, "head.scaler")
    assert {name for name in old if not np.array_equal(old[name], new[name])} == {"head.scaler.max_distance"}
    A = problems.get("reaction-diffusion", n=8).sample(N).A
    z = after.token_head.scaler.distance(torch.from_numpy(A)).numpy()
    assert new["head.scaler.max_distance"] == pytest.approx(1.1 * z.max())


def test_a_refitted_scaler_belongs_to_the_n_systems(starts: dict[str, Path]) -> None:
    model, _, _ = started(starts["token"])
    systems = problems.get("reaction-diffusion", n=8).sample(N)
    A_z, b_z, _ = model.token_head.scaler(torch.from_numpy(systems.A), torch.from_numpy(systems.b))
    for z in (A_z.numpy(), b_z.numpy()):
        varying = z.std(axis=0, ddof=1) > 0.5
        assert varying.any()
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(z.std(axis=0, ddof=1)[varying], 1, atol=1e-8)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_frozen_blocks_do_not_move(starts: dict[str, Path], tmp_path: Path, kind: str, optimizer: str) -> None:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "weight_decay": 0.1, "optimizer": optimizer}
    finetune(starts[kind], "reaction-diffusion", N, tmp_path, OPTIONS, frozen=1, **settings)
    before, after = (state(load(folder / "model")[0]) for folder in (starts[kind], tmp_path))
    weights = [name for name in before if name.startswith(("tokens", "body"))]
    first = [name for name in weights if name.startswith("tokens") or "blocks.0." in name or name.endswith("_l0")]
    moved = [name for name in weights if not np.array_equal(before[name], after[name])]
    assert len(first) >= 4
    assert set(moved) == set(weights) - set(first)


def test_everything_but_the_readout_may_be_frozen(starts: dict[str, Path], tmp_path: Path) -> None:
    finetune(starts["token"], "reaction-diffusion", N, tmp_path, OPTIONS, frozen=2, epochs=1)
    before, after = (state(load(folder / "model")[0]) for folder in (starts["token"], tmp_path))
    moved = {name for name in before if not np.array_equal(before[name], after[name]) and "scaler" not in name}
    assert moved == {"body.norm.weight", "body.norm.bias", "head.linear.weight", "head.linear.bias"}


def test_layer_wise_rates_by_hand(starts: dict[str, Path]) -> None:
    """Two blocks: read-out 1, second block 1/2, first block 1/4, embedding 1/8 of the full rates."""
    model, _, recipe = started(starts["token"], layer_decay=0.5, lr=8e-3, muon_lr=8e-2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for optimizer in make_optimizers(model, recipe):
        for group in optimizer.param_groups:
            found |= {names[id(parameter)]: group["peak_lr"] for parameter in group["params"]}
    assert set(found) == set(names.values())
    assert found["head.linear.weight"] == found["body.norm.weight"] == pytest.approx(8e-3)
    assert found["body.blocks.1.norm_mlp.weight"] == pytest.approx(4e-3)
    assert found["body.blocks.0.attention.qkv.weight"] == pytest.approx(2e-2)
    assert found["tokens.embedding.weight"] == found["tokens.positions.0"] == pytest.approx(1e-3)


def rounding(model: Algebraformer, A: np.ndarray) -> np.ndarray:
    """Return a bound on the float32 rounding of T (B, n, n): every sum of k terms has k eps32 times its size."""
    basis, z = model.operator_head.basis, model.operator_head.basis.sampler(A)[0].astype(np.float32)
    with torch.no_grad():
        h = model.head.features(model, torch.from_numpy(z)).flatten(1).abs().double()
    weights = model.operator_head.readout_weights().abs()
    size = (torch.cat((h, torch.ones(len(h), 1)), dim=1) @ weights).numpy()  # of coefficients
    terms = h.shape[1] + 1 + basis.rank
    return terms * EPS32 * (np.abs(basis.T_mean) + np.einsum("bk,kij->bij", size, np.abs(basis.components)))


@pytest.mark.parametrize("settings", [{"basis": "kept"}, {"basis": "extended", "rank": 10}])
def test_a_basis_that_stays_answers_as_before(starts: dict[str, Path], settings: dict[str, Any]) -> None:
    model, initial, _ = started(starts["operator"], **settings)
    A = problems.get("reaction-diffusion", n=8).sample(5, seed=3).A
    old, new = initial.approximate_inverse(A), model.approximate_inverse(A)
    before, after = initial.operator_head.readout_weights().numpy(), model.operator_head.readout_weights().numpy()
    np.testing.assert_allclose(after[:, :6], before, rtol=4 * EPS32)  # each is rounded in its own size
    assert not after[:, 6:].any()
    bound = rounding(initial, A) + rounding(model, A)
    assert (np.abs(new.T - old.T) <= bound).all()
    assert bound.max() < 0.1 * np.abs(old.T - initial.operator_head.basis.T_mean).max()  # of what the network says
    np.testing.assert_array_equal(new.inverse, old.inverse)
    kept, basis = initial.operator_head.basis, model.operator_head.basis
    np.testing.assert_array_equal(basis.components[:6], kept.components)
    np.testing.assert_array_equal(basis.sampler.mean, kept.sampler.mean)


def test_an_extended_basis_adds_the_principal_components_of_what_is_left(starts: dict[str, Path]) -> None:
    """Oracle: what k more components leave of the weighted A^-1 Abar is the tail of the singular values behind k."""
    A = problems.get("reaction-diffusion", n=8).sample(N).A

    def left(basis: operator_basis.OperatorBasis) -> np.ndarray:
        s = basis.sampler(A)[1]
        T = (np.linalg.inv(A / s[:, None, None]) @ basis.A_mean).reshape(N, -1)
        target = ((T - basis.T_mean.ravel()) / np.linalg.norm(T, axis=1, keepdims=True)).T
        columns = basis.components.reshape(basis.rank, -1).T.astype(float)
        return target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0]

    kept = started(starts["operator"], basis="kept")[0].operator_head.basis
    values = np.linalg.svd(left(kept), compute_uv=False)
    for more in (2, 6, 20):
        model, _, _ = started(starts["operator"], basis="extended", rank=6 + more)
        tail = np.linalg.norm(values[more:])
        assert tail < 0.9 * np.linalg.norm(values)
        assert np.linalg.norm(left(model.operator_head.basis)) == pytest.approx(tail, rel=1e-2)


def test_a_refitted_basis_has_a_new_readout(starts: dict[str, Path]) -> None:
    model, initial, _ = started(starts["operator"], model=OPERATOR.with_head(whiten=True, rank=9))
    assert not model.head.linear.weight.any()
    assert model.operator_head.basis.sampler.whitening is not None
    np.testing.assert_array_equal(state(model, "body")["body.blocks.0.mlp.0.weight"],
                                  state(initial, "body")["body.blocks.0.mlp.0.weight"])  # fmt: skip
    expected = fit_basis(problems.get("reaction-diffusion", n=8), 9, 4, 4, seed=0, count=N, whiten=True)
    np.testing.assert_array_equal(model.operator_head.basis.A_mean, expected.A_mean)


# ---------------------------------------------------------------- the read-out of an operator head


def test_the_readout_moves_as_far_as_the_ridge_lets_it(starts: dict[str, Path]) -> None:
    """Against stacked least squares: rows of the examples, and rows that pull to where the read-out was."""
    model, _, recipe = started(starts["operator"])
    torch.manual_seed(0)
    with torch.no_grad():
        model.head.linear.weight.normal_(std=0.1)
    stored = store_examples(recipe.problem_family(), model.head.example_maker(model), N, 0, 0)
    before = model.operator_head.readout_weights()
    z, c, weight = stored
    with torch.no_grad():
        H = model.head.features(model, z).flatten(1).double().numpy()
    H = np.hstack([H, np.ones((N, 1))]) * weight.numpy()[:, None]
    C = c.double().numpy() * weight.numpy()[:, None]
    for ridge in (1e-3, 1e2, 1e8):
        pull = np.sqrt(ridge * np.mean(np.sum(H**2, axis=0))) * np.eye(H.shape[1])
        expected = np.linalg.lstsq(np.vstack([H, pull]), np.vstack([C, pull @ before.numpy()]), rcond=None)[0]
        model.operator_head.refit_readout(model, stored, before, ridge)
        np.testing.assert_allclose(
            model.operator_head.readout_weights(), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
        )
    np.testing.assert_allclose(model.operator_head.readout_weights(), before, rtol=1e-4, atol=1e-6)


def test_no_step_is_taken_on_the_systems_that_choose_the_ridge(starts: dict[str, Path]) -> None:
    for kind, count in (("token", N), ("operator", 32)):
        recipe, _ = fine_tuning(starts[kind], "reaction-diffusion", N, epochs=3, batch_size=4)
        batches = StepBatches(recipe.problem_family(), recipe)
        epochs = np.array([batches.indices(step) for step in range(recipe.steps)]).reshape(3, -1)
        assert [sorted(epoch) for epoch in epochs.tolist()] == [list(range(count))] * 3


def test_the_ridge_is_the_one_that_is_best_on_the_held_out_systems(starts: dict[str, Path]) -> None:
    model, _, recipe = started(starts["operator"])
    stored = store_examples(recipe.problem_family(), model.head.example_maker(model), N, 0, 0)
    before, losses = model.operator_head.readout_weights(), {}
    for ridge in readout.RIDGES:
        model.operator_head.refit_readout(model, tuple(part[:32] for part in stored), before, ridge)
        losses[ridge] = float(model.loss(*(part[32:] for part in stored)).detach())
    model.operator_head.set_readout(before)
    assert model.operator_head.choose_ridge(model, stored, 32) == min(losses, key=losses.__getitem__)
    assert len({round(loss, 9) for loss in losses.values()}) > 5


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("token", {"scaler": "other"}, "scaler must be one of refitted, kept, received 'other'"),
        ("token", {"rank": 3}, "rank is for operator heads, received a model with head 'token'"),
        ("token", {"basis": "kept"}, "basis is for operator heads; a token head has a scaler"),
        ("operator", {"scaler": "kept"}, "scaler is for token heads"),
        ("token", {"layer_decay": 0.0}, "layer_decay must be in"),
        ("token", {"frozen": 3}, "frozen must be from 0 to the 2 layers of the model, received 3"),
        ("token", {"epochs": 0}, "epochs must be a whole number of at least 1"),
        ("token", {"batch_size": 41}, "samples must be at least batch_size 41, received 40"),
        ("token", {"batch_size": 0}, "batch_size must be a whole number from 1"),
        ("operator", {"batch_size": 33}, "steps are taken on 32 of 40 systems: choose a batch_size of at most that"),
        ("operator", {"rank": 40}, "at most 39 components, received rank 40: choose a smaller rank, or keep or extend"),
        ("operator", {"basis": "extended", "rank": 5}, "can be extended by 40 matrices to 6 ... 46, received 5"),
        (
            "operator",
            {"basis": "kept", "rank": 7},
            "model.head.rank = 7, the network it starts from 6: these must agree",
        ),
        ("token", {"steps": 4}, "fine-tuning has no setting 'steps'; it has: "),
        ("token", {"model": dataclasses.replace(TOKEN, n_layer=3)}, "model.n_layer = 3, the network it starts from 2"),
    ],
)
def test_what_contradicts_itself_is_refused(
    starts: dict[str, Path], tmp_path: Path, kind: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        finetune(starts[kind], "reaction-diffusion", N, tmp_path / "run", OPTIONS, **settings)
    assert words in str(caught.value)


def test_sizes_must_agree(starts: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        fine_tuning(starts["token"], problems.get("reaction-diffusion", n=9), N)
    message = str(caught.value)
    assert "the model token has n = 8, the family reaction-diffusion has n = 9" in message
    assert "choose a model with n = 9, or the family with n = 8" in message


def test_unknown_names(starts: dict[str, Path]) -> None:
    with pytest.raises(UnknownNameError, match="unknown model or checkpoint folder 'nobody'"):
        fine_tuning("nobody", "reaction-diffusion", N)
    with pytest.raises(UnknownNameError, match="unknown family 'nothing'"):
        fine_tuning(starts["token"], "nothing", N)


def test_recipe_and_network_belong_together(starts: dict[str, Path], tmp_path: Path) -> None:
    recipe, initial = fine_tuning(starts["token"], "reaction-diffusion", N)
    with pytest.raises(ConfigurationError, match="starts from 'token': pass that network as initial, or call finetune"):
        train(recipe, tmp_path, OPTIONS)
    with pytest.raises(ConfigurationError, match="new weights: fill in its start, or leave out initial"):
        train(dataclasses.replace(recipe, start={}), tmp_path, OPTIONS, initial=initial)
    with pytest.raises(ConfigurationError, match="needs a FinetuneRecipe"):
        train(Recipe(model=TOKEN, steps=1), tmp_path, OPTIONS, initial=initial)
    with pytest.raises(ConfigurationError, match="nothing to keep, extend or freeze"):
        dataclasses.replace(recipe, start={}, frozen=1)
    few, _ = fine_tuning(starts["operator"], "reaction-diffusion", N)
    basis = fit_basis(few.problem_family(), 6, 4, 4, seed=0, count=N)
    with pytest.raises(ConfigurationError, match="leave out basis"):
        train(few, tmp_path, OPTIONS, basis=basis)


@pytest.mark.parametrize(("model", "samples"), [(OPERATOR, 2), (TOKEN, None), (TOKEN, 0)])
def test_too_few_systems(model: ModelConfig, samples: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"samples must be|needs at least 3 systems"):
        FinetuneRecipe(model=model, samples=samples, batch_size=1, steps=1)


# ---------------------------------------------------------------- the command


def test_command(starts: dict[str, Path], tmp_path: Path, run: Any, answer: Any) -> None:
    words = ("finetune", "--from", starts["operator"], "--family", "reaction-diffusion", "--samples", N, "--epochs", 2)
    words += ("--output", tmp_path / "run", "--workers", 0, "--basis", "extended", "--rank", 8, "--frozen", 1)
    words += ("--layer-decay", 0.5, "--batch-size", 8, "--set", "seed=3", "family_settings.s=[0,5]")
    code, found = answer(*words)
    assert (code, found["step"], found["finished"]) == (0, 8, True)
    model, info = load(tmp_path / "run" / "model")
    assert (model.config.head.rank, info.family["s"], info.recipe["seed"]) == (8, [0, 5], 3)
    assert (info.recipe["basis"], info.recipe["layer_decay"], info.recipe["frozen"]) == ("extended", 0.5, 1)
    code, out, err = run(*words, "--set", "seed=3", "family_settings.s=[0,5]")
    assert (code, err, "on the frozen test set" in out) == (0, "", True)
    systems = af.problems.get("reaction-diffusion", n=8).sample(2)
    assert af.LearnedSolver.from_pretrained(tmp_path / "run").solve(systems.A, systems.b).certified.all()


OWN = """
import dataclasses
from algebraformer.problems.boundary_value import Diffusion

@dataclasses.dataclass(frozen=True, kw_only=True)
class Wide(Diffusion):
    n: int = 9
"""


def test_command_with_a_family_in_a_file(
    starts: dict[str, Path], tmp_path: Path, answer: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    (tmp_path / "own.py").write_text(OWN)
    words = ("finetune", "--from", starts["token"], "--family", f"{tmp_path / 'own.py'}:Wide", "--samples", N)
    words += ("--epochs", 1, "--output", tmp_path / "run", "--workers", 0)
    assert "the model token has n = 8, the family wide has n = 9" in refused(*words)
    assert not (tmp_path / "run").exists()
    assert answer(*words, "--set", "model.n=8")[0] == 0
    assert load(tmp_path / "run" / "model")[1].family["name"] == "wide"
