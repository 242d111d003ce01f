"""The diffusion family with noise on A, on b, or on both, and the x of the clean system."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems import register
from algebraformer.problems.base import Parameters, check_limits
from algebraformer.problems.boundary_value import Diffusion
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform

FAMILY = "diffusion-with-noise"
PLACES = ("A", "b", "both")
"""Where the noise is."""


@register(FAMILY)
@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyDiffusion(Diffusion):
    """A + s E and b + t e with independent normal E and e, and the x of A x = b.

    s is `level` times the root mean square of all entries of A, and t times that of b; one of them is zero where the
    noise is on the other alone. A system has the same A, b and x as in the family `diffusion`, and the same E and e at
    every level and place. `Systems.params` has "A_level" and "b_level" (B,), "E" (B, n, n) and "e" (B, n) besides those
    of the family.
    """

    level: Limits = (1e-6, 1e-1)
    """Limits of the level of the noise, log-uniform."""
    places: tuple[str, ...] = PLACES
    """Where it is: some of A, b and both, each equally often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self, ("level",))
        if not self.places or not set(self.places) <= set(PLACES):
            raise ConfigurationError(f"places must be some of {', '.join(PLACES)}, received {self.places!r}")

    @property
    def is_linear_system(self) -> bool:
        return False

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        clean = super().draw(rng)
        place = self.places[int(len(self.places) * rng.random())]
        level = log_uniform(rng, self.level)
        levels = {"A_level": level * (place != "b"), "b_level": level * (place != "A")}
        return clean | levels | {"E": rng.standard_normal((self.n, self.n)), "e": rng.standard_normal(self.n)}

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A, b = super().assemble(params)
        s, t = deviations(A, b, params)
        return A + s[:, None, None] * params["E"], b + t[:, None] * params["e"]

    def solution(self, A: FloatArray, b: FloatArray, params: Parameters) -> FloatArray:
        return super().solution(*super().assemble(params), params)


def deviations(A: FloatArray, b: FloatArray, params: Parameters) -> tuple[FloatArray, FloatArray]:
    """Return the standard deviations (B,) of the noise on entries of A (B, n, n) and of b (B, n)."""
    A_size, b_size = np.sqrt(np.mean(A**2, axis=(1, 2))), np.sqrt(np.mean(b**2, axis=1))
    return params["A_level"] * A_size, params["b_level"] * b_size
