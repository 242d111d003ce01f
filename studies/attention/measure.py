"""Which attention the paper's network needs, and what its heads look at.

The paper says "decoder-only" and leaves open whether token i may attend to later tokens, and whether tokens know their
position. A small network on column tokens learns the diffusion family in the four ways there are, with equal steps and
several seeds.

Then the heads. In a network that attends in both directions and knows positions, entry (i, j) of the map of a head is
the weight that token i gives to token j, softmax(q k^T), averaged over a test set. For each head:

near, mirrored
    Mean mass in a row within two tokens of j = i, and within two tokens of the mirrored position j = n + 1 - i.
boundary
    Mean mass in a row on the two first and two last columns.
parity
    Mean size of the difference, in a row for a single system, of the masses on even and on odd columns: at least
    0.5 if a token takes three quarters or more from one kind. Columns of Chebyshev matrices alternate in sign.
entropy
    Mean entropy of a row for a single system, in units of that of uniform attention, log n. 1 is looking everywhere
    alike.
differs
    Entropy of a row of the averaged map less that mean, in the same units: 0 if the head looks at the same tokens
    whatever the system is.
to b, to |b|, to column, to spread of b
    Correlation over the columns j of the mass that falls on j from all i: with b_j, |b_j| and the size of column j, all
    as the network reads them (z-scored), within each system, averaged over the systems; and of the averaged mass with
    the spread of b_j / s_b over the systems.

The tables compare them with uniform attention and with the same network before training: what these show is not
learned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.models.transformer import Attention, Block, Transformer
from algebraformer.problems import Systems
from algebraformer.reporting import Cell, Outcome, Report, Sentences, TableData, Verdict, conclusions, finite, outcome
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED, to_tensors
from studies.harness.runs import folder_name, run_once
from studies.harness.statistics import comparison, deviation, difference, mean_in_words, other_in_words
from studies.harness.study import where

VARIANTS = {
    "both directions, positions": (False, True),
    "both directions, no positions": (False, False),
    "causal, positions": (True, True),
    "causal, no positions": (True, False),
}
"""Mask and positions."""
MAIN = "both directions, positions"
"""The variant whose heads are looked at."""
REACH = 2
"""Tokens on either side that count as near."""
EDGE = 2
"""Tokens at either end that count as boundary."""
PREFERENCE = 2.0
"""A head is said to look somewhere if its mass there is this many times that of uniform attention."""
ONE_SIDED = 0.5
"""A head is said to tell even from odd columns if its parity is at least this."""
STRONG = 0.3
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
CHUNK = 64
"""Systems whose maps are in memory at once."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and looked at."""

    recipe: Recipe
    """Network and training; mask, positions and seed are replaced."""
    seeds: tuple[int, ...]
    systems: int
    """Size of the test set that maps are averaged over."""


