"""Fixtures that several test files share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

pytest.register_assert_rewrite("files", "study_results")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks run faster on one thread, and runs are bit-identical only for equal numbers of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: diffusion, n = 8, a few seconds. Its model/ is a checkpoint that learned."""
    from algebraformer.models import ModelConfig
    from algebraformer.training import Recipe, RunOptions, train

    recipe = Recipe(model=ModelConfig(n=8, n_layer=2, n_head=2, n_embd=32), steps=200, batch_size=32)
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    result = train(recipe, folder, RunOptions(progress=False, workers=0, log_every=1, validate_every=100))
    assert result.finished
    return folder


@pytest.fixture(scope="session")
def operator_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with an operator head: diffusion, n = 16, a few seconds. It solves most systems."""
    from algebraformer.models import ModelConfig, OperatorConfig
    from algebraformer.training import Recipe, RunOptions, train

    model = ModelConfig(
        n=16, architecture="mlp", head=OperatorConfig(rank=32, n_column=8, n_row=8), n_layer=3, n_embd=64
    )
    recipe = Recipe(model=model, samples=8_192, steps=600, batch_size=64, lr=3e-3)
    folder = tmp_path_factory.mktemp("runs") / "operator"
    with threadpool_limits(1, "blas"):  # another number of threads rounds differently, and trains another network
        assert train(recipe, folder, RunOptions(progress=False, workers=0)).finished
    return folder


@pytest.fixture(scope="session")
def estimate_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with an estimate head: deblur, n = 12 of which 15 are measured, a few seconds."""
    from algebraformer.models import EstimateConfig, ModelConfig
    from algebraformer.training import Recipe, RunOptions, train

    model = ModelConfig(
        n=12,
        architecture="feedback",
        head=EstimateConfig(encoding="column-tikhonov", n_equations=15),
        n_layer=2,
        n_head=2,
        n_embd=24,
    )
    settings = {"m": 15, "width": [0.08, 0.16], "priors": ["piecewise", "smooth"]}
    recipe = Recipe(
        family="deblur",
        family_settings=settings,
        model=model,
        steps=150,
        batch_size=32,
        lr=3e-3,
        scaler_samples=1024,
        calibration_samples=1024,
    )
    folder = tmp_path_factory.mktemp("runs") / "estimate"
    with threadpool_limits(1, "blas"):
        assert train(recipe, folder, RunOptions(progress=False, workers=0)).finished
    return folder


# ---------------------------------------------------------------- commands

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; return its exit code, stdout (a table without its line ends) and stderr."""
    from algebraformer import cli

    monkeypatch.setenv("COLUMNS", "200")

    def called(*arguments: object) -> tuple[int, str, str]:
        try:
            code: Any = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out if "--json" in arguments else " ".join(out.split()), err

    return called


@pytest.fixture
def answer(run: Run) -> Callable[..., tuple[int, Any]]:
    """Run a command with --json; return its exit code and what it printed."""

    def called(*arguments: object) -> tuple[int, Any]:
        code, out, err = run(*arguments, "--json")
        assert err == ""
        assert out.count("\n") == 1
        return code, json.loads(out, parse_constant=pytest.fail)

    return called


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    """Run a command that must exit with 2 and one line on stderr; return that line."""

    def called(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("algebraformer: ")
        assert err.count("\n") == 1
        return err

    return called
