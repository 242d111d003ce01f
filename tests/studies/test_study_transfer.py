"""The study of transfer: epochs to an error and outcomes of curves made by hand, and the quick preset as a whole."""

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
from algebraformer.reporting import Outcome, Report, Verdict, conclusions
from algebraformer.training import RECIPES
from algebraformer.training.data import TEST_SEED, VALIDATION_SEED
from algebraformer.training.warm_start import check_initial
from studies.harness.study import load_study, run_study
from studies.transfer import measure as transfer
from studies.transfer.measure import PRESETS
from studies.transfer.report import FINE, SCRATCH, SENTENCES, compare, epochs_to, summary
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


def outcomes(scratch: list[Curve], fine: list[Curve], **about: Any) -> dict[str, Outcome]:
    """Return the outcomes of one head and one family."""
    records = runs(SCRATCH, {10: 1.0}, trial=True, **about) + runs(FINE, {10: 1.0}, trial=True, **about)
    records += runs(SCRATCH, *scratch, **about) + runs(FINE, *fine, **about)
    references = [max(scratch[0])]
    return dict(summary(records, range(len(scratch)), references).outcomes)


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


# ---------------------------------------------------------------- outcomes


FALLING, RISING = {100: 0.4, 1000: 0.2}, {100: 0.1, 1000: 0.2}
SOON, LATE, NEVER = {10: 0.1, 200: 0.1}, {10: 0.3, 200: 0.1}, {10: 0.3, 200: 0.3}
FEWER, TASK = "transfer.fewer-epochs/token head", "token head, reaction-diffusion"


@pytest.mark.parametrize(
    ("about", "fine", "verdict", "fewer"),
    [
        (FULL, SOON, Verdict.REPRODUCED, 100),
        (SMALL, SOON, Verdict.SMALLER_SCALE, 100),
        (FULL, LATE, Verdict.NOT_REPRODUCED, 5),
        (SMALL, NEVER, Verdict.NOT_REPRODUCED, 0),
        (OURS, SOON, Verdict.MET, 100),
        (OURS, LATE, Verdict.MISSED, 5),
        (OURS, NEVER, Verdict.MISSED, 0),
    ],
)
def test_outcomes_follow_from_the_numbers(about: dict[str, Any], fine: Curve, verdict: Verdict, fewer: float) -> None:
    found = outcomes([FALLING] * 3, [fine] * 3, **about)[FEWER]
    assert (found.verdict, found.numbers["reaction-diffusion"]) == (verdict, fewer)
    assert (found.numbers["parameters"], found.numbers["n"]) == (about["parameters"], about["n"])
    assert found.numbers["target"] == (30 if about["type"] == "operator" else 10)


def test_full_scale_is_a_thousand_epochs_too() -> None:
    short = {10: 0.4, 100: 0.2}
    assert outcomes([short] * 3, [{1: 0.1}] * 3, **FULL)[FEWER].verdict == Verdict.SMALLER_SCALE


def test_tasks_may_differ() -> None:
    for about, verdict in (
        (SMALL, Verdict.PARTLY_REPRODUCED),
        (FULL, Verdict.PARTLY_REPRODUCED),
        (OURS, Verdict.PARTLY),
    ):
        records = []
        for family, fine in (("reaction-diffusion", SOON), ("advection-diffusion", NEVER)):
            for kind, curve in ((SCRATCH, FALLING), (FINE, fine)):
                records += runs(kind, *[curve] * 3, **about, family=family)
                records += runs(kind, {10: 1.0}, trial=True, **about, family=family)
        found = summary(records, SEEDS, [1000]).outcomes[FEWER]
        assert (found.verdict, found.numbers["met"], found.numbers["tasks"]) == (verdict, 1, 2)
        assert (found.numbers["reaction-diffusion"], found.numbers["advection-diffusion"]) == (100, 0)


def test_short_runs_from_scratch_are_compared() -> None:
    found = outcomes([RISING] * 3, [SOON] * 3, **SMALL)
    epochs, lowest = found[f"transfer.epochs/{TASK}"], found[f"transfer.lowest-error/{TASK}"]
    assert epochs.verdict == Verdict.HOLDS
    assert [epochs.numbers[key] for key in ("fine", "fewer", "scratch", "beside_short_runs")] == [10, 100, 100, 10]
    assert lowest.verdict == Verdict.FAILS
    assert lowest.numbers == {
        "head": "token head", "family": "reaction-diffusion", "fine": 0.1, "fine_epochs": 10, "scratch": 0.1,
        "scratch_epochs": 100,
    }  # fmt: skip
    found = outcomes([FALLING] * 3, [SOON] * 3, **SMALL)
    assert found[f"transfer.epochs/{TASK}"].numbers["scratch"] == 1000
    assert found[f"transfer.lowest-error/{TASK}"].verdict == Verdict.HOLDS
    assert found[f"transfer.lowest-error/{TASK}"].numbers["scratch_epochs"] == 1000
    never = outcomes([FALLING] * 3, [NEVER, NEVER, SOON], **SMALL)[f"transfer.epochs/{TASK}"]
    assert never.verdict == Verdict.FAILS
    assert [never.numbers[key] for key in ("fine", "reached", "seeds", "error")] == [None, 1, 3, 0.2]


def test_sentences() -> None:
    found = outcomes([RISING] * 3, [SOON] * 3, **SMALL)
    lines = conclusions(found, SENTENCES)
    assert len(lines) == len(found)
    assert lines[:2] == [
        "Token head (1,000 parameters, n = 24): at least 10 times fewer epochs by fine-tuning: reproduced at smaller "
        "scale (reaction-diffusion 100).",
        "Token head, 250 systems of reaction-diffusion: fine-tuning (fine-tuned) reaches the normalized_mse of 1,000 "
        "epochs from scratch, 0.2, after 10 epochs, 100 times fewer. A shorter run from scratch, of 100 epochs, gets "
        "there too; "
        "compared with that it is 10 times fewer.",
    ]
    assert lines[3].endswith("1 trials of 10 epochs from scratch, 1 trials of 10 epochs fine-tuned.")
    lines = conclusions(outcomes([FALLING] * 3, [NEVER] * 3, **SMALL), SENTENCES)
    assert lines[0].endswith("not reproduced (reaction-diffusion not reached).")
    assert lines[1].endswith("from scratch, 0.2, at any length (0 of 3 seeds do).")


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
    assert result.outcomes[FEWER].verdict == Verdict.NOT_REPRODUCED
    assert result.outcomes[f"transfer.lowest-error/{TASK}"].numbers["fine"] == math.inf
    json.dumps(result.data, allow_nan=False)


def test_whitening_is_compared_where_it_was_tried() -> None:
    records = runs(SCRATCH, {1000: 0.2}, **OURS) + runs(FINE, {10: 0.1}, **OURS)
    for kind, name in ((SCRATCH, "new weights"), (FINE, "basis refitted")):
        for variant, value in ((name, 0.5), (f"{name}, whitened", 0.25)):
            records += runs(kind, {10: value}, trial=True, variant=variant, **OURS)
    found = summary(records, (0,), [1000]).outcomes
    for kind in (SCRATCH, FINE):
        one = found[f"transfer.whitening/{TASK}, {kind}"]
        assert (one.verdict, one.numbers["plain"], one.numbers["whitened"]) == (Verdict.HOLDS, 0.5, 0.25)
    assert found["transfer.trials"].numbers == {
        "scratch trials": 2, "scratch epochs": 10, "fine trials": 2, "fine epochs": 10,
    }  # fmt: skip


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
