"""Recipes: everything that decides how a network is trained. The resolved recipe travels inside the checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.models.config import EstimateConfig, ModelConfig, OperatorConfig
from algebraformer.models.inversion import InversionConfig
from algebraformer.models.preconditioned import PreconditionedConfig
from algebraformer.problems import Instrument, NoisyFamily, ProblemFamily, from_settings
from algebraformer.validation import is_whole

Optimizer = Literal["adamw", "muon"]
Scaler = Literal["refitted", "kept"]
Basis = Literal["refitted", "extended", "kept"]
SIZES = (
    "scaler_samples", "basis_samples", "readout_samples", "calibration_samples", "prior_scale_samples",
    "validation_systems", "test_systems",
)  # fmt: skip
"""Fields of a recipe that are sizes of samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained."""

    family: str = "diffusion"
    """Name of the family."""
    family_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the family other than n, which is the model's."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""
    steps: int = 10_000
    """Optimiser steps."""
    batch_size: int = 64
    """Systems per step."""
    samples: int | None = None
    """Size of a fixed training set, gone through again and again in a new order each time (the paper has 50,000).
    None: every step gets fresh systems."""
    optimizer: Optimizer = "muon"
    """adamw: AdamW for everything (the paper's). muon: Muon for the matrices inside the network, AdamW for the rest."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    muon_lr: float = 1e-2
    """Peak learning rate of Muon."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the weight matrices."""
    beta1: float = 0.9
    """Decay rate of AdamW's first moment."""
    beta2: float = 0.98
    """Decay rate of AdamW's second moment."""
    warmup: float = 0.02
    """Share of the steps over which the learning rate rises; after it a cosine falls to zero."""
    clip: float = 1.0
    """Largest norm of the gradient; longer gradients are shortened to it."""
    seed: int = 0
    """Seed of the initial weights and of the training systems."""
    scaler_samples: int = 4096
    """Systems that the statistics of the family are taken from; of this and of the other sizes below fewer where n is
    large, see `training.data.capped_sample_size`."""
    basis_samples: int = 4096
    """Most systems that the basis of an operator head is computed from; 16 per component are enough."""
    readout_samples: int = 65_536
    """Examples that the read-out of an operator head is fitted to after the last step, where no fixed training set is
    stored."""
    calibration_samples: int = 4096
    """Systems that operator and estimate heads are calibrated on after the last step."""
    prior_scale_samples: int = 1024
    """Systems among these that an estimate head chooses its prior scale on."""
    validation_systems: int = 256
    """Size of the frozen validation set."""
    test_systems: int = 1000
    """Size of the frozen test set that the scores are of."""

    def __post_init__(self) -> None:
        for name, low in {"steps": 1, "batch_size": 1, "seed": 0, "samples": 1, **dict.fromkeys(SIZES, 2)}.items():
            value = getattr(self, name)
            if not (is_whole(value) and low <= value < 2**62) and not (name == "samples" and value is None):
                raise ConfigurationError(f"{name} must be a whole number from {low} to 2**62 - 1, received {value!r}")
        if self.samples is not None and self.samples < self.batch_size:
            raise ConfigurationError(f"samples must be at least batch_size {self.batch_size}, received {self.samples}")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigurationError(f"optimizer must be adamw or muon, received {self.optimizer!r}")
        positive = ("lr", "muon_lr", "clip")
        shares = ("weight_decay", "beta1", "beta2", "warmup")
        for name in positive + shares:
            value = getattr(self, name)
            number = isinstance(value, (int, float))
            if not (number and (0 < value < float("inf") if name in positive else 0 <= value < 1)):
                bounds = "> 0 and finite" if name in positive else "in [0, 1)"
                raise ConfigurationError(f"{name} must be {bounds}, received {value!r}")
        if taken := {"name", "n"} & set(self.family_settings):
            raise ConfigurationError(f"family_settings cannot set {min(taken)}: set family or model.n instead")
        family = self.problem_family()
        head, noisy = self.model.head, isinstance(family, NoisyFamily)
        if isinstance(family, Instrument) != isinstance(head, InversionConfig):
            raise ConfigurationError(
                f"instruments go with inversion heads and these with instruments, received {self.family} and head "
                f"{head.name!r}: call train with the instrument"
            )
        if head.estimates and not noisy:
            raise ConfigurationError(f"an estimate head learns a noisy family, received {self.family!r}")
        if noisy and not head.estimates:
            raise ConfigurationError(
                f"{self.family} is a noisy family, which an estimate head learns: change the family of the recipe "
                f"deblur-64, or call train with the family; received a model with head {head.name!r}"
            )
        if (
            isinstance(head, EstimateConfig)
            and isinstance(family, NoisyFamily)
            and head.nonnegative > family.nonnegative
        ):
            raise ConfigurationError(
                f"the model estimates x >= 0, signals of the family {self.family} have either sign: set "
                "model.head.nonnegative = false"
            )
        if family.is_complex != (head.kind == "c"):
            kind = "complex" if family.is_complex else "real"
            raise ConfigurationError(
                f"{self.family} is a {kind} family: it needs an operator head with model.head.numbers = {kind!r}, "
                f"received {head.settings()}"
            )
        if family.n_equations != self.model.n_equations:
            raise ConfigurationError(
                f"the model reads {self.model.n_equations} equations, the family has {family.n_equations}: these must "
                "agree; an estimate head has model.head.n_equations, a noisy family family_settings.m"
            )

    def problem_family(self) -> ProblemFamily:
        """Return the family the recipe trains on."""
        return from_settings({"name": self.family, "n": self.model.n, **self.family_settings})

    @property
    def trained_on(self) -> int | None:
        """Number of systems of the fixed set that the steps go through."""
        return self.samples

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**dataclasses.asdict(self), "model": self.model.settings()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(Recipe):
    """How a network learns from N systems and nothing else, usually starting from one that knows another family.

    Scaler, basis, read-out and calibration are taken from these N systems too. An operator head takes its steps on the
    first four fifths of them.
    """

    samples: int = 250
    """Number N of systems."""
    start: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The model it starts from: name, family, recipe and hash of the weights. Empty: new weights."""
    scaler: Scaler = "refitted"
    """Scaling and z-scores of a token head: refitted on the N systems, or kept."""
    basis: Basis = "refitted"
    """Basis of an operator head and what it reads of A: kept; extended by principal components of what it leaves of the
    N inverses, up to model.head.rank; or refitted on the N systems, with a new read-out."""
    layer_decay: float = 1.0
    """Learning rates fall by this factor from each layer to the one before it; the read-out has the full rates."""
    frozen: int = 0
    """Number of first blocks that stay as they are; with them the embedding."""

    def __post_init__(self) -> None:
        if self.samples is None:
            raise ConfigurationError("samples must be a number of systems, received None: choose how many there are")
        super().__post_init__()
        head = self.model.head
        if not head.finetunes:
            raise ConfigurationError(
                f"{head.name} heads are trained on fresh systems: few systems are for the other heads"
            )
        if self.trained_on < self.batch_size:
            raise ConfigurationError(
                f"steps are taken on {self.trained_on} of {self.samples} systems: choose a batch_size of at most that, "
                f"received {self.batch_size}"
            )
        for name, kind in (("scaler", Scaler), ("basis", Basis)):
            if getattr(self, name) not in get_args(kind):
                expected = ", ".join(get_args(kind))
                raise ConfigurationError(f"{name} must be one of {expected}, received {getattr(self, name)!r}")
        if not (isinstance(self.layer_decay, (int, float)) and 0 < self.layer_decay <= 1):
            raise ConfigurationError(f"layer_decay must be in (0, 1], received {self.layer_decay!r}")
        if not (is_whole(self.frozen) and 0 <= self.frozen <= self.model.n_layer):
            raise ConfigurationError(
                f"frozen must be from 0 to the {self.model.n_layer} layers of the model, received {self.frozen!r}"
            )
        head.check_finetuning(self.samples, self.scaler, self.basis)
        if not self.start and (self.scaler, self.basis, self.frozen) != ("refitted", "refitted", 0):
            raise ConfigurationError("new weights have nothing to keep, extend or freeze: name a model to start from")

    @property
    def trained_on(self) -> int:
        return self.samples - round(self.model.head.held_out * self.samples)


PAPER = Recipe(
    model=ModelConfig(n=64, n_layer=12, n_head=8, n_embd=256),
    samples=50_000,
    steps=312_500,  # 400 epochs of 50,000 systems in batches of 64
    optimizer="adamw",
    lr=3e-4,
    weight_decay=0.01,
)
"""The paper's model, data set and optimiser: 12 blocks of width 256, 50,000 systems, 400 epochs. Batch size and
learning rate are not in the paper and are our choices. A week on two CPU cores; meant for a GPU, which keeps the
systems in its memory."""

DIFFUSION_64_TOKEN = Recipe(model=ModelConfig(n=64, n_layer=4, n_head=4, n_embd=96), steps=5_000)
"""The paper's system at a small size: token head, 0.46 million parameters, fresh systems, Muon."""

CARRIERS = {
    f"{family}-64-carrier": Recipe(
        family=family,
        model=ModelConfig(n=64, head=PreconditionedConfig(), architecture="carrier", n_layer=4, n_head=4, n_embd=64),
        steps=9_000,
        lr=1e-3,
        muon_lr=1e-2,
    )
    for family in ("diffusion", "reaction-diffusion", "advection-diffusion")
}
"""Tokens of the preconditioned system and a body that is linear in b, 0.35 million parameters; an hour on one core."""

LSTM_64 = dataclasses.replace(
    DIFFUSION_64_TOKEN, model=ModelConfig(n=64, architecture="lstm", n_layer=2, n_embd=160), optimizer="adamw", clip=1.0
)
"""The paper's first baseline at the size of diffusion-64-token."""

GRU_64 = dataclasses.replace(LSTM_64, model=ModelConfig(n=64, architecture="gru", n_layer=2, n_embd=184))
"""The paper's second baseline at the size of diffusion-64-token."""

TRANSFORMER = ModelConfig(n=64, head=OperatorConfig(rank=192, n_column=16, n_row=16), n_layer=4, n_head=4, n_embd=64)
"""Coefficient network of the operator heads: sixteen column tokens, whatever n is."""

MLP = dataclasses.replace(TRANSFORMER, architecture="mlp", n_layer=6, n_embd=192)
"""Its alternative on the same 256 entries."""


def operator_recipe(family: str, model: ModelConfig, rank: int, effort: int = 1) -> Recipe:
    """Return the recipe of an operator head; both networks train for about the same time, `effort` times the usual.

    The fewer parameters decide A, the faster the components of its inverse fall off, and the smaller the rank can be.
    """
    return Recipe(
        family=family,
        model=model.with_head(rank=rank),
        samples=200_000 * effort,
        steps=(6_000 if model.architecture == "mlp" else 4_500) * effort,
        batch_size=128,
        lr=3e-3,
    )


OPERATOR_HEADS = {
    "diffusion-64-transformer": operator_recipe("diffusion", TRANSFORMER, 96),
    "diffusion-64-mlp": operator_recipe("diffusion", MLP, 96),
    "reaction-diffusion-64-transformer": operator_recipe("reaction-diffusion", TRANSFORMER.with_head(whiten=True), 192),
    "reaction-diffusion-64-mlp": operator_recipe(
        "reaction-diffusion",
        dataclasses.replace(MLP, n_layer=10).with_head(whiten=True, norm="weighted"),
        224,
        effort=4,
    ),
    "advection-diffusion-64-transformer": operator_recipe("advection-diffusion", TRANSFORMER, 192),
    "advection-diffusion-64-mlp": operator_recipe("advection-diffusion", dataclasses.replace(MLP, n_layer=10), 256),
    "random-diffusion-64-transformer": operator_recipe("random-diffusion", TRANSFORMER, 256),
    "random-diffusion-64-mlp": operator_recipe("random-diffusion", MLP, 256, effort=2),
}
"""A reaction term hardly shows in single entries, so there both networks read whitened ones. Advection- and
random-diffusion missed their goals by a little with the usual perceptron and training; LOG.md has both networks after
equal training."""

ESTIMATE = ModelConfig(
    n=64, architecture="feedback", head=EstimateConfig(encoding="column-tikhonov"), n_layer=4, n_head=4, n_embd=64
)
"""Network of the estimate heads: 0.21 million parameters."""

ESTIMATE_HEADS = {
    f"{family}-64": Recipe(family=family, model=ESTIMATE, steps=steps, batch_size=32, lr=2e-3)
    for family, steps in (("deblur", 12_000), ("gravity", 12_000), ("fredholm", 24_000))
}
"""Noisy families, fresh systems in every step; "fredholm" is all integral equations together."""

INVERSION = {
    "deer": InversionConfig(n_equations=128, n_way=8, n_column=3, n_feature=3, n_nuisance=5, density=True),
    "drt": InversionConfig(n_equations=128, n_way=2, n_column=3, n_feature=2, n_nuisance=3, density=False),
}
"""What networks for the shipped instruments read and say; `automatic.inversion_network` finds it for others."""

INSTRUMENTS = {
    name: Recipe(
        family=name,
        model=ModelConfig(n=100, head=head, n_layer=5, n_head=4, n_embd=96),
        samples=300_000,
        steps=16_000,
        batch_size=128,
        lr=4e-3,
        muon_lr=2e-2,
        calibration_samples=13_000,
    )
    for name, head in INVERSION.items()
}
"""Instruments, 0.58 million parameters each; an hour on one core."""

LP_FILTER_32 = Recipe(
    family="lp-regression",
    family_settings={"kind": "filter", "target": "start"},
    model=ModelConfig(n=32, n_layer=4, n_head=4, n_embd=64),
    samples=40_000,
    steps=5_000,
    batch_size=32,
    lr=2e-3,
    muon_lr=2e-2,
)
"""Starts for Newton's method in the design of FIR filters in l_p norms: a token head that trains in a few minutes."""

QUICK = Recipe(model=ModelConfig(n=16, n_layer=2, n_head=2, n_embd=32), steps=400)
"""A network for systems of 16 unknowns that trains in seconds: for trying things out, and for tests."""

RECIPES: dict[str, Recipe] = {
    "paper": PAPER,
    "diffusion-64-token": DIFFUSION_64_TOKEN,
    **CARRIERS,
    "lstm-64": LSTM_64,
    "gru-64": GRU_64,
    "lp-filter-32": LP_FILTER_32,
    "quick": QUICK,
    **OPERATOR_HEADS,
    **ESTIMATE_HEADS,
    **INSTRUMENTS,
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of that name; `UnknownNameError` lists those that exist."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, sorted(RECIPES))
    return RECIPES[name]
