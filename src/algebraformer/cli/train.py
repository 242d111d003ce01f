"""The commands that train networks."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from algebraformer.cli.output import DONE, INTERRUPTED, emit, save_report, show, show_report
from algebraformer.cli.time_limit import time_limit
from algebraformer.extras import require_torch
from algebraformer.models.inversion import InversionConfig
from algebraformer.training.processes import Processes, joined
from algebraformer.training.recipes import Basis, Recipe, Scaler, get_recipe
from algebraformer.writing import check_folder

if TYPE_CHECKING:
    from algebraformer.problems import ProblemFamily
    from algebraformer.progress import ProgressCallback
    from algebraformer.training.options import RunOptions, TrainResult

SomeRecipe = TypeVar("SomeRecipe", bound=Recipe)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Options that the commands have in common."""

    name: str = ""
    """Name of the model, recorded in its checkpoints; by default that of the recipe or of the family."""
    set: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=VALUE ...]")
    ] = ()
    """Changes to the recipe, as name=value: steps=500 model.n_layer=2 family_settings.alpha=[0,0.5]. Values are
    JSON. May be given several times; of changes to the same name the last one counts."""
    device: str = "cpu"
    """Device of torch, for instance cuda; with several processes one GPU each."""
    autocast: bool = False
    """Compute in bfloat16 where that is safe; CUDA only."""
    compile: bool = False
    """Compile the network with torch.compile."""
    workers: int = 1
    """Background processes that generate training systems."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None
    """Stop after this time as after Ctrl-C; the same command resumes."""
    json: bool = False
    """Print one JSON object at the end and no progress bar."""

    def run(self) -> int:
        require_torch("training")
        with time_limit(self.time_limit), joined(self.device) as processes:
            return self.train(processes)

    def train(self, processes: Processes) -> int:
        """Train, and return the exit code; of several processes the first one alone prints and writes."""
        raise NotImplementedError

    @property
    def changes(self) -> tuple[str, ...]:
        """What all --set say, in their order."""
        return tuple(itertools.chain.from_iterable(self.set))

    def options(self) -> RunOptions:
        """Return the options of the run."""
        from algebraformer.training.options import RunOptions

        names = ("device", "autocast", "compile", "workers")
        return RunOptions(progress=not self.json, **{name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(RunFlags):
    """Train a network by a named recipe, or on your own problem; --set changes any setting of the recipe.

    For FILE.py:NAME, a family, an instrument or a function that samples A, the recipe is chosen automatically, and the
    folder of the run also gets a report on whether the network is worth it (for linear heads, noisy systems and
    instruments; for others use evaluate). A run that was stopped (Ctrl-C, SIGTERM, a crash) resumes when the same
    command is given again.

    torchrun --nproc-per-node N -m algebraformer train ... shares every batch among N processes.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE|FILE.py:NAME")]
    """Name of a recipe (`algebraformer models` lists them), or a family in a Python file, which is executed."""
    output: Path
    """Folder of the run: log.jsonl, checkpoints, and model/ at the end; for a family of your own also report.md."""

    def train(self, processes: Processes) -> int:
        from algebraformer.problems.custom import names_a_file
        from algebraformer.reporting import in_json
        from algebraformer.training.monitor import Monitor
        from algebraformer.training.trainer import train

        shown = processes.first and not self.json
        if processes.first:
            check_folder(self.output)
        from_file = names_a_file(self.recipe)
        with Monitor(shown) as monitor:
            if from_file:
                recipe = recipe_for_file(self.recipe, self.changes, monitor.part("spectrum"), processes)
            else:
                recipe = changed(get_recipe(self.recipe), self.changes)
        options = self.options()
        fresh, begin = not self.output.exists(), time.monotonic()
        result = train(recipe, self.output, options, self.name or (recipe.family if from_file else self.recipe))
        if not processes.first:
            return DONE if result.finished else INTERRUPTED
        report, path = None, None
        if result.finished and from_file:
            with Monitor(shown) as monitor:
                seconds, part = time.monotonic() - begin if fresh else None, monitor.part("report")
                if recipe.model.head.is_linear or recipe.model.head.estimates:
                    from algebraformer.assessment import assess

                    report = assess(self.output, training_seconds=seconds, progress=part)
                    path = save_report(report, self.output)
                elif isinstance(recipe.model.head, InversionConfig):
                    from algebraformer.instruments import compare, load
                    from algebraformer.instruments.figure import comparison_figure

                    report = compare(load(self.output), progress=part)
                    path = save_report(report, self.output, comparison_figure)
        if self.json:
            about = {} if report is None else {"report": str(path)} | in_json(report.outcomes, report.conclusions)
            emit(as_json(result) | about)
            return DONE if result.finished else INTERRUPTED
        show_result(result, recipe)
        if report is not None:
            show_report(report, path)
        elif result.finished and from_file:
            why = f"Heads that are not linear in b, such as {recipe.model.head.name},"
            print(f"{why} have no report: algebraformer evaluate {self.output} --family {self.recipe} scores it")
        return DONE if result.finished else INTERRUPTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetune(RunFlags):
    """Train a model further on a few systems of another family.

    Scaler or basis, read-out and calibration are fitted to these systems, too. A run that was stopped resumes when the
    same command is given again.
    """

    start: Annotated[str, tyro.conf.arg(name="from", metavar="MODEL")]
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    family: Annotated[str, tyro.conf.arg(metavar="NAME|FILE.py:NAME")]
    """The new family, of the size of the model; or one in a Python file, which is executed."""
    samples: int
    """Number of systems of this family to learn from."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run: log.jsonl, checkpoints, and model/ at the end."""
    epochs: int = 100
    """Passes over the systems."""
    batch_size: int | None = None
    """Systems per step; by default 50, or all of them if there are fewer."""
    scaler: Scaler = "refitted"
    """Scaling and z-scores of a token head: refitted on the systems, or kept."""
    basis: Basis = "refitted"
    """Basis and read entries of an operator head: refitted on the systems; extended by components for their remainder;
    or kept."""
    rank: int | None = None
    """Final number of basis components of an operator head; by default unchanged, or 64 more if extended."""
    layer_decay: float = 1.0
    """Factor between the learning rates of a layer and the next one."""
    frozen: int = 0
    """Number of leading blocks that are frozen, and with them the embedding."""

    def train(self, processes: Processes) -> int:
        from algebraformer.problems.custom import names_a_file
        from algebraformer.training.finetuning import fine_tuning
        from algebraformer.training.trainer import train

        if processes.first:
            check_folder(self.output)
        names = ("epochs", "batch_size", "scaler", "basis", "rank", "layer_decay", "frozen")
        family = family_in_file(self.family, self.changes) if names_a_file(self.family) else self.family
        recipe, initial = fine_tuning(self.start, family, self.samples, **{name: getattr(self, name) for name in names})
        recipe = changed(recipe, self.changes)
        result = train(recipe, self.output, self.options(), self.name, initial=initial)
        if self.json and processes.first:
            emit(as_json(result))
        elif processes.first:
            show_result(result, recipe)
        return DONE if result.finished else INTERRUPTED


