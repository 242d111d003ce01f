"""What can be known of a body without torch: which settings it goes by, and what it needs of the head."""

from __future__ import annotations

import dataclasses

from algebraformer.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BodyKind:
    """A kind of body, as `ModelConfig` sees it.

    Examples
    --------
    >>> body_kind("lstm").options
    ('bidirectional',)
    """

    options: tuple[str, ...] = ("positions",)
    """Which of the settings n_head, causal, positions and bidirectional it goes by; every body has n_layer and n_embd.
    With positions, learned vectors are added to its tokens; with n_head, it must divide n_embd."""
    needs_one_token: bool = False
    """Whether it reads one token that holds everything: see `HeadConfig.gives_one_token`."""
    needs_system: bool = False
    """Whether it reads scaled A and b besides the tokens: see `HeadConfig.gives_system`."""
    needs_right_side: bool = False
    """Whether its tokens hold A alone, and it carries b through to x, linearly: see `HeadConfig.gives_right_side`."""


KINDS = {
    "transformer": BodyKind(options=("n_head", "causal", "positions")),
    "lstm": BodyKind(options=("bidirectional",)),
    "gru": BodyKind(options=("bidirectional",)),
    "mlp": BodyKind(options=(), needs_one_token=True),
    "feedback": BodyKind(options=("n_head", "causal", "positions"), needs_system=True),
    "carrier": BodyKind(options=("n_head", "positions"), needs_right_side=True),
}
"""Kinds of bodies by name: the package's, and those that `models.register_body` adds."""
_MODULES: dict[str, str] = {}


def add_kind(name: str, kind: BodyKind | None, module: str) -> None:
    """Make a kind of body known under a name, for the module that registers it; None: as it is known, or as usual."""
    KINDS[name] = kind or KINDS.get(name) or BodyKind()
    _MODULES[name] = module


def body_kind(name: str) -> BodyKind:
    """Return the kind of that name; `ConfigurationError` if no module has registered it."""
    if not isinstance(name, str) or name not in KINDS:
        raise ConfigurationError(
            f"architecture must be one of {', '.join(KINDS)}, received {name!r:.80}: import the module that registers "
            "it with register_body first"
        )
    return KINDS[name]


def body_module(name: str) -> str:
    """Return the module that registered a kind; one of this package if nobody has yet."""
    return _MODULES.get(name, __name__)
