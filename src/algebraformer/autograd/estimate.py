"""Gradients of an estimate's mean and standard deviations with respect to b.

The estimate itself is the one without gradients. A gradient runs the network once more, as a module of torch: what the
network computes it computes in single precision, everything around it in double precision. So gradients have about
five digits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from algebraformer.autograd.solve import Call, Matrices, Solve
from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.inference.estimate_reader import network_input
from algebraformer.models.inference.reader import BATCH_SIZE
from algebraformer.models.network import Algebraformer
from algebraformer.models.scaling import ScaledSystems, scale_systems, signed_size


class _Solution(NamedTuple):
    x: Tensor
    certified: bool = True


class _Direct:
    """Batches of small systems that LAPACK solves, (B, n, n)."""

    def __init__(self, A: Tensor) -> None:
        self._A, self._device = A.numpy(force=True), A.device

    def solve(
        self, b: Tensor, rtol: float | None, max_refinements: int, fallback: bool, transpose: bool, /
    ) -> _Solution:
        """Solve A x = b or A^T x = b for b (B, n, k)."""
        x = np.linalg.solve(self._A.swapaxes(1, 2) if transpose else self._A, b.numpy(force=True))
        return _Solution(torch.from_numpy(x).to(self._device))


def solve_batch(A: Tensor, b: Tensor) -> Tensor:
    """Return x (..., n, k) from A (..., n, n) and b (..., n, k), float64, as np.linalg.solve does, with gradients."""
    x: Tensor = Solve.apply(A.flatten(0, -3), b.flatten(0, -3), Call(Matrices(_Direct)))
    return x.reshape(b.shape)


class _Outputs(nn.Module):
    """The outputs of an estimate network, as a module of its own for `torch.func.functional_call`."""

    def __init__(self, network: Algebraformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.network.estimate_head.outputs(self.network, *inputs)


@dataclasses.dataclass
class EstimateCall:
    """An estimate from tensors, and what of the forward pass its gradient needs.

    Attributes
    ----------
    estimate : callable
        estimate(A, b) -> Estimate for tensors without gradient.
    model : callable
        model() -> Algebraformer. It is called where no transform of `torch.func` lays hands on its tensors.
    found : Estimate
        What `estimate` returned.
    network : Algebraformer
    reader : EstimateReader
        Of its head.
    A : ndarray, shape (m, n) or (B, m, n)
    """

    estimate: Callable[[Tensor, Tensor], Any]
    model: Callable[[], Algebraformer]
    found: Any = None
    network: Any = None
    reader: Any = None
    A: Any = None

    def forward(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and std."""
        self.found = self.estimate(A.detach(), b.detach())
        self.network, self.A = self.model(), A.double().numpy(force=True)
        self.reader = self.network.estimate_head.reader
        return self.found.x, self.found.std

    def outputs(self, A: FloatArray, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and calibrated std (C, n) for A (C, m, n) and b (C, m), float64, by torch."""
        # 1. The scaled systems. A is constant: with ones in place of b the answer's size is 1 / s_A.
        scaled, _, inverse_size = (torch.from_numpy(part).to(b.device) for part in scale_systems(A, np.ones(b.shape)))
        s_b = signed_size(b, torch.ones_like(b[0]), torch)
        size = s_b * inverse_size
        systems = ScaledSystems(scaled, b / s_b[:, None], size)  # type: ignore[arg-type]

        # 2. The network, whose parameters have no part in the gradient.
        inputs = network_input(self.network.config, systems, torch, solve_batch)
        parameters = {f"network.{name}": p.detach() for name, p in self.network.named_parameters()}
        on_device = tuple(part.to(self.network.device) for part in inputs)  # type: ignore[attr-defined]
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative and no rule for vmap
            outputs = torch.func.functional_call(_Outputs(self.network), parameters, on_device)

        # 3. Its answers in the caller's units.
        double = (part.to(b.device).double() for part in outputs)
        mean, std, _ = self.reader.calibrated(systems, *double, torch, solve_batch)
        return size[:, None] * mean, size.abs()[:, None] * std


class EstimateFunction(torch.autograd.Function):
    """x and std from A (m, n) or (B, m, n), b (m,), (m, k), (B, m) or (B, m, k), and an `EstimateCall`."""

    @staticmethod
    def forward(A: Tensor, b: Tensor, call: EstimateCall) -> tuple[Tensor, Tensor]:
        """Return x and std in the shape of b, with n for m."""
        return call.forward(A, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, EstimateCall], output: tuple[Tensor, Tensor]) -> None:
        """Keep b."""
        _, b, ctx.call = inputs
        ctx.save_for_backward(b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        """Return the gradient with respect to b, from a limited number of systems at a time."""
        if ctx.needs_input_grad[0]:
            raise _not_to_A()
        call, b = ctx.call, ctx.saved_tensors[0]
        columns = b.ndim == call.A.ndim
        flat, of_outputs = _rows(b.double(), columns), [_rows(g, columns) for g in gradients]  # (S, m); (S, n) twice
        matrices = call.A.reshape(-1, *call.A.shape[-2:])
        owner = np.arange(len(matrices)).repeat(len(flat) // max(1, len(matrices)))
        parts = [flat[:0]]
        for start in range(0, len(flat), BATCH_SIZE):
            systems = slice(start, start + BATCH_SIZE)
            pull = torch.func.vjp(functools.partial(call.outputs, matrices[owner[systems]]), flat[systems])[1]
            parts += pull(tuple(g[systems] for g in of_outputs))
        of_b = torch.cat(parts)
        of_b = of_b.reshape(b.mT.shape).mT if columns else of_b.reshape(b.shape)
        return None, of_b.to(b.dtype), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], A: Tensor, b: Tensor, call: EstimateCall
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Estimate from V times as many right-hand sides, which are columns."""
        A_dim, b_dim, _ = in_dims
        if A_dim is not None or b_dim is None:
            raise ConfigurationError("torch.func.vmap maps estimates over b alone: give matrices as a batch (B, m, n)")
        b = b.movedim(b_dim, -1)
        several = b.ndim > A.ndim  # (..., m, k, V)
        x, std = EstimateFunction.apply(A, b.flatten(-2) if several else b, call)
        if several:
            x, std = x.unflatten(-1, b.shape[-2:]), std.unflatten(-1, b.shape[-2:])
        return (x, std), (x.ndim - 1, x.ndim - 1)


def _not_to_A() -> ConfigurationError:
    return ConfigurationError("estimates carry gradients to b alone: detach A")


def _rows(v: Tensor, columns: bool) -> Tensor:
    """Return the caller's vectors, columns or not, as rows."""
    v = v.mT if columns else v
    return v.reshape(-1, v.shape[-1])


def estimate(found: Callable[[Tensor, Tensor], Any], model: Callable[[], Algebraformer], A: Any, b: Any) -> Any:
    """Return the `Estimate` that found(A, b) is, with gradients of x and std with respect to b through model().

    Raises
    ------
    ConfigurationError
        A requires gradients.
    """
    if A.requires_grad and torch.is_grad_enabled():
        raise _not_to_A()
    call = EstimateCall(found, model)
    x, std = EstimateFunction.apply(A, b, call)
    result, call.found = call.found, None  # the graph holds the call, and must not hold x once more
    return dataclasses.replace(result, x=x, std=std)
