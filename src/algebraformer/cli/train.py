"""The commands that train networks."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from algebraformer.cli.output import DONE, INTERRUPTED, emit, show
from algebraformer.training.recipes import Basis, Recipe, Scaler, get_recipe
from algebraformer.writing import check_folder

if TYPE_CHECKING:
    from algebraformer.problems import ProblemFamily
    from algebraformer.progress import ProgressCallback
    from algebraformer.reporting import Report
    from algebraformer.training.options import RunOptions, TrainResult

SomeRecipe = TypeVar("SomeRecipe", bound=Recipe)


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a network by a named recipe, or for a family of your own; --set changes every setting of the recipe.

    For FILE.py:NAME, a family or a function that samples A, the recipe is made, and the folder of the run also gets a
    report on whether the network is worth it; on noisy systems there is none, and evaluate scores the estimates. A run
    that was stopped (Ctrl-C, SIGTERM, a crash) goes on when the same command is given again.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|FILE.py:NAME")]
    """Name of a recipe, `algebraformer models` lists them; or a family in a Python file, which is executed."""
    output: Path
    """Folder of the run: log.jsonl, checkpoints, and model/ at the end; for a family of your own also report.md."""
    name: str = ""
    """Name of the model, recorded in its checkpoints; that of the recipe or the family if not given."""
    set: tuple[str, ...] = ()
    """Changes to the recipe, as name=value: steps=500 model.n_layer=2 family=reaction-diffusion
    family_settings.alpha=[0,0.5]. Values are JSON."""
    device: str = "cpu"
    """Device of torch, for instance cuda."""
    autocast: bool = False
    """Compute in bfloat16 where that is safe; CUDA only."""
    compile: bool = False
    """Compile the network with torch.compile."""
    workers: int = 1
    """Processes that make training systems in the background."""
    json: bool = False
    """Print one JSON object at the end and no progress bar."""

    def run(self) -> int:
        from algebraformer.problems.custom import names_a_file
        from algebraformer.reporting import print_table
        from algebraformer.training.monitor import Monitor
        from algebraformer.training.trainer import train

        check_folder(self.output)
        own = names_a_file(self.recipe)
        with Monitor(not self.json) as monitor:
            part = monitor.part("spectrum")
            recipe = own_recipe(self.recipe, self.set, part) if own else changed(get_recipe(self.recipe), self.set)
        options = run_options(self)
        fresh, begin = not self.output.exists(), time.monotonic()
        result = train(recipe, self.output, options, self.name or (recipe.family if own else self.recipe))
        report = None
        if result.finished and own and recipe.model.head.is_linear:
            seconds = time.monotonic() - begin if fresh else None
            with Monitor(not self.json) as monitor:
                report = self._report(seconds, monitor.part("report"))
        if self.json:
            emit(
                as_json(result) | ({} if report is None else {"report": str(self._file), "verdict": [*report.verdict]})
            )
        else:
            tell(result, recipe)
        if report is not None and not self.json:
            for table in report.tables:
                print_table(table)
            print("\n".join([*report.verdict, f"Report: {self._file.with_suffix('.md')}"]))
        elif result.finished and own and not self.json:
            print(f"No report on noisy systems: algebraformer evaluate {self.output} --family {self.recipe} scores it")
        return DONE if result.finished else INTERRUPTED

    @property
    def _file(self) -> Path:
        """Where the report is written to."""
        return self.output / "report.json"

    def _report(self, training_seconds: float | None, progress: ProgressCallback) -> Report:
        """Measure whether the network is worth it, and write the report into the folder of the run."""
        from algebraformer import plotting
        from algebraformer.assessment import measure

        report = measure(self.output, training_seconds=training_seconds, progress=progress)
        plotting.save_report(report, self.output, shlex.join(["algebraformer", *sys.argv[1:]]))
        return report


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Train a model further on few systems of another family.

    Scaler or basis, read-out and calibration come from these systems too. A run that was stopped goes on when the same
    command is given again.
    """

    start: Annotated[str, tyro.conf.arg(name="from", metavar="MODEL")]
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    family: Annotated[str, tyro.conf.arg(metavar="NAME|FILE.py:NAME")]
    """The new family, of the size of the model; or one in a Python file, which is executed."""
    samples: int
    """Number of systems of this family that are learned from."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run: log.jsonl, checkpoints, and model/ at the end."""
    epochs: int = 100
    """How often the systems are gone through."""
    batch_size: int | None = None
    """Systems per step; 50, or all of them where these are fewer, if not given."""
    scaler: Scaler = "refitted"
    """What becomes of a token head's scaling and z-scores: refitted on the systems, or kept."""
    basis: Basis = "refitted"
    """What becomes of an operator head's basis and reading: refitted on the systems; extended by what it leaves of
    them; or kept."""
    rank: int | None = None
    """Components of an operator head's basis in the end; as many as before, 64 more where it is extended."""
    layer_decay: float = 1.0
    """Factor by which learning rates fall from each layer to the one before it."""
    frozen: int = 0
    """Number of first blocks that stay as they are; with them the embedding."""
    name: str = ""
    """Name of the new model, recorded in its checkpoints; that of the family if not given."""
    set: tuple[str, ...] = ()
    """Other changes to the recipe, as name=value: lr=3e-4 seed=1 family_settings.s=[0,5]. Values are JSON."""
    device: str = "cpu"
    """Device of torch, for instance cuda."""
    autocast: bool = False
    """Compute in bfloat16 where that is safe; CUDA only."""
    compile: bool = False
    """Compile the network with torch.compile."""
    workers: int = 1
    """Processes that make training systems in the background."""
    json: bool = False
    """Print one JSON object at the end and no progress bar."""

    def run(self) -> int:
        from algebraformer.problems.custom import names_a_file
        from algebraformer.training.finetuning import fine_tuning
        from algebraformer.training.trainer import train

        check_folder(self.output)
        names = ("epochs", "batch_size", "scaler", "basis", "rank", "layer_decay", "frozen")
        family = own_family(self.family, self.set) if names_a_file(self.family) else self.family
        recipe, initial = fine_tuning(self.start, family, self.samples, **{name: getattr(self, name) for name in names})
        recipe = changed(recipe, self.set)
        result = train(recipe, self.output, run_options(self), self.name, initial=initial)
        if self.json:
            emit(as_json(result))
        else:
            tell(result, recipe)
        return DONE if result.finished else INTERRUPTED


