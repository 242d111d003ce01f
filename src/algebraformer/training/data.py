"""Training systems, made in background workers so that the optimiser never waits for them.

A step's batch is addressed by the step's number alone, so training resumes anywhere and gets the same systems.
"""

from __future__ import annotations

import multiprocessing
import signal
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, Dataset

from algebraformer.models.heads.data import Batch, ExampleMaker, Sample, SystemExamples, TrainingData
from algebraformer.models.heads.data import to_tensors as to_tensors
from algebraformer.problems import ProblemFamily, generator
from algebraformer.problems.base import CALIBRATION_SEED as CALIBRATION_SEED
from algebraformer.problems.base import SCALER_SEED as SCALER_SEED
from algebraformer.problems.base import TEST_SEED as TEST_SEED
from algebraformer.problems.base import VALIDATION_SEED as VALIDATION_SEED
from algebraformer.progress import ProgressCallback, batches, silent
from algebraformer.training.monitor import SIGNALS
from algebraformer.training.recipes import FinetuneRecipe, Recipe

RESIDENT_BYTES = 2**31
"""Fixed training sets up to this size are kept on the device: the paper's 50,000 systems of 64 unknowns take 1.7 GB,
which leaves most of a GPU, and of a laptop's memory, to the network."""


def capped_sample_size(size: int, n: int) -> int:
    """Return a number of systems of n unknowns: `size`, or what fits into one gigabyte, but 64 at least."""
    return min(size, max(64, 2**27 // n**2))


def training_data(
    recipe: Recipe, family: ProblemFamily | None = None, readout: Callable[[], Batch] = tuple
) -> TrainingData:
    """Return what a recipe gives a head before the first step and after the last one.

    Parameters
    ----------
    recipe : Recipe
    family : ProblemFamily, optional
        That of the recipe, if it has been made already.
    readout : callable
        Returns the examples for the fit of a read-out.
    """
    family = family or recipe.problem_family()
    if isinstance(recipe, FinetuneRecipe):
        few = Sample(family, recipe.samples, recipe.seed)
        return TrainingData(
            scaler=few,
            basis=few,
            calibration=few,
            prior_scale_samples=recipe.prior_scale_samples,
            few=True,
            trained_on=recipe.trained_on,
            readout=readout,
        )
    calibration = capped_sample_size(recipe.calibration_samples, family.n)
    return TrainingData(
        scaler=Sample(family, capped_sample_size(recipe.scaler_samples, family.n), SCALER_SEED),
        basis=Sample(family, recipe.basis_samples, SCALER_SEED),
        calibration=Sample(family, calibration, CALIBRATION_SEED),
        prior_scale_samples=recipe.prior_scale_samples,
        few=False,
        trained_on=0,
        readout=readout,
    )


class StepBatches(Dataset[Batch]):
    """The batch of every step: item s holds the systems of step s, or a share of them."""

    def __init__(
        self,
        family: ProblemFamily,
        recipe: Recipe,
        maker: ExampleMaker | None = None,
        share: slice = slice(None),
    ) -> None:
        self.family, self.recipe, self.maker, self.share = family, recipe, maker or SystemExamples(), share
        self.shuffled: tuple[int, np.ndarray] = (-1, np.empty(0))

    def indices(self, step: int) -> np.ndarray:
        """Return the indices of the systems of a step: consecutive for fresh systems, shuffled for a fixed set."""
        size, samples = self.recipe.batch_size, self.recipe.trained_on
        if samples is None:
            return np.arange(step * size, (step + 1) * size)[self.share]
        epoch, position = divmod(step, samples // size)  # what does not fill a batch waits for the next shuffle
        if self.shuffled[0] != epoch:
            self.shuffled = epoch, generator(self.recipe.seed, epoch, stream=1).permutation(samples)
        return self.shuffled[1][position * size : (position + 1) * size][self.share]

    def __getitem__(self, step: int) -> Batch:
        return self.maker(self.family, self.indices(step), self.recipe.seed)


def is_resident(recipe: Recipe, family: ProblemFamily, maker: ExampleMaker) -> bool:
    """Say whether the training set is made once and kept on the device, where steps only pick their systems.

    So are fixed sets of compact examples, and all that fit into `RESIDENT_BYTES`. The systems of other sets, and fresh
    ones, are made for each step anew by workers.
    """
    if recipe.samples is None or maker.compact:
        return recipe.samples is not None
    single = maker(family, np.arange(1), recipe.seed)
    return recipe.samples * sum(part.nbytes for part in single) <= RESIDENT_BYTES


class StoredExamples(Dataset[Batch]):
    """Consecutive parts of a fixed training set, for workers to make."""

    def __init__(self, family: ProblemFamily, maker: ExampleMaker, count: int, seed: int) -> None:
        self.family, self.maker, self.seed = family, maker, seed
        self.parts = list(batches(count, max(1, min(256, 2**24 // family.n**2))))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, part: int) -> Batch:
        return self.maker(self.family, self.parts[part], self.seed)


def store_examples(
    family: ProblemFamily, maker: ExampleMaker, count: int, seed: int, workers: int, report: ProgressCallback = silent
) -> Batch:
    """Return the examples of the first `count` systems that `seed` names, made by `workers` processes."""
    parts, found = StoredExamples(family, maker, count, seed), []
    report(0, len(parts))
    with closing(made_ahead(parts, range(len(parts)), workers, pin_memory=False)) as made:
        for part in made:
            found.append([tensor.clone() for tensor in part])  # out of the workers' shared memory
            report(len(found), len(parts))
    return tuple(torch.cat(tensors) for tensors in zip(*found, strict=True))


def _start_worker(_: int) -> None:
    for number in SIGNALS:  # a signal to the whole group is the parent's business
        signal.signal(number, signal.SIG_IGN)
    threadpool_limits(limits=1)


def made_ahead(
    data: Dataset[Batch], order: Sequence[int], workers: int, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Yield data[i] for i in order, made ahead of time by `workers` processes; closing the generator ends these."""
    background: dict[str, Any] = {}
    if workers:
        forks = "fork" in multiprocessing.get_all_start_methods()
        background = {
            "prefetch_factor": 8,
            "worker_init_fn": _start_worker,
            "multiprocessing_context": "fork" if forks else None,  # families defined in a script need no import guard
        }
    others = multiprocessing.active_children()
    made = iter(
        DataLoader(data, batch_size=None, sampler=order, num_workers=workers, pin_memory=pin_memory, **background)
    )
    started = [child for child in multiprocessing.active_children() if child not in others]
    try:
        yield from made
    finally:
        alive = weakref.ref(made)
        del made  # asks the workers to end and waits for some seconds
        if alive() is None:
            for worker in started:  # deep in a system that takes longer
                worker.kill()
                worker.join()


def step_batches(
    data: StepBatches, start: int, workers: int, pin_memory: bool, stored: Batch | None = None
) -> Generator[Batch, None, None]:
    """Yield the batches of steps start, start + 1, ..., recipe.steps - 1, from a stored training set if there is one.

    Closing the generator ends the workers.
    """
    steps = range(start, data.recipe.steps)
    if stored is None:
        yield from made_ahead(data, steps, workers, pin_memory)
        return
    for step in steps:
        chosen = torch.from_numpy(data.indices(step)).to(stored[0].device)
        yield tuple(tensor[chosen] for tensor in stored)
