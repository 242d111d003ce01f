"""Tomography: images from their line integrals, in parallel beams under a few angles.

References
----------
.. [1] R. L. Siddon, "Fast calculation of the exact radiological path for a three-dimensional CT array", Medical Physics
   12 (1985).
.. [2] P. C. Hansen and M. Saxild-Hansen, "AIR Tools: a MATLAB package of algebraic iterative reconstruction methods",
   Journal of Computational and Applied Mathematics 236 (2012).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, check_whole, register
from algebraformer.problems.noisy import NoisyFamily
from algebraformer.problems.sampling import FloatArray

MAX_SIDE = 32
"""Largest side of an image: an estimate head has a token for every pixel."""
SHAPES = (1, 6)
"""Least and largest number of ellipses and rectangles in an image."""
SIZES = (0.05, 0.35)
"""Limits of their half-axes, over the side of the image."""


@register("tomography")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tomography(NoisyFamily):
    """Line integrals of images of ellipses and rectangles: entry i of b belongs to one ray, entry j of x to one pixel.

    The image is the unit square of side x side pixels, row by row from the top; n = side^2 [2]_. Each of `angles`
    directions, equally spaced over half a turn, has `rays` parallel rays that cover the image's diagonal.
    """

    n: int = 256
    """Number of pixels, a square number up to 1024."""
    angles: int = 16
    """Number of directions."""
    rays: int | None = None
    """Number of parallel rays in each direction; as many as the side if None."""
    m: int | None = None
    """Follows from angles and rays; leave it at None."""

    nonnegative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "angles")
        if self.rays is not None:
            check_whole(self, "rays")
        if self.side**2 != self.n or self.side > MAX_SIDE:
            raise ConfigurationError(f"n must be the square of a side up to {MAX_SIDE}, received {self.n}")
        if self.m is not None:
            raise ConfigurationError("m follows from angles and rays: leave it at None")

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return math.isqrt(self.n)

    @property
    def n_equations(self) -> int:
        """Number of rays."""
        return self.angles * (self.side if self.rays is None else self.rays)

    def matrix(self, params: Parameters) -> FloatArray:
        A = projections(self.side, self.angles, self.n_equations // self.angles)
        return np.repeat(A[None], len(params["noise"]), axis=0)

    def draw_signal(self, rng: np.random.Generator, u: FloatArray) -> FloatArray:
        """Draw ellipses and rectangles of intensities U(0.2, 1), added up, over an empty ground; edges are smooth."""
        centre = (np.arange(self.side) + 0.5) / self.side
        X, Y = np.meshgrid(centre, centre)
        image = np.zeros((self.side, self.side))
        for _ in range(rng.integers(SHAPES[0], SHAPES[1] + 1)):
            (x, y), turn = rng.uniform(0.2, 0.8, 2), rng.uniform(0, np.pi)
            along = np.cos(turn) * (X - x) + np.sin(turn) * (Y - y)
            across = np.cos(turn) * (Y - y) - np.sin(turn) * (X - x)
            a, b = rng.uniform(*SIZES, 2)
            round_ = rng.random() < 0.5
            distance = np.hypot(along / a, across / b) if round_ else np.maximum(abs(along / a), abs(across / b))
            # The share of a pixel that is inside, for an edge that is straight across it.
            inside = np.clip(0.5 + (1 - distance) * min(a, b) * self.side, 0, 1)
            image += rng.uniform(0.2, 1.0) * inside
        if not image.any():
            image[self.side // 2, self.side // 2] = 1.0
        return image.reshape(-1)

    def classical_signal(self) -> FloatArray:
        """Return a disc with a hole in it."""
        centre = (np.arange(self.side) + 0.5) / self.side - 0.5
        radius = np.hypot(*np.meshgrid(centre, centre))
        return ((radius < 0.4) & (radius > 0.15)).astype(float).reshape(-1)


@functools.lru_cache(maxsize=8)
def projections(side: int, angles: int, rays: int) -> FloatArray:
    """Return the lengths of rays within pixels, shape (angles * rays, side^2), read-only [1]_.

    Parameters
    ----------
    side : int
        Pixels along a side of the unit square.
    angles : int
        Directions at angles k pi / angles from the horizontal.
    rays : int
        Parallel rays in each, at distances (i + 1/2) sqrt(2) / rays - sqrt(2) / 2 from the centre.
    """
    A = np.zeros((angles * rays, side * side))
    lines = np.arange(side + 1) / side
    for i, angle in enumerate(np.pi * np.arange(angles) / angles):
        direction = np.array([np.cos(angle), np.sin(angle)])
        normal = np.array([-direction[1], direction[0]])
        for j in range(rays):
            start = 0.5 + ((j + 0.5) / rays - 0.5) * math.sqrt(2) * normal
            # Where the ray crosses the lines between pixels; between two crossings it is in one pixel.
            crossings = [(lines - start[k]) / direction[k] for k in (0, 1) if abs(direction[k]) > 1e-12]
            t = np.unique(np.concatenate(crossings))
            middle = start + 0.5 * (t[:-1] + t[1:])[:, None] * direction
            column, row = np.floor(middle * side).astype(int).T
            inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
            pixel = (side - 1 - row[inside]) * side + column[inside]
            np.add.at(A[i * rays + j], pixel, np.diff(t)[inside])
    A.flags.writeable = False
    return A
