"""Kernel matrices: the symmetric positive definite systems of Gaussian process regression.

    A_ij = s^2 k(r_ij) + sigma^2 delta_ij,   r_ij^2 = sum_d (t_id - t_jd)^2 / l_d^2,

at n fixed points t_i in the unit cube of 1, 2 or 3 dimensions, with the signal variance s^2, the noise variance sigma^2
and the length scales l_d random and log-uniform. The kernels k are classical [1]_; points, ranges and right-hand sides
are our choices.

References
----------
.. [1] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press (2006), chapter 4.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_whole, register
from algebraformer.problems.sampling import FloatArray, Limits, generator, log_uniform

KernelName = Literal["rbf", "matern-1/2", "matern-3/2", "matern-5/2"]


def matern_12(r: FloatArray) -> FloatArray:
    """Return exp(-r)."""
    return np.exp(-r)


def matern_32(r: FloatArray) -> FloatArray:
    """Return (1 + sqrt(3) r) exp(-sqrt(3) r)."""
    z = np.sqrt(3) * r
    return (1 + z) * np.exp(-z)


def matern_52(r: FloatArray) -> FloatArray:
    """Return (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r)."""
    z = np.sqrt(5) * r
    return (1 + z + z**2 / 3) * np.exp(-z)


def rbf(r: FloatArray) -> FloatArray:
    """Return exp(-r^2 / 2)."""
    return np.exp(-(r**2) / 2)


KERNELS: dict[KernelName, Callable[[FloatArray], FloatArray]] = {
    "rbf": rbf,
    "matern-1/2": matern_12,
    "matern-3/2": matern_32,
    "matern-5/2": matern_52,
}


@register("kernel")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelFamily(ProblemFamily):
    """(s^2 k(r) + sigma^2 I) x = y with a kernel k on fixed points: symmetric and positive definite.

    y is drawn from the model itself, y ~ N(0, A), so x = A^-1 y are the weights of the posterior mean.
    cond(A) is at most 1 + n s^2 / sigma^2.

    Examples
    --------
    >>> family = KernelFamily(n=16, kernel="matern-5/2", dimensions=2, per_dimension=True)
    >>> systems = family.sample(3, seed=0)
    >>> systems.A.shape, systems.params["length_scale"].shape
    ((3, 16, 16), (3, 2))
    >>> bool(np.array_equal(systems.A, systems.A.transpose(0, 2, 1)))
    True
    """

    structure: ClassVar[str] = "pos"
    kernel: KernelName = "rbf"
    """rbf, exp(-r^2 / 2), or Matern's kernel of smoothness 1/2, 3/2 or 5/2: matern-1/2, matern-3/2, matern-5/2."""
    dimensions: int = 1
    """Dimensions of the points, 1 to 3."""
    points_seed: int | None = None
    """Seed of points that are uniformly distributed in the unit cube. None: a uniform grid with its boundary, for which
    n is a square in two dimensions and a cube in three."""
    per_dimension: bool = False
    """Whether every dimension has a length scale of its own."""
    length_scale: Limits = (0.1, 1.0)
    """Limits of the length scales, log-uniform."""
    signal_variance: Limits = (0.5, 2.0)
    """Limits of s^2, log-uniform."""
    noise_variance: Limits = (1e-3, 1e-1)
    """Limits of sigma^2, log-uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "dimensions")
        check_limits(self, ("length_scale", "signal_variance", "noise_variance"))
        if self.kernel not in get_args(KernelName):
            raise ConfigurationError(f"kernel must be one of {', '.join(KERNELS)}, received {self.kernel!r}")
        if self.dimensions > 3:
            raise ConfigurationError(f"dimensions must be 1, 2 or 3, received {self.dimensions}")
        if not isinstance(self.per_dimension, bool):
            raise ConfigurationError(f"per_dimension must be True or False, received {self.per_dimension!r}")
        if self.points_seed is not None:
            generator(self.points_seed, 0)  # refuses what is no seed
        elif side(self.n, self.dimensions) ** self.dimensions != self.n:
            power = {2: "square", 3: "cube"}[self.dimensions]
            raise ConfigurationError(
                f"n must be a {power} for a grid in {self.dimensions} dimensions, received {self.n}; it is free with "
                "points_seed"
            )

    @property
    def points(self) -> FloatArray:
        """The points (n, dimensions), read-only; those of a grid with the last coordinate varying fastest."""
        return fixed_points(self.n, self.dimensions, self.points_seed)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "signal_variance": log_uniform(rng, self.signal_variance),
            "noise_variance": log_uniform(rng, self.noise_variance),
            "length_scale": [
                log_uniform(rng, self.length_scale) for _ in range(self.dimensions if self.per_dimension else 1)
            ],
            "z": rng.standard_normal(self.n),
        }

    def matrices(self, params: Parameters) -> FloatArray:
        """Return A (B, n, n) from stacked parameters."""
        scales = np.broadcast_to(params["length_scale"], (len(params["z"]), self.dimensions))
        square = np.zeros((len(scales), self.n, self.n))
        for t, scale in zip(self.points.T, scales.T, strict=True):
            square += ((t[:, None] - t) / scale[:, None, None]) ** 2
        A = params["signal_variance"][:, None, None] * KERNELS[self.kernel](np.sqrt(square))
        diagonal = np.arange(self.n)
        A[:, diagonal, diagonal] += params["noise_variance"][:, None]
        return A

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A = self.matrices(params)
        try:
            L = np.asarray(np.linalg.cholesky(A), dtype=np.float64)
        except np.linalg.LinAlgError:
            raise ConfigurationError(
                "kernel matrices must be positive definite in float64, received one that is not: noise_variance "
                f"{self.noise_variance} is too small for n = {self.n}"
            ) from None
        return A, (L @ params["z"][:, :, None])[:, :, 0]


def side(n: int, dimensions: int) -> int:
    """Return the whole number nearest to n^(1 / dimensions)."""
    return round(n ** (1 / dimensions))


@functools.cache
def fixed_points(n: int, dimensions: int, seed: int | None) -> FloatArray:
    """Return n points in the unit cube (n, dimensions): a uniform grid if seed is None, else random ones.

    Examples
    --------
    >>> fixed_points(4, 2, None).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if seed is None:
        places = np.linspace(0, 1, side(n, dimensions))
        t = np.array(list(itertools.product(places, repeat=dimensions)))
    else:
        t = generator(seed, 0, stream=1).random((n, dimensions))  # not the numbers of a system
    t.flags.writeable = False
    return t
