"""What `solve` returns: the answers, how good they are, and the sentences that say so."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import Status

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class SolveResult:
    """The answer to one system or to a batch of B, and how good it is.

    For one system every field but x is a scalar; for a batch they are arrays of shape (B,). With several right-hand
    sides the measures are those of the worst one.

    Attributes
    ----------
    x : ndarray
        The solution, in the shape of b. NaN where status is SINGULAR.
    status : Status
        What became of the system; `str(status.value)` is a sentence.
    method : str
        "learned", "learned+refined" or "lapack": who computed x.
    refinements : int
        Refinements that the learned answer took, also where LAPACK answered in the end.
    backward_error : float
        Componentwise backward error omega of x (Oettli and Prager), recomputed in float64 from the caller's A and b.
    relative_residual : float
        ||b - A x|| / ||b||, recomputed likewise.
    certified : bool
        relative_residual <= rtol, or backward_error <= 10 n eps (`linalg.is_certified`). Neither bounds the forward
        error by itself: that is at most about cond(A) * backward_error, with Skeel's cond
        (`linalg.skeel_condition_number`).
    forward_error_estimate : float
        Size of the last correction relative to x, ||M r|| / ||x|| with M the network or LAPACK's factors: an estimate
        of the relative error of x, not a bound. NaN if no correction was computed.
    in_distribution : bool
        Whether the system looks like the family the network was trained on: its matrix is not further from the middle
        of the family than the training sample reached, and, with an operator head, the first answer leaves no larger
        share of the preconditioned residual, and M A gives back one random vector to a half at least. Not a judgement
        about x: the certificate is that. Where it is False and the network answered, LAPACK has looked whether A is
        singular. False where the network was not asked.
    """

    x: Array
    status: Any
    method: Any
    refinements: Any
    backward_error: Any
    relative_residual: Any
    certified: Any
    forward_error_estimate: Any
    in_distribution: Any

    def record(self) -> dict[str, Any]:
        """Return every field but x as plain JSON values; the status by its name, NaN and infinity as None."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "x"}

    def explain(self) -> str:
        """Say in a few sentences what was done, how good the answer is, what bounds its error, and what to do next.

        For a batch, over all of its systems; positions are named where something has to be done about them.

        Examples
        --------
        >>> import textwrap
        >>> import numpy as np
        >>> import algebraformer as af
        >>> result = af.LearnedSolver.from_pretrained("diffusion-64").solve(np.diag([1.0, 2.0]), np.ones(2))
        >>> print(textwrap.fill(result.explain(), 100))
        The model does not cover systems of this size or kind, so LAPACK answered. Certified: relative
        residual 0, backward error 0. The relative error of x is at most about cond(A) times the backward
        error, with Skeel's cond(A) (linalg.skeel_condition_number); the last correction suggests 0. There
        is nothing left to do.
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
    """What is said of one system."""

    index: int
    status: Status
    refinements: int
    omega: float
    relative: float
    certified: bool
    estimate: float
    familiar: bool


_COLUMNS = (
    "status", "refinements", "backward_error", "relative_residual", "certified", "forward_error_estimate",
    "in_distribution",
)  # fmt: skip

_DONE = {
    Status.LEARNED: "the network answered, without refinement",
    Status.REFINED: "the network answered, with {}",
    Status.FALLBACK: "the network did not reach the tolerance ({}), so LAPACK answered",
    Status.UNSUPPORTED: "the model does not cover systems of this size or kind, so LAPACK answered",
    Status.UNCERTIFIED: "the network answered and did not reach the tolerance ({})",
    Status.INACCURATE: "neither the network nor LAPACK, with its own factors refined, reached the certificate",
    Status.SINGULAR: "A is exactly singular, so there is no unique solution and x holds NaN",
}
_ADVICE = {
    Status.UNCERTIFIED: "allow more refinements, a larger rtol, or fallback=True for LAPACK",
    Status.INACCURATE: "rescale rows and columns of A, or solve with more digits: float64 does not resolve it",
    Status.SINGULAR: "look at how A was made, or ask for a least-squares solution, for instance scipy.linalg.lstsq",
}
_BY_LAPACK = (Status.FALLBACK, Status.UNSUPPORTED, Status.INACCURATE)
"""LAPACK's last correction says how good x is; that of a network may be large since the step before it was bad."""
_OUTSIDE = "outside the family of the model: if there are many such systems, train or finetune a model on them"
_HOPELESS = (
    "no digit of x is certain: A is too ill-conditioned for float64; if b is measured, estimate it as a noisy system "
    "(docs: Noisy systems)"
)
_NEAR = "inside the family, so that a larger rtol or more refinements may spare LAPACK"


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
            parts.append((f"{len(chosen)}: " if batched else "") + text.format(_times(chosen)))
    return f"Of {len(rows)} systems, {'; '.join(parts)}." if batched else _sentence("; ".join(parts))


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
    """Say what bounds the error of x, and what the last correction suggests."""
    answered = [row for row in rows if np.isfinite(row.omega)]
    if not answered:
        return ""
    estimates = [row.estimate for row in answered if np.isfinite(row.estimate)]
    if estimates:
        suggested = f"the last correction suggests {'at most ' * batched}{max(estimates):.1g}"
    else:
        suggested = "no correction was computed that would suggest its size"
    return (
        "The relative error of x is at most about cond(A) times the backward error, with Skeel's cond(A) "
        f"(linalg.skeel_condition_number); {suggested}."
    )


def _advice(rows: list[_Row], batched: bool) -> str:
    """Say what to do next."""
    groups = [(text, [row for row in rows if row.status is status]) for status, text in _ADVICE.items()]
    hopeless = [row for row in rows if row.status in _BY_LAPACK and row.estimate >= 1]
    groups.append((_HOPELESS, hopeless))
    covered = [row for row in rows if row.status not in (*_ADVICE, Status.UNSUPPORTED) and row not in hopeless]
    groups.append((_OUTSIDE, [row for row in covered if not row.familiar]))
    groups.append((_NEAR, [row for row in covered if row.familiar and row.status is Status.FALLBACK]))
    found = [(text, chosen) for text, chosen in groups if chosen]
    if not found:
        return "There is nothing left to do."
    parts = [f"{_named(chosen)}: {text}" if batched else text for text, chosen in found]
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
