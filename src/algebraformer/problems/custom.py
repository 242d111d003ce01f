"""Families that live in a user's own Python file, named as "file.py:Name"."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from algebraformer.errors import AlgebraformerError, ConfigurationError
from algebraformer.problems import ProblemFamily
from algebraformer.problems.custom import as_family

PREFIX = "family_file_"
"""Modules of such files are called so, and no other module is shadowed: a file may be named random.py."""


def names_a_file(text: str) -> bool:
    """Say whether a text is meant as "file.py:Name"; names of recipes and families have no colon and no such ending."""
    return ":" in text or text.endswith(".py")


def family_from_file(source: str) -> ProblemFamily:
    """Return the family that a Python file defines, registered in this process.

    The file is executed, as a script is but for its part behind `if __name__ == "__main__"`, and one system is sampled
    to see that the family works.

    Parameters
    ----------
    source : str
        "file.py:Name": a family, a class of families or a function that samples A, as `as_family` takes them.

    Raises
    ------
    ConfigurationError
        The file does not exist or raises, does not have the name, or what has it is no family or cannot be sampled.
    """
    file, colon, name = source.rpartition(":")
    if not (colon and name.isidentifier()):
        raise ConfigurationError(f"expected FILE.py:NAME, received {source!r}")
    module = _executed(Path(file))
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ConfigurationError(f"{file} has no {name!r}; it defines: {', '.join(own) or 'nothing'}")
    try:
        family = as_family(getattr(module, name))
        family.sample(2)
    except AlgebraformerError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{source} cannot be sampled: {_described(error)}") from error
    return family


def _executed(path: Path) -> ModuleType:
    """Return the module of a file; its folder is searched for what it imports, after everything else."""
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such file; expected FILE.py:NAME")
    specification = importlib.util.spec_from_file_location(f"{PREFIX}{path.stem}", path)
    if specification is None or specification.loader is None:
        raise ConfigurationError(f"{path} is not a Python file: expected FILE.py:NAME")
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ConfigurationError(f"{path} cannot be executed: {_described(error)}") from error
    return module


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
