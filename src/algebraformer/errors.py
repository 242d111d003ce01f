"""Exceptions, warnings and the status of a solution. Every message states what was expected and what was received."""

from __future__ import annotations

import enum
import sys
import warnings
from typing import TYPE_CHECKING, Any

from numpy.linalg import LinAlgError

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Picklable(Exception):
    """An exception with its own constructor arguments that can be pickled, and so returned from another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[_Picklable], args: tuple[Any, ...], state: dict[str, Any]) -> _Picklable:
    """Return an exception as it was pickled."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn with the location of the line that called this package, at any depth of calls inside it and torch."""
    frame, level = sys._getframe(1), 2
    inside = ("algebraformer", "torch")  # whose backward passes and modules call this package
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class AlgebraformerError(_Picklable):
    """Base class of the errors this package defines."""


class InputFormatError(AlgebraformerError, ValueError):
    """A file does not conform to its format, or exceeds the size limit."""


class CheckpointError(AlgebraformerError, ValueError):
    """A checkpoint is missing, damaged, altered, or not one of this package. Nothing of it has been loaded."""


class ConfigurationError(AlgebraformerError, ValueError):
    """Settings that contradict each other or are out of range."""


class ArrayKindError(AlgebraformerError, TypeError):
    """Arrays of different libraries or on different devices, or of a kind that cannot be solved with."""


class FamilyContractError(AlgebraformerError, AssertionError):
    """A family of systems breaks a rule of `testing.check_family`.

    Attributes
    ----------
    rule : str
        The rule, one of `testing.RULES`.
    """

    def __init__(self, family: str, rule: str, what: str) -> None:
        self.rule = rule
        super().__init__(f"{family} breaks the rule {rule!r}: {what}")


class UnknownNameError(AlgebraformerError, ValueError):
    """A family, recipe or model of that name does not exist; the message lists those that do."""

    def __init__(self, kind: str, name: str, known: Sequence[str], advice: str = "") -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(known) or 'none'}{advice and f'; {advice}'}")


class MissingExtraError(AlgebraformerError, ImportError):
    """Something needs a package that is installed by an extra of this one only; the message says which."""


class TrainingError(AlgebraformerError, RuntimeError):
    """Training cannot continue, for instance because too many steps in a row were not finite."""


class WorkerError(AlgebraformerError, RuntimeError):
    """Worker processes die again and again, and the work does not go on."""


class FallbackWarning(UserWarning):
    """LAPACK had to solve a large part of a batch, which took longer than LAPACK alone."""


class InconsistentWarning(UserWarning):
    """An estimate is inconsistent with the predicted noise level."""


class SingularSystemError(_Picklable, LinAlgError):
    """One or more systems of a batch are singular.

    Attributes
    ----------
    indices : tuple of int
        Positions in the batch of the singular systems, (0,) for a single system.
    result : object
        The `SolveResult` of the whole batch, with NaN for the singular systems.
    """

    def __init__(
        self,
        indices: Sequence[int],
        batched: bool,
        result: Any = None,
        what: str = "matrix A is singular",
        noun: str = "system",
        advice: str = "",
    ) -> None:
        self.indices = tuple(indices)
        self.result = result
        if batched:
            shown = ", ".join(map(str, self.indices[:5])) + (", ..." if len(self.indices) > 5 else "")
            what += f" in {noun}{'s' * (len(self.indices) != 1)} {shown} of the batch"
        super().__init__(f"{what}{advice and f': {advice}'}")


class Status(enum.Enum):
    """How a system was solved: the name is for programs (`result.status.name`), the value a sentence for users."""

    LEARNED = "The network's own answer meets the tolerance."
    REFINED = "The network's answer meets the tolerance after iterative refinement."
    FALLBACK = "The network's answer did not reach the tolerance; this is LAPACK's answer, and it is certified."
    OUT_OF_DISTRIBUTION = (
        "The system does not look like the model's family; this is LAPACK's answer, and it is certified."
    )
    UNSUPPORTED = "The model does not cover systems of this size or kind; this is LAPACK's answer, and it is certified."
    UNCERTIFIED = (
        "The network's answer is not certified: it misses the tolerance, or the system does not look like the family. "
        "Use fallback=True for LAPACK's answer, or a larger rtol."
    )
    INACCURATE = (
        "LAPACK's answer does not meet the certificate either: A is too ill-conditioned, or its entries too far "
        "apart in size, for float64. Treat x with care."
    )
    SINGULAR = "A is exactly singular: there is no unique solution, and x holds NaN."
