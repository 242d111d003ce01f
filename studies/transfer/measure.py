"""What pre-training on diffusion is worth for other families of which few systems are known.

A network that knows diffusion is fine-tuned on N systems of another family, and one with new weights and the same
architecture learns from the same N systems. For both every point of a curve is the end of a run of its own, whose
learning rate has gone to zero: no curve is judged in the middle of its schedule. Scaler or basis, read-out and
calibration come from the N systems in both (`training.FinetuneRecipe`).

What is tried first: every variant with every learning rate, on the N systems of the first seed, for the same number of
epochs in every trial of a kind. The lowest normalized_mse on the frozen validation set of 256 systems, which is none of
the N and not the test set, decides; then all lengths are run with all seeds. A seed stands for N systems, their order
and the new weights; the network that knows diffusion is the same for all.

An epoch of an operator head goes through the four fifths of the N systems that steps are taken on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import Progress

from algebraformer.checkpoint import load, resolve
from algebraformer.metrics import score
from algebraformer.models import Algebraformer, ModelConfig, OperatorConfig
from algebraformer.reporting import Report
from algebraformer.result import plain
from algebraformer.training import RECIPES, FinetuneRecipe, Recipe, fine_tuning
from algebraformer.training.data import VALIDATION_SEED, capped_sample_size
from studies.harness.runs import folder_name, run_once
from studies.transfer.report import FINE, SCRATCH, summary, validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to begin."""

    name: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of `FinetuneRecipe`."""
    whiten: bool = False
    """Read whitened entries; the basis is refitted then."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A kind of network, where it comes from and what is tried."""

    name: str
    start: str | Recipe
    """Name of the shipped model that knows diffusion, or the recipe of one that is trained first."""
    batch_sizes: tuple[int, ...]
    """Systems per step, for every task."""
    fine: tuple[Variant, ...]
    scratch: tuple[Variant, ...] = (Variant(name="new weights"),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run."""

    heads: tuple[Head, ...]
    tasks: tuple[tuple[str, int], ...]
    """Families and numbers N of their systems."""
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    """Factors of the learning rates that the start was trained with."""
    tuning: dict[str, int]
    """Epochs of a trial, by kind."""
    lengths: dict[str, tuple[int, ...]]
    """Epochs of the runs, by kind, ascending."""
    references: tuple[int, ...]
    """Lengths from scratch whose final error fine-tuning is to reach, ascending."""


TOKEN = (
    Variant(name="scaler refitted"),
    Variant(name="scaler kept", settings={"scaler": "kept"}),
    Variant(name="scaler refitted, rates halved per layer", settings={"layer_decay": 0.5}),
    Variant(name="scaler refitted, first block frozen", settings={"frozen": 1}),
)
OPERATOR = (
    Variant(name="basis kept", settings={"basis": "kept"}),
    Variant(name="basis extended", settings={"basis": "extended"}),
    Variant(name="basis refitted"),
    Variant(name="basis refitted, whitened", whiten=True),
    Variant(name="basis refitted, rates halved per layer", settings={"layer_decay": 0.5}),
    Variant(name="basis refitted, first block frozen", settings={"frozen": 1}),
)
NEW_OPERATOR = (Variant(name="new weights"), Variant(name="new weights, whitened", whiten=True))
TASKS = (("reaction-diffusion", 250), ("advection-diffusion", 1_500))
"""Those of the paper."""
RATES = (1 / 3, 1.0, 3.0)


def quick_heads() -> tuple[Head, ...]:
    """Return both heads at n = 16 and toy sizes."""
    sizes: dict[str, Any] = {
        "scaler_samples": 128,
        "basis_samples": 128,
        "calibration_samples": 128,
        "validation_systems": 64,
        "test_systems": 200,
    }
    token = dataclasses.replace(RECIPES["quick"], steps=250, batch_size=32, **sizes)
    model = ModelConfig(
        n=16, head=OperatorConfig(rank=12, n_column=8, n_row=8), architecture="mlp", n_layer=2, n_head=1, n_embd=32
    )
    operator = dataclasses.replace(token, model=model, samples=1_000, lr=3e-3)
    return (
        Head(name="token head", start=token, batch_sizes=(20, 20), fine=TOKEN),
        Head(name="operator head", start=operator, batch_sizes=(16, 24), fine=OPERATOR, scratch=NEW_OPERATOR),
    )


SHIPPED_OPERATOR = Head(
    name="operator head", start="diffusion-64", batch_sizes=(100, 600), fine=OPERATOR, scratch=NEW_OPERATOR
)
SMALL_TOKEN = Recipe(model=ModelConfig(n=24, n_layer=2, n_head=4, n_embd=32), steps=12_000)
"""The token head of the preset cpu: at n = 64 and the size of diffusion-64-token, 1,500 systems a thousand times over
take an hour and a half on a core."""

PRESETS = {
    "quick": Plan(
        heads=quick_heads(),
        tasks=(("reaction-diffusion", 40), ("advection-diffusion", 60)),
        seeds=(0, 1, 2),
        rates=(1.0, 3.0),
        tuning={SCRATCH: 2, FINE: 2},
        lengths={SCRATCH: (2, 10, 20), FINE: (1, 3)},
        references=(10, 20),
    ),
    "cpu": Plan(
        heads=(Head(name="token head", start=SMALL_TOKEN, batch_sizes=(50, 300), fine=TOKEN), SHIPPED_OPERATOR),
        tasks=TASKS,
        seeds=(0, 1, 2),
        rates=RATES,
        tuning={SCRATCH: 100, FINE: 20},
        lengths={SCRATCH: (10, 30, 100, 500, 1_000), FINE: (1, 2, 5, 10, 20, 50, 100)},
        references=(500, 1_000),
    ),
    "paper": Plan(
        heads=(
            Head(name="token head", start=RECIPES["paper"], batch_sizes=(50, 50), fine=TOKEN),
            Head(name="small token head", start="diffusion-64-token", batch_sizes=(50, 50), fine=TOKEN),
            dataclasses.replace(SHIPPED_OPERATOR, batch_sizes=(50, 200)),
        ),
        tasks=TASKS,
        seeds=(0, 1, 2, 3, 4),
        rates=RATES,
        tuning={SCRATCH: 300, FINE: 50},
        lengths={SCRATCH: (10, 20, 50, 100, 200, 500, 1_000), FINE: (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)},
        references=(500, 1_000),
    ),
}


def run(plan: Plan, folder: Path, bar: Progress) -> Report:
    """Train what is missing, then put the scores together."""
    trials = sum(len(head.fine) + len(head.scratch) for head in plan.heads) * len(plan.rates)
    lengths = len(plan.heads) * len(plan.seeds) * sum(map(len, plan.lengths.values()))
    task = bar.add_task("transfer", total=len(plan.heads) + len(plan.tasks) * (trials + lengths))
    records: list[dict[str, Any]] = []
    for head in plan.heads:
        start = known(head, folder)
        initial = load(resolve(start))[0]
        bar.advance(task)
        about: dict[str, Any] = {"head": head.name, "type": initial.config.head.name, "n": initial.config.n}
        about["parameters"] = initial.parameter_count()
        for number, (family, samples) in enumerate(plan.tasks):
            for kind, variants in ((SCRATCH, head.scratch), (FINE, head.fine)):
                for entry in curve(plan, Setup(head, start, family, samples, number, kind), variants, initial, folder):
                    records.append(about | {"family": family, "samples": samples, "kind": kind} | entry)
                    bar.advance(task)
    return summary(records, plan.seeds, plan.references)


@dataclasses.dataclass(frozen=True)
class Setup:
    """One curve: which head on which task, from scratch or not."""

    head: Head
    start: str
    family: str
    samples: int
    number: int
    kind: str

    def recipe(
        self, variant: Variant, rate: float, epochs: int, seed: int, initial: Algebraformer
    ) -> tuple[FinetuneRecipe, Algebraformer | None]:
        """Return the recipe of a run and what it starts from."""
        model = initial.config.with_head(whiten=variant.whiten) if variant.whiten else initial.config
        recipe, found = fine_tuning(
            self.start,
            self.family,
            self.samples,
            epochs=epochs,
            batch_size=self.head.batch_sizes[self.number],
            seed=seed,
            model=model,
            **variant.settings,
        )
        recipe = dataclasses.replace(recipe, lr=rate * recipe.lr, muon_lr=rate * recipe.muon_lr)
        return (recipe, found) if self.kind == FINE else (dataclasses.replace(recipe, start={}), None)


def curve(
    plan: Plan, setup: Setup, variants: tuple[Variant, ...], initial: Algebraformer, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield what every trial gave, then every run of the best one; a run is named by what it is."""

    def done(variant: Variant, rate: float, epochs: int, seed: int) -> dict[str, Any]:
        words = setup.head.name, setup.family, variant.name, f"rate{rate:.3g}", f"epochs{epochs}", f"seed{seed}"
        output = folder / folder_name(*words)
        about = {"variant": variant.name, "rate": rate, "epochs": epochs, "seed": seed}
        return about | measured(*setup.recipe(variant, rate, epochs, seed, initial), output)

    trials = []
    for variant in variants:
        for rate in plan.rates:
            trials.append((variant, done(variant, rate, plan.tuning[setup.kind], plan.seeds[0])))
            yield trials[-1][1] | {"trial": True}
    best, trial = min(trials, key=lambda tried: validation(tried[1]))
    for seed in plan.seeds:
        for epochs in plan.lengths[setup.kind]:
            yield done(best, trial["rate"], epochs, seed) | {"trial": False}


def known(head: Head, folder: Path) -> str:
    """Return name or folder of the network that knows diffusion, trained first if it does not ship."""
    if isinstance(head.start, str):
        return head.start
    output = folder / folder_name(head.name, "start")
    run_once(head.start, output)
    return str(output)


def measured(recipe: FinetuneRecipe, initial: Algebraformer | None, output: Path) -> dict[str, float | None]:
    """Return normalized_mse on the frozen test set and on the frozen validation set, None if not finite."""
    solver, record = run_once(recipe, output, initial=initial).solver, output / "validation.json"
    if not record.exists():
        size = capped_sample_size(recipe.validation_systems, recipe.model.n)
        systems = recipe.problem_family().sample(size, VALIDATION_SEED)
        found = score(solver.network, systems)["normalized_mse"]
        record.write_text(json.dumps(plain(found)))
    return {"normalized_mse": solver.info.scores.get("normalized_mse"), "validation": json.loads(record.read_text())}
