"""Iterative refinement with an approximate inverse: stationary, and by generalised conjugate residuals.

`richardson` is stationary refinement, x <- x + M (b - A x), also with an M that is not linear. It contracts by the
spectral radius of I - M A.

With a linear M = R L the same products, one with A and one with M per step, span a Krylov space. `solve` returns that
element of it whose residual is least in the preconditioned norm ||L (b - A x)||, as GMRES does for L A R. The slow
systems of a family have a few large eigenvalues of I - M A, and those this removes. `gcr_restarted` starts it again
from the true residual until the answer is certified.

References
----------
.. [1] S. C. Eisenstat, H. C. Elman and M. H. Schultz, "Variational iterative methods for nonsymmetric systems of linear
   equations", SIAM J. Numer. Anal. 20 (1983).
.. [2] Y. Saad, "Iterative Methods for Sparse Linear Systems", 2nd ed., SIAM (2003), section 6.9 and chapter 9.
.. [3] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 12.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import beside, host, namespace, power_of_two
from algebraformer.linalg import EPS, FloatArray, Measures, is_certified, largest, measure, norm, ratio
from algebraformer.numerics.forward_error import probes_for
from algebraformer.numerics.krylov_space import KrylovSpace, dot, length
from algebraformer.numerics.preconditioner import Preconditioner
from algebraformer.passes import GATHER_MIN_N, multiply

Indices = NDArray[np.int64]

STAGNATION_FACTOR = 0.9
"""Default of `stagnation_factor`: where a step reduces the preconditioned residual by less than a tenth, the learned
inverse does not fit A, and LAPACK is faster than many such steps."""
RESIDUAL_SAFETY = 0.5
"""The recursively updated residual, which drifts from the true one, has to meet this share of the tolerance."""
PRECISION_FLOOR = 0.25
"""Preconditioned residual, relative to that of x = 0 and in n eps, at which the iteration ends. With 0.5 a quarter of
the systems of diffusion at n = 1024 need a second run, which costs a certificate besides, with 0.25 one in twelve, with
0.1 none; but that costs up to half a product more on the other families (LOG.md, 2026-11-27)."""
RESTARTS = 2
"""Largest number of restarts from the true residual. One brings nearly all systems to the certificate, see above."""


class Matrices(Protocol):
    """B matrices that are known by their products alone."""

    def multiply(self, chosen: Indices, z: FloatArray) -> FloatArray:
        """Return A[chosen] z (C, n, k) for z (C, n, k)."""


@dataclasses.dataclass(frozen=True)
class KrylovSolution:
    """Answers to B systems, not yet certified.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
    steps : ndarray of int, shape (B,)
        Products with A and M that were used.
    first_residual_ratio : ndarray, shape (B,)
        ||L (b - A x)|| after the first step over that before it, the largest over the right-hand sides.
    residual_ratio : ndarray, shape (B,)
        ||L (b - A x)|| after all steps over that before them, likewise; infinity where no step was finite.
    """

    x: FloatArray
    steps: Indices
    first_residual_ratio: FloatArray
    residual_ratio: FloatArray


@dataclasses.dataclass(frozen=True)
class RefinedSolution:
    """Refined answers to B systems, measured.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
    refinements : ndarray of int, shape (B,)
        Corrections of the first answer.
    certified : ndarray of bool, shape (B,)
        See `linalg.is_certified`; from the true residual, for all right-hand sides of a system together.
    measures : Measures
        Of x.
    first_residual_ratio : ndarray, shape (B,)
        As in `KrylovSolution`; infinity for stationary refinement.
    last_step_ratio : ndarray, shape (B,)
        ||last correction|| / ||x|| of stationary refinement, the largest over the right-hand sides; NaN if there was
        none.
    """

    x: NDArray[Any]
    refinements: Indices
    certified: NDArray[np.bool_]
    measures: Measures
    first_residual_ratio: FloatArray
    last_step_ratio: FloatArray

    @property
    def relative_residual(self) -> FloatArray:
        """The largest relative residual over the right-hand sides (B,)."""
        return np.asarray(self.measures.relative_residual.max(axis=-1, initial=0.0))

    @property
    def backward_error(self) -> FloatArray:
        """The largest backward error over the right-hand sides (B,)."""
        return np.asarray(self.measures.backward_error.max(axis=-1, initial=0.0))

    @classmethod
    def measured(
        cls, A: NDArray[Any], b: NDArray[Any], x: NDArray[Any], rtol: float | None, chosen: Indices | None = None
    ) -> RefinedSolution:
        """Measure and certify first answers x, to the chosen systems of A or to all."""
        B, found = len(b), measure(A, b, x, chosen)
        relative, omega = host(found.relative_residual), host(found.backward_error)
        measures = found._replace(relative_residual=relative, backward_error=omega)
        certified = np.asarray(is_certified(relative, omega, A.shape[-1], rtol).all(axis=-1))
        return cls(x, np.zeros(B, dtype=np.int64), certified, measures, np.full(B, np.inf), np.full(B, np.nan))

    def assign(self, where: Indices, other: RefinedSolution, chosen: NDArray[np.bool_] | slice) -> None:
        """Replace the answers of the systems `where`, and their measures, by the chosen ones of `other`."""
        self.x[where], self.certified[where] = other.x[chosen], other.certified[chosen]
        for old, new in zip(self.measures, other.measures, strict=True):
            old[where] = new[chosen]


def richardson(
    A: NDArray[Any],
    b: NDArray[Any],
    correction: Callable[[Indices, NDArray[Any]], NDArray[Any]],
    rtol: float | None,
    maxiter: int,
    monotone: bool = True,
) -> RefinedSolution:
    """Solve A x = b by x <- x + M (b - A x) from x = 0, with the residual in float64 [3]_, until certified.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128
    b : ndarray, shape (B, n, k), the same dtype
    correction : callable
        Takes indices (C,) of systems and their residuals r (C, n, k) to M r (C, n, k). It need not be linear in r.
    rtol : float or None
        Tolerance of the certificate, see `linalg.is_certified`.
    maxiter : int
        Largest number of refinements after the first answer.
    monotone : bool
        Take a correction only if it certifies the answer or lowers its backward error, and leave the system otherwise.
        If False, go on while the residual is finite.

    Returns
    -------
    RefinedSolution
    """
    # 1. The first answer, which is kept whatever it is.
    active = np.arange(len(b))
    with np.errstate(all="ignore"):
        solution = RefinedSolution.measured(A, b, namespace(b).asarray(correction(active, b), copy=True), rtol)
        for count in range(1, maxiter + 1):
            # 2. What is not certified, and has a residual to ask about.
            active = active[~solution.certified[active]]
            r = solution.measures.residual[active]
            finite = _finite(r)
            active, r = active[finite], r[finite]
            if not active.size:
                break

            # 3. Correct and measure it.
            step = correction(active, r)
            new = RefinedSolution.measured(A, b[active], solution.x[active] + step, rtol, active)

            # 4. Take what is better, and go on with that.
            if monotone:
                better = new.certified | (new.backward_error < solution.backward_error[active])
            else:
                better = np.ones(len(active), dtype=bool)
            active = active[better]
            solution.assign(active, new, better)
            solution.refinements[active] = count
            solution.last_step_ratio[active] = host(largest(ratio(norm(step), norm(new.x)), axis=-1))[better]
    return solution


def as_correction(M: Preconditioner) -> Callable[[Indices, FloatArray], FloatArray]:
    """Return a preconditioner in the form that `richardson` takes."""

    def correction(chosen: Indices, r: FloatArray) -> FloatArray:
        part = M[chosen]
        return part.right(part.left(r))

    return correction


def gcr_restarted(
    A: FloatArray,
    b: FloatArray,
    M: Preconditioner,
    rtol: float | None,
    maxiter: int,
    x0: FloatArray | None = None,
    stagnation_factor: float = STAGNATION_FACTOR,
    max_first_ratio: float = np.inf,
) -> RefinedSolution:
    """Solve A x = b by generalised conjugate residuals, restarted from the true residual until certified.

    The result of a restart is taken if its backward error is smaller; otherwise the system is left as it was.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128
    b : ndarray, shape (B, n, k), the same dtype
    M : Preconditioner
    rtol : float or None
        Tolerance of the certificate, see `linalg.is_certified`.
    maxiter : int
        Largest number of refinements after the first answer.
    x0 : ndarray, shape (B, n, k), optional
        First answer; the first step of the iteration, a multiple of M b, if None.
    stagnation_factor, max_first_ratio : float
        As in `solve`.

    Returns
    -------
    RefinedSolution
    """
    # 1. Divide each right-hand side by a power of two near its size: exact, and its square stays within float64.
    xp = namespace(b)
    most = largest(xp.abs(b), axis=1, keepdims=True)
    unit = power_of_two(xp.where(most > 0, most, 1.0))  # (B, 1, k)

    inner_rtol = 0.0 if rtol is None else rtol
    first_step = 1 if x0 is None else 0  # it is the answer, not a refinement
    with np.errstate(over="ignore"):
        # 2. The first run.
        start = None if x0 is None else x0 / unit
        run = solve(
            A, b / unit, M, inner_rtol, maxiter + first_step, start, stagnation_factor, max_first_ratio=max_first_ratio
        )
        solution = RefinedSolution.measured(A, b, run.x * unit, rtol)
        solution.refinements[:] = np.maximum(run.steps - first_step, 0)
        solution.first_residual_ratio[:] = run.first_residual_ratio

        # 3. The updated residual drifts from the true one: restart from the latter while that helps.
        going = ~solution.certified & (run.steps > first_step) & (solution.refinements < maxiter)
        for _ in range(RESTARTS):
            active = np.flatnonzero(going)
            if not active.size:
                break
            remaining = maxiter - solution.refinements[active]
            scale = unit[active]
            run = solve(
                A, b[active] / scale, M[active], inner_rtol, int(remaining.max()), solution.x[active] / scale,
                stagnation_factor, rows=active, residual=solution.measures.residual[active] / scale,
            )  # fmt: skip
            new = RefinedSolution.measured(A, b[active], run.x * scale, rtol, active)
            better = new.certified | (new.backward_error < solution.backward_error[active])
            solution.assign(active[better], new, better)
            solution.refinements[active] += np.where(better, np.minimum(run.steps, remaining), 0)
            going[active] = better & ~new.certified & (solution.refinements[active] < maxiter)
    return solution


def solve(
    A: FloatArray | Matrices,
    b: FloatArray,
    M: Preconditioner,
    rtol: float,
    maxiter: int,
    x0: FloatArray | None = None,
    stagnation_factor: float = STAGNATION_FACTOR,
    inner_rtol: FloatArray | float = 0.0,
    max_first_ratio: float = np.inf,
    rows: Indices | None = None,
    residual: FloatArray | None = None,
) -> KrylovSolution:
    """Solve A x = b by generalised conjugate residuals [1]_ from x0, or from x = 0: one run, without a certificate.

    A system is left when its updated residual r meets the tolerance, when ||L r|| has fallen to `inner_rtol` of
    ||L b||, or to `PRECISION_FLOOR` n eps of it, which is about where float64 ends, when a step gains little, when it
    is not finite, or after `maxiter` steps.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128, or Matrices
    b : ndarray, shape (B, n, k), the same dtype
    M : Preconditioner
    rtol : float
        Tolerance on ||b - A x|| / ||b||.
    maxiter : int
    x0 : ndarray, shape (B, n, k), optional
    stagnation_factor : float
        A system is left after a step that leaves more than this share of the preconditioned residual.
    inner_rtol : float or ndarray, shape (B,)
        Tolerance on ||L (b - A x)|| / ||L b||, which also ends the iteration.
    max_first_ratio : float
        A system is left after its first step if that leaves a larger share of the preconditioned residual.
    rows : ndarray of int, shape (B,), optional
        Which matrices of A the right-hand sides belong to; all of them if None.
    residual : ndarray, shape (B, n, k), optional
        b - A x0, where that is known.

    Returns
    -------
    KrylovSolution

    Notes
    -----
    Numbers in the code are the lines of the GCR algorithm in [2]_, section 6.9, for the operator L A R with iterates
    x = R y: z is R p, v is A R p and w is L A R p for the direction p, g is L r. The w are made orthonormal, so that
    <A p, A p> = 1. The directions p are the residuals as they are, and what makes their images orthonormal is kept in
    triangular form (`krylov_space`). x is put together at the end.
    """
    xp, (B, n, _) = namespace(b), b.shape
    x, steps = xp.zeros_like(b) if x0 is None else xp.asarray(x0, copy=True), np.zeros(B, dtype=np.int64)
    residual_ratio = np.full(B, np.inf)
    first_residual_ratio = residual_ratio
    active = np.arange(B)  # of the batch; rows are of A
    rows = active if rows is None else rows
    with np.errstate(all="ignore"):
        # 1. r_0 = b - A x_0, the first direction, and what ||r|| and ||L r|| have to reach.
        r = residual if residual is not None else b if x0 is None else b - _product(A, rows, x0)
        g = M.left(r)
        size = length(g)  # (B, 1, k); what follows decides, and is on the host
        target, now = rtol * host(length(b)), host(size)
        start = now
        tolerance = np.maximum(np.reshape(inner_rtol, (-1, 1, 1)), PRECISION_FLOOR * n * EPS)
        floor = tolerance * (start if x0 is None else host(length(M.left(b))))
        space = KrylovSpace()
        going = np.ones(B, dtype=bool)

        for count in range(1, maxiter + 1):
            # 7. p is the residual, of length one;  A p.
            z = M.right(g / xp.where(size > 0, size, 1.0))
            v = _product(A, rows, z)
            w = M.left(v)
            finite = going & _finite(z, w)
            if not finite.all():
                kept = beside(z, finite[:, None, None])
                z, v, w = (xp.where(kept, part, 0.0) for part in (z, v, w))

            # 6. Make its image orthogonal to those before.
            tracked, w = space.add(z, v if rtol > 0 else None, w)

            # 3, 5. alpha = <r, A p>;  r <- r - alpha A p.
            alpha = dot(w, g)
            space.alpha.append(alpha)
            g = g - alpha * w
            size = length(g)
            previous, now = now, host(size)
            steps[active[finite]] = count
            residual_ratio[active[finite]] = _max_ratio(now, start)[finite]

            # 2. Until convergence, stagnation, or a first step that no system of the family would take.
            foreign = np.zeros_like(going)
            if count == 1:
                first_residual_ratio = residual_ratio.copy()
                foreign = first_residual_ratio > max_first_ratio
            met = (now <= floor).all(axis=(1, 2))
            if tracked is not None:
                r = r - alpha * tracked
                met |= (host(length(r)) <= RESIDUAL_SAFETY * target).all(axis=(1, 2))
            stagnated = ((now > stagnation_factor * previous) & (now > floor)).any(axis=(1, 2)) & (count > 1)
            going = finite & ~met & ~stagnated & ~foreign
            if not going.any():
                break

            if 2 * going.sum() <= going.size:  # at least half of the batch is done: go on with the rest
                chosen, done = np.flatnonzero(going), np.flatnonzero(~going)
                x[active[done]] += space[done].combination()
                active, rows, M, space = active[chosen], rows[chosen], M[chosen], space[chosen]
                if n < GATHER_MIN_N and isinstance(A, np.ndarray):
                    A, rows = A[rows], np.arange(rows.size)
                r, g, size, target, going = r[chosen], g[chosen], size[chosen], target[chosen], going[chosen]
                start, now, floor = start[chosen], now[chosen], floor[chosen]

        # 4. x <- x + sum_j alpha_j p_j, all at once.
        x[active] += space.combination()
    return KrylovSolution(x, steps, first_residual_ratio, residual_ratio)


def contraction(A: FloatArray, M: Preconditioner) -> FloatArray:
    """Return the spectral radii (B,) of I - M A for A (B, n, n); infinity where M is not finite."""
    identity = np.eye(A.shape[-1])
    with np.errstate(all="ignore"):
        E = identity - M.right(M.left(np.broadcast_to(identity, A.shape).copy())) @ A
    finite = np.isfinite(E).all(axis=(1, 2))
    radii = np.full(len(A), np.inf)
    radii[finite] = np.abs(np.linalg.eigvals(E[finite])).max(axis=1)
    return radii


def probe_defect(A: FloatArray, M: Preconditioner) -> FloatArray:
    """Return ||g - alpha L A R g|| / ||g|| (B,) for one random vector g, the same every time, with the best alpha.

    Small where L A R is near a multiple of the identity, whatever b is. Where A is singular so is L A R, and what lies
    outside its range is left: hardly ever less than a tenth, and nearly all of g for a matrix of low rank.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128
    M : Preconditioner
    """
    with np.errstate(all="ignore"):
        g = probes_for(A)
        w = M.left(_product(A, np.arange(A.shape[0]), M.right(g)))
        w = w / length(w)
        defect = host(length(g - dot(w, g) * w))
    return np.where(np.isfinite(defect), defect, 1.0)[:, 0, 0]


def _product(A: FloatArray | Matrices, chosen: Indices, z: FloatArray) -> FloatArray:
    """Return A[chosen] z (C, n, k)."""
    if hasattr(A, "dtype"):  # an array; those of torch have a method multiply as well
        return multiply(cast("FloatArray", A), chosen, z)
    return A.multiply(chosen, z)


def _finite(*parts: FloatArray) -> NDArray[np.bool_]:
    """Say for which systems (B,) all entries of arrays (B, n, k) are finite."""
    xp = namespace(parts[0])
    finite = functools.reduce(operator.and_, (xp.isfinite(part) for part in parts))
    return host(xp.all(finite, axis=(1, 2)))


def _max_ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return the largest part / whole over the right-hand sides (B,), with 0 / 0 = 0."""
    return np.where(part == 0, 0.0, part / whole).max(axis=(1, 2), initial=0.0)
