"""Linear regressions in the l_p norm, and the Newton systems on the way to their optima.

The paper accelerates Newton's method for l_p norms and specifies neither the problems nor p: every kind below, its
ranges and the choice of iterates are ours. A is (m, n), and x minimises ||A x - b||_p:

- gaussian: independent normal entries, columns scaled from 1 to 1e-2, normal b; m = 2 n.
- polynomial: fits of random functions with uniform noise at 128 random sites; unknowns are the values of a polynomial
  at the n Chebyshev points.
- spline: the same with n cubic B-splines on uniform knots, and one site in each 128th part of [-1, 1].
- uniform: entries and b uniform on [0, 1], the instance of p-IRLS [1]_ at a smaller size; m = 5 n / 4.
- filter: linear-phase FIR filters, a fixed basis of n cosines at m = 4 n frequencies, and random amplitudes.

References
----------
.. [1] D. Adil, R. Peng, S. Sachdeva, "Fast, provably convergent IRLS algorithm for p-norm linear regression", NeurIPS
   2019.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.numerics.lp_norm import (
    P_LIMITS,
    Regression,
    abs_power,
    dual_vector,
    iterate,
    max_abs,
    newton,
    product,
    solved,
)
from algebraformer.numerics.lp_norm import transposed_product as transposed
from algebraformer.problems.base import Parameters, ProblemFamily, check_whole, register
from algebraformer.problems.chebyshev import interpolation_matrix, points
from algebraformer.problems.sampling import FloatArray

Kind = Literal["gaussian", "polynomial", "spline", "uniform", "filter"]
Target = Literal["newton", "optimum", "start"]
SITES = 128
"""Sites of polynomial and spline fits; 2 n where that is more."""
N_MODES = 8
"""Modes of the fitted functions: sum_k c_k cos(k pi t / 2 + phi_k), c_k ~ N(0, 1/k^2)."""
NOISE = (-3.0, -1.0)
"""Limits of the decimal logarithm of the noise's largest value."""
OPTIMAL, ON_THE_WAY = 1e-8, 1e-6
"""Tolerances on `gradient_norm` of optima, and of the last iterate whose Newton system is taken."""
NORMAL_RIDGE = 1e-10
"""Added to the diagonal when values in n rows are converted to x."""
POWERS = (3.0, 5.0)
"""Besides p: exponents of the gradients from which a start is predicted."""


