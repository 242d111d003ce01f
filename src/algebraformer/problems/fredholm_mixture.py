"""All integral equations in one family, for a network that is to know them all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import FloatArray, Parameters, family_class, register
from algebraformer.problems.fredholm import FredholmFamily
from algebraformer.problems.noisy import NoisyFamily

INSTRUMENTS = ("width", "slope", "depth", "kappa")
"""Parameters of the members' instruments; 0 where a member does not have them."""


@register("fredholm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fredholm(NoisyFamily):
    """One of the integral equations, each equally often and with its default instrument."""

    members: tuple[str, ...] = ("deblur", "gravity", "heat", "shaw", "phillips", "deriv2", "baart", "foxgood")
    """Names of the families to draw from; "member" in the parameters of a system is a position in this tuple."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.members, tuple) or not self.members:
            raise ConfigurationError(f"members must be names of families, received {self.members!r}")
        for name in self.members:
            if not issubclass(family_class(name), FredholmFamily):
                raise ConfigurationError(f"members must be integral equations, received {name!r}")

    def member(self, position: int) -> NoisyFamily:
        """Return the family at a position of `members`, with the settings of this one."""
        shared = ("n", "m", "noise", "priors", "noise_kind")
        family: Any = family_class(self.members[position])
        return family(**{name: getattr(self, name) for name in shared})

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        position = int(rng.integers(len(self.members)))
        return dict.fromkeys(INSTRUMENTS, 0.0) | self.member(position).draw(rng) | {"member": position}

    def matrix(self, params: Parameters) -> FloatArray:
        A = np.empty((len(params["member"]), self.rows, self.n))
        for position in np.unique(params["member"]):
            chosen = params["member"] == position
            A[chosen] = self.member(position).matrix({name: value[chosen] for name, value in params.items()})
        return A

    def classical_signal(self) -> FloatArray:
        """Return that of the first member; systems have that of their own."""
        return self.member(0).classical_signal()
