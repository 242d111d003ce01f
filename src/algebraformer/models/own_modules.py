"""Where a network's own body, encoding or head comes from: the names of modules, for checkpoints and messages."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from algebraformer.models.body_kinds import KINDS, body_module
from algebraformer.models.config import ModelConfig, TokenConfig, head_names
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.registry import ships


def own_modules(config: ModelConfig) -> dict[str, str]:
    """Return the modules that registered what is not of this package: architecture, head and encoding of a network."""
    found = {"architecture": body_module(config.architecture), "head": type(config.head).__module__}
    if isinstance(config.head, TokenConfig):
        found["encoding"] = ENCODINGS.module(config.head.encoding)
    return {name: module for name, module in found.items() if not ships(module)}


def unregistered(model: Mapping[str, Any], modules: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield setting, value and module of what the settings of a network name and this process does not know.

    Parameters
    ----------
    model : mapping
        As `ModelConfig.settings` returns it.
    modules : mapping of str to str
        As `own_modules` returned it where the network was saved.
    """
    head = model.get("head")
    settings = head if isinstance(head, Mapping) else {}
    named: tuple[tuple[str, object, Container[object]], ...] = (
        ("architecture", model.get("architecture"), KINDS),
        ("head", settings.get("name"), head_names()),
        ("encoding", settings.get("encoding"), ENCODINGS),
    )
    for setting, value, known in named:
        if isinstance(value, str) and setting in modules and value not in known:
            yield setting, value, modules[setting]
