"""Training runs that a study is made of: each in a folder of its own, and trained once, whatever stopped the study."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algebraformer.checkpoint import dump_json
from algebraformer.models import Algebraformer, OperatorConfig
from algebraformer.models.heads.operator import fit_basis
from algebraformer.models.inference.stored_basis import Basis
from algebraformer.solver import LearnedSolver
from algebraformer.training import FinetuneRecipe, Recipe, RunOptions, train
from algebraformer.training.data import training_data
from studies.harness.study import number


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run."""

    solver: LearnedSolver
    """Its network, with the scores on the frozen test set in `info.scores`."""
    seconds: float
    """Time of training and of computing the basis, if it has one."""

    @property
    def normalized_mse(self) -> float:
        """Score on the frozen test set, infinity if it is not finite."""
        return number(self.solver.info.scores.get("normalized_mse"))


def folder_name(*words: object) -> str:
    """Return words as the name of a folder: joined by hyphens, without commas and spaces.

    Examples
    --------
    >>> folder_name("LSTM, two directions", 0)
    'LSTM-two-directions-0'
    """
    return "-".join(map(str, words)).replace(",", "").replace(" ", "-")


Bases = dict[Any, tuple[Basis, float]]
"""Bases of operator heads, and the seconds that each took, by what they depend on."""


def shared_basis(recipe: Recipe, bases: Bases) -> tuple[Basis, float]:
    """Return the basis that training would compute, and its seconds, from `bases` if it is there."""
    head, sample = OperatorConfig.of(recipe.model), training_data(recipe).basis
    key = head, sample
    if key not in bases:
        begin = time.monotonic()
        bases[key] = fit_basis(head, sample), time.monotonic() - begin
    return bases[key]


def run_once(
    recipe: Recipe,
    output: Path,
    basis: Callable[[], tuple[Basis, float]] | None = None,
    initial: Algebraformer | None = None,
    device: str = "cpu",
) -> Trained:
    """Train one network to the end of its schedule, unless it is trained already.

    Parameters
    ----------
    recipe : Recipe
    output : Path
        Folder of the run.
    basis : callable, optional
        Returns the basis of an operator head and the seconds that it took; asked for only if there is something to
        train.
    initial : Algebraformer, optional
        The network that a recipe of `FinetuneRecipe` starts from.
    device : str
        On a GPU the networks are computed in bfloat16; but for operator heads, whose coefficients have more digits.

    Raises
    ------
    ConfigurationError
        The folder holds a run of another recipe.
    KeyboardInterrupt
        A signal stopped the training; the same call resumes it.
    """
    record = output / "seconds.json"
    seconds: dict[str, float] = json.loads(record.read_text()) if record.exists() else {"training": 0.0, "basis": 0.0}
    finished = record.exists() and (output / "model" / "config.json").exists()
    if not finished or dump_json(LearnedSolver.from_pretrained(output).info.recipe) != dump_json(recipe.settings()):
        given = None
        if basis is not None:
            given, seconds["basis"] = basis()
        workers = 0 if isinstance(recipe, FinetuneRecipe) else os.cpu_count() or 1  # few systems are made in a moment
        autocast = device.startswith("cuda") and not recipe.model.head.is_linear
        options = RunOptions(progress=False, workers=workers, validate_every=10**9, device=device, autocast=autocast)
        begin = time.monotonic()
        result = train(recipe, output, options, basis=given, initial=initial)
        seconds["training"] += time.monotonic() - begin
        record.write_text(json.dumps(seconds))
        if not result.finished:
            raise KeyboardInterrupt(f"{output} was stopped: the same command resumes it")
    return Trained(LearnedSolver.from_pretrained(output), sum(seconds.values()))


def computed_once(path: Path, settings: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """Return what `compute` returns, plain JSON values; from a file if it was computed with these settings before."""
    if path.exists():
        known = json.loads(path.read_text())
        if known.keys() == {"settings", "found"} and dump_json(known["settings"]) == dump_json(settings):
            return known["found"]
    found = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")  # whatever stops the writing leaves no half a file
    part.write_text(json.dumps({"settings": settings, "found": found}, allow_nan=False))
    part.replace(path)
    return found
