"""Networks that read a linear system and return its solution."""

from algebraformer.models.algebraformer import Algebraformer, predict
from algebraformer.models.config import ModelConfig

__all__ = ["Algebraformer", "ModelConfig", "predict"]
