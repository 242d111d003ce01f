"""The study of what a network should read."""

from __future__ import annotations

import numpy as np
import pytest
from rich.progress import Progress

from algebraformer.models.inference.network import parameter_count
from algebraformer.reporting import Report, Verdict
from studies import reading
from studies.harness.study import load_study, run_study


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_study(load_study("reading"), "quick", tmp_path_factory.mktemp("reading"), Progress(disable=True))


def test_every_network_is_trained(quick: Report) -> None:
    assert len(quick.data["runs"]) == 7
    assert all(np.isfinite(run["normalized_mse"]) for run in quick.data["runs"])
    assert all(run["steps"] > 1 for run in quick.data["runs"])


@pytest.mark.parametrize("preset", ["quick", "cpu"])
def test_networks_have_as_many_parameters(preset: str) -> None:
    counts = [parameter_count(model) for model in reading.networks(reading.PRESETS[preset]).values()]
    assert max(counts) < 1.25 * min(counts)


def made_up(carrier: float, rival: float) -> dict[str, object]:
    errors = {("carrier", "P A"): carrier, ("Transformer", "A"): 0.1, ("Transformer", "P A"): 0.05}
    errors |= {(reading.RECURRENT[0], "A"): 2 * rival, (reading.RECURRENT[1], "P A"): rival}
    runs = [
        {
            "family": "diffusion",
            "network": network,
            "reads": reads,
            "seed": seed,
            "normalized_mse": error * (1 + seed / 10),
        }
        for (network, reads), error in errors.items()
        for seed, grown in enumerate((1, 1.1))
    ]
    return {"runs": runs}


@pytest.mark.parametrize(
    ("carrier", "verdict"), [(0.01, Verdict.MET), (0.0195, Verdict.MISSED), (0.03, Verdict.MISSED)]
)
def test_outcomes_follow_the_numbers(carrier: float, verdict: Verdict) -> None:
    """Below with every seed, not in the mean alone."""
    found = reading.outcomes(made_up(carrier, rival=0.02))
    assert found["reading.carrier/diffusion"].verdict == verdict
    assert found["reading.carrier/diffusion"].numbers["ratio"] == pytest.approx(carrier / 0.02)
    assert found["reading.transformer/diffusion"].verdict == Verdict.MISSED
    assert found["reading.preconditioned/diffusion"].numbers["gain"] == pytest.approx(2)
