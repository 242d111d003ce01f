"""Nonlinear two-point boundary value problems by Chebyshev collocation, and the linear systems of Newton's method.

    p(u)'' + q(u)' + r(x, u) = 0 on (-1, 1),   u(-1) and u(1) given,

where p, q and r are functions of the values of u. At the n interior points of the n + 2 Chebyshev-Gauss-Lobatto points
this reads F(u) = 0 with

    F(u) = D2 p(u) + D q(u) + r(u),   J(u) = D2 diag(p'(u)) + D diag(q'(u)) + diag(r'(u)),

so that a Jacobian costs O(n^2), and a product with it needs only the fixed matrices D2 and D. Every equation is also a
family of linear systems: J(u) d = -F(u) at a random point u between the iterates of Newton's method, slightly
perturbed, since an inexact method leaves that path. The equations are classical; the ranges of the parameters and these
systems are our choices.

References
----------
.. [1] P. Deuflhard, "Newton Methods for Nonlinear Problems", Springer (2004).
.. [2] U. M. Ascher, R. M. M. Mattheij and R. D. Russell, "Numerical Solution of Boundary Value Problems for Ordinary
   Differential Equations", SIAM (1995): Bratu's and Burgers' equation.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_number, check_whole, register
from algebraformer.problems.chebyshev import differentiation_matrix, interpolate, points
from algebraformer.problems.sampling import FloatArray, Limits, cosine_series, draw_modes, uniform

STEPS = 5
"""Newton steps of the path that systems are drawn from."""
COARSE = 48
"""Unknowns of the grid on which the path is computed if n is larger: the iterates are smooth."""
LONGEST = 1.0
"""Largest entry of a step of that path; longer steps are scaled down."""
N_MODES = 4
"""Sines in the perturbation of a point on the path."""

Terms = tuple[FloatArray, FloatArray | None, FloatArray | None]
"""p, q and r, or their derivatives, at points (B, m); None if the equation has no such term."""


@functools.cache
def operators(n: int) -> tuple[FloatArray, FloatArray]:
    """Return D2 and D, the second and first derivative at the n interior points, (n, n + 2) each, read-only.

    The rows of D2 sum to zero to rounding (the diagonal is the negative sum of the others), as those of D do.

    Examples
    --------
    >>> x = points(8)
    >>> D2, D = operators(6)
    >>> bool(np.allclose(D2 @ x**3, 6 * x[1:-1])), bool(np.allclose(D @ x**3, 3 * x[1:-1] ** 2))
    (True, True)
    """
    D = differentiation_matrix(n + 2)
    D2 = D @ D
    np.fill_diagonal(D2, 0.0)
    np.fill_diagonal(D2, -np.sum(D2, axis=1))
    D2, D = D2[1:-1].copy(), D[1:-1].copy()
    D2.flags.writeable = D.flags.writeable = False
    return D2, D


@functools.cache
def _refinement(n: int, coarse: int) -> FloatArray:
    """Return the matrix (n + 2, coarse + 2) that takes values at coarse points to those of their polynomial."""
    return np.stack([interpolate(unit, points(n + 2)) for unit in np.eye(coarse + 2)], axis=1)


@dataclasses.dataclass(frozen=True)
class Jacobians:
    """J = D2 diag(p') + D diag(q') + diag(r') for B systems of n unknowns, without their entries.

    Attributes
    ----------
    p, q, r : ndarray, shape (B, n)
        The derivatives p', q' and r' at the interior points; q and r may be None.
    """

    p: FloatArray
    q: FloatArray | None
    r: FloatArray | None

    def __len__(self) -> int:
        return len(self.p)

    def take(self, chosen: Any) -> Jacobians:
        """Return those of the chosen systems."""
        return Jacobians(*(None if part is None else part[chosen] for part in (self.p, self.q, self.r)))  # type: ignore[arg-type]

    def dense(self) -> FloatArray:
        """Return the matrices (B, n, n)."""
        n = self.p.shape[1]
        D2, D = operators(n)
        A = D2[:, 1:-1] * self.p[:, None, :]
        if self.q is not None:
            A += D[:, 1:-1] * self.q[:, None, :]
        if self.r is not None:
            A[:, np.arange(n), np.arange(n)] += self.r
        return A

    def __getitem__(self, key: tuple[Any, Any, Any]) -> FloatArray:
        """Return the entries of J[systems, rows, columns] for rows (m, 1) and columns (q,): (B, m, q)."""
        systems, rows, columns = key
        D2, D = operators(self.p.shape[1])
        E = D2[rows, columns + 1] * self.p[systems][:, None, columns]
        if self.q is not None:
            E += D[rows, columns + 1] * self.q[systems][:, None, columns]
        if self.r is not None:
            i, j = np.nonzero(rows == columns)
            E[:, i, j] += self.r[systems][:, columns[j]]
        return E

    def product(self, z: FloatArray) -> FloatArray:
        """Return J z (B, n) for z (B, n): one product with D2 for all systems, and one with D."""
        D2, D = operators(self.p.shape[1])
        v = (self.p * z) @ D2[:, 1:-1].T
        if self.q is not None:
            v += (self.q * z) @ D[:, 1:-1].T
        return v if self.r is None else v + self.r * z

    def multiply(self, chosen: NDArray[np.int64], z: FloatArray) -> FloatArray:
        """Return J[chosen] z (C, n, 1) for z (C, n, 1)."""
        return self.take(chosen).product(z[:, :, 0])[:, :, None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonlinearFamily(ProblemFamily):
    """p(u)'' + q(u)' + r(x, u) = 0 with given boundary values; subclasses define p, q, r and their parameters."""

    left: Limits = (0.0, 0.0)
    """Limits of u(-1) ~ U(low, high)."""
    right: Limits = (0.0, 0.0)
    """Limits of u(1) ~ U(low, high)."""
    perturbation: float = 0.05
    """Size of the perturbation of a point on Newton's path: a sum_{k=1..4} c_k sin(k pi (x + 1) / 2) / k with
    c_k ~ N(0, 1) and a = perturbation * U(0, 1)^2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self)
        check_number(self, "perturbation")

    # ------------------------------------------------------------ the equation

    def equation(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of the equation."""
        raise NotImplementedError

    def terms(self, params: Parameters, x: FloatArray, u: FloatArray) -> Terms:
        """Return p, q and r for the values u (B, m) at the points x (m,)."""
        raise NotImplementedError

    def slopes(self, params: Parameters, u: FloatArray) -> Terms:
        """Return the derivatives of p, q and r with respect to u for the values u (B, m)."""
        raise NotImplementedError

    # ------------------------------------------------------------ initial guess, F and J

    @property
    def grid(self) -> FloatArray:
        """All n + 2 collocation points, descending from 1 to -1; the unknowns belong to grid[1:-1]."""
        return points(self.n + 2)

    def initial(self, params: Parameters) -> FloatArray:
        """Return the initial guess (B, n): the straight line between the boundary values."""
        x = self.grid[1:-1]
        left, right = params["left"][:, None], params["right"][:, None]
        return (left * (1 - x) + right * (1 + x)) / 2

    def residual(self, params: Parameters, u: FloatArray) -> FloatArray:
        """Return F(u) (B, n) for u (B, n)."""
        D2, D = operators(self.n)
        p, q, r = self._terms(params, u)
        F = p @ D2.T
        if q is not None:
            F += q @ D.T
        return F if r is None else F + r[:, 1:-1]

    def size(self, params: Parameters, u: FloatArray) -> FloatArray:
        """Return |D2| |p(u)| + |D| |q(u)| + |r(u)| (B, n): the rounding of F(u) is at most about n eps of this."""
        D2, D = operators(self.n)
        p, q, r = self._terms(params, u)
        size = np.abs(p) @ np.abs(D2).T
        if q is not None:
            size += np.abs(q) @ np.abs(D).T
        return size if r is None else size + np.abs(r[:, 1:-1])

    def jacobian(self, params: Parameters, u: FloatArray) -> Jacobians:
        """Return J(u) for u (B, n)."""
        return Jacobians(*self.slopes(params, u))

    def _terms(self, params: Parameters, u: FloatArray) -> Terms:
        """Return p, q and r on the whole grid, ends included."""
        return self.terms(params, self.grid, np.concatenate((params["right"][:, None], u, params["left"][:, None]), 1))

    # ------------------------------------------------------------ the family of linear systems

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        own = self.equation(rng) | {"left": uniform(rng, self.left), "right": uniform(rng, self.right)}
        return own | {
            "place": STEPS * rng.random(),
            "noise": self.perturbation * rng.random() ** 2 * rng.standard_normal(N_MODES) / np.arange(1, N_MODES + 1),
        }

    def place(self, params: Parameters) -> FloatArray:
        """Return the points u (B, n) given by the parameters "place" and "noise".

        Place k + t is u_k + t (u_(k+1) - u_k) with u_k the iterates of Newton's method, computed on a coarse grid if n
        is large.
        """
        coarse = self if self.n <= COARSE else dataclasses.replace(self, n=COARSE)
        u = coarse.initial(params)
        for k in range(STEPS):
            way = np.clip(params["place"] - k, 0.0, 1.0)[:, None]
            F = np.concatenate([coarse.residual(*one) for one in _one_by_one(params, u)])
            d = np.linalg.solve(coarse.jacobian(params, u).dense(), -F[:, :, None])[:, :, 0]
            longest = np.max(np.abs(d), axis=1, keepdims=True)
            u = u + way * d * np.minimum(1.0, LONGEST / np.where(longest > 0, longest, 1.0))
        if coarse is not self:
            whole = np.concatenate((params["right"][:, None], u, params["left"][:, None]), axis=1)
            u = (_refinement(self.n, COARSE)[1:-1] @ whole[:, :, None])[:, :, 0]
        angle = np.arange(1, N_MODES + 1)[:, None] * np.pi * (self.grid[1:-1] + 1) / 2  # (N_MODES, n)
        return u + np.sum(params["noise"][:, :, None] * np.sin(angle), axis=1)

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        u = self.place(params)
        F = np.concatenate([self.residual(*one) for one in _one_by_one(params, u)])
        return self.jacobian(params, u).dense(), -F


def _one_by_one(params: Parameters, u: FloatArray) -> list[tuple[Parameters, FloatArray]]:
    """Return batches of one: the rounding of a matrix product depends on the number of its columns."""
    return [({key: value[i : i + 1] for key, value in params.items()}, u[i : i + 1]) for i in range(len(u))]


@register("bratu")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bratu(NonlinearFamily):
    """u'' + lambda e^u = 0, below the fold at lambda = 0.878 (with zero boundary values), where two solutions meet.

    With zero boundary values the lower solution is u = 2 log(cosh(t) / cosh(t x)) with lambda cosh(t)^2 = 2 t^2.
    """

    left: Limits = (-0.5, 0.0)
    right: Limits = (-0.5, 0.0)
    strength: Limits = (0.05, 0.8)
    """Limits of lambda ~ U(low, high)."""

    def equation(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"strength": uniform(rng, self.strength)}

    def terms(self, params: Parameters, x: FloatArray, u: FloatArray) -> Terms:
        return u, None, params["strength"][:, None] * np.exp(u)

    def slopes(self, params: Parameters, u: FloatArray) -> Terms:
        return np.ones_like(u), None, params["strength"][:, None] * np.exp(u)


@register("allen-cahn")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AllenCahn(NonlinearFamily):
    """epsilon^2 u'' + u - u^3 = 0: an interface of width epsilon between -1 and 1.

    u = tanh((x - x_0) / (sqrt(2) epsilon)) solves it with the ends that this has.
    """

    left: Limits = (-1.0, -0.9)
    right: Limits = (0.9, 1.0)
    epsilon: Limits = (0.4, 0.8)
    """Limits of epsilon ~ U(low, high). For small ones the position of the interface is hardly determined."""

    def equation(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"epsilon": uniform(rng, self.epsilon)}

    def initial(self, params: Parameters) -> FloatArray:
        """Return the interface in the middle, plus a straight line that corrects the boundary values."""
        steepness = 1 / (np.sqrt(2) * params["epsilon"][:, None])
        end = np.tanh(steepness[:, 0])
        line = super().initial(params | {"left": params["left"] + end, "right": params["right"] - end})
        return np.tanh(steepness * self.grid[1:-1]) + line

    def terms(self, params: Parameters, x: FloatArray, u: FloatArray) -> Terms:
        return params["epsilon"][:, None] ** 2 * u, None, u - u**3

    def slopes(self, params: Parameters, u: FloatArray) -> Terms:
        return params["epsilon"][:, None] ** 2 * np.ones_like(u), None, 1 - 3 * u**2


@register("burgers")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Burgers(NonlinearFamily):
    """nu u'' = u u', steady viscous flow: a layer where the stream from the left meets that from the right.

    u = -a tanh(a (x - x_0) / (2 nu)) solves it with the ends that this has.
    """

    left: Limits = (0.5, 1.0)
    right: Limits = (-1.0, -0.5)
    viscosity: Limits = (0.15, 0.5)
    """Limits of nu ~ U(low, high)."""

    def equation(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"viscosity": uniform(rng, self.viscosity)}

    def terms(self, params: Parameters, x: FloatArray, u: FloatArray) -> Terms:
        return params["viscosity"][:, None] * u, -(u**2) / 2, None

    def slopes(self, params: Parameters, u: FloatArray) -> Terms:
        return params["viscosity"][:, None] * np.ones_like(u), -u, None


@register("quasilinear")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quasilinear(NonlinearFamily):
    """-((1 + u^2) u')' = f, which is -(u + u^3 / 3)'' = f, with zero boundary values.

    f(x) = sum_{k=1..m} c_k cos(k pi x / 2 + phi_k) with c_k ~ N(0, (amplitude / k)^2), phi_k ~ U(0, 2 pi).
    """

    f_modes: int = 8
    """Number m of modes of f."""
    amplitude: float = 2.0
    """Standard deviation of c_1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "f_modes")
        check_number(self, "amplitude")

    def equation(self, rng: np.random.Generator) -> dict[str, Any]:
        return draw_modes(rng, self.f_modes, self.amplitude)

    def terms(self, params: Parameters, x: FloatArray, u: FloatArray) -> Terms:
        return -(u + u**3 / 3), None, -cosine_series(params["c"], params["phi"], x)

    def slopes(self, params: Parameters, u: FloatArray) -> Terms:
        return -(1 + u**2), None, None
