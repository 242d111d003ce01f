"""Learning from few systems: what a network starts from, and what is fitted to the N systems after the last step."""

from __future__ import annotations

import torch

from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer
from algebraformer.models.encoding import MARGIN
from algebraformer.numerics import operator_basis
from algebraformer.problems import ProblemFamily
from algebraformer.training.config import FewSystems
from algebraformer.training.data import Batch, to_tensors
from algebraformer.training.monitor import ProgressCallback, silent
from algebraformer.training.operator import basis_for, calibrate, choose_ridge, fit_to_few, readout, set_readout

CHANGEABLE = {"refitted": ("rank", "whiten", "balance"), "extended": ("rank",), "kept": ()}
"""What the architecture of an operator head may differ in from the one it starts from, by what becomes of its basis."""


def starting_model(
    recipe: FewSystems, family: ProblemFamily, initial: Algebraformer | None, report: ProgressCallback = silent
) -> Algebraformer:
    """Return the network before its first step: nothing of the family but the recipe's N systems is looked at.

    Parameters
    ----------
    recipe : FewSystems
    family : ProblemFamily
        That of the recipe.
    initial : Algebraformer or None
        The network to start from, which is not changed; None for new weights.
    report : callable
        Told the progress of fitting a basis.

    Raises
    ------
    ConfigurationError
        The network is missing, is one too many, or has another architecture than the recipe.
    """
    check_initial(recipe, initial)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Algebraformer(recipe.model)
    if initial is not None:
        model.tokens.load_state_dict(initial.tokens.state_dict())
        model.body.load_state_dict(initial.body.state_dict())
    if recipe.model.head == "token":
        _begin_token_head(model, recipe, family, initial)
    else:
        _begin_operator_head(model, recipe, family, initial, report)
    return model


def check_initial(recipe: FewSystems, initial: Algebraformer | None) -> None:
    """Raise `ConfigurationError` unless the network is the one that the recipe needs."""
    if initial is None:
        if recipe.start:
            raise ConfigurationError(
                f"the recipe starts from {recipe.start.get('name')!r}: pass that network as initial, or call finetune"
            )
        return
    if not recipe.start:
        raise ConfigurationError("the recipe has new weights: fill in its start, or leave out initial")
    free = CHANGEABLE[recipe.basis] if recipe.model.head == "operator" else ()
    given = initial.config.settings()
    for name, value in recipe.model.settings().items():
        if value != given[name] and name not in free:
            raise ConfigurationError(
                f"the recipe has model.{name} = {value!r}, the network it starts from {given[name]!r}: these must agree"
            )


@torch.no_grad()
def _begin_token_head(
    model: Algebraformer, recipe: FewSystems, family: ProblemFamily, initial: Algebraformer | None
) -> None:
    A, b, x = to_tensors(family.sample(recipe.samples, recipe.seed))
    if initial is not None:
        model.head.load_state_dict(initial.head.state_dict())
    if initial is not None and recipe.scaler == "kept":
        model.scaler.load_state_dict(initial.scaler.state_dict())
        model.scaler.reach.copy_(MARGIN * model.scaler.distance(A).max())
    else:
        model.scaler.fit(A, b, x)


def _begin_operator_head(
    model: Algebraformer,
    recipe: FewSystems,
    family: ProblemFamily,
    initial: Algebraformer | None,
    report: ProgressCallback,
) -> None:
    config, count = recipe.model, recipe.samples
    if initial is None or recipe.basis == "refitted":
        model.operator_head.set_basis(basis_for(config, family, recipe.seed, count, report))
        return
    A = family.assembled(range(count), recipe.seed)[0]
    model.operator_head.set_basis(operator_basis.extended(initial.operator_head.basis, A, config.rank))
    before = readout(initial)
    new = torch.zeros(len(before), config.rank - before.shape[1], dtype=before.dtype)
    set_readout(model, torch.cat((before, new), dim=1))


def finish_operator_head(
    model: Algebraformer, recipe: FewSystems, family: ProblemFamily, stored: Batch, report: ProgressCallback = silent
) -> None:
    """Fit the read-out to the N systems and calibrate on them.

    The systems that no step was taken on choose the ridge, and are what the first answers of the calibration are
    honest on; only then the read-out is fitted to all of them.
    """
    before = readout(model)
    ridge = choose_ridge(model, stored, recipe.trained_on)
    calibrate(model, family, recipe.samples, recipe.seed, report)
    fit_to_few(model, stored, before, ridge)
