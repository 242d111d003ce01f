"""The basis of an operator head, dense or of low rank, as the arrays of a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import ModelConfig, OperatorConfig
from algebraformer.models.inference.reader import Arrays
from algebraformer.numerics.entry_sampler import EntrySampler
from algebraformer.numerics.low_rank import LowRankBasis
from algebraformer.numerics.operator_basis import LEADING, OperatorBasis
from algebraformer.numerics.shared_factors import Factors

Basis = OperatorBasis | LowRankBasis
Layout = dict[str, tuple[tuple[int, ...], DTypeLike]]
SAMPLER = ("rows", "columns", "weight", "mean", "inverse_std")
"""Arrays that every form has."""
OPTIONAL = ("whitening", "resampling")
"""Those where entries are whitened or resampled."""


def as_dense(basis: Basis) -> OperatorBasis:
    """Return a basis of dense operators as it is; `ConfigurationError` if it has another form."""
    if not isinstance(basis, OperatorBasis):
        raise ConfigurationError("a basis of dense operators is needed, received one of low rank")
    return basis


def as_pairs(array: NDArray[Any]) -> NDArray[Any]:
    """Return complex numbers as pairs of real ones along a new last axis; real ones as they are.

    Examples
    --------
    >>> import numpy as np
    >>> as_pairs(np.array([1 + 2j]))
    array([[1., 2.]])
    """
    return np.stack((array.real, array.imag), axis=-1) if np.iscomplexobj(array) else array


def from_pairs(array: NDArray[Any]) -> NDArray[Any]:
    """Return the complex numbers that pairs of float32 or float64 along the last axis are."""
    return np.ascontiguousarray(array).view(np.result_type(array, np.complex64))[..., 0]


def layout(config: ModelConfig) -> Layout:
    """Return shape and dtype of every array.

    Dense: T_mean and the components, from number 32 on in float16. Low rank: the shared factors, and C and d of the
    mean and of the components, these in float16.
    """
    head, n = OperatorConfig.of(config), config.n
    R, m, q = head.rank, head.n_row, head.n_column
    found: Layout = {
        "rows": ((m,), np.int64),
        "columns": ((q,), np.int64),
        "weight": ((m, q), np.float64),
        "mean": ((head.n_reading, q), np.float64),
        "inverse_std": ((head.n_reading, q), np.float64),
    }
    if head.form == "dense":
        lead, pair = min(R, LEADING), (2,) if head.kind == "c" else ()
        found |= {
            "A_mean": ((n, n, *pair), np.float64),
            "T_mean": ((n, n, *pair), np.float32),
            "leading": ((lead, n, n, *pair), np.float32),
            "others": ((R - lead, n, n, *pair), np.float16),
        }
    else:
        size = head.p**2 + head.row_terms * n
        found |= {
            "A_mean": ((n, n), np.float32),
            "scaling_range": ((2,), np.float64),
            "U": ((n, head.p), np.float32),
            "V": ((n, head.p), np.float32),
            "row_levels": ((head.row_terms, n, n), np.int8),
            "row_scales": ((head.row_terms, n), np.float32),
            "pair_mean": ((size,), np.float32),
            "pairs": ((R, size), np.float16),
        }
    found |= {"coefficient_rms": ((R,), np.float64), "scale": ((), np.float64)}
    if head.resampled:
        found["resampling"] = ((m * q, m * q), np.float64)
    if head.whiten:
        found["whitening"] = ((q * head.n_combination, q * head.n_reading), np.float64)
    return found


def to_arrays(basis: Basis) -> dict[str, NDArray[Any]]:
    """Return a basis as the arrays of `layout`, those of components in float32; complex numbers as pairs."""
    found = {name: getattr(basis.sampler, name) for name in SAMPLER}
    if isinstance(basis, OperatorBasis):
        found |= {
            "A_mean": basis.A_mean,
            "T_mean": basis.T_mean,
            "leading": basis.components[:LEADING],
            "others": basis.components[LEADING:],
        }
    else:
        found |= {
            "A_mean": basis.A_mean,
            "scaling_range": basis.scaling_range,
            **basis.factors._asdict(),
            "pair_mean": basis.operators[0],
            "pairs": basis.components,
        }
    found |= {"coefficient_rms": basis.coefficient_rms, "scale": np.array(basis.scale)}
    found |= {name: array for name in OPTIONAL if (array := getattr(basis.sampler, name)) is not None}
    return {name: as_pairs(np.asarray(array)) for name, array in found.items()}


def from_arrays(arrays: Arrays) -> Basis:
    """Return the basis that arrays of `layout` hold; `ConfigurationError` if they hold none.

    A dense basis comes without its metric, which training alone needs.
    """
    A_mean = arrays["A_mean"].astype(np.float64, copy=False)
    A_mean = A_mean if A_mean.ndim == 2 else from_pairs(A_mean)
    n = len(A_mean)
    for name in ("rows", "columns"):
        if not ((arrays[name] >= 0) & (arrays[name] < n)).all():
            raise ConfigurationError(f"{name} of an operator head must be from 0 to {n - 1}")
    try:
        inverse = np.linalg.inv(A_mean)
    except np.linalg.LinAlgError:
        raise ConfigurationError("the mean matrix of an operator head is singular: no basis was fitted") from None
    shared: dict[str, Any] = {
        "sampler": EntrySampler(**{name: arrays[name] for name in (*SAMPLER, *OPTIONAL) if name in arrays}),
        "A_mean": A_mean,
        "inverse": inverse,
        "coefficient_rms": arrays["coefficient_rms"],
        "scale": float(arrays["scale"]),
        "spectrum": np.empty(0),
    }
    if "T_mean" in arrays:
        parts = arrays["T_mean"][None], arrays["leading"], arrays["others"]
        operators = np.concatenate(parts, dtype=np.float32)
        return OperatorBasis(**shared, operators=from_pairs(operators) if np.iscomplexobj(A_mean) else operators)
    low, high = arrays["scaling_range"]
    if not 0 < low <= high:
        raise ConfigurationError(f"limits of the scaling must be positive, received {low:g} and {high:g}")
    return LowRankBasis(
        **shared,
        scaling_range=arrays["scaling_range"],
        factors=Factors(*(arrays[name] for name in Factors._fields)),
        operators=np.concatenate((arrays["pair_mean"][None], arrays["pairs"]), dtype=np.float32),
    )
