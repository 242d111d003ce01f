"""The command line. Importing this module must stay cheap: torch and SciPy are imported by the commands that use them.

Exit codes: 0 done, for `solve` certified, for `newton` converged; 1 not solved; 2 bad input, with one line on stderr;
3 solved by LAPACK; 130 interrupted (by `__main__`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from algebraformer.cli.evaluate import Assess, Evaluate
from algebraformer.cli.export import Export
from algebraformer.cli.info import Families, Info, Models
from algebraformer.cli.invert import Invert
from algebraformer.cli.newton import Newton
from algebraformer.cli.output import BAD_INPUT, DONE, warnings_on_stderr
from algebraformer.cli.solve import Solve
from algebraformer.cli.study import Study
from algebraformer.cli.train import Finetune, Train
from algebraformer.errors import AlgebraformerError
from algebraformer.provenance import versions
from algebraformer.training.processes import launched

Command = (
    Annotated[Solve, tyro.conf.subcommand("solve")]
    | Annotated[Invert, tyro.conf.subcommand("invert")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Assess, tyro.conf.subcommand("assess")]
    | Annotated[Export, tyro.conf.subcommand("export")]
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
        if isinstance(error, AlgebraformerError) and launched()[0] > 0:
            return BAD_INPUT  # the first process says it for all
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"algebraformer: {' '.join(text.split())}", file=sys.stderr)
        return BAD_INPUT
