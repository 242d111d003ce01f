"""Total variation in one dimension, with its parameter from the discrepancy principle, for a batch of systems.

    x(mu) = argmin ||A x - b||_2^2 / 2 + mu sum_i |x_{i+1} - x_i|   [1]_

is a lasso in the jumps d_i = x_{i+1} - x_i once the level of x is eliminated, and is solved by the alternating
direction method of multipliers [2]_ with over-relaxation and a step size per system that balances both residuals. One
eigendecomposition of the Gram matrix of the jumps serves every mu and every step size; where all matrices of a batch
are equal, one is decomposed. mu is found by bisection: ||A x(mu) - b|| grows with mu, and the x that is returned has
the largest mu for which it is at most the norm of the noise [3]_.

References
----------
.. [1] L. I. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60
   (1992).
.. [2] S. Boyd, N. Parikh, E. Chu, B. Peleato and J. Eckstein, "Distributed optimization and statistical learning via
   the alternating direction method of multipliers", Foundations and Trends in Machine Learning 3 (2011).
.. [3] V. A. Morozov, "On the solution of functional equations by the method of regularization", Soviet Mathematics
   Doklady 7 (1966).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray

MIN_MU = 1e-7
"""Least mu, relative to the one at which x is constant."""
BISECTIONS = 14
"""Seven decades halved so often leave 0.1 % of mu open."""
MAX_ITERATIONS, LAST_ITERATIONS = 300, 2000
"""Iterations per step of the bisection, and for the mu that it ends with."""
TOLERANCE = 1e-4
"""Both residuals, relative to what they are residuals of, at which the iteration ends."""
RELAXATION = 1.7
"""Between 1.5 and 1.8 [2]_."""
CHECK_EVERY = 10
"""Iterations between two looks at the residuals."""
IMBALANCE, STEP_FACTOR = 5.0, 2.0
"""Ratio of the residuals at which the step size changes, and by what factor."""


@dataclasses.dataclass(frozen=True)
class _Jumps:
    """The least-squares problem in the jumps, G matrices for B right-hand sides; G is B, or 1 where one serves all.

    Attributes
    ----------
    values : ndarray, shape (G, n - 1)
        Eigenvalues of the Gram matrix.
    vectors : ndarray, shape (G, n - 1, n - 1)
    steps : ndarray, shape (G, m, n - 1)
        What a jump before each later entry gives, orthogonal to what a constant gives.
    right : ndarray, shape (B, m)
        b, orthogonal to what a constant gives.
    back : ndarray, shape (B, n - 1)
        steps' right.
    """

    values: FloatArray
    vectors: FloatArray
    steps: FloatArray
    right: FloatArray
    back: FloatArray

    def residual_norms(self, d: FloatArray) -> FloatArray:
        """Return ||steps d - right||_2 (B,)."""
        return np.linalg.norm((self.steps @ d[:, :, None])[..., 0] - self.right, axis=1)


@dataclasses.dataclass
class _State:
    """Where the iteration is: jumps z and scaled multipliers u (B, n - 1), and step sizes rho (B, 1)."""

    z: FloatArray
    u: FloatArray
    rho: FloatArray


def by_discrepancy(A: FloatArray, b: FloatArray, noise_norm: FloatArray) -> FloatArray:
    """Return the x(mu) with the largest mu for which ||A x - b||_2 is at most the norm of the noise.

    Parameters
    ----------
    A : ndarray, shape (B, m, n), n >= 2
    b : ndarray, shape (B, m)
    noise_norm : ndarray, shape (B,)

    Returns
    -------
    ndarray, shape (B, n)
        With the least mu, 1e-7 of that of a constant x, where no x fits so well.

    Examples
    --------
    >>> import numpy as np
    >>> b = np.array([[0.1, -0.1, 3.1, 2.9]])
    >>> by_discrepancy(np.eye(4)[None], b, np.array([1.0])).round(2)
    array([[0.49, 0.49, 2.51, 2.51]])
    """
    # 1. The level of x is fitted exactly, the rest is a problem in the jumps.
    if (A[:1] == A).all():
        A = A[:1]
    level = A.sum(axis=2)  # (G, m): what a constant signal gives
    size = np.linalg.norm(level, axis=1, keepdims=True)
    unit = level / np.where(size > 0, size, 1.0)
    steps = np.cumsum(A[:, :, ::-1], axis=2)[:, :, ::-1][:, :, 1:]  # (G, m, n - 1)
    steps = steps - unit[:, :, None] * (unit[:, None, :] @ steps)
    right = b - unit * np.sum(unit * b, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(steps.mT @ steps)
    back = (steps.mT @ right[:, :, None])[..., 0]
    jumps = _Jumps(np.maximum(values, 0), vectors, steps, right, back)

    # 2. Bisection in log mu, each step from where the last one ended.
    high = np.abs(back).max(axis=1)
    high = np.where(high > 0, high, 1.0)
    low = MIN_MU * high
    state = _State(np.zeros_like(back), np.zeros_like(back), np.broadcast_to(values.mean(axis=1), len(b))[:, None])
    state.rho = np.where(state.rho > 0, state.rho, 1.0)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        _iterate(jumps, middle, state, MAX_ITERATIONS)
        small = jumps.residual_norms(state.z) <= noise_norm
        low, high = np.where(small, middle, low), np.where(small, high, middle)
    _iterate(jumps, low, state, LAST_ITERATIONS)

    # 3. Back to x, with the level that fits best.
    x = np.concatenate([np.zeros((len(b), 1)), np.cumsum(state.z, axis=1)], axis=1)
    left = b - (A @ x[:, :, None])[..., 0]
    return x + np.sum(unit * left, axis=1, keepdims=True) / np.where(size > 0, size, 1.0)


def _iterate(jumps: _Jumps, mu: FloatArray, state: _State, most: int) -> None:
    """Take the state to the solution for mu (B,), systems that are done included: all of them stop together."""
    V, values = jumps.vectors, jumps.values
    z, u, rho = state.z, state.u, state.rho
    for iteration in range(1, most + 1):
        # 1. The least-squares step in the eigenvectors, over-relaxed.
        q = jumps.back + rho * (z - u)
        d = (((q[:, None] @ V) / (values + rho)[:, None]) @ V.mT)[:, 0]
        relaxed = RELAXATION * d + (1 - RELAXATION) * z

        # 2. The jumps are shortened by mu / rho, and the multipliers collect what is left.
        before, v = z, relaxed + u
        z = np.sign(v) * np.maximum(np.abs(v) - mu[:, None] / rho, 0.0)
        u = v - z
        if iteration % CHECK_EVERY:
            continue

        # 3. Both residuals, relative; the step size follows the larger one.
        primal = np.linalg.norm(d - z, axis=1) / np.maximum(_norms(d), 1e-300)
        dual = np.linalg.norm(z - before, axis=1) / np.maximum(_norms(u), 1e-300)
        if max(primal.max(initial=0.0), dual.max(initial=0.0)) <= TOLERANCE:
            break
        factor = np.where(
            primal > IMBALANCE * dual, STEP_FACTOR, np.where(dual > IMBALANCE * primal, 1 / STEP_FACTOR, 1)
        )
        rho = rho * factor[:, None]
        u = u / factor[:, None]
    state.z, state.u, state.rho = z, u, rho


def _norms(v: FloatArray) -> FloatArray:
    return np.linalg.norm(v, axis=1)
