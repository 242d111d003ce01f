"""What `solve` returns: answers, certificates and error estimates, and `explain`, which puts them in words."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import Status
from algebraformer.linalg import EPS

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class SolveResult:
    """The answer to one system or to a batch of B, and how good it is.

    For one system every field but x is a scalar; for a batch they are arrays of shape (B,). With several right-hand
    sides the measures are those of the worst one.

    Attributes
    ----------
    x : array
        The solution, in the shape of b and of its kind: an array of NumPy, torch, JAX or CuPy, on the same device. NaN
        where status is SINGULAR. All other fields are Python's or NumPy's.
    status : Status
        How the system was solved; `str(status.value)` is a sentence.
    method : str
        "learned", "learned+refined" or "lapack": what computed x.
    refinements : int
        Refinements of the learned answer, also where it was then replaced by LAPACK's.
    backward_error : float
        Componentwise backward error omega of x (Oettli and Prager), recomputed in float64 from the caller's A and b.
    relative_residual : float
        ||b - A x|| / ||b||, recomputed likewise.
    certified : bool
        As good as LAPACK's answer: backward_error <= n eps (`linalg.is_certified`), or relative_residual <= rtol where
        that was given, and x comes from LAPACK or from a network that the system is in distribution for.
    forward_error : float
        Estimate of ||x - x*|| / ||x||, on the high side: 2 ||M (r + d)|| with d the rounding in r, over ||x|| and over
        1 - ||I - M A||, with M the learned inverse or LAPACK's factors; where these do not invert A, backward error
        over rcond, or infinity if A was not factorised. How often it held: `results/reliability.md`. With a token head
        the size of the last correction, NaN if there was none.
    rcond : float
        LAPACK's estimate of the reciprocal condition number in the 1-norm; NaN where A was not factorised.
    in_distribution : bool
        Whether the system looks like the family the network was trained on: its matrix is not further from the middle
        of the family than the training sample reached, and, with an operator head, M A gives back b and one random
        vector about as well as on that sample. Other systems are answered by LAPACK. False where the model does not
        cover such systems at all.
    """

    x: Array
    status: Any
    method: Any
    refinements: Any
    backward_error: Any
    relative_residual: Any
    certified: Any
    forward_error: Any
    rcond: Any
    in_distribution: Any

    def record(self) -> dict[str, Any]:
        """Return every field but x as plain JSON values; the status by its name, NaN and infinity as None."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "x"}

    def explain(self) -> str:
        """Summarise in a few sentences: what was done, the certificate, the estimated error, and what to do next.

        For a batch, over all of its systems; those that need action are named by their positions.

        Examples
        --------
        >>> import textwrap
        >>> import numpy as np
        >>> import algebraformer as af
        >>> result = af.LearnedSolver.from_pretrained("diffusion-64").solve(np.diag([1.0, 2.0]), np.ones(2))
        >>> print(textwrap.fill(result.explain(), 100))
        The model does not cover systems of this size or kind, so LAPACK answered. Certified: relative
        residual 0, backward error 0. Estimated relative error of x: at most 2e-15. No action needed.
        """
        batched = isinstance(self.status, np.ndarray)
        columns = [np.atleast_1d(np.asarray(getattr(self, name), dtype=object)) for name in _COLUMNS]
        rows = [_Row(i, *values) for i, values in enumerate(zip(*columns, strict=True))]
        if not rows:
            return "There was no system to solve."
        parts = [_done(rows, batched), _quality(rows, batched), _bound(rows, batched), _advice(rows, batched)]
        return " ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One system of a result."""

    index: int
    status: Status
    refinements: int
    omega: float
    relative: float
    certified: bool
    error: float
    rcond: float
    in_distribution: bool

    @property
    def hopeless(self) -> bool:
        """Whether x may have no correct digit: by its estimated error, or since A is singular to working precision."""
        return self.status not in _UNANSWERED and (self.error >= 1 or self.rcond < EPS)


_COLUMNS = (
    "status", "refinements", "backward_error", "relative_residual", "certified", "forward_error", "rcond",
    "in_distribution",
)  # fmt: skip

