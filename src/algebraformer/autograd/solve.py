"""Gradients through A x = b by the implicit function theorem [1]_: one more certified solve, with the adjoint of A.

For a loss L and g = dL/dx, by torch's convention for complex numbers [2]_,

    A^H w = g,   dL/db = w,   dL/dA = -w x^H.

The adjoint system is solved by whatever solved A x = b, which has read A before, and by the same function of autograd:
so it can be differentiated again, and the transforms of `torch.func` apply.

References
----------
.. [1] M. B. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation",
   Advances in Automatic Differentiation (2008).
.. [2] K. Kreutz-Delgado, "The complex gradient operator and the CR-calculus", arXiv:0906.4835 (2009).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from scipy.linalg import LinAlgWarning
from torch import Tensor

from algebraformer.arrays import check_kind, in_transform, kind_of
from algebraformer.errors import ConfigurationError, warn_caller
from algebraformer.result import SolveResult

if TYPE_CHECKING:
    from algebraformer.numerics.lapack import LogDeterminant


class Answer(Protocol):
    """A solution: of `SolveResult` this is what gradients need."""

    @property
    def x(self) -> Any:
        """In the shape of b."""

    @property
    def certified(self) -> Any:
        """Bool, or an array (B,)."""


class Ready(Protocol):
    """Matrices that have been read: `Prepared`, for instance."""

    def solve(self, b: Any, rtol: float | None, max_refinements: int, fallback: bool, transpose: bool, /) -> Answer:
        """Solve A x = b or A^T x = b."""


class Matrices:
    """The matrices of one tensor, read when they are first solved with, and solved with by the values that were read.

    Inside `torch.func.vmap` that is the batch of all matrices that the tensor stands for.

    Parameters
    ----------
    read : callable
        read(A) -> Ready for a tensor (n, n) or (B, n, n) without gradient.
    ready : Ready, optional
        What that returned.
    """

    def __init__(self, read: Callable[[Tensor], Ready], ready: Ready | None = None) -> None:
        self._read, self.ready = read, ready

    def read(self, A: Tensor) -> Ready:
        """Return the matrices, read at the first call alone."""
        if self.ready is None:
            self.ready = self._read(A.detach())
        return self.ready


@dataclasses.dataclass
class Call:
    """What is solved with which options; the result of the forward pass passes through here to the caller."""

    matrices: Matrices
    options: tuple[float | None, int, bool] = (None, 10, True)
    """rtol, max_refinements, fallback."""
    transpose: bool = False
    backward: bool = False
    """Whether a gradient is computed, so that nobody sees the result."""
    result: Any = None

    def solve(self, A: Tensor, b: Tensor) -> Tensor:
        """Return x; of a gradient also check right-hand side and certificate."""
        if self.backward and not torch.isfinite(b).all():
            raise ValueError("the gradient with respect to x contains NaN or infinity")
        self.result = self.matrices.read(A).solve(b.detach(), *self.options, self.transpose)
        if self.backward and not (certified := np.atleast_1d(self.result.certified)).all():
            warn_caller(
                f"a gradient is inaccurate: {np.sum(~certified)} of {certified.size} solutions of the adjoint system "
                "are not certified",
                LinAlgWarning,
            )
        x: Tensor = self.result.x
        return x

    def adjoint(self) -> Call:
        """Return the call for a gradient through this one."""
        return Call(self.matrices, self.options, not self.transpose, backward=True)

    def again(self) -> Call:
        """Return the call for a derivative forward through this one."""
        return dataclasses.replace(self, backward=True, result=None)


class Solve(torch.autograd.Function):
    """x from A (n, n) or (B, n, n), b (n,), (n, k), (B, n) or (B, n, k), and a `Call`."""

    @staticmethod
    def forward(A: Tensor, b: Tensor, call: Call) -> Tensor:
        """Return x in the shape of b."""
        return call.solve(A, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Call], output: Tensor) -> None:
        """Keep what both derivatives need; A for the graph alone, its values have been read."""
        A, b, call = inputs
        ctx.call, ctx.b_like = call, (b.dtype,)
        ctx.save_for_backward(A, output)
        ctx.save_for_forward(A, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """Return the gradients with respect to A and b."""
        A, x = ctx.saved_tensors
        w = Solve.apply(A, gradients[0].conj(), ctx.call.adjoint()).conj()
        of_A = None
        if ctx.needs_input_grad[0]:
            of_A = -_columns(w, A) @ _columns(x, A).mH
            of_A = _as(of_A.mT if ctx.call.transpose else of_A, A.dtype)
        return of_A, _as(w, *ctx.b_like), None

    @staticmethod
    def jvp(ctx: Any, dA: Tensor | None, db: Tensor | None, _: None) -> Tensor:
        """Return the derivative of x along those of A and b: A dx = db - dA x."""
        A, x = ctx.saved_tensors
        right = torch.zeros_like(x) if db is None else db.to(x.dtype)
        if dA is not None:
            dA = (dA.mT if ctx.call.transpose else dA).to(x.dtype)
            right = right - (dA @ _columns(x, A)).reshape(x.shape)
        dx: Tensor = Solve.apply(A, right, ctx.call.again())
        return dx

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], A: Tensor, b: Tensor, call: Call) -> tuple[Tensor, int]:
        """Solve V systems at once: columns of b where they share their matrices, else a larger batch."""
        A_dim, b_dim, _ = in_dims
        V = info.batch_size

        # 1. Shared matrices: (..., n) or (..., n, k) for each becomes (..., n, V) or (..., n, k V).
        if A_dim is None and b_dim is not None:
            b = b.movedim(b_dim, -1)
            several = b.ndim > A.ndim
            x = Solve.apply(A, b.flatten(-2) if several else b, call)
            x = x.unflatten(-1, b.shape[-2:]) if several else x
            return x, x.ndim - 1

        # 2. Matrices of their own: (n, n) or (B, n, n) for each becomes (V, n, n) or (V B, n, n).
        A = A.expand(V, *A.shape) if A_dim is None else A.movedim(A_dim, 0)
        b = b.expand(V, *b.shape) if b_dim is None else b.movedim(b_dim, 0)
        if A.ndim == 3:
            return Solve.apply(A, b, call), 0
        return Solve.apply(A.flatten(0, 1), b.flatten(0, 1), call).unflatten(0, A.shape[:2]), 0


def _columns(v: Tensor, A: Tensor) -> Tensor:
    """Return vectors (n,) or (B, n) as columns; matrices of columns as they are."""
    return v if v.ndim == A.ndim else v[..., None]


def _as(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient with respect to numbers of this dtype: for real ones its real part."""
    return (gradient.real if gradient.is_complex() and not dtype.is_complex else gradient).to(dtype)


