"""What a learned solver has to beat: the strongest classical ways to solve the systems of one family.

`Structure.of` counts from a sample of a family's matrices which ways apply, `rivals_for` returns them, each also with
the batch split over a pool of threads, and `timing` measures which are accurate and how long they take.
"""

from algebraformer.rivals.families import POOL, Rival, Structure, is_lapack, rivals_for, with_pool
from algebraformer.rivals.iterative import MAX_REFINEMENTS, refined
from algebraformer.rivals.pool import Solve, pooled
from algebraformer.rivals.timing import Accuracy, Judged, accuracy, contenders, judge, quartiles, race, take_turns

__all__ = [
    "MAX_REFINEMENTS",
    "POOL",
    "Accuracy",
    "Judged",
    "Rival",
    "Solve",
    "Structure",
    "accuracy",
    "contenders",
    "is_lapack",
    "judge",
    "pooled",
    "quartiles",
    "race",
    "refined",
    "rivals_for",
    "take_turns",
    "with_pool",
]