def run_options(command: Train | Finetune) -> RunOptions:
    """Return how the run of a command is carried out."""
    from algebraformer.training.options import RunOptions

    check_device(command.device)
    names = ("device", "autocast", "compile", "workers")
    return RunOptions(progress=not command.json, **{name: getattr(command, name) for name in names})


def tell(result: TrainResult, recipe: Recipe) -> None:
    """Tell a person how a run ended."""
    if result.finished:
        scores = [list(score) for score in result.scores.items()]
        show(f"{result.folder} on the frozen test set", ("measure", "value"), scores)
    else:
        print(f"Stopped at step {result.step} of {recipe.steps}; the same command goes on from there.")


def as_json(result: TrainResult) -> dict[str, Any]:
    """Return how a run ended as plain JSON values."""
    return {**dataclasses.asdict(result), "folder": str(result.folder)}


def own_family(source: str, changes: Sequence[str]) -> ProblemFamily:
    """Return the family in a Python file with the changes of its settings and its n."""
    from algebraformer.models.config import ModelConfig
    from algebraformer.problems import NoisyFamily
    from algebraformer.problems.custom import family_from_file
    from algebraformer.training.automatic import estimate_network

    family = family_from_file(source)
    names, model = ["model.n=", "family_settings."], ModelConfig(n=family.n)
    if isinstance(family, NoisyFamily):
        names, model = [*names, "model.head.n_equations="], estimate_network(family)
    plain = Recipe(family=family.name, family_settings=family.own_settings(), model=model)
    of_family = [change for change in changes if change.startswith(tuple(names))]
    family = changed(plain, of_family).problem_family()
    family.sample(2)
    return family


def own_recipe(source: str, changes: Sequence[str], progress: ProgressCallback) -> Recipe:
    """Return the recipe for a family in a Python file; its settings and n are changed before its rank is read."""
    from algebraformer.problems import NoisyFamily
    from algebraformer.training.automatic import recipe_for

    family = own_family(source, changes)
    similar = get_recipe("deblur-64" if isinstance(family, NoisyFamily) else "diffusion-64-mlp")
    with_changes(similar.settings(), changes)  # names that do not exist, before the spectrum takes its time
    return changed(recipe_for(family, progress), changes)


def changed(recipe: SomeRecipe, changes: Sequence[str]) -> SomeRecipe:
    """Return the recipe with name=value changes; values are JSON, or text where they are not valid JSON."""
    from algebraformer.models.config import ModelConfig

    fields = with_changes(recipe.settings(), changes)
    return type(recipe)(**fields | {"model": ModelConfig(**fields["model"])})


def with_changes(fields: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a recipe, which are changed, after the changes; `ConfigurationError` for unknown names."""
    from algebraformer.errors import ConfigurationError

    for change in changes:
        path, equals, text = change.partition("=")
        *parents, last = path.split(".")
        target: Any = fields
        for parent in parents:
            target = target.get(parent) if isinstance(target, dict) else None
        if not equals or not isinstance(target, dict) or (last not in target and parents != ["family_settings"]):
            raise ConfigurationError(f"--set expects name=value with a name of the recipe, received {change!r}")
        try:
            target[last] = json.loads(text)
        except json.JSONDecodeError:
            target[last] = text
    return fields


def check_device(device: str) -> None:
    """Raise `ConfigurationError` if torch cannot use the device."""
    import torch

    from algebraformer.errors import ConfigurationError

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used: {error}") from error
