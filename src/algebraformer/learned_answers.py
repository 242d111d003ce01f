"""What a network answers: predicted, refined and measured, for systems that look like its family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from algebraformer.linalg import is_certified, measure, norm, ratio
from algebraformer.models import Algebraformer, max_batch_size
from algebraformer.models.heads import Prepared
from algebraformer.models.heads.operator import MAX_DEFECT
from algebraformer.numerics import lapack, refinement
from algebraformer.numerics.forward_error import forward_error
from algebraformer.numerics.operator_basis import ApproximateInverse
from algebraformer.numerics.sine_tiles import TiledInverse

Array = NDArray[Any]


@dataclasses.dataclass
class Answers:
    """Answers to B systems with k right-hand sides; the measures are those of the worst one."""

    x: Array  # (B, n, k)
    relative: NDArray[np.float64]  # (B,), and so are the others
    omega: NDArray[np.float64]
    certified: NDArray[np.bool_]
    forward_error: NDArray[np.float64]
    refinements: NDArray[np.int64]
    in_distribution: NDArray[np.bool_]

    @classmethod
    def unanswered(cls, b: Array) -> Answers:
        """Return NaN for x, and no good word."""
        B = len(b)
        no, unknown = np.zeros(B, dtype=bool), np.full(B, np.inf)
        return cls(np.full_like(b, np.nan), unknown, unknown.copy(), no, unknown * np.nan, np.zeros(B, int), no.copy())

    @classmethod
    def concatenate(cls, parts: list[Answers]) -> Answers:
        """Put the systems of several batches into one."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(cls)))

    @classmethod
    def join_columns(cls, parts: list[Answers]) -> Answers:
        """Put the right-hand sides of the same systems together."""
        if len(parts) == 1:
            return parts[0]
        worst = {f.name: [getattr(p, f.name) for p in parts] for f in dataclasses.fields(cls)}
        x = np.concatenate(worst.pop("x"), axis=2)
        reduced = {k: (np.min if v[0].dtype == bool else np.max)(v, axis=0) for k, v in worst.items()}
        return cls(x, **reduced)

    def assign(self, where: Array, other: Answers | lapack.DirectSolution) -> None:
        """Take over what another solution says of the systems `where`."""
        self.x[where], self.certified[where], self.forward_error[where] = other.x, other.certified, other.forward_error
        if isinstance(other, Answers):
            self.relative[where], self.omega[where] = other.relative, other.omega
            self.refinements[where], self.in_distribution[where] = other.refinements, other.in_distribution
        else:
            self.relative[where], self.omega[where] = other.relative_residual, other.backward_error


def answer(model: Algebraformer, A: Array, b: Array, rtol: float | None, limit: int, everything: bool) -> Answers:
    """Predict and refine up to `limit` times: systems that look like the family, or everything.

    A limited number of systems and of right-hand sides at a time, so that memory stays flat.

    Parameters
    ----------
    model : Algebraformer
        With a token or an operator head, in evaluation mode.
    A : ndarray, shape (B, n, n), float64
    b : ndarray, shape (B, n, k), float64
    rtol : float or None
        Tolerance of the certificate, see `linalg.is_certified`.
    limit : int
        Largest number of refinements.
    everything : bool
        Answer systems as well that do not look like the family.

    Returns
    -------
    Answers
        Certified by their measures alone, whether in distribution or not.
    """
    if b.size == 0:
        answers = Answers.unanswered(b)
        answers.certified[:] = answers.in_distribution[:] = True
        answers.relative[:] = answers.omega[:] = answers.forward_error[:] = 0.0
        return answers
    step, parts = max_batch_size(A.shape[-1]), []
    for i in range(0, len(b), step):
        prepared = model.prepare(A[i : i + step])
        refine = _predict_and_refine if prepared.inverse is None else _refine
        parts.append(refine(prepared, b[i : i + step], rtol, limit, everything))
    return Answers.concatenate(parts)