_DONE = {
    Status.LEARNED: "the network answered, without refinement",
    Status.REFINED: "the network answered, with {}",
    Status.FALLBACK: "the network did not reach the tolerance ({}), so LAPACK answered",
    Status.OUT_OF_DISTRIBUTION: "the system does not look like the model's family, so LAPACK answered",
    Status.UNSUPPORTED: "the model does not cover systems of this size or kind, so LAPACK answered",
    Status.UNCERTIFIED: "the network's answer is not certified ({})",
    Status.INACCURATE: "neither the network nor LAPACK, with its own factors refined, reached the certificate",
    Status.SINGULAR: "A is exactly singular, so there is no unique solution and x holds NaN",
}
_ADVICE = {
    Status.UNCERTIFIED: "use fallback=True for LAPACK's answer, or allow more refinements or a larger rtol",
    Status.INACCURATE: "rescale rows and columns of A, or solve with more digits: float64 does not resolve it",
    Status.SINGULAR: "look at how A was made, or ask for a least-squares solution, for instance scipy.linalg.lstsq",
}
_UNANSWERED = (Status.SINGULAR, Status.UNCERTIFIED)
"""These have advice of their own."""
_OUTSIDE = "out of distribution: if there are many such systems, train or finetune a model on them"
_HOPELESS = (
    "x may have no correct digits: A is too ill-conditioned for float64; if b is measured, estimate x as in a noisy "
    "system (docs: Noisy systems)"
)
_NEAR = "in distribution, but not solved: more refinements or a larger rtol may avoid LAPACK"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _named(rows: list[_Row]) -> str:
    """Return the positions of systems in words."""
    shown = ", ".join(str(row.index) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
    return f"system{'s' * (len(rows) > 1)} {shown}"


def _times(rows: list[_Row]) -> str:
    """Return how many refinements systems took."""
    low, high = min(row.refinements for row in rows), max(row.refinements for row in rows)
    return f"{low} refinement{'s' * (low != 1)}" if low == high else f"{low} to {high} refinements"


def _done(rows: list[_Row], batched: bool) -> str:
    """Say who answered."""
    parts = []
    for status, text in _DONE.items():
        if chosen := [row for row in rows if row.status is status]:
            parts.append((f"{len(chosen)} of {len(rows)} systems: " if batched else "") + text.format(_times(chosen)))
    return f"{'; '.join(parts)}." if batched else _sentence("; ".join(parts))


def _quality(rows: list[_Row], batched: bool) -> str:
    """Give the certificate and the worst measures of what was answered."""
    answered = [row for row in rows if row.status is not Status.SINGULAR]
    if not answered:
        return ""
    certified = sum(row.certified for row in rows)
    relative, omega = (max(answered, key=lambda row, name=name: getattr(row, name)) for name in ("relative", "omega"))  # type: ignore[misc]
    head = f"Certified: {certified} of {len(rows)}; largest" if batched else "Certified:"
    if not batched and not certified:
        head = "Not certified:"
    if not np.isfinite(omega.omega):
        return f"{head} relative residual and backward error without a finite value: x or A x is beyond float64."
    return f"{head} relative residual {relative.relative:.2g}, backward error {omega.omega:.2g}."


def _bound(rows: list[_Row], batched: bool) -> str:
    """Give the estimated error of x, the largest of a batch."""
    answered = [row for row in rows if np.isfinite(row.omega)]
    if not answered:
        return ""
    errors = [row.error for row in answered if not np.isnan(row.error)]
    if not errors:
        return "The error of x was not estimated."
    if not np.isfinite(max(errors)):
        return "The error of x has no finite estimate."
    return f"Estimated relative error of x: at most {max(errors):.1g}."


def _advice(rows: list[_Row], batched: bool) -> str:
    """Say what to do next."""
    groups = [(text, [row for row in rows if row.status is status]) for status, text in _ADVICE.items()]
    groups.append((_HOPELESS, [row for row in rows if row.hopeless]))
    covered = [row for row in rows if row.status not in _ADVICE and not row.hopeless]
    groups.append((_OUTSIDE, [row for row in covered if row.status is Status.OUT_OF_DISTRIBUTION]))
    groups.append((_NEAR, [row for row in covered if row.status is Status.FALLBACK]))
    advice = [(text, chosen) for text, chosen in groups if chosen]
    if not advice:
        return "No action needed."
    parts = [f"{_named(chosen)}: {text}" if batched else text for text, chosen in advice]
    return f"Next: {'; '.join(parts)}."


def scalar(value: Any) -> Any:
    """Return Python's own number for NumPy's, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def plain(value: Any) -> Any:
    """Return what JSON can hold: arrays as lists, a status by its name, None for NaN and infinity; also inside dicts.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"status": Status.LEARNED, "error": np.array([1.5, np.nan]), "steps": np.int64(3)})
    {'status': 'LEARNED', 'error': [1.5, None], 'steps': 3}
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Status):
        return value.name
    value = scalar(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
