"""The extras, such as [train], which installs torch: solving does without, and what cannot says so in one error."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any


def require_torch(what: str) -> None:
    """Raise `MissingExtraError`, which begins with what needs torch, unless it is installed; it is not imported."""
    require_packages(what, ("torch",), "train")


def require_packages(what: str, names: Sequence[str], extra: str) -> None:
    """Raise `MissingExtraError`, which begins with what needs packages, unless all are installed; none is imported."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise _missing(what, " and ".join(missing), extra)


def naming_the_extra(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` that raises `MissingExtraError` where a name needs torch and there is none."""

    @functools.wraps(get)
    def wrapped(name: str) -> Any:
        try:
            return get(name)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise _missing(name) from error

    return wrapped


def _missing(what: str, packages: str = "torch", extra: str = "train") -> ImportError:
    from algebraformer.errors import MissingExtraError  # loads NumPy, which the root does not

    return MissingExtraError(f"{what} needs {packages}: pip install 'algebraformer[{extra}]'")
