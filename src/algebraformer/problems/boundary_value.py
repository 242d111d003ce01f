"""Two-point boundary value problems by Chebyshev collocation: the families of the paper, and one with 16 parameters.

    -(K u')' + v u' + r u = f on (-1, 1),   u(-1) = u(1) = 0,

collocated at the n interior points of the n + 2 Chebyshev-Gauss-Lobatto points, gives
A = (-D diag(K) D + v D + diag(r)) restricted to the interior, with D the (n + 2, n + 2) differentiation matrix.
At n = 64 the condition number of the diffusion matrices is 1e5 to 2e6.

The paper gives K(x) = 1 + alpha cos(2 pi omega x) with random alpha and omega, and no more; the ranges, f, r and v
below are our choices, and every one of them is a setting.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_number, check_whole, register
from algebraformer.problems.chebyshev import differentiation_matrix, points
from algebraformer.problems.sampling import FloatArray, Limits, cosine_series, draw_modes, uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundaryValueFamily(ProblemFamily):
    """-(K u')' + v u' + r u = f on (-1, 1) with u(-1) = u(1) = 0; subclasses define K, v and r."""

    f_modes: int = 8
    """Number m of modes in f(x) = sum_{k=1..m} c_k cos(k pi x / 2 + phi_k), c_k ~ N(0, 1/k^2), phi_k ~ U(0, 2 pi)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "f_modes")
        check_limits(self)

    @property
    def grid(self) -> FloatArray:
        """All n + 2 collocation points, descending from 1 to -1; the unknowns belong to grid[1:-1]."""
        return points(self.n + 2)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return draw_modes(rng, self.f_modes)

    def diffusivity(self, params: Parameters, x: FloatArray) -> FloatArray:
        """Return K at the points x, shape (B, len(x)), positive."""
        raise NotImplementedError

    def reaction(self, params: Parameters, x: FloatArray) -> FloatArray | None:
        """Return r at the points x, shape (B, len(x)), or None if the equation has no such term."""
        return None

    def velocity(self, params: Parameters) -> FloatArray | None:
        """Return v, shape (B,), or None if the equation has no such term."""
        return None

    def source(self, params: Parameters, x: FloatArray) -> FloatArray:
        """Return f at the points x, shape (B, len(x))."""
        return cosine_series(params["c"], params["phi"], x)

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        D = differentiation_matrix(self.n + 2)
        x, interior = self.grid, slice(1, -1)
        K = self.diffusivity(params, x)
        A = -(D[interior] * K[:, None, :]) @ D[:, interior]  # (B, n, n)
        v, r = self.velocity(params), self.reaction(params, x[interior])
        if v is not None:
            A += v[:, None, None] * D[interior, interior]
        if r is not None:
            diagonal = np.arange(self.n)
            A[:, diagonal, diagonal] += r
        return A, self.source(params, x[interior])


@register("diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(BoundaryValueFamily):
    """-(K u')' = f with K(x) = 1 + alpha cos(2 pi omega x): the paper's first family, two parameters."""

    alpha: Limits = (0.0, 0.9)
    """Limits of alpha ~ U(low, high), the contrast of K; within (-1, 1)."""
    omega: Limits = (0.0, 2.0)
    """Limits of omega ~ U(low, high), the number of periods of K per unit length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(map(abs, self.alpha)) >= 1:
            raise ConfigurationError(f"alpha must lie within (-1, 1) so that K stays positive, received {self.alpha}")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        own = {"alpha": uniform(rng, self.alpha), "omega": uniform(rng, self.omega)}
        return own | super().draw(rng)

    def diffusivity(self, params: Parameters, x: FloatArray) -> FloatArray:
        return 1 + params["alpha"][:, None] * np.cos(2 * np.pi * params["omega"][:, None] * x)


@register("reaction-diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReactionDiffusion(Diffusion):
    """-(K u')' + r u = f with r(x) = s (1 + cos(2 pi omega_2 x) / 2): four parameters."""

    s: Limits = (0.0, 10.0)
    """Limits of s ~ U(low, high), the mean strength of the reaction."""
    omega_2: Limits = (0.0, 2.0)
    """Limits of omega_2 ~ U(low, high), the number of periods of r per unit length."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        own = {"s": uniform(rng, self.s), "omega_2": uniform(rng, self.omega_2)}
        return own | super().draw(rng)

    def reaction(self, params: Parameters, x: FloatArray) -> FloatArray:
        return params["s"][:, None] * (1 + 0.5 * np.cos(2 * np.pi * params["omega_2"][:, None] * x))


@register("advection-diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvectionDiffusion(Diffusion):
    """-(K u')' + v u' = f with a constant velocity v: three parameters."""

    v: Limits = (-5.0, 5.0)
    """Limits of v ~ U(low, high), the velocity."""

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        own = {"v": uniform(rng, self.v)}
        return own | super().draw(rng)

    def velocity(self, params: Parameters) -> FloatArray:
        return params["v"]


@register("random-diffusion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomDiffusion(BoundaryValueFamily):
    """-(K u')' = f with log K(x) = sum_{k=1..m} a_k cos(k pi x) + b_k sin(k pi x): 2 m parameters.

    Ours: the paper's families have two to four parameters, this one has 16.
    """

    K_modes: int = 8
    """Number m of Fourier modes of log K."""
    sigma: float = 0.35
    """a_k and b_k are drawn from N(0, (sigma / k)^2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "K_modes")
        check_number(self, "sigma")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        scale = self.sigma / np.arange(1, self.K_modes + 1)
        own = {"K_cos": scale * rng.standard_normal(self.K_modes), "K_sin": scale * rng.standard_normal(self.K_modes)}
        return own | super().draw(rng)

    def diffusivity(self, params: Parameters, x: FloatArray) -> FloatArray:
        angle = np.pi * np.arange(1, self.K_modes + 1)[:, None] * x  # (m, len(x))
        waves = params["K_cos"][..., None] * np.cos(angle) + params["K_sin"][..., None] * np.sin(angle)
        return np.exp(np.sum(waves, axis=1))
