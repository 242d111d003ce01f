"""Members by name: bodies and encodings, of the package and of one's own. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from algebraformer.errors import ConfigurationError

Member = TypeVar("Member")
PACKAGE = __name__.partition(".")[0]


def ships(module: str) -> bool:
    """Say whether a module is one of this package."""
    return module.partition(".")[0] == PACKAGE


class Registry(Generic[Member]):
    """Members by name, with the module that registered each.

    Parameters
    ----------
    noun : str
        What a member is, for messages.
    setting : str
        The setting whose value is a member's name.

    Examples
    --------
    >>> numbers = Registry[int]("number", "favourite")
    >>> numbers.add("seven", 7, int)
    >>> numbers["seven"], "eight" in numbers, list(numbers)
    (7, False, ['seven'])
    """

    def __init__(self, noun: str, setting: str) -> None:
        self.noun, self.setting = noun, setting
        self._members: dict[str, tuple[Member, type]] = {}

    def add(self, name: str, member: Member, owner: type) -> None:
        """Add a member under a name that is free, or was given by a class of the same name, as in a notebook.

        Raises
        ------
        ConfigurationError
            Another class has the name.
        """
        if not (isinstance(name, str) and name):
            raise ConfigurationError(f"the name of a {self.noun} must be a text, received {name!r:.80}")
        _, before = self._members.get(name, (member, owner))
        taken = ships(before.__module__) and before.__module__ != owner.__module__
        if taken or before.__qualname__ != owner.__qualname__:
            raise ConfigurationError(f"a {self.noun} named {name!r} is registered already")
        self._members[name] = member, owner

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __getitem__(self, name: Any) -> Member:
        """Return a member; `ConfigurationError` if there is none of that name."""
        if name not in self:
            raise ConfigurationError(
                f"{self.setting} must be one of {', '.join(self)}, received {name!r:.80}: import the module that "
                "registers it first"
            )
        return self._members[name][0]

    def module(self, name: str) -> str:
        """Return the name of the module that registered a member."""
        return self._members[name][1].__module__
