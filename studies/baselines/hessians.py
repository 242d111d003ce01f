"""Classical ways to save factorisations in Newton's method for regressions that share a design.

Both solve the Newton systems by conjugate residuals with the inverse of another Hessian: of an earlier iterate of the
same problem, or of the nearest iterate of other problems. See `lp_design`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.lp_design import Design, Directions, Hessians, conjugate_residuals, descend, factorised
from algebraformer.numerics.lp_norm import Indices

MAX_PRODUCTS = 30
"""Largest number of products for one step, as with learned inverses."""


def inverses(H: Hessians) -> FloatArray:
    """Return H^-1 (B, n, n), from QR of D(w)^(1/2) Q."""
    R = np.asarray(np.linalg.qr(np.sqrt(H.w)[..., None] * H.Q, mode="r"))
    X = np.linalg.inv(R)
    return np.asarray(X @ X.mT)


class KeptFactors:
    """The inverse of the last Hessian that was factorised, for as long as a step takes few products; a `Direction`.

    Parameters
    ----------
    kept : int
        After a step with more products the next Hessian is factorised.
    """

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._known: dict[int, FloatArray] = {}

    def __call__(self, H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
        new = np.array([i not in self._known for i in problems.tolist()])
        if new.any():
            self._known |= dict(zip(problems[new].tolist(), inverses(H.take(new)), strict=True))
        M = np.stack([self._known[i] for i in problems.tolist()])
        found = conjugate_residuals(H, g, lambda z, at: np.matvec(M[at], z), forcing, MAX_PRODUCTS)
        for i in problems[found.products > self.kept].tolist():
            del self._known[i]
        return dataclasses.replace(found, factorisations=new.astype(np.int64))


class NearestFactors:
    """The inverse of the nearest Hessian of a bank, none of this problem's; a `Direction`.

    Nearest in the Euclidean distance of w^(1/2), the factor of the rows of Q.
    """

    def __init__(self, bank: Hessians) -> None:
        self.roots, self.inverses = np.sqrt(bank.w), inverses(bank)

    @classmethod
    def of(cls, design: Design, r_0: FloatArray, p: float) -> NearestFactors:
        """Return the bank of all Hessians on the ways of solved problems with residuals r_0 (K, m) of least squares."""
        seen: list[FloatArray] = []

        def direction(H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
            seen.append(H.w)
            return factorised(H, g, forcing, problems)

        descend(design, r_0, p, direction, 1e-6, 100)
        return cls(Hessians(design.Q, np.concatenate(seen)))

    def __call__(self, H: Hessians, g: FloatArray, forcing: FloatArray, problems: Indices) -> Directions:
        roots = np.sqrt(H.w)
        distance = np.sum(self.roots**2, axis=1) - 2 * roots @ self.roots.T  # (C, K), up to |root|^2
        M = self.inverses[np.argmin(distance, axis=1)]
        return conjugate_residuals(H, g, lambda z, at: np.matvec(M[at], z), forcing, MAX_PRODUCTS)
