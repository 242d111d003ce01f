"""The learned solvers of noisy systems that several studies measure: shipped ones, or trained in the study's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from algebraformer.checkpoint import pretrained_names
from algebraformer.models import EstimateConfig, ModelConfig
from algebraformer.solver import LearnedSolver
from algebraformer.training import Recipe
from studies.harness.runs import run_once

Models = Mapping[str, str | Recipe]
"""Model of a family: the name of a shipped one, or a recipe."""


def small(family: str) -> Recipe:
    """Return a recipe of a few seconds, for the presets quick."""
    model = ModelConfig(
        n=12, architecture="feedback", head=EstimateConfig(encoding="column-tikhonov"), n_layer=1, n_head=2, n_embd=16
    )
    return Recipe(family=family, model=model, steps=30, batch_size=16)


def learned_solvers(models: Models, folder: Path) -> dict[str, LearnedSolver]:
    """Return the solvers that ship or are trained, by family."""
    shipped = pretrained_names()
    solvers = {}
    for family, model in models.items():
        if isinstance(model, Recipe):
            solvers[family] = run_once(model, folder / f"model-{family}").solver
        elif model in shipped:
            solvers[family] = LearnedSolver.from_pretrained(model)
    return solvers


def described(models: Models, solvers: Mapping[str, LearnedSolver]) -> dict[str, str | None]:
    """Return the name of every solver, None for those that do not ship."""
    return {family: solvers[family].info.name if family in solvers else None for family in models}
