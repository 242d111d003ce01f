"""What training an estimate head adds to the loop: how far its family reaches, calibration, scores."""

from __future__ import annotations

import numpy as np

from algebraformer.metrics import misfit, relative_errors
from algebraformer.models import Algebraformer, estimates
from algebraformer.models.heads.estimate import PRIOR_SCALES
from algebraformer.models.scaling import scale_systems
from algebraformer.problems import ProblemFamily
from algebraformer.training.data import SCALER_SEED
from algebraformer.progress import ProgressCallback, silent

CHOOSING = 1024
"""Systems that the trust is chosen on."""


def begin(model: Algebraformer, family: ProblemFamily, count: int) -> None:
    """Tell a fresh estimate head how far the family reaches."""
    systems = family.sample(count, SCALER_SEED)
    model.estimate_head.fit(scale_systems(systems.A, systems.b))


def calibrate_estimates(
    model: Algebraformer, family: ProblemFamily, count: int, report: ProgressCallback = silent
) -> None:
    """Choose how far the network is trusted against the data, scale the standard deviations, learn how answers fit.

    Trust: that with the least mean relative error. Scale: 90 % intervals hold 90 % of the entries. On systems that no
    step was taken on.
    """
    systems = family.sample(count, SCALER_SEED)
    trust, few = model.estimate_head.trust, systems[:CHOOSING]
    errors, total = {}, len(PRIOR_SCALES) * len(few) + len(systems)
    for number, value in enumerate(PRIOR_SCALES):
        report(number * len(few), total)
        trust.fill_(value)
        x = estimates(model, few.A, few.b).mean
        errors[value] = float(np.mean(relative_errors(x, few)))
    trust.fill_(min(PRIOR_SCALES, key=lambda value: errors[value]))
    report(total - len(systems), total)
    found = estimates(model, systems.A, systems.b)
    model.estimate_head.calibrate(
        np.abs(systems.x - found.mean) / found.std, misfit(systems.A, systems.b, found.mean, found.noise)
    )
    report(total, total)