PRESETS = {
    "quick": Plan(
        recipe=Recipe(model=ModelConfig(n=12, n_layer=2, n_head=2, n_embd=32), steps=150, batch_size=32, lr=3e-3),
        seeds=(0,),
        systems=64,
    ),
    "cpu": Plan(
        recipe=Recipe(model=ModelConfig(n=64, n_layer=3, n_head=4, n_embd=64), steps=1_100, batch_size=32),
        seeds=(0, 1, 2),
        systems=500,
    ),
    "paper": Plan(recipe=Recipe(steps=50_000, lr=3e-4, muon_lr=3e-3), seeds=(0, 1, 2), systems=1_000),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then look at the heads."""
    task = bar.add_task("attention", total=len(VARIANTS) * len(plan.seeds))
    systems = plan.recipe.problem_family().sample(plan.systems, TEST_SEED)
    runs: list[dict[str, Any]] = []
    maps: list[dict[str, Any]] = []
    figure: dict[str, Any] = {}
    for name, (causal, positions) in VARIANTS.items():
        model = dataclasses.replace(plan.recipe.model, causal=causal, positions=positions)
        for seed in plan.seeds:
            recipe = dataclasses.replace(plan.recipe, model=model, seed=seed)
            trained = run_once(recipe, folder / folder_name(name, f"seed{seed}"))
            scores = trained.solver.info.scores
            runs.append(
                {
                    "variant": name,
                    "seed": seed,
                    "normalized_mse": finite(trained.normalized_mse),
                    "relative_error_median": scores.get("relative_error_median"),
                    "parameters": trained.solver.model.parameter_count(),
                    "seconds": trained.seconds,
                }
            )
            if name == MAIN:
                found = look(trained.solver.model, systems)
                before = look(untrained(trained.solver.model, seed), systems)
                maps.append({"seed": seed, "heads": found.record(), "before": before.record()})
                figure = figure or {"seed": seed, "maps": as_text(found.average)}
            bar.advance(task)
    return summary(plan, runs, maps, figure)


def untrained(model: Algebraformer, seed: int) -> Algebraformer:
    """Return the network as it was before its training with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Algebraformer(model.config)
    fresh.scaler.load_state_dict(model.scaler.state_dict())
    return fresh.eval()


# ---------------------------------------------------------------- maps


@torch.inference_mode()
def attention_maps(model: Algebraformer, systems: Systems) -> FloatArray:
    """Return the attention weights of every head for every system.

    Parameters
    ----------
    model : Algebraformer
        A Transformer with a token head.
    systems : Systems

    Returns
    -------
    ndarray, shape (B, n_layer, n_head, T, T), float64
        Row i says how much token i takes from each token j; rows add up to one.

    Raises
    ------
    ConfigurationError
        The network has no attention, or does not read b.
    """
    if not isinstance(model.body, Transformer) or model.config.head != "token":
        expected = "attention maps are those of a transformer with a token head"
        raise ConfigurationError(f"{expected}, received {model.config.architecture} with head {model.config.head}")
    A, b, _ = model.scaler(*to_tensors(systems)[:2])
    h, found = model.tokens(A.float(), b.float()), []
    for block in model.body.blocks:
        attention = cast(Attention, block.attention)
        found.append(attention.weights(cast(Block, block).norm_attention(h)))
        h = block(h)
    return torch.stack(found, dim=1).double().numpy()


@dataclasses.dataclass(frozen=True)
class Heads:
    """What the heads of a network do on a set of B systems."""

    average: FloatArray
    """Averaged maps, shape (n_layer, n_head, n, n)."""
    measures: dict[str, FloatArray]
    """`MEASURES` by name, each of shape (n_layer, n_head)."""

    def record(self) -> dict[str, Any]:
        """Return the measures as plain JSON values: lists over layers of lists over heads."""
        return {name: values.tolist() for name, values in self.measures.items()}


def look(model: Algebraformer, systems: Systems) -> Heads:
    """Return averaged maps and measures of all heads."""
    averages, entropies, masses, parities = [], [], [], []
    sides = (-1.0) ** np.arange(model.config.n)
    for start in range(0, len(systems), CHUNK):
        maps = attention_maps(model, systems[start : start + CHUNK])  # (b, n_layer, n_head, n, n)
        averages.append(maps.sum(axis=0))
        entropies.append(entropy(maps).sum(axis=0))
        parities.append(np.abs(maps @ sides).mean(axis=-1).sum(axis=0))
        masses.append(maps.mean(axis=-2))  # (b, n_layer, n_head, n)
    count, n = len(systems), model.config.n
    average, single, parity = (sum(parts) / count for parts in (averages, entropies, parities))
    mass = np.concatenate(masses)
    A, b, _ = to_tensors(systems)
    with torch.inference_mode():
        A_z, b_z, _ = (part.numpy() for part in model.scaler(A, b))
        b_scaled = model.scaler.scaled(A, b)[1].numpy()
    i = np.arange(n)
    size = np.sqrt(np.mean(A_z**2, axis=1))  # (B, n), that of each column
    measures = {
        "near": share(average, np.abs(i[:, None] - i) <= REACH),
        "mirrored": share(average, np.abs(i[:, None] + i - (n - 1)) <= REACH),
        "boundary": share(average, np.broadcast_to((i < EDGE) | (i >= n - EDGE), (n, n))),
        "parity": parity,
        "entropy": single,
        "differs": entropy(average) - single,
        "to b": correlation(mass, b_z[:, None, None]).mean(axis=0),
        "to |b|": correlation(mass, np.abs(b_z)[:, None, None]).mean(axis=0),
        "to column": correlation(mass, size[:, None, None]).mean(axis=0),
        "to spread of b": correlation(mass.mean(axis=0), b_scaled.std(axis=0)),
    }
    return Heads(average, measures)


def as_text(average: FloatArray) -> list[list[list[str]]]:
    """Return maps in multiples of uniform attention, a text for every row, which keeps the file small."""
    times = average * average.shape[-1]
    return [[[" ".join(f"{v:.3g}" for v in row) for row in head] for head in layer] for layer in times]


def share(average: FloatArray, where: NDArray[np.bool_]) -> FloatArray:
    """Return the mean mass in a row of maps (..., n, n) that lies where a mask (n, n) is true."""
    return np.asarray((average * where).sum(axis=(-2, -1)) / average.shape[-1])


def entropy(maps: FloatArray) -> FloatArray:
    """Return the mean entropy of the rows of maps (..., n, n), in units of log n."""
    terms = np.where(maps > 0, maps * np.log(np.where(maps > 0, maps, 1.0)), 0.0)
    return np.asarray(-terms.sum(axis=-1).mean(axis=-1) / np.log(maps.shape[-1]))


def correlation(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return the correlation of u (..., n) and v (..., n) over the last axis, 0 where one of them is constant."""
    u, v = u - u.mean(axis=-1, keepdims=True), v - v.mean(axis=-1, keepdims=True)
    size = np.sqrt((u**2).sum(axis=-1) * (v**2).sum(axis=-1))
    constant = size <= np.finfo(float).tiny
    return np.asarray(np.where(constant, 0.0, (u * v).sum(axis=-1) / np.where(constant, 1.0, size)))


def uniform(n: int) -> dict[str, float]:
    """Return the shares of uniform attention among n tokens."""
    i = np.arange(n)
    near = float((np.abs(i[:, None] - i) <= REACH).mean())
    return {"near": near, "mirrored": near, "boundary": min(2 * EDGE, n) / n}


# ---------------------------------------------------------------- what came out


def summary(plan: Plan, runs: list[dict[str, Any]], maps: list[dict[str, Any]], figure: dict[str, Any]) -> Report:
    """Put runs and maps into tables and outcomes."""
    n, seeds = plan.recipe.model.n, ", ".join(map(str, plan.seeds))
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
        f"Mask and positions, diffusion, n = {n}, {plan.recipe.steps} steps of {plan.recipe.batch_size}, seeds {seeds}",
    )  # fmt: skip
    first = maps[0]
    shape = np.array(first["heads"]["near"]).shape
    heads = TableData(
        ("layer", "head", *MEASURES),
        [[layer + 1, head + 1, *(first["heads"][name][layer][head] for name in MEASURES)]
         for layer in range(shape[0]) for head in range(shape[1])],
        f"Heads with {MAIN}, seed {first['seed']}, over {plan.systems} unseen systems",
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
    least = {name: PREFERENCE * value for name, value in uniform(n).items()} | {"parity": ONE_SIDED}
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
    strong, earlier = int((np.abs(now) >= STRONG).sum()), int((np.abs(before) >= STRONG).sum())
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
        f"{start}. Of {numbers['heads']} heads ({numbers['seeds']} seeds), at least {PREFERENCE:g} times the mass of "
        f"uniform attention (parity: three quarters of all mass) falls on {listed}. The mean entropy of a row is "
        f"{numbers['entropy']:.2f} of that of uniform attention ({numbers['entropy_before']:.2f} before "
        f"training){depends}."
    )


def correlation_sentence(found: Outcome) -> str:
    """Say how the mass on a column correlates with something."""
    return (
        "Correlation of the mass on column j with {with_what}: {low:.2f} to {high:.2f}, at least "
        f"{STRONG:g} in size in {{heads}} of {{total}} heads ({{heads_before}} before training): "
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
