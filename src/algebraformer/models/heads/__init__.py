"""Heads: what reads a system, turns tokens into an answer, and knows how it is trained. One file per kind."""

from algebraformer.models.heads.base import Head, register_head
from algebraformer.models.heads.data import Sample, TrainingData
from algebraformer.models.heads.estimate import EstimateHead
from algebraformer.models.heads.inversion import InversionHead
from algebraformer.models.heads.operator import OperatorHead
from algebraformer.models.heads.preconditioned import PreconditionedHead
from algebraformer.models.heads.token import TokenHead
from algebraformer.models.inference.reading import Estimates, MatrixReading

__all__ = [
    "EstimateHead",
    "Estimates",
    "Head",
    "InversionHead",
    "MatrixReading",
    "OperatorHead",
    "PreconditionedHead",
    "Sample",
    "TokenHead",
    "TrainingData",
    "register_head",
]
