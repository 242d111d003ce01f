"""Jacobians of a stiff system of ordinary differential equations: the steps of implicit methods for the Brusselator.

    u_t = a + u^2 v - (b + 1) u + alpha u_xx,
    v_t = b u - u^2 v           + alpha v_xx   on (0, 1),

with the steady state u = a, v = b / a at both ends, is a reaction-diffusion system of two species whose solutions
oscillate for b > 1 + a^2 [1]_. Second differences at N equidistant interior points give y' = g(y) with n = 2 N unknowns
in the order u_1, v_1, u_2, v_2, ..., in which the Jacobian J has two diagonals on either side of the main one.
A diagonally implicit method with coefficient gamma and step h solves systems with I - gamma h J, and those here are the
first ones of a step from y [2]_:

    (I - gamma h J(y)) x = gamma h g(y),

so y + x is the first iterate of Newton's method for Y = y + gamma h g(Y). The states y are on trajectories, which are
computed on a coarse grid by the classical method of Runge and Kutta. The equations are classical; the initial values,
the ranges and these systems are our choices.

References
----------
.. [1] E. Hairer and G. Wanner, "Solving Ordinary Differential Equations II", 2nd edition, Springer (1996): the
   Brusselator with diffusion, of section IV.10, has a = 1, b = 3, alpha = 1/50.
.. [2] R. Alexander, "Diagonally implicit Runge-Kutta methods for stiff ODE's", SIAM Journal on Numerical Analysis 14
   (1977): gamma = 1 - 1 / sqrt(2) for the method of order two.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_number, check_whole, register
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform, uniform

COARSE = 24
"""Points of the grid on which trajectories are computed if N is larger: they are smooth."""
REACTION_RATE = 100.0
"""Bound of u^2 + 2 u v, and so of the reaction's eigenvalues, on trajectories with the default limits."""
STABLE = 2.5
"""Largest step times eigenvalue; the method of Runge and Kutta is stable to 2.78 on the negative axis."""


