"""Earlier checkpoints, so that they can be read: flat settings and older names of tensors of format 1, and tensors that
checkpoints of either format lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")

SHARED = ("n", "architecture", "n_layer", "n_head", "n_embd", "causal", "positions", "bidirectional")
"""Settings of format 1 that are still those of the whole network."""
FIELDS = {*SHARED, "head", "rank", "n_column", "n_row", "whiten", "balance", "encoding"}
"""All settings of a network in format 1."""
RENAMED = {
    "token": {f"scaler.{name}": f"head.scaler.{name}" for name in
              ("A_weight", "A_mean", "A_inverse_std", "b_mean", "b_inverse_std", "x_rms")}
    | {"scaler.reach": "head.scaler.max_distance"},
    "operator": {
        "head.sigma": "head.coefficient_rms",
        "head.size": "head.scale",
        "head.reach": "head.max_distance",
        "head.first_step": "head.max_first_residual",
    },
    "estimate": {
        "head.A_reach": "head.max_A_distance",
        "head.b_reach": "head.max_b_distance",
        "head.trust": "head.prior_scale",
    },
}  # fmt: skip
"""Names of tensors in format 1 and now, by the kind of head."""
ADDED: dict[str, dict[str, NDArray[np.float64]]] = {
    "estimate": {
        "head.amplitude_factor": np.ones(8),
        "head.check_trend": np.zeros((3, 5)),
        "head.check_limits": np.tile((-1e300, 1e300), (5, 1)),
    },
}
"""Tensors that checkpoints of either format may lack, by the kind of head, with the values that change nothing."""


def convert_model(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a network from those of format 1.

    Raises
    ------
    KeyError
        A setting is missing, or the head is of another kind.
    """
    heads = {
        "token": {"encoding": flat["encoding"]},
        "operator": {name: flat[name] for name in ("rank", "n_column", "n_row", "whiten")}
        | {"norm": "weighted" if flat["balance"] else "frobenius"},
        "estimate": {"encoding": flat["encoding"], "n_equations": flat["n_row"] or None},
    }
    shared = {name: flat[name] for name in SHARED}
    return {**shared, "head": {"name": flat["head"], **heads[flat["head"]]}}


def convert_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with the settings of its network, and of the one it starts from, in today's form."""
    converted = dict(recipe)
    if isinstance(model := converted.get("model"), Mapping) and set(model) >= FIELDS:
        converted["model"] = convert_model(model)
    start = converted.get("start")
    if isinstance(start, Mapping) and isinstance(start.get("recipe"), Mapping):
        converted["start"] = {**start, "recipe": convert_recipe(start["recipe"])}
    return converted


def convert_tensors(tensors: Mapping[str, Value], head: str) -> dict[str, Value]:
    """Return the tensors of a network under today's names."""
    renamed = RENAMED[head]
    return {renamed.get(name, name): tensor for name, tensor in tensors.items()}


def completed_tensors(tensors: Mapping[str, NDArray[Any]], head: str) -> dict[str, NDArray[Any]]:
    """Return the tensors with those of `ADDED`, if there is none of them."""
    added = ADDED.get(head, {})
    return dict(tensors) if set(added) & set(tensors) else {**tensors, **{k: v.copy() for k, v in added.items()}}
