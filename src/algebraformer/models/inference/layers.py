"""The layers of the networks in NumPy, float32, for answers alone: no gradients.

References
----------
.. [1] J. L. Ba, J. R. Kiros and G. E. Hinton, "Layer normalization", arXiv:1607.06450.
.. [2] D. Hendrycks and K. Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.special import ndtr

from algebraformer.errors import ConfigurationError

Singles = NDArray[np.float32]

NORM_FLOOR = np.float32(1e-5)
"""Added to variances in layer norms, as torch does."""
MEAN_SQUARE_FLOOR = np.float32(1e-8)
"""Added to a mean square before a division by its root."""
NORMAL_LOGIT = tuple(
    map(np.float32, (1.7561715587212634e-09, -1.322633660676221e-07, 3.964744715978842e-06, -5.530619515887184e-05,
                     -3.259497252053496e-05, 0.03633308457150922, 0.7978849414608545))
)  # fmt: skip
"""P, highest power first, with Phi(x) = (1 + tanh(x P(x^2))) / 2 for the normal distribution function Phi: the minimax
fit of degree 6 of |x| Phi(x) on |x| < 5.6, in double precision to 3e-8. Its first coefficient is positive, so that
tanh saturates beyond."""
MODERATE_SCORE = 40.0
"""Exponentials of scores below this, and sums of a million of them, are normal numbers of float32 without a shift."""
FEW = 1024
"""Up to this many numbers SciPy's distribution function, 10 ns each, is faster than a dozen calls of NumPy."""
CACHED = 2**16
"""Numbers at a time: they and what is made of them take 768 kB, and the calls no longer count."""


class Tensors:
    """Arrays by name, each taken once with the shape and dtype that it must have.

    Parameters
    ----------
    arrays : mapping of str to ndarray
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._left = dict(arrays)

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return an array; `ConfigurationError` if there is none of that name, shape and dtype."""
        if name not in self._left:
            raise ConfigurationError(f"tensor {name!r} is missing")
        found = self._left.pop(name)
        if (found.shape, found.dtype) != (shape, np.dtype(dtype)):
            raise ConfigurationError(
                f"{name} has shape {found.shape} and dtype {found.dtype}, expected {shape} and {np.dtype(dtype)}"
            )
        return found

    def check_empty(self) -> None:
        """Raise `ConfigurationError` unless all arrays were taken."""
        if self._left:
            raise ConfigurationError(f"unknown tensor {min(self._left)!r:.80}")


@dataclasses.dataclass(frozen=True)
class Linear:
    """h W + b for the last axis of h.

    Attributes
    ----------
    weight : ndarray, shape (n_in, n_out), float32
        Contiguous this way round: one token takes two thirds of the time.
    bias : ndarray, shape (n_out,), float32
    """

    weight: Singles
    bias: Singles

    @classmethod
    def take(cls, tensors: Tensors, name: str, n_in: int, n_out: int) -> Linear:
        """Return the layer of this name."""
        return cls.of(tensors.take(f"{name}.weight", (n_out, n_in)), tensors.take(f"{name}.bias", (n_out,)))

    @classmethod
    def take_unbiased(cls, tensors: Tensors, name: str, n_in: int, n_out: int) -> Linear:
        """Return the layer of this name, which has no bias."""
        return cls.of(tensors.take(f"{name}.weight", (n_out, n_in)), np.zeros(n_out, dtype=np.float32))

    @classmethod
    def of(cls, weight: Singles, bias: Singles) -> Linear:
        """Return the layer from a weight of torch's shape (n_out, n_in)."""
        return cls(np.ascontiguousarray(weight.T), bias)

    def __call__(self, h: Singles) -> Singles:
        if h.ndim > 2:
            return self(h.reshape(-1, h.shape[-1])).reshape(*h.shape[:-1], -1)  # one product, whatever the axes of h
        found: Singles = np.dot(h, self.weight)
        found += self.bias
        return found

    def centred(self) -> Linear:
        """Return the layer with the mean over its outputs subtracted from each of them."""
        return Linear(centred(self.weight), centred(self.bias))

    def scaled(self, outputs: slice, factor: float) -> Linear:
        """Return the layer with some outputs multiplied by a factor."""
        factors = np.ones_like(self.bias)
        factors[outputs] = factor
        return Linear(self.weight * factors, self.bias * factors)


@dataclasses.dataclass(frozen=True)
class Norm:
    """A layer norm [1]_ of tokens with mean 0: `standardized`, times a weight, plus a bias (n,)."""

    weight: Singles
    bias: Singles

    @classmethod
    def take(cls, tensors: Tensors, name: str, n: int) -> Norm:
        """Return the layer of this name."""
        return cls(tensors.take(f"{name}.weight", (n,)), tensors.take(f"{name}.bias", (n,)))

    def __call__(self, h: Singles) -> Singles:
        h = standardized(h)
        h *= self.weight
        h += self.bias
        return h

    def then(self, layer: Linear) -> Linear:
        """Return the layer that makes of `standardized` tokens what the given one makes of normed ones."""
        return Linear(layer.weight * self.weight[:, None], layer.bias + self.bias @ layer.weight)


def centred(v: Singles) -> Singles:
    """Return v with mean 0 along the last axis."""
    found: Singles = (v - v.mean(axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return found


def standardized(h: Singles, out: Singles | None = None) -> Singles:
    """Return h, which has mean 0 along the last axis, with variance 1.

    Whatever is added to the tokens of a network that are read behind layer norms alone is `centred`, so that no norm
    has to subtract a mean.
    """
    n, floor = _norm_constants(h.shape[-1])
    variance = np.vecdot(h, h)[..., None]
    variance /= n
    variance += floor
    return np.divide(h, np.sqrt(variance), out=out)


@functools.cache
def _norm_constants(n: int) -> tuple[Singles, Singles]:
    """Return n and `NORM_FLOOR` as arrays (1,): converting a number takes NumPy as long as adding two tokens."""
    return np.array([n], dtype=np.float32), np.array([NORM_FLOOR])


def gelu(x: Singles) -> Singles:
    """Return x Phi(x) [2]_, in the memory of x (contiguous).

    Examples
    --------
    >>> x = np.linspace(-3, 3, 2000, dtype=np.float32)
    >>> bool(np.abs(gelu(x.copy()) - x * ndtr(x)).max() < 1e-6)
    True
    """
    if x.size <= FEW:
        x *= ndtr(x)
        return x
    flat = x.reshape(-1)
    for start in range(0, flat.size, CACHED):
        part = flat[start : start + CACHED]
        square = part * part
        logit = square * NORMAL_LOGIT[0]
        for coefficient in NORMAL_LOGIT[1:-1]:
            logit += coefficient
            logit *= square
        logit += NORMAL_LOGIT[-1]
        logit *= part
        np.tanh(logit, out=logit)
        logit += np.float32(1.0)
        part *= np.float32(0.5)
        part *= logit
    return x


def softmax_mean(scores: Singles, values: Singles) -> Singles:
    """Return softmax(scores^T) values (..., T, D) for scores (..., T, T), whose memory is used, and values (..., T, D).

    The softmax is along the first axis of the scores, where NumPy finds maxima in half the time.
    """
    if not max(scores.max(initial=0.0), -scores.min(initial=0.0)) < MODERATE_SCORE:  # NaN is not moderate either
        scores -= scores.max(axis=-2, keepdims=True)
    np.exp(scores, out=scores)
    weights = scores.mT
    mean = weights @ values
    mean /= (weights @ np.ones(scores.shape[-1], dtype=np.float32))[..., None]
    return mean
