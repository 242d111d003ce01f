"""Newton-Kantorovich for nonlinear boundary value problems, with a learned inverse of the Jacobians.

F(u) = 0 is solved by u <- u + t d with J(u) d about -F(u). In place of an LU factorisation of J, a network that was
trained on the family of Jacobians reads a few of its entries and returns an approximate inverse; conjugate residuals
refine d only as far as the outer iteration needs it (inexact Newton [1]_, forcing terms of Eisenstat and Walker [2]_).
Many problems of a family are solved at once, and a Jacobian is formed only where LU has to help.

Residuals are compared in the natural norm |F| = ||D2^-1 F|| [3]_, with D2 the second derivative with zero ends: the
plain norm of F is dominated by the few rows near the ends, whose entries grow like n^4, and by their rounding. In this
norm a step must lower the residual (step lengths are halved until it does), and a learned step that does not reach its
forcing term, or does not lower |F|, is replaced by Newton's own with LU. So the network decides how long it takes,
not what comes out.

An answer is certified if, computed in float64 from the equation alone, it passes both tests, with u_0 the family's
guess:

- |F(u)| <= rtol |F(u_0)|, or |F(u)| <= 10 n eps ||p(u)||, the rounding of D2^-1 D2 p(u);
- ||F(u)|| <= rtol ||F(u_0)||, or |F(u)|_i <= 10 n eps S(u)_i for all i, where S = |D2| |p| + |D| |q| + |r| adds up the
  sizes of the terms: then F(u) is as small as its own rounding.

References
----------
.. [1] R. S. Dembo, S. C. Eisenstat and T. Steihaug, "Inexact Newton methods", SIAM J. Numer. Anal. 19 (1982).
.. [2] S. C. Eisenstat and H. F. Walker, "Choosing the forcing terms in an inexact Newton method", SIAM J. Sci. Comput.
   17 (1996).
.. [3] P. Deuflhard, "Newton Methods for Nonlinear Problems", Springer (2004), chapter 3: natural level functions.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, FloatArray, ratio
from algebraformer.models import max_batch_size
from algebraformer.numerics import gcr
from algebraformer.numerics.preconditioner import Preconditioner
from algebraformer.problems import NonlinearFamily
from algebraformer.problems.base import Parameters
from algebraformer.problems.nonlinear import Jacobians, operators
from algebraformer.problems.sampling import generator
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.validation import check_count, check_tolerance, real_numbers

Indices = NDArray[np.int64]
RTOL = 1e-8
ROUNDING_FACTOR = 10.0
"""Residuals of at most this many n eps of their terms are as small as their own rounding."""
MAX_FORCING, MIN_FORCING = 0.1, 1e-6
"""Limits of the forcing terms: the share of |F| that a linear solve may leave."""
FORCING_GAMMA = 0.9
"""The forcing term is this times the square of the share of |F| that the last step left: choice 2 of [2]_."""
MAX_HALVINGS = 6
"""How often a step is halved before it is given up."""
SUFFICIENT_DECREASE = 1e-4
"""A step of length t must lower |F| by this share of t (1 - forcing term), as in [2]_."""


class Outcome(enum.Enum):
    """How the solution of a problem ended. The value is the sentence a user reads."""

    CONVERGED = "The residual meets the certificate."
    LIMIT = "The largest number of iterations was reached before the certificate: allow more, or a larger rtol."
    STAGNATED = "Not even Newton's own step lowers the residual: the guess is too far away, or float64 ends here."


@dataclasses.dataclass(frozen=True)
class KantorovichResult:
    """Answers to B problems.

    Attributes
    ----------
    u : ndarray, shape (B, n)
        Values at the interior points.
    status : ndarray of Outcome, shape (B,)
    certified : ndarray of bool, shape (B,)
        See the module's first lines.
    nit : ndarray of int, shape (B,)
        Newton steps taken.
    factorisations : ndarray of int, shape (B,)
        LU factorisations, which stand in for learned steps that were not good enough.
    refinements : ndarray of int, shape (B,)
        Products with J and its approximate inverse beyond the first of every step.
    residual_norm : ndarray, shape (B,)
        ||F(u)||.
    natural_residual : ndarray, shape (B,)
        |F(u)| / |F(u_0)| in the natural norm, u_0 the family's guess.
    backward_error : ndarray, shape (B,)
        max_i |F(u)|_i / S(u)_i.
    """

    u: FloatArray
    status: NDArray[Any]
    certified: NDArray[np.bool_]
    nit: Indices
    factorisations: Indices
    refinements: Indices
    residual_norm: FloatArray
    natural_residual: FloatArray
    backward_error: FloatArray


@dataclasses.dataclass(frozen=True)
class Directions:
    """Steps d (C, n) for C systems, whether they reached their forcing terms (C,), and what they took (C,)."""

    d: FloatArray
    reached: NDArray[np.bool_]
    refinements: Indices | int = 0
    factorisations: Indices | int = 0


class NewtonDirection(Protocol):
    """A way to solve J d = -F for Jacobians J and residuals F (C, n); `systems` (C,) are their numbers."""

    halvings: int
    """How often a step of `approximate` is halved before `lu` is asked; with 0 it has to halve the residual itself."""
    exact: bool
    """Whether `approximate` is as good as `lu`, which then is not tried after it."""

    def approximate(self, J: Jacobians, F: FloatArray, forcing: FloatArray, systems: Indices) -> Directions:
        """Return steps with |J d + F| at most the forcing terms (C,) times |F|."""

    def lu(self, J: Jacobians, F: FloatArray, systems: Indices) -> Directions:
        """Return Newton's own steps; not finite where a Jacobian is singular."""


