"""Fine-tuning: a network that knows one family learns another one from few of its systems."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from algebraformer.checkpoint import MODEL, read_folder, resolve, unpack
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer
from algebraformer.problems import ProblemFamily, get
from algebraformer.problems.custom import Sampler, as_family
from algebraformer.training.options import RunOptions, TrainResult
from algebraformer.training.recipes import FinetuneRecipe
from algebraformer.training.trainer import train

BATCH_SIZE = 50
"""Systems per step, if there are as many."""
INHERITED = (
    "optimizer", "lr", "muon_lr", "weight_decay", "beta1", "beta2", "clip", "validation_systems", "test_systems"
)  # fmt: skip
"""Settings that are taken from the recipe of the network to start from."""


def finetune(
    start: str | Path,
    family: str | ProblemFamily | type[ProblemFamily] | Sampler,
    samples: int,
    output: Path | str,
    options: RunOptions | None = None,
    name: str = "",
    **settings: Any,
) -> TrainResult:
    """Train a network further on N systems of another family, or go on with a run that stopped.

    Scaler or basis, read-out and calibration come from the N systems too: nothing that is learned depends on any other
    system of the family. The frozen validation set is looked at for the log, the frozen test set for the scores.

    Parameters
    ----------
    start : str or path
        Name of a shipped model, or folder of a checkpoint or of a run.
    family : str, ProblemFamily, class of one, or function
        Name of a family, which is then taken in the size of the network; or what `train` takes.
    samples : int
        Number N of systems.
    output : path
        Folder of the run; it becomes what the folder of `train` becomes.
    options : RunOptions
    name : str
        Name of the model; the family's name if empty.
    **settings
        As in `fine_tuning`: epochs, batch_size, rank and the fields of `FinetuneRecipe`.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigurationError
        The family has another size than the network, settings contradict each other, or the folder holds a run of
        another recipe.
    UnknownNameError
        There is no such model or family.

    Examples
    --------
    >>> import dataclasses, tempfile
    >>> from algebraformer.training import RECIPES, RunOptions, finetune, train
    >>> quiet = RunOptions(progress=False, workers=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     start = train(dataclasses.replace(RECIPES["quick"], steps=2), f"{folder}/start", quiet).folder
    ...     result = finetune(start, "reaction-diffusion", 20, f"{folder}/new", quiet, epochs=3, batch_size=10)
    >>> result.step, result.finished
    (6, True)
    """
    recipe, initial = fine_tuning(start, family, samples, **settings)
    return train(recipe, output, options, name, initial=initial)


def fine_tuning(
    start: str | Path,
    family: str | ProblemFamily | type[ProblemFamily] | Sampler,
    samples: int,
    *,
    epochs: int = 100,
    batch_size: int | None = None,
    rank: int | None = None,
    **settings: Any,
) -> tuple[FinetuneRecipe, Algebraformer]:
    """Return a recipe for fine-tuning and the network that it starts from.

    Parameters
    ----------
    start, family, samples
        As in `finetune`.
    epochs : int
        How often the steps go through the systems.
    batch_size : int, optional
        Systems per step; 50, or all of them where these are fewer.
    rank : int, optional
        Components of an operator head's basis in the end. As many as before; 64 more for an extended basis.
    **settings
        Fields of `FinetuneRecipe`. Optimiser and learning rates are those that the network was trained with, if not
        given.

    Returns
    -------
    recipe : FinetuneRecipe
        Its `start` says where the network comes from.
    initial : Algebraformer

    Raises
    ------
    ConfigurationError, UnknownNameError
        As in `finetune`.
    """
    folder = resolve(start)
    files = read_folder(folder)
    initial, info = unpack(files, str(folder))
    n = initial.config.n
    target = get(family, n=n) if isinstance(family, str) else as_family(family)
    if target.n != n:
        raise ConfigurationError(
            f"the model {info.name} has n = {n}, the family {target.name} has n = {target.n}: these must agree; "
            f"choose a model with n = {target.n}, or the family with n = {n}"
        )
    if not isinstance(epochs, int) or epochs < 1:
        raise ConfigurationError(f"epochs must be a whole number of at least 1, received {epochs!r}")
    known = {field.name for field in dataclasses.fields(FinetuneRecipe)} - {"family_settings", "steps"}
    if unknown := sorted(set(settings) - known):
        raise ConfigurationError(f"fine-tuning has no setting {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    model = settings.pop("model", initial.config)
    head = model.head.for_finetuning(n, samples, settings.get("basis", "refitted"), rank)
    model = dataclasses.replace(model, head=head)
    fields: dict[str, Any] = {"model": model, "batch_size": 1, "steps": 1}
    fields |= {key: info.recipe[key] for key in INHERITED if key in info.recipe} | settings
    about = {"name": info.name, "family": info.family, "recipe": info.recipe, "commit": info.commit}
    recipe = FinetuneRecipe(
        family=target.name,
        family_settings=target.own_settings(),
        samples=samples,
        start=about | {"sha256": hashlib.sha256(files[MODEL]).hexdigest()},
        **fields,
    )
    size = min(BATCH_SIZE, recipe.trained_on) if batch_size is None else batch_size
    steps = epochs * max(1, recipe.trained_on // max(1, size))
    return dataclasses.replace(recipe, batch_size=size, steps=steps), initial