@register("lp-regression")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LpRegression(ProblemFamily):
    """H d = -g, Newton systems of min ||A x - b||_p at iterates of Newton's method with exact line search."""

    kind: Kind = "gaussian"
    """gaussian, polynomial, spline, uniform or filter."""
    target: Target = "newton"
    """newton: x is the Newton step. optimum: the same systems, but x is the difference between the optimum and the
    iterate. start: "A" holds inputs from the least squares solution in place of H, and x is the change of n of the
    residuals from there to the optimum."""
    p: tuple[float, ...] = (3.0, 4.0, 6.0, 8.0, 12.0)
    """Exponents; each regression has one of them."""
    iterates: int = 4
    """Systems are taken from iterates 0 (least squares) to iterates - 1, each as often; 1 with target start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("kind", get_args(Kind)), ("target", get_args(Target))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}")
        good = isinstance(self.p, tuple) and self.p and all(isinstance(p, (int, float)) for p in self.p)
        if not good or not all(P_LIMITS[0] <= p <= P_LIMITS[1] for p in self.p):
            raise ConfigurationError(f"p must be a tuple of numbers from 2 to 16, received {self.p!r}")
        check_whole(self, "iterates")
        least = {"spline": 4, "polynomial": 2}.get(self.kind, 1)
        if self.n < least:
            raise ConfigurationError(f"n must be at least {least} for kind {self.kind}, received {self.n}")
        if self.target == "start" and self._rows_of_start() > self.n:
            raise ConfigurationError(
                f"n must be at least {self._rows_of_start()} for {self.m} rows and target start, received {self.n}"
            )

    @property
    def is_linear_system(self) -> bool:
        return self.target == "newton"

    @property
    def m(self) -> int:
        """Number of rows of A."""
        rows = {"gaussian": 2 * self.n, "uniform": -(-5 * self.n // 4), "filter": 4 * self.n}
        return rows.get(self.kind, max(SITES, 2 * self.n))

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        own = {"p": float(rng.choice(self.p)), "iterate": int(rng.integers(self.iterates))}
        m = self.m
        match self.kind:
            case "gaussian":
                return own | {"A": rng.standard_normal((m, self.n)), "b": rng.standard_normal(m)}
            case "uniform":
                return own | {"A": rng.random((m, self.n)), "b": rng.random(m)}
            case "filter":
                return own | {"b": amplitudes(rng, np.linspace(0, 1, m))}
            case _:
                inside = rng.random(m)
                t = 2 * inside - 1 if self.kind == "polynomial" else 2 * (np.arange(m) + inside) / m - 1
                return own | {"t": np.sort(t), "b": noisy_values(rng, np.sort(t))}

    def matrices(self, params: Parameters) -> FloatArray:
        """Return A (B, m, n)."""
        n, m = self.n, self.m
        match self.kind:
            case "gaussian":
                return params["A"] * np.logspace(0, -2, n)
            case "uniform":
                return np.asarray(params["A"], dtype=np.float64)
            case "filter":
                basis = np.cos(np.pi * np.outer(np.linspace(0, 1, m), np.arange(n)))
                return np.broadcast_to(basis, (len(params["b"]), m, n)).copy()
            case "polynomial":
                return np.stack([interpolation_matrix(n, t) for t in params["t"]])
            case _:
                from scipy.interpolate import BSpline  # slow to import, and seldom needed

                knots = np.concatenate(([-1.0] * 3, np.linspace(-1, 1, n - 2), [1.0] * 3))
                return np.stack([BSpline.design_matrix(t, knots, 3).toarray() for t in params["t"]])

    def regression(self, params: Parameters) -> Regression:
        """Return the regressions min ||A x - b||_p themselves, with their least squares solutions."""
        return Regression.of(self.matrices(params), params["b"], params["p"])

    def iterate(self, problem: Regression, params: Parameters) -> FloatArray:
        """Return the iterates x (B, n) that the systems belong to."""
        steps = np.zeros(len(problem), dtype=np.int64) if self.target == "start" else params["iterate"]
        return iterate(problem, newton, problem.x, ON_THE_WAY, steps).x

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        problem = self.regression(params)
        if self.target == "start":
            return start_tokens(problem)
        return newton_system(problem, self.iterate(problem, params))

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        if self.is_linear_system:
            return super().solution(A, b, params)
        problem = self.regression(params)
        way = optimum(problem) - self.iterate(problem, params)
        return way if self.target == "optimum" else product(problem.A[:, nodes(self.m, self.n)], way)

    def _rows_of_start(self) -> int:
        """Return the number of inputs of `start_tokens` per token."""
        return 4 * -(-self.m // self.n) + len(POWERS) + 3


def amplitudes(rng: np.random.Generator, omega: FloatArray) -> FloatArray:
    """Return random amplitudes on [0, 1] at frequencies omega: three flat bands and two raised cosines between them."""
    edges, widths, levels = np.sort(rng.uniform(0.1, 0.9, 2)), rng.uniform(0.02, 0.1, 2), rng.random(3)
    ramps = 0.5 - 0.5 * np.cos(np.pi * np.clip((omega[:, None] - edges) / widths + 0.5, 0, 1))  # (m, 2)
    return np.asarray(levels[0] + ramps @ np.diff(levels), dtype=np.float64)


def noisy_values(rng: np.random.Generator, t: FloatArray) -> FloatArray:
    """Return the values of a random function at sites t (m,) of [-1, 1], with uniform noise."""
    k = np.arange(1, N_MODES + 1)
    c, phi = rng.standard_normal(N_MODES) / k, rng.uniform(0, 2 * np.pi, N_MODES)
    noise = 10 ** rng.uniform(*NOISE) * rng.uniform(-1, 1, len(t))
    return np.asarray(np.cos(0.5 * np.pi * np.outer(t, k) + phi) @ c + noise, dtype=np.float64)


def optimum(problem: Regression) -> FloatArray:
    """Return x* (B, n) by Newton's method with exact line search from least squares."""
    return iterate(problem, newton, problem.x, OPTIMAL, 500).x


