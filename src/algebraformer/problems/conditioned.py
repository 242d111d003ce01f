"""Families whose condition number is a setting: prescribed singular values, and regularised normal equations.

The condition number kappa = sigma_1 / sigma_n of every system is log-uniform between two limits. The right-hand sides
are our choice: b = A x with x standard normal, so that all singular directions have equal weight in x, and those of
small singular values contribute little to b.

References
----------
.. [1] J. Demmel and A. McKenney, "A test matrix generation suite", LAPACK Working Note 9 (1989): the subroutine DLATMS
   and the modes of its singular values.
.. [2] G. W. Stewart, "The efficient generation of random orthogonal matrices with an application to condition
   estimators", SIAM Journal on Numerical Analysis 17 (1980).
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import numpy as np

from algebraformer.errors import ConfigurationError
from algebraformer.problems.base import Parameters, ProblemFamily, check_limits, check_whole, register
from algebraformer.problems.sampling import FloatArray, Limits, log_uniform
from algebraformer.validation import is_whole

MODE_NAMES = {1: "one large", 2: "one small", 3: "geometric", 4: "arithmetic"}
"""Kinds of singular values, in LAPACK's numbering."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionedFamily(ProblemFamily):
    """b = A x with x standard normal and a random condition number; subclasses define A."""

    kappa: Limits = (1e3, 1e4)
    """Limits of the condition number, which is log-uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_limits(self)
        if self.kappa[0] < 1:
            raise ConfigurationError(f"kappa must be at least 1, received {self.kappa!r}")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"kappa": log_uniform(rng, self.kappa), "x": rng.standard_normal(self.n)}

    @abc.abstractmethod
    def matrices(self, params: Parameters) -> FloatArray:
        """Return A (B, n, n) from stacked parameters."""

    def assemble(self, params: Parameters) -> tuple[FloatArray, FloatArray]:
        A = self.matrices(params)
        return A, (A @ params["x"][:, :, None])[:, :, 0]


@register("randsvd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandSVD(ConditionedFamily):
    """A = U diag(sigma) V^T with prescribed singular values and random orthogonal U and V."""

    mode: int = 3
    """Singular values between 1 and 1 / kappa as in LAPACK's DLATMS: 1, one large; 2, one small; 3, geometric; 4,
    arithmetic."""
    spread: float | None = None
    """U and V are a fixed frame, randomly rotated by at most this angle, in radians. None: they are Haar-distributed,
    that is uniform over the orthogonal matrices."""
    spd: bool = False
    """V = U, so that A is symmetric and positive definite."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_whole(self.mode) or self.mode not in MODE_NAMES:
            raise ConfigurationError(f"mode must be 1, 2, 3 or 4, received {self.mode!r}")
        if self.spread is not None and not (
            isinstance(self.spread, (int, float)) and not isinstance(self.spread, bool) and 0 <= self.spread <= np.pi
        ):
            raise ConfigurationError(f"spread must be an angle from 0 to pi, or None, received {self.spread!r}")
        if not isinstance(self.spd, bool):
            raise ConfigurationError(f"spd must be True or False, received {self.spd!r}")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        names = ("left",) if self.spd else ("left", "right")
        return super().draw(rng) | {name: rng.standard_normal((self.n, self.n)) for name in names}

    def matrices(self, params: Parameters) -> FloatArray:
        U = self.factor(params["left"], cosines(self.n))
        scaled = U * singular_values(params["kappa"], self.mode, self.n)[:, None, :]
        if self.spd:
            A = scaled @ U.transpose(0, 2, 1)
            return (A + A.transpose(0, 2, 1)) / 2  # symmetric to the last bit
        return scaled @ self.factor(params["right"], sines(self.n)).transpose(0, 2, 1)

    def factor(self, G: FloatArray, frame: FloatArray) -> FloatArray:
        """Return orthogonal matrices (B, n, n) from standard normal ones G (B, n, n)."""
        return haar(G) if self.spread is None else rotations(G, self.spread) @ frame


