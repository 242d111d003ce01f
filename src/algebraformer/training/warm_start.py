"""Learning from few systems: the network before its first step."""

from __future__ import annotations

import torch

from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer
from algebraformer.problems import ProblemFamily
from algebraformer.progress import PartCallback, all_silent
from algebraformer.training.data import training_data
from algebraformer.training.recipes import FinetuneRecipe


def starting_model(
    recipe: FinetuneRecipe,
    family: ProblemFamily,
    initial: Algebraformer | None,
    part: PartCallback = all_silent,
) -> Algebraformer:
    """Return the network before its first step: of the family only the recipe's N systems are used.

    Parameters
    ----------
    recipe : FinetuneRecipe
    family : ProblemFamily
        That of the recipe.
    initial : Algebraformer or None
        The network to start from, which is not changed; None for new weights.
    part : PartCallback
        Reports the progress of fitting a basis.

    Raises
    ------
    ConfigurationError
        The network is missing, is one too many, or has another architecture than the recipe.
    """
    check_initial(recipe, initial)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Algebraformer(recipe.model)
    data = training_data(recipe, family)
    if initial is None:
        model.head.begin(model, data, part)
    else:
        model.tokens.load_state_dict(initial.tokens.state_dict())
        model.body.load_state_dict(initial.body.state_dict())
        model.head.begin_from(model, initial.head, data, recipe.scaler, recipe.basis, part)
    return model


def check_initial(recipe: FinetuneRecipe, initial: Algebraformer | None) -> None:
    """Raise `ConfigurationError` unless the network is the one that the recipe needs."""
    if initial is None:
        if recipe.start:
            raise ConfigurationError(
                f"the recipe starts from {recipe.start.get('name')!r}: pass that network as initial, or call finetune"
            )
        return
    if not recipe.start:
        raise ConfigurationError("the recipe has new weights: fill in its start, or leave out initial")
    expected, given = recipe.model.settings(), initial.config.settings()
    for prefix, own, other, free in (
        ("model.", expected, given, ("head",)),
        ("model.head.", expected["head"], given["head"], recipe.model.head.changeable(recipe.basis)),
    ):
        for name, value in own.items():
            if name not in free and value != other.get(name):
                raise ConfigurationError(
                    f"the recipe has {prefix}{name} = {value!r}, the network it starts from {other.get(name)!r}: these "
                    "must agree"
                )
