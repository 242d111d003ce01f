"""The study of attention: maps against the kernel, measures on maps made by hand, the quick preset as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.metrics import score
from algebraformer.models import Algebraformer, ModelConfig, OperatorConfig
from algebraformer.problems import get
from algebraformer.reporting import Report, Verdict, conclusions
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe, RunOptions, Trainer
from algebraformer.training.data import TEST_SEED, to_tensors
from studies.attention import measure as study
from studies.attention import report
from studies.attention.measure import PRESETS
from studies.attention.report import MAIN, MEASURES, VARIANTS
from studies.harness import runs
from studies.harness.study import load_study, run_study
from study_results import assert_tables_and_figure

N = 7
FAMILY = get("diffusion", n=N)


def network(causal: bool = False, positions: bool = True) -> Algebraformer:
    """A network with random weights that are not small."""
    torch.manual_seed(3)
    model = Algebraformer(ModelConfig(n=N, n_layer=3, n_head=2, n_embd=8, causal=causal, positions=positions)).eval()
    model.token_head.scaler.fit(*to_tensors(FAMILY.sample(64, seed=1)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("causal", [False, True])
def test_maps_are_what_the_kernel_uses(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record queries and keys of every call of the kernel, and let it mix unit vectors: that gives its weights."""
    model, systems, kernel = network(causal), FAMILY.sample(5, seed=2), F.scaled_dot_product_attention
    expected = []

    def recording(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool) -> torch.Tensor:
        expected.append(kernel(q, k, torch.eye(N).expand(5, 2, N, N), is_causal=is_causal))
        return kernel(q, k, v, is_causal=is_causal)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording)
    with torch.no_grad():
        model(*to_tensors(systems)[:2])
    monkeypatch.undo()
    maps = study.attention_maps(model, systems)
    assert maps.shape == (5, 3, 2, N, N)
    np.testing.assert_allclose(maps, torch.stack(expected, dim=1).numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-5)
    assert np.ptp(maps, axis=0).max() > 0.01, "systems have maps of their own"
    assert bool((np.triu(maps, 1) == 0).all()) == causal


def test_only_transformers_that_read_b_have_maps() -> None:
    systems = FAMILY.sample(2)
    with pytest.raises(ConfigurationError, match="received gru with head token"):
        study.attention_maps(Algebraformer(ModelConfig(n=N, architecture="gru", n_layer=1, n_embd=8)), systems)
    operator = ModelConfig(n=N, head=OperatorConfig(rank=2, n_column=3, n_row=3), n_layer=1, n_head=2, n_embd=8)
    with pytest.raises(ConfigurationError, match="head operator"):
        study.attention_maps(Algebraformer(operator), systems)


def test_untrained_is_where_training_starts(tmp_path: Path) -> None:
    recipe = Recipe(model=ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8), steps=2, batch_size=2, seed=5)
    start = Trainer(recipe, tmp_path, RunOptions(progress=False, workers=0)).model.state_dict()
    trained = Algebraformer(recipe.model)
    scaler = trained.token_head.scaler
    scaler.load_state_dict({name: start[f"head.scaler.{name}"] for name in scaler.state_dict()})
    found = study.untrained(trained, 5).state_dict()
    assert all(torch.equal(found[name], start[name]) for name in start)
    other = study.untrained(trained, 6).state_dict()
    assert not torch.equal(other["tokens.embedding.weight"], start["tokens.embedding.weight"])


# ---------------------------------------------------------------- measures


def looking(at: np.ndarray, count: int = 3) -> np.ndarray:
    """Maps (count, 1, 1, n, n) in which token i looks at token at[i] alone."""
    return np.broadcast_to(np.eye(len(at))[at], (count, 1, 1, len(at), len(at)))


def measured(maps: np.ndarray, monkeypatch: pytest.MonkeyPatch, chunk: int = 2) -> dict[str, float]:
    """The measures of these maps (B, 1, 1, n, n), with the scaler of a network."""
    n, given = maps.shape[-1], iter([maps[i : i + chunk] for i in range(0, len(maps), chunk)])
    family = get("diffusion", n=n)
    model = Algebraformer(ModelConfig(n=n, n_layer=1, n_head=1, n_embd=4))
    model.token_head.scaler.fit(*to_tensors(family.sample(64, seed=1)))
    monkeypatch.setattr(study, "CHUNK", chunk)
    monkeypatch.setattr(study, "attention_maps", lambda *_: next(given))
    found = study.look(model, family.sample(len(maps), seed=4))
    np.testing.assert_allclose(found.average[0, 0], maps.mean(axis=0)[0, 0])
    return {name: float(values[0, 0]) for name, values in found.measures.items()}


