"""Training systems, made in background workers so that the optimiser never waits for them.

A step's batch is addressed by the step's number alone, so training resumes anywhere and gets the same systems.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from algebraformer.problems import ProblemFamily, Systems, generator
from algebraformer.training.config import Recipe

VALIDATION_SEED = 2**63 + 1
TEST_SEED = 2**63 + 2
SCALER_SEED = 2**63 + 3
"""Seeds of the frozen sets; recipes have seeds below 2**62, so no training system is ever in one of these."""

VALIDATION_SIZE = 256
TEST_SIZE = 1000
SCALER_SIZE = 4096

Batch = tuple[Tensor, Tensor, Tensor]


def to_tensors(systems: Systems) -> Batch:
    """Return A (B, n, n), b (B, n) and x (B, n) as float64 tensors that share the arrays' memory."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)


class StepBatches(Dataset[Batch]):
    """The batch of every step: item s holds the systems of step s."""

    def __init__(self, family: ProblemFamily, recipe: Recipe) -> None:
        self.family, self.recipe = family, recipe

    def indices(self, step: int) -> np.ndarray:
        """Return the indices of the systems of a step: consecutive for fresh systems, shuffled for a fixed set."""
        size, samples = self.recipe.batch_size, self.recipe.samples
        if samples is None:
            return np.arange(step * size, (step + 1) * size)
        epoch, position = divmod(step, samples // size)  # what does not fill a batch waits for the next shuffle
        order = generator(self.recipe.seed, epoch, stream=1).permutation(samples)
        return order[position * size : (position + 1) * size]

    def __getitem__(self, step: int) -> Batch:
        return to_tensors(self.family.at(self.indices(step), self.recipe.seed))


def _start_worker(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group is the parent's business
        signal.signal(number, signal.SIG_IGN)
    threadpool_limits(limits=1)


def step_batches(
    family: ProblemFamily, recipe: Recipe, start: int, workers: int, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Yield the batches of steps start, start + 1, ..., recipe.steps - 1, made ahead of time by `workers` processes.

    Closing the generator ends the workers.
    """
    background: dict[str, Any] = {}
    if workers:
        forks = "fork" in multiprocessing.get_all_start_methods()
        background = {
            "prefetch_factor": 8,
            "worker_init_fn": _start_worker,
            "multiprocessing_context": "fork" if forks else None,  # families defined in a script need no import guard
        }
    loader = DataLoader(
        StepBatches(family, recipe),
        batch_size=None,
        sampler=range(start, recipe.steps),
        num_workers=workers,
        pin_memory=pin_memory,
        **background,
    )
    yield from loader
