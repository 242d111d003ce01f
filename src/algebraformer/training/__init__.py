"""Training: recipes, data made in the background, optimisers, one loop for every model."""

from typing import Any

import lazy_loader

from algebraformer._deprecated import install, moved
from algebraformer.extras import naming_the_extra

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
install("training")


@naming_the_extra
def __getattr__(name: str) -> Any:
    return moved("training", name) if name in ("score", "FewSystems") else _attached(name)
