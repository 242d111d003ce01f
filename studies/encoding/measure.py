"""What a token should be: columns, rows, columns with all of b, or single entries, at equal cost; and what it costs.

Accuracy. The paper's network at a small size learns the diffusion family with each encoding, on fresh systems, with as
many parameters (the encodings differ in the embedding and in positions alone) and as many floating-point operations
of training: those of `studies.harness.flops` and, since they are much of the work on n^2 tokens, those of the attention
scores. Every step has the same number of tokens, so entry tokens get smaller batches, not fewer steps alone: with the
batches of the others they would take a few dozen steps. Each encoding gets the same grid of learning rates and chooses
by the validation set, with the first seed; the other seeds follow with the rate that was chosen, and the scores are of
another set. The same is done once more at an equal number of systems seen: the encodings with n tokens with the steps
and the batch of the entry tokens, at a fraction of the operations.

Memory and time. One forward and backward pass over n, see `studies.harness.memory`, with PyTorch's kernel that stores
the attention scores and with those that do not. Exponents are fitted to the three largest sizes of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from algebraformer.metrics import score
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, finite, outcome
from algebraformer.training import Recipe
from algebraformer.training.data import VALIDATION_SEED
from studies.harness.flops import flops as training_flops
from studies.harness.flops import steps_for
from studies.harness.memory import KERNELS, exponent, one_pass, peak_bytes, score_bytes
from studies.harness.runs import run_once
from studies.harness.statistics import comparison, deviation, difference, mean_in_words, other_in_words
from studies.harness.study import FULL_SIZE, MAX_LEARNED_MSE, where
from studies.harness.timing import in_turn

LABELS = {
    "column": "column i and b_i (the paper's)",
    "row": "row i and b_i",
    "column-b": "column i and all of b",
    "entry": "entry ij and b_i",
}
ENCODINGS = ("column", "row", "column-b", "entry")
COMPUTE, SYSTEMS = "equal compute", "equal systems"
PAPER: dict[str, int] = {"column": 2, "entry": 4}
"""Exponents of n that the paper states for the memory."""
EXPONENT_TOLERANCE = 0.5
"""An exponent within this of the paper's counts as the paper's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and measured."""

    recipe: Recipe
    """Network and family; encoding, steps, batch, rates and seed are replaced."""
    tokens: int
    """Tokens in a batch."""
    flops: float
    """Operations of one training."""
    rates: tuple[float, ...]
    """Peak learning rates of AdamW to choose from; Muon's is ten times that."""
    seeds: tuple[int, ...]
    """The first one chooses the rate."""
    network: ModelConfig
    """Network whose pass is measured."""
    sizes: tuple[int, ...]
    """Sizes n of the pass."""
    further: tuple[int, ...]
    """More sizes, for column tokens alone."""
    batch_size: int
    """Systems in a pass."""
    memory: int
    """Bytes that the attention scores of a pass may take; what takes more is left out."""
    rounds: int
    """Rounds whose median time is reported."""


PASS_NETWORK = ModelConfig(n_layer=2, n_head=2, n_embd=32)
"""The network of the benchmark."""


def plan(recipe: Recipe, flops: float, **changes: Any) -> Plan:
    """Return the plan of the presets cpu and paper."""
    about: dict[str, Any] = {
        "tokens": 1_024,
        "rates": (5e-4, 1e-3, 3e-3),
        "seeds": (0, 1, 2),
        "network": PASS_NETWORK,
        "sizes": (4, 8, 16, 24, 32, 64),
        "further": (128, 256),
        "batch_size": 8,
        "memory": 2**30,
        "rounds": 5,
    }
    return Plan(recipe=recipe, flops=flops, **(about | changes))


