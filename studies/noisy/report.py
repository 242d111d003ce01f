"""Tables, sentences and data of the study `noisy`, from the relative errors of every cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.reporting import Cell, Report, TableData
from studies.baselines.noisy import LEARNED, LEARNED_ALL, LMMSE, METHODS, NOTHING, TIKHONOV, TOTAL_VARIATION

Errors = dict[tuple[str, str, float], dict[str, list[float]]]
"""(family, prior, level) -> method -> relative errors."""
CV, ORACLE = "Tikhonov, cross-validation", "Tikhonov, oracle"
"""The best of the orders in the median, for each family and level."""
TV_ORACLE, TV_DISCREPANCY = f"{TOTAL_VARIATION}, oracle", f"{TOTAL_VARIATION}, discrepancy"
MAIN = (NOTHING, CV, "TSVD, cross-validation", TV_DISCREPANCY, LEARNED, LEARNED_ALL, ORACLE, LMMSE, TV_ORACLE)
"""Methods of the main table: told nothing, told the level, learned, told what nobody knows."""
RESAMPLES = 1000
CONFIDENCE = 0.9
AIM_CV, AIM_TIME, AIM_OTHERS, NOISY = 0.6, 1 / 20, 1.02, 1e-2
TARGETED = ("deblur", "gravity")


def interval(errors: FloatArray, share: float) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of a quantile, by percentiles; the same samples for every method."""
    rng = np.random.default_rng(0)
    drawn = errors[rng.integers(len(errors), size=(RESAMPLES, len(errors)))]
    low, high = np.quantile(np.quantile(drawn, share, axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def pooled(errors: Errors, family: str, level: float) -> dict[str, FloatArray]:
    """Return the errors of all priors together, of the methods that every prior has, and of the best of the orders."""
    cells = with_best_orders(cell for (name, _, at), cell in errors.items() if (name, at) == (family, level))
    return {
        method: np.concatenate([cell[method] for cell in cells])
        for method in (*METHODS, CV, ORACLE)
        if all(method in cell for cell in cells)
    }


def with_best_orders(found: Iterable[dict[str, list[float]]]) -> list[dict[str, list[float]]]:
    """Return cells with Tikhonov's regularisation by that order which is best over all of them."""
    cells = list(found)
    for label, choice in ((CV, "cross-validation"), (ORACLE, "oracle")):
        names = [f"{name}, {choice}" for name in TIKHONOV]
        medians = {name: float(np.median(np.concatenate([cell[name] for cell in cells]))) for name in names}
        best = min(medians, key=medians.__getitem__)
        cells = [cell | {label: cell[best]} for cell in cells]
    return cells


def ratio(errors: Errors, family: str, level: float, ours: str, theirs: str) -> float:
    """Return our median over theirs, on the systems that both have seen."""
    cells = with_best_orders(cell for (name, _, at), cell in errors.items() if (name, at) == (family, level))
    pairs = [zip(cell[ours], cell[theirs], strict=False) for cell in cells]  # the shorter one is of the first systems
    mine, others = np.array([pair for pairs_of_cell in pairs for pair in pairs_of_cell]).T
    return float(np.median(mine) / np.median(others))


# ---------------------------------------------------------------- tables


def in_words(errors: Sequence[float] | FloatArray | None, share: float = 0.5) -> Cell:
    """Return a quantile and its interval as text."""
    if errors is None or len(errors) == 0:
        return None
    values = np.asarray(errors)
    low, high = interval(values, share)
    return f"{np.quantile(values, share):.3g} ({low:.3g}–{high:.3g})"


def summary(errors: Errors, times: dict[str, dict[str, Any]], about: dict[str, Any]) -> Report:
    """Put errors and times into tables and sentences.

    Parameters
    ----------
    errors : Errors
    times : dict
        Seconds per system: family -> batch -> method.
    about : dict
        n, systems, slow and models of the plan.
    """
    families = list(dict.fromkeys(name for name, _, _ in errors))
    levels = sorted({level for _, _, level in errors})
    together = {(name, level): pooled(errors, name, level) for name in families for level in levels}
    methods = [method for method in METHODS if any(method in cell for cell in errors.values())]
    shown = [method for method in MAIN if any(method in found for found in together.values())]
    tables = [
        TableData(
            ("family", "noise", *shown),
            [[name, level, *(in_words(found.get(m)) for m in shown)] for (name, level), found in together.items()],
            f"Median relative error over all priors, n = {about['n']}, with 90 % bootstrap intervals",
        ),
        TableData(
            ("family", "noise", *shown),
            [[name, level, *(in_words(found.get(m), 0.9) for m in shown)] for (name, level), found in together.items()],
            "90 % of the relative errors are below this, over all priors",
        ),
        TableData(
            ("family", "method", "priors", *(f"{batch} at once" for batch in next(iter(times.values()), {}))),
            [[name, method, "all", *(1e3 * by_batch[batch][method] for batch in by_batch)]
             for name, by_batch in times.items() for method in next(iter(by_batch.values()))],
            "Time, ms per system",
        ),
        *(
            TableData(
                ("family", "prior", "noise", *methods),
                [[*cell, *(in_words(found.get(m), share) for m in methods)] for cell, found in errors.items()],
                title,
            )
            for share, title in ((0.5, "Median relative error of every cell"), (0.9, "90 % quantile of every cell"))
        ),
    ]  # fmt: skip
    data = about | {
        "families": families,
        "levels": levels,
        "times": times,
        "pooled": [
            point(name, level, m, found[m]) for (name, level), found in together.items() for m in shown if m in found
        ],
        "priors": [prior_point(*cell, medians_of(found)) for cell, found in errors.items()],
    }
    return Report(tables, verdict(errors, times, about), data)


def point(family: str, level: float, method: str, errors: FloatArray) -> dict[str, Any]:
    """Return median, 90 % quantile and the interval of the median of one method."""
    low, high = interval(errors, 0.5)
    middle, most = np.quantile(errors, (0.5, 0.9))
    return {"family": family, "level": level, "method": method, "median": rounded(middle), "low": rounded(low),
            "high": rounded(high), "q90": rounded(most)}  # fmt: skip


def medians_of(found: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the medians of one cell, without those of no regularisation."""
    return {method: rounded(np.median(errors)) for method, errors in found.items() if method != NOTHING}


def prior_point(family: str, prior: str, level: float, medians: dict[str, float]) -> dict[str, Any]:
    """Return the medians of a cell, and which method had the lowest."""
    return {
        "family": family,
        "prior": prior,
        "level": level,
        "best": min(medians, key=lambda m: medians[m]),
        "medians": medians,
    }


def rounded(value: Any) -> float:
    """Return a number to four digits."""
    return float(f"{float(value):.3e}")


# ---------------------------------------------------------------- sentences


def verdict(errors: Errors, times: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> list[str]:
    """Return plain sentences: what was aimed at and what came out."""
    families = list(dict.fromkeys(name for name, _, _ in errors))
    levels = sorted({level for _, _, level in errors})
    sentences = []
    for name in families:
        cells = [cell for (family, _, _), cell in errors.items() if family == name]
        ours = next((m for m in (LEARNED, LEARNED_ALL) if all(m in cell for cell in cells)), None)
        if ours is None:
            sentences.append(f"{name}: no model, the learned solver is absent.")
        elif name in TARGETED and ours == LEARNED:
            sentences += targeted(errors, name, levels, times.get(name, {}))
        else:
            sentences.append(others(errors, name, levels, ours))
        sentences.append(winners(errors, name))
    return sentences


def targeted(errors: Errors, name: str, levels: Sequence[float], times: Mapping[str, Any]) -> list[str]:
    """Return the sentences on the targets of deblur and gravity."""
    said = [
        aimed(errors, name, levels, LEARNED, CV, AIM_CV, "at most"),
        aimed(errors, name, levels, LEARNED, ORACLE, 1.0, "below"),
        aimed(errors, name, levels, LEARNED, LMMSE, 1.0, "below"),
    ]
    if noisy := [level for level in levels if level >= NOISY]:
        said.append(aimed(errors, name, noisy, LEARNED, TV_ORACLE, 1.0, "at most"))
    if times:
        batch = max(times, key=int)
        mine, theirs = times[batch][LEARNED], min(times[b][TOTAL_VARIATION] for b in times)
        met = "met" if mine <= AIM_TIME * theirs else "missed"
        said.append(
            f"{name}: at batch {batch} at most 1/{1 / AIM_TIME:.0f} of the time of one total-variation solve: {met}, "
            f"1/{theirs / mine:.3g} ({1e3 * mine:.3g} ms against {1e3 * theirs:.3g} ms)."
        )
    return said


def aimed(errors: Errors, name: str, levels: Sequence[float], ours: str, theirs: str, aim: float, how: str) -> str:
    """Return whether our median over theirs is as aimed at, at every level, with the ratios where it is not."""
    ratios = {level: ratio(errors, name, level, ours, theirs) for level in levels}
    missed = {level: r for level, r in ratios.items() if not (r < aim if how == "below" else r <= aim)}
    goal = f"{name}: {how} {'' if aim == 1 else f'{aim:g} times '}the median error of {theirs}"
    if not missed:
        return f"{goal}: met at {each(levels)}, {span(ratios.values())} of it."
    if len(missed) == len(ratios):
        return f"{goal}: missed at {each(levels)}, {span(ratios.values())} of it."
    met = span(r for level, r in ratios.items() if level not in missed)
    return f"{goal}: missed at {listed(missed)}; met elsewhere, {met} of it."


def others(errors: Errors, name: str, levels: Sequence[float], ours: str) -> str:
    """Return whether we are never much worse than Tikhonov's regularisation with cross-validation."""
    return aimed(errors, name, levels, ours, CV, AIM_OTHERS, "at most").replace(f"{name}:", f"{name} ({ours}):", 1)


def winners(errors: Errors, name: str) -> str:
    """Return in how many cells of prior and level each method that is told no truth has the lowest median."""
    counts: dict[str, int] = {}
    for (family, _, _), cell in errors.items():
        if family == name:
            honest = {m: float(np.median(e)) for m, e in cell.items() if "oracle" not in m and m != NOTHING}
            first = min(honest, key=lambda m: honest[m])
            counts[first] = counts.get(first, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    by_method = ", ".join(f"{method} in {count}" for method, count in ranked)
    return f"{name}: lowest median error, oracles aside, of {sum(counts.values())} cells: {by_method}."


def each(levels: Sequence[float]) -> str:
    """Return the levels as text."""
    return f"noise {levels[0]:g}" if len(levels) == 1 else f"every level from {min(levels):g} to {max(levels):g}"


def listed(ratios: Mapping[float, float]) -> str:
    """Return levels with their ratios as text."""
    return ", ".join(f"{level:g} ({r:.3g} of it)" for level, r in ratios.items())


def span(values: Iterable[float]) -> str:
    """Return the smallest and the largest as text."""
    found = list(values)
    low, high = f"{min(found):.3g}", f"{max(found):.3g}"
    return low if low == high else f"{low} to {high}"