def show_result(result: TrainResult, recipe: Recipe) -> None:
    """Print the scores of a finished run, or where it stopped."""
    if result.finished:
        scores = [list(score) for score in result.scores.items()]
        show(f"{result.folder} on the frozen test set", ("measure", "value"), scores)
    else:
        print(f"Stopped at step {result.step} of {recipe.steps}; the same command resumes from there.")


def as_json(result: TrainResult) -> dict[str, Any]:
    """Return the result of a run as plain JSON values."""
    return {**dataclasses.asdict(result), "folder": str(result.folder)}


def family_in_file(source: str, changes: Sequence[str]) -> ProblemFamily:
    """Return the family in a Python file, with its settings and its n changed."""
    from algebraformer.models.config import ModelConfig
    from algebraformer.problems import Instrument, NoisyFamily
    from algebraformer.problems.custom import family_from_file
    from algebraformer.training.automatic import estimate_network
    from algebraformer.training.inversion import inversion_network

    family = family_from_file(source)
    names, model = ["model.n=", "family_settings."], ModelConfig(n=family.n)
    if isinstance(family, NoisyFamily):
        names, model = [*names, "model.head.n_equations="], estimate_network(family)
    if isinstance(family, Instrument):
        names, model = [*names, "model.head.n_equations="], inversion_network(family)
    plain = Recipe(family=family.name, family_settings=family.own_settings(), model=model)
    of_family = [change for change in changes if change.startswith(tuple(names))]
    family = changed(plain, of_family).problem_family()
    family.sample(2)
    return family


def recipe_for_file(source: str, changes: Sequence[str], progress: ProgressCallback, processes: Processes) -> Recipe:
    """Return the recipe for a family in a Python file; its settings and n are changed before the spectrum is taken.

    What is measured for it the first process measures alone: the others might find something else.
    """
    from algebraformer.problems import Instrument, NoisyFamily
    from algebraformer.training.automatic import recipe_for

    family = family_in_file(source, changes)
    kinds = {Instrument: "deer", NoisyFamily: "deblur-64"}
    similar = get_recipe(next((name for kind, name in kinds.items() if isinstance(family, kind)), "diffusion-64-mlp"))
    with_changes(similar.settings(), changes)  # unknown names, before the spectrum is computed
    return changed(processes.from_first(lambda: recipe_for(family, progress)), changes)


def changed(recipe: SomeRecipe, changes: Sequence[str]) -> SomeRecipe:
    """Return the recipe with name=value changes; values are JSON, or text where they are not valid JSON."""
    from algebraformer.models.config import ModelConfig

    fields = with_changes(recipe.settings(), changes)
    return type(recipe)(**fields | {"model": ModelConfig(**fields["model"])})


def with_changes(fields: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Change the settings of a recipe in place and return them; `ConfigurationError` for unknown names."""
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
