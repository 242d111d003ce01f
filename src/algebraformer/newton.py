"""Linear regression in the l_p norm by Newton's method with learned steps, safeguarded against any network output.

Three ways to use a network, by the target of the family "lp-regression" that it was trained on:

- newton: it solves the Newton system H d = -g of an iterate, the paper's way;
- optimum: from the same tokens [h_i, g_i] it predicts the whole way from the iterate to the optimum (ours);
- start: from the least squares solution it predicts the way to the optimum, once (ours).

What it proposes is a direction: the length comes from an exact line search, and the step is taken if the objective
falls far enough. Otherwise, and when the gradient is small, Newton's own step is taken, with an exact line search
too. So the last steps are exact, and the answer is the optimum to the tolerance whatever the network does.

References
----------
.. [1] "Algebraformer: A Neural Approach to Linear Systems", arXiv:2511.14263: a network inside Newton's method for l_p
   norms, about four times fewer iterations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import EPS, FloatArray
from algebraformer.numerics.lp_norm import (
    Flags,
    Indices,
    Regression,
    abs_power,
    descend,
    dual_gap,
    dual_vector,
    gradient_norm,
    line_search_step,
    max_abs,
    newton_step,
    p_norm,
    product,
    transposed_product,
)
from algebraformer.problems import LpRegression
from algebraformer.problems.lp_regression import newton_system, start_step, start_tokens
from algebraformer.result import scalar
from algebraformer.solver import LearnedSolver, as_solver
from algebraformer.validation import check_count, check_tolerance, real_numbers

CONVERGED, LIMIT, ROUNDING, INTERPOLATED = 0, 1, 2, 3
MESSAGES = {
    CONVERGED: "The relative gradient norm is at most tol: x is the optimum to that accuracy.",
    LIMIT: "The largest number of iterations was reached before the tolerance: allow more, or a larger tol.",
    ROUNDING: "The objective no longer falls: x is as good as float64 allows, and the gradient norm is above tol.",
    INTERPOLATED: "The least squares solution leaves no residual but rounding: it is the optimum for every p.",
}
"""The sentence of every status."""
ARMIJO_FRACTION = 0.1
"""A learned step must lower the objective by this share of the linear prediction, t |g'd| (Armijo), ..."""
MIN_GAP_REDUCTION = 0.6
"""... and by this share of the dual gap, or else ..."""
MAX_FORCING = 0.1
"""... leave at most this share of the right-hand side of the Newton system, as inexact Newton methods require. A
network whose step does not is not asked again."""
NEWTON_ONLY_BELOW = 1e-3
"""Below this relative gradient norm Newton's steps converge quadratically, and the network is not asked any more."""


def minimize_lp(
    A: ArrayLike,
    b: ArrayLike,
    p: ArrayLike,
    x0: ArrayLike | None = None,
    solver: LearnedSolver | str | Path | None = None,
    tol: float = 1e-8,
    maxiter: int = 200,
) -> OptimizeResult:
    """Minimise ||A x - b||_p^p, 2 <= p <= 16.

    Parameters
    ----------
    A : array_like, shape (m, n) or (B, m, n)
        Of full column rank; m >= n.
    b : array_like, shape (m,) or (B, m)
    p : float, or array_like of shape (B,)
    x0 : array_like, shape (n,) or (B, n), optional
        Where to start; the least squares solution if not given. A network with target "start" is then not asked.
    solver : LearnedSolver, str or Path, optional
        A network trained on the family "lp-regression", or its name or folder. None: Newton's method with exact line
        search.
    tol : float
        Tolerance on the relative gradient norm ||A' (|r|^(p-2) r)||_inf / || |A|' |r|^(p-1) ||_inf, r = A x - b.
    maxiter : int
        Largest number of iterations.

    Returns
    -------
    scipy.optimize.OptimizeResult
        x; fun, ||A x - b||_p^p; status, success and message; nit = n_learned + n_exact, steps taken of either kind;
        gradient_norm, and dual_gap, an upper bound on (fun - min) / fun, both recomputed from A, b and x; trace, a
        list of (kind of the step, gradient_norm, ||r||_p after it), from ("start", ...) on. For a batch these are
        arrays of shape (B,), and lists of B. Status 0: converged; 1: not within maxiter; 2: as good as float64 allows;
        3: the least squares solution interpolates, so that the Hessian is zero and x is the optimum. All but 1 are
        successes.

    Raises
    ------
    ValueError
        Shapes that do not match, m < n, entries that are masked, complex or not finite, p outside [2, 16], a negative
        limit, a network for another n or m.
    SingularSystemError
        A `LinAlgError`: the columns of A are linearly dependent, so that the optimum is not unique. Leave out columns.
    ConfigurationError
        A network that was trained on another family.
    UnknownNameError
        There is no network of that name.

    Examples
    --------
    >>> import numpy as np
    >>> result = minimize_lp(np.ones((3, 1)), [0.0, 0.0, 1.0], p=4)  # 2 x^3 = (1 - x)^3
    >>> result.success, bool(abs(result.x[0] - 1 / (1 + 2 ** (1 / 3))) < 1e-12)
    (True, True)
    """
    tol, maxiter = check_tolerance(tol, "tol"), check_count(maxiter, "maxiter")
    A, b = real_numbers(A, "A"), real_numbers(b, "b")
    batched = A.ndim == 3
    if A.ndim not in (2, 3):
        raise ValueError(f"A must have shape (m, n) or (B, m, n), received {A.shape}")
    if b.shape != A.shape[:-1]:
        raise ValueError(f"b must have shape {A.shape[:-1]} for A of shape {A.shape}, received {b.shape}")
    exponents = real_numbers(p, "p")
    if exponents.ndim and exponents.shape != A.shape[:1] * batched:
        raise ValueError(f"p must be one number{f' or {len(A)}' * batched}, received shape {exponents.shape}")
    problem = Regression.of(A if batched else A[None], b if batched else b[None], exponents)
    if x0 is not None:
        x0 = real_numbers(x0, "x0")
        if x0.shape != A.shape[:-2] + A.shape[-1:]:
            raise ValueError(f"x0 must have shape {A.shape[:-2] + A.shape[-1:]}, received {x0.shape}")
    network = None if solver is None else _Network(as_solver(solver), problem)
    fields = _minimize(problem, None if x0 is None else x0.reshape(problem.x.shape), network, tol, maxiter)
    return OptimizeResult({k: v if batched else scalar(v[0]) for k, v in fields.items()})


