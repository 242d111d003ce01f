"""Families of linear systems: `names()` lists them, `get(name, n=64)` makes one, `.sample(1000)` draws from it."""

from algebraformer.problems.base import ProblemFamily, Systems, family_class, from_settings, get, names, register
from algebraformer.problems.boundary_value import BoundaryValueFamily
from algebraformer.problems.conditioned import ConditionedFamily
from algebraformer.problems.diffusion_2d import Diffusion2D
from algebraformer.problems.fredholm import Fredholm, FredholmFamily
from algebraformer.problems.helmholtz import Helmholtz
from algebraformer.problems.instruments import Deer, Drt, Instrument
from algebraformer.problems.kernels import KernelFamily
from algebraformer.problems.lp_hessian import LpHessian
from algebraformer.problems.lp_regression import LpRegression
from algebraformer.problems.noisy import OWN, PRIORS, NoisyFamily
from algebraformer.problems.nonlinear import NonlinearFamily
from algebraformer.problems.sampling import generator
from algebraformer.problems.stiff_jacobian import StiffJacobian
from algebraformer.problems.stored_matrices import stored
from algebraformer.problems.tomography import Tomography

__all__ = [
    "OWN",
    "PRIORS",
    "BoundaryValueFamily",
    "ConditionedFamily",
    "Deer",
    "Diffusion2D",
    "Drt",
    "Fredholm",
    "FredholmFamily",
    "Helmholtz",
    "Instrument",
    "KernelFamily",
    "LpHessian",
    "LpRegression",
    "NoisyFamily",
    "NonlinearFamily",
    "ProblemFamily",
    "StiffJacobian",
    "Systems",
    "Tomography",
    "family_class",
    "from_settings",
    "generator",
    "get",
    "names",
    "register",
    "stored",
]
