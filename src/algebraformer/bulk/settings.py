"""How a block of many systems is solved, wherever that is."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from algebraformer.checkpoint import pretrained_names
from algebraformer.errors import SingularSystemError
from algebraformer.result import SolveResult
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.threads import single_thread
from algebraformer.validation import Array


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `LearnedSolver.solve`, which go to every process."""

    rtol: float | None = None
    max_refinements: int = 10
    fallback: bool = True
    assume_a: str | None = None
    transpose: bool = False

    def solve(self, model: str | LearnedSolver, A: Array, b: Array) -> SolveResult:
        """Solve a block of systems on this thread alone; singular ones have that status and NaN, and raise nothing.

        An error would take with it what the others have cost. One thread, since whoever calls this shares out the
        blocks: as many threads for each of them would wait for one another. It also makes the answers the same for any
        number of workers.

        Raises
        ------
        ValueError
            As `LearnedSolver.solve`.
        """
        with single_thread():
            try:
                return as_solver(model).solve(A, b, **dataclasses.asdict(self))
            except SingularSystemError as error:
                result: SolveResult = error.result
                return result


def portable(model: str | Path | LearnedSolver) -> str | LearnedSolver:
    """Return a model in a form that another process can load, whatever its working folder is.

    Names stay names, and folders become absolute ones.
    """
    if isinstance(model, LearnedSolver):
        return model
    return str(model) if model in pretrained_names() else os.path.abspath(model)


@contextlib.contextmanager
def naming_the_systems(what: str) -> Iterator[None]:
    """Put in front of a `ValueError` which systems it is about: it counts from the first one of their block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
