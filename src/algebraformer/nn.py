"""Solving as a layer: modules of torch around a learned solver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from algebraformer.solver import LearnedSolver, as_solver


class Solve(torch.nn.Module):
    """Solves A x = b with gradients with respect to A and b: `LearnedSolver.solve` as a module.

    It has no parameters: the weights of the learned solver stay as they are.

    Parameters
    ----------
    solver : LearnedSolver, str or Path
        A solver, the name of a shipped model, or the folder of a checkpoint.
    rtol, max_refinements, fallback, assume_a, transpose
        As in `LearnedSolver.solve`, for the solution and for its gradients.

    Examples
    --------
    >>> import torch
    >>> import algebraformer as af
    >>> systems = af.problems.get("diffusion", n=64).sample(3, seed=1)
    >>> A = torch.tensor(systems.A, requires_grad=True)
    >>> x = af.nn.Solve("diffusion-64")(A, torch.tensor(systems.b))
    >>> x.square().sum().backward()
    >>> A.grad.shape
    torch.Size([3, 64, 64])
    """

    def __init__(
        self,
        solver: LearnedSolver | str | Path,
        *,
        rtol: float | None = None,
        max_refinements: int = 10,
        fallback: bool = True,
        assume_a: str | None = None,
        transpose: bool = False,
    ) -> None:
        super().__init__()
        self.solver = as_solver(solver)
        self.solver.check_can_solve()
        self.options = {
            "rtol": rtol,
            "max_refinements": max_refinements,
            "fallback": fallback,
            "assume_a": assume_a,
            "transpose": transpose,
        }

    def extra_repr(self) -> str:
        return ", ".join([repr(self.solver), *(f"{name}={value}" for name, value in self.options.items())])

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        """Return x in the shape of b (n,), (n, k), (B, n) or (B, n, k) for A (n, n) or (B, n, n)."""
        result: Any = self.solver.solve(A, b, **self.options)  # type: ignore[arg-type]
        x: Tensor = result.x
        return x
