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

Uniform attention and the same network before training stand beside them: what they have is no result of learning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.models.bodies import Attention, Block, Transformer
from algebraformer.problems import Systems
from algebraformer.reporting import Cell, Report, TableData, finite
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED, to_tensors
from studies.harness.runs import folder_name, run_once
from studies.harness.statistics import compared, deviation, difference, in_words
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
CLEAR = 2.0
"""A head is said to look somewhere if its mass there is this many times that of uniform attention."""
ONE_SIDED = 0.5
"""A head is said to tell even from odd columns if its parity is at least this."""
STRONG = 0.3
"""Correlations of at least this size are counted."""
SOME = 1 / 8
"""The share of the heads that has to have it, for learned to be said of them."""
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
    fresh.token_head.scaler.load_state_dict(model.token_head.scaler.state_dict())
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
    if not isinstance(model.body, Transformer) or model.config.head.name != "token":
        expected = "attention maps are those of a transformer with a token head"
        raise ConfigurationError(f"{expected}, received {model.config.architecture} with head {model.config.head.name}")
    A, b, _ = model.token_head.scaler(*to_tensors(systems)[:2])
    h, found = model.tokens(model.token_head.read(A.float(), b.float())), []
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
        A_z, b_z, _ = (part.numpy() for part in model.token_head.scaler(A, b))
        b_scaled = model.token_head.scaler.scaled(A, b)[1].numpy()
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
    """Put runs and maps into tables and sentences."""
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
    return Report((main, average, heads), verdict(plan, runs, maps), data)


def scores(runs: Sequence[dict[str, Any]], variant: str) -> list[float]:
    """Return the normalized_mse of a variant, one for each seed."""
    return [float(one["normalized_mse"]) for one in where(runs, variant=variant)]


def verdict(plan: Plan, runs: list[dict[str, Any]], maps: list[dict[str, Any]]) -> list[str]:
    """Return plain sentences."""
    by = {name: scores(runs, name) for name in VARIANTS}
    both, causal = by[MAIN], by["causal, positions"]
    speaks = {
        "higher": "which speaks for attention in both directions",
        "lower": "which speaks for the mask",
        "as high": "so the mask makes no difference that these seeds show",
    }[compared(causal, both)]
    lines = [
        f"Attention in both directions: normalized_mse {in_words(both)}; with a causal mask {in_words(causal)}, "
        f"{difference(causal, both)}, {speaks}.",
    ]
    for mask, name in (("in both directions", "both directions"), ("with a causal mask", "causal")):
        without, placed = by[f"{name}, no positions"], by[f"{name}, positions"]
        lines.append(
            f"Without positions, {mask}: {in_words(without)} against {in_words(placed)} with them, "
            f"{difference(without, placed)}."
        )
    return [*lines, where_heads_look(plan.recipe.model.n, maps), what_heads_follow(maps)]


def where_heads_look(n: int, maps: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on the places that heads prefer."""
    least, total = {name: CLEAR * value for name, value in uniform(n).items()}, heads_of(maps, "heads", "near").size
    least["parity"] = ONE_SIDED
    places = {
        "near": "tokens near their own",
        "mirrored": "tokens near the mirrored position",
        "boundary": "the boundary columns",
        "parity": "columns of one parity",
    }
    counts, earlier = ({name: clear(maps, key, name, least[name]) for name in least} for key in ("heads", "before"))
    listed = ", ".join(f"{places[name]} in {counts[name]} (before training {earlier[name]})" for name in least)
    width, before = (float(heads_of(maps, key, "entropy").mean()) for key in ("heads", "before"))
    differs = float(heads_of(maps, "heads", "differs").mean())
    depends = f"{100 * differs / (1 - width):.0f} % of what is missing" if width < 1 else "nothing is missing, so none"
    best = max(counts, key=counts.__getitem__)
    if counts[best] >= total / 4:
        pattern = f"The commonest preference of heads is for {places[best]}"
    else:
        pattern = "No place is preferred by a quarter of the heads"
    seeds = f"{len(maps)} seed{'s' if len(maps) > 1 else ''}"
    return (
        f"{pattern}: of {total} heads ({seeds}), {CLEAR:g} times the mass of uniform attention or more, or three "
        f"quarters of all mass where it is parity, goes to {listed}; the entropy of a row is {width:.2f} of that of "
        f"uniform attention in the mean (before training {before:.2f}), and {depends} depends on the system, not on "
        "the positions alone."
    )


def what_heads_follow(maps: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on what the mass on a column correlates with."""
    names = {
        "to b": "b_j within a system",
        "to |b|": "|b_j| within a system",
        "to column": "the size of column j within a system",
        "to spread of b": "the spread of b_j over the family",
    }
    parts, learned = [], []
    for name, what in names.items():
        now, before = heads_of(maps, "heads", name), heads_of(maps, "before", name)
        strong, earlier = int((np.abs(now) >= STRONG).sum()), int((np.abs(before) >= STRONG).sum())
        parts.append(f"{what} {now.min():.2f} to {now.max():.2f}, in {strong} heads (before training {earlier})")
        if strong > 2 * earlier and strong >= SOME * now.size:
            learned.append(f"{strong} of {now.size} heads have learned to follow {what}")
    found = " and ".join(learned) if learned else "no such correlation is what heads have learned"
    return (
        f"Correlation of the mass that falls on column j, and in how many heads it is {STRONG:g} or more in size: with "
        f"{'; with '.join(parts)}. So {found}."
    )


def heads_of(maps: Sequence[dict[str, Any]], key: str, name: str) -> FloatArray:
    """Return a measure of all heads of all seeds."""
    return np.concatenate([np.ravel(one[key][name]) for one in maps])


def clear(maps: Sequence[dict[str, Any]], key: str, name: str, least: float) -> int:
    """Return how many heads have at least so much of a measure."""
    return int((heads_of(maps, key, name) >= least).sum())