def newton_system(problem: Regression, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return H (B, n, n) and -g (B, n) of Newton's step at x (B, n), both divided by p max |r|^(p-2).

    H = (p - 1) A' W A and g = A' W r with W = diag((|r| / max |r|)^(p-2)). For tokens, and as a family of linear
    systems; the step itself is better computed by `lp_norm.newton_step`, which does not form H.
    """
    r = product(problem.A, x) - problem.b
    size = max_abs(r)[:, None]
    root = abs_power(r / size, 0.5 * (problem.p - 2))
    weighted = root[..., None] * problem.A
    H = (problem.p - 1)[:, None, None] * (weighted.mT @ weighted)
    return H, -size * transposed(problem.A, dual_vector(r, problem.p))


def nodes(m: int, n: int) -> NDArray[np.int64]:
    """Return n of the rows 0 ... m - 1, evenly spread from the first to the last."""
    return np.round(np.linspace(0, m - 1, n)).astype(np.int64)


def start_step(problem: Regression, v: FloatArray) -> FloatArray:
    """Return the x (B, n) for which A x takes the values v (B, n) in the rows `nodes`.

    By normal equations in the basis Q, which is well-conditioned there for the kinds with learned starts, with a small
    ridge parameter, so that other A have a solution, too, if an inaccurate one.
    """
    N = problem.Q[:, nodes(*problem.A.shape[1:])]  # (B, n, n)
    normal = N.mT @ N + NORMAL_RIDGE * np.eye(N.shape[-1])
    return solved(problem.R, solved(normal, transposed(N, v)))


def start_tokens(problem: Regression) -> tuple[FloatArray, FloatArray]:
    """Return the inputs of learned starts, at the least squares solutions, as "matrices" (B, n, n) and "b" (B, n).

    Ours: column i holds u = r / s, its dual vector |u|^(p-2) u, the leverage of the row and the value of A times the
    Chebyshev points (the site, for polynomials) for the m / n rows from i m / n on; for k = 3, 5 and p the projection
    of |u|^(k-1) sign u onto the range of A, in row i of `nodes`; 1 / p; and ones. s is the residual that is largest in
    absolute value, with its sign, and all entries of b are s, so that the output scales with s, including its sign. The
    output is the change of the residuals of the rows `nodes` from least squares to the optimum, which is local if the
    rows are ordered; `start_step` converts it to the change of x.
    """
    A, r, p = problem.A, problem.r, problem.p
    B, m, n = A.shape
    s = np.take_along_axis(r, np.argmax(np.abs(r), axis=1)[:, None], axis=1)  # (B, 1)
    u = r / np.where(s != 0, s, 1.0)
    group = -(-m // n)
    position = product(A, np.broadcast_to(points(max(n, 2))[:n], (B, n)))
    by_row = np.stack((u, dual_vector(u, p), np.sum(problem.Q**2, axis=2), position), axis=1)  # (B, 4, m)
    padded = np.zeros((B, 4, group * n))
    padded[..., :m] = by_row
    tokens = np.ones((B, n, n))
    tokens[:, : 4 * group] = padded.reshape(B, 4, n, group).transpose(0, 1, 3, 2).reshape(B, 4 * group, n)
    N = problem.Q[:, nodes(m, n)]
    for row, k in enumerate((*(np.full(B, k) for k in POWERS), p), start=4 * group):
        tokens[:, row] = product(N, transposed(problem.Q, dual_vector(u, k)))
    tokens[:, 4 * group + len(POWERS) + 1] = 1 / p[:, None]
    return tokens, np.broadcast_to(s, (B, n)).copy()
