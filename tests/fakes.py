"""Networks in place of a trained one: right, nearly right and wrong, for systems of any size."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algebraformer.checkpoint import CheckpointInfo
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.models.heads import MatrixReading, OperatorHead, TokenHead
from algebraformer.solver import LearnedSolver
from studies.harness import weights

Array = NDArray[Any]
Answer = Callable[[Array, Array], Array]


class FakeNetwork(torch.nn.Module):
    """Takes the place of a network: its answer is any function of A (B, n, n) and b (B, n), in NumPy."""

    def __init__(self, n: int, answer: Answer, reach: float) -> None:
        super().__init__()
        self.config, self.device, self.answer = ModelConfig(n=n), torch.device("cpu"), answer
        with torch.random.fork_rng(devices=[]):
            self.head = StandInHead(self.config, 1)
        self.head.scaler.max_distance.fill_(reach)

    def forward(self, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the answer."""
        return self.head.answer(self, A, b)

    def predict(self, A: Array, b: Array) -> Array:
        """Return the answers to b (B, n, k)."""
        return self.head.predict(self, A, b)

    def blocks(self, count: int) -> list[slice]:
        """Return slices of systems to read at a time: one."""
        return [slice(0, count)] * bool(count)

    def read(self, A: Array) -> MatrixReading:
        """Say which systems are in distribution, and answer them."""
        return self.head.read_matrices(self, A)


class StandInHead(TokenHead):
    """A token head that answers with the function of its stand-in."""

    def answer(self, network: Any, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with np.errstate(all="ignore"):
            return torch.as_tensor(np.ascontiguousarray(network.answer(A.numpy(), b.numpy())))


def fake_solver(answer: Answer, n: int, reach: float = np.inf) -> LearnedSolver:
    """Return a solver of systems with n unknowns around such an answer.

    By default every system is in distribution; with reach 0 none is.
    """
    info = CheckpointInfo(name="stand-in", family={}, commit=None, versions={})
    return LearnedSolver(FakeNetwork(n, answer, reach), info)  # type: ignore[arg-type]


def exact(A: Array, b: Array) -> Array:
    """Return LAPACK's answer."""
    return np.linalg.solve(A, b[..., None])[..., 0]


def shrunk(factor: float) -> Answer:
    """Return an inverse that leaves `factor` of the residual: refinement divides it by 1 / factor each time."""
    return lambda A, b: (1 - factor) * exact(A, b)


def single(A: Array, b: Array) -> Array:
    """Return LAPACK's answer in single precision."""
    return exact(A.astype(np.float32), b.astype(np.float32)).astype(float)


def nearly_right(A: Array, b: Array) -> Array:
    """Return `single`, and 0 for a batch with a singular system."""
    try:
        return single(A, b)
    except np.linalg.LinAlgError:
        return 0 * b


def consistent(A: Array, b: Array) -> Array:
    """Return the solution of least norm, which solves singular systems too where b allows it."""
    return (np.linalg.pinv(A) @ b[..., None])[..., 0]


def perturbed(A: Array, b: Array) -> Array:
    """Return the answer to a system with other entries."""
    return exact(A * (1 + 1e-3 * np.random.default_rng(0).standard_normal(A.shape[1:])), b)


def one_entry_off(A: Array, b: Array) -> Array:
    """Return LAPACK's answer with the third entry wrong."""
    return exact(A, b) * np.where(np.arange(b.shape[1]) == 2, 1.001, 1)


def random_network(A: Array, b: Array) -> Array:
    """Return what a network with large random weights says."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Algebraformer(ModelConfig(n=A.shape[1], n_layer=1, n_head=2, n_embd=8))
        for parameter in model.parameters():
            parameter.normal_()
        return model(torch.tensor(A), torch.tensor(b)).numpy()


GOOD: dict[str, Answer] = {
    "exact": exact,
    "shrunk": shrunk(1e-3),
    "single": single,
    "perturbed": perturbed,
    "one off": one_entry_off,
}
WRONG: dict[str, Answer] = {
    "zeros": lambda A, b: 0 * b,
    "nan": lambda A, b: b * np.nan,
    "infinity": lambda A, b: b + np.inf,
    "1e30": lambda A, b: np.full_like(b, 1e30),
    "1e308": lambda A, b: np.full_like(b, 1e308),
    "opposite": lambda A, b: -exact(A, b),
    "first right, then nan": lambda A, b: np.where(np.abs(b).max() > 1e-2, shrunk(1e-3)(A, b), np.nan),
    "too long": lambda A, b: np.zeros((len(b), b.shape[1] + 1)),
    "too short": lambda A, b: b[:, :1],
    "batch lost": lambda A, b: b[0],
    "batch empty": lambda A, b: b[:0],
    "batch doubled": lambda A, b: np.concatenate((b, b)),
    "random": random_network,
}


def corrupted(solver: LearnedSolver, change: Callable[[OperatorHead], object]) -> LearnedSolver:
    """Return a solver with an operator head that was changed; the given one stays as it is."""
    model = copy.deepcopy(solver.model)
    with torch.no_grad():
        change(model.operator_head)
    model.operator_head._reader = None
    return LearnedSolver(model, solver.info)


def zeros(head: OperatorHead) -> None:
    """Make an operator head say 0."""
    for name in ("T_mean", "leading", "others"):
        head.get_buffer(name).zero_()


def noise(head: OperatorHead) -> None:
    """Make an operator head say nonsense."""
    head.linear.bias.copy_(1e3 * torch.randn(head.linear.bias.shape, generator=torch.Generator().manual_seed(0)))


def not_a_number(head: OperatorHead) -> None:
    """Make an operator head say NaN."""
    head.linear.bias.fill_(torch.nan)


@functools.cache
def shipped(name: str = "diffusion-64") -> LearnedSolver:
    """Return a shipped model, or one of studies/weights, loaded once."""
    return LearnedSolver.from_pretrained(weights.source(name))
