"""LU on a GPU, batched, for the systems that a network does not answer: what `numerics.lapack` is on the host.

Only there: torch's batched LU on the processor is wrong on several threads (see `numerics.lapack`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from algebraformer.arrays import host
from algebraformer.numerics.forward_error import MAX_DEFECT, error_by_condition, forward_error, probes_for
from algebraformer.numerics.gcr import richardson
from algebraformer.numerics.lapack import MAX_REFINEMENTS, PROBES, DirectSolution


@torch.no_grad()
def solve(A: Any, b: Any, rtol: float | None, singular: NDArray[np.bool_], transpose: bool = False) -> DirectSolution:
    """Solve B systems by LU with partial pivoting, refined and measured as `numerics.lapack.solve` does.

    Parameters
    ----------
    A : Tensor, shape (B, n, n), float64 or complex128, finite
    b : Tensor, shape (B, n, k), the same dtype
    rtol : float, optional
        Tolerance of the certificate.
    singular : ndarray of bool, shape (B,)
        Systems that are known to be singular.
    transpose : bool
        Solve A^T x = b.

    Returns
    -------
    DirectSolution
        With x on the device.
    """
    matrices = A.mT if transpose else A
    lu, pivots, info = torch.linalg.lu_factor_ex(matrices)
    singular = singular | (host(info) > 0)

    def inverse(v: Any, chosen: Any = slice(None)) -> Any:
        return torch.linalg.lu_solve(lu[chosen], pivots[chosen], v)

    # 1. Answers, refined while the certificate is missed.
    solution = richardson(matrices, b, lambda chosen, r: inverse(r, chosen), rtol, MAX_REFINEMENTS)

    # 2. Condition in the 1-norm, by the inverse: on a GPU n more right-hand sides cost little more than one.
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand_as(A)
    norms = (host(torch.linalg.matrix_norm(part, 1)) for part in (matrices, inverse(identity)))
    with np.errstate(all="ignore"):
        rcond = 1 / np.prod(list(norms), axis=0)
    rcond = np.where(np.isfinite(rcond) & ~singular, rcond, 0.0)

    # 3. The error of x by the factors where they invert A, else by the condition.
    g = probes_for(A)
    defect = host((g - inverse(matrices @ g)).norm(dim=(1, 2)))
    trusted = defect <= MAX_DEFECT  # also False for NaN
    estimate = forward_error(inverse, solution.x, solution.measures, np.where(trusted, defect, 0.0), PROBES)
    omega = solution.backward_error
    trivial = ~host((solution.x != 0).flatten(1).any(dim=1)) & (omega == 0)
    error = np.where(trusted, estimate, error_by_condition(trivial, omega, rcond, A.shape[-1]))

    solution.x[singular] = torch.nan
    return DirectSolution(
        x=solution.x,
        relative_residual=np.where(singular, np.inf, solution.relative_residual),
        backward_error=np.where(singular, np.inf, omega),
        certified=solution.certified & ~singular,
        rcond=rcond,
        singular=singular,
        forward_error=np.where(singular, np.nan, error),
    )