@register("normal-equations")
@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalEquations(ConditionedFamily):
    """(V^T V / m + lambda I) x = b: ridge regression by polynomials of degree n - 1 at m random sites.

    V holds the powers t_i^j, j = 0 ... n - 1, at sites t_i ~ U(-1, 1). lambda is chosen to give the
    drawn condition number; if that of V^T V is smaller already, lambda is 0.
    """

    sites: int = 64
    """Number m of sites."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kappa[0] <= 1:
            raise ConfigurationError(f"kappa must be above 1 for normal equations, received {self.kappa}")
        check_whole(self, "sites")

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return super().draw(rng) | {"t": rng.uniform(-1, 1, self.sites)}

    def matrices(self, params: Parameters) -> FloatArray:
        V = params["t"][:, :, None] ** np.arange(self.n)  # (B, m, n)
        A = V.transpose(0, 2, 1) @ V / self.sites
        values, kappa = np.linalg.eigvalsh(A), params["kappa"]
        shift = np.maximum((values[:, -1] - kappa * values[:, 0]) / (kappa - 1), 0.0)
        return A + shift[:, None, None] * np.eye(self.n)


def singular_values(kappa: FloatArray, mode: int, n: int) -> FloatArray:
    """Return n singular values from 1 to 1 / kappa for every kappa, descending, as LAPACK's DLATMS; 1 for n = 1.

    Parameters
    ----------
    kappa : ndarray, shape (B,)
        At least 1.
    mode : int
        1: 1 once, then 1 / kappa. 2: 1 / kappa once, at the end. 3: geometric. 4: arithmetic.
    n : int

    Returns
    -------
    ndarray, shape (B, n)

    Examples
    --------
    >>> import numpy as np
    >>> [singular_values(np.array([100.0]), mode, 3)[0].round(3).tolist() for mode in (1, 2, 3, 4)]
    [[1.0, 0.01, 0.01], [1.0, 1.0, 0.01], [1.0, 0.1, 0.01], [1.0, 0.505, 0.01]]
    """
    i, small = np.arange(n), 1 / kappa[:, None]
    share = i / max(1, n - 1)
    match mode:
        case 1:
            return np.where(i == 0, 1.0, small)
        case 2:
            return np.where(i == max(1, n - 1), small, 1.0)
        case 3:
            return small**share
        case _:
            return small + (1 - share) * (1 - small)


def haar(G: FloatArray) -> FloatArray:
    """Return Haar-distributed orthogonal matrices from standard normal ones, shape (..., n, n).

    The Q of a QR factorisation whose R has a positive diagonal [2]_.
    """
    Q, R = np.linalg.qr(G)
    return np.asarray(Q * np.copysign(1.0, np.diagonal(R, axis1=-2, axis2=-1))[..., None, :], dtype=np.float64)


def rotations(G: FloatArray, angle: float) -> FloatArray:
    """Return exp(S) (B, n, n), S the skew part of G (B, n, n), scaled so that `angle` is the largest rotation.

    By the eigenvalues of the Hermitian matrix i S: those of exp(S) are exp(-i w), so the w are the angles.
    """
    w, Q = np.linalg.eigh(1j * (G - G.transpose(0, 2, 1)))
    largest = w[:, -1:]
    w = w * (angle / np.where(largest > 0, largest, 1.0))
    return np.asarray(((Q * np.exp(-1j * w)[:, None, :]) @ Q.conj().transpose(0, 2, 1)).real, dtype=np.float64)


def cosines(n: int) -> FloatArray:
    """Return the orthogonal matrix (n, n) whose columns are the cosines of the DCT-II, low frequencies first."""
    i, k = np.arange(n)[:, None], np.arange(n)
    return np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(np.where(k == 0, 1, 2) / n)


def sines(n: int) -> FloatArray:
    """Return the orthogonal matrix (n, n) whose columns are the sines of the DST-I, low frequencies first."""
    k = np.arange(1, n + 1)
    return np.sin(np.pi * np.outer(k, k) / (n + 1)) * np.sqrt(2 / (n + 1))
