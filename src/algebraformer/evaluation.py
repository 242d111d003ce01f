"""How good a model is on a set of systems: the bare network, and certified solves with it."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np

from algebraformer.errors import FallbackWarning, InconsistentWarning
from algebraformer.estimation import Estimate
from algebraformer.metrics import coverage, estimate_scores, noise_levels, relative_errors, score
from algebraformer.problems import Systems
from algebraformer.reporting import TableData
from algebraformer.result import plain
from algebraformer.solver import LearnedSolver


def evaluate(
    solver: LearnedSolver,
    systems: Systems,
    rtol: float | None = None,
    max_refinements: int = 10,
    is_linear_system: bool = True,
) -> dict[str, dict[str, Any]]:
    """Return scores of the bare network and of certified solves.

    Parameters
    ----------
    solver : LearnedSolver
    systems : Systems
        Unknown to the network.
    rtol, max_refinements
        As in `LearnedSolver.solve`.
    is_linear_system : bool
        Whether x solves A x = b: see `ProblemFamily.is_linear_system`.

    Returns
    -------
    dict
        network : mse, normalized_mse, relative_error_median, relative_error_95. solve : shares of "learned",
        "learned+refined" and "lapack" answers, share certified, refinements of the learned answers (median and
        largest), worst backward error, and worst relative error of the learned answers; left out
        without systems. None where a number is not finite.
    """
    network = score(solver.network, systems)
    if not is_linear_system:
        return plain({"network": network})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # the scores say who answered
        result = solver.solve(systems.A, systems.b, rtol=rtol, max_refinements=max_refinements)
    methods = Counter(result.method)
    by_network = result.method != "lapack"
    learned = result.refinements[by_network]
    errors = relative_errors(result.x, systems)[by_network]
    scores: dict[str, dict[str, Any]] = {
        "network": network,
        "solve": {
            **{method: methods[method] / len(systems) for method in ("learned", "learned+refined", "lapack")},
            "certified": float(np.mean(result.certified)),
            "refinements_median": float(np.median(learned)) if learned.size else None,
            "refinements_max": int(learned.max()) if learned.size else None,
            "backward_error_max": float(result.backward_error.max()),
            "relative_error_learned_max": float(errors.max()) if errors.size else None,
        },
    }
    return plain(scores)


def quietly(solver: LearnedSolver, systems: Systems) -> Estimate:
    """Return what the solver estimates, without a warning where it does not fit the data: callers count these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentWarning)
        return solver.estimate(systems.A, systems.b)


def evaluate_estimates(solver: LearnedSolver, systems: Systems) -> dict[str, dict[str, Any]]:
    """Return the scores of a model that estimates x from noisy b.

    Parameters
    ----------
    solver : LearnedSolver
    systems : Systems
        Of a noisy family, unknown to the network.

    Returns
    -------
    dict
        estimate : what `metrics.estimate_scores` returns, the shares of the systems that are consistent and
        in distribution, and relative_error_median and coverage for the systems between two noise levels.
    """
    found = quietly(solver, systems)
    errors = relative_errors(found.x, systems)
    scores: dict[str, Any] = estimate_scores(found.x, found.std, found.noise, systems)
    scores["consistent"] = float(np.mean(found.consistent))
    scores["in_distribution"] = float(np.mean(found.in_distribution))
    for low, high, chosen in noise_levels(systems.params["noise"]):
        between = f"noise {low:g} to {high:g}"
        scores[f"relative_error_median, {between}"] = float(np.median(errors[chosen]))
        scores[f"coverage, {between}"] = coverage(systems.x[chosen], found.x[chosen], found.std[chosen])
    return plain({"estimate": scores})


def table(scores: dict[str, dict[str, Any]], title: str) -> TableData:
    """Return the scores as a table of two columns."""
    rows = [[f"{group}: {name}", value] for group, values in scores.items() for name, value in values.items()]
    return TableData(("measure", "value"), rows, title)
