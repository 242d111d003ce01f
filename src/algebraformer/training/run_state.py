"""What a checkpoint of a run holds beside the network: the state of the optimisers and the counters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from algebraformer.checkpoint import CONFIG, CheckpointInfo, dump_json, load, pack, parse_arrays, parse_json, unpack
from algebraformer.errors import CheckpointError, ConfigurationError
from algebraformer.models import Algebraformer
from algebraformer.training.optim import flatten_state, make_optimizers, unflatten_state
from algebraformer.training.options import TrainResult
from algebraformer.training.recipes import Recipe

OPTIMIZERS, STATE, RNG = "optimizers.safetensors", "state.json", "rng"


@dataclasses.dataclass
class Counters:
    """How far a run is."""

    step: int = 0
    """Steps done."""
    skipped: int = 0
    """Steps without a finite gradient."""
    log_bytes: int = 0
    """Size of the log at the checkpoint."""
    seconds: float = 0.0
    """Time of the steps."""
    waited: float = 0.0
    """Part of it that was spent waiting for systems."""


def pack_run(
    model: Algebraformer, info: CheckpointInfo, optimizers: list[torch.optim.Optimizer], counters: Counters
) -> dict[str, bytes]:
    """Return the files of a checkpoint by name."""
    tensors = {RNG: torch.get_rng_state()}
    for number, optimizer in enumerate(optimizers):
        tensors |= flatten_state(optimizer, str(number))
    files = pack(model, info)
    files[OPTIMIZERS] = safetensors.torch.save(tensors)
    files[STATE] = dump_json(dataclasses.asdict(counters))
    return files


def unpack_run(
    files: Mapping[str, bytes], where: str, recipe: Recipe, output: Path, device: str
) -> tuple[Algebraformer, list[torch.optim.Optimizer], Counters]:
    """Return network, optimisers and counters from the files of a checkpoint; torch's random numbers go on from there.

    Parameters
    ----------
    files : mapping
        As `pack_run` returns them.
    where : str
        Where they come from, for messages.
    recipe : Recipe
    output : Path
        Folder of the run.
    device : str

    Raises
    ------
    CheckpointError
        Something is missing or makes no sense.
    ConfigurationError
        It is a checkpoint of another recipe.
    """
    model, info = unpack(files, where)
    if missing := [name for name in (OPTIMIZERS, STATE) if name not in files]:
        raise CheckpointError(f"{where}: {missing[0]} is missing, so training cannot go on from here")
    check_recipe(info, recipe, output)
    state = parse_json(files[STATE], f"{where}/{STATE}")
    arrays = parse_arrays(files[OPTIMIZERS], f"{where}/{OPTIMIZERS}")
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    model = model.to(device).train()
    optimizers = make_optimizers(model, recipe)
    try:
        step, skipped, log_bytes = (int(state[key]) for key in ("step", "skipped", "log_bytes"))
        counters = Counters(step, skipped, log_bytes, float(state["seconds"]), float(state["waited"]))
        torch.set_rng_state(tensors.pop(RNG))
        for number, optimizer in enumerate(optimizers):
            unflatten_state(optimizer, tensors, str(number))
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{where}: the state of the run is not complete ({error})") from error
    return model, optimizers, counters


def finished_run(recipe: Recipe, output: Path) -> TrainResult | None:
    """Return how the run in a folder ended if it is finished, else None.

    Raises `ConfigurationError` if it is one of another recipe.
    """
    if not (output / "model" / CONFIG).exists():
        return None
    try:
        info = load(output / "model")[1]
    except CheckpointError:
        return None  # made again from the newest checkpoint
    check_recipe(info, recipe, output)
    return TrainResult(folder=output, step=recipe.steps, finished=True, scores=info.scores)


def check_recipe(info: CheckpointInfo, recipe: Recipe, output: Path) -> None:
    """Raise `ConfigurationError` unless a checkpoint in this folder is one of a run of this recipe."""
    if dump_json(info.recipe) != dump_json(recipe.settings()):
        raise ConfigurationError(f"{output} holds a run of another recipe: choose another output folder")
