"""The command line. Importing this module must stay cheap: torch and SciPy are imported by the commands that use them.

Exit codes: 0 done, for `solve` certified, for `newton` converged; 1 not solved; 2 bad input, with one line on stderr;
3 solved by LAPACK; 130 interrupted (by `__main__`).
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from algebraformer.cli.estimate import estimate, refuse_tolerances
from algebraformer.cli.files import FormatName, read_system
from algebraformer.cli.newton import Newton
from algebraformer.cli.output import (
    BAD_INPUT,
    DONE,
    FALLBACK,
    NOT_SOLVED,
    check_figure,
    check_output,
    collected_warnings,
    emit,
    every,
    paths,
    show,
    show_paths,
    show_rows,
    warnings_on_stderr,
)
from algebraformer.cli.study import Study
from algebraformer.cli.train import Finetune, Train
from algebraformer.errors import AlgebraformerError, ConfigurationError, SingularSystemError
from algebraformer.provenance import versions
from algebraformer.training.config import RECIPES
from algebraformer.writing import check_file


@dataclasses.dataclass(frozen=True)
class Solve:
    """Solve A x = b from files and say how good the answer is.

    Files: .npy, .npz, .mtx, .mtx.gz, .mat. Without the second file, the first one (.npz or .mat) holds A and b.
    FILE:NAME names a variable, - is standard input. A batch has A of shape (B, n, n). Exit codes: 0 certified, 3
    solved by LAPACK, 1 not solved, 2 bad input. A model that estimates x from noisy b gives a mean with a standard
    deviation instead; exit codes: 0 consistent with the noise level and in distribution, 3 not, 2 bad input.
    """

    A: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")]
    """File with the matrix."""
    b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE[:NAME]")] = None
    """File with the right-hand side."""
    format: FormatName | None = None
    """Format of standard input."""
    model: str = "diffusion-64"
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    rtol: float | None = None
    """Tolerance on the relative residual, for callers who need less than a backward stable answer."""
    max_refinements: int = 10
    """Largest number of refinements of the learned answer."""
    fallback: bool = True
    """Give what the network cannot solve to LAPACK."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File that x is written to; its ending decides the format."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for a PNG of x with its 90 % band; models that estimate only."""
    max_bytes: int = 2**31
    """Largest array, and largest standard input, that is read, in bytes."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        check_output(self.output)
        from algebraformer import io

        check_figure(self.figure)
        A, b = read_system(self)
        from algebraformer.solver import LearnedSolver  # torch, which takes seconds: not before the files are read

        solver = LearnedSolver.from_pretrained(self.model)
        if solver.model.config.head == "estimate":
            return estimate(self, solver, A, b)
        if self.figure is not None:
            raise ConfigurationError(f"figure is for models that estimate from noisy systems; {self.model} solves")
        with collected_warnings() as warned:
            try:
                result = solver.solve(A, b, self.rtol, self.max_refinements, self.fallback)
            except SingularSystemError as error:
                result = error.result
                print(f"algebraformer: {error}", file=sys.stderr)
        if self.output is not None:
            io.write_array(self.output, result.x)
        record = result.record() | {
            "n": int(A.shape[-1]),
            "model": self.model,
            "warnings": warned,
            **paths(self, "output"),
        }
        if self.json:
            emit(record)
        else:
            names = ("method", "refinements", "relative_residual", "backward_error", "certified", "status")
            show_rows(f"{self.A}, n = {record['n']}, model {self.model}", "system", names, record)
            print(result.explain())
            show_paths(self)
        if not every(record["certified"]):
            return NOT_SOLVED
        return FALLBACK if "lapack" in record["method"] else DONE


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a model on systems it has never seen: the bare network, and what becomes of its answers in solve."""

    model: tyro.conf.Positional[str] = "diffusion-64"
    """Name of a shipped model, or folder of a checkpoint or of a training run."""
    family: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE.py:NAME")] = None
    """Family of the systems, with its default settings; the model's own if not given. A model of your own family needs
    the file that defines it, which is executed."""
    count: int = 1000
    """Number of systems, from the frozen test set on."""
    rtol: float | None = None
    """Tolerance on the relative residual, for callers who need less than a backward stable answer."""
    max_refinements: int = 10
    """Largest number of refinements of the learned answer."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File that the scores are written to as JSON, with the command and where it ran."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer import evaluation, problems
        from algebraformer.reporting import print_table, write_results
        from algebraformer.solver import LearnedSolver
        from algebraformer.training.data import TEST_SEED
        from algebraformer.training.from_file import family_from_file, names_a_file

        if self.output is not None:
            check_file(self.output, folder_is_made=True)
        solver = LearnedSolver.from_pretrained(self.model)
        name = self.family
        if name is not None and names_a_file(name):
            name = family_from_file(name).name
        if name is None or (name != self.family and name == solver.info.family["name"]):
            family = solver.info.problem_family()
        else:
            family = problems.get(name, n=solver.n)
        estimates = solver.model.config.head == "estimate"
        if estimates and not isinstance(family, problems.NoisyFamily):
            raise ConfigurationError(f"{self.model} estimates from noisy systems; {family.name} is not a noisy family")
        if not estimates and isinstance(family, problems.NoisyFamily):
            raise ConfigurationError(f"{self.model} solves A x = b; {family.name} is a noisy family, where x does not")
        systems = family.sample(self.count, TEST_SEED)
        if estimates:
            refuse_tolerances(self)
            scores = evaluation.evaluate_estimates(solver, systems)
        else:
            scores = evaluation.evaluate(solver, systems, self.rtol, self.max_refinements, family.is_linear_system)
        about = {"model": self.model, "family": family.settings(), "systems": self.count, "rtol": self.rtol}
        title = f"{self.model} on {self.count} systems of {family.name}"
        table = evaluation.table(scores, title)
        if self.output is not None:
            command = shlex.join(["algebraformer", *sys.argv[1:]])
            write_results(self.output, command=command, table=table, **about, **scores)
        if self.json:
            emit(about | scores)
        else:
            print_table(table)
        return DONE


