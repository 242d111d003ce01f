"""The bare answers of networks, in NumPy or in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from algebraformer.linalg import FloatArray
from algebraformer.models.inference.network import NumpyNetwork
from algebraformer.models.inference.reading import Estimates

if TYPE_CHECKING:
    from algebraformer.models.module_network import ModuleNetwork
    from algebraformer.models.network import Algebraformer

AnyNetwork: TypeAlias = "Algebraformer | NumpyNetwork | ModuleNetwork"


def predict(model: AnyNetwork, A: FloatArray, b: FloatArray) -> FloatArray:
    """Return the network's bare answers, a limited number of systems at a time so that memory stays flat.

    Parameters
    ----------
    model : Algebraformer or NumpyNetwork
        In evaluation mode.
    A : ndarray, shape (B, m, n), float64 or complex128
        m = n but for estimate heads.
    b : ndarray, shape (B, m, k), the same dtype

    Returns
    -------
    ndarray, the same dtype
        Shape (B, n, k) unless the network is broken.
    """
    return model.predict(A, b)


def estimates(model: AnyNetwork, A: FloatArray, b: FloatArray) -> Estimates:
    """Return the estimates of an estimate head for A (B, m, n) and b (B, m), a limited number of systems at a time."""
    return model.estimates(A, b)
