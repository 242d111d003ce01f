"""Settings of preconditioned heads. No torch here."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import HeadConfig, ModelConfig, register_config


@register_config("preconditioned")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PreconditionedConfig(HeadConfig):
    """Token i is column i of P A with entry i of P b, and gives x_i - (P b)_i; P inverts the family's mean (ours).

    A body that carries b (`BodyKind.needs_right_side`) gets P b besides the tokens, and x is linear in b.
    """

    gives_right_side: ClassVar[bool] = True

    def token_width(self, model: ModelConfig) -> int:
        return model.n if model.body.needs_right_side else model.n + 1

    def check_finetuning(self, samples: int, scaler: str, basis: str) -> None:
        if basis != "refitted":
            raise ConfigurationError("basis is for operator heads; a preconditioned head has a scaler")
