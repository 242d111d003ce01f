"""Outcomes of evaluations and benchmarks, and of what needs no measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from algebraformer import problems
from algebraformer.linalg import condition_number
from algebraformer.models import Algebraformer, ModelConfig, TokenConfig
from algebraformer.reporting import Outcome, Verdict, outcome
from algebraformer.training.data import TEST_SEED
from studies.spectral.report import PAPER_MSE, TOKEN

# ---------------------------------------------------------------- evaluations and benchmarks


def token_head(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether our small token head reaches the paper's mse, and what its direct answers are good for."""
    mse, median = content["network"]["mse"], content["network"]["relative_error_median"]
    lapack, paper = content["solve"]["lapack"], PAPER_MSE[TOKEN]
    reached = Verdict.SMALLER_SCALE if mse <= paper else Verdict.NOT_REPRODUCED
    direct = Verdict.HOLDS if lapack == 0 else Verdict.PARTLY if median < MAX_DIRECT_ERROR else Verdict.FAILS
    return {
        "token-head.mse": outcome(reached, mse=mse, paper=paper),
        "token-head.direct": outcome(direct, relative_error=median, lapack=lapack),
    }


def carrier(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return the same of the carrier on columns of the preconditioned matrix."""
    return {name.replace("token-head", "carrier"): found for name, found in token_head(content).items()}


def operator_head(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return how many systems our operator head certifies."""
    solve = content["solve"]
    by_network = solve["learned"] + solve["learned+refined"]
    verdict = Verdict.HOLDS if by_network >= MIN_BY_NETWORK else Verdict.PARTLY
    refinements = solve["refinements_median"]
    return {"operator-head.certified": outcome(verdict, by_network=by_network, refinements=refinements)}


def bench(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether a network of the paper's size is as fast as LAPACK, within a factor of two."""
    seconds, ratios = content["seconds_per_system"], []
    numbers: dict[str, float] = {}
    for batch in (1, 64):
        ours, lapack = seconds[f"predict, paper, batch {batch}"], seconds[f"numpy.linalg.solve, batch {batch}"]
        numbers |= {f"ms_{batch}": 1e3 * ours, f"lapack_ms_{batch}": 1e3 * lapack}
        ratios.append(ours / lapack)
    return {"bench.speed": outcome(Verdict.HOLDS if max(ratios) <= 2 else Verdict.FAILS, **numbers)}


MAX_DIRECT_ERROR = 0.5
"""A median relative error below this is an answer in part."""
MIN_BY_NETWORK = 0.99
"""Share of systems that a network has to solve without LAPACK."""
EVALUATED: dict[str, Callable[[Mapping[str, Any]], dict[str, Outcome]]] = {
    "diffusion-64-token": token_head,
    "diffusion-64-carrier": carrier,
    "diffusion-64": operator_head,
    "bench": bench,
}

# ---------------------------------------------------------------- facts


def parameters() -> Outcome:
    """Count the parameters of twelve blocks of width 256 with eight heads at n = 64."""
    with torch.device("meta"):  # shapes alone
        count = Algebraformer(ModelConfig()).parameter_count()
    return outcome(Verdict.HOLDS if 9.45e6 <= count < 9.55e6 else Verdict.FAILS, parameters=count)


def tokens() -> Outcome:
    """Count the tokens at n = 64."""
    column, entry = (ModelConfig(head=TokenConfig(encoding=encoding)).n_token for encoding in ("column", "entry"))
    return outcome(Verdict.HOLDS if (column, entry) == (64, 64**2) else Verdict.FAILS, column=column, entry=entry)


def conditioning() -> Outcome:
    """Solve the extreme case of a diagonal matrix: b along the largest singular vector, its error along the "
    "smallest."""
    kappa, error = 1e5, 1e-8
    A = np.diag([1.0, 1 / kappa])
    x, changed = np.linalg.solve(A, [1.0, 0.0]), np.linalg.solve(A, [1.0, error])
    worst = float(np.linalg.norm(changed - x) / np.linalg.norm(x))
    return outcome(Verdict.HOLDS if np.isclose(worst, kappa * error) else Verdict.FAILS, change=worst)


def difficulty() -> Outcome:
    """Return the condition numbers of our diffusion matrices."""
    kappa = condition_number(problems.get("diffusion", n=64).sample(200, TEST_SEED).A)
    low, middle, high = (float(value) for value in np.quantile(kappa, (0, 0.5, 1)))
    return outcome(Verdict.MEASURED, low=low, median=middle, high=high)


def density() -> Outcome:
    """Return the share of entries that are not zero, of a diffusion matrix and with three-point differences."""
    A = problems.get("diffusion", n=64).sample(1, TEST_SEED).A[0]
    share, banded = np.count_nonzero(A) / A.size, (3 * 64 - 2) / A.size
    return outcome(Verdict.HOLDS if share > 0.99 else Verdict.FAILS, spectral=share, differences=banded)


def pipeline() -> Outcome:
    """Return number and width of the tokens at n = 64."""
    count, width = ModelConfig().n_token, ModelConfig().token_width
    return outcome(Verdict.HOLDS if (count, width) == (64, 65) else Verdict.FAILS, tokens=count, width=width)


def nothing() -> Outcome:
    """Return an outcome without numbers."""
    return outcome(Verdict.MEASURED)


FACTS = {
    "parameters": parameters,
    "tokens": tokens,
    "conditioning": conditioning,
    "difficulty": difficulty,
    "density": density,
    "pipeline": pipeline,
    "nothing": nothing,
}
