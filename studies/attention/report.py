"""What follows from runs and maps of the study `attention`: tables, outcomes and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, outcome
from studies.harness.statistics import comparison, deviation, difference, mean_in_words, other_in_words
from studies.harness.study import distinct, where

VARIANTS = {
    "both directions, positions": (False, True),
    "both directions, no positions": (False, False),
    "causal, positions": (True, True),
    "causal, no positions": (True, False),
}
"""Mask and positions."""
MAIN = "both directions, positions"
"""The variant whose heads are looked at."""
NEAR_TOKENS = 2
"""Tokens on either side that count as near."""
EDGE_TOKENS = 2
"""Tokens at either end that count as boundary."""
MIN_PREFERENCE = 2.0
"""A head prefers a place if its mass there is at least this many times that of uniform attention."""
MIN_PARITY = 0.5
"""A head distinguishes even from odd columns if its parity is at least this."""
MIN_CORRELATION = 0.3
"""Correlations of at least this size are counted."""
LEARNED_SHARE = 1 / 8
"""A correlation counts as learned if at least this share of the heads shows it."""
PLACES = {
    "near": "tokens near their own",
    "mirrored": "tokens near the mirrored position",
    "boundary": "the boundary columns",
    "parity": "columns of one parity",
}
CORRELATIONS = {
    "to b": "b_j within a system",
    "to |b|": "|b_j| within a system",
    "to column": "the size of column j within a system",
    "to spread of b": "the spread of b_j over the family",
}
MEASURES = (
    "near",
    "mirrored",
    "boundary",
    "parity",
    "entropy",
    "differs",
    "to b",
    "to |b|",
    "to column",
    "to spread of b",
)


def uniform(n: int) -> dict[str, float]:
    """Return the shares of uniform attention among n tokens."""
    i = np.arange(n)
    near = float((np.abs(i[:, None] - i) <= NEAR_TOKENS).mean())
    return {"near": near, "mirrored": near, "boundary": min(2 * EDGE_TOKENS, n) / n}


def summary(
    about: Mapping[str, Any], runs: list[dict[str, Any]], maps: list[dict[str, Any]], figure: dict[str, Any]
) -> Report:
    """Put runs and maps into tables and outcomes; `about` has n, steps, batch_size and systems."""
    n, seeds = about["n"], ", ".join(map(str, distinct(runs, "seed")))
    rows: list[list[Cell]] = []
    for name in VARIANTS:
        mine, found = where(runs, variant=name), scores(runs, name)
        rows.append(
            [name, mine[0]["parameters"], float(np.mean(found)), deviation(found), min(found), max(found),
             float(np.mean(found) / np.mean(scores(runs, MAIN))), float(np.median([one["seconds"] for one in mine]))]
        )  # fmt: skip
    main = TableData(
        ("attention", "parameters", "normalized_mse, mean", "standard deviation", "best", "worst", "times the first",
         "seconds"),
        rows,
        f"Mask and positions, diffusion, n = {n}, {about['steps']} steps of {about['batch_size']}, seeds {seeds}",
    )  # fmt: skip
    first = maps[0]
    shape = np.array(first["heads"]["near"]).shape
    heads = TableData(
        ("layer", "head", *MEASURES),
        [[layer + 1, head + 1, *(first["heads"][name][layer][head] for name in MEASURES)]
         for layer in range(shape[0]) for head in range(shape[1])],
        f"Heads with {MAIN}, seed {first['seed']}, over {about['systems']} unseen systems",
    )  # fmt: skip
    means: list[list[Cell]] = [
        [f"seed {one['seed']}, {when}", *(float(np.mean(one[key][name])) for name in MEASURES)]
        for one in maps
        for key, when in (("heads", "trained"), ("before", "before training"))
    ]
    even = uniform(n)
    means.append(["uniform attention", *even.values(), 0.0, 1.0, 0.0, *(None for _ in MEASURES[6:])])
    average = TableData(("heads of", *MEASURES), means, "Means over the heads")
    data = {"n": n, "variants": list(VARIANTS), "runs": runs, "uniform": even, "heads": maps, "figure": figure}
    outcome_by_id = outcomes(data)
    return Report((main, average, heads), outcome_by_id, conclusions(outcome_by_id, SENTENCES), data)


def scores(runs: Sequence[dict[str, Any]], variant: str) -> list[float]:
    """Return the normalized_mse of a variant, one for each seed."""
    return [float(one["normalized_mse"]) for one in where(runs, variant=variant)]


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what follows from runs and maps."""
    by = {name: scores(data["runs"], name) for name in VARIANTS}
    found = {"attention.bidirectional-better": side(comparison(by["causal, positions"], by[MAIN]))}
    for name in ("both directions", "causal"):
        numbers = comparison(by[f"{name}, no positions"], by[f"{name}, positions"])
        found[f"attention.positions-help/{name}"] = side(numbers, attention=name)
    found["attention.preferred-place"] = preferred_place(data["n"], data["heads"])
    for name in CORRELATIONS:
        found[f"attention.learned-correlation/{name}"] = learned_correlation(data["heads"], name)
    return found


