"""Heads: what reads a system, turns tokens into an answer, and knows how it is trained. One file per kind."""

from algebraformer.models.heads.base import Head, Reading, Sample, TrainingData, register_head
from algebraformer.models.heads.estimate import EstimateHead, Estimates
from algebraformer.models.heads.operator import OperatorHead
from algebraformer.models.heads.token import TokenHead

__all__ = [
    "EstimateHead",
    "Estimates",
    "Head",
    "OperatorHead",
    "Reading",
    "Sample",
    "TokenHead",
    "TrainingData",
    "register_head",
]
