"""Diffusion on a square by Chebyshev collocation, with a log-normal coefficient.

    -div(K grad u) = f on (-1, 1)^2,   u = 0 on the boundary,

collocated at the N x N interior points of the tensor grid of N + 2 Chebyshev-Gauss-Lobatto points in each direction.
With D the differentiation matrix on N + 2 points and K_ij = K(x_i, x_j), row (i, j) of A u = f is

    -sum_p D_ip K_pj (D u)_pj - sum_q D_jq K_iq (D u)_iq = f_ij,

where D acts in the direction of x in the first sum and in that of y in the second. The unknown u(x_i, x_j) has number
i N + j. The equation is classical; K, f and all ranges are our choices.

References
----------
.. [1] L. N. Trefethen, "Spectral Methods in MATLAB", SIAM (2000), chapter 7.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_number, check_whole, register
from algebraformer.problems.chebyshev import differentiation_matrix, points
from algebraformer.problems.sampling import FloatArray


@register("diffusion-2d")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion2D(ProblemFamily):
    """-div(K grad u) = f on the square; n = N^2, and log K is a random cosine series with 8 parameters.

    log K(x, y) = sum_m a_m cos(k_m pi (x + 1) / 2) cos(l_m pi (y + 1) / 2) with the frequencies (k_m, l_m) of
    `frequencies` and a_m ~ N(0, sigma^2 / (k_m^2 + l_m^2)).

    f(x, y) = sum_{k,l=1..f_modes} c_kl cos(k pi x / 2 + phi_k) cos(l pi y / 2 + psi_l) with c_kl ~ N(0, 1 / (k l)^2)
    and phi_k, psi_l ~ U(0, 2 pi): in either direction as in the families on an interval.

    Examples
    --------
    >>> family = Diffusion2D(n=25, K_modes=2)
    >>> systems = family.sample(3, seed=0)
    >>> systems.A.shape, systems.params["a"].shape
    ((3, 25, 25), (3, 2))
    """

    n: int = 64
    """Number of unknowns, a square: 64 has 8 x 8 interior points."""
    K_modes: int = 8
    """Number of terms of log K, which is the number of parameters of A."""
    sigma: float = 0.35
    """Scale of the coefficients of log K."""
    f_modes: int = 8
    """Number of modes of f in each direction."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "K_modes", "f_modes")
        check_number(self, "sigma")
        if self.side**2 != self.n:
            raise ConfigurationError(
                f"n must be a square such as {self.side**2} or {(self.side + 1) ** 2}, the number of points of a "
                f"square grid, received {self.n}"
            )

    @property
    def side(self) -> int:
        """Number N of interior points in each direction."""
        return math.isqrt(self.n)

    @property
    def grid(self) -> FloatArray:
        """All N + 2 collocation points of one direction, descending from 1 to -1; the unknowns are at grid[1:-1]."""
        return points(self.side + 2)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        a = self.sigma * rng.standard_normal(self.K_modes) / np.hypot(*frequencies(self.K_modes).T)
        k = np.arange(1, self.f_modes + 1)
        c = rng.standard_normal((self.f_modes, self.f_modes)) / np.outer(k, k)
        phi, psi = rng.uniform(0, 2 * np.pi, (2, self.f_modes))
        return {"a": a, "c": c, "phi": phi, "psi": psi}

    def diffusivity(self, params: Parameters, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return K at the points of the tensor grid of x and y, shape (B, len(x), len(y)), positive."""
        k, l = frequencies(self.K_modes).T[:, :, None] * (np.pi / 2)  # (K_modes, 1) each
        waves = np.cos(k * (x + 1))[:, :, None] * np.cos(l * (y + 1))[:, None, :]  # (K_modes, len(x), len(y))
        return np.exp(np.sum(params["a"][:, :, None, None] * waves, axis=1))

    def source(self, params: Parameters, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return f at the points of the tensor grid of x and y, shape (B, len(x), len(y))."""
        k = np.arange(1, self.f_modes + 1)[:, None] * (np.pi / 2)
        left = np.cos(k * x + params["phi"][:, :, None])  # (B, f_modes, len(x))
        right = np.cos(k * y + params["psi"][:, :, None])
        return left.transpose(0, 2, 1) @ params["c"] @ right

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        N, interior, each = self.side, slice(1, -1), np.arange(self.side)
        D, x = differentiation_matrix(N + 2), self.grid
        K = self.diffusivity(params, x, x)  # (B, N + 2, N + 2)

        A = np.zeros((len(K), N, N, N, N))  # row (i, j), column (k, l)
        along_x = K[:, :, interior].transpose(0, 2, 1)[:, :, None, :]  # (B, N, 1, N + 2): K_pj as j, p
        A[:, :, each, :, each] -= ((D[interior] * along_x) @ D[:, interior]).transpose(1, 0, 2, 3)
        along_y = K[:, interior, None, :]  # K_iq as i, q
        A[:, each, :, each, :] -= ((D[interior] * along_y) @ D[:, interior]).transpose(1, 0, 2, 3)

        f = self.source(params, x[interior], x[interior])
        return A.reshape(-1, self.n, self.n), f.reshape(-1, self.n)


def frequencies(count: int) -> FloatArray:
    """Return the `count` lowest pairs (k, l) of whole numbers but (0, 0), by k^2 + l^2 and then by k: (count, 2).

    Examples
    --------
    >>> frequencies(8).astype(int).tolist()
    [[0, 1], [1, 0], [1, 1], [0, 2], [2, 0], [1, 2], [2, 1], [2, 2]]
    """
    pairs = itertools.product(range(count + 1), repeat=2)
    lowest = sorted(pairs, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[1 : count + 1]
    return np.array(lowest, dtype=np.float64)
