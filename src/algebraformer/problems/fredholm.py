"""Fredholm and Volterra integral equations of the first kind, discretised.

    g(s) = integral of K(s, t) f(t) dt,

by the midpoint rule: A_ij = h K(s_i, t_j), t_j the midpoints of n and s_i those of m equal parts (`heat` excepted).
All but `deblur` are test problems of Hansen's Regularization Tools [1]_; the formulas are those of the papers cited
with each. Three things differ from the toolbox: one quadrature rule for all, so that every n and m is possible, where
the toolbox uses Galerkin's method for some; kernel parameters that are drawn for every system; and `deblur`.

References
----------
.. [1] P. C. Hansen, "Regularization Tools: A Matlab package for analysis and solution of discrete ill-posed problems",
   Numerical Algorithms 6 (1994); version 4.0 for Matlab 7.3, Numerical Algorithms 46 (2007).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, check_number, family_class, register
from algebraformer.problems.noisy import NoisyFamily
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform, uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class FredholmFamily(NoisyFamily):
    """g(s) = integral of K(s, t) f(t) dt, noisy; subclasses define K, the intervals of s and t, and signals f."""

    domain: ClassVar[Limits] = (0.0, 1.0)
    """Interval of t."""
    image: ClassVar[Limits] = (0.0, 1.0)
    """Interval of s."""

    @property
    def nodes(self) -> FloatArray:
        """The n points t_j that the entries of x belong to."""
        return midpoints(self.domain, self.n)

    @property
    def sites(self) -> FloatArray:
        """The m points s_i of the measurements."""
        return midpoints(self.image, self.n_equations)

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        """Return K(s, t) for s of shape (m, 1) and t of shape (n,): (B, m, n), or (m, n) if it is always the same."""
        raise NotImplementedError

    def classical(self, t: FloatArray) -> FloatArray:
        """Return the classical f at the points t; only the prior "classical" needs it."""
        raise ConfigurationError(f"{type(self).__name__} defines no classical f, which the prior 'classical' needs")

    def matrix(self, params: Parameters) -> FloatArray:
        step = (self.domain[1] - self.domain[0]) / self.n
        A = step * self.kernel(params, self.sites[:, None], self.nodes)
        return np.array(np.broadcast_to(A, (len(params["noise"]), self.n_equations, self.n)))

    def classical_signal(self) -> FloatArray:
        return self.classical(self.nodes)


def midpoints(limits: Limits, count: int) -> FloatArray:
    """Return the midpoints of `count` equal parts of an interval, ascending."""
    low, high = limits
    return low + (high - low) * (np.arange(count) + 0.5) / count


def per_system(value: FloatArray) -> FloatArray:
    """Return parameters (B,) as (B, 1, 1)."""
    return value[:, None, None]


# ---------------------------------------------------------------- kernels with parameters


@register("deblur")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Deblur(FredholmFamily):
    """Blur by a Gaussian of random width, the same everywhere or varying in space; the signal is zero outside [0, 1].

    K(s, t) = exp(-(s - t)^2 / (2 w(s)^2)) / (sqrt(2 pi) w(s)),  w(s) = width (1 + slope (2 s - 1)).

    The classical signal is the test signal of chapter 1 of Vogel [1]_.

    References
    ----------
    .. [1] C. R. Vogel, "Computational Methods for Inverse Problems", SIAM (2002).
    """

    width: Limits = (0.015, 0.05)
    """Limits of the width of the Gaussian as part of the interval, log-uniform."""
    varying: float = 0.5
    """Share of the systems whose width varies in space."""
    slope: Limits = (-0.6, 0.6)
    """Limits of the slope of the widths that vary, uniform; within (-1, 1)."""

    positive: ClassVar[tuple[str, ...]] = ("noise", "width")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "varying", 0, 1)
        if max(map(abs, self.slope)) >= 1:
            raise ConfigurationError(
                f"slope must lie within (-1, 1) so that widths stay positive, received {self.slope}"
            )

    def draw_operator(self, rng: np.random.Generator) -> dict[str, Any]:
        width, slope = log_uniform(rng, self.width), uniform(rng, self.slope)
        return {"width": width, "slope": slope if rng.random() < self.varying else 0.0}

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        w = per_system(params["width"]) * (1 + per_system(params["slope"]) * (2 * s - 1))  # (B, m, 1)
        return np.exp(-(((s - t) / w) ** 2) / 2) / (np.sqrt(2 * np.pi) * w)

    def classical(self, t: FloatArray) -> FloatArray:
        boxes = 0.75 * ((t > 0.1) & (t < 0.25)) + 0.25 * ((t > 0.3) & (t < 0.32))
        return boxes + np.where(t > 0.5, np.sin(2 * np.pi * t) ** 4, 0.0)


@register("gravity")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gravity(FredholmFamily):
    """Mass along a line below the surface from its vertical pull on the surface; the depth is random.

    K(s, t) = d (d^2 + (s - t)^2)^(-3/2), f(t) = sin(pi t) + sin(2 pi t) / 2, both variables in [0, 1] [1]_; the
    toolbox has d = 1/4.

    References
    ----------
    .. [1] G. M. Wing and J. D. Zahrt, "A Primer on Integral Equations of the First Kind", SIAM (1991).
    """

    depth: Limits = (0.05, 0.25)
    """Limits of the depth d, log-uniform."""

    positive: ClassVar[tuple[str, ...]] = ("noise", "depth")

    def draw_operator(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"depth": log_uniform(rng, self.depth)}

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        d = per_system(params["depth"])
        return d * (d**2 + (s - t) ** 2) ** -1.5

    def classical(self, t: FloatArray) -> FloatArray:
        return np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)


@register("heat")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat(FredholmFamily):
    """Temperature at one end of a rod from that at the other, later: the inverse heat equation, a Volterra equation.

    K(s, t) = k(s - t), k(t) = t^(-3/2) exp(-1 / (4 kappa^2 t)) / (2 kappa sqrt(pi)) for t > 0 and 0 before; s and t in
    [0, 1] [1]_. kappa = 5 is nearly well-posed, kappa = 1 very ill-posed. Measurements are at the ends of m equal
    parts, so that at m = n the matrix is lower triangular, with its diagonal.

    References
    ----------
    .. [1] A. S. Carasso, "Determining surface temperatures from interior observations", SIAM Journal on Applied
       Mathematics 42 (1982).
    """

    kappa: Limits = (1.0, 5.0)
    """Limits of kappa, log-uniform."""

    positive: ClassVar[tuple[str, ...]] = ("noise", "kappa")

    @property
    def sites(self) -> FloatArray:
        """The ends of m equal parts."""
        return np.arange(1, self.n_equations + 1) / self.n_equations

    def draw_operator(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"kappa": log_uniform(rng, self.kappa)}

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        kappa, passed = per_system(params["kappa"]), s > t
        time = np.where(passed, s - t, 1.0)  # (m, n)
        k = time**-1.5 * np.exp(-1 / (4 * kappa**2 * time)) / (2 * kappa * np.sqrt(np.pi))
        return np.where(passed, k, 0.0)

    def classical(self, t: FloatArray) -> FloatArray:
        """Return a parabola, a hump and a decay over the first half, and nothing after it, as in [1] of the module."""
        u = 20 * t
        rise, hump, decay = 0.75 * u**2 / 4, 0.75 + (u - 2) * (3 - u), 0.75 * np.exp(-2 * (u - 3))
        return np.select([u < 2, u < 3, u < 10], [rise, hump, decay])


# ---------------------------------------------------------------- one matrix, other signals


@register("shaw")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shaw(FredholmFamily):
    """Light through a thin slit: one matrix.

    K(s, t) = (cos s + cos t)^2 (sin u / u)^2 with u = pi (sin s + sin t), both variables in [-pi / 2, pi / 2], and
    f(t) = 2 exp(-6 (t - 0.8)^2) + exp(-2 (t + 0.5)^2) [1]_.

    References
    ----------
    .. [1] C. B. Shaw, "Improvement of the resolution of an instrument by numerical solution of an integral equation",
       Journal of Mathematical Analysis and Applications 37 (1972).
    """

    domain: ClassVar[Limits] = (-np.pi / 2, np.pi / 2)
    image: ClassVar[Limits] = (-np.pi / 2, np.pi / 2)

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        return (np.cos(s) + np.cos(t)) ** 2 * np.sinc(np.sin(s) + np.sin(t)) ** 2  # sinc(v) = sin(pi v) / (pi v)

    def classical(self, t: FloatArray) -> FloatArray:
        return 2 * np.exp(-6 * (t - 0.8) ** 2) + np.exp(-2 * (t + 0.5) ** 2)


@register("phillips")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Phillips(FredholmFamily):
    """Phillips' example, a convolution with a raised cosine: one matrix.

    K(s, t) = phi(s - t) and f = phi with phi(v) = 1 + cos(pi v / 3) for |v| < 3 and 0 elsewhere, both variables in
    [-6, 6] [1]_.

    References
    ----------
    .. [1] D. L. Phillips, "A technique for the numerical solution of certain integral equations of the first kind",
       Journal of the ACM 9 (1962).
    """

    domain: ClassVar[Limits] = (-6.0, 6.0)
    image: ClassVar[Limits] = (-6.0, 6.0)

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        return self.classical(s - t)

    def classical(self, t: FloatArray) -> FloatArray:
        return np.where(np.abs(t) < 3, 1 + np.cos(np.pi * t / 3), 0.0)


@register("deriv2")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Deriv2(FredholmFamily):
    """The second derivative: K is Green's function of u'' with u = 0 at both ends; one matrix.

    K(s, t) = s (t - 1) for s < t and t (s - 1) elsewhere, f(t) = t, both variables in [0, 1] [1]_. Its singular
    values are (k pi)^-2.

    References
    ----------
    .. [1] L. M. Delves and J. L. Mohamed, "Computational Methods for Integral Equations", Cambridge (1985), page 310.
    """

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        return np.where(s < t, s * (t - 1), t * (s - 1))

    def classical(self, t: FloatArray) -> FloatArray:
        return t


@register("baart")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Baart(FredholmFamily):
    """Baart's example, with only a few singular values above rounding: one matrix.

    K(s, t) = exp(s cos t), f(t) = sin t, s in [0, pi / 2], t in [0, pi] [1]_.

    References
    ----------
    .. [1] M. L. Baart, "The use of auto-correlation for pseudo-rank determination in noisy ill-conditioned linear
       least-squares problems", IMA Journal of Numerical Analysis 2 (1982).
    """

    domain: ClassVar[Limits] = (0.0, np.pi)
    image: ClassVar[Limits] = (0.0, np.pi / 2)

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        return np.exp(s * np.cos(t))

    def classical(self, t: FloatArray) -> FloatArray:
        return np.sin(t)


@register("foxgood")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Foxgood(FredholmFamily):
    """Fox and Goodwin's example: one matrix.

    K(s, t) = (s^2 + t^2)^(1/2), f(t) = t, both variables in [0, 1] [1]_.

    References
    ----------
    .. [1] L. Fox and E. T. Goodwin, "The numerical solution of non-singular linear integral equations", Philosophical
       Transactions of the Royal Society A 245 (1953).
    """

    def kernel(self, params: Parameters, s: FloatArray, t: FloatArray) -> FloatArray:
        return np.hypot(s, t)

    def classical(self, t: FloatArray) -> FloatArray:
        return t


# ---------------------------------------------------------------- all of them in one family

OPERATOR_PARAMETERS = ("width", "slope", "depth", "kappa")
"""Parameters of the members' operators; 0 where a member does not have them."""


@register("fredholm")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fredholm(NoisyFamily):
    """All integral equations in one family, each drawn equally often and with its default operator."""

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
        drawn = dict.fromkeys(OPERATOR_PARAMETERS, 0.0) | self.member(position).draw(rng) | {"member": position}
        return drawn | self.drawn_signal(rng) if self.has_own_signals else drawn

    def matrix(self, params: Parameters) -> FloatArray:
        A = np.empty((len(params["member"]), self.n_equations, self.n))
        for position in np.unique(params["member"]):
            chosen = params["member"] == position
            A[chosen] = self.member(position).matrix({name: value[chosen] for name, value in params.items()})
        return A

    def classical_signal(self) -> FloatArray:
        """Return the signal of the first member; each system is drawn with that of its own member."""
        return self.member(0).classical_signal()