@dataclasses.dataclass(frozen=True)
class Families:
    """List the families of systems and their settings."""

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        from algebraformer import problems

        found = {name: problems.family_class(name) for name in problems.names()}
        described: dict[str, dict[str, Any]] = {
            name: {"about": (cls.__doc__ or "").strip().splitlines()[0], "settings": cls().settings()}
            for name, cls in found.items()
        }
        if self.json:
            emit(described)
        else:
            rows = []
            for name, entry in described.items():
                settings = ", ".join(f"{k}={v}" for k, v in entry["settings"].items() if k != "name")
                rows.append([name, entry["about"], settings])
            show("Families", ("name", "about", "settings"), rows)
        return DONE


@dataclasses.dataclass(frozen=True)
class Models:
    """List the shipped models with their scores and every recipe with its parameter count."""

    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        import torch

        from algebraformer import checkpoint
        from algebraformer.models import Algebraformer

        def parameters(model: Any) -> int:
            with torch.device("meta"):
                return Algebraformer(model).parameter_count()

        recipes = {
            name: {"parameters": parameters(recipe.model), **recipe.settings()} for name, recipe in RECIPES.items()
        }
        shipped = {}
        for name in checkpoint.pretrained_names():
            folder = checkpoint.resolve(name)
            files = checkpoint.read_folder(folder)
            model, info = checkpoint.unpack(files, str(folder))
            shipped[name] = {
                "family": info.family["name"],
                "n": model.config.n,
                "parameters": model.parameter_count(),
                "bytes": sum(map(len, files.values())),
                "scores": info.scores,
            }
        if self.json:
            emit({"shipped": shipped, "recipes": recipes})
            return DONE
        columns = ("model", "family", "n", "parameters", "MB", "normalized_mse", "median error")
        scores = ("normalized_mse", "relative_error_median")  # estimate heads have the second one alone
        rows: list[list[Any]] = [
            [k, v["family"], v["n"], v["parameters"], v["bytes"] / 1e6, *map(v["scores"].get, scores)]
            for k, v in shipped.items()
        ]
        show("Shipped models", columns, rows)
        rows = [
            [k, v["family"], v["model"]["n"], v["parameters"], v["optimizer"], v["steps"], v["batch_size"]]
            for k, v in recipes.items()
        ]
        show("Recipes", ("recipe", "family", "n", "parameters", "optimizer", "steps", "batch_size"), rows)
        return DONE


@dataclasses.dataclass(frozen=True)
class Info:
    """Show versions, threads and devices."""

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        import torch

        from algebraformer.provenance import provenance

        devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
        facts = provenance() | {"devices": devices}
        if self.json:
            emit(facts)
        else:
            versions = facts.pop("versions")
            rows = [[name, str(value)] for name, value in (versions | facts).items()]
            show("", ("what", "value"), rows)
        return DONE


Command = (
    Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Study, tyro.conf.subcommand("study")]
    | Annotated[Newton, tyro.conf.subcommand("newton")]
    | Annotated[Families, tyro.conf.subcommand("families")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"algebraformer {versions().get('algebraformer', '(not installed)')}")
        return DONE
    command = tyro.cli(
        Command,
        prog="algebraformer",
        description="Learned, certified solvers for families of ill-conditioned linear systems. --version prints the "
        "version.",
        args=words,
    )
    try:
        with warnings_on_stderr():
            return command.run()
    except (AlgebraformerError, ValueError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"algebraformer: {' '.join(text.split())}", file=sys.stderr)
        return BAD_INPUT