def test_measures_of_heads_that_look_at_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 12
    own, mirror, first = np.arange(n), np.arange(n)[::-1], np.zeros(n, dtype=int)
    found = measured(looking(own), monkeypatch)
    assert (found["near"], found["entropy"], found["differs"], found["parity"]) == (1, 0, 0, 1)
    assert found["mirrored"] == pytest.approx(np.mean(np.abs(2 * own - 11) <= 2))
    assert found["boundary"] == pytest.approx(4 / n)
    found = measured(looking(mirror), monkeypatch)
    assert (found["mirrored"], found["near"]) == (1, pytest.approx(np.mean(np.abs(2 * own - 11) <= 2)))
    found = measured(looking(first), monkeypatch)
    assert (found["boundary"], found["near"]) == (1, 3 / n)
    assert measured(looking(np.full(n, 2)), monkeypatch)["boundary"] == 0


def test_measures_of_uniform_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 12
    found = measured(np.full((3, 1, 1, n, n), 1 / n), monkeypatch)
    even = report.uniform(n)
    assert {name: found[name] for name in even} == {name: pytest.approx(value) for name, value in even.items()}
    assert even["near"] == pytest.approx((n + 2 * (n - 1) + 2 * (n - 2)) / n**2)
    assert found["entropy"] == pytest.approx(1)
    assert found["differs"] == pytest.approx(0, abs=1e-12)
    assert found["parity"] == pytest.approx(0, abs=1e-12)
    assert [found[name] for name in MEASURES[6:]] == [0] * 4, "constant mass correlates with nothing"


def test_parity_is_that_of_single_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """One system looks at even columns, the other at odd ones, with three quarters of the mass each."""
    kinds = np.where(np.arange(12) % 2 == 0, 0.75, 0.25) / 6
    maps = np.stack([np.tile(kinds, (12, 1)), np.tile(kinds[::-1], (12, 1))])[:, None, None]
    assert measured(maps, monkeypatch)["parity"] == pytest.approx(0.5)


def test_heads_that_look_elsewhere_in_every_system_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """System s looks at token s: no entropy in one map, log 4 in the average."""
    maps = np.concatenate([looking(np.full(12, s), 1) for s in range(4)])
    found = measured(maps, monkeypatch, chunk=3)
    assert found["entropy"] == 0
    assert found["differs"] == pytest.approx(np.log(4) / np.log(12))


def test_correlations_against_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(0), 12
    maps = rng.dirichlet(np.ones(n), size=(5, 1, 1, n))
    found = measured(maps, monkeypatch)
    family = get("diffusion", n=n)
    sample, systems = family.sample(64, seed=1), family.sample(5, seed=4)

    def scaled(b: np.ndarray) -> np.ndarray:
        return b / (np.sqrt(np.mean(b**2, axis=1)) * np.sign(b.sum(axis=1)))[:, None]

    b = scaled(systems.b)
    z = (b - scaled(sample.b).mean(axis=0)) / scaled(sample.b).std(axis=0, ddof=1)
    mass = maps.mean(axis=-2)[:, 0, 0]
    for name, values in (("to b", z), ("to |b|", np.abs(z))):
        within = np.mean([np.corrcoef(mass[s], values[s])[0, 1] for s in range(5)])
        assert found[name] == pytest.approx(within, rel=1e-6)
    assert found["to spread of b"] == pytest.approx(np.corrcoef(mass.mean(axis=0), b.std(axis=0))[0, 1], rel=1e-6)


def test_mass_that_follows_the_size_of_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    family = get("diffusion", n=12)
    model = Algebraformer(ModelConfig(n=12, n_layer=1, n_head=1, n_embd=4))
    model.token_head.scaler.fit(*to_tensors(family.sample(64, seed=1)))
    A, b, _ = to_tensors(family.sample(6, seed=4))
    size = np.linalg.norm(model.token_head.scaler(A, b)[0].numpy(), axis=1)
    maps = np.broadcast_to((size / size.sum(axis=1, keepdims=True))[:, None, None, None], (6, 1, 1, 12, 12))
    assert measured(maps, monkeypatch)["to column"] == pytest.approx(1)


# ---------------------------------------------------------------- outcomes


def made_up(near: float, to_b: float, entropy: float = 0.5) -> dict[str, Any]:
    """Two layers of two heads with these measures."""
    values = dict.fromkeys(MEASURES, 0.0) | {"near": near, "to b": to_b, "entropy": entropy, "differs": 0.1}
    return {name: [[value] * 2] * 2 for name, value in values.items()}


def test_outcomes_on_heads_follow_from_the_measures() -> None:
    even = report.uniform(64)["near"]
    learned = [
        {"seed": 0, "heads": made_up(2.1 * even, -0.4), "before": made_up(even, 0.0, 0.9) | {"parity": [[0.5] * 2] * 2}}
    ]
    place, follows = report.preferred_place(64, learned), report.learned_correlation(learned, "to b")
    assert place.verdict == Verdict.HOLDS
    assert place.numbers | {"by_system": None} == {
        "place": "near", "heads": 4, "seeds": 1, "near": 4, "near_before": 0, "mirrored": 0, "mirrored_before": 0,
        "boundary": 0, "boundary_before": 0, "parity": 0, "parity_before": 4, "entropy": 0.5, "entropy_before": 0.9,
        "by_system": None,
    }  # fmt: skip
    assert place.numbers["by_system"] == pytest.approx(0.2)
    assert follows.verdict == Verdict.HOLDS
    assert follows.numbers == {
        "with_what": "b_j within a system", "low": -0.4, "high": -0.4, "heads": 4, "heads_before": 0, "total": 4,
    }  # fmt: skip
    nothing = [{"seed": seed, "heads": made_up(1.9 * even, 0.6, 1.0), "before": made_up(even, -0.4)} for seed in (0, 1)]
    place, follows = report.preferred_place(64, nothing), report.learned_correlation(nothing, "to b")
    assert (place.verdict, place.numbers["heads"], place.numbers["seeds"]) == (Verdict.FAILS, 8, 2)
    assert place.numbers["by_system"] is None
    assert (follows.verdict, follows.numbers["heads"], follows.numbers["heads_before"]) == (Verdict.FAILS, 8, 8)