def side(numbers: dict[str, Any], **more: str) -> Outcome:
    """Return whether leaving something out makes the error higher, with every seed."""
    verdicts = {"higher": Verdict.HOLDS, "lower": Verdict.FAILS, "as high": Verdict.INCONCLUSIVE}
    return Outcome(verdicts[numbers["side"]], numbers | more)


def preferred_place(n: int, maps: Sequence[dict[str, Any]]) -> Outcome:
    """Return how many heads prefer each place, before and after training; holds if a quarter of them share one."""
    least = {name: MIN_PREFERENCE * value for name, value in uniform(n).items()} | {"parity": MIN_PARITY}
    total = heads_of(maps, "heads", "near").size
    counts = {name: clear(maps, "heads", name, least[name]) for name in least}
    best = max(counts, key=counts.__getitem__)
    width, differs = (float(heads_of(maps, "heads", name).mean()) for name in ("entropy", "differs"))
    return outcome(
        Verdict.HOLDS if counts[best] >= total / 4 else Verdict.FAILS,
        place=best, heads=total, seeds=len(maps), **counts,
        **{f"{name}_before": clear(maps, "before", name, least[name]) for name in least},
        entropy=width, entropy_before=float(heads_of(maps, "before", "entropy").mean()),
        by_system=differs / (1 - width) if width < 1 else None,
    )  # fmt: skip


def learned_correlation(maps: Sequence[dict[str, Any]], name: str) -> Outcome:
    """Return how many heads show a correlation; holds if an eighth do, and twice as many as before training."""
    now, before = heads_of(maps, "heads", name), heads_of(maps, "before", name)
    strong, earlier = int((np.abs(now) >= MIN_CORRELATION).sum()), int((np.abs(before) >= MIN_CORRELATION).sum())
    learned = strong > 2 * earlier and strong >= LEARNED_SHARE * now.size
    return outcome(
        Verdict.HOLDS if learned else Verdict.FAILS, with_what=CORRELATIONS[name], low=float(now.min()),
        high=float(now.max()), heads=strong, heads_before=earlier, total=now.size,
    )  # fmt: skip


def mask_sentence(found: Outcome) -> str:
    """Say whether attention in both directions is more accurate than with a causal mask."""
    conclusion = {
        Verdict.HOLDS: "attention in both directions is better",
        Verdict.FAILS: "the mask is better",
        Verdict.INCONCLUSIVE: "these seeds show no effect of the mask",
    }[found.verdict]
    return (
        f"Attention in both directions: normalized_mse {other_in_words(found.numbers)}; with a causal mask "
        f"{mean_in_words(found.numbers)}, {difference(found.numbers)}: {conclusion}."
    )


def positions_sentence(found: Outcome) -> str:
    """Say what positions gain."""
    mask = "with a causal mask" if found.numbers["attention"] == "causal" else "in both directions"
    return (
        f"Without positions, {mask}: normalized_mse {mean_in_words(found.numbers)} against "
        f"{other_in_words(found.numbers)} with them, {difference(found.numbers)}."
    )


def place_sentence(found: Outcome) -> str:
    """Say which places heads prefer."""
    numbers = found.numbers
    listed = ", ".join(
        f"{what} in {numbers[name]} ({numbers[f'{name}_before']} before training)" for name, what in PLACES.items()
    )
    most = (
        f"Most heads prefer {PLACES[numbers['place']]}"
        if numbers[numbers["place"]] > numbers["heads"] / 2
        else f"The most common preference is for {PLACES[numbers['place']]}"
    )
    start = most if found.verdict == Verdict.HOLDS else "No place is preferred by a quarter of the heads"
    depends = (
        ""
        if numbers["by_system"] is None
        else f"; {100 * numbers['by_system']:.0f} % of the rest depends on the system"
    )
    return (
        f"{start}. Of {numbers['heads']} heads ({numbers['seeds']} seeds), at least {MIN_PREFERENCE:g} times the "
        f"mass of "
        f"uniform attention (parity: three quarters of all mass) falls on {listed}. The mean entropy of a row is "
        f"{numbers['entropy']:.2f} of that of uniform attention ({numbers['entropy_before']:.2f} before "
        f"training){depends}."
    )


def correlation_sentence(found: Outcome) -> str:
    """Say how the mass on a column correlates with something."""
    return (
        "Correlation of the mass on column j with {with_what}: {low:.2f} to {high:.2f}, at least "
        f"{MIN_CORRELATION:g} in size in {{heads}} of {{total}} heads ({{heads_before}} before training): "
        f"{'learned' if found.verdict == Verdict.HOLDS else 'not learned'}."
    ).format(**found.numbers)


SENTENCES: Sentences = {
    "attention.bidirectional-better": mask_sentence,
    "attention.positions-help": positions_sentence,
    "attention.preferred-place": place_sentence,
    "attention.learned-correlation": correlation_sentence,
}


def heads_of(maps: Sequence[dict[str, Any]], key: str, name: str) -> FloatArray:
    """Return a measure of all heads of all seeds."""
    return np.concatenate([np.ravel(one[key][name]) for one in maps])


def clear(maps: Sequence[dict[str, Any]], key: str, name: str, least: float) -> int:
    """Return how many heads have at least so much of a measure."""
    return int((heads_of(maps, key, name) >= least).sum())
