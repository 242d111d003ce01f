"""The study at its preset quick, and its sentences on made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rich.progress import Progress

from algebraformer.models import Algebraformer
from algebraformer.problems import get
from algebraformer.training.data import TEST_SEED
from studies.efficiency import measure as efficiency
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
            step = sum(efficiency.flops(recipe).values()) / recipe.steps
            assert abs(sum(efficiency.flops(recipe).values()) - plan.flops) < max(step, 0.02 * plan.flops), name
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
    ("numbers", "words"),
    [
        (
            (1e-5, 1e-4, 1e-4),
            [
                "0.1 of that of LSTM",
                "reproduced at smaller scale",
                "target of 2.4e-05 is met",
                "token head is better at",
            ],
        ),
        (
            (6e-5, 1e-4, 1e-4),
            [
                "better, but not by as much",
                "target of 2.4e-05 is missed",
                "the token head's is 1.2 of that: the recurrent network is better",
            ],
        ),
        ((2e-4, 1e-4, 1e-4), ["not reproduced"]),
    ],
)
def test_verdict(numbers, words):
    data = made(*numbers)
    lines = report.verdict(data, ["diffusion"], TOKEN, spectral.GOALS, spectral.MSE_GOALS, (BILSTM, BIGRU))
    text = " ".join(lines)
    for word in words:
        assert word in text
    assert ("not reproduced" in text) == (numbers[0] > numbers[1])
    assert "operator head, mse 1e-08; the target of 2.4e-07 is met" in text
    assert "is 4 times with 100" in text


def test_extrapolation_is_a_power_law():
    assert report.extrapolated(made(1.0, 1.0, 1.0)) == pytest.approx(1e-4)


def test_a_network_that_diverged_counts_as_infinite():
    data = made(1e-5, 1e-4, 1e-4)
    for run in data["runs"]:
        if run["network"] == LSTM:
            run["mse"] = None
    assert report.mean(where(data["runs"], family="diffusion", network=LSTM), "mse") == np.inf
    assert report.verdict(data, ["diffusion"], TOKEN, spectral.GOALS, {}, (BILSTM,))[0].count("inf")
