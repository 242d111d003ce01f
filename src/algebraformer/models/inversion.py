"""Settings of inversion heads. No torch here."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import HeadConfig, ModelConfig, check_flag, check_size, register_config

PATCH = 5
"""Neighbouring unknowns that share a token: 20 tokens for 100 unknowns."""
CHANNELS = 4
"""Numbers for each unknown: three fits and their standard deviation."""
QUANTILES = (0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975)
"""Levels of the quantiles that the network gives for each unknown: ends of 50, 90 and 95 % bands, and the median."""
OUTPUTS = 1 + len(QUANTILES)
"""Numbers that the network gives for each unknown: mean and quantiles."""


@register_config("inversion")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InversionConfig(HeadConfig):
    """Density, bands and nuisance parameters of measurements by an instrument, from linear fits of them (ours)."""

    gives_one_token: ClassVar[bool] = True
    unsupported_reason: ClassVar[str] = "inverts measurements: load it with instruments.load"
    reads_systems: ClassVar[bool] = False
    finetunes: ClassVar[bool] = False

    n_equations: int
    """Data of the family's systems; measurements may have any number."""
    n_way: int
    """Ways to read data, see `numerics.gaussian_fit`."""
    n_column: int
    """Columns for what else is in the data."""
    n_feature: int
    """Numbers that tell where was measured."""
    n_nuisance: int
    """Coordinates of the nuisance parameters."""
    density: bool
    """Whether x has mean 1 over the grid."""
    prior_rank: int = 80
    """Rank of the prior covariance that the fits are made with."""

    def __post_init__(self) -> None:
        check_flag("density", self.density)
        for name in ("n_equations", "n_way", "prior_rank"):
            check_size(name, getattr(self, name))
        for name in ("n_column", "n_feature", "n_nuisance"):
            check_size(name, getattr(self, name), low=0)

    def check(self, model: ModelConfig) -> None:
        if model.n % PATCH:
            raise ConfigurationError(f"an inversion head needs n divisible by {PATCH}, received {model.n}")
        check_size("prior_rank", self.prior_rank, high=model.n)

    def n_equations_of(self, model: ModelConfig) -> int:
        return self.n_equations

    @property
    def n_global(self) -> int:
        """Numbers that are the same for all unknowns: noise, number of data, size, columns, ways and features."""
        return 3 + 2 * self.n_column + self.n_way + self.n_feature

    def n_token(self, model: ModelConfig) -> int:
        return 1 if model.body.needs_one_token else model.n // PATCH

    def token_width(self, model: ModelConfig) -> int:
        return CHANNELS * (model.n // self.n_token(model)) + self.n_global