PRESETS = {
    "quick": plan(
        Recipe(model=ModelConfig(n=8, n_layer=2, n_head=2, n_embd=32)),
        5e9,
        tokens=256,
        rates=(1e-3, 3e-3),
        seeds=(0,),
        sizes=(4, 6, 8),
        further=(12,),
        memory=2**18,
        rounds=2,
    ),
    "cpu": plan(Recipe(model=ModelConfig(n=16, n_layer=3, n_head=4, n_embd=64)), 1.8e12),
    "paper": plan(Recipe(model=ModelConfig(n=16)), 2e16, tokens=4_096, rates=(1e-4, 3e-4, 1e-3), rounds=15),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, measure passes, then put everything together."""
    sizes = plan.sizes + plan.further
    trainings = (2 * len(ENCODINGS) - 1) * (len(plan.rates) + len(plan.seeds) - 1)
    task = bar.add_task("encoding", total=trainings + len(sizes))
    runs: list[dict[str, Any]] = []
    for series in (COMPUTE, SYSTEMS):
        for encoding in ENCODINGS:
            if series == COMPUTE:
                recipe = equal_compute(plan, encoding)
            elif encoding != "entry":
                recipe = equal_systems(plan, encoding)
            else:
                continue  # they are what the others are equal to
            name = folder / f"{series.replace(' ', '-')}-{encoding}"
            found = tuned(plan, recipe, name, lambda: bar.advance(task))
            runs += [{"series": series, "encoding": encoding, **one} for one in found]
    records: list[dict[str, Any]] = []
    for n in sizes:
        records += measure(plan, n)
        bar.advance(task)
    return summary(plan, runs, records)


# ---------------------------------------------------------------- accuracy


def cost(recipe: Recipe) -> float:
    """Return the floating-point operations of a training, attention scores included."""
    with torch.device("meta"):  # shapes alone
        attention = Algebraformer(recipe.model).attention_flops()
    return sum(training_flops(recipe).values()) + float(attention * recipe.steps * recipe.batch_size)


def equal_compute(plan: Plan, encoding: str) -> Recipe:
    """Return the recipe with this encoding whose cost is the plan's, to one step."""
    model = plan.recipe.model.with_head(encoding=encoding)
    recipe = dataclasses.replace(
        plan.recipe, model=model, batch_size=max(1, plan.tokens // model.n_token), seed=plan.seeds[0]
    )
    steps = steps_for(lambda steps: cost(dataclasses.replace(recipe, steps=steps)), plan.flops)
    return dataclasses.replace(recipe, steps=steps)


def equal_systems(plan: Plan, encoding: str) -> Recipe:
    """Return the recipe with this encoding that sees the systems of the entry tokens in as many steps."""
    recipe = equal_compute(plan, "entry")
    return dataclasses.replace(recipe, model=recipe.model.with_head(encoding=encoding))


def tuned(plan: Plan, recipe: Recipe, name: Path, advance: Callable[[], None]) -> list[dict[str, Any]]:
    """Train with every rate and the first seed, then with the best rate and the other seeds."""
    unseen = recipe.problem_family().sample(recipe.validation_systems, VALIDATION_SEED)

    def trained(rate: float, seed: int) -> dict[str, Any]:
        changed = dataclasses.replace(recipe, lr=rate, muon_lr=10 * rate, seed=seed)
        done = run_once(changed, name.with_name(f"{name.name}-rate{rate:g}-seed{seed}"))
        validation = score(done.solver.network, unseen)["normalized_mse"]
        advance()
        return {
            "rate": rate,
            "seed": seed,
            "steps": recipe.steps,
            "batch_size": recipe.batch_size,
            "flops": cost(recipe),
            "parameters": done.solver.network.parameter_count(),
            "validation": finite(validation),
            "normalized_mse": finite(done.normalized_mse),
            "seconds": done.seconds,
        }

    grid = [trained(rate, plan.seeds[0]) for rate in plan.rates]
    best = min(grid, key=lambda one: float(one["validation"]))
    others = [trained(best["rate"], seed) for seed in plan.seeds[1:]]
    return [one | {"chosen": one["rate"] == best["rate"]} for one in grid + others]


def scores(runs: Sequence[dict[str, Any]], series: str, encoding: str) -> list[float]:
    """Return the normalized_mse of the runs with the chosen rate, one for each seed."""
    return [float(one["normalized_mse"]) for one in chosen(runs, series, encoding)]


def chosen(runs: Sequence[dict[str, Any]], series: str, encoding: str) -> list[dict[str, Any]]:
    """Return the runs of an encoding with the chosen rate; entry tokens have the same ones in both series."""
    series = COMPUTE if encoding == "entry" else series
    return where(runs, series=series, encoding=encoding, chosen=True)


# ---------------------------------------------------------------- memory and time


def measure(plan: Plan, n: int) -> list[dict[str, Any]]:
    """Return peak memory and time of a pass for n unknowns; the times are taken in turn."""
    records, calls = [], {}
    for encoding in PAPER:
        config = dataclasses.replace(plan.network, n=n).with_head(encoding=encoding)
        for kernel, backends in KERNELS.items():
            too_large = kernel == "math" and score_bytes(config, plan.batch_size) > plan.memory
            if too_large or (encoding == "entry" and n in plan.further):
                continue
            peak = peak_bytes(config, backends, plan.batch_size)
            records.append({"n": n, "encoding": encoding, "kernel": kernel, "peak_bytes": peak})
            calls[f"{encoding} {kernel}"] = one_pass(config, backends, plan.batch_size)
    seconds = in_turn(calls, plan.rounds)
    return [one | {"seconds": seconds[f"{one['encoding']} {one['kernel']}"] / plan.batch_size} for one in records]


def growth(records: Sequence[dict[str, Any]], encoding: str, kernel: str, what: str) -> dict[int, float]:
    """Return peak_bytes or seconds by n."""
    return {one["n"]: one[what] for one in where(records, encoding=encoding, kernel=kernel)}


def fitted(values: dict[int, float]) -> dict[str, Any]:
    """Return the exponent of n over the three largest sizes, and their range."""
    sizes = sorted(values)[-3:]
    return {"from": sizes[0], "to": sizes[-1], "exponent": exponent({n: values[n] for n in sizes})}


# ---------------------------------------------------------------- tables and outcomes


def summary(plan: Plan, runs: list[dict[str, Any]], records: list[dict[str, Any]]) -> Report:
    """Put runs and measurements into tables and outcomes."""
    n, seeds = plan.recipe.model.n, ", ".join(map(str, plan.seeds))
    fits = [
        {"encoding": encoding, "kernel": kernel, "what": what, **fitted(growth(records, encoding, kernel, what))}
        for what in ("peak_bytes", "seconds")
        for kernel in KERNELS
        for encoding in PAPER
    ]
    main = TableData(
        ("token i", "tokens", "parameters", "rate", "systems seen", "steps", "operations", "normalized_mse, mean",
         "standard deviation", "best", "worst", "seconds"),
        [accuracy_row(plan, runs, COMPUTE, encoding) for encoding in ENCODINGS],
        f"Equal compute, diffusion, n = {n}, seeds {seeds}",
    )  # fmt: skip
    others = [accuracy_row(plan, runs, SYSTEMS, encoding) for encoding in ENCODINGS]
    again = TableData(main.columns, others, f"Equal number of systems seen, diffusion, n = {n}, seeds {seeds}")
    tuning = TableData(
        ("token i", "at", *(f"rate {rate:g}" for rate in plan.rates), "chosen"),
        [tuning_row(plan, runs, series, encoding) for series in (COMPUTE, SYSTEMS) for encoding in ENCODINGS
         if (series, encoding) != (SYSTEMS, "entry")],
        f"normalized_mse on the validation set by AdamW's rate (Muon's is ten times that), seed {plan.seeds[0]}",
    )  # fmt: skip
    kernels = [(encoding, kernel) for encoding in PAPER for kernel in KERNELS]
    sizes = sorted({one["n"] for one in records})
    tables = [
        TableData(
            ("n", *(f"{encoding}, {kernel} attention" for encoding, kernel in kernels)),
            [[size, *(scaled(growth(records, *pair, what).get(size), factor) for pair in kernels)] for size in sizes],
            title,
        )
        for what, factor, title in (
            ("peak_bytes", 1e-6, f"Peak memory of one forward and backward pass, MB for {plan.batch_size} systems"),
            ("seconds", 1e3, f"Time of one forward and backward pass, ms per system, {plan.batch_size} at once"),
        )
    ]
    exponents = TableData(
        ("tokens", "attention", "of", "n from", "to", "exponent of n", "in the paper"),
        [[one["encoding"], one["kernel"], "memory" if one["what"] == "peak_bytes" else "time", one["from"], one["to"],
          one["exponent"], PAPER[one["encoding"]] if one["what"] == "peak_bytes" else None] for one in fits],
        "Fitted growth",
    )  # fmt: skip
    data = {"n": n, "labels": LABELS, "batch_size": plan.batch_size, "runs": runs, "records": records, "fits": fits}
    found = outcomes(data)
    return Report((main, again, tuning, *tables, exponents), found, conclusions(found, SENTENCES), data)


def scaled(value: float | None, factor: float) -> Cell:
    """Return value times factor, None where nothing was measured."""
    return None if value is None else factor * value


def accuracy_row(plan: Plan, runs: list[dict[str, Any]], series: str, encoding: str) -> list[Cell]:
    """Return the row of one encoding."""
    found, mine = scores(runs, series, encoding), chosen(runs, series, encoding)
    first, tokens = mine[0], plan.recipe.model.with_head(encoding=encoding).n_token
    return [
        LABELS[encoding], tokens, first["parameters"], first["rate"], first["steps"] * first["batch_size"],
        first["steps"], first["flops"], float(np.mean(found)), deviation(found), min(found), max(found),
        float(np.median([one["seconds"] for one in mine])),
    ]  # fmt: skip


def tuning_row(plan: Plan, runs: list[dict[str, Any]], series: str, encoding: str) -> list[Cell]:
    """Return the validation scores of one encoding."""
    mine = where(runs, series=series, encoding=encoding, seed=plan.seeds[0])
    by_rate = {one["rate"]: one["validation"] for one in mine}
    best = next(one["rate"] for one in mine if one["chosen"])
    return [LABELS[encoding], series, *(by_rate[rate] for rate in plan.rates), best]


def outcomes(data: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return what follows from the scores of the encodings, and from how memory and time grow."""
    runs, n = data["runs"], data["n"]
    by = {encoding: scores(runs, COMPUTE, encoding) for encoding in ENCODINGS}
    numbers, first = comparison(by["column"], by["entry"]), chosen(runs, COMPUTE, "column")[0]
    if not numbers["mean"] < MAX_LEARNED_MSE:
        verdict = Verdict.INCONCLUSIVE
    elif numbers["side"] == "higher":
        verdict = Verdict.NOT_REPRODUCED
    else:
        verdict = Verdict.REPRODUCED if first["parameters"] >= FULL_SIZE else Verdict.SMALLER_SCALE
    seen, again = chosen(runs, COMPUTE, "entry")[0], chosen(runs, SYSTEMS, "column")[0]
    found = {
        "encoding.columns-suffice": Outcome(verdict, numbers | {"n": n, "flops": first["flops"]}),
        "encoding.equal-systems": Outcome(
            Verdict.MEASURED,
            comparison(scores(runs, SYSTEMS, "column"), by["entry"])
            | {"systems": seen["steps"] * seen["batch_size"], "cost": seen["flops"] / again["flops"]},
        ),
    }
    for encoding in ("row", "column-b"):
        numbers = comparison(by[encoding], by["column"]) | {"tokens": LABELS[encoding]}
        found[f"encoding.other-tokens/{encoding}"] = Outcome(Verdict.MEASURED, numbers)
    for kernel in KERNELS:
        found[f"encoding.memory/{kernel}"] = memory(data, kernel, "peak_bytes")
        found[f"encoding.time/{kernel}"] = memory(data, kernel, "seconds")
    return found


def memory(data: Mapping[str, Any], kernel: str, what: str) -> Outcome:
    """Return how memory or time grow with n; of the memory whether it is n^2 instead of n^4.

    The paper's exponents are upper bounds at any n: column tokens may grow more slowly, entry tokens may not.
    """
    powers = {one["encoding"]: one for one in where(data["fits"], kernel=kernel, what=what)}
    column, entry = powers["column"], powers["entry"]
    mine, theirs = (growth(data["records"], encoding, kernel, what) for encoding in PAPER)
    n = max(set(mine) & set(theirs))
    verdict = claim(column["exponent"], entry["exponent"]) if what == "peak_bytes" else Verdict.MEASURED
    return outcome(
        verdict, kernel=kernel, column=column["exponent"], column_from=column["from"], column_to=column["to"],
        entry=entry["exponent"], entry_from=entry["from"], entry_to=entry["to"], n=n, ratio=theirs[n] / mine[n],
    )  # fmt: skip


def claim(column: float, entry: float) -> Verdict:
    """Return whether these exponents of the memory are those of the paper."""
    grows = entry >= PAPER["entry"] - EXPONENT_TOLERANCE and column <= PAPER["column"] + EXPONENT_TOLERANCE
    return Verdict.REPRODUCED if grows else Verdict.NOT_REPRODUCED


def columns_sentence(found: Outcome) -> str:
    """Say whether column tokens keep the information."""
    return (
        f'"Column-wise representation preserves sufficient information": {found.verdict}. With {{flops:.2g}} '
        f"operations of training each, at n = {{n}}, the normalized_mse of column tokens is "
        f"{mean_in_words(found.numbers)}, that of entry tokens {other_in_words(found.numbers)}: "
        f"{difference(found.numbers)}."
    ).format(**found.numbers)


def growth_sentence(start: str) -> Callable[[Outcome], str]:
    """Return the sentence on the growth of memory or time."""
    how = {"math": "attention scores stored", "default": "attention scores not stored"}
    return lambda found: (
        f"{start}, {how[found.numbers['kernel']]}: "
        f"{'' if found.verdict == Verdict.MEASURED else f'{found.verdict}. '}Column tokens grow as n^{{column:.2g}} "
        "(n = {column_from} to {column_to}), entry tokens as n^{entry:.2g} (n = {entry_from} to {entry_to}); at n = "
        "{n} entry tokens take {ratio:.2g} times as much."
    ).format(**found.numbers)


SENTENCES: Sentences = {
    "encoding.columns-suffice": columns_sentence,
    "encoding.equal-systems": lambda found: (
        f"With {{systems}} systems seen each: {mean_in_words(found.numbers)} against {other_in_words(found.numbers)}, "
        f"{difference(found.numbers)}; entry tokens take {{cost:.2g}} times the operations for them."
    ).format(**found.numbers),
    "encoding.other-tokens": lambda found: (
        f"Tokens of {found.numbers['tokens']}: {mean_in_words(found.numbers)} at equal compute, "
        f"{difference(found.numbers)} than the paper's column tokens."
        if found.numbers["side"] != "as high"
        else f"Tokens of {found.numbers['tokens']}: {mean_in_words(found.numbers)} at equal compute; the difference "
        f"from the "
        "paper's column tokens is within the spread of the seeds."
    ),
    "encoding.memory": growth_sentence('Memory, "n^2 instead of n^4"'),
    "encoding.time": growth_sentence("Time"),
}
