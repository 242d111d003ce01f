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
from algebraformer.reporting import Report, finite
from algebraformer.training import Recipe
from algebraformer.training.data import TEST_SEED, to_tensors
from studies.attention.report import EDGE_TOKENS, MAIN, NEAR_TOKENS, VARIANTS, summary
from studies.harness.runs import folder_name, run_once

CHUNK = 64
"""Systems whose maps are in memory at once."""


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
                    "parameters": trained.solver.network.parameter_count(),
                    "seconds": trained.seconds,
                }
            )
            if name == MAIN:
                found = look(trained.solver.model, systems)
                before = look(untrained(trained.solver.model, seed), systems)
                maps.append({"seed": seed, "heads": found.record(), "before": before.record()})
                figure = figure or {"seed": seed, "maps": as_text(found.average)}
            bar.advance(task)
    recipe = plan.recipe
    about = {"n": recipe.model.n, "steps": recipe.steps, "batch_size": recipe.batch_size, "systems": plan.systems}
    return summary(about, runs, maps, figure)


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
        Row i holds the weights that token i gives to the tokens j; rows add up to one.

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
        "near": share(average, np.abs(i[:, None] - i) <= NEAR_TOKENS),
        "mirrored": share(average, np.abs(i[:, None] + i - (n - 1)) <= NEAR_TOKENS),
        "boundary": share(average, np.broadcast_to((i < EDGE_TOKENS) | (i >= n - EDGE_TOKENS), (n, n))),
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
