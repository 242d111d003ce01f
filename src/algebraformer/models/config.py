"""What a network is made of. No torch here: the command line reads this before it needs a tensor.

`ModelConfig` has the settings that all networks share; what belongs to one kind of head is in the `HeadConfig` of that
kind, registered under the head's name. A new kind of head registers its own, see `models.heads.register_head`. Bodies
and encodings are registered in `models.bodies` and `models.encodings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

from algebraformer.errors import ConfigurationError
from algebraformer.models.body_kinds import KINDS, BodyKind, body_kind
from algebraformer.models.encodings import ENCODINGS
from algebraformer.validation import is_whole

EstimateEncoding = Literal["column", "column-tikhonov"]
Norm = Literal["frobenius", "weighted"]
Form = Literal["dense", "low-rank"]
Numbers = Literal["real", "complex"]
MAX_READ = 64
"""An operator head reads at most this many columns and rows, whatever n is."""
MAX_COMBINATIONS = 256
"""Combinations of entries that are read at most, as many as of 16 x 16 entries: a whitening that keeps all 4096 of
64 x 64 takes 134 MB."""
MAX_ROW_TERMS = 8
"""Largest number of row terms: each of them costs a product with a shared matrix per step."""
TIKHONOV = 5
"""Tikhonov solutions that a token of the encoding column-tikhonov holds an entry of."""
MAX_SIZE = 2**20
"""Largest size of anything in a network."""
EXTENSION = 64
"""Components that a basis is extended by in fine-tuning, if no rank is given."""
CHANGEABLE = {
    "refitted": ("rank", "whiten", "norm", "form", "p", "row_terms"),
    "extended": ("rank",),
    "kept": (),
}
"""Settings of an operator head that may differ from those of the network it starts from, by the choice of basis."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Settings of one kind of head; the fields of a subclass are what `ModelConfig` leaves to it.

    The class variables say what a head of this kind can do, so that no code depends on its name.
    """

    name: ClassVar[str] = ""
    """Name of the kind, set by `register_config`."""
    gives_one_token: ClassVar[bool] = False
    """Whether it can give the body one token that holds everything, for those bodies that need it."""
    gives_system: ClassVar[bool] = False
    """Whether it gives the body scaled A and b besides the tokens."""
    gives_right_side: ClassVar[bool] = False
    """Whether it can leave b out of the tokens, and give it to the body besides them."""
    is_linear: ClassVar[bool] = False
    """Whether it approximates the inverse of A itself, so that x is linear in b."""
    estimates: ClassVar[bool] = False
    """Whether it estimates x from noisy b, with a standard deviation, instead of solving A x = b."""
    reads_systems: ClassVar[bool] = True
    """Whether it reads A and b; networks of instruments read measurements."""
    unsupported_reason: ClassVar[str] = ""
    """Why a model with this head does not solve systems, to follow its name; empty if it solves them."""
    finetunes: ClassVar[bool] = True
    """Whether it can be trained on a few systems of another family."""
    added: ClassVar[tuple[str, ...]] = ()
    """Settings that checkpoints may lack: they were written before there were such settings, and have the defaults."""
    held_out: ClassVar[float] = 0.0
    """Share of few systems that no steps are taken on: they decide how strongly the read-out is fitted."""

    @classmethod
    def of(cls, model: ModelConfig) -> Self:
        """Return the settings of a model's head; `ConfigurationError` if it is of another kind."""
        if not isinstance(model.head, cls):
            raise ConfigurationError(f"expected a model with head {cls.name!r}, received {model.head.name!r}")
        return model.head

    def check(self, model: ModelConfig) -> None:
        """Raise `ConfigurationError` unless the settings fit those of the whole network."""

    @classmethod
    def architectures(cls) -> list[str]:
        """Return the names of the bodies that the head gives all that they need."""
        return [
            name
            for name, body in KINDS.items()
            if body.needs_one_token <= cls.gives_one_token
            and body.needs_system <= cls.gives_system
            and body.needs_right_side <= cls.gives_right_side
        ]

    def n_equations_of(self, model: ModelConfig) -> int:
        """Return the number m of equations of the systems that the network reads."""
        return model.n

    def n_token(self, model: ModelConfig) -> int:
        """Return the number T of tokens per system."""
        return model.n

    def token_width(self, model: ModelConfig) -> int:
        """Return the number of values in a token before the embedding."""
        return model.n + 1

    def position_shape(self, model: ModelConfig) -> tuple[int, ...]:
        """Return how the T tokens are laid out; every axis gets learned positions of its own."""
        return (self.n_token(model),)

    def check_finetuning(self, samples: int, scaler: str, basis: str) -> None:
        """Raise `ConfigurationError` unless a head of this kind can learn from few systems in this way.

        Parameters
        ----------
        samples : int
            Number of systems.
        scaler, basis : str
            As in `training.FinetuneRecipe`.
        """
        if (scaler, basis) != ("refitted", "refitted"):
            raise ConfigurationError(f"{self.name} heads have no scaler and no basis to keep")

    def changeable(self, basis: str) -> tuple[str, ...]:
        """Return the settings that may differ from those of the network a fine-tuning starts from."""
        return ()

    def for_finetuning(self, n: int, samples: int, basis: str, rank: int | None) -> HeadConfig:
        """Return the settings of the head that a fine-tuning ends with.

        Parameters
        ----------
        n, samples : int
            Number of unknowns, and of systems.
        basis : str
            As in `training.FinetuneRecipe`.
        rank : int or None
            `basis_rank` in the end; None to let the head choose.

        Raises
        ------
        ConfigurationError
            A rank for a head without a basis.
        """
        if rank is not None:
            raise ConfigurationError(f"rank is for operator heads, received a model with head {self.name!r}")
        return self

    @property
    def basis_rank(self) -> int | None:
        """Number of operators of the family that its approximate inverses are made of; None if they are not."""
        return None

    @property
    def kind(self) -> str:
        """Kind of numbers that it reads, in NumPy's letters: "f" for real ones, "c" for complex ones."""
        return "f"

    def settings(self) -> dict[str, Any]:
        """Return name and fields as plain JSON values."""
        return {"name": self.name, **dataclasses.asdict(self)}


