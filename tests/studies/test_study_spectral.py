"""The study at its preset quick, and its outcomes of made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rich.progress import Progress

from algebraformer.models import Algebraformer
from algebraformer.problems import get
from algebraformer.reporting import Verdict, conclusions
from algebraformer.training.data import TEST_SEED
from studies.harness.flops import flops
from studies.harness.study import load_study, run_study, where
from studies.spectral import measure as spectral
from studies.spectral import report
from studies.spectral.measure import BIGRU, BILSTM, GRU, LSTM, OPERATOR, PRESETS, TOKEN
from study_results import assert_tables_and_figure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spectral")


@pytest.fixture(scope="module")
def result(folder):
    with Progress(disable=True) as bar:
        return run_study(load_study("spectral"), "quick", folder, bar)


def test_quick(result, folder, tmp_path):
    plan, data = PRESETS["quick"], result.data
    assert len(data["runs"]) == len(plan.families) * len(plan.networks) * len(plan.seeds)
    assert {row["network"] for row in data["tuning"]} == set(plan.networks)
    assert all(np.isfinite(run["mse"]) and run["seconds"] > 0 for run in data["runs"])
    assert len({run["mse"] for run in data["runs"]}) == len(data["runs"])
    assert_tables_and_figure("spectral", result, tmp_path)
    trained = {path.stat().st_mtime for path in folder.glob("*/model/config.json")}
    with Progress(disable=True) as bar:
        again = run_study(load_study("spectral"), "quick", folder, bar)
    assert {path.stat().st_mtime for path in folder.glob("*/model/config.json")} == trained
    assert [run["mse"] for run in again.data["runs"]] == [run["mse"] for run in data["runs"]]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_equal_operations_and_parameters(preset):
    """Every network gets the planned operations to within a step, and about as many parameters."""
    plan = PRESETS[preset]
    for name, model in plan.networks.items():
        for rates in spectral.candidates(model, plan.rates):
            recipe = spectral.recipe_of(plan, plan.families[0], model, rates, plan.flops, 0)
            step = sum(flops(recipe).values()) / recipe.steps
            assert abs(sum(flops(recipe).values()) - plan.flops) < max(step, 0.02 * plan.flops), name
    if preset != "quick":
        with torch.device("meta"):  # shapes alone
            counts = [Algebraformer(model).parameter_count() for model in plan.networks.values()]
        assert max(counts) < 1.25 * min(counts)


def test_classical_rows(result):
    """LU and conjugate residuals are exact, zero is zero, and the linear estimator is that of its own module."""
    rows = {row["method"]: row for row in result.data["classical"] if row["family"] == "diffusion"}
    assert rows["zero"]["normalized_mse"] == pytest.approx(1)
    assert rows["LU, float64"]["relative_error_95"] < 1e-10
    assert rows["mean inverse + conjugate residuals"]["relative_error_95"] < 1e-8
    assert 1e-9 < rows["LU, float32"]["relative_error_median"] < 1e-4
    assert rows["reduced basis"]["mse"] < rows["linear estimator b → x"]["mse"] < rows["zero"]["mse"]
    systems = get("diffusion", n=16).sample(PRESETS["quick"].test, TEST_SEED)
    assert rows["zero"]["mse"] == pytest.approx(np.mean(systems.x**2))


def made(token, lstm, gru):
    scores = ("mse", "normalized_mse", "relative_error_median", "relative_error_95")
    runs = [
        {"family": "diffusion", "network": name, "seed": seed, "parameters": 1, "flops": 1e9, "seconds": 1.0,
         **dict.fromkeys(scores, value * (1 + seed / 100))}
        for name, value in ((TOKEN, token), (LSTM, lstm), (GRU, gru), (OPERATOR, 1e-8), (BILSTM, 5e-5), (BIGRU, 9e-5))
        for seed in (0, 1)
    ]  # fmt: skip
    classical = [{"family": "diffusion", "method": "LU, float64", "mse": 0.0}]
    paper = [
        {"steps": s, "flops": f, "mse": 0.1, "normalized_mse": v, "seconds": 1.0}
        for s, f, v in ((1, 1e9, 1e-1), (10, 1e10, 1e-2))
    ]
    small = [{"network": TOKEN, "count": 100, "mse": 4 * token}]
    times = {name: {"1": 1e-3, "64": 1e-4} for name in (TOKEN, OPERATOR, LSTM, GRU, BILSTM, BIGRU)}
    return {
        "runs": runs,
        "classical": classical,
        "paper": paper,
        "small": small,
        "times": times,
        "full_flops": 1e12,
        "memory": {},
    }


@pytest.mark.parametrize(
    ("numbers", "lstm", "target", "bidirectional"),
    [
        ((1e-5, 1e-4, 1e-4), Verdict.SMALLER_SCALE, Verdict.MET, Verdict.HOLDS),
        ((6e-5, 1e-4, 1e-4), Verdict.PARTLY_REPRODUCED, Verdict.MISSED, Verdict.FAILS),
        ((2e-4, 1e-4, 1e-4), Verdict.NOT_REPRODUCED, Verdict.MISSED, Verdict.FAILS),
    ],
)
def test_outcomes(numbers, lstm, target, bidirectional):
    found = report.outcomes(made(*numbers))
    beats = found[f"spectral.beats/diffusion, {LSTM}"]
    assert (beats.verdict, beats.numbers["paper"]) == (lstm, 0.5)
    assert beats.numbers["ratio"] == pytest.approx(numbers[0] / numbers[1])
    assert found[f"spectral.target/{TOKEN}"].verdict == target
    assert found[f"spectral.target/{TOKEN}"].numbers["target"] == 2.4e-5
    best = found["spectral.beats-bidirectional/diffusion"]
    assert (best.verdict, best.numbers["network"]) == (bidirectional, BILSTM)
    assert best.numbers["ratio"] == pytest.approx(numbers[0] / 5e-5)
    assert found[f"spectral.target/{OPERATOR}"].verdict == Verdict.MET
    assert found[f"spectral.fixed-set/{TOKEN}"].numbers["100"] == pytest.approx(4)
    assert found["spectral.paper-recipe"].numbers["extrapolated"] == pytest.approx(1e-4)
    assert found["spectral.best/diffusion"].numbers["network"] == OPERATOR


def test_sentences():
    found = report.outcomes(made(1e-5, 1e-4, 1e-4))
    lines = conclusions(found, report.SENTENCES)
    assert len(lines) == len(found)
    assert lines[0] == (
        "diffusion: the token head's mse is 0.1 of that of LSTM (1e-05 against 0.0001, over the seeds 0.1 to 0.1; the "
        "paper: 0.5): reproduced at smaller scale."
    )
    assert lines[-1] == f"Fixed training sets, {TOKEN}: mse 1e-05 with fresh systems, 4 times that with 100."


def test_extrapolation_is_a_power_law():
    assert report.extrapolated(made(1.0, 1.0, 1.0)) == pytest.approx(1e-4)


def test_a_network_that_diverged_counts_as_infinite():
    data = made(1e-5, 1e-4, 1e-4)
    for run in data["runs"]:
        if run["network"] == LSTM:
            run["mse"] = None
    assert report.mean(where(data["runs"], family="diffusion", network=LSTM), "mse") == np.inf
    found = report.outcomes(data)[f"spectral.beats/diffusion, {LSTM}"]
    assert (found.numbers["other_mse"], found.numbers["ratio"]) == (np.inf, 0)
