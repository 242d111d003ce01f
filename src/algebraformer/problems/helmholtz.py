"""Waves on an interval: the Helmholtz equation with impedance boundary conditions, complex.

    -u'' - kappa(x)^2 u = f on (-1, 1),   kappa(x)^2 = k^2 eta(x) (1 + i delta),
    u' - i kappa u = -2 i kappa a_right at x = 1,   -u' - i kappa u = -2 i kappa a_left at x = -1,

with the wave number k, a random medium eta, the loss factor delta, and waves of amplitudes a_right and a_left that come
in at the ends; where the medium does not reflect, waves leave without reflection. It is collocated at n Chebyshev
points, the ends among them: the first and the last row of A are the boundary conditions. The equation and its boundary
conditions are classical [1]_; medium, right-hand sides and all ranges are our choices.

References
----------
.. [1] F. Ihlenburg, "Finite Element Analysis of Acoustic Scattering", Springer (1998), chapter 2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_number, check_whole, register
from algebraformer.problems.chebyshev import differentiation_matrix, points
from algebraformer.problems.sampling import FloatArray, Limits, cosine_series, draw_modes, uniform

ComplexArray = NDArray[np.complex128]


@register("helmholtz")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Helmholtz(ProblemFamily):
    """-u'' - kappa^2 u = f with impedance boundary conditions; seven parameters determine A by default.

    log eta(x) = sum_m c_m cos(m pi x / 2 + phi_m) with c_m ~ N(0, (sigma / m)^2) and phi_m ~ U(0, 2 pi). Real and
    imaginary part of f are such series too, with sigma = 1, and a_right and a_left are complex normal.

    Examples
    --------
    >>> systems = Helmholtz(n=32).sample(3, seed=0)
    >>> systems.A.dtype, systems.x.shape
    (dtype('complex128'), (3, 32))
    """

    is_complex: ClassVar[bool] = True
    wave_number: Limits = (5.0, 15.0)
    """Limits of k ~ U: the interval holds k / pi waves. Chebyshev points resolve a wave from pi points on."""
    damping: Limits = (0.0, 0.1)
    """Limits of delta ~ U."""
    medium_modes: int = 2
    """Number of modes of log eta."""
    sigma: float = 0.1
    """Scale of the coefficients of log eta."""
    f_modes: int = 8
    """Number of modes of f."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "medium_modes", "f_modes")
        check_number(self, "sigma")
        check_limits(self, ("wave_number",))
        if self.damping[0] < 0:
            raise ConfigurationError(f"damping must not be negative, received {self.damping}")
        if self.n < 3:
            raise ConfigurationError(f"n must be at least 3, two ends and a point between them, received {self.n}")

    @property
    def grid(self) -> FloatArray:
        """The n collocation points, descending from 1 to -1."""
        return points(self.n)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        k, delta = uniform(rng, self.wave_number), uniform(rng, self.damping)
        medium = draw_modes(rng, self.medium_modes, self.sigma)
        f = [draw_modes(rng, self.f_modes) for _ in range(2)]
        return {
            "wave_number": k,
            "damping": delta,
            "medium_c": medium["c"],
            "medium_phi": medium["phi"],
            "c": [part["c"] for part in f],
            "phi": [part["phi"] for part in f],
            "incoming": rng.standard_normal(2) + 1j * rng.standard_normal(2),
        }

    def kappa_squared(self, params: Parameters, x: FloatArray) -> ComplexArray:
        """Return kappa^2 at x, shape (B, len(x))."""
        eta = np.exp(cosine_series(params["medium_c"], params["medium_phi"], x))
        return (params["wave_number"] ** 2 * (1 + 1j * params["damping"]))[:, None] * eta

    def source(self, params: Parameters, x: FloatArray) -> ComplexArray:
        """Return f at x, shape (B, len(x))."""
        real, imag = (cosine_series(params["c"][:, part], params["phi"][:, part], x) for part in (0, 1))
        return real + 1j * imag

    def assemble(self, params: Parameters) -> tuple[ComplexArray, ComplexArray]:
        D, x, ends = differentiation_matrix(self.n), self.grid, [0, -1]
        square, i = self.kappa_squared(params, x), np.arange(self.n)

        A = np.tile((-D @ D).astype(complex), (len(square), 1, 1))
        A[:, i, i] -= square
        b = self.source(params, x)

        # The boundary conditions, with outward derivatives.
        impedance = 1j * np.sqrt(square[:, ends])
        A[:, ends] = D[ends] * np.array([[1.0], [-1.0]])
        A[:, ends, ends] -= impedance
        b[:, ends] = -2 * impedance * params["incoming"]
        return A, b