class LUDirection:
    """Newton's method: LU of every Jacobian, by LAPACK through NumPy."""

    halvings = MAX_HALVINGS
    exact = True

    def approximate(self, J: Jacobians, F: FloatArray, forcing: FloatArray, systems: Indices) -> Directions:
        """Return Newton's own steps."""
        return self.lu(J, F, systems)

    def lu(self, J: Jacobians, F: FloatArray, systems: Indices) -> Directions:
        """Return Newton's own steps; NaN where a Jacobian is singular."""
        A, b = J.dense(), -F[:, :, None]
        try:
            d = np.linalg.solve(A, b).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            d = np.stack([_solved(*system) for system in zip(A, b, strict=True)])
        return Directions(d[:, :, 0], np.asarray(np.isfinite(d).all(axis=(1, 2))), factorisations=1)


class GCRDirection(LUDirection):
    """Conjugate residuals with an approximate inverse, to the forcing terms.

    Parameters
    ----------
    inverse : callable
        Returns the approximate inverses of Jacobians.
    maxiter : int
        Largest number of products with J for one step.
    """

    exact = False

    def __init__(self, inverse: Callable[[Jacobians], Preconditioner], maxiter: int) -> None:
        self.inverse, self.maxiter = inverse, maxiter

    def approximate(self, J: Jacobians, F: FloatArray, forcing: FloatArray, systems: Indices) -> Directions:
        """Return the steps, in as few products as their forcing terms allow."""
        M = self.inverse(J)
        solution = gcr.solve(J, -F[:, :, None], M, 0.0, self.maxiter, stagnation_factor=1.0, inner_rtol=forcing)
        reached = solution.residual_ratio <= forcing
        return Directions(solution.x[:, :, 0], reached, np.maximum(solution.steps - 1, 0))


