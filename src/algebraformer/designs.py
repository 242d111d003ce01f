"""Linear regressions in the l_p norm with one design and many right-hand sides: Newton's method without factorisations.

All problems share A, which is factorised once. In the coordinates of its orthonormal factor Q the Hessians Q' D(w) Q of
the way by homotopy in p are conditioned so well that conjugate residuals solve a Newton system to the accuracy that an
inexact Newton method needs in a few products, and products are shared by the batch. A network that was trained on the
family "lp-hessian" of the design can predict the inverses, which saves products.

References
----------
.. [1] "Algebraformer: A Neural Approach to Linear Systems", arXiv:2511.14263: a network that solves Newton systems.
.. [2] R. S. Dembo, S. C. Eisenstat, T. Steihaug, "Inexact Newton methods", SIAM J. Numer. Anal. 19 (1982), 400-408.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.newton import CONVERGED, INTERPOLATED, LIMIT, ROUNDING, measured
from algebraformer.numerics.lp_design import (
    Design,
    Direction,
    Directions,
    Hessians,
    conjugate_residuals,
    descend,
    scaled_by_diagonal,
)
from algebraformer.numerics.lp_norm import P_LIMITS, Indices
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.problems import LpHessian
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.validation import check_count, check_tolerance, real_numbers

MAX_PRODUCTS = 30
"""Largest number of products with a Hessian for one learned step; then it is factorised."""
KEPT_PRODUCTS = 3
"""Inverses that were predicted at an earlier iterate are used again while a step takes no more products than this in
the median of the batch."""
SAME_RANGE = 1e-8
"""Relative distance of A from the range of the design that a network was trained for."""


class LearnedInverse:
    """Conjugate residuals with predicted inverses, a `lp_design.Direction` for one batch.

    Parameters
    ----------
    read : callable
        Returns approximate inverses of Hessians, as `network.approximate_inverse` of a `LearnedSolver`.
    kept : int
        See `KEPT_PRODUCTS`; 0 predicts at every iterate.
    """

    def __init__(self, read: Callable[[Hessians], LinearInverse], kept: int = KEPT_PRODUCTS) -> None:
        self.read, self.kept = read, kept
        self._known: tuple[LinearInverse, Indices] | None = None

    def __call__(self, H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
        if self._known is None:
            self._known = self.read(H), problems
        M, known = self._known
        at = np.searchsorted(known, problems)
        part, of = M[at], np.arange(len(at))

        def inverse(z: FloatArray, chosen: Indices) -> FloatArray:
            nonlocal part, of
            if len(chosen) < len(of):  # fewer and fewer go on
                part, of = M[at[chosen]], chosen
            return part(z[..., None])[..., 0]

        found = conjugate_residuals(H, g, inverse, forcing, MAX_PRODUCTS)
        if np.median(found.products) > self.kept:
            self._known = None
        return found


def minimize(
    A: ArrayLike,
    b: ArrayLike,
    p: float,
    solver: LearnedSolver | str | Path | None = None,
    tol: float = 1e-8,
    maxiter: int = 200,
) -> OptimizeResult:
    """Minimise ||A x - b_k||_p^p, 2 <= p <= 16, for one A and every row b_k of b.

    Homotopy in p as in `newton`, one step at each of p = 3, 4.5, ..., with exact line search. Newton systems are solved
    inexactly, to min(0.1, gradient_norm^(1/2)) of their right-hand sides; what is not solved so, or does not descend,
    is factorised.

    Parameters
    ----------
    A : array_like, shape (m, n)
        Of full column rank; m >= n.
    b : array_like, shape (B, m)
    p : float
    solver : LearnedSolver, str or Path, optional
        A network with an operator head, trained on "lp-hessian" for a design with the same range as A and for this p.
        None: conjugate residuals with the diagonals of the Hessians.
    tol, maxiter
        As for `newton.minimize_lp`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        x (B, n), and arrays (B,): fun, status, success, gradient_norm and dual_gap as of `newton.minimize_lp`; nit,
        steps taken; n_inexact, those of them without a factorisation of their Hessian; n_factorisations of Hessians,
        and n_products with them. message is a list of B.

    Raises
    ------
    ValueError
        Shapes that do not match, m < n, entries that are masked, complex or not finite, p outside [2, 16], a network
        for another n.
    SingularSystemError
        A `LinAlgError`: the columns of A are linearly dependent.
    ConfigurationError
        A network that was trained on another family, for another range or another p.
    UnknownNameError
        There is no network of that name.

    Examples
    --------
    >>> import numpy as np
    >>> result = minimize(np.ones((3, 1)), [[0.0, 0.0, 1.0]], p=4)  # 2 x^3 = (1 - x)^3
    >>> bool(abs(result.x[0, 0] - 1 / (1 + 2 ** (1 / 3))) < 1e-8), result.n_factorisations.tolist()
    (True, [0])
    """
    tol, maxiter = check_tolerance(tol, "tol"), check_count(maxiter, "maxiter")
    A, b = real_numbers(A, "A"), real_numbers(b, "b")
    if A.ndim != 2 or 0 in A.shape:
        raise ValueError(f"A must have shape (m, n) with m, n >= 1, received {A.shape}")
    if b.ndim != 2 or b.shape[1] != len(A):
        raise ValueError(f"b must have shape (B, {len(A)}) for A of shape {A.shape}, received {b.shape}")
    if not np.isfinite(b).all():
        raise ValueError("b contains NaN or infinity")
    exponent = real_numbers(p, "p")
    if exponent.ndim or not P_LIMITS[0] <= exponent <= P_LIMITS[1]:
        raise ValueError(f"p must be a number from 2 to 16, received {p!r}")
    design = Design.of(A)
    direction: Direction = scaled_by_diagonal
    if solver is not None:
        design, direction = _learned(as_solver(solver), design, float(exponent))
    problem = design.regression(b, float(exponent))
    found = descend(design, problem.r, float(exponent), direction, tol, maxiter)
    status = np.where(found.error <= tol, CONVERGED, np.where(found.stalled, ROUNDING, LIMIT))
    status[problem.interpolated] = INTERPOLATED
    fields = measured(problem, problem.x + design.coordinates(found.y), status, tol) | {
        "nit": found.iterations,
        "n_inexact": found.inexact,
        "n_factorisations": found.factorisations,
        "n_products": found.products,
    }
    return OptimizeResult(fields)


def _learned(solver: LearnedSolver, design: Design, p: float) -> tuple[Design, LearnedInverse]:
    """Check a network, and return the design in its coordinates and its direction."""
    name = solver.info.family.get("name")
    family = solver.info.problem_family() if name == LpHessian.name else None
    if not isinstance(family, LpHessian):
        raise ConfigurationError(f"the network must be trained on {LpHessian.name}, received one for {name}")
    m, n = design.A.shape
    if n != solver.n:
        raise ValueError(f"the network supports n = {solver.n}, received A with {n} columns")
    solver.network.check_linear()
    own = family.design()
    if len(own.Q) != m or np.linalg.norm(design.Q - own.Q @ (own.Q.T @ design.Q)) > SAME_RANGE:
        raise ConfigurationError(f"the network was trained for the design of {family}, received A with another range")
    if family.p != p:
        raise ConfigurationError(f"the network was trained for p = {family.p:g}, received {p:g}")
    return Design(design.A, own.Q, own.Q.T @ design.A), LearnedInverse(solver.network.approximate_inverse)
