"""Exceptions, warnings and the status of an answer. Every message says what was expected and what was received."""

from __future__ import annotations

import enum
import sys
import warnings
from typing import TYPE_CHECKING, Any

from numpy.linalg import LinAlgError

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Picklable(Exception):
    """An exception with arguments of its own, which survives the way back from another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)


def _restored(cls: type[_Picklable], args: tuple[Any, ...], state: dict[str, Any]) -> _Picklable:
    """Return an exception as it was pickled."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn in the name of the line that called this package, however deep inside it the reason was found."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "algebraformer":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class AlgebraformerError(_Picklable):
    """Base class of the errors this package defines."""


class InputFormatError(AlgebraformerError, ValueError):
    """A file does not hold what its format promises, or holds more than the limit allows."""


class CheckpointError(AlgebraformerError, ValueError):
    """A checkpoint is missing, damaged, altered, or not one of ours. Nothing of it has been loaded."""


class ConfigurationError(AlgebraformerError, ValueError):
    """Settings that contradict each other or lie outside their range."""


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
    """A family, recipe or model of that name does not exist; the message lists those that do, and may give advice."""

    def __init__(self, kind: str, name: str, known: Sequence[str], advice: str = "") -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(known) or 'none'}{advice and f'; {advice}'}")


class MissingExtraError(AlgebraformerError, ImportError):
    """Something needs a package that is installed by an extra of this one only; the message says which."""


class TrainingError(AlgebraformerError, RuntimeError):
    """Training cannot go on, for instance because too many steps in a row were not finite."""


class FallbackWarning(UserWarning):
    """LAPACK answered a large share of a batch, which took longer than LAPACK alone."""


class InconsistentWarning(UserWarning):
    """An estimate does not fit the data to the noise level that the network sees."""


class SingularSystemError(_Picklable, LinAlgError):
    """One or more systems of a batch are singular.

    Attributes
    ----------
    indices : tuple of int
        Positions in the batch of the singular systems, (0,) for a single system.
    result : object
        The `SolveResult` of the whole batch: the other systems are answered, the singular ones hold NaN.
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
    """How a system was solved. The value is the sentence a user reads.

    The names are short words for programs (`result.status.name`), the values are for people.
    """

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