@register("stiff-jacobian")
@dataclasses.dataclass(frozen=True, kw_only=True)
class StiffJacobian(ProblemFamily):
    """(I - gamma h J(y)) x = gamma h g(y): an implicit step of the Brusselator with diffusion, n = 2 N.

    y is the state at a time t ~ U(low, high) of the trajectory from u = a exp(p(x)), v = (b / a) exp(q(x)), where p and
    q are sums of c_k sin(k pi x), k = 1 ... modes, with c_k ~ N(0, (amplitude / k)^2).

    Examples
    --------
    >>> systems = StiffJacobian(n=16).sample(3, seed=0)
    >>> i, j = np.nonzero(systems.A[0])
    >>> systems.A.shape, int(np.max(np.abs(i - j)))
    ((3, 16, 16), 2)
    """

    n: int = 64
    """Number of unknowns 2 N, two at each of N points."""
    a: Limits = (0.8, 1.2)
    """Limits of a ~ U(low, high), positive."""
    b: Limits = (2.5, 3.5)
    """Limits of b ~ U(low, high), positive."""
    alpha: Limits = (0.005, 0.02)
    """Limits of the diffusion coefficient, log-uniform."""
    time: Limits = (0.0, 10.0)
    """Limits of t ~ U(low, high)."""
    h: Limits = (1e-2, 1.0)
    """Limits of the step, log-uniform."""
    gamma: float = 1 - 1 / math.sqrt(2)
    """Coefficient of the implicit method."""
    modes: int = 4
    """Number of sines in the logarithms of the initial values."""
    amplitude: float = 0.3
    """Standard deviation of c_1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "modes")
        check_limits(self, ("a", "b", "alpha", "h"))
        check_number(self, "gamma")
        check_number(self, "amplitude")
        if self.n % 2:
            raise ConfigurationError(f"n must be even, two unknowns at each point, received {self.n}")
        if self.time[0] < 0:
            raise ConfigurationError(f"time must not be negative, received {self.time!r}")
        if self.gamma == 0:
            raise ConfigurationError("gamma must be positive, received 0")

    @property
    def grid(self) -> FloatArray:
        """The N interior points i / (N + 1)."""
        return interior(self.n // 2)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "a": uniform(rng, self.a),
            "b": uniform(rng, self.b),
            "alpha": log_uniform(rng, self.alpha),
            "time": uniform(rng, self.time),
            "h": log_uniform(rng, self.h),
            "c": self.amplitude * rng.standard_normal((2, self.modes)) / np.arange(1, self.modes + 1),
        }

    def initial(self, params: Parameters, x: FloatArray) -> FloatArray:
        """Return u and v at time 0 and the points x, stacked: (2, B, len(x))."""
        sines = np.sin(np.pi * np.arange(1, self.modes + 1)[:, None] * x)  # (modes, len(x))
        p = np.sum(params["c"].transpose(1, 0, 2)[..., None] * sines, axis=2)  # (2, B, len(x))
        return steady(params) * np.exp(p)

    def state(self, params: Parameters) -> FloatArray:
        """Return u and v on the trajectory, stacked: (2, B, N); not finite where the method is unstable."""
        N = self.n // 2
        M = min(N, COARSE)
        fastest = 4 * self.alpha[1] * (M + 1) ** 2 + REACTION_RATE
        steps = max(1, math.ceil(self.time[1] * fastest / STABLE))

        y, dt = self.initial(params, interior(M)), (params["time"] / steps)[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(steps):
                k1 = derivative(params, y)
                k2 = derivative(params, y + dt / 2 * k1)
                k3 = derivative(params, y + dt / 2 * k2)
                k4 = derivative(params, y + dt * k3)
                y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if M == N:
            return y
        ends = steady(params)
        return ends + (refinement(N, M) @ (y - ends)[..., None])[..., 0]

    def jacobian(self, params: Parameters, y: FloatArray) -> FloatArray:
        """Return J(y) (B, n, n) for y (2, B, N)."""
        (u, v), b, N = y, params["b"][:, None], self.n // 2
        diffusion = (params["alpha"] * (N + 1) ** 2)[:, None]  # (B, 1)
        J = np.zeros((u.shape[0], self.n, self.n))
        each, other = np.arange(0, self.n, 2), np.arange(1, self.n, 2)
        J[:, each, each] = 2 * u * v - (b + 1) - 2 * diffusion
        J[:, each, other] = u**2
        J[:, other, each] = b - 2 * u * v
        J[:, other, other] = -(u**2) - 2 * diffusion
        i = np.arange(self.n - 2)
        J[:, i, i + 2] = J[:, i + 2, i] = diffusion
        return J

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        y, scale = self.state(params), self.gamma * params["h"]
        if not np.isfinite(y).all():
            raise ConfigurationError(
                f"trajectories of {self.name} must be finite, received NaN or infinity: a, b or amplitude is too large "
                "for the explicit method that computes them"
            )
        A = np.eye(self.n) - scale[:, None, None] * self.jacobian(params, y)
        b = scale[:, None] * derivative(params, y)  # (2, B, N)
        return A, b.transpose(1, 2, 0).reshape(-1, self.n)


def steady(params: Parameters) -> FloatArray:
    """Return the steady state a and b / a, which holds at the ends, (2, B, 1)."""
    return np.stack((params["a"], params["b"] / params["a"]))[:, :, None]


def derivative(params: Parameters, y: FloatArray) -> FloatArray:
    """Return g(y) (2, B, N) for y (2, B, N), u and v at N interior points."""
    ends = np.broadcast_to(steady(params), (*y.shape[:2], 1))
    padded = np.concatenate((ends, y, ends), axis=2)
    diffusion = (params["alpha"] * (y.shape[2] + 1) ** 2)[:, None]  # (B, 1)
    spread = diffusion * (padded[:, :, 2:] - 2 * y + padded[:, :, :-2])
    a, b, (u, v) = params["a"][:, None], params["b"][:, None], y
    exchange = b * u - u * u * v
    return np.stack((a - u - exchange, exchange)) + spread


def interior(N: int) -> FloatArray:
    """Return the N equidistant interior points of (0, 1)."""
    return np.arange(1, N + 1) / (N + 1)


@functools.cache
def refinement(N: int, M: int) -> FloatArray:
    """Return the matrix (N, M) from values at M interior points to those of their sine series at N, read-only.

    Examples
    --------
    >>> x, y = interior(5), interior(9)
    >>> bool(np.allclose(refinement(9, 5) @ np.sin(3 * np.pi * x), np.sin(3 * np.pi * y)))
    True
    """
    k = np.arange(1, M + 1)
    analysis = 2 / (M + 1) * np.sin(np.pi * np.outer(k, interior(M)))
    matrix: FloatArray = np.sin(np.pi * np.outer(interior(N), k)) @ analysis
    matrix.flags.writeable = False
    return matrix
