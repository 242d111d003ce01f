"""Packages that only an extra installs: solving does without, and what cannot says so in one error."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

EXTRAS = {"torch": "train", "dask": "dask"}
"""The extra of each such package."""


def require(package: str, what: str) -> None:
    """Raise `MissingExtraError`, which begins with what needs it, unless a package is installed; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise _missing(what, package)


def require_torch(what: str) -> None:
    """Raise `MissingExtraError`, which begins with what needs torch, unless it is installed; it is not imported."""
    require("torch", what)


def naming_the_extra(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` that raises `MissingExtraError` where a name needs torch and there is none."""

    @functools.wraps(get)
    def wrapped(name: str) -> Any:
        try:
            return get(name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise _missing(name, "torch") from error

    return wrapped


def _missing(what: str, package: str) -> ImportError:
    from algebraformer.errors import MissingExtraError  # loads NumPy, which the root does not

    return MissingExtraError(f"{what} needs {package}: pip install 'algebraformer[{EXTRAS[package]}]'")
