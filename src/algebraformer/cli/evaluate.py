"""The commands that score a model: `evaluate` and `assess`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from algebraformer.cli.output import DONE, emit, save_report, show_report
from algebraformer.cli.solve import refuse_tolerances
from algebraformer.errors import ConfigurationError
from algebraformer.writing import check_file, check_folder

if TYPE_CHECKING:
    from algebraformer.instruments import Model
    from algebraformer.problems import ProblemFamily
    from algebraformer.solver import LearnedSolver


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a model on held-out systems: the raw prediction, and the certified result after refinement and fallback.

    Estimates of noisy systems and networks for instruments are compared with classical methods instead.
    """

    model: tyro.conf.Positional[str] = "diffusion-64"
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    family: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE.py:NAME")] = None
    """Family of the systems, with its default settings; by default that of the model. A family of your own needs the
    file that defines it, which is executed."""
    count: int = 1000
    """Number of systems of the test set."""
    rtol: float | None = None
    """Tolerance on the relative residual, if less than a backward stable solution is needed."""
    max_refinements: int = 10
    """Maximum number of refinements of the network's solution."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file for the scores, with the command, the commit and the processor."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer import comparison, evaluation, problems
        from algebraformer.reporting import print_table, write_results
        from algebraformer.training.data import TEST_SEED

        if self.output is not None:
            check_file(self.output, folder_is_made=True)
        if inverts(self.model):
            return self.compare(inverter(self.model, self.family))
        solver, family = solver_and_family(self.model, self.family)
        estimator = solver.network.config.head.estimates
        if estimator and not isinstance(family, problems.NoisyFamily):
            raise ConfigurationError(
                f"model {self.model} is an estimator for noisy systems; family {family.name} is not noisy"
            )
        if not estimator and isinstance(family, problems.NoisyFamily):
            raise ConfigurationError(
                f"model {self.model} solves A x = b; family {family.name} is noisy and needs an estimator"
            )
        systems = family.sample(self.count, TEST_SEED)
        compared: dict[str, Any] = {}
        if estimator and isinstance(family, problems.NoisyFamily):
            refuse_tolerances(self)
            scores = evaluation.evaluate_estimates(solver, systems)
            compared = {"comparison": comparison.compare(lambda A, b: solver.predict(A, b), family, systems)}
        else:
            scores = evaluation.evaluate(solver, systems, self.rtol, self.max_refinements, family.is_linear_system)
        about = {"model": self.model, "family": family.settings(), "systems": self.count, "rtol": self.rtol}
        title = f"{self.model} on {self.count} systems of {family.name}"
        table = evaluation.table(scores, title)
        if self.output is not None:
            command = shlex.join(["algebraformer", *sys.argv[1:]])
            write_results(self.output, command=command, table=table, **about, **scores, **compared)
        if self.json:
            emit(about | scores | compared)
        else:
            print_table(table)
            if compared:
                print_table(comparison.comparison_table(compared["comparison"]))
        return DONE

    def compare(self, model: Model) -> int:
        """Score a network for an instrument."""
        from algebraformer.instruments import compare
        from algebraformer.reporting import in_json, write_report
        from algebraformer.training.monitor import Monitor

        refuse_tolerances(self, "which inverts measurements")
        with Monitor(not self.json) as monitor:
            report = compare(model, self.count, progress=monitor.part("measurements"))
        if self.output is not None:
            command = shlex.join(["algebraformer", *sys.argv[1:]])
            write_report(report, self.output, command, no_figure="No figure.")
        if self.json:
            about = {"model": self.model, "family": model.instrument.settings(), "systems": self.count}
            tables = {"tables": [table.settings() for table in report.tables]}
            emit(about | in_json(report.outcomes, report.conclusions) | tables)
        else:
            show_report(report, None)
        return DONE


def inverts(model: str) -> bool:
    """Say whether a model is a network for an instrument, by its config.json."""
    from algebraformer.checkpoint import CONFIG, parse_json, resolve
    from algebraformer.models.inversion import InversionConfig

    path = resolve(model) / CONFIG
    settings = parse_json(path.read_bytes(), str(path)).get("model")
    head = settings.get("head") if isinstance(settings, dict) else None
    return isinstance(head, dict) and head.get("name") == InversionConfig.name


def inverter(model: str, name: str | None) -> Model:
    """Return a network for an instrument; `name` is that of the instrument, or the file that defines it."""
    from algebraformer import instruments
    from algebraformer.problems.custom import names_a_file

    found = instruments.load(model, name if name is not None and names_a_file(name) else None)
    if name is not None and not names_a_file(name) and name != found.instrument.name:
        raise ConfigurationError(f"model {model} inverts {found.instrument.name}, received --family {name}")
    return found


@dataclasses.dataclass(frozen=True)
class Assess:
    """Assess whether a network is worth it for a family: accuracy, refinements, and time compared with LAPACK.

    For models with a head that is linear in b, and for estimators of noisy systems, whose errors are compared with
    those of classical estimates. With --output, the folder gets report.json, report.md and report.png.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    family: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE.py:NAME")] = None
    """Family of the systems, with its default settings; by default that of the model. A family of your own needs the
    file that defines it, which is executed."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the report."""
    json: bool = False
    """Print one JSON object instead of tables, and no progress bar."""

    def run(self) -> int:
        from algebraformer.assessment import assess
        from algebraformer.reporting import in_json
        from algebraformer.training.monitor import Monitor

        if self.output is not None:
            check_folder(self.output)
        solver, family = solver_and_family(self.model, self.family)
        with Monitor(not self.json) as monitor:
            report = assess(solver, family, progress=monitor.part("report"))
        path = None if self.output is None else save_report(report, self.output)
        if self.json:
            output = None if path is None else str(path)
            emit({"output": output, **in_json(report.outcomes, report.conclusions), **report.data})
        else:
            show_report(report, path)
        return DONE


def solver_and_family(model: str, name: str | None) -> tuple[LearnedSolver, ProblemFamily]:
    """Return a model and the family that the argument `family` of a command names, in the size of the model.

    A file is executed before the model is loaded: it may register the model's body, encoding or head as well. The
    model's own family keeps the settings of its training, also where a file is named to define it.
    """
    from algebraformer import problems
    from algebraformer.problems.custom import family_from_file, names_a_file
    from algebraformer.solver import LearnedSolver

    in_file = name is not None and names_a_file(name)
    if name is not None and in_file:
        name = family_from_file(name).name
    solver = LearnedSolver.from_pretrained(model)
    if name is None or (in_file and name == solver.info.family["name"]):
        return solver, solver.info.problem_family()
    return solver, problems.get(name, n=solver.n)
