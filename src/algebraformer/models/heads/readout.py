"""The weighted least-squares fit of a linear read-out: normal equations, ridge, and the move from an older read-out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from algebraformer.errors import TrainingError
from algebraformer.progress import ProgressCallback, silent

RIDGE_RTOL = 1e-10
"""Ridge parameter of the fit to many examples, relative to the mean square of a feature."""
RIDGES = tuple(10.0**power for power in range(3, -11, -1))
"""Ridge parameters to choose from where the examples are few. The largest leaves the read-out nearly as it is."""
CHUNK = 2048
"""Examples per forward pass."""


@torch.no_grad()
def normal_equations(
    features: Callable[[Tensor], Tensor],
    stored: tuple[Tensor, ...],
    report: ProgressCallback = silent,
) -> tuple[Tensor, Tensor]:
    """Return Gram matrix and moments of weighted features, a constant among them.

    Parameters
    ----------
    features : callable
        Returns features (N, w - 1), float64, on the CPU, of examples z.
    stored : tuple of Tensor
        z, coefficients c (N, R) and weights (N,) of N examples.
    report : ProgressCallback

    Returns
    -------
    gram : Tensor, shape (w, w), float64
    moment : Tensor, shape (w, R), float64
    """
    count, gram, moment = len(stored[0]), None, None
    for start in range(0, count, CHUNK):
        z, c, weight = (tensor[start : start + CHUNK] for tensor in stored)
        h = features(z)
        h = torch.cat((h, torch.ones(len(h), 1, dtype=torch.float64)), dim=1) * weight[:, None]
        products = h.T @ h, h.T @ (c * weight[:, None]).double()
        gram, moment = products if gram is None or moment is None else (gram + products[0], moment + products[1])
        report(min(start + CHUNK, count), count)
    if gram is None or moment is None:
        raise TrainingError("the read-out cannot be fitted: there are no examples")
    return gram, moment


def ridge_solution(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """Return the solution of the normal equations; `TrainingError` if they are not finite."""
    damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    try:
        return torch.from_numpy(scipy.linalg.solve(damped.numpy(), moment.numpy(), assume_a="pos"))
    except (np.linalg.LinAlgError, ValueError) as error:
        raise TrainingError(f"the read-out cannot be fitted: {error}") from error


def ridge_update(before: Tensor, gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """Return the minimum of squared errors + ridge ||read-out - before||^2.

    Fewer examples than features leave most of the read-out undetermined: there it stays as it was.
    """
    return before + ridge_solution(gram, moment - gram @ before, ridge)