def _solved(A: FloatArray, b: FloatArray) -> FloatArray:
    """Return the solution of one system, NaN where A is singular."""
    try:
        return np.asarray(np.linalg.solve(A, b), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(b, np.nan)


@functools.cache
def _inverse_second_derivative(n: int) -> FloatArray:
    return np.linalg.inv(operators(n)[0][:, 1:-1]).astype(np.float64, copy=False)


def natural_norm(F: FloatArray) -> FloatArray:
    """Return ||D2^-1 F|| (B,) for F (B, n)."""
    return np.asarray(np.linalg.norm(F @ _inverse_second_derivative(F.shape[1]).T, axis=1), dtype=np.float64)


def solve(
    family: NonlinearFamily,
    params: Parameters,
    solver: LearnedSolver | str | Path | None = None,
    rtol: float = RTOL,
    maxiter: int = 50,
    max_refinements: int = 10,
    u0: ArrayLike | None = None,
) -> KantorovichResult:
    """Solve B problems of one family.

    Parameters
    ----------
    family : NonlinearFamily
    params : dict of ndarray, each of shape (B, ...)
        Their parameters, as `family.parameters` draws them.
    solver : LearnedSolver, str or Path, optional
        A network with a linear head, such as an operator head, trained on the family, or its name or folder. None:
        Newton's method with LU.
    rtol : float
        Tolerance of the certificate.
    maxiter : int
        Largest number of Newton steps.
    max_refinements : int
        Largest number of refinements of a learned step.
    u0 : array_like, shape (B, n), optional
        Where to start; the family's guess, `family.initial(params)`, if None.

    Returns
    -------
    KantorovichResult

    Raises
    ------
    ValueError
        A network for another n; parameters that are not finite; u0 of another shape, masked, complex or not finite; a
        limit that is negative.
    ConfigurationError
        A family that is not nonlinear, or parameters of another one; a network for another family, or with a token
        head, which is not linear in F.
    UnknownNameError
        There is no network of that name.

    Examples
    --------
    >>> import numpy as np
    >>> from algebraformer import problems
    >>> family = problems.get("bratu", n=24, left=(0.0, 0.0), right=(0.0, 0.0), strength=(0.5, 0.5))
    >>> result = solve(family, family.parameters([0]))
    >>> t = 0.58938776346935  # lambda cosh(t)^2 = 2 t^2
    >>> u = 2 * np.log(np.cosh(t) / np.cosh(t * family.grid[1:-1]))
    >>> bool(result.certified[0]), bool(np.max(np.abs(result.u - u)) < 1e-9)
    (True, True)
    """
    method: NewtonDirection = LUDirection()
    max_refinements = check_count(max_refinements, "max_refinements")
    if solver is not None:
        solver = as_solver(solver)
        name = solver.info.family.get("name")
        if name != family.name:
            raise ConfigurationError(f"the network must be trained on {family.name}, received one for {name}")
        if solver.n != family.n:
            raise ValueError(f"the network supports n = {solver.n}, received a family with n = {family.n}")
        solver.network.check_linear()
        method = GCRDirection(solver.network.approximate_inverse, 1 + max_refinements)
    return iterate(family, params, method, rtol, maxiter, u0)


def iterate(
    family: NonlinearFamily,
    params: Parameters,
    method: NewtonDirection,
    rtol: float = RTOL,
    maxiter: int = 50,
    u0: ArrayLike | None = None,
) -> KantorovichResult:
    """Solve B problems with steps of any method; the arguments are those of `solve`."""
    rtol, maxiter = check_tolerance(rtol, "rtol"), check_count(maxiter, "maxiter")
    _check_problems(family, params)
    start = family.initial(params)
    u = start if u0 is None else real_numbers(u0, "u0")
    if u.shape != start.shape:
        raise ValueError(f"u0 must have shape {start.shape}, received {u.shape}")
    step, parts = max_batch_size(family.n), []
    for begin in range(0, len(u), step):
        rows = slice(begin, begin + step)
        part_params = {key: value[rows] for key, value in params.items()}
        parts.append(_iterated(family, part_params, method, u[rows], begin, rtol, maxiter))
    fields = (field.name for field in dataclasses.fields(KantorovichResult))
    return KantorovichResult(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _check_problems(family: NonlinearFamily, params: Parameters) -> None:
    """Raise `ConfigurationError` unless these are a nonlinear family and parameters of it, `ValueError` if not finite.

    Of what the family draws, the place on Newton's path is for its linear systems alone and may be missing.
    """
    if not isinstance(family, NonlinearFamily):
        name = getattr(family, "name", "") or type(family).__name__
        raise ConfigurationError(f"expected a nonlinear family such as bratu or burgers, received {name}")
    needed = {"left", "right", *family.equation(generator(0, 0))}
    if missing := sorted(needed - set(params)):
        raise ConfigurationError(
            f"params of {family.name} need {', '.join(sorted(needed))}, received none for {', '.join(missing)}: draw "
            "them by family.parameters"
        )
    for key, value in params.items():
        if not np.isfinite(value).all():
            raise ValueError(f"params[{key!r}] contains NaN or infinity")


class _Problems:
    """B problems, their places u, residuals F and natural norms of F."""

    def __init__(self, family: NonlinearFamily, params: Parameters, u: FloatArray) -> None:
        self.family, self.params, self.u = family, params, u
        self.F = family.residual(params, u)
        self.natural = natural_norm(self.F)

    def of(self, chosen: Indices) -> Parameters:
        """Return the parameters of the chosen ones."""
        return {key: value[chosen] for key, value in self.params.items()}

    def move(self, chosen: Indices, d: FloatArray, forcing: FloatArray, halvings: int) -> NDArray[np.bool_]:
        """Go along d (C, n), at half the length where the residual does not fall; return who has moved (C,)."""
        moved, t = np.zeros(len(chosen), dtype=bool), 1.0
        for _ in range(1 + halvings):
            left = np.flatnonzero(~moved)
            where = chosen[left]
            u = self.u[where] + t * d[left]
            F = self.family.residual(self.of(where), u)
            natural = natural_norm(F)
            most = 1 - SUFFICIENT_DECREASE * t * (1 - forcing[left]) if halvings else 0.5
            fine = natural <= most * self.natural[where]
            took = where[fine]
            self.u[took], self.F[took], self.natural[took] = u[fine], F[fine], natural[fine]
            moved[left[fine]] = True
            if moved.all():
                break
            t /= 2
        return moved


def _iterated(
    family: NonlinearFamily,
    params: Parameters,
    method: NewtonDirection,
    u: FloatArray,
    first: int,
    rtol: float,
    maxiter: int,
) -> KantorovichResult:
    """Solve the problems of one batch; `first` is the number of the first one."""
    B = len(u)
    with np.errstate(over="ignore", invalid="ignore"):
        problems = _Problems(family, params, u.copy())
        guess = family.residual(params, family.initial(params))
        natural, norm = natural_norm(guess), np.linalg.norm(guess, axis=1)
        status = np.full(B, Outcome.LIMIT, dtype=object)
        nit, factorisations, refinements = (np.zeros(B, dtype=np.int64) for _ in range(3))
        forcing, active = np.full(B, MAX_FORCING), np.arange(B)

        for count in range(maxiter + 1):
            # 1. Leave what is certified.
            good = _measures(problems, active, natural[active], norm[active], rtol)[0]
            status[active[good]] = Outcome.CONVERGED
            active = active[~good]
            if not active.size or count == maxiter:
                break

            # 2. Solve J d = -F to the forcing terms [1]_, and go along d where that was reached.
            J, before = family.jacobian(problems.of(active), problems.u[active]), problems.natural[active]
            step = method.approximate(J, problems.F[active], forcing[active], first + active)
            refinements[active] += step.refinements
            factorisations[active] += step.factorisations
            moved = np.zeros(active.size, dtype=bool)
            reached = np.flatnonzero(step.reached)
            moved[reached] = problems.move(active[reached], step.d[reached], forcing[active[reached]], method.halvings)

            # 3. Newton's own step for the others.
            if not method.exact and not moved.all():
                others = np.flatnonzero(~moved)
                where = active[others]
                step = method.lu(J.take(others), problems.F[where], first + where)
                factorisations[where] += step.factorisations
                moved[others] = problems.move(where, step.d, np.zeros(others.size), MAX_HALVINGS)
            status[active[~moved]] = Outcome.STAGNATED
            nit[active[moved]] += 1

            # 4. The next forcing terms: choice 2 of Eisenstat and Walker [2]_.
            kept = problems.natural[active] / before
            forcing[active] = np.clip(FORCING_GAMMA * kept**2, MIN_FORCING, MAX_FORCING)
            active = active[moved]

        certified, share, omega = _measures(problems, np.arange(B), natural, norm, rtol)
        norm = np.linalg.norm(problems.F, axis=1)
    return KantorovichResult(problems.u, status, certified, nit, factorisations, refinements, norm, share, omega)


def _measures(
    problems: _Problems, chosen: Indices, natural: FloatArray, norm: FloatArray, rtol: float
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Return whether the chosen problems are certified, |F| / |F_0| and the backward errors, (C,) each."""
    F, u, params, n = problems.F[chosen], problems.u[chosen], problems.of(chosen), problems.u.shape[1]
    family = problems.family
    share = ratio(problems.natural[chosen], natural)
    terms = family.terms(params, family.grid[1:-1], u)
    rounding = ratio(problems.natural[chosen], np.linalg.norm(terms[0], axis=1))
    omega = np.max(ratio(np.abs(F), family.size(params, u)), axis=1)
    relative = ratio(np.linalg.norm(F, axis=1), norm)
    stable = ROUNDING_FACTOR * n * EPS
    certified = ((share <= rtol) | (rounding <= stable)) & ((relative <= rtol) | (omega <= stable))
    return certified, share, omega
