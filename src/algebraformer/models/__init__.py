"""Networks that read a linear system and return its solution."""

from typing import Any

import lazy_loader

from algebraformer._deprecated import moved

_attached, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    return moved("models", name) if name == "systems_at_once" else _attached(name)
