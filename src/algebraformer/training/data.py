"""Training systems, made in background workers so that the optimiser never waits for them.

A step's batch is addressed by the step's number alone, so training resumes anywhere and gets the same systems.
"""

from __future__ import annotations

import multiprocessing
import signal
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from algebraformer.models import ModelConfig
from algebraformer.models import estimate as estimate_head
from algebraformer.numerics import operator_basis
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.problems import ProblemFamily, Systems, generator
from algebraformer.problems.base import CALIBRATION_SEED as CALIBRATION_SEED
from algebraformer.problems.base import SCALER_SEED as SCALER_SEED
from algebraformer.problems.base import TEST_SEED as TEST_SEED
from algebraformer.problems.base import VALIDATION_SEED as VALIDATION_SEED
from algebraformer.problems.sampling import batches
from algebraformer.training.config import Recipe
from algebraformer.training.monitor import SIGNALS, ProgressCallback, silent

VALIDATION_SIZE = 256
TEST_SIZE = 1000
SCALER_SIZE = 4096
"""Sizes of the frozen sets; fewer where n is large, see `limited`."""


def limited(size: int, n: int) -> int:
    """Return a number of systems of n unknowns: `size`, or what fits into one gigabyte, but 64 at least."""
    return min(size, max(64, 2**27 // n**2))


Batch = tuple[Tensor, ...]
Reader = OperatorBasis | ModelConfig | None
"""What decides what is read of a system: the basis of an operator head, the configuration of an estimate head; None for
a token head, which reads everything."""


def to_tensors(systems: Systems) -> Batch:
    """Return A (B, n, n), b (B, n) and x (B, n) as float64 tensors that share the arrays' memory."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)


class StepBatches(Dataset[Batch]):
    """The batch of every step: item s holds the systems of step s."""

    def __init__(self, family: ProblemFamily, recipe: Recipe, reader: Reader = None) -> None:
        self.family, self.recipe, self.reader = family, recipe, reader
        self.shuffled: tuple[int, np.ndarray] = (-1, np.empty(0))

    def indices(self, step: int) -> np.ndarray:
        """Return the indices of the systems of a step: consecutive for fresh systems, shuffled for a fixed set."""
        size, samples = self.recipe.batch_size, self.recipe.trained_on
        if samples is None:
            return np.arange(step * size, (step + 1) * size)
        epoch, position = divmod(step, samples // size)  # what does not fill a batch waits for the next shuffle
        if self.shuffled[0] != epoch:
            self.shuffled = epoch, generator(self.recipe.seed, epoch, stream=1).permutation(samples)
        return self.shuffled[1][position * size : (position + 1) * size]

    def __getitem__(self, step: int) -> Batch:
        return examples(self.family, self.reader, self.indices(step), self.recipe.seed)


class StoredExamples(Dataset[Batch]):
    """Consecutive parts of a fixed training set, for workers to make."""

    def __init__(self, family: ProblemFamily, reader: Reader, count: int, seed: int) -> None:
        self.family, self.reader, self.seed = family, reader, seed
        self.parts = list(batches(count, max(1, min(256, 2**24 // family.n**2))))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, part: int) -> Batch:
        return examples(self.family, self.reader, self.parts[part], self.seed)


def examples(family: ProblemFamily, reader: Reader, indices: Sequence[int] | NDArray[np.int64], seed: int) -> Batch:
    """Return what a model learns from the systems at these indices.

    For a token head A, b and x, float64; for an operator head z, c and weights, float32, see
    `OperatorBasis.coefficients`: no right-hand sides; for an estimate head what `models.estimate.examples` returns.
    """
    if reader is None:
        return to_tensors(family.at(indices, seed))
    if isinstance(reader, ModelConfig):
        systems = family.at(indices, seed)
        return estimate_head.examples(reader, systems.A, systems.b, systems.x, systems.params["noise"])
    z, c, weight = reader.coefficients(operator_basis.matrices(family, indices, seed))
    return tuple(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in (z, c, weight))


def store_examples(
    family: ProblemFamily, reader: Reader, count: int, seed: int, workers: int, report: ProgressCallback = silent
) -> Batch:
    """Return the examples of the first `count` systems that `seed` names, made by `workers` processes."""
    parts, found = StoredExamples(family, reader, count, seed), []
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
        chosen = torch.from_numpy(data.indices(step))
        yield tuple(tensor[chosen] for tensor in stored)
