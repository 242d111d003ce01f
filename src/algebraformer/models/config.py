"""What a network is made of. No torch here: the command line reads this before it needs a tensor."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from algebraformer.errors import ConfigurationError
from algebraformer.validation import is_whole

Architecture = Literal["transformer", "lstm", "gru", "mlp", "feedback"]
Encoding = Literal["column", "row", "column-b", "entry", "column-tikhonov"]
Head = Literal["token", "operator", "estimate"]
MAX_READ = 64
"""An operator head reads at most this many columns and rows, whatever n is."""
TIKHONOV = 5
"""Tikhonov solutions that a token of the encoding column-tikhonov holds an entry of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a network; the defaults are the paper's."""

    n: int = 64
    """Number of unknowns of the systems the network reads."""
    architecture: Architecture = "transformer"
    """The paper's Transformer, its recurrent baselines, residual perceptrons on the same entries (mlp; operator head
    only), or the Transformer with the residual of a first answer fed back between its blocks (feedback; estimate head
    only)."""
    head: Head = "token"
    """token: the paper's, token i gives x_i. operator: the network returns coefficients of the inverse of A in a basis
    of the family, and x is linear in b (ours). estimate: token i gives mean and standard deviation of x_i, for noisy
    systems (ours)."""
    rank: int = 0
    """Number R of basis operators; operator head only."""
    n_column: int = 0
    """Columns of A that are read, a token each; operator head only, at most 64."""
    n_row: int = 0
    """Entries that are read of each column. Operator head: at most 64. Estimate head: all of them, the number m of
    equations; 0 for as many as unknowns."""
    whiten: bool = False
    """Read uncorrelated combinations of these entries, each of variance one, so that what is small in every entry is
    seen as well; a token is then a row of such combinations, not a column of A. Operator head only."""
    balance: bool = False
    """Measure errors of the inverse itself beside those of its product with the mean matrix, so that the few smooth
    directions that make up most of a solution count. Operator head only."""
    encoding: Encoding = "column"
    """column: token i is [column i of A, b_i], the paper's. row: it is [row i of A, b_i]. column-b: it is [column i of
    A, all of b]. These have n tokens. entry: one token [a_ij, b_i] per entry, n^2 tokens. An operator head reads
    columns. column-tikhonov: column, and entry i of Tikhonov solutions with five parameters; estimate head only (ours).
    With m other than n an estimate head reads entry i of A^T b instead of b_i."""
    n_layer: int = 12
    """Number of blocks or recurrent layers."""
    n_head: int = 8
    """Attention heads per block; must divide n_embd. Transformer only."""
    n_embd: int = 256
    """Width of the tokens inside the network, or of the recurrent state."""
    causal: bool = False
    """Let token i attend to tokens 1 ... i only. The paper says "decoder-only" and leaves this open; with a causal
    mask x_1 depends on column 1 alone, so both directions is the default (our choice)."""
    positions: bool = True
    """Add a learned vector to each token that tells its position; False for the transformer alone."""
    bidirectional: bool = False
    """Read the tokens in both directions; lstm and gru only."""

    def __post_init__(self) -> None:
        for name in ("n", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not is_whole(value) or not 1 <= value <= 2**20:
                raise ConfigurationError(f"{name} must be a whole number from 1 to 2**20, received {value!r}")
        for name, kind in (("architecture", Architecture), ("encoding", Encoding), ("head", Head)):
            known = get_args(kind)
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, received {getattr(self, name)!r}")
        for name in ("whiten", "balance", "causal", "positions", "bidirectional"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be true or false, received {getattr(self, name)!r:.80}")
        if self.architecture in ("transformer", "feedback"):
            if self.n_embd % self.n_head:
                raise ConfigurationError(f"n_head must divide n_embd, received {self.n_head} and {self.n_embd}")
            if self.bidirectional:
                raise ConfigurationError("bidirectional is for lstm and gru; a transformer has causal=False")
        elif self.causal:
            raise ConfigurationError("causal is for the transformer; lstm and gru have bidirectional=False")
        elif not self.positions:
            raise ConfigurationError("positions=False is for the transformer; lstm, gru and mlp know the order")
        elif self.architecture == "mlp" and (self.head != "operator" or self.bidirectional):
            raise ConfigurationError("mlp is for the operator head, and has no directions")
        self._check_reading()

    def _check_reading(self) -> None:
        """Check what belongs to one kind of head alone."""
        limits = {"rank": self.n**2, "n_column": min(self.n, MAX_READ), "n_row": min(self.n, MAX_READ)}
        if self.head == "estimate":
            if not is_whole(self.n_row) or not 0 <= self.n_row <= 2**20:
                raise ConfigurationError(f"n_row must be from 0 to 2**20, received {self.n_row!r}")
            del limits["n_row"]
        for name, limit in limits.items():
            value = getattr(self, name)
            if not is_whole(value) or not (1 <= value <= limit if self.head == "operator" else value == 0):
                expected = f"from 1 to {limit}" if self.head == "operator" else "0 without an operator head"
                raise ConfigurationError(f"{name} must be {expected}, received {value!r}")
        for name in ("whiten", "balance"):
            if getattr(self, name) and self.head != "operator":
                raise ConfigurationError(f"{name} is for the operator head")
        if self.head == "operator" and self.encoding != "column":
            raise ConfigurationError(f"the operator head reads columns, received encoding {self.encoding!r}")
        if self.head == "estimate" and self.encoding not in ("column", "column-tikhonov"):
            raise ConfigurationError(f"the estimate head reads columns, received encoding {self.encoding!r}")
        if self.head != "estimate" and (self.architecture == "feedback" or self.encoding == "column-tikhonov"):
            raise ConfigurationError("feedback and column-tikhonov are for the estimate head")

    @property
    def n_equation(self) -> int:
        """Number m of equations of the systems the network reads."""
        return self.n_row or self.n if self.head == "estimate" else self.n

    @property
    def n_token(self) -> int:
        """Number of tokens a system becomes."""
        if self.head == "operator":
            return 1 if self.architecture == "mlp" else self.n_column
        return self.n**2 if self.encoding == "entry" else self.n

    @property
    def token_width(self) -> int:
        """Number of values in a token before the embedding."""
        if self.head == "operator":
            return self.n_row * (self.n_column if self.architecture == "mlp" else 1)
        if self.head == "estimate":
            return self.n_equation + 1 + (2 * TIKHONOV if self.encoding == "column-tikhonov" else 0)
        return {"column": self.n + 1, "row": self.n + 1, "column-b": 2 * self.n, "entry": 2}[self.encoding]

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dataclasses.asdict(self)
