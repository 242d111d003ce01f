"""Tables and sentences of `studies.spectral`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from algebraformer.reporting import Cell, TableData
from studies.harness.statistics import deviation
from studies.harness.study import distinct, number, where

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


def family_table(data: Data, family: str, paper: Mapping[str, float]) -> TableData:
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
    if family == "diffusion":
        rows += [[f"the paper's {name}", f"{mse:.2e}", *[None] * 9] for name, mse in paper.items()]
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


def baseline_sentence(data: Data, family: str, token: str, baseline: str, goal: float) -> str:
    """Say whether the token head beats a recurrent network by the paper's ratio."""
    ours, theirs = (
        where(data["runs"], family=family, network=token),
        where(data["runs"], family=family, network=baseline),
    )
    ratios = [number(a["mse"]) / number(b["mse"]) for a, b in zip(ours, theirs, strict=True)]
    ratio = mean(ours, "mse") / mean(theirs, "mse")
    text = f"{family}: the token head's mse is {ratio:.2g} of that of {baseline} ({mean(ours, 'mse'):.2g} against "
    text += f"{mean(theirs, 'mse'):.2g}, over the seeds {min(ratios):.2g} to {max(ratios):.2g}; the paper: {goal:.2g})"
    if ratio <= goal:
        return f"{text}: reproduced at smaller scale."
    return f"{text}: {'better, but not by as much' if ratio < 1 else 'not reproduced'}."


def beyond_sentence(data: Data, family: str, token: str, networks: Sequence[str]) -> str:
    """Say how the best of the networks that the paper does not compare with stands to the token head."""
    means = {network: mean(where(data["runs"], family=family, network=network), "mse") for network in networks}
    best = min(means, key=means.__getitem__)
    ratio = mean(where(data["runs"], family=family, network=token), "mse") / means[best]
    return (
        f"{family}: not in the paper, {best} has mse {means[best]:.2g}; the token head's is {ratio:.2g} of that: "
        f"the {'token head' if ratio < 1 else 'recurrent network'} is better at this length."
    )


def goal_sentence(data: Data, family: str, network: str, goal: float) -> str:
    """Say whether a network's mse meets a target."""
    value = mean(where(data["runs"], family=family, network=network), "mse")
    return f"{family}: {network}, mse {value:.2g}; the target of {goal:.2g} is {'met' if value <= goal else 'missed'}."


def sample_sentences(data: Data, family: str) -> list[str]:
    """Say what fresh data is worth."""
    lines = []
    for network in distinct(data["small"], "network"):
        found = {row["count"]: number(row["mse"]) for row in where(data["small"], network=network)}
        fresh = number(where(data["runs"], family=family, network=network)[0]["mse"])
        texts = [f"{value / fresh:.2g} times with {count}" for count, value in sorted(found.items())]
        lines.append(f"Fixed training sets, {network}: the mse of fresh systems, {fresh:.2g}, is {', '.join(texts)}.")
    return lines


def verdict(
    data: Data,
    families: Sequence[str],
    token: str,
    goals: Mapping[str, float],
    mse_goals: Mapping[str, float],
    beyond: Sequence[str],
) -> list[str]:
    """Return plain sentences; `beyond` are networks that the paper does not compare with."""
    lines = [
        baseline_sentence(data, family, token, baseline, goal)
        for family in families
        for baseline, goal in goals.items()
        if baseline in data["times"]
    ]
    if compared := [network for network in beyond if network in data["times"]]:
        lines += [beyond_sentence(data, family, token, compared) for family in families]
    lines += [goal_sentence(data, families[0], network, goal) for network, goal in mse_goals.items()]
    for family in families:
        means = {network: mean(where(data["runs"], family=family, network=network), "mse") for network in data["times"]}
        best = min(means, key=means.__getitem__)
        direct = min((r["mse"], r["method"]) for r in where(data["classical"], family=family))
        lines.append(
            f"{family}: the best bare network is {best} with mse {means[best]:.2g}; the best classical way is "
            f"{direct[1]} with {direct[0]:.2g}."
        )
    last = data["paper"][-1]
    lines.append(
        f"The paper's recipe, {last['steps']} steps instead of the full length: normalized_mse "
        f"{number(last['normalized_mse']):.2g} after {last['flops']:.2g} operations. Extrapolated to the full "
        f"{data['full_flops']:.2g} operations by a power law, which nothing guarantees: {extrapolated(data):.2g}."
    )
    return lines + sample_sentences(data, families[0])