def solve(
    matrices: Matrices,
    A: Tensor,
    b: Any,
    rtol: float | None,
    max_refinements: int,
    fallback: bool,
    transpose: bool,
) -> SolveResult:
    """Solve with gradients; the values of A are those that `matrices` has read."""
    call = Call(matrices, (rtol, max_refinements, fallback), transpose)
    x = Solve.apply(A, b, call)
    result, call.result = call.result, None  # the graph holds the call, and must not hold x once more
    solved: SolveResult = dataclasses.replace(result, x=x)
    return solved


class PreparedTensor:
    """`Prepared` for a torch tensor that a gradient is wanted for: A (n, n), or a batch (B, n, n), read once.

    It has the methods of `Prepared`; gradients flow through `solve`, to A as it was when it was prepared.
    """

    def __init__(self, prepare: Callable[[Tensor], Any], A: Tensor, copy: bool = True) -> None:
        """`prepare` reads a tensor; `copy` is False where A cannot change before it is solved with."""
        self._kind, self._A = kind_of(A=A), A.clone() if copy else A
        self._matrices = Matrices(prepare)
        if not in_transform(A):
            self._matrices.read(A)

    def __repr__(self) -> str:
        return f"PreparedTensor(shape={tuple(self._A.shape)})"

    @property
    def in_distribution(self) -> Any:
        """Whether A looks like the family the network was trained on; see `Prepared`."""
        return self._prepared.in_distribution

    @property
    def operator(self) -> Any:
        """The approximate inverses, without gradients; see `Prepared`."""
        return self._prepared.operator

    def solve(
        self,
        b: Any,
        rtol: float | None = None,
        max_refinements: int = 10,
        fallback: bool = True,
        transpose: bool = False,
    ) -> SolveResult:
        """Solve A x = b, or A^T x = b; see `LearnedSolver.solve`."""
        check_kind(self._kind, "A", b=b)
        return solve(self._matrices, self._A, b, rtol, max_refinements, fallback, transpose)

    def logdet(self) -> LogDeterminant:
        """Return sign and logarithm of the determinant, without gradients; see `Prepared`."""
        determinant: LogDeterminant = self._prepared.logdet()
        return determinant

    @property
    def _prepared(self) -> Any:
        """What was read; `ConfigurationError` inside a transform, where nothing is before something is solved."""
        if self._matrices.ready is None:
            raise ConfigurationError(
                "inside a transform of torch.func a prepared matrix can be solved with, and no more"
            )
        return self._matrices.ready
