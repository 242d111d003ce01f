"""Recipes for instruments of one's own."""

from __future__ import annotations

import dataclasses

from algebraformer.models.config import ModelConfig
from algebraformer.models.inversion import InversionConfig
from algebraformer.problems import Instrument
from algebraformer.problems.instruments.base import GROUP
from algebraformer.training.recipes import INSTRUMENTS, Recipe

SAMPLES, STEPS = 60_000, 3_000
"""Measurements and steps for an instrument of one's own: less than ten minutes on two cores for a hundred unknowns."""


def inversion_network(instrument: Instrument) -> ModelConfig:
    """Return the network of the recipe deer for another instrument, by what a simulated measurement holds.

    Examples
    --------
    >>> from algebraformer import problems
    >>> inversion_network(problems.get("drt")).head == INSTRUMENTS["drt"].model.head
    True
    """
    simulated = instrument.simulate([0], seed=0)
    measurements = instrument.measurements(simulated)
    head = InversionConfig(
        n_equations=instrument.n_equations,
        n_way=len(measurements.ways),
        n_column=measurements.ways[0].N.shape[1],
        n_feature=len(measurements.features),
        n_nuisance=len(instrument.nuisance_names),
        density=instrument.is_density,
        prior_rank=min(80, instrument.n),
    )
    return dataclasses.replace(INSTRUMENTS["deer"].model, n=instrument.n, head=head, n_layer=4)


def instrument_recipe(instrument: Instrument) -> Recipe:
    """Return a recipe for an instrument that is registered."""
    return dataclasses.replace(
        INSTRUMENTS["deer"],
        family=instrument.name,
        family_settings=instrument.own_settings(),
        model=inversion_network(instrument),
        samples=SAMPLES - SAMPLES % GROUP,
        steps=STEPS,
    )
