"""Newton systems of linear regressions in the l_p norm, and the regressions themselves.

The paper accelerates Newton's method for l_p norms and says neither which problems nor which p. All kinds below, their
ranges and the choice of iterates are ours. A is (m, n), x minimises ||A x - b||_p:

- gaussian: independent normal entries, columns scaled from 1 to 1e-2, normal b; m = 2 n.
- polynomial: fits of random functions at m = 128 random sites, uniform noise; unknowns are the values of a polynomial at
  the n Chebyshev points.
- spline: the same with n cubic B-splines on uniform knots; one site in each m-th part of [-1, 1].
- uniform: entries and b uniform on [0, 1], the instance of p-IRLS [1]_ at a smaller size; m = 5 n / 4.
- filter: linear-phase FIR filters, a fixed basis of n cosines at m = 4 n frequencies, and random amplitudes to approximate.

References
----------
.. [1] D. Adil, R. Peng, S. Sachdeva, "Fast, provably convergent IRLS algorithm for p-norm linear regression", NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, get_args

import numpy as np
from scipy.interpolate import BSpline

from algebraformer.errors import ConfigurationError
from algebraformer.lp_norm import P_LIMITS, Regression, iterate, largest, newton, newton_gradient, product
from algebraformer.problems.base import FloatArray, Parameters, ProblemFamily, is_whole, register, uniform
from algebraformer.problems.chebyshev import barycentric, points

Kind = Literal["gaussian", "polynomial", "spline", "uniform", "filter"]
Target = Literal["newton", "optimum", "start"]
SITES = 128
"""Sites of polynomial and spline fits; 2 n where that is more."""
DEGREE = 3
"""Degree of the splines."""
OPTIMAL = 1e-10
"""Tolerance on `gradient_norm` of optima."""


def cosine_basis(m: int, n: int) -> FloatArray:
    """Return cos(j omega) for j = 0 ... n - 1 at m frequencies omega from 0 to pi, shape (m, n)."""
    return np.cos(np.outer(np.linspace(0, np.pi, m), np.arange(n)))
