"""Find the coefficient of a boundary value problem from measured solutions, by gradient descent through the solver.

    -(K u')' = f,   u(-1) = u(1) = 0,   K(x) = 1 + alpha cos(2 pi omega x):

u is measured for three sources f with 1 % of noise, alpha and omega are sought. The matrix is assembled by torch, from
alpha and omega, and Adam minimises the squared misfit of u: once with the learned solver, which gives gradients by one
more certified solve, with the transposed matrix, and once with torch.linalg.solve. Both take the same way.

    python examples/fit_coefficient.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import algebraformer as af
from algebraformer.problems.chebyshev import differentiation_matrix, points

MODEL, N = "diffusion-64", 64
TRUE, START = (0.62, 0.70), (0.30, 1.00)
"""alpha and omega."""
NOISE, STEPS = 0.01, 150
X, D = torch.tensor(points(N + 2)), torch.tensor(differentiation_matrix(N + 2))


def coefficient(alpha: Tensor, omega: Tensor) -> Tensor:
    """Return K at the collocation points, boundary included."""
    return 1 + alpha * torch.cos(2 * torch.pi * omega * X)


def matrix(K: Tensor) -> Tensor:
    """Return the collocation matrix of -(K u')' on the interior points, differentiable in K."""
    return -(D[1:-1] * K) @ D[:, 1:-1]


def measurements(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return three sources (n, 3), and solutions with noise."""
    x = X[1:-1].numpy()
    f = np.stack([np.ones(N), np.sin(np.pi * x), np.cos(2 * x) * x], axis=1)
    u = np.linalg.solve(matrix(coefficient(*torch.tensor(TRUE, dtype=torch.float64))).numpy(), f)
    noise = np.random.default_rng(seed).standard_normal(u.shape) * NOISE * np.sqrt(np.mean(u**2, axis=0))
    return torch.tensor(f), torch.tensor(u + noise)


class Fit(NamedTuple):
    """What a descent found."""

    alpha: float
    omega: float
    losses: list[float]
    seconds: float


def descend(solve: Callable[[Tensor, Tensor], Tensor], f: Tensor, u: Tensor) -> Fit:
    """Minimise the relative squared misfit of u = solve(A, f) over alpha and omega."""
    parameters = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([parameters], lr=0.03)
    losses, start = [], time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (solve(matrix(coefficient(*parameters)), f) - u).square().sum() / u.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return Fit(*parameters.tolist(), losses, time.perf_counter() - start)


def main() -> tuple[Fit, Fit]:
    """Fit with both solvers, print and return what they found."""
    f, u = measurements()
    fits = descend(af.nn.Solve(MODEL), f, u), descend(torch.linalg.solve, f, u)
    print(f"true              alpha {TRUE[0]:.6f}  omega {TRUE[1]:.6f}")
    for name, fit in zip(("learned", "torch.linalg"), fits, strict=True):
        print(
            f"{name:<16}  alpha {fit.alpha:.6f}  omega {fit.omega:.6f}  loss {fit.losses[-1]:.6e}  {fit.seconds:.1f} s"
        )
    apart = max(abs(a - b) for a, b in zip(fits[0].losses, fits[1].losses, strict=True))
    print(f"losses of {STEPS} steps differ by at most {apart:.1e}")
    return fits


if __name__ == "__main__":
    main()