class _Network:
    """A network, and how its family reads a regression."""

    def __init__(self, solver: LearnedSolver, problem: Regression) -> None:
        name = solver.info.family.get("name")
        family = solver.info.problem_family() if name == LpRegression.name else None
        if not isinstance(family, LpRegression):
            raise ConfigurationError(f"the network must be trained on {LpRegression.name}, received one for {name}")
        self.solver, self.family = solver, family
        m, n = problem.A.shape[1:]
        if n != solver.n:
            raise ValueError(f"the network supports n = {solver.n}, received A with {n} columns")
        if self.target == "start" and m > family.m:
            raise ValueError(f"the network supports up to {family.m} rows, received A with {m}")

    @property
    def target(self) -> str:
        return str(self.family.target)

    def step(self, problem: Regression, x: FloatArray) -> FloatArray:
        """Return the steps (B, n) proposed at x (B, n), zero where the network has no finite answer."""
        with np.errstate(all="ignore"):
            H, g = start_tokens(problem) if self.target == "start" else newton_system(problem, x)
            read = np.isfinite(H).all(axis=(1, 2)) & np.isfinite(g).all(axis=1)
            d = np.zeros_like(x)
            if read.any():
                d[read] = self.solver.predict(H[read], g[read])
            if self.target == "start":
                d = start_step(problem, np.where(np.isfinite(d), d, 0.0))
        return np.where(np.isfinite(d).all(axis=1, keepdims=True), d, 0.0)


class _Steps:
    """The steps of `minimize_lp` for B problems: the network's where they are safe, Newton's own elsewhere.

    Attributes
    ----------
    counts : dict of ndarray of int, shape (B,)
        Steps taken, by kind.
    trace : list of B lists
        See `minimize_lp`.
    """

    def __init__(self, problem: Regression, network: _Network | None, warm_start: bool) -> None:
        B = len(problem)
        self.problem, self.network = problem, network
        self.counts = {name: np.zeros(B, dtype=np.int64) for name in ("learned", "exact")}
        self.trace: list[list[tuple[str, float, float]]] = [[] for _ in range(B)]
        self._asked = np.full(B, network is not None and not (network.target == "start" and warm_start))
        self._kind = np.full(B, "start", dtype=object)

    def observe(self, active: Indices, r: FloatArray, error: FloatArray) -> None:
        """Extend the traces."""
        for i, e, size in zip(active, error, p_norm(r, self.problem.p[active]), strict=True):
            self.trace[i].append((self._kind[i], float(e), float(size)))

    def step(self, active: Indices, delta: FloatArray, r: FloatArray, error: FloatArray) -> tuple[FloatArray, Flags]:
        """Return the steps (C, n), and which of them change x at all (C,); see `lp_norm.descend`."""
        part, step = self.problem[active], np.zeros_like(delta)
        self._kind[active] = "exact"

        # 1. The network's, where it is still asked and its step is safe.
        use = self._asked[active] & (error > NEWTON_ONLY_BELOW)
        if self.network is not None and use.any():
            asked = part[use]
            x = asked.x + delta[use]
            step[use], accepted = _safeguard(asked, x, r[use], self.network.step(asked, x))
            self._asked[active[use]] = accepted & (self.network.target != "start")
            self._kind[active[use][accepted]] = "learned"

        # 2. Newton's own, with an exact line search.
        exact = self._kind[active] == "exact"
        if exact.any():
            rest = part[exact]
            d = newton_step(rest.A, r[exact], rest.p)
            step[exact] = line_search_step(rest.A, r[exact], rest.p, d)

        # 3. What does not change x is the end of float64.
        moved = np.any(delta + step != delta, axis=1)
        for name, count in self.counts.items():
            count[active[moved]] += self._kind[active[moved]] == name
        return step, moved


