"""How far systems are from the family that an operator head was trained on."""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics import gcr
from algebraformer.solver import LearnedSolver


def distances(solver: LearnedSolver, A: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how far systems A (B, n, n), b (B, n) are from an operator head's family by entries and by answers, (B,).

    The quantities that `in_distribution` compares, each relative to its limit; of the residuals for b and for a random
    vector the larger one.
    """
    head, inverse = solver.model.operator_head, solver.network.approximate_inverse(A)
    first = gcr.solve(A, b[:, :, None], inverse, 0.0, maxiter=1).first_residual_ratio
    random = gcr.probe_defect(A, inverse)
    answers = np.maximum(first, random) / head.reader.max_defect()
    return head.reader.distance(A) / float(head.max_distance), answers
