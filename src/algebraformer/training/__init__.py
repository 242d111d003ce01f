"""Training: recipes, data made in the background, optimisers, one loop for every model."""

import warnings
from typing import Any

import lazy_loader

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "FewSystems":  # until 0.2
        warnings.warn("FewSystems is called FinetuneRecipe now", DeprecationWarning, stacklevel=2)
        name = "FinetuneRecipe"
    return _attribute(name)
