"""Networks that read a linear system and return its solution."""

from typing import Any

import lazy_loader

from algebraformer._deprecated import moved
from algebraformer.extras import naming_the_extra

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@naming_the_extra
def __getattr__(name: str) -> Any:
    return moved("models", name) if name == "systems_at_once" else _attached(name)
