"""Tables and outcomes of `studies.spectral`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, Outcome, Sentences, TableData, Verdict, met, outcome
from studies.harness.statistics import deviation
from studies.harness.study import distinct, number, where

TOKEN, OPERATOR, PERCEPTRON = "Algebraformer, token head", "Algebraformer, operator head", "operator head, MLP"
LSTM, GRU, BILSTM, BIGRU = "LSTM", "GRU", "LSTM, two directions", "GRU, two directions"
PAPER_MSE = {TOKEN: 0.00024131, LSTM: 0.00048211, GRU: 0.00031371}
"""The paper's table, diffusion, 12 blocks of width 256, 50,000 systems and 400 epochs."""
GOALS = {LSTM: 0.5, GRU: 0.77}
"""Our token head's mse is to be at most this share of theirs: the paper's own ratios."""
MSE_GOALS = {TOKEN: 2.4e-5, OPERATOR: 2.4e-7}
TARGET_FAMILY = "diffusion"
"""Family of the paper's table and of our targets."""
SCORES = ("mse", "normalized_mse", "relative_error_median", "relative_error_95")
Data = Mapping[str, Any]


def mean(runs: Sequence[Data], score: str) -> float:
    """Return the mean of a score over runs."""
    return float(np.mean([number(run[score]) for run in runs]))


def spread(runs: Sequence[Data], score: str) -> str:
    """Return mean ± standard deviation of a score as text."""
    values = [number(run[score]) for run in runs]
    apart = deviation(values)
    return f"{np.mean(values):.2e}" + ("" if apart is None else f" ± {apart:.0e}")


def family_table(data: Data, family: str) -> TableData:
    """Return every method on one family."""
    rows: list[list[Cell]] = []
    for network in data["times"]:
        runs = where(data["runs"], family=family, network=network)
        memory, seconds = data["memory"].get(network), data["times"][network]
        rows.append(
            [network, *(spread(runs, score) for score in SCORES), runs[0]["parameters"], mean(runs, "flops"),
             mean(runs, "seconds"), 1e6 * seconds["1"], 1e6 * seconds["64"], memory and memory / 2**20]
        )  # fmt: skip
    for row in where(data["classical"], family=family):
        rows.append(
            [row["method"], *(f"{row[score]:.2e}" for score in SCORES), 0, None, None, 1e6 * row["seconds_1"],
             1e6 * row["seconds_64"], None]
        )  # fmt: skip
    if family == TARGET_FAMILY:
        rows += [[f"the paper's {name}", f"{mse:.2e}", *[None] * 9] for name, mse in PAPER_MSE.items()]
    columns = (
        "method", *SCORES, "parameters", "operations of training", "seconds of training", "µs per system, batch 1",
        "batch 64", "MB of a training pass",
    )  # fmt: skip
    return TableData(columns, rows, f"{family}, the bare answers: mean ± standard deviation over the seeds")


def tuning_table(data: Data) -> TableData:
    """Return the grid of learning rates."""
    rows: list[list[Cell]] = [[r["network"], r["optimizer"], r["lr"], r["validation"]] for r in data["tuning"]]
    return TableData(("network", "optimiser", "lr of AdamW", "validation normalized_mse"), rows, "Learning rates tried")


def sample_table(data: Data, family: str) -> TableData:
    """Return the error against the size of the training set; the last column is fresh systems throughout."""
    counts = sorted({row["count"] for row in data["small"]})
    rows: list[list[Cell]] = []
    for network in distinct(data["small"], "network"):
        found = {row["count"]: row["mse"] for row in where(data["small"], network=network)}
        first = where(data["runs"], family=family, network=network)[0]
        rows.append([network, *(found.get(count) for count in counts), first["mse"]])
    return TableData(
        ("network", *map(str, counts), "fresh"), rows, f"mse against the size of the training set, {family}"
    )


def extrapolated(data: Data) -> float:
    """Return the normalized_mse at the full length of the paper's recipe by a power law through its runs."""
    flops = [run["flops"] for run in data["paper"]]
    scores = [number(run["normalized_mse"]) for run in data["paper"]]
    slope, level = np.polyfit(np.log(flops), np.log(scores), 1)
    return float(np.exp(level + slope * np.log(data["full_flops"])))


def paper_table(data: Data) -> TableData:
    """Return the paper's recipe at its lengths, and the extrapolation."""
    rows: list[list[Cell]] = [
        [str(r["steps"]), r["flops"], r["mse"], r["normalized_mse"], r["seconds"]] for r in data["paper"]
    ]
    rows.append(["full, extrapolated", data["full_flops"], None, extrapolated(data), None])
    return TableData(("steps", "operations", "mse", "normalized_mse", "seconds"), rows, "The paper's recipe, shortened")


# ---------------------------------------------------------------- outcomes


