"""Earlier places of public names: they work for one release, with a warning that names the new place.

A module of `MODULES` is made in memory when its package is imported, and looks its names up in the new module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from algebraformer.errors import warn_caller

MODULES = {
    "plots": "algebraformer.plotting",
    "report": "algebraformer.reporting",
    "lp_norm": "algebraformer.numerics.lp_norm",
    "classical.conjugate_residuals": "algebraformer.numerics.gcr",
    "classical.operator_basis": "algebraformer.numerics.operator_basis",
    "classical.reading": "algebraformer.numerics.entry_sampler",
    "classical.regularization": "algebraformer.numerics.regularization",
    "classical.linear_estimator": "studies.baselines.lmmse",
    "classical.lp": "studies.baselines.lp",
    "classical.sparse": "studies.baselines.sparse",
    "studies.attention": "studies.attention.measure",
    "studies.base": "algebraformer.reporting",
    "studies.family": "algebraformer.assessment",
    "studies.operator": "studies.operator.measure",
    "training.from_file": "algebraformer.problems.custom",
}
"""Modules that the documentation of 0.1 taught, without "algebraformer.": the modules that replace them."""
RENAMED = {
    "classical.conjugate_residuals.SLOW": "algebraformer.numerics.gcr.STAGNATION_FACTOR",
    "classical.reading.Reading": "algebraformer.numerics.entry_sampler.EntrySampler",
    "classical.operator_basis.MeanInverse": "algebraformer.numerics.preconditioner.MeanInverse",
    "lp_norm.norm": "algebraformer.numerics.lp_norm.p_norm",
    "models.systems_at_once": "algebraformer.models.max_batch_size",
    "studies.base.StudyResult": "algebraformer.reporting.Report",
    "studies.family.measure": "algebraformer.assessment.assess",
    "training.automatic.Sampler": "algebraformer.problems.custom.Sampler",
    "training.automatic.as_family": "algebraformer.problems.custom.as_family",
    "training.FewSystems": "algebraformer.training.recipes.FinetuneRecipe",
    "training.score": "algebraformer.metrics.score",
}
"""Objects that have another name or place than their module's."""


def moved(old: str, name: str) -> Any:
    """Return the object that was called `name` in the module `old`, with a `DeprecationWarning` for the caller."""
    module, _, new = RENAMED.get(f"{old}.{name}", f"{MODULES.get(old)}.{name}").rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "studies":
            raise
        raise ImportError(
            f"algebraformer.{old} is now {module}, which does not ship: run from a checkout of the repository"
        ) from error
    value = getattr(found, new)
    warn_caller(f"algebraformer.{old}.{name} is now {module}.{new}", DeprecationWarning)
    return value


def forward(old: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of the module `old`."""

    def look_up(name: str) -> Any:
        if name.startswith("__"):  # what the import system and introspection ask for
            raise AttributeError(name)
        return moved(old, name)

    return look_up


def install(package: str) -> None:
    """Put the old modules of a package, which is "classical", "studies" or "training", where imports find them."""
    parent = sys.modules[f"algebraformer.{package}"]
    for old in MODULES:
        first, _, last = old.partition(".")
        if first == package and last:
            module = ModuleType(f"algebraformer.{old}", f"Earlier name of {MODULES[old]}.")
            vars(module)["__getattr__"] = forward(old)
            sys.modules[module.__name__] = module
            setattr(parent, last, module)
