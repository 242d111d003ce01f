"""The command `study`: runs a study of the repository's folder studies."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Annotated

import tyro

from algebraformer.cli.output import DONE, emit
from algebraformer.cli.time_limit import time_limit
from algebraformer.errors import ConfigurationError, MissingExtraError
from algebraformer.reporting import in_json
from algebraformer.writing import check_folder

REPOSITORY = Path(__file__).resolve().parents[3]
EXTRA = ("matplotlib", "mpmath", "sklearn", "statsmodels")
"""Packages of the extra [study]."""


@dataclasses.dataclass(frozen=True)
class Study:
    """Run a study: measurements that answer a question about the method, with tables, a figure and conclusions.

    Writes NAME.json, NAME.md and NAME.png. A study that was stopped resumes when the same command is given again. The
    studies are not part of the installed package: run this in a checkout of the repository.
    """

    name: tyro.conf.Positional[str]
    """Module of the folder studies, for instance operator, scaling or noisy; an unknown name lists them all."""
    preset: str = "quick"
    """quick: under two minutes, to see that it works. cpu: the committed results, up to an hour on two cores. paper:
    full scale, for a GPU."""
    output: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("results")
    """Folder for the results."""
    work: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/studies")
    """Folder for what a stopped study resumes from."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None
    """Stop after this time as after Ctrl-C; the same command resumes."""
    json: bool = False
    """Print one JSON object and no progress bar."""

    def run(self) -> int:
        root = checkout()
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        try:
            study = importlib.import_module("studies.harness.study").load_study(self.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXTRA:
                raise
            raise MissingExtraError(f"studies need {error.name}: pip install algebraformer[study]") from error
        check_folder(self.output)
        check_folder(self.work)
        command = importlib.import_module("studies.harness.command")
        with time_limit(self.time_limit):
            report = command.run(study, self.preset, self.output, self.work, self.json, "algebraformer study")
        if self.json:
            path = self.output / f"{self.name}.json"
            emit({
                "output": str(path), **in_json(report.outcomes, report.conclusions),
                "table": report.tables[0].settings(),
            })  # fmt: skip
        return DONE


def checkout() -> Path:
    """Return the root of the repository: where this package lies in one, or else the working directory."""
    for root in (REPOSITORY, Path.cwd()):
        if (root / "studies" / "harness" / "study.py").exists():
            return root
    raise ConfigurationError(
        "the studies are not part of the installed package: run this in a checkout of the repository of algebraformer"
    )
