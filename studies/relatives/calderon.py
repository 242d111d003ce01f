"""Gauss-Newton systems of a small Calderon problem: a conductivity from all currents and voltages at the boundary.

On the square grid with N x N interior nodes, n = N^2, the conductivity a is known to be 1 on the boundary and unknown
at the interior nodes: q = log a. The conductance w_e of the edge between two nodes is the mean of their conductivities.
With the incidence matrix E of the edges, K = E^T diag(w) E, and for voltages g at the 4 N boundary nodes that touch the
interior the currents there are

    Lambda(q) g,   Lambda = G^T diag(w) G,   G = E U,

where the columns of U are the voltages at all nodes for each unit voltage at the boundary: K U = 0 at interior nodes.
Perturbing w moves Lambda by G^T diag(dw) G, since currents do not change the energy to first order [1]_. So with
C = dw / dq, J the derivative of all entries of Lambda, and data Lambda* of another conductivity, the Gauss-Newton step
with Tikhonov's regularisation solves A x = b with

    A = J^T J + alpha I = C^T ((G G^T) o (G G^T)) C + alpha I,
    b = C^T diag(G (Lambda* - Lambda) G^T) - alpha q,

o being the product entry by entry: symmetric and positive definite, with eigenvalues that fall to alpha quickly.

CHONKNORIS [2]_ regresses the Cholesky factors of the inverses of such matrices. Grid, prior, alpha and all ranges are
our choices, not those of that paper.

References
----------
.. [1] E. B. Curtis and J. A. Morrow, "Inverse Problems for Electrical Networks", World Scientific (2000).
.. [2] A. Bacho et al., "Operator learning at machine precision", arXiv:2511.19980 (2025).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_number, check_whole, register
from algebraformer.problems.sampling import FloatArray


@register("calderon")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Calderon(ProblemFamily):
    """Gauss-Newton steps J^T J + alpha I from one log-normal conductivity towards another; n = N^2.

    q(x, y) = sum_{k, l = 1..modes} c_kl sin(k pi x) sin(l pi y) on the unit square, c_kl ~ N(0, sigma^2 / (k l)^2).

    Examples
    --------
    >>> family = Calderon(n=9, modes=2)
    >>> A = family.sample(2, seed=0).A
    >>> bool((A == A.transpose(0, 2, 1)).all() and (np.linalg.eigvalsh(A) >= 0.99 * family.alpha).all())
    True
    """

    structure: ClassVar[str] = "pos"

    n: int = 81
    """Number of unknowns, a square: 81 has 9 x 9 interior nodes."""
    modes: int = 4
    """Number of modes of log a in each direction; its square is the number of parameters of A."""
    sigma: float = 0.5
    """Scale of the coefficients of log a."""
    alpha: float = 1e-5
    """Parameter of the regularisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "modes")
        check_number(self, "sigma")
        check_number(self, "alpha")
        if math.isqrt(self.n) ** 2 != self.n:
            raise ConfigurationError(f"n must be a square such as 81, the number of interior nodes, received {self.n}")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        k = np.arange(1, self.modes + 1)
        scale = self.sigma / np.outer(k, k)
        return {"current": scale * rng.standard_normal(scale.shape), "true": scale * rng.standard_normal(scale.shape)}

    def log_conductivity(self, c: FloatArray) -> FloatArray:
        """Return q (B, n) at the interior nodes from coefficients c (B, modes, modes)."""
        N = math.isqrt(self.n)
        waves = np.sin(np.pi * np.outer(np.arange(1, N + 1), np.arange(1, self.modes + 1)) / (N + 1))  # (N, modes)
        return np.asarray((waves @ c @ waves.T).reshape(len(c), -1))

    def drops(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return conductances w (B, e) and voltage drops G (B, e, 4 N) at all edges from q (B, n)."""
        E, P, fixed = network(math.isqrt(self.n))
        w = np.exp(q) @ P.T + fixed
        K = E.T @ (w[:, :, None] * E)  # (B, n + 4 N, n + 4 N)
        inner = slice(self.n)
        U = -np.linalg.solve(K[:, inner, inner], K[:, inner, self.n :])
        return w, E[:, inner] @ U + E[:, self.n :]

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        P = network(math.isqrt(self.n))[1]
        q = self.log_conductivity(params["current"])
        w, G = self.drops(q)
        w_true, G_true = self.drops(self.log_conductivity(params["true"]))
        misfit = response(w_true, G_true) - response(w, G)
        C = P * np.exp(q)[:, None, :]  # (B, e, n)
        A = C.transpose(0, 2, 1) @ (G @ G.transpose(0, 2, 1)) ** 2 @ C
        A = (A + A.transpose(0, 2, 1)) / 2 + self.alpha * np.eye(self.n)
        gradient = np.sum((G @ misfit) * G, axis=2)  # (B, e)
        return A, (gradient[:, None, :] @ C)[:, 0] - self.alpha * q


def response(w: FloatArray, G: FloatArray) -> FloatArray:
    """Return Lambda (B, 4 N, 4 N) from conductances (B, e) and voltage drops (B, e, 4 N)."""
    return np.asarray(G.transpose(0, 2, 1) @ (w[:, :, None] * G))


@functools.cache
def network(N: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the grid with N x N interior nodes.

    Returns
    -------
    E : ndarray, shape (e, N^2 + 4 N)
        Incidence matrix of the e = 2 N (N + 1) edges; interior nodes come first.
    P : ndarray, shape (e, N^2)
        Share of each interior node in the conductance of an edge, a half or nothing.
    fixed : ndarray, shape (e,)
        Share of the boundary nodes, whose conductivity is 1.
    """
    number = np.full((N + 2, N + 2), -1)  # corners touch no interior node
    number[1:-1, 1:-1] = np.arange(N * N).reshape(N, N)
    for side, nodes in enumerate((number[0, 1:-1], number[-1, 1:-1], number[1:-1, 0], number[1:-1, -1])):
        nodes[:] = N * N + side * N + np.arange(N)
    inner = slice(1, -1)
    starts = np.concatenate((number[:-1, inner].ravel(), number[inner, :-1].ravel()))
    ends = np.concatenate((number[1:, inner].ravel(), number[inner, 1:].ravel()))
    E = np.zeros((len(starts), N * N + 4 * N))
    each = np.arange(len(starts))
    E[each, starts], E[each, ends] = -1.0, 1.0
    half = np.abs(E) / 2
    return E, half[:, : N * N], half[:, N * N :].sum(axis=1)
