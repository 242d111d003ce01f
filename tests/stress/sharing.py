"""One solver in many threads and processes: the same bits as one call after the other, and nothing global touched."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from algebraformer import problems
from algebraformer.solver import LearnedSolver
from tests import fakes
from tests.stress.base import Check

MODELS = ("diffusion-64", "diffusion-64-token")
THREADS, PROCESSES = 8, 4


def answers(solver: LearnedSolver, seed: int) -> tuple[bytes, dict[str, Any]]:
    """Solve a few systems, some of the family and some not; return the bits of x and everything else."""
    systems = problems.from_settings(solver.info.family).sample(4, seed)
    A = systems.A.copy()
    A[3] = np.eye(solver.n) + np.random.default_rng(seed).standard_normal(A.shape[1:]) / solver.n
    result = solver.solve(A, systems.b)
    return result.x.tobytes(), result.record()


def state() -> tuple[Any, ...]:
    """Return what is global: threads of torch and BLAS, generators, default type and gradients of torch."""
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return (
        torch.get_num_threads(),
        torch.get_num_interop_threads(),
        sorted((info["filepath"], info["num_threads"]) for info in threadpool_info()),
        torch.get_rng_state().numpy().tobytes(),
        legacy["key"].tobytes(),
        legacy["pos"],
        random.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        np.geterr(),
    )


_SHARED: list[LearnedSolver] = []


def _receive(solver: LearnedSolver, threads: int) -> None:
    """Set up a worker process: one thread of BLAS, as many of torch as in the parent, and the solver."""
    threadpool_limits(1, "blas")
    torch.set_num_threads(threads)
    _SHARED.append(solver)


def _answers_of_the_shared(seed: int) -> tuple[bytes, dict[str, Any]]:
    return answers(_SHARED[0], seed)


def check(jobs: int, models: Sequence[str] = MODELS, threads: int = THREADS, processes: int = PROCESSES) -> Check:
    """Solve the same jobs one after the other, in threads and in processes that share one solver."""
    failures: list[str] = []
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with threadpool_limits(1, "blas"):
        for name in models:
            solver = fakes.shipped(name)
            serial = [answers(solver, seed) for seed in range(jobs)]
            counts.update(f"systems {status}" for _, record in serial for status in record["status"])
            before = state()
            with ThreadPoolExecutor(threads) as pool:
                in_threads = list(pool.map(lambda seed, solver=solver: answers(solver, seed), range(jobs)))
            changed = [i for i, (one, other) in enumerate(zip(before, state(), strict=True)) if one != other]
            failures += [f"{name}: global state {changed} was changed"] * bool(changed)
            arguments = (solver, torch.get_num_threads())
            with ProcessPoolExecutor(processes, context, _receive, arguments) as workers:
                in_processes = list(workers.map(_answers_of_the_shared, range(jobs)))
            for way, found in (("threads", in_threads), ("processes", in_processes)):
                different = [i for i in range(jobs) if found[i] != serial[i]]
                failures += [f"{name}: jobs {different[:5]} differ in {way}"] * bool(different)
    claim = (
        f"{threads} threads and {processes} processes that share a solver give the bits of a serial run; threads of "
        "torch and BLAS, generators and settings stay as they were"
    )
    return Check("threads and processes", claim, 2 * jobs * len(models), failures, dict(counts))