def _minimize(
    problem: Regression, x0: FloatArray | None, network: _Network | None, tol: float, maxiter: int
) -> dict[str, Any]:
    """Return the fields of the result for a batch. Unknown is the way from least squares, as in `lp_norm.iterate`."""
    delta = np.zeros_like(problem.x) if x0 is None else np.where(problem.interpolated[:, None], 0.0, x0 - problem.x)
    steps = _Steps(problem, network, warm_start=x0 is not None)
    descent = descend(problem.A, problem.p, problem.r, delta, steps.step, tol, maxiter, steps.observe)
    status = np.where(descent.error <= tol, CONVERGED, np.where(descent.refused, ROUNDING, LIMIT))
    status[problem.interpolated] = INTERPOLATED
    learned, exact = steps.counts["learned"], steps.counts["exact"]
    return measured(problem, problem.x + descent.delta, status, tol) | {
        "n_learned": learned,
        "n_exact": exact,
        "nit": learned + exact,
        "trace": steps.trace,
    }


def _safeguard(
    problem: Regression, x: FloatArray, r: FloatArray, d: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the steps along d (B, n), at their best lengths, and which of them are taken; x (B, n), r (B, m)."""
    with np.errstate(all="ignore"):
        step = line_search_step(problem.A, r, problem.p, d / max_abs(d)[:, None])
        before = p_norm(r, problem.p)
        after = p_norm(r + product(problem.A, step), problem.p)
        gain = -np.expm1(problem.p * np.log(after / before))  # (f - f_new) / f
        scaled_f = np.sum(abs_power(r / max_abs(r)[:, None], problem.p), axis=1)  # f in units of max |r|
        predicted = np.sum(transposed_product(problem.A, dual_vector(r, problem.p)) * step, axis=1) / max_abs(r)
        sufficient = gain >= ARMIJO_FRACTION * problem.p * -predicted / scaled_f
        far = gain >= MIN_GAP_REDUCTION * dual_gap(problem.Q, r, problem.p)
        H, g = newton_system(problem, x)
        solved = np.linalg.norm(g - product(H, d), axis=1) <= MAX_FORCING * np.linalg.norm(g, axis=1)
    accepted = (predicted < 0) & sufficient & (far | solved) & np.isfinite(step).all(axis=1)
    return np.where(accepted[:, None], step, 0.0), accepted


def measured(problem: Regression, x: FloatArray, status: NDArray[np.int64], tol: float) -> dict[str, Any]:
    """Return x and what can be said of it from A, b and x alone."""
    r = product(problem.A, x) - problem.b
    interpolated = status == INTERPOLATED
    error = np.where(interpolated, 0.0, gradient_norm(problem.A, r, problem.p))
    # r is known to n eps (|A| |x| + |b|), and |r|^(p-1) to p - 1 times that: where b is large, the digits end there.
    size = np.max(product(np.abs(problem.A), np.abs(x)) + np.abs(problem.b), axis=1)
    floor = (problem.p - 1) * problem.A.shape[2] * EPS * size / max_abs(r)
    status = np.where((status == CONVERGED) & (error > tol) & (error > floor), LIMIT, status)
    status = np.where((status == CONVERGED) & (error > tol), ROUNDING, status)
    with np.errstate(over="ignore"):
        fun = p_norm(r, problem.p) ** problem.p
    return {
        "x": x,
        "fun": fun,
        "status": status,
        "success": status != LIMIT,
        "message": [MESSAGES[int(code)] for code in status],
        "gradient_norm": error,
        "dual_gap": np.where(interpolated, 0.0, dual_gap(problem.Q, r, problem.p)),
    }