@pytest.mark.parametrize(
    ("causal", "verdict", "side", "times"),
    [
        ([0.4, 0.6], Verdict.HOLDS, "higher", 10),
        ([0.004, 0.006], Verdict.FAILS, "lower", 10),
        ([0.04, 0.07], Verdict.INCONCLUSIVE, "as high", 1.1),
    ],
)
def test_outcomes_on_the_mask_follow_from_the_scores(
    causal: list[float], verdict: Verdict, side: str, times: float
) -> None:
    values = {name: [0.1, 0.2] for name in VARIANTS} | {MAIN: [0.04, 0.06], "causal, positions": causal}
    runs = [{"variant": name, "normalized_mse": v} for name, scores in values.items() for v in scores]
    maps = [{"seed": 0, "heads": made_up(0.1, 0.1), "before": made_up(0.1, 0.1)}]
    found = report.outcomes({"n": 64, "runs": runs, "heads": maps})
    mask, positions = found["attention.bidirectional-better"], found["attention.positions-help/both directions"]
    assert (mask.verdict, mask.numbers["side"]) == (verdict, side)
    assert mask.numbers["times"] == pytest.approx(times)
    assert (positions.verdict, positions.numbers["times"]) == (Verdict.HOLDS, pytest.approx(3))
    assert (positions.numbers["mean"], positions.numbers["other_mean"]) == pytest.approx((0.15, 0.05))
    lines = conclusions(found, report.SENTENCES)
    assert len(lines) == len(found) == 8
    assert (
        lines[1]
        == "Without positions, in both directions: normalized_mse 0.15 ± 0.07 against 0.05 ± 0.01 with them, 3 times "
        "higher."
    )


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("attention")
    return run_study(load_study("attention"), "quick", folder, Progress(disable=True)), folder


def test_every_variant_is_trained_alike_and_scored(quick: tuple[Report, Path]) -> None:
    result, folder = quick
    assert [one["variant"] for one in result.data["runs"]] == list(VARIANTS)
    systems = get("diffusion", n=12).sample(1_000, TEST_SEED)
    for one in result.data["runs"]:
        solver = LearnedSolver.from_pretrained(folder / f"{one['variant'].replace(', ', '-').replace(' ', '-')}-seed0")
        model = solver.info.recipe["model"]
        assert (model["causal"], model["positions"]) == VARIANTS[one["variant"]]
        assert solver.info.recipe | {"model": None} == PRESETS["quick"].recipe.settings() | {"model": None}
        assert score(solver.network, systems)["normalized_mse"] == pytest.approx(one["normalized_mse"], rel=1e-3)
        assert one["normalized_mse"] < 0.6, "it learned"


def test_maps_of_the_figure_are_those_of_the_network(quick: tuple[Report, Path]) -> None:
    result, folder = quick
    model = LearnedSolver.from_pretrained(folder / "both-directions-positions-seed0").model
    expected = study.attention_maps(model, get("diffusion", n=12).sample(64, TEST_SEED)).mean(axis=0)
    shown = [
        [[[float(v) for v in row.split()] for row in head] for head in layer] for layer in result.data["figure"]["maps"]
    ]
    np.testing.assert_allclose(np.array(shown) / 12, expected, rtol=6e-3, atol=1e-9)
    heads = result.tables[2]
    assert len(heads.rows) == 4
    band = np.abs(np.subtract.outer(np.arange(12), np.arange(12))) <= 2
    assert heads.rows[3][:2] == [2, 2]
    assert heads.rows[3][2] == pytest.approx((expected[1, 1] * band).sum() / 12)


def test_finished_runs_are_not_run_again(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    result, folder = quick
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run_study(load_study("attention"), "quick", folder, Progress(disable=True)).data == result.data


def test_tables_and_figure(quick: tuple[Report, Path], tmp_path: Path) -> None:
    assert_tables_and_figure("attention", quick[0], tmp_path)


def test_presets_differ_in_mask_and_positions_alone() -> None:
    for preset in ("cpu", "paper"):
        plan = PRESETS[preset]
        assert plan.recipe.model.n == 64
        assert len(plan.seeds) >= 3
        assert dataclasses.replace(plan.recipe.model, causal=False, positions=True) == plan.recipe.model
