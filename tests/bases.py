"""Bases of families, for tests: `operator_basis.fit` on the systems that a seed names."""

from __future__ import annotations

from typing import Any

from algebraformer.numerics import operator_basis
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.problems import ProblemFamily


def fit(family: ProblemFamily, rank: int, n_column: int, n_row: int, seed: int, **options: Any) -> OperatorBasis:
    """Return the basis of a family; `options` are those of `operator_basis.fit`."""
    return operator_basis.fit(
        lambda indices: family.assembled(indices, seed)[0], family.n, rank, n_column, n_row, **options
    )