def outcomes(data: Data) -> dict[str, Outcome]:
    """Return how the token head compares with recurrent networks, the targets, and what data and length are worth."""
    families = distinct(data["runs"], "family")
    found = {
        f"spectral.beats/{family}, {other}": beats(data, family, other, goal)
        for family in families
        for other, goal in GOALS.items()
        if other in data["times"]
    }
    if compared := [network for network in (BILSTM, BIGRU) if network in data["times"]]:
        found |= {f"spectral.beats-bidirectional/{family}": beats_best(data, family, compared) for family in families}
    if families[0] == TARGET_FAMILY:
        for network, target in MSE_GOALS.items():
            value = mean(where(data["runs"], family=TARGET_FAMILY, network=network), "mse")
            found[f"spectral.target/{network}"] = outcome(
                met(value <= target), family=TARGET_FAMILY, network=network, mse=value, target=target
            )
    for family in families:
        means = {network: mean(where(data["runs"], family=family, network=network), "mse") for network in data["times"]}
        best = min(means, key=means.__getitem__)
        direct = min((r["mse"], r["method"]) for r in where(data["classical"], family=family))
        found[f"spectral.best/{family}"] = outcome(
            Verdict.MEASURED, family=family, network=best, mse=means[best], classical=direct[1], classical_mse=direct[0]
        )
    last = data["paper"][-1]
    found["spectral.paper-recipe"] = outcome(
        Verdict.MEASURED, steps=last["steps"], normalized_mse=number(last["normalized_mse"]), flops=last["flops"],
        full_flops=data["full_flops"], extrapolated=extrapolated(data),
    )  # fmt: skip
    for network in distinct(data["small"], "network"):
        counts = {row["count"]: number(row["mse"]) for row in where(data["small"], network=network)}
        fresh = number(where(data["runs"], family=families[0], network=network)[0]["mse"])
        ratios = {str(count): value / fresh for count, value in sorted(counts.items())}
        found[f"spectral.fixed-set/{network}"] = outcome(Verdict.MEASURED, network=network, fresh=fresh, **ratios)
    return found


def beats(data: Data, family: str, other: str, goal: float) -> Outcome:
    """Return whether the token head's mse is below that of a recurrent network by the paper's ratio."""
    ours, theirs = (where(data["runs"], family=family, network=name) for name in (TOKEN, other))
    ratios = [number(a["mse"]) / number(b["mse"]) for a, b in zip(ours, theirs, strict=True)]
    ratio = mean(ours, "mse") / mean(theirs, "mse")
    verdict = Verdict.PARTLY_REPRODUCED if ratio < 1 else Verdict.NOT_REPRODUCED
    return outcome(
        Verdict.SMALLER_SCALE if ratio <= goal else verdict, family=family, other=other, mse=mean(ours, "mse"),
        other_mse=mean(theirs, "mse"), ratio=ratio, ratio_min=min(ratios), ratio_max=max(ratios), paper=goal,
    )  # fmt: skip


def beats_best(data: Data, family: str, networks: Sequence[str]) -> Outcome:
    """Return whether the token head beats the best of the networks that the paper does not compare with."""
    means = {network: mean(where(data["runs"], family=family, network=network), "mse") for network in networks}
    best = min(means, key=means.__getitem__)
    ratio = mean(where(data["runs"], family=family, network=TOKEN), "mse") / means[best]
    verdict = Verdict.HOLDS if ratio < 1 else Verdict.FAILS
    return outcome(verdict, family=family, network=best, mse=means[best], ratio=ratio)


def bidirectional_sentence(found: Outcome) -> str:
    """Say whether the token head beats recurrent networks in two directions."""
    better = "token head" if found.verdict == Verdict.HOLDS else "recurrent network"
    return (
        "{family}: {network}, which is not in the paper, has mse {mse:.2g}; the token head's is {ratio:.2g} of that: "
        "the "
        f"{better} is better at this length."
    ).format(**found.numbers)


def fixed_set_sentence(found: Outcome) -> str:
    """Say what a fixed training set costs in accuracy."""
    network, fresh, *ratios = found.numbers.items()
    texts = ", ".join(f"{ratio:.2g} times that with {count}" for count, ratio in ratios)
    return f"Fixed training sets, {network[1]}: mse {fresh[1]:.2g} with fresh systems, {texts}."


SENTENCES: Sentences = {
    "spectral.beats": "{family}: the token head's mse is {ratio:.2g} of that of {other} ({mse:.2g} against "
    "{other_mse:.2g}, over the seeds {ratio_min:.2g} to {ratio_max:.2g}; the paper: {paper:.2g}): {verdict}.",
    "spectral.beats-bidirectional": bidirectional_sentence,
    "spectral.target": "{family}: {network}, mse {mse:.2g}; target {target:.2g}, {verdict}.",
    "spectral.best": "{family}: the best bare network is {network} with mse {mse:.2g}; the best classical method is "
    "{classical} with {classical_mse:.2g}.",
    "spectral.paper-recipe": "The paper's recipe, {steps} steps instead of the full length: normalized_mse "
    "{normalized_mse:.2g} after {flops:.2g} operations. Extrapolated to the full {full_flops:.2g} operations by a "
    "power law, which nothing guarantees: {extrapolated:.2g}.",
    "spectral.fixed-set": fixed_set_sentence,
}
