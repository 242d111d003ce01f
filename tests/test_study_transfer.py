"""The study of transfer: epochs to an error and the verdict on curves made by hand, and the quick preset as a whole."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from algebraformer.checkpoint import load, resolve
from algebraformer.metrics import score
from algebraformer.problems import get
from algebraformer.reporting import Report
from algebraformer.training import RECIPES
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from algebraformer.training.warm_start import check_initial
from studies.harness.study import load_study, run_study
from studies.transfer import measure as transfer
from studies.transfer.measure import PRESETS
from studies.transfer.report import FINE, SCRATCH, compare, epochs_to, summary
from study_results import assert_tables_and_figure

SEEDS = (0, 1, 2)
SMALL = {"type": "token", "n": 24, "parameters": 1_000}
FULL = {"type": "token", "n": 64, "parameters": 9_511_169}
OURS = {"type": "operator", "n": 64, "parameters": 1_000}

Curve = dict[int, float]


def runs(kind: str, *curves: Curve, trial: bool = False, **about: Any) -> list[dict[str, Any]]:
    """Return the records of one curve per seed."""
    about = {"head": "token head", "family": "reaction-diffusion", "samples": 250, "variant": kind, "rate": 1.0} | about
    return [
        about
        | {"kind": kind, "seed": seed, "epochs": epochs, "normalized_mse": value, "validation": value, "trial": trial}
        for seed, curve in enumerate(curves)
        for epochs, value in curve.items()
    ]


def lines(scratch: list[Curve], fine: list[Curve], **about: Any) -> list[str]:
    """Return the verdict on one head and one family."""
    records = runs(SCRATCH, {10: 1.0}, trial=True, **about) + runs(FINE, {10: 1.0}, trial=True, **about)
    records += runs(SCRATCH, *scratch, **about) + runs(FINE, *fine, **about)
    references = [max(scratch[0])]
    return list(summary(records, range(len(scratch)), references).verdict)


# ---------------------------------------------------------------- epochs to an error


def test_epochs_to_an_error() -> None:
    points = [(1, 0.5), (10, 0.2), (100, 0.3), (1000, 0.1)]
    assert epochs_to(points, 0.2) == 10
    assert epochs_to(points, 0.29) == 10
    assert epochs_to(points, 0.1) == 1000
    assert epochs_to(points, 0.05) == math.inf
    assert epochs_to([(1, math.inf)], 0.05) == math.inf


def test_comparison_by_hand() -> None:
    """Fine-tuning is held against scratch on the same systems: 10, never and 1 epochs, the median is 10."""
    scratch = [{100: 0.4, 1000: 0.2}, {100: 0.1, 1000: 0.1}, {100: 0.3, 1000: 0.9}]
    fine = [{1: 0.3, 10: 0.2}, {1: 0.3, 10: 0.2}, {1: 0.8, 10: 0.1}]
    found = compare(runs(SCRATCH, *scratch) + runs(FINE, *fine), SEEDS, 1000)
    assert (found["error"], found["fine"], found["scratch"], found["reached"]) == (0.2, 10, 100, 2)
    assert (found["fewer"], found["beside_short_runs"]) == (100, 10)
    found = compare(runs(SCRATCH, *scratch) + runs(FINE, *fine), SEEDS, 100)
    assert (found["error"], found["fine"], found["reached"]) == (0.3, 10, 2)


def test_what_most_seeds_do_not_reach_is_not_reached() -> None:
    found = compare(runs(SCRATCH, *[{1000: 0.1}] * 3) + runs(FINE, {1: 0.1}, {1: 0.2}, {1: 0.2}), SEEDS, 1000)
    assert (found["fine"], found["fewer"], found["reached"]) == (math.inf, 0, 1)


# ---------------------------------------------------------------- the verdict


FALLING, RISING = {100: 0.4, 1000: 0.2}, {100: 0.1, 1000: 0.2}
SOON, LATE, NEVER = {10: 0.1, 200: 0.1}, {10: 0.3, 200: 0.1}, {10: 0.3, 200: 0.3}


@pytest.mark.parametrize(
    ("about", "fine", "words"),
    [
        (FULL, SOON, "100 epochs instead of 1,000 are reproduced (reaction-diffusion 100 times fewer)"),
        (SMALL, SOON, "are reproduced at smaller scale (reaction-diffusion 100 times fewer; 1,000 parameters, n = 24)"),
        (FULL, LATE, "are not reproduced (reaction-diffusion 5 times fewer)"),
        (SMALL, NEVER, "are not reproduced (reaction-diffusion not reached; "),
        (OURS, SOON, "the target of 30 times fewer epochs is met (reaction-diffusion 100 times fewer)"),
        (OURS, LATE, "is missed (reaction-diffusion 5 times fewer)"),
        (OURS, NEVER, "is missed (reaction-diffusion not reached)"),
    ],
)
def test_the_verdict_follows_from_the_numbers(about: dict[str, Any], fine: Curve, words: str) -> None:
    assert words in lines([FALLING] * 3, [fine] * 3, **about)[0]


def test_full_scale_is_a_thousand_epochs_too() -> None:
    short = {10: 0.4, 100: 0.2}
    assert "at smaller scale" in lines([short] * 3, [{1: 0.1}] * 3, **FULL)[0]


def test_a_verdict_may_differ_from_family_to_family() -> None:
    for about, words in (
        (SMALL, "reproduced at smaller scale on reaction-diffusion and not on advection-diffusion"),
        (FULL, "are reproduced on reaction-diffusion and not on advection-diffusion"),
        (OURS, "met on reaction-diffusion, missed on advection-diffusion"),
    ):
        records = []
        for family, fine in (("reaction-diffusion", SOON), ("advection-diffusion", NEVER)):
            for kind, curve in ((SCRATCH, FALLING), (FINE, fine)):
                records += runs(kind, *[curve] * 3, **about, family=family)
                records += runs(kind, {10: 1.0}, trial=True, **about, family=family)
        assert words in summary(records, SEEDS, [1000]).verdict[0]


def test_short_runs_from_scratch_are_said() -> None:
    text = " ".join(lines([RISING] * 3, [SOON] * 3, **SMALL))
    assert "after 10 epochs, 100 times fewer. A shorter run from scratch, of 100 epochs, gets there too" in text
    assert "beside it 10 times fewer" in text
    assert "ends not lower than training from scratch, 0.1 after 10 against 0.1 after 100 epochs" in text
    text = " ".join(lines([FALLING] * 3, [SOON] * 3, **SMALL))
    assert "no shorter run from scratch gets there" in text
    assert "ends lower than training from scratch, 0.1 after 10 against 0.2 after 1,000 epochs" in text
    text = " ".join(lines([FALLING] * 3, [NEVER, NEVER, SOON], **SMALL))
    assert (
        "does not reach the normalized_mse of 1,000 epochs from scratch, 0.2, at any length (1 of 3 seeds do)" in text
    )


def test_scores_that_are_not_finite_are_the_worst() -> None:
    gone: Any = {10: None}
    result = summary(
        runs(SCRATCH, gone, trial=True, **SMALL)
        + runs(FINE, gone, trial=True, **SMALL)
        + runs(SCRATCH, *[{1000: 0.2}] * 3, **SMALL)
        + runs(FINE, *[gone] * 3, **SMALL),
        SEEDS,
        [1000],
    )
    assert "not reproduced" in result.verdict[0]
    json.dumps(result.data, allow_nan=False)


def test_whitening_is_compared_where_it_was_tried() -> None:
    records = runs(SCRATCH, {1000: 0.2}, **OURS) + runs(FINE, {10: 0.1}, **OURS)
    for kind, name in ((SCRATCH, "new weights"), (FINE, "basis refitted")):
        for variant, value in ((name, 0.5), (f"{name}, whitened", 0.25)):
            records += runs(kind, {10: value}, trial=True, variant=variant, **OURS)
    text = " ".join(summary(records, (0,), [1000]).verdict)
    assert "from scratch: plain entries 0.5, whitened ones 0.25" in text
    assert "fine-tuned: plain entries 0.5, whitened ones 0.25" in text
    assert "2 trials of 10 epochs from scratch, 2 trials of 10 epochs fine-tuned" in text


# ---------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("transfer")
    return run_study(load_study("transfer"), "quick", folder, Progress(disable=True)), folder


def test_every_run_is_there(quick: tuple[Report, Path]) -> None:
    plan, records = PRESETS["quick"], quick[0].data["records"]
    assert len(plan.seeds) >= 3
    assert {(r["head"], r["family"], r["samples"]) for r in records} == {
        (head.name, family, samples) for head in plan.heads for family, samples in plan.tasks
    }
    tried = {(r["head"], r["kind"], r["variant"]) for r in records if r["trial"]}
    assert tried == {
        (head.name, kind, variant.name)
        for head in plan.heads
        for kind, variants in ((SCRATCH, head.scratch), (FINE, head.fine))
        for variant in variants
    }
    for kind, lengths in plan.lengths.items():
        done = [(r["seed"], r["epochs"]) for r in records if r["kind"] == kind and not r["trial"]]
        assert set(done) == {(seed, epochs) for seed in plan.seeds for epochs in lengths}
        assert len(done) == 4 * len(plan.seeds) * len(lengths)


def test_the_validation_set_decides(quick: tuple[Report, Path]) -> None:
    records = quick[0].data["records"]
    for head, family, kind in {(r["head"], r["family"], r["kind"]) for r in records}:
        own = [r for r in records if (r["head"], r["family"], r["kind"]) == (head, family, kind)]
        best = min((r for r in own if r["trial"]), key=lambda r: r["validation"])
        assert {(r["variant"], r["rate"]) for r in own if not r["trial"]} == {(best["variant"], best["rate"])}


def test_scores_are_those_of_the_networks(quick: tuple[Report, Path]) -> None:
    result, folder = quick
    for record in result.data["records"][::9]:
        words = record["head"], record["family"], record["variant"], f"rate{record['rate']:.3g}"
        name = "-".join((*words, f"epochs{record['epochs']}", f"seed{record['seed']}")).replace(",", "")
        model, info = load(folder / name.replace(" ", "-") / "model")
        family = get(record["family"], n=16)
        for seed, count, key in ((TEST_SEED, 200, "normalized_mse"), (VALIDATION_SEED, 64, "validation")):
            assert score(model, family.sample(count, seed))["normalized_mse"] == pytest.approx(record[key], rel=1e-3)
        assert (info.recipe["samples"], info.recipe["seed"]) == (record["samples"], record["seed"])
        assert bool(info.recipe["start"]) == (record["kind"] == FINE)
        if record["kind"] == FINE:
            assert info.recipe["start"]["family"]["name"] == "diffusion"


def test_both_kinds_have_the_same_architecture(quick: tuple[Report, Path]) -> None:
    for folder in quick[1].glob("token-head*/model"):
        assert load(folder)[0].config == PRESETS["quick"].heads[0].start.model  # type: ignore[union-attr]
    folders = quick[1].glob("operator-head*/model")
    assert len({load(folder)[0].config.with_head(rank=1, whiten=False) for folder in folders}) == 1


def test_finished_runs_are_not_run_again(quick: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.harness.runs.train", lambda *_, **__: pytest.fail("trained again"))
    again = run_study(load_study("transfer"), "quick", quick[1], Progress(disable=True))
    assert again.data == quick[0].data


def test_figure_and_tables(quick: tuple[Report, Path], tmp_path: Path) -> None:
    assert_tables_and_figure("transfer", quick[0], tmp_path)


def test_recipes_at_full_size() -> None:
    """Everything that is tried with the shipped operator head fits together; new weights have its architecture."""
    plan = PRESETS["cpu"]
    head = next(head for head in plan.heads if head.start == "diffusion-64")
    initial = load(resolve("diffusion-64"))[0]
    for number, (family, samples) in enumerate(plan.tasks):
        for kind, variants in ((SCRATCH, head.scratch), (FINE, head.fine)):
            setup = transfer.Setup(head, "diffusion-64", family, samples, number, kind)
            for variant in variants:
                recipe, found = setup.recipe(variant, 3.0, 10, 2, initial)
                check_initial(recipe, found)
                assert (found is None, recipe.start == {}) == ((True, True) if kind == SCRATCH else (False, False))
                assert (recipe.samples, recipe.seed, recipe.steps) == (samples, 2, 20)
                assert (recipe.lr, recipe.muon_lr) == pytest.approx((9e-3, 3e-2))
                assert recipe.model.head.rank == (160 if variant.name == "basis extended" else 96)
                assert recipe.model.head.whiten == ("whitened" in variant.name)


def test_presets_ask_what_the_paper_asks() -> None:
    for name in ("cpu", "paper"):
        plan = PRESETS[name]
        assert plan.tasks == (("reaction-diffusion", 250), ("advection-diffusion", 1500))
        assert set(plan.references) == {500, 1000} <= set(plan.lengths[SCRATCH])
        assert len(plan.seeds) >= 3
        assert "diffusion-64" in [head.start for head in plan.heads]
        assert len(plan.rates) >= 2
    paper = PRESETS["paper"].heads
    assert paper[0].start == RECIPES["paper"]
    assert dataclasses.replace(paper[1], start=paper[0].start, name=paper[0].name) == paper[0]
