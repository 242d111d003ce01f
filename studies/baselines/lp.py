"""Classical methods for linear regression in the l_p norm, 2 <= p <= 16; batched. See `lp_norm` for the problem.

References
----------
.. [1] D. Adil, R. Peng, S. Sachdeva, "Fast, provably convergent IRLS algorithm for p-norm linear regression",
   NeurIPS 2019: p-IRLS, here with the constants of the authors' program.
.. [2] C. S. Burrus, J. A. Barreto, I. W. Selesnick, "Iterative reweighted least-squares design of FIR filters", IEEE
   Transactions on Signal Processing 42 (1994), 2926-2936: IRLS by homotopy in p.
.. [3] S. W. Kahng, "Best L_p approximation", Mathematics of Computation 26 (1972), 505-508: the step 1 / (p - 1).
.. [4] A. Ene, T. D. Nguyen, A. Vladu, "Improved l_p regression via iteratively reweighted least squares",
   arXiv:2510.01729: primal-dual weights with multiplicative updates. Written from its published summary, see
   `_primal_dual`.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.numerics.lp_norm import (
    LpSolution,
    Regression,
    Step,
    abs_power,
    iterate,
    line_search,
    line_search_step,
    newton,
    newton_step,
    p_norm,
    product,
    weighted_least_squares,
)

Method = Literal["damped", "newton", "irls", "p-irls", "primal-dual irls", "homotopy"]
"""damped: Newton's step as it is, IRLS damped by 1 / (p - 1). newton: its direction with an exact line search. irls:
the undamped weighted least squares step, which need not converge for p >= 3. p-irls: Adil, Peng, Sachdeva. primal-dual
irls: Ene, Nguyen, Vladu, in our reading. homotopy: one Newton step with line search at each of p = 3, 4.5, ... (factor
1.5), then Newton with line search at p."""
METHODS: tuple[Method, ...] = get_args(Method)
Start = Literal["least-squares", "zero"]
STARTS: tuple[Start, ...] = get_args(Start)
GROWTH = 1.5
"""Factor of p from step to step of the homotopy."""


def _damped(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    return newton_step(A, r, p), memory


def _irls(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    return newton_step(A, r, p) * (p - 1)[:, None], memory


def _homotopy(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    """memory: the p of the step before."""
    now = np.minimum(p, GROWTH * memory)
    return line_search_step(A, r, now, newton_step(A, r, now)), now


def _p_irls(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    """memory: i, an estimate of what is left of f, divided by 16 p; weights are padded by s, which shrinks with it."""
    m, i = r.shape[-1], memory
    s = _padding(i, m, p)
    weights = abs_power(r, p - 2)
    root = np.sqrt(weights + s[:, None])
    y = weighted_least_squares(A, root, p[:, None] * weights * r / root**2)  # (A' (R + s) A)^-1 A' g
    g = p[:, None] * weights * r
    Ay = product(A, y)
    steepness = np.sum(g * Ay, axis=-1)
    factor = i / (2 * np.where(steepness > 0, steepness, 1.0))
    q = -factor[:, None] * Ay
    t = line_search(r, q, p)
    square = np.sum((root * q) ** 2, axis=-1)
    length = p_norm(q, p)
    ratio = p * length * (length / (2 * p * np.where(square > 0, square, 1.0))) ** (1 / (p - 1))
    limit = 16 * p
    a = np.minimum(1 / (16 * limit), 1 / ((16 * limit) ** (1 / (p - 1)) * np.maximum(ratio, 1e-300)))
    gain = a * 0.5 * i - 2 * (a * p) ** 2 * np.sum(weights * q * q, axis=-1) - (a * p * length) ** p
    slow = (gain < 0.25 * a * i) | (square >= limit * i)
    after = p_norm(r + t[:, None] * q, p) ** p
    step = -(t * factor)[:, None] * y
    left = np.where(slow, 0.5 * i, i)
    return step, np.clip(left, 1e-300, np.maximum(after, 1e-300) / (16 * p))


def _primal_dual(A: FloatArray, r: FloatArray, p: FloatArray, memory: FloatArray) -> tuple[FloatArray, FloatArray]:
    """memory (B, m + 1): i, an estimate of what is left of f, divided by 16 p, and the dual weights s.

    The residual problem is that of `_p_irls`: a step q of a given linear gain with small quadratic form
    sum |r|^(p-2) q^2 and small ||q||_p. The weights s of the latter start equal, and where q is larger than they
    allow, s < |q|^(p-2) / 2, they are multiplied by the excess, which raises the dual bound sum (|r|^(p-2) + s) q^2;
    they never fall. Once that bound is above i, or no weight rises, so much cannot be gained, and i is halved; once f
    has fallen by i, the next residual problem begins. Our reading: the constants of the paper are not in its summary,
    and every step is taken with an exact line search, as in our p-IRLS.
    """
    m, i, s = r.shape[-1], memory[:, 0], memory[:, 1:]
    weights = abs_power(r, p - 2)
    root = np.sqrt(weights + s)
    g = p[:, None] * weights * r
    y = weighted_least_squares(A, root, g / root**2)
    Ay = product(A, y)
    steepness = np.sum(g * Ay, axis=-1)
    factor = i / (2 * np.where(steepness > 0, steepness, 1.0))
    q = -factor[:, None] * Ay
    t = line_search(r, q, p)
    before, after = p_norm(r, p) ** p, p_norm(r + t[:, None] * q, p) ** p
    excess = np.maximum(0.5 * abs_power(q, p - 2) / s, 1.0)
    progress = before - after >= i
    unattainable = np.sum((root * q) ** 2, axis=-1) > i
    raised = ~progress & ~unattainable & (excess > 1).any(axis=1)
    left = np.where(progress | raised, i, 0.5 * i)
    left = np.clip(left, 1e-300, np.maximum(after, 1e-300) / (16 * p))
    new = np.where(raised[:, None], s * excess, _padding(left, m, p)[:, None])
    return -(t * factor)[:, None] * y, np.column_stack((left, new))


def _padding(i: FloatArray, m: int, p: FloatArray) -> FloatArray:
    """Return the equal weights (B,) of a residual problem with i (B,) left."""
    return np.maximum(0.5 * (i / m) ** ((p - 2) / p), 1e-300)


STEPS: dict[Method, Step] = {
    "damped": _damped,
    "newton": newton,
    "irls": _irls,
    "p-irls": _p_irls,
    "primal-dual irls": _primal_dual,
    "homotopy": _homotopy,
}


def _first_p(r: FloatArray, start: FloatArray, p: FloatArray) -> FloatArray:
    """Return the p of the step before the first one: least squares is p = 2, elsewhere it comes first."""
    return np.where(np.all(r == start, axis=-1), 2.0, 2.0 / GROWTH)


def _first_padding(r: FloatArray, start: FloatArray, p: FloatArray) -> FloatArray:
    """Return (f(x_0) - a lower bound of f) / (16 p); the bound is that of the norms of least squares."""
    bound = np.linalg.norm(r, axis=-1) / r.shape[-1] ** (0.5 - 1 / p)
    return np.maximum(p_norm(start, p) ** p - bound**p, 1e-300) / (16 * p)


def _first_weights(r: FloatArray, start: FloatArray, p: FloatArray) -> FloatArray:
    """Return the first memory (B, m + 1) of `_primal_dual`."""
    i = _first_padding(r, start, p)
    return np.column_stack((i, np.repeat(_padding(i, r.shape[-1], p)[:, None], r.shape[-1], axis=1)))


def minimize(
    A: FloatArray,
    b: FloatArray,
    p: FloatArray | float,
    method: Method = "newton",
    start: Start | FloatArray = "least-squares",
    tol: float = 1e-8,
    maxiter: int = 200,
) -> LpSolution:
    """Minimise ||A x - b||_p^p for B problems; those that have converged are left out of later iterations.

    Parameters
    ----------
    A : ndarray, shape (B, m, n)
    b : ndarray, shape (B, m)
    p : float or ndarray of shape (B,), 2 <= p <= 16
    method : str
        One of `METHODS`.
    start : str or ndarray of shape (B, n)
        "least-squares", "zero" or points to start from.
    tol : float
        Tolerance on `gradient_norm`.
    maxiter : int

    Returns
    -------
    LpSolution

    Raises
    ------
    ValueError, SingularSystemError
        See `Regression.of`.
    ConfigurationError
        No method or start of that name.

    Examples
    --------
    >>> import numpy as np
    >>> A, b = np.ones((1, 3, 1)), np.array([[0.0, 0.0, 1.0]])
    >>> solution = minimize(A, b, 4.0)  # 2 x^3 = (1 - x)^3
    >>> bool(abs(solution.x[0, 0] - 1 / (1 + 2 ** (1 / 3))) < 1e-12)
    True
    """
    if method not in METHODS:
        raise ConfigurationError(f"method must be one of {', '.join(METHODS)}, received {method!r}")
    problem = Regression.of(A, b, p)
    if isinstance(start, str):
        if start not in STARTS:
            raise ConfigurationError(f"start must be one of {', '.join(STARTS)} or an array, received {start!r}")
        x0 = problem.x if start == "least-squares" else np.zeros_like(problem.x)
    else:
        x0 = np.array(start, dtype=np.float64)
        if x0.shape != problem.x.shape:
            raise ValueError(f"start must have shape {problem.x.shape}, received {x0.shape}")
    remembered = {"homotopy": _first_p, "p-irls": _first_padding, "primal-dual irls": _first_weights}.get(method)
    return iterate(problem, STEPS[method], x0, tol, maxiter, remembered)
