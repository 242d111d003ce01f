"""Newton systems of regressions in the l_p norm that share one design: one family of matrices Q' D(w) Q.

A (m, n) is fixed by the settings, and b is drawn as for `LpRegression`; Q R is A. The weights w are those of the
iterates on the way from least squares to the optimum by homotopy in p, which are the matrices that
`designs.minimize` meets.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, get_args

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.numerics.lp_design import Design, Hessians, descend, factorised, homotopy_exponents
from algebraformer.numerics.lp_norm import P_LIMITS, dual_vector
from algebraformer.problems.base import Parameters, ProblemFamily, check_number, check_whole, register
from algebraformer.problems.lp_regression import ON_THE_WAY, LpRegression, amplitudes, noisy_values
from algebraformer.problems.sampling import FloatArray

DesignKind = Literal["filter", "spline", "polynomial"]


@register("lp-hessian")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LpHessian(ProblemFamily):
    """H d = g with H = Q' D(w) Q, Newton systems of min ||A x - b||_p for one A, in coordinates R x."""

    kind: DesignKind = "filter"
    """filter, spline (sites evenly spaced) or polynomial (sites as Chebyshev points), with m rows as in
    lp-regression."""
    p: float = 8.0
    """Exponent."""
    iterates: int = 8
    """Systems are taken from iterates 0 (least squares) to iterates - 1, or the last before the optimum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in get_args(DesignKind):
            raise ConfigurationError(f"kind must be one of {', '.join(get_args(DesignKind))}, received {self.kind!r}")
        check_number(self, "p", *P_LIMITS)
        check_whole(self, "iterates")
        LpRegression(kind=self.kind, n=self.n)  # has the limits of n

    @property
    def m(self) -> int:
        """Number of rows of A."""
        return LpRegression(kind=self.kind, n=self.n).m

    def sites(self) -> FloatArray:
        """Return where rows belong to: frequencies of [0, 1], or sites of [-1, 1], (m,)."""
        match self.kind:
            case "filter":
                return np.linspace(0, 1, self.m)
            case "spline":
                return (2 * np.arange(self.m) + 1) / self.m - 1
            case _:
                return -np.cos(np.pi * (np.arange(self.m) + 0.5) / self.m)

    def design(self) -> Design:
        """Return A, factorised."""
        return _design(self)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        one = amplitudes if self.kind == "filter" else noisy_values
        return {"iterate": int(rng.integers(self.iterates)), "b": one(rng, self.sites())}

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        # One by one: products of matrices round differently for another size of the batch.
        pairs = [self._system(b, int(k)) for b, k in zip(params["b"], params["iterate"], strict=True)]
        return np.concatenate([H for H, _ in pairs]), np.concatenate([g for _, g in pairs])

    def _system(self, b: FloatArray, iterate: int) -> tuple[FloatArray, FloatArray]:
        """Return H (1, n, n) and g (1, n) at an iterate for b (m,)."""
        design = self.design()
        r = design.regression(b[None], self.p).r
        found = descend(design, r, self.p, factorised, ON_THE_WAY, iterate)
        r = r + found.y @ design.Q.T
        exponent = homotopy_exponents(self.p, found.iterations)
        return Hessians.at(design.Q, r, exponent).dense(), -dual_vector(r, exponent) @ design.Q


@functools.lru_cache(maxsize=8)
def _design(family: LpHessian) -> Design:
    """Return the design of a family, which draws need again and again."""
    like = LpRegression(kind=family.kind, n=family.n)
    t = family.sites()[None]
    return Design.of(like.matrices({"t": t, "b": t})[0])