SomeConfig = TypeVar("SomeConfig", bound=HeadConfig)
_CONFIGS: dict[str, type[HeadConfig]] = {}


def register_config(name: str) -> Callable[[type[SomeConfig]], type[SomeConfig]]:
    """Class decorator: make the settings of a kind of head known under its name."""

    def add(cls: type[SomeConfig]) -> type[SomeConfig]:
        if _CONFIGS.get(name, cls).__qualname__ != cls.__qualname__:
            raise ConfigurationError(f"a head named {name!r} is registered already")
        cls.name = name
        _CONFIGS[name] = cls
        return cls

    return add


def head_names() -> list[str]:
    """Return the names of all registered kinds of heads."""
    return list(_CONFIGS)


def head_config(head: HeadConfig | str | Mapping[str, Any]) -> HeadConfig:
    """Return the settings of a head from what `ModelConfig` takes: these, a name, or `HeadConfig.settings`."""
    if isinstance(head, HeadConfig):
        return head
    fields = dict(head) if isinstance(head, Mapping) else {"name": head}
    name = fields.pop("name", None)
    if not isinstance(name, str) or name not in _CONFIGS:
        raise ConfigurationError(
            f"head must be one of {', '.join(_CONFIGS)}, received {name!r:.80}: import the module that registers it "
            "with register_head first"
        )
    try:
        return _CONFIGS[name](**fields)
    except TypeError as error:  # a field that is unknown or missing
        known = ", ".join(field.name for field in dataclasses.fields(_CONFIGS[name])) or "nothing"
        raise ConfigurationError(f"settings of head {name!r} are {known}: {error}") from error


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` unless a value is one of the choices."""
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, received {value!r:.80}")


def check_size(name: str, value: Any, low: int = 1, high: int = MAX_SIZE) -> None:
    """Raise `ConfigurationError` unless a value is a whole number between these bounds."""
    if not is_whole(value) or not low <= value <= high:
        raise ConfigurationError(f"{name} must be a whole number from {low} to {high}, received {value!r:.80}")


def check_flag(name: str, value: object) -> None:
    """Raise `ConfigurationError` unless a value is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be true or false, received {value!r:.80}")


@register_config("token")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenConfig(HeadConfig):
    """The paper's head: token i gives x_i."""

    encoding: str = "column"
    """column: token i is [column i of A, b_i], the paper's. row: it is [row i of A, b_i]. column-b: it is [column i of
    A, all of b]. These have n tokens. entry: one token [a_ij, b_i] per entry, n^2 tokens. Or an encoding of your own,
    see `models.register_encoding`."""

    def __post_init__(self) -> None:
        ENCODINGS[self.encoding]  # is there

    def n_token(self, model: ModelConfig) -> int:
        return ENCODINGS[self.encoding].n_token(model.n)

    def token_width(self, model: ModelConfig) -> int:
        return ENCODINGS[self.encoding].token_width(model.n)

    def position_shape(self, model: ModelConfig) -> tuple[int, ...]:
        return ENCODINGS[self.encoding].position_shape(model.n)

    def check_finetuning(self, samples: int, scaler: str, basis: str) -> None:
        if basis != "refitted":
            raise ConfigurationError("basis is for operator heads; a token head has a scaler, which can be kept")


@register_config("operator")
@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatorConfig(HeadConfig):
    """The network returns coefficients of the inverse of A in a basis of the family, and x is linear in b (ours)."""

    gives_one_token: ClassVar[bool] = True
    is_linear: ClassVar[bool] = True
    held_out: ClassVar[float] = 0.2

    rank: int
    """Number R of basis operators."""
    n_column: int
    """Columns of A that are read, a token each; at most 64."""
    n_row: int
    """Entries that are read of each column; at most 64."""
    whiten: bool = False
    """Read uncorrelated combinations of these entries, each of variance one, so that what is small in every entry is
    seen as well; a token is then a row of such combinations, not a column of A. Of more than 256 combinations those of
    the largest spread are read."""
    norm: Norm = "frobenius"
    """Norm of the errors. frobenius: of the inverse times the mean matrix. weighted: of the inverse itself as well, so
    that the few smooth directions that make up most of a solution count; of dense operators only."""
    form: Form = "dense"
    """Form of the basis operators. dense: n x n matrices, see `numerics.operator_basis`. low-rank: matrices of low rank
    and multiples of the rows of shared matrices, between scalings from the diagonal of A, see `numerics.low_rank`."""
    p: int = 0
    """Rank of each operator of the form low-rank, at most n; 0 for dense ones."""
    row_terms: int = 0
    """Number of shared matrices whose rows the form low-rank has multiples of, at most 8; 0 for dense operators."""
    numbers: Numbers = "real"
    """Numbers that systems are made of. complex: real and imaginary parts are read, and coefficients are complex."""
    resampled: bool = False
    """The network was trained at another n, and reads what matrices of that size would have, see
    `LearnedSolver.at_size`. Not for training."""

    def __post_init__(self) -> None:
        check_flag("whiten", self.whiten)
        check_choice("norm", self.norm, get_args(Norm))
        check_choice("form", self.form, get_args(Form))
        check_choice("numbers", self.numbers, get_args(Numbers))
        check_flag("resampled", self.resampled)

    def check(self, model: ModelConfig) -> None:
        for name, limit in (
            ("rank", model.n**2),
            ("n_column", min(model.n, MAX_READ)),
            ("n_row", min(model.n, MAX_READ)),
        ):
            check_size(name, getattr(self, name), high=limit)
        dense = self.form == "dense"
        check_size("p", self.p, low=0 if dense else 1, high=0 if dense else model.n)
        check_size("row_terms", self.row_terms, low=0, high=0 if dense else MAX_ROW_TERMS)
        if not dense and self.numbers == "complex":
            raise ConfigurationError(f"complex systems have dense operators, received form {self.form}")
        if self.resampled and not (dense and self.numbers == "real"):
            raise ConfigurationError(
                "only a network with real, dense operators has other sizes: train one with model.head.form = 'dense'"
            )
        if not dense and self.norm != "frobenius":
            raise ConfigurationError(f"norm {self.norm} is for dense operators, received form {self.form}")

    def settings(self) -> dict[str, Any]:
        settings = super().settings()  # without what checkpoints from before there was a choice do not have
        if self.numbers == "real":
            del settings["numbers"]
        if not self.resampled:
            del settings["resampled"]
        if self.form == "dense":
            for name in ("form", "p", "row_terms"):
                del settings[name]
        return settings

    @property
    def n_combination(self) -> int:
        """Numbers that are read for each column: entries, or combinations of entries where these are whitened."""
        return min(self.n_reading, MAX_COMBINATIONS // self.n_column) if self.whiten else self.n_reading

    @property
    def n_reading(self) -> int:
        """Real numbers per column that the entries hold."""
        return 2 * self.n_row if self.kind == "c" else self.n_row

    @property
    def n_output(self) -> int:
        """Real numbers that the coefficients hold."""
        return 2 * self.rank if self.kind == "c" else self.rank

    @property
    def kind(self) -> str:
        return "c" if self.numbers == "complex" else "f"

    def n_token(self, model: ModelConfig) -> int:
        return 1 if model.body.needs_one_token else self.n_column

    def token_width(self, model: ModelConfig) -> int:
        return self.n_combination * self.n_column // self.n_token(model)

    def check_finetuning(self, samples: int, scaler: str, basis: str) -> None:
        self.check_trained()
        if scaler != "refitted":
            raise ConfigurationError("scaler is for token heads; an operator head has a basis, which can be kept")
        if round(self.held_out * samples) == 0:
            raise ConfigurationError(f"an operator head needs at least 3 systems, received {samples}")
        if basis != "refitted" and self.form != "dense":
            raise ConfigurationError(f"a basis of the form {self.form} can be refitted only, received {basis}")
        if basis == "refitted" and self.rank >= samples:
            raise ConfigurationError(
                f"a basis refitted on {samples} systems has at most {samples - 1} components, received rank "
                f"{self.rank}: choose a smaller rank, or keep or extend the basis"
            )

    def check_trained(self) -> None:
        """Raise `ConfigurationError` for a head that was made from another one."""
        if self.resampled:
            raise ConfigurationError("a network at another size is not trained: train or fine-tune its original")

    def changeable(self, basis: str) -> tuple[str, ...]:
        return CHANGEABLE[basis]

    def for_finetuning(self, n: int, samples: int, basis: str, rank: int | None) -> HeadConfig:
        if rank is None and basis == "extended":
            rank = min(self.rank + min(EXTENSION, samples), n**2)
        return self if rank is None else dataclasses.replace(self, rank=rank)

    @property
    def basis_rank(self) -> int | None:
        return None if self.resampled else self.rank


@register_config("estimate")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimateConfig(HeadConfig):
    """Token i gives mean and standard deviation of x_i, for noisy systems (ours)."""

    gives_system: ClassVar[bool] = True
    estimates: ClassVar[bool] = True
    unsupported_reason: ClassVar[str] = "is an estimator for noisy systems: call `estimate`"
    finetunes: ClassVar[bool] = False
    added: ClassVar[tuple[str, ...]] = ("nonnegative",)

    encoding: EstimateEncoding = "column"
    """column: token i is [column i of A, b_i]. column-tikhonov: also entry i of Tikhonov solutions with five
    parameters. With m other than n it is entry i of A^T b instead of b_i."""
    n_equations: int | None = None
    """Number m of equations; as many as unknowns if None."""
    nonnegative: bool = False
    """Whether x >= 0: means and intervals then are."""

    def __post_init__(self) -> None:
        check_choice("encoding", self.encoding, get_args(EstimateEncoding))
        check_flag("nonnegative", self.nonnegative)
        if self.n_equations is not None:
            check_size("n_equations", self.n_equations)

    def n_equations_of(self, model: ModelConfig) -> int:
        return model.n if self.n_equations is None else self.n_equations

    def token_width(self, model: ModelConfig) -> int:
        return self.n_equations_of(model) + 1 + (2 * TIKHONOV if self.encoding == "column-tikhonov" else 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a network; the defaults are the paper's.

    Examples
    --------
    >>> ModelConfig(n=8, head=OperatorConfig(rank=6, n_column=4, n_row=4)).n_token
    4
    """

    n: int = 64
    """Number of unknowns of the systems the network reads."""
    architecture: str = "transformer"
    """The body: the paper's Transformer, its recurrent baselines (lstm, gru), residual perceptrons on the same entries
    (mlp; operator head only), the Transformer with the residual of a first answer fed back between its blocks
    (feedback; estimate head only), or one of your own, see `models.register_body`."""
    head: HeadConfig = TokenConfig()
    """Kind of head and its settings. A name, where all settings have defaults, or a dictionary with a name and
    settings becomes such a configuration."""
    n_layer: int = 12
    """Number of blocks or recurrent layers."""
    n_head: int = 8
    """Attention heads per block; must divide n_embd. Bodies with attention only."""
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
        object.__setattr__(self, "head", head_config(self.head))
        for name in ("n", "n_layer", "n_head", "n_embd"):
            check_size(name, getattr(self, name))
        for name in ("causal", "positions", "bidirectional"):
            check_flag(name, getattr(self, name))
        body = self.body
        if self.architecture not in (known := self.head.architectures()):
            raise ConfigurationError(
                f"{self.head.name} heads go with {', '.join(known)}, received {self.architecture!r}"
            )
        if "n_head" in body.options and self.n_embd % self.n_head:
            raise ConfigurationError(f"n_head must divide n_embd, received {self.n_head} and {self.n_embd}")
        for name, usual in (("causal", False), ("positions", True), ("bidirectional", False)):
            if getattr(self, name) != usual and name not in body.options:
                having = ", ".join(kind for kind, other in KINDS.items() if name in other.options)
                raise ConfigurationError(f"{name}={not usual} is for {having}, received {self.architecture!r}")
        self.head.check(self)

    @property
    def body(self) -> BodyKind:
        """The kind of its body."""
        return body_kind(self.architecture)

    @property
    def n_equations(self) -> int:
        """Number m of equations of the systems the network reads."""
        return self.head.n_equations_of(self)

    @property
    def n_token(self) -> int:
        """Number of tokens a system becomes."""
        return self.head.n_token(self)

    @property
    def token_width(self) -> int:
        """Number of values in a token before the embedding."""
        return self.head.token_width(self)

    @property
    def position_shape(self) -> tuple[int, ...]:
        """How the tokens with learned positions are laid out; () without, for recurrent networks know the order."""
        return self.head.position_shape(self) if self.positions and "positions" in self.body.options else ()

    def with_head(self, **changes: Any) -> ModelConfig:
        """Return the same network with other settings of its head."""
        return dataclasses.replace(self, head=dataclasses.replace(self.head, **changes))

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**dataclasses.asdict(self), "head": self.head.settings()}
