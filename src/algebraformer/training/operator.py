"""What training an operator head adds to the loop: its basis, the least-squares fit of its read-out, its reach."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from algebraformer.errors import TrainingError
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.models.encoding import MARGIN
from algebraformer.models.heads import DEFECT_MARGIN
from algebraformer.numerics import gcr, operator_basis
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.problems import ProblemFamily
from algebraformer.training.data import CALIBRATION_SEED, SCALER_SEED, Batch
from algebraformer.training.monitor import ProgressCallback, silent

READOUT_SAMPLES = 2**16
"""Examples that the read-out is fitted on where no training set is stored."""
RIDGE = 1e-10
"""Ridge parameter of that fit, relative to the mean square of a feature."""
NOTHING = 1e-12
"""Components whose coefficients are below this share of the largest are rounding."""
RIDGES = tuple(10.0**power for power in range(3, -11, -1))
"""Ridge parameters to choose from where the examples are few. The largest leaves the read-out nearly as it is."""
CHUNK = 2048
USUAL = 0.999
"""Share of a sample whose first answers count as those of the family."""


def basis_for(
    config: ModelConfig,
    family: ProblemFamily,
    seed: int = SCALER_SEED,
    count: int | None = None,
    report: ProgressCallback = silent,
) -> OperatorBasis:
    """Return the basis of the family that an operator head of this configuration needs, see `operator_basis.fit`."""
    return operator_basis.fit(
        lambda indices: family.assembled(indices, seed)[0],
        family.n,
        config.rank,
        config.n_column,
        config.n_row,
        count=count,
        whiten=config.whiten,
        weighted=config.balance,
        report=report,
    )


def fit_basis(model: Algebraformer, family: ProblemFamily, report: ProgressCallback = silent) -> None:
    """Compute the basis of the family from its scaler sample and give it to the model."""
    model.operator_head.set_basis(basis_for(model.config, family, report=report))


@torch.no_grad()
def fit_readout(model: Algebraformer, stored: Batch, report: ProgressCallback = silent) -> None:
    """Replace the read-out by the weighted least-squares solution on stored examples, after the last step.

    The loss is quadratic in the read-out, so this is its exact minimum for the features the body has learned; gradient
    steps come near it only slowly, because the features differ in size and are correlated. In the middle of training it
    does harm: the fitted weights are large, and so are the gradients behind them (LOG.md).

    Raises
    ------
    TrainingError
        The features are not finite.
    """
    gram, moment = normal_equations(model, stored, report)
    set_readout(model, ridge_solution(gram, moment, RIDGE))


@torch.no_grad()
def choose_ridge(model: Algebraformer, stored: Batch, trained_on: int) -> float:
    """Fit the read-out to the first of few examples, as `fit_to_few`, and return the ridge that the others like best.

    Parameters
    ----------
    stored : tuple of Tensor
        z, c and weights of N examples.
    trained_on : int
        Number of the first examples that the body has seen in training.

    Returns
    -------
    float
        One of `RIDGES`, the largest of those that lead to the smallest loss on the other examples. The read-out is left
        as this fit on the first examples made it.

    Raises
    ------
    TrainingError
        The features are not finite.
    """
    seen, held = (tuple(part[rows] for part in stored) for rows in (slice(trained_on), slice(trained_on, None)))
    device = model.tokens.embedding.weight.device
    equations, before = normal_equations(model, seen), readout(model)
    solutions = {ridge: moved(before, *equations, ridge) for ridge in RIDGES}
    losses = {}
    for ridge, solution in solutions.items():
        set_readout(model, solution)
        losses[ridge] = float(model.loss(*(part.to(device) for part in held)))
    best = min(RIDGES, key=lambda ridge: losses[ridge])
    set_readout(model, solutions[best])
    return best


@torch.no_grad()
def fit_to_few(model: Algebraformer, stored: Batch, before: Tensor, ridge: float) -> None:
    """Move the read-out from `before` to the minimum of loss + ridge ||read-out - before||^2 on few examples.

    Fewer examples than features leave most of the read-out undecided: there it stays as training has made it.
    """
    set_readout(model, moved(before, *normal_equations(model, stored), ridge))


def moved(before: Tensor, gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """Return the read-out that is nearest to both the examples and the one before."""
    return before + ridge_solution(gram, moment - gram @ before, ridge)


@torch.no_grad()
def normal_equations(model: Algebraformer, stored: Batch, report: ProgressCallback = silent) -> tuple[Tensor, Tensor]:
    """Return Gram matrix (w, w) of the weighted features, a constant among them, and moments (w, R), float64."""
    linear = model.operator_head.linear
    device, width = linear.weight.device, linear.in_features + 1
    gram = torch.zeros(width, width, dtype=torch.float64)
    moment = torch.zeros(width, linear.out_features, dtype=torch.float64)
    for start in range(0, len(stored[0]), CHUNK):
        z, c, weight = (tensor[start : start + CHUNK] for tensor in stored)
        h = model.features(z.to(device)).flatten(1).cpu().double()
        h = torch.cat((h, torch.ones(len(h), 1, dtype=torch.float64)), dim=1) * weight[:, None]
        gram += h.T @ h
        moment += h.T @ (c * weight[:, None]).double()
        report(min(start + CHUNK, len(stored[0])), len(stored[0]))
    return gram, moment


def ridge_solution(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """Return the solution of the normal equations; `TrainingError` if they are not finite."""
    damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    try:
        return torch.from_numpy(scipy.linalg.solve(damped.numpy(), moment.numpy(), assume_a="pos"))
    except (np.linalg.LinAlgError, ValueError) as error:
        raise TrainingError(f"the read-out cannot be fitted: {error}") from error


def readout(model: Algebraformer) -> Tensor:
    """Return weights and bias of the read-out as one matrix (w, R), float64, that gives coefficients in their size."""
    linear = model.operator_head.linear
    both = torch.cat((linear.weight.T, linear.bias[None])).detach().cpu().double()
    return both * model.operator_head.scale_of_coefficients().cpu().double()


@torch.no_grad()
def set_readout(model: Algebraformer, solution: Tensor) -> None:
    """Put what `readout` returned back."""
    head = model.operator_head
    scale = head.scale_of_coefficients().cpu().double()
    spanned = scale > NOTHING * scale.max()  # a family may need fewer components than the basis has
    solution = torch.where(spanned, solution / torch.where(spanned, scale, 1.0), 0.0)
    head.linear.weight.copy_(solution[:-1].T)
    head.linear.bias.copy_(solution[-1])


def calibrate(
    model: Algebraformer,
    family: ProblemFamily,
    count: int,
    seed: int = CALIBRATION_SEED,
    report: ProgressCallback = silent,
) -> None:
    """Measure on a sample of the family how far its matrices reach and how much the first answer leaves as a rule.

    The sample is another one than that of the basis, which is at its best on its own.

    The worst first answer of thousands leaves several times as much as all but one in a thousand, enough to take
    strange matrices for the family's own. A random vector counts too: see `OperatorHead.max_defect`.
    """
    head = model.operator_head
    distance, first, defect = [], [], []
    step = max(1, min(256, 2**24 // family.n**2))
    for indices in range(0, count, step):
        systems = family.sample(min(step, count - indices), seed, start=indices)
        distance.append(head.distance(systems.A).max())
        inverse = model.approximate_inverse(systems.A)
        first.append(gcr.solve(systems.A, systems.b[:, :, None], inverse, rtol=0.0, maxiter=1).first_residual_ratio)
        defect.append(gcr.probe_defect(systems.A, inverse))
        report(min(indices + step, count), count)
    head.get_buffer("reach").fill_(MARGIN * float(max(distance)))
    usual = (float(np.quantile(np.concatenate(shares), USUAL)) for shares in (first, defect))
    head.get_buffer("first_step").fill_(MARGIN * max(next(usual), next(usual) / DEFECT_MARGIN))