def _predict_and_refine(prepared: Prepared, b: Array, rtol: float | None, limit: int, everything: bool) -> Answers:
    """Refine a network's answers by asking it again about the residual, while the backward error falls."""
    A, n = prepared.A, b.shape[1]
    answers, in_distribution = Answers.unanswered(b), prepared.in_distribution
    answers.in_distribution[:] = in_distribution
    active = np.flatnonzero(in_distribution | everything)
    step = prepared[active].predict(b[active])
    if step.shape != b[active].shape:
        return answers
    x = np.zeros_like(b)
    for count in range(limit + 1):
        # 1. The new answer, and its measures; the error of the last one was about the size of this step.
        with np.errstate(over="ignore", invalid="ignore"):
            new = x[active] + step
            found = measure(A[active], b[active], new)
        certified: Array = np.all(is_certified(found.relative_residual, found.backward_error, n, rtol), axis=-1)
        omega = found.backward_error.max(axis=-1, initial=0.0)
        size = ratio(norm(step), norm(new)).max(axis=-1, initial=0.0) if count else np.full(len(active), np.nan)

        # 2. It is kept if the backward error has fallen; the first one is kept whatever it is.
        better = certified | (omega < answers.omega[active]) | (count == 0)
        kept = active[better]
        x[kept], answers.certified[kept], answers.omega[kept] = new[better], certified[better], omega[better]
        answers.relative[kept] = found.relative_residual.max(axis=-1, initial=0.0)[better]
        answers.forward_error[kept], answers.refinements[kept] = size[better], count

        # 3. What is not certified is asked again about the residual that is left.
        going = better & ~certified & np.isfinite(found.residual).all(axis=(1, 2))
        active, r = active[going], found.residual[going]
        if not active.size or count == limit:
            break
        step = prepared[active].predict(r)
        if step.shape != r.shape:
            break
    answers.x[:] = np.where((in_distribution | everything)[:, None, None], x, np.nan)
    return answers


def _refine(prepared: Prepared, b: Array, rtol: float | None, limit: int, everything: bool) -> Answers:
    """Refine the answers of an approximate inverse by generalised conjugate residuals."""
    (B, n, k), near, max_defect = b.shape, prepared.in_distribution, prepared.max_defect
    answers = Answers.unanswered(b)
    chosen = np.flatnonzero(near | everything)
    if not chosen.size:
        return answers
    if 2 * chosen.size < B:  # else to leave out the others saves less than copying the rest costs
        prepared, b, near = prepared[chosen], b[chosen], near[chosen]
    else:
        chosen = np.arange(B)
    A, inverse, defect = prepared.A, prepared.inverse, prepared.defect
    assert inverse is not None
    assert defect is not None
    parts, columns = [], max(1, lapack.BLOCK_ENTRIES // (n * len(b)))
    for j in range(0, k, columns):
        found = refinement.accelerated(
            A, b[:, :, j : j + columns], inverse, rtol, limit, max_first=np.inf if everything else max_defect
        )
        estimate = forward_error(inverse, found.x, found.measured, np.minimum(defect, MAX_DEFECT), probes=1)
        parts.append(
            Answers(
                x=found.x,
                relative=found.measured.relative_residual.max(axis=-1, initial=0.0),
                omega=found.measured.backward_error.max(axis=-1, initial=0.0),
                certified=found.certified,
                forward_error=np.where(defect <= MAX_DEFECT, estimate, np.inf),
                refinements=found.refinements,
                in_distribution=near & (found.first <= max_defect),
            )
        )
    answers.assign(chosen, Answers.join_columns(parts))
    return answers


def as_linear_operator(inverse: ApproximateInverse | TiledInverse, n: int) -> LinearOperator:
    """Return one approximate inverse (of a batch of one) as a SciPy operator, for real and complex vectors.

    Parameters
    ----------
    inverse : ApproximateInverse or TiledInverse
    n : int
    """

    def applied(product: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def matmat(v: Array) -> Array:
            block = np.asarray(v).reshape(n, -1)
            if block.dtype.kind == "c":  # M is real: both parts in one product
                parts = product(np.concatenate((block.real, block.imag), axis=1).astype(np.float64)[None])[0]
                real, imag = np.split(parts, 2, axis=1)
                return real + 1j * imag
            return product(block.astype(np.float64)[None])[0]

        return matmat

    forward, backward = applied(inverse), applied(inverse.adjoint)
    return LinearOperator(
        (n, n),
        matvec=lambda v: forward(v).reshape(np.shape(v)),
        rmatvec=lambda v: backward(v).reshape(np.shape(v)),
        matmat=forward,
        rmatmat=backward,
        dtype=np.float64,
    )
