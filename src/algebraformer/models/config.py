"""What a network is made of. No torch here: the command line reads this before it needs a tensor."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from algebraformer.errors import ConfigurationError

Architecture = Literal["transformer", "lstm", "gru"]
Encoding = Literal["column", "entry"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a network; the defaults are the paper's."""

    n: int = 64
    """Number of unknowns of the systems the network reads."""
    architecture: Architecture = "transformer"
    """The paper's Transformer, or its recurrent baselines."""
    encoding: Encoding = "column"
    """column: one token [a_i, b_i] per column of A, n tokens. entry: one token [a_ij, b_i] per entry, n^2 tokens."""
    n_layer: int = 12
    """Number of blocks or recurrent layers."""
    n_head: int = 8
    """Attention heads per block; must divide n_embd. Not used by lstm and gru."""
    n_embd: int = 256
    """Width of the tokens inside the network, or of the recurrent state."""
    causal: bool = False
    """Let token i attend to tokens 1 ... i only. The paper says "decoder-only" and leaves this open; with a causal
    mask x_1 depends on column 1 alone, so both directions is the default (our choice)."""
    bidirectional: bool = False
    """Read the tokens in both directions; lstm and gru only."""

    def __post_init__(self) -> None:
        for name in ("n", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
                raise ConfigurationError(f"{name} must be a whole number from 1 to 2**20, received {value!r}")
        for name, known in (("architecture", ("transformer", "lstm", "gru")), ("encoding", ("column", "entry"))):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}")
        if self.architecture == "transformer":
            if self.n_embd % self.n_head:
                raise ConfigurationError(f"n_head must divide n_embd, received {self.n_head} and {self.n_embd}")
            if self.bidirectional:
                raise ConfigurationError("bidirectional is for lstm and gru; a transformer has causal=False")
        elif self.causal:
            raise ConfigurationError("causal is for the transformer; lstm and gru have bidirectional=False")

    @property
    def n_token(self) -> int:
        """Number of tokens a system becomes."""
        return self.n if self.encoding == "column" else self.n**2

    @property
    def token_width(self) -> int:
        """Number of values in a token before the embedding."""
        return self.n + 1 if self.encoding == "column" else 2

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self)
